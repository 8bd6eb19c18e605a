//! Events as AWS writes them, through the decoder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use taskset_guardian::events::{DecodeError, Decoded, IgnoredReason, decode};
use taskset_guardian::model::{ApiCall, CallTarget, Fact, Signal, StopClass, TaskArn, Window};

/// Every fixture's text, by its file's stem.
fn fixtures() -> BTreeMap<String, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/events");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn rendered(decoded: Result<Decoded, DecodeError>) -> Value {
    match decoded {
        Ok(Decoded::Signal(signal)) => json!({ "signal": signal }),
        Ok(Decoded::Ignored(ignored)) => json!({ "ignored": ignored.reason.as_str(), "type": ignored.detail_type }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

#[test]
fn every_document_is_understood_as_recorded() {
    let understood: BTreeMap<String, Value> =
        fixtures().into_iter().map(|(name, body)| (name, rendered(decode(&body)))).collect();
    insta::assert_json_snapshot!("understood", understood);
}

#[test]
fn fixtures_named_bad_are_errors_and_no_others() {
    for (name, body) in fixtures() {
        let decoded = decode(&body);
        assert_eq!(decoded.is_err(), name.starts_with("bad-"), "{name}: {decoded:?}");
    }
}

#[test]
fn fixtures_show_every_reason_to_ignore_and_every_class_and_kind() {
    let decoded: Vec<_> = fixtures().values().filter_map(|body| decode(body).ok()).collect();
    for reason in IgnoredReason::ALL {
        let shown = |d: &Decoded| matches!(d, Decoded::Ignored(ignored) if ignored.reason == reason);
        assert!(decoded.iter().any(shown), "{reason}");
    }
    let facts =
        || decoded.iter().filter_map(|d| if let Decoded::Signal(signal) = d { Some(&signal.fact) } else { None });
    for kind in Fact::KINDS {
        assert!(facts().any(|fact| fact.kind() == kind), "{kind}");
    }
    let classes =
        [StopClass::Version, StopClass::Infrastructure, StopClass::Operator, StopClass::Neutral, StopClass::Unknown];
    for class in classes {
        let shown =
            |fact: &Fact| matches!(fact, Fact::Task(task) if task.stop.as_ref().is_some_and(|s| s.class == class));
        assert!(facts().any(shown), "{class:?}");
    }
}

#[test]
fn a_field_that_aws_adds_tomorrow_changes_nothing() {
    for (name, body) in fixtures() {
        let mut event: Value = serde_json::from_str(&body).unwrap();
        let before = rendered(decode(&body));
        event["trace-header"] = json!({ "deep": [1, { "er": null }] });
        if let Some(detail) = event["detail"].as_object_mut() {
            detail.insert("healthStatus".to_owned(), json!(["HEALTHY", 7]));
        }
        let after = rendered(decode(&event.to_string()));
        if !name.starts_with("bad-") {
            assert_eq!(after, before, "{name}");
        }
    }
}

#[test]
fn without_any_one_field_an_event_is_read_or_refused_but_never_speaks_of_something_else() {
    for (name, body) in fixtures() {
        let Ok(Decoded::Signal(whole)) = decode(&body) else { continue };
        let event: Value = serde_json::from_str(&body).unwrap();
        for field in event["detail"].as_object().unwrap().keys() {
            let mut without = event.clone();
            without["detail"].as_object_mut().unwrap().remove(field);
            if let Ok(Decoded::Signal(signal)) = decode(&without.to_string()) {
                assert_eq!(signal.scope, whole.scope, "{name} without {field}");
                assert_eq!(subject(&signal.fact), subject(&whole.fact), "{name} without {field}");
            }
        }
    }
}

fn subject(fact: &Fact) -> String {
    match fact {
        Fact::Task(change) => format!("{} {} {}", change.service, change.task_set, change.task),
        Fact::Service(action) => action.service.to_string(),
        Fact::Alarm(change) => change.alarm.name.to_string(),
        Fact::AlarmDeleted(deleted) => deleted.name.to_string(),
        Fact::Call(ApiCall { target: CallTarget::TaskSet { service, .. }, .. }) => service.to_string(),
        Fact::Call(ApiCall { target: CallTarget::Rule { rule, .. }, .. }) => rule.to_string(),
    }
}

/// A task event of one of four tasks, at one of five versions, that ended for one of four reasons.
fn task_event(task: u8, version: u8, cause: u8) -> String {
    let (code, reason) = [
        ("EssentialContainerExited", "Essential container in task exited"),
        ("SpotInterruption", "Your Spot Task was interrupted."),
        ("ServiceSchedulerInitiated", "Task failed container health checks"),
        ("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment ecs-svc/1)"),
    ][usize::from(cause % 4)];
    json!({
        "source": "aws.ecs", "detail-type": "ECS Task State Change", "account": "111122223333", "region": "eu-west-1",
        "time": format!("2026-03-02T10:15:{:02}Z", version % 5),
        "detail": {
            "clusterArn": "arn:aws:ecs:eu-west-1:111122223333:cluster/prod",
            "taskArn": format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{}", task % 4),
            "group": "service:checkout", "startedBy": "ecs-svc/1", "desiredStatus": "STOPPED",
            "lastStatus": if version.is_multiple_of(2) { "RUNNING" } else { "STOPPED" },
            "version": version % 5, "stopCode": code, "stoppedReason": reason,
        }
    })
    .to_string()
}

#[test]
fn how_containers_ended_is_read_where_it_may_speak_against_the_version() {
    let containers = json!([{ "name": "app", "exitCode": 137 }, { "name": "sidecar" }, { "name": "log", "reason": "OutOfMemoryError" }]);
    for (cause, told) in [(0, true), (1, false), (2, true), (3, false)] {
        let mut event: Value = serde_json::from_str(&task_event(0, 1, cause)).unwrap();
        event["detail"]["containers"] = containers.clone();
        let Ok(Decoded::Signal(Signal { fact: Fact::Task(change), .. })) = decode(&event.to_string()) else { panic!() };
        let exits: Vec<_> =
            change.stop.unwrap().containers.iter().map(|exit| (exit.name.to_string(), exit.exit_code)).collect();
        let expected = [("app".to_owned(), Some(137)), ("log".to_owned(), None)];
        assert_eq!(exits, if told { &expected[..] } else { &[] }, "cause {cause}");

        event["detail"]["containers"] = json!([{ "name": 7 }]);
        let refused = decode(&event.to_string()).err().map(|error| error.to_string());
        assert_eq!(refused.is_some_and(|why| why.starts_with("detail.containers: ")), told, "cause {cause}");
    }
}

fn window_of<'a>(events: impl IntoIterator<Item = &'a String>) -> Window {
    let mut window = Window::default();
    for event in events {
        let Ok(Decoded::Signal(signal)) = decode(event) else { panic!("not a signal: {event}") };
        let Fact::Task(change) = signal.fact else { panic!("not a task") };
        let (task, version): (TaskArn, u64) = (change.task, change.version);
        window.claim(&task, version, &change.stop.unwrap());
    }
    window
}

/// Any fixture with a few bytes changed, and cut somewhere.
fn damaged() -> impl Strategy<Value = String> {
    let all: Vec<String> = fixtures().into_values().collect();
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(all), damage, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(text, damage, at, cut)| {
            let mut bytes = text.into_bytes();
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if cut {
                bytes.truncate(at.index(bytes.len()));
            }
            String::from_utf8_lossy(&bytes).into_owned()
        },
    )
}

/// Small JSON documents out of the words that the decoder looks for, in shapes that AWS never sends.
fn strange_event() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "service:",
            "service:a/b",
            "ecs-svc/1",
            "arn:aws:ecs:::cluster/",
            "arn:aws:ecs:r:a:task/x/y",
            "STOPPED",
            "ALARM",
            "delete",
            "2026-03-02T10:15:00Z",
            "arn:::::",
            "99999-13-77T99:99:99Z",
            "\u{0}",
        ])
        .prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    let fields = prop::sample::select(vec![
        "clusterArn",
        "taskArn",
        "group",
        "startedBy",
        "lastStatus",
        "desiredStatus",
        "version",
        "stopCode",
        "stoppingAt",
        "containers",
        "alarmName",
        "state",
        "value",
        "timestamp",
        "operation",
        "configuration",
        "metrics",
        "eventName",
        "serviceName",
        "service",
        "account",
        "region",
        "time",
        "resources",
        "replay-name",
    ]);
    let tree = leaf.prop_recursive(3, 40, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(fields.clone().prop_map(str::to_owned), inner, 0..12)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let kinds = prop::sample::select(vec![
        ("aws.ecs", "ECS Task State Change"),
        ("aws.ecs", "ECS Service Action"),
        ("aws.cloudwatch", "CloudWatch Alarm State Change"),
        ("aws.cloudwatch", "CloudWatch Alarm Configuration Change"),
    ]);
    (kinds, tree.clone(), tree).prop_map(|((source, kind), rest, detail)| {
        let mut event = json!({ "account": "a", "region": "r", "time": "2026-03-02T10:15:00Z" });
        if let (Some(event), Value::Object(rest)) = (event.as_object_mut(), rest) {
            event.extend(rest);
        }
        event["source"] = json!(source);
        event["detail-type"] = json!(kind);
        event["detail"] = detail;
        event.to_string()
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_decoder_panic(text in ".*") {
        let _ = decode(&text);
    }

    #[test]
    fn no_damage_makes_the_decoder_panic_and_errors_stay_short(text in damaged()) {
        if let Err(error) = decode(&text) {
            prop_assert!(error.to_string().len() <= 300);
        }
    }

    #[test]
    fn no_strange_document_makes_the_decoder_panic(text in strange_event()) {
        if let Err(error) = decode(&text) {
            prop_assert!(error.to_string().len() <= 300);
        }
    }

    #[test]
    fn the_same_events_in_any_order_and_multiplicity_give_the_same_window(
        (once, again) in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..20).prop_flat_map(|events| {
            let once: Vec<String> = events.into_iter().map(|(task, version, cause)| task_event(task, version, cause)).collect();
            let mut twice = once.clone();
            twice.extend(once.iter().step_by(2).cloned());
            (Just(once), Just(twice).prop_shuffle())
        })
    ) {
        prop_assert_eq!(window_of(&once), window_of(&again));
    }
}
