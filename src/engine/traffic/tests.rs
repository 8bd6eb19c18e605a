#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::model::{ListenerArn, RuleArn, Stickiness};

fn group(name: &str) -> TargetGroupArn {
    TargetGroupArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/{name}/1"))
}

fn kept(kind: &str, member: &str) -> ActionKind {
    let config = Map::from_iter([(member.to_owned(), json!({ "Issuer": "https://login.example.com" }))]);
    ActionKind::Kept(KeptAction { kind: Arc::from(kind), config })
}

fn login() -> ActionKind {
    kept("authenticate-oidc", "AuthenticateOidcConfig")
}

fn forward(weights: &[(&str, Option<u32>)], sticky: bool) -> Forward {
    let groups =
        weights.iter().map(|(name, weight)| WeightedGroup { target_group: group(name), weight: *weight }).collect();
    let stickiness = Some(Stickiness { enabled: Some(sticky), duration_seconds: sticky.then_some(600) });
    Forward { groups, stickiness }
}

fn rule(kinds: Vec<ActionKind>) -> TrafficRule {
    TrafficRule {
        id: TrafficRuleId::Rule(RuleArn::new("r")),
        listener: ListenerArn::new("l"),
        priority: Arc::from("1"),
        actions: (1..).zip(kinds).map(|(order, kind)| Action { order: Some(order), kind }).collect(),
        unread: None,
    }
}

/// What comes of one rule when the function rewrites it.
fn applied(before: &TrafficRule, writes: &[Write]) -> TrafficRule {
    assert!(writes.len() <= 1);
    let mut after = before.clone();
    for write in writes {
        let Write::SetActions { rule, found, actions } = write else { panic!("not a rule") };
        assert_eq!((rule, found), (&before.id, &before.actions));
        after.actions.clone_from(actions);
    }
    after
}

fn writes(rule: &TrafficRule, cut: Cut) -> Result<Vec<Write>, NotUnderstood> {
    let (blue, green) = (group("blue"), group("green"));
    shift(&Traffic::Rules(vec![rule.clone()]), Pair { blue: Some(&blue), green: Some(&green) }, cut)
}

fn shifted(weights: &[(&str, Option<u32>)], sticky: bool) -> Option<Vec<(String, u32)>> {
    let before = rule(vec![login(), ActionKind::Forward(forward(weights, sticky))]);
    let found = writes(&before, Cut::Out).unwrap();
    let after = applied(&before, &found);
    let weight = |g: &WeightedGroup| (g.target_group.name().to_owned(), g.effective_weight());
    (!found.is_empty()).then(|| after.forwards().flat_map(|f| &f.groups).map(weight).collect())
}

fn groups(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

#[test]
fn greens_share_goes_to_blue() {
    type Weights<T> = &'static [(&'static str, T)];
    let cases: [(Weights<Option<u32>>, Weights<u32>); 4] = [
        (&[("blue", Some(90)), ("green", Some(10))], &[("blue", 100), ("green", 0)]),
        (&[("blue", Some(0)), ("green", Some(1))], &[("blue", 1), ("green", 0)]),
        (&[("green", None)], &[("blue", 1), ("green", 0)]),
        (&[("blue", Some(0)), ("green", Some(0))], &[("blue", 1), ("green", 0)]),
    ];
    for (before, after) in cases {
        assert_eq!(shifted(before, false), Some(groups(after)), "{before:?}");
    }
}

#[test]
fn a_rule_that_is_right_is_left_alone() {
    assert_eq!(shifted(&[("blue", Some(5)), ("green", Some(0))], false), None);
    assert_eq!(shifted(&[("blue", Some(5))], true), None);
}

#[test]
fn a_sticky_rule_names_green_no_more_until_green_is_gone() {
    assert_eq!(shifted(&[("blue", Some(90)), ("green", Some(10))], true), Some(groups(&[("blue", 100)])));
    let pair = rule(vec![ActionKind::Forward(forward(&[("blue", Some(100)), ("green", Some(0))], true))]);
    assert_eq!(writes(&pair, Cut::Out).map(|writes| writes.len()), Ok(1), "a cookie outranks weight 0");
    assert_eq!(writes(&pair, Cut::Weight), Ok(Vec::new()), "nobody is left for it to lead to");
}

#[test]
fn a_blue_that_no_rule_names_is_named_first_and_gets_nothing_yet() {
    let before = rule(vec![ActionKind::Forward(forward(&[("green", None)], false))]);
    let (blue, green) = (group("blue"), group("green"));
    let pair = Pair { blue: Some(&blue), green: Some(&green) };
    let after = applied(&before, &introduce(&Traffic::Rules(vec![before.clone()]), pair).unwrap());
    let shares: Vec<_> = after.forwards().flat_map(|f| [f.share(&blue), f.share(&green)]).collect();
    assert!(after.names(&blue) && shares == [0.0, 1.0], "{after:?}");
    assert_eq!(introduce(&Traffic::Rules(vec![after]), pair), Ok(Vec::new()));
}

#[test]
fn shapes_that_are_not_understood_are_refused() {
    let (blue, green) = (group("blue"), group("green"));
    let shift = |rules: Vec<TrafficRule>, blue, green| shift(&Traffic::Rules(rules), Pair { blue, green }, Cut::Out);
    assert!(shift(Vec::new(), Some(&blue), Some(&green)).is_err(), "no rule");
    assert!(shift(Vec::new(), Some(&green), Some(&green)).is_err(), "one group for both");
    assert!(shift(Vec::new(), None, Some(&green)).is_err(), "blue has none");
    assert!(shift(Vec::new(), None, None).is_ok(), "no load balancer");
    let plain = || ActionKind::Forward(forward(&[("blue", Some(90)), ("green", Some(10))], false));
    let twice = ActionKind::Forward(forward(&[("green", Some(1)), ("green", Some(2)), ("blue", Some(1))], false));
    let unknown = ActionKind::Kept(KeptAction { kind: Arc::from("authenticate-by-song"), config: Map::new() });
    let full: Vec<_> = ["a", "b", "c", "d", "green"].into_iter().map(|name| (name, Some(1))).collect();
    for (what, kinds) in [
        ("a group named twice", vec![twice]),
        ("two forwards", vec![plain(), plain()]),
        ("an action that can't be sent back", vec![unknown, plain()]),
        ("no room for blue", vec![ActionKind::Forward(forward(&full, false))]),
    ] {
        assert!(shift(vec![rule(kinds)], Some(&blue), Some(&green)).is_err(), "{what}");
    }
    assert!(shift(vec![rule(vec![login(), plain()])], Some(&blue), Some(&green)).is_ok());
}

/// Any list of actions that ELB can return and that names green.
fn any_rule() -> impl Strategy<Value = TrafficRule> {
    let weight = prop_oneof![Just(None), (0_u32..=999).prop_map(Some)];
    let name = prop::sample::subsequence(vec!["third", "blue", "green", "fourth"], 1..=4).prop_shuffle();
    let named = name.prop_filter("green is named", |names| names.contains(&"green"));
    let stickiness = prop_oneof![
        Just(None),
        (any::<Option<bool>>(), prop::option::of(1_i32..604_800))
            .prop_map(|(enabled, duration_seconds)| Some(Stickiness { enabled, duration_seconds })),
    ];
    let before = prop::collection::vec(
        prop_oneof![
            Just(login()),
            Just(kept("authenticate-cognito", "AuthenticateCognitoConfig")),
            Just(kept("jwt-validation", "JwtValidationConfig")),
        ],
        0..=1,
    );
    let orders = (any::<bool>(), 1_i32..50_000);
    (named, prop::collection::vec(weight, 4), stickiness, before, orders).prop_map(
        |(names, weights, stickiness, kinds, (ordered, first))| {
            let groups = names.iter().zip(weights);
            let groups = groups.map(|(name, weight)| WeightedGroup { target_group: group(name), weight }).collect();
            let mut rule =
                rule(kinds.into_iter().chain([ActionKind::Forward(Forward { groups, stickiness })]).collect());
            for (action, order) in rule.actions.iter_mut().zip(first..) {
                action.order = ordered.then_some(order);
            }
            rule
        },
    )
}

fn is_ours(group: &WeightedGroup) -> bool {
    ["blue", "green"].contains(&group.target_group.name())
}

/// The rule without what a rollback may change: the two groups, and the weights of the others, which are compared as
/// shares.
fn rest(rule: &TrafficRule) -> TrafficRule {
    let mut rule = rule.clone();
    for action in &mut rule.actions {
        if let ActionKind::Forward(forward) = &mut action.kind {
            forward.groups.retain(|group| !is_ours(group));
            forward.groups.iter_mut().for_each(|group| group.weight = None);
        }
    }
    rule
}

fn names(rule: &TrafficRule) -> Vec<&str> {
    rule.forwards().flat_map(|f| &f.groups).map(|g| g.target_group.name()).collect()
}

proptest! {
    #[test]
    fn a_rewrite_touches_the_two_groups_alone_and_a_second_one_finds_nothing_to_do(before in any_rule()) {
        let (blue, green) = (group("blue"), group("green"));
        let share = |rule: &TrafficRule, of: &TargetGroupArn| rule.forwards().map(|f| f.share(of)).sum::<f64>();
        let sticky = before.forwards().any(Forward::is_sticky);
        let after = applied(&before, &writes(&before, Cut::Out).unwrap());

        prop_assert_eq!(rest(&after), rest(&before));
        prop_assert!(share(&after, &green) == 0.0);
        prop_assert_eq!(after.names(&green), !sticky);
        prop_assert!(after.forwards().flat_map(|f| &f.groups).all(|g| g.effective_weight() <= MAX_WEIGHT));
        prop_assert!(after.forwards().flat_map(|f| &f.groups).any(|g| g.effective_weight() > 0), "routes somewhere");
        let weights = |rule: &TrafficRule| {
            let groups = rule.forwards().flat_map(|f| &f.groups).filter(|g| !is_ours(g));
            groups.map(|g| g.weight).collect::<Vec<_>>()
        };
        let of_pair: u32 = before.forwards().flat_map(|f| &f.groups).filter(|g| is_ours(g)).map(WeightedGroup::effective_weight).sum();
        if of_pair <= MAX_WEIGHT {
            prop_assert_eq!(weights(&after), weights(&before), "to the byte");
        }
        if before.forwards().flat_map(|f| &f.groups).any(|g| g.effective_weight() > 0) {
            for other in [group("third"), group("fourth")] {
                prop_assert!((share(&after, &other) - share(&before, &other)).abs() < 0.01);
            }
        }
        prop_assert_eq!(writes(&after, Cut::Out), Ok(Vec::new()));

        let place = seat(Some(&green), &before.actions, &after.actions);
        prop_assert_eq!(place.is_some(), sticky);
        let seats = Seats::from_iter(place.map(|place| (before.id.clone(), place)));
        let traffic = |rule: &TrafficRule| Traffic::Rules(vec![rule.clone()]);
        let pair = Pair { blue: Some(&blue), green: Some(&green) };
        let restored = applied(&after, &restore(&traffic(&after), pair, &seats));
        prop_assert_eq!(rest(&restored), rest(&before));
        if before.names(&blue) {
            prop_assert_eq!(names(&restored), names(&before), "every group is in its place");
        }
        prop_assert!(restored.names(&green));
        // Where green had nothing to lose, blue has nothing to gain.
        prop_assert!(restored.names(&blue) || (!before.names(&blue) && share(&before, &green) == 0.0));
        prop_assert!(share(&restored, &green) == 0.0);
        prop_assert!((share(&restored, &blue) - share(&after, &blue)).abs() < 1e-9);
        prop_assert_eq!(writes(&restored, Cut::Weight), Ok(Vec::new()));
        prop_assert!(restore(&traffic(&restored), pair, &seats).is_empty());
    }
}
