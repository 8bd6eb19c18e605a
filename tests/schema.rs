//! The schemas of events and incidents, against what the engine really says and keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::*;
use taskset_guardian::cli::schema::{Described, schema};
use taskset_guardian::model::*;
use taskset_guardian::rules::{Mode, Rule};

fn printed(what: Described) -> Value {
    let mut out = Vec::new();
    schema(what, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn misfits(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn breached(aws: Aws, rule: Rule) -> Driver {
    let mut it = Driver::new(aws, rule);
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
    it
}

/// Stories that between them end in every way there is.
fn stories() -> Vec<Driver> {
    let mut done = breached(Aws::blue_and_green(), rule());
    done.run(secs(300));
    let mut observed = breached(Aws::blue_and_green(), Rule { mode: Mode::Observe, ..rule() });
    observed.run(secs(300));
    observed.aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)])];
    observed.run(secs(60));
    let mut stuck = breached(Aws::blue_and_green(), rule());
    stuck.aws.healthy.insert(group("blue"), 0);
    stuck.aws.obeys = false;
    stuck.run(secs(900));
    let mut healthy = Driver::new(Aws::blue_and_green(), rule());
    healthy.aws.set(GREEN).status = TaskSetStatus::Primary;
    healthy.aws.set(BLUE).status = TaskSetStatus::Active;
    healthy.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    healthy.run(Duration::from_hours(1));
    let mut alarmed = Driver::new(Aws::blue_and_green(), rule());
    alarmed.run(secs(40));
    alarmed.aws.alarms = vec![red("checkout 5xx", alarmed.now, &["green"])];
    alarmed.run(secs(400));
    vec![done, observed, stuck, healthy, alarmed]
}

fn event(said: &Announcement) -> Value {
    json!({ "source": SOURCE, "detail-type": said.kind.detail_type(), "detail": said })
}

#[test]
fn every_announcement_fits_its_schema() {
    let schema = printed(Described::Events);
    let mut kinds = BTreeSet::new();
    for story in stories() {
        for said in &story.announced {
            kinds.insert(said.kind.detail_type());
            assert_eq!(misfits(&schema, &event(said)), [""; 0]);
        }
    }
    let all: BTreeSet<_> = AnnouncementKind::ALL.map(AnnouncementKind::detail_type).into();
    assert_eq!(kinds, all);
}

#[test]
fn every_incident_fits_its_schema() {
    let schema = printed(Described::Incidents);
    let mut outcomes = BTreeSet::new();
    for story in stories() {
        for incident in story.incidents.values() {
            outcomes.insert(incident.outcome.as_str());
            assert_eq!(misfits(&schema, &json!(incident)), [""; 0]);
        }
    }
    assert_eq!(outcomes, BTreeSet::from(["rolled_back", "held", "escalated"]));
}

/// What a consumer may rely on is required, and of the type that it was promised with.
#[test]
fn an_event_that_lacks_a_member_does_not_fit() {
    let schema = printed(Described::Events);
    let story = &stories()[0];
    let whole = event(&story.announced[0]);
    for name in whole["detail"].as_object().unwrap().keys() {
        let mut without = whole.clone();
        without["detail"].as_object_mut().unwrap().remove(name);
        assert_ne!(misfits(&schema, &without), [""; 0], "{name}");
        let mut other = whole.clone();
        other["detail"][name] = json!({ "of": "another type" });
        assert_ne!(misfits(&schema, &other), [""; 0], "{name}");
    }
    let mut newer = whole.clone();
    newer["detail"]["schemaVersion"] = json!(SCHEMA_VERSION + 1);
    assert_ne!(misfits(&schema, &newer), [""; 0]);
    let mut more = whole;
    more["detail"]["addedLater"] = json!(1);
    assert_eq!(misfits(&schema, &more), [""; 0], "members may be added");
}

/// A change of the contract shows in the diff of this file.
#[test]
fn the_schemas_are_as_recorded() {
    insta::assert_json_snapshot!("events", printed(Described::Events));
    insta::assert_json_snapshot!("incidents", printed(Described::Incidents));
}

#[test]
fn the_documented_event_is_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/announcements.md");
    let text = fs::read_to_string(path).unwrap();
    let example = text.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(misfits(&printed(Described::Events), &serde_json::from_str(example).unwrap()), [""; 0]);
    for kind in AnnouncementKind::ALL {
        assert!(text.contains(&format!("| `{}` |", kind.detail_type())), "{kind:?}");
    }
    let members = printed(Described::Events)["properties"]["detail"]["properties"].clone();
    for member in members.as_object().unwrap().keys() {
        assert!(text.contains(&format!("| `{member}` |")), "{member} is not documented");
    }
}
