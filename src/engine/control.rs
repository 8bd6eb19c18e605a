//! Blue as the control group: what befalls it at the same time is not green's fault.

use std::time::Duration;

use super::gates::{Known, SKEW};
use super::partition::Weather;
use super::roles::Roles;
use super::sampled::{self, Beside};
use crate::model::{
    AlarmReading, AlarmValue, Gate, Observation, Standing, StopClass, TargetGroupArn, TaskSet, Timestamp, Window,
    percent,
};
use crate::rules::{BLUE_LAG, Rule};

/// Failures are plainly green's own when one cause would spare blue so much in less than one of so many cases. A green that never
/// came up has one of its own as a rule; of one that had, no more than one in two hundred may be blamed for what strikes both.
const PLAIN: f64 = 20.0;
const PLAIN_OF_A_GREEN_THAT_HAD_COME_UP: f64 = 200.0;

/// While blue is watched it is looked at as often as this, beside what events ask for.
const LOOK: Duration = Duration::from_secs(10);

/// And for no other reason than its signs, as often as this.
const LOOK_AT_SIGNS: Duration = Duration::from_secs(1);

/// How many times as often as one of blue's a task of a bad green fails.
const TIMES_BLUES: [f64; 6] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Blue's lost tasks that are no accident: two, and a quarter of all.
const TROUBLED: (usize, f64) = (2, 0.25);

/// And its targets that fail their checks: more than a half, or than a rule allows that is more patient. What a strict one does not
/// allow green may be one host of blue's.
const UNHEALTHY: f64 = 0.5;

/// Standard deviations beyond which a difference is not chance, for one false rollback in a hundred shared outages.
pub(super) const DEVIATIONS: f64 = 2.33;

/// The cause may have struck blue first: its losses are looked for in so many windows.
pub(super) const WINDOWS: u32 = 2;

/// Blue is heard before green is blamed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing {
    until: Timestamp,
    /// When to look again.
    pub(super) look_at: Timestamp,
}

impl Hearing {
    /// What follows in a sentence.
    pub(super) fn clause(hearing: Option<Self>) -> String {
        let until = hearing.map(|hearing| format!("; blue is watched until {} before green is blamed", hearing.until));
        until.unwrap_or_default()
    }
}

/// How blue fares.
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
#[derive(Debug)]
pub(super) struct Control {
    /// Blue's tasks that were lost of late, to their version or to the platform,
    pub(super) lost: usize,
    /// of so many.
    pub(super) tasks: u32,
    /// Those that failed as a bad version's do.
    failed: usize,
    /// Green lost tasks of late, for whatever reason: a request or two fails with each.
    pub(super) green_lost: bool,
    /// Green's part of all tasks, 0 to 1.
    part: f64,
    /// The same beside all the tasks that blue had: it may have been scaled in since.
    part_since: f64,
    /// It lacks tasks, or some of its targets fail their checks.
    shows_signs: bool,
    /// Any task of it runs.
    runs: bool,
    /// Blue is heard at all.
    against_blue: bool,
    /// Green was steady once: what it meets, blue may be about to meet.
    came_up: bool,
    /// Requests to green fail for a cause that blue's users met as well, when it began.
    began_shared: Option<&'static str>,
    /// When blue was seen to suffer as well.
    weather: Vec<Weather>,
    /// An alarm of its own is red, and tells of it.
    red: Option<String>,
    /// Its targets fail their checks.
    unhealthy: Option<String>,
    /// How its requests fare beside green's, when that was looked at.
    pub(super) beside: Option<Beside>,
}

impl Control {
    pub(super) fn of(now: Timestamp, rule: &Rule, roles: Roles<'_>, seen: &Observation, known: Known<'_>) -> Self {
        let Roles { green, blue } = roles;
        let window = rule.stability.window;
        let recent = window.saturating_mul(WINDOWS);
        let befell: &[_] = &[StopClass::Version, StopClass::Infrastructure];
        let struck = known.blue_window.map_or(0, |blue| lost(blue, befell, now.minus(recent), now));
        // One task alone is an accident: it counts as green's do. Beside a green that had come up it may be of the same cause.
        let failed = |from| known.blue_window.map_or(0, |blue| lost(blue, &[StopClass::Version], from, now));
        let alone = failed(now.minus(if known.was_steady { recent } else { window }));
        // What a blue that was scaled to nothing lost, it lost while it had tasks.
        let has = Some(tasks(blue)).filter(|tasks| *tasks > 0);
        let (of_green, of_blue) = (tasks(green), has.unwrap_or_else(|| size_of_blue(roles, known)));
        let (of_green, of_blue) = (f64::from(of_green), f64::from(of_blue));
        let part = if of_green + of_blue > 0.0 { of_green / (of_green + of_blue) } else { 1.0 };
        let had = f64::from(size_of_blue(roles, known));
        let part_since = if of_green + had > 0.0 { of_green / (of_green + had) } else { 1.0 };
        let twin = seen.alarms.iter().flatten().find(|alarm| is_red_for_blue(alarm, roles, seen));
        let share = blue.target_group.as_ref().and_then(|group| unhealthy_share(group, seen)).unwrap_or(0.0);
        let allowed = rule.stability.unhealthy_targets.unwrap_or_default().max(UNHEALTHY);
        Self {
            lost: if struck >= TROUBLED.0 { struck } else { alone },
            tasks: tasks(blue),
            green_lost: known.window.is_some_and(|green| lost(green, befell, now.minus(recent), now) > 0),
            part,
            part_since,
            shows_signs: blue.running < blue.computed_desired || share > 0.0,
            runs: blue.running > 0,
            against_blue: rule.compare.against_blue,
            came_up: known.was_steady,
            failed: failed(now.minus(recent)),
            began_shared: known
                .shared
                .iter()
                .any(Gate::is_of_traffic)
                .then_some("its requests began to fail while blue's failed as well"),
            weather: known.weather.to_vec(),
            red: twin.map(|twin| format!("alarm {} of blue is red too", twin.name)),
            unhealthy: (share > allowed).then(|| format!("{} of blue's targets are unhealthy", percent(share))),
            beside: sampled::beside(now, rule, roles, seen, known.sampled),
        }
    }

    /// Failures that green would have from what blue lost so many tasks to.
    pub(super) fn expected(&self) -> f64 {
        // Green's tasks by blue's.
        let ratio = if self.part < 1.0 { self.part / (1.0 - self.part) } else { 0.0 };
        float(self.lost) * ratio
    }

    /// How far two counts of failures from one cause lie apart by chance: the difference of two Poisson counts with the same
    /// mean has twice its variance.
    pub(super) fn scatter(&self) -> f64 {
        DEVIATIONS * (2.0 * self.expected()).sqrt()
    }

    /// What blue lost is no accident. Of a green that had come up, even one task may be of the cause that green meets.
    fn is_struck(&self) -> bool {
        self.lost >= if self.came_up { 1 } else { TROUBLED.0 }
    }

    fn is_plain(&self, failed: usize) -> bool {
        let least = if self.came_up { PLAIN_OF_A_GREEN_THAT_HAD_COME_UP } else { PLAIN };
        bet(self.part, failed, self.lost) >= least
    }

    /// So many failures of green are its own, for all that blue lost.
    pub(super) fn is_apart(&self, failed: usize) -> bool {
        !self.is_struck() || self.is_plain(failed)
    }

    /// How well the bet does that green's failures are its own, against what blue lost since green's creation, and of late. `None`
    /// while it lost nothing.
    pub(super) fn against_weather(&self, failed: usize, since: usize) -> Option<f64> {
        let ever = (since > 0).then(|| bet(self.part_since, failed, since));
        let lately = (self.lost > 0).then(|| bet(self.part, failed, self.lost));
        ever.into_iter().chain(lately).reduce(f64::min)
    }

    /// How long the failures of a green that had come up are remembered beyond a window, for blue to be heard.
    pub(super) fn waits_for(&self, patience: Duration) -> Duration {
        let waits = self.against_blue && self.came_up && !patience.is_zero();
        if waits { patience.saturating_add(BLUE_LAG) } else { Duration::ZERO }
    }

    /// While blue is still to be heard before green is blamed for so many failures. The one that was too many was at that time;
    /// a green that had come up is given so much patience, while any task of blue's could tell.
    pub(super) fn hears_blue(
        &self,
        now: Timestamp,
        failed: usize,
        reached_at: Timestamp,
        patience: Duration,
    ) -> Option<Hearing> {
        let sudden = self.came_up && self.runs && !self.is_plain(failed);
        let patience = if sudden { patience } else { Duration::ZERO };
        let signs = if self.shows_signs { BLUE_LAG } else { Duration::ZERO };
        let look = if patience > signs { LOOK } else { LOOK_AT_SIGNS };
        let settled_at = reached_at.plus(patience.max(signs));
        let hearing = Hearing { until: settled_at, look_at: settled_at.min(now.plus(look)) };
        (self.against_blue && now < settled_at).then_some(hearing)
    }

    /// What blue's users and targets suffer: beside failed tasks of green.
    pub(super) fn suffers(&self) -> Vec<&str> {
        // With the last of blue's users goes what they would tell: what began so stays so.
        self.seen_to_suffer().chain(self.began_shared).collect()
    }

    fn seen_to_suffer(&self) -> impl Iterator<Item = &str> {
        let failing = self.beside.as_ref().filter(|beside| beside.shared).map(|beside| beside.words.as_str());
        [self.unhealthy.as_deref(), failing].into_iter().flatten()
    }

    /// Requests to green were looked at, and are answered.
    pub(super) fn nobody_fails(&self) -> bool {
        self.beside.as_ref().is_some_and(|beside| !beside.green_fails && !beside.shared)
    }

    /// A failure of green from a time when blue suffered as well, which is over: it never speaks against green.
    pub(super) fn excuses(&self, at: Timestamp) -> bool {
        self.against_blue && self.suffers().is_empty() && self.weather.iter().any(|weather| weather.covers(at))
    }

    /// What is said of failures that are excused.
    pub(super) fn aside(excused: usize) -> String {
        if excused == 0 {
            String::new()
        } else {
            format!("; {excused} are set aside, for blue suffered at that time as well")
        }
    }

    /// All that is wrong with blue: beside an alarm of green or its traffic.
    pub(super) fn trouble(&self) -> Vec<String> {
        let Self { lost, tasks, .. } = self;
        let (least, part) = TROUBLED;
        let many = *lost >= least && float(*lost) >= f64::from(*tasks) * part;
        let tasks_lost = many.then(|| format!("blue, which has {tasks}, lost {lost} tasks"));
        let told = self.seen_to_suffer().map(str::to_owned);
        self.red.iter().cloned().chain(tasks_lost).chain(told).collect()
    }

    /// The same of a blue without users: nothing but its tasks can tell, so fewer of them are trouble.
    pub(super) fn trouble_without_users(&self) -> Vec<String> {
        let Self { failed, tasks, .. } = self;
        let (least, part) = TROUBLED;
        let told = *failed > 0 && (*failed >= least || float(*failed) >= f64::from(*tasks) * part);
        let tasks_failed = told.then(|| format!("blue has no users, and {failed} of its {tasks} tasks failed too"));
        self.trouble().into_iter().chain(tasks_failed).collect()
    }

    /// What blue's losses say of green's failures.
    pub(super) fn clause(&self) -> String {
        let Self { lost, tasks, .. } = self;
        match lost {
            0 => String::new(),
            _ => format!("; blue, which has {tasks}, lost {lost}, so {:.1} of green's say nothing", self.expected()),
        }
    }

    pub(super) fn fact(&self) -> Option<String> {
        let Self { lost, tasks, .. } = self;
        (*lost > 0).then(|| format!("about the same time blue, which has {tasks} tasks, lost {lost}"))
    }
}

/// How well the bet does that green's failures are its own, against a cause that strikes both: an e-value. Of failures from
/// one cause green gets the share that its part of the tasks tells, whenever the cause strikes and however hard (the safe
/// logrank test: ter Schure, Pérez-Ortiz, Ly, Grünwald 2020).
fn bet(part: f64, failed: usize, lost: usize) -> f64 {
    let (green, all) = (float(failed), float(failed.saturating_add(lost)));
    let bet = |times: &f64| (green * times.ln() - all * (part * times + 1.0 - part).ln()).exp();
    TIMES_BLUES.iter().map(bet).sum::<f64>() / float(TIMES_BLUES.len())
}

/// `; one; two`: what follows in a sentence.
pub(super) fn clauses<T: std::fmt::Display>(said: &[T]) -> String {
    said.iter().map(|said| format!("; {said}")).collect::<Vec<_>>().concat()
}

/// How many tasks blue had when it carried the load: its deployer may have scaled it in since. Where nobody saw it with any, as
/// many as green, which took its place.
pub(super) fn size_of_blue(Roles { green, blue }: Roles<'_>, known: Known<'_>) -> u32 {
    match tasks(blue).max(known.blue_had) {
        0 => tasks(green),
        had => had,
    }
}

/// How many tasks of a task set may fail.
pub(super) fn tasks(set: &TaskSet) -> u32 {
    set.computed_desired.max(set.running)
}

/// How many can serve: healthy targets, or running tasks where there is no load balancer. A group that was not read
/// counts as none.
pub(super) fn serving(set: &TaskSet, seen: &Observation) -> u32 {
    match &set.target_group {
        Some(group) => seen.targets.get(group).map_or(0, |counts| counts.healthy),
        None => set.running,
    }
}

/// Tasks that ended for one of these reasons, by ECS's word.
fn lost(window: &Window, to: &[StopClass], from: Timestamp, now: Timestamp) -> usize {
    let ended = window.records().map(|(_, record)| record).filter(|record| record.standing == Standing::Confirmed);
    ended.filter(|record| to.contains(&record.stop.class) && (from..=now.plus(SKEW)).contains(&record.stop.at)).count()
}

/// Target groups swap roles with every deployment, so an alarm's role is read from its dimensions, not from its name. One
/// that names no group of the two watches the service as a whole.
pub(super) fn speaks_of(alarm: &AlarmReading, set: &TaskSet) -> bool {
    set.target_group.as_ref().is_some_and(|group| alarm.target_groups.contains(group.dimension()))
}

/// What was red before green came is no weather that both meet, and an alarm of a blue that tasks or users have left may be red
/// for just that. One whose tasks died wants them still.
fn is_red_for_blue(alarm: &AlarmReading, Roles { green, blue }: Roles<'_>, seen: &Observation) -> bool {
    let blues = speaks_of(alarm, blue) && !speaks_of(alarm, green);
    let is_red = alarm.value == AlarmValue::Alarm && alarm.doubt.is_none() && alarm.since > green.created_at;
    let split = seen.traffic.split(blue.target_group.as_ref(), green.target_group.as_ref());
    let serves = blue.computed_desired > 0 && split.is_none_or(|split| split.blue > 0.0);
    blues && is_red && serves
}

/// The share of a group's targets that fail their checks; those that leave don't count. `None` without any.
pub(super) fn unhealthy_share(group: &TargetGroupArn, seen: &Observation) -> Option<f64> {
    let counts = seen.targets.get(group)?;
    let all = counts.healthy.saturating_add(counts.unhealthy).saturating_add(counts.initial);
    (all > 0).then(|| f64::from(counts.unhealthy) / f64::from(all))
}

/// The same of green. Of one that was scaled up since it was steady, only of the tasks that it had: the others may be starting,
/// and read as unhealthy until they have come up.
pub(super) fn unhealthy_share_of(
    green: &TaskSet,
    had: Option<u32>,
    group: &TargetGroupArn,
    seen: &Observation,
) -> Option<f64> {
    let Some(had) = had.filter(|had| *had > 0) else { return unhealthy_share(group, seen) };
    let counts = seen.targets.get(group)?;
    let starting = tasks(green).saturating_sub(had).saturating_sub(counts.initial);
    Some(f64::from(counts.unhealthy.saturating_sub(starting).min(had)) / f64::from(had))
}

#[expect(clippy::cast_precision_loss, reason = "counts of tasks")]
pub(super) fn float(count: usize) -> f64 {
    count as f64
}
