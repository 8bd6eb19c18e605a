//! A life in the model's words: the events that tell of it, and what a read finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::model::{
    Action, ActionKind, AlarmName, AlarmReading, AlarmValue, Ask, ContainerExit, Controller, Fact, Forward, Images,
    ListenerArn, Observation, Role, RuleArn, Sample, Samples, Scope, ServiceKey, ServiceReading, ServiceStatus, Signal,
    Stability, Stop, Tags, TargetCounts, TargetGroupArn, TaskArn, TaskChange, TaskReading, TaskSet, TaskSetArn,
    TaskSetId, TaskSetStatus, Timestamp, Traffic, TrafficRule, TrafficRuleId, WeightedGroup, classify,
};

use super::life::{BEFORE, BUCKET, Bucket, Cause, HORIZON, Health, Life, MINUTE, Ms, SECOND, TaskLife};
use super::random::between;

/// Green's creation, as a time of day.
const CREATED_AT: i64 = 1_772_445_600_000;

/// A moment of a life as the engine has it.
pub fn timestamp(at: Ms) -> Timestamp {
    Timestamp::from_millis(CREATED_AT + at)
}

/// The engine's time as a moment of a life.
pub fn moment(at: Timestamp) -> Ms {
    at.as_millis() - CREATED_AT
}

/// The service of every life.
pub fn key() -> ServiceKey {
    ServiceKey::new("prod", "checkout")
}

fn scope() -> Scope {
    Scope { account: Arc::from("111122223333"), region: Arc::from("eu-west-1") }
}

/// AWS, as far as a life goes.
pub struct Recorded<'a> {
    life: &'a Life,
    sets: [TaskSet; 2],
    rule: TrafficRule,
    groups: [TargetGroupArn; 2],
    tasks: Vec<TaskReading>,
}

fn place(role: Role) -> usize {
    usize::from(role == Role::Green)
}

const ROLES: [Role; 2] = [Role::Blue, Role::Green];

impl<'a> Recorded<'a> {
    /// Names everything once.
    pub fn new(life: &'a Life) -> Self {
        let group = |name: &str| {
            let arn = format!("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/checkout-{name}/1a2b");
            TargetGroupArn::new(arn)
        };
        let groups = [group("blue"), group("green")];
        let set = |role: Role, id: &str, version: &str| TaskSet {
            id: TaskSetId::new(id),
            arn: TaskSetArn::new(format!("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/{id}")),
            status: TaskSetStatus::Active,
            created_at: timestamp(if role == Role::Green { 0 } else { -24 * 60 * MINUTE }),
            stability: Stability::Stabilizing,
            running: 0,
            pending: 0,
            computed_desired: life.size,
            target_group: groups.get(place(role)).cloned(),
            task_definition: Arc::from(version),
            external_id: None,
            tags: Tags::new(),
        };
        let sets = [set(Role::Blue, "ecs-svc/1000", "checkout:87"), set(Role::Green, "ecs-svc/2000", "checkout:88")];
        let balancer = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/edge/50dc/f2f7";
        let rule = TrafficRule {
            id: TrafficRuleId::Rule(RuleArn::new(
                "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener-rule/app/edge/50dc/f2f7/9683",
            )),
            listener: ListenerArn::new(balancer),
            priority: Arc::from("10"),
            actions: Vec::new(),
            unread: None,
        };
        let tasks = life.tasks.iter().enumerate().map(|(number, task)| reading(&sets, number, task)).collect();
        Self { life, sets, rule, groups, tasks }
    }

    /// Every event, by the time at which EventBridge delivers it.
    pub fn signals(&self, rng: &mut Rng) -> Vec<(Ms, Signal)> {
        let mut found = Vec::with_capacity(self.life.tasks.len() * 3);
        for (task, reading) in self.life.tasks.iter().zip(&self.tasks) {
            let mut tell = |at: Ms, version: u64, status: &str, stop: Option<&Stop>| {
                if !(-BEFORE..=HORIZON).contains(&at) {
                    return;
                }
                // Within a second or two as a rule, and half a minute late now and then.
                let late =
                    if rng.u32(0..100) == 0 { between(rng, 2_000.0, 30_000.0) } else { between(rng, 200.0, 1_500.0) };
                let fact = Fact::Task(TaskChange {
                    service: key(),
                    task_set: reading.task_set.clone(),
                    task: reading.task.clone(),
                    version,
                    last_status: Arc::from(status),
                    stop: stop.cloned(),
                });
                // An event's time has no fractions.
                let told = timestamp(at.div_euclid(SECOND) * SECOND);
                found.push((at + whole(late), Signal { at: told, scope: scope(), replayed: false, fact }));
            };
            if let Some(running) = task.running {
                tell(running, 4, "RUNNING", None);
            }
            if let Some(end) = task.end {
                let status = if task.running.is_some() { "DEACTIVATING" } else { "DEPROVISIONING" };
                tell(end.at, 5, status, reading.stop.as_ref());
                tell(end.stopped, 6, "STOPPED", reading.stop.as_ref());
            }
        }
        found.sort_by_key(|(at, _)| *at);
        found
    }

    /// What a round of reads finds that is sent at this moment.
    pub fn observe(&self, at: Ms, ask: &Ask) -> Observation {
        let green_lives = at >= 0;
        let mut sets = Vec::with_capacity(2);
        let mut targets = BTreeMap::new();
        for role in ROLES.into_iter().filter(|role| *role == Role::Blue || green_lives) {
            let (Some(set), Some(group)) = (self.sets.get(place(role)), self.groups.get(place(role))) else { continue };
            let counts = self.counts(role, at);
            sets.push(TaskSet {
                status: self.status(role, at),
                stability: if self.life.is_steady(role, at) { Stability::Steady } else { Stability::Stabilizing },
                running: counts.running,
                pending: counts.pending,
                computed_desired: self.life.desired_at(at),
                ..set.clone()
            });
            targets.insert(group.clone(), counts.targets);
        }
        let known = |reading: &&TaskReading| reading.stop.as_ref().is_some_and(|stop| stop.at <= timestamp(at));
        let wanted = |reading: &&TaskReading| ask.find_stopped || ask.tasks.contains(&reading.task);
        let kept = |reading: &&TaskReading| {
            reading.stop.as_ref().is_some_and(|stop| timestamp(at).since(stop.at) < Duration::from_hours(1))
        };
        let tasks = self.tasks.iter().filter(known).filter(wanted).filter(kept).cloned().collect();
        Observation {
            ask: ask.clone(),
            read_at: timestamp(at),
            task_sets_again: ask.twice.then(|| sets.clone()),
            service: ServiceReading {
                scope: scope(),
                status: ServiceStatus::Active,
                controller: Controller::External,
                desired_count: self.life.desired_at(at),
                task_sets: sets,
                tags: Tags::new(),
            },
            traffic: Traffic::Rules(vec![self.rule(at)]),
            targets,
            tasks,
            alarms: Some(self.alarms(ask)),
            alarms_unlisted: false,
            samples: ask.samples.as_ref().map(|wanted| self.samples(moment(wanted.from), at)),
        }
    }

    fn status(&self, role: Role, at: Ms) -> TaskSetStatus {
        let promoted = self.life.weight_at(at) == 100;
        if (role == Role::Green) == promoted { TaskSetStatus::Primary } else { TaskSetStatus::Active }
    }

    fn counts(&self, role: Role, at: Ms) -> Counts {
        let mut counts = Counts::default();
        for task in self.life.of(role) {
            counts.running += u32::from(task.runs(at));
            counts.pending += u32::from(task.is_pending(at));
            match task.target(at) {
                Some(Health::Healthy) => counts.targets.healthy += 1,
                Some(Health::Unhealthy) => counts.targets.unhealthy += 1,
                Some(Health::Initial) => counts.targets.initial += 1,
                None => {}
            }
        }
        counts
    }

    fn rule(&self, at: Ms) -> TrafficRule {
        let weight = self.life.weight_at(at);
        let [blue, green] = &self.groups;
        let groups = vec![
            WeightedGroup { target_group: blue.clone(), weight: Some(100 - weight) },
            WeightedGroup { target_group: green.clone(), weight: Some(weight) },
        ];
        let forward = ActionKind::Forward(Forward { groups, stickiness: None });
        TrafficRule { actions: vec![Action { order: Some(1), kind: forward }], ..self.rule.clone() }
    }

    fn alarms(&self, ask: &Ask) -> Vec<AlarmReading> {
        let [_, green] = &self.groups;
        let name = AlarmName::new("checkout-green-5xx");
        let wanted = |_: &Ms| ask.find_alarms || ask.alarms.contains(&name);
        let alarm = self.life.red.filter(wanted).map(|since| AlarmReading {
            name: name.clone(),
            value: AlarmValue::Alarm,
            since: timestamp(since),
            reason: Arc::from("Threshold Crossed"),
            doubt: None,
            target_groups: [Arc::from(green.dimension())].into(),
        });
        alarm.into_iter().collect()
    }

    /// Minutes that CloudWatch shows by then.
    fn samples(&self, from: Ms, at: Ms) -> Samples {
        let mut samples = Samples::new();
        for role in ROLES {
            let Some(group) = self.groups.get(place(role)) else { continue };
            let mut minutes = Vec::new();
            let mut begins = from.max(-BEFORE);
            while begins + MINUTE + self.life.metrics_lag <= at {
                let sum = Bucket::sum(self.life.traffic(role, begins, begins + MINUTE));
                if sum.requests > 0 {
                    minutes.push(Sample {
                        at: timestamp(begins),
                        requests: Some(sum.requests),
                        http_5xx: sum.http_5xx,
                        connection_errors: sum.unreachable,
                        latency_p99: Duration::try_from_secs_f64(sum.p99 / 1_000.0).ok(),
                    });
                }
                begins += MINUTE;
            }
            if !minutes.is_empty() {
                samples.insert(group.clone(), minutes);
            }
        }
        samples
    }
}

#[derive(Default)]
struct Counts {
    running: u32,
    pending: u32,
    targets: TargetCounts,
}

fn reading(sets: &[TaskSet; 2], number: usize, task: &TaskLife) -> TaskReading {
    let [blue, green] = sets;
    let set = if task.role == Role::Green { green } else { blue };
    let stop = task.end.map(|end| Stop {
        at: timestamp(end.at),
        class: classify(end.cause.code(), end.cause.reason()),
        code: Arc::from(end.cause.code()),
        reason: Arc::from(end.cause.reason()),
        containers: containers(end.cause),
        target_group: (end.cause == Cause::FailedChecks).then(|| set.target_group.clone()).flatten(),
    });
    TaskReading {
        task: TaskArn::new(format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{number:032x}")),
        task_set: set.id.clone(),
        version: 6,
        stop,
        images: Images::new(),
    }
}

fn containers(cause: Cause) -> Vec<ContainerExit> {
    let (exit_code, reason) = match cause {
        Cause::Crashed => (Some(1), None),
        Cause::OutOfMemory => (Some(137), Some(Arc::from("OutOfMemoryError: Container killed due to memory usage"))),
        Cause::CannotPull => (None, None),
        _ => (Some(143), None),
    };
    vec![ContainerExit { name: Arc::from("app"), exit_code, reason, image_digest: None }]
}

#[expect(clippy::cast_possible_truncation, reason = "half a minute at most")]
fn whole(value: f64) -> Ms {
    value as Ms
}

const _: () = assert!(MINUTE % BUCKET == 0 && CREATED_AT % MINUTE == 0, "minutes begin where CloudWatch's do");
