//! A fresh observation: the only thing that decides. Windows are confirmed, roles told, gates judged, plans advanced.

use std::sync::Arc;
use std::time::Duration;

use super::gates::{self, Judgement, Known};
use super::hands::{Deed, Hands};
use super::mutants::{Mutant, without};
use super::out::Out;
use super::partition::{Cause, Deployment, Kept, Partition, Unhealthy, Weather};
use super::roles::{Roles, roles};
use super::sampled::{self, Sampled};
use super::signals::BOUND_ALARMS;
use super::{Finding, Note, after, control, doctor, hold, orders, plan, quarantine, rollback, witness};
use crate::model::{
    CallError, Contract, Controller, ErrorClass, Evidence, Gate, Observation, Phase, ServiceKey, ServiceStatus,
    StopClass, TargetGroupArn, TaskReading, TaskSet, TaskSetId, TaskSetStatus, Timestamp, TrafficRule, Verdict, humane,
};
use crate::rules::{Mode, RuleSet};

/// Reads in a row that must say that a service does not exist. One may come from a replica that lags.
const MISSING_READS: u8 = 2;

/// The answer that a service does not exist counts when it is no older than this: what a journal that hangs has held up says
/// nothing about now.
pub const DENIAL_LASTS: Duration = plan::SETTLE;

/// Between two of them that count: whatever replica sent the first has caught up before the second is asked for, though that
/// one may be as old as [`DENIAL_LASTS`].
const DENIALS_APART: Duration = plan::SETTLE.saturating_add(DENIAL_LASTS);

/// And so many that with it goes all that is remembered of it.
const FORGOTTEN_READS: u8 = 20;

/// No deployment takes longer, and no bake can be set longer.
const LONGEST_DEPLOYMENT: Duration = Duration::from_hours(24);

/// How long the window of a task set that no read has shown is kept: an event can be faster than a read.
const UNSEEN_WINDOW: Duration = Duration::from_mins(1);

/// Takes the answer to a read.
pub(super) fn take(
    key: &ServiceKey,
    partition: &mut Partition,
    rules: &RuleSet,
    result: &Result<Box<Observation>, CallError>,
    out: &mut Out<'_>,
) {
    partition.soft.reading = None;
    let before = partition.kept.clone();
    match result {
        Ok(seen) => {
            orders::read(key, partition, rules, seen, out);
            take_seen(key, partition, seen, out);
            partition.soft.want(out.now.plus(out.settings.sweep));
        }
        Err(error) => take_unread(key, partition, error, out),
    }
    super::reads::on_suspicion(out.now, &partition.kept, &mut partition.soft);
    rollback::keep_if_changed(&before, &partition.kept, out);
    out.step.changed |= partition.kept != before;
}

fn take_seen(key: &ServiceKey, partition: &mut Partition, seen: &Observation, out: &mut Out<'_>) {
    let Partition { kept, soft } = partition;
    soft.failed_reads = 0;
    if seen.ask.find_alarms {
        soft.failed_searches = if seen.has_all_alarms() { 0 } else { soft.failed_searches.saturating_add(1) };
    } else if kept.live().is_none() {
        // The next green's alarms are searched as soon as it is seen.
        soft.failed_searches = 0;
    }
    soft.observed_at = Some(out.now);
    soft.scope = Some(seen.service.scope.clone());
    soft.task_sets = seen.service.task_sets.iter().map(|set| set.id.clone()).collect();
    (kept.missing, kept.missing_at) = (0, None);
    confirm_windows(out.now, kept, seen);

    quarantine::expire(kept, &seen.service.tags, out.now);
    let green_before = kept.deployment.as_ref().map(|deployment| deployment.green.clone());
    track(key, kept, seen, out);
    if kept.deployment.as_ref().map(|deployment| &deployment.green) != green_before.as_ref() {
        // Of the deployment before.
        soft.verdict = None;
        soft.findings.clear();
    }
    note_failures(out.now, kept, seen);
    quarantine::compare(kept, seen, out.now);
    if let Some(by) = kept.live().and_then(|deployment| deployment.compared_by) {
        soft.want(by);
    }
    orders::contract(partition, seen, out);
    let Partition { kept, soft } = partition;
    orders::roll_back(key, kept, seen, out);
    let mut about_to_decide = false;
    let judged = kept.undecided().filter(|d| d.contract.is_some_and(|contract| contract != Contract::Off));
    if let Some(mut judgement) = judged.and_then(|_| judge(out.now, out.settings.sweep, kept, seen)) {
        let cause = hold::cause(key, kept, soft.hold.as_ref(), &judgement, out);
        let acts = cause.is_none() && rollback::held(kept.rule.mode, out).is_none();
        if judgement.verdict == Verdict::Breached && !acts {
            judgement.verdict = Verdict::Held;
        }
        let news = soft.verdict != Some(judgement.verdict) || soft.findings.len() != judgement.findings.len();
        out.note(Note::Judged {
            service: key.clone(),
            verdict: judgement.verdict,
            news,
            findings: judgement.findings.clone(),
        });
        soft.verdict = Some(judgement.verdict);
        soft.findings.clone_from(&judgement.findings);
        about_to_decide = judgement.about_to_decide;
        if let Some(deployment) = kept.deployment.as_mut() {
            deployment.shared.clone_from(&judgement.shared);
            if judgement.blue_suffers {
                Weather::seen(&mut deployment.weather, out.now, kept.rule.stability.window);
            }
        }
        if let Some(at) = judgement.look_again_at {
            soft.want_urgently(at);
        }
        if judgement.wants_traffic {
            soft.weigh = true;
            soft.want_urgently(out.now);
        }
        decide(key, kept, &judgement, cause, seen, out);
    } else if kept.deployment.is_none() {
        soft.verdict = None;
        soft.findings.clear();
    }
    after::look(key, partition, seen, out);
    rollback::advance(key, partition, seen, out);
    graduate(key, partition, seen, about_to_decide, out);
    witness::look(key, partition, seen, out);
    let unsearched = partition.kept.live().is_some_and(|d| !d.alarms_searched && d.rollback.is_none());
    if unsearched && !seen.ask.find_alarms && partition.soft.failed_searches == 0 {
        partition.soft.want(out.now);
    }
    show(key, partition, seen, out);
}

/// What a judgement comes to: nothing, a rollback, or a hold.
fn decide(
    key: &ServiceKey,
    kept: &mut Kept,
    judgement: &Judgement,
    cause: Option<(Cause, String)>,
    seen: &Observation,
    out: &mut Out<'_>,
) {
    let Some(deployment) = kept.deployment.as_mut() else { return };
    let evidence = judgement.breaches();
    if let Some((cause, why)) = cause {
        let changes_nothing = rollback::held(kept.rule.mode, out).is_some();
        hold::hold(key, deployment, cause, &why, evidence, changes_nothing, out);
    } else if judgement.is_over() {
        hold::release(key, deployment, "nothing speaks against acting any more", out);
        rollback::decide(key, kept, evidence, seen, out);
    } else if !is_unread(deployment, seen) && !judgement.wants_traffic {
        hold::release(key, deployment, "no gate is breached any more", out);
    }
}

/// CloudWatch did not answer about a gate that a hold is for: whether it is breached nobody knows.
fn is_unread(deployment: &Deployment, seen: &Observation) -> bool {
    let traffic_unread = deployment.sampled.as_ref().is_some_and(|sampled| sampled.samples.is_none());
    let is_unread = |evidence: &Evidence| match evidence.gate {
        Gate::Alarm(_) => seen.alarms.is_none(),
        Gate::Http5xxRatio | Gate::LatencyP99 => traffic_unread,
        _ => false,
    };
    deployment.hold.as_ref().is_some_and(|hold| hold.incident.evidence.iter().any(is_unread))
}

/// ECS's word on the tasks that were asked for, and on those it lists as stopped.
fn confirm_windows(now: Timestamp, kept: &mut Kept, seen: &Observation) {
    let known = |id: &TaskSetId| seen.service.task_sets.iter().any(|set| set.id == *id);
    for reading in seen.tasks.iter().filter(|reading| known(&reading.task_set)) {
        kept.window(&reading.task_set).confirm(reading);
    }
    for task in &seen.ask.tasks {
        if !seen.tasks.iter().any(|reading| reading.task == *task) {
            kept.windows.values_mut().for_each(|window| window.missed(task));
        }
    }
    let keep = kept.remembers();
    let unseen_since = seen.read_at.minus(UNSEEN_WINDOW);
    kept.windows.retain(|id, window| {
        if !without(Mutant::NoFreshness) {
            window.expire(now, keep);
        }
        !window.is_empty() && (known(id) || window.newest().is_some_and(|newest| newest >= unseen_since))
    });
}

/// Failures that are news, for the cumulative gate. Once it is known who is green: it may have failed before it was seen.
fn note_failures(now: Timestamp, kept: &mut Kept, seen: &Observation) {
    kept.past.expire(now);
    let fresh = now.minus(kept.rule.watch.freshness)..=now.plus(gates::SKEW);
    for TaskReading { task, task_set, stop, .. } in &seen.tasks {
        let failed = stop.as_ref().filter(|stop| stop.class == StopClass::Version && fresh.contains(&stop.at));
        if let Some((stop, failures)) = failed.and_then(|stop| Some((stop, kept.failures(task_set, seen)?))) {
            failures.add(task, stop.at);
        }
    }
}

/// Which deployment is going on: begins one, or ends the one that a person ended.
fn track(key: &ServiceKey, kept: &mut Kept, seen: &Observation, out: &mut Out<'_>) {
    let ours = seen.service.controller == Controller::External && seen.service.status == ServiceStatus::Active;
    let roles = roles(&seen.service.task_sets, &kept.decided);
    let roles = roles.filter(|roles| ours && is_candidate(kept, *roles, seen));
    if roles.is_some_and(|roles| kept.deployment.as_ref().is_some_and(|d| is_newer(d, roles.green))) {
        rollback::finish(key, kept, seen, out);
    }
    let Kept { deployment, hands, rule, .. } = &mut *kept;
    if let Some(deployment) = deployment.as_mut().filter(|d| !d.ended()) {
        overtaken(key, deployment, hands, rule.mode, roles, seen, out);
    }
    let Some(roles) = roles else { return };
    resume(key, kept, roles, seen, out);
    let same = kept.deployment.as_ref().is_some_and(|d| d.green == roles.green.id);
    if !same && kept.live().is_none() && !kept.decided.contains(&roles.green.id) {
        out.note(Note::DeploymentBegan {
            service: key.clone(),
            green: roles.green.id.clone(),
            blue: roles.blue.id.clone(),
        });
        kept.deployment = Some(Deployment::new(roles, seen.service.scope.clone()));
        quarantine::meet(key, kept, out);
    }
    let rule = Arc::clone(&kept.rule);
    let Some(deployment) = kept.deployment.as_mut().filter(|d| !d.ended() && d.green == roles.green.id) else { return };
    if deployment.rollback.is_none() && roles.blue.status == TaskSetStatus::Primary && deployment.blue != roles.blue.id
    {
        // Another of the older ones was promoted: that is where the deployer would go back to.
        deployment.blue = roles.blue.id.clone();
        deployment.blue_group.clone_from(&roles.blue.target_group);
        deployment.alarms_searched = false;
    }
    deployment.blue_had = deployment.blue_had.max(control::tasks(roles.blue));
    deployment.read_green(out.now, roles.green);
    if seen.ask.find_stopped {
        let had = deployment.settled.before_it_grew(out.now, &rule);
        let group = deployment.green_group.as_ref();
        let share = group.and_then(|group| control::unhealthy_share_of(roles.green, had, group, seen));
        let over = share.zip(rule.stability.unhealthy_targets).is_some_and(|(share, limit)| share > limit);
        let before = deployment.unhealthy.unwrap_or(Unhealthy { sweeps: 0, since: out.now });
        // The first read after a restart is a sweep too.
        let another = before.sweeps == 0 || out.now.since(before.since) >= out.settings.sweep / 2;
        let sweeps = before.sweeps.saturating_add(u32::from(another)).min(2);
        deployment.unhealthy = over.then_some(Unhealthy { sweeps, ..before });
    }
    // One question that CloudWatch did not answer takes nothing back of what it said a moment ago.
    let holds = |known: &Sampled| known.samples.is_some() && out.now.since(known.read_at) <= sampled::FRESH;
    if seen.ask.samples.is_some() && (seen.samples.is_some() || !deployment.sampled.as_ref().is_some_and(holds)) {
        deployment.sampled = Some(Sampled { read_at: seen.read_at, samples: seen.samples.clone() });
    }
    if seen.has_all_alarms()
        && let Some(alarms) = &seen.alarms
    {
        let of = |set: &TaskSet| {
            let names = alarms.iter().filter(|alarm| control::speaks_of(alarm, set)).map(|alarm| alarm.name.clone());
            names.take(BOUND_ALARMS).collect::<Vec<_>>()
        };
        deployment.bound_alarms.extend(of(roles.green));
        deployment.blue_alarms = of(roles.blue).into_iter().collect();
        deployment.alarms_searched = true;
    }
}

/// Another deployment has begun with it.
fn is_newer(deployment: &Deployment, set: &TaskSet) -> bool {
    set.id != deployment.green && set.created_at >= deployment.began_at
}

/// Other hands may have ended the deployment. An open rollback copes by itself, except with a newer task set.
fn overtaken(
    key: &ServiceKey,
    deployment: &mut Deployment,
    hands: &Hands,
    mode: Mode,
    roles: Option<Roles<'_>>,
    seen: &Observation,
    out: &mut Out<'_>,
) {
    let newest = roles.map(|roles| roles.green);
    if let Some(newer) = newest.filter(|set| is_newer(deployment, set)).filter(|_| !without(Mutant::NoSupersede)) {
        let why = format!("a newer task set ({}) was created", newer.id);
        return rollback::supersede(key, deployment, &why, out);
    }
    if deployment.rollback.as_ref().is_some_and(|rollback| !rollback.closed) {
        return;
    }
    let living = |id: &TaskSetId| seen.service.task_sets.iter().any(|set| set.id == *id && set.is_living());
    let is_primary =
        |id: &TaskSetId| seen.service.task_sets.iter().any(|set| set.id == *id && set.status == TaskSetStatus::Primary);
    if !living(&deployment.green) {
        let deed = Deed::Deletion(&deployment.green);
        let why = hands.named("green was deleted by somebody else".to_owned(), deployment.began_at, deed);
        rollback::supersede(key, deployment, &why, out);
    } else if !living(&deployment.blue) {
        if let Some(roles) = roles {
            deployment.blue = roles.blue.id.clone();
            deployment.blue_group.clone_from(&roles.blue.target_group);
            deployment.alarms_searched = false;
        } else if deployment.hold.is_none() && is_primary(&deployment.green) {
            end_well(key, deployment, "blue is gone: green took over", mode, out);
        } else {
            let deed = Deed::Deletion(&deployment.blue);
            let what = "blue was deleted by somebody else: there is nothing to go back to".to_owned();
            let why = hands.named(what, deployment.began_at, deed);
            hold::release(key, deployment, &why, out);
            rollback::supersede(key, deployment, &why, out);
        }
    }
}

/// Goes on with a deployment that has ended, where nothing was decided: because green lives, and the reads that did not show it
/// were behind; or because a person wants it rolled back after it has taken over.
fn resume(key: &ServiceKey, kept: &mut Kept, roles: Roles<'_>, seen: &Observation, out: &mut Out<'_>) {
    let ended = kept.deployment.as_mut().filter(|d| d.green == roles.green.id && d.rollback.is_none());
    let Some(deployment) = ended else { return };
    let why = match deployment.phase {
        Phase::Superseded => "green lives: the read that did not show it was behind",
        Phase::Graduated if orders::wants_rolled_back(seen, &deployment.green) => "a person wants it rolled back",
        _ => return,
    };
    hold::release(key, deployment, why, out);
    deployment.blue = roles.blue.id.clone();
    deployment.blue_group.clone_from(&roles.blue.target_group);
    deployment.alarms_searched = false;
    // Nobody has looked meanwhile.
    deployment.promoted_at = None;
    deployment.unsteady_since = None;
    deployment.unhealthy = None;
    rollback::enter(key, deployment, Phase::Watching, why, out);
}

/// Whether this is a deployment to judge.
fn is_candidate(kept: &Kept, roles: Roles<'_>, seen: &Observation) -> bool {
    let wanted = orders::wants_rolled_back(seen, &roles.green.id);
    !took_over_long_ago(kept, roles, seen) && (wanted || !is_baseline(kept, roles))
}

/// The newest is what the last deployment would have gone back to: its green is gone, and an older task set still lives. What
/// users were given back is not put on trial against that one, unless a person has made that one PRIMARY. For a moment after
/// a PRIMARY was deleted none is.
fn is_baseline(kept: &Kept, Roles { green, blue }: Roles<'_>) -> bool {
    let was_blue = kept.deployment.as_ref().is_some_and(|deployment| deployment.blue == green.id);
    was_blue && blue.status != TaskSetStatus::Primary
}

/// A green that is PRIMARY with all the traffic, and older than any deployment takes: nobody knows since when, and blue is
/// not what its deployer would go back to any more. Found when a service is protected that was never cleaned up.
fn took_over_long_ago(kept: &Kept, roles: Roles<'_>, seen: &Observation) -> bool {
    let Roles { green, blue } = roles;
    let unwatched = |deployment: &Deployment| deployment.green != green.id || deployment.phase == Phase::Superseded;
    let unknown = kept.deployment.as_ref().is_none_or(unwatched);
    let alone = takes_all(blue.target_group.as_ref(), green.target_group.as_ref(), seen);
    let old = seen.read_at.since(green.created_at) > LONGEST_DEPLOYMENT;
    unknown && green.status == TaskSetStatus::Primary && alone && old
}

/// The gates.
pub(super) fn judge(now: Timestamp, sweep: Duration, kept: &Kept, seen: &Observation) -> Option<Judgement> {
    let deployment = kept.live()?;
    let green = seen.service.task_sets.iter().find(|set| set.id == deployment.green)?;
    let blue = seen.service.task_sets.iter().find(|set| set.id == deployment.blue)?;
    let known = Known {
        window: kept.windows.get(&deployment.green),
        blue_window: kept.windows.get(&deployment.blue),
        failures: &deployment.failures,
        past: &kept.past,
        blue_had: deployment.blue_had,
        ran: deployment.ran,
        unhealthy: deployment.unhealthy,
        was_steady: deployment.was_steady,
        unsteady_since: deployment.unsteady_since,
        woke_at: deployment.woke_at,
        before_it_grew: deployment.settled.before_it_grew(now, &kept.rule),
        sampled: deployment.sampled.as_ref(),
        shared: &deployment.shared,
        weather: &deployment.weather,
        bound: &deployment.bound_alarms,
        sweep,
    };
    let mut judgement = gates::judge(now, &kept.rule, Roles { green, blue }, seen, known);
    if let Some(evidence) = quarantine::against(kept, now) {
        judgement.verdict = Verdict::Breached;
        judgement.findings.push(Finding::breached(evidence));
    }
    Some(judgement)
}

/// Green is PRIMARY with all the traffic for as long as the rule wants, and nothing is about to be decided: neither when blue has been
/// heard nor when nothing holds it any more.
fn graduate(key: &ServiceKey, partition: &mut Partition, seen: &Observation, about_to_decide: bool, out: &mut Out<'_>) {
    let Partition { kept, soft } = partition;
    let (bake, mode) = (kept.rule.watch.bake, kept.rule.mode);
    let Some(deployment) = kept.deployment.as_mut().filter(|d| !d.ended()) else { return };
    if deployment.rollback.as_ref().is_some_and(|rollback| !rollback.closed) {
        return;
    }
    if !has_all(deployment, seen) {
        deployment.promoted_at = None;
        return;
    }
    let since = *deployment.promoted_at.get_or_insert(out.now);
    if out.now >= since.plus(bake) {
        if about_to_decide || deployment.hold.is_some() || limps(deployment, seen) {
            return;
        }
        let why = format!("green has been PRIMARY with all the traffic for {}", humane(out.now.since(since)));
        end_well(key, deployment, &why, mode, out);
    } else {
        soft.want(since.plus(bake));
    }
}

/// Tasks of green failed, and it still lacks some: ECS starts what fails ever less often, and a broken version that has
/// gone quiet is not well.
fn limps(deployment: &Deployment, seen: &Observation) -> bool {
    let lacks = |set: &TaskSet| set.id == deployment.green && set.running < set.computed_desired;
    !deployment.failures.is_empty() && seen.service.task_sets.iter().any(lacks)
}

fn has_all(deployment: &Deployment, seen: &Observation) -> bool {
    let primary = |set: &TaskSet| set.id == deployment.green && set.status == TaskSetStatus::Primary;
    let all = takes_all(deployment.blue_group.as_ref(), deployment.green_group.as_ref(), seen);
    seen.service.task_sets.iter().any(primary) && all
}

/// Green has all the traffic that the two share; so it has where there is no load balancer.
fn takes_all(blue: Option<&TargetGroupArn>, green: Option<&TargetGroupArn>, seen: &Observation) -> bool {
    let share = |group: Option<&TargetGroupArn>| {
        let forwards = seen.traffic.rules().iter().flat_map(TrafficRule::forwards);
        group.map_or(0.0, |group| forwards.map(|forward| forward.share(group)).sum())
    };
    green.is_none() || (share(blue) <= 0.0 && share(green) > 0.0)
}

fn end_well(key: &ServiceKey, deployment: &mut Deployment, why: &str, mode: Mode, out: &mut Out<'_>) {
    rollback::enter(key, deployment, Phase::Graduated, why, out);
    out.note(Note::Graduated { service: key.clone(), green: deployment.green.clone(), why: why.to_owned() });
    out.announce_graduation(key, deployment, why, rollback::held(mode, out).is_some());
    witness::ended(key, deployment, why, out);
}

/// What `/status` and the gauges show.
fn show(key: &ServiceKey, partition: &mut Partition, seen: &Observation, out: &mut Out<'_>) {
    let Partition { kept, soft } = partition;
    let groups = kept.deployment.as_ref().map(|d| (d.blue_group.as_ref(), d.green_group.as_ref()));
    let split = groups.and_then(|(blue, green)| seen.traffic.split(blue, green));
    if split != soft.split {
        if let Some(split) = split {
            out.note(Note::TrafficMoved { service: key.clone(), split });
        }
        soft.split = split;
    }
    let not_ready = soft.unregistered.clone().or_else(|| not_ready(kept, seen));
    if not_ready != soft.not_ready
        && let Some(why) = &not_ready
    {
        out.note(Note::NotReady { service: key.clone(), why: why.clone() });
    }
    soft.not_ready = not_ready;
    let refused = orders::refused(kept, seen);
    if refused != soft.refused
        && let Some(why) = &refused
    {
        out.note(Note::Refused { service: key.clone(), why: why.clone() });
    }
    soft.refused = refused;
}

/// Why a rollback would not work now.
fn not_ready(kept: &Kept, seen: &Observation) -> Option<String> {
    if let Some(deployment) = kept.live() {
        return plan::obstacle(deployment, seen, false);
    }
    doctor::obstacle(seen).map(|blocked| blocked.what)
}

/// The service could not be read.
fn take_unread(key: &ServiceKey, partition: &mut Partition, error: &CallError, out: &mut Out<'_>) {
    let Partition { kept, soft } = partition;
    soft.failed_reads = soft.failed_reads.saturating_add(1);
    let why = format!("it could not be read: {error}");
    let news = soft.not_ready.replace(why.clone()) != Some(why);
    out.note(Note::Unread { service: key.clone(), error: error.clone(), news });
    if error.class == ErrorClass::NotFound {
        if kept.missing_at.is_none_or(|at| out.now.since(at) >= DENIALS_APART) {
            kept.missing = kept.missing.saturating_add(1);
            kept.missing_at = Some(out.now);
        }
        if kept.missing >= MISSING_READS
            && let Some(deployment) = kept.deployment.as_mut().filter(|d| !d.ended())
        {
            rollback::supersede(key, deployment, "the service does not exist any more", out);
        }
        if kept.missing >= FORGOTTEN_READS {
            // With the service its tag is gone: the next sweep lets it go.
            kept.tagged = None;
        }
    } else {
        rollback::unread(key, kept, error, out);
    }
    let wait = match kept.open_rollback() {
        // The next answer is to come from a replica that has caught up.
        Some(_) if error.class == ErrorClass::NotFound => plan::SETTLE,
        Some(_) => rollback::backoff(soft.failed_reads),
        None => out.settings.sweep,
    };
    soft.want(out.now.plus(wait.min(out.settings.sweep)));
}
