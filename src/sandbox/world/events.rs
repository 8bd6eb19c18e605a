//! EventBridge: what happens in the world, as the JSON that AWS sends, on its way into the guardian's queue.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::cloudwatch::{Alarm, AlarmState, NAMESPACE};
use super::names::{self, ACCOUNT, REGION};
use super::tasks::Task;
use super::{Happening, World};
use crate::model::{ServiceKey, Timestamp};

/// Most events fit into so many bytes.
const ROOM: usize = 2048;

/// The longest that a straggler is late.
const STRAGGLE: Duration = Duration::from_secs(30);

/// The envelope of every event.
#[derive(Serialize)]
struct Event<'a, D> {
    version: &'static str,
    id: String,
    #[serde(rename = "detail-type")]
    detail_type: &'a str,
    source: &'a str,
    account: &'static str,
    time: String,
    region: &'static str,
    resources: [&'a str; 1],
    detail: &'a D,
}

impl<'a, D: Serialize> Event<'a, D> {
    fn new(
        id: String,
        at: Timestamp,
        (source, detail_type): (&'a str, &'a str),
        about: &'a str,
        detail: &'a D,
    ) -> Self {
        let (account, region, resources) = (ACCOUNT, REGION, [about]);
        Self { version: "0", id, detail_type, source, account, time: to_the_second(at), region, resources, detail }
    }

    /// The event as text. Every key is a string, so there is nothing that can't be written.
    fn body(&self) -> String {
        let mut body = Vec::with_capacity(ROOM);
        serde_json::to_writer(&mut body, self).map(|()| String::from_utf8(body).unwrap_or_default()).unwrap_or_default()
    }
}

impl World {
    fn emit(&mut self, kind: (&str, &str), about: &str, detail: &impl Serialize) {
        let id = names::uuid(&mut self.wires);
        let body = Event::new(id, self.now, kind, about, detail).body();
        self.send(body);
    }

    fn send(&mut self, body: String) {
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
        if task.is_pending() && !self.setup.delivery.early {
            return;
        }
        let (id, terse) = (names::uuid(&mut self.wires), self.setup.delivery.terse);
        let detail = task_detail(task, self.now, terse);
        let body = Event::new(id, self.now, ("aws.ecs", "ECS Task State Change"), arn, &detail).body();
        self.send(body);
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
        self.emit(("aws.ecs", "ECS Service Action"), &resource, &detail);
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
        self.emit(("aws.cloudwatch", "CloudWatch Alarm State Change"), &resource, &detail);
    }
}

/// `detail` of a task's event. Absent fields are absent, not null: a task that runs has no stop code.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskDetail<'a> {
    cluster_arn: String,
    containers: [ContainerDetail<'a>; 1],
    desired_status: &'static str,
    group: String,
    last_status: &'static str,
    started_by: &'a str,
    task_arn: &'a str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopping_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_reason: Option<&'a str>,
    #[serde(flatten)]
    unread: Option<UnreadDetail<'a>>,
}

/// What the guardian reads nothing of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnreadDetail<'a> {
    attachments: [Attachment<'a>; 1],
    availability_zone: &'static str,
    cpu: &'static str,
    created_at: Timestamp,
    enable_execute_command: bool,
    launch_type: &'static str,
    memory: &'static str,
    overrides: Overrides,
    platform_version: &'static str,
    task_definition_arn: String,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
}

/// The network interface of a task.
#[derive(Serialize)]
struct Attachment<'a> {
    id: &'a str,
    r#type: &'static str,
    status: &'static str,
    details: [AttachmentDetail<'a>; 1],
}

#[derive(Serialize)]
struct AttachmentDetail<'a> {
    name: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Overrides {
    container_overrides: [ContainerOverride; 1],
}

#[derive(Serialize)]
struct ContainerOverride {
    name: &'static str,
}

/// A container that never ran has no exit code.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerDetail<'a> {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(flatten)]
    unread: Option<UnreadContainer<'a>>,
}

/// What the guardian reads nothing of. A container whose image was not pulled has no digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnreadContainer<'a> {
    container_arn: String,
    cpu: &'static str,
    image: String,
    last_status: &'static str,
    network_interfaces: [Interface<'a>; 1],
    task_arn: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_id: Option<String>,
}

#[derive(Serialize)]
struct Interface<'a> {
    #[serde(rename = "privateIpv4Address")]
    address: &'a str,
}

fn task_detail(task: &Task, now: Timestamp, terse: bool) -> TaskDetail<'_> {
    let (code, reason) = task.stop.as_ref().map(|(code, reason)| (code.as_str(), reason.as_str())).unzip();
    let container = ContainerDetail {
        name: "app",
        exit_code: task.exit_code,
        reason: task.exit_reason.as_deref(),
        unread: (!terse).then(|| unread_container(task)),
    };
    TaskDetail {
        cluster_arn: names::cluster_arn(&task.service.cluster),
        containers: [container],
        desired_status: task.desired_status(),
        group: ["service:", &task.service.service].concat(),
        last_status: task.status.as_str(),
        started_by: &task.started_by,
        task_arn: &task.arn,
        version: task.version,
        stopping_at: task.stopping_at,
        stopped_at: task.stopped_at,
        stop_code: code,
        stopped_reason: reason,
        unread: (!terse).then(|| unread_detail(task, now)),
    }
}

fn unread_detail(task: &Task, now: Timestamp) -> UnreadDetail<'_> {
    UnreadDetail {
        attachments: [Attachment {
            id: &task.attachment,
            r#type: "eni",
            status: if task.is_stopped() { "DELETED" } else { "ATTACHED" },
            details: [AttachmentDetail { name: "privateIPv4Address", value: &task.ip }],
        }],
        availability_zone: "eu-west-1a",
        cpu: "256",
        created_at: task.created_at,
        enable_execute_command: false,
        launch_type: "FARGATE",
        memory: "512",
        overrides: Overrides { container_overrides: [ContainerOverride { name: "app" }] },
        platform_version: "1.4.0",
        task_definition_arn: names::task_definition_arn(&task.definition),
        updated_at: now,
        started_at: task.started_at,
    }
}

fn unread_container(task: &Task) -> UnreadContainer<'_> {
    let id = names::last_part(&task.arn);
    let image_digest = task.image_digest();
    UnreadContainer {
        container_arn: names::container_arn(&task.service.cluster, id),
        cpu: "0",
        image: task.image(),
        last_status: task.container_status(),
        network_interfaces: [Interface { address: &task.ip }],
        task_arn: &task.arn,
        runtime_id: image_digest.is_some().then(|| format!("{id}-527074092")),
        image_digest,
    }
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
pub(super) fn to_the_second(at: Timestamp) -> String {
    let mut text = at.to_string();
    if let Some(dot) = text.find('.') {
        text.replace_range(dot.., "Z");
    }
    text
}

/// As in `2026-03-02T10:04:40.989+0000`.
pub(super) fn without_colon(at: Timestamp) -> String {
    let text = at.to_string();
    text.strip_suffix('Z').map_or(text.clone(), |time| format!("{time}+0000"))
}
