//! From rules as they are to rules with green's share on blue: which writes are needed, and whether any is.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Action, ActionKind, Forward, KeptAction, TargetGroupArn, Traffic, TrafficRule, TrafficRuleId, WeightedGroup, Write,
};

/// The greatest weight that Elastic Load Balancing takes.
const MAX_WEIGHT: u32 = 999;

/// Target groups that one forward action takes.
const MOST_GROUPS: usize = 5;

/// A shape that is not understood, so that nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotUnderstood(pub(super) String);

/// The two groups between which traffic is moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) blue: Option<&'a TargetGroupArn>,
    pub(super) green: Option<&'a TargetGroupArn>,
}

/// How thoroughly green leaves a sticky rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its group is not named any more: a cookie outranks weight 0.
    Out,
    /// Its weight is 0. Enough once no task of green is left to be led to.
    Weight,
}

/// The writes that are needed so that no rule sends anything to green any more; none when every rule agrees.
///
/// Every other group keeps its share, every other action, order and stickiness stay.
pub(super) fn shift(traffic: &Traffic, pair: Pair<'_>, cut: Cut) -> Result<Vec<Write>, NotUnderstood> {
    let Some(green) = pair.green else { return Ok(Vec::new()) };
    let Some(blue) = pair.blue else {
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
    rewrite(rules.iter().filter(|rule| rule.names(green)), |rule, forward| on_blue(rule, forward, blue, green, cut))
}

/// The writes that name blue beside green with weight 0, where no rule names it at all. Elastic Load Balancing checks
/// the health of the targets of a group that is in a rule only, so nobody knows before whether blue's are fit.
pub(super) fn introduce(traffic: &Traffic, pair: Pair<'_>) -> Result<Vec<Write>, NotUnderstood> {
    let Pair { blue: Some(blue), green: Some(green) } = pair else { return Ok(Vec::new()) };
    let rules = traffic.rules();
    if rules.iter().any(|rule| rule.names(blue)) {
        return Ok(Vec::new());
    }
    rewrite(rules.iter().filter(|rule| rule.names(green)), |rule, forward| {
        let mut forward = forward.clone();
        forward.groups.push(WeightedGroup { target_group: blue.clone(), weight: Some(0) });
        room(rule, forward)
    })
}

/// Where green's group stood in a rule that it was taken out of.
pub(super) type Seats = BTreeMap<TrafficRuleId, usize>;

/// The place that green loses by a write.
pub(super) fn seat(green: Option<&TargetGroupArn>, found: &[Action], actions: &[Action]) -> Option<usize> {
    let place = |actions: &[Action]| {
        let forwards = actions.iter().filter_map(Action::forward);
        forwards.flat_map(|forward| &forward.groups).position(|group| Some(&group.target_group) == green)
    };
    place(found).filter(|_| place(actions).is_none())
}

/// The writes that name green again, with weight 0, in the rules that it was taken out of, so that the next deployment
/// finds the pair. A rule that somebody else has changed in the meantime is theirs.
pub(super) fn restore(traffic: &Traffic, pair: Pair<'_>, seats: &Seats) -> Vec<Write> {
    let Pair { blue: Some(blue), green: Some(green) } = pair else { return Vec::new() };
    let lost = |rule: &&TrafficRule| seats.contains_key(&rule.id) && rule.names(blue) && !rule.names(green);
    let seated = |rule: &TrafficRule, forward: &Forward| {
        let mut forward = forward.clone();
        let seat = seats.get(&rule.id).copied().unwrap_or_default().min(forward.groups.len());
        forward.groups.insert(seat, WeightedGroup { target_group: green.clone(), weight: Some(0) });
        room(rule, forward)
    };
    let each = traffic.rules().iter().filter(lost).filter_map(|rule| rewrite([rule].into_iter(), seated).ok());
    each.flatten().collect()
}

/// Why this rule could not be rewritten: what can't be sent back as it was must not be sent.
pub(super) fn understood(rule: &TrafficRule) -> Result<(), NotUnderstood> {
    let kept = rule.actions.iter().filter_map(|action| match &action.kind {
        ActionKind::Kept(kept) => Some(kept),
        ActionKind::Forward(_) => None,
    });
    // Without a configuration that we know it could not be sent back.
    if let Some(KeptAction { kind, .. }) = kept.into_iter().find(|kept| kept.config.is_empty()) {
        return Err(NotUnderstood(format!("{} has an action of a type that is not known: {kind}", rule.id)));
    }
    if let Some(unread) = &rule.unread {
        return Err(NotUnderstood(format!("{} has {unread}, which is not known and could not be sent back", rule.id)));
    }
    let forwards = rule.forwards().count();
    if forwards != 1 {
        return Err(NotUnderstood(format!("{} has {forwards} forward actions instead of one", rule.id)));
    }
    let mut names = BTreeSet::new();
    let twice = rule.forwards().flat_map(|forward| &forward.groups).find(|group| !names.insert(&group.target_group));
    match twice {
        Some(twice) => Err(NotUnderstood(format!("{} names {} twice", rule.id, twice.target_group.name()))),
        None => Ok(()),
    }
}

/// The rules with their forward actions changed, as writes; those that come out as they were are left alone.
fn rewrite<'a>(
    rules: impl Iterator<Item = &'a TrafficRule>,
    change: impl Fn(&TrafficRule, &Forward) -> Result<Forward, NotUnderstood>,
) -> Result<Vec<Write>, NotUnderstood> {
    let mut writes = Vec::new();
    for rule in rules {
        understood(rule)?;
        let action = |action: &Action| {
            let kind = match &action.kind {
                ActionKind::Forward(forward) => ActionKind::Forward(change(rule, forward)?),
                kept @ ActionKind::Kept(_) => kept.clone(),
            };
            Ok(Action { order: action.order, kind })
        };
        let actions = rule.actions.iter().map(action).collect::<Result<Vec<_>, _>>()?;
        if actions != rule.actions {
            writes.push(Write::SetActions { rule: rule.id.clone(), found: rule.actions.clone(), actions });
        }
    }
    Ok(writes)
}

fn room(rule: &TrafficRule, forward: Forward) -> Result<Forward, NotUnderstood> {
    if forward.groups.len() > MOST_GROUPS {
        return Err(NotUnderstood(format!("{} has no room for blue: five target groups already", rule.id)));
    }
    Ok(forward)
}

fn on_blue(
    rule: &TrafficRule,
    forward: &Forward,
    blue: &TargetGroupArn,
    green: &TargetGroupArn,
    cut: Cut,
) -> Result<Forward, NotUnderstood> {
    let out = forward.is_sticky() && cut == Cut::Out;
    let weight = |wanted: &TargetGroupArn| {
        forward.groups.iter().find(|group| group.target_group == *wanted).map_or(0, WeightedGroup::effective_weight)
    };
    let (of_blue, of_green) = (weight(blue), weight(green));
    let is_other = |group: &&WeightedGroup| group.target_group != *blue && group.target_group != *green;
    let others: u64 = forward.groups.iter().filter(is_other).map(|group| u64::from(group.effective_weight())).sum();
    // Alone, blue must not be left with weight 0: the rule would route nowhere.
    let for_blue = match of_blue.saturating_add(of_green) {
        0 if others == 0 => 1,
        sum => sum,
    };
    if of_green == 0 && of_blue == for_blue && !out {
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
            if !out {
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
    room(rule, Forward { groups, stickiness: forward.stickiness.clone() })
}
