//! EventBridge: awsJson 1.1, `AWSEvents`.

use serde_json::{Value, json};

use super::input::{Dialect, Members};
use super::{misfit, unknown_operation};
use crate::sandbox::api::{ApiError, Call, EventEntry, EventRuleView, Reply};

/// Before the operation in `X-Amz-Target`.
pub(super) const TARGET: &str = "AWSEvents";

/// How EventBridge refuses.
pub(super) const DIALECT: Dialect = Dialect { refusal: "ValidationException", textual: false };

/// Answers one operation. `request_id` makes the ids of events.
pub(super) fn answer(
    operation: &str,
    mut input: Members,
    request_id: &str,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<Value, ApiError> {
    match operation {
        "PutEvents" => put_events(input, request_id, call),
        "ListRuleNamesByTarget" => {
            let target = input.text("TargetArn")?;
            input.ignore(&["EventBusName", "Limit", "NextToken"]);
            input.done()?;
            match call(Call::ListRuleNamesByTarget { target })? {
                Reply::Names(names) => Ok(json!({ "RuleNames": names })),
                _ => Err(misfit(operation)),
            }
        }
        "DescribeRule" => {
            let name = input.text("Name")?;
            input.ignore(&["EventBusName"]);
            input.done()?;
            let Reply::EventRule(rule) = call(Call::DescribeEventRule { name })? else { return Err(misfit(operation)) };
            let EventRuleView { name, arn, enabled, pattern } = rule;
            let state = if enabled { "ENABLED" } else { "DISABLED" };
            let bus = "default";
            Ok(json!({ "Name": name, "Arn": arn, "State": state, "EventPattern": pattern, "EventBusName": bus }))
        }
        "TestEventPattern" => {
            let (pattern, event) = (input.text("EventPattern")?, input.text("Event")?);
            input.done()?;
            match call(Call::TestEventPattern { pattern, event })? {
                Reply::Matches(matches) => Ok(json!({ "Result": matches })),
                _ => Err(misfit(operation)),
            }
        }
        _ => Err(unknown_operation(operation)),
    }
}

fn put_events(
    mut input: Members,
    request_id: &str,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<Value, ApiError> {
    let operation = "PutEvents";
    let entries: Vec<_> = input.structures("Entries")?.into_iter().map(entry).collect::<Result<_, _>>()?;
    input.done()?;
    let asked = entries.len();
    let Reply::Entries(results) = call(Call::PutEvents { entries })? else { return Err(misfit(operation)) };
    if results.len() != asked {
        return Err(misfit(operation));
    }
    let failed = results.iter().flatten().count();
    let result = |(index, failure): (usize, &Option<ApiError>)| match failure {
        None => json!({ "EventId": format!("{request_id}-{index}") }),
        Some(error) => json!({ "ErrorCode": error.code, "ErrorMessage": error.message }),
    };
    let entries: Vec<_> = results.iter().enumerate().map(result).collect();
    Ok(json!({ "FailedEntryCount": failed, "Entries": entries }))
}

/// AWS refuses entries that lack something one by one, so what is absent goes on as empty.
fn entry(mut entry: Members) -> Result<EventEntry, ApiError> {
    let event = EventEntry {
        source: entry.text_if_any("Source")?.unwrap_or_default(),
        detail_type: entry.text_if_any("DetailType")?.unwrap_or_default(),
        detail: entry.text_if_any("Detail")?.unwrap_or_default(),
        resources: entry.texts("Resources")?,
        bus: entry.text_if_any("EventBusName")?,
    };
    // Events happen when they are put: a caller's other idea of time is not kept.
    entry.ignore(&["Time", "TraceHeader"]);
    entry.done()?;
    Ok(event)
}
