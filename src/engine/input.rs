//! What goes into a step and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use crate::model::{
    Announcement, Ask, CallError, EffectId, Incident, Observation, Outcome, ServiceKey, Signal, Timestamp, Write,
};
use crate::rules::RuleSet;

/// How the engine was started. Not part of its state: a restart may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Decide, report and announce, but make no mutating call, whatever the rules say.
    pub dry_run: bool,
    /// How often every service is read. Watched deployments are read at this pace too.
    pub sweep: Duration,
    /// The fleet brake: when more services than this breach within ten minutes, no rollback is begun.
    pub fleet_brake: usize,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// One attributed fact out of an event.
    Signal(Signal),
    /// The sweep listed what the rules' globs match: exactly these services are protected now, and those that a tag
    /// registers.
    Swept(BTreeSet<ServiceKey>),
    /// The sweep found these services by their tag, with the name of the rule in it. Which of them are still registered is
    /// for each one's own reading to say: an index of tags lags.
    Registered(#[serde(with = "super::pairs")] BTreeMap<ServiceKey, Arc<str>>),
    /// Another worker guards these from now on.
    LetGo(BTreeSet<ServiceKey>),
    /// The answer to [`Effect::Observe`]. `NotFound` means that the service does not exist.
    Observed(ServiceKey, Result<Box<Observation>, CallError>),
    /// How a write or an announcement ended, unknown outcomes included.
    Done(EffectId, Outcome),
    /// Rules were loaded.
    Rules(RuleSet),
    /// A deadline has passed.
    Tick,
    /// The clock that gives the engine its time was set: it reads so many milliseconds more than it would by the time that
    /// has passed, or less when they are negative.
    ClockSet {
        /// Milliseconds.
        by_ms: i64,
    },
    /// The process began: what was in flight before is unknown.
    Restarted,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read a service; answered by [`Input::Observed`], always.
    Observe(Ask),
    /// Send one mutating call; answered by [`Input::Done`], always.
    Write {
        /// For the answer.
        id: EffectId,
        /// For logs.
        service: ServiceKey,
        /// The call.
        write: Write,
        /// Not to be sent, or sent again, after this: the reads that it rests on are too old then.
        expires_at: Timestamp,
    },
    /// Put one event on the bus; answered by [`Input::Done`], always.
    Announce(EffectId, Announcement),
    /// Keep this record; the newest of an id replaces the older ones. Not answered.
    Keep(Incident),
}

/// What one step gave.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "effects must be carried out and the report rendered"]
pub struct Step {
    /// To be carried out after the input is durable, in order.
    pub effects: Vec<Effect>,
    /// Every gate, why and why not.
    pub report: Report,
    /// The state changed: the input must be in the journal before any effect is carried out or a message is deleted.
    pub changed: bool,
}
