//! Versions that were rolled back, and what happens when one comes back as green.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::out::Out;
use super::partition::{Deployment, Kept};
use super::{Effect, Note, progress};
use crate::model::{
    AnnouncementKind, Evidence, Gate, IncidentId, IncidentOutcome, ServiceKey, Tags, TaskSetId, Timestamp, tags,
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
}

/// A rollback is done: its version is remembered.
pub(super) fn put(kept: &mut Kept, now: Timestamp) {
    let Some(deployment) = &kept.deployment else { return };
    let Some(rollback) = &deployment.rollback else { return };
    kept.quarantine.retain(|other| other.task_definition != deployment.task_definition);
    kept.quarantine.push(Quarantined {
        task_definition: deployment.task_definition.clone(),
        task_set: deployment.green.clone(),
        incident: rollback.incident.id.clone(),
        since: now,
    });
    if kept.quarantine.len() > MOST {
        kept.quarantine.remove(0);
    }
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

/// A green that has just appeared is known from before: that is said at once, whatever the rule wants to be done.
pub(super) fn meet(key: &ServiceKey, kept: &mut Kept, out: &mut Out<'_>) {
    let (acts, Some(deployment)) = (kept.rule.quarantine.on_return == OnReturn::Rollback, kept.deployment.as_mut())
    else {
        return;
    };
    let Some(known) = kept.quarantine.iter().find(|one| one.task_definition == deployment.task_definition) else {
        return;
    };
    deployment.returned = Some(known.incident.clone());
    if acts {
        // The rollback itself says why.
        return;
    }
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
    out.announce_rollback(AnnouncementKind::RollbackHeld, key, deployment, &incident, &why, out.settings.dry_run);
    out.step.effects.push(Effect::Keep(incident));
}

/// What speaks against green from the first moment, if the rule wants it to.
pub(super) fn against(kept: &Kept, now: Timestamp) -> Option<Evidence> {
    let deployment = kept.live().filter(|_| kept.rule.quarantine.on_return == OnReturn::Rollback)?;
    let incident = deployment.returned.as_ref()?;
    let known = kept.quarantine.iter().find(|one| one.incident == *incident)?;
    Some(evidence(deployment, known, now))
}

fn evidence(deployment: &Deployment, known: &Quarantined, now: Timestamp) -> Evidence {
    Evidence::fact(Gate::Quarantine, deployment.green.clone(), now, known.story())
}

impl Quarantined {
    fn story(&self) -> String {
        let Self { task_definition, task_set, incident, since } = self;
        let version = task_definition.rsplit('/').next().unwrap_or(task_definition);
        format!("{version} is back: it was rolled back at {since} as {task_set} ({incident})")
    }
}
