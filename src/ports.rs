//! What the shell needs from the outside, in the domain's words. Implemented by `aws`, `journal` and `sandbox`.
//!
//! Reads and writes are apart: a dry run is built without an [`Actuator`], so it has nothing to write with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{
    AlarmName, AlarmReading, Announcement, CallError, Incident, Samples, ServiceKey, ServiceReading, Tags,
    TargetCounts, TargetGroupArn, TaskArn, TaskReading, TaskSet, TaskSetId, Timestamp, TrafficRule, Write,
};

/// Time, injected, so that the sandbox can run faster than life.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Since some moment, by a clock that nobody sets. A clock that nobody sets needs no other.
    fn elapsed(&self) -> Duration {
        self.at_once().1
    }

    /// [`Self::now`] and [`Self::elapsed`], of one moment.
    fn at_once(&self) -> (Timestamp, Duration) {
        let now = self.now();
        (now, now.since(Timestamp::EPOCH))
    }

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

/// About how many messages there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// In the queue, waiting to be received.
    pub waiting: u64,
    /// In its dead-letter queue; `None` when it has none.
    pub dead: Option<u64>,
}

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

    /// How many messages there are in it, and in its dead-letter queue (`GetQueueAttributes`).
    async fn depth(&self) -> Result<QueueDepth, CallError>;
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

/// Registration by tag, reading.
#[async_trait]
pub trait Registrations: Send + Sync {
    /// All services with the tag [`RULE`], and the rule that it names. The index behind it lags by minutes at worst, so
    /// what is absent may still be registered.
    ///
    /// [`RULE`]: crate::model::tags::RULE
    async fn registered(&self) -> Result<BTreeMap<ServiceKey, Arc<str>>, CallError>;
}

/// Tags of services, writing. For people at the command line; the worker has none.
#[async_trait]
pub trait Tagger: Send + Sync {
    /// Adds these tags, or replaces their values.
    async fn tag(&self, service: &ServiceKey, tags: &Tags) -> Result<(), CallError>;

    /// Removes these tags. Those that are not there are no error.
    async fn untag(&self, service: &ServiceKey, keys: &[&str]) -> Result<(), CallError>;
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

/// CloudWatch metrics of Application Load Balancers, reading.
#[async_trait]
pub trait TrafficMetrics: Send + Sync {
    /// The minutes from `from` to `to` of these target groups, in one call (`GetMetricData`). Each group comes with the
    /// `LoadBalancer` dimension of the one that it is behind, as in `app/web/50dc6c49`.
    async fn samples(
        &self,
        groups: &BTreeMap<TargetGroupArn, Arc<str>>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Samples, CallError>;
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

/// The journal, or the lease beside it, can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It did not work; whether it was applied may be unknown.
    #[error("journal: {context}: {cause}")]
    Failed {
        /// What was tried, on which file or table.
        context: String,
        /// What the store said, and the cure.
        cause: String,
    },
    /// Another replica has the journal now. Nothing was written.
    #[error("journal: {context}: another replica has taken over")]
    Deposed {
        /// What was tried, on which table.
        context: String,
    },
}

/// Inputs as bytes, in the order in which the engine took them. A commit that is tried again copies none of them.
pub type Entries = Arc<[Vec<u8>]>;

/// Durable inputs and incidents.
#[async_trait]
pub trait Journal: Send + Sync {
    /// All that is needed to go on.
    async fn load(&self) -> Result<Recovered, JournalError>;

    /// Appends inputs and keeps incidents (the newest record of an id replaces the older), in one durable commit.
    async fn append(&self, entries: Entries, incidents: &[Incident]) -> Result<(), JournalError>;

    /// Replaces the checkpoint and drops the entries before it, in one durable commit.
    async fn checkpoint(&self, state: Vec<u8>) -> Result<(), JournalError>;

    /// The newest incidents, newest first.
    async fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError>;
}

/// What the record of the lease says. Two looks that find the same tenure prove that nobody renewed it in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Who has the lease, for people.
    pub holder: String,
    /// Raised by every takeover: a journal takes nothing from an older epoch than the newest that has read it.
    pub epoch: u64,
    /// Raised by every renewal.
    pub beat: u64,
    /// How long after a renewal the holder may act, counted by its own clock from before it asked for the renewal.
    pub length: Duration,
    /// The holder has ended in order: there is nothing to wait for.
    pub released: bool,
}

/// The right to act, for one replica at a time. Who may take it, and when, is told by time alone and decided by the
/// caller; this is the record, and that it changes as a whole or not at all.
#[async_trait]
pub trait Lease: Send + Sync {
    /// The record; `None` when nobody ever had the lease.
    async fn look(&self) -> Result<Option<Tenure>, JournalError>;

    /// Takes the lease in a new epoch, if the record still is exactly `watched`; `None` when it is not. From then on the
    /// journal writes in this epoch.
    async fn acquire(&self, watched: Option<&Tenure>, length: Duration) -> Result<Option<Tenure>, JournalError>;

    /// Writes the tenure, with the next beat in it. False: the lease is in another epoch by now.
    async fn renew(&self, tenure: &Tenure) -> Result<bool, JournalError>;

    /// Gives the lease back, so that nobody waits for its end.
    async fn release(&self, tenure: &Tenure) -> Result<(), JournalError>;
}

/// One field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// For people.
    Text(String),
    /// For counting, and for the table's own expiry of rows.
    Number(u64),
    /// For us.
    Bytes(Vec<u8>),
}

/// Partition, and place in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// Rows of one partition are listed together.
    pub partition: String,
    /// They are in the order of these texts.
    pub sort: String,
}

/// Fields by name.
pub type Fields = BTreeMap<String, Field>;

/// One change of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replaces the row.
    Put(RowKey, Fields),
    /// As put, if the row is as expected.
    PutIf(RowKey, Fields, Expected),
    /// Changes nothing; the row must be as expected.
    Check(RowKey, Expected),
    /// Removes the row, or nothing.
    Delete(RowKey),
}

/// What a row must look like for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// It has these fields, among others.
    Fields(Fields),
}

/// A table with ordered partitions and transactions, for a journal of several replicas.
#[async_trait]
pub trait Table: Send + Sync {
    /// One row as of now, none of its past.
    async fn get(&self, key: &RowKey) -> Result<Option<Fields>, CallError>;

    /// All rows of a partition as of now, in order.
    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError>;

    /// All of these changes, or none of them: false when a row was not as expected. An error leaves open whether they
    /// were made. At most 100 changes with 4 MB in all,
    /// and 400 KB in a row.
    async fn change(&self, changes: &[Change]) -> Result<bool, CallError>;
}
