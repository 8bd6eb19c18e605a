//! CloudWatch: metrics of the traffic per target group, and alarms evaluated at the end of each period.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::api::{AlarmView, MetricQuery, MetricSeries, Reply};
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Datum {
    requests: u32,
    failed: u32,
    /// Requests for which the target that was chosen was gone.
    unreachable: u32,
    latency: Duration,
    /// Answers by how long they took: [`slot`].
    took: [u16; SLOTS],
}

/// Slots of latencies: from a millisecond to four minutes, four to an octave.
const SLOTS: usize = 72;

impl Default for Datum {
    fn default() -> Self {
        Self { requests: 0, failed: 0, unreachable: 0, latency: Duration::ZERO, took: [0; SLOTS] }
    }
}

impl Datum {
    pub(super) fn record(&mut self, failed: bool, latency: Duration) {
        self.requests += 1;
        self.failed += u32::from(failed);
        self.latency += latency;
        if let Some(count) = self.took.get_mut(slot(latency)) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn record_unreachable(&mut self) {
        self.unreachable += 1;
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.unreachable += other.unreachable;
        self.latency += other.latency;
        for (count, more) in self.took.iter_mut().zip(other.took) {
            *count = count.saturating_add(more);
        }
    }

    /// As CloudWatch has it: counts of errors are published only when there are any. `None` where there is no data.
    fn statistic(&self, metric: &str, statistic: &str) -> Option<f64> {
        let some = |count: u32| (count > 0).then(|| f64::from(count));
        match (metric, statistic) {
            ("RequestCount", "Sum") => some(self.requests + self.unreachable),
            ("HTTPCode_Target_5XX_Count", "Sum") => some(self.failed),
            ("TargetConnectionErrorCount", "Sum") => some(self.unreachable),
            ("TargetResponseTime", "Average") => {
                some(self.requests).map(|requests| self.latency.as_secs_f64() / requests)
            }
            ("TargetResponseTime", quantile) => {
                let percent: f64 = quantile.strip_prefix('p')?.parse().ok()?;
                let all: u32 = self.took.iter().copied().map(u32::from).sum();
                let mut rest = f64::from(all) * percent / 100.0;
                let reached = self.took.iter().position(|count| {
                    rest -= f64::from(*count);
                    *count > 0 && rest <= 0.0
                });
                reached.map(took)
            }
            _ => None,
        }
    }
}

/// Four slots to an octave: a quantile is told to within a fifth.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded before")]
fn slot(latency: Duration) -> usize {
    let octaves = (latency.as_secs_f64() * 1000.0).max(1.0).log2();
    ((octaves * 4.0) as usize).min(SLOTS - 1)
}

/// The upper end of a slot, in seconds.
fn took(slot: usize) -> f64 {
    let quarters = u32::try_from(slot + 1).unwrap_or(u32::MAX);
    (f64::from(quarters) / 4.0).exp2() / 1000.0
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
        self.sum(&alarm.groups, from, from + period).statistic(alarm.metric_name(), alarm.statistic())
    }

    fn sum(&self, groups: &[String], from: i64, to: i64) -> Datum {
        let mut sum = Datum::default();
        for group in groups {
            self.metrics.range((group.clone(), from)..(group.clone(), to)).for_each(|(_, datum)| sum.add(datum));
        }
        sum
    }

    /// What has been published by now: of a minute that still runs, a part.
    pub(super) fn get_metric_data(&self, queries: Vec<MetricQuery>, from: Timestamp, to: Timestamp) -> Reply {
        let published = self.now.minus(self.setup.timing.metrics).as_millis().div_euclid(BUCKET) * BUCKET;
        let series = |query: MetricQuery| {
            let groups = self.groups_of(&query);
            let period = i64::from(query.period.max(10)) * 1000;
            // Nothing is kept for longer.
            let first = from.as_millis().max(self.now.as_millis() - KEPT).div_euclid(period) * period;
            let begins = (0..).map(|number| first + number * period).take_while(|begin| *begin < to.as_millis());
            let point = |begin: i64| {
                let sum = self.sum(&groups, begin, (begin + period).min(published));
                Some((Timestamp::from_millis(begin), sum.statistic(&query.metric, &query.statistic)?))
            };
            let points = begins.take_while(|begin| *begin < published).filter_map(point).collect();
            MetricSeries { points, id: query.id, label: query.metric }
        };
        Reply::Metrics(queries.into_iter().map(series).collect())
    }

    /// Groups that have these very dimensions. A Network Load Balancer counts no requests.
    fn groups_of(&self, query: &MetricQuery) -> Vec<String> {
        let is = |name: &str, arn: &str| query.dimensions.get(name).is_some_and(|it| it == names::dimension(arn));
        if query.namespace != NAMESPACE || query.dimensions.len() != 2 || !is("LoadBalancer", &self.balancer.arn) {
            return Vec::new();
        }
        let groups = self.services.values().flat_map(|service| &service.groups);
        groups.filter(|group| is("TargetGroup", group)).cloned().collect()
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
