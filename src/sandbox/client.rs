//! The guardian's ports over a line to a backend: the same calls as over the wire, without the wire.
//!
//! A line may take its time and lose a call or its answer, so the whole shell can be run on virtual time, where only the
//! line is made up. Nothing is remembered between calls and nothing is sent twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::api::{ApiError, Call, Reply};
use super::readings::{self, unfit};

use crate::model::{
    AlarmName, AlarmReading, Announcement, CallError, ListenerArn, Samples, ServiceKey, ServiceReading, TargetCounts,
    TargetGroupArn, TaskArn, TaskReading, TaskSet, TaskSetId, Timestamp, TrafficRule, Write,
};
use crate::ports::{
    Actuator, Alarms, Announcer, Fleet, Inbox, LoadBalancers, Message, QueueDepth, Receipt, Registrations,
    TrafficMetrics,
};

pub use super::readings::refused;

/// Messages in one receive.
const BATCH: u32 = 10;

/// Carries calls to a backend and their answers back.
#[async_trait]
pub trait Line: Send + Sync {
    /// Carries one call. A receive waits for messages as long as the line's owner likes.
    ///
    /// # Errors
    /// What AWS refused, or what became of the call on its way.
    async fn carry(&self, operation: &'static str, call: Call) -> Result<Reply, CallError>;
}

/// All ports to AWS, at one end of a line.
pub struct Client<L> {
    line: L,
    queue_url: String,
}

impl<L: Line> Client<L> {
    /// With the queue at this URL.
    pub fn new(line: L, queue_url: &str) -> Self {
        Self { line, queue_url: queue_url.to_owned() }
    }

    async fn names(&self, operation: &'static str, call: Call) -> Result<Vec<Arc<str>>, CallError> {
        let last_part = |arn: &String| Arc::from(arn.rsplit('/').next().unwrap_or(arn));
        match self.line.carry(operation, call).await? {
            Reply::Arns(arns) => Ok(arns.iter().map(last_part).collect()),
            _ => Err(misfit(operation)),
        }
    }

    async fn alarms(&self, names: Vec<String>) -> Result<Vec<AlarmReading>, CallError> {
        match self.line.carry("DescribeAlarms", Call::DescribeAlarms { names }).await? {
            Reply::Alarms(alarms) => Ok(alarms.into_iter().map(readings::alarm).collect()),
            _ => Err(misfit("DescribeAlarms")),
        }
    }

    /// Those receipts of a batch call that failed: all of them when the call did.
    async fn batch(&self, operation: &'static str, call: Call, receipts: &[Receipt]) -> Vec<(Receipt, CallError)> {
        let all = |error: &CallError| receipts.iter().map(|receipt| (receipt.clone(), error.clone())).collect();
        match self.line.carry(operation, call).await {
            Ok(Reply::Entries(entries)) => {
                let failed = |(receipt, error): (&Receipt, Option<ApiError>)| {
                    Some((receipt.clone(), refused(operation, error?)))
                };
                receipts.iter().zip(entries).filter_map(failed).collect()
            }
            Ok(_) => all(&misfit(operation)),
            Err(error) => all(&error),
        }
    }

    /// All rules of a load balancer.
    async fn rules_of(&self, balancer: String) -> Result<Vec<TrafficRule>, CallError> {
        let has_rules = readings::has_rules(&balancer);
        let call = Call::DescribeListeners { load_balancer: Some(balancer), arns: Vec::new() };
        let Reply::Listeners(listeners) = self.line.carry("DescribeListeners", call).await? else {
            return Err(misfit("DescribeListeners"));
        };
        if !has_rules {
            return Ok(listeners.into_iter().map(readings::default_rule).collect());
        }
        let mut found = Vec::new();
        for view in listeners {
            let listener = ListenerArn::new(&*view.arn);
            let call = Call::DescribeRules { listener: Some(view.arn), arns: Vec::new() };
            let Reply::Rules(rules) = self.line.carry("DescribeRules", call).await? else {
                return Err(misfit("DescribeRules"));
            };
            found.extend(rules.into_iter().map(|view| readings::rule(&listener, view)));
        }
        Ok(found)
    }
}

fn misfit(operation: &str) -> CallError {
    unfit(operation, "another call's reply")
}

#[async_trait]
impl<L: Line> Inbox for Client<L> {
    async fn receive(&self) -> Result<Vec<Message>, CallError> {
        let call = Call::ReceiveMessage { queue_url: self.queue_url.clone(), max: BATCH, visibility: None };
        let Reply::Messages(messages) = self.line.carry("ReceiveMessage", call).await? else {
            return Err(misfit("ReceiveMessage"));
        };
        let message = |view: super::api::MessageView| Message {
            receipt: Receipt(Arc::from(view.receipt)),
            body: view.body,
            receive_count: view.receive_count,
        };
        Ok(messages.into_iter().map(message).collect())
    }

    async fn delete(&self, receipts: &[Receipt]) -> Vec<(Receipt, CallError)> {
        let handles = receipts.iter().map(|receipt| receipt.0.to_string()).collect();
        let call = Call::DeleteMessages { queue_url: self.queue_url.clone(), receipts: handles };
        self.batch("DeleteMessageBatch", call, receipts).await
    }

    async fn extend(&self, receipts: &[Receipt], by: Duration) -> Vec<(Receipt, CallError)> {
        let entries = receipts.iter().map(|receipt| (receipt.0.to_string(), by)).collect();
        let call = Call::ChangeVisibility { queue_url: self.queue_url.clone(), entries };
        self.batch("ChangeMessageVisibilityBatch", call, receipts).await
    }

    async fn depth(&self) -> Result<QueueDepth, CallError> {
        let call = Call::GetQueueAttributes { queue_url: self.queue_url.clone() };
        let Reply::Attributes(found) = self.line.carry("GetQueueAttributes", call).await? else {
            return Err(misfit("GetQueueAttributes"));
        };
        let waiting = found.get("ApproximateNumberOfMessages").and_then(|number| number.parse().ok());
        Ok(QueueDepth { waiting: waiting.unwrap_or_default(), dead: None })
    }
}

#[async_trait]
impl<L: Line> Fleet for Client<L> {
    async fn clusters(&self) -> Result<Vec<Arc<str>>, CallError> {
        self.names("ListClusters", Call::ListClusters).await
    }

    async fn services(&self, cluster: &str) -> Result<Vec<Arc<str>>, CallError> {
        self.names("ListServices", Call::ListServices { cluster: cluster.to_owned() }).await
    }

    async fn describe(
        &self,
        cluster: &str,
        services: &[Arc<str>],
    ) -> Result<BTreeMap<ServiceKey, ServiceReading>, CallError> {
        let names = services.iter().map(ToString::to_string).collect();
        let call = Call::DescribeServices { cluster: cluster.to_owned(), services: names };
        match self.line.carry("DescribeServices", call).await? {
            Reply::Services { services, .. } => {
                let reading =
                    |view: super::api::ServiceView| (ServiceKey::new(cluster, &view.name), readings::service(view));
                Ok(services.into_iter().map(reading).collect())
            }
            _ => Err(misfit("DescribeServices")),
        }
    }

    async fn task_sets(&self, service: &ServiceKey, ids: &[TaskSetId]) -> Result<Vec<TaskSet>, CallError> {
        let (cluster, name) = (service.cluster.to_string(), service.service.to_string());
        let task_sets = ids.iter().map(ToString::to_string).collect();
        let call = Call::DescribeTaskSets { cluster, service: name, task_sets };
        match self.line.carry("DescribeTaskSets", call).await? {
            Reply::TaskSets { task_sets, .. } => Ok(task_sets.into_iter().map(readings::task_set).collect()),
            _ => Err(misfit("DescribeTaskSets")),
        }
    }

    async fn tasks(
        &self,
        service: &ServiceKey,
        asked: &[TaskArn],
        find_stopped: bool,
    ) -> Result<Vec<TaskReading>, CallError> {
        let cluster = service.cluster.to_string();
        let mut wanted: BTreeSet<String> = asked.iter().map(ToString::to_string).collect();
        if find_stopped {
            let (cluster, service) = (cluster.clone(), Some(service.service.to_string()));
            let call = Call::ListTasks { cluster, service, started_by: None, stopped: true };
            match self.line.carry("ListTasks", call).await? {
                Reply::Arns(arns) => wanted.extend(arns),
                _ => return Err(misfit("ListTasks")),
            }
        }
        let wanted: Vec<String> = wanted.into_iter().collect();
        let mut found = Vec::new();
        for tasks in wanted.chunks(100) {
            let call = Call::DescribeTasks { cluster: cluster.clone(), tasks: tasks.to_vec() };
            match self.line.carry("DescribeTasks", call).await? {
                Reply::Tasks { tasks, .. } => found.extend(tasks.into_iter().map(readings::task)),
                _ => return Err(misfit("DescribeTasks")),
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl<L: Line> LoadBalancers for Client<L> {
    async fn rules(&self, groups: &BTreeSet<TargetGroupArn>, _relearn: bool) -> Result<Vec<TrafficRule>, CallError> {
        let arns = groups.iter().map(ToString::to_string).collect();
        let call = Call::DescribeTargetGroups { arns };
        let Reply::TargetGroups(views) = self.line.carry("DescribeTargetGroups", call).await? else {
            return Err(misfit("DescribeTargetGroups"));
        };
        let balancers: BTreeSet<String> = views.into_iter().flat_map(|view| view.load_balancers).collect();
        let mut found = Vec::new();
        for balancer in balancers {
            found.extend(self.rules_of(balancer).await?);
        }
        found.retain(|rule| groups.iter().any(|group| rule.names(group)));
        Ok(found)
    }

    async fn health(&self, group: &TargetGroupArn) -> Result<TargetCounts, CallError> {
        let call = Call::DescribeTargetHealth { target_group: group.to_string() };
        match self.line.carry("DescribeTargetHealth", call).await? {
            Reply::Targets(targets) => Ok(readings::counts(targets)),
            _ => Err(misfit("DescribeTargetHealth")),
        }
    }
}

#[async_trait]
impl<L: Line> Alarms for Client<L> {
    async fn named(&self, names: &BTreeSet<AlarmName>) -> Result<Vec<AlarmReading>, CallError> {
        self.alarms(names.iter().map(ToString::to_string).collect()).await
    }

    async fn all(&self) -> Result<Vec<AlarmReading>, CallError> {
        self.alarms(Vec::new()).await
    }
}

#[async_trait]
impl<L: Line> TrafficMetrics for Client<L> {
    async fn samples(
        &self,
        groups: &BTreeMap<TargetGroupArn, Arc<str>>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Samples, CallError> {
        match self.line.carry("GetMetricData", readings::metrics_call(groups, from, to)).await? {
            Reply::Metrics(series) => Ok(readings::samples(groups, &series)),
            _ => Err(misfit("GetMetricData")),
        }
    }
}

#[async_trait]
impl<L: Line> Actuator for Client<L> {
    async fn apply(&self, write: &Write) -> Result<(), CallError> {
        self.line.carry(write.operation(), readings::call_of(write)).await.map(drop)
    }
}

#[async_trait]
impl<L: Line> Announcer for Client<L> {
    async fn announce(&self, announcement: &Announcement) -> Result<(), CallError> {
        let operation = "PutEvents";
        let entries = vec![readings::entry_of(announcement)?];
        match self.line.carry(operation, Call::PutEvents { entries }).await? {
            Reply::Entries(entries) => match entries.into_iter().next().flatten() {
                Some(error) => Err(refused(operation, error)),
                None => Ok(()),
            },
            _ => Err(misfit(operation)),
        }
    }
}

#[async_trait]
impl<L: Line> Registrations for Client<L> {
    async fn registered(&self) -> Result<BTreeMap<ServiceKey, Arc<str>>, CallError> {
        match self.line.carry("GetResources", readings::registrations_call()).await? {
            Reply::Resources(found) => Ok(readings::registered(&found)),
            _ => Err(misfit("GetResources")),
        }
    }
}
