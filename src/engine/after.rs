//! After a rollback is done: whoever gives weight again to the group that was rolled away from is undone once, and then a
//! person is called.
//!
//! What the plan knows is used as it is: the rollback is opened again, and ends when a read shows the rules on blue.

use std::time::Duration;

use super::hands::Deed;
use super::out::Out;
use super::partition::{Deployment, Partition};
use super::plan::{SETTLE, Stuck};
use super::progress::Rollback;
use super::rollback::{enter, escalate, held};
use super::{Effect, Note};
use crate::model::{
    AnnouncementKind, Controller, HoldOrder, IncidentOutcome, Observation, Phase, ServiceKey, ServiceStatus, Step,
    TaskSetStatus, TrafficRule,
};
use crate::rules::{Mode, Rule};

/// Until the second look: a new task set may be slower to be read than the weights that its deployer gives it.
const LOOK_AGAIN: Duration = SETTLE;

/// Looks whether a rollback that is done still is.
pub(super) fn look(key: &ServiceKey, partition: &mut Partition, seen: &Observation, out: &mut Out<'_>) {
    let Partition { kept, soft } = partition;
    let Some(deployment) = kept.deployment.as_mut().filter(|d| d.phase == Phase::RolledBack) else { return };
    let Some(mut rollback) = deployment.rollback.take_if(|rollback| rollback.closed) else { return };
    let told = |rollback: &Rollback| (rollback.incident.traffic_lost_at, rollback.incident.timeline.len());
    let before = told(&rollback);
    if let Some(why) = returned(deployment, seen) {
        let since = *rollback.after.seen_since.get_or_insert(out.now);
        let again_at = since.plus(LOOK_AGAIN);
        let undone_since = rollback.last_accepted().unwrap_or(rollback.incident.detected_at);
        if seen.read_at < again_at {
            soft.want(again_at.max(out.now));
        } else if let Some(cause) = let_be(&kept.rule, soft.hold.as_ref(), out) {
            rollback.incident.traffic(false, out.now);
            let why = format!("{}; {cause}", kept.hands.named(why, undone_since, Deed::Rules));
            say_once(key, deployment, &mut rollback, kept.rule.mode, &why, out);
        } else {
            rollback.incident.traffic(false, out.now);
            let why = kept.hands.named(why, undone_since, Deed::Rules);
            reopen(key, deployment, &mut rollback, &why, out);
        }
    } else {
        rollback.after.seen_since = None;
        if rollback.incident.traffic_lost_at.is_some() && senders(deployment, seen).next().is_none() {
            rollback.incident.traffic(true, out.now);
        }
    }
    // The record of what is open again is kept with all others that are open.
    if rollback.closed && told(&rollback) != before {
        out.step.effects.push(Effect::Keep(rollback.incident.clone()));
    }
    deployment.rollback = Some(rollback);
}

/// Which rules send somebody to the group that was rolled away from, if any does, and nobody has a use for it: blue is
/// PRIMARY still, and no other task set is registered in it. A newer one has begun a deployment of its own by now.
fn returned(deployment: &Deployment, seen: &Observation) -> Option<String> {
    let group = deployment.green_group.as_ref()?;
    let service = &seen.service;
    let ours = service.controller == Controller::External && service.status == ServiceStatus::Active;
    let living = || service.task_sets.iter().filter(|set| set.is_living());
    let back_on_blue = living().any(|set| set.id == deployment.blue && set.status == TaskSetStatus::Primary);
    let taken = living().any(|set| set.id != deployment.green && set.target_group.as_ref() == Some(group));
    if !ours || !back_on_blue || taken {
        return None;
    }
    let rules: Vec<_> = senders(deployment, seen).map(|rule| rule.id.short()).collect();
    let name = group.name();
    (!rules.is_empty()).then(|| format!("{} sends users to {name} again, which was rolled away from", rules.join(", ")))
}

/// The rules that send somebody to the group that was rolled away from.
fn senders<'a>(deployment: &'a Deployment, seen: &'a Observation) -> impl Iterator<Item = &'a TrafficRule> {
    let group = deployment.green_group.as_ref();
    let sends = move |rule: &TrafficRule, group| rule.forwards().any(|forward| forward.share(group) > 0.0);
    seen.traffic.rules().iter().filter(move |rule| group.is_some_and(|group| sends(rule, group)))
}

/// Why nothing is to be done about it, if so.
fn let_be(rule: &Rule, hold: Option<&HoldOrder>, out: &Out<'_>) -> Option<String> {
    held(rule.mode, out).map(str::to_owned).or_else(|| hold.map(ToString::to_string))
}

fn say_once(
    key: &ServiceKey,
    deployment: &Deployment,
    rollback: &mut Rollback,
    mode: Mode,
    why: &str,
    out: &mut Out<'_>,
) {
    if std::mem::replace(&mut rollback.after.said, true) {
        return;
    }
    rollback.log(out.now, why);
    let (service, incident, outcome) = (key.clone(), rollback.incident.id.clone(), IncidentOutcome::Held);
    out.note(Note::Closed { service, incident, outcome, why: why.to_owned() });
    let changes_nothing = held(mode, out).is_some();
    out.announce_rollback(AnnouncementKind::RollbackHeld, key, deployment, &rollback.incident, why, changes_nothing);
}

fn reopen(key: &ServiceKey, deployment: &mut Deployment, rollback: &mut Rollback, why: &str, out: &mut Out<'_>) {
    let spent = rollback.has_reasserted();
    rollback.open_again(out.now, why);
    let (service, incident, outcome) = (key.clone(), rollback.incident.id.clone(), IncidentOutcome::Open);
    out.note(Note::Closed { service, incident, outcome, why: why.to_owned() });
    if spent {
        let why = format!("{why}; it was given back to blue once already, and nothing is written any more");
        return escalate(key, deployment, rollback, Stuck { step: Step::VerifyTraffic, why, frozen: true }, out);
    }
    let why = format!("{why}; it is given back to blue, once");
    enter(key, deployment, Phase::RollingBack(Step::VerifyTraffic), &why, out);
    out.announce_rollback(AnnouncementKind::RollbackStarted, key, deployment, &rollback.incident, &why, false);
}
