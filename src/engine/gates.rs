//! The gates: thresholds of a rule, evaluated on one fresh observation and the windows behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::roles::Roles;
use super::{Finding, GateState};
use crate::model::{
    AlarmName, AlarmReading, AlarmValue, Comparator, ContainerExit, Evidence, Gate, Observation, Role, Stability,
    Standing, Stop, TargetGroupArn, TaskArn, TaskRecord, Timestamp, Unit, Verdict, Window, humane,
};
use crate::rules::Rule;

/// How far an event's time may lie ahead of ours: clocks of two machines differ, and a failure must not wait for it.
pub(super) const SKEW: Duration = Duration::from_mins(1);

/// Single facts that evidence carries.
const FACTS: usize = 10;

/// What was known about green before this observation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Green's window.
    pub(super) window: Option<&'a Window>,
    /// Green was once steady.
    pub(super) was_steady: bool,
    /// Since when every observation found it unsteady.
    pub(super) unsteady_since: Option<Timestamp>,
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
}

impl Judgement {
    /// Evidence of the breached gates.
    pub(super) fn breaches(&self) -> Vec<Evidence> {
        self.findings.iter().filter(|f| f.state == GateState::Breached).filter_map(|f| f.evidence.clone()).collect()
    }
}

/// Evaluates every gate of the rule.
pub(super) fn judge(now: Timestamp, rule: &Rule, roles: Roles<'_>, seen: &Observation, known: Known<'_>) -> Judgement {
    let mut findings = Vec::new();
    let mut look_again: Option<Timestamp> = None;
    let mut later = |at: Timestamp| look_again = Some(look_again.map_or(at, |other| other.min(at)));

    findings.extend(rule.stability.task_failures.map(|limit| task_failures(now, rule, limit, roles, known)));
    findings.extend(rule.stability.steady_within.map(|limit| steady_within(now, limit, roles, known, &mut later)));
    let names: BTreeSet<&AlarmName> = rule.errors.alarms.iter().chain(known.bound).collect();
    findings.extend(names.into_iter().map(|name| alarm(now, rule, name, roles, seen, &mut later)));

    let any = |state| findings.iter().any(|finding| finding.state == state);
    let verdict = if any(GateState::Breached) {
        Verdict::Breached
    } else if any(GateState::Pending) {
        Verdict::Watching
    } else if any(GateState::Blind) {
        Verdict::Blind
    } else {
        Verdict::Healthy
    };
    Judgement { verdict, findings, look_again_at: look_again }
}

fn task_failures(now: Timestamp, rule: &Rule, limit: u32, roles: Roles<'_>, known: Known<'_>) -> Finding {
    let span = rule.stability.window.min(rule.watch.freshness);
    let from = now.minus(span);
    let all = known.window.map(|window| window.failures(from, now.plus(SKEW))).unwrap_or_default();
    let failed: Vec<_> = all.iter().filter(|(_, record)| record.standing == Standing::Confirmed).collect();
    let claimed = all.iter().filter(|(_, record)| record.standing == Standing::Claimed).count();
    let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
    let breached = count >= limit;
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
        facts: failed.iter().take(FACTS).map(|(task, record)| fact(task, record)).collect(),
    };
    let unsure = if claimed > 0 { format!(", {claimed} more to be confirmed by ECS") } else { String::new() };
    let why = format!("{count} of {limit} failed tasks within {}{unsure}", humane(span));
    let state = match (breached, count + u32::try_from(claimed).unwrap_or(0)) {
        (true, _) => GateState::Breached,
        (false, 0) if known.was_steady || roles.green.stability == Stability::Steady => GateState::Clear,
        (false, _) => GateState::Pending,
    };
    Finding { gate: Gate::TaskFailures, state, evidence: Some(evidence), why }
}

/// One failed task, as people read it.
fn fact(task: &TaskArn, record: &TaskRecord) -> String {
    let Stop { at, class: _, code, reason, containers, target_group: _ } = &record.stop;
    let mut parts = vec![format!("{at} task {} stopped: {code}", task.short())];
    if !reason.is_empty() {
        parts.push(reason.to_string());
    }
    for ContainerExit { name, exit_code, reason } in containers {
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
    known: Known<'_>,
    later: &mut impl FnMut(Timestamp),
) -> Finding {
    let gate = Gate::SteadyWithin;
    let green = roles.green;
    if known.was_steady || green.stability == Stability::Steady {
        return Finding { gate, state: GateState::Clear, evidence: None, why: "has been steady".to_owned() };
    }
    let age = now.since(green.created_at);
    let due = green.created_at.plus(limit);
    // A green that was first seen late may have been steady before, and be scaling now: one look is not enough.
    let watched_from = known.unsteady_since.unwrap_or(now);
    let due = if watched_from > due { watched_from.plus(known.sweep) } else { due };
    let state = if now >= due { GateState::Breached } else { GateState::Pending };
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
        from: green.created_at,
        to: now,
        facts: vec![format!(
            "{} of {} tasks run, {} pending, ECS calls it STABILIZING",
            green.running, green.computed_desired, green.pending
        )],
    };
    let why = format!("not steady {} after its creation, {} are allowed", humane(age), humane(limit));
    Finding { gate, state, evidence: Some(evidence), why }
}

fn alarm(
    now: Timestamp,
    rule: &Rule,
    name: &AlarmName,
    roles: Roles<'_>,
    seen: &Observation,
    later: &mut impl FnMut(Timestamp),
) -> Finding {
    let gate = Gate::Alarm(name.clone());
    let answer = |state, why: &str| Finding { gate: gate.clone(), state, evidence: None, why: why.to_owned() };
    let Some(alarms) = &seen.alarms else {
        return answer(GateState::Blind, "CloudWatch could not be read");
    };
    let Some(alarm) = alarms.iter().find(|alarm| alarm.name == *name) else {
        return answer(GateState::Blind, "CloudWatch knows no alarm of this name");
    };
    if !speaks_of_green(alarm, roles) {
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
                facts: vec![alarm.reason.to_string()],
            };
            Finding {
                gate: gate.clone(),
                state: if breached { GateState::Breached } else { GateState::Pending },
                evidence: Some(evidence),
                why: format!("red for {}, breach from {} on", humane(red), humane(allowed)),
            }
        }
    }
}

/// Target groups swap roles with every deployment, so an alarm's role is read from its dimensions, not from its name.
fn speaks_of_green(alarm: &AlarmReading, roles: Roles<'_>) -> bool {
    let names = |group: &Option<TargetGroupArn>| {
        group.as_ref().is_some_and(|group| alarm.target_groups.contains(group.dimension()))
    };
    names(&roles.green.target_group) || !names(&roles.blue.target_group)
}
