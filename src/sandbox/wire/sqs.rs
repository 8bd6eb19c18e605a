//! SQS: awsJson 1.0, `AmazonSQS`. Its errors have two names: the JSON protocol's, and the older query protocol's, which
//! clients still show and which is the one that the backend uses.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::input::{Dialect, Members};
use super::shared::Shared;
use super::{Timed, misfit, unknown_operation};
use crate::sandbox::api::{ApiError, Call, MessageView, Reply};

/// Before the operation in `X-Amz-Target`.
pub(super) const TARGET: &str = "AmazonSQS";

/// How SQS refuses.
pub(super) const DIALECT: Dialect = Dialect { refusal: "InvalidParameterValue", textual: false };

const QUERY_PREFIX: &str = "AWS.SimpleQueueService.";

/// AWS's bound on one long poll, in seconds.
const LONGEST_WAIT: u64 = 20;

/// AWS's bound on the entries of a batch.
const LARGEST_BATCH: usize = 10;

/// Answers one operation.
pub(super) async fn answer<B: Timed>(
    operation: &str,
    mut input: Members,
    shared: &Shared<B>,
) -> Result<Value, ApiError> {
    if operation == "GetQueueUrl" {
        let name = input.text("QueueName")?;
        input.ignore(&["QueueOwnerAWSAccountId"]);
        input.done()?;
        return match shared.call(Call::GetQueueUrl { name })? {
            Reply::QueueUrl(url) => Ok(json!({ "QueueUrl": url })),
            _ => Err(misfit(operation)),
        };
    }
    // Judged below, for an unknown operation needs no queue.
    let queue_url = input.text("QueueUrl");
    match operation {
        "ReceiveMessage" => receive(queue_url?, input, shared).await,
        "SendMessage" => {
            let body = input.text("MessageBody")?;
            input.done()?;
            Ok(json!({ "MessageId": send(shared, &queue_url?, body)? }))
        }
        "SendMessageBatch" => send_batch(&queue_url?, input, shared),
        "DeleteMessage" => {
            let receipts = vec![input.text("ReceiptHandle")?];
            input.done()?;
            single(shared.call(Call::DeleteMessages { queue_url: queue_url?, receipts })?, operation)
        }
        "DeleteMessageBatch" => {
            let (ids, receipts) = batch(&mut input, |entry| entry.text("ReceiptHandle"))?;
            input.done()?;
            per_entry(ids, shared.call(Call::DeleteMessages { queue_url: queue_url?, receipts })?, operation)
        }
        "ChangeMessageVisibility" => {
            let entries = vec![new_visibility(&mut input)?];
            input.done()?;
            single(shared.call(Call::ChangeVisibility { queue_url: queue_url?, entries })?, operation)
        }
        "ChangeMessageVisibilityBatch" => {
            let (ids, entries) = batch(&mut input, new_visibility)?;
            input.done()?;
            per_entry(ids, shared.call(Call::ChangeVisibility { queue_url: queue_url?, entries })?, operation)
        }
        "GetQueueAttributes" => {
            let wanted = input.texts("AttributeNames")?;
            input.done()?;
            let Reply::Attributes(mut attributes) = shared.call(Call::GetQueueAttributes { queue_url: queue_url? })?
            else {
                return Err(misfit(operation));
            };
            attributes.retain(|name, _| is_wanted(&wanted, name));
            Ok(json!({ "Attributes": attributes }))
        }
        _ => Err(unknown_operation(operation)),
    }
}

/// Both names of an error: the JSON protocol's, and the query protocol's.
pub(super) fn error_names(code: &str) -> (String, String) {
    match code.strip_prefix(QUERY_PREFIX).unwrap_or(code) {
        "NonExistentQueue" | "QueueDoesNotExist" => {
            ("QueueDoesNotExist".to_owned(), format!("{QUERY_PREFIX}NonExistentQueue"))
        }
        short => (short.to_owned(), code.to_owned()),
    }
}

async fn receive<B: Timed>(queue_url: String, mut input: Members, shared: &Shared<B>) -> Result<Value, ApiError> {
    let max = input.integer("MaxNumberOfMessages")?.unwrap_or(1);
    let visibility = input.integer("VisibilityTimeout")?.map(Duration::from_secs);
    let wait = input.integer("WaitTimeSeconds")?.unwrap_or(0);
    if wait > LONGEST_WAIT {
        return Err(input.refuse(format!("WaitTimeSeconds {wait} is more than {LONGEST_WAIT}")));
    }
    // Two names for the same: the first is SQS's newer one.
    let mut wanted = input.texts("MessageSystemAttributeNames")?;
    wanted.extend(input.texts("AttributeNames")?);
    // Messages have no attributes of their own here, so wanting them changes nothing.
    input.ignore(&["MessageAttributeNames", "ReceiveRequestAttemptId"]);
    input.done()?;
    let messages =
        shared.receive(Call::ReceiveMessage { queue_url, max, visibility }, Duration::from_secs(wait)).await?;
    let messages: Vec<_> = messages.iter().map(|view| message(view, &wanted)).collect();
    // Without messages AWS leaves the list out.
    if messages.is_empty() { Ok(json!({})) } else { Ok(json!({ "Messages": messages })) }
}

fn message(view: &MessageView, wanted: &[String]) -> Value {
    let all = [
        ("ApproximateReceiveCount", view.receive_count.to_string()),
        ("SentTimestamp", view.sent_at.as_millis().to_string()),
    ];
    let attributes: Map<String, Value> = all
        .into_iter()
        .filter(|(name, _)| is_wanted(wanted, name))
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect();
    let mut out = json!({ "MessageId": view.id, "ReceiptHandle": view.receipt, "Body": view.body });
    if let (Some(members), false) = (out.as_object_mut(), attributes.is_empty()) {
        members.insert("Attributes".to_owned(), Value::Object(attributes));
    }
    out
}

fn is_wanted(wanted: &[String], name: &str) -> bool {
    wanted.iter().any(|wanted| wanted == "All" || wanted == name)
}

fn send<B: Timed>(shared: &Shared<B>, queue_url: &str, body: String) -> Result<String, ApiError> {
    match shared.call(Call::SendMessage { queue_url: queue_url.to_owned(), body })? {
        Reply::Sent(id) => Ok(id),
        _ => Err(misfit("SendMessage")),
    }
}

fn send_batch<B: Timed>(queue_url: &str, mut input: Members, shared: &Shared<B>) -> Result<Value, ApiError> {
    let (ids, bodies) = batch(&mut input, |entry| entry.text("MessageBody"))?;
    input.done()?;
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, body) in ids.into_iter().zip(bodies) {
        match send(shared, queue_url, body) {
            Ok(message) => successful.push(json!({ "Id": id, "MessageId": message })),
            // Without a queue there is no batch to speak of.
            Err(error) if error_names(&error.code).0 == "QueueDoesNotExist" => return Err(error),
            Err(error) => failed.push(failure(&id, &error)),
        }
    }
    Ok(json!({ "Successful": successful, "Failed": failed }))
}

fn new_visibility(entry: &mut Members) -> Result<(String, Duration), ApiError> {
    let receipt = entry.text("ReceiptHandle")?;
    let seconds = entry.integer("VisibilityTimeout")?;
    let seconds = seconds.ok_or_else(|| entry.refuse("VisibilityTimeout is required"))?;
    Ok((receipt, Duration::from_secs(seconds)))
}

/// Reads a batch: the ids of its entries, which only the wire knows, and what `read` makes of each.
fn batch<T>(
    input: &mut Members,
    read: impl Fn(&mut Members) -> Result<T, ApiError>,
) -> Result<(Vec<String>, Vec<T>), ApiError> {
    let refuse = |code: &str, message: &str| Err(ApiError::client(&format!("{QUERY_PREFIX}{code}"), message));
    let entries = input.structures("Entries")?;
    if entries.is_empty() {
        return refuse("EmptyBatchRequest", "the batch has no entries");
    }
    if entries.len() > LARGEST_BATCH {
        return refuse("TooManyEntriesInBatchRequest", "the batch has more than 10 entries");
    }
    let (mut ids, mut parts) = (Vec::new(), Vec::new());
    for mut entry in entries {
        ids.push(entry.text("Id")?);
        parts.push(read(&mut entry)?);
        entry.done()?;
    }
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return refuse("BatchEntryIdsNotDistinct", "two entries of the batch have the same id");
    }
    Ok((ids, parts))
}

fn per_entry(ids: Vec<String>, reply: Reply, operation: &str) -> Result<Value, ApiError> {
    let Reply::Entries(results) = reply else { return Err(misfit(operation)) };
    if results.len() != ids.len() {
        return Err(misfit(operation));
    }
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, result) in ids.into_iter().zip(results) {
        match result {
            None => successful.push(json!({ "Id": id })),
            Some(error) => failed.push(failure(&id, &error)),
        }
    }
    Ok(json!({ "Successful": successful, "Failed": failed }))
}

/// A batch of one, asked for as a single call: the entry's error is the call's.
fn single(reply: Reply, operation: &str) -> Result<Value, ApiError> {
    let Reply::Entries(results) = reply else { return Err(misfit(operation)) };
    match <[_; 1]>::try_from(results) {
        Ok([None]) => Ok(json!({})),
        Ok([Some(error)]) => Err(error),
        Err(_) => Err(misfit(operation)),
    }
}

fn failure(id: &str, error: &ApiError) -> Value {
    json!({ "Id": id, "SenderFault": error.status < 500, "Code": error.code, "Message": error.message })
}
