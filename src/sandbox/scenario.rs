//! Scenarios: deployments with a known good ending, each a world, a rule file and what the guardian should make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{Act, AlarmMetric, AlarmSetup, Crash, RouteSetup, ServiceSetup, Setup, Start, Version};
use crate::model::{AlarmValue, Role};

/// One deployment, from the moment that the deployer begins.
#[derive(Debug)]
pub struct Scenario {
    /// For the command line.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// Two plain sentences: what goes on, and what should come of it.
    pub story: &'static str,
    /// The right ending.
    pub expected: Expected,
    /// The rule file that is in force.
    pub rules_toml: &'static str,
    /// The world. The seed is for setups that vary by it.
    pub setup: fn(seed: u64) -> Setup,
    /// Virtual time after which the run is called off.
    pub limit: Duration,
}

/// How a scenario should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Traffic is back on blue and green is gone.
    RolledBack,
    /// Green took over.
    Graduated,
    /// Decided, and deliberately not done.
    Held,
    /// A person was called.
    Escalated,
}

impl Expected {
    /// The word in `demo --output json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::Graduated => "graduated",
            Self::Held => "held",
            Self::Escalated => "escalated",
        }
    }
}

/// The version that the deployer brings out; the one before is `checkout:87`.
const NEW: &str = "checkout:88";

const RULES: &str = r#"name = "checkout"

[[protect]]
cluster = "prod"
service = "checkout"

[watch]
bake = "2m"
freshness = "5m"

[stability]
window = "5m"
task_failures = 3
steady_within = "5m"

[errors]
alarm_for = "0s"

[rollback]
drain = "15s"
delete = "force"
"#;

const IMPATIENT_RULES: &str = r#"name = "checkout"

[[protect]]
cluster = "prod"
service = "checkout"

[watch]
bake = "2m"
freshness = "5m"

[stability]
window = "5m"
task_failures = 3
steady_within = "90s"

[rollback]
drain = "15s"
delete = "force"
"#;

static ALL: [Scenario; 6] = [
    Scenario {
        name: "crash-at-start",
        title: "green crashes as soon as it starts",
        story: "Every task of checkout:88 exits with code 1 within seconds of its start, and the deployer has already \
                given it a tenth of the users. The guardian counts three failed tasks, puts the users back on blue and \
                deletes green.",
        expected: Expected::RolledBack,
        rules_toml: RULES,
        setup: |_| deployment(crashing(), early_canary(), None),
        limit: Duration::from_mins(5),
    },
    Scenario {
        name: "elb-health-checks",
        title: "green never passes a health check",
        story: "The tasks of checkout:88 run but answer the load balancer's health checks with errors, so ECS stops and \
                replaces them, again and again. The guardian counts three of them, puts the users back on blue and \
                deletes green.",
        expected: Expected::RolledBack,
        rules_toml: RULES,
        setup: |_| {
            let version = Version { passes_health_checks: false, ..Version::default() };
            deployment(version, early_canary(), None)
        },
        limit: Duration::from_mins(5),
    },
    Scenario {
        name: "http-5xx-alarm",
        title: "green is steady, and fails a quarter of its users",
        story: "checkout:88 passes every health check but answers every fourth request with a 5xx, behind a rule whose \
                cookie keeps users where they are. An alarm on green's target group turns red, and the guardian takes \
                green out of the rule, cookies and all, and deletes it.",
        expected: Expected::RolledBack,
        rules_toml: RULES,
        setup: |_| {
            let version = Version { error_rate: 0.25, ..Version::default() };
            deployment(version, canary(), Some(Duration::from_hours(1)))
        },
        limit: Duration::from_mins(6),
    },
    Scenario {
        name: "never-steady",
        title: "green never gets all its tasks",
        story: "Two of the four tasks of checkout:88 stay PENDING for ever; no task fails and no alarm turns red. When \
                green is still not steady 90 seconds after its creation, the guardian rolls it back.",
        expected: Expected::RolledBack,
        rules_toml: IMPATIENT_RULES,
        setup: |_| {
            let version = Version { start: Start::AtMost(2), ..Version::default() };
            deployment(version, canary(), None)
        },
        limit: Duration::from_mins(5),
    },
    Scenario {
        name: "healthy",
        title: "green is sound and takes over",
        story: "checkout:88 becomes steady, the deployer gives it 10, 50 and then 100 percent of the users and makes it \
                PRIMARY. The guardian watches for two minutes more and writes nothing.",
        expected: Expected::Graduated,
        rules_toml: RULES,
        setup: |_| Setup { expect_no_writes: true, ..deployment(Version::default(), rollout(), None) },
        limit: Duration::from_mins(10),
    },
    Scenario {
        name: "spot-noise",
        title: "green loses Spot capacity, which is nobody's fault",
        story: "The tasks of checkout:88 run on Spot capacity that AWS takes away now and then, and ECS replaces them. \
                None of that speaks against the version: the deployment goes on and green takes over.",
        expected: Expected::Graduated,
        rules_toml: RULES,
        setup: |_| {
            let version = Version { spot_interruption: Some(Duration::from_secs(150)), ..Version::default() };
            Setup { expect_no_writes: true, ..deployment(version, rollout(), None) }
        },
        limit: Duration::from_mins(10),
    },
];

/// Every scenario, in the order in which they are shown.
pub fn all() -> &'static [Scenario] {
    &ALL
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// prod/checkout with an alarm on each target group, and a deployer who brings out [`NEW`].
fn deployment(version: Version, script: Vec<(Duration, Act)>, sticky: Option<Duration>) -> Setup {
    let routes = vec![RouteSetup { sticky, ..RouteSetup::default() }];
    let service = ServiceSetup { routes, script, ..ServiceSetup::default() };
    let alarm = |role: Role| AlarmSetup {
        name: format!("checkout-{}-5xx", role.as_str()),
        service: service.key.clone(),
        watches: Some(role),
        metric: AlarmMetric::Target5xx,
        period: 60,
        evaluation_periods: 1,
        threshold: 10.0,
        initial: AlarmValue::Ok,
    };
    Setup {
        alarms: vec![alarm(Role::Blue), alarm(Role::Green)],
        services: vec![service],
        versions: BTreeMap::from([(NEW.to_owned(), version)]),
        ..Setup::default()
    }
}

fn crashing() -> Version {
    let crash = Crash { after: Duration::from_secs(3), exit_code: 1, out_of_memory: false };
    Version { crash: Some(crash), ..Version::default() }
}

fn create() -> (Duration, Act) {
    (Duration::from_secs(10), Act::CreateTaskSet { version: NEW.to_owned(), scale: 100.0 })
}

fn weights(at: u64, blue: u32, green: u32) -> (Duration, Act) {
    (Duration::from_secs(at), Act::SetWeights { blue, green })
}

/// A deployer who does not wait until green is steady.
fn early_canary() -> Vec<(Duration, Act)> {
    vec![create(), weights(14, 90, 10)]
}

/// A deployer who does, or at least long enough for it.
fn canary() -> Vec<(Duration, Act)> {
    vec![create(), weights(45, 90, 10)]
}

fn rollout() -> Vec<(Duration, Act)> {
    let promote = (Duration::from_secs(115), Act::SetPrimary(Role::Green));
    vec![create(), weights(45, 90, 10), weights(75, 50, 50), weights(105, 0, 100), promote]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::super::world::World;
    use super::*;
    use crate::model::{ServiceKey, Timestamp};

    /// Without a guardian: what the scenario's world comes to by itself.
    fn left_alone(name: &str) -> (World, Vec<String>) {
        let scenario = find(name).unwrap();
        let start = Timestamp::parse("2026-03-02T10:00:00Z").unwrap();
        let mut world = World::new(7, start, (scenario.setup)(7));
        world.advance_to(start.plus(scenario.limit));
        let story = world.drain_story().into_iter().map(|moment| moment.what).collect();
        (world, story)
    }

    fn failed(world: &World) -> u64 {
        world.traffic(&ServiceKey::new("prod", "checkout")).unwrap().failed()
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_toml_that_parses() {
        for scenario in all() {
            assert!(std::ptr::eq(find(scenario.name).unwrap(), scenario), "{}", scenario.name);
            let rules: toml::Table = toml::from_str(scenario.rules_toml).unwrap();
            assert_eq!(rules["rollback"]["drain"].as_str(), Some("15s"), "as the setup's: S13 is checked against that");
            assert_eq!((scenario.setup)(1).drain, Duration::from_secs(15));
        }
    }

    #[test]
    fn left_alone_a_crashing_green_fails_its_users_for_ever() {
        let (world, story) = left_alone("crash-at-start");
        assert!(story.iter().filter(|what| what.contains("crashed (exit 1)")).count() >= 12, "{story:#?}");
        assert!(failed(&world) > 2000, "{}", failed(&world));
    }

    #[test]
    fn left_alone_a_green_that_fails_health_checks_is_replaced_for_ever() {
        let (_, story) = left_alone("elb-health-checks");
        assert!(story.iter().filter(|what| what.contains("failed its health checks")).count() >= 8, "{story:#?}");
        assert!(!story.iter().any(|what| what == "green is steady"), "{story:#?}");
    }

    #[test]
    fn left_alone_a_failing_green_turns_its_alarm_red_and_only_its_own() {
        let (_, story) = left_alone("http-5xx-alarm");
        let alarms: Vec<_> = story.iter().filter(|what| what.starts_with("alarm")).collect();
        assert_eq!(alarms, ["alarm checkout-green-5xx turns red"]);
    }

    #[test]
    fn left_alone_a_green_without_capacity_fails_nobody_and_is_never_steady() {
        let (world, story) = left_alone("never-steady");
        assert!(!story.iter().any(|what| what == "green is steady" || what.starts_with("alarm")), "{story:#?}");
        assert!(failed(&world) < 50, "{}", failed(&world));
    }

    #[test]
    fn good_deployments_lose_next_to_no_request() {
        for name in ["healthy", "spot-noise"] {
            let (world, story) = left_alone(name);
            assert!(story.iter().any(|what| what == "green is steady"), "{story:#?}");
            assert!(story.iter().any(|what| what == "the deployer makes green PRIMARY"), "{story:#?}");
            assert!(failed(&world) < 50, "{name}: {}", failed(&world));
            assert_eq!(story.iter().any(|what| what.contains("Spot")), name == "spot-noise");
        }
    }
}
