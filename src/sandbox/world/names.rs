//! Names: ARNs in AWS's shapes, and identifiers drawn from the seed.

use std::time::Duration;

use fastrand::Rng;

/// The account of everything in the sandbox.
pub const ACCOUNT: &str = "111122223333";
/// The Region of everything in the sandbox.
pub const REGION: &str = "eu-west-1";

/// Put together from its parts: the world says names more often than anything else.
fn arn(service: &str, resource: &[&str]) -> String {
    let head = ["arn:aws:", service, ":", REGION, ":", ACCOUNT, ":"];
    let parts = || head.iter().chain(resource);
    let mut arn = String::with_capacity(parts().map(|part| part.len()).sum());
    arn.extend(parts().copied());
    arn
}

pub(super) fn cluster_arn(cluster: &str) -> String {
    arn("ecs", &["cluster/", cluster])
}

pub(super) fn service_arn(cluster: &str, service: &str) -> String {
    arn("ecs", &["service/", cluster, "/", service])
}

pub(super) fn task_set_arn(cluster: &str, service: &str, id: &str) -> String {
    arn("ecs", &["task-set/", cluster, "/", service, "/", id])
}

pub(super) fn task_arn(cluster: &str, id: &str) -> String {
    arn("ecs", &["task/", cluster, "/", id])
}

pub(super) fn task_definition_arn(family_and_revision: &str) -> String {
    arn("ecs", &["task-definition/", family_and_revision])
}

pub(super) fn container_arn(cluster: &str, task: &str) -> String {
    arn("ecs", &["container/", cluster, "/", task, "/app"])
}

pub(super) fn elb_arn(resource: &str) -> String {
    arn("elasticloadbalancing", &[resource])
}

pub(super) fn alarm_arn(name: &str) -> String {
    arn("cloudwatch", &["alarm:", name])
}

pub(super) fn queue_arn(name: &str) -> String {
    arn("sqs", &[name])
}

pub(super) fn event_rule_arn(name: &str) -> String {
    arn("events", &["rule/", name])
}

/// The name in a name, or in the ARN of a cluster, service or task.
pub(super) fn last_part(name_or_arn: &str) -> &str {
    name_or_arn.rsplit('/').next().unwrap_or(name_or_arn)
}

/// The id in a task-set id, or in its ARN. The id holds a slash itself.
pub(super) fn task_set_id(id_or_arn: &str) -> &str {
    id_or_arn.find("ecs-svc/").and_then(|at| id_or_arn.get(at..)).unwrap_or(id_or_arn)
}

/// What CloudWatch uses as dimension: the resource of a load balancer's or target group's ARN.
pub(super) fn dimension(arn: &str) -> &str {
    let resource = arn.rsplit(':').next().unwrap_or(arn);
    resource.strip_prefix("loadbalancer/").unwrap_or(resource)
}

pub(super) fn hex(rng: &mut Rng, digits: usize) -> String {
    let mut text = String::with_capacity(digits);
    text.extend((0..digits).map(|_| rng.digit(16)));
    text
}

pub(super) fn uuid(rng: &mut Rng) -> String {
    let mut text = String::with_capacity(36);
    for (digits, then) in [(8, "-"), (4, "-4"), (3, "-a"), (3, "-"), (12, "")] {
        text.extend((0..digits).map(|_| rng.digit(16)));
        text.push_str(then);
    }
    text
}

/// Nineteen digits, as ECS numbers deployments and task sets.
pub(super) fn new_task_set_id(rng: &mut Rng) -> String {
    format!("ecs-svc/{}", rng.u64(1_000_000_000_000_000_000..=9_223_372_036_854_775_807))
}

/// A random duration between two.
pub(super) fn between(rng: &mut Rng, least: Duration, most: Duration) -> Duration {
    least + most.saturating_sub(least).mul_f64(rng.f64())
}

/// Up to a fifth more or less.
pub(super) fn about(rng: &mut Rng, duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * rng.f64())
}
