//! The state of one service: what the journal must bring back, and what a restart may forget.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::traffic::Seats;
use super::{Finding, roles::Roles};
use crate::model::{
    AlarmName, EffectId, Evidence, Incident, IncidentId, IncidentOutcome, Moment, Phase, Scope, ServiceKey, Split,
    Step, TargetGroupArn, TaskSetArn, TaskSetId, Timestamp, TrafficRuleId, Verdict, Window, Write,
};
use crate::rules::Rule;

/// Windows of one service. ECS allows five task sets; the rest is for ids that no read has shown yet.
const WINDOWS: usize = 8;

/// Decided task sets that are remembered. ECS allows five to live at a time.
const DECIDED: usize = 16;

/// Rollbacks whose times are remembered: the most that a rule can allow a day.
const ROLLBACKS: usize = 100;

/// Moments that an incident keeps.
const MOMENTS: usize = 200;

/// One service.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Partition {
    /// Brought back by the journal.
    pub(super) kept: Kept,
    /// Learnt anew after a restart.
    #[serde(skip)]
    pub(super) soft: Soft,
}

/// What the journal must bring back. A step that changes it is durable before its effects go out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The rule that protects the service.
    pub(super) rule: Arc<Rule>,
    /// By task set.
    pub(super) windows: BTreeMap<TaskSetId, Window>,
    /// The live deployment, or the last one.
    pub(super) deployment: Option<Deployment>,
    /// Task sets on which a rollback was decided once: never again. Oldest first.
    pub(super) decided: Vec<TaskSetId>,
    /// When rollbacks were decided and begun, newest last.
    pub(super) rollbacks: Vec<Timestamp>,
    /// Reads in a row that said the service does not exist.
    pub(super) missing: u8,
}

/// What a restart may forget: it only steers when the next read is sent, and what is shown.
#[derive(Debug, Default)]
pub(super) struct Soft {
    /// Account and Region, by the last read.
    pub(super) scope: Option<Scope>,
    /// A read is under way.
    pub(super) reading: bool,
    /// When the next one is to be sent.
    pub(super) read_at: Option<Timestamp>,
    /// Sent last.
    pub(super) asked_at: Option<Timestamp>,
    /// Answered last.
    pub(super) observed_at: Option<Timestamp>,
    /// Sent last as a sweep: with everything that events may have failed to tell.
    pub(super) swept_at: Option<Timestamp>,
    /// The next read is to be made twice, for a delete.
    pub(super) twice: bool,
    /// Failed reads in a row.
    pub(super) failed_reads: u32,
    /// Task sets, by the last read.
    pub(super) task_sets: BTreeSet<TaskSetId>,
    /// How the traffic was split, by the last read.
    pub(super) split: Option<Split>,
    /// What the gates said last.
    pub(super) findings: Vec<Finding>,
    /// What the gates said last, over all of them.
    pub(super) verdict: Option<Verdict>,
    /// Why a rollback would not work now.
    pub(super) not_ready: Option<String>,
    /// This partition's entry in the engine's timetable.
    pub(super) scheduled: Option<Timestamp>,
    /// This partition's entries in the engine's index.
    pub(super) listed: Listed,
}

/// What facts may call this service by, beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Alarms that gate it.
    pub(super) alarms: BTreeSet<AlarmName>,
    /// `TargetGroup` dimensions of its live deployment.
    pub(super) groups: BTreeSet<Arc<str>>,
    /// Writes in flight.
    pub(super) effects: BTreeSet<EffectId>,
}

/// One green against one blue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Deployment {
    /// The newest task set.
    pub(super) green: TaskSetId,
    /// For the delete.
    pub(super) green_arn: TaskSetArn,
    /// Account and Region.
    pub(super) scope: Scope,
    /// Where its tasks are registered.
    pub(super) green_group: Option<TargetGroupArn>,
    /// Its creation is the deployment's begin.
    pub(super) began_at: Timestamp,
    /// The version.
    pub(super) task_definition: Arc<str>,
    /// The task set that green replaces.
    pub(super) blue: TaskSetId,
    /// Where its tasks are registered.
    pub(super) blue_group: Option<TargetGroupArn>,
    /// Green was once steady.
    pub(super) was_steady: bool,
    /// Since when every read found it unsteady.
    pub(super) unsteady_since: Option<Timestamp>,
    /// Over how many sweeps in a row too many of green's targets were unhealthy, and since when.
    pub(super) unhealthy: Option<Unhealthy>,
    /// Alarms whose dimensions name green's target group.
    pub(super) bound_alarms: BTreeSet<AlarmName>,
    /// Those that name blue's: the control group's.
    pub(super) blue_alarms: BTreeSet<AlarmName>,
    /// All alarms were searched for them.
    pub(super) alarms_searched: bool,
    /// Since when green is PRIMARY with all the traffic.
    pub(super) promoted_at: Option<Timestamp>,
    /// Where it stands.
    pub(super) phase: Phase,
    /// In plain words.
    pub(super) why: String,
    /// A breach that is deliberately not acted on, while it lasts.
    pub(super) hold: Option<Hold>,
    /// How many there were.
    pub(super) holds: u32,
    /// The rollback, once one was decided.
    pub(super) rollback: Option<Rollback>,
}

/// Sweeps in a row that found too many of green's targets unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unhealthy {
    pub(super) sweeps: u32,
    pub(super) since: Timestamp,
}

/// A breach that is not acted on, for a reason that may go away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) cause: Cause,
    /// Its record.
    pub(super) incident: Incident,
}

/// Why a breach is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Blue suffers as well.
    NotAttributable,
    /// Too many services breach at a time.
    FleetBrake,
    /// `limits.rollbacks_per_day`.
    DailyLimit,
}

/// One decided rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollback {
    /// Its record.
    pub(super) incident: Incident,
    /// Nothing more will be done: finished, held or superseded.
    pub(super) closed: bool,
    /// Why a person is needed, once one is. The plan is still tried while the evidence is fresh.
    pub(super) escalated: Option<String>,
    /// A person is needed and nothing may be written any more: somebody else writes the same rules.
    pub(super) frozen: bool,
    /// The steps that a person was called for.
    pub(super) called: BTreeSet<Step>,
    /// When the gates last found the evidence.
    pub(super) evidence_at: Timestamp,
    /// Green was PRIMARY when the rollback was decided: blue is to be promoted again.
    pub(super) promotes: bool,
    /// A read showed blue as PRIMARY.
    pub(super) blue_was_primary: bool,
    /// Writes sent and not yet answered.
    pub(super) in_flight: BTreeMap<EffectId, Purpose>,
    /// Writes that AWS accepted.
    #[serde(with = "super::pairs")]
    pub(super) accepted: BTreeMap<Purpose, Accepted>,
    /// Writes that AWS may have accepted: their answers were lost.
    pub(super) unsure: BTreeSet<Purpose>,
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
            Self::Promote => write!(f, "{operation}: blue is PRIMARY again"),
            Self::Shift(rule) => write!(f, "{operation}: all of {} to blue", rule.short()),
            Self::Delete => write!(f, "{operation} with force: green"),
            Self::Pair(rule) => write!(f, "{operation}: {} names green again, with weight 0", rule.short()),
        }
    }
}

impl Kept {
    /// A service of which nothing is known yet.
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        Self {
            rule,
            windows: BTreeMap::new(),
            deployment: None,
            decided: Vec::new(),
            rollbacks: Vec::new(),
            missing: 0,
        }
    }

    /// The window of a task set. Ids that no read has shown can't push out those of the deployment.
    pub(super) fn window(&mut self, id: &TaskSetId) -> &mut Window {
        if !self.windows.contains_key(id) && self.windows.len() >= WINDOWS {
            let ours = self.deployment.as_ref().map(|d| (&d.green, &d.blue));
            let strangers = self.windows.iter().filter(|(id, _)| ours.is_none_or(|(g, b)| *id != g && *id != b));
            let oldest = strangers.min_by_key(|(id, window)| (window.newest(), *id)).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.windows.remove(&oldest);
            }
        }
        self.windows.entry(id.clone()).or_default()
    }

    /// The deployment, unless it has ended.
    pub(super) fn live(&self) -> Option<&Deployment> {
        self.deployment.as_ref().filter(|d| !d.ended())
    }

    /// The deployment, while it is still to be judged: nothing was decided, or what was found is only held.
    pub(super) fn undecided(&self) -> Option<&Deployment> {
        self.live().filter(|d| d.phase == Phase::Watching || d.hold.is_some())
    }

    /// The rollback that still has something to do.
    pub(super) fn open_rollback(&self) -> Option<&Rollback> {
        self.deployment.as_ref().and_then(|d| d.rollback.as_ref()).filter(|r| !r.closed)
    }

    /// S5: at most one decision per task set.
    pub(super) fn remember_decided(&mut self, id: &TaskSetId, begun_at: Option<Timestamp>) {
        self.rollbacks.extend(begun_at);
        if self.rollbacks.len() > ROLLBACKS {
            self.rollbacks.remove(0);
        }
        self.decided.push(id.clone());
        if self.decided.len() > DECIDED {
            self.decided.remove(0);
        }
    }
}

impl Soft {
    /// Asks for a read at this time, or earlier if one is due earlier already.
    pub(super) fn want(&mut self, at: Timestamp) {
        self.read_at = Some(self.read_at.map_or(at, |other| other.min(at)));
    }
}

impl Deployment {
    /// A green that was seen for the first time.
    pub(super) fn new(roles: Roles<'_>, scope: Scope) -> Self {
        let Roles { green, blue } = roles;
        Self {
            green: green.id.clone(),
            green_arn: green.arn.clone(),
            scope,
            green_group: green.target_group.clone(),
            began_at: green.created_at,
            task_definition: green.task_definition.clone(),
            blue: blue.id.clone(),
            blue_group: blue.target_group.clone(),
            was_steady: false,
            unsteady_since: None,
            unhealthy: None,
            blue_alarms: BTreeSet::new(),
            bound_alarms: BTreeSet::new(),
            alarms_searched: false,
            promoted_at: None,
            phase: Phase::Watching,
            why: format!("watching green {} beside blue {}", green.id, blue.id),
            hold: None,
            holds: 0,
            rollback: None,
        }
    }

    /// A record, opened.
    pub(super) fn incident(
        &self,
        now: Timestamp,
        service: &ServiceKey,
        id: String,
        evidence: Vec<Evidence>,
    ) -> Incident {
        let first_sign_at = evidence.iter().map(|e| e.from).min().unwrap_or(now);
        let mut incident = Incident {
            id: IncidentId::new(id),
            service: service.clone(),
            green: self.green.clone(),
            blue: self.blue.clone(),
            task_definition: self.task_definition.to_string(),
            outcome: IncidentOutcome::Open,
            reason: None,
            first_sign_at,
            detected_at: now,
            traffic_safe_at: None,
            deleted_at: None,
            evidence,
            timeline: Vec::new(),
        };
        log(&mut incident, first_sign_at, "first sign of trouble");
        let reason = incident.evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        log(&mut incident, now, format!("breach: {reason}"));
        incident
    }

    /// Nothing more will happen.
    pub(super) fn ended(&self) -> bool {
        matches!(self.phase, Phase::RolledBack | Phase::Graduated | Phase::Superseded)
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
            called: BTreeSet::new(),
            evidence_at: now,
            promotes,
            blue_was_primary: false,
            unsure: BTreeSet::new(),
            seats: Seats::new(),
            escalated: None,
            frozen: false,
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

    /// Nothing has been done yet, and what it was decided on is no longer fresh.
    pub(super) fn is_stale(&self, now: Timestamp, freshness: Duration) -> bool {
        self.accepted.is_empty() && now.since(self.evidence_at) > freshness
    }

    /// AWS accepted a write.
    pub(super) fn accept(&mut self, now: Timestamp, purpose: Purpose) {
        let accepted = self.accepted.entry(purpose).or_insert(Accepted { times: 0, at: now });
        *accepted = Accepted { times: accepted.times.saturating_add(1), at: now };
    }
}
