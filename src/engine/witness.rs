//! After a decision that was only told, in observe mode or a dry run: what other hands then did, beside what the guardian
//! would have done.

use serde::{Deserialize, Serialize};

use super::partition::{Deployment, Partition};
use super::progress::{Rollback, log_into};
use super::{Effect, Note, out::Out};
use crate::model::{IncidentOutcome, Observation, ServiceKey, Split, TaskSet, TaskSetStatus};

/// How the deployment was found last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Witnessed {
    split: Option<Split>,
    /// Green is PRIMARY.
    promoted: bool,
}

/// It was decided, told, and not done.
pub(super) fn was_withheld(rollback: &Rollback) -> bool {
    rollback.closed && rollback.incident.outcome == IncidentOutcome::Held && !rollback.is_reopened()
}

/// Writes down what has changed since the last look.
pub(super) fn look(key: &ServiceKey, partition: &mut Partition, seen: &Observation, out: &mut Out<'_>) {
    let Some(deployment) = partition.kept.deployment.as_mut().filter(|deployment| !deployment.ended()) else { return };
    let found = found(deployment, seen);
    let Some(rollback) = deployment.rollback.as_mut().filter(|rollback| was_withheld(rollback)) else { return };
    let Some(before) = rollback.witnessed.replace(found) else { return };
    if let Some(split) = found.split.filter(|split| before.split != Some(*split)) {
        write_down(key, rollback, &format!("the weights were set: {split}"), out);
    }
    if found.promoted != before.promoted {
        let whom = if found.promoted { "green" } else { "another task set" };
        write_down(key, rollback, &format!("{whom} was made PRIMARY"), out);
    }
}

/// The deployment has ended.
pub(super) fn ended(key: &ServiceKey, deployment: &mut Deployment, why: &str, out: &mut Out<'_>) {
    if let Some(rollback) = deployment.rollback.as_mut().filter(|rollback| was_withheld(rollback)) {
        write_down(key, rollback, why, out);
    }
}

fn write_down(key: &ServiceKey, rollback: &mut Rollback, what: &str, out: &mut Out<'_>) {
    log_into(&mut rollback.incident.aftermath, out.now, what);
    out.note(Note::Witnessed { service: key.clone(), what: what.to_owned() });
    out.step.effects.push(Effect::Keep(rollback.incident.clone()));
}

fn found(deployment: &Deployment, seen: &Observation) -> Witnessed {
    let Deployment { green, blue_group, green_group, .. } = deployment;
    let primary = |set: &TaskSet| set.id == *green && set.status == TaskSetStatus::Primary;
    Witnessed {
        split: seen.traffic.split(blue_group.as_ref(), green_group.as_ref()),
        promoted: seen.service.task_sets.iter().any(primary),
    }
}
