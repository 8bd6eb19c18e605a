//! What is kept of a service before green is deleted, and once a rollback is over.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::partition::Deployment;
use crate::model::{EndedTask, Observation, Role, Snapshot, Standing, TaskArn, TaskRecord, TaskSetId, Window};
use crate::rules::Rule;

/// Ended tasks of one role that are kept.
const ENDED: usize = 20;

/// How the service stands in this observation, with what the windows know of the deployment's two task sets.
pub(super) fn take(
    rule: &Rule,
    deployment: &Deployment,
    windows: &BTreeMap<TaskSetId, Window>,
    seen: &Observation,
) -> Arc<Snapshot> {
    let roles = [(Role::Green, &deployment.green), (Role::Blue, &deployment.blue)];
    let ended = roles.into_iter().flat_map(|(role, id)| windows.get(id).into_iter().flat_map(move |w| ended(role, w)));
    // A read that looks for alarms finds all of the account's.
    let Deployment { bound_alarms, blue_alarms, .. } = deployment;
    let speaks = |name| rule.errors.alarms.contains(name) || bound_alarms.contains(name) || blue_alarms.contains(name);
    let alarms = seen.alarms.iter().flatten().filter(|alarm| speaks(&alarm.name)).cloned().collect();
    Arc::new(Snapshot::of(seen, roles, alarms, ended.collect()))
}

/// Those that ECS has confirmed, the newest first.
fn ended(role: Role, window: &Window) -> Vec<EndedTask> {
    let confirmed = window.records().filter(|(_, record)| record.standing == Standing::Confirmed);
    let task =
        |(task, record): (&TaskArn, &TaskRecord)| EndedTask { task: task.clone(), role, stop: record.stop.clone() };
    let mut ended: Vec<_> = confirmed.map(task).collect();
    ended.sort_by_key(|ended| Reverse(ended.stop.at));
    ended.truncate(ENDED);
    ended
}
