//! Shapes of a service whose green crashes: which steps its rollback has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::model::Role;
use taskset_guardian::rules::{
    AfterPromotion, BlueCapacity, Compare, DeletePolicy, ErrorGates, Limits, Mode, Protect, Quarantine, RollbackPolicy,
    Rule, RuleSet, StabilityGates, Watch,
};
use taskset_guardian::sandbox::world::{Act, Crash, Delivery, RouteSetup, ServiceSetup, Setup, Timing, Version};

/// Between the shift and the delete.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// Two failed tasks are a breach.
pub(crate) fn rules() -> RuleSet {
    let rule = Rule {
        name: Arc::from("all"),
        mode: Mode::Enforce,
        protect: vec![Protect { cluster: Arc::from("prod"), service: Arc::from("checkout") }],
        watch: Watch { bake: Duration::from_mins(15), freshness: Duration::from_mins(10) },
        stability: StabilityGates {
            window: Duration::from_mins(5),
            task_failures: Some(2),
            steady_within: Some(Duration::from_mins(10)),
            unhealthy_targets: None,
        },
        errors: ErrorGates::default(),
        compare: Compare { against_blue: true, false_rollback: None, patience: Duration::ZERO },
        rollback: RollbackPolicy {
            drain: DRAIN,
            blue_capacity: BlueCapacity::Restore,
            after_promotion: AfterPromotion::Rollback,
            delete: DeletePolicy::Force,
        },
        limits: Limits { rollbacks_per_day: 3 },
        quarantine: Quarantine::default(),
    };
    RuleSet { rules: vec![Arc::new(rule)] }
}

const SOON: fn(u64) -> Duration = Duration::from_millis;

/// Green takes a tenth of the traffic.
fn canary() -> Vec<(Duration, Act)> {
    vec![
        (SOON(500), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (SOON(600), Act::SetWeights { blue: 90, green: 10 }),
    ]
}

/// Green is PRIMARY and has all the traffic, and blue is scaled down to one task.
fn promotion() -> Vec<(Duration, Act)> {
    vec![
        (SOON(500), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (SOON(600), Act::SetWeights { blue: 0, green: 100 }),
        (SOON(700), Act::SetPrimary(Role::Green)),
        (SOON(800), Act::ScaleTaskSet(Role::Blue, 25.0)),
    ]
}

/// A sticky rule with a login, a plain rule, and the listener's default action.
fn routes() -> Vec<RouteSetup> {
    let login = RouteSetup {
        path: Some("/a".to_owned()),
        sticky: Some(Duration::from_mins(10)),
        authenticated: true,
        ..RouteSetup::default()
    };
    vec![login, RouteSetup::default(), RouteSetup { path: None, ..RouteSetup::default() }]
}

fn shape(script: Vec<(Duration, Act)>, service: ServiceSetup) -> Setup {
    let crash = Crash { after: Duration::from_secs(5), exit_code: 1, out_of_memory: false };
    let failing = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let sound = Version { start_delay: Duration::from_secs(1), ..Version::default() };
    Setup {
        services: vec![ServiceSetup { script, ..service }],
        versions: BTreeMap::from([("checkout:88".to_owned(), failing), ("checkout:87".to_owned(), sound)]),
        timing: Timing {
            deregistration: Duration::from_secs(1),
            health_interval: Duration::from_millis(500),
            ..Timing::default()
        },
        delivery: Delivery { delay: (SOON(20), SOON(100)), ..Delivery::default() },
        visibility: Duration::from_secs(1),
        drain: DRAIN,
        ..Setup::default()
    }
}

/// Nothing to do but shift and delete.
pub(crate) fn warm_blue() -> Setup {
    shape(canary(), ServiceSetup { requests_per_second: 0, ..ServiceSetup::default() })
}

/// Blue must be scaled and promoted first.
pub(crate) fn small_blue() -> Setup {
    shape(promotion(), ServiceSetup { requests_per_second: 0, ..ServiceSetup::default() })
}

/// Three shifts, and a pair to be put back.
pub(crate) fn several_rules() -> Setup {
    shape(canary(), ServiceSetup { routes: routes(), requests_per_second: 0, ..ServiceSetup::default() })
}

/// All of it.
pub(crate) fn everything() -> Setup {
    shape(promotion(), ServiceSetup { routes: routes(), requests_per_second: 0, ..ServiceSetup::default() })
}
