//! The world as a backend: every call, its faults, and who answers it.

use super::super::api::{ApiError, Backend, Call, EventEntry, Reply};
use super::elb::Rule;
use super::patterns::test_event_pattern;
use super::{Throttled, World};
use crate::model::ServiceKey;

impl Backend for World {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let operation = operation(&call);
        if let Some(error) = self.faults.get_mut(operation).and_then(std::collections::VecDeque::pop_front) {
            return Err(error);
        }
        let count = self.calls.entry(operation).or_default();
        *count = count.saturating_add(1);
        if self.setup.throttle.get(operation).is_some_and(|every| count.is_multiple_of((*every).max(1))) {
            return Err(ApiError::client("ThrottlingException", "Rate exceeded"));
        }
        let since = self.now.since(self.began);
        let during = |span: &Throttled| (span.from..span.until).contains(&since);
        if self.setup.throttled.iter().any(|span| during(span) && span.operations.iter().any(|name| name == operation))
        {
            return Err(ApiError::client("ThrottlingException", "Rate exceeded"));
        }
        if !is_change(&call) {
            return self.answer(call);
        }
        let service = self.concerned(&call);
        self.check_change(service.as_ref(), operation);
        let made = self.setup.trail.map(|_| call.clone());
        let reply = self.answer(call)?;
        self.changed += 1;
        if let Some(made) = made {
            self.record_call(&made, service.as_ref());
        }
        if let Some(service) = service {
            self.react(&service, operation);
        }
        Ok(reply)
    }
}

impl World {
    /// The service that a change is for, if it is for one.
    fn concerned(&self, call: &Call) -> Option<ServiceKey> {
        let rule = |found: &dyn Fn(&Rule) -> bool| {
            let rule = self.balancer.rules.iter().find(|rule| found(rule));
            rule.and_then(|rule| rule.service.clone())
        };
        match call {
            Call::UpdateTaskSet { cluster, service, .. }
            | Call::SetPrimary { cluster, service, .. }
            | Call::DeleteTaskSet { cluster, service, .. } => {
                self.find_service(cluster, service).ok().map(|service| service.key.clone())
            }
            Call::ModifyRule { rule: arn, .. } => rule(&|rule| rule.arn == *arn),
            Call::ModifyListener { listener, .. } => rule(&|rule| rule.is_default && rule.listener == *listener),
            _ => None,
        }
    }

    fn answer(&mut self, call: Call) -> Result<Reply, ApiError> {
        match call {
            Call::ListClusters => Ok(self.list_clusters()),
            Call::ListServices { cluster } => self.list_services(&cluster),
            Call::DescribeServices { cluster, services } => self.describe_services(&cluster, &services),
            Call::DescribeTaskSets { cluster, service, task_sets } => {
                self.describe_task_sets(&cluster, &service, &task_sets)
            }
            Call::UpdateTaskSet { cluster, service, task_set, scale } => {
                self.update_task_set(&cluster, &service, &task_set, scale)
            }
            Call::SetPrimary { cluster, service, task_set } => self.set_primary(&cluster, &service, &task_set),
            Call::DeleteTaskSet { cluster, service, task_set, force } => {
                self.delete_task_set(&cluster, &service, &task_set, force)
            }
            Call::ListTasks { cluster, service, started_by, stopped } => {
                self.list_tasks(&cluster, service.as_deref(), started_by.as_deref(), stopped)
            }
            Call::DescribeTasks { cluster, tasks } => self.describe_tasks(&cluster, &tasks),
            Call::TagResource { resource, tags } => self.tag_resource(&resource, tags),
            Call::UntagResource { resource, keys } => self.untag_resource(&resource, &keys),
            Call::GetResources { key, values } => Ok(self.get_resources(&key, &values)),
            Call::DescribeTargetGroups { arns } => self.balancer.describe_target_groups(&arns),
            Call::DescribeListeners { load_balancer, arns } => {
                self.balancer.describe_listeners(load_balancer.as_deref(), &arns)
            }
            Call::DescribeRules { listener, arns } => self.balancer.describe_rules(listener.as_deref(), &arns),
            Call::DescribeTargetHealth { target_group } => self.describe_target_health(&target_group),
            Call::ModifyRule { rule, actions } => self.modify_rule(&rule, actions),
            Call::ModifyListener { listener, default_actions } => self.modify_listener(&listener, default_actions),
            Call::DescribeAlarms { names } => Ok(self.describe_alarms(&names)),
            Call::GetMetricData { queries, from, to } => Ok(self.get_metric_data(queries, from, to)),
            Call::ReceiveMessage { queue_url, max, visibility } => self.receive(&queue_url, max, visibility),
            Call::DeleteMessages { queue_url, receipts } => self.delete_messages(&queue_url, &receipts),
            Call::ChangeVisibility { queue_url, entries } => self.change_visibility(&queue_url, &entries),
            Call::SendMessage { queue_url, body } => self.send_message(&queue_url, body),
            Call::GetQueueUrl { name } => self.queue_url(&name),
            Call::GetQueueAttributes { queue_url } => self.queue_attributes(&queue_url),
            Call::ListRuleNamesByTarget { target } => Ok(self.rule_names_by_target(&target)),
            Call::DescribeEventRule { name } => self.describe_event_rule(&name),
            Call::TestEventPattern { pattern, event } => test_event_pattern(&pattern, &event),
            Call::PutEvents { entries } => self.put_events(entries),
        }
    }

    fn put_events(&mut self, entries: Vec<EventEntry>) -> Result<Reply, ApiError> {
        if !(1..=10).contains(&entries.len()) {
            return Err(ApiError::client("ValidationException", "Entries must hold one to ten entries."));
        }
        let mut answers = Vec::new();
        for entry in entries {
            let refusal = refusal(&entry);
            if refusal.is_none() {
                self.announcements.push(entry);
            }
            answers.push(refusal);
        }
        Ok(Reply::Entries(answers))
    }
}

/// The call changes ECS services or load balancers.
fn is_change(call: &Call) -> bool {
    matches!(
        call,
        Call::UpdateTaskSet { .. }
            | Call::SetPrimary { .. }
            | Call::DeleteTaskSet { .. }
            | Call::ModifyRule { .. }
            | Call::ModifyListener { .. }
    )
}

fn refusal(entry: &EventEntry) -> Option<ApiError> {
    if entry.source.starts_with("aws.") {
        return Some(ApiError::client("NotAuthorizedForSourceException", "Not authorized for the source."));
    }
    if entry.source.is_empty() || !(1..=128).contains(&entry.detail_type.chars().count()) {
        return Some(ApiError::client("InvalidArgument", "Source and DetailType are required."));
    }
    let is_object = serde_json::from_str::<serde_json::Value>(&entry.detail).is_ok_and(|detail| detail.is_object());
    (!is_object).then(|| ApiError::client("MalformedDetail", "Detail is malformed."))
}

/// The operation's name, as AWS writes it.
pub(super) fn operation(call: &Call) -> &'static str {
    match call {
        Call::ListClusters => "ListClusters",
        Call::ListServices { .. } => "ListServices",
        Call::DescribeServices { .. } => "DescribeServices",
        Call::DescribeTaskSets { .. } => "DescribeTaskSets",
        Call::UpdateTaskSet { .. } => "UpdateTaskSet",
        Call::SetPrimary { .. } => "UpdateServicePrimaryTaskSet",
        Call::DeleteTaskSet { .. } => "DeleteTaskSet",
        Call::ListTasks { .. } => "ListTasks",
        Call::DescribeTasks { .. } => "DescribeTasks",
        Call::TagResource { .. } => "TagResource",
        Call::UntagResource { .. } => "UntagResource",
        Call::GetResources { .. } => "GetResources",
        Call::DescribeTargetGroups { .. } => "DescribeTargetGroups",
        Call::DescribeListeners { .. } => "DescribeListeners",
        Call::DescribeRules { .. } => "DescribeRules",
        Call::DescribeTargetHealth { .. } => "DescribeTargetHealth",
        Call::ModifyRule { .. } => "ModifyRule",
        Call::ModifyListener { .. } => "ModifyListener",
        Call::DescribeAlarms { .. } => "DescribeAlarms",
        Call::GetMetricData { .. } => "GetMetricData",
        Call::ReceiveMessage { .. } => "ReceiveMessage",
        Call::DeleteMessages { .. } => "DeleteMessageBatch",
        Call::ChangeVisibility { .. } => "ChangeMessageVisibilityBatch",
        Call::SendMessage { .. } => "SendMessage",
        Call::GetQueueUrl { .. } => "GetQueueUrl",
        Call::GetQueueAttributes { .. } => "GetQueueAttributes",
        Call::ListRuleNamesByTarget { .. } => "ListRuleNamesByTarget",
        Call::DescribeEventRule { .. } => "DescribeRule",
        Call::TestEventPattern { .. } => "TestEventPattern",
        Call::PutEvents { .. } => "PutEvents",
    }
}
