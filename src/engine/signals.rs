//! Signals: they update windows and raise suspicion. None of them decides anything.

use std::collections::BTreeSet;
use std::time::Duration;

use super::index::Index;
use super::mutants::{Mutant, without};
use super::out::Out;
use super::partition::{Partition, Soft};
use super::reads::{self, HINT_GAP};
use super::services::Services;
use super::{Note, Use, hands, sampled};
use crate::model::{
    AlarmChange, AlarmReading, AlarmValue, CallTarget, Fact, Scope, ServiceKey, Signal, StopClass, TaskChange,
    Timestamp,
};

/// An event dated further ahead than this is not from AWS's clock.
const AHEAD: Duration = Duration::from_mins(5);

/// Least span between two reads that events about unknown task sets, or about a service as a whole, ask for.
pub(super) const DISCOVERY_GAP: Duration = Duration::from_secs(5);

/// Alarms that may bind to one deployment by their dimensions.
pub(super) const BOUND_ALARMS: usize = 50;

/// Takes one signal.
pub(super) fn take(services: &mut Services, index: &Index, signal: &Signal, out: &mut Out<'_>) {
    let (service, used) = match &signal.fact {
        Fact::Task(change) => (
            Some(&change.service),
            one(services, &change.service, signal, out, |partition, out| task(partition, signal, change, out)),
        ),
        Fact::Service(action) => (
            Some(&action.service),
            one(services, &action.service, signal, out, |partition, out| {
                if partition.kept.live().is_none() {
                    return Use::Irrelevant;
                }
                hint(&mut partition.soft, out.now, DISCOVERY_GAP);
                Use::Taken
            }),
        ),
        Fact::Alarm(AlarmChange { alarm: reading }) => (
            None,
            gated(services, index.gated_by(&reading.name, &reading.target_groups), signal, out, |partition, out| {
                alarm(partition, reading, out)
            }),
        ),
        // No OK transition will follow a delete; the next read finds the alarm gone.
        Fact::AlarmDeleted(gone) => (
            None,
            gated(services, index.gated_by(&gone.name, &BTreeSet::default()), signal, out, |partition, out| {
                hint(&mut partition.soft, out.now, HINT_GAP);
                Use::Taken
            }),
        ),
        Fact::Call(call) => match &call.target {
            CallTarget::TaskSet { service, .. } => (
                Some(service),
                one(services, service, signal, out, |partition, out| hands::take(partition, signal, call, out)),
            ),
            CallTarget::Rule { groups, .. } => (
                None,
                each(services, index.forwarding_to(groups), signal, out, |partition, out| {
                    hands::take(partition, signal, call, out)
                }),
            ),
        },
    };
    out.note(Note::Signal { kind: signal.fact.kind(), service: service.cloned(), used });
}

/// A signal that names its service.
fn one(
    services: &mut Services,
    key: &ServiceKey,
    signal: &Signal,
    out: &mut Out<'_>,
    then: impl FnOnce(&mut Partition, &mut Out<'_>) -> Use,
) -> Use {
    let Some(partition) = services.get_mut(key) else {
        return Use::Unregistered;
    };
    if is_foreign(signal, partition.soft.scope.as_ref(), out.now) {
        return Use::Foreign;
    }
    let used = then(partition, out);
    if used != Use::Irrelevant {
        out.touch(key);
    }
    used
}

/// A signal about alarms, which may gate several services.
fn gated<'a>(
    services: &mut Services,
    keys: impl IntoIterator<Item = &'a ServiceKey>,
    signal: &Signal,
    out: &mut Out<'_>,
    mut then: impl FnMut(&mut Partition, &mut Out<'_>) -> Use,
) -> Use {
    let fresh = |partition: &Partition, now: Timestamp| {
        !signal.replayed && now.since(signal.at) <= partition.kept.rule.watch.freshness
    };
    each(
        services,
        keys,
        signal,
        out,
        |partition, out| {
            if fresh(partition, out.now) { then(partition, out) } else { Use::Stale }
        },
    )
}

/// A signal that may concern several services. What most of them made of it is nobody's question: the best use counts.
fn each<'a>(
    services: &mut Services,
    keys: impl IntoIterator<Item = &'a ServiceKey>,
    signal: &Signal,
    out: &mut Out<'_>,
    mut then: impl FnMut(&mut Partition, &mut Out<'_>) -> Use,
) -> Use {
    let mut best = Use::Unregistered;
    for key in keys {
        let used = one(services, key, signal, out, &mut then);
        if best != Use::Taken {
            best = used;
        }
    }
    best
}

fn is_foreign(signal: &Signal, scope: Option<&Scope>, now: Timestamp) -> bool {
    scope.is_some_and(|scope| *scope != signal.scope) || signal.at > now.plus(AHEAD)
}

fn task(partition: &mut Partition, signal: &Signal, change: &TaskChange, out: &mut Out<'_>) -> Use {
    let Partition { kept, soft } = partition;
    let freshness = kept.rule.watch.freshness;
    let happened_at = change.stop.as_ref().map_or(signal.at, |stop| stop.at);
    let fresh = !signal.replayed && out.now.since(happened_at) <= freshness && out.now.since(signal.at) <= freshness;
    let unknown = soft.observed_at.is_some() && !soft.task_sets.contains(&change.task_set);

    // A scale-in speaks against nobody: nothing remembers it, and ECS is not asked about it.
    let ended = change.stop.as_ref().filter(|stop| stop.class != StopClass::Neutral);
    if let Some(stop) = ended {
        if stop.at > out.now.plus(AHEAD) {
            return Use::Foreign;
        }
        // The next read would forget it. After an outage of the queue nearly all events are like this: none is written down.
        if out.now.since(stop.at) > kept.remembers() && !without(Mutant::NoFreshness) {
            return Use::Stale;
        }
        if !kept.window(&change.task_set).claim(&change.task, change.version, stop) {
            return Use::Duplicate;
        }
        out.step.changed = true;
        if fresh && stop.class == StopClass::Version {
            reads::on_suspicion(out.now, kept, soft);
        }
    } else if !unknown {
        let suspect = kept.live().filter(|d| d.compared_by.is_some() && d.green == change.task_set);
        let runs = change.stop.is_none() && &*change.last_status == "RUNNING";
        if !runs || suspect.is_none() || soft.knows_a_task_of(&change.task_set) {
            return Use::Irrelevant;
        }
        soft.runs = Some((change.task_set.clone(), change.task.clone()));
        hint(soft, out.now, HINT_GAP);
    }
    if !fresh {
        return Use::Stale;
    }
    if unknown {
        hint(soft, out.now, DISCOVERY_GAP);
    }
    Use::Taken
}

fn alarm(partition: &mut Partition, reading: &AlarmReading, out: &mut Out<'_>) -> Use {
    let Partition { kept, soft } = partition;
    let Some(deployment) = kept.deployment.as_mut().filter(|d| !d.ended()) else {
        return Use::Irrelevant;
    };
    let red = reading.value == AlarmValue::Alarm && deployment.rollback.is_none();
    // So that the read that finds it red is the one that weighs it.
    let weighable =
        kept.rule.compare.against_blue && soft.sampled_at.is_none_or(|at| out.now.since(at) >= sampled::GAP);
    soft.weigh |= red && weighable;
    let greens = deployment.green_group.as_ref().is_some_and(|g| reading.target_groups.contains(g.dimension()));
    if greens && deployment.bound_alarms.len() < BOUND_ALARMS && deployment.bound_alarms.insert(reading.name.clone()) {
        out.step.changed = true;
        hint(soft, out.now, HINT_GAP);
        return Use::Taken;
    }
    if !red {
        return Use::Irrelevant;
    }
    soft.urgent = true;
    hint(soft, out.now, HINT_GAP);
    Use::Taken
}

/// Asks for a read, not sooner than `gap` after the last one.
pub(super) fn hint(soft: &mut Soft, now: Timestamp, gap: Duration) {
    soft.want(soft.asked_at.map_or(now, |at| at.plus(gap).max(now)));
}
