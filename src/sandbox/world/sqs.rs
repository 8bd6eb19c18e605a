//! SQS: the guardian's queue and its dead-letter queue, with visibility time-outs and receive counts.

use std::collections::{BTreeMap, BTreeSet};
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

/// One queue. However long it is, a receive and a delete take their time from the messages that they concern: those that
/// can be received are kept apart from those in flight.
#[derive(Debug)]
pub(super) struct Queue {
    created_at: Timestamp,
    visibility: Duration,
    /// Dead-letter queue and how many receives come before it.
    redrive: Option<(String, u32)>,
    /// By order of arrival.
    messages: BTreeMap<u64, StoredMessage>,
    arrived: u64,
    /// Can be received, in order of arrival.
    visible: BTreeSet<u64>,
    /// Visible, and received too often: the next receive buries them.
    spent: BTreeSet<u64>,
    /// In flight, by the time at which that ends.
    in_flight: BTreeSet<(Timestamp, u64)>,
    /// The newest receipt of each message that was received.
    receipts: BTreeMap<String, u64>,
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

impl Queue {
    fn new(created_at: Timestamp, visibility: Duration, redrive: Option<(String, u32)>) -> Self {
        Self {
            created_at,
            visibility,
            redrive,
            messages: BTreeMap::new(),
            arrived: 0,
            visible: BTreeSet::new(),
            spent: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            receipts: BTreeMap::new(),
        }
    }

    /// A message arrives, visible at once.
    fn push(&mut self, message: StoredMessage) {
        let number = self.arrived;
        self.arrived += 1;
        self.receipts.extend(message.receipt.clone().map(|receipt| (receipt, number)));
        self.show(number, message.receives);
        self.messages.insert(number, message);
    }

    fn show(&mut self, number: u64, receives: u32) {
        let limit = self.redrive.as_ref().map_or(u32::MAX, |(_, receives)| *receives);
        if receives < limit { &mut self.visible } else { &mut self.spent }.insert(number);
    }

    /// Shows every message whose time in flight is over.
    fn surface(&mut self, now: Timestamp) {
        while let Some((until, number)) = self.in_flight.first().copied().filter(|(until, _)| *until <= now) {
            self.in_flight.remove(&(until, number));
            if let Some(receives) = self.messages.get(&number).map(|message| message.receives) {
                self.show(number, receives);
            }
        }
    }

    /// Hands a visible message out.
    fn hand_out(&mut self, number: u64, receipt: &str, until: Timestamp) -> Option<&StoredMessage> {
        let message = self.messages.get_mut(&number)?;
        message.receives += 1;
        message.visible_at = until;
        let outdated = message.receipt.replace(receipt.to_owned());
        outdated.and_then(|receipt| self.receipts.remove(&receipt));
        self.receipts.insert(receipt.to_owned(), number);
        self.visible.remove(&number);
        self.in_flight.insert((until, number));
        Some(message)
    }

    /// Makes a message in flight visible at another time; false when it is not in flight.
    fn hide(&mut self, receipt: &str, now: Timestamp, until: Timestamp) -> bool {
        let Some(number) = self.receipts.get(receipt).copied() else { return false };
        let Some(message) = self.messages.get_mut(&number) else { return false };
        if !self.in_flight.remove(&(message.visible_at, number)) {
            return false;
        }
        message.visible_at = until;
        self.in_flight.insert((until, number));
        self.surface(now);
        true
    }

    fn remove(&mut self, number: u64) -> Option<StoredMessage> {
        let message = self.messages.remove(&number)?;
        message.receipt.as_ref().and_then(|receipt| self.receipts.remove(receipt));
        self.visible.remove(&number);
        self.spent.remove(&number);
        self.in_flight.remove(&(message.visible_at, number));
        Some(message)
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

    /// The queue that a URL names, whatever host it points to, as it is now.
    fn queue(&mut self, url: &str) -> Result<&mut Queue, ApiError> {
        let queue = self.queues.get_mut(names::last_part(url)).ok_or_else(no_queue)?;
        queue.surface(self.now);
        Ok(queue)
    }

    pub(super) fn receive(&mut self, url: &str, max: u32, visibility: Option<Duration>) -> Result<Reply, ApiError> {
        if !(1..=10).contains(&max) {
            return Err(invalid("MaxNumberOfMessages must be between 1 and 10."));
        }
        let now = self.now;
        let mut wires = self.wires.fork();
        let queue = self.queue(url)?;
        let until = now.plus(visibility.unwrap_or(queue.visibility));
        let next: Vec<_> = queue.visible.iter().copied().take(max as usize).collect();
        let received = next.into_iter().filter_map(|number| {
            let receipt = format!("{HANDLE}{}", names::hex(&mut wires, 40));
            let message = queue.hand_out(number, &receipt, until)?;
            Some(MessageView {
                id: message.id.clone(),
                receipt,
                body: message.body.clone(),
                receive_count: message.receives,
                sent_at: message.sent_at,
            })
        });
        let received = received.collect();
        let spent = std::mem::take(&mut queue.spent);
        let buried: Vec<_> = spent.into_iter().filter_map(|number| queue.remove(number)).collect();
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
        let delete = |receipt: &String| match queue.receipts.get(receipt).copied() {
            Some(number) => {
                queue.remove(number);
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
            if queue.hide(receipt, now, now.plus(*visibility)) {
                return None;
            }
            Some(ApiError::client(
                "AWS.SimpleQueueService.MessageNotInflight",
                "The message referred to is not in flight.",
            ))
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
        let (is_ours, policy) = (names::last_part(url) == self.setup.queue, self.queue_policy());
        let queue = self.queue(url)?;
        let in_flight = queue.in_flight.len();
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
        if is_ours {
            set("Policy", policy.to_string());
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
