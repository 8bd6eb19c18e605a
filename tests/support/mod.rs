//! A tiny AWS in memory and a driver for the engine: what the shell does, without a shell.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses its part, and tests are their own docs"
)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::engine::{Effect, Engine, Input, Note, Settings};
use taskset_guardian::model::*;
use taskset_guardian::rules::*;

pub const BLUE: &str = "ecs-svc/1000";
pub const GREEN: &str = "ecs-svc/2000";
pub const SWEEP: Duration = Duration::from_secs(30);

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn start() -> Timestamp {
    Timestamp::parse("2026-03-02T10:00:00Z").unwrap()
}

pub fn key() -> ServiceKey {
    ServiceKey::new("prod", "checkout")
}

pub fn scope() -> Scope {
    Scope { account: Arc::from("111122223333"), region: Arc::from("eu-west-1") }
}

pub fn group(name: &str) -> TargetGroupArn {
    TargetGroupArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/{name}/1a2b"))
}

pub fn rule() -> Rule {
    Rule {
        name: Arc::from("web"),
        mode: Mode::Enforce,
        protect: vec![Protect { cluster: Arc::from("prod"), service: Arc::from("checkout") }],
        watch: Watch { bake: secs(900), freshness: secs(600) },
        stability: StabilityGates {
            window: secs(300),
            task_failures: Some(3),
            steady_within: Some(secs(600)),
            unhealthy_targets: Some(0.5),
        },
        errors: ErrorGates::default(),
        compare: Compare { against_blue: true, false_rollback: None, patience: Duration::ZERO },
        rollback: RollbackPolicy {
            drain: secs(60),
            blue_capacity: BlueCapacity::Restore,
            after_promotion: AfterPromotion::Rollback,
            delete: DeletePolicy::Force,
        },
        limits: Limits { rollbacks_per_day: 3 },
        quarantine: Quarantine::default(),
    }
}

pub fn task_set(id: &str, created: Timestamp, status: TaskSetStatus, target_group: &str) -> TaskSet {
    TaskSet {
        id: TaskSetId::new(id),
        arn: TaskSetArn::new(format!("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/{id}")),
        status,
        created_at: created,
        stability: Stability::Steady,
        running: 4,
        pending: 0,
        computed_desired: 4,
        target_group: Some(group(target_group)),
        task_definition: Arc::from(format!("checkout:{}", id.len())),
        external_id: None,
        tags: Tags::new(),
    }
}

/// What AWS would answer.
pub struct Aws {
    pub service: ServiceReading,
    /// What `DescribeTaskSets` says where it differs from `DescribeServices`.
    pub second_opinion: Option<Vec<TaskSet>>,
    pub rules: Vec<TrafficRule>,
    pub healthy: BTreeMap<TargetGroupArn, u32>,
    pub unhealthy: BTreeMap<TargetGroupArn, u32>,
    pub tasks: BTreeMap<TaskArn, TaskReading>,
    pub alarms: Vec<AlarmReading>,
    /// CloudWatch does not tell of alarms.
    pub alarms_unread: bool,
    /// All alarms together can't be read.
    pub alarms_unlisted: bool,
    /// When they were asked for.
    pub searched: Vec<Timestamp>,
    /// What CloudWatch has counted; `None` when it can't be read.
    pub samples: Option<Samples>,
    /// When it was asked.
    pub sampled: Vec<Timestamp>,
    /// Tasks that ECS was asked about.
    pub asked: Vec<TaskArn>,
    /// Outcomes of the next writes; applied when it runs out.
    pub outcomes: VecDeque<Outcome>,
    /// Writes that are answered with success are also carried out.
    pub obeys: bool,
    pub unreadable: Option<CallError>,
    pub writes: Vec<(Timestamp, Write)>,
    pub reads: u32,
}

impl Aws {
    pub fn blue_and_green() -> Self {
        let sets = vec![
            task_set(BLUE, start().minus(secs(86_400)), TaskSetStatus::Primary, "blue"),
            task_set(GREEN, start(), TaskSetStatus::Active, "green"),
        ];
        Self {
            service: ServiceReading {
                scope: scope(),
                status: ServiceStatus::Active,
                controller: Controller::External,
                desired_count: 4,
                task_sets: sets,
                tags: BTreeMap::new(),
            },
            second_opinion: None,
            rules: vec![weighted("main", &[("blue", 90), ("green", 10)])],
            healthy: [(group("blue"), 4), (group("green"), 4)].into(),
            unhealthy: BTreeMap::new(),
            tasks: BTreeMap::new(),
            alarms: Vec::new(),
            alarms_unread: false,
            alarms_unlisted: false,
            searched: Vec::new(),
            samples: Some(Samples::new()),
            sampled: Vec::new(),
            asked: Vec::new(),
            outcomes: VecDeque::new(),
            obeys: true,
            unreadable: None,
            writes: Vec::new(),
            reads: 0,
        }
    }

    /// The deployer has made green PRIMARY and given it all the traffic.
    pub fn promoted() -> Self {
        let mut aws = Self::blue_and_green();
        aws.set(BLUE).status = TaskSetStatus::Active;
        aws.set(GREEN).status = TaskSetStatus::Primary;
        aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
        aws
    }

    pub fn set(&mut self, id: &str) -> &mut TaskSet {
        self.service.task_sets.iter_mut().find(|set| set.id.as_str() == id).unwrap()
    }

    pub fn remove(&mut self, id: &str) {
        self.service.task_sets.retain(|set| set.id.as_str() != id);
    }

    pub fn weights(&self) -> Vec<(String, u32)> {
        let forwards = self.rules.iter().flat_map(TrafficRule::forwards);
        forwards.flat_map(|f| &f.groups).map(|g| (g.target_group.name().to_owned(), g.effective_weight())).collect()
    }

    pub fn deletes(&self) -> Vec<Timestamp> {
        let deletes = self.writes.iter().filter(|(_, write)| matches!(write, Write::DeleteTaskSet { .. }));
        deletes.map(|(at, _)| *at).collect()
    }

    /// The calls, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.writes.iter().map(|(_, write)| write.operation()).collect()
    }

    pub fn shifts(&self) -> Vec<Timestamp> {
        let shifts = self.writes.iter().filter(|(_, write)| matches!(write, Write::SetActions { .. }));
        shifts.map(|(at, _)| *at).collect()
    }

    pub fn observe(&mut self, now: Timestamp, ask: Ask) -> Result<Box<Observation>, CallError> {
        self.reads += 1;
        if let Some(error) = &self.unreadable {
            return Err(error.clone());
        }
        self.searched.extend(ask.find_alarms.then_some(now));
        let listed = ask.find_alarms && !self.alarms_unlisted;
        self.sampled.extend(ask.samples.as_ref().map(|_| now));
        self.asked.extend_from_slice(&ask.tasks);
        let wanted = |task: &&TaskReading| ask.find_stopped || ask.tasks.contains(&task.task);
        let second = self.second_opinion.clone().unwrap_or_else(|| self.service.task_sets.clone());
        Ok(Box::new(Observation {
            read_at: now,
            service: self.service.clone(),
            task_sets_again: ask.twice.then_some(second),
            traffic: if self.service.task_sets.iter().all(|set| set.target_group.is_none()) {
                Traffic::NoLoadBalancer
            } else {
                let groups = self.service.task_sets.iter().filter_map(|set| set.target_group.as_ref());
                let groups: BTreeSet<_> = groups.chain(&ask.groups).collect();
                let named = |rule: &&TrafficRule| groups.iter().any(|group| rule.names(group));
                Traffic::Rules(self.rules.iter().filter(named).cloned().collect())
            },
            targets: self
                .healthy
                .iter()
                .map(|(group, healthy)| {
                    let unhealthy = self.unhealthy.get(group).copied().unwrap_or_default();
                    (group.clone(), TargetCounts { healthy: *healthy, unhealthy, ..TargetCounts::default() })
                })
                .collect(),
            tasks: self.tasks.values().filter(wanted).cloned().collect(),
            alarms: (!self.alarms_unread)
                .then(|| self.alarms.iter().filter(|a| listed || ask.alarms.contains(&a.name)).cloned().collect()),
            alarms_unlisted: ask.find_alarms && self.alarms_unlisted,
            samples: ask.samples.as_ref().and_then(|_| self.samples.clone()),
            ask,
        }))
    }

    fn apply(&mut self, now: Timestamp, write: Write) -> Outcome {
        self.writes.push((now, write.clone()));
        let outcome = self.outcomes.pop_front().unwrap_or(Outcome::Applied);
        if self.obeys && outcome == Outcome::Applied {
            match write {
                Write::SetActions { rule, actions, .. } => {
                    for known in self.rules.iter_mut().filter(|known| known.id == rule) {
                        known.actions.clone_from(&actions);
                    }
                }
                Write::ScaleTaskSet { task_set, percent, .. } => {
                    let desired = self.service.desired_count;
                    let set = self.service.task_sets.iter_mut().find(|set| set.arn == task_set).unwrap();
                    set.computed_desired = (desired * u32::from(percent)).div_ceil(100);
                }
                Write::SetPrimary { task_set, .. } => {
                    for set in &mut self.service.task_sets {
                        let primary = set.arn == task_set;
                        set.status = if primary { TaskSetStatus::Primary } else { TaskSetStatus::Active };
                    }
                }
                Write::DeleteTaskSet { task_set, .. } => self.service.task_sets.retain(|set| set.arn != task_set),
            }
        }
        outcome
    }
}

pub fn weighted(name: &str, weights: &[(&str, u32)]) -> TrafficRule {
    let groups =
        weights.iter().map(|(name, weight)| WeightedGroup { target_group: group(name), weight: Some(*weight) });
    let forward = Forward { groups: groups.collect(), stickiness: None };
    TrafficRule {
        id: TrafficRuleId::Rule(RuleArn::new(name)),
        listener: ListenerArn::new("listener"),
        priority: Arc::from("10"),
        actions: vec![Action { order: Some(1), kind: ActionKind::Forward(forward) }],
        unread: None,
    }
}

pub fn failed(code: Option<&str>) -> CallError {
    let class = match code {
        Some("AccessDeniedException") => ErrorClass::Denied,
        Some("ThrottlingException") => ErrorClass::Throttled,
        Some("ServiceNotFoundException") => ErrorClass::NotFound,
        _ => ErrorClass::Transient,
    };
    CallError { class, operation: "test".to_owned(), code: code.map(str::to_owned), message: "as told".to_owned() }
}

/// The engine with a world around it.
pub struct Driver {
    pub engine: Engine,
    pub settings: Settings,
    pub aws: Aws,
    pub now: Timestamp,
    pub journal: Vec<(Timestamp, Input)>,
    pub announced: Vec<Announcement>,
    pub incidents: BTreeMap<IncidentId, Incident>,
    pub notes: Vec<(Timestamp, Note)>,
    /// The bus refuses announcements.
    pub bus_is_down: bool,
    /// Inputs after which the process dies and comes back, by number: their effects are lost.
    pub crash_after: BTreeSet<usize>,
    /// Writes after which it does: they are carried out, and their answers are lost.
    pub crash_after_write: BTreeSet<usize>,
    /// Writes are carried out, and their answers kept back, here.
    pub withheld: Option<Vec<Input>>,
    /// Reads are not answered, and kept here.
    pub unanswered: Option<Vec<Ask>>,
    /// Other services, each in an AWS of its own.
    pub neighbours: BTreeMap<ServiceKey, Aws>,
    steps: usize,
}

impl Driver {
    pub fn new(aws: Aws, rule: Rule) -> Self {
        Self::with(aws, rule, false)
    }

    pub fn with(aws: Aws, rule: Rule, dry_run: bool) -> Self {
        let mut driver = Self::idle(aws, dry_run);
        driver.protect(rule);
        driver
    }

    pub fn idle(aws: Aws, dry_run: bool) -> Self {
        let settings = Settings { dry_run, sweep: SWEEP, fleet_brake: 3 };
        Self {
            engine: Engine::new(settings),
            settings,
            aws,
            now: start(),
            journal: Vec::new(),
            announced: Vec::new(),
            incidents: BTreeMap::new(),
            notes: Vec::new(),
            bus_is_down: false,
            crash_after: BTreeSet::new(),
            crash_after_write: BTreeSet::new(),
            withheld: None,
            unanswered: None,
            neighbours: BTreeMap::new(),
            steps: 0,
        }
    }

    pub fn protect(&mut self, rule: Rule) {
        self.feed(Input::Rules(RuleSet { rules: vec![Arc::new(rule)] }));
        self.feed(Input::Swept(self.neighbours.keys().cloned().chain([key()]).collect()));
    }

    /// One input, and all that follows from it at once.
    pub fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let before = self.steps;
        while let Some(input) = inputs.pop_front() {
            self.steps += 1;
            assert!(self.steps - before < 1_000, "the engine spins at {}", self.now);
            let step = self.engine.step(self.now, &input);
            if step.changed {
                self.journal.push((self.now, input));
            }
            self.notes.extend(step.report.notes.into_iter().map(|note| (self.now, note)));
            if self.crash_after.contains(&self.steps) {
                // The input is durable, its effects are lost with the process.
                self.restart();
                inputs.clear();
                inputs.push_back(Input::Restarted);
                continue;
            }
            for effect in step.effects {
                match effect {
                    Effect::Observe(ask) if self.unanswered.is_some() => {
                        self.unanswered.iter_mut().for_each(|it| it.push(ask.clone()));
                    }
                    Effect::Observe(ask) => {
                        let key = ask.service.clone();
                        let now = self.now;
                        let answer = self.neighbours.get_mut(&key).unwrap_or(&mut self.aws).observe(now, ask);
                        inputs.push_back(Input::Observed(key, answer));
                    }
                    Effect::Write { id, service, write, expires_at } => {
                        assert!(expires_at > self.now);
                        let aws = self.neighbours.get_mut(&service).unwrap_or(&mut self.aws);
                        let outcome = aws.apply(self.now, write);
                        if self.crash_after_write.contains(&aws.writes.len()) {
                            self.crash_after_write.remove(&aws.writes.len());
                            self.restart();
                            inputs.clear();
                            inputs.push_back(Input::Restarted);
                            break;
                        }
                        match &mut self.withheld {
                            Some(withheld) => withheld.push(Input::Done(id, outcome)),
                            None => inputs.push_back(Input::Done(id, outcome)),
                        }
                    }
                    Effect::Announce(id, _) if self.bus_is_down => {
                        inputs.push_back(Input::Done(id, Outcome::Failed(failed(None))));
                    }
                    Effect::Announce(id, announcement) => {
                        self.announced.push(announcement);
                        inputs.push_back(Input::Done(id, Outcome::Applied));
                    }
                    Effect::Keep(incident) => {
                        self.incidents.insert(incident.id.clone(), incident);
                    }
                }
            }
        }
    }

    /// Inputs so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Brings the engine back from its journal.
    pub fn restart(&mut self) {
        let mut engine = Engine::new(self.settings);
        for (at, input) in &self.journal {
            let _ = engine.step(*at, input);
        }
        self.engine = Engine::restore(self.settings, &engine.checkpoint().unwrap()).unwrap();
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now.plus(duration);
        let mut turns = 0;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.feed(Input::Tick);
            turns += 1;
            assert!(turns < 10_000, "the engine spins at {}", self.now);
        }
        self.now = end;
    }

    pub fn signal(&mut self, fact: Fact) {
        self.feed(Input::Signal(Signal { at: self.now, scope: scope(), replayed: false, fact }));
    }

    /// A task of green crashes: ECS knows it, and says so.
    pub fn crash(&mut self, name: &str) {
        self.crash_of(&key(), GREEN, name);
    }

    /// A task of any task set does.
    pub fn crash_of(&mut self, service: &ServiceKey, task_set: &str, name: &str) {
        let change = TaskChange { service: service.clone(), ..stopped(task_set, name, self.now) };
        let reading = TaskReading {
            task: change.task.clone(),
            task_set: change.task_set.clone(),
            version: change.version,
            stop: change.stop.clone(),
            images: Images::new(),
        };
        let aws = self.neighbours.get_mut(service).unwrap_or(&mut self.aws);
        aws.tasks.insert(reading.task.clone(), reading);
        self.signal(Fact::Task(change));
    }

    pub fn phase(&self) -> String {
        self.phase_of(&key())
    }

    pub fn phase_of(&self, service: &ServiceKey) -> String {
        let view = self.engine.service(service, self.now).and_then(|view| view.deployment);
        view.map_or_else(|| "none".to_owned(), |deployment| deployment.phase.to_string())
    }

    pub fn said(&self) -> Vec<&'static str> {
        self.announced.iter().map(|a| a.kind.detail_type()).collect()
    }
}

/// An event: this task ended by itself.
pub fn stopped(task_set: &str, task: &str, at: Timestamp) -> TaskChange {
    TaskChange {
        service: key(),
        task_set: TaskSetId::new(task_set),
        task: TaskArn::new(format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{task}")),
        version: 5,
        last_status: Arc::from("STOPPED"),
        stop: Some(Stop {
            at,
            class: StopClass::Version,
            code: Arc::from("EssentialContainerExited"),
            reason: Arc::from("Essential container in task exited"),
            containers: vec![ContainerExit {
                name: Arc::from("app"),
                exit_code: Some(1),
                reason: None,
                image_digest: None,
            }],
            target_group: None,
        }),
    }
}

pub fn red(name: &str, since: Timestamp, groups: &[&str]) -> AlarmReading {
    AlarmReading {
        name: AlarmName::new(name),
        value: AlarmValue::Alarm,
        since,
        reason: Arc::from("Threshold Crossed"),
        doubt: None,
        target_groups: groups.iter().map(|name| Arc::from(group(name).dimension())).collect(),
    }
}
