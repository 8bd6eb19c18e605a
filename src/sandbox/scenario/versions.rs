//! Versions, good and bad, before anybody has taken them over.

use std::time::Duration;

use super::parts::{RULES, Rules, canary, crashing, deployment, early_canary, plain, rollout, sound_until};
use super::{Expected, Scenario};
use crate::sandbox::world::{RouteSetup, Setup, Start, Timing, Trouble, Version};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "crash-at-start",
            title: "green crashes as soon as it starts",
            story: "Every task of checkout:88 exits with code 1 within seconds of its start, and the deployer has \
                    already given it a tenth of the users. The guardian counts three failed tasks, puts the users back \
                    on blue and deletes green.",
            setup: |_| deployment(crashing(), early_canary()),
            ..plain()
        },
        Scenario {
            name: "elb-health-checks",
            title: "green never passes a health check",
            story: "The tasks of checkout:88 run but answer the load balancer's health checks with errors, so ECS \
                    stops and replaces them, again and again. The guardian counts three of them, puts the users back \
                    on blue and deletes green.",
            setup: |_| deployment(Version { passes_health_checks: false, ..Version::default() }, early_canary()),
            ..plain()
        },
        Scenario {
            name: "http-5xx-alarm",
            title: "green is steady, and fails a quarter of its users",
            story: "checkout:88 passes every health check but answers every fourth request with a 5xx, behind a rule \
                    whose cookie keeps users where they are. An alarm on green's target group turns red, and the \
                    guardian takes green out of the rule, cookies and all, and deletes it.",
            setup: |_| {
                let mut setup = deployment(Version { error_rate: 0.25, ..Version::default() }, canary());
                let route = RouteSetup { sticky: Some(Duration::from_hours(1)), ..RouteSetup::default() };
                setup.services.iter_mut().for_each(|service| service.routes = vec![route.clone()]);
                setup
            },
            limit: Duration::from_mins(6),
            ..plain()
        },
        Scenario {
            name: "errors-without-an-alarm",
            title: "green fails a quarter of its users, and no alarm says so",
            story: "checkout:88 passes every health check but answers every fourth request with a 5xx, and nobody has made \
                    an alarm for it. The guardian reads the load balancer's own metrics, finds more than a twentieth of \
                    green's requests failed and none of blue's, and rolls it back.",
            rules_toml: Rules { http_5xx_ratio: "0.05", ..RULES }.toml(),
            setup: |_| {
                let version = Version { error_rate: 0.25, ..Version::default() };
                Setup { alarms: Vec::new(), ..deployment(version, canary()) }
            },
            limit: Duration::from_mins(6),
            ..plain()
        },
        Scenario {
            name: "never-steady",
            title: "green never gets all its tasks",
            story: "Two of the four tasks of checkout:88 stay PENDING for ever; no task fails and no alarm turns red. \
                    When green is still not steady 90 seconds after its creation, the guardian rolls it back.",
            rules_toml: Rules { steady_within: "90s", ..RULES }.toml(),
            setup: |_| deployment(Version { start: Start::AtMost(2), ..Version::default() }, canary()),
            ..plain()
        },
        Scenario {
            name: "unhealthy-targets",
            title: "most of green's targets turn unhealthy",
            story: "checkout:88 is steady and has a tenth of the users when three of its four tasks stop answering \
                    health checks, which ECS leaves as they are for a grace period of ten minutes. The guardian finds \
                    more than half of green's targets unhealthy in two sweeps in a row and rolls it back.",
            setup: |_| {
                let trouble = Trouble { fails_health_checks: true, ..Trouble::default() };
                let timing = Timing { unhealthy: Duration::from_mins(10), ..Timing::default() };
                Setup { timing, ..deployment(sound_until(60, Some(3), trouble), canary()) }
            },
            ..plain()
        },
        Scenario {
            name: "healthy",
            title: "green is sound and takes over",
            story: "checkout:88 becomes steady, the deployer gives it 10, 50 and then 100 percent of the users and \
                    makes it PRIMARY. The guardian watches for two minutes more and writes nothing.",
            expected: Expected::Graduated,
            setup: |_| Setup { expect_no_writes: true, ..deployment(Version::default(), rollout()) },
            limit: Duration::from_mins(10),
            ..plain()
        },
        Scenario {
            name: "spot-noise",
            title: "green loses Spot capacity, which is nobody's fault",
            story: "The tasks of checkout:88 run on Spot capacity that AWS takes away now and then, and ECS replaces \
                    them. None of that speaks against the version: the deployment goes on and green takes over.",
            expected: Expected::Graduated,
            setup: |_| {
                let version = Version { spot_interruption: Some(Duration::from_secs(150)), ..Version::default() };
                Setup { expect_no_writes: true, ..deployment(version, rollout()) }
            },
            limit: Duration::from_mins(10),
            ..plain()
        },
    ]
}
