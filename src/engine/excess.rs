//! The cumulative gate, `compare.false_rollback`: have more of green's tasks failed since its creation than chance, and than what
//! blue suffers at the same time, explain?
//!
//! Two numbers answer, both *e-values*: a sound green sees one of `1 / false_rollback` or more in at most `false_rollback` of all
//! deployments, however often it is looked at meanwhile (Ville's inequality; Ramdas, Grünwald, Vovk, Shafer: "Game-theoretic
//! statistics and safe anytime-valid inference", 2023). That is what allows to judge at every event.
//!
//! - *Chance*: failures of a sound version come singly, at the pace that the service has shown before, and now and then a
//!   start fails. The gamma-Poisson mixture bets that green's come faster (the method of mixtures: Robbins 1970).
//! - *Weather*: of failures from one cause green gets a share that its number of tasks tells, whenever the cause strikes
//!   and however hard. The bet is on more (the safe logrank test: ter Schure, Pérez-Ortiz, Ly, Grünwald 2020). Asked only when blue
//!   has failures, too; it then has to agree.
//!
//! docs/detection.md explains it for people, with an example; `cargo bench --bench detection` measures it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gates::{self, Control, SKEW};
use super::roles::Roles;
use super::{Finding, GateState};
use crate::model::{Comparator, Evidence, Gate, Role, Stability, TaskArn, Timestamp, Unit, Window, humane, once_in};
use crate::rules::Rule;

/// Never one task alone.
pub(super) const LEAST: usize = 2;

/// Failures that are remembered. A breach needs a handful; the bound keeps a crash loop from growing the state.
const CAPACITY: usize = 64;

/// How far back the service's own past counts.
const PAST: Duration = Duration::from_hours(24);

/// Task-minutes of the past that count at most: two days of one task. A long quiet past does not make two accidents in a
/// quarter of an hour a disaster.
const PAST_MINUTES: f64 = 2880.0;

/// What is assumed of a service without a past, in failures and task-minutes: one failure in 16 hours of a task.
const PRIOR: (f64, f64) = (0.25, 240.0);

/// Of a sound version's starts, so many fail for no reason that would return.
const FAILED_STARTS: f64 = 0.005;

/// The bet against chance: the gamma distribution (shape, rate) of how many times more than expected a bad green fails. Wide, since it
/// is a few times for a leak and hundreds of times for a crash at the start. Measured, see docs/detection.md.
const TIMES_MORE: (f64, f64) = (0.5, 0.02);

/// The bets against blue: a task of green fails so many times as often as one of blue.
const TIMES_BLUES: [f64; 6] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

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

    /// Failures that as many tasks as green's have had in a span like this one.
    pub(super) fn usual(&self, now: Timestamp, roles: Roles<'_>, span: Duration) -> f64 {
        let minutes = self.minutes(now, Control::tasks(roles.blue));
        let mine = task_minutes(Control::tasks(roles.green), span);
        if minutes > 0.0 { float(self.failures.0.len()) * mine / minutes } else { 0.0 }
    }

    /// Failures per task-minute that a sound version would have.
    fn rate(&self, now: Timestamp, tasks: u32) -> f64 {
        let minutes = self.minutes(now, tasks);
        let share = if minutes > PAST_MINUTES { PAST_MINUTES / minutes } else { 1.0 };
        let (failures, exposure) = PRIOR;
        (failures + float(self.failures.0.len()) * share) / (exposure + minutes * share)
    }
}

/// What the gate looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Green's, since its creation.
    pub(super) failures: &'a Failures,
    /// The service's.
    pub(super) past: &'a Past,
    /// Green's window: the reasons of those that are not long ago.
    pub(super) window: Option<&'a Window>,
    /// Green was once steady.
    pub(super) was_steady: bool,
}

/// The gate.
pub(super) fn judge(
    now: Timestamp,
    rule: &Rule,
    accepted: f64,
    roles: Roles<'_>,
    known: Known<'_>,
    later: &mut impl FnMut(Timestamp),
) -> Finding {
    let Known { failures, past, window, was_steady } = known;
    let Roles { green, blue } = roles;
    let times = failures.times();
    let failed = times.len();
    let trial = Trial::of(now, roles, failed, past);
    let threshold = 1.0 / accepted;
    let (chance, weather) = (trial.against_chance(), trial.against_weather());
    let value = chance.min(weather.unwrap_or(CERTAIN));
    let from = times.first().copied().unwrap_or(green.created_at);
    let newest = times.last().copied().unwrap_or(from);
    let age = now.since(newest);
    let fresh = age <= rule.watch.freshness;
    let over = failed >= LEAST && chance >= threshold;
    // The failure that was one too many.
    let reached = (LEAST..=failed).find(|failed| Trial::of(now, roles, *failed, past).against_chance() >= threshold);
    let reached_at = reached.and_then(|failed| times.get(failed.checked_sub(1)?)).copied().unwrap_or(newest);
    let settled_at = reached_at.plus(gates::CONTROL_LAG);
    let waits = gates::waits_for_blue(rule, blue, was_steady);
    let state = if !over && failed == 0 && (was_steady || green.stability == Stability::Steady) {
        GateState::Clear
    } else if !over || !fresh {
        GateState::Pending
    } else if value < threshold {
        GateState::Shared
    } else if waits && now < settled_at {
        later(settled_at.min(now.plus(Duration::from_secs(1))));
        GateState::Pending
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
    Finding { gate: Gate::ExcessFailures, state, evidence: Some(evidence), why: format!("{numbers}{odds}{stale}") }
}

/// A green on trial, in numbers.
struct Trial {
    /// Green's tasks that failed,
    failed: usize,
    /// out of so many that were started.
    starts: usize,
    /// Failures of a sound green.
    expected: f64,
    /// Blue's tasks that failed since green's creation,
    blue_failed: usize,
    /// out of so many.
    blue_tasks: u32,
    /// Since green's creation.
    age: Duration,
    /// Green's part of all tasks.
    part: f64,
}

impl Trial {
    fn of(now: Timestamp, roles: Roles<'_>, failed: usize, past: &Past) -> Self {
        let (green, blue) = (Control::tasks(roles.green), Control::tasks(roles.blue));
        let age = now.since(roles.green.created_at);
        // Every task that failed was replaced.
        let starts = failed.saturating_add(usize::try_from(green).unwrap_or(usize::MAX));
        let expected = past.rate(now, blue) * task_minutes(green, age) + FAILED_STARTS * float(starts);
        let all = f64::from(green) + f64::from(blue);
        let part = if all > 0.0 { f64::from(green) / all } else { 1.0 };
        let blue_failed = past.failures.from(roles.green.created_at);
        Self { failed, starts, expected, blue_failed, blue_tasks: blue, age, part }
    }

    /// How well the bet on a bad green does against chance.
    fn against_chance(&self) -> f64 {
        let (shape, rate) = TIMES_MORE;
        let failed = float(self.failed);
        let rising: f64 = (0..self.failed).map(|k| (shape + float(k)).ln()).sum();
        let log = self.expected + shape * rate.ln() + rising - (shape + failed) * (rate + self.expected).ln();
        log.exp().min(CERTAIN)
    }

    /// How well it does against a cause that strikes blue's tasks as well. `None` while none of them failed.
    fn against_weather(&self) -> Option<f64> {
        let (green, all) = (float(self.failed), float(self.failed.saturating_add(self.blue_failed)));
        let bet = |times: &f64| (green * times.ln() - all * (self.part * times + 1.0 - self.part).ln()).exp();
        let mean = TIMES_BLUES.iter().map(bet).sum::<f64>() / float(TIMES_BLUES.len());
        (self.blue_failed > 0).then_some(mean.min(CERTAIN))
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { failed, starts, expected, blue_failed, blue_tasks, age, part: _ } = self;
        let age = humane(*age);
        write!(
            f,
            "{failed} of the {starts} tasks started for green failed in {age}, where chance explains {expected:.2}; blue, which has {blue_tasks}, lost {blue_failed} meanwhile"
        )
    }
}

fn task_minutes(tasks: u32, span: Duration) -> f64 {
    f64::from(tasks) * span.as_secs_f64() / 60.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of tasks")]
fn float(count: usize) -> f64 {
    count as f64
}
