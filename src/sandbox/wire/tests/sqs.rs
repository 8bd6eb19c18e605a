//! SQS, but for waiting.

use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageSystemAttributeName as Attribute,
    QueueAttributeName, SendMessageBatchRequestEntry,
};

use super::*;

const QUEUE: &str = "http://sqs.local/000000000000/events";

fn receipt_error() -> ApiError {
    ApiError::client("ReceiptHandleIsInvalid", "stale")
}

fn delete_entry(id: &str) -> DeleteMessageBatchRequestEntry {
    DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(format!("r-{id}")).build().unwrap()
}

fn send_entry(id: &str) -> SendMessageBatchRequestEntry {
    SendMessageBatchRequestEntry::builder().id(id).message_body(format!("b-{id}")).build().unwrap()
}

#[tokio::test]
async fn receives_messages_with_the_attributes_asked_for() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    let body = "{\"detail\":\"<é> & \\u0000\"}";
    let view = MessageView { receive_count: 3, body: text(body), ..message("1") };
    rig.answer(Reply::Messages(vec![view.clone(), message("2")]));
    rig.answer(Reply::Messages(vec![view]));
    rig.answer(Reply::Messages(Vec::new()));

    let ask = client.receive_message().queue_url(QUEUE);
    let full = ask.clone().max_number_of_messages(10).visibility_timeout(45);
    let full = full.message_system_attribute_names(Attribute::ApproximateReceiveCount);
    let out = full.message_system_attribute_names(Attribute::SentTimestamp).send().await.unwrap();
    let visibility = Some(Duration::from_secs(45));
    assert_eq!(rig.call().await, Call::ReceiveMessage { queue_url: text(QUEUE), max: 10, visibility });
    let [first, second] = out.messages() else { panic!("{out:?}") };
    assert_eq!((first.message_id(), first.receipt_handle()), (Some("1"), Some("receipt-1")));
    assert_eq!(first.body(), Some(body));
    let attributes = first.attributes().unwrap();
    assert_eq!(attributes[&Attribute::ApproximateReceiveCount], "3");
    assert_eq!(attributes[&Attribute::SentTimestamp], START.as_millis().to_string());
    assert_eq!(second.message_id(), Some("2"));

    let plain = ask.clone().send().await.unwrap();
    assert_eq!(rig.call().await, Call::ReceiveMessage { queue_url: text(QUEUE), max: 1, visibility: None });
    assert_eq!(plain.messages()[0].attributes(), None);

    assert!(ask.send().await.unwrap().messages().is_empty());
}

#[tokio::test]
async fn sends_one_message_or_several() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    rig.answer(Reply::Sent(text("id-1")));
    let sent = client.send_message().queue_url(QUEUE).message_body("hello").send().await.unwrap();
    assert_eq!(sent.message_id(), Some("id-1"));
    assert_eq!(rig.call().await, Call::SendMessage { queue_url: text(QUEUE), body: text("hello") });

    rig.answer(Reply::Sent(text("id-a")));
    rig.refuse("InvalidMessageContents", 400);
    rig.answer(Reply::Sent(text("id-c")));
    let batch = client.send_message_batch().queue_url(QUEUE);
    let out = batch.entries(send_entry("a")).entries(send_entry("b")).entries(send_entry("c")).send().await.unwrap();
    let successful: Vec<_> = out.successful().iter().map(|it| (it.id(), it.message_id())).collect();
    assert_eq!(successful, [("a", "id-a"), ("c", "id-c")]);
    let [failed] = out.failed() else { panic!("{out:?}") };
    assert_eq!((failed.id(), failed.code(), failed.sender_fault()), ("b", "InvalidMessageContents", true));
    for body in ["b-a", "b-b", "b-c"] {
        assert_eq!(rig.call().await, Call::SendMessage { queue_url: text(QUEUE), body: text(body) });
    }
}

#[tokio::test]
async fn batches_fail_entry_by_entry() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    let broken = ApiError { code: text("InternalError"), message: text("try again"), status: 500 };
    rig.answer(Reply::Entries(vec![None, Some(receipt_error()), Some(broken)]));
    rig.answer(Reply::Entries(vec![Some(receipt_error()), None]));

    let delete = client.delete_message_batch().queue_url(QUEUE);
    let delete = delete.entries(delete_entry("a")).entries(delete_entry("b")).entries(delete_entry("c"));
    let out = delete.send().await.unwrap();
    let receipts = texts(&["r-a", "r-b", "r-c"]);
    assert_eq!(rig.call().await, Call::DeleteMessages { queue_url: text(QUEUE), receipts });
    assert_eq!(
        out.successful().iter().map(aws_sdk_sqs::types::DeleteMessageBatchResultEntry::id).collect::<Vec<_>>(),
        ["a"]
    );
    let failed: Vec<_> = out.failed().iter().map(|it| (it.id(), it.code(), it.sender_fault(), it.message())).collect();
    let expected =
        [("b", "ReceiptHandleIsInvalid", true, Some("stale")), ("c", "InternalError", false, Some("try again"))];
    assert_eq!(failed, expected);

    let entry = |id: &str, seconds| {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(format!("r-{id}"));
        entry.visibility_timeout(seconds).build().unwrap()
    };
    let change = client.change_message_visibility_batch().queue_url(QUEUE);
    let out = change.entries(entry("x", 0)).entries(entry("y", 60)).send().await.unwrap();
    let entries = vec![(text("r-x"), Duration::ZERO), (text("r-y"), Duration::from_mins(1))];
    assert_eq!(rig.call().await, Call::ChangeVisibility { queue_url: text(QUEUE), entries });
    assert_eq!(out.successful()[0].id(), "y");
    assert_eq!((out.failed()[0].id(), out.failed()[0].code()), ("x", "ReceiptHandleIsInvalid"));
}

#[tokio::test]
async fn single_calls_are_batches_of_one_whose_error_is_their_own() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    rig.answer(Reply::Entries(vec![None]));
    rig.answer(Reply::Entries(vec![Some(receipt_error())]));
    rig.answer(Reply::Entries(vec![None]));

    let delete = client.delete_message().queue_url(QUEUE).receipt_handle("r");
    delete.clone().send().await.unwrap();
    assert_eq!(rig.call().await, Call::DeleteMessages { queue_url: text(QUEUE), receipts: texts(&["r"]) });
    let stale = delete.send().await.unwrap_err();
    assert!(stale.as_service_error().unwrap().is_receipt_handle_is_invalid(), "{stale:?}");
    rig.call().await;

    let change = client.change_message_visibility().queue_url(QUEUE).receipt_handle("r").visibility_timeout(5);
    change.send().await.unwrap();
    let entries = vec![(text("r"), Duration::from_secs(5))];
    assert_eq!(rig.call().await, Call::ChangeVisibility { queue_url: text(QUEUE), entries });
}

#[tokio::test]
async fn queues_are_found_and_described() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    rig.answer(Reply::QueueUrl(text(QUEUE)));
    assert_eq!(client.get_queue_url().queue_name("events").send().await.unwrap().queue_url(), Some(QUEUE));
    assert_eq!(rig.call().await, Call::GetQueueUrl { name: text("events") });

    let all = Reply::Attributes(pairs(&[("ApproximateNumberOfMessages", "7"), ("VisibilityTimeout", "30")]));
    rig.answer(all.clone());
    rig.answer(all);
    let ask = client.get_queue_attributes().queue_url(QUEUE);
    let out = ask.clone().attribute_names(QueueAttributeName::All).send().await.unwrap();
    assert_eq!(rig.call().await, Call::GetQueueAttributes { queue_url: text(QUEUE) });
    assert_eq!(out.attributes().unwrap()[&QueueAttributeName::ApproximateNumberOfMessages], "7");
    assert_eq!(out.attributes().unwrap().len(), 2);
    let one = ask.attribute_names(QueueAttributeName::VisibilityTimeout).send().await.unwrap();
    let expected = [(QueueAttributeName::VisibilityTimeout, text("30"))];
    assert_eq!(one.attributes.unwrap().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_missing_queue_has_its_old_name_in_clients() {
    let rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    for code in ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"] {
        rig.refuse(code, 400);
        let error = client.receive_message().queue_url(QUEUE).send().await.unwrap_err();
        assert_eq!(error.code(), Some("AWS.SimpleQueueService.NonExistentQueue"));
        assert!(error.as_service_error().unwrap().is_queue_does_not_exist(), "{error:?}");
    }
    rig.refuse("QueueDoesNotExist", 400);
    let batch = client.send_message_batch().queue_url(QUEUE).entries(send_entry("a"));
    assert!(batch.send().await.unwrap_err().into_service_error().is_queue_does_not_exist());
}

#[tokio::test]
async fn batches_without_sense_are_refused_before_the_backend_sees_them() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_sqs, rig);
    let batch = |ids: &[&str]| {
        let entries = ids.iter().map(|id| delete_entry(id)).collect();
        client.delete_message_batch().queue_url(QUEUE).set_entries(Some(entries)).send()
    };
    let empty = batch(&[]).await.unwrap_err().into_service_error();
    assert!(empty.is_empty_batch_request(), "{empty:?}");
    let twice = batch(&["a", "a"]).await.unwrap_err().into_service_error();
    assert!(twice.is_batch_entry_ids_not_distinct(), "{twice:?}");
    let many = batch(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]).await.unwrap_err();
    assert!(many.as_service_error().unwrap().is_too_many_entries_in_batch_request(), "{many:?}");
    let patient = client.receive_message().queue_url(QUEUE).wait_time_seconds(21).send().await.unwrap_err();
    assert_eq!(patient.code(), Some("InvalidParameterValue"));
    let negative = client.receive_message().queue_url(QUEUE).max_number_of_messages(-1).send().await.unwrap_err();
    assert_eq!(negative.code(), Some("InvalidParameterValue"));
    rig.assert_untouched();
}
