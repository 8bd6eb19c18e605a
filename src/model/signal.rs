//! Signals: one attributed fact each, decoded from an `EventBridge` event. Hints, never authority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AlarmName, AlarmReading, Scope, ServiceKey, TargetGroupArn, TaskArn, TaskSetId, Timestamp, TrafficRuleId};

/// One fact with its provenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The event's `time`: when AWS says that it happened, to the second.
    pub at: Timestamp,
    /// Account and Region of the thing that the event speaks about.
    pub scope: Scope,
    /// The event carries `replay-name`: it comes out of an archive and can't trigger anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// What it says.
    pub fact: Fact,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A task of a task set changed its state.
    Task(TaskChange),
    /// ECS says something about a service as a whole.
    Service(ServiceAction),
    /// An alarm changed its state.
    Alarm(AlarmChange),
    /// An alarm was deleted: no OK transition will follow.
    AlarmDeleted(AlarmDeleted),
    /// Somebody changed task sets or rules, by CloudTrail's word.
    Call(ApiCall),
}

impl Fact {
    /// The `kind` label of `signals_total`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Task(TaskChange { stop: Some(_), .. }) => "task_stopped",
            Self::Task(_) => "task_changed",
            Self::Service(_) => "service_action",
            Self::Alarm(_) => "alarm_changed",
            Self::AlarmDeleted(_) => "alarm_deleted",
            Self::Call(_) => "api_call",
        }
    }

    /// All kinds, for closed label sets.
    pub const KINDS: [&'static str; 6] =
        ["task_stopped", "task_changed", "service_action", "alarm_changed", "alarm_deleted", "api_call"];
}

/// `ECS Task State Change` of a task that belongs to a task set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskChange {
    /// From `clusterArn` and `group`.
    pub service: ServiceKey,
    /// From `startedBy`.
    pub task_set: TaskSetId,
    /// The task.
    pub task: TaskArn,
    /// ECS's counter per task: the highest is the newest, equal ones are duplicates.
    pub version: u64,
    /// As in `RUNNING`.
    pub last_status: Arc<str>,
    /// Present from the moment that ECS knows that the task will end.
    pub stop: Option<Stop>,
}

/// Why and when a task ended, as ECS tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Stop {
    /// When ECS began to stop it: `stoppingAt`, else `stoppedAt`, else the event's time.
    pub at: Timestamp,
    /// Whom it speaks against.
    pub class: StopClass,
    /// `stopCode` as sent.
    pub code: Arc<str>,
    /// `stoppedReason` as sent, cut at 512 bytes.
    pub reason: Arc<str>,
    /// Containers that ended with an exit code or a reason; at most ten.
    pub containers: Vec<ContainerExit>,
    /// The target group named in an ELB stop reason.
    pub target_group: Option<TargetGroupArn>,
}

/// How one container ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ContainerExit {
    /// Container name.
    pub name: Arc<str>,
    /// Absent when it never ran.
    pub exit_code: Option<i32>,
    /// As in `OutOfMemoryError: …`, cut at 256 bytes.
    pub reason: Option<Arc<str>>,
    /// `sha256:…` of its image. Absent when it was not pulled, or not from ECR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Arc<str>>,
}

/// What a task runs: digests by container name.
pub type Images = BTreeMap<Arc<str>, Arc<str>>;

/// Whom a task's end speaks against. Decided by stop code *and* stopped reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopClass {
    /// The version: it crashed, failed its health checks or could not start.
    Version,
    /// Spot, retirement, capacity, network.
    Infrastructure,
    /// A person or a tool stopped it.
    Operator,
    /// Scale-in and deletes, ours included.
    Neutral,
    /// A stop code or reason that we do not know. Never counted against anybody.
    Unknown,
}

/// `ECS Service Action`. The payload names no task set, so it is only a reason to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAction {
    /// From the service's ARN.
    pub service: ServiceKey,
    /// As in `SERVICE_TASK_START_IMPAIRED`.
    pub name: Arc<str>,
}

/// `CloudWatch Alarm State Change`, or the state in a `CloudWatch Alarm Configuration Change`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmChange {
    /// The alarm as the event describes it.
    pub alarm: AlarmReading,
}

/// `CloudWatch Alarm Configuration Change` with operation `delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmDeleted {
    /// Its name.
    pub name: AlarmName,
}

/// `AWS API Call via CloudTrail`: a change that AWS accepted. CloudTrail delivers late or never, so it gives a change its
/// author's name and a reason to look, and nothing rests on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCall {
    /// `eventName`, as in `ModifyRule`.
    pub operation: Arc<str>,
    /// `userIdentity.arn`, or whatever else names the caller.
    pub by: Arc<str>,
    /// `userAgent` says that a guardian made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// What was changed.
    pub target: CallTarget,
}

/// What a call changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallTarget {
    /// A task set of a service.
    TaskSet {
        /// From the request.
        service: ServiceKey,
        /// From the request, or from the answer when it was created. Absent when neither names it.
        id: Option<TaskSetId>,
    },
    /// A rule or a default action.
    Rule {
        /// Which.
        rule: TrafficRuleId,
        /// The target groups that it was made to forward to, as `targetgroup/<name>/<id>`; at most 20.
        groups: BTreeSet<Arc<str>>,
    },
}
