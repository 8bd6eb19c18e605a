//! The simulated AWS: services, tasks, a load balancer, users, metrics, alarms, events and queues, on virtual time.
//!
//! Pure: all chance comes from one seed and all time from [`World::advance_to`], so the same seed and the same calls give
//! the same world, event for event. Everything that will happen waits in one queue, ordered by time and then by the order
//! in which it was planned. The world also watches its caller: a call that breaks one of the guardian's promises is
//! applied as AWS would, and kept as a [`Violation`].

mod api;
mod behaviour;
mod changes;
mod cloudwatch;
mod ecs;
mod elb;
mod events;
mod health;
mod invariants;
mod names;
mod patterns;
mod routes;
mod script;
mod setup;
mod sqs;
mod tags;
mod tasks;
#[cfg(test)]
mod tests;
mod traffic;
mod trail;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fastrand::Rng;

use super::api::{ApiError, EventEntry, ServiceView, Timed};
use crate::model::{Action, Moment, ServiceKey, Timestamp};

pub use behaviour::{Act, Breaks, Crash, Loss, Reaction, Start, TagValue, Trouble, Version, When};
pub use invariants::Violation;
pub use names::{ACCOUNT, REGION};
pub use setup::{
    AlarmMetric, AlarmSetup, BalancerKind, Delivery, EventRuleSetup, Guard, ListenerKind, RouteSetup, ServiceSetup,
    Setup, Throttled, Timing,
};
pub use traffic::{Tally, TrafficView};

use cloudwatch::{Alarm, Datum};
use ecs::Service;
use elb::Balancer;
use sqs::Queue;
use tasks::{Task, TaskMove};

/// The world.
pub struct World {
    now: Timestamp,
    began: Timestamp,
    setup: Setup,
    /// What will happen, by time and then by order of planning.
    agenda: BTreeMap<(Timestamp, u64), Happening>,
    planned: u64,
    /// Three streams of chance, so that more traffic does not change which task crashes when.
    fate: Rng,
    users: Rng,
    wires: Rng,
    services: BTreeMap<ServiceKey, Service>,
    /// Those that have not ended, by ARN,
    tasks: BTreeMap<String, Task>,
    /// and those that have, as long as ECS remembers them.
    ended: BTreeMap<String, Task>,
    balancer: Balancer,
    metrics: BTreeMap<(String, i64), Datum>,
    alarms: BTreeMap<String, Alarm>,
    queues: BTreeMap<String, Queue>,
    faults: BTreeMap<String, VecDeque<ApiError>>,
    calls: BTreeMap<&'static str, u32>,
    /// The services as they were, second by second, while reads lag.
    history: VecDeque<(Timestamp, BTreeMap<ServiceKey, ServiceView>)>,
    /// The guardian's changes of the last minutes, and how many there were in all.
    changes: Vec<(Timestamp, ServiceKey)>,
    changed: usize,
    /// Services of which a person wanted a rollback.
    asked: BTreeSet<ServiceKey>,
    announcements: Vec<EventEntry>,
    story: Vec<Moment>,
    violations: Vec<Violation>,
    sickened_at: Option<Timestamp>,
}

/// One thing that will happen.
#[derive(Clone, Debug)]
enum Happening {
    /// The users send the requests of one second.
    TrafficSecond,
    /// A task moves on in its life, unless something else came between (the number tells).
    Task(String, u64, TaskMove),
    /// The load balancer checks the task's target.
    HealthCheck(String),
    /// ECS compares what a task set runs with what it should run.
    Reconcile(ServiceKey, String),
    /// A drained task set vanishes.
    TaskSetGone(ServiceKey, String),
    /// A changed rule comes into force.
    Propagate { rule: String, generation: u64, actions: Vec<Action> },
    /// CloudWatch evaluates an alarm.
    Evaluate(String),
    /// EventBridge delivers an event.
    Deliver(String),
    /// The next line of the deployer's script, or a reaction.
    Script(ServiceKey, Act),
    /// An outage is over, unless another one came after it.
    Recover(ServiceKey, String),
    /// ECS forgets a stopped task.
    Forget(String),
}

impl World {
    /// A world that has been running for an hour when it begins at `start`.
    pub fn new(seed: u64, start: Timestamp, setup: Setup) -> Self {
        let mut fate = Rng::with_seed(seed);
        let (users, wires) = (fate.fork(), fate.fork());
        let mut world = Self {
            now: start,
            began: start,
            agenda: BTreeMap::new(),
            planned: 0,
            balancer: Balancer::new(&mut fate),
            fate,
            users,
            wires,
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ended: BTreeMap::new(),
            metrics: BTreeMap::new(),
            alarms: BTreeMap::new(),
            queues: BTreeMap::new(),
            faults: BTreeMap::new(),
            calls: BTreeMap::new(),
            history: VecDeque::new(),
            changes: Vec::new(),
            changed: 0,
            asked: BTreeSet::new(),
            announcements: Vec::new(),
            story: Vec::new(),
            violations: Vec::new(),
            sickened_at: None,
            setup,
        };
        world.create_queues();
        for service in world.setup.services.clone() {
            world.create_service(&service);
            for (after, act) in service.script {
                world.plan(after, Happening::Script(service.key.clone(), act));
            }
        }
        world.create_alarms();
        let watched = world.setup.services.iter().any(|service| service.requests_per_second > 0);
        if watched || !world.setup.lag.is_zero() {
            world.plan(Duration::from_secs(1), Happening::TrafficSecond);
        }
        world
    }

    /// Now, on the world's clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Timestamp> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    /// Whether somebody is still to act: a line of a script, or a reaction that is under way.
    pub fn is_awaiting_people(&self) -> bool {
        self.agenda.values().any(|happening| matches!(happening, Happening::Script(..)))
    }

    /// Lets everything happen up to and including `now`. Time never goes back: an earlier `now` does nothing.
    pub fn advance_to(&mut self, now: Timestamp) {
        while let Some(next) = self.agenda.first_entry() {
            if next.key().0 > now {
                break;
            }
            let ((at, _), happening) = next.remove_entry();
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = self.now.max(now);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::TrafficSecond => {
                self.remember();
                self.traffic_second();
            }
            Happening::Task(task, life, step) => self.move_task(&task, life, step),
            Happening::HealthCheck(task) => self.check_target(&task),
            Happening::Reconcile(service, task_set) => self.reconcile(&service, &task_set),
            Happening::TaskSetGone(service, task_set) => self.remove_task_set(&service, &task_set),
            Happening::Propagate { rule, generation, actions } => self.propagate(&rule, generation, actions),
            Happening::Evaluate(alarm) => self.evaluate(&alarm),
            Happening::Deliver(body) => self.deliver(body),
            Happening::Script(service, act) => self.act(&service, &act),
            Happening::Recover(service, what) => self.recover(&service, &what),
            Happening::Forget(task) => {
                self.ended.remove(&task);
            }
        }
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.agenda.insert((self.now.plus(after), self.planned), happening);
        self.planned += 1;
    }

    fn say(&mut self, what: impl Into<String>) {
        self.story.push(Moment { at: self.now, what: what.into() });
    }

    /// The story is about the first service; lines about others say so.
    fn say_of(&mut self, service: &ServiceKey, what: &str) {
        let first = self.setup.services.first().is_none_or(|first| first.key == *service);
        self.say(if first { what.to_owned() } else { format!("{}: {what}", service.service) });
    }

    /// Whether ECS has it, whatever a read that lags shows.
    pub fn has_service(&self, service: &ServiceKey) -> bool {
        self.services.get(service).is_some_and(|service| service.active)
    }

    fn version(&self, task_definition: &str) -> Version {
        self.setup.versions.get(task_definition).cloned().unwrap_or_default()
    }

    /// The next `times` calls of this operation, as in `DeleteTaskSet`, fail like this and are not applied.
    pub fn fail_next(&mut self, operation: &str, error: &ApiError, times: usize) {
        let failures = std::iter::repeat_n(error.clone(), times);
        self.faults.entry(operation.to_owned()).or_default().extend(failures);
    }

    /// Somebody does something, now, unseen by the checks: people may do what they like.
    pub fn person(&mut self, service: &ServiceKey, act: &Act) {
        self.act(service, act);
    }

    /// Every broken promise so far, oldest first.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many changes of ECS services and load balancers were asked for and applied so far.
    pub fn changes(&self) -> usize {
        self.changed
    }

    /// Every event that callers put on the bus and that was accepted, oldest first.
    pub fn announcements(&self) -> &[EventEntry] {
        &self.announcements
    }

    /// Of when the services are that a read shows now: what happened later is not in it yet.
    pub fn read_shows(&self) -> Timestamp {
        // What happened within the same millisecond may have come after it.
        self.as_of().map_or(self.now, |(at, _)| at.minus(Duration::from_millis(1)))
    }

    /// When a healthy target of blue's was last lost: the load balancer notices, and nobody is told.
    pub fn last_sickness(&self) -> Option<Timestamp> {
        self.sickened_at
    }

    /// What happened in the world, in plain words, since this was last asked.
    pub fn drain_story(&mut self) -> Vec<Moment> {
        std::mem::take(&mut self.story)
    }
}

impl Timed for World {
    fn advance_to(&mut self, now: Timestamp) {
        Self::advance_to(self, now);
    }

    fn now(&self) -> Timestamp {
        Self::now(self)
    }

    fn next_event(&self) -> Option<Timestamp> {
        Self::next_event(self)
    }
}
