//! The dashboards and the Prometheus rules, and what they ask for.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder whose names end in this, by name.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ends| ends == extension));
    files.sort();
    files
}

/// One dashboard.
pub(crate) struct Board {
    pub(crate) name: String,
    pub(crate) json: Value,
}

impl Board {
    pub(crate) fn all() -> Vec<Self> {
        let read = |path: PathBuf| {
            let json = serde_json::from_str(&fs::read_to_string(&path).unwrap());
            let json = json.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Self { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), json }
        };
        let boards: Vec<_> = files("grafana/dashboards", "json").into_iter().map(read).collect();
        assert!(boards.len() >= 2, "the overview and the service");
        boards
    }

    /// Everything that shows data.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        self.json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
    }

    pub(crate) fn annotations(&self) -> &[Value] {
        self.json["annotations"]["list"].as_array().unwrap()
    }
}

/// A panel's expressions.
pub(crate) fn expressions(panel: &Value) -> Vec<&str> {
    panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap()).collect()
}

pub(crate) fn rules() -> String {
    fs::read_to_string(root().join("grafana/prometheus/rules.yml")).unwrap()
}

pub(crate) fn rule_tests() -> String {
    fs::read_to_string(root().join("grafana/prometheus/rules.test.yml")).unwrap()
}

/// What follows a key in a YAML file of ours, on every line that has it.
pub(crate) fn values<'a>(yaml: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    yaml.lines()
        .filter_map(move |line| line.trim_start().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": "))
}

/// Names of our series, those of the process and of recording rules that an expression has in it.
pub(crate) fn names(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.contains("taskset_guardian_") || word.starts_with("process_")).collect()
}
