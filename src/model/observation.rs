//! Observations: what one round of reads from AWS found. The only authority for a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AlarmName, Images, SampleAsk, Samples, Scope, ServiceKey, Stop, Tags, TargetGroupArn, TaskArn, TaskSetArn,
    TaskSetId, Timestamp, Traffic, cut,
};

/// Who waits for a read. Where calls are counted or queued, the less urgent gives way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Nobody: a service is looked at from time to time.
    #[default]
    Routine,
    /// A deployment is watched.
    Deployed,
    /// A rollback goes on, and users are safe.
    Plan,
    /// Users: traffic goes to a green that may have to lose it.
    Traffic,
}

impl Urgency {
    /// From the least to the most urgent.
    pub const ALL: [Self; 4] = [Self::Routine, Self::Deployed, Self::Plan, Self::Traffic];
}

/// What the engine wants to know about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "questions that have nothing to do with each other")]
pub struct Ask {
    /// The service to read.
    pub service: ServiceKey,
    /// Tasks whose failure is to be confirmed by `DescribeTasks`; at most 100.
    pub tasks: Vec<TaskArn>,
    /// Also read the tasks that ECS lists as stopped, to find failures whose events were lost. Wanted by sweeps.
    pub find_stopped: bool,
    /// Alarms whose state is to be confirmed by `DescribeAlarms`; at most 100.
    pub alarms: BTreeSet<AlarmName>,
    /// Read every alarm of the account, to find those whose dimensions name a target group. Wanted once per green.
    pub find_alarms: bool,
    /// Read the task sets a second time by `DescribeTaskSets`, with their tags. Wanted before a delete, and once per green.
    pub twice: bool,
    /// Look the listeners up anew, beside those that are known: one that was added since may send users to [`Self::groups`].
    /// Wanted by sweeps after a rollback.
    #[serde(default)]
    pub find_listeners: bool,
    /// Target groups whose rules are wanted too, whether a task set is registered in them or not: users may be sent to one
    /// that nobody serves.
    #[serde(default)]
    pub groups: BTreeSet<TargetGroupArn>,
    /// Also read how the traffic of target groups fares. Wanted by sweeps, by rules with a traffic gate.
    #[serde(default)]
    pub samples: Option<SampleAsk>,
    /// Who waits for it.
    #[serde(default)]
    pub urgency: Urgency,
}

impl Ask {
    /// What a person wants to know who looks at a service: all alarms, and the task sets twice, with their tags.
    pub const fn examination(service: ServiceKey) -> Self {
        Self {
            service,
            tasks: Vec::new(),
            find_stopped: false,
            alarms: BTreeSet::new(),
            find_alarms: true,
            twice: true,
            find_listeners: true,
            groups: BTreeSet::new(),
            samples: None,
            urgency: Urgency::Plan,
        }
    }
}

/// The answer. Reads that belong together were sent together, after `read_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The question: what is absent below was either not asked for or is not there.
    pub ask: Ask,
    /// When the first read was sent: nothing in here is older.
    pub read_at: Timestamp,
    /// `DescribeServices`.
    pub service: ServiceReading,
    /// `DescribeTaskSets`, when [`Ask::twice`] wanted it.
    pub task_sets_again: Option<Vec<TaskSet>>,
    /// Every rule and default action that forwards to a target group of this service, or to one of [`Ask::groups`].
    pub traffic: Traffic,
    /// `DescribeTargetHealth` per target group of a task set.
    pub targets: BTreeMap<TargetGroupArn, TargetCounts>,
    /// `DescribeTasks` for [`Ask::tasks`] and, with [`Ask::find_stopped`], for the tasks listed as stopped; those that
    /// ECS does not know are absent.
    pub tasks: Vec<TaskReading>,
    /// `DescribeAlarms` for [`Ask::alarms`], or all that were found; those that do not exist are absent. `None` when
    /// CloudWatch could not be read: that must not hide what ECS says.
    pub alarms: Option<Vec<AlarmReading>>,
    /// [`Ask::find_alarms`] had no answer: those in `alarms` are the named ones alone.
    #[serde(default)]
    pub alarms_unlisted: bool,
    /// `GetMetricData` for [`Ask::samples`]. `None` when it was not asked for or could not be read, which must not hide what
    /// ECS says either.
    #[serde(default)]
    pub samples: Option<Samples>,
}

impl Observation {
    /// All alarms were looked through, and what is not among them does not exist.
    pub const fn has_all_alarms(&self) -> bool {
        self.ask.find_alarms && self.alarms.is_some() && !self.alarms_unlisted
    }
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReading {
    /// Account and Region of its ARN.
    pub scope: Scope,
    /// ACTIVE or on its way out.
    pub status: ServiceStatus,
    /// Who deploys it.
    pub controller: Controller,
    /// The service's own desired count, in tasks; each task set computes its own from it.
    pub desired_count: u32,
    /// In the order that AWS gave them.
    pub task_sets: Vec<TaskSet>,
    /// Service tags.
    pub tags: Tags,
}

/// `status` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// In service.
    Active,
    /// Being deleted, or deleted.
    Inactive,
}

/// `deploymentController.type` of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// The only one that the guardian acts on.
    External,
    /// `CodeDeploy` has task sets too, and its own rollback.
    CodeDeploy,
    /// Rolling updates.
    Ecs,
    /// A type that we do not know.
    Other(String),
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::External => "EXTERNAL",
            Self::CodeDeploy => "CODE_DEPLOY",
            Self::Ecs => "ECS",
            Self::Other(name) => name,
        })
    }
}

/// One task set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSet {
    /// `ecs-svc/<digits>`.
    pub id: TaskSetId,
    /// For writes.
    pub arn: TaskSetArn,
    /// PRIMARY, ACTIVE, DRAINING.
    pub status: TaskSetStatus,
    /// Decides who is green: the newest.
    pub created_at: Timestamp,
    /// Whether ECS calls it steady.
    pub stability: Stability,
    /// Running tasks.
    pub running: u32,
    /// Pending tasks.
    pub pending: u32,
    /// Tasks that it should run: `ceil(desired count * scale / 100)`.
    pub computed_desired: u32,
    /// Where its tasks are registered, if anywhere. ECS allows one target group a task set.
    pub target_group: Option<TargetGroupArn>,
    /// ARN of the task definition: the version.
    pub task_definition: Arc<str>,
    /// The caller's label. Not unique, never used to tell roles.
    pub external_id: Option<Arc<str>>,
    /// Its tags. Empty in [`ServiceReading::task_sets`]: `DescribeServices` leaves them out.
    #[serde(default)]
    pub tags: Tags,
}

impl TaskSet {
    /// Not on its way out.
    pub fn is_living(&self) -> bool {
        self.status != TaskSetStatus::Draining
    }

    /// Steady, with tasks that run: ECS calls one that is to have none steady as well.
    pub fn is_steady(&self) -> bool {
        self.stability == Stability::Steady && self.running > 0
    }
}

/// `status` of a task set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskSetStatus {
    /// Serves production, by the deployer's word.
    Primary,
    /// Another one.
    Active,
    /// Deleted, tasks going away.
    Draining,
    /// A status that we do not know. Never deleted.
    Unknown,
}

/// `stabilityStatus` of a task set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stability {
    /// Running as desired, nothing pending, all health checks green.
    Steady,
    /// Not there yet.
    Stabilizing,
}

/// Targets of a group, by what the load balancer says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetCounts {
    /// `healthy`.
    pub healthy: u32,
    /// `unhealthy`, `unhealthy.draining`, for a reason of the target's own.
    pub unhealthy: u32,
    /// `initial`: not checked often enough yet.
    pub initial: u32,
    /// `unused`, `draining`, `unavailable`, states that we do not know, and unhealthy for a reason of the load balancer's.
    pub other: u32,
    /// Why targets are unhealthy, in the load balancer's words, and how many for each; at most 8.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<Arc<str>, u32>,
}

/// Reasons that are kept of one group.
const MOST_REASONS: usize = 8;

impl TargetCounts {
    /// One target more that fails its checks, as in `Target.ResponseCodeMismatch`, `Health checks failed with these codes:
    /// [502]`. A load balancer that fails itself, as in `Elb.InternalError`, says nothing about the version.
    pub fn fails(&mut self, reason: Option<&str>, description: Option<&str>) {
        if reason.is_some_and(|reason| reason.starts_with("Elb.")) {
            self.other = self.other.saturating_add(1);
            return;
        }
        self.unhealthy = self.unhealthy.saturating_add(1);
        let said = match (reason, description) {
            (Some(reason), Some(description)) => cut(&format!("{reason}: {description}"), 256),
            (Some(only), None) | (None, Some(only)) => cut(only, 256),
            (None, None) => return,
        };
        if self.reasons.len() < MOST_REASONS || self.reasons.contains_key(&said) {
            let count = self.reasons.entry(said).or_default();
            *count = count.saturating_add(1);
        }
    }
}

/// What `DescribeTasks` says of a task whose failure an event claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReading {
    /// The task.
    pub task: TaskArn,
    /// `startedBy`.
    pub task_set: TaskSetId,
    /// ECS's counter.
    pub version: u64,
    /// Absent while ECS wants it to run.
    pub stop: Option<Stop>,
    /// What it runs; at most ten containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: Images,
}

/// One CloudWatch alarm, from an event or from `DescribeAlarms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmReading {
    /// Its name.
    pub name: AlarmName,
    /// Its state.
    pub value: AlarmValue,
    /// When that state began.
    pub since: Timestamp,
    /// CloudWatch's words, cut at 512 bytes.
    pub reason: Arc<str>,
    /// Why its state says nothing, if so: its actions are suppressed, or CloudWatch could not evaluate it.
    pub doubt: Option<Arc<str>>,
    /// `TargetGroup` dimensions of its metrics: `targetgroup/<name>/<id>`. Of a composite alarm those of the alarms
    /// that it is made of; empty for service-wide ones, and in events of composite ones.
    pub target_groups: BTreeSet<Arc<str>>,
}

/// [`AlarmReading::doubt`] of an alarm whose actions are suppressed. It still changes its state and sends its events, but
/// somebody said that nothing is to be done about them.
pub fn suppressed(by: &str) -> Arc<str> {
    Arc::from(format!("its actions are suppressed ({by})"))
}

/// An alarm's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AlarmValue {
    /// Fine.
    Ok,
    /// Red.
    Alarm,
    /// No evidence, in either direction.
    InsufficientData,
}
