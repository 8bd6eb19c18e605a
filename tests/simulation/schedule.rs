//! One schedule: a service, its deployer, who else meddles, and the rule. All drawn from one seed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::model::{AlarmValue, Role, ServiceKey, tags};
use taskset_guardian::rules::{
    AfterPromotion, BlueCapacity, Compare, DeletePolicy, ErrorGates, Limits, Mode, OnReturn, Protect, Quarantine,
    RollbackPolicy, Rule, RuleSet, StabilityGates, Watch,
};
use taskset_guardian::sandbox::world::{
    Act, AlarmMetric, AlarmSetup, BalancerKind, Breaks, Crash, Delivery, ListenerKind, Loss, Reaction, RouteSetup,
    ServiceSetup, Setup, Start, TagValue, Timing, Trouble, Version, When,
};

use crate::faults::Faults;
use crate::tales;

pub(crate) const OLD: &str = "checkout:87";
pub(crate) const NEW: &str = "checkout:88";

/// Services that may be changed within ten minutes: the fleet brake.
pub(crate) const BRAKE: usize = 3;

/// While blue shows signs of trouble, it is heard for so long at least.
const SIGNS: Duration = Duration::from_secs(20);

/// How large a schedule is, in seconds and numbers. Most are small: what a guard is for shows in half a minute and with two
/// tasks as well, and so there are more of them.
struct Scale {
    /// Faults and people stop at some time of these.
    calm: RangeInclusive<u64>,
    /// A process is dead for so long at most, and anything else out of order for twice as long.
    most: u64,
    /// In steps of five seconds.
    sweep: RangeInclusive<u64>,
    drain: u64,
    tasks: u32,
    start_delay: u64,
    /// Between two steps of a canary.
    step: u64,
    health_interval: RangeInclusive<u64>,
    deregistration: u64,
    /// A bad task runs for so long at most.
    crash: u64,
    steady: RangeInclusive<u64>,
    patience: u64,
}

const SMALL: Scale = Scale {
    calm: 15..=35,
    most: 16,
    sweep: 1..=2,
    drain: 6,
    tasks: 2,
    start_delay: 2,
    step: 8,
    health_interval: 2..=6,
    deregistration: 5,
    crash: 5,
    steady: 10..=30,
    patience: 10,
};

const LARGE: Scale = Scale {
    calm: 25..=80,
    most: 40,
    sweep: 2..=4,
    drain: 20,
    tasks: 4,
    start_delay: 8,
    step: 12,
    health_interval: 3..=10,
    deregistration: 30,
    crash: 20,
    steady: 30..=90,
    patience: 60,
};

/// How much further some clocks jump than others: up to an hour and 40 minutes.
const FAR: i64 = 20;

/// Everything that a seed decides.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) rules: RuleSet,
    /// Rules that are loaded in the course of it, and when.
    pub(crate) reloads: Vec<(Duration, RuleSet)>,
    pub(crate) faults: Faults,
    /// One that owns its journal, or two that share one.
    pub(crate) workers: usize,
    /// The guardian may change nothing: it was started with `--dry-run`.
    pub(crate) dry_run: bool,
    /// How often every service is read.
    pub(crate) sweep: Duration,
    /// Faults and people stop here.
    pub(crate) calm_at: Duration,
    /// Nothing is wrong with anybody after the calm, and it is looked at for so long.
    pub(crate) rest: Duration,
    /// Green is bad, in a way that tasks show.
    pub(crate) bad: bool,
    /// And it may be left as it is all the same.
    pub(crate) may_be_left: bool,
    /// Nothing is wrong with green.
    pub(crate) sound: bool,
    /// The service that the schedule is about,
    pub(crate) key: ServiceKey,
    /// and those that go the same way in the same minutes, where there is a fleet.
    pub(crate) others: Vec<ServiceKey>,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One of the acts of people and machines that a deployment may meet.
pub(crate) fn meddling(rng: &mut Rng) -> Act {
    match rng.u8(0..17) {
        0 | 1 => Act::SetWeights { blue: rng.u32(0..=100), green: rng.u32(1..=100) },
        2 => Act::SetWeights { blue: 100, green: 0 },
        3 => Act::SetPrimary(if rng.bool() { Role::Green } else { Role::Blue }),
        4 => Act::DeleteTaskSet(Role::Green),
        5 => Act::ScaleTaskSet(Role::Blue, f64::from(rng.u8(0..=4)) * 25.0),
        6 => Act::CreateTaskSet { version: "checkout:89".to_owned(), scale: 100.0 },
        7 => Act::SetDesired(rng.u32(1..=6)),
        8 => Act::ForwardTo(if rng.bool() { Role::Green } else { Role::Blue }),
        9 => Act::DeleteTaskSet(Role::Blue),
        10 => Act::LoseTasks { loss: Loss::Zone, share: 0.5 },
        11 => Act::LoseTasks { loss: Loss::Spot, share: rng.f64() },
        12 => Act::Tag(tags::HOLD_UNTIL.to_owned(), TagValue::In(secs(rng.u64(5..=90)))),
        13 => Act::Tag(tags::ROLLBACK.to_owned(), TagValue::Green),
        14 => Act::Untag((if rng.bool() { tags::HOLD_UNTIL } else { tags::ROLLBACK }).to_owned()),
        15 => Act::DeleteService,
        _ => Act::CreateService { version: OLD.to_owned() },
    }
}

/// In what the world says as a third task set is created.
pub(crate) const THIRD_COMES: &str = "creates a third task set";

/// Whether what happened in the world can have made a call wrong that was right when it was decided. What only gives blue
/// more, or takes from green alone, can't; but beside a third task set, who is called green may be blue.
pub(crate) fn is_disturbance(what: &str, has_third: bool) -> bool {
    let what = what.split_once(": ").filter(|(name, _)| name.starts_with("fleet-")).map_or(what, |(_, what)| what);
    let helps = [" runs", " is steady", " is back"].iter().any(|end| what.ends_with(end));
    let greens_loss = what.starts_with("green task ") && !has_third;
    let follows = what.starts_with("the load balancer now sends") || what.ends_with(" is gone");
    !(helps || greens_loss || follows)
}

impl Schedule {
    /// Draws.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x005e_ed0f_9a3d);
        // What is drawn from this one changes nothing else of a schedule.
        let mut apart = Rng::with_seed(seed ^ 0x00af_7e42_3a6c);
        let workers = if rng.u8(0..3) == 0 { 2 } else { 1 };
        let scale = if rng.u8(0..8) == 0 { LARGE } else { SMALL };
        let calm_at = secs(rng.u64(scale.calm.clone()));
        let mut faults = Faults::draw(&mut rng, workers, calm_at, secs(scale.most));
        let (version, bad, sound) = version(&mut rng, &scale);
        let key = ServiceKey::new("prod", "checkout");
        let others = if rng.u8(0..80) == 0 { rng.u8(3..=4) } else { 0 };
        let others: Vec<_> = (1..=others).map(|n| ServiceKey::new("prod", format!("fleet-{n}"))).collect();
        let services =
            std::iter::once(&key).chain(&others).map(|key| service(&mut rng, key, &scale, calm_at)).collect();
        let sweep = secs(rng.u64(scale.sweep.clone()) * 5);
        let drain = secs(rng.u64(0..=scale.drain));
        let mode = if rng.u8(0..20) == 0 { Mode::Observe } else { Mode::Enforce };
        let dry_run = rng.u8(0..20) == 0;
        let mut setup = Setup {
            services,
            versions: BTreeMap::from([(NEW.to_owned(), version)]),
            timing: timing(&mut rng, &scale),
            delivery: Delivery {
                duplicates: if rng.bool() { rng.f64() * 0.5 } else { 0.0 },
                stragglers: if rng.bool() { rng.f64() * 0.5 } else { 0.0 },
                early: rng.u8(0..4) == 0,
                ..Delivery::default()
            },
            // A clock may be a thousandth too fast, or be set by a tenth of a second that nobody notices.
            drain: drain.saturating_sub(Duration::from_millis(150)),
            lag: if rng.u8(0..5) == 0 { secs(rng.u64(1..=4)) } else { Duration::ZERO },
            visibility: secs(rng.u64(1..=30)),
            expect_no_writes: dry_run || mode == Mode::Observe,
            brake: Some(BRAKE),
            ..Setup::default()
        };
        if rng.u8(0..6) == 0 {
            setup.versions.insert(OLD.to_owned(), tired(&mut rng, calm_at));
        }
        if others.is_empty() && rng.u8(0..12) == 0 {
            watch_errors(&mut rng, &mut setup, &key);
        }
        for service in &mut setup.services {
            service.reactions = reapplied(&mut apart);
        }
        setup.delivery.terse = apart.u8(0..16) > 0;
        if apart.u8(0..8) == 0 {
            // A clock that was hours off is set right.
            faults.jumps.iter_mut().for_each(|(.., by_ms)| *by_ms *= FAR);
        }
        let rules = RuleSet { rules: vec![Arc::new(rule(&mut rng, &scale, drain, mode))] };
        let reloads = Vec::new();
        let mut it = Self {
            seed,
            setup,
            rules,
            reloads,
            faults,
            workers,
            dry_run,
            sweep,
            calm_at,
            rest: Duration::ZERO,
            bad,
            may_be_left: false,
            sound,
            key,
            others,
        };
        tales::tell(&mut apart, &mut it);
        it
    }

    /// How long blue is heard, if at all, before a green that had come up is blamed.
    pub(crate) fn hearing(&self) -> Duration {
        let patience = self.rules.rules[0].compare.patience;
        if patience.is_zero() { patience } else { patience + SIGNS }
    }

    /// The rules in force so long after the beginning.
    pub(crate) fn rules_at(&self, after: Duration) -> &RuleSet {
        let loaded = self.reloads.iter().rfind(|(at, _)| *at <= after);
        loaded.map_or(&self.rules, |(_, rules)| rules)
    }

    /// Every service.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        std::iter::once(&self.key).chain(&self.others)
    }
}

fn service(rng: &mut Rng, key: &ServiceKey, scale: &Scale, calm_at: Duration) -> ServiceSetup {
    let script = script(rng, scale.step, calm_at);
    let service = ServiceSetup {
        key: key.clone(),
        version: OLD.to_owned(),
        desired: rng.u32(1..=scale.tasks),
        balancer: match rng.u8(0..10) {
            0 => BalancerKind::None,
            1 => BalancerKind::Network,
            _ => BalancerKind::Application,
        },
        routes: routes(rng),
        spare_group: rng.bool(),
        requests_per_second: 0,
        script,
        ..ServiceSetup::default()
    };
    match service.balancer {
        BalancerKind::Application => service,
        BalancerKind::Network => {
            ServiceSetup { routes: vec![RouteSetup { path: None, ..RouteSetup::default() }], ..service }
        }
        BalancerKind::None => ServiceSetup { routes: Vec::new(), ..service },
    }
}

/// Infrastructure code that is applied, once or again and again, some time after the guardian has changed something.
fn reapplied(rng: &mut Rng) -> Vec<Reaction> {
    if rng.u8(0..4) > 0 {
        return Vec::new();
    }
    let reaction = |rng: &mut Rng| Reaction {
        to: (*rng.choice(&["DeleteTaskSet", "ModifyRule", "ModifyListener"]).unwrap()).to_owned(),
        after: secs(rng.u64(1..=20)),
        act: Act::ApplyWeights { route: None, blue: rng.u32(0..=100), green: rng.u32(0..=100) },
        times: rng.u32(1..=4),
    };
    (0..rng.u8(1..=3)).map(|_| reaction(rng)).collect()
}

fn timing(rng: &mut Rng, scale: &Scale) -> Timing {
    // Nobody says how long a load balancer may take; seconds in practice.
    let slowest = if rng.u8(0..5) == 0 { 30 } else { 4 };
    Timing {
        deregistration: secs(rng.u64(1..=scale.deregistration)),
        health_interval: secs(rng.u64(scale.health_interval.clone())),
        propagation: (secs(1), secs(slowest)),
        ..Timing::default()
    }
}

/// A blue that was well for an hour, and fails in the middle of it all; in some of its tasks, or for good.
fn tired(rng: &mut Rng, calm_at: Duration) -> Version {
    let crash = Crash { after: secs(rng.u64(1..=30)), exit_code: 1, out_of_memory: true };
    let fails_health_checks = rng.bool();
    Version {
        breaks: Some(Breaks {
            when: When::At(secs(rng.u64(5..calm_at.as_secs()))),
            tasks: rng.bool().then(|| rng.u32(1..=2)),
            trouble: Trouble { crash: (!fails_health_checks).then_some(crash), fails_health_checks, error_rate: 0.5 },
        }),
        ..Version::default()
    }
}

/// Users, and alarms on what they get.
fn watch_errors(rng: &mut Rng, setup: &mut Setup, key: &ServiceKey) {
    for service in &mut setup.services {
        service.requests_per_second = 3;
    }
    if let Some(version) = setup.versions.get_mut(NEW).filter(|_| rng.bool()) {
        version.error_rate = 0.5;
    }
    for (name, watches) in [("green-5xx", Role::Green), ("blue-5xx", Role::Blue)] {
        setup.alarms.push(AlarmSetup {
            name: name.to_owned(),
            service: key.clone(),
            watches: Some(watches),
            metric: AlarmMetric::Target5xx,
            period: 10,
            evaluation_periods: rng.u32(1..=2),
            threshold: 3.0,
            initial: if rng.u8(0..4) == 0 { AlarmValue::Alarm } else { AlarmValue::Ok },
        });
    }
}

fn version(rng: &mut Rng, scale: &Scale) -> (Version, bool, bool) {
    let start_delay = secs(rng.u64(1..=scale.start_delay));
    let crash = |after| Some(Crash { after, exit_code: 1, out_of_memory: false });
    let sound = Version { start_delay, ..Version::default() };
    match rng.u8(0..6) {
        0 | 1 => (Version { crash: crash(secs(rng.u64(1..=scale.crash))), ..sound }, true, false),
        // Slowly: its failures lie so far apart that they never fill a window.
        2 => (Version { crash: crash(secs(rng.u64(30..=120))), ..sound }, false, false),
        3 => (Version { start: Start::CannotPull, ..sound }, true, false),
        4 => (Version { passes_health_checks: false, ..sound }, false, false),
        _ => (sound, false, true),
    }
}

/// A canary, often a promotion, sometimes a blue that is scaled down after it; and whoever else acts before the calm.
fn script(rng: &mut Rng, step: u64, calm_at: Duration) -> Vec<(Duration, Act)> {
    let mut script = vec![(secs(1), Act::CreateTaskSet { version: NEW.to_owned(), scale: 100.0 })];
    let mut at = 1;
    for green in [10, 50, 100] {
        at += rng.u64(1..=step);
        if rng.u8(0..3) > 0 {
            script.push((secs(at), Act::SetWeights { blue: 100 - green, green }));
        }
    }
    if rng.bool() {
        script.push((secs(at + 1), Act::SetPrimary(Role::Green)));
        if rng.bool() {
            script.push((secs(at + rng.u64(2..=20)), Act::ScaleTaskSet(Role::Blue, f64::from(rng.u8(0..=3)) * 25.0)));
        }
    }
    if rng.bool() {
        let calm = calm_at.as_secs();
        script.extend((0..rng.u8(1..=3)).map(|_| (secs(rng.u64(5..calm)), meddling(rng))));
    }
    script.retain(|(at, _)| *at < calm_at);
    script.sort_by_key(|(at, _)| *at);
    script
}

fn routes(rng: &mut Rng) -> Vec<RouteSetup> {
    let mut routes = Vec::new();
    for n in 0..rng.u8(1..=3) {
        routes.push(RouteSetup {
            listener: if rng.u8(0..4) == 0 { ListenerKind::Test } else { ListenerKind::Https },
            path: (n > 0 || rng.bool()).then(|| format!("/{n}/*")),
            sticky: (rng.u8(0..3) == 0).then(|| secs(600)),
            authenticated: rng.u8(0..4) == 0,
            third: (rng.u8(0..5) == 0).then(|| rng.u32(1..=100)),
            ..RouteSetup::default()
        });
    }
    routes
}

fn rule(rng: &mut Rng, scale: &Scale, drain: Duration, mode: Mode) -> Rule {
    let one_of = |rng: &mut Rng, choices: [BlueCapacity; 4]| choices[rng.usize(0..4)];
    let usually = BlueCapacity::Restore;
    // Without taking a draw from what the schedules that are known by their seeds are made of.
    let mut fork = rng.clone().fork();
    let false_rollback = fork.bool().then_some(0.01);
    let patience = if fork.u8(0..4) == 0 { secs(fork.u64(1..=scale.patience)) } else { Duration::ZERO };
    Rule {
        name: Arc::from("all"),
        mode,
        protect: vec![Protect { cluster: Arc::from("prod"), service: Arc::from("*") }],
        watch: Watch { bake: secs(30), freshness: secs(300) },
        stability: StabilityGates {
            window: secs(rng.u64(30..=200)),
            task_failures: Some(rng.u32(1..=3)),
            steady_within: Some(secs(rng.u64(scale.steady.clone()))),
            unhealthy_targets: Some(0.5),
        },
        errors: ErrorGates::default(),
        compare: Compare { false_rollback, against_blue: rng.bool(), patience },
        rollback: RollbackPolicy {
            drain,
            blue_capacity: one_of(rng, [usually, usually, BlueCapacity::Require, BlueCapacity::Restore]),
            after_promotion: if rng.u8(0..5) == 0 { AfterPromotion::Page } else { AfterPromotion::Rollback },
            delete: if rng.u8(0..6) == 0 { DeletePolicy::Keep } else { DeletePolicy::Force },
        },
        limits: Limits { rollbacks_per_day: 3 },
        quarantine: Quarantine {
            on_return: if rng.u8(0..3) == 0 { OnReturn::Rollback } else { OnReturn::Report },
            ..Quarantine::default()
        },
    }
}
