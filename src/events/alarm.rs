//! CloudWatch alarms: metric, metric-math and composite, their changes of state and of configuration.
//!
//! A suppressed alarm changes its state all the same, and so does ours: suppression silences an alarm's actions, it
//! does not make a version healthy.

use std::sync::Arc;

use serde::Deserialize;

use super::envelope::{Envelope, Text, name, timestamp};
use super::{DecodeError, IgnoredReason, NoSignal};
use crate::model::{AlarmChange, AlarmDeleted, AlarmName, AlarmReading, AlarmValue, Fact, Signal, cut, suppressed};

/// More target groups than the metrics of one sensible alarm name.
const MOST_TARGET_GROUPS: usize = 20;

/// `CloudWatch Alarm State Change`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateChange<'a> {
    #[serde(borrow)]
    alarm_name: Text<'a>,
    #[serde(borrow)]
    state: State<'a>,
    #[serde(borrow)]
    configuration: Option<Configuration<'a>>,
}

/// `CloudWatch Alarm Configuration Change`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigurationChange<'a> {
    #[serde(borrow)]
    alarm_name: Text<'a>,
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow)]
    state: Option<State<'a>>,
    #[serde(borrow)]
    configuration: Option<Configuration<'a>>,
}

#[derive(Debug, Deserialize)]
struct State<'a> {
    #[serde(borrow)]
    value: Text<'a>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow, rename = "actionsSuppressedBy")]
    suppressed_by: Option<Text<'a>>,
}

/// Composite alarms have no metrics, and an entry that is an expression has no `metricStat`.
#[derive(Debug, Deserialize)]
struct Configuration<'a> {
    #[serde(borrow)]
    metrics: Option<Vec<MetricQuery<'a>>>,
}

#[derive(Debug, Deserialize)]
struct MetricQuery<'a> {
    #[serde(borrow, rename = "metricStat")]
    stat: Option<MetricStat<'a>>,
}

#[derive(Debug, Deserialize)]
struct MetricStat<'a> {
    #[serde(borrow)]
    metric: Option<Metric<'a>>,
}

#[derive(Debug, Deserialize)]
struct Metric<'a> {
    #[serde(borrow)]
    dimensions: Option<Dimensions<'a>>,
}

#[derive(Debug, Deserialize)]
struct Dimensions<'a> {
    #[serde(borrow, rename = "TargetGroup")]
    target_group: Option<Text<'a>>,
}

pub(super) fn read_state(event: &Envelope<'_, StateChange<'_>>) -> Result<Signal, NoSignal> {
    let detail = &event.detail;
    let alarm = agreed_name(event, &detail.alarm_name)?;
    Ok(changed(event, alarm, &detail.state, detail.configuration.as_ref())?)
}

pub(super) fn read_configuration(event: &Envelope<'_, ConfigurationChange<'_>>) -> Result<Signal, NoSignal> {
    let detail = &event.detail;
    let alarm = agreed_name(event, &detail.alarm_name)?;
    Ok(match (detail.operation.as_str(), &detail.state) {
        // An alarm that is deleted while red sends no transition to OK.
        ("delete", _) => event.signal(event.at()?, Fact::AlarmDeleted(AlarmDeleted { name: alarm }))?,
        ("create" | "update", Some(state)) => changed(event, alarm, state, detail.configuration.as_ref())?,
        ("create" | "update", None) => return Err(DecodeError::at("detail.state", "missing").into()),
        _ => return Err(IgnoredReason::UnknownType.into()),
    })
}

/// The alarm's name, once the event's resource agrees on it and on where it lives.
fn agreed_name<D>(event: &Envelope<'_, D>, said: &Text<'_>) -> Result<AlarmName, NoSignal> {
    let said = name("detail.alarmName", said.as_str())?;
    let agrees = event.resource("cloudwatch", "alarm:").is_none_or(|arn| {
        // The name may hold colons itself: only the prefix goes.
        event.covers(&arn) && arn.resource.strip_prefix("alarm:") == Some(said)
    });
    if agrees { Ok(AlarmName::new(said)) } else { Err(IgnoredReason::Contradictory.into()) }
}

fn changed<D>(
    event: &Envelope<'_, D>,
    alarm: AlarmName,
    state: &State<'_>,
    configuration: Option<&Configuration<'_>>,
) -> Result<Signal, DecodeError> {
    let value = match state.value.as_str() {
        "OK" => AlarmValue::Ok,
        "ALARM" => AlarmValue::Alarm,
        "INSUFFICIENT_DATA" => AlarmValue::InsufficientData,
        other => return Err(DecodeError::at("detail.state.value", format_args!("no state of an alarm: {other:?}"))),
    };
    let since = match &state.timestamp {
        Some(since) => timestamp("detail.state.timestamp", since)?,
        None => event.at()?,
    };
    let metrics = configuration.and_then(|configuration| configuration.metrics.as_deref()).unwrap_or_default();
    let reading = AlarmReading {
        name: alarm,
        value,
        since,
        reason: cut(state.reason.as_ref().map(Text::as_str).unwrap_or_default(), 512),
        doubt: state.suppressed_by.as_ref().map(|by| suppressed(&cut(by.as_str(), 64))),
        target_groups: metrics.iter().filter_map(target_group).take(MOST_TARGET_GROUPS).collect(),
    };
    event.signal(event.at()?, Fact::Alarm(AlarmChange { alarm: reading }))
}

fn target_group(metric: &MetricQuery<'_>) -> Option<Arc<str>> {
    let dimensions = metric.stat.as_ref()?.metric.as_ref()?.dimensions.as_ref()?;
    let group = dimensions.target_group.as_ref()?.as_str();
    (group.starts_with("targetgroup/") && group.len() <= 256).then(|| Arc::from(group))
}
