//! Actions of listeners and rules, between ELBv2's wire and the model. Forward actions are the model's own; all others
//! travel as kept actions, whose config holds exactly one member, named as in the API, as in
//! `{"AuthenticateOidcConfig": {"Issuer": "…", "SessionTimeout": 604800}}`.

use serde_json::{Map, Value};

use super::input::{Members, malformed};
use super::xml::Xml;
use crate::model::{Action, ActionKind, Forward, KeptAction, Stickiness, TargetGroupArn, WeightedGroup};
use crate::sandbox::api::ApiError;

/// The types of action that are kept, and the member that configures each.
const KEPT: [(&str, &str); 5] = [
    ("authenticate-oidc", "AuthenticateOidcConfig"),
    ("authenticate-cognito", "AuthenticateCognitoConfig"),
    ("jwt-validation", "JwtValidationConfig"),
    ("redirect", "RedirectConfig"),
    ("fixed-response", "FixedResponseConfig"),
];

/// The only member of a kept action that is a map, and so has entries on the wire.
const MAP: &str = "AuthenticationRequestExtraParams";

/// Reads the actions of a write.
pub(super) fn read(input: &mut Members, name: &str) -> Result<Vec<Action>, ApiError> {
    input.structures(name)?.into_iter().map(action).collect()
}

/// Writes one action as it is described.
pub(super) fn write(xml: &mut Xml, action: &Action) {
    match &action.kind {
        ActionKind::Forward(forward) => {
            xml.text("Type", "forward");
            // For a single group AWS answers its shorthand too.
            if let [only] = forward.groups.as_slice() {
                xml.text("TargetGroupArn", only.target_group.as_str());
            }
            xml.element("ForwardConfig", |xml| write_forward(xml, forward));
        }
        ActionKind::Kept(kept) => {
            xml.text("Type", &kept.kind);
            write_members(xml, &kept.config);
        }
    }
    xml.text_if_any("Order", action.order);
}

fn action(mut input: Members) -> Result<Action, ApiError> {
    let kind = input.text("Type")?;
    let order = input.integer("Order")?;
    let kind = if kind == "forward" { forward(input)? } else { kept(&kind, input)? };
    Ok(Action { order, kind })
}

fn forward(mut input: Members) -> Result<ActionKind, ApiError> {
    let shorthand = input.text_if_any("TargetGroupArn")?;
    let config = input.structure_if_any("ForwardConfig")?;
    input.done()?;
    let forward = match (shorthand, config) {
        (None, None) => return Err(invalid("a forward action needs a target group")),
        (Some(arn), None) => {
            let group = WeightedGroup { target_group: TargetGroupArn::from(arn.as_str()), weight: None };
            Forward { groups: vec![group], stickiness: None }
        }
        (shorthand, Some(mut config)) => {
            let groups = config.structures("TargetGroups")?.into_iter().map(group).collect::<Result<Vec<_>, _>>()?;
            let stickiness = config.structure_if_any("TargetGroupStickinessConfig")?.map(stickiness).transpose()?;
            config.done()?;
            let agrees = |arn: &String| matches!(&groups[..], [only] if only.target_group.as_str() == arn.as_str());
            if shorthand.as_ref().is_some_and(|arn| !agrees(arn)) {
                return Err(invalid("with TargetGroupArn, ForwardConfig may hold only that target group"));
            }
            Forward { groups, stickiness }
        }
    };
    Ok(ActionKind::Forward(forward))
}

fn group(mut input: Members) -> Result<WeightedGroup, ApiError> {
    let target_group = TargetGroupArn::from(input.text("TargetGroupArn")?.as_str());
    let weight = input.integer("Weight")?;
    input.done()?;
    Ok(WeightedGroup { target_group, weight })
}

fn stickiness(mut input: Members) -> Result<Stickiness, ApiError> {
    let (enabled, duration_seconds) = (input.flag("Enabled")?, input.integer("DurationSeconds")?);
    input.done()?;
    Ok(Stickiness { enabled, duration_seconds })
}

fn kept(kind: &str, mut input: Members) -> Result<ActionKind, ApiError> {
    let Some((_, name)) = KEPT.iter().find(|(known, _)| *known == kind) else {
        return Err(input.refuse(format!("{kind:?} is not a type of action")));
    };
    let members = input.structure_if_any(name)?;
    let members = members.ok_or_else(|| invalid(&format!("a {kind} action needs {name}")))?.into_inner();
    input.done()?;
    let typed = members.into_iter().map(typed).collect::<Result<_, _>>()?;
    let config = Map::from_iter([((*name).to_owned(), Value::Object(typed))]);
    Ok(ActionKind::Kept(KeptAction { kind: kind.into(), config }))
}

/// Forms hold only text; here is what else the API's members are.
fn typed((name, value): (String, Value)) -> Result<(String, Value), ApiError> {
    let value = match (name.as_str(), value) {
        ("SessionTimeout", Value::String(text)) => {
            Value::from(text.parse::<i64>().map_err(|_| malformed("SessionTimeout is not an integer"))?)
        }
        ("UseExistingClientSecret", Value::String(text)) => {
            Value::from(text.parse::<bool>().map_err(|_| malformed("UseExistingClientSecret is not a boolean"))?)
        }
        ("AdditionalClaims", Value::String(text)) if text.is_empty() => Value::Array(Vec::new()),
        (_, value) => value,
    };
    Ok((name, value))
}

fn write_forward(xml: &mut Xml, forward: &Forward) {
    xml.list("TargetGroups", &forward.groups, |xml, group| {
        xml.text("TargetGroupArn", group.target_group.as_str());
        xml.text_if_any("Weight", group.weight);
    });
    if let Some(stickiness) = &forward.stickiness {
        xml.element("TargetGroupStickinessConfig", |xml| {
            xml.text_if_any("Enabled", stickiness.enabled);
            xml.text_if_any("DurationSeconds", stickiness.duration_seconds);
        });
    }
}

fn write_members(xml: &mut Xml, members: &Map<String, Value>) {
    for (name, value) in members {
        match value {
            Value::Object(entries) if name == MAP => xml.element(name, |xml| write_entries(xml, entries)),
            Value::Null => {}
            _ => xml.element(name, |xml| write_value(xml, value)),
        }
    }
}

fn write_value(xml: &mut Xml, value: &Value) {
    match value {
        Value::Object(members) => write_members(xml, members),
        Value::Array(items) => items.iter().for_each(|item| xml.element("member", |xml| write_value(xml, item))),
        Value::String(text) => xml.escape(text),
        Value::Number(_) | Value::Bool(_) | Value::Null => xml.escape(&value.to_string()),
    }
}

fn write_entries(xml: &mut Xml, entries: &Map<String, Value>) {
    for (key, value) in entries {
        xml.element("entry", |xml| {
            xml.text("key", key);
            xml.element("value", |xml| write_value(xml, value));
        });
    }
}

fn invalid(message: &str) -> ApiError {
    ApiError::client("InvalidLoadBalancerAction", message)
}
