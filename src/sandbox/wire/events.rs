//! EventBridge: awsJson 1.1, `AWSEvents`.

use serde_json::{Value, json};

use super::input::{Dialect, Members};
use super::{misfit, unknown_operation};
use crate::sandbox::api::{ApiError, Call, EventEntry, Reply};

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
    if operation != "PutEvents" {
        return Err(unknown_operation(operation));
    }
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
