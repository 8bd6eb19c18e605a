//! CloudWatch: metrics of the traffic per target group, and alarms evaluated at the end of each period.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::api::{AlarmView, Reply};
use super::setup::{AlarmMetric, AlarmSetup};
use super::{Happening, World, names};
use crate::model::{AlarmValue, Role, Timestamp};

/// Metrics are kept in buckets of ten seconds, the shortest period of an alarm. Milliseconds.
pub(super) const BUCKET: i64 = 10_000;
/// Metrics older than this are of no use to any alarm here. Milliseconds.
const KEPT: i64 = 2 * 3600 * 1000;

/// Of all metrics here.
pub(super) const NAMESPACE: &str = "AWS/ApplicationELB";

/// What one target group answered in one bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Datum {
    requests: u32,
    failed: u32,
    latency: Duration,
}

impl Datum {
    pub(super) fn record(&mut self, failed: bool, latency: Duration) {
        self.requests += 1;
        self.failed += u32::from(failed);
        self.latency += latency;
    }
}

/// One alarm.
#[derive(Clone, Debug)]
pub(super) struct Alarm {
    pub(super) setup: AlarmSetup,
    pub(super) dimensions: BTreeMap<String, String>,
    /// ARNs of the groups whose metrics it sums up.
    groups: Vec<String>,
    pub(super) state: AlarmState,
}

/// An alarm's state.
#[derive(Clone, Debug)]
pub(super) struct AlarmState {
    pub(super) value: AlarmValue,
    pub(super) since: Timestamp,
    pub(super) reason: String,
    pub(super) reason_data: Option<Value>,
}

impl AlarmState {
    pub(super) const fn word(&self) -> &'static str {
        match self.value {
            AlarmValue::Ok => "OK",
            AlarmValue::Alarm => "ALARM",
            AlarmValue::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

impl Alarm {
    pub(super) const fn metric_name(&self) -> &'static str {
        match self.setup.metric {
            AlarmMetric::Target5xx => "HTTPCode_Target_5XX_Count",
            AlarmMetric::ResponseTime => "TargetResponseTime",
        }
    }

    pub(super) const fn statistic(&self) -> &'static str {
        match self.setup.metric {
            AlarmMetric::Target5xx => "Sum",
            AlarmMetric::ResponseTime => "Average",
        }
    }

    fn period(&self) -> i64 {
        i64::from(self.setup.period.max(10)) * 1000
    }
}

impl World {
    pub(super) fn create_alarms(&mut self) {
        for setup in self.setup.alarms.clone() {
            let Some(service) = self.services.get(&setup.service) else { continue };
            let groups = match setup.watches {
                Some(Role::Blue) => service.groups.iter().take(1).cloned().collect(),
                Some(Role::Green) => service.groups.iter().skip(1).take(1).cloned().collect(),
                None => service.pair().map(str::to_owned).collect::<Vec<_>>(),
            };
            let dimension = |name: &str, arn: &str| (name.to_owned(), names::dimension(arn).to_owned());
            let mut dimensions = BTreeMap::from([dimension("LoadBalancer", &self.balancer.arn)]);
            if setup.watches.is_some() {
                dimensions.extend(groups.iter().map(|group| dimension("TargetGroup", group)));
            }
            let state = AlarmState {
                value: setup.initial,
                since: self.now.minus(Duration::from_hours(1)),
                reason: "Unchecked: Initial alarm creation".to_owned(),
                reason_data: None,
            };
            let alarm = Alarm { setup: setup.clone(), dimensions, groups, state };
            self.plan_evaluation(&alarm);
            self.alarms.insert(setup.name, alarm);
        }
    }

    /// At the end of the period that runs now, plus the time that the metrics take.
    fn plan_evaluation(&mut self, alarm: &Alarm) {
        let lag = self.setup.timing.metrics;
        let period = alarm.period();
        let counted = self.now.minus(lag).as_millis();
        let boundary = Timestamp::from_millis((counted.div_euclid(period) + 1) * period);
        let after = boundary.plus(lag).since(self.now);
        self.plan(after, Happening::Evaluate(alarm.setup.name.clone()));
    }

    pub(super) fn evaluate(&mut self, name: &str) {
        let horizon = self.now.as_millis() - KEPT;
        self.metrics.retain(|(_, bucket), _| *bucket >= horizon);
        let Some(mut alarm) = self.alarms.get(name).cloned() else { return };
        self.plan_evaluation(&alarm);
        let period = alarm.period();
        let end = self.now.minus(self.setup.timing.metrics).as_millis().div_euclid(period) * period;
        let wanted = alarm.setup.evaluation_periods.max(1);
        let points: Vec<Option<f64>> =
            (0..i64::from(wanted)).map(|back| self.datapoint(&alarm, end - (back + 1) * period, period)).collect();
        let red = points.iter().all(|point| point.is_some_and(|value| value > alarm.setup.threshold));
        let value = if red { AlarmValue::Alarm } else { AlarmValue::Ok };
        if value == alarm.state.value {
            return;
        }
        let recent: Vec<f64> = points.iter().flatten().copied().collect();
        let state = AlarmState {
            value,
            since: self.now,
            reason: reason(&alarm, &recent, red),
            reason_data: Some(json!({
                "version": "1.0",
                "queryDate": super::events::without_colon(self.now),
                "statistic": alarm.statistic(),
                "period": alarm.setup.period,
                "recentDatapoints": recent,
                "threshold": alarm.setup.threshold,
            })),
        };
        let previous = std::mem::replace(&mut alarm.state, state);
        self.emit_alarm(&alarm, &previous);
        self.say(format!("alarm {name} turns {}", if red { "red" } else { "green" }));
        self.alarms.insert(name.to_owned(), alarm);
    }

    /// `None` where AWS has no data: counts of 5xx are published only when there are any.
    fn datapoint(&self, alarm: &Alarm, from: i64, period: i64) -> Option<f64> {
        let mut sum = Datum::default();
        for group in &alarm.groups {
            let span = (group.clone(), from)..(group.clone(), from + period);
            for (_, datum) in self.metrics.range(span) {
                sum.requests += datum.requests;
                sum.failed += datum.failed;
                sum.latency += datum.latency;
            }
        }
        match alarm.setup.metric {
            AlarmMetric::Target5xx => (sum.failed > 0).then(|| f64::from(sum.failed)),
            AlarmMetric::ResponseTime => {
                (sum.requests > 0).then(|| sum.latency.as_secs_f64() / f64::from(sum.requests))
            }
        }
    }

    pub(super) fn describe_alarms(&self, wanted: &[String]) -> Reply {
        let view = |alarm: &Alarm| AlarmView {
            name: alarm.setup.name.clone(),
            arn: names::alarm_arn(&alarm.setup.name),
            state: alarm.state.word().to_owned(),
            reason: alarm.state.reason.clone(),
            since: alarm.state.since,
            namespace: NAMESPACE.to_owned(),
            metric: alarm.metric_name().to_owned(),
            dimensions: alarm.dimensions.clone(),
            statistic: alarm.statistic().to_owned(),
            period: alarm.setup.period,
            evaluation_periods: alarm.setup.evaluation_periods,
            threshold: alarm.setup.threshold,
        };
        let found = self.alarms.values().filter(|alarm| wanted.is_empty() || wanted.contains(&alarm.setup.name));
        Reply::Alarms(found.map(view).collect())
    }
}

fn reason(alarm: &Alarm, recent: &[f64], red: bool) -> String {
    let (periods, threshold) = (alarm.setup.evaluation_periods.max(1), alarm.setup.threshold);
    if recent.is_empty() {
        return format!(
            "Threshold Crossed: no datapoints were received for {periods} period(s) and {periods} missing datapoint(s) \
             were treated as [NonBreaching]."
        );
    }
    let points: Vec<_> = recent.iter().map(|value| format!("{value:?}")).collect();
    let compared = if red { "greater than" } else { "not greater than" };
    let change = if red { "OK -> ALARM" } else { "ALARM -> OK" };
    format!(
        "Threshold Crossed: {} out of the last {periods} datapoints [{}] was {compared} the threshold ({threshold:?}) \
         (minimum {periods} datapoint(s) for {change} transition).",
        recent.len(),
        points.join(", "),
    )
}
