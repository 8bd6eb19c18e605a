//! How a life is drawn: what befalls whom and when, and what that does to the users.

use fastrand::Rng;
use taskset_guardian::model::Role;

use super::class::Class;
use super::life::{BEFORE, BUCKET, Bucket, Cause, End, HORIZON, Health, Life, MINUTE, Ms, SECOND, TaskLife};
use super::random::{between, binomial, poisson, scale, wait};

/// What befalls the tasks of both roles.
struct Outage {
    from: Ms,
    to: Ms,
    /// Average time until a task that runs in it fails.
    mean: f64,
    error_rate: f64,
}

/// What one life is drawn with.
pub struct Draw<'a> {
    rng: &'a mut Rng,
    class: Class,
    size: u32,
    /// Average time between two ends by themselves of a sound task. Blue's and green's alike.
    background: f64,
    outage: Option<Outage>,
    /// When an Availability Zone goes,
    zone_lost: Ms,
    /// and which share of its tasks is stopped for failed checks, before AWS says that their hosts are gone.
    zone_checks: f64,
    /// When Spot capacity is wanted back, and which share of it.
    waves: Vec<(Ms, f64)>,
    /// How long a leak takes to fill a task's memory.
    fills: Ms,
    desired: Vec<(Ms, u32)>,
    tasks: Vec<TaskLife>,
    onset: Option<Ms>,
}

const HOUR: f64 = 3_600_000.0;

/// How a task ended too soon, and whether green's own trouble made it.
#[derive(Clone, Copy)]
struct Fate {
    at: Ms,
    cause: Cause,
    /// Its target was found unhealthy before.
    unhealthy: Option<Ms>,
    own: bool,
}

impl Fate {
    /// From outside.
    fn hit(at: Ms, cause: Cause) -> Self {
        Self { at, cause, unhealthy: None, own: false }
    }
}

impl<'a> Draw<'a> {
    /// Of a class, with a service of this size.
    pub fn new(class: Class, size: u32, rng: &'a mut Rng) -> Self {
        let background = match class {
            Class::NoisyService => scale(rng, 20.0, 90.0) * 60_000.0,
            // Anything ends by itself now and then: a task in two days to three weeks.
            _ => scale(rng, 48.0 * HOUR, 500.0 * HOUR),
        };
        let outage = (class == Class::SharedOutage).then(|| {
            let from = moment(rng, 2.0, 20.0);
            Outage {
                from,
                to: from + ms(between(rng, 2.0, 8.0) * 60_000.0),
                // In every second one tasks live through it: their health checks do not ask for what is gone.
                mean: if rng.bool() { f64::INFINITY } else { scale(rng, 45_000.0, 400_000.0) },
                error_rate: between(rng, 0.1, 0.8),
            }
        });
        let mut desired = vec![(-2 * BEFORE, size)];
        if class == Class::Scaling {
            let mut at = moment(rng, 1.0, 8.0);
            while at < HORIZON {
                let least = size.div_ceil(2);
                desired.push((at, rng.u32(least..=size)));
                at += ms(between(rng, 2.0, 9.0) * 60_000.0);
            }
        }
        let (zone_lost, fills) = (moment(rng, 2.0, 25.0), moment(rng, 5.0, 13.0));
        let waves = (0..rng.u32(1..=4)).map(|_| (moment(rng, 1.0, 30.0), between(rng, 0.1, 0.7))).collect();
        let zone_checks = *rng.choice(&[0.0, 0.5, 1.0]).unwrap_or(&0.5);
        Self {
            rng,
            class,
            size,
            background,
            outage,
            zone_lost,
            zone_checks,
            waves,
            fills,
            desired,
            tasks: Vec::new(),
            onset: None,
        }
    }

    /// Draws it.
    pub fn life(mut self, seed: u64) -> Life {
        for role in [Role::Blue, Role::Green] {
            self.task_set(role);
        }
        let mut life = Life {
            class: self.class,
            size: self.size,
            seed,
            desired: std::mem::take(&mut self.desired),
            weights: Vec::new(),
            tasks: std::mem::take(&mut self.tasks),
            blue: Vec::new(),
            green: Vec::new(),
            metrics_lag: ms(between(self.rng, 60_000.0, 120_000.0)),
            red: (self.class == Class::RedAtBirth).then(|| -moment(self.rng, 1.0, 25.0)),
            onset: self.onset,
        };
        life.weights = weights(&life);
        self.traffic(&mut life);
        life
    }

    /// All tasks of a role, place by place: whoever replaces a task takes its place.
    fn task_set(&mut self, role: Role) {
        let zone = self.rng.u32(0..3);
        let stops = moment(self.rng, 2.0, 20.0);
        let stopped = self.rng.u32(1..=(self.size / 2).clamp(1, 6));
        let unlucky = self.rng.u32(0..self.size);
        let crash = moment(self.rng, 1.0, 25.0);
        let fails_checks = self.rng.bool();
        for place in 0..self.size {
            let mut hits: Vec<Fate> = Vec::new();
            let green = role == Role::Green;
            match self.class {
                // One task a set is on demand, as AWS advises (a capacity provider's `base`).
                Class::Spot if place > 0 => {
                    for (at, share) in self.waves.clone() {
                        if self.rng.f64() < share {
                            hits.push(Fate::hit(at + ms(between(self.rng, 0.0, 60_000.0)), Cause::Spot));
                        }
                    }
                }
                Class::OperatorStops if green && place < stopped => {
                    hits.push(Fate::hit(stops + ms(between(self.rng, 0.0, 60_000.0)), Cause::Operator));
                }
                // The zones of blue's and of green's tasks are dealt in turn, from one of the three on. All of a zone fail in
                // the same moment; when the load balancer and ECS notice is each task's own luck.
                Class::ZoneLoss if (place + zone).is_multiple_of(3) => {
                    let noticed = self.zone_lost + ms(between(self.rng, 15_000.0, 25_000.0));
                    let checks = self.rng.f64() < self.zone_checks;
                    let cause = if checks { Cause::FailedChecks } else { Cause::HostLost };
                    let at = self.zone_lost + ms(between(self.rng, 25_000.0, 60_000.0));
                    hits.push(Fate { unhealthy: Some(noticed), ..Fate::hit(at, cause) });
                }
                Class::UnluckyCrash if green && place == unlucky => hits.push(Fate::hit(crash, Cause::Crashed)),
                _ => {}
            }
            self.place(role, place, &hits, fails_checks);
        }
    }

    /// One place of a task set, task after task.
    fn place(&mut self, role: Role, place: u32, hits: &[Fate], fails_checks: bool) {
        let mut created = match role {
            Role::Blue => -2 * BEFORE,
            Role::Green => ms(between(self.rng, 300.0, 3_000.0)),
        };
        let mut failed_starts = 0;
        while created < HORIZON {
            let wanted = step_at(&self.desired, created) > place;
            if !wanted {
                let again = self.desired.iter().find(|(at, desired)| *at > created && *desired > place);
                let Some((at, _)) = again else { return };
                created = at + ms(between(self.rng, 500.0, 3_000.0));
                continue;
            }
            let task = self.task(role, place, created, hits, fails_checks);
            let ended = task.end;
            self.tasks.push(task);
            let Some(end) = ended else { return };
            // A task that could not start is replaced ever later, up to a quarter of an hour.
            let failed = end.cause == Cause::CannotPull;
            failed_starts = if failed { failed_starts + 1 } else { 0 };
            let back_off = if failed { ((4 * SECOND) << failed_starts.min(8)).min(15 * MINUTE) } else { 0 };
            created = end.at + back_off + ms(between(self.rng, 1_000.0, 4_000.0));
        }
    }

    fn task(&mut self, role: Role, place: u32, created: Ms, hits: &[Fate], fails_checks: bool) -> TaskLife {
        let green = role == Role::Green;
        let mut task = TaskLife { role, created, running: None, healthy: None, unhealthy: None, end: None };
        let scaled_in = self.desired.iter().find(|(at, desired)| *at > created && *desired <= place).map(|(at, _)| *at);
        let hit = hits.iter().filter(|hit| hit.at > created).min_by_key(|hit| hit.at).copied();
        let starts = created + ms(between(self.rng, 15_000.0, 40_000.0));
        if green && self.class == Class::ImagePull {
            self.hurt(starts);
            task.end = Some(End { at: starts, stopped: starts + 2 * SECOND, cause: Cause::CannotPull });
            return task;
        }
        if green && self.class == Class::NeverSteady && place < self.size.div_ceil(4) {
            self.hurt(0);
            return task;
        }
        let slow = if green && self.class == Class::SlowStart { between(self.rng, 100_000.0, 340_000.0) } else { 0.0 };
        let healthy = starts + ms(between(self.rng, 18_000.0, 32_000.0) + slow);
        task.running = Some(starts);
        let mut fates = self.fates(role, place, starts, healthy, fails_checks);
        fates.extend(scaled_in.map(|at| Fate::hit(at, Cause::ScaledIn)));
        fates.extend(hit);
        let never_healthy = green && self.class == Class::ElbFailures;
        task.healthy = (!never_healthy).then_some(healthy);
        let Some(fate) = fates.into_iter().min_by_key(|fate| fate.at).filter(|fate| fate.at < HORIZON) else {
            return task;
        };
        if fate.at <= starts {
            task.running = None;
        }
        task.healthy = task.healthy.filter(|healthy| *healthy < fate.at);
        task.unhealthy = fate.unhealthy;
        if fate.own {
            self.hurt(fate.at);
        }
        let stops_in = match fate.cause {
            Cause::Crashed | Cause::OutOfMemory => between(self.rng, 800.0, 3_000.0),
            Cause::Spot => between(self.rng, 30_000.0, 120_000.0),
            _ => between(self.rng, 20_000.0, 40_000.0),
        };
        task.end = Some(End { at: fate.at, stopped: fate.at + ms(stops_in), cause: fate.cause });
        task
    }

    /// How a task that runs may end, each by its own.
    fn fates(&mut self, role: Role, place: u32, starts: Ms, healthy: Ms, fails_checks: bool) -> Vec<Fate> {
        let green = role == Role::Green;
        let mut fates = Vec::with_capacity(3);
        let crash = |at: Ms, own: bool| Fate { at, cause: Cause::Crashed, unhealthy: None, own };
        fates.push(crash(starts.max(-BEFORE) + ms(wait(self.rng, self.background)), false));
        if let Some(outage) = self.outage.as_ref().filter(|outage| outage.to > outage.from && starts < outage.to) {
            let at = outage.from.max(starts) + ms(wait(self.rng, outage.mean));
            if at < outage.to {
                let checks = self.rng.bool();
                fates.push(Fate {
                    at,
                    cause: if checks { Cause::FailedChecks } else { Cause::Crashed },
                    unhealthy: checks.then_some(at - 12 * SECOND),
                    own: false,
                });
            }
        }
        if !green {
            return fates;
        }
        let own = match self.class {
            Class::CrashAtStart => Some(crash(starts + ms(between(self.rng, 400.0, 6_000.0)), true)),
            Class::ElbFailures => {
                let unhealthy = starts + ms(between(self.rng, 15_000.0, 30_000.0));
                let at = starts + ms(between(self.rng, 62_000.0, 95_000.0));
                Some(Fate { at, cause: Cause::FailedChecks, unhealthy: Some(unhealthy), own: true })
            }
            Class::Flapping40 | Class::Flapping15 => {
                let share: f64 = if self.class == Class::Flapping40 { 0.40 } else { 0.15 };
                let mean = -120_000.0 / (1.0 - share).ln();
                Some(crash(starts + SECOND + ms(wait(self.rng, mean)), true))
            }
            Class::SlowLeak => {
                // How fast it leaks is the version's; how much of it a task serves is chance.
                let at = starts + self.fills + ms(between(self.rng, -45_000.0, 45_000.0));
                Some(Fate { at, cause: Cause::OutOfMemory, unhealthy: None, own: true })
            }
            Class::Partial if place < self.size.div_ceil(4) => {
                let after = ms(between(self.rng, 20_000.0, 120_000.0));
                Some(if fails_checks {
                    let unhealthy = healthy + after;
                    let at = unhealthy + ms(between(self.rng, 2_000.0, 15_000.0));
                    Fate { at, cause: Cause::FailedChecks, unhealthy: Some(unhealthy), own: true }
                } else {
                    crash(starts + after, true)
                })
            }
            _ => None,
        };
        fates.extend(own);
        fates
    }

    /// What is wrong with green hurts, no later than this.
    fn hurt(&mut self, at: Ms) {
        self.onset = Some(self.onset.map_or(at, |onset| onset.min(at)));
    }

    /// Requests, bucket by bucket.
    fn traffic(&mut self, life: &mut Life) {
        let (blue, green) = (Rotation::of(life, Role::Blue), Rotation::of(life, Role::Green));
        let per_second = f64::from(self.size) * between(self.rng, 1.0, 5.0);
        let (base_errors, base_p99) = (scale(self.rng, 0.0001, 0.002), between(self.rng, 150.0, 400.0));
        let mut own_errors = 0.0;
        let mut own_p99 = base_p99;
        match self.class {
            Class::Http5xx => own_errors = scale(self.rng, 0.08, 0.40),
            Class::Latency => own_p99 = between(self.rng, 1_000.0, 3_000.0),
            _ => {}
        }
        let ten_seconds = per_second * 10.0;
        for place in 0..blue.healthy.len() {
            let begins = place_ms(place);
            let share = f64::from(life.weight_at(begins)) / 100.0;
            let outage = self.outage.as_ref().filter(|outage| outage.from <= begins && begins < outage.to);
            let (shared_errors, slower) = outage.map_or((0.0, 1.0), |outage| (outage.error_rate, 1.8));
            let errors = base_errors.max(shared_errors);
            let of_blue = self.bucket(&blue, place, ten_seconds * (1.0 - share), errors, base_p99 * slower);
            let of_green = self.bucket(&green, place, ten_seconds * share, errors.max(own_errors), own_p99 * slower);
            let hurts = matches!(self.class, Class::Http5xx | Class::Latency) && of_green.requests > 0;
            if hurts {
                self.hurt(begins);
            }
            life.blue.push(of_blue);
            life.green.push(of_green);
        }
        life.onset = self.onset;
    }

    fn bucket(&mut self, rotation: &Rotation, place: usize, mean: f64, errors: f64, p99: f64) -> Bucket {
        let (healthy, registered) = (at(&rotation.healthy, place), at(&rotation.registered, place));
        let (failing, gone) = (at(&rotation.failing, place), at(&rotation.gone, place));
        let sent = poisson(self.rng, mean);
        let p99 = p99 * between(self.rng, 0.85, 1.15);
        if healthy <= 0.05 {
            // With nobody healthy all that are registered are sent requests; with nobody registered, nobody is.
            return if registered > 0.05 {
                Bucket { requests: sent, http_5xx: sent, p99, ..Bucket::default() }
            } else {
                Bucket { refused: sent, ..Bucket::default() }
            };
        }
        let all = healthy + gone;
        let unreachable = binomial(self.rng, sent, gone / all);
        let wrong = errors.max((failing / healthy).min(1.0));
        let http_5xx = binomial(self.rng, sent - unreachable, wrong);
        Bucket { requests: sent, http_5xx, unreachable, refused: 0, p99 }
    }
}

/// Targets of a group that are sent requests, bucket by bucket, each counted for the part of it that it is there.
struct Rotation {
    /// Thought healthy.
    healthy: Vec<f64>,
    /// Registered.
    registered: Vec<f64>,
    /// Of the healthy, those that fail: the load balancer takes two checks to notice.
    failing: Vec<f64>,
    /// Ended, and still sent requests for a moment.
    gone: Vec<f64>,
}

impl Rotation {
    fn of(life: &Life, role: Role) -> Self {
        let buckets = usize::try_from((BEFORE + HORIZON) / BUCKET).unwrap_or_default();
        let none = || vec![0.0; buckets];
        let mut it = Self { healthy: none(), registered: none(), failing: none(), gone: none() };
        for task in life.of(role) {
            let Some(running) = task.running else { continue };
            let until = task.end.map_or(HORIZON, |end| end.at);
            add(&mut it.registered, running, until);
            let Some(healthy) = task.healthy else { continue };
            let leaves = task.unhealthy.map_or(until, |at| at.min(until));
            add(&mut it.healthy, healthy, leaves);
            if let Some(unhealthy) = task.unhealthy {
                add(&mut it.failing, (unhealthy - 20 * SECOND).max(healthy), unhealthy.min(until));
            }
            let crashed = |end: &End| matches!(end.cause, Cause::Crashed | Cause::OutOfMemory | Cause::HostLost);
            if task.unhealthy.is_none() && task.end.as_ref().is_some_and(crashed) {
                add(&mut it.gone, until, until + 2 * SECOND);
            }
        }
        it
    }
}

/// Adds, to every bucket, the part of it that the span covers.
fn add(buckets: &mut [f64], from: Ms, to: Ms) {
    let (from, to) = (from.max(-BEFORE), to.min(HORIZON));
    let mut begins = from.div_euclid(BUCKET) * BUCKET;
    while begins < to {
        let covered = (begins + BUCKET).min(to) - begins.max(from);
        let place = usize::try_from((begins + BEFORE) / BUCKET).unwrap_or(usize::MAX);
        if let Some(bucket) = buckets.get_mut(place) {
            *bucket += float(covered) / float(BUCKET);
        }
        begins += BUCKET;
    }
}

/// What the deployer does, whatever happens: the first 10 % of the users once half of green's targets are healthy, two
/// minutes after its creation at the earliest; half of them eight minutes later; all of them, and PRIMARY, ten minutes
/// after that.
fn weights(life: &Life) -> Vec<(Ms, u32)> {
    let fit = |at: Ms| {
        let healthy = life.of(Role::Green).filter(|task| task.target(at) == Some(Health::Healthy)).count();
        2 * u32::try_from(healthy).unwrap_or(u32::MAX) >= life.desired_at(at)
    };
    let mut moments = (0..).map(|n| 2 * MINUTE + n * BUCKET).take_while(|at| *at < HORIZON);
    let Some(first) = moments.find(|at| fit(*at)) else { return Vec::new() };
    vec![(first, 10), (first + 8 * MINUTE, 50), (first + 18 * MINUTE, 100)]
}

fn step_at(steps: &[(Ms, u32)], at: Ms) -> u32 {
    steps.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, value)| *value)
}

fn at(buckets: &[f64], place: usize) -> f64 {
    buckets.get(place).copied().unwrap_or_default()
}

fn place_ms(place: usize) -> Ms {
    Ms::try_from(place).unwrap_or_default() * BUCKET - BEFORE
}

/// A moment between so many minutes and so many.
fn moment(rng: &mut Rng, from: f64, to: f64) -> Ms {
    ms(between(rng, from * 60_000.0, to * 60_000.0))
}

#[expect(clippy::cast_possible_truncation, reason = "a life is short")]
fn ms(value: f64) -> Ms {
    value.min(1e15) as Ms
}

#[expect(clippy::cast_precision_loss, reason = "a life is short")]
fn float(value: Ms) -> f64 {
    value as f64
}
