//! A decided rollback: carries out what the plan says next, keeps the record, calls a person when it can't go on.

use std::time::Duration;

use super::hands::Deed;
use super::mutants::{Mutant, without};
use super::out::Out;
use super::partition::{Deployment, Kept, Partition};
use super::plan::{self, Next, Proven, Stuck, View};
use super::progress::{Escalation, Purpose, Rollback, Sent};
use super::{Effect, Note, Stage, observed, orders, quarantine, snapshot, traffic, witness};
use crate::model::{
    AnnouncementKind, CallError, EffectId, ErrorClass, Evidence, Incident, IncidentOutcome, Observation, Outcome,
    Phase, ServiceKey, Step, TaskSet, TaskSetStatus, Timestamp, Verdict, Write, humane,
};
use crate::rules::{Mode, Rule};

/// Between two tries of a failed call: from here, doubling,
const RETRY: Duration = Duration::from_millis(500);

/// up to here.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// A call is given up after this long: what an earlier process sent arrives no later.
const STRAYS: Duration = Duration::from_secs(5);

/// How long to wait after this many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    RETRY.saturating_mul(1_u32 << failures.saturating_sub(1).min(10)).min(RETRY_MAX)
}

/// Between two tries, or two looks, after a person was called: nobody waits for seconds any more.
const SLOWLY: Duration = Duration::from_secs(15);

/// A gate is breached: the one decision on this green. In observe mode and dry run it is only said.
pub(super) fn decide(
    key: &ServiceKey,
    kept: &mut Kept,
    evidence: Vec<Evidence>,
    seen: &Observation,
    out: &mut Out<'_>,
) {
    let Some(deployment) = kept.deployment.as_mut() else { return };
    let green = deployment.green.clone();
    let held = held(kept.rule.mode, out);
    let is_primary = |set: &TaskSet| set.id == green && set.status == TaskSetStatus::Primary;
    let promotes = seen.service.task_sets.iter().any(is_primary);
    let mut rollback = Rollback::new(out.now, key, deployment, evidence.clone(), promotes);
    rollback.incident.before = Some(snapshot::take(&kept.rule, deployment, &kept.windows, seen));
    let incident = rollback.incident.id.clone();
    let reason = evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    out.note(Note::Decided { service: key.clone(), incident, held: held.is_some(), evidence });
    let took = out.now.since(rollback.incident.first_sign_at);
    out.note(Note::Reached { service: key.clone(), stage: Stage::Detect, took });
    if let Some(why) = held {
        enter(key, deployment, Phase::Breached, &reason, out);
        close(key, deployment, &mut rollback, IncidentOutcome::Held, why, out);
    } else {
        enter(key, deployment, Phase::RollingBack(Step::Observe), &reason, out);
        out.announce_rollback(AnnouncementKind::RollbackStarted, key, deployment, &rollback.incident, &reason, false);
    }
    deployment.rollback = Some(rollback);
    kept.remember_decided(&green, held.is_none().then_some(out.now));
}

/// Why breaches of this rule are said and not acted on, if they are not.
pub(super) fn held(mode: Mode, out: &Out<'_>) -> Option<&'static str> {
    if out.settings.dry_run {
        Some("dry run: nothing is changed")
    } else if mode == Mode::Observe {
        Some("the rule's mode is observe: nothing is changed")
    } else {
        None
    }
}

/// Does what the plan says next on this observation.
pub(super) fn advance(key: &ServiceKey, partition: &mut Partition, seen: &Observation, out: &mut Out<'_>) {
    let Partition { kept, soft } = partition;
    let doubted = doubted(out.now, out.settings.sweep, kept, seen);
    let Kept { rule, deployment, windows, hands, .. } = kept;
    let Some(deployment) = deployment.as_mut() else { return };
    let Some(mut rollback) = deployment.rollback.take_if(|rollback| !rollback.closed) else { return };
    if let Some(why) = held(rule.mode, out) {
        // One that was done before has said by this what there is to say.
        rollback.after.said = rollback.is_reopened();
        let to = if rollback.is_reopened() { Phase::RolledBack } else { Phase::Breached };
        enter(key, deployment, to, why, out);
        close(key, deployment, &mut rollback, IncidentOutcome::Held, why, out);
        deployment.rollback = Some(rollback);
        return;
    }
    let stale = rollback.last_accepted().filter(|at| seen.read_at < *at);
    if !rollback.in_flight.is_empty() {
        // Their answers ask for the next read. What this one proves of earlier writes, the next may not show any more.
        settle_unanswered(&mut rollback, plan::proven(deployment, rule, seen), seen, out.now);
    } else if let Some(accepted_at) = stale {
        // On a clock that runs behind the one of whoever wrote, the next read is older than the write too, for a while.
        soft.want(if accepted_at > out.now { out.now.plus(plan::POLL) } else { out.now });
    } else {
        record(key, deployment, rule, &mut rollback, seen, out);
        if doubted == Some(false) {
            rollback.evidence_at = out.now;
        }
        let view = View { now: out.now, service: key, rule, deployment, rollback: &rollback, seen };
        match plan::next(view) {
            Next::Write(..) if rollback.is_frozen() => {}
            // Nothing is to be done about it, so nothing can be in the way.
            Next::Wait(..) | Next::Escalate(_) if rollback.is_frozen() && rollback.is_reopened() => {}
            Next::Write(step, _) if doubted == Some(true) => {
                let why = format!(
                    "the evidence is older than {} and green is not breached now; nothing was changed yet",
                    humane(rule.watch.freshness)
                );
                escalate(key, deployment, &mut rollback, Stuck { step, why, frozen: false }, out);
            }
            Next::Write(step, _) if let Some(order) = soft.hold.as_ref().filter(|_| rollback.heeds_holds()) => {
                let why = order.to_string();
                if why != deployment.why {
                    rollback.log(out.now, &*why);
                    out.note(Note::Waiting { service: key.clone(), step, why: why.clone() });
                }
                progress(key, deployment, &rollback, step, &why, out);
            }
            Next::Write(step, writes) => {
                progress(key, deployment, &rollback, step, step_story(step), out);
                send(key, deployment, &mut rollback, writes, out);
            }
            Next::Wait(step, at, why) => {
                // What time alone will end is no news at every look.
                if why != deployment.why && !matches!(step, Step::Drain | Step::VerifyGone) {
                    rollback.log(out.now, &*why);
                    out.note(Note::Waiting { service: key.clone(), step, why: why.clone() });
                }
                progress(key, deployment, &rollback, step, &why, out);
                soft.want(if rollback.escalation.is_some() { at.max(out.now.plus(SLOWLY)) } else { at });
            }
            Next::LookTwice => {
                soft.twice = true;
                soft.want(out.now);
            }
            Next::Escalate(mut stuck) => {
                if stuck.frozen {
                    let deed = if stuck.step == Step::PromoteBlue { Deed::Promotion } else { Deed::Rules };
                    stuck.why = hands.named(stuck.why, rollback.incident.detected_at, deed);
                }
                if rollback.escalation.is_none() {
                    rollback.incident.after = Some(snapshot::take(rule, deployment, windows, seen));
                }
                escalate(key, deployment, &mut rollback, stuck, out);
                soft.want(out.now.plus(SLOWLY));
            }
            Next::Superseded(why) => {
                let why = hands.named(why, rollback.incident.detected_at, Deed::Promotion);
                enter(key, deployment, Phase::Superseded, &why, out);
                close(key, deployment, &mut rollback, IncidentOutcome::Superseded, &why, out);
            }
            Next::Done(why) => {
                rollback.incident.after = Some(snapshot::take(rule, deployment, windows, seen));
                done(key, deployment, &mut rollback, &why, out);
            }
        }
    }
    call_when_late(key, deployment, &mut rollback, rule.rollback.drain, out);
    let is_reopened = rollback.is_reopened();
    deployment.rollback = Some(rollback);
    if deployment.phase == Phase::RolledBack && !is_reopened {
        quarantine::put(kept, out.now);
    }
}

/// Whether the evidence has become too old to begin on. `None` while it is fresh, or once the plan has begun: what is
/// half done is finished. A person's order is as fresh as the read that shows it.
fn doubted(now: Timestamp, sweep: Duration, kept: &Kept, seen: &Observation) -> Option<bool> {
    let rollback = kept.open_rollback().filter(|rollback| rollback.is_stale(now, kept.rule.watch.freshness))?;
    let is_ordered = |deployment: &Deployment| orders::wants_rolled_back(seen, &deployment.green);
    if rollback.is_by_person() && kept.deployment.as_ref().is_some_and(is_ordered) {
        return Some(false);
    }
    let judgement = observed::judge(now, sweep, kept, seen);
    let breached = judgement.is_some_and(|judgement| judgement.verdict == Verdict::Breached);
    Some(!breached && rollback.accepted.is_empty())
}

/// Writes down what the observation proves.
fn record(
    key: &ServiceKey,
    deployment: &Deployment,
    rule: &Rule,
    rollback: &mut Rollback,
    seen: &Observation,
    out: &mut Out<'_>,
) {
    let now = out.now;
    let proven = plan::proven(deployment, rule, seen);
    match (proven.traffic_safe, rollback.safe_since) {
        (true, None) => {
            rollback.safe_since = Some(now);
            rollback.log(now, "a read proves that no rule sends anything to green");
            if rollback.incident.traffic_safe_at.is_none() {
                let took = now.since(rollback.incident.detected_at);
                out.note(Note::Reached { service: key.clone(), stage: Stage::Shift, took });
            }
        }
        (false, Some(_)) if !without(Mutant::DrainNotRestarted) => {
            rollback.safe_since = None;
            rollback.log(now, "somebody else sends traffic to green again");
        }
        _ => {}
    }
    rollback.incident.traffic(proven.traffic_safe, now);
    settle_unanswered(rollback, proven, seen, now);
    rollback.blue_was_primary |= proven.blue_primary;
    rollback.blue_short_since = proven.blue_short.then(|| rollback.blue_short_since.unwrap_or(now));
    rollback.draining_since = proven.green_leaving.then(|| rollback.draining_since.unwrap_or(now));
}

/// A read answers for writes whose own answers were lost, or have not come yet: they are met, or somebody has written since. A
/// rule that reads as it did before says nothing: the write may never have arrived.
fn settle_unanswered(rollback: &mut Rollback, proven: Proven, seen: &Observation, now: Timestamp) {
    let settled = |sent: &Sent| match &sent.purpose {
        Purpose::Shift(id) | Purpose::Reassert(id) => {
            let rule = seen.traffic.rules().iter().find(|rule| rule.id == *id);
            proven.traffic_safe || rule.is_some_and(|rule| rule.actions != sent.found)
        }
        Purpose::Promote => proven.blue_primary,
        Purpose::Delete => proven.green_leaving,
        Purpose::Introduce(_) | Purpose::Scale | Purpose::Pair(_) => false,
    };
    let sent_again = |sent: &Sent| rollback.in_flight.values().any(|again| again.purpose == sent.purpose);
    let unsure = rollback.unsure.values().filter(|sent| settled(sent) && !sent_again(sent));
    let done: Vec<_> = unsure.map(|sent| sent.purpose.clone()).collect();
    for purpose in done {
        rollback.unsure.remove(&purpose);
        rollback.accept(now, purpose);
    }
    for sent in rollback.in_flight.values_mut() {
        sent.seen |= sent.at.is_some_and(|at| at <= seen.read_at) && settled(sent);
    }
}

fn step_story(step: Step) -> &'static str {
    match step {
        Step::RestoreBlue => "giving blue back what it needs to carry all the traffic",
        Step::PromoteBlue => "making blue PRIMARY again",
        Step::ShiftTraffic => "setting every rule's weight to blue",
        Step::DeleteGreen => "two reads agree: deleting green",
        Step::VerifyGone => "green is gone: giving sticky rules their pair back",
        Step::Observe | Step::VerifyTraffic | Step::Drain => "acting",
    }
}

/// Shows the step, unless a person was called: that stays shown until all is done.
fn progress(
    key: &ServiceKey,
    deployment: &mut Deployment,
    rollback: &Rollback,
    step: Step,
    why: &str,
    out: &mut Out<'_>,
) {
    if rollback.escalation.is_none() {
        enter(key, deployment, Phase::RollingBack(step), why, out);
    }
}

fn send(
    key: &ServiceKey,
    deployment: &Deployment,
    rollback: &mut Rollback,
    writes: Vec<(Purpose, Write)>,
    out: &mut Out<'_>,
) {
    for (purpose, write) in writes {
        if let (Purpose::Shift(rule) | Purpose::Reassert(rule), Write::SetActions { found, actions, .. }) =
            (&purpose, &write)
            && let Some(seat) = traffic::seat(deployment.green_group.as_ref(), found, actions)
        {
            rollback.seats.insert(rule.clone(), seat);
        }
        if let Some(rule) = purpose.shifted().filter(|rule| rollback.was_shifted(rule)) {
            rollback.undone.insert(rule.clone());
        }
        let what = purpose.to_string();
        rollback.log(out.now, &*what);
        out.note(Note::Sent { service: key.clone(), what });
        let sent = Sent::new(out.now, purpose, &write);
        let id = out.write(key, write);
        rollback.in_flight.insert(id, sent);
    }
}

/// A write came back. Whether it holds is for the next read to say.
pub(super) fn returned(
    key: &ServiceKey,
    partition: &mut Partition,
    id: EffectId,
    outcome: &Outcome,
    out: &mut Out<'_>,
) {
    let before = partition.kept.clone();
    let Some(deployment) = partition.kept.deployment.as_mut() else { return };
    let Some(mut rollback) = deployment.rollback.take() else { return };
    if let Some(sent) = rollback.in_flight.remove(&id) {
        out.step.changed = true;
        let purpose = &sent.purpose;
        let operation = purpose.operation();
        out.note(Note::Returned { service: key.clone(), operation, outcome: outcome.clone() });
        rollback.log(out.now, format!("{operation} {outcome}"));
        rollback.record(out.now, &sent, outcome);
        let step = purpose.step();
        match outcome {
            Outcome::Applied | Outcome::AlreadyDone => {
                rollback.failures = 0;
                // An earlier try that got no answer was the same call: the two together are no re-assert.
                rollback.unsure.remove(&sent.purpose);
                rollback.accept(out.now, sent.purpose);
            }
            Outcome::Expired => {}
            Outcome::Suppressed => {
                let why = "this worker was started without the means to write".to_owned();
                escalate(key, deployment, &mut rollback, Stuck { step, why, frozen: false }, out);
            }
            Outcome::Failed(error) => {
                rollback.failures = rollback.failures.saturating_add(1);
                if sent.seen {
                    rollback.accept(out.now, sent.purpose);
                } else if error.class == ErrorClass::Transient {
                    rollback.unsure.insert(sent.purpose.clone(), sent);
                }
                rollback.retry_at = Some(out.now.plus(backoff(rollback.failures)));
                if matches!(error.class, ErrorClass::Denied | ErrorClass::Rejected) {
                    let why = error.to_string();
                    escalate(key, deployment, &mut rollback, Stuck { step, why, frozen: false }, out);
                }
            }
        }
        if rollback.in_flight.is_empty() && !rollback.closed {
            partition.soft.want(out.now);
        }
    }
    deployment.rollback = Some(rollback);
    keep_if_changed(&before, &partition.kept, out);
}

/// A read failed while a rollback is open.
pub(super) fn unread(key: &ServiceKey, kept: &mut Kept, error: &CallError, out: &mut Out<'_>) {
    let drain = kept.rule.rollback.drain;
    let Some(deployment) = kept.deployment.as_mut() else { return };
    let Some(mut rollback) = deployment.rollback.take() else { return };
    if !rollback.closed {
        if error.class == ErrorClass::Denied {
            let stuck = Stuck { step: Step::Observe, why: error.to_string(), frozen: false };
            escalate(key, deployment, &mut rollback, stuck, out);
        }
        call_when_late(key, deployment, &mut rollback, drain, out);
    }
    deployment.rollback = Some(rollback);
}

fn call_when_late(
    key: &ServiceKey,
    deployment: &mut Deployment,
    rollback: &mut Rollback,
    drain: Duration,
    out: &mut Out<'_>,
) {
    if !rollback.closed && rollback.escalation.is_none() && out.now > rollback.late_at(drain) {
        let open = out.now.since(rollback.late_from());
        let why = format!("not done {} after the decision; last: {}", humane(open), deployment.why);
        let stuck = Stuck { step: rollback.step(), why, frozen: false };
        escalate(key, deployment, rollback, stuck, out);
    }
}

/// Calls a person: once for each step that can't be done, however often the reason changes its numbers.
pub(super) fn escalate(
    key: &ServiceKey,
    deployment: &mut Deployment,
    rollback: &mut Rollback,
    stuck: Stuck,
    out: &mut Out<'_>,
) {
    let Stuck { step, why, frozen } = stuck;
    let why = format!("{step}: {why}");
    let before = rollback.escalation.take();
    if before.as_ref().is_none_or(|before| before.why != why) {
        rollback.log(out.now, format!("a person is needed: {why}"));
    }
    let mut steps = before.as_ref().map(|before| before.steps.clone()).unwrap_or_default();
    let news = steps.insert(step);
    let frozen = frozen || before.is_some_and(|before| before.frozen);
    rollback.escalation = Some(Escalation { why: why.clone(), frozen, steps });
    rollback.incident.outcome = IncidentOutcome::Escalated;
    rollback.incident.reason = Some(why.clone());
    enter(key, deployment, Phase::Escalated, &why, out);
    if news {
        let incident = rollback.incident.id.clone();
        let outcome = IncidentOutcome::Escalated;
        out.note(Note::Closed { service: key.clone(), incident, outcome, why: why.clone() });
        let kind = AnnouncementKind::RollbackEscalated;
        out.announce_rollback(kind, key, deployment, &rollback.incident, &why, false);
    }
}

/// Another task set has come while ECS only stops the tasks of a green that is deleted: there is nothing left to do here, and what
/// is about to begin is to know of this version.
pub(super) fn finish(key: &ServiceKey, kept: &mut Kept, seen: &Observation, out: &mut Out<'_>) {
    let Kept { rule, deployment, windows, .. } = kept;
    let Some(deployment) = deployment.as_mut() else { return };
    let Some(mut rollback) = deployment.rollback.take_if(|rollback| !rollback.closed) else { return };
    let plan::Proven { traffic_safe, green_leaving, .. } = plan::proven(deployment, rule, seen);
    let is_over = traffic_safe && green_leaving && rollback.accepted(&Purpose::Delete).is_some();
    if is_over && !rollback.is_reopened() {
        rollback.incident.after = Some(snapshot::take(rule, deployment, windows, seen));
        rollback.draining_since.get_or_insert(out.now);
        done(key, deployment, &mut rollback, "traffic is on blue, green is deleted; ECS still stops its tasks", out);
    }
    let put = rollback.closed;
    deployment.rollback = Some(rollback);
    if put {
        quarantine::put(kept, out.now);
    }
}

fn done(key: &ServiceKey, deployment: &mut Deployment, rollback: &mut Rollback, why: &str, out: &mut Out<'_>) {
    if rollback.draining_since.is_some() && !rollback.is_reopened() {
        rollback.incident.deleted_at = Some(out.now);
        let took = out.now.since(rollback.incident.detected_at);
        out.note(Note::Reached { service: key.clone(), stage: Stage::Delete, took });
    }
    enter(key, deployment, Phase::RolledBack, why, out);
    close(key, deployment, rollback, IncidentOutcome::RolledBack, why, out);
}

/// Ends a deployment that events overtook, and with it its rollback.
pub(super) fn supersede(key: &ServiceKey, deployment: &mut Deployment, why: &str, out: &mut Out<'_>) {
    witness::ended(key, deployment, why, out);
    let rollback = deployment.rollback.take();
    enter(key, deployment, Phase::Superseded, why, out);
    deployment.rollback = rollback.map(|mut rollback| {
        if !rollback.closed {
            close(key, deployment, &mut rollback, IncidentOutcome::Superseded, why, out);
        }
        rollback
    });
}

/// Nobody wants this service protected any more: an open rollback is put down where it stands, and says so.
pub(super) fn let_go(key: &ServiceKey, partition: &mut Partition, why: &str, out: &mut Out<'_>) {
    if let Some(deployment) = &mut partition.kept.deployment
        && let Some(mut rollback) = deployment.rollback.take_if(|rollback| !rollback.closed)
    {
        close(key, deployment, &mut rollback, IncidentOutcome::Held, why, out);
        deployment.rollback = Some(rollback);
    }
}

fn close(
    key: &ServiceKey,
    deployment: &Deployment,
    rollback: &mut Rollback,
    outcome: IncidentOutcome,
    why: &str,
    out: &mut Out<'_>,
) {
    // Who leaves traffic half shifted has changed something, whatever stops it.
    let untouched = rollback.is_untouched();
    rollback.closed = true;
    rollback.in_flight.clear();
    rollback.incident.outcome = outcome;
    rollback.incident.reason = Some(why.to_owned());
    rollback.log(out.now, why);
    let incident = rollback.incident.id.clone();
    out.note(Note::Closed { service: key.clone(), incident, outcome, why: why.to_owned() });
    let kind = match outcome {
        IncidentOutcome::RolledBack => AnnouncementKind::RollbackCompleted,
        IncidentOutcome::Escalated => AnnouncementKind::RollbackEscalated,
        IncidentOutcome::Held | IncidentOutcome::Superseded | IncidentOutcome::Open => AnnouncementKind::RollbackHeld,
    };
    let changes_nothing = outcome == IncidentOutcome::Held && untouched;
    out.announce_rollback(kind, key, deployment, &rollback.incident, why, changes_nothing);
    out.step.effects.push(Effect::Keep(rollback.incident.clone()));
}

/// Moves a deployment to a phase. Steps of the plan keep their place in the words for people.
pub(super) fn enter(key: &ServiceKey, deployment: &mut Deployment, to: Phase, why: &str, out: &mut Out<'_>) {
    let from = std::mem::replace(&mut deployment.phase, to);
    why.clone_into(&mut deployment.why);
    if from != to {
        out.note(Note::Phase { service: key.clone(), from, to, why: why.to_owned() });
    }
}

/// A process began: nobody will answer for what an earlier one sent, the next read tells. The earlier one may have run on
/// another machine, by another clock, so the drain begins anew, and no write is younger than now: a read would be waited for
/// until this clock has come to where the other one stood. True when that changed anything.
pub(super) fn begin_anew(partition: &mut Partition, now: Timestamp) -> bool {
    let Some(rollback) = partition.kept.deployment.as_mut().and_then(|d| d.rollback.as_mut()) else { return false };
    let ahead = rollback.accepted.values_mut().filter(|accepted| accepted.at > now);
    let moved = ahead.map(|accepted| accepted.at = now).count() > 0;
    if rollback.closed {
        return rollback.after.seen_since.take().is_some() || moved;
    }
    let unanswered = std::mem::take(&mut rollback.in_flight).into_values();
    let (arrived, lost): (Vec<_>, Vec<_>) = unanswered.partition(|sent| sent.seen);
    let strays = rollback.strays_until.is_some() || lost.iter().any(|sent| sent.purpose.shifts());
    rollback.strays_until = strays.then(|| now.plus(STRAYS));
    let moved = moved || !arrived.is_empty() || !lost.is_empty();
    for sent in arrived {
        rollback.accept(now, sent.purpose);
    }
    rollback.unsure.extend(lost.into_iter().map(|sent| (sent.purpose.clone(), sent)));
    let timers = [rollback.safe_since.take(), rollback.retry_at.take()];
    rollback.end_act() || moved || strays || timers.iter().any(Option::is_some)
}

/// Keeps the record of an open incident when this step changed it. `close` keeps the last one.
pub(super) fn keep_if_changed(before: &Kept, after: &Kept, out: &mut Out<'_>) {
    fn incident(kept: &Kept) -> Option<&Incident> {
        kept.open_rollback().map(|rollback| &rollback.incident)
    }
    if let Some(record) = incident(after).filter(|record| incident(before) != Some(record)) {
        out.step.effects.push(Effect::Keep(record.clone()));
    }
}
