//! EventBridge.

use aws_sdk_eventbridge::error::ProvideErrorMetadata as _;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, RuleState};

use super::*;
use crate::sandbox::api::{EventEntry, EventRuleView};

#[tokio::test]
async fn events_are_put_and_fail_entry_by_entry() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_eventbridge, rig);
    let refused = ApiError::client("MalformedDetail", "Detail is malformed.");
    rig.answer(Reply::Entries(vec![None, Some(refused), None]));

    let full = PutEventsRequestEntry::builder().source("guardian").detail_type("Rollback").detail("{\"a\":1}");
    let full = full.resources("arn:a").resources("arn:b").event_bus_name("ops").time(DateTime::from_secs(1));
    let bare = PutEventsRequestEntry::builder().source("guardian").build();
    let put = client.put_events().entries(full.build()).entries(bare.clone()).entries(bare);
    let out = put.send().await.unwrap();

    let full = EventEntry {
        source: text("guardian"),
        detail_type: text("Rollback"),
        detail: text("{\"a\":1}"),
        resources: texts(&["arn:a", "arn:b"]),
        bus: Some(text("ops")),
    };
    let bare = EventEntry {
        detail_type: String::new(),
        detail: String::new(),
        resources: Vec::new(),
        bus: None,
        ..full.clone()
    };
    assert_eq!(rig.call().await, Call::PutEvents { entries: vec![full, bare.clone(), bare] });
    assert_eq!(out.failed_entry_count(), 1);
    let [first, second, third] = out.entries() else { panic!("{out:?}") };
    assert!(first.event_id().is_some() && first.error_code().is_none());
    assert_eq!(second.event_id(), None);
    assert_eq!((second.error_code(), second.error_message()), (Some("MalformedDetail"), Some("Detail is malformed.")));
    assert!(third.event_id() > first.event_id(), "ids are distinct");
}

#[tokio::test]
async fn a_refused_put_keeps_its_code() {
    let rig = Rig::start().await;
    rig.refuse("InternalException", 500);
    let put = client!(aws_sdk_eventbridge, rig).put_events().entries(PutEventsRequestEntry::builder().build());
    let error = put.send().await.unwrap_err();
    assert_eq!(error.code(), Some("InternalException"));
    assert!(error.as_service_error().unwrap().is_internal_exception());
}

#[tokio::test]
async fn rules_are_found_by_their_target_described_and_tried() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_eventbridge, rig);
    rig.answer(Reply::Names(texts(&["guardian"])));
    let found = client.list_rule_names_by_target().target_arn("arn:queue").send().await.unwrap();
    assert_eq!(rig.call().await, Call::ListRuleNamesByTarget { target: text("arn:queue") });
    assert_eq!(found.rule_names(), ["guardian"]);

    let (name, arn, pattern) = (text("guardian"), text("arn:rule"), text("{\"source\":[\"a\"]}"));
    rig.answer(Reply::EventRule(EventRuleView { name, arn, enabled: false, pattern: pattern.clone() }));
    let rule = client.describe_rule().name("guardian").send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeEventRule { name: text("guardian") });
    assert_eq!((rule.arn(), rule.event_pattern()), (Some("arn:rule"), Some(&*pattern)));
    assert_eq!(rule.state(), Some(&RuleState::Disabled));

    rig.answer(Reply::Matches(true));
    assert!(client.test_event_pattern().event_pattern(&pattern).event("{}").send().await.unwrap().result());
    assert_eq!(rig.call().await, Call::TestEventPattern { pattern, event: text("{}") });
}
