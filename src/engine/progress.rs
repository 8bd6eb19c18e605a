//! How far a rollback has come: what was decided, sent and proven. A restart goes on from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::partition::Deployment;
use super::traffic::Seats;
use crate::model::{
    Action, EffectId, Evidence, Gate, Incident, Moment, ServiceKey, Step, Timestamp, TrafficRuleId, Write,
};

/// Moments that an incident keeps.
const MOMENTS: usize = 200;

/// One decided rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollback {
    /// Its record.
    pub(super) incident: Incident,
    /// Nothing more will be done: finished, held or superseded.
    pub(super) closed: bool,
    /// A person was called. The plan is still tried, slowly.
    pub(super) escalation: Option<Escalation>,
    /// When the gates last found the evidence.
    pub(super) evidence_at: Timestamp,
    /// Green was PRIMARY when the rollback was decided: blue is to be promoted again.
    pub(super) promotes: bool,
    /// A read showed blue as PRIMARY.
    pub(super) blue_was_primary: bool,
    /// Writes sent and not yet answered.
    pub(super) in_flight: BTreeMap<EffectId, Sent>,
    /// Writes that AWS accepted.
    #[serde(with = "super::pairs")]
    pub(super) accepted: BTreeMap<Purpose, Accepted>,
    /// Writes that AWS may have accepted: their answers were lost.
    #[serde(with = "super::pairs")]
    pub(super) unsure: BTreeMap<Purpose, Sent>,
    /// Where green's group stood in sticky rules that it was taken out of.
    #[serde(with = "super::pairs")]
    pub(super) seats: Seats,
    /// Since when reads prove that no rule sends anything to green.
    pub(super) safe_since: Option<Timestamp>,
    /// Since when a read shows green on its way out.
    pub(super) draining_since: Option<Timestamp>,
    /// Since when blue lacks capacity.
    pub(super) blue_short_since: Option<Timestamp>,
    /// Failed writes in a row.
    pub(super) failures: u32,
    /// No write before this.
    pub(super) retry_at: Option<Timestamp>,
}

/// What a person is needed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Escalation {
    /// In plain words.
    pub(super) why: String,
    /// Nothing may be written any more: somebody else writes the same rules.
    pub(super) frozen: bool,
    /// The steps that a person was called for, each once.
    pub(super) steps: BTreeSet<Step>,
}

/// What a write is for. How often it may be repeated is counted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Blue's group is named in a rule, with weight 0, so that its health is checked.
    Introduce(TrafficRuleId),
    /// Blue is scaled back.
    Scale,
    /// Blue is made PRIMARY.
    Promote,
    /// A rule goes to blue.
    Shift(TrafficRuleId),
    /// Green is deleted.
    Delete,
    /// A sticky rule gets its pair back.
    Pair(TrafficRuleId),
}

/// A write that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) purpose: Purpose,
    /// Of a rule: what it was before.
    pub(super) found: Vec<Action>,
}

impl Sent {
    pub(super) fn new(purpose: Purpose, write: &Write) -> Self {
        let found = match write {
            Write::SetActions { found, .. } => found.clone(),
            Write::ScaleTaskSet { .. } | Write::SetPrimary { .. } | Write::DeleteTaskSet { .. } => Vec::new(),
        };
        Self { purpose, found }
    }
}

/// A write that AWS accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    /// How often.
    pub(super) times: u32,
    /// When last.
    pub(super) at: Timestamp,
}

impl Purpose {
    /// What a write is for; `of_rule` says it for those that address a rule.
    pub(super) fn of(write: &Write, of_rule: fn(TrafficRuleId) -> Self) -> Self {
        match write {
            Write::SetActions { rule, .. } => of_rule(rule.clone()),
            Write::ScaleTaskSet { .. } => Self::Scale,
            Write::SetPrimary { .. } => Self::Promote,
            Write::DeleteTaskSet { .. } => Self::Delete,
        }
    }

    /// The step that it belongs to.
    pub(super) const fn step(&self) -> Step {
        match self {
            Self::Introduce(_) | Self::Scale => Step::RestoreBlue,
            Self::Promote => Step::PromoteBlue,
            Self::Shift(_) => Step::ShiftTraffic,
            Self::Delete => Step::DeleteGreen,
            Self::Pair(_) => Step::VerifyGone,
        }
    }

    /// The call's name.
    pub(super) const fn operation(&self) -> &'static str {
        match self {
            Self::Introduce(rule) | Self::Shift(rule) | Self::Pair(rule) => rule.operation(),
            Self::Scale => "UpdateTaskSet",
            Self::Promote => "UpdateServicePrimaryTaskSet",
            Self::Delete => "DeleteTaskSet",
        }
    }
}

impl fmt::Display for Purpose {
    /// The call, as it is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation();
        match self {
            Self::Introduce(rule) => write!(f, "{operation}: {} names blue too, with weight 0", rule.short()),
            Self::Scale => write!(f, "{operation}: blue to 100 %"),
            Self::Promote => write!(f, "{operation}: blue PRIMARY again"),
            Self::Shift(rule) => write!(f, "{operation}: all of {} to blue", rule.short()),
            Self::Delete => write!(f, "{operation} with force: green"),
            Self::Pair(rule) => write!(f, "{operation}: {} names green again, with weight 0", rule.short()),
        }
    }
}

/// Adds a line to a timeline.
pub(super) fn log(incident: &mut Incident, at: Timestamp, what: impl Into<String>) {
    if incident.timeline.len() < MOMENTS {
        incident.timeline.push(Moment { at, what: what.into() });
    }
}

impl Rollback {
    /// A decision, with its record opened.
    pub(super) fn new(
        now: Timestamp,
        service: &ServiceKey,
        deployment: &Deployment,
        evidence: Vec<Evidence>,
        promotes: bool,
    ) -> Self {
        // One decision per task set, so the task set's number makes the incident's name.
        let id = format!("rollback-{}", deployment.green.digits());
        let incident = deployment.incident(now, service, id, evidence);
        Self {
            incident,
            closed: false,
            evidence_at: now,
            promotes,
            blue_was_primary: false,
            unsure: BTreeMap::new(),
            seats: Seats::new(),
            escalation: None,
            in_flight: BTreeMap::new(),
            accepted: BTreeMap::new(),
            safe_since: None,
            draining_since: None,
            blue_short_since: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// Adds a line to the timeline.
    pub(super) fn log(&mut self, at: Timestamp, what: impl Into<String>) {
        log(&mut self.incident, at, what);
    }

    /// The step that a phase shows while the plan stands here.
    pub(super) fn step(&self) -> Step {
        let shifted = self.accepted.keys().any(|purpose| matches!(purpose, Purpose::Shift(_)));
        if self.accepted(&Purpose::Delete).is_some() {
            Step::VerifyGone
        } else if self.safe_since.is_some() {
            Step::Drain
        } else if shifted {
            Step::VerifyTraffic
        } else {
            Step::Observe
        }
    }

    /// When a write of this purpose was last accepted.
    pub(super) fn accepted(&self, purpose: &Purpose) -> Option<Timestamp> {
        self.accepted.get(purpose).map(|accepted| accepted.at)
    }

    /// When any write was last accepted.
    pub(super) fn last_accepted(&self) -> Option<Timestamp> {
        self.accepted.values().map(|accepted| accepted.at).max()
    }

    /// A person wanted it, and no gate.
    pub(super) fn is_by_person(&self) -> bool {
        self.incident.evidence.iter().any(|evidence| evidence.gate == Gate::Person)
    }

    /// Nothing has been done yet, and what it was decided on is no longer fresh.
    pub(super) fn is_stale(&self, now: Timestamp, freshness: Duration) -> bool {
        self.accepted.is_empty() && now.since(self.evidence_at) > freshness
    }

    /// The clock was set. How old the evidence is, and for how long the rollback has been open, is told by the clock.
    pub(super) fn clock_set(&mut self, by_ms: i64) {
        let Self { safe_since, draining_since, blue_short_since, retry_at, accepted, .. } = self;
        for at in [safe_since, draining_since, blue_short_since, retry_at].into_iter().flatten() {
            *at = at.moved(by_ms);
        }
        for accepted in accepted.values_mut() {
            accepted.at = accepted.at.moved(by_ms);
        }
    }

    /// AWS accepted a write.
    pub(super) fn accept(&mut self, now: Timestamp, purpose: Purpose) {
        let accepted = self.accepted.entry(purpose).or_insert(Accepted { times: 0, at: now });
        *accepted = Accepted { times: accepted.times.saturating_add(1), at: now };
    }
}
