//! What `/metrics` says, and which metrics there are.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Every metric of the worker, beside those of the process.
pub(crate) const METRICS: [&str; 28] = [
    "taskset_guardian_aws_request_duration_seconds",
    "taskset_guardian_aws_requests_total",
    "taskset_guardian_brake_engaged",
    "taskset_guardian_build_info",
    "taskset_guardian_deployment_phase",
    "taskset_guardian_event_lag_seconds",
    "taskset_guardian_gate_ratio",
    "taskset_guardian_journal_commit_duration_seconds",
    "taskset_guardian_journal_commit_failures_total",
    "taskset_guardian_last_event_timestamp_seconds",
    "taskset_guardian_leader",
    "taskset_guardian_messages_total",
    "taskset_guardian_protected_services",
    "taskset_guardian_quarantined_versions",
    "taskset_guardian_queue_messages",
    "taskset_guardian_rollback_duration_seconds",
    "taskset_guardian_rollback_oldest_open_seconds",
    "taskset_guardian_rollbacks_total",
    "taskset_guardian_rules_last_reload_successful",
    "taskset_guardian_service_ready",
    "taskset_guardian_signals_total",
    "taskset_guardian_sweep_duration_seconds",
    "taskset_guardian_traffic_weight_ratio",
    "taskset_guardian_verdicts_total",
    "taskset_guardian_window_http_5xx_ratio",
    "taskset_guardian_window_task_failures",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

/// The metric that a series belongs to: a histogram has three kinds of them.
pub(crate) fn metric(series: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series)
}

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// One answer of `/metrics`. It remembers which metrics were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Exposition {
    pub(crate) series: Vec<Series>,
    asked: Rc<RefCell<BTreeSet<String>>>,
}

impl Exposition {
    pub(crate) fn parse(text: &str, asked: &Rc<RefCell<BTreeSet<String>>>) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self { series: lines.map(series).collect(), asked: Rc::clone(asked) }
    }

    /// Every series of the name with these labels, and perhaps others.
    pub(crate) fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.asked.borrow_mut().insert(metric(name).to_owned());
        let has = |one: &Series, (label, value): &(&str, &str)| one.labels.get(*label).is_some_and(|has| has == value);
        self.series.iter().filter(move |one| one.name == name && labels.iter().all(|label| has(one, label)))
    }

    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|one| one.value).sum()
    }

    /// The value of the only series with these labels, if there is one.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.all(name, labels).collect();
        assert!(found.len() < 2, "{name}{labels:?} is not one series: {found:#?}");
        found.first().map(|one| one.value)
    }

    /// The same, where there must be one.
    #[track_caller]
    pub(crate) fn one(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name}{labels:?}"))
    }
}

/// No label of ours has an escaped character in it.
fn series(line: &str) -> Series {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|label| !label.is_empty());
    let label = |text: &str| {
        let (name, value) = text.split_once("=\"").unwrap();
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    };
    Series { name: name.to_owned(), labels: labels.map(label).collect(), value: value.parse().unwrap() }
}
