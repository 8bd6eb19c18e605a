//! Each promise is reported when a call breaks it, and not when the call is right.

use std::collections::BTreeMap;

use super::super::{BalancerKind, Crash, ListenerKind, Reaction, RouteSetup, ServiceSetup, Start, Version};
use super::*;
use crate::model::{Contract, Role, tags};

/// Blue and green both steady, 90 to 10, at the sixtieth second.
fn canary() -> Stage {
    canary_of(Setup::default())
}

fn canary_of(mut setup: Setup) -> Stage {
    setup.services[0].script.push((seconds(45), Act::SetWeights { blue: 90, green: 10 }));
    let mut stage = Stage::new(creating(setup));
    stage.at(60);
    stage
}

fn green_is(version: Version) -> Setup {
    Setup { versions: BTreeMap::from([("checkout:88".to_owned(), version)]), ..Setup::default() }
}

fn group(stage: &mut Stage, at: usize) -> TargetGroupArn {
    forward(&stage.rule().actions).groups[at].target_group.clone()
}

#[test]
fn a_rollback_done_right_breaks_no_promise() {
    let mut stage = canary();
    let green = stage.green().id;
    stage.weigh(100, 0).unwrap();
    stage.at(75).delete(&green).unwrap();
    stage.at(80).delete(&green).unwrap();
    stage.at(200);
    assert_eq!(stage.world.violations(), []);
    assert_eq!(stage.service().task_sets.len(), 1);
}

#[test]
fn a_sticky_rollback_with_login_done_right_breaks_no_promise() {
    let mut setup = Setup::default();
    setup.services[0].routes =
        vec![RouteSetup { sticky: Some(seconds(60)), authenticated: true, ..RouteSetup::default() }];
    let mut stage = canary_of(setup);
    let (blue, green) = (group(&mut stage, 0), group(&mut stage, 1));
    let id = stage.green().id;
    stage.write(&[(blue.clone(), 1)]).unwrap();
    stage.at(75).delete(&id).unwrap();
    stage.at(200);
    assert_eq!(stage.service().task_sets.len(), 1);
    stage.write(&[(blue, 100), (green, 0)]).expect("the pair is put back once green is gone");
    assert_eq!(stage.world.violations(), []);
}

#[test]
fn s1_all_weights_zero() {
    let mut stage = canary();
    stage.weigh(0, 0).unwrap();
    assert!(stage.broken().contains(&"S1"));
}

#[test]
fn s1_all_weight_on_a_group_without_a_healthy_target() {
    let mut stage = canary_of(green_is(Version { start: Start::AtMost(0), ..Version::default() }));
    stage.weigh(0, 100).unwrap();
    assert_eq!(stage.broken(), ["S1", "S3"]);
}

#[test]
fn s1_is_not_broken_by_a_call_that_finds_nothing_healthy() {
    let mut setup = green_is(Version { start: Start::AtMost(0), ..Version::default() });
    let lost = Version { spot_interruption: Some(seconds(1)), start: Start::AtMost(0), ..Version::default() };
    setup.versions.insert("checkout:87".to_owned(), lost);
    let mut stage = canary_of(setup);
    assert_eq!((stage.blue().running, stage.green().running), (0, 0));
    stage.weigh(100, 0).unwrap();
    assert_eq!(stage.world.violations(), [], "blue was down already, and green never up");
}

#[test]
fn s2_the_primary() {
    let mut setup = Setup::default();
    setup.services[0].script.push((seconds(50), Act::SetPrimary(Role::Green)));
    let mut stage = canary_of(setup);
    let green = stage.green().id;
    stage.weigh(100, 0).unwrap();
    stage.at(75).delete(&green).unwrap();
    assert_eq!(stage.broken(), ["S2"]);
    assert_eq!(stage.green().status, "DRAINING", "as AWS would, it does what it was told");
}

#[test]
fn s2_the_last_task_set() {
    let mut stage = Stage::new(Setup::default());
    let blue = stage.at(60).blue().id;
    stage.delete(&blue).unwrap();
    let what: Vec<_> = stage.world.violations().iter().map(ToString::to_string).collect();
    assert!(what.iter().any(|what| what.contains("S2") && what.contains("last task set")), "{what:#?}");
}

#[test]
fn s2_the_last_healthy_task_set() {
    let mut setup = Setup::default();
    let lost = Version { spot_interruption: Some(seconds(1)), start: Start::AtMost(0), ..Version::default() };
    setup.versions.insert("checkout:87".to_owned(), lost);
    let mut stage = canary_of(setup);
    let green = stage.green().id;
    stage.delete(&green).unwrap();
    let what: Vec<_> = stage.world.violations().iter().map(ToString::to_string).collect();
    assert!(what.iter().any(|what| what.contains("S2") && what.contains("last healthy")), "{what:#?}");
}

#[test]
fn s3_a_shift_onto_too_few_tasks() {
    let mut setup = Setup::default();
    setup.services[0].script.push((seconds(50), Act::ScaleTaskSet(Role::Blue, 50.0)));
    let mut stage = canary_of(setup);
    stage.at(100).weigh(100, 0).unwrap();
    assert_eq!(stage.broken(), ["S3"], "two tasks for what needs four");
}

#[test]
fn s3_any_blue_is_better_than_a_green_that_is_down() {
    let mut setup = green_is(Version { start: Start::AtMost(0), ..Version::default() });
    setup.services[0].script.push((seconds(50), Act::ScaleTaskSet(Role::Blue, 50.0)));
    let mut stage = canary_of(setup);
    stage.at(100).weigh(100, 0).unwrap();
    assert_eq!(stage.world.violations(), []);
}

#[test]
fn s3_a_delete_while_a_rule_still_sends_traffic() {
    let mut setup = Setup::default();
    setup.services[0].routes = vec![RouteSetup::default(), RouteSetup { path: None, ..RouteSetup::default() }];
    let mut stage = canary_of(setup);
    let green = stage.green().id;
    stage.weigh(100, 0).unwrap();
    stage.at(80).delete(&green).unwrap();
    assert_eq!(stage.broken(), ["S3"], "the listener's default action was forgotten");
}

fn scale(stage: &mut Stage, id: &str, scale: f64) {
    let (cluster, service) = ("prod".to_owned(), "checkout".to_owned());
    stage.call(Call::UpdateTaskSet { cluster, service, task_set: id.to_owned(), scale }).unwrap();
}

#[test]
fn s3_only_blue_is_scaled_and_only_upwards() {
    let mut stage = canary();
    let (blue, green) = (stage.blue().id, stage.green().id);
    scale(&mut stage, &blue, 100.0);
    assert_eq!(stage.world.violations(), []);
    scale(&mut stage, &blue, 50.0);
    assert_eq!(stage.broken(), ["S3"]);
    scale(&mut stage, &green, 100.0);
    assert_eq!(stage.broken(), ["S3", "S3"]);
}

#[test]
fn s2_green_is_never_promoted() {
    let mut stage = canary();
    let names = || ("prod".to_owned(), "checkout".to_owned());
    for (task_set, broken) in [(stage.blue().id, 0), (stage.green().id, 1)] {
        let (cluster, service) = names();
        stage.call(Call::SetPrimary { cluster, service, task_set }).unwrap();
        assert_eq!(stage.broken(), vec!["S2"; broken]);
    }
}

/// A queue worker whose blue was scaled to this.
fn worker(blue: f64) -> Stage {
    let mut service = ServiceSetup { balancer: BalancerKind::None, routes: Vec::new(), ..ServiceSetup::default() };
    service.script.push((seconds(30), Act::ScaleTaskSet(Role::Blue, blue)));
    let mut stage = Stage::new(creating(Setup { services: vec![service], ..Setup::default() }));
    stage.at(60);
    stage
}

#[test]
fn s3_a_worker_is_not_deleted_while_blue_can_not_do_its_work() {
    for (blue, broken) in [(100.0, vec![]), (50.0, vec!["S3"])] {
        let mut stage = worker(blue);
        let green = stage.green().id;
        stage.delete(&green).unwrap();
        assert_eq!(stage.broken(), broken, "blue at {blue} %");
    }
}

#[test]
fn s9_a_group_of_another_service() {
    let mut setup = Setup::default();
    setup.services.push(ServiceSetup { key: ServiceKey::new("prod", "cart"), ..ServiceSetup::default() });
    let mut stage = canary_of(setup);
    let call = Call::DescribeTargetGroups { arns: Vec::new() };
    let Ok(Reply::TargetGroups(groups)) = stage.call(call) else { panic!("no groups") };
    let foreign = groups.iter().find(|group| group.name == "cart-blue").unwrap().arn.clone();
    let blue = group(&mut stage, 0);
    stage.write(&[(blue, 1), (TargetGroupArn::new(foreign), 0)]).unwrap();
    assert_eq!(stage.broken(), ["S9"]);
}

#[test]
fn s9_the_weight_of_a_third_group() {
    let mut setup = Setup::default();
    setup.services.push(ServiceSetup { key: ServiceKey::new("prod", "cart"), ..ServiceSetup::default() });
    let mut stage = canary_of(setup);
    let third = stage.world.services[&ServiceKey::new("prod", "cart")].groups[0].clone();
    let third = TargetGroupArn::new(third);
    let rule = stage.rule();
    let at = stage.world.balancer.rules.iter().position(|known| known.arn == rule.arn).unwrap();
    let mut actions = rule.actions;
    for action in &mut actions {
        if let ActionKind::Forward(forward) = &mut action.kind {
            forward.groups.push(WeightedGroup { target_group: third.clone(), weight: Some(5) });
        }
    }
    stage.world.write_actions(at, actions);
    let (blue, green) = (group(&mut stage, 0), group(&mut stage, 1));
    stage.write(&[(blue.clone(), 95), (green.clone(), 0), (third.clone(), 5)]).unwrap();
    assert_eq!(stage.world.violations(), [], "its share of the whole is what it was");
    stage.write(&[(blue.clone(), 95), (green.clone(), 0), (third, 0)]).unwrap();
    assert_eq!(stage.broken(), ["S9"]);
    stage.write(&[(blue, 100), (green, 0)]).unwrap();
    assert_eq!(stage.broken(), ["S9", "S9"], "nor may it be dropped");
}

#[test]
fn s9_a_third_share_may_be_rounded_but_not_lost() {
    let mut setup = Setup::default();
    setup.services[0].routes = vec![RouteSetup { third: Some(7), ..RouteSetup::default() }];
    setup.services[0].script.push((seconds(50), Act::SetWeights { blue: 900, green: 900 }));
    let mut stage = canary_of(setup);
    let [blue, green, third] = [0, 1, 2].map(|at| group(&mut stage, at));
    stage.write(&[(blue.clone(), 999), (green.clone(), 0), (third.clone(), 4)]).unwrap();
    assert_eq!(stage.world.violations(), [], "scaled down together, for weights end at 999");
    stage.write(&[(blue.clone(), 999), (green.clone(), 0), (third.clone(), 40)]).unwrap();
    assert_eq!(stage.broken(), ["S9"]);
    stage.write(&[(blue, 999), (green, 0), (third, 0)]).unwrap();
    assert_eq!(stage.broken(), ["S9", "S9"], "nobody with a share loses all of it");
}

#[test]
fn s9_actions_that_are_not_ours() {
    let mut setup = Setup::default();
    setup.services[0].routes = vec![RouteSetup { authenticated: true, ..RouteSetup::default() }];
    let mut stage = canary_of(setup);
    let mut rule = stage.rule();
    let login = rule.actions.clone();
    let without_secret = Call::ModifyRule { rule: rule.arn.clone(), actions: login };
    assert_eq!(code(stage.call(without_secret)), "InvalidLoadBalancerAction");
    rule.actions.retain(|action| matches!(action.kind, ActionKind::Forward(_)));
    stage.call(Call::ModifyRule { rule: rule.arn, actions: rule.actions }).unwrap();
    assert_eq!(stage.broken(), ["S9"], "the login was dropped");
}

#[test]
fn s12_any_write_where_none_is_allowed() {
    let mut stage = canary_of(Setup { expect_no_writes: true, ..Setup::default() });
    assert_eq!(stage.broken(), [""; 0], "the deployer may");
    stage.weigh(100, 0).unwrap();
    assert_eq!(stage.broken(), ["S12"]);
}

#[test]
fn s12_more_than_the_contract_of_green_allows() {
    let with = |contract: Contract| {
        let tags = BTreeMap::from([(tags::CONTRACT.to_owned(), contract.as_str().to_owned())]);
        let mut stage = canary_of(green_is(Version { tags, ..Version::default() }));
        let green = stage.green().id;
        stage.weigh(100, 0).unwrap();
        stage.at(80).delete(&green).unwrap();
        stage.broken()
    };
    assert_eq!(with(Contract::Full), [""; 0]);
    assert_eq!(with(Contract::WeightsOnly), ["S12"], "it is to be left for inspection");
    assert_eq!(with(Contract::Page), ["S12", "S12"]);
}

#[test]
fn s13_a_delete_before_the_drain_is_over() {
    let mut stage = canary();
    let green = stage.green().id;
    stage.weigh(100, 0).unwrap();
    stage.at(70).weigh(100, 0).expect("the same again is no shift");
    stage.at(74).delete(&green).unwrap();
    assert_eq!(stage.broken(), ["S13"]);
}

#[test]
fn s13_a_green_without_tasks_needs_no_drain() {
    let mut stage = canary_of(green_is(Version { start: Start::AtMost(0), ..Version::default() }));
    let green = stage.green().id;
    stage.weigh(100, 0).unwrap();
    stage.at(61).delete(&green).unwrap();
    assert_eq!(stage.world.violations(), []);
}

#[test]
fn s10_a_second_reassert_against_somebody_else() {
    let mut setup = Setup::default();
    let back = Act::SetWeights { blue: 50, green: 50 };
    setup.services[0].reactions =
        vec![Reaction { to: "ModifyRule".to_owned(), after: seconds(2), act: back, times: 5 }];
    let mut stage = canary_of(setup);
    stage.weigh(100, 0).unwrap();
    stage.at(61).weigh(100, 0).expect("the same again, before anybody came between");
    stage.at(70).weigh(100, 0).unwrap();
    assert_eq!(stage.broken(), [""; 0], "once more is right");
    stage.at(80).weigh(100, 0).unwrap();
    assert_eq!(stage.broken(), ["S10"]);
}

#[test]
fn s10_a_deployer_who_moves_on_is_no_dispute() {
    let mut setup = Setup::default();
    setup.services[0].script.push((seconds(70), Act::SetWeights { blue: 10, green: 90 }));
    let mut stage = canary_of(setup);
    stage.weigh(80, 10).unwrap();
    stage.at(90).weigh(100, 0).unwrap();
    assert_eq!(stage.world.violations(), []);
}

#[test]
fn s11_more_services_changed_than_the_brake_allows() {
    let service = |name: &str| ServiceSetup { key: ServiceKey::new("prod", name), ..ServiceSetup::default() };
    let services = ["checkout", "cart", "search"].map(service).to_vec();
    let mut stage = Stage::new(Setup { services, brake: Some(1), ..Setup::default() });
    let touch = |stage: &mut Stage, name: &str| {
        let call = Call::DescribeServices { cluster: "prod".to_owned(), services: vec![name.to_owned()] };
        let Ok(Reply::Services { services, .. }) = stage.call(call) else { panic!("no service") };
        let task_set = services[0].task_sets[0].id.clone();
        let (cluster, service) = ("prod".to_owned(), name.to_owned());
        stage.call(Call::UpdateTaskSet { cluster, service, task_set, scale: 100.0 }).unwrap();
        stage.broken().len()
    };
    assert_eq!((touch(&mut stage, "checkout"), touch(stage.at(60), "checkout")), (0, 0));
    assert_eq!((touch(&mut stage, "cart"), touch(&mut stage, "cart")), (1, 1), "said once");
    assert_eq!(touch(stage.at(700), "search"), 1, "ten minutes later it is a day like any other");
    assert_eq!(stage.broken(), ["S11"]);
}

#[test]
fn s13_a_task_that_never_had_users_needs_no_drain() {
    let crash = Crash { after: seconds(3), exit_code: 1, out_of_memory: false };
    let mut stage = canary_of(green_is(Version { crash: Some(crash), ..Version::default() }));
    let green = stage.green().id;
    stage.weigh(100, 0).unwrap();
    let young = (61..75).find(|second| stage.at(*second).green().running > 0).unwrap();
    assert!(young > 63, "those that ran at the shift have crashed by then");
    stage.delete(&green).unwrap();
    assert_eq!(stage.world.violations(), []);
}

#[test]
fn s13_and_s3_behind_a_network_load_balancer() {
    let route = RouteSetup { path: None, listener: ListenerKind::Https, ..RouteSetup::default() };
    let service = ServiceSetup { balancer: BalancerKind::Network, routes: vec![route], ..ServiceSetup::default() };
    let mut stage = canary_of(Setup { services: vec![service], ..Setup::default() });
    let green = stage.green().id;
    let Ok(Reply::Listeners(listeners)) = stage.call(Call::DescribeListeners { load_balancer: None, arns: Vec::new() })
    else {
        panic!("no listeners")
    };
    let (listener, mut default_actions) = (listeners[0].arn.clone(), listeners[0].default_actions.clone());
    if let ActionKind::Forward(forward) = &mut default_actions[0].kind {
        (forward.groups[0].weight, forward.groups[1].weight) = (Some(100), Some(0));
    }
    stage.call(Call::ModifyListener { listener, default_actions }).unwrap();
    stage.at(70).delete(&green).unwrap();
    assert_eq!(stage.broken(), ["S13"]);
}
