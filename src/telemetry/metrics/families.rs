//! The families: a field's doc comment is the metric's HELP text, its name with the prefix is the metric's name. Those of each
//! service are in `services`.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// From a commit on a fast disk to one on a network volume that stalls.
const COMMIT_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// From one call within a Region to a call that used up all of its retries.
const CALL_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0];
/// EventBridge delivers in under a second; a queue that waits for a restarted worker in hours.
const LAG_SECONDS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0, 21600.0];
/// The pledge is traffic safe within seconds of the decision, green gone within drain and deregistration delay.
const ROLLBACK_SECONDS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0];

/// What can be made out of a name, a help text, label names and buckets.
trait Metric: Collector + Clone + Sized + 'static {
    fn make(opts: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

macro_rules! metric {
    ($($kind:ty: |$opts:ident, $labels:ident, $buckets:ident| $make:expr;)+) => {
        $(impl Metric for $kind {
            fn make($opts: Opts, $labels: &[&str], $buckets: &[f64]) -> prometheus::Result<Self> {
                let _ = ($labels, $buckets);
                $make
            }
        })+
    };
}

metric! {
    IntCounter: |opts, labels, buckets| Self::with_opts(opts);
    IntCounterVec: |opts, labels, buckets| Self::new(opts, labels);
    IntGauge: |opts, labels, buckets| Self::with_opts(opts);
    IntGaugeVec: |opts, labels, buckets| Self::new(opts, labels);
    Gauge: |opts, labels, buckets| Self::with_opts(opts);
    Histogram: |opts, labels, buckets| Self::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()));
    HistogramVec: |opts, labels, buckets| Self::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels);
}

macro_rules! families {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty $({ $($label:literal),+ })? $([ $buckets:expr ])?,)+) => {
        /// One field per metric family.
        #[derive(Debug)]
        pub(super) struct Families {
            $($(#[doc = $help])+ pub(super) $name: $kind,)+
        }

        impl Families {
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                $(
                    let opts = Opts::new(concat!("taskset_guardian_", stringify!($name)), concat!($($help),+).trim());
                    let labels: &[&str] = &[$($($label),+)?];
                    let buckets: &[&[f64]] = &[$($buckets)?];
                    let $name = <$kind as Metric>::make(opts, labels, &buckets.concat())?;
                    registry.register(Box::new($name.clone()))?;
                )+
                Ok(Self { $($name),+ })
            }
        }
    };
}

families! {
    /// Always 1; version and revision are in the labels.
    build_info: IntGaugeVec { "version", "revision" },
    /// Messages received from the queue, by what they were. Undecodable ones are left to the dead-letter queue.
    messages_total: IntCounterVec { "outcome" },
    /// About how many messages are in the queue and in its dead-letter queue, by the last sweep.
    queue_messages: IntGaugeVec { "queue" },
    /// Signals taken in by the engine, by kind, duplicates included.
    signals_total: IntCounterVec { "kind" },
    /// From the time that AWS gives in an event to its reception.
    event_lag_seconds: Histogram [LAG_SECONDS],
    /// The newest time that AWS gave in an event, in seconds since the Unix epoch; 0 before the first.
    last_event_timestamp_seconds: Gauge,
    /// Services that a rule protects now.
    protected_services: IntGauge,
    /// Evaluations of all gates of a deployment, by verdict.
    verdicts_total: IntCounterVec { "verdict" },
    /// Stages of a rollback: detect since the first sign, shift and delete since the decision.
    rollback_duration_seconds: HistogramVec { "stage" } [ROLLBACK_SECONDS],
    /// Age of the oldest rollback that is decided and not ended; 0 when there is none.
    rollback_oldest_open_seconds: Gauge,
    /// Versions that were rolled back and are remembered, over all services.
    quarantined_versions: IntGauge,
    /// Calls to AWS, by how they ended after the SDK's own retries.
    aws_requests_total: IntCounterVec { "service", "operation", "outcome" },
    /// Calls to AWS, retries by the SDK included.
    aws_request_duration_seconds: HistogramVec { "service", "operation" } [CALL_SECONDS],
    /// 1 while the fleet brake holds all rollbacks back, else 0.
    brake_engaged: IntGauge,
    /// Listing of all protected services.
    sweep_duration_seconds: Histogram [CALL_SECONDS],
    /// Commits of the journal that succeeded.
    journal_commit_duration_seconds: Histogram [COMMIT_SECONDS],
    /// Commits of the journal that failed. Each is retried; nothing is acted on or deleted until it succeeds.
    journal_commit_failures_total: IntCounter,
    /// 1 while this worker acts, else 0.
    leader: IntGauge,
    /// 1 when the rule files on disk are in force, 0 when they are invalid and the last good ones are.
    rules_last_reload_successful: IntGauge,
}
