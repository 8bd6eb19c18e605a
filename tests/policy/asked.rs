//! What IAM is asked for a call: actions, resources and condition keys, as in the Service Authorization Reference.

use std::collections::{BTreeMap, BTreeSet};

use taskset_guardian::model::{Action, ActionKind};
use taskset_guardian::sandbox::api::Call;
use taskset_guardian::sandbox::world::{ACCOUNT, REGION};

use crate::iam::Request;

fn on(action: &'static str, resource: impl Into<String>) -> Request {
    Request { action, resource: resource.into(), context: BTreeMap::new() }
}

fn with(action: &'static str, resource: impl Into<String>, key: &'static str, values: Vec<String>) -> Request {
    Request { action, resource: resource.into(), context: BTreeMap::from([(key, values)]) }
}

fn arn(service: &str, resource: &str) -> String {
    format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}")
}

/// The name in a name, or in an ARN's last part.
fn name(name_or_arn: &str) -> &str {
    name_or_arn.rsplit(['/', ':']).next().unwrap()
}

fn ecs(kind: &str, cluster: &str, rest: &str) -> String {
    if rest.starts_with("arn:") { rest.to_owned() } else { arn("ecs", &format!("{kind}/{}/{rest}", name(cluster))) }
}

fn task_set(cluster: &str, service: &str, id: &str) -> String {
    if id.starts_with("arn:") { id.to_owned() } else { ecs("task-set", cluster, &format!("{}/{id}", name(service))) }
}

fn queue(url: &str) -> String {
    arn("sqs", name(url))
}

fn in_cluster(action: &'static str, cluster: &str) -> Request {
    with(action, "*", "ecs:cluster", vec![arn("ecs", &format!("cluster/{}", name(cluster)))])
}

fn tag(action: &'static str, resource: &str, keys: Vec<String>) -> Request {
    with(action, resource, "aws:TagKeys", keys)
}

/// Elastic Load Balancing reads the client of a user pool in its caller's name.
fn user_pools(actions: &[Action]) -> impl Iterator<Item = Request> {
    actions.iter().filter_map(|action| {
        let ActionKind::Kept(kept) = &action.kind else { return None };
        let pool = kept.config.get("AuthenticateCognitoConfig")?.get("UserPoolArn")?.as_str()?;
        Some(on("cognito-idp:DescribeUserPoolClient", pool))
    })
}

/// Everything that must be allowed for the call.
pub(crate) fn requests(call: &Call) -> Vec<Request> {
    match call {
        Call::ListClusters => vec![on("ecs:ListClusters", "*")],
        Call::ListServices { cluster } => vec![in_cluster("ecs:ListServices", cluster)],
        Call::ListTasks { cluster, .. } => vec![in_cluster("ecs:ListTasks", cluster)],
        Call::DescribeServices { cluster, services } => {
            services.iter().map(|service| on("ecs:DescribeServices", ecs("service", cluster, service))).collect()
        }
        Call::DescribeTaskSets { cluster, service, task_sets } => {
            task_sets.iter().map(|id| on("ecs:DescribeTaskSets", task_set(cluster, service, id))).collect()
        }
        Call::DescribeTasks { cluster, tasks } => {
            tasks.iter().map(|task| on("ecs:DescribeTasks", ecs("task", cluster, task))).collect()
        }
        Call::UpdateTaskSet { cluster, service, task_set: id, .. } => {
            vec![on("ecs:UpdateTaskSet", task_set(cluster, service, id))]
        }
        Call::DeleteTaskSet { cluster, service, task_set: id, .. } => {
            vec![on("ecs:DeleteTaskSet", task_set(cluster, service, id))]
        }
        Call::SetPrimary { cluster, service, .. } => {
            vec![on("ecs:UpdateServicePrimaryTaskSet", ecs("service", cluster, service))]
        }
        Call::TagResource { resource, tags } => {
            vec![tag("ecs:TagResource", resource, tags.keys().cloned().collect())]
        }
        Call::UntagResource { resource, keys } => vec![tag("ecs:UntagResource", resource, keys.clone())],
        Call::GetResources { .. } => vec![on("tag:GetResources", "*")],
        Call::DescribeTargetGroups { .. } => vec![on("elasticloadbalancing:DescribeTargetGroups", "*")],
        Call::DescribeListeners { .. } => vec![on("elasticloadbalancing:DescribeListeners", "*")],
        Call::DescribeRules { .. } => vec![on("elasticloadbalancing:DescribeRules", "*")],
        Call::DescribeTargetHealth { .. } => vec![on("elasticloadbalancing:DescribeTargetHealth", "*")],
        Call::ModifyRule { rule, actions } => {
            [on("elasticloadbalancing:ModifyRule", rule)].into_iter().chain(user_pools(actions)).collect()
        }
        Call::ModifyListener { listener, default_actions } => {
            let modify = on("elasticloadbalancing:ModifyListener", listener);
            [modify].into_iter().chain(user_pools(default_actions)).collect()
        }
        // A composite alarm is described by `*` alone.
        Call::DescribeAlarms { .. } => vec![on("cloudwatch:DescribeAlarms", "*")],
        Call::GetMetricData { .. } => vec![on("cloudwatch:GetMetricData", "*")],
        Call::ReceiveMessage { queue_url, .. } => vec![on("sqs:ReceiveMessage", queue(queue_url))],
        Call::DeleteMessages { queue_url, .. } => vec![on("sqs:DeleteMessage", queue(queue_url))],
        Call::ChangeVisibility { queue_url, .. } => vec![on("sqs:ChangeMessageVisibility", queue(queue_url))],
        Call::SendMessage { queue_url, .. } => vec![on("sqs:SendMessage", queue(queue_url))],
        Call::GetQueueUrl { name } => vec![on("sqs:GetQueueUrl", arn("sqs", name))],
        Call::GetQueueAttributes { queue_url } => vec![on("sqs:GetQueueAttributes", queue(queue_url))],
        Call::ListRuleNamesByTarget { .. } => vec![on("events:ListRuleNamesByTarget", "*")],
        Call::DescribeEventRule { name } => vec![on("events:DescribeRule", arn("events", &format!("rule/{name}")))],
        Call::TestEventPattern { .. } => vec![on("events:TestEventPattern", "*")],
        Call::PutEvents { entries } => {
            let bus =
                |bus: &Option<String>| arn("events", &format!("event-bus/{}", bus.as_deref().unwrap_or("default")));
            let put = |source: &str, to| with("events:PutEvents", to, "events:source", vec![source.to_owned()]);
            entries.iter().map(|entry| put(&entry.source, bus(&entry.bus))).collect()
        }
    }
}

/// The actions of an operation by its name. A batch has its single call's, a transaction those of its members, which are
/// looked for in the code that builds it.
pub(crate) fn actions(service: &str, operation: &str, code: &str) -> BTreeSet<String> {
    let names: Vec<&str> = match (service, operation) {
        // Not calls: errors that AWS did not send.
        ("aws", _) => Vec::new(),
        ("sqs", batch) => vec![batch.strip_suffix("Batch").unwrap_or(batch)],
        ("dynamodb", "TransactWriteItems") => {
            let members = [
                ("put(", "PutItem"),
                ("delete(", "DeleteItem"),
                ("condition_check(", "ConditionCheckItem"),
                ("update(", "UpdateItem"),
            ];
            members
                .into_iter()
                .filter(|(member, _)| code.contains(&format!("item.{member}")))
                .map(|(_, name)| name)
                .collect()
        }
        (_, operation) => vec![operation],
    };
    let mut actions: BTreeSet<_> = names.into_iter().map(|name| format!("{service}:{name}")).collect();
    if matches!((service, operation), ("elasticloadbalancing", "ModifyRule" | "ModifyListener")) {
        // What Elastic Load Balancing asks for of whoever changes a rule that logs in by Cognito.
        actions.insert("cognito-idp:DescribeUserPoolClient".to_owned());
    }
    actions
}
