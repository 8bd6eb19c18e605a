//! CloudWatch alarms, reading only.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::{
    AlarmType, CompositeAlarm, Dimension, EvaluationState, Metric, MetricAlarm, StateValue,
};
use aws_smithy_types::DateTime;

use super::calls::{Calls, Operation};
use super::timestamp;

use crate::model::{AlarmName, AlarmReading, AlarmValue, CallError, Timestamp, cut, suppressed};
use crate::ports::Alarms;

const DESCRIBE_ALARMS: Operation = Operation::new("cloudwatch", "DescribeAlarms");

/// Names in one call, and alarms a page: CloudWatch's limit for both.
const PAGE: usize = 100;

/// Pages of one read: 5000 alarms, CloudWatch's default quota, at nine calls a second.
const PAGES: usize = 50;

/// How much of CloudWatch's words is kept, in bytes; as the model says.
const REASON_BYTES: usize = 512;

/// Alarms of one account and Region.
pub struct CloudWatch {
    client: Client,
    calls: Calls,
}

impl CloudWatch {
    pub(super) fn new(config: &SdkConfig, calls: Calls) -> Self {
        Self { client: Client::new(config), calls }
    }

    /// These alarms, or all.
    async fn describe(&self, names: Option<Vec<String>>) -> Result<Vec<AlarmReading>, CallError> {
        let mut alarms = Vec::new();
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
            alarms.extend(page.metric_alarms().iter().filter_map(metric_alarm));
            alarms.extend(page.composite_alarms().iter().filter_map(composite_alarm));
            token = page.next_token;
            if token.is_none() {
                return Ok(alarms);
            }
        }
        tracing::warn!(
            read = alarms.len(),
            "the account has more alarms than are read: name those that matter in the rules"
        );
        Ok(alarms)
    }
}

#[async_trait]
impl Alarms for CloudWatch {
    async fn named(&self, names: &BTreeSet<AlarmName>) -> Result<Vec<AlarmReading>, CallError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut alarms = Vec::new();
        for some in names.chunks(PAGE) {
            alarms.extend(self.describe(Some(some.to_vec())).await?);
        }
        Ok(alarms)
    }

    async fn all(&self) -> Result<Vec<AlarmReading>, CallError> {
        self.describe(None).await
    }
}

fn metric_alarm(alarm: &MetricAlarm) -> Option<AlarmReading> {
    let of_metrics = alarm.metrics().iter().filter_map(|query| query.metric_stat()?.metric());
    let dimensions = alarm.dimensions().iter().chain(of_metrics.flat_map(Metric::dimensions));
    Some(AlarmReading {
        name: AlarmName::new(alarm.alarm_name()?),
        value: value(alarm.state_value()),
        since: since(alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp())?,
        reason: cut(alarm.state_reason().unwrap_or_default(), REASON_BYTES),
        doubt: unevaluated(alarm.evaluation_state()),
        target_groups: target_groups(dimensions),
    })
}

fn composite_alarm(alarm: &CompositeAlarm) -> Option<AlarmReading> {
    Some(AlarmReading {
        name: AlarmName::new(alarm.alarm_name()?),
        value: value(alarm.state_value()),
        since: since(alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp())?,
        reason: cut(alarm.state_reason().unwrap_or_default(), REASON_BYTES),
        doubt: alarm.actions_suppressed_by().map(|by| suppressed(by.as_str())),
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

    use aws_sdk_cloudwatch::types::{MetricDataQuery, MetricStat};

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

    #[test]
    fn a_composite_alarm_binds_to_no_group() {
        let composite = CompositeAlarm::builder()
            .alarm_name("site")
            .state_value(StateValue::Ok)
            .state_transitioned_timestamp(DateTime::from_millis(1))
            .build();
        let reading = composite_alarm(&composite).unwrap();
        assert_eq!((reading.value, reading.target_groups.len()), (AlarmValue::Ok, 0));
    }
}
