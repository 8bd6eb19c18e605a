//! The rollback plan: its phases and steps, the writes that it sends and how they end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Action, CallError, ErrorClass, ServiceKey, TaskSetArn, TrafficRuleId};

/// Where a deployment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Green lives and no gate is breached.
    Watching,
    /// A gate is breached and nothing is done about it: observe mode or dry run.
    Breached,
    /// The plan runs.
    RollingBack(Step),
    /// Traffic is on blue, green is gone (or kept, if the rule says so).
    RolledBack,
    /// A person is needed. The step is still retried, slowly.
    Escalated,
    /// Green took over.
    Graduated,
    /// A newer green appeared, or a person finished or undid the deployment.
    Superseded,
}

impl Phase {
    /// The word used in logs and metrics. Steps are not told apart here.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Breached => "breached",
            Self::RollingBack(_) => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Escalated => "escalated",
            Self::Graduated => "graduated",
            Self::Superseded => "superseded",
        }
    }

    /// All words, for closed label sets.
    pub const WORDS: [&'static str; 7] =
        ["watching", "breached", "rolling_back", "rolled_back", "escalated", "graduated", "superseded"];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RollingBack(step) => write!(f, "rolling_back ({step})"),
            other => f.write_str(other.as_str()),
        }
    }
}

/// A step of the plan, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Read everything anew.
    Observe,
    /// Give blue back the capacity that it needs for all the traffic.
    RestoreBlue,
    /// Make blue PRIMARY again.
    PromoteBlue,
    /// Put every rule's weight on blue.
    ShiftTraffic,
    /// Read the rules again: all must agree.
    VerifyTraffic,
    /// Let requests in flight end.
    Drain,
    /// Two agreeing reads, then the forced delete.
    DeleteGreen,
    /// Wait until ECS has taken it away.
    VerifyGone,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One mutating call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// `ModifyRule`, or `ModifyListener` for a default action.
    SetActions {
        /// What to modify.
        rule: TrafficRuleId,
        /// What the decision was made on.
        found: Vec<Action>,
        /// The whole new list.
        actions: Vec<Action>,
    },
    /// `UpdateTaskSet`.
    ScaleTaskSet {
        /// Its service.
        service: ServiceKey,
        /// Blue.
        task_set: TaskSetArn,
        /// Percent of the service's desired count, 0 to 100.
        percent: u8,
    },
    /// `UpdateServicePrimaryTaskSet`.
    SetPrimary {
        /// Its service.
        service: ServiceKey,
        /// Blue.
        task_set: TaskSetArn,
    },
    /// `DeleteTaskSet` with force.
    DeleteTaskSet {
        /// Its service.
        service: ServiceKey,
        /// The task set, never the PRIMARY.
        task_set: TaskSetArn,
    },
}

impl Write {
    /// The call's name, as CloudTrail shows it.
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::SetActions { rule, .. } => rule.operation(),
            Self::ScaleTaskSet { .. } => "UpdateTaskSet",
            Self::SetPrimary { .. } => "UpdateServicePrimaryTaskSet",
            Self::DeleteTaskSet { .. } => "DeleteTaskSet",
        }
    }
}

/// How a write or an announcement ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// AWS accepted it. Whether it holds is for the next observation to say.
    Applied,
    /// There was nothing left to do.
    AlreadyDone,
    /// The decision was too old when its turn came; nothing was sent.
    Expired,
    /// Dry run: nothing was sent.
    Suppressed,
    /// AWS refused, or nobody knows whether it was applied.
    Failed(CallError),
}

impl Outcome {
    /// No retry helps.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Failed(CallError { class: ErrorClass::Denied, .. }))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("done"),
            Self::AlreadyDone => f.write_str("was done already"),
            Self::Expired => f.write_str("not sent: the decision had become too old"),
            Self::Suppressed => f.write_str("not sent: dry run"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}
