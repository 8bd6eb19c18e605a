//! When a service is read, and what is asked.

use std::time::Duration;

use super::Settings;
use super::partition::{Cause, Kept, Partition, Reading, Soft};
use super::progress::{Purpose, Rollback};
use super::{excess, plan, quarantine, sampled};
use crate::model::{Ask, Phase, ServiceKey, Standing, Step, TaskSetId, Timestamp, Urgency};

/// Least span between two reads that events ask for. Bounds what forged or repeated events can cost, and is short
/// against the seconds that a rollback takes.
pub(super) const HINT_GAP: Duration = Duration::from_secs(1);

/// Tasks that one `DescribeTasks` takes, and alarms that one `DescribeAlarms` takes.
const BATCH: usize = 100;

/// When the next read is to be sent. One that is under way is waited for, unless it is less urgent, or may not have begun and
/// does not ask about the newest claims: then the next one takes its place.
pub(super) fn wanted_at(partition: &Partition) -> Option<Timestamp> {
    let Partition { kept, soft } = partition;
    soft.read_at.filter(|_| {
        let urgency = urgency(kept, soft);
        let renews = soft.urgent && urgency == Urgency::Traffic;
        soft.reading.is_none_or(|under_way| under_way.urgency < urgency || renews)
    })
}

/// Who waits for the next read.
fn urgency(kept: &Kept, soft: &Soft) -> Urgency {
    match kept.open_rollback() {
        Some(rollback) if rollback.step() == Step::Observe => Urgency::Traffic,
        Some(_) => Urgency::Plan,
        None if soft.urgent => Urgency::Traffic,
        None if kept.live().is_some() => Urgency::Deployed,
        None => Urgency::Routine,
    }
}

/// The read that is due now, if one is.
pub(super) fn due(now: Timestamp, key: &ServiceKey, partition: &mut Partition, settings: Settings) -> Option<Ask> {
    if wanted_at(partition).is_none_or(|at| at > now) {
        return None;
    }
    let Partition { kept, soft } = partition;
    if let Some(Reading { swept_at, sampled_at, weigh, twice, .. }) = soft.reading {
        // Its answer will not come.
        (soft.swept_at, soft.sampled_at) = (swept_at, sampled_at);
        soft.weigh |= weigh;
        soft.twice |= twice;
    }
    let urgency = urgency(kept, soft);
    let sweep = soft.swept_at.is_none_or(|at| now.since(at) >= settings.sweep);
    let mut ask = Ask { urgency, ..ask(now, key, kept, soft, sweep) };
    // Nothing is decided on a green whose tags are not known: then this read is to tell them, and not one after it.
    ask.twice |= urgency == Urgency::Traffic && kept.live().is_some_and(|deployment| deployment.contract.is_none());
    let Soft { swept_at, sampled_at, weigh, twice, .. } = *soft;
    soft.reading = Some(Reading { urgency, swept_at, sampled_at, weigh, twice });
    soft.urgent = false;
    soft.read_at = None;
    soft.asked_at = Some(now);
    soft.twice = false;
    soft.weigh = false;
    if ask.samples.is_some() {
        soft.sampled_at = Some(now);
    }
    if sweep {
        soft.swept_at = Some(now);
    }
    Some(ask)
}

fn ask(now: Timestamp, key: &ServiceKey, kept: &Kept, soft: &Soft, sweep: bool) -> Ask {
    let live = kept.live();
    // Green's and blue's first: claims about strangers, which anybody may forge, must not push theirs out.
    let ours = |id: &TaskSetId| live.is_some_and(|d| *id == d.green || *id == d.blue);
    let (first, rest): (Vec<_>, Vec<_>) = kept.windows.iter().partition(|(id, _)| ours(id));
    let windows = first.into_iter().chain(rest);
    let claimed = windows.flat_map(|(_, window)| window.claims());
    // Without a deployment they are only asked about at the sweep's pace: they tell how the service fares by itself.
    let asks = live.is_some() || sweep;
    let tasks =
        asks.then(|| quarantine::wanted_task(kept, soft).into_iter().chain(claimed).take(BATCH).cloned().collect());
    // Once decided, alarms have had their say; a CloudWatch that hangs must not slow the plan down.
    let stale = |rollback: &Rollback| rollback.is_stale(now, kept.rule.watch.freshness);
    let judged = live.filter(|d| d.rollback.as_ref().is_none_or(stale));
    let named = &kept.rule.errors.alarms;
    // So many of each: names in a rule must not push out those that bind by themselves, and their twins.
    let alarms = judged.map(|d| {
        let bound = d.bound_alarms.iter().take(BATCH).chain(d.blue_alarms.iter().take(BATCH));
        named.iter().take(BATCH).chain(bound).cloned().collect()
    });
    // While blue suffers as well, how its users fare is what holds an alarm back.
    let shared = live.and_then(|d| d.hold.as_ref()).is_some_and(|hold| hold.cause == Cause::NotAttributable);
    let due = sweep
        && (kept.rule.errors.read_traffic() || shared)
        && soft.sampled_at.is_none_or(|at| now.since(at) >= sampled::GAP);
    let samples = judged.filter(|_| due || soft.weigh).and_then(|deployment| sampled::ask(now, &kept.rule, deployment));
    // Green may be gone, and a rule send users to its group and to no other.
    let left = kept.deployment.as_ref().filter(|d| d.rollback.is_some() && d.phase != Phase::Superseded);
    Ask {
        service: key.clone(),
        tasks: tasks.unwrap_or_default(),
        find_stopped: sweep && live.is_some(),
        alarms: alarms.unwrap_or_default(),
        // A search that had no answer is tried again by the next sweep, and not by every read.
        find_alarms: (sweep || soft.failed_searches == 0) && judged.is_some_and(|d| !d.alarms_searched),
        twice: soft.twice || delete_is_next(now, kept),
        // Whoever gives green's group users again may do it by a listener that no read has shown.
        find_listeners: sweep && left.is_some_and(|d| d.phase == Phase::RolledBack && d.green_group.is_some()),
        groups: left.and_then(|d| d.green_group.clone()).into_iter().collect(),
        samples,
        urgency: Urgency::default(),
    }
}

/// Whether the plan may delete on this read: then it is made twice at once.
fn delete_is_next(now: Timestamp, kept: &Kept) -> bool {
    let policy = kept.rule.rollback;
    kept.deployment.as_ref().is_some_and(|deployment| plan::deletes(&kept.rule, deployment))
        && kept.open_rollback().is_some_and(|rollback| {
            let shifted_at = rollback.last_accepted().filter(|_| policy.drain.is_zero());
            !rollback.is_reopened()
                && rollback.accepted(&Purpose::Delete).is_none()
                && rollback.drained_at(policy.drain).or(shifted_at).is_some_and(|at| at <= now)
        })
}

/// Asks for a read when the failures claimed so far would breach, if ECS confirms them.
pub(super) fn on_suspicion(now: Timestamp, kept: &Kept, soft: &mut Soft) {
    let least = u32::try_from(excess::LEAST).ok().filter(|_| kept.rule.compare.false_rollback.is_some());
    let limit = kept.rule.stability.task_failures.into_iter().chain(least).min();
    let Some((deployment, limit)) = kept.live().zip(limit) else {
        return;
    };
    if deployment.rollback.is_some() {
        return;
    }
    let Some(window) = kept.windows.get(&deployment.green) else {
        return;
    };
    let span = kept.rule.stability.window.min(kept.rule.watch.freshness);
    let failures = window.failures(now.minus(span), now.plus(super::gates::SKEW));
    let standing = |wanted| failures.iter().filter(move |(_, record)| record.standing == wanted);
    let claims = standing(Standing::Claimed).count();
    let total = claims.saturating_add(standing(Standing::Confirmed).count());
    if claims == 0 || u32::try_from(total).unwrap_or(u32::MAX) < limit {
        return;
    }
    // A claim that ECS has not been asked about can't wait; one that a read has missed can, and so can a breach that is
    // held.
    let fresh = deployment.hold.is_none() && standing(Standing::Claimed).any(|(_, record)| record.misses == 0);
    let gap = if fresh { Duration::ZERO } else { HINT_GAP };
    soft.want_urgently(soft.asked_at.map_or(now, |at| at.plus(gap).max(now)));
}
