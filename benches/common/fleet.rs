//! An account full of blue-green services, answered out of a few fields: what AWS's own logic costs is no part of a bench.
//! It lives behind the sandbox's wire, so its clients speak the real protocols. Its queue holds a few messages; a drain
//! has `queue` for that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;
use taskset_guardian::model::{Action, ActionKind, Forward, TargetGroupArn, Timestamp, WeightedGroup};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{
    ApiError, Backend, Call, ListenerView, MessageView, Reply, RuleView, ServiceView, TargetGroupView, TargetView,
    TaskSetView, TaskView, Timed,
};

use super::events::{self, Fields, Mood, service_name, task_arn, task_set_id, task_set_number};

const PREFIX: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333";
const ECS: &str = "arn:aws:ecs:eu-west-1:111122223333";

/// Rules on one listener: an Application Load Balancer takes 100.
const RULES: usize = 50;

/// The rule that guards all of it, with `rest` appended.
pub fn rule(rest: &str) -> String {
    format!("name = \"all\"\n\n[[protect]]\ncluster = \"prod\"\nservice = \"*\"\n\n{rest}")
}

/// So many calls at once, and so many a second, of all operations that share it.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pub name: &'static str,
    pub operations: &'static [&'static str],
    pub burst: f64,
    pub rate: f64,
}

/// One call as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    pub at: Instant,
    pub operation: &'static str,
    pub throttled: bool,
}

struct Service {
    green: bool,
    shifted: Option<Instant>,
    deleted: Option<Instant>,
    actions: Vec<Action>,
    /// Tasks of green that ended.
    crashed: BTreeSet<usize>,
}

pub struct Fleet {
    services: Vec<Service>,
    born: Timestamp,
    buckets: Vec<(Bucket, f64, Instant)>,
    pub arrived: Vec<Arrived>,
    pub announced: Vec<String>,
    waiting: VecDeque<(usize, String)>,
    in_flight: BTreeMap<usize, (Instant, String)>,
    sent: usize,
    crash: events::Template,
}

impl Fleet {
    /// Each service has a green beside its blue, with a tenth of the traffic.
    pub fn new(services: usize) -> Self {
        let born = SystemClock.now();
        let service = |number| Service {
            green: true,
            shifted: None,
            deleted: None,
            actions: actions(number, 90, 10),
            crashed: BTreeSet::new(),
        };
        Self {
            services: (0..services).map(service).collect(),
            born,
            buckets: Vec::new(),
            arrived: Vec::new(),
            announced: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
            crash: events::Template::new(Mood::Crashed),
        }
    }

    pub fn throttled_by(self, buckets: &[Bucket]) -> Self {
        let now = Instant::now();
        Self { buckets: buckets.iter().map(|bucket| (*bucket, bucket.burst, now)).collect(), ..self }
    }

    /// One more task of a service's green has crashed: ECS knows it, and `true` also sends the event.
    pub fn crash(&mut self, service: usize, send: bool) {
        let task = service * 1000 + self.services[service].crashed.len();
        self.services[service].crashed.insert(task);
        if send {
            let text = self.crash_event(service, task);
            self.waiting.push_back((self.sent, text));
            self.sent += 1;
        }
    }

    pub fn crash_event(&self, service: usize, task: usize) -> String {
        let task_set = task_set_number(service, true);
        let at = SystemClock.now().as_millis() / 1000;
        self.crash.text(&Fields { event: task, task, service, task_set, version: 7, at })
    }

    /// When the weights of a service were put on blue.
    pub fn shifted(&self, service: usize) -> Option<Instant> {
        self.services[service].shifted
    }

    /// When its green was deleted.
    pub fn deleted(&self, service: usize) -> Option<Instant> {
        self.services[service].deleted
    }

    /// Calls of these operations.
    pub fn calls(&self, operations: &[&str]) -> usize {
        self.arrived.iter().filter(|call| operations.contains(&call.operation)).count()
    }

    /// Every message was received and deleted.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    fn admit(&mut self, operation: &'static str) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut throttled = false;
        for (bucket, tokens, at) in &mut self.buckets {
            if bucket.operations.contains(&operation) {
                *tokens = (*tokens + (now - *at).as_secs_f64() * bucket.rate).min(bucket.burst);
                *at = now;
                throttled = *tokens < 1.0;
                if !throttled {
                    *tokens -= 1.0;
                }
            }
        }
        self.arrived.push(Arrived { at: now, operation, throttled });
        if throttled { Err(ApiError::client("ThrottlingException", "Rate exceeded")) } else { Ok(()) }
    }

    fn service_view(&self, number: usize) -> ServiceView {
        let task_sets: Vec<_> =
            [false, true].into_iter().filter_map(|green| self.task_set_view(number, green)).collect();
        ServiceView {
            arn: service_arn(number),
            name: service_name(number),
            cluster_arn: format!("{ECS}:cluster/prod"),
            status: "ACTIVE".into(),
            controller: "EXTERNAL".into(),
            desired_count: 4,
            running: 8,
            pending: 0,
            task_sets,
            tags: BTreeMap::new(),
            created_at: self.born.minus(Duration::from_hours(24)),
        }
    }

    fn task_set_view(&self, number: usize, green: bool) -> Option<TaskSetView> {
        if green && !self.services[number].green {
            return None;
        }
        let age = Duration::from_secs(if green { 30 } else { 86_400 });
        Some(TaskSetView {
            id: task_set_id(number, green),
            arn: format!("{ECS}:task-set/prod/{}/{}", service_name(number), task_set_id(number, green)),
            service_arn: service_arn(number),
            cluster_arn: format!("{ECS}:cluster/prod"),
            status: if green { "ACTIVE".into() } else { "PRIMARY".into() },
            stability: "STEADY_STATE".into(),
            stability_at: self.born.minus(age / 2),
            created_at: self.born.minus(age),
            updated_at: self.born.minus(age / 2),
            running: 4,
            pending: 0,
            computed_desired: 4,
            scale: 100.0,
            task_definition: format!("{ECS}:task-definition/{}:{}", service_name(number), if green { 88 } else { 87 }),
            target_group: Some(group(number, green)),
            external_id: None,
            tags: BTreeMap::new(),
        })
    }

    fn task_view(&self, task: usize) -> Option<TaskView> {
        let number = task / 1000;
        let service = self.services.get(number)?;
        service.crashed.contains(&task).then(|| TaskView {
            arn: task_arn(task),
            cluster_arn: format!("{ECS}:cluster/prod"),
            group: format!("service:{}", service_name(number)),
            started_by: task_set_id(number, true),
            task_definition: format!("{ECS}:task-definition/{}:88", service_name(number)),
            last_status: "STOPPED".into(),
            desired_status: "STOPPED".into(),
            health_status: "UNKNOWN".into(),
            version: 100_007,
            stop_code: Some("EssentialContainerExited".into()),
            stopped_reason: Some("Essential container in task exited".into()),
            created_at: self.born,
            started_at: Some(self.born),
            stopping_at: Some(SystemClock.now()),
            stopped_at: Some(SystemClock.now()),
            containers: Vec::new(),
        })
    }

    fn rule_view(&self, number: usize) -> RuleView {
        RuleView {
            arn: rule_arn(number),
            priority: (number % RULES + 1).to_string(),
            is_default: false,
            path: Some(format!("/{number}/*")),
            actions: self.services[number].actions.clone(),
        }
    }

    fn receive(&mut self, max: u32) -> Vec<MessageView> {
        let now = Instant::now();
        let due: Vec<_> = self.in_flight.iter().filter(|(_, (until, _))| *until <= now).map(|(id, _)| *id).collect();
        for id in due {
            let (_, body) = self.in_flight.remove(&id).unwrap();
            self.waiting.push_back((id, body));
        }
        let count = self.waiting.len().min(max as usize);
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        let until = now + Duration::from_secs(30);
        let view = |(id, body): (usize, String)| {
            self.in_flight.insert(id, (until, body.clone()));
            MessageView { id: id.to_string(), receipt: id.to_string(), body, receive_count: 1, sent_at: self.born }
        };
        taken.into_iter().map(view).collect()
    }

    fn shift(&mut self, rule: &str, actions: Vec<Action>) -> Reply {
        let number = number_of(rule);
        let service = &mut self.services[number];
        let green = group(number, true);
        let left = actions.iter().any(|action| match &action.kind {
            ActionKind::Forward(forward) => {
                forward.groups.iter().any(|it| it.target_group.as_str() == green && it.weight != Some(0))
            }
            ActionKind::Kept(_) => false,
        });
        if !left {
            service.shifted.get_or_insert_with(Instant::now);
        }
        service.actions = actions;
        Reply::Rules(vec![self.rule_view(number)])
    }

    fn delete(&mut self, task_set: &str) -> Result<Reply, ApiError> {
        let id = task_set.rsplit('/').next().unwrap_or_default().parse::<u64>().unwrap() - task_set_number(0, false);
        let (number, green) = (usize::try_from(id / 2).unwrap(), id % 2 == 1);
        assert!(green, "blue is not to be deleted");
        let Some(mut view) = self.task_set_view(number, true) else {
            return Err(ApiError::client("TaskSetNotFoundException", "it is gone"));
        };
        let service = &mut self.services[number];
        assert!(service.shifted.is_some(), "deleted before the traffic was shifted");
        service.green = false;
        service.deleted = Some(Instant::now());
        view.status = "DRAINING".into();
        Ok(Reply::TaskSets { task_sets: vec![view], missing: Vec::new() })
    }
}

impl Backend for Fleet {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        self.admit(operation(&call))?;
        let listeners = self.services.len().div_ceil(RULES);
        Ok(match call {
            Call::ListClusters => Reply::Arns(vec![format!("{ECS}:cluster/prod")]),
            Call::ListServices { .. } => Reply::Arns((0..self.services.len()).map(service_arn).collect()),
            Call::DescribeServices { services, .. } => Reply::Services {
                services: services.iter().map(|name| self.service_view(number_of(name))).collect(),
                missing: Vec::new(),
            },
            Call::DescribeTaskSets { service, .. } => {
                let number = number_of(&service);
                let views = [false, true].into_iter().filter_map(|green| self.task_set_view(number, green));
                Reply::TaskSets { task_sets: views.collect(), missing: Vec::new() }
            }
            Call::DeleteTaskSet { task_set, .. } => self.delete(&task_set)?,
            Call::ListTasks { service, stopped, .. } => {
                let crashed = service.filter(|_| stopped).map(|name| self.services[number_of(&name)].crashed.clone());
                Reply::Arns(crashed.into_iter().flatten().map(task_arn).collect())
            }
            Call::DescribeTasks { tasks, .. } => {
                let (mut found, mut missing) = (Vec::new(), Vec::new());
                for arn in tasks {
                    let number = arn.rsplit('/').next().and_then(|digits| digits.parse().ok());
                    match number.and_then(|number| self.task_view(number)) {
                        Some(view) => found.push(view),
                        None => missing.push(arn),
                    }
                }
                Reply::Tasks { tasks: found, missing }
            }
            Call::GetResources { .. } => Reply::Resources(BTreeMap::new()),
            Call::DescribeTargetGroups { arns } => Reply::TargetGroups(
                arns.into_iter()
                    .map(|arn| TargetGroupView {
                        name: arn.clone(),
                        load_balancers: vec![balancer(number_of(&arn) / RULES)],
                        arn,
                    })
                    .collect(),
            ),
            Call::DescribeListeners { load_balancer, .. } => {
                let number = load_balancer.map_or(0, |arn| number_of(&arn));
                assert!(number < listeners);
                Reply::Listeners(vec![ListenerView {
                    arn: listener(number),
                    load_balancer: balancer(number),
                    port: 443,
                    protocol: "HTTPS".into(),
                    default_actions: Vec::new(),
                }])
            }
            Call::DescribeRules { listener: Some(arn), .. } => {
                let first = number_of(&arn) * RULES;
                let last = (first + RULES).min(self.services.len());
                Reply::Rules((first..last).map(|number| self.rule_view(number)).collect())
            }
            Call::DescribeRules { listener: None, arns } => {
                Reply::Rules(arns.iter().map(|arn| self.rule_view(number_of(arn))).collect())
            }
            Call::DescribeTargetHealth { .. } => {
                let target = |number| TargetView {
                    id: format!("10.0.0.{number}"),
                    port: 8080,
                    state: "healthy".into(),
                    reason: None,
                };
                Reply::Targets((0..4).map(target).collect())
            }
            Call::ModifyRule { rule, actions } => self.shift(&rule, actions),
            Call::DescribeAlarms { .. } => Reply::Alarms(Vec::new()),
            Call::GetMetricData { .. } => Reply::Metrics(Vec::new()),
            Call::ReceiveMessage { max, .. } => Reply::Messages(self.receive(max)),
            Call::DeleteMessages { receipts, .. } => {
                for receipt in &receipts {
                    self.in_flight.remove(&receipt.parse().unwrap());
                }
                Reply::Entries(vec![None; receipts.len()])
            }
            Call::ChangeVisibility { entries, .. } => Reply::Entries(vec![None; entries.len()]),
            Call::GetQueueAttributes { .. } => Reply::Attributes(BTreeMap::from([(
                "ApproximateNumberOfMessages".to_owned(),
                self.waiting.len().to_string(),
            )])),
            Call::PutEvents { entries } => {
                let answers = vec![None; entries.len()];
                self.announced.extend(entries.into_iter().map(|entry| {
                    let detail: Value = serde_json::from_str(&entry.detail).unwrap_or_default();
                    format!("{} {}", entry.detail_type, detail["service"]["service"].as_str().unwrap_or_default())
                }));
                Reply::Entries(answers)
            }
            other => return Err(ApiError::client("UnknownOperationException", format!("{other:?}"))),
        })
    }
}

impl Timed for Fleet {
    fn advance_to(&mut self, _: Timestamp) {}

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn next_event(&self) -> Option<Timestamp> {
        None
    }
}

fn operation(call: &Call) -> &'static str {
    match call {
        Call::ListClusters => "ListClusters",
        Call::ListServices { .. } => "ListServices",
        Call::DescribeServices { .. } => "DescribeServices",
        Call::DescribeTaskSets { .. } => "DescribeTaskSets",
        Call::DeleteTaskSet { .. } => "DeleteTaskSet",
        Call::ListTasks { .. } => "ListTasks",
        Call::DescribeTasks { .. } => "DescribeTasks",
        Call::DescribeTargetGroups { .. } => "DescribeTargetGroups",
        Call::DescribeListeners { .. } => "DescribeListeners",
        Call::DescribeRules { .. } => "DescribeRules",
        Call::DescribeTargetHealth { .. } => "DescribeTargetHealth",
        Call::ModifyRule { .. } => "ModifyRule",
        Call::DescribeAlarms { .. } => "DescribeAlarms",
        Call::PutEvents { .. } => "PutEvents",
        Call::ReceiveMessage { .. } => "ReceiveMessage",
        Call::DeleteMessages { .. } => "DeleteMessageBatch",
        _ => "other",
    }
}

/// Every ARN and name here has its number as its last digits but `-blue/1a2b` and `-green/1a2b`.
fn number_of(name: &str) -> usize {
    let name = name.trim_end_matches("/1a2b").trim_end_matches("-blue").trim_end_matches("-green");
    let digits = name.rfind(|c: char| !c.is_ascii_digit()).map_or(name, |at| &name[at + 1..]);
    digits.parse().unwrap_or_else(|_| panic!("{name:?} has no number"))
}

pub fn group(number: usize, green: bool) -> String {
    format!("{PREFIX}:targetgroup/s{number}-{}/1a2b", if green { "green" } else { "blue" })
}

pub fn rule_arn(number: usize) -> String {
    format!("{PREFIX}:listener-rule/app/edge-{0}/{0}/{0}/{number}", number / RULES)
}

pub fn listener(number: usize) -> String {
    format!("{PREFIX}:listener/app/edge-{number}/{number}/{number}")
}

pub fn listener_of(service: usize) -> String {
    listener(service / RULES)
}

fn balancer(number: usize) -> String {
    format!("{PREFIX}:loadbalancer/app/edge-{number}/{number}")
}

fn service_arn(number: usize) -> String {
    format!("{ECS}:service/prod/{}", service_name(number))
}

fn actions(number: usize, blue: u32, green: u32) -> Vec<Action> {
    let weighted =
        |green, weight| WeightedGroup { target_group: TargetGroupArn::new(group(number, green)), weight: Some(weight) };
    let forward = Forward { groups: vec![weighted(false, blue), weighted(true, green)], stickiness: None };
    vec![Action { order: Some(1), kind: ActionKind::Forward(forward) }]
}
