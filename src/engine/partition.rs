//! The state of one service: what the journal must bring back, and what a restart may forget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Finding, roles::Roles};
use crate::model::{
    AlarmName, EffectId, Evidence, Incident, IncidentId, Moment, Phase, Scope, ServiceKey, Split, Step, TargetGroupArn,
    TaskSetArn, TaskSetId, Timestamp, TrafficRuleId, Verdict, Window,
};
use crate::rules::Rule;

/// Windows of one service. ECS allows five task sets; the rest is for ids that no read has shown yet.
const WINDOWS: usize = 8;

/// Decided task sets that are remembered. ECS allows five to live at a time.
const DECIDED: usize = 16;

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
    /// Alarms whose dimensions name green's target group.
    pub(super) bound_alarms: BTreeSet<AlarmName>,
    /// All alarms were searched for them.
    pub(super) alarms_searched: bool,
    /// Since when green is PRIMARY with all the traffic.
    pub(super) promoted_at: Option<Timestamp>,
    /// Where it stands.
    pub(super) phase: Phase,
    /// In plain words.
    pub(super) why: String,
    /// The rollback, once one was decided.
    pub(super) rollback: Option<Rollback>,
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
    /// Writes sent and not yet answered.
    pub(super) in_flight: BTreeMap<EffectId, InFlight>,
    /// Times that AWS accepted a write of a rule. The second is the one re-assert.
    #[serde(with = "super::pairs")]
    pub(super) accepted: BTreeMap<TrafficRuleId, u32>,
    /// When a write of a rule was last accepted.
    pub(super) accepted_at: Option<Timestamp>,
    /// Since when reads prove that no rule sends anything to green.
    pub(super) safe_since: Option<Timestamp>,
    /// When the delete was accepted.
    pub(super) deleted_at: Option<Timestamp>,
    /// Since when a read shows green on its way out.
    pub(super) draining_since: Option<Timestamp>,
    /// Since when blue lacks capacity.
    pub(super) blue_short_since: Option<Timestamp>,
    /// Failed writes in a row.
    pub(super) failures: u32,
    /// No write before this.
    pub(super) retry_at: Option<Timestamp>,
}

/// A write that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InFlight {
    /// As in `ModifyRule`.
    pub(super) operation: Operation,
    /// The rule that it addresses; absent for a delete.
    pub(super) rule: Option<TrafficRuleId>,
}

/// The writes of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operation {
    /// A rule.
    ModifyRule,
    /// A default action.
    ModifyListener,
    /// Blue's scale.
    UpdateTaskSet,
    /// Blue.
    UpdateServicePrimaryTaskSet,
    /// Green.
    DeleteTaskSet,
}

impl Operation {
    /// The call's name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ModifyRule => "ModifyRule",
            Self::ModifyListener => "ModifyListener",
            Self::UpdateTaskSet => "UpdateTaskSet",
            Self::UpdateServicePrimaryTaskSet => "UpdateServicePrimaryTaskSet",
            Self::DeleteTaskSet => "DeleteTaskSet",
        }
    }
}

impl Kept {
    /// A service of which nothing is known yet.
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        Self { rule, windows: BTreeMap::new(), deployment: None, decided: Vec::new(), missing: 0 }
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

    /// The rollback that still has something to do.
    pub(super) fn open_rollback(&self) -> Option<&Rollback> {
        self.deployment.as_ref().and_then(|d| d.rollback.as_ref()).filter(|r| !r.closed)
    }

    /// S5: at most one decision per task set.
    pub(super) fn remember_decided(&mut self, id: &TaskSetId) {
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
            bound_alarms: BTreeSet::new(),
            alarms_searched: false,
            promoted_at: None,
            phase: Phase::Watching,
            why: format!("watching green {} beside blue {}", green.id, blue.id),
            rollback: None,
        }
    }

    /// Nothing more will happen.
    pub(super) fn ended(&self) -> bool {
        matches!(self.phase, Phase::RolledBack | Phase::Graduated | Phase::Superseded)
    }
}

impl Rollback {
    /// A decision, with its record opened.
    pub(super) fn new(now: Timestamp, service: &ServiceKey, deployment: &Deployment, evidence: Vec<Evidence>) -> Self {
        let first_sign_at = evidence.iter().map(|e| e.from).min().unwrap_or(now);
        let digits = deployment.green.as_str().rsplit('/').next().unwrap_or_default();
        let incident = Incident {
            // One decision per task set, so the task set's number makes the incident's name.
            id: IncidentId::new(format!("rollback-{digits}")),
            service: service.clone(),
            green: deployment.green.clone(),
            blue: deployment.blue.clone(),
            task_definition: deployment.task_definition.to_string(),
            outcome: crate::model::IncidentOutcome::Open,
            reason: None,
            first_sign_at,
            detected_at: now,
            traffic_safe_at: None,
            deleted_at: None,
            evidence,
            timeline: Vec::new(),
        };
        Self {
            incident,
            closed: false,
            escalated: None,
            frozen: false,
            in_flight: BTreeMap::new(),
            accepted: BTreeMap::new(),
            accepted_at: None,
            safe_since: None,
            deleted_at: None,
            draining_since: None,
            blue_short_since: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// Adds a line to the timeline.
    pub(super) fn log(&mut self, at: Timestamp, what: impl Into<String>) {
        if self.incident.timeline.len() < MOMENTS {
            self.incident.timeline.push(Moment { at, what: what.into() });
        }
    }

    /// The step that a phase shows while the plan stands here.
    pub(super) fn step(&self) -> Step {
        match (self.safe_since, self.deleted_at) {
            (_, Some(_)) => Step::VerifyGone,
            (Some(_), None) => Step::Drain,
            (None, None) if self.accepted_at.is_some() => Step::VerifyTraffic,
            (None, None) => Step::Observe,
        }
    }
}
