//! EventBridge's rules and event patterns, as far as rules for a guardian use them: a pattern with any other filter is
//! refused, never guessed at.

use serde_json::{Map, Value, json};

use super::super::api::{ApiError, EventRuleView, Reply};
use super::setup::EventRuleSetup;
use super::{World, names};

const OR: &str = "$or";

/// Fields that every event has.
const ENVELOPE: [&str; 7] = ["id", "account", "source", "time", "region", "resources", "detail-type"];

impl World {
    pub(super) fn rule_names_by_target(&self, target: &str) -> Reply {
        let ours = target == names::queue_arn(&self.setup.queue);
        Reply::Names(self.setup.event_rules.iter().filter(|_| ours).map(|rule| rule.name.clone()).collect())
    }

    pub(super) fn describe_event_rule(&self, name: &str) -> Result<Reply, ApiError> {
        let Some(rule) = self.setup.event_rules.iter().find(|rule| rule.name == name) else {
            let message = format!("Rule {name} does not exist on EventBus default.");
            return Err(ApiError::client("ResourceNotFoundException", message));
        };
        let EventRuleSetup { name, enabled, pattern, may_send: _ } = rule.clone();
        Ok(Reply::EventRule(EventRuleView { arn: names::event_rule_arn(&name), name, enabled, pattern }))
    }

    /// Who may send to the guardian's queue.
    pub(super) fn queue_policy(&self) -> Value {
        let allowed = self.setup.event_rules.iter().filter(|rule| rule.may_send);
        let arns: Vec<_> = allowed.map(|rule| names::event_rule_arn(&rule.name)).collect();
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": "events.amazonaws.com" },
                "Action": "sqs:SendMessage",
                "Resource": names::queue_arn(&self.setup.queue),
                "Condition": { "ArnEquals": { "aws:SourceArn": arns } },
            }],
        })
    }
}

pub(super) fn test_event_pattern(pattern: &str, event: &str) -> Result<Reply, ApiError> {
    let event: Map<String, Value> =
        serde_json::from_str(event).map_err(|_| refused("Parameter Event is not valid."))?;
    if let Some(field) = ENVELOPE.into_iter().find(|field| !event.contains_key(*field)) {
        return Err(refused(&format!("Parameter Event is not valid. Reason: Missing required field: {field}")));
    }
    let pattern: Map<String, Value> = serde_json::from_str(pattern).map_err(|error| unfit(&error.to_string()))?;
    Ok(Reply::Matches(fits(&pattern, &event)?))
}

/// Every field of the pattern must be met, and one of its alternatives.
fn fits(pattern: &Map<String, Value>, event: &Map<String, Value>) -> Result<bool, ApiError> {
    if pattern.is_empty() {
        return Err(unfit("Empty objects are not allowed"));
    }
    let mut all = true;
    for (name, wanted) in pattern {
        let met = match (name.as_str(), wanted, event.get(name)) {
            (OR, Value::Array(alternatives), _) => one_fits(alternatives, event)?,
            (_, Value::Object(inner), Some(Value::Object(found))) => fits(inner, found)?,
            (_, Value::Object(inner), _) => fits(inner, &Map::new())?,
            (_, Value::Array(filters), found) => one_met(filters, found)?,
            _ => return Err(unfit(&format!("{name:?} must be an object or an array"))),
        };
        all &= met;
    }
    Ok(all)
}

fn one_fits(alternatives: &[Value], event: &Map<String, Value>) -> Result<bool, ApiError> {
    let mut any = false;
    for alternative in alternatives {
        let Value::Object(pattern) = alternative else { return Err(unfit("$or must hold objects")) };
        any |= fits(pattern, event)?;
    }
    Ok(any)
}

fn one_met(filters: &[Value], found: Option<&Value>) -> Result<bool, ApiError> {
    let values: Vec<&Value> = match found {
        Some(Value::Array(values)) => values.iter().collect(),
        found => found.into_iter().collect(),
    };
    let mut any = false;
    for filter in filters {
        any |= match filter {
            Value::Object(filter) => filtered(filter, &values)?,
            plain => values.contains(&plain),
        };
    }
    Ok(any)
}

fn filtered(filter: &Map<String, Value>, values: &[&Value]) -> Result<bool, ApiError> {
    let texts = || values.iter().filter_map(|value| value.as_str());
    let mut members = filter.iter();
    match (members.next(), members.next()) {
        (Some((name, Value::String(part))), None) if name == "prefix" => Ok(texts().any(|text| text.starts_with(part))),
        (Some((name, Value::String(part))), None) if name == "suffix" => Ok(texts().any(|text| text.ends_with(part))),
        (Some((name, Value::Bool(wanted))), None) if name == "exists" => Ok(*wanted != values.is_empty()),
        (Some((name, Value::String(unwanted))), None) if name == "anything-but" => {
            Ok(!values.is_empty() && texts().all(|text| text != unwanted))
        }
        _ => Err(unfit(&format!("the sandbox does not know the filter {}", Value::Object(filter.clone())))),
    }
}

fn unfit(why: &str) -> ApiError {
    ApiError::client("InvalidEventPatternException", format!("Event pattern is not valid. Reason: {why}"))
}

fn refused(why: &str) -> ApiError {
    ApiError::client("ValidationException", why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn matches(pattern: &Value) -> Result<bool, String> {
        let event = json!({
            "id": "1", "account": "1", "source": "aws.ecs", "time": "t", "region": "r", "resources": [],
            "detail-type": "ECS Task State Change",
            "detail": { "group": "service:web", "lastStatus": "STOPPED" },
        });
        match test_event_pattern(&pattern.to_string(), &event.to_string()) {
            Ok(reply) => Ok(reply == Reply::Matches(true)),
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn a_pattern_matches_as_eventbridge_says() {
        for (pattern, expected) in [
            (json!({ "source": ["aws.ecs", "other"] }), true),
            (json!({ "source": ["aws.ec2"] }), false),
            (json!({ "source": ["aws.ecs"], "detail": { "lastStatus": ["RUNNING"] } }), false),
            (json!({ "detail": { "group": [{ "prefix": "service:" }] } }), true),
            (json!({ "detail": { "group": [{ "suffix": ":api" }] } }), false),
            (json!({ "detail": { "group": [{ "anything-but": "service:web" }] } }), false),
            (json!({ "detail": { "stopCode": [{ "exists": false }] } }), true),
            (json!({ "alarm": { "name": [{ "exists": true }] } }), false),
            (json!({ "$or": [{ "source": ["aws.ec2"] }, { "detail": { "lastStatus": ["STOPPED"] } }] }), true),
            (json!({ "$or": [{ "source": ["aws.ec2"] }], "region": ["r"] }), false),
        ] {
            assert_eq!(matches(&pattern), Ok(expected), "{pattern}");
        }
        for unknown in [json!({}), json!({ "source": "aws.ecs" }), json!({ "source": [{ "cidr": "10.0.0.0/8" }] })] {
            assert_eq!(matches(&unknown), Err("InvalidEventPatternException".to_owned()), "{unknown}");
        }
        let bare = test_event_pattern(r#"{"source":["a"]}"#, r#"{"source":"a"}"#).unwrap_err();
        assert!(bare.message.contains("Missing required field: id"), "{bare:?}");
    }
}
