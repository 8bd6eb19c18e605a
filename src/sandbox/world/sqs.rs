//! SQS: the guardian's queue and its dead-letter queue, with visibility time-outs and receive counts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::super::api::{ApiError, MessageView, Reply};
use super::{ACCOUNT, REGION, World, names};
use crate::model::Timestamp;

/// Every handle that SQS makes begins like this.
const HANDLE: &str = "AQEB";
/// From the first receive on.
const LONGEST_VISIBILITY: Duration = Duration::from_hours(12);
const LARGEST_BODY: usize = 1024 * 1024;

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    created_at: Timestamp,
    visibility: Duration,
    /// Dead-letter queue and how many receives come before it.
    redrive: Option<(String, u32)>,
    /// By order of arrival.
    messages: BTreeMap<u64, StoredMessage>,
    arrived: u64,
}

#[derive(Clone, Debug)]
struct StoredMessage {
    id: String,
    body: String,
    sent_at: Timestamp,
    receives: u32,
    visible_at: Timestamp,
    /// Of the newest receive.
    receipt: Option<String>,
}

impl StoredMessage {
    fn is_in_flight(&self, now: Timestamp) -> bool {
        self.visible_at > now
    }
}

impl Queue {
    fn new(created_at: Timestamp, visibility: Duration, redrive: Option<(String, u32)>) -> Self {
        Self { created_at, visibility, redrive, messages: BTreeMap::new(), arrived: 0 }
    }

    fn push(&mut self, message: StoredMessage) {
        self.messages.insert(self.arrived, message);
        self.arrived += 1;
    }

    fn by_receipt(&self, receipt: &str) -> Option<u64> {
        let holds = |message: &StoredMessage| message.receipt.as_deref() == Some(receipt);
        self.messages.iter().find(|(_, message)| holds(message)).map(|(number, _)| *number)
    }
}

impl World {
    pub(super) fn create_queues(&mut self) {
        let name = self.setup.queue.clone();
        let dead = format!("{name}-dlq");
        let redrive = Some((dead.clone(), self.setup.max_receives));
        self.queues.insert(dead, Queue::new(self.now, self.setup.visibility, None));
        self.queues.insert(name, Queue::new(self.now, self.setup.visibility, redrive));
    }

    /// EventBridge's target is the guardian's queue.
    pub(super) fn deliver(&mut self, body: String) {
        let name = self.setup.queue.clone();
        self.enqueue(&name, body);
    }

    fn enqueue(&mut self, name: &str, body: String) -> String {
        let id = names::uuid(&mut self.wires);
        let message =
            StoredMessage { id: id.clone(), body, sent_at: self.now, receives: 0, visible_at: self.now, receipt: None };
        if let Some(queue) = self.queues.get_mut(name) {
            queue.push(message);
        }
        id
    }

    /// The queue that a URL names, whatever host it points to.
    fn queue(&mut self, url: &str) -> Result<&mut Queue, ApiError> {
        self.queues.get_mut(names::last_part(url)).ok_or_else(no_queue)
    }

    pub(super) fn receive(&mut self, url: &str, max: u32, visibility: Option<Duration>) -> Result<Reply, ApiError> {
        if !(1..=10).contains(&max) {
            return Err(invalid("MaxNumberOfMessages must be between 1 and 10."));
        }
        let now = self.now;
        let mut wires = self.wires.fork();
        let queue = self.queue(url)?;
        let until = now.plus(visibility.unwrap_or(queue.visibility));
        let limit = queue.redrive.as_ref().map_or(u32::MAX, |(_, receives)| *receives);
        let visible = queue.messages.iter().filter(|(_, message)| !message.is_in_flight(now));
        let (spent, fresh): (Vec<_>, Vec<_>) =
            visible.map(|(number, message)| (*number, message.receives)).partition(|(_, receives)| *receives >= limit);
        let mut received = Vec::new();
        for (number, _) in fresh.into_iter().take(max as usize) {
            let Some(message) = queue.messages.get_mut(&number) else { continue };
            let receipt = format!("{HANDLE}{}", names::hex(&mut wires, 40));
            message.receives += 1;
            message.visible_at = until;
            message.receipt = Some(receipt.clone());
            received.push(MessageView {
                id: message.id.clone(),
                receipt,
                body: message.body.clone(),
                receive_count: message.receives,
                sent_at: message.sent_at,
            });
        }
        let buried: Vec<_> = spent.into_iter().filter_map(|(number, _)| queue.messages.remove(&number)).collect();
        let dead = queue.redrive.as_ref().map(|(name, _)| name.clone());
        if let Some(dead) = dead.and_then(|name| self.queues.get_mut(&name)) {
            for message in buried {
                dead.push(message);
            }
        }
        Ok(Reply::Messages(received))
    }

    pub(super) fn delete_messages(&mut self, url: &str, receipts: &[String]) -> Result<Reply, ApiError> {
        let queue = self.queue(url)?;
        check_batch(receipts.len())?;
        let delete = |receipt: &String| match queue.by_receipt(receipt) {
            Some(number) => {
                queue.messages.remove(&number);
                None
            }
            // A handle that is not the newest is accepted and deletes nothing.
            None => (!receipt.starts_with(HANDLE)).then(|| bad_receipt(receipt)),
        };
        Ok(Reply::Entries(receipts.iter().map(delete).collect()))
    }

    pub(super) fn change_visibility(&mut self, url: &str, entries: &[(String, Duration)]) -> Result<Reply, ApiError> {
        let now = self.now;
        let queue = self.queue(url)?;
        check_batch(entries.len())?;
        let change = |(receipt, visibility): &(String, Duration)| {
            if *visibility > LONGEST_VISIBILITY {
                return Some(invalid("VisibilityTimeout must be between 0 and 43200."));
            }
            if !receipt.starts_with(HANDLE) {
                return Some(bad_receipt(receipt));
            }
            let message = queue.by_receipt(receipt).and_then(|number| queue.messages.get_mut(&number));
            match message.filter(|message| message.is_in_flight(now)) {
                Some(message) => {
                    message.visible_at = now.plus(*visibility);
                    None
                }
                None => Some(ApiError::client(
                    "AWS.SimpleQueueService.MessageNotInflight",
                    "The message referred to is not in flight.",
                )),
            }
        };
        Ok(Reply::Entries(entries.iter().map(change).collect()))
    }

    pub(super) fn send_message(&mut self, url: &str, body: String) -> Result<Reply, ApiError> {
        self.queue(url)?;
        if body.is_empty() || body.len() > LARGEST_BODY {
            return Err(invalid("The message must be between 1 byte and 1 MiB."));
        }
        Ok(Reply::Sent(self.enqueue(names::last_part(url), body)))
    }

    pub(super) fn queue_url(&self, name: &str) -> Result<Reply, ApiError> {
        let known = self.queues.contains_key(name);
        let url = format!("https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}");
        known.then_some(Reply::QueueUrl(url)).ok_or_else(no_queue)
    }

    pub(super) fn queue_attributes(&mut self, url: &str) -> Result<Reply, ApiError> {
        let now = self.now;
        let queue = self.queue(url)?;
        let in_flight = queue.messages.values().filter(|message| message.is_in_flight(now)).count();
        let mut attributes = BTreeMap::new();
        let mut set = |name: &str, value: String| attributes.insert(name.to_owned(), value);
        set("ApproximateNumberOfMessages", (queue.messages.len() - in_flight).to_string());
        set("ApproximateNumberOfMessagesDelayed", "0".to_owned());
        set("ApproximateNumberOfMessagesNotVisible", in_flight.to_string());
        set("CreatedTimestamp", (queue.created_at.as_millis() / 1000).to_string());
        set("MessageRetentionPeriod", "345600".to_owned());
        set("QueueArn", names::queue_arn(names::last_part(url)));
        set("VisibilityTimeout", queue.visibility.as_secs().to_string());
        if let Some((dead, receives)) = &queue.redrive {
            let policy = json!({ "deadLetterTargetArn": names::queue_arn(dead), "maxReceiveCount": receives });
            set("RedrivePolicy", policy.to_string());
        }
        Ok(Reply::Attributes(attributes))
    }
}

fn check_batch(entries: usize) -> Result<(), ApiError> {
    let refuse = |code, message| Err(ApiError::client(code, message));
    match entries {
        0 => refuse("AWS.SimpleQueueService.EmptyBatchRequest", "There should be at least one entry."),
        1..=10 => Ok(()),
        _ => {
            refuse("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "Maximum number of entries per request: 10.")
        }
    }
}

fn no_queue() -> ApiError {
    ApiError::client("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
}

fn invalid(message: &str) -> ApiError {
    ApiError::client("InvalidParameterValue", message)
}

fn bad_receipt(receipt: &str) -> ApiError {
    ApiError::client("ReceiptHandleIsInvalid", format!("The input receipt handle {receipt:?} is invalid."))
}
