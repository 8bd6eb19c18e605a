//! The gates: thresholds of a rule, evaluated on one fresh observation and the windows behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::control::{self, Control, Hearing, speaks_of, unhealthy_share, unhealthy_share_of};
use super::excess::{self, Failures, Past};
use super::mutants::{Mutant, without};
use super::partition::{Ran, Unhealthy, Weather};
use super::roles::Roles;
use super::sampled::{self, Sampled};
use super::{Finding, GateState};
use crate::model::{
    AlarmName, AlarmValue, Comparator, ContainerExit, Evidence, Forward, Gate, Observation, Role, Stability, Standing,
    Stop, TargetGroupArn, TaskArn, TaskRecord, TaskSetStatus, Timestamp, TrafficRule, Unit, Verdict, Window, humane,
    percent,
};
use crate::rules::Rule;

/// How far an event's time may lie ahead of ours: clocks of two machines differ, and a failure must not wait for it.
pub(super) const SKEW: Duration = Duration::from_mins(1);

/// Single facts that evidence carries.
pub(super) const FACTS: usize = 10;

/// What was known about green before this observation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Green's window.
    pub(super) window: Option<&'a Window>,
    /// Blue's.
    pub(super) blue_window: Option<&'a Window>,
    /// All that failed of green.
    pub(super) failures: &'a Failures,
    /// What failed of the versions before.
    pub(super) past: &'a Past,
    /// The most tasks that blue was seen to have beside green.
    pub(super) blue_had: u32,
    /// How much green has run.
    pub(super) ran: Ran,
    /// Green was once steady.
    pub(super) was_steady: bool,
    /// Since when every observation found it unsteady.
    pub(super) unsteady_since: Option<Timestamp>,
    /// When it first wanted some, where it did not from its creation on.
    pub(super) woke_at: Option<Timestamp>,
    /// How many tasks it had when it was last steady, while it may be starting more.
    pub(super) before_it_grew: Option<u32>,
    /// Sweeps in a row that found too many of its targets unhealthy, this one included.
    pub(super) unhealthy: Option<Unhealthy>,
    /// How the traffic fares.
    pub(super) sampled: Option<&'a Sampled>,
    /// Gates on it, and alarms, that were over for a cause that blue shared, when they were last looked at.
    pub(super) shared: &'a [Gate],
    /// When blue was seen to suffer as well.
    pub(super) weather: &'a [Weather],
    /// Alarms that bind by their dimensions.
    pub(super) bound: &'a BTreeSet<AlarmName>,
    /// Span between two sweeps.
    pub(super) sweep: Duration,
}

/// All gates' answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    /// Over all gates.
    pub(super) verdict: Verdict,
    /// Each gate.
    pub(super) findings: Vec<Finding>,
    /// When a gate's answer changes by time alone.
    pub(super) look_again_at: Option<Timestamp>,
    /// A gate waits for a look at how the traffic fares.
    pub(super) wants_traffic: bool,
    /// Blue's users or targets suffer at this moment.
    pub(super) blue_suffers: bool,
    /// A gate is about to be over: enough has failed and blue is still to be heard, or an alarm is red and not believed yet.
    pub(super) about_to_decide: bool,
    /// Gates on traffic, and alarms, that are over for a cause that blue shares.
    pub(super) shared: Vec<Gate>,
}

impl Judgement {
    /// Evidence of the gates whose threshold is reached.
    pub(super) fn breaches(&self) -> Vec<Evidence> {
        self.over().filter_map(|finding| finding.evidence.clone()).collect()
    }

    /// A threshold is reached, whoever is to blame.
    pub(super) fn is_over(&self) -> bool {
        self.over().next().is_some()
    }

    /// What the gates say whose threshold is reached.
    pub(super) fn why(&self) -> String {
        self.over().map(|finding| format!("{}: {}", finding.gate, finding.why)).collect::<Vec<_>>().join("; ")
    }

    /// The breached gates, and if none is, those that blue shares.
    fn over(&self) -> impl Iterator<Item = &Finding> {
        let wanted = if self.verdict == Verdict::NotAttributable { GateState::Shared } else { GateState::Breached };
        self.findings.iter().filter(move |finding| finding.state == wanted)
    }
}

/// Evaluates every gate of the rule.
pub(super) fn judge(now: Timestamp, rule: &Rule, roles: Roles<'_>, seen: &Observation, known: Known<'_>) -> Judgement {
    let mut findings = Vec::new();
    let mut look_again: Option<Timestamp> = None;
    let mut later = |at: Timestamp| look_again = Some(look_again.map_or(at, |other| other.min(at)));

    let control = Control::of(now, rule, roles, seen, known);
    let mut heard_at = Vec::new();
    let mut hears = |at: Timestamp| heard_at.push(at);
    findings.extend(
        rule.stability.task_failures.map(|limit| task_failures(now, rule, limit, roles, known, &control, &mut hears)),
    );
    findings.extend(
        rule.compare
            .false_rollback
            .map(|accepted| excess::judge(now, rule, accepted, roles, known, &control, &mut hears)),
    );
    heard_at.iter().copied().for_each(&mut later);
    findings
        .extend(rule.stability.steady_within.map(|limit| steady_within(now, limit, roles, seen, known, &mut later)));
    findings.extend(
        rule.stability.unhealthy_targets.and_then(|limit| unhealthy_targets(now, limit, roles, seen, known, &control)),
    );
    let traffic = sampled::judge(now, rule, roles, seen, (known.sampled, known.shared), &control);
    let met_by_blue: Vec<_> =
        traffic.iter().filter(|judged| judged.met_by_blue).map(|judged| judged.finding.gate.clone()).collect();
    findings.extend(traffic.into_iter().map(|judged| judged.finding));
    let names: BTreeSet<&AlarmName> = rule.errors.alarms.iter().chain(known.bound).collect();
    let (mut wants_traffic, mut turning) = (false, false);
    findings.extend(names.into_iter().map(|name| {
        let wanted = |since| rule.compare.against_blue && sampled::is_wanted(now, roles, since, known.sampled);
        let red = alarm(now, rule, name, (roles, known.shared), seen, (&control, &wanted), &mut later);
        wants_traffic |= red.wants_traffic;
        turning |= red.finding.state == GateState::Pending;
        red.finding
    }));
    if !rule.compare.against_blue {
        // Without a control group every breach is green's.
        for finding in findings.iter_mut().filter(|finding| finding.state == GateState::Shared) {
            finding.state = GateState::Breached;
        }
    }

    // Those that were stay so until they say anything else, or until blue's users, who could tell, fare well.
    let blue_is_well = sampled::blue_is_well(now, rule, roles, known.sampled);
    let stays = |gate: &Gate| known.shared.contains(gate) && !(gate.is_of_traffic() && blue_is_well);
    let shared = findings.iter().filter(|finding| match (&finding.gate, finding.state) {
        (_, GateState::Clear | GateState::Breached) => false,
        (Gate::Alarm(_), GateState::Shared) => true,
        (gate, GateState::Shared) => met_by_blue.contains(gate),
        (gate, GateState::Blind | GateState::Pending) => stays(gate),
    });
    let shared = shared.map(|finding| finding.gate.clone()).collect();
    let any = |state| findings.iter().any(|finding| finding.state == state);
    let verdict = if any(GateState::Breached) {
        Verdict::Breached
    } else if any(GateState::Shared) {
        Verdict::NotAttributable
    } else if any(GateState::Pending) {
        Verdict::Watching
    } else if any(GateState::Blind) {
        Verdict::Blind
    } else {
        Verdict::Healthy
    };
    Judgement {
        verdict,
        findings,
        look_again_at: look_again,
        wants_traffic,
        blue_suffers: !control.suffers().is_empty(),
        about_to_decide: turning || !heard_at.is_empty(),
        shared,
    }
}

fn task_failures(
    now: Timestamp,
    rule: &Rule,
    limit: u32,
    roles: Roles<'_>,
    known: Known<'_>,
    control: &Control,
    hears: &mut impl FnMut(Timestamp),
) -> Finding {
    let span = rule.stability.window.min(rule.watch.freshness);
    let patience = rule.compare.patience;
    // What was within a window when the limit was reached still counts when blue was heard.
    let remembered = span.saturating_add(control.waits_for(patience)).min(rule.watch.freshness);
    let from = if without(Mutant::NoFreshness) { Timestamp::EPOCH } else { now.minus(remembered) };
    let mut all = known.window.map(|window| window.failures(from, now.plus(SKEW))).unwrap_or_default();
    let told = all.len();
    all.retain(|(_, record)| !counts(record) || !control.excuses(record.stop.at));
    let aside = Control::aside(told.saturating_sub(all.len()));
    let from = reached(limit, &all, span).unwrap_or(now).min(now.minus(span)).max(from);
    all.retain(|(_, record)| record.stop.at >= from || without(Mutant::NoFreshness));
    let failed: Vec<_> = all.iter().filter(|(_, record)| counts(record)).collect();
    let claimed = all.iter().filter(|(_, record)| record.standing == Standing::Claimed).count();
    // Each task once, however many events told of it.
    let times = |record: &TaskRecord| if without(Mutant::NoDedup) { record.version } else { 1 };
    let count = failed.iter().map(|(_, record)| times(record)).sum::<u64>();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let lived = now.since(from.max(roles.green.created_at));
    let tasks = (control::tasks(roles.green), control::size_of_blue(roles, known));
    let usual = known.past.usual(now, tasks, lived, span);
    let unusual = f64::from(count) - usual >= UNUSUAL * usual.sqrt();
    // What is green's alone must reach the limit, and be more than chance makes of one cause that hits both.
    let own = f64::from(count) - control.expected();
    let of_green = usize::try_from(count).unwrap_or(usize::MAX);
    let apart = control.is_apart(of_green);
    let suffers = control.suffers();
    let alone = own >= f64::from(limit).max(control.scatter()) && apart && suffers.is_empty();
    let reached_at = usize::try_from(limit).ok().and_then(|limit| failed.get(limit.checked_sub(1)?));
    let is_over = count >= limit && alone && unusual;
    let last = reached_at.filter(|_| is_over);
    let hearing = last.and_then(|(_, record)| control.hears_blue(now, of_green, record.stop.at, patience));
    if let Some(hearing) = hearing {
        hears(hearing.look_at);
    }
    let evidence = Evidence {
        gate: Gate::TaskFailures,
        role: Role::Green,
        task_set: roles.green.id.clone(),
        value: f64::from(count),
        comparator: Comparator::AtLeast,
        threshold: f64::from(limit),
        unit: Unit::Tasks,
        from: failed.first().map_or(from, |(_, record)| record.stop.at),
        to: failed.last().map_or(now, |(_, record)| record.stop.at.max(from)),
        facts: failed.iter().take(FACTS - 1).map(|(task, record)| fact(task, record)).chain(control.fact()).collect(),
    };
    let unsure = if claimed > 0 { format!(", {claimed} more to be confirmed by ECS") } else { String::new() };
    let as_usual =
        if count >= limit && !unusual { format!("; this service loses {usual:.1} anyway") } else { String::new() };
    let clause = control.clause() + &aside + &control::clauses(&suffers);
    let heard = Hearing::clause(hearing);
    let why = format!("{count} of {limit} failed tasks within {}{unsure}{clause}{as_usual}{heard}", humane(span));
    let state = match (count >= limit, count.saturating_add(u32::try_from(claimed).unwrap_or(0))) {
        (true, _) if !unusual => GateState::Pending,
        (true, _) if !alone => GateState::Shared,
        (true, _) if hearing.is_some() => GateState::Pending,
        (true, _) => GateState::Breached,
        (false, 0) if known.was_steady || roles.green.stability == Stability::Steady => GateState::Clear,
        (false, _) => GateState::Pending,
    };
    Finding { gate: Gate::TaskFailures, state, evidence: Some(evidence), why }
}

/// Since when there were failures enough within one window.
fn reached(limit: u32, all: &[(&TaskArn, &TaskRecord)], span: Duration) -> Option<Timestamp> {
    let times: Vec<_> = all.iter().filter(|(_, record)| counts(record)).map(|(_, record)| record.stop.at).collect();
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0)?;
    let ends = times.windows(limit).filter_map(|enough| Some((*enough.first()?, *enough.last()?)));
    ends.filter(|(first, last)| last.since(*first) <= span).map(|(first, _)| first).next()
}

/// An event only claims.
fn counts(record: &TaskRecord) -> bool {
    record.standing == Standing::Confirmed || (record.standing == Standing::Claimed && without(Mutant::EventsDecide))
}

/// Standard deviations above what a service always loses that no window of a deployment reaches by chance.
const UNUSUAL: f64 = 4.5;

/// One failed task, as people read it.
pub(super) fn fact(task: &TaskArn, record: &TaskRecord) -> String {
    let Stop { at, class: _, code, reason, containers, target_group: _ } = &record.stop;
    let mut parts = vec![format!("{at} task {} stopped: {code}", task.short())];
    if !reason.is_empty() {
        parts.push(reason.to_string());
    }
    for ContainerExit { name, exit_code, reason, image_digest: _ } in containers {
        let code = exit_code.map(|code| format!(" exit code {code}")).unwrap_or_default();
        let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        parts.push(format!("container {name}{code}{reason}"));
    }
    parts.join("; ")
}

fn steady_within(
    now: Timestamp,
    limit: Duration,
    roles: Roles<'_>,
    seen: &Observation,
    known: Known<'_>,
    later: &mut impl FnMut(Timestamp),
) -> Finding {
    let gate = Gate::SteadyWithin;
    let green = roles.green;
    if known.was_steady || green.is_steady() {
        return Finding { gate, state: GateState::Clear, evidence: None, why: "has been steady".to_owned() };
    }
    if green.computed_desired == 0 {
        // Without a task ECS calls it steady, which tells nothing of those that it will start.
        return Finding { gate, state: GateState::Pending, evidence: None, why: "it wants no tasks yet".to_owned() };
    }
    let (began_at, began) = match known.woke_at {
        Some(at) => (at, "it first wanted tasks"),
        None => (green.created_at, "its creation"),
    };
    let age = now.since(began_at);
    let due = began_at.plus(limit);
    // A green that was first seen late may have been steady before, and be scaling now: what serves has its time from there on, and
    // of one that does not a single look is not enough.
    let watched_from = known.unsteady_since.unwrap_or(now);
    let given = if control::serving(green, seen) > 0 { limit } else { known.sweep };
    let due = if watched_from > due { watched_from.plus(given) } else { due };
    let blue_is_steady = roles.blue.stability == Stability::Steady;
    let state = match now >= due {
        true if blue_is_steady => GateState::Breached,
        true => GateState::Shared,
        false => GateState::Pending,
    };
    if state == GateState::Pending {
        later(due);
    }
    let evidence = Evidence {
        gate: gate.clone(),
        role: Role::Green,
        task_set: green.id.clone(),
        value: age.as_secs_f64(),
        comparator: Comparator::AtLeast,
        threshold: limit.as_secs_f64(),
        unit: Unit::Seconds,
        from: began_at,
        to: now,
        facts: std::iter::once(format!(
            "{} of {} tasks run, {} pending, ECS calls it STABILIZING",
            green.running, green.computed_desired, green.pending
        ))
        .chain(known.woke_at.map(|at| format!("it wanted no tasks until {at}")))
        .collect(),
    };
    let shared = if state == GateState::Shared { "; blue is not steady either" } else { "" };
    let why = format!("not steady {} after {began}, {} are allowed{shared}", humane(age), humane(limit));
    Finding { gate, state, evidence: Some(evidence), why }
}

/// Some rule sends users to green. One that names green's group alone, while another gives all to blue, is a test listener's, until
/// green is PRIMARY.
fn has_users(Roles { green, blue }: Roles<'_>, group: &TargetGroupArn, seen: &Observation) -> bool {
    let forwards = || seen.traffic.rules().iter().flat_map(TrafficRule::forwards);
    let blues = |forward: &Forward| blue.target_group.as_ref().map_or(0.0, |group| forward.share(group));
    let names_blue = |forward: &Forward| blue.target_group.as_ref().is_some_and(|group| forward.names(group));
    let all_to_blue = forwards().any(|forward| blues(forward) > 0.0 && forward.share(group) <= 0.0);
    let all_are_users = green.status == TaskSetStatus::Primary || !all_to_blue;
    forwards().any(|forward| forward.share(group) > 0.0 && (all_are_users || names_blue(forward)))
}

/// `None` where there is no load balancer.
fn unhealthy_targets(
    now: Timestamp,
    limit: f64,
    roles: Roles<'_>,
    seen: &Observation,
    known: Known<'_>,
    control: &Control,
) -> Option<Finding> {
    let gate = Gate::UnhealthyTargets;
    let green = roles.green;
    let group = green.target_group.as_ref()?;
    let answer = |state, why: &str| Finding { gate: gate.clone(), state, evidence: None, why: why.to_owned() };
    let Some(share) = unhealthy_share_of(green, known.before_it_grew, group, seen) else {
        return Some(answer(GateState::Pending, "no targets are registered yet"));
    };
    let grows = known.before_it_grew.map(|had| format!("; of the {had} that it had before it was scaled up"));
    let grows = grows.unwrap_or_default();
    let why = format!("{} of its targets are unhealthy, {} are allowed{grows}", percent(share), percent(limit));
    if !known.was_steady && !has_users(roles, group, seen) {
        // Targets fail their checks while a version starts, which hurts nobody until users come.
        return Some(answer(GateState::Pending, &format!("{why}; not judged before it is steady or has users")));
    }
    let of_blue = roles.blue.target_group.as_ref().and_then(|group| unhealthy_share(group, seen)).unwrap_or(0.0);
    let trouble = control.trouble();
    let Unhealthy { sweeps, since } = known.unhealthy.unwrap_or(Unhealthy { sweeps: 0, since: now });
    let state = match (share > limit, sweeps) {
        (false, _) => GateState::Clear,
        (true, 0 | 1) => GateState::Pending,
        // Where a rule allows little, blue may be over it too: green is to be worse by as much again.
        (true, _) if share - of_blue > limit.max(of_blue) && trouble.is_empty() => GateState::Breached,
        (true, _) => GateState::Shared,
    };
    let shares = format!("{} of green's targets and {} of blue's are unhealthy", percent(share), percent(of_blue));
    let told = seen.targets.get(group).into_iter().flat_map(|counts| &counts.reasons);
    let told = told.map(|(reason, targets)| format!("{targets} of green's targets: {reason}"));
    let shared = if of_blue > 0.0 { format!("; of blue's {}", percent(of_blue)) } else { String::new() };
    let shared = shared + &control::clauses(&trouble);
    let evidence = Evidence {
        gate: gate.clone(),
        role: Role::Green,
        task_set: green.id.clone(),
        value: share,
        comparator: Comparator::MoreThan,
        threshold: limit,
        unit: Unit::Share,
        from: since,
        to: now.max(since),
        facts: std::iter::once(shares).chain(told).collect(),
    };
    Some(Finding { gate, state, evidence: Some(evidence), why: format!("{why}{shared}") })
}

/// What an alarm says, and what is to be read before it can be believed.
struct Alarmed {
    finding: Finding,
    wants_traffic: bool,
}

fn alarm(
    now: Timestamp,
    rule: &Rule,
    name: &AlarmName,
    (roles, shared): (Roles<'_>, &[Gate]),
    seen: &Observation,
    (control, traffic_is_wanted): (&Control, &impl Fn(Timestamp) -> bool),
    later: &mut impl FnMut(Timestamp),
) -> Alarmed {
    let gate = Gate::Alarm(name.clone());
    let answer = |state, why: &str| Alarmed {
        finding: Finding { gate: gate.clone(), state, evidence: None, why: why.to_owned() },
        wants_traffic: false,
    };
    let Some(alarms) = &seen.alarms else {
        return answer(GateState::Blind, "CloudWatch could not be read");
    };
    let Some(alarm) = alarms.iter().find(|alarm| alarm.name == *name) else {
        return answer(GateState::Blind, "CloudWatch knows no alarm of this name");
    };
    if let Some(doubt) = &alarm.doubt {
        return answer(GateState::Blind, &format!("its state says nothing: {doubt}"));
    }
    if !speaks_of(alarm, roles.green) && speaks_of(alarm, roles.blue) {
        return match alarm.value {
            AlarmValue::Alarm => answer(GateState::Blind, "red, but it watches blue's target group, not green's"),
            _ => answer(GateState::Clear, "watches blue's target group, not green's"),
        };
    }
    match alarm.value {
        AlarmValue::Ok => answer(GateState::Clear, "OK"),
        AlarmValue::InsufficientData => answer(GateState::Blind, "INSUFFICIENT_DATA: no evidence in either direction"),
        AlarmValue::Alarm if alarm.since <= roles.green.created_at => {
            answer(GateState::Blind, "was red already when green was created")
        }
        AlarmValue::Alarm => {
            let red = now.since(alarm.since);
            let allowed = rule.errors.alarm_for;
            let breached = red >= allowed;
            if !breached {
                later(alarm.since.plus(allowed));
            }
            let wants_traffic = breached && traffic_is_wanted(alarm.since);
            let mut of_blue = control.trouble();
            if of_blue.is_empty() && shared.contains(&gate) && control.nobody_fails() {
                // An alarm may look at a quarter of an hour: it is red for what blue has met, until it is not or green fails alone.
                of_blue.push("it was red while blue suffered as well, and no users do now".to_owned());
            }
            let beside = control.beside.as_ref().map(|beside| beside.words.clone());
            let state = match (breached && !wants_traffic, of_blue.is_empty()) {
                (false, _) => GateState::Pending,
                (true, true) => GateState::Breached,
                (true, false) => GateState::Shared,
            };
            let evidence = Evidence {
                gate: gate.clone(),
                role: Role::Green,
                task_set: roles.green.id.clone(),
                value: red.as_secs_f64(),
                comparator: Comparator::AtLeast,
                threshold: allowed.as_secs_f64(),
                unit: Unit::Seconds,
                from: alarm.since,
                to: now.max(alarm.since),
                facts: std::iter::once(alarm.reason.to_string()).chain(beside).collect(),
            };
            let shared = control::clauses(&of_blue);
            let waits = if wants_traffic { "; blue's traffic is looked at first" } else { "" };
            let why = format!("red for {}, breach from {} on{shared}{waits}", humane(red), humane(allowed));
            let finding = Finding { gate: gate.clone(), state, evidence: Some(evidence), why };
            Alarmed { finding, wants_traffic }
        }
    }
}
