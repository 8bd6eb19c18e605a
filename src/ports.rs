//! What the shell needs from the outside, in the domain's words. Implemented by `aws`, `journal` and `sandbox`.
//!
//! Reads and writes are apart: a dry run is built without an [`Actuator`], so it has nothing to write with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{
    AlarmName, AlarmReading, Announcement, CallError, Incident, ServiceKey, ServiceReading, TargetCounts,
    TargetGroupArn, TaskArn, TaskReading, TaskSet, TaskSetId, Timestamp, TrafficRule, Write,
};

/// Time, injected, so that the sandbox can run faster than life.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Returns when `duration` has passed on this clock.
    async fn sleep(&self, duration: Duration);
}

/// One message from the queue, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// For delete and extend.
    pub receipt: Receipt,
    /// The `EventBridge` event, if all is well.
    pub body: String,
    /// How often it was received, this time included.
    pub receive_count: u32,
}

/// SQS's receipt handle of one receive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub Arc<str>);

/// The queue.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Long-polls once: up to ten messages, or none when the wait is over. Must not be cancelled: messages taken by a
    /// cancelled receive stay invisible until their visibility time-out.
    async fn receive(&self) -> Result<Vec<Message>, CallError>;

    /// Deletes up to ten messages. Returns those that were not deleted.
    async fn delete(&self, receipts: &[Receipt]) -> Vec<(Receipt, CallError)>;

    /// Keeps up to ten messages invisible for `by` from now. Returns those that failed.
    async fn extend(&self, receipts: &[Receipt], by: Duration) -> Vec<(Receipt, CallError)>;
}

/// ECS, reading.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Names of all clusters (`ListClusters`), for rules whose cluster is a glob.
    async fn clusters(&self) -> Result<Vec<Arc<str>>, CallError>;

    /// Names of all services of a cluster (`ListServices`), for rules whose service is a glob.
    async fn services(&self, cluster: &str) -> Result<Vec<Arc<str>>, CallError>;

    /// Up to ten services of one cluster (`DescribeServices` with tags). Those that do not exist are absent.
    async fn describe(
        &self,
        cluster: &str,
        services: &[Arc<str>],
    ) -> Result<BTreeMap<ServiceKey, ServiceReading>, CallError>;

    /// The second opinion (`DescribeTaskSets`). Those that do not exist are absent.
    async fn task_sets(&self, service: &ServiceKey, ids: &[TaskSetId]) -> Result<Vec<TaskSet>, CallError>;

    /// The tasks asked for, and with `find_stopped` also those that ECS lists as stopped for the service (`ListTasks`,
    /// `DescribeTasks`). Tasks that ECS does not know are absent.
    async fn tasks(
        &self,
        service: &ServiceKey,
        asked: &[TaskArn],
        find_stopped: bool,
    ) -> Result<Vec<TaskReading>, CallError>;
}

/// Elastic Load Balancing, reading.
#[async_trait]
pub trait LoadBalancers: Send + Sync {
    /// Every rule and default action, on every listener of the load balancers of these groups, that forwards to one of
    /// them. With `relearn` the listeners are looked up anew, else those known from before are read.
    async fn rules(&self, groups: &BTreeSet<TargetGroupArn>, relearn: bool) -> Result<Vec<TrafficRule>, CallError>;

    /// Health of a group's targets (`DescribeTargetHealth`).
    async fn health(&self, group: &TargetGroupArn) -> Result<TargetCounts, CallError>;
}

/// CloudWatch alarms, reading.
#[async_trait]
pub trait Alarms: Send + Sync {
    /// These alarms, metric and composite (`DescribeAlarms`). Those that do not exist are absent.
    async fn named(&self, names: &BTreeSet<AlarmName>) -> Result<Vec<AlarmReading>, CallError>;

    /// All alarms of account and Region, metric and composite.
    async fn all(&self) -> Result<Vec<AlarmReading>, CallError>;
}

/// The only port that changes anything.
#[async_trait]
pub trait Actuator: Send + Sync {
    /// Sends one write, once per call as far as the transport allows. An error of class transient leaves open whether it
    /// was applied.
    async fn apply(&self, write: &Write) -> Result<(), CallError>;
}

/// `EventBridge`, writing.
#[async_trait]
pub trait Announcer: Send + Sync {
    /// Puts one event on the bus.
    async fn announce(&self, announcement: &Announcement) -> Result<(), CallError>;
}

/// Told of every call to AWS when it has ended, for the metrics `aws_requests_total` and `aws_request_duration_seconds`.
pub trait Recorder: Send + Sync {
    /// `service` as in IAM actions (`ecs`, `sqs`, …); `outcome` is `ok` or an [`ErrorClass`]'s word. A call that was
    /// given up before its answer counts as `transient`.
    ///
    /// [`ErrorClass`]: crate::model::ErrorClass
    fn call(&self, service: &'static str, operation: &'static str, outcome: &'static str, took: Duration);
}

/// What the journal held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The newest checkpoint of the engine's state.
    pub checkpoint: Option<Vec<u8>>,
    /// Inputs after it, oldest first.
    pub entries: Vec<Vec<u8>>,
}

/// The journal can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("journal: {context}: {cause}")]
pub struct JournalError {
    /// What was tried, on which file or table.
    pub context: String,
    /// What the store said.
    pub cause: String,
}

/// Durable inputs and incidents.
#[async_trait]
pub trait Journal: Send + Sync {
    /// All that is needed to go on.
    async fn load(&self) -> Result<Recovered, JournalError>;

    /// Appends inputs and keeps incidents (the newest record of an id replaces the older), in one durable commit.
    async fn append(&self, entries: Vec<Vec<u8>>, incidents: &[Incident]) -> Result<(), JournalError>;

    /// Replaces the checkpoint and drops the entries before it, in one durable commit.
    async fn checkpoint(&self, state: Vec<u8>) -> Result<(), JournalError>;

    /// The newest incidents, newest first.
    async fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError>;
}
