//! Without a guardian: that each scenario's world does by itself what its story says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::model::{ServiceKey, Timestamp};
use crate::rules::{RuleFile, compile};
use crate::sandbox::api::{Backend, Call, Reply, ServiceView};
use crate::sandbox::world::World;

/// A world that was left alone until this second.
struct Left {
    world: World,
    story: Vec<String>,
}

fn left_alone_until(name: &str, second: u64) -> Left {
    let scenario = find(name).unwrap_or_else(|| panic!("there is no scenario {name}"));
    let start = Timestamp::parse("2026-03-02T10:00:00Z").unwrap();
    let mut world = World::new(7, start, (scenario.setup)(7));
    world.advance_to(start.plus(Duration::from_secs(second)));
    let story = world.drain_story().into_iter().map(|moment| moment.what).collect();
    Left { world, story }
}

fn left_alone(name: &str) -> Left {
    left_alone_until(name, find(name).unwrap().limit.as_secs())
}

impl Left {
    fn count(&self, what: &str) -> usize {
        self.story.iter().filter(|line| line.contains(what)).count()
    }

    fn says(&self, what: &str) -> bool {
        self.story.iter().any(|line| line == what)
    }

    fn failed(&self) -> u64 {
        self.world.traffic(&ServiceKey::new("prod", "checkout")).unwrap().failed()
    }

    fn green_share(&self) -> f64 {
        self.world.traffic(&ServiceKey::new("prod", "checkout")).unwrap().effective.green
    }

    fn service(&mut self, name: &str) -> ServiceView {
        let call = Call::DescribeServices { cluster: "prod".to_owned(), services: vec![name.to_owned()] };
        match self.world.call(call) {
            Ok(Reply::Services { mut services, .. }) => services.remove(0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_scenario_has_a_name_of_its_own_and_a_rule_file_that_protects_its_service() {
    for scenario in all() {
        assert!(std::ptr::eq(find(scenario.name).unwrap(), scenario), "{}", scenario.name);
        assert!(scenario.name.len() <= 24, "{} does not fit into its column", scenario.name);
        let file = RuleFile::new("demo.toml", scenario.rules_toml.clone());
        let rules = compile(std::slice::from_ref(&file)).unwrap();
        let setup = (scenario.setup)(1);
        for service in &setup.services {
            let rule = rules.rule_for(&service.key).unwrap_or_else(|| panic!("{}: {}", scenario.name, service.key));
            assert_eq!(rule.rollback.drain, setup.drain, "S13 is checked against the setup's");
        }
    }
}

#[test]
fn every_story_is_two_sentences_long() {
    for scenario in all() {
        let sentences = scenario.story.matches(". ").count() + 1;
        assert!(sentences <= 2 && scenario.story.ends_with('.'), "{}: {}", scenario.name, scenario.story);
    }
}

#[test]
fn what_must_not_be_written_to_is_never_expected_to_be_rolled_back() {
    for scenario in all() {
        let silent = (scenario.setup)(1).expect_no_writes;
        assert!(!silent || scenario.expected != Expected::RolledBack, "{}", scenario.name);
    }
}

#[test]
fn left_alone_a_crashing_green_fails_its_users_for_ever() {
    let left = left_alone("crash-at-start");
    assert!(left.count("crashed (exit 1)") >= 12, "{:#?}", left.story);
    assert!(left.failed() > 1500, "{}", left.failed());
}

#[test]
fn left_alone_a_green_whose_errors_nobody_has_an_alarm_for_is_steady_and_fails_for_ever() {
    let left = left_alone("errors-without-an-alarm");
    assert!(left.says("green is steady") && left.count("alarm") == 0, "{:#?}", left.story);
    assert!(left.failed() > 500, "{}", left.failed());
}

#[test]
fn left_alone_a_green_that_fails_health_checks_is_replaced_for_ever() {
    let left = left_alone("elb-health-checks");
    assert!(left.count("failed its health checks") >= 8, "{:#?}", left.story);
    assert!(!left.says("green is steady"), "{:#?}", left.story);
}

#[test]
fn left_alone_a_failing_green_turns_its_alarm_red_and_only_its_own() {
    let left = left_alone("http-5xx-alarm");
    let alarms: Vec<_> = left.story.iter().filter(|what| what.starts_with("alarm")).collect();
    assert_eq!(alarms, ["alarm checkout-green-5xx turns red"]);
}

#[test]
fn left_alone_a_green_without_capacity_fails_nobody_and_is_never_steady() {
    let left = left_alone("never-steady");
    assert!(!left.says("green is steady") && left.count("alarm") == 0, "{:#?}", left.story);
    assert!(left.failed() < 50, "{}", left.failed());
}

#[test]
fn left_alone_unhealthy_targets_stay_and_no_task_fails() {
    let mut left = left_alone("unhealthy-targets");
    assert!(left.says("green is steady"), "{:#?}", left.story);
    assert_eq!(left.count("failed its health checks") + left.count("crashed"), 0, "{:#?}", left.story);
    let target_group = left.service("checkout").task_sets[1].target_group.clone().unwrap();
    let Ok(Reply::Targets(targets)) = left.world.call(Call::DescribeTargetHealth { target_group }) else {
        panic!("no targets")
    };
    assert_eq!(targets.iter().filter(|target| target.state == "unhealthy").count(), 3, "{targets:?}");
}

#[test]
fn good_deployments_lose_next_to_no_request() {
    for name in ["healthy", "spot-noise"] {
        let left = left_alone(name);
        assert!(left.says("green is steady"), "{:#?}", left.story);
        assert!(left.says("the deployer makes green PRIMARY"), "{:#?}", left.story);
        assert!(left.failed() < 50, "{name}: {}", left.failed());
        assert_eq!(left.count("Spot") > 0, name == "spot-noise");
    }
}

#[test]
fn left_alone_cookies_and_promoted_greens_are_sound_before_they_break() {
    let promoted = ["green-primary", "green-primary-page", "killed-between-steps"];
    for name in ["sticky-rule", "forward-to-green-alone"].into_iter().chain(promoted) {
        let before = left_alone_until(name, 74);
        assert!(before.says("green is steady") && before.failed() < 50, "{name}: {:#?}", before.story);
        let left = left_alone(name);
        assert!(left.count("green task") > 12 && left.count("crashed") >= 6, "{name}: {:#?}", left.story);
        // Where two of four tasks stay well, they serve all the users.
        let half = ["forward-to-green-alone", "killed-between-steps"].contains(&name);
        assert_eq!(left.failed() > 1000, !half, "{name}: {}", left.failed());
    }
    for name in promoted {
        assert!(left_alone_until(name, 80).says("the deployer makes green PRIMARY"));
    }
    let share = left_alone_until("green-primary", 80).green_share();
    assert!(share > 0.999, "{share}");
}

#[test]
fn left_alone_a_green_whose_blue_was_scaled_to_zero_keeps_half_of_its_tasks() {
    for name in ["blue-scaled-to-zero", "autoscaling"] {
        let mut left = left_alone_until(name, 140);
        let sets = left.service("checkout").task_sets;
        assert_eq!((sets[0].running, sets[0].scale, sets[1].status.as_str()), (0, 0.0, "PRIMARY"), "{name}");
        assert!(sets[1].running >= 2, "{name}: {}", sets[1].running);
        assert!(left.count("crashed") >= 6, "{name}: {:#?}", left.story);
    }
}

#[test]
fn left_alone_several_listeners_all_send_users_to_green() {
    let mut left = left_alone("several-listeners");
    let Ok(Reply::Rules(rules)) = left.world.call(Call::DescribeRules { listener: None, arns: Vec::new() }) else {
        panic!("no rules")
    };
    assert_eq!((rules.len(), rules.iter().filter(|rule| rule.is_default).count()), (4, 2));
    assert_eq!(left.count("now sends 90 % to blue and 10 % to green"), 3);
    assert_eq!(left.count("now sends 75 % to blue and 8 % to green"), 1, "{:#?}", left.story);
    assert_eq!(left.count("the test listener"), 1);
}

#[test]
fn left_alone_the_other_shapes_crash_like_any_green() {
    for name in [
        "oidc-login",
        "network-load-balancer",
        "throttled-elb",
        "lagging-reads",
        "dry-run",
        "observe-mode",
        "weights-reapplied",
    ] {
        let left = left_alone(name);
        assert!(left.count("green task") > 12 && left.failed() > 1000, "{name}: {}", left.failed());
    }
    let mut worker = left_alone("no-load-balancer");
    assert!(worker.count("crashed") >= 12, "{:#?}", worker.story);
    assert!(worker.service("mailer").task_sets.iter().all(|set| set.target_group.is_none()));
}

#[test]
fn left_alone_people_wait_for_the_guardian() {
    for name in
        ["foreign-writer", "foreign-writer-once", "third-task-set", "green-promoted-meanwhile", "deleted-by-somebody"]
    {
        let left = left_alone(name);
        assert_eq!(left.count("the deployer"), 2, "{name}: one creates green and gives it users");
        assert!(left.count("crashed") >= 12, "{name}");
        assert!(left.failed() < 300, "{name}: half of its tasks serve: {}", left.failed());
    }
}

#[test]
fn left_alone_a_shared_outage_hits_blue_and_green_and_passes() {
    let mut left = left_alone("shared-outage");
    assert!(left.count("blue task") >= 8 && left.count("green task") >= 8, "{:#?}", left.story);
    assert!(left.says("the database is back"));
    assert!(left.service("checkout").task_sets.iter().all(|set| set.stability == "STEADY_STATE"));
}

#[test]
fn left_alone_five_services_crash_within_a_minute_and_checkout_last() {
    let left = left_alone("fleet-outage");
    let first = |prefix: &str| {
        let crash = |line: &String| line.starts_with(prefix) && line.contains("crashed");
        left.story.iter().position(crash).unwrap_or_else(|| panic!("{prefix}: {:#?}", left.story))
    };
    let order = ["cart: ", "search: ", "payments: ", "catalog: ", "green task"].map(first);
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(left.count("blue task"), 0);
}
