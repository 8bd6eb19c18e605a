//! Incidents: the kept record of one rollback, or of one that was not done.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::snapshot::Snapshot;
use super::{Evidence, IncidentId, ServiceKey, TaskSetId, Timestamp};

/// What is kept when everything else is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// Stable: the same in logs, announcements and here.
    pub id: IncidentId,
    /// The service.
    pub service: ServiceKey,
    /// The task set that was judged.
    pub green: TaskSetId,
    /// The one that traffic went back to.
    pub blue: TaskSetId,
    /// Green's task definition: the version.
    pub task_definition: String,
    /// How it stands or ended.
    pub outcome: IncidentOutcome,
    /// Why it is not finished, when a person is needed or nothing is done.
    pub reason: Option<String>,
    /// First sign of trouble: the oldest fact behind the decision.
    pub first_sign_at: Timestamp,
    /// When the breach was decided.
    pub detected_at: Timestamp,
    /// When a read proved that all traffic is on blue, for the first time.
    pub traffic_safe_at: Option<Timestamp>,
    /// Since when a read has shown that it is not any more. Absent while it is, and until it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_lost_at: Option<Timestamp>,
    /// When green was seen deleted.
    pub deleted_at: Option<Timestamp>,
    /// What the decision rests on.
    pub evidence: Vec<Evidence>,
    /// What happened, in order. At most 200 moments.
    pub timeline: Vec<Moment>,
    /// Every changing call that was answered, with its outcome. At most 200.
    #[serde(default)]
    pub calls: Vec<CallRecord>,
    /// How the service stood when the rollback was decided.
    #[serde(default)]
    pub before: Option<Arc<Snapshot>>,
    /// How it stood when the rollback was done, or a person was called.
    #[serde(default)]
    pub after: Option<Arc<Snapshot>>,
    /// What other hands did after a decision that was only told, in observe mode or a dry run. At most 200 moments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aftermath: Vec<Moment>,
}

impl Incident {
    /// What a read says of the traffic: all of it is on blue, or not.
    pub(crate) fn traffic(&mut self, is_safe: bool, now: Timestamp) {
        if is_safe {
            self.traffic_safe_at.get_or_insert(now);
            self.traffic_lost_at = None;
        } else if self.traffic_safe_at.is_some() {
            self.traffic_lost_at.get_or_insert(now);
        }
    }

    /// All its evidence, in plain words.
    pub fn reasons(&self) -> String {
        self.evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// One changing call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallRecord {
    /// When it was sent; absent when that was before a restart of an older version.
    pub sent_at: Option<Timestamp>,
    /// When it was answered, or given up.
    pub at: Timestamp,
    /// As in `ModifyRule`. Empty when it was kept by an older version.
    #[serde(default)]
    pub operation: String,
    /// The call, in the words of the timeline.
    pub call: String,
    /// AWS accepted it, or it was done already.
    pub applied: bool,
    /// How it ended, in the words of the timeline.
    pub outcome: String,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What, in plain words.
    pub what: String,
}

/// How an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentOutcome {
    /// The plan runs.
    Open,
    /// Done.
    RolledBack,
    /// A person is needed.
    Escalated,
    /// Decided, and deliberately not done.
    Held,
    /// Events overtook it.
    Superseded,
}

impl IncidentOutcome {
    /// Those that end a rollback, for closed label sets.
    pub const ENDS: [Self; 4] = [Self::RolledBack, Self::Escalated, Self::Held, Self::Superseded];

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::RolledBack => "rolled_back",
            Self::Escalated => "escalated",
            Self::Held => "held",
            Self::Superseded => "superseded",
        }
    }
}
