//! infra/: the module's README names its variables and outputs as they are, and what HCL repeats of the program is right.
//!
//! `UPDATE_README=1 cargo test --test infra` writes the tables anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use taskset_guardian::events::{self, Decoded, IgnoredReason};
use taskset_guardian::model::AnnouncementKind;

const BEGIN: &str = "<!-- generated: UPDATE_README=1 cargo test --test infra -->\n";
const END: &str = "<!-- end -->\n";

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/modules/guardian")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(module().join(name)).unwrap()
}

/// A `variable` or an `output`, as `terraform fmt` writes it.
struct Block<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Block<'a> {
    /// All of one kind in a file, in its order.
    fn all(kind: &str, text: &'a str) -> Vec<Self> {
        let mut blocks: Vec<Self> = Vec::new();
        let mut is_open = false;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix(kind).and_then(|rest| rest.strip_prefix(" \"")) {
                blocks.push(Self { name: rest.trim_end_matches("\" {"), lines: Vec::new() });
                is_open = true;
            } else if line == "}" {
                is_open = false;
            } else if is_open && let Some(block) = blocks.last_mut() {
                block.lines.push(line);
            }
        }
        assert!(!blocks.is_empty());
        blocks
    }

    /// What stands behind the equals sign, which must be on the same line.
    fn value(&self, attribute: &str) -> Option<&'a str> {
        self.lines.iter().find_map(|line| {
            let rest = line.strip_prefix("  ")?.strip_prefix(attribute)?;
            Some(rest.trim_start().strip_prefix('=')?.trim())
        })
    }

    fn description(&self) -> String {
        let quoted = self.value("description").unwrap_or_else(|| panic!("{} has no description", self.name));
        let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap();
        text.replace("\\\"", "\"").replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;")
    }
}

fn inputs() -> String {
    let text = read("variables.tf");
    let mut table = String::from("| name | what | type | default |\n|---|---|---|---|\n");
    for variable in Block::all("variable", &text) {
        let kind = variable.value("type").unwrap_or_else(|| panic!("{} has no type", variable.name));
        let default = variable.value("default").map_or("required".to_owned(), |value| format!("`{value}`"));
        writeln!(table, "| `{}` | {} | `{kind}` | {default} |", variable.name, variable.description()).unwrap();
    }
    table
}

fn outputs() -> String {
    let text = read("outputs.tf");
    let mut table = String::from("| name | what |\n|---|---|\n");
    for output in Block::all("output", &text) {
        writeln!(table, "| `{}` | {} |", output.name, output.description()).unwrap();
    }
    table
}

#[test]
fn the_readme_has_every_input_and_output() {
    let path = module().join("README.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let mut expected = String::new();
    let mut rest = found.as_str();
    for table in [inputs(), outputs()] {
        let (before, generated) = rest.split_once(BEGIN).unwrap();
        let (_, after) = generated.split_once(END).unwrap();
        write!(expected, "{before}{BEGIN}{table}{END}").unwrap();
        rest = after;
    }
    expected += rest;
    if std::env::var("UPDATE_README").is_ok() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        assert!(found == expected, "{} is out of step: UPDATE_README=1 cargo test --test infra", path.display());
    }
}

#[test]
fn the_topic_can_be_told_whatever_there_is_to_tell() {
    use AnnouncementKind::{DeploymentGraduated, RollbackCompleted, RollbackEscalated, RollbackHeld, RollbackStarted};
    let text = read("variables.tf");
    let notify = Block::all("variable", &text).into_iter().find(|variable| variable.name == "notify").unwrap();
    let checked = notify.lines.iter().find_map(|line| line.split_once("contains([")?.1.split_once(']')).unwrap().0;
    let expected: Vec<_> = [RollbackStarted, RollbackCompleted, RollbackEscalated, RollbackHeld, DeploymentGraduated]
        .iter()
        .map(|kind| format!("\"{}\"", kind.detail_type()))
        .collect();
    assert_eq!(checked, expected.join(", "));
    assert!(read("topic.tf").contains(&format!("source = [\"{}\"]", taskset_guardian::model::SOURCE)));
}

#[test]
fn the_event_pattern_names_what_the_program_reads_and_nothing_that_it_leaves_aside() {
    let json = |name: &str| -> serde_json::Value { serde_json::from_str(&read(name)).unwrap() };
    let mut alternatives = json("event-pattern.json")["$or"].as_array().unwrap().clone();
    alternatives.push(json("cloudtrail-pattern.json"));
    let mut named = BTreeSet::new();
    for alternative in alternatives {
        let each = |key: &str| alternative[key].as_array().unwrap().clone();
        for (source, detail_type) in
            each("source").iter().flat_map(|s| each("detail-type").into_iter().map(move |t| (s.clone(), t)))
        {
            // An empty detail is nothing that could be read. What is not even tried is not known.
            let is_left_aside = matches!(decoded(&source, &detail_type, &serde_json::json!({})), Ok(Decoded::Ignored(ignored))
                if matches!(ignored.reason, IgnoredReason::UnknownType | IgnoredReason::RollingDeployment));
            assert!(!is_left_aside, "{source} {detail_type}");
            named.insert(detail_type.to_string());
        }
    }
    let code = std::fs::read_to_string(module().join("../../../src/events/mod.rs")).unwrap();
    let reads = code.lines().filter(|line| line.contains("=> ") && line.contains("::read")).count();
    assert_eq!(named.len(), reads, "src/events reads another number of detail types");
}

#[test]
fn the_calls_that_are_heard_of_are_those_that_are_read() {
    let pattern: serde_json::Value = serde_json::from_str(&read("cloudtrail-pattern.json")).unwrap();
    let arn = |what: &str| format!("arn:aws:elasticloadbalancing:eu-west-1:111122223333:{what}");
    let asked = serde_json::json!({ "cluster": "prod", "service": "web", "ruleArn": arn("listener-rule/app/a/1/2/3"),
        "listenerArn": arn("listener/app/a/1/2"), "actions": [{ "targetGroupArn": arn("targetgroup/green/1") }] });
    let is_read = |name: &serde_json::Value| {
        let detail = serde_json::json!({ "eventName": name, "requestParameters": asked });
        matches!(decoded(&"aws.ecs".into(), &pattern["detail-type"][0], &detail), Ok(Decoded::Signal(_)))
    };
    assert!(pattern["detail"]["eventName"].as_array().unwrap().iter().all(is_read));
    let others = ["CreateRule", "DeleteRule", "UpdateService", "SetRulePriorities", "ModifyTargetGroup"];
    assert!(!others.map(serde_json::Value::from).iter().any(is_read));
}

fn decoded(
    source: &serde_json::Value,
    detail_type: &serde_json::Value,
    detail: &serde_json::Value,
) -> Result<Decoded, events::DecodeError> {
    let event = serde_json::json!({ "version": "0", "id": "1", "detail-type": detail_type, "source": source,
        "account": "111122223333", "time": "2026-03-02T10:15:30Z", "region": "eu-west-1", "resources": [],
        "detail": detail });
    events::decode(&event.to_string())
}
