//! The metrics registry, and what is counted and shown when.
//!
//! Closed label sets start at 0, so that a missing series means a missing worker, never a quiet one. Gauges of a service
//! go away with it.

mod families;
mod services;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};

use self::families::Families;
use self::services::Services;
use crate::engine::{Finding, Note, Report, ServiceView, Stage};
use crate::model::{ErrorClass, Fact, Gate, IncidentOutcome, ServiceKey, Timestamp, Verdict};
use crate::ports::{QueueDepth, Recorder};

/// Every call that the guardian makes: the closed `service` and `operation` labels.
const OPERATIONS: &[(&str, &str)] = &[
    ("cloudwatch", "DescribeAlarms"),
    ("cloudwatch", "GetMetricData"),
    ("dynamodb", "GetItem"),
    ("dynamodb", "Query"),
    ("dynamodb", "TransactWriteItems"),
    ("ecs", "DeleteTaskSet"),
    ("ecs", "DescribeServices"),
    ("ecs", "DescribeTaskSets"),
    ("ecs", "DescribeTasks"),
    ("ecs", "ListClusters"),
    ("ecs", "ListServices"),
    ("ecs", "ListTasks"),
    ("ecs", "UpdateServicePrimaryTaskSet"),
    ("ecs", "UpdateTaskSet"),
    ("elasticloadbalancing", "DescribeListeners"),
    ("elasticloadbalancing", "DescribeRules"),
    ("elasticloadbalancing", "DescribeTargetGroups"),
    ("elasticloadbalancing", "DescribeTargetHealth"),
    ("elasticloadbalancing", "ModifyListener"),
    ("elasticloadbalancing", "ModifyRule"),
    ("events", "PutEvents"),
    ("sqs", "ChangeMessageVisibilityBatch"),
    ("sqs", "DeleteMessageBatch"),
    ("sqs", "GetQueueAttributes"),
    ("sqs", "ReceiveMessage"),
    ("tag", "GetResources"),
];

/// The closed `gate` label, as in rule files. All alarms of a service share one series: their names are anybody's.
const GATES: [&str; 7] = [
    "compare.false_rollback",
    "errors.alarms",
    "errors.http_5xx_ratio",
    "errors.latency_p99",
    "stability.steady_within",
    "stability.task_failures",
    "stability.unhealthy_targets",
];

/// What a received message was: the `outcome` label of `messages_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageOutcome {
    /// It became a signal.
    Signal,
    /// A known kind of event that says nothing to a gate.
    Ignored,
    /// Not an event, or one of a shape that we do not know.
    Undecodable,
}

impl MessageOutcome {
    /// All of them, for closed label sets.
    pub const ALL: [Self; 3] = [Self::Signal, Self::Ignored, Self::Undecodable];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Ignored => "ignored",
            Self::Undecodable => "undecodable",
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    services: Mutex<Services>,
}

impl Metrics {
    /// Registers everything. Fails only when two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        families.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("TASKSET_GUARDIAN_REVISION")]).set(1);
        for outcome in MessageOutcome::ALL {
            families.messages_total.with_label_values(&[outcome.as_str()]);
        }
        for kind in Fact::KINDS {
            families.signals_total.with_label_values(&[kind]);
        }
        for verdict in Verdict::ALL {
            families.verdicts_total.with_label_values(&[verdict.as_str()]);
        }
        for stage in Stage::ALL {
            families.rollback_duration_seconds.with_label_values(&[stage.as_str()]);
        }
        for (service, operation) in OPERATIONS {
            families.aws_request_duration_seconds.with_label_values(&[service, operation]);
            for outcome in std::iter::once("ok").chain(ErrorClass::ALL.map(ErrorClass::as_str)) {
                families.aws_requests_total.with_label_values(&[service, operation, outcome]);
            }
        }
        Ok(Self { registry, families, services: Mutex::default() })
    }

    /// The exposition text. What is over all services is computed at this moment.
    pub fn render(&self, now: Timestamp) -> prometheus::Result<String> {
        let f = &self.families;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        {
            let services = self.services();
            let age = services.oldest_open().map_or(Duration::ZERO, |since| now.since(since));
            f.rollback_oldest_open_seconds.set(age.as_secs_f64());
            f.protected_services.set(number(services.count()));
            f.quarantined_versions.set(number(services.quarantined()));
        }
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        self.services().render(&mut text);
        Ok(text)
    }

    /// Counts what a step reports.
    pub fn record(&self, report: &Report) {
        let f = &self.families;
        for note in &report.notes {
            match note {
                Note::Signal { kind, .. } => f.signals_total.with_label_values(&[kind]).inc(),
                Note::Judged { service, verdict, findings, .. } => {
                    f.verdicts_total.with_label_values(&[verdict.as_str()]).inc();
                    self.gates(service, findings);
                }
                Note::Reached { stage, took, .. } => {
                    f.rollback_duration_seconds.with_label_values(&[stage.as_str()]).observe(took.as_secs_f64());
                }
                // One that is opened again has not ended.
                Note::Closed { service, outcome, .. } if *outcome != IncidentOutcome::Open => {
                    self.services().ended(service, *outcome);
                }
                Note::Brake { engaged, .. } => f.brake_engaged.set(i64::from(*engaged)),
                // Shown by gauges, counted at the call, or of no number at all.
                Note::DeploymentBegan { .. }
                | Note::Closed { .. }
                | Note::Decided { .. }
                | Note::Phase { .. }
                | Note::Waiting { .. }
                | Note::Sent { .. }
                | Note::Returned { .. }
                | Note::TrafficMoved { .. }
                | Note::Graduated { .. }
                | Note::Unread { .. }
                | Note::NotReady { .. }
                | Note::Refused { .. }
                | Note::Witnessed { .. }
                | Note::Announced { .. } => {}
            }
        }
    }

    fn gates(&self, service: &ServiceKey, findings: &[Finding]) {
        let ratios = GATES.map(|gate| {
            let of_gate = findings.iter().filter(|finding| gate_word(&finding.gate) == Some(gate));
            of_gate.filter_map(Finding::ratio).reduce(f64::max)
        });
        self.services().gates(service, ratios);
    }

    /// Sets the gauges of one service.
    pub fn show(&self, view: &ServiceView) {
        self.services().show(view);
    }

    /// Removes the gauges of a service that is no longer protected. Its counters stay: they are history.
    pub fn forget(&self, key: &ServiceKey) {
        self.services().forget(key);
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        // Rows of numbers are whole after any panic.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was received.
    pub fn message(&self, outcome: MessageOutcome) {
        self.families.messages_total.with_label_values(&[outcome.as_str()]).inc();
    }

    /// An event was received `now` that AWS dates `at`.
    pub fn event(&self, at: Timestamp, now: Timestamp) {
        self.families.event_lag_seconds.observe(now.since(at).as_secs_f64());
        // One that is dated ahead, by whomever, must not hide all that come after it.
        let seconds = at.min(now).since(Timestamp::EPOCH).as_secs_f64();
        let newest = &self.families.last_event_timestamp_seconds;
        newest.set(newest.get().max(seconds));
    }

    /// How many messages there are. What is not known is not shown.
    pub fn queue_depth(&self, depth: Option<QueueDepth>) {
        let shown = [("events", depth.map(|depth| depth.waiting)), ("dead_letter", depth.and_then(|depth| depth.dead))];
        for (queue, count) in shown {
            match count {
                Some(count) => {
                    let count = i64::try_from(count).unwrap_or(i64::MAX);
                    self.families.queue_messages.with_label_values(&[queue]).set(count);
                }
                // One that was never shown can't be removed, and need not be.
                None => drop(self.families.queue_messages.remove_label_values(&[queue])),
            }
        }
    }

    /// All protected services were listed.
    pub fn sweep(&self, took: Duration) {
        self.families.sweep_duration_seconds.observe(took.as_secs_f64());
    }

    /// A commit of the journal ended; `None` when it failed.
    pub fn commit(&self, took: Option<Duration>) {
        match took {
            Some(took) => self.families.journal_commit_duration_seconds.observe(took.as_secs_f64()),
            None => self.families.journal_commit_failures_total.inc(),
        }
    }

    /// This worker acts, or stopped to.
    pub fn leader(&self, leads: bool) {
        self.families.leader.set(i64::from(leads));
        if !leads {
            // Whoever acts next says whether it holds, how deep the queue is and whether the files are good.
            self.families.brake_engaged.set(0);
            self.queue_depth(None);
            self.reload(true);
        }
    }

    /// The rule files were read: they are in force, or invalid.
    pub fn reload(&self, successful: bool) {
        self.families.rules_last_reload_successful.set(i64::from(successful));
    }
}

/// The `gate` label. Orders of people and the quarantine are facts, no thresholds.
const fn gate_word(gate: &Gate) -> Option<&'static str> {
    match gate {
        Gate::TaskFailures => Some("stability.task_failures"),
        Gate::SteadyWithin => Some("stability.steady_within"),
        Gate::UnhealthyTargets => Some("stability.unhealthy_targets"),
        Gate::ExcessFailures => Some("compare.false_rollback"),
        Gate::Http5xxRatio => Some("errors.http_5xx_ratio"),
        Gate::LatencyP99 => Some("errors.latency_p99"),
        Gate::Alarm(_) => Some("errors.alarms"),
        Gate::Person | Gate::Quarantine => None,
    }
}

impl Recorder for Metrics {
    fn call(&self, service: &'static str, operation: &'static str, outcome: &'static str, took: Duration) {
        self.families.aws_requests_total.with_label_values(&[service, operation, outcome]).inc();
        let durations = self.families.aws_request_duration_seconds.with_label_values(&[service, operation]);
        durations.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::engine::{DeploymentView, GateState, QuarantineView, Use};
    use crate::model::{AlarmName, Comparator, Evidence, IncidentId, Phase, Role, Split, TaskSetId, Unit};

    const NOW: Timestamp = Timestamp::from_millis(1_772_445_880_000);

    fn lines(metrics: &Metrics) -> Vec<String> {
        metrics.render(NOW).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn assert_has(metrics: &Metrics, line: &str) {
        let lines = lines(metrics);
        let name = line.split(['{', ' ']).next().unwrap();
        let near: Vec<_> = lines.iter().filter(|l| l.starts_with(name)).collect();
        assert!(lines.iter().any(|l| l == line), "no line {line}; near: {near:#?}");
    }

    fn key() -> ServiceKey {
        ServiceKey::new("prod", "checkout")
    }

    fn view(deployment: Option<DeploymentView>) -> ServiceView {
        ServiceView {
            service: key(),
            rule: Some("web".into()),
            ready: true,
            not_ready_because: None,
            hold: None,
            quarantine: Vec::new(),
            observed_at: Some(NOW),
            deployment,
        }
    }

    fn rolling_back() -> DeploymentView {
        let phase = Phase::RollingBack(crate::model::Step::ShiftTraffic);
        DeploymentView {
            green: TaskSetId::new("ecs-svc/2"),
            blue: TaskSetId::new("ecs-svc/1"),
            task_definition: "web:42".into(),
            contract: None,
            began_at: NOW,
            phase,
            phase_word: phase.as_str(),
            why: String::new(),
            verdict: Verdict::Breached,
            gates: Vec::new(),
            split: Some(Split { blue: 0.75, green: 0.25 }),
            green_failures: 3,
            blue_failures: 1,
            green_failed_share: Some(0.125),
            blue_failed_share: None,
            incident: Some(IncidentId::new("i-1")),
            open_since: Some(NOW.minus(Duration::from_secs(42))),
            withheld: None,
        }
    }

    #[test]
    fn closed_label_sets_start_at_zero() {
        let metrics = Metrics::new().unwrap();
        for line in [
            "taskset_guardian_messages_total{outcome=\"undecodable\"} 0",
            "taskset_guardian_signals_total{kind=\"task_stopped\"} 0",
            "taskset_guardian_verdicts_total{verdict=\"breached\"} 0",
            "taskset_guardian_rollback_duration_seconds_count{stage=\"shift\"} 0",
            "taskset_guardian_aws_requests_total{operation=\"DeleteTaskSet\",outcome=\"denied\",service=\"ecs\"} 0",
            "taskset_guardian_journal_commit_failures_total 0",
            "taskset_guardian_protected_services 0",
            "taskset_guardian_rollback_oldest_open_seconds 0",
        ] {
            assert_has(&metrics, line);
        }
    }

    #[test]
    fn every_line_parses_and_every_family_has_help() {
        let metrics = Metrics::new().unwrap();
        metrics.show(&view(Some(rolling_back())));
        for line in lines(&metrics) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                assert!(help.split_once(' ').is_some_and(|(_, text)| text.ends_with('.')), "{line}");
            } else if !line.starts_with("# TYPE ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with("taskset_guardian_") || series.starts_with("process_"), "{line}");
                value.parse::<f64>().unwrap();
            }
        }
        let help = "# HELP taskset_guardian_leader 1 while this worker acts, else 0.";
        assert_has(&metrics, help);
    }

    #[test]
    fn gauges_come_and_go_with_their_service() {
        let metrics = Metrics::new().unwrap();
        metrics.show(&view(Some(rolling_back())));
        let with = "cluster=\"prod\"";
        for line in [
            "taskset_guardian_protected_services 1".to_owned(),
            format!("taskset_guardian_service_ready{{{with},service=\"checkout\"}} 1"),
            format!("taskset_guardian_deployment_phase{{{with},phase=\"rolling_back\",service=\"checkout\"}} 1"),
            format!("taskset_guardian_deployment_phase{{{with},phase=\"watching\",service=\"checkout\"}} 0"),
            format!("taskset_guardian_traffic_weight_ratio{{{with},role=\"green\",service=\"checkout\"}} 0.25"),
            format!("taskset_guardian_window_http_5xx_ratio{{{with},role=\"green\",service=\"checkout\"}} 0.125"),
            format!("taskset_guardian_window_task_failures{{{with},role=\"green\",service=\"checkout\"}} 3"),
            format!("taskset_guardian_rollbacks_total{{{with},outcome=\"rolled_back\",service=\"checkout\"}} 0"),
            "taskset_guardian_rollback_oldest_open_seconds 42".to_owned(),
        ] {
            assert_has(&metrics, &line);
        }

        metrics.show(&view(None));
        let text = lines(&metrics).join("\n");
        assert!(!text.contains("traffic_weight_ratio{"), "no deployment, no split: {text}");
        assert!(!text.contains("window_http_5xx_ratio{"), "no deployment, no traffic: {text}");
        assert_has(&metrics, "taskset_guardian_rollback_oldest_open_seconds 0");

        metrics.forget(&key());
        let left: Vec<_> = lines(&metrics).into_iter().filter(|line| line.contains(with)).collect();
        assert!(left.iter().all(|line| line.starts_with("taskset_guardian_rollbacks_total")), "{left:#?}");
        assert_has(&metrics, "taskset_guardian_protected_services 0");
    }

    fn finding(gate: Gate, state: GateState, value: f64, threshold: f64) -> Finding {
        let evidence = Evidence {
            gate: gate.clone(),
            role: Role::Green,
            task_set: TaskSetId::new("ecs-svc/2"),
            value,
            comparator: Comparator::AtLeast,
            threshold,
            unit: Unit::Seconds,
            from: NOW,
            to: NOW,
            facts: Vec::new(),
        };
        Finding { gate, state, evidence: Some(evidence), why: String::new() }
    }

    #[test]
    fn gates_show_how_near_a_breach_is_and_alarms_share_a_series() {
        let metrics = Metrics::new().unwrap();
        let alarm = |name| Gate::Alarm(AlarmName::new(name));
        let judged = |findings| {
            let note = Note::Judged { service: key(), verdict: Verdict::Watching, news: false, findings };
            metrics.record(&Report { notes: vec![note], ..Report::default() });
        };
        let gate =
            |name| format!("taskset_guardian_gate_ratio{{cluster=\"prod\",gate=\"{name}\",service=\"checkout\"}}");
        judged(vec![
            finding(Gate::TaskFailures, GateState::Pending, 2.0, 4.0),
            finding(alarm("slow"), GateState::Pending, 30.0, 120.0),
            finding(alarm("5xx"), GateState::Breached, 7.0, 0.0),
            Finding { evidence: None, ..finding(Gate::SteadyWithin, GateState::Clear, 1.0, 1.0) },
        ]);
        assert_has(&metrics, &format!("{} 0.5", gate("stability.task_failures")));
        assert_has(&metrics, &format!("{} 1", gate("errors.alarms")));
        assert!(!lines(&metrics).join("\n").contains(&gate("stability.steady_within")), "clear for good");

        judged(vec![finding(alarm("5xx"), GateState::Pending, 7.0, 0.0)]);
        assert_has(&metrics, &format!("{} 0", gate("errors.alarms")));
        assert!(!lines(&metrics).join("\n").contains(&gate("stability.task_failures")), "not evaluated any more");

        metrics.show(&view(Some(rolling_back())));
        assert_has(&metrics, &format!("{} 0", gate("errors.alarms")));
        metrics.show(&view(None));
        assert!(!lines(&metrics).join("\n").contains("gate_ratio{"), "no deployment, no gates");
        judged(vec![finding(alarm("5xx"), GateState::Pending, 7.0, 0.0)]);
        metrics.forget(&key());
        assert!(!lines(&metrics).join("\n").contains("gate_ratio{"), "no service, no gates");
    }

    #[test]
    fn quarantined_versions_are_counted_over_all_services() {
        let metrics = Metrics::new().unwrap();
        let version = |name: &str| QuarantineView {
            task_definition: name.into(),
            since: NOW,
            until: NOW,
            incident: IncidentId::new("i-1"),
        };
        let cart = ServiceKey::new("prod", "cart");
        metrics.show(&ServiceView { quarantine: vec![version("web:1"), version("web:2")], ..view(None) });
        metrics.show(&ServiceView { quarantine: vec![version("cart:1")], service: cart, ..view(None) });
        assert_has(&metrics, "taskset_guardian_quarantined_versions 3");
        metrics.forget(&key());
        assert_has(&metrics, "taskset_guardian_quarantined_versions 1");
    }

    #[test]
    fn a_report_is_counted() {
        let metrics = Metrics::new().unwrap();
        let service = key();
        let notes = vec![
            Note::Signal { kind: "task_stopped", service: None, used: Use::Taken },
            Note::Judged { service: service.clone(), verdict: Verdict::Breached, news: false, findings: Vec::new() },
            Note::Reached { service: service.clone(), stage: Stage::Shift, took: Duration::from_secs(3) },
            Note::Closed {
                service,
                incident: IncidentId::new("i-1"),
                outcome: IncidentOutcome::RolledBack,
                why: String::new(),
            },
        ];
        metrics.record(&Report { notes, ..Report::default() });
        for line in [
            "taskset_guardian_signals_total{kind=\"task_stopped\"} 1",
            "taskset_guardian_verdicts_total{verdict=\"breached\"} 1",
            "taskset_guardian_rollback_duration_seconds_sum{stage=\"shift\"} 3",
            "taskset_guardian_rollbacks_total{cluster=\"prod\",outcome=\"rolled_back\",service=\"checkout\"} 1",
        ] {
            assert_has(&metrics, line);
        }
    }
}
