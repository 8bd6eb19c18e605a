//! The one way to AWS: every call is timed, counted and its error put into a class here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::task::JoinSet;

use super::errors;
use crate::model::{CallError, ErrorClass};
use crate::ports::Recorder;

/// An operation by IAM's names: service prefix and action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// As in `ecs`.
    pub(super) service: &'static str,
    /// As in `DeleteTaskSet`.
    pub(super) name: &'static str,
}

impl Operation {
    pub(super) const fn new(service: &'static str, name: &'static str) -> Self {
        Self { service, name }
    }

    /// An error of this operation that AWS did not send.
    pub(super) fn error(self, class: ErrorClass, message: impl Into<String>) -> CallError {
        CallError { class, operation: self.to_string(), code: None, message: message.into() }
    }

    /// The answer lacks a field on which decisions rest. Another read may have it; none may be guessed.
    pub(super) fn incomplete(self, field: &str) -> CallError {
        self.error(ErrorClass::Transient, format!("the answer has no {field}"))
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.service, self.name)
    }
}

/// Sends calls and tells the recorder of each.
#[derive(Clone)]
pub(super) struct Calls {
    recorder: Arc<dyn Recorder>,
}

impl Calls {
    pub(super) fn new(recorder: Arc<dyn Recorder>) -> Self {
        Self { recorder }
    }

    /// Sends one call.
    pub(super) fn send<T, E>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> impl Future<Output = Result<T, CallError>>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.send_entries(operation, call, |_| None)
    }

    /// Sends one call whose answer may be a refusal of single entries: it counts as what became of the first that was refused.
    pub(super) async fn send_entries<T, E>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        refused: impl FnOnce(&T) -> Option<ErrorClass>,
    ) -> Result<T, CallError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut timer = Timer::start(operation, &*self.recorder);
        let result = call.await.map_err(|error| errors::classify(operation, &error));
        let failed = result.as_ref().map_or_else(|error| Some(error.class), refused);
        timer.outcome = failed.map_or("ok", ErrorClass::as_str);
        result
    }
}

/// Records when dropped, so that a call whose caller gave up is counted too.
struct Timer<'a> {
    recorder: &'a dyn Recorder,
    operation: Operation,
    started: Instant,
    outcome: &'static str,
}

impl<'a> Timer<'a> {
    fn start(operation: Operation, recorder: &'a dyn Recorder) -> Self {
        Self { recorder, operation, started: Instant::now(), outcome: ErrorClass::Transient.as_str() }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let took: Duration = self.started.elapsed();
        self.recorder.call(self.operation.service, self.operation.name, self.outcome, took);
    }
}

/// How many calls one read sends at a time. A load balancer may have 50 listeners and the rate limits of ELB are
/// unpublished; eight keep a read short without a burst.
const AT_ONCE: usize = 8;

/// Runs independent calls side by side, a few at a time, and gives their answers in the order asked. The first error
/// ends all.
pub(super) async fn side_by_side<T, F>(calls: impl IntoIterator<Item = F>) -> Result<Vec<T>, CallError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, CallError>> + Send + 'static,
{
    let mut waiting = calls.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((index, call)) = waiting.next()
        {
            running.spawn(async move { (index, call.await) });
        }
        match running.join_next().await {
            Some(Ok((index, answer))) => answers.push((index, answer?)),
            Some(Err(died)) => {
                return Err(Operation::new("aws", "call").error(ErrorClass::Transient, died.to_string()));
            }
            None => break,
        }
    }
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
