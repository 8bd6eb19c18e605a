//! The cumulative gate, `compare.false_rollback`: have more of green's tasks failed since its creation than chance, and than what
//! blue suffers at the same time, explain?
//!
//! Two numbers answer, both *e-values*: a sound green sees one of `1 / false_rollback` or more in at most `false_rollback` of all
//! deployments, however often it is looked at meanwhile (Ville's inequality; Ramdas, Grünwald, Vovk, Shafer: "Game-theoretic
//! statistics and safe anytime-valid inference", 2023). That is what allows to judge at every event.
//!
//! - *Chance*: tasks of a sound version fail one by one, as often as this service's did before. How often that is, is a gamma
//!   distribution that the service's past has taught; the bets are that green's fail several times as often (the method of
//!   mixtures: Robbins 1970).
//! - *Weather* ([`Control::against_weather`]): what blue lost at the same time. Asked when it lost anything; it then has to agree.
//!
//! docs/detection.md explains it for people, with an example; `cargo bench --bench detection` measures it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::{self, Control, Hearing, float};
use super::gates::{self, Known, SKEW};
use super::roles::Roles;
use super::{Finding, GateState};
use crate::model::{Comparator, Evidence, Gate, Role, Stability, TaskArn, Timestamp, Unit, humane, once_in};
use crate::rules::{BLUE_LAG, Rule};

/// Never one task alone.
pub(super) const LEAST: usize = 2;

/// Failures that are remembered. A breach needs a handful; the bound keeps a crash loop from growing the state.
const CAPACITY: usize = 64;

/// How far back the service's own past counts.
const PAST: Duration = Duration::from_hours(24);

/// Windows of the past without which it tells nothing about one.
const TELLING: u32 = 6;

/// Task-minutes of the past that count at most: two days of one task. A long quiet past does not make two accidents in a
/// quarter of an hour a disaster.
const PAST_MINUTES: f64 = 2880.0;

/// Two kinds of service: quiet ones, and such whose tasks fail now and then. How many of all are of the kind, and how many
/// failures in how many task-minutes are known of it before one is looked at.
const KINDS: [(f64, f64, f64); 2] = [(0.98, 0.5, 1440.0), (0.02, 1.0, 60.0)];

/// A start may fail for no reason that would return: it counts as so many task-minutes.
const START: f64 = 5.0;

/// The bets against chance: green's tasks fail so many times as often as this service's do. A leak is a few times worse, a crash at
/// the start hundreds of times.
const TIMES_USUAL: [f64; 6] = [2.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// What adds up slowly can wait for blue, at least until CloudWatch tells how its requests fared.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long a breach by this rule may wait for blue before green is blamed.
pub fn waits_for_blue(rule: &Rule) -> Duration {
    let slow = rule.compare.false_rollback.map_or(Duration::ZERO, |_| PATIENCE);
    slow.max(rule.compare.patience)
}

/// No more than this is said of any e-value.
const CERTAIN: f64 = 1e9;

/// Tasks that ended in a way that speaks against their version, and were known to ECS as such while that was news. Unlike a window's,
/// they do not expire: what has been fresh once stays true of the deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Failures(BTreeMap<TaskArn, Timestamp>);

impl Failures {
    /// ECS has confirmed the end of a task.
    pub(super) fn add(&mut self, task: &TaskArn, at: Timestamp) {
        self.0.insert(task.clone(), at);
        if self.0.len() > CAPACITY
            && let Some(oldest) = self.0.iter().min_by_key(|(task, at)| (**at, *task)).map(|(task, _)| task.clone())
        {
            self.0.remove(&oldest);
        }
    }

    /// Forgets what is older.
    pub(super) fn since(&mut self, horizon: Timestamp) {
        self.0.retain(|_, at| *at >= horizon);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn from(&self, from: Timestamp) -> usize {
        self.0.values().filter(|at| **at >= from).count()
    }

    /// When they ended, oldest first.
    fn times(&self) -> Vec<Timestamp> {
        let mut times: Vec<_> = self.0.values().copied().collect();
        times.sort_unstable();
        times
    }
}

/// What befell the versions before green, the present blue included: how often a task of this service fails by chance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Past {
    /// Since when it is watched; `None` before the first read.
    pub(super) since: Option<Timestamp>,
    /// Of the last [`PAST`].
    pub(super) failures: Failures,
}

impl Past {
    /// Forgets what is too old to tell anything.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
        self.failures.since(now.minus(PAST));
    }

    /// How long the service's tasks have been watched, in task-minutes.
    fn minutes(&self, now: Timestamp, tasks: u32) -> f64 {
        // Where older failures had to be forgotten, the past begins with those that are left.
        let oldest = self.failures.0.values().min().filter(|_| self.failures.0.len() >= CAPACITY);
        let since = oldest.copied().max(self.since);
        task_minutes(tasks, since.map_or(Duration::ZERO, |since| now.since(since).min(PAST)))
    }

    /// Failures that `green` tasks have had in a span like this one, where `blue` failed as these did; 0 while the past is too
    /// short to tell.
    pub(super) fn usual(&self, now: Timestamp, (green, blue): (u32, u32), span: Duration, window: Duration) -> f64 {
        let minutes = self.minutes(now, blue);
        if minutes < task_minutes(blue, window.saturating_mul(TELLING)) || minutes <= 0.0 {
            return 0.0;
        }
        let failed = float(self.failures.0.len());
        // Few failures tell little of how often there are any: what may be behind them counts.
        (failed + failed.sqrt()) * task_minutes(green, span) / minutes
    }

    /// What is known of each kind of service, and how likely it is that this one is of it: the gamma distribution of failures
    /// per task-minute, brought up to date with what happened.
    fn kinds(&self, now: Timestamp, tasks: u32) -> [(f64, f64, f64); 2] {
        let minutes = self.minutes(now, tasks);
        let share = if minutes > PAST_MINUTES { PAST_MINUTES / minutes } else { 1.0 };
        let (failed, minutes) = (float(self.failures.0.len()) * share, minutes * share);
        KINDS.map(|(part, failures, exposure)| {
            let likelihood = part * likelihood(failed, minutes, failures, exposure);
            (likelihood, failures + failed, exposure + minutes)
        })
    }
}

/// The probability, up to a factor that depends on the count alone, of so many failures in so many task-minutes of a service of
/// which so many failures in so much time are known: the negative binomial distribution.
fn likelihood(failed: f64, minutes: f64, failures: f64, exposure: f64) -> f64 {
    let whole = failed.floor();
    let rising: f64 = std::iter::successors(Some(0.0), |k| Some(k + 1.0))
        .take_while(|k| *k < whole)
        .map(|k| (failures + k).ln())
        .sum();
    let all = exposure + minutes;
    (rising + failed * (minutes.max(f64::MIN_POSITIVE) / all).ln() + failures * (exposure / all).ln()).exp()
}

/// The gate.
pub(super) fn judge(
    now: Timestamp,
    rule: &Rule,
    accepted: f64,
    roles: Roles<'_>,
    known: Known<'_>,
    control: &Control,
    hears: &mut impl FnMut(Timestamp),
) -> Finding {
    let Known { failures, past, window, was_steady, .. } = known;
    let green = roles.green;
    let mut times = failures.times();
    times.retain(|at| !control.excuses(*at));
    let aside = Control::aside(failures.0.len().saturating_sub(times.len()));
    let suffers = control.suffers();
    let failed = times.len();
    let trial = Trial::of(now, roles, failed, known);
    let threshold = 1.0 / accepted;
    let chance = trial.against_chance(past, now);
    let weather = control.against_weather(failed, trial.blue_lost);
    let value = chance.min(weather.unwrap_or(CERTAIN));
    let from = times.first().copied().unwrap_or(green.created_at);
    let newest = times.last().copied().unwrap_or(from);
    let age = now.since(newest);
    let fresh = age <= rule.watch.freshness;
    let over = failed >= LEAST && chance >= threshold;
    // The failure that was one too many.
    let reached =
        (LEAST..=failed).find(|failed| Trial::of(now, roles, *failed, known).against_chance(past, now) >= threshold);
    let reached_at = reached.and_then(|failed| times.get(failed.checked_sub(1)?)).copied().unwrap_or(newest);
    let shared = value < threshold || !suffers.is_empty();
    let hearing = if over && fresh && !shared {
        // What is to trigger must still be fresh when blue has been heard.
        let most = rule.watch.freshness.saturating_sub(BLUE_LAG);
        control.hears_blue(now, failed, reached_at, PATIENCE.max(rule.compare.patience).min(most))
    } else {
        None
    };
    if let Some(hearing) = hearing {
        hears(hearing.look_at);
    }
    let state = if !over && failed == 0 && (was_steady || green.stability == Stability::Steady) {
        GateState::Clear
    } else if !over || !fresh || hearing.is_some() {
        GateState::Pending
    } else if shared {
        GateState::Shared
    } else {
        GateState::Breached
    };
    let numbers = trial.to_string();
    let odds =
        if failed < LEAST { String::new() } else { format!("; a sound green looks like this {}", once_in(value)) };
    let stale = if over && !fresh { format!("; the newest is {} old", humane(age)) } else { String::new() };
    let records = window.map(|window| window.failures(from, now.plus(SKEW))).unwrap_or_default();
    let told = records.iter().filter(|(task, _)| failures.0.contains_key(*task));
    let facts = told.map(|(task, record)| gates::fact(task, record)).take(gates::FACTS - 1);
    let evidence = Evidence {
        gate: Gate::ExcessFailures,
        role: Role::Green,
        task_set: green.id.clone(),
        // Beside a blue that suffers as well, a green is over its own threshold all the same.
        value: if state == GateState::Shared { chance } else { value },
        comparator: Comparator::AtLeast,
        threshold,
        unit: Unit::Odds,
        from,
        to: newest,
        facts: std::iter::once(numbers.clone()).chain(facts).collect(),
    };
    let suffers = control::clauses(&suffers);
    let heard = Hearing::clause(hearing);
    let why = format!("{numbers}{aside}{suffers}{odds}{stale}{heard}");
    Finding { gate: Gate::ExcessFailures, state, evidence: Some(evidence), why }
}

/// A green on trial, in numbers.
struct Trial {
    /// Green's tasks that failed,
    failed: usize,
    /// out of so many that were started,
    starts: usize,
    /// which, with their starts, come to so many task-minutes.
    minutes: f64,
    /// Blue's tasks that failed since green's creation,
    blue_lost: usize,
    /// out of so many.
    blue_tasks: u32,
    /// So many tasks it had when what its past knows of failed.
    blue_had: u32,
    /// Since green's creation.
    age: Duration,
}

impl Trial {
    fn of(now: Timestamp, roles: Roles<'_>, failed: usize, known: Known<'_>) -> Self {
        let (green, blue) = (control::tasks(roles.green), control::tasks(roles.blue));
        let age = now.since(roles.green.created_at);
        // Every task that failed was replaced.
        let starts = failed.saturating_add(usize::try_from(green).unwrap_or(usize::MAX));
        let minutes = known.ran.minutes(now) + START * float(starts);
        let blue_lost = known.past.failures.from(roles.green.created_at);
        let blue_had = control::size_of_blue(roles, known);
        Self { failed, starts, minutes, blue_lost, blue_tasks: blue, blue_had, age }
    }

    /// How well the bets on a bad green do against chance.
    fn against_chance(&self, past: &Past, now: Timestamp) -> f64 {
        let kinds = past.kinds(now, self.blue_had);
        let times_as_often = |times: f64| {
            let of_kind = |(part, failures, exposure)| {
                part * likelihood(float(self.failed), self.minutes * times, failures, exposure)
            };
            kinds.iter().copied().map(of_kind).sum::<f64>()
        };
        let bets = TIMES_USUAL.iter().copied().map(times_as_often).sum::<f64>() / float(TIMES_USUAL.len());
        let sound = times_as_often(1.0);
        // A past of no length makes all of them nothing: that says nothing.
        if sound > 0.0 { (bets / sound).min(CERTAIN) } else { 1.0 }
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { failed, starts, minutes: _, blue_lost, blue_tasks, blue_had: _, age } = self;
        let age = humane(*age);
        write!(
            f,
            "{failed} of the {starts} tasks started for green failed in {age}; blue, which has {blue_tasks}, lost {blue_lost} meanwhile"
        )
    }
}

fn task_minutes(tasks: u32, span: Duration) -> f64 {
    f64::from(tasks) * span.as_secs_f64() / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_of_no_length_says_nothing() {
        let now = Timestamp::from_millis(1_000_000);
        let mut past = Past::default();
        past.expire(now);
        for task in ["a", "b"] {
            past.failures.add(&TaskArn::new(task), now);
        }
        let age = Duration::from_mins(1);
        let trial = Trial { failed: 2, starts: 6, minutes: 34.0, blue_lost: 0, blue_tasks: 4, blue_had: 4, age };
        let says = trial.against_chance(&past, now);
        assert!((says - 1.0).abs() < f64::EPSILON, "{says}");
    }
}
