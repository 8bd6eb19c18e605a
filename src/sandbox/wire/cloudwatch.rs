//! CloudWatch: Smithy RPC v2 CBOR, which the Rust SDK speaks, and awsJson 1.0, which boto3 prefers.

use std::collections::BTreeMap;

use ciborium::Value;
use serde_json::{Map, Value as Json};

use super::input::{Dialect, Members, malformed};
use super::{epoch_seconds, misfit, unknown_operation};
use crate::model::Timestamp;
use crate::sandbox::api::{AlarmView, ApiError, Call, MetricQuery, MetricSeries, Reply};

/// Before the operation in `X-Amz-Target`.
pub(super) const TARGET: &str = "GraniteServiceVersion20100801";

/// Before the operation in the path.
pub(super) const PATH: &str = "/service/GraniteServiceVersion20100801/operation/";

/// How CloudWatch refuses.
pub(super) const DIALECT: Dialect = Dialect { refusal: "InvalidParameterValue", textual: false };

/// RFC 8949: seconds since the epoch.
const TIMESTAMP_TAG: u64 = 1;

/// Deeper than any request of CloudWatch's, and shallow enough for any stack.
const DEEPEST: usize = 32;

/// Queries in one call.
const MOST_QUERIES: usize = 500;

/// Names of alarms in one call.
const MOST_NAMES: usize = 100;

/// An alarm's, in characters.
const LONGEST_NAME: usize = 255;

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<Members, ApiError> {
    if body.is_empty() {
        return Ok(Members::new(Map::new(), DIALECT));
    }
    // Not into JSON at once, which knows no tags, and times have one.
    match ciborium::de::from_reader_with_recursion_limit::<Value, _>(body, DEEPEST).map(to_json) {
        Ok(Json::Object(members)) => Ok(Members::new(members, DIALECT)),
        Ok(_) => Err(malformed("the body is not a CBOR map")),
        Err(cause) => Err(malformed(format!("the body is not CBOR: {cause}"))),
    }
}

/// Writes an answer.
pub(super) fn write(value: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    // Writing to memory can't fail.
    let _ = ciborium::into_writer(value, &mut body);
    body
}

/// The same answer for the JSON protocol, where a time is a bare number.
pub(super) fn to_json(value: Value) -> Json {
    match value {
        Value::Map(members) => {
            let member = |(name, value): (Value, Value)| Some((name.into_text().ok()?, to_json(value)));
            members.into_iter().filter_map(member).collect()
        }
        Value::Array(items) => items.into_iter().map(to_json).collect(),
        Value::Tag(_, inner) => to_json(*inner),
        other => other.deserialized().unwrap_or_default(),
    }
}

/// An error, as a body.
pub(super) fn error(error: &ApiError) -> Value {
    map(vec![("__type", text(&error.code)), ("message", text(&error.message))])
}

/// Answers one operation.
pub(super) fn answer(
    operation: &str,
    input: Members,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<Value, ApiError> {
    match operation {
        "DescribeAlarms" => describe_alarms(input, call),
        "GetMetricData" => get_metric_data(input, call),
        _ => Err(unknown_operation(operation)),
    }
}

fn describe_alarms(mut input: Members, call: impl FnOnce(Call) -> Result<Reply, ApiError>) -> Result<Value, ApiError> {
    let names = input.texts("AlarmNames")?;
    let types = input.texts("AlarmTypes")?;
    input.page("MaxRecords", 100)?;
    if names.len() > MOST_NAMES || names.iter().any(|name| name.chars().count() > LONGEST_NAME) {
        return Err(input.refuse("there are at most 100 AlarmNames, of 255 characters each"));
    }
    input.done()?;
    let Reply::Alarms(alarms) = call(Call::DescribeAlarms { names })? else { return Err(misfit("DescribeAlarms")) };
    // All alarms here are metric alarms, which are also what AWS answers when no type is asked for.
    let wanted = types.is_empty() || types.iter().any(|kind| kind == "MetricAlarm");
    let alarms = alarms.iter().filter(|_| wanted).map(alarm).collect();
    Ok(map(vec![("MetricAlarms", Value::Array(alarms)), ("CompositeAlarms", Value::Array(Vec::new()))]))
}

fn get_metric_data(mut input: Members, call: impl FnOnce(Call) -> Result<Reply, ApiError>) -> Result<Value, ApiError> {
    let queries = input.structures("MetricDataQueries")?.into_iter().map(query).collect::<Result<Vec<_>, _>>()?;
    let (from, to) = (instant(input.number("StartTime")?), instant(input.number("EndTime")?));
    let ascending = input.text_if_any("ScanBy")?.is_some_and(|order| order == "TimestampAscending");
    if queries.len() > MOST_QUERIES || from >= to {
        return Err(input.refuse("there are at most 500 MetricDataQueries, and StartTime is before EndTime"));
    }
    // Everything comes on one page.
    input.ignore(&["MaxDatapoints"]);
    input.done()?;
    let Reply::Metrics(found) = call(Call::GetMetricData { queries, from, to })? else {
        return Err(misfit("GetMetricData"));
    };
    let results = found.into_iter().map(|of| series(of, ascending)).collect();
    Ok(map(vec![("MetricDataResults", Value::Array(results)), ("Messages", Value::Array(Vec::new()))]))
}

fn query(mut input: Members) -> Result<MetricQuery, ApiError> {
    let id = input.text("Id")?;
    let mut stat = input.structure("MetricStat")?;
    let mut metric = stat.structure("Metric")?;
    let (namespace, name) = (metric.text("Namespace")?, metric.text("MetricName")?);
    let mut dimensions = BTreeMap::new();
    for mut dimension in metric.structures("Dimensions")? {
        dimensions.insert(dimension.text("Name")?, dimension.text("Value")?);
        dimension.done()?;
    }
    let period = stat.integer("Period")?.ok_or_else(|| stat.refuse("Period is required"))?;
    let query = MetricQuery { id, namespace, metric: name, dimensions, period, statistic: stat.text("Stat")? };
    metric.done()?;
    stat.done()?;
    input.done()?;
    Ok(query)
}

fn series(series: MetricSeries, ascending: bool) -> Value {
    let MetricSeries { id, label, mut points } = series;
    if !ascending {
        points.reverse();
    }
    map(vec![
        ("Id", text(&id)),
        ("Label", text(&label)),
        ("Timestamps", Value::Array(points.iter().map(|(at, _)| timestamp(*at)).collect())),
        ("Values", Value::Array(points.iter().map(|(_, value)| Value::Float(*value)).collect())),
        ("StatusCode", text("Complete")),
    ])
}

/// Seconds since the epoch.
#[expect(clippy::cast_possible_truncation, reason = "a cast saturates")]
fn instant(seconds: f64) -> Timestamp {
    Timestamp::from_millis((seconds * 1000.0).round() as i64)
}

fn alarm(view: &AlarmView) -> Value {
    let dimension = |(name, value): (&String, &String)| map(vec![("Name", text(name)), ("Value", text(value))]);
    map(vec![
        ("AlarmName", text(&view.name)),
        ("AlarmArn", text(&view.arn)),
        ("StateValue", text(&view.state)),
        ("StateReason", text(&view.reason)),
        ("StateUpdatedTimestamp", timestamp(view.since)),
        ("StateTransitionedTimestamp", timestamp(view.since)),
        ("Namespace", text(&view.namespace)),
        ("MetricName", text(&view.metric)),
        ("Dimensions", Value::Array(view.dimensions.iter().map(dimension).collect())),
        ("Statistic", text(&view.statistic)),
        ("Period", Value::from(view.period)),
        ("EvaluationPeriods", Value::from(view.evaluation_periods)),
        ("Threshold", Value::from(view.threshold)),
        ("ComparisonOperator", text("GreaterThanThreshold")),
    ])
}

fn map(members: Vec<(&str, Value)>) -> Value {
    Value::Map(members.into_iter().map(|(name, value)| (text(name), value)).collect())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn timestamp(at: Timestamp) -> Value {
    Value::Tag(TIMESTAMP_TAG, Box::new(Value::Float(epoch_seconds(at))))
}
