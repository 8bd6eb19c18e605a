//! What the loop needs of the engine. A trait, so that the loop's promises (nothing leaves before the commit) are tested
//! with a machine whose every answer is written down in the test.

use crate::engine::{Engine, Input, ServiceView, StatusView, Step};
use crate::model::{ServiceKey, Timestamp};
use crate::rules::RuleSet;

/// A deterministic state machine. [`Engine`] is the one.
pub trait Machine: Send + Sync + 'static {
    /// Takes one input.
    fn step(&mut self, now: Timestamp, input: &Input) -> Step;
    /// When [`Input::Tick`] is wanted next.
    fn next_deadline(&self) -> Option<Timestamp>;
    /// The whole state; the error says why it can't be written down.
    fn checkpoint(&self) -> Result<Vec<u8>, String>;
    /// One service; `None` when it is not known (any longer).
    fn service(&self, key: &ServiceKey, now: Timestamp) -> Option<ServiceView>;
    /// Everything.
    fn status(&self, now: Timestamp) -> StatusView;
    /// The rules that it was given last; none before any were.
    fn rules(&self) -> &RuleSet;
}

impl Machine for Engine {
    fn step(&mut self, now: Timestamp, input: &Input) -> Step {
        Self::step(self, now, input)
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        Self::next_deadline(self)
    }

    fn checkpoint(&self) -> Result<Vec<u8>, String> {
        Self::checkpoint(self)
    }

    fn service(&self, key: &ServiceKey, now: Timestamp) -> Option<ServiceView> {
        Self::service(self, key, now)
    }

    fn status(&self, now: Timestamp) -> StatusView {
        Self::status(self, now)
    }

    fn rules(&self) -> &RuleSet {
        Self::rules(self)
    }
}
