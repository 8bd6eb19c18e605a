//! EventBridge: what happens in the world, as the JSON that AWS sends, on its way into the guardian's queue.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::cloudwatch::{Alarm, AlarmState, NAMESPACE};
use super::names::{self, ACCOUNT, REGION};
use super::tasks::Task;
use super::{Happening, World};
use crate::model::{ServiceKey, Timestamp};

/// The longest that a straggler is late.
const STRAGGLE: Duration = Duration::from_secs(30);

impl World {
    fn emit(&mut self, detail_type: &str, source: &str, resource: &str, detail: &Value) {
        let event = json!({
            "version": "0",
            "id": names::uuid(&mut self.wires),
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT,
            "time": to_the_second(self.now),
            "region": REGION,
            "resources": [resource],
            "detail": detail,
        });
        let body = event.to_string();
        let delivery = self.setup.delivery;
        let mut delay = names::between(&mut self.wires, delivery.delay.0, delivery.delay.1);
        if self.wires.f64() < delivery.stragglers {
            delay += STRAGGLE.mul_f64(self.wires.f64());
        }
        if self.wires.f64() < delivery.duplicates {
            let again = delay + names::between(&mut self.wires, delivery.delay.0, STRAGGLE);
            self.plan(again, Happening::Deliver(body.clone()));
        }
        self.plan(delay, Happening::Deliver(body));
    }

    pub(super) fn emit_task(&mut self, arn: &str) {
        let Some(task) = self.tasks.get(arn) else { return };
        let detail = task_detail(task, self.now);
        self.emit("ECS Task State Change", "aws.ecs", arn, &detail);
    }

    /// As AWS, it names the service and no task set.
    pub(super) fn emit_service_action(&mut self, service: &ServiceKey, event_type: &str, name: &str) {
        let detail = json!({
            "eventType": event_type,
            "eventName": name,
            "clusterArn": names::cluster_arn(&service.cluster),
            "createdAt": self.now.to_string(),
        });
        let resource = names::service_arn(&service.cluster, &service.service);
        self.emit("ECS Service Action", "aws.ecs", &resource, &detail);
    }

    pub(super) fn emit_alarm(&mut self, alarm: &Alarm, previous: &AlarmState) {
        let detail = json!({
            "alarmName": alarm.setup.name,
            "state": alarm_state(&alarm.state),
            "previousState": alarm_state(previous),
            "configuration": {
                "metrics": [{
                    "id": "m1",
                    "metricStat": {
                        "metric": {
                            "namespace": NAMESPACE,
                            "name": alarm.metric_name(),
                            "dimensions": alarm.dimensions,
                        },
                        "period": alarm.setup.period,
                        "stat": alarm.statistic(),
                    },
                    "returnData": true,
                }],
            },
        });
        let resource = names::alarm_arn(&alarm.setup.name);
        self.emit("CloudWatch Alarm State Change", "aws.cloudwatch", &resource, &detail);
    }
}

fn task_detail(task: &Task, now: Timestamp) -> Value {
    let id = names::last_part(&task.arn);
    let mut detail = json!({
        "attachments": [{
            "id": task.attachment,
            "type": "eni",
            "status": if task.is_stopped() { "DELETED" } else { "ATTACHED" },
            "details": [{ "name": "privateIPv4Address", "value": task.ip }],
        }],
        "availabilityZone": "eu-west-1a",
        "clusterArn": names::cluster_arn(&task.service.cluster),
        "containers": [container_detail(task)],
        "cpu": "256",
        "createdAt": task.created_at.to_string(),
        "desiredStatus": task.desired_status(),
        "enableExecuteCommand": false,
        "group": format!("service:{}", task.service.service),
        "lastStatus": task.status.as_str(),
        "launchType": "FARGATE",
        "memory": "512",
        "overrides": { "containerOverrides": [{ "name": "app" }] },
        "platformVersion": "1.4.0",
        "startedBy": task.started_by,
        "taskArn": names::task_arn(&task.service.cluster, id),
        "taskDefinitionArn": names::task_definition_arn(&task.definition),
        "updatedAt": now.to_string(),
        "version": task.version,
    });
    if let Some(fields) = detail.as_object_mut() {
        let mut time = |name: &str, at: Option<Timestamp>| {
            if let Some(at) = at {
                fields.insert(name.to_owned(), Value::String(at.to_string()));
            }
        };
        time("startedAt", task.started_at);
        time("stoppingAt", task.stopping_at);
        time("stoppedAt", task.stopped_at);
        if let Some((code, reason)) = &task.stop {
            fields.insert("stopCode".to_owned(), json!(code));
            fields.insert("stoppedReason".to_owned(), json!(reason));
        }
    }
    detail
}

/// Absent fields are absent, not null: a container that never ran has no exit code.
fn container_detail(task: &Task) -> Value {
    let id = names::last_part(&task.arn);
    let mut container = Map::new();
    container.insert("containerArn".to_owned(), json!(names::container_arn(&task.service.cluster, id)));
    container.insert("cpu".to_owned(), json!("0"));
    container.insert("image".to_owned(), json!(task.image()));
    container.insert("lastStatus".to_owned(), json!(task.container_status()));
    container.insert("name".to_owned(), json!("app"));
    container.insert("networkInterfaces".to_owned(), json!([{ "privateIpv4Address": task.ip }]));
    container.insert("taskArn".to_owned(), json!(task.arn));
    if let Some(digest) = task.image_digest() {
        container.insert("imageDigest".to_owned(), json!(digest));
        container.insert("runtimeId".to_owned(), json!(format!("{id}-527074092")));
    }
    if let Some(code) = task.exit_code {
        container.insert("exitCode".to_owned(), json!(code));
    }
    if let Some(reason) = &task.exit_reason {
        container.insert("reason".to_owned(), json!(reason));
    }
    Value::Object(container)
}

/// `reasonData` is a JSON string inside the JSON; its timestamps, and the state's, have an offset without a colon.
fn alarm_state(state: &AlarmState) -> Value {
    let mut value = json!({
        "value": state.word(),
        "reason": state.reason,
        "timestamp": without_colon(state.since),
    });
    if let (Some(data), Some(fields)) = (&state.reason_data, value.as_object_mut()) {
        fields.insert("reasonData".to_owned(), Value::String(data.to_string()));
    }
    value
}

/// As in `2026-03-02T10:04:40Z`.
fn to_the_second(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// As in `2026-03-02T10:04:40.989+0000`.
pub(super) fn without_colon(at: Timestamp) -> String {
    let text = at.to_string();
    text.strip_suffix('Z').map_or(text.clone(), |time| format!("{time}+0000"))
}
