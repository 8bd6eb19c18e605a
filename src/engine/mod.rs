//! The engine: a pure, deterministic, total state machine. Inputs go in with a time, effects and a report come out.

mod input;
mod report;
mod status;

pub use input::{Effect, Input, Settings, Step};
pub use report::{Finding, GateState, Note, Report, Stage, Use};
pub use status::{DeploymentView, GateView, ServiceView, StatusView};

use crate::model::{ServiceKey, Timestamp};

/// All that the guardian knows.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
}

impl Engine {
    /// Knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Step {
        let _ = (now, input, &self.settings);
        Step::default()
    }

    /// When [`Input::Tick`] is wanted next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// The whole state, for the journal.
    pub fn checkpoint(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The state out of a checkpoint.
    ///
    /// # Errors
    /// When the bytes are not a checkpoint of this version.
    pub fn restore(settings: Settings, checkpoint: &[u8]) -> Result<Self, String> {
        let _ = checkpoint;
        Ok(Self { settings })
    }

    /// One service, for `/status` and gauges. `None` when it is not (any longer) known.
    pub fn service(&self, key: &ServiceKey, now: Timestamp) -> Option<ServiceView> {
        let _ = (key, now);
        None
    }

    /// Everything, for `/status`.
    pub fn status(&self, now: Timestamp) -> StatusView {
        StatusView { at: now, dry_run: self.settings.dry_run, rules: Vec::new(), services: Vec::new() }
    }
}
