//! Dashboards, alerts, runbooks and the tests of the alerts stay in step with each other and with the metrics. What
//! Prometheus itself makes of them is in `tests/prometheus.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "support/boards.rs"]
mod boards;
#[path = "support/exposition.rs"]
mod exposition;

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use boards::{Board, expressions, files, names, root, rule_tests, rules, values};
use exposition::{METRICS, metric};

/// The variable that every panel's data comes from.
const DATASOURCE: &str = "${datasource}";

/// What the rules record.
fn recorded(rules: &str) -> BTreeSet<&str> {
    values(rules, "record").collect()
}

fn unknown<'a>(expression: &'a str, recorded: &BTreeSet<&str>) -> Vec<&'a str> {
    let known = |name: &&str| recorded.contains(name) || METRICS.contains(&metric(name));
    names(expression).into_iter().filter(|name| !known(name)).collect()
}

#[test]
fn every_panel_says_what_it_shows_and_asks_for_what_there_is() {
    let rules = rules();
    let recorded = recorded(&rules);
    for board in Board::all() {
        let mut titles = BTreeSet::new();
        for panel in board.panels() {
            let title = panel["title"].as_str().unwrap();
            let place = format!("{}, panel {title:?}", board.name);
            assert!(titles.insert(title), "{place}: there is another one of this title");
            let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            assert!(text(&panel["description"]), "{place} has no description");
            assert!(text(&panel["fieldConfig"]["defaults"]["unit"]), "{place} has no unit");
            assert_eq!(panel["datasource"]["uid"], DATASOURCE, "{place}");
            let asked = expressions(panel);
            assert!(!asked.is_empty(), "{place} shows nothing");
            for (target, expression) in panel["targets"].as_array().unwrap().iter().zip(asked) {
                assert_eq!(target["datasource"]["uid"], DATASOURCE, "{place}");
                assert!(!names(expression).is_empty(), "{place}: {expression}");
                assert_eq!(unknown(expression, &recorded), [""; 0], "{place}: {expression}");
            }
        }
        for annotation in board.annotations() {
            let expression = annotation["expr"].as_str().unwrap();
            assert_eq!(annotation["datasource"]["uid"], DATASOURCE, "{}: {expression}", board.name);
            assert_eq!(unknown(expression, &recorded), [""; 0], "{}: {expression}", board.name);
        }
    }
}

#[test]
fn panels_have_a_place_of_their_own_and_dashboards_a_fixed_name() {
    let mut uids = BTreeSet::new();
    for board in Board::all() {
        let json = &board.json;
        assert!(uids.insert(json["uid"].as_str().unwrap().to_owned()), "two dashboards with one uid");
        assert!(json["schemaVersion"].as_u64() >= Some(39), "{}", board.name);
        assert_eq!(json["templating"]["list"][0]["name"], "datasource", "{}", board.name);
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in json["panels"].as_array().unwrap() {
            let place = format!("{}, panel {}", board.name, panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: its id is taken");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24, "{place} is too wide");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{place} lies on another one");
            }
        }
    }
}

#[test]
fn every_rule_asks_for_what_there_is() {
    let rules = rules();
    let recorded = recorded(&rules);
    for name in &recorded {
        let level = name.split(':').count();
        assert_eq!(level, 3, "{name} is not level:metric:operation");
    }
    assert_eq!(unknown(&rules, &recorded), [""; 0]);
    assert!(names(&rules).len() > 10, "{:?}", names(&rules));
}

#[test]
fn every_alert_has_a_runbook_and_a_test_and_no_runbook_is_left_over() {
    let (rules, tests) = (rules(), rule_tests());
    let alerts: Vec<_> = values(&rules, "alert").collect();
    let names: BTreeSet<_> = alerts.iter().copied().collect();
    assert_eq!((names.len(), names.len() >= 11), (alerts.len(), true), "{alerts:?}");

    let url = |alert: &str| format!("{}/blob/main/docs/runbooks/{alert}.md", env!("CARGO_PKG_REPOSITORY"));
    let linked: Vec<_> = values(&rules, "runbook_url").map(str::to_owned).collect();
    assert_eq!(
        linked,
        alerts.iter().map(|alert| url(alert)).collect::<Vec<_>>(),
        "one for each, in the order of alerts"
    );
    for key in ["summary", "description", "severity"] {
        assert_eq!(values(&rules, key).count(), alerts.len(), "each alert has its {key}");
    }

    let runbooks = files("docs/runbooks", "md");
    let written: BTreeSet<_> = runbooks.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(written, names);
    for runbook in &runbooks {
        let text = fs::read_to_string(runbook).unwrap();
        let name = runbook.file_stem().unwrap().to_str().unwrap();
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        let sections = ["## What it means", "## Are users safe?", "## What to do", "## Causes", "## When it clears"];
        let order: Vec<_> = sections.iter().map(|section| text.find(section)).collect();
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{name} lacks one of {sections:?}");
        assert!(text.lines().count() <= 45, "{name} is too long for 3 a.m.");
    }

    // Firing in one case at least, and silent in another.
    for alert in alerts {
        let cases: Vec<_> = tests.split("- eval_time:").filter(|case| case.contains(&format!(": {alert}\n"))).collect();
        let silent = cases.iter().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(silent > 0 && silent < cases.len(), "{alert}: {silent} silent of {} cases", cases.len());
    }
}

#[test]
fn what_is_linked_within_the_repository_exists() {
    let readme = fs::read_to_string(root().join("grafana/README.md")).unwrap();
    let links: Vec<_> = readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() >= 5, "{links:?}");
    for link in links.iter().filter(|link| !link.starts_with("http")) {
        assert!(root().join("grafana").join(link).exists(), "{link}");
    }
}
