//! The vocabulary every room speaks: ids, time, signals, windows, observations, traffic, verdicts, plans and incidents.
//!
//! Pure data. Nothing here reads a clock, does I/O or names an SDK type, and no function panics on any input.

mod announcement;
mod fault;
mod ids;
mod incident;
mod observation;
mod plan;
mod sample;
mod signal;
mod snapshot;
mod stop;
pub mod tags;
mod time;
mod traffic;
mod verdict;
mod window;

pub use announcement::{Announcement, AnnouncementKind, SCHEMA_VERSION, SOURCE, USER_AGENT};
pub use fault::{CallError, ErrorClass};
pub use ids::{
    AlarmName, Arn, EffectId, IncidentId, ListenerArn, RuleArn, Scope, ServiceKey, TargetGroupArn, TaskArn, TaskSetArn,
    TaskSetId,
};
pub use incident::{CallRecord, Incident, IncidentOutcome, Moment};
pub use observation::{
    AlarmReading, AlarmValue, Ask, Controller, Observation, ServiceReading, ServiceStatus, Stability, TargetCounts,
    TaskReading, TaskSet, TaskSetStatus, Urgency, suppressed,
};
pub use plan::{Outcome, Phase, Step, Write};
pub use sample::{Sample, SampleAsk, SampleMetric, Samples};
pub use signal::{
    AlarmChange, AlarmDeleted, ApiCall, CallTarget, ContainerExit, Fact, Images, ServiceAction, Signal, Stop,
    StopClass, TaskChange,
};
pub use snapshot::{EndedTask, RuleSnapshot, Snapshot, TaskSetSnapshot};
pub use stop::{classify, cut, target_group_in};
pub use tags::{Contract, HoldOrder, Tags};
pub use time::{Timestamp, humane};
pub use traffic::{
    Action, ActionKind, Forward, KeptAction, Split, Stickiness, Traffic, TrafficRule, TrafficRuleId, WeightedGroup,
};
pub use verdict::{Comparator, Evidence, Gate, Role, Unit, Verdict, once_in, percent};
pub use window::{Standing, TaskRecord, Window};
