//! ECS: awsJson 1.1, `AmazonEC2ContainerServiceV20141113`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::input::{Dialect, Members};
use super::{epoch_seconds, misfit, unknown_operation};
use crate::model::Timestamp;
use crate::sandbox::api::{ApiError, Call, ContainerView, Reply, ServiceView, TaskSetView, TaskView};

/// Before the operation in `X-Amz-Target`.
pub(super) const TARGET: &str = "AmazonEC2ContainerServiceV20141113";

/// How ECS refuses.
pub(super) const DIALECT: Dialect = Dialect { refusal: "InvalidParameterException", textual: false };

/// Answers one operation.
pub(super) fn answer(
    operation: &str,
    mut input: Members,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<Value, ApiError> {
    // A page token is none of ours and refused.
    input.page("maxResults", 100)?;
    match operation {
        "ListClusters" => {
            input.done()?;
            arns("clusterArns", call(Call::ListClusters)?)
        }
        "ListServices" => {
            let cluster = cluster(&mut input)?;
            input.done()?;
            arns("serviceArns", call(Call::ListServices { cluster })?)
        }
        "ListTasks" => {
            let cluster = cluster(&mut input)?;
            let service = input.text_if_any("serviceName")?;
            let started_by = input.text_if_any("startedBy")?;
            let stopped = match input.text_if_any("desiredStatus")?.as_deref() {
                None | Some("RUNNING") => false,
                Some("STOPPED") => true,
                Some(other) => return Err(input.refuse(format!("desiredStatus {other:?} is not RUNNING or STOPPED"))),
            };
            input.done()?;
            arns("taskArns", call(Call::ListTasks { cluster, service, started_by, stopped })?)
        }
        "DescribeServices" => {
            let cluster = cluster(&mut input)?;
            let services = input.texts("services")?;
            let tags = wants_tags(&mut input)?;
            input.done()?;
            match call(Call::DescribeServices { cluster, services })? {
                Reply::Services { services, missing } => {
                    let services: Vec<_> = services.iter().map(|view| service(view, tags)).collect();
                    Ok(json!({ "services": services, "failures": failures(&missing) }))
                }
                _ => Err(misfit(operation)),
            }
        }
        "DescribeTasks" => {
            let cluster = cluster(&mut input)?;
            let tasks = input.texts("tasks")?;
            // Tasks have no tags here, so wanting them changes nothing.
            input.ignore(&["include"]);
            input.done()?;
            match call(Call::DescribeTasks { cluster, tasks })? {
                Reply::Tasks { tasks, missing } => {
                    let tasks: Vec<_> = tasks.iter().map(task).collect();
                    Ok(json!({ "tasks": tasks, "failures": failures(&missing) }))
                }
                _ => Err(misfit(operation)),
            }
        }
        "DescribeTaskSets" => {
            let (cluster, service) = (input.text("cluster")?, input.text("service")?);
            let task_sets = input.texts("taskSets")?;
            let tags = wants_tags(&mut input)?;
            input.done()?;
            match call(Call::DescribeTaskSets { cluster, service, task_sets })? {
                Reply::TaskSets { task_sets, missing } => {
                    let task_sets: Vec<_> = task_sets.iter().map(|view| task_set(view, tags)).collect();
                    Ok(json!({ "taskSets": task_sets, "failures": failures(&missing) }))
                }
                _ => Err(misfit(operation)),
            }
        }
        "UpdateTaskSet" | "UpdateServicePrimaryTaskSet" | "DeleteTaskSet" => {
            let reply = call(task_set_write(operation, input)?)?;
            match reply {
                Reply::TaskSets { task_sets, missing } if missing.is_empty() && task_sets.len() == 1 => {
                    Ok(json!({ "taskSet": task_sets.first().map(|view| task_set(view, true)) }))
                }
                _ => Err(misfit(operation)),
            }
        }
        "TagResource" => {
            let resource = input.text("resourceArn")?;
            let mut tags = BTreeMap::new();
            for mut tag in input.structures("tags")? {
                tags.insert(tag.text("key")?, tag.text_if_any("value")?.unwrap_or_default());
                tag.done()?;
            }
            input.done()?;
            empty(operation, &call(Call::TagResource { resource, tags })?)
        }
        "UntagResource" => {
            let (resource, keys) = (input.text("resourceArn")?, input.texts("tagKeys")?);
            input.done()?;
            empty(operation, &call(Call::UntagResource { resource, keys })?)
        }
        _ => Err(unknown_operation(operation)),
    }
}

fn empty(operation: &str, reply: &Reply) -> Result<Value, ApiError> {
    match reply {
        Reply::Empty => Ok(json!({})),
        _ => Err(misfit(operation)),
    }
}

fn task_set_write(operation: &str, mut input: Members) -> Result<Call, ApiError> {
    let (cluster, service) = (input.text("cluster")?, input.text("service")?);
    let call = match operation {
        "UpdateTaskSet" => {
            let mut scale = input.structure("scale")?;
            let unit = scale.text_if_any("unit")?;
            if unit.as_deref().is_some_and(|unit| unit != "PERCENT") {
                return Err(input.refuse("scale has another unit than PERCENT"));
            }
            let percent = scale.number("value")?;
            scale.done()?;
            Call::UpdateTaskSet { cluster, service, task_set: input.text("taskSet")?, scale: percent }
        }
        "UpdateServicePrimaryTaskSet" => Call::SetPrimary { cluster, service, task_set: input.text("primaryTaskSet")? },
        _ => {
            let force = input.flag("force")?.unwrap_or(false);
            Call::DeleteTaskSet { cluster, service, task_set: input.text("taskSet")?, force }
        }
    };
    input.done()?;
    Ok(call)
}

/// AWS assumes the cluster `default` where none is named.
fn cluster(input: &mut Members) -> Result<String, ApiError> {
    Ok(input.text_if_any("cluster")?.unwrap_or_else(|| "default".to_owned()))
}

fn wants_tags(input: &mut Members) -> Result<bool, ApiError> {
    Ok(input.texts("include")?.iter().any(|part| part == "TAGS"))
}

fn arns(name: &str, reply: Reply) -> Result<Value, ApiError> {
    match reply {
        Reply::Arns(arns) => Ok(json!({ name: arns })),
        _ => Err(misfit(name)),
    }
}

fn failures(missing: &[String]) -> Vec<Value> {
    missing.iter().map(|arn| json!({ "arn": arn, "reason": "MISSING" })).collect()
}

fn service(view: &ServiceView, tags: bool) -> Value {
    // AWS leaves out the tags of nested task sets, whatever is included.
    let task_sets: Vec<_> = view.task_sets.iter().map(|nested| task_set(nested, false)).collect();
    let mut out = json!({
        "serviceArn": view.arn,
        "serviceName": view.name,
        "clusterArn": view.cluster_arn,
        "status": view.status,
        "deploymentController": { "type": view.controller },
        "desiredCount": view.desired_count,
        "runningCount": view.running,
        "pendingCount": view.pending,
        "taskSets": task_sets,
        "createdAt": epoch_seconds(view.created_at),
    });
    put(&mut out, "tags", tags.then(|| tag_list(&view.tags)));
    out
}

fn task_set(view: &TaskSetView, tags: bool) -> Value {
    let load_balancers: Vec<_> = view.target_group.iter().map(|arn| json!({ "targetGroupArn": arn })).collect();
    let mut out = json!({
        "id": view.id,
        "taskSetArn": view.arn,
        "serviceArn": view.service_arn,
        "clusterArn": view.cluster_arn,
        "status": view.status,
        "stabilityStatus": view.stability,
        "stabilityStatusAt": epoch_seconds(view.stability_at),
        "createdAt": epoch_seconds(view.created_at),
        "updatedAt": epoch_seconds(view.updated_at),
        "runningCount": view.running,
        "pendingCount": view.pending,
        "computedDesiredCount": view.computed_desired,
        "scale": { "value": view.scale, "unit": "PERCENT" },
        "taskDefinition": view.task_definition,
        "loadBalancers": load_balancers,
    });
    put(&mut out, "externalId", view.external_id.as_deref());
    put(&mut out, "tags", tags.then(|| tag_list(&view.tags)));
    out
}

fn task(view: &TaskView) -> Value {
    let containers: Vec<_> = view.containers.iter().map(|it| container(it, &view.arn)).collect();
    let mut out = json!({
        "taskArn": view.arn,
        "clusterArn": view.cluster_arn,
        "group": view.group,
        "startedBy": view.started_by,
        "taskDefinitionArn": view.task_definition,
        "lastStatus": view.last_status,
        "desiredStatus": view.desired_status,
        "healthStatus": view.health_status,
        "version": view.version,
        "createdAt": epoch_seconds(view.created_at),
        "containers": containers,
    });
    put(&mut out, "stopCode", view.stop_code.as_deref());
    put(&mut out, "stoppedReason", view.stopped_reason.as_deref());
    put(&mut out, "startedAt", seconds(view.started_at));
    put(&mut out, "stoppingAt", seconds(view.stopping_at));
    put(&mut out, "stoppedAt", seconds(view.stopped_at));
    out
}

fn container(view: &ContainerView, task: &str) -> Value {
    let mut out = json!({
        "name": view.name,
        "image": view.image,
        "lastStatus": view.last_status,
        "taskArn": task,
    });
    put(&mut out, "imageDigest", view.image_digest.as_deref());
    put(&mut out, "exitCode", view.exit_code);
    put(&mut out, "reason", view.reason.as_deref());
    out
}

fn seconds(at: Option<Timestamp>) -> Option<f64> {
    at.map(epoch_seconds)
}

fn tag_list(tags: &BTreeMap<String, String>) -> Vec<Value> {
    tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

/// AWS leaves absent members out rather than writing null.
fn put(out: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let (Some(members), Some(value)) = (out.as_object_mut(), value) {
        let members: &mut Map<String, Value> = members;
        members.insert(name.to_owned(), value.into());
    }
}
