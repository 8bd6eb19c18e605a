//! What people say through tags: which rule protects a service, that it is to be left alone for a while, that its green is
//! to be rolled back. Read out of every observation; the newest one counts.

use std::sync::Arc;
use std::time::Duration;

use super::out::Out;
use super::partition::{Kept, Partition};
use super::progress::Rollback;
use super::{hold, rollback};
use crate::model::{Contract, Evidence, Gate, IncidentOutcome, Observation, ServiceKey, TaskSetId, tags};
use crate::rules::{Rule, RuleSet};

/// Until the next look when ECS does not know green yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Brings registration, hold and contract up to date.
pub(super) fn read(key: &ServiceKey, partition: &mut Partition, rules: &RuleSet, seen: &Observation, out: &Out<'_>) {
    let Partition { kept, soft } = partition;
    let said = &seen.service.tags;
    let name = tags::rule(said);
    if kept.tagged.as_deref() != name {
        kept.tagged = name.map(Arc::from);
    }
    let missing = name.filter(|name| rules.named(name).is_none());
    let found = rules.protecting(key, name).cloned().or_else(|| missing.map(|name| Arc::new(Rule::observing(name))));
    // Neither tag nor glob: the next sweep lets the service go, until then nothing changes.
    if let Some(found) = found.filter(|found| *found != kept.rule) {
        kept.rule = found;
    }
    soft.unregistered = missing.map(|name| {
        let instead = &kept.rule.name;
        if **instead == *name {
            format!("its tag {} names {name:?}, and no rule is called so: it is only observed", tags::RULE)
        } else {
            format!("its tag {} names {name:?}, and no rule is called so: {instead:?} protects it instead", tags::RULE)
        }
    });
    soft.hold = tags::hold(said, out.now);
    if let Some(until) = soft.hold.as_ref().and_then(|hold| hold.until) {
        soft.want(until);
    }
}

/// What green's own tags allow. Task sets show their tags only when they are read by themselves, once per green.
pub(super) fn contract(partition: &mut Partition, seen: &Observation, out: &Out<'_>) {
    let Partition { kept, soft } = partition;
    let Some(deployment) = kept.deployment.as_mut().filter(|d| !d.ended() && d.contract.is_none()) else { return };
    let mut again = seen.task_sets_again.iter().flatten();
    if let Some(green) = again.find(|set| set.id == deployment.green) {
        deployment.contract = Some(Contract::of(&green.tags));
    } else {
        soft.twice = true;
        soft.want(if seen.ask.twice { out.now.plus(LOOK_AGAIN) } else { out.now });
    }
}

/// Whether a person's tag wants this task set rolled back.
pub(super) fn wants_rolled_back(seen: &Observation, task_set: &TaskSetId) -> bool {
    tags::rollback(&seen.service.tags).is_some_and(|(wanted, _)| wanted == *task_set)
}

/// Why a person's order is not followed, where it is not: of a task set there is one decision, and what had taken over long
/// before it was protected is nobody's green.
pub(super) fn refused(kept: &Kept, seen: &Observation) -> Option<String> {
    let (wanted, _) = tags::rollback(&seen.service.tags)?;
    let living = seen.service.task_sets.iter().any(|set| set.id == wanted && set.is_living());
    let of_it = kept.deployment.as_ref().filter(|deployment| deployment.green == wanted);
    let record = of_it.and_then(|deployment| deployment.rollback.as_ref());
    let is_done = |rollback: &Rollback| !rollback.closed || rollback.incident.outcome == IncidentOutcome::RolledBack;
    if !living || record.is_some_and(is_done) || of_it.is_some_and(|deployment| !deployment.ended() && record.is_none())
    {
        return None;
    }
    let reason = record.and_then(|Rollback { incident, .. }| Some((&incident.id, incident.reason.as_deref()?)));
    let why = match reason {
        Some((id, reason)) => format!("it was decided on before, as {id}: {reason}"),
        None if kept.decided.contains(&wanted) => "it was decided on before".to_owned(),
        None => "it is not the green of a deployment".to_owned(),
    };
    Some(format!("{wanted} is not rolled back, since {why}. Shift by hand, and remove the tag {}", tags::ROLLBACK))
}

/// A person wants green rolled back: no gate has to agree, no brake holds it. What the plan checks, it checks all the same.
pub(super) fn roll_back(key: &ServiceKey, kept: &mut Kept, seen: &Observation, out: &mut Out<'_>) {
    let Some((wanted, reason)) = tags::rollback(&seen.service.tags) else { return };
    let fact = format!("a person wants {wanted} rolled back: {reason}");
    let evidence = Evidence::fact(Gate::Person, wanted.clone(), out.now, fact.clone());
    if kept.undecided().is_some_and(|deployment| deployment.green == wanted && deployment.contract.is_some()) {
        if let Some(deployment) = &mut kept.deployment {
            hold::release(key, deployment, "a person wants it rolled back", out);
        }
        return rollback::decide(key, kept, vec![evidence], seen, out);
    }
    let open = kept.deployment.as_mut().filter(|d| d.green == wanted).and_then(|d| d.rollback.as_mut());
    if let Some(rollback) =
        open.filter(|rollback| !rollback.closed && !rollback.is_reopened() && !rollback.is_by_person())
    {
        // A gate has decided it, and it goes on for a person now: no doubt about old evidence stops it, nor does a hold.
        rollback.log(out.now, fact);
        rollback.incident.evidence.push(evidence);
        rollback.evidence_at = out.now;
    }
}
