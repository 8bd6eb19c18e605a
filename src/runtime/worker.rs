//! The worker: puts the parts together, begins where the journal ends, and ends in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::entry;
use super::executor::{Executor, Observe};
use super::health::{Health, Part};
use super::machine::Machine;
use super::pump::{Arrival, Decoder, Pump};
use super::receipts::Custodian;
use super::reload::{self, Reload, RuleLoader};
use super::sweep::Sweep;
use super::turn::{Question, Turn};
use crate::engine::{self, Engine, Input, Report, StatusView};
use crate::model::Timestamp;
use crate::ports::{Actuator, Announcer, Clock, Fleet, Inbox, Journal, JournalError};
use crate::rules::RuleSet;
use crate::telemetry::Metrics;

/// Answers, sweeps and rules on their way to the loop.
const CONTROL: usize = 256;
/// Signals on their way to the loop. When it is full, the pump stops receiving and the queue holds the rest.
const SIGNALS: usize = 256;
/// Status questions on their way to the loop.
const QUESTIONS: usize = 16;
/// A status question that waits longer than this has no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Sees every report, after its inputs are durable, with the time of its step.
pub type Hook = Arc<dyn Fn(&Report, Timestamp) + Send + Sync>;

/// Everything outside.
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The queue.
    pub inbox: Arc<dyn Inbox>,
    /// Lists services.
    pub fleet: Arc<dyn Fleet>,
    /// Reads a service.
    pub observer: Arc<dyn Observe>,
    /// `None`: a dry run, which has nothing to write with.
    pub actuator: Option<Arc<dyn Actuator>>,
    /// `None`: announcements go to the log alone.
    pub announcer: Option<Arc<dyn Announcer>>,
    /// Durable state.
    pub journal: Arc<dyn Journal>,
    /// Reads a message body.
    pub decode: Decoder,
    /// Reads the rule files.
    pub rules: RuleLoader,
}

/// How the worker was started.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For the engine.
    pub engine: engine::Settings,
    /// Long polls at once.
    pub receivers: usize,
}

/// The worker can't begin, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The rule files are bad at start, when there are no last good rules.
    #[error("the rule files are bad:\n{0}")]
    Rules(String),
    /// The journal can't be read at start, or not be written at the end.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds what this version does not understand.
    #[error(
        "the journal holds {what} that this version can't read: {cause}. Run the version that wrote it, or move the \
         journal away: protection then begins anew from what AWS says"
    )]
    Incompatible {
        /// Checkpoint or entry.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// An input can't be written.
    #[error("an input can't be written to the journal: {0}")]
    Encode(String),
    /// A part ended that should not have.
    #[error("the {part} ended unexpectedly: {cause}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        cause: String,
    },
}

impl WorkerError {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(crate) fn encode(error: serde_json::Error) -> Self {
        Self::Encode(error.to_string())
    }
}

/// One worker, not begun yet.
pub struct Worker {
    ports: Ports,
    settings: Settings,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    hooks: Vec<Hook>,
    reload: Arc<Notify>,
    questions: (mpsc::Sender<Question>, mpsc::Receiver<Question>),
    started_at: Timestamp,
}

/// What the outside may ask of a running worker.
#[derive(Clone)]
pub struct Handle {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    reload: Arc<Notify>,
    questions: mpsc::Sender<Question>,
    started_at: Timestamp,
}

/// The process behind the status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerView {
    /// Version of the program.
    pub version: &'static str,
    /// When it was started.
    pub started_at: Timestamp,
    /// All parts work.
    pub ready: bool,
    /// Parts that don't, each with the reason.
    pub not_ready: Vec<String>,
    /// The newest time that AWS gave in an event.
    pub last_event_at: Option<Timestamp>,
}

/// The answer to a status question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusReply {
    /// The process.
    pub worker: WorkerView,
    /// What the engine knows.
    #[serde(flatten)]
    pub state: StatusView,
}

impl Handle {
    /// Liveness and readiness.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The metrics registry.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Now, by the worker's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads the rule files again, now.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// The whole state; `None` when the loop does not answer, as while it begins or ends.
    pub async fn status(&self) -> Option<StatusReply> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.questions.send(reply).await.ok()?;
            answer.await.ok()
        };
        let state = tokio::time::timeout(ANSWER_WITHIN, ask).await.ok()??;
        let not_ready: Vec<_> =
            self.health.missing().into_iter().map(|(part, reason)| format!("{part}: {reason}")).collect();
        let worker = WorkerView {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.started_at,
            ready: not_ready.is_empty(),
            not_ready,
            last_event_at: self.health.last_event(),
        };
        Some(StatusReply { worker, state })
    }
}

/// The engine as the journal left it.
struct Recalled<M> {
    machine: M,
    entries: usize,
    latest: Timestamp,
}

impl Worker {
    /// Puts it together; nothing runs yet.
    pub fn new(ports: Ports, settings: Settings, metrics: Arc<Metrics>, hooks: Vec<Hook>) -> Self {
        let started_at = ports.clock.now();
        Self {
            ports,
            settings,
            metrics,
            health: Arc::default(),
            hooks,
            reload: Arc::default(),
            questions: mpsc::channel(QUESTIONS),
            started_at,
        }
    }

    /// For those who ask while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            clock: Arc::clone(&self.ports.clock),
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            reload: Arc::clone(&self.reload),
            questions: self.questions.0.clone(),
            started_at: self.started_at,
        }
    }

    /// Guards until `shutdown`, then ends in order: no new receive, those in flight are waited for, their signals are
    /// made durable and their messages deleted, what was sent is answered, the state is kept.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let settings = self.settings.engine;
        let restore = move |state: Option<Vec<u8>>| match state {
            Some(state) => Engine::restore(settings, &state),
            None => Ok(Engine::new(settings)),
        };
        self.run_machine(restore, shutdown).await
    }

    pub(crate) async fn run_machine<M: Machine>(
        self,
        restore: impl FnOnce(Option<Vec<u8>>) -> Result<M, String>,
        shutdown: CancellationToken,
    ) -> Result<(), WorkerError> {
        let rules = reload::load(&self.ports.rules).await.map_err(WorkerError::Rules)?;
        self.metrics.reload(true);
        self.health.set(Part::Rules, Ok(()));
        let recalled = recall(&*self.ports.journal, restore).await?;
        self.health.set(Part::Journal, Ok(()));
        self.start(recalled, rules, shutdown).await
    }

    /// Begins all parts and waits for their end. Any part that ends on its own ends the worker: half a worker is worse
    /// than a restart.
    async fn start<M: Machine>(
        self,
        recalled: Recalled<M>,
        rules: RuleSet,
        shutdown: CancellationToken,
    ) -> Result<(), WorkerError> {
        let Self { ports, settings, metrics, health, hooks, reload, questions: (_, questions), started_at: _ } = self;
        let Ports { clock, inbox, fleet, observer, actuator, announcer, journal, decode, rules: loader } = ports;
        let Recalled { machine, entries, latest } = recalled;
        let (control, control_inputs) = mpsc::channel(CONTROL);
        let (signals, arrivals) = mpsc::channel::<Arrival>(SIGNALS);
        let (receipts, told) = mpsc::unbounded_channel();
        let (in_force, rules_seen) = watch::channel(Arc::new(rules.clone()));
        // The parts stop at shutdown, or when one of them has failed.
        let stop = shutdown.child_token();
        let mut parts: JoinSet<(&'static str, Result<(), WorkerError>)> = JoinSet::new();

        let known: BTreeSet<_> = machine.status(clock.now()).services.into_iter().map(|view| view.service).collect();
        let sweep = Sweep {
            clock: Arc::clone(&clock),
            fleet,
            control: control.clone(),
            in_force: rules_seen,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            every: settings.engine.sweep,
            known,
        };
        parts.spawn(quiet("sweep", sweep.run(stop.clone())));

        let reload = Reload {
            clock: Arc::clone(&clock),
            loader,
            control: control.clone(),
            in_force,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            wanted: reload,
        };
        parts.spawn(quiet("rule reload", reload.run(stop.clone())));

        let pump = Arc::new(Pump {
            clock: Arc::clone(&clock),
            inbox: Arc::clone(&inbox),
            decode,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            signals,
            receipts: receipts.clone(),
            complained: std::sync::Mutex::default(),
        });
        for _ in 0..settings.receivers {
            parts.spawn(quiet("receiver", Arc::clone(&pump).receive(stop.clone())));
        }
        drop(pump);

        parts.spawn(quiet("message custodian", Custodian::new(Arc::clone(&clock), inbox, told).run()));

        let turn = Turn {
            machine,
            executor: Executor::new(Arc::clone(&clock), observer, actuator, announcer, control),
            clock,
            journal,
            metrics,
            health,
            hooks,
            control: control_inputs,
            signals: arrivals,
            questions,
            receipts,
            shutdown: stop.clone(),
            entries,
            latest,
        };
        parts.spawn(async move { ("engine loop", turn.run(vec![Input::Restarted, Input::Rules(rules)]).await) });

        let mut first_error = None;
        while let Some(ended) = parts.join_next().await {
            let error = match ended {
                Ok((_, Err(error))) => Some(error),
                Ok((part, Ok(()))) if !stop.is_cancelled() => {
                    Some(WorkerError::Part { part, cause: "it just returned".to_owned() })
                }
                Ok((_, Ok(()))) => None,
                Err(error) => Some(WorkerError::Part { part: "worker", cause: error.to_string() }),
            };
            if let Some(error) = error {
                stop.cancel();
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

async fn quiet(part: &'static str, work: impl Future<Output = ()>) -> (&'static str, Result<(), WorkerError>) {
    work.await;
    (part, Ok(()))
}

/// Checkpoint, then each entry with its own time. Effects are discarded: they were carried out, or the first step after
/// the restart asks again.
async fn recall<M: Machine>(
    journal: &dyn Journal,
    restore: impl FnOnce(Option<Vec<u8>>) -> Result<M, String>,
) -> Result<Recalled<M>, WorkerError> {
    let recovered = journal.load().await?;
    let resumed = recovered.checkpoint.is_some();
    let mut machine =
        restore(recovered.checkpoint).map_err(|cause| WorkerError::Incompatible { what: "a checkpoint", cause })?;
    let mut latest = Timestamp::from_millis(i64::MIN);
    for bytes in &recovered.entries {
        let entry = entry::decode(bytes)
            .map_err(|error| WorkerError::Incompatible { what: "an entry", cause: error.to_string() })?;
        latest = latest.max(entry.at);
        drop(machine.step(entry.at, entry.input));
    }
    let entries = recovered.entries.len();
    if resumed || entries > 0 {
        tracing::info!(entries, "Going on where the journal ends");
    }
    Ok(Recalled { machine, entries, latest })
}
