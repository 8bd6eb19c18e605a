//! The series of each service. A fleet has many: they are kept as rows of numbers, and become text when they are asked for.
//! A registry would hold names, labels and help of each series, a kilobyte apiece.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::GATES;
use crate::engine::ServiceView;
use crate::model::{IncidentOutcome, Phase, Role, ServiceKey, Timestamp};

/// In the order of the numbers in a row.
const ROLES: [&str; 2] = [Role::Blue.as_str(), Role::Green.as_str()];

/// One service.
#[derive(Debug, Default)]
struct Row {
    /// `None` when it is not protected any more: what was counted stays.
    shown: Option<Shown>,
    gates: [Option<f64>; GATES.len()],
    ended: [u64; IncidentOutcome::ENDS.len()],
}

/// What is so now.
#[derive(Debug)]
struct Shown {
    ready: bool,
    phase: Option<&'static str>,
    failures: [u32; 2],
    split: [Option<f64>; 2],
    failed: [Option<f64>; 2],
    /// Since when its rollback is open.
    open_since: Option<Timestamp>,
    /// Its versions in quarantine.
    quarantined: usize,
}

/// All services.
#[derive(Debug, Default)]
pub(super) struct Services(BTreeMap<ServiceKey, Row>);

impl Services {
    pub(super) fn show(&mut self, view: &ServiceView) {
        let deployment = view.deployment.as_ref();
        let split = deployment.and_then(|d| d.split);
        let row = self.row(&view.service);
        // Nothing is judged any more. What was breached is shown until the rollback is over.
        if deployment.is_none_or(|d| matches!(d.phase_word, "graduated" | "rolled_back" | "superseded")) {
            row.gates = Default::default();
        }
        row.shown = Some(Shown {
            ready: view.ready,
            phase: deployment.map(|d| d.phase_word),
            failures: deployment.map_or([0; 2], |d| [d.blue_failures, d.green_failures]),
            split: [split.map(|split| split.blue), split.map(|split| split.green)],
            failed: deployment.map_or([None; 2], |d| [d.blue_failed_share, d.green_failed_share]),
            open_since: deployment.and_then(|d| d.open_since),
            quarantined: view.quarantine.len(),
        });
    }

    pub(super) fn forget(&mut self, key: &ServiceKey) {
        if let Some(row) = self.0.get_mut(key) {
            (row.shown, row.gates) = Default::default();
        }
    }

    /// How near to a breach each gate is; those without numbers go away.
    pub(super) fn gates(&mut self, key: &ServiceKey, ratios: [Option<f64>; GATES.len()]) {
        self.row(key).gates = ratios;
    }

    /// A rollback ended so.
    pub(super) fn ended(&mut self, key: &ServiceKey, outcome: IncidentOutcome) {
        let row = self.row(key);
        for (count, end) in row.ended.iter_mut().zip(IncidentOutcome::ENDS) {
            *count += u64::from(end == outcome);
        }
    }

    fn row(&mut self, key: &ServiceKey) -> &mut Row {
        self.0.entry(key.clone()).or_default()
    }

    fn shown(&self) -> impl Iterator<Item = (&ServiceKey, &Shown)> {
        self.0.iter().filter_map(|(key, row)| Some((key, row.shown.as_ref()?)))
    }

    /// Those that are protected.
    pub(super) fn count(&self) -> usize {
        self.shown().count()
    }

    pub(super) fn quarantined(&self) -> usize {
        self.shown().map(|(_, shown)| shown.quarantined).sum()
    }

    /// Since when the oldest open rollback is open.
    pub(super) fn oldest_open(&self) -> Option<Timestamp> {
        self.shown().filter_map(|(_, shown)| shown.open_since).min()
    }

    /// Appends their exposition.
    pub(super) fn render(&self, out: &mut String) {
        let ready = "1 when a rollback of the service would work now, as far as the last observation tells, else 0.";
        let mut family = Family::begin(out, "service_ready", "gauge", ready);
        for (key, shown) in self.shown() {
            family.series(key, None, u8::from(shown.ready));
        }
        let phase = "1 for the phase of the service's deployment, 0 for all others.";
        let mut family = Family::begin(out, "deployment_phase", "gauge", phase);
        for (key, shown) in self.shown() {
            for word in Phase::WORDS {
                family.series(key, Some(("phase", word)), u8::from(shown.phase == Some(word)));
            }
        }
        let split = "Share of the traffic by the weights of the load-balancer rules, 0 to 1.";
        self.by_role(out, "traffic_weight_ratio", split, |shown| shown.split);
        let failures = "Failed tasks in the health window.";
        self.by_role(out, "window_task_failures", failures, |shown| shown.failures.map(Some));
        let failed = "Share of the requests in the health window that failed, 0 to 1. Absent unless a rule's gate needs to know.";
        self.by_role(out, "window_http_5xx_ratio", failed, |shown| shown.failed);
        let ratio = "How far a gate is on its way to a breach, which is at 1, at its last evaluation. Absent while it has no \
                     numbers.";
        let mut family = Family::begin(out, "gate_ratio", "gauge", ratio);
        for (key, row) in &self.0 {
            for (gate, ratio) in GATES.iter().zip(row.gates) {
                if let Some(ratio) = ratio {
                    family.series(key, Some(("gate", gate)), ratio);
                }
            }
        }
        let ended =
            "Rollbacks that ended or need a person, by outcome. One that is undone and opened again counts again.";
        let mut family = Family::begin(out, "rollbacks_total", "counter", ended);
        for (key, row) in &self.0 {
            for (outcome, count) in IncidentOutcome::ENDS.iter().zip(row.ended) {
                family.series(key, Some(("outcome", outcome.as_str())), count);
            }
        }
    }

    fn by_role<N: Display>(&self, out: &mut String, name: &'static str, help: &str, of: fn(&Shown) -> [Option<N>; 2]) {
        let mut family = Family::begin(out, name, "gauge", help);
        for (key, shown) in self.shown() {
            for (role, number) in ROLES.into_iter().zip(of(shown)) {
                if let Some(number) = number {
                    family.series(key, Some(("role", role)), number);
                }
            }
        }
    }
}

/// One family while it is written. Without a series, nothing is.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
    head: Option<String>,
}

impl<'a> Family<'a> {
    fn begin(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        let name_of = |what| format!("# {what} taskset_guardian_{name} ");
        let head = format!("{}{help}\n{}{kind}\n", name_of("HELP"), name_of("TYPE"));
        Self { out, name, head: Some(head) }
    }

    /// Labels stand in the order of their names, as a registry writes them.
    fn series(&mut self, key: &ServiceKey, third: Option<(&str, &str)>, number: impl Display) {
        let Self { out, name, head } = self;
        out.extend(head.take());
        let (cluster, service) = (Escaped(&key.cluster), Escaped(&key.service));
        // Writing to a string never fails.
        let _ = match third {
            None => writeln!(out, "taskset_guardian_{name}{{cluster=\"{cluster}\",service=\"{service}\"}} {number}"),
            Some((label, value)) => writeln!(
                out,
                "taskset_guardian_{name}{{cluster=\"{cluster}\",{label}=\"{value}\",service=\"{service}\"}} {number}"
            ),
        };
    }
}

/// A name as the format wants it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.chars().next_back() {
                Some(odd @ ('\\' | '"')) => write!(f, "{}\\{odd}", &part[..part.len() - 1])?,
                Some('\n') => write!(f, "{}\\n", &part[..part.len() - 1])?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_do_not_break_the_format() {
        let mut services = Services::default();
        services.ended(&ServiceKey::new("a\"b", "c\\\nd"), IncidentOutcome::Held);
        let mut text = String::new();
        services.render(&mut text);
        let line = "taskset_guardian_rollbacks_total{cluster=\"a\\\"b\",outcome=\"held\",service=\"c\\\\\\nd\"} 1\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_family_without_series_is_not_there() {
        let mut text = String::new();
        Services::default().render(&mut text);
        assert_eq!(text, "");
    }
}
