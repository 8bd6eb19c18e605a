//! Listeners, rules and target groups: every shape in which traffic comes to a service.

use super::super::{BalancerKind, Guard, ListenerKind, RouteSetup, ServiceSetup};
use super::*;
use crate::model::Role;
use crate::sandbox::api::ListenerView;

fn routed(routes: Vec<RouteSetup>) -> Setup {
    creating(Setup { services: vec![ServiceSetup { routes, ..ServiceSetup::default() }], ..Setup::default() })
}

fn rules(stage: &mut Stage) -> Vec<RuleView> {
    match stage.call(Call::DescribeRules { listener: None, arns: Vec::new() }) {
        Ok(Reply::Rules(rules)) => rules,
        other => panic!("{other:?}"),
    }
}

fn listeners(stage: &mut Stage, load_balancer: Option<String>) -> Vec<ListenerView> {
    match stage.call(Call::DescribeListeners { load_balancer, arns: Vec::new() }) {
        Ok(Reply::Listeners(listeners)) => listeners,
        other => panic!("{other:?}"),
    }
}

fn states(stage: &mut Stage, target_group: &str) -> Vec<String> {
    match stage.call(Call::DescribeTargetHealth { target_group: target_group.to_owned() }) {
        Ok(Reply::Targets(targets)) => targets.into_iter().map(|target| target.state).collect(),
        other => panic!("{other:?}"),
    }
}

fn kinds(actions: &[Action]) -> Vec<&str> {
    let kind = |action: &Action| match &action.kind {
        ActionKind::Forward(_) => "forward".to_owned(),
        ActionKind::Kept(kept) => kept.kind.to_string(),
    };
    let names = ["authenticate-oidc", "authenticate-cognito", "jwt-validation", "forward"];
    actions.iter().filter_map(|action| names.into_iter().find(|name| *name == kind(action))).collect()
}

#[test]
fn a_service_has_listeners_for_users_and_one_for_tests() {
    let route =
        |listener, path: Option<&str>| RouteSetup { listener, path: path.map(str::to_owned), ..RouteSetup::default() };
    let mut stage = Stage::new(routed(vec![
        route(ListenerKind::Https, Some("/api/*")),
        route(ListenerKind::Https, None),
        route(ListenerKind::Http, None),
        route(ListenerKind::Test, None),
    ]));
    let found = listeners(&mut stage, None);
    let mut shown: Vec<_> = found.iter().map(|listener| (listener.port, listener.protocol.as_str())).collect();
    shown.sort_unstable();
    assert_eq!(shown, [(80, "HTTP"), (443, "HTTPS"), (8443, "HTTPS")]);
    assert_eq!(rules(&mut stage).len(), 4);

    // Deployers try green on the test listener first, which no user sees.
    let test = found.iter().find(|listener| listener.port == 8443).unwrap();
    let mut actions = test.default_actions.clone();
    if let ActionKind::Forward(forward) = &mut actions[0].kind {
        forward.groups[0].weight = Some(0);
        forward.groups[1].weight = Some(100);
    }
    stage.at(60);
    let call = Call::ModifyListener { listener: test.arn.clone(), default_actions: actions };
    stage.call(call).unwrap();
    stage.at(80);
    assert!(stage.green_share() < 0.001);
    let configured = stage.world.traffic(&key()).unwrap().configured;
    assert!((configured.blue - 1.0).abs() < 1e-9, "{configured:?}");
}

#[test]
fn other_actions_before_the_forward_are_answered_in_order() {
    let route = RouteSetup { authenticated: true, guards: vec![Guard::Cognito, Guard::Jwt], ..RouteSetup::default() };
    let mut stage = Stage::new(routed(vec![route]));
    let rule = stage.rule();
    assert_eq!(kinds(&rule.actions), ["authenticate-oidc", "authenticate-cognito", "jwt-validation", "forward"]);
    assert_eq!(rule.actions.iter().map(|action| action.order).collect::<Vec<_>>(), [1, 2, 3, 4].map(Some));
}

#[test]
fn a_third_service_shares_an_action_and_some_of_the_users() {
    let mut stage = Stage::new(routed(vec![RouteSetup { third: Some(100), ..RouteSetup::default() }]));
    stage.at(10);
    let forward = forward(&stage.rule().actions).clone();
    let weights: Vec<_> = forward.groups.iter().map(|group| group.weight).collect();
    assert_eq!(weights, [Some(100), Some(0), Some(100)]);
    assert!(forward.groups[2].target_group.name().contains("legacy"), "{forward:?}");
    let blue = stage.world.traffic(&key()).unwrap().configured.blue;
    assert!((blue - 0.5).abs() < 1e-9, "{blue}");
}

#[test]
fn a_group_that_is_in_no_rule_has_unused_targets_until_its_health_is_known_again() {
    let mut stage = Stage::new(routed(vec![RouteSetup { only: Some(Role::Blue), ..RouteSetup::default() }]));
    stage.at(12);
    assert_eq!(stage.service().task_sets.len(), 1, "a group that is in no rule takes no task set");

    let mut stage = Stage::new(routed(vec![RouteSetup { sticky: Some(seconds(60)), ..RouteSetup::default() }]));
    stage.at(60);
    let (blue, green) = (stage.blue().target_group.unwrap(), stage.green().target_group.unwrap());
    stage.world.act(&key(), &Act::ForwardTo(Role::Green));
    stage.at(70);
    assert!(stage.green_share() > 0.999, "cookies can't lead to a group that is not named");
    assert_eq!(forward(&stage.rule().actions).groups.len(), 1);
    assert_eq!(
        (states(&mut stage, &blue), states(&mut stage, &green)),
        (vec!["unused".to_owned(); 4], vec!["healthy".to_owned(); 4])
    );
    let call = Call::DescribeTargetGroups { arns: vec![blue.clone()] };
    let Ok(Reply::TargetGroups(groups)) = stage.call(call) else { panic!("no group") };
    assert!(groups[0].load_balancers.is_empty());

    let pair = [(TargetGroupArn::new(&blue), 0), (TargetGroupArn::new(&green), 100)];
    stage.write(&pair).unwrap();
    assert_eq!(states(&mut stage, &blue), vec!["initial"; 4]);
    stage.at(85);
    assert_eq!(states(&mut stage, &blue), vec!["healthy"; 4]);
}

#[test]
fn cookies_lead_to_a_group_without_healthy_targets_as_long_as_it_is_named() {
    let mut setup = routed(vec![RouteSetup { sticky: Some(seconds(3600)), ..RouteSetup::default() }]);
    setup.services[0].script.push((seconds(45), Act::SetWeights { blue: 50, green: 50 }));
    let mut stage = Stage::new(setup);
    let green = stage.at(120).green().id;
    stage.delete(&green).unwrap();
    stage.weigh(100, 0).unwrap();
    stage.at(160);
    let before = stage.world.traffic(&key()).unwrap();
    let failing = |stage: &Stage| stage.world.traffic(&key()).unwrap().failed() - before.failed();
    stage.at(170);
    assert!(failing(&stage) > 100, "weight 0, and yet users get 503: {}", failing(&stage));
    let blue = forward(&stage.rule().actions).groups[0].target_group.clone();
    stage.write(&[(blue, 1)]).unwrap();
    stage.at(180);
    let before = failing(&stage);
    stage.at(190);
    assert!(failing(&stage) - before < 10);
}

#[test]
fn a_network_load_balancer_has_default_actions_alone() {
    let mut setup = routed(vec![RouteSetup { path: None, ..RouteSetup::default() }]);
    setup.services[0].balancer = BalancerKind::Network;
    let mut stage = Stage::new(setup);
    let group = stage.at(60).green().target_group.unwrap();
    let Ok(Reply::TargetGroups(groups)) = stage.call(Call::DescribeTargetGroups { arns: vec![group] }) else {
        panic!("no group")
    };
    let balancer = groups[0].load_balancers[0].clone();
    assert!(balancer.contains(":loadbalancer/net/edge/"), "{balancer}");
    let listener = listeners(&mut stage, Some(balancer)).remove(0);
    assert!(listener.arn.contains(":listener/net/edge/") && listener.protocol == "TCP", "{listener:?}");
    let rule = rules(&mut stage).remove(0);
    assert!(rule.is_default && rule.actions == listener.default_actions);

    let mut actions = listener.default_actions.clone();
    let modify =
        |actions: &[Action]| Call::ModifyListener { listener: listener.arn.clone(), default_actions: actions.to_vec() };
    if let ActionKind::Forward(forward) = &mut actions[0].kind {
        (forward.groups[0].weight, forward.groups[1].weight) = (Some(0), Some(100));
    }
    stage.call(modify(&actions)).unwrap();
    stage.at(70);
    assert!(stage.green_share() > 0.99);
    if let ActionKind::Forward(forward) = &mut actions[0].kind {
        let stickiness = forward.stickiness.as_mut().unwrap();
        (stickiness.enabled, stickiness.duration_seconds) = (Some(true), Some(60));
    }
    assert_eq!(code(stage.call(modify(&actions))), "ValidationError", "only an ALB's stickiness lasts for a time");
    assert_eq!(code(stage.call(Call::ModifyRule { rule: rule.arn, actions })), "OperationNotPermitted");
}

#[test]
fn target_stickiness_demands_a_sticky_rule_where_several_groups_are_named() {
    let mut setup = routed(vec![RouteSetup { sticky: Some(seconds(60)), ..RouteSetup::default() }]);
    setup.services[0].sticky_targets = true;
    let mut stage = Stage::new(setup);
    let mut rule = stage.at(60).rule();
    let modify = |rule: &RuleView| Call::ModifyRule { rule: rule.arn.clone(), actions: rule.actions.clone() };
    let mut forward = forward(&rule.actions).clone();
    forward.stickiness = None;
    rule.actions[0].kind = ActionKind::Forward(forward.clone());
    assert_eq!(code(stage.call(modify(&rule))), "InvalidLoadBalancerAction");
    forward.groups.truncate(1);
    rule.actions[0].kind = ActionKind::Forward(forward);
    assert_eq!(code(stage.call(modify(&rule))), "", "alone it needs none");
}

#[test]
fn stickiness_of_an_application_load_balancer_lasts_for_a_time() {
    let mut stage = Stage::new(routed(vec![RouteSetup { sticky: Some(seconds(60)), ..RouteSetup::default() }]));
    for lasts in [None, Some(0), Some(604_801)] {
        let mut rule = stage.rule();
        if let ActionKind::Forward(forward) = &mut rule.actions[0].kind {
            forward.stickiness.as_mut().unwrap().duration_seconds = lasts;
        }
        let call = Call::ModifyRule { rule: rule.arn, actions: rule.actions };
        assert_eq!(code(stage.call(call)), "ValidationError", "{lasts:?}");
    }
}

#[test]
fn several_actions_are_taken_in_their_order_and_the_forward_is_the_last() {
    let mut stage =
        Stage::new(routed(vec![RouteSetup { guards: vec![Guard::Cognito, Guard::Jwt], ..RouteSetup::default() }]));
    let rule = stage.rule();
    let refused = |stage: &mut Stage, orders: [Option<i32>; 3]| {
        let mut actions = rule.actions.clone();
        actions.iter_mut().zip(orders).for_each(|(action, order)| action.order = order);
        code(stage.call(Call::ModifyRule { rule: rule.arn.clone(), actions }))
    };
    assert_eq!(refused(&mut stage, [Some(1), Some(2), Some(9)]), "");
    for orders in [[None, None, None], [Some(1), Some(1), Some(2)], [Some(2), Some(3), Some(1)]] {
        assert_eq!(refused(&mut stage, orders), "InvalidLoadBalancerAction", "{orders:?}");
    }
}

#[test]
fn twenty_target_groups_are_described_in_one_call() {
    let mut stage = Stage::new(routed(vec![RouteSetup::default()]));
    let group = forward(&stage.rule().actions).groups[0].target_group.to_string();
    let describe = |count| Call::DescribeTargetGroups { arns: vec![group.clone(); count] };
    assert_eq!(code(stage.call(describe(20))), "");
    assert_eq!(code(stage.call(describe(21))), "ValidationError");
}
