//! What a step found and decided, as data. Logs, metrics, the demo's timeline and the page are renderings of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::model::{
    CallError, Evidence, Gate, IncidentId, IncidentOutcome, Outcome, Phase, ServiceKey, Split, Step, TaskSetId, Unit,
    Verdict,
};

/// One step's notes, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What happened.
    pub notes: Vec<Note>,
    /// Services whose [`super::ServiceView`] may have changed.
    pub touched: Vec<ServiceKey>,
    /// The incident of those of them whose deployment has one.
    pub incidents: BTreeMap<ServiceKey, IncidentId>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// A signal came in.
    Signal {
        /// [`crate::model::Fact::kind`].
        kind: &'static str,
        /// Whom it speaks about, where it says so.
        service: Option<ServiceKey>,
        /// What became of it.
        used: Use,
    },
    /// A green appeared beside a blue.
    DeploymentBegan {
        /// Where.
        service: ServiceKey,
        /// The newest.
        green: TaskSetId,
        /// The one that it is to replace.
        blue: TaskSetId,
    },
    /// The gates were evaluated on a fresh observation.
    Judged {
        /// Where.
        service: ServiceKey,
        /// Over all gates.
        verdict: Verdict,
        /// True when the verdict differs from the one before.
        news: bool,
        /// Every gate.
        findings: Vec<Finding>,
    },
    /// A rollback was decided (or would have been, see `held`).
    Decided {
        /// Where.
        service: ServiceKey,
        /// Its record.
        incident: IncidentId,
        /// Decided, and deliberately not done: observe mode or dry run.
        held: bool,
        /// What it rests on.
        evidence: Vec<Evidence>,
    },
    /// A deployment's phase changed.
    Phase {
        /// Where.
        service: ServiceKey,
        /// Before.
        from: Phase,
        /// After.
        to: Phase,
        /// In plain words.
        why: String,
    },
    /// A rollback waits for something, or for something else than before.
    Waiting {
        /// Where.
        service: ServiceKey,
        /// The step that has to wait.
        step: Step,
        /// In plain words.
        why: String,
    },
    /// A mutating call goes out.
    Sent {
        /// Where.
        service: ServiceKey,
        /// What it is meant to do, in plain words.
        what: String,
    },
    /// A mutating call came back.
    Returned {
        /// Where.
        service: ServiceKey,
        /// The call, as in `ModifyRule`.
        operation: &'static str,
        /// How it ended.
        outcome: Outcome,
    },
    /// The split of the traffic is not what it was at the observation before.
    TrafficMoved {
        /// Where.
        service: ServiceKey,
        /// Now.
        split: Split,
    },
    /// A stage of a rollback was reached.
    Reached {
        /// Where.
        service: ServiceKey,
        /// Which.
        stage: Stage,
        /// detect: since the first sign; shift and delete: since the decision.
        took: Duration,
    },
    /// An incident ended, was opened again after that, or a person is needed.
    Closed {
        /// Where.
        service: ServiceKey,
        /// Its record.
        incident: IncidentId,
        /// How.
        outcome: IncidentOutcome,
        /// In plain words.
        why: String,
    },
    /// Green took over.
    Graduated {
        /// Where.
        service: ServiceKey,
        /// The new baseline.
        green: TaskSetId,
        /// In plain words.
        why: String,
    },
    /// A service could not be read.
    Unread {
        /// Where.
        service: ServiceKey,
        /// Why.
        error: CallError,
        /// It is not what was said of the read before.
        news: bool,
    },
    /// A service can't be protected as it is, for this reason. Said once per change.
    NotReady {
        /// Where.
        service: ServiceKey,
        /// In plain words.
        why: String,
    },
    /// A person's order is not followed. Said once while it stands.
    Refused {
        /// Where.
        service: ServiceKey,
        /// In plain words.
        why: String,
    },
    /// Somebody did something about a deployment whose rollback was decided and only told.
    Witnessed {
        /// Where.
        service: ServiceKey,
        /// In plain words.
        what: String,
    },
    /// The fleet brake turned.
    Brake {
        /// On, or off again.
        engaged: bool,
        /// In plain words, with the services that breach.
        why: String,
    },
    /// An announcement was delivered, or not.
    Announced {
        /// Which service.
        service: ServiceKey,
        /// Of what. Absent for a graduation.
        incident: Option<IncidentId>,
        /// As in `Rollback Started`.
        detail_type: &'static str,
        /// How it ended.
        outcome: Outcome,
    },
}

impl Note {
    /// The service that it is about; `None` for what concerns none or all of them.
    pub fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::Signal { service, .. } => service.as_ref(),
            Self::DeploymentBegan { service, .. }
            | Self::Judged { service, .. }
            | Self::Decided { service, .. }
            | Self::Phase { service, .. }
            | Self::Waiting { service, .. }
            | Self::Sent { service, .. }
            | Self::Returned { service, .. }
            | Self::TrafficMoved { service, .. }
            | Self::Reached { service, .. }
            | Self::Closed { service, .. }
            | Self::Graduated { service, .. }
            | Self::Unread { service, .. }
            | Self::NotReady { service, .. }
            | Self::Refused { service, .. }
            | Self::Witnessed { service, .. }
            | Self::Announced { service, .. } => Some(service),
            Self::Brake { .. } => None,
        }
    }
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// It told something new.
    Taken,
    /// Known already, or older than what is known.
    Duplicate,
    /// Recorded, but too old (or out of an archive) to trigger anything.
    Stale,
    /// About a service that nobody protects.
    Unregistered,
    /// From another account or Region than the service's, or dated in the future.
    Foreign,
    /// Nothing that a gate looks at.
    Irrelevant,
}

impl Use {
    /// All of them, for closed label sets.
    pub const ALL: [Self; 6] =
        [Self::Taken, Self::Duplicate, Self::Stale, Self::Unregistered, Self::Foreign, Self::Irrelevant];

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Unregistered => "unregistered",
            Self::Foreign => "foreign",
            Self::Irrelevant => "irrelevant",
        }
    }
}

/// One gate's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which.
    pub gate: Gate,
    /// Its answer.
    pub state: GateState,
    /// Numbers behind it; absent when the gate is blind.
    pub evidence: Option<Evidence>,
    /// In plain words, with what is missing when it is blind.
    pub why: String,
}

impl Finding {
    /// Value by threshold: 1 is a breach. A threshold of 0, as of an alarm that counts at once, is either reached or not.
    pub fn ratio(&self) -> Option<f64> {
        let evidence = self.evidence.as_ref()?;
        let over = matches!(self.state, GateState::Breached | GateState::Shared);
        Some(match evidence.unit {
            // Each failure multiplies the odds, so their logarithm is what grows evenly.
            Unit::Odds => evidence.value.max(1.0).ln() / evidence.threshold.max(1.0).ln(),
            _ if evidence.threshold > 0.0 => evidence.value / evidence.threshold,
            _ => f64::from(u8::from(over)),
        })
    }

    /// Its threshold is reached.
    pub(super) fn breached(evidence: Evidence) -> Self {
        let why = evidence.to_string();
        Self { gate: evidence.gate.clone(), state: GateState::Breached, evidence: Some(evidence), why }
    }
}

/// A gate's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// Evidence, below the threshold.
    Clear,
    /// Not enough evidence yet.
    Pending,
    /// It can't judge.
    Blind,
    /// At or above the threshold, and blue suffers as well.
    Shared,
    /// At or above the threshold.
    Breached,
}

/// Stages of a rollback: the `stage` label of `rollback_duration_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the first sign to the decision.
    Detect,
    /// From the decision to traffic proven on blue.
    Shift,
    /// From the decision to green seen deleted.
    Delete,
}

impl Stage {
    /// All of them, for closed label sets.
    pub const ALL: [Self; 3] = [Self::Detect, Self::Shift, Self::Delete];

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Shift => "shift",
            Self::Delete => "delete",
        }
    }
}
