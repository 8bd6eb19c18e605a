//! Snapshots: how a service stood at one moment of a rollback, kept because ECS and load balancers forget it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AlarmReading, Observation, Role, Stability, Stop, TargetCounts, TaskArn, TaskSetId, TaskSetStatus, Timestamp,
    TrafficRule, WeightedGroup,
};

/// Rules that are kept. A service has a handful.
const RULES: usize = 50;

/// How a service stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// When it was read.
    pub at: Timestamp,
    /// Task sets, as ECS lists them.
    pub task_sets: Vec<TaskSetSnapshot>,
    /// The rules that forward to their target groups; at most 50.
    pub rules: Vec<RuleSnapshot>,
    /// The alarms that count for green or for blue.
    pub alarms: Vec<AlarmReading>,
    /// Tasks of blue and green that ended in the window, the newest first; at most 20 of each.
    pub ended: Vec<EndedTask>,
}

/// One task set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskSetSnapshot {
    /// Which.
    pub id: TaskSetId,
    /// Of the deployment; absent for a bystander.
    pub role: Option<Role>,
    /// PRIMARY, ACTIVE, DRAINING.
    pub status: TaskSetStatus,
    /// Whether ECS calls it steady.
    pub stability: Stability,
    /// Its version.
    pub task_definition: String,
    /// Running tasks.
    pub running: u32,
    /// Tasks that it should run.
    pub desired: u32,
    /// What the load balancer says of its targets.
    pub targets: Option<TargetCounts>,
}

/// One rule or default action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleSnapshot {
    /// Its ARN, or its listener's.
    pub rule: String,
    /// Target groups by name, with their weights.
    pub weights: Vec<(String, u32)>,
}

/// One task that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedTask {
    /// Which.
    pub task: TaskArn,
    /// Whose.
    pub role: Role,
    /// Why: code, reason, exit codes.
    #[serde(flatten)]
    pub stop: Stop,
}

impl Snapshot {
    /// What the ended tasks of blue or green ran, where ECS told.
    pub fn images(&self, role: Role) -> BTreeMap<&str, &str> {
        let containers = self.ended.iter().filter(|ended| ended.role == role).flat_map(|ended| &ended.stop.containers);
        containers.filter_map(|container| Some((&*container.name, container.image_digest.as_deref()?))).collect()
    }

    /// What a read found. `roles` are blue and green; `alarms` are those of it that count; `ended` is what the windows know.
    pub fn of(
        seen: &Observation,
        roles: [(Role, &TaskSetId); 2],
        alarms: Vec<AlarmReading>,
        ended: Vec<EndedTask>,
    ) -> Self {
        let task_sets = seen.service.task_sets.iter().map(|set| TaskSetSnapshot {
            id: set.id.clone(),
            role: roles.iter().find(|(_, id)| **id == set.id).map(|(role, _)| *role),
            status: set.status,
            stability: set.stability,
            task_definition: set.task_definition.to_string(),
            running: set.running,
            desired: set.computed_desired,
            targets: set.target_group.as_ref().and_then(|group| seen.targets.get(group)).cloned(),
        });
        Self {
            at: seen.read_at,
            task_sets: task_sets.collect(),
            rules: seen.traffic.rules().iter().take(RULES).map(rule).collect(),
            alarms,
            ended,
        }
    }
}

fn rule(rule: &TrafficRule) -> RuleSnapshot {
    let groups = rule.forwards().flat_map(|forward| &forward.groups);
    let weight = |group: &WeightedGroup| (group.target_group.name().to_owned(), group.effective_weight());
    RuleSnapshot { rule: rule.id.arn().to_owned(), weights: groups.map(weight).collect() }
}
