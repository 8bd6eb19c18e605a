//! From rules as they are to rules with green's share on blue: which writes are needed, and whether any is.

use std::collections::BTreeSet;

use crate::model::{
    Action, ActionKind, Forward, TargetGroupArn, Traffic, TrafficRule, TrafficRuleId, WeightedGroup, Write,
};

/// The greatest weight that Elastic Load Balancing takes.
const MAX_WEIGHT: u32 = 999;

/// What is left to do until no rule sends anything to green.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shift {
    /// Writes that are still needed. Empty: every rule agrees, traffic is safe.
    pub(super) writes: Vec<Write>,
}

/// A shape that is not understood, so that nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotUnderstood(pub(super) String);

/// What is needed so that no rule sends anything to green any more.
///
/// Every other group keeps its share, every other action, order and stickiness stay. In a sticky rule green's group is
/// taken out altogether, because the cookie outranks weight 0.
pub(super) fn shift(
    traffic: &Traffic,
    blue: Option<&TargetGroupArn>,
    green: Option<&TargetGroupArn>,
) -> Result<Shift, NotUnderstood> {
    let Some(green) = green else {
        return Ok(Shift { writes: Vec::new() });
    };
    let Some(blue) = blue else {
        return Err(NotUnderstood("blue has no target group, so there is nowhere to shift green's traffic".to_owned()));
    };
    if blue == green {
        return Err(NotUnderstood(format!(
            "blue and green share the target group {}: weights can't tell them apart",
            green.name()
        )));
    }
    let rules = traffic.rules();
    if !rules.iter().any(|rule| rule.names(blue) || rule.names(green)) {
        return Err(NotUnderstood(format!(
            "no listener rule forwards to {} or {}: where their traffic comes from is unknown",
            blue.name(),
            green.name()
        )));
    }
    let mut writes = Vec::new();
    for rule in rules.iter().filter(|rule| rule.names(green)) {
        let actions = rewritten(rule, blue, green)?;
        if actions != rule.actions {
            writes.push(Write::SetActions { rule: rule.id.clone(), found: rule.actions.clone(), actions });
        }
    }
    Ok(Shift { writes })
}

/// Rules that a set of writes addresses.
pub(super) fn addressed(writes: &[Write]) -> BTreeSet<&TrafficRuleId> {
    writes
        .iter()
        .filter_map(|write| match write {
            Write::SetActions { rule, .. } => Some(rule),
            Write::ScaleTaskSet { .. } | Write::SetPrimary { .. } | Write::DeleteTaskSet { .. } => None,
        })
        .collect()
}

fn rewritten(rule: &TrafficRule, blue: &TargetGroupArn, green: &TargetGroupArn) -> Result<Vec<Action>, NotUnderstood> {
    let forwards = rule.forwards().count();
    if forwards != 1 {
        return Err(NotUnderstood(format!("{} has {forwards} forward actions instead of one", rule.id)));
    }
    rule.actions
        .iter()
        .map(|action| {
            let kind = match &action.kind {
                ActionKind::Forward(forward) => ActionKind::Forward(on_blue(rule, forward, blue, green)?),
                kept @ ActionKind::Kept(_) => kept.clone(),
            };
            Ok(Action { order: action.order, kind })
        })
        .collect()
}

fn on_blue(
    rule: &TrafficRule,
    forward: &Forward,
    blue: &TargetGroupArn,
    green: &TargetGroupArn,
) -> Result<Forward, NotUnderstood> {
    let mut names = BTreeSet::new();
    if let Some(twice) = forward.groups.iter().find(|group| !names.insert(&group.target_group)) {
        return Err(NotUnderstood(format!("{} names {} twice", rule.id, twice.target_group.name())));
    }
    let weight = |wanted: &TargetGroupArn| {
        forward.groups.iter().find(|group| group.target_group == *wanted).map_or(0, WeightedGroup::effective_weight)
    };
    let (of_blue, of_green) = (weight(blue), weight(green));
    let others: u64 = forward
        .groups
        .iter()
        .filter(|group| group.target_group != *blue && group.target_group != *green)
        .map(|group| u64::from(group.effective_weight()))
        .sum();
    // Alone, blue must not be left with weight 0: the rule would route nowhere.
    let for_blue = match of_blue.saturating_add(of_green) {
        0 if others == 0 => 1,
        sum => sum,
    };
    let already = of_green == 0 && of_blue == for_blue;
    if already && !forward.is_sticky() {
        return Ok(forward.clone());
    }
    // Scaled down together, should the sum not fit: shares stay, and nobody with a share loses all of it.
    let fit = |weight: u32| match for_blue {
        0..=MAX_WEIGHT => weight,
        sum => (weight.saturating_mul(MAX_WEIGHT) / sum).max(u32::from(weight > 0)),
    };
    let mut groups = Vec::with_capacity(forward.groups.len());
    let mut blue_placed = false;
    for group in &forward.groups {
        let target = &group.target_group;
        if target == blue {
            blue_placed = true;
            groups.push(WeightedGroup { target_group: blue.clone(), weight: Some(fit(for_blue)) });
        } else if target == green {
            if !forward.is_sticky() {
                groups.push(WeightedGroup { target_group: green.clone(), weight: Some(0) });
            }
        } else {
            let weight = if for_blue > MAX_WEIGHT { Some(fit(group.effective_weight())) } else { group.weight };
            groups.push(WeightedGroup { target_group: target.clone(), weight });
        }
    }
    if !blue_placed {
        groups.insert(0, WeightedGroup { target_group: blue.clone(), weight: Some(fit(for_blue)) });
    }
    if groups.len() > 5 {
        return Err(NotUnderstood(format!("{} has no room for blue: five target groups already", rule.id)));
    }
    Ok(Forward { groups, stickiness: forward.stickiness.clone() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{KeptAction, ListenerArn, RuleArn, Stickiness};

    fn group(name: &str) -> TargetGroupArn {
        TargetGroupArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/{name}/1"))
    }

    fn rule(weights: &[(&str, Option<u32>)], sticky: bool) -> TrafficRule {
        let groups =
            weights.iter().map(|(name, weight)| WeightedGroup { target_group: group(name), weight: *weight }).collect();
        let login = KeptAction { kind: Arc::from("authenticate-oidc"), config: serde_json::Map::new() };
        let stickiness = Some(Stickiness { enabled: Some(sticky), duration_seconds: sticky.then_some(600) });
        TrafficRule {
            id: TrafficRuleId::Rule(RuleArn::new("r")),
            listener: ListenerArn::new("l"),
            priority: Arc::from("1"),
            actions: vec![
                Action { order: Some(1), kind: ActionKind::Kept(login) },
                Action { order: Some(2), kind: ActionKind::Forward(Forward { groups, stickiness }) },
            ],
        }
    }

    fn shifted(weights: &[(&str, Option<u32>)], sticky: bool) -> Option<Vec<(String, u32)>> {
        let traffic = Traffic::Rules(vec![rule(weights, sticky)]);
        let found = shift(&traffic, Some(&group("blue")), Some(&group("green"))).unwrap();
        found.writes.first().map(|write| {
            let Write::SetActions { found, actions, .. } = write else { panic!("not a rule") };
            assert_eq!(actions.first(), found.first(), "the other action stays");
            let Some(Action { order: Some(2), kind: ActionKind::Forward(forward) }) = actions.get(1) else {
                panic!("the forward action lost its place: {actions:?}")
            };
            assert_eq!(forward.is_sticky(), sticky, "stickiness stays");
            forward.groups.iter().map(|g| (g.target_group.name().to_owned(), g.effective_weight())).collect()
        })
    }

    fn groups(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
        expected.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn greens_share_goes_to_blue() {
        assert_eq!(
            shifted(&[("blue", Some(90)), ("green", Some(10))], false),
            Some(groups(&[("blue", 100), ("green", 0)]))
        );
        assert_eq!(
            shifted(&[("blue", Some(0)), ("green", Some(1))], false),
            Some(groups(&[("blue", 1), ("green", 0)]))
        );
        assert_eq!(shifted(&[("green", None)], false), Some(groups(&[("blue", 1), ("green", 0)])), "green alone");
    }

    #[test]
    fn a_rule_that_is_right_is_left_alone() {
        assert_eq!(shifted(&[("blue", Some(5)), ("green", Some(0))], false), None);
        assert_eq!(shifted(&[("blue", Some(5))], true), None);
    }

    #[test]
    fn a_sticky_rule_names_green_no_more() {
        assert_eq!(shifted(&[("blue", Some(90)), ("green", Some(10))], true), Some(groups(&[("blue", 100)])));
        assert_eq!(shifted(&[("blue", Some(100)), ("green", Some(0))], true), Some(groups(&[("blue", 100)])));
    }

    #[test]
    fn all_zero_weights_do_not_stay_all_zero() {
        assert_eq!(
            shifted(&[("blue", Some(0)), ("green", Some(0))], false),
            Some(groups(&[("blue", 1), ("green", 0)]))
        );
    }

    #[test]
    fn shapes_that_are_not_understood_are_refused() {
        let none = Traffic::Rules(Vec::new());
        assert!(shift(&none, Some(&group("blue")), Some(&group("green"))).is_err());
        assert!(shift(&none, Some(&group("green")), Some(&group("green"))).is_err());
        assert!(shift(&none, None, Some(&group("green"))).is_err());
        assert!(shift(&Traffic::NoLoadBalancer, None, None).is_ok());
        let twice = Traffic::Rules(vec![rule(&[("green", Some(1)), ("green", Some(2)), ("blue", Some(1))], false)]);
        assert!(shift(&twice, Some(&group("blue")), Some(&group("green"))).is_err());
    }

    proptest! {
        #[test]
        fn others_keep_their_share_and_a_second_shift_finds_nothing_to_do(
            blue in 0_u32..=999, green in 0_u32..=999, third in 0_u32..=999, sticky: bool,
        ) {
            let before = rule(&[("third", Some(third)), ("green", Some(green)), ("blue", Some(blue))], sticky);
            let traffic = Traffic::Rules(vec![before.clone()]);
            let (b, g) = (group("blue"), group("green"));
            let Ok(found) = shift(&traffic, Some(&b), Some(&g)) else { panic!("a plain shape") };
            let mut after = before.clone();
            if let Some(Write::SetActions { actions, .. }) = found.writes.first() {
                after.actions.clone_from(actions);
            }
            let share = |rule: &TrafficRule, of: &str| rule.forwards().map(|f| f.share(&group(of))).sum::<f64>();
            prop_assert!(share(&after, "green") == 0.0);
            prop_assert!(after.forwards().flat_map(|f| &f.groups).all(|g| g.effective_weight() <= MAX_WEIGHT));
            prop_assert!(after.forwards().flat_map(|f| &f.groups).any(|g| g.effective_weight() > 0), "routes somewhere");
            if blue + green + third > 0 {
                prop_assert!((share(&after, "third") - share(&before, "third")).abs() < 0.01);
            }
            let again = shift(&Traffic::Rules(vec![after]), Some(&b), Some(&g));
            prop_assert_eq!(again, Ok(Shift { writes: Vec::new() }));
        }
    }
}
