//! CloudWatch alarms and metrics, reading only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::{
    AlarmType, CompositeAlarm, Dimension, EvaluationState, LogAlarm, Metric, MetricAlarm, MetricDataQuery,
    MetricDataResult, MetricStat, ScanBy, StateValue, StatusCode,
};
use aws_smithy_types::DateTime;

use super::calls::{Calls, Operation};
use super::timestamp;

use crate::model::{
    AlarmName, AlarmReading, AlarmValue, CallError, ErrorClass, Sample, SampleMetric, Samples, TargetGroupArn,
    Timestamp, cut, suppressed,
};
use crate::ports::{Alarms, TrafficMetrics};

const DESCRIBE_ALARMS: Operation = Operation::new("cloudwatch", "DescribeAlarms");
const GET_METRIC_DATA: Operation = Operation::new("cloudwatch", "GetMetricData");

/// Names in one call, and alarms a page: CloudWatch's limit for both.
const PAGE: usize = 100;

/// Pages of one read: 5000 alarms, CloudWatch's default quota, at nine calls a second.
const PAGES: usize = 50;

/// Pages of metrics. Two groups over the longest window are less than one.
const METRIC_PAGES: usize = 5;

/// How much of CloudWatch's words is kept, in bytes; as the model says.
const REASON_BYTES: usize = 512;

/// Alarms of one account and Region.
pub struct CloudWatch {
    client: Client,
    calls: Calls,
    /// The target groups of each alarm that was ever read: what a composite alarm is made of is seldom read with it.
    groups: Mutex<BTreeMap<AlarmName, BTreeSet<Arc<str>>>>,
}

impl CloudWatch {
    pub(super) fn new(config: &SdkConfig, calls: Calls) -> Self {
        Self { client: Client::new(config), calls, groups: Mutex::default() }
    }

    /// These alarms, or all. Composite ones bind to the target groups of the alarms that they are made of.
    async fn describe(&self, names: Option<Vec<String>>) -> Result<Vec<AlarmReading>, CallError> {
        let (mut alarms, composites) = self.pages(names).await?;
        let mut made_of = composites;
        for _ in 0..DEEPEST {
            let known = |name: &&AlarmName| self.groups().contains_key(*name) || made_of.contains_key(*name);
            let unknown: BTreeSet<_> = made_of.values().flatten().filter(|name| !known(name)).cloned().collect();
            if unknown.is_empty() {
                break;
            }
            let names: Vec<String> = unknown.iter().map(ToString::to_string).collect();
            for some in names.chunks(PAGE) {
                match self.pages(Some(some.to_vec())).await {
                    Ok((_, composites)) => made_of.extend(composites),
                    // Names that are read wrong must not hide every other alarm.
                    Err(error) if error.class == ErrorClass::Rejected => {
                        tracing::warn!("What composite alarms are made of is not known: {error}");
                    }
                    Err(error) => return Err(error),
                }
            }
            // Whatever is still not there does not exist.
            let missing = unknown.into_iter().filter(|name| !made_of.contains_key(name));
            let mut groups = self.groups();
            groups.extend(missing.map(|name| (name, BTreeSet::new())));
        }
        for alarm in alarms.iter_mut().filter(|alarm| made_of.contains_key(&alarm.name)) {
            alarm.target_groups = bound(&alarm.name, &made_of, &self.groups(), DEEPEST);
        }
        Ok(alarms)
    }

    /// What one question is answered with, and what the composite alarms in it are made of.
    async fn pages(&self, names: Option<Vec<String>>) -> Result<(Vec<AlarmReading>, MadeOf), CallError> {
        let (mut alarms, mut composites) = (Vec::new(), MadeOf::new());
        let mut token = None;
        for _ in 0..PAGES {
            let call = self
                .client
                .describe_alarms()
                .set_alarm_names(names.clone())
                // Left out, it means metric alarms only.
                .alarm_types(AlarmType::MetricAlarm)
                .alarm_types(AlarmType::CompositeAlarm)
                .max_records(100)
                .set_next_token(token)
                .send();
            let page = self.calls.send(DESCRIBE_ALARMS, call).await?;
            let metric: Vec<_> = page.metric_alarms().iter().filter_map(metric_alarm).collect();
            self.groups().extend(metric.iter().map(|alarm| (alarm.name.clone(), alarm.target_groups.clone())));
            alarms.extend(metric);
            alarms.extend(page.composite_alarms().iter().filter_map(composite_alarm));
            composites.extend(page.composite_alarms().iter().filter_map(made_of));
            token = page.next_token;
            if token.is_none() {
                return Ok((alarms, composites));
            }
        }
        tracing::warn!(
            read = alarms.len(),
            "the account has more alarms than are read: name those that matter in the rules"
        );
        Ok((alarms, composites))
    }

    /// Those of these that are log alarms. They are asked for apart: where CloudWatch does not know the type, it refuses.
    async fn log_alarms(&self, names: Vec<String>) -> Result<Vec<AlarmReading>, CallError> {
        let call = self
            .client
            .describe_alarms()
            .set_alarm_names(Some(names))
            .alarm_types(AlarmType::LogAlarm)
            .max_records(100);
        match self.calls.send(DESCRIBE_ALARMS, call.send()).await {
            Ok(page) => Ok(page.log_alarms().iter().filter_map(log_alarm).collect()),
            Err(error) if error.class == ErrorClass::Rejected => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<AlarmName, BTreeSet<Arc<str>>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Composite alarms, and the alarms that each is made of.
type MadeOf = BTreeMap<AlarmName, BTreeSet<AlarmName>>;

/// Composite alarms of composite alarms are followed so far.
const DEEPEST: usize = 2;

/// Alarms that one composite alarm can be made of: CloudWatch's quota.
const PARTS: usize = 100;

/// The longest name of an alarm, in characters: CloudWatch refuses to be asked for a longer one.
const NAME_CHARS: usize = 255;

/// The target groups of all that an alarm is made of.
fn bound(
    name: &AlarmName,
    made_of: &MadeOf,
    groups: &BTreeMap<AlarmName, BTreeSet<Arc<str>>>,
    depth: usize,
) -> BTreeSet<Arc<str>> {
    let Some(parts) = made_of.get(name).filter(|_| depth > 0) else {
        return groups.get(name).cloned().unwrap_or_default();
    };
    parts.iter().flat_map(|part| bound(part, made_of, groups, depth.saturating_sub(1))).collect()
}

fn made_of(alarm: &CompositeAlarm) -> Option<(AlarmName, BTreeSet<AlarmName>)> {
    Some((AlarmName::new(alarm.alarm_name()?), parts(alarm.alarm_rule().unwrap_or_default())))
}

/// The alarms that a rule names, as in `ALARM("checkout 5xx") AND NOT OK(arn:aws:cloudwatch:eu-west-1:1:alarm:db)` or
/// `AT_LEAST(2, ALARM, (slow, "checkout 5xx", db))`.
fn parts(rule: &str) -> BTreeSet<AlarmName> {
    let mut found = BTreeSet::new();
    let mut rest = rule;
    while let Some((_, after)) = rest.split_once('(').filter(|_| found.len() < PARTS) {
        let (names, behind) = listed(after);
        // With another one inside, a bracket only groups, or the names are in that one.
        if !behind.starts_with('(') {
            let names = names.into_iter().filter(|name| !name.is_empty() && name.chars().count() <= NAME_CHARS);
            found.extend(names.map(AlarmName::new));
        }
        rest = behind;
    }
    found
}

/// The names at the beginning of a text, separated by commas, and what comes after them.
fn listed(text: &str) -> (Vec<&str>, &str) {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let start = rest.trim_start();
        let (name, behind) = match start.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => start.find([',', ')', '(']).map_or((start, ""), |end| start.split_at(end)),
        };
        let name = name.trim();
        names
            .push(name.split_once(":alarm:").filter(|(arn, _)| arn.starts_with("arn:")).map_or(name, |(_, name)| name));
        let behind = behind.trim_start();
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (names, behind),
        }
    }
}

#[async_trait]
impl Alarms for CloudWatch {
    async fn named(&self, names: &BTreeSet<AlarmName>) -> Result<Vec<AlarmReading>, CallError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut alarms = Vec::new();
        for some in names.chunks(PAGE) {
            let found = self.describe(Some(some.to_vec())).await?;
            let is_missing = |name: &&String| found.iter().all(|alarm| alarm.name.as_str() != name.as_str());
            let missing: Vec<_> = some.iter().filter(is_missing).cloned().collect();
            alarms.extend(found);
            if !missing.is_empty() {
                alarms.extend(self.log_alarms(missing).await?);
            }
        }
        Ok(alarms)
    }

    async fn all(&self) -> Result<Vec<AlarmReading>, CallError> {
        self.describe(None).await
    }
}

#[async_trait]
impl TrafficMetrics for CloudWatch {
    async fn samples(
        &self,
        groups: &BTreeMap<TargetGroupArn, Arc<str>>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Samples, CallError> {
        let queries: Vec<_> = groups.iter().enumerate().flat_map(|(at, (group, of))| queries(at, group, of)).collect();
        let mut results = Vec::new();
        let mut token = None;
        for _ in 0..METRIC_PAGES {
            let call = self
                .client
                .get_metric_data()
                .set_metric_data_queries(Some(queries.clone()))
                .start_time(DateTime::from_millis(from.as_millis()))
                .end_time(DateTime::from_millis(to.as_millis()))
                .scan_by(ScanBy::TimestampAscending)
                .set_next_token(token)
                .send();
            let page = self.calls.send(GET_METRIC_DATA, call).await?;
            results.extend(page.metric_data_results.unwrap_or_default());
            token = page.next_token;
            if token.is_none() {
                return collected(groups, &results);
            }
        }
        Err(GET_METRIC_DATA.error(ErrorClass::Transient, "the answer has no end"))
    }
}

/// The queries of one group. Their ids tell the answers apart.
fn queries(at: usize, group: &TargetGroupArn, balancer: &str) -> impl Iterator<Item = MetricDataQuery> {
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let dimensions = vec![dimension("LoadBalancer", balancer), dimension("TargetGroup", group.dimension())];
    Sample::METRICS.iter().enumerate().map(move |(number, SampleMetric { name, statistic, .. })| {
        let metric =
            Metric::builder().namespace(Sample::NAMESPACE).metric_name(*name).set_dimensions(Some(dimensions.clone()));
        let stat = MetricStat::builder().metric(metric.build()).period(60).stat(*statistic).build();
        MetricDataQuery::builder().id(query_id(at, number)).metric_stat(stat).build()
    })
}

fn query_id(group: usize, metric: usize) -> String {
    format!("g{group}m{metric}")
}

/// One answer out of the answers to all queries. What was refused for one metric must not read as zero.
fn collected(groups: &BTreeMap<TargetGroupArn, Arc<str>>, results: &[MetricDataResult]) -> Result<Samples, CallError> {
    let mut samples = Samples::new();
    for result in results {
        if let Some(status @ (StatusCode::Forbidden | StatusCode::InternalError)) = result.status_code() {
            let class = if *status == StatusCode::Forbidden { ErrorClass::Denied } else { ErrorClass::Transient };
            return Err(GET_METRIC_DATA.error(class, format!("one of the metrics: {}", status.as_str())));
        }
    }
    for (at, group) in groups.keys().enumerate() {
        let metrics = (0..Sample::METRICS.len()).map(|number| (number, query_id(at, number)));
        let of = |(number, id): (usize, String)| {
            let told = results.iter().filter(move |result| result.id() == Some(id.as_str()));
            let points = told.flat_map(|result| result.timestamps().iter().zip(result.values()));
            points.filter_map(move |(instant, value)| Some((number, timestamp(instant)?, *value)))
        };
        let minutes = Sample::minutes(metrics.flat_map(of));
        if !minutes.is_empty() {
            samples.insert(group.clone(), minutes);
        }
    }
    Ok(samples)
}

fn metric_alarm(alarm: &MetricAlarm) -> Option<AlarmReading> {
    let of_metrics = alarm.metrics().iter().filter_map(|query| query.metric_stat()?.metric());
    let dimensions = alarm.dimensions().iter().chain(of_metrics.flat_map(Metric::dimensions));
    let began = since(alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp());
    let doubt = unevaluated(alarm.evaluation_state());
    let alarm = reading(alarm.alarm_name(), alarm.state_value(), began, alarm.state_reason(), doubt)?;
    Some(AlarmReading { target_groups: target_groups(dimensions), ..alarm })
}

fn composite_alarm(alarm: &CompositeAlarm) -> Option<AlarmReading> {
    let began = since(alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp());
    let doubt = alarm.actions_suppressed_by().map(|by| suppressed(by.as_str()));
    // Its target groups are told by what it is made of.
    reading(alarm.alarm_name(), alarm.state_value(), began, alarm.state_reason(), doubt)
}

/// Its query names no target group: it speaks of the service as a whole.
fn log_alarm(alarm: &LogAlarm) -> Option<AlarmReading> {
    let began = since(alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp());
    let doubt = unevaluated(alarm.evaluation_state());
    reading(alarm.alarm_name(), alarm.state_value(), began, alarm.state_reason(), doubt)
}

/// An alarm of any type, which binds to no target group. `None` without a name, or when nobody knows since when it is as it is.
fn reading(
    name: Option<&str>,
    state: Option<&StateValue>,
    since: Option<Timestamp>,
    reason: Option<&str>,
    doubt: Option<Arc<str>>,
) -> Option<AlarmReading> {
    Some(AlarmReading {
        name: AlarmName::new(name?),
        value: value(state),
        since: since?,
        reason: cut(reason.unwrap_or_default(), REASON_BYTES),
        doubt,
        target_groups: BTreeSet::new(),
    })
}

/// CloudWatch keeps the last state of an alarm that it can't evaluate. Partial data is data.
fn unevaluated(state: Option<&EvaluationState>) -> Option<Arc<str>> {
    match state {
        Some(state @ (EvaluationState::EvaluationError | EvaluationState::EvaluationFailure)) => {
            Some(format!("CloudWatch can't evaluate it ({})", state.as_str()).into())
        }
        _ => None,
    }
}

/// A state that we do not know is no evidence in either direction.
fn value(state: Option<&StateValue>) -> AlarmValue {
    match state {
        Some(StateValue::Ok) => AlarmValue::Ok,
        Some(StateValue::Alarm) => AlarmValue::Alarm,
        _ => AlarmValue::InsufficientData,
    }
}

/// When the state began. The update time also moves when only the reason changes, so it is second choice.
fn since(transitioned: Option<&DateTime>, updated: Option<&DateTime>) -> Option<Timestamp> {
    transitioned.or(updated).and_then(timestamp)
}

fn target_groups<'a>(dimensions: impl Iterator<Item = &'a Dimension>) -> BTreeSet<Arc<str>> {
    let named = dimensions.filter(|dimension| dimension.name() == Some("TargetGroup"));
    named.filter_map(Dimension::value).map(Arc::from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;

    const GREEN: &str = "targetgroup/green/1a2b";
    const BLUE: &str = "targetgroup/blue/3c4d";

    fn dimension(name: &str, value: &str) -> Dimension {
        Dimension::builder().name(name).value(value).build()
    }

    fn alarm() -> aws_sdk_cloudwatch::types::builders::MetricAlarmBuilder {
        MetricAlarm::builder()
            .alarm_name("checkout 5xx/green")
            .state_value(StateValue::Alarm)
            .state_reason("Threshold Crossed")
            .state_updated_timestamp(DateTime::from_millis(9_000))
            .state_transitioned_timestamp(DateTime::from_millis(4_000))
            .dimensions(dimension("LoadBalancer", "app/web/1"))
            .dimensions(dimension("TargetGroup", GREEN))
    }

    #[test]
    fn an_alarm_names_its_target_group_and_when_its_state_began() {
        let reading = metric_alarm(&alarm().build()).unwrap();
        assert_eq!((reading.name.as_str(), reading.value), ("checkout 5xx/green", AlarmValue::Alarm));
        assert_eq!(reading.since, Timestamp::from_millis(4_000), "the transition, not the last update");
        assert_eq!(reading.target_groups, BTreeSet::from([Arc::from(GREEN)]));
    }

    #[test]
    fn a_metric_math_alarm_names_the_groups_of_all_its_metrics() {
        let query = |group: &str| {
            let metric = Metric::builder().dimensions(dimension("TargetGroup", group)).build();
            let stat = MetricStat::builder().metric(metric).period(60).stat("Sum").build();
            MetricDataQuery::builder().id("m").metric_stat(stat).build()
        };
        let expression = MetricDataQuery::builder().id("e").expression("m1/m2").build();
        let alarm = alarm().set_dimensions(None).metrics(query(GREEN)).metrics(query(BLUE)).metrics(expression);
        let reading = metric_alarm(&alarm.build()).unwrap();
        assert_eq!(reading.target_groups, BTreeSet::from([Arc::from(GREEN), Arc::from(BLUE)]));
    }

    #[test]
    fn the_update_time_stands_in_and_an_alarm_without_any_time_is_left_out() {
        let untransitioned = alarm().set_state_transitioned_timestamp(None);
        assert_eq!(metric_alarm(&untransitioned.clone().build()).unwrap().since, Timestamp::from_millis(9_000));
        assert_eq!(metric_alarm(&untransitioned.set_state_updated_timestamp(None).build()), None);
    }

    #[test]
    fn an_unknown_state_is_no_evidence() {
        let reading = metric_alarm(&alarm().state_value(StateValue::from("PURPLE")).build()).unwrap();
        assert_eq!(reading.value, AlarmValue::InsufficientData);
    }

    fn two_groups() -> BTreeMap<TargetGroupArn, Arc<str>> {
        let arn =
            |dimension: &str| TargetGroupArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:1:{dimension}"));
        [BLUE, GREEN].map(|group| (arn(group), Arc::from("app/web/1"))).into()
    }

    fn result(id: &str, points: &[(i64, f64)]) -> MetricDataResult {
        let result = MetricDataResult::builder().id(id).status_code(StatusCode::Complete);
        let instants = points.iter().map(|(minute, _)| DateTime::from_secs(minute * 60)).collect();
        let values = points.iter().map(|(_, value)| *value).collect();
        result.set_timestamps(Some(instants)).set_values(Some(values)).build()
    }

    #[test]
    fn every_group_is_asked_about_behind_its_load_balancer_minute_by_minute() {
        let queries: Vec<_> =
            two_groups().iter().enumerate().flat_map(|(at, (group, of))| queries(at, group, of)).collect();
        let ids: BTreeSet<_> = queries.iter().filter_map(MetricDataQuery::id).collect();
        assert_eq!(ids.len(), 8);
        assert!(ids.iter().all(|id| id.starts_with(|c: char| c.is_ascii_lowercase())), "CloudWatch insists: {ids:?}");
        let stat = queries[7].metric_stat().unwrap();
        let metric = stat.metric().unwrap();
        assert_eq!((metric.namespace(), metric.metric_name()), (Some(Sample::NAMESPACE), Some("TargetResponseTime")));
        assert_eq!((stat.period(), stat.stat()), (Some(60), Some("p99")));
        let expected = [dimension("LoadBalancer", "app/web/1"), dimension("TargetGroup", GREEN)];
        assert_eq!(metric.dimensions(), expected);
    }

    #[test]
    fn what_cloudwatch_leaves_out_is_zero_except_requests() {
        let results = [
            result("g1m0", &[(1, 120.0), (2, 60.0)]),
            result("g1m1", &[(2, 7.0), (3, 1.0)]),
            result("g1m3", &[(1, 0.25)]),
        ];
        let samples = collected(&two_groups(), &results).unwrap();
        let minute = |number: i64| Sample::empty(Timestamp::from_millis(number * 60_000));
        let expected = vec![
            Sample { requests: Some(120), latency_p99: Some(Duration::from_millis(250)), ..minute(1) },
            Sample { requests: Some(60), http_5xx: 7, ..minute(2) },
            Sample { http_5xx: 1, ..minute(3) },
        ];
        assert_eq!(samples.into_values().collect::<Vec<_>>(), [expected], "and blue, without any, is absent");
    }

    #[test]
    fn a_metric_that_was_refused_does_not_read_as_zero() {
        let refused = MetricDataResult::builder().id("g1m1").status_code(StatusCode::Forbidden).build();
        let error = collected(&two_groups(), &[result("g1m0", &[(1, 120.0)]), refused]).unwrap_err();
        assert_eq!(error.class, ErrorClass::Denied);
    }

    fn composite(name: &str, rule: &str) -> CompositeAlarm {
        CompositeAlarm::builder()
            .alarm_name(name)
            .alarm_rule(rule)
            .state_value(StateValue::Ok)
            .state_transitioned_timestamp(DateTime::from_millis(1))
            .build()
    }

    #[test]
    fn the_parts_of_a_composite_alarm_are_named_in_its_rule() {
        let names = |rule: &str| parts(rule).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            names(r#"ALARM("checkout 5xx (green)") OR (ALARM(slow) AND NOT OK( db ))"#),
            ["checkout 5xx (green)", "db", "slow"]
        );
        assert_eq!(names("ALARM(arn:aws:cloudwatch:eu-west-1:1:alarm:a:b)"), ["a:b"]);
        assert_eq!(names("((ALARM(a)))"), ["a"]);
        assert_eq!(names("TRUE"), [""; 0]);
        assert_eq!(names("ALARM(\"unclosed"), ["unclosed"]);
        assert_eq!(
            names(r#"AT_LEAST(2, ALARM, ("a, b (c)", d , arn:aws:cloudwatch:eu-west-1:1:alarm:e))"#),
            ["a, b (c)", "d", "e"]
        );
        assert_eq!(names("AT_LEAST(50%, NOT OK, (a,b)) OR INSUFFICIENT_DATA(c)"), ["a", "b", "c"]);
        assert_eq!(
            names(&format!("ALARM({}) OR ALARM(b)", "a".repeat(256))),
            ["b"],
            "CloudWatch would refuse the question"
        );
    }

    #[test]
    fn a_composite_alarm_binds_to_the_groups_of_what_it_is_made_of() {
        let groups = BTreeMap::from([
            (AlarmName::new("green-5xx"), BTreeSet::from([Arc::from(GREEN)])),
            (AlarmName::new("blue-5xx"), BTreeSet::from([Arc::from(BLUE)])),
            (AlarmName::new("queue"), BTreeSet::new()),
        ]);
        let inner = composite("green", "ALARM(green-5xx) OR ALARM(queue)");
        let made_of: MadeOf =
            [inner, composite("site", "ALARM(green) OR ALARM(blue-5xx)"), composite("loop", "ALARM(loop)")]
                .iter()
                .filter_map(made_of)
                .collect();
        let of = |name: &str| bound(&AlarmName::new(name), &made_of, &groups, DEEPEST);
        assert_eq!(of("green"), BTreeSet::from([Arc::from(GREEN)]));
        assert_eq!(of("site"), BTreeSet::from([Arc::from(GREEN), Arc::from(BLUE)]));
        assert_eq!((of("loop"), of("unknown")), (BTreeSet::new(), BTreeSet::new()));
        assert_eq!(composite_alarm(&composite("site", "TRUE")).unwrap().value, AlarmValue::Ok);
    }
}
