//! Samples: the traffic of one target group, minute by minute, as CloudWatch counted it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{TargetGroupArn, Timestamp};

/// The minutes in which CloudWatch counted anything for a target group, oldest first. A group without any is absent.
pub type Samples = BTreeMap<TargetGroupArn, Vec<Sample>>;

/// Which samples are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleAsk {
    /// Of these target groups: green's and blue's.
    pub groups: BTreeSet<TargetGroupArn>,
    /// From the minute on that begins here.
    pub from: Timestamp,
}

/// One minute. A count that CloudWatch does not have is 0: it publishes errors only when there are some. Requests are the
/// exception, because without them nothing can be said of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When the minute began.
    pub at: Timestamp,
    /// `RequestCount`: requests for which a target was chosen.
    pub requests: Option<u64>,
    /// `HTTPCode_Target_5XX_Count`: 5xx answers of targets.
    pub http_5xx: u64,
    /// `TargetConnectionErrorCount`: connections to targets that failed.
    pub connection_errors: u64,
    /// `TargetResponseTime`, the quantile p99.
    pub latency_p99: Option<Duration>,
}

/// One metric of a target group, and where its values go.
#[derive(Clone, Copy, Debug)]
pub struct SampleMetric {
    /// In the namespace [`Sample::NAMESPACE`].
    pub name: &'static str,
    /// As CloudWatch wants it.
    pub statistic: &'static str,
    put: fn(&mut Sample, f64),
}

impl Sample {
    /// Of every metric of an Application Load Balancer.
    pub const NAMESPACE: &str = "AWS/ApplicationELB";

    /// What is read of a target group.
    pub const METRICS: [SampleMetric; 4] = [
        SampleMetric { name: "RequestCount", statistic: "Sum", put: |it, value| it.requests = Some(whole(value)) },
        SampleMetric {
            name: "HTTPCode_Target_5XX_Count",
            statistic: "Sum",
            put: |it, value| it.http_5xx = whole(value),
        },
        SampleMetric {
            name: "TargetConnectionErrorCount",
            statistic: "Sum",
            put: |it, value| it.connection_errors = whole(value),
        },
        SampleMetric {
            name: "TargetResponseTime",
            statistic: "p99",
            put: |it, value| it.latency_p99 = Duration::try_from_secs_f64(value).ok(),
        },
    ];

    /// Minutes out of data points, each of a metric by its place in [`Self::METRICS`].
    pub fn minutes(points: impl Iterator<Item = (usize, Timestamp, f64)>) -> Vec<Self> {
        let mut minutes: BTreeMap<Timestamp, Self> = BTreeMap::new();
        for (metric, at, value) in points {
            if let Some(SampleMetric { put, .. }) = Self::METRICS.get(metric) {
                put(minutes.entry(at).or_insert_with(|| Self::empty(at)), value);
            }
        }
        minutes.into_values().collect()
    }

    /// How long it is: the metrics' own resolution.
    pub const LENGTH: Duration = Duration::from_mins(1);

    /// A minute in which nothing was counted yet.
    pub const fn empty(at: Timestamp) -> Self {
        Self { at, requests: None, http_5xx: 0, connection_errors: 0, latency_p99: None }
    }

    /// When the minute that a moment belongs to began.
    pub const fn minute_of(at: Timestamp) -> Timestamp {
        let millis = at.as_millis();
        Timestamp::from_millis(millis.saturating_sub(millis.rem_euclid(60_000)))
    }
}

/// A sum of counts.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, which is all there is to do"
)]
const fn whole(value: f64) -> u64 {
    value.round() as u64
}
