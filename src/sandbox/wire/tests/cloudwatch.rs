//! CloudWatch.

use aws_sdk_cloudwatch::error::ProvideErrorMetadata as _;
use aws_sdk_cloudwatch::types::{AlarmType, Dimension, Metric, MetricDataQuery, MetricStat, ScanBy};
use aws_smithy_types::DateTime;

use super::*;
use crate::sandbox::api::{AlarmView, MetricQuery, MetricSeries};

pub(super) fn alarm() -> AlarmView {
    AlarmView {
        name: text("shop-5xx"),
        arn: text("arn:alarm"),
        state: text("ALARM"),
        reason: text("Threshold Crossed: 1 datapoint"),
        since: at(5),
        namespace: text("AWS/ApplicationELB"),
        metric: text("HTTPCode_Target_5XX_Count"),
        dimensions: pairs(&[("LoadBalancer", "app/shop/1"), ("TargetGroup", "targetgroup/green/2")]),
        statistic: text("Sum"),
        period: 60,
        evaluation_periods: 2,
        threshold: 7.5,
    }
}

#[tokio::test]
async fn alarms_come_whole_over_cbor() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_cloudwatch, rig);
    rig.answer(Reply::Alarms(vec![alarm()]));
    let ask = client.describe_alarms().alarm_names("shop-5xx").alarm_names("other");
    let ask = ask.alarm_types(AlarmType::CompositeAlarm).alarm_types(AlarmType::MetricAlarm).max_records(100);
    let out = ask.send().await.unwrap();

    assert_eq!(rig.call().await, Call::DescribeAlarms { names: texts(&["shop-5xx", "other"]) });
    let [got] = out.metric_alarms() else { panic!("{out:?}") };
    assert_eq!((got.alarm_name(), got.alarm_arn()), (Some("shop-5xx"), Some("arn:alarm")));
    assert_eq!(got.state_value().map(aws_sdk_cloudwatch::types::StateValue::as_str), Some("ALARM"));
    assert_eq!(got.state_reason(), Some("Threshold Crossed: 1 datapoint"));
    assert_eq!(millis!(got.state_transitioned_timestamp()), Some(at(5)));
    assert_eq!(millis!(got.state_updated_timestamp()), Some(at(5)));
    assert_eq!((got.namespace(), got.metric_name()), (Some("AWS/ApplicationELB"), Some("HTTPCode_Target_5XX_Count")));
    let dimensions: Vec<_> = got.dimensions().iter().map(|it| (it.name(), it.value())).collect();
    let expected = [(Some("LoadBalancer"), Some("app/shop/1")), (Some("TargetGroup"), Some("targetgroup/green/2"))];
    assert_eq!(dimensions, expected);
    assert_eq!(got.statistic().map(aws_sdk_cloudwatch::types::Statistic::as_str), Some("Sum"));
    assert_eq!((got.period(), got.evaluation_periods(), got.threshold()), (Some(60), Some(2), Some(7.5)));
    assert_eq!(
        got.comparison_operator().map(aws_sdk_cloudwatch::types::ComparisonOperator::as_str),
        Some("GreaterThanThreshold")
    );
    assert!(out.composite_alarms().is_empty());
}

#[tokio::test]
async fn metrics_come_whole_over_cbor_in_the_order_that_was_asked_for() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_cloudwatch, rig);
    let series =
        MetricSeries { id: text("g0m0"), label: text("RequestCount"), points: vec![(at(60), 12.0), (at(120), 7.5)] };
    rig.answer(Reply::Metrics(vec![series.clone()]));
    rig.answer(Reply::Metrics(vec![series]));
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let metric = Metric::builder()
        .namespace("AWS/ApplicationELB")
        .metric_name("RequestCount")
        .dimensions(dimension("LoadBalancer", "app/shop/1"))
        .dimensions(dimension("TargetGroup", "targetgroup/green/2"));
    let stat = MetricStat::builder().metric(metric.build()).period(60).stat("Sum").build();
    let ask = client
        .get_metric_data()
        .metric_data_queries(MetricDataQuery::builder().id("g0m0").metric_stat(stat).build())
        .start_time(DateTime::from_millis(at(60).as_millis()))
        .end_time(DateTime::from_millis(at(180).as_millis()));
    let out = ask.clone().scan_by(ScanBy::TimestampAscending).send().await.unwrap();
    let query = MetricQuery {
        id: text("g0m0"),
        namespace: text("AWS/ApplicationELB"),
        metric: text("RequestCount"),
        dimensions: pairs(&[("LoadBalancer", "app/shop/1"), ("TargetGroup", "targetgroup/green/2")]),
        period: 60,
        statistic: text("Sum"),
    };
    assert_eq!(rig.call().await, Call::GetMetricData { queries: vec![query], from: at(60), to: at(180) });
    let [got] = out.metric_data_results() else { panic!("{out:?}") };
    assert_eq!((got.id(), got.label(), got.values()), (Some("g0m0"), Some("RequestCount"), [12.0, 7.5].as_slice()));
    let millis: Vec<_> = got.timestamps().iter().map(|instant| millis!(Some(instant))).collect();
    assert_eq!(millis, [Some(at(60)), Some(at(120))]);

    let newest_first = ask.send().await.unwrap();
    assert_eq!(newest_first.metric_data_results()[0].values(), [7.5, 12.0], "as AWS has it unless told");
}

#[tokio::test]
async fn no_millisecond_is_lost_on_the_way() {
    let rig = Rig::start().await;
    let client = client!(aws_sdk_cloudwatch, rig);
    let since: Vec<_> = (0..1000).map(at).collect();
    rig.answer(Reply::Alarms(since.iter().map(|since| AlarmView { since: *since, ..alarm() }).collect()));
    let out = client.describe_alarms().send().await.unwrap();
    let got: Vec<_> = out.metric_alarms().iter().filter_map(|it| millis!(it.state_transitioned_timestamp())).collect();
    assert_eq!(got, since);
}

#[tokio::test]
async fn metric_alarms_come_unless_only_others_are_asked_for() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_cloudwatch, rig);
    rig.answer(Reply::Alarms(vec![alarm()]));
    rig.answer(Reply::Alarms(vec![alarm()]));
    assert_eq!(client.describe_alarms().send().await.unwrap().metric_alarms().len(), 1);
    assert_eq!(rig.call().await, Call::DescribeAlarms { names: Vec::new() });
    let composite = client.describe_alarms().alarm_types(AlarmType::CompositeAlarm).send().await.unwrap();
    assert!(composite.metric_alarms().is_empty());
}

#[tokio::test]
async fn refusals_keep_their_code_over_cbor() {
    let rig = Rig::start().await;
    let client = client!(aws_sdk_cloudwatch, rig);
    rig.refuse("ThrottlingException", 400);
    let error = client.describe_alarms().send().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Some("ThrottlingException"), Some("because & <why>")));
    let unknown = client.list_dashboards().send().await.unwrap_err();
    assert_eq!(unknown.code(), Some("UnknownOperationException"));
    let prefix = client.describe_alarms().alarm_name_prefix("shop").send().await.unwrap_err();
    assert_eq!(prefix.code(), Some("InvalidParameterValue"));
}
