//! ECS events of about 4 KB, as a Fargate task with three containers sends them, made by patching fields of fixed width
//! into one text: a million of them need no memory, and making one costs little more than copying it.

use serde_json::{Value, json};

const TASK: &str = "00000000000000000000000000task00";
const EVENT: &str = "00000000-0000-4000-8000-0000000event";
const TIME: &str = "2000-01-01T00:00:00Z";
const SERVICE: &str = "service-@@@@@@";
const TASK_SET: &str = "ecs-svc/@@@@@@@@@@@@@@@@@@@";
const VERSION: &str = "999999";

/// What happens to the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It runs.
    Runs,
    /// Its Spot capacity was reclaimed: an end that speaks against no version, and is remembered.
    Reclaimed,
    /// It crashed.
    Crashed,
}

/// Which fields one event has.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub event: usize,
    pub task: usize,
    pub service: usize,
    pub task_set: u64,
    pub version: usize,
    /// Seconds since the epoch.
    pub at: i64,
}

/// The text, and where its fields are.
pub struct Template {
    text: String,
    slots: Vec<(usize, Slot)>,
}

#[derive(Clone, Copy)]
enum Slot {
    Task,
    Event,
    Time,
    Service,
    TaskSet,
    Version,
}

impl Template {
    pub fn new(mood: Mood) -> Self {
        Self::of(event(mood).to_string())
    }

    /// As it is inside of a JSON string.
    pub fn escaped(mood: Mood) -> Self {
        let quoted = serde_json::to_string(&event(mood).to_string()).unwrap();
        Self::of(quoted[1..quoted.len() - 1].to_owned())
    }

    fn of(text: String) -> Self {
        let markers = [
            (TASK, Slot::Task),
            (EVENT, Slot::Event),
            (TIME, Slot::Time),
            (SERVICE, Slot::Service),
            (TASK_SET, Slot::TaskSet),
            (VERSION, Slot::Version),
        ];
        let slots = markers.iter().flat_map(|(marker, slot)| text.match_indices(marker).map(|(at, _)| (at, *slot)));
        let slots = slots.collect();
        Self { text, slots }
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Appends one event.
    pub fn write(&self, out: &mut Vec<u8>, fields: &Fields) {
        let begin = out.len();
        out.extend_from_slice(self.text.as_bytes());
        let out = &mut out[begin..];
        let time = jiff::Timestamp::from_second(fields.at).unwrap().to_string();
        for (at, slot) in &self.slots {
            let (number, offset, width) = match slot {
                Slot::Task => (fields.task, 0, 32),
                Slot::Event => (fields.event, 24, 12),
                Slot::Time => {
                    out[*at..*at + 20].copy_from_slice(time.as_bytes());
                    continue;
                }
                Slot::Service => (fields.service, 8, 6),
                Slot::TaskSet => (usize::try_from(fields.task_set).unwrap(), 8, 19),
                // Six digits that do not begin with 0.
                Slot::Version => (100_000 + fields.version % 900_000, 0, 6),
            };
            digits(&mut out[at + offset..at + offset + width], number);
        }
    }

    pub fn text(&self, fields: &Fields) -> String {
        let mut out = Vec::with_capacity(self.len());
        self.write(&mut out, fields);
        String::from_utf8(out).unwrap()
    }
}

fn digits(out: &mut [u8], mut number: usize) {
    for place in out.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap();
        number /= 10;
    }
}

pub fn service_name(number: usize) -> String {
    format!("service-{number:06}")
}

/// Ids of blue and green, in that order of age.
pub fn task_set_number(service: usize, green: bool) -> u64 {
    1_000_000_000_000_000_000 + 2 * service as u64 + u64::from(green)
}

pub fn task_set_id(service: usize, green: bool) -> String {
    format!("ecs-svc/{:019}", task_set_number(service, green))
}

pub fn task_arn(task: usize) -> String {
    format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{task:032}")
}

fn event(mood: Mood) -> Value {
    let arn = format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{TASK}");
    let ended = mood != Mood::Runs;
    let status = if ended { "STOPPED" } else { "RUNNING" };
    let container = |name: &str, essential: bool| {
        let mut container = json!({
            "containerArn": format!("arn:aws:ecs:eu-west-1:111122223333:container/prod/{TASK}/6f1a9f0e-5f37-4f6b-9c53-0c1c2b8f3a11"),
            "lastStatus": status,
            "name": name,
            "image": format!("111122223333.dkr.ecr.eu-west-1.amazonaws.com/{name}:2026-03-02.1-4f9d2c17"),
            "imageDigest": "sha256:8d1f0b7c9e2a4d6f8b0c1e3a5d7f9b1c3e5a7d9f1b3c5e7a9d1f3b5c7e9a1d3f",
            "runtimeId": "0f9de17a6465404e8b1b2356dc13c2f8-527074092",
            "taskArn": arn,
            "networkInterfaces": [{
                "attachmentId": "7c9f6f0b-2c58-4b69-9f65-5a2d3d0c7e11",
                "privateIpv4Address": "10.0.137.211",
                "ipv6Address": "2a05:d018:4f5:2b00:9c7d:1e2f:3a4b:5c6d",
            }],
            "cpu": "256",
            "memory": "512",
            "memoryReservation": "256",
            "managedAgents": [{ "name": "ExecuteCommandAgent", "status": status }],
        });
        if ended {
            container["exitCode"] = json!(i32::from(mood == Mood::Crashed && essential));
        }
        container
    };
    let mut detail = json!({
        "attachments": [
            {
                "id": "7c9f6f0b-2c58-4b69-9f65-5a2d3d0c7e11", "type": "eni", "status": if ended { "DELETED" } else { "ATTACHED" },
                "details": [
                    { "name": "subnetId", "value": "subnet-0b1a2c3d4e5f60718" },
                    { "name": "networkInterfaceId", "value": "eni-0f1e2d3c4b5a69788" },
                    { "name": "macAddress", "value": "0a:1b:2c:3d:4e:5f" },
                    { "name": "privateDnsName", "value": "ip-10-0-137-211.eu-west-1.compute.internal" },
                    { "name": "privateIPv4Address", "value": "10.0.137.211" },
                ],
            },
            { "id": "1d3f5b7c-9e0a-4c2d-8f6b-7a9c1e3d5f70", "type": "elb", "status": if ended { "DELETED" } else { "ATTACHED" }, "details": [] },
        ],
        "attributes": [
            { "name": "ecs.cpu-architecture", "value": "arm64" },
            { "name": "com.amazonaws.ecs.task.platform-family", "value": "Linux" },
        ],
        "availabilityZone": "eu-west-1b",
        "capacityProviderName": "FARGATE",
        "clusterArn": "arn:aws:ecs:eu-west-1:111122223333:cluster/prod",
        "connectivity": "CONNECTED",
        "connectivityAt": TIME,
        "containers": [container("app", true), container("envoy", false), container("log-router", false)],
        "cpu": "1024",
        "createdAt": TIME,
        "desiredStatus": status,
        "enableExecuteCommand": true,
        "ephemeralStorage": { "sizeInGiB": 20 },
        "group": format!("service:{SERVICE}"),
        "lastStatus": status,
        "launchType": "FARGATE",
        "memory": "2048",
        "overrides": { "containerOverrides": [{ "name": "app" }, { "name": "envoy" }, { "name": "log-router" }] },
        "platformVersion": "1.4.0",
        "pullStartedAt": TIME,
        "pullStoppedAt": TIME,
        "startedAt": TIME,
        "startedBy": TASK_SET,
        "taskArn": arn,
        "taskDefinitionArn": format!("arn:aws:ecs:eu-west-1:111122223333:task-definition/{SERVICE}:88"),
        "updatedAt": TIME,
        "version": VERSION.parse::<u64>().unwrap(),
    });
    if ended {
        let (code, reason) = match mood {
            Mood::Crashed => ("EssentialContainerExited", "Essential container in task exited".to_owned()),
            _ => ("SpotInterruption", "Your Spot Task was interrupted.".to_owned()),
        };
        detail["stopCode"] = json!(code);
        detail["stoppedReason"] = json!(reason);
        for time in ["stoppingAt", "executionStoppedAt", "stoppedAt"] {
            detail[time] = json!(TIME);
        }
    }
    json!({
        "version": "0", "id": EVENT, "detail-type": "ECS Task State Change", "source": "aws.ecs",
        "account": "111122223333", "time": TIME, "region": "eu-west-1", "resources": [arn], "detail": detail,
    })
}
