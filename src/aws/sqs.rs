//! SQS as the inbox.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    Message as SqsMessage, MessageSystemAttributeName, QueueAttributeName,
};

use super::calls::{Calls, Operation};
use super::delivery::{QUEUE_ATTRIBUTES, dead_letters, number};
use crate::model::{CallError, ErrorClass};
use crate::ports::{Inbox, Message, QueueDepth, Receipt};

const RECEIVE: Operation = Operation::new("sqs", "ReceiveMessage");
const DELETE: Operation = Operation::new("sqs", "DeleteMessageBatch");
const EXTEND: Operation = Operation::new("sqs", "ChangeMessageVisibilityBatch");

/// SQS's limit for one receive and one batch.
const BATCH: usize = 10;

/// SQS's limit for a long poll.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// SQS's limit for a visibility time-out: twelve hours.
const LONGEST_INVISIBLE: u64 = 43_200;

/// What a receive may take beyond its wait. A receive given up too early takes messages that nobody then handles.
const RECEIVE_SLACK: Duration = Duration::from_secs(10);

/// One queue.
pub struct Queue {
    /// Waits for messages. Its connection is busy for as long as it waits, so deletes have another.
    poll: Client,
    batch: Client,
    calls: Calls,
    url: String,
    wait_seconds: i32,
}

impl Queue {
    pub(super) fn new(config: &SdkConfig, calls: Calls, url: &str, wait: Duration) -> Self {
        let wait = wait.min(LONGEST_WAIT);
        let patience = wait + RECEIVE_SLACK;
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(patience).operation_timeout(patience).build();
        // The caller receives in a loop: that is the retry.
        let poll = Builder::from(config).timeout_config(timeouts).retry_config(RetryConfig::disabled()).build();
        Self {
            poll: Client::from_conf(poll),
            batch: Client::new(config),
            calls,
            url: url.to_owned(),
            wait_seconds: seconds(wait),
        }
    }

    async fn delete_batch(&self, receipts: &[Receipt]) -> Result<Vec<BatchResultErrorEntry>, CallError> {
        let entry = |(index, receipt): (usize, &Receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(&*receipt.0).build()
        };
        let entries = receipts.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>().map_err(unbuilt(DELETE))?;
        let call = self.batch.delete_message_batch().queue_url(&self.url).set_entries(Some(entries)).send();
        Ok(self.calls.send_entries(DELETE, call, |answer| answer.failed.first().map(class)).await?.failed)
    }

    async fn attributes(&self, url: &str) -> Result<HashMap<QueueAttributeName, String>, CallError> {
        let wanted = [QueueAttributeName::ApproximateNumberOfMessages, QueueAttributeName::RedrivePolicy];
        let call = self.batch.get_queue_attributes().queue_url(url).set_attribute_names(Some(wanted.into()));
        Ok(self.calls.send(QUEUE_ATTRIBUTES, call.send()).await?.attributes.unwrap_or_default())
    }

    async fn extend_batch(&self, receipts: &[Receipt], by: Duration) -> Result<Vec<BatchResultErrorEntry>, CallError> {
        let entry = |(index, receipt): (usize, &Receipt)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&*receipt.0)
                .visibility_timeout(seconds(by))
                .build()
        };
        let entries = receipts.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>().map_err(unbuilt(EXTEND))?;
        let call = self.batch.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries)).send();
        Ok(self.calls.send_entries(EXTEND, call, |answer| answer.failed.first().map(class)).await?.failed)
    }
}

#[async_trait]
impl Inbox for Queue {
    async fn receive(&self) -> Result<Vec<Message>, CallError> {
        let call = self
            .poll
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(self.wait_seconds)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send();
        let received = self.calls.send(RECEIVE, call).await?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(message).collect())
    }

    async fn delete(&self, receipts: &[Receipt]) -> Vec<(Receipt, CallError)> {
        let mut failed = Vec::new();
        for batch in receipts.chunks(BATCH) {
            failed.extend(failures(DELETE, batch, self.delete_batch(batch).await));
        }
        failed
    }

    async fn extend(&self, receipts: &[Receipt], by: Duration) -> Vec<(Receipt, CallError)> {
        let mut failed = Vec::new();
        for batch in receipts.chunks(BATCH) {
            failed.extend(failures(EXTEND, batch, self.extend_batch(batch, by).await));
        }
        failed
    }

    async fn depth(&self) -> Result<QueueDepth, CallError> {
        let found = self.attributes(&self.url).await?;
        let waiting = number(&found, &QueueAttributeName::ApproximateNumberOfMessages);
        let waiting = waiting.ok_or_else(|| QUEUE_ATTRIBUTES.incomplete("ApproximateNumberOfMessages"))?;
        let Some(beside) = dead_letters(&found).and_then(|arn| beside(&self.url, &arn)) else {
            return Ok(QueueDepth { waiting, dead: None });
        };
        let found = self.attributes(&beside).await?;
        Ok(QueueDepth { waiting, dead: number(&found, &QueueAttributeName::ApproximateNumberOfMessages) })
    }
}

/// The URL of another queue of the same account: the last part of a URL is the queue's name.
fn beside(url: &str, arn: &str) -> Option<String> {
    let (account, _) = url.rsplit_once('/')?;
    Some(format!("{account}/{}", arn.rsplit(':').next()?))
}

/// A message without a receipt handle could never be deleted; SQS sends none.
fn message(sqs: SqsMessage) -> Option<Message> {
    let receive_count = sqs
        .attributes
        .as_ref()
        .and_then(|attributes| attributes.get(&MessageSystemAttributeName::ApproximateReceiveCount))
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    Some(Message {
        receipt: Receipt(Arc::from(sqs.receipt_handle?)),
        body: sqs.body.unwrap_or_default(),
        receive_count,
    })
}

/// Whole seconds, as SQS wants them; a part of a second counts as one.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i32::try_from(whole.min(LONGEST_INVISIBLE)).unwrap_or(i32::MAX)
}

fn unbuilt(operation: Operation) -> impl Fn(BuildError) -> CallError {
    move |error| operation.error(ErrorClass::Rejected, error.to_string())
}

/// Of an entry that was refused.
fn class(entry: &BatchResultErrorEntry) -> ErrorClass {
    // Stands in for the HTTP status that a call of its own would have had.
    let status = if entry.sender_fault { 400 } else { 500 };
    ErrorClass::of(Some(&entry.code), entry.message().unwrap_or_default(), Some(status))
}

/// A batch answers HTTP 200 and names those that failed by their index in it. When the call failed, all did.
fn failures(
    operation: Operation,
    batch: &[Receipt],
    result: Result<Vec<BatchResultErrorEntry>, CallError>,
) -> Vec<(Receipt, CallError)> {
    match result {
        Err(error) => batch.iter().map(|receipt| (receipt.clone(), error.clone())).collect(),
        Ok(entries) => entries
            .into_iter()
            .filter_map(|entry| {
                let receipt = batch.get(entry.id.parse::<usize>().ok()?)?.clone();
                let class = class(&entry);
                let message = entry.message.unwrap_or_default();
                Some((receipt, CallError { class, operation: operation.to_string(), code: Some(entry.code), message }))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn receipts() -> Vec<Receipt> {
        ["a", "b", "c"].map(|text| Receipt(Arc::from(text))).to_vec()
    }

    fn entry(id: &str, code: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder().id(id).code(code).sender_fault(sender_fault).build().unwrap()
    }

    #[test]
    fn a_failed_entry_finds_its_receipt() {
        let answer = vec![entry("2", "InternalError", false), entry("0", "ReceiptHandleIsInvalid", true)];
        let failed = failures(DELETE, &receipts(), Ok(answer));
        let found: Vec<_> = failed.iter().map(|(receipt, error)| (&*receipt.0, error.class)).collect();
        assert_eq!(found, [("c", ErrorClass::Transient), ("a", ErrorClass::Rejected)]);
    }

    #[test]
    fn a_failed_call_fails_every_receipt() {
        let error = DELETE.error(ErrorClass::Throttled, "slow down");
        let failed = failures(DELETE, &receipts(), Err(error));
        assert_eq!(failed.len(), 3);
        assert!(failed.iter().all(|(_, error)| error.class == ErrorClass::Throttled));
    }

    #[test]
    fn an_entry_that_names_no_receipt_of_ours_is_ignored() {
        assert!(failures(DELETE, &receipts(), Ok(vec![entry("7", "X", true), entry("x", "X", true)])).is_empty());
    }

    #[test]
    fn the_receive_count_is_read_and_a_message_without_receipt_dropped() {
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let sent = SqsMessage::builder().receipt_handle("r").body("{}").attributes(count, "3").build();
        assert_eq!(message(sent).map(|message| message.receive_count), Some(3));
        assert_eq!(message(SqsMessage::builder().body("{}").build()), None);
    }

    #[test]
    fn a_visibility_time_out_is_rounded_up_and_bounded() {
        assert_eq!(seconds(Duration::from_millis(1_200)), 2);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
        assert_eq!(seconds(Duration::MAX), 43_200);
    }
}
