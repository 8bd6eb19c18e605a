//! Versions that were rolled back, and what happens when one comes back as green.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::out::Out;
use super::partition::{Deployment, Kept, Soft};
use super::{Effect, Note, progress, rollback};
use crate::model::{
    AnnouncementKind, Evidence, Gate, Images, IncidentId, IncidentOutcome, Observation, ServiceKey, Standing, Tags,
    TaskArn, TaskSetId, Timestamp, Window, tags,
};
use crate::rules::OnReturn;

/// Versions that are remembered for a service; more than it can roll back in the days that one is kept.
const MOST: usize = 64;

/// A version that was rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Quarantined {
    /// Its task definition.
    pub(super) task_definition: Arc<str>,
    /// The task set that was rolled back.
    pub(super) task_set: TaskSetId,
    /// The record of that.
    pub(super) incident: IncidentId,
    /// When it was put in quarantine.
    pub(super) since: Timestamp,
    /// What its tasks ran, as far as ECS said.
    #[serde(default)]
    pub(super) images: Images,
}

/// For how long a green with a known task definition may be what it was, before its images are known. A tag such as
/// `latest` may stand for another image by now: the one that mends it.
const COMPARED_WITHIN: Duration = Duration::from_mins(1);

/// A rollback is done: its version is remembered.
pub(super) fn put(kept: &mut Kept, now: Timestamp) {
    let Some(deployment) = &kept.deployment else { return };
    let Some(rollback) = &deployment.rollback else { return };
    let images = ran(kept.windows.get(&deployment.green));
    kept.quarantine.retain(|other| other.task_definition != deployment.task_definition || other.differs(&images));
    kept.quarantine.push(Quarantined {
        task_definition: deployment.task_definition.clone(),
        task_set: deployment.green.clone(),
        incident: rollback.incident.id.clone(),
        since: now,
        images,
    });
    if kept.quarantine.len() > MOST {
        kept.quarantine.remove(0);
    }
}

/// The images of those of a task set's ended tasks that ECS has confirmed.
fn ran(window: Option<&Window>) -> Images {
    let confirmed =
        window.into_iter().flat_map(Window::records).filter(|(_, record)| record.standing == Standing::Confirmed);
    let containers = confirmed.flat_map(|(_, record)| &record.stop.containers);
    containers.filter_map(|container| Some((container.name.clone(), container.image_digest.clone()?))).collect()
}

/// Lets go what is over or was released.
pub(super) fn expire(kept: &mut Kept, said: &Tags, now: Timestamp) {
    let ttl = kept.rule.quarantine.ttl;
    let stays = |one: &Quarantined| now.since(one.since) < ttl && !tags::releases(said, &one.task_definition);
    if !kept.quarantine.iter().all(stays) {
        kept.quarantine.retain(stays);
    }
    if let Some(deployment) = kept.deployment.as_mut().filter(|d| d.returned.is_some()) {
        let known: BTreeSet<_> = kept.quarantine.iter().map(|one| &one.incident).collect();
        if deployment.returned.as_ref().is_some_and(|incident| !known.contains(incident)) {
            deployment.returned = None;
        }
    }
}

/// ECS has said what green runs: other images than those that were rolled back are another version.
pub(super) fn compare(kept: &mut Kept, seen: &Observation, now: Timestamp) {
    let Some(deployment) = kept.deployment.as_mut().filter(|deployment| !deployment.ended()) else { return };
    let Some(incident) = &deployment.returned else { return };
    let Some(until) = deployment.compared_by else { return };
    let runs = seen.tasks.iter().find(|task| task.task_set == deployment.green && !task.images.is_empty());
    let known = kept.quarantine.iter().filter(|one| one.task_definition == deployment.task_definition);
    let same = runs.map(|task| known.rev().find(|one| !one.differs(&task.images)).map(|one| one.incident.clone()));
    match same {
        None if now < until => {}
        None => deployment.compared_by = None,
        Some(found) => {
            deployment.compared_by = None;
            if found.as_ref() != Some(incident) {
                deployment.returned = found;
            }
        }
    }
}

/// The task that tells, if one does: the first of a green whose images are to be compared.
pub(super) fn wanted_task<'a>(kept: &Kept, soft: &'a Soft) -> Option<&'a TaskArn> {
    let (of, task) = soft.runs.as_ref()?;
    kept.live().filter(|deployment| deployment.compared_by.is_some() && deployment.green == *of).map(|_| task)
}

/// A green that has just appeared is known from before: that is said at once, whatever the rule wants to be done.
pub(super) fn meet(key: &ServiceKey, kept: &mut Kept, out: &mut Out<'_>) {
    let (acts, Some(deployment)) = (kept.rule.quarantine.on_return == OnReturn::Rollback, kept.deployment.as_mut())
    else {
        return;
    };
    let mut known = kept.quarantine.iter().rev().filter(|one| one.task_definition == deployment.task_definition);
    let Some(known) = known.next() else { return };
    deployment.returned = Some(known.incident.clone());
    deployment.compared_by = (!known.images.is_empty()).then(|| out.now.plus(COMPARED_WITHIN));
    if acts {
        // The rollback itself says why.
        return;
    }
    let changes_nothing = rollback::held(kept.rule.mode, out).is_some();
    let evidence = vec![evidence(deployment, known, out.now)];
    let why = format!("{}; quarantine.on_return = \"report\": it is only said", known.story());
    let id = format!("returned-{}", deployment.green.digits());
    let mut incident = deployment.incident(out.now, key, id, evidence.clone());
    incident.outcome = IncidentOutcome::Held;
    incident.reason = Some(why.clone());
    progress::log(&mut incident, out.now, why.clone());
    out.note(Note::Decided { service: key.clone(), incident: incident.id.clone(), held: true, evidence });
    let outcome = IncidentOutcome::Held;
    out.note(Note::Closed { service: key.clone(), incident: incident.id.clone(), outcome, why: why.clone() });
    out.announce_rollback(AnnouncementKind::RollbackHeld, key, deployment, &incident, &why, changes_nothing);
    out.step.effects.push(Effect::Keep(incident));
}

/// What speaks against green from the first moment, if the rule wants it to.
pub(super) fn against(kept: &Kept, now: Timestamp) -> Option<Evidence> {
    let acts = kept.rule.quarantine.on_return == OnReturn::Rollback;
    let deployment = kept.live().filter(|deployment| acts && deployment.compared_by.is_none())?;
    let incident = deployment.returned.as_ref()?;
    let known = kept.quarantine.iter().find(|one| one.incident == *incident)?;
    Some(evidence(deployment, known, now))
}

fn evidence(deployment: &Deployment, known: &Quarantined, now: Timestamp) -> Evidence {
    Evidence::fact(Gate::Quarantine, deployment.green.clone(), now, known.story())
}

impl Quarantined {
    /// Some container of both is known to run different images.
    fn differs(&self, images: &Images) -> bool {
        images.iter().any(|(name, digest)| self.images.get(name).is_some_and(|known| known != digest))
    }

    fn story(&self) -> String {
        let Self { task_definition, task_set, incident, since, images } = self;
        let version = task_definition.rsplit('/').next().unwrap_or(task_definition);
        let images = if images.is_empty() { "" } else { ", with the same images as far as is known" };
        format!("{version} is back{images}: it was rolled back at {since} as {task_set} ({incident})")
    }
}
