//! Actions of listener rules: as AWS answers them, through the SDK into the model, through a rollback's rewrite, and back onto
//! the wire.
//!
//! AWS is the sandbox's wire, which takes and gives actions as it finds them. What arrives there after the round trip must
//! be what was there before it, or nothing may arrive at all.

use serde_json::{Map, Value, json};
use taskset_guardian::model::{Action, ActionKind, Forward, KeptAction, TrafficRule, WeightedGroup, Write};

use super::wire;
use super::world::{self, Aws, Driver, GREEN, group, secs};

/// Deeper than any action, and shallow enough for the wire.
const DEEPEST: usize = 8;

/// The greatest weight that Elastic Load Balancing takes.
const MAX_WEIGHT: u64 = 999;

/// The one member whose value is a map, not a structure.
const MAP: &str = "AuthenticationRequestExtraParams";

/// A JSON array of actions, by the API's member names.
pub fn elb_actions(data: &[u8]) {
    let Ok(Value::Array(actions)) = serde_json::from_slice(data) else { return };
    let Some(described) = actions.iter().map(described).collect::<Option<Vec<_>>>() else { return };
    // An answer that the SDK can't read is an error of the read: nothing is decided on it.
    let Ok(rules) = wire::describe(described) else { return };
    let forwards = actions.iter().any(forwards_to_a_group_of_ours);
    let before: Value = actions.into_iter().map(canonical).collect();
    let Some(rule) = rules.into_iter().next() else {
        assert!(!forwards, "a rule that forwards to blue or green is not seen: {before}");
        return;
    };
    if rule.unread.is_none() {
        let (found, actions) = (rule.actions.clone(), rule.actions.clone());
        let echo = Write::SetActions { rule: rule.id.clone(), found, actions };
        if let Some(after) = wire::send(&echo) {
            assert_eq!(on_the_wire(&after), before, "an action does not survive the round trip");
        }
    }
    let unread = rule.unread.clone();
    for write in rolled_back(rule) {
        let Write::SetActions { found, actions, .. } = &write else { continue };
        assert_eq!(unread, None, "what can't be sent back as it was is written: {before}");
        keeps_the_rest(found, actions);
        let sent = wire::send(&write).unwrap_or_else(|| panic!("what the plan writes can't be sent: {actions:?}"));
        assert_eq!(on_the_wire(&sent), on_the_wire(actions), "what the plan writes does not arrive");
    }
}

/// All writes of a rollback whose only rule this is.
fn rolled_back(rule: TrafficRule) -> Vec<Write> {
    let mut it = Driver::new(Aws { rules: vec![rule], ..Aws::blue_and_green() }, world::rule());
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
    it.run(secs(90));
    if it.phase() == "rolled_back" {
        let green = |forward: &Forward| forward.share(&group("green")) > 0.0;
        let left = it.aws.rules.iter().flat_map(TrafficRule::forwards).any(green);
        assert!(!left, "it is said to be rolled back, and green has traffic: {:?}", it.aws.rules);
        assert!(!it.aws.service.task_sets.iter().any(|set| set.id.as_str() == GREEN), "green is left");
    }
    it.aws.writes.into_iter().map(|(_, write)| write).collect()
}

/// Nothing but the weights and the presence of the two groups changes.
fn keeps_the_rest(found: &[Action], actions: &[Action]) {
    let both = || format!("\n{found:?}\n{actions:?}");
    assert_eq!(actions.len(), found.len(), "an action comes or goes: {}", both());
    for (was, is) in found.iter().zip(actions) {
        assert_eq!(is.order, was.order, "an action's order changes: {}", both());
        match (&was.kind, &is.kind) {
            (ActionKind::Forward(was), ActionKind::Forward(is)) => {
                assert_eq!(is.stickiness, was.stickiness, "stickiness changes: {}", both());
                let ours = |entry: &WeightedGroup| [group("blue"), group("green")].contains(&entry.target_group);
                let weight: u64 =
                    was.groups.iter().filter(|entry| ours(entry)).map(|g| u64::from(g.effective_weight())).sum();
                // The sum of two weights need not fit into one: then all are scaled down together.
                let kept =
                    |entry: &WeightedGroup| (entry.target_group.clone(), entry.weight.filter(|_| weight <= MAX_WEIGHT));
                let others = |forward: &Forward| -> Vec<_> {
                    forward.groups.iter().filter(|entry| !ours(entry)).map(kept).collect()
                };
                assert_eq!(others(is), others(was), "another target group changes: {}", both());
            }
            (was, is) => assert_eq!(is, was, "an action that is not ours changes: {}", both()),
        }
    }
}

/// As AWS describes it, whatever it is. `None` for what is no action, or what XML can't say.
fn described(action: &Value) -> Option<Action> {
    let mut config = action.as_object()?.clone();
    let kind = config.remove("Type")?.as_str()?.into();
    let order = match config.remove("Order") {
        None => None,
        Some(order) => Some(i32::try_from(order.as_i64()?).ok()?),
    };
    if !speakable(&Value::Object(config.clone()), DEEPEST) || !config.iter().all(is_complete) {
        return None;
    }
    Some(Action { order, kind: ActionKind::Kept(KeptAction { kind, config }) })
}

/// Whether the members are there that AWS always gives: the SDK makes up those that are not.
fn is_complete((name, config): (&String, &Value)) -> bool {
    let has = |config: &Value, members: &[&str]| members.iter().all(|member| config.get(member).is_some());
    let claims = config.get("AdditionalClaims").and_then(Value::as_array).into_iter().flatten();
    let required: &[&str] = match name.as_str() {
        "AuthenticateOidcConfig" => {
            &["Issuer", "AuthorizationEndpoint", "TokenEndpoint", "UserInfoEndpoint", "ClientId"]
        }
        "AuthenticateCognitoConfig" => &["UserPoolArn", "UserPoolClientId", "UserPoolDomain"],
        "RedirectConfig" | "FixedResponseConfig" => &["StatusCode"],
        "JwtValidationConfig" => &["JwksEndpoint", "Issuer"],
        _ => &[],
    };
    has(config, required) && claims.into_iter().all(|claim| has(claim, &["Format", "Name", "Values"]))
}

/// Whether XML can carry it.
fn speakable(value: &Value, depth: usize) -> bool {
    let text = |text: &str| !text.contains(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'));
    let all = |value: &Value, fits: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(fits));
    // Text where a structure or a list belongs is nothing that AWS says.
    let fits = |(name, value): (&String, &Value)| match name.as_str() {
        "TargetGroups" | "AdditionalClaims" => all(value, Value::is_object),
        "Values" => all(value, Value::is_string),
        name => value.is_object() || !(name.ends_with("Config") || name == MAP),
    };
    let member = |(name, value): (&String, &Value)| match value {
        // The entries of a map have any text as a key.
        Value::Object(entries) if name == MAP => {
            entries.iter().all(|(key, value)| text(key) && value.as_str().is_some_and(text))
        }
        _ => name.chars().all(|c| c.is_ascii_alphabetic()) && !name.is_empty() && speakable(value, depth - 1),
    };
    match value {
        Value::String(said) => text(said),
        Value::Array(items) => depth > 0 && items.iter().all(|item| speakable(item, depth - 1)),
        Value::Object(members) => depth > 0 && members.iter().all(fits) && members.iter().all(member),
        Value::Bool(_) | Value::Number(_) => true,
        Value::Null => false,
    }
}

fn forwards_to_a_group_of_ours(action: &Value) -> bool {
    let ours = |arn: &Value| [group("blue"), group("green")].iter().any(|group| arn == group.as_str());
    let groups = action["ForwardConfig"]["TargetGroups"].as_array();
    action["Type"] == "forward"
        && groups.is_some_and(|groups| groups.iter().any(|entry| ours(&entry["TargetGroupArn"])))
}

/// What arrived, in the API's words.
fn on_the_wire(actions: &[Action]) -> Value {
    actions.iter().map(said).map(canonical).collect()
}

fn said(action: &Action) -> Value {
    let (kind, mut members) = match &action.kind {
        ActionKind::Kept(kept) => (&*kept.kind, kept.config.clone()),
        ActionKind::Forward(forward) => ("forward", Map::from_iter([("ForwardConfig".to_owned(), config(forward))])),
    };
    members.insert("Type".to_owned(), kind.into());
    members.extend(action.order.map(|order| ("Order".to_owned(), order.into())));
    Value::Object(members)
}

fn config(Forward { groups, stickiness }: &Forward) -> Value {
    let weighted = |entry: &WeightedGroup| match entry.weight {
        Some(weight) => json!({ "TargetGroupArn": entry.target_group, "Weight": weight }),
        None => json!({ "TargetGroupArn": entry.target_group }),
    };
    let mut config = json!({ "TargetGroups": groups.iter().map(weighted).collect::<Vec<_>>() });
    if let Some(sticky) = stickiness {
        let enabled = sticky.enabled.map(|enabled| ("Enabled".to_owned(), enabled.into()));
        let seconds = sticky.duration_seconds.map(|seconds| ("DurationSeconds".to_owned(), seconds.into()));
        config["TargetGroupStickinessConfig"] = Value::Object(enabled.into_iter().chain(seconds).collect());
    }
    config
}

/// What says the same is the same: all that is no structure is text, as in XML; what is empty is absent; a single group has
/// no shorthand; and a secret that AWS never tells is one that it is to keep.
fn canonical(action: Value) -> Value {
    let mut action = as_text(action);
    if let Some(Value::Object(oidc)) = action.get_mut("AuthenticateOidcConfig") {
        oidc.remove("ClientSecret");
        oidc.insert("UseExistingClientSecret".to_owned(), "true".into());
    }
    let groups = action["ForwardConfig"]["TargetGroups"].as_array().cloned().unwrap_or_default();
    if let (Value::Object(members), "forward") = (&mut action.clone(), action["Type"].as_str().unwrap_or_default())
        && let Some(arn) = members.remove("TargetGroupArn")
    {
        if groups.is_empty() {
            action["ForwardConfig"]["TargetGroups"] = json!([{ "TargetGroupArn": arn }]);
        }
        if let [only] = groups.as_slice()
            && only["TargetGroupArn"] != arn
        {
            return action;
        }
        if let Value::Object(action) = &mut action {
            action.remove("TargetGroupArn");
        }
    }
    action
}

fn as_text(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(items) => items.into_iter().map(as_text).collect(),
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, as_text(value)));
            Value::Object(members.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Number(_) | Value::Bool(_) => Value::String(value.to_string()),
        Value::String(_) | Value::Null => value,
    }
}
