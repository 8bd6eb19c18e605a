//! One schedule: a service, its deployer, who else meddles, and the rule. All drawn from one seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::model::{Role, ServiceKey};
use taskset_guardian::rules::{
    AfterPromotion, BlueCapacity, Compare, DeletePolicy, ErrorGates, Limits, Mode, Protect, Quarantine, RollbackPolicy,
    Rule, RuleSet, StabilityGates, Watch,
};
use taskset_guardian::sandbox::world::{
    Act, BalancerKind, Crash, Delivery, ListenerKind, RouteSetup, ServiceSetup, Setup, Start, Timing, Version,
};

use crate::faults::Faults;

pub(crate) const NEW: &str = "checkout:88";

/// Everything that a seed decides.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) rules: RuleSet,
    pub(crate) faults: Faults,
    /// One that owns its journal, or two that share one.
    pub(crate) workers: usize,
    /// Faults and people stop here.
    pub(crate) calm_at: Duration,
    /// Green is bad, in a way that tasks show.
    pub(crate) bad: bool,
    /// Nothing is wrong with green.
    pub(crate) sound: bool,
    pub(crate) key: ServiceKey,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One of the acts of people and machines that a deployment may meet.
pub(crate) fn meddling(rng: &mut Rng) -> Act {
    match rng.u8(0..10) {
        0 | 1 => Act::SetWeights { blue: rng.u32(0..=100), green: rng.u32(1..=100) },
        2 => Act::SetWeights { blue: 100, green: 0 },
        3 => Act::SetPrimary(if rng.bool() { Role::Green } else { Role::Blue }),
        4 => Act::DeleteTaskSet(Role::Green),
        5 => Act::ScaleTaskSet(Role::Blue, f64::from(rng.u8(0..=4)) * 25.0),
        6 => Act::CreateTaskSet { version: "checkout:89".to_owned(), scale: 100.0 },
        7 => Act::SetDesired(rng.u32(1..=6)),
        8 => Act::ForwardTo(if rng.bool() { Role::Green } else { Role::Blue }),
        _ => Act::DeleteTaskSet(Role::Blue),
    }
}

impl Schedule {
    /// Draws.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x005e_ed0f_9a3d);
        let workers = if rng.u8(0..3) == 0 { 2 } else { 1 };
        let faults = Faults::draw(&mut rng, workers);
        let calm_at = secs(rng.u64(60..300));
        let (version, bad, sound) = version(&mut rng);
        let script = script(&mut rng, calm_at);
        let key = ServiceKey::new("prod", "checkout");
        let service = ServiceSetup {
            desired: rng.u32(1..=4),
            balancer: match rng.u8(0..10) {
                0 => BalancerKind::None,
                1 => BalancerKind::Network,
                _ => BalancerKind::Application,
            },
            routes: routes(&mut rng),
            spare_group: rng.bool(),
            requests_per_second: 0,
            script,
            ..ServiceSetup::default()
        };
        let service = match service.balancer {
            BalancerKind::Application => service,
            BalancerKind::Network => {
                ServiceSetup { routes: vec![RouteSetup { path: None, ..RouteSetup::default() }], ..service }
            }
            BalancerKind::None => ServiceSetup { routes: Vec::new(), ..service },
        };
        let drain = secs(rng.u64(0..=20));
        let lag = if rng.u8(0..5) == 0 { secs(rng.u64(1..=4)) } else { Duration::ZERO };
        let setup = Setup {
            services: vec![service],
            versions: BTreeMap::from([(NEW.to_owned(), version)]),
            timing: Timing {
                deregistration: secs(rng.u64(1..=30)),
                health_interval: secs(rng.u64(3..=10)),
                ..Timing::default()
            },
            delivery: Delivery {
                duplicates: if rng.bool() { rng.f64() * 0.5 } else { 0.0 },
                stragglers: if rng.bool() { rng.f64() * 0.5 } else { 0.0 },
                ..Delivery::default()
            },
            drain,
            lag,
            visibility: secs(rng.u64(1..=30)),
            ..Setup::default()
        };
        let rules = RuleSet { rules: vec![Arc::new(rule(&mut rng, drain))] };
        Self { seed, setup, rules, faults, workers, calm_at, bad, sound, key }
    }
}

fn version(rng: &mut Rng) -> (Version, bool, bool) {
    let start_delay = secs(rng.u64(1..=8));
    let crash = |after| Some(Crash { after, exit_code: 1, out_of_memory: false });
    let sound = Version { start_delay, ..Version::default() };
    match rng.u8(0..6) {
        0 | 1 => (Version { crash: crash(secs(rng.u64(1..=20))), ..sound }, true, false),
        // Slowly: its failures lie so far apart that they never fill a window.
        2 => (Version { crash: crash(secs(rng.u64(30..=120))), ..sound }, false, false),
        3 => (Version { start: Start::CannotPull, ..sound }, true, false),
        4 => (Version { passes_health_checks: false, ..sound }, false, false),
        _ => (sound, false, true),
    }
}

/// A canary, often a promotion, sometimes a blue that is scaled down after it; and whoever else acts before the calm.
fn script(rng: &mut Rng, calm_at: Duration) -> Vec<(Duration, Act)> {
    let mut script = vec![(secs(1), Act::CreateTaskSet { version: NEW.to_owned(), scale: 100.0 })];
    let mut at = 1;
    for green in [10, 50, 100] {
        at += rng.u64(1..=20);
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
    if rng.u8(0..3) == 0 {
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

fn rule(rng: &mut Rng, drain: Duration) -> Rule {
    let one_of = |rng: &mut Rng, choices: [BlueCapacity; 4]| choices[rng.usize(0..4)];
    let usually = BlueCapacity::Restore;
    Rule {
        name: Arc::from("all"),
        mode: Mode::Enforce,
        protect: vec![Protect { cluster: Arc::from("prod"), service: Arc::from("checkout") }],
        watch: Watch { bake: secs(60), freshness: secs(300) },
        stability: StabilityGates {
            window: secs(rng.u64(30..=200)),
            task_failures: Some(rng.u32(1..=3)),
            steady_within: Some(secs(rng.u64(60..=200))),
            unhealthy_targets: Some(0.5),
        },
        errors: ErrorGates { alarms: Vec::new(), alarm_for: Duration::ZERO },
        compare: Compare { against_blue: rng.bool() },
        rollback: RollbackPolicy {
            drain,
            blue_capacity: one_of(rng, [usually, usually, BlueCapacity::Require, BlueCapacity::Restore]),
            after_promotion: if rng.u8(0..5) == 0 { AfterPromotion::Page } else { AfterPromotion::Rollback },
            delete: if rng.u8(0..6) == 0 { DeletePolicy::Keep } else { DeletePolicy::Force },
        },
        limits: Limits { rollbacks_per_day: 3 },
        quarantine: Quarantine::default(),
    }
}
