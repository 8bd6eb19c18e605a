//! `demo` and `check` as their users call them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use assert_cmd::Command;
use serde_json::Value;

fn guardian(words: &[&str]) -> Command {
    let mut command = Command::cargo_bin("taskset-guardian").unwrap();
    command.args(words).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

#[test]
fn a_demo_ends_with_one_document_that_says_how_it_went() {
    let done = guardian(&["demo", "--speed", "20", "--seed", "3", "--output", "json"]).assert().success();
    let ended: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
    assert_eq!((&ended["scenario"], &ended["seed"]), (&"crash-at-start".into(), &3.into()));
    assert_eq!((&ended["outcome"], &ended["expected"]), (&"rolled_back".into(), &"rolled_back".into()));
    assert_eq!((&ended["weights"]["blue"], &ended["weights"]["green"]), (&1.0.into(), &0.0.into()));
    for time in ["detection_ms", "traffic_safe_ms", "deleted_ms", "failed_requests"] {
        assert!(ended[time].is_u64(), "{time}: {}", ended[time]);
    }
    assert!(ended["detection_ms"].as_u64() <= ended["traffic_safe_ms"].as_u64());
    assert!(ended["traffic_safe_ms"].as_u64() <= ended["deleted_ms"].as_u64());
    assert!(ended["evidence"].as_array().unwrap().len() > 3, "the gate and its failed tasks");
    let timeline = ended["timeline"].as_array().unwrap();
    assert!(timeline.iter().all(|line| line["t_ms"].is_u64() && line["what"].is_string()));
    assert_eq!(ended["violations"], Value::Array(Vec::new()));
}

#[test]
fn the_list_and_a_wrong_name_both_name_every_scenario() {
    let list = guardian(&["demo", "--list", "--output", "json"]).assert().success();
    let list: Value = serde_json::from_slice(&list.get_output().stdout).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|scenario| scenario["name"].as_str().unwrap()).collect();
    assert!(names.len() >= 26 && names.contains(&"crash-at-start"), "{names:?}");
    let shown = guardian(&["demo", "--list"]).env("COLUMNS", "80").assert().success();
    let shown = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    let wrong = guardian(&["demo", "--scenario", "nonsense"]).assert().code(2);
    let wrong = String::from_utf8(wrong.get_output().stderr.clone()).unwrap();
    for name in names {
        assert!(shown.contains(name) && wrong.contains(name), "{name} is missing");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    for flags in [
        &["--listen", "127.0.0.1:0"][..],
        &["--list", "--listen", "127.0.0.1:0"],
        &["--practice", "--scenario", "healthy"],
        &["--practice", "--output", "json"],
    ] {
        let words: Vec<_> = ["demo"].iter().chain(flags).copied().collect();
        let refused = guardian(&words).assert().code(2);
        assert!(!refused.get_output().stderr.is_empty(), "{flags:?}");
    }
}

#[test]
fn a_demo_that_only_observes_says_so_and_changes_nothing() {
    let done = guardian(&["demo", "--scenario", "dry-run", "--speed", "20", "--output", "json"]).assert().success();
    let ended: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
    assert_eq!((&ended["outcome"], &ended["expected"]), (&"held".into(), &"held".into()));
    assert!(ended["detection_ms"].is_u64() && ended["traffic_safe_ms"].is_null() && ended["deleted_ms"].is_null());
    assert_eq!(ended["violations"], Value::Array(Vec::new()), "S12: no mutating call, also long after the decision");
}

#[test]
fn the_shipped_rules_pass_their_check_and_bad_ones_do_not() {
    guardian(&["check", "rules"]).assert().success();
    guardian(&["check", "rules/examples"]).assert().success();
    guardian(&["check", "tests/fixtures/rules/bad"]).assert().code(1);
    guardian(&["check", "no/such/directory"]).assert().code(2);
}

#[test]
fn with_a_warm_blue_traffic_is_safe_within_two_seconds_of_the_decision() {
    for scenario in ["crash-at-start", "sticky-rule", "several-listeners", "green-primary", "network-load-balancer"] {
        let words = ["demo", "--scenario", scenario, "--speed", "10", "--output", "json"];
        let done = guardian(&words).assert().success();
        let ended: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
        let [decided, safe] = ["detection_ms", "traffic_safe_ms"].map(|time| ended[time].as_u64().unwrap());
        assert!(safe - decided <= 2000, "{scenario}: decided after {decided} ms, safe after {safe} ms");
    }
}
