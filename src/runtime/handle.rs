//! What the outside may ask of a worker while it runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};

use super::health::{Health, Part};
use super::turn::Question;
use crate::engine::StatusView;
use crate::model::{Incident, Timestamp};
use crate::ports::{Clock, Journal, JournalError};
use crate::telemetry::{History, Metrics};

/// A status question that waits longer than this has no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the outside may ask of a running worker.
#[derive(Clone)]
pub struct Handle {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) history: Arc<History>,
    pub(super) health: Arc<Health>,
    pub(super) reload: Arc<Notify>,
    pub(super) questions: mpsc::Sender<Question>,
    /// Whoever asks does not keep the journal of a worker that has ended.
    pub(super) journal: Weak<dyn Journal>,
    pub(super) started_at: Timestamp,
}

/// The process behind the status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerView {
    /// Version of the program.
    pub version: &'static str,
    /// When it was started.
    pub started_at: Timestamp,
    /// `active`, or `standby` while another replica acts: then nothing is known of the services here.
    pub role: &'static str,
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

    /// How live deployments went lately.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Now, by the worker's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long the loop has been standing, when that is too long.
    pub fn stuck_for(&self) -> Option<Duration> {
        self.health.stuck_for(self.clock.elapsed())
    }

    /// The newest incidents, newest first.
    pub async fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        let Some(journal) = self.journal.upgrade() else {
            let context = "read incidents".to_owned();
            return Err(JournalError::Failed { context, cause: "the worker has ended".to_owned() });
        };
        journal.incidents(limit).await
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
            role: if self.health.is_ready(Part::Leader) { "active" } else { "standby" },
            ready: not_ready.is_empty(),
            not_ready,
            last_event_at: self.health.last_event(),
        };
        Some(StatusReply { worker, state })
    }
}
