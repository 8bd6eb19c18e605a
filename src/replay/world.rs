//! The world as a recording tells it so far: what a read of AWS would have said, as far as events let one know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::person::{Fate, Told};
use super::survey::{self, Survey};
use crate::model::{
    Action, ActionKind, AlarmName, AlarmReading, ApiCall, Ask, CallTarget, Controller, Fact, Forward, Images,
    ListenerArn, Observation, ServiceKey, ServiceReading, ServiceStatus, Stability, Stop, StopClass, Tags, TaskArn,
    TaskChange, TaskReading, TaskSet, TaskSetArn, TaskSetId, TaskSetStatus, Timestamp, Traffic, TrafficRule,
    TrafficRuleId, WeightedGroup,
};

/// Where ECS does not say that a task set is steady: all its tasks have run for this long, and none has ended meanwhile.
const UNDISTURBED: Duration = Duration::from_mins(1);

/// ECS keeps stopped tasks for an hour.
const STOPPED_KEPT: Duration = Duration::from_hours(1);

/// A blue whose tasks are all scaled in may stand ready, or be deleted: where CloudTrail does not say which, it is taken
/// for deleted after this.
const LINGERS: Duration = Duration::from_mins(15);

/// The name of a blue that no event tells of.
const UNSEEN: &str = "not-in-the-recording";

/// All services of a recording.
#[derive(Debug)]
pub struct World<'s> {
    survey: &'s Survey,
    services: BTreeMap<ServiceKey, Service>,
    alarms: BTreeMap<AlarmName, AlarmReading>,
    no_service: survey::Service,
}

#[derive(Debug, Default)]
struct Service {
    sets: BTreeMap<TaskSetId, Set>,
    primary: Option<TaskSetId>,
    rules: BTreeMap<TrafficRuleId, Vec<WeightedGroup>>,
    stopped: BTreeMap<TaskArn, TaskReading>,
    /// When each of them stopped, oldest first.
    stops: VecDeque<(Timestamp, TaskArn)>,
    told: Told,
}

#[derive(Debug, Default)]
struct Set {
    /// By name; those that end are forgotten.
    tasks: BTreeMap<TaskArn, Task>,
    /// Tasks from before the recording that have not ended.
    old: u32,
    desired: u32,
    /// Since when nothing has changed.
    quiet_since: Timestamp,
    told_steady: bool,
    /// All its tasks are scaled in since then.
    empty_since: Option<Timestamp>,
    gone: bool,
}

#[derive(Debug)]
struct Task {
    version: u64,
    runs: bool,
}

impl<'s> World<'s> {
    /// Before the first event.
    pub fn new(survey: &'s Survey) -> Self {
        let services = survey.services.iter().map(|(key, service)| (key.clone(), Service::new(service))).collect();
        Self { survey, services, alarms: survey.alarms.clone(), no_service: survey::Service::default() }
    }

    /// Takes one event. Events come in the order of [`Event::key`].
    pub fn take(&mut self, event: &Event) {
        let Event { at, signal, more } = event;
        match &signal.fact {
            Fact::Task(change) => self.of(&change.service, |service, known| service.task(*at, change, known)),
            Fact::Service(action) => self.of(&action.service, |service, _| {
                if &*action.name == "TASKSET_STEADY_STATE" {
                    service.steady();
                }
            }),
            Fact::Call(call) => match &call.target {
                CallTarget::TaskSet { service, id } => {
                    self.of(service, |service, known| service.call(*at, call, id.as_ref(), known));
                }
                CallTarget::Rule { rule, .. } => {
                    let groups: Vec<_> = more
                        .groups
                        .iter()
                        .map(|(group, weight)| WeightedGroup { target_group: group.clone(), weight: Some(*weight) })
                        .collect();
                    for (key, service) in &mut self.services {
                        let Some(known) = self.survey.services.get(key) else { continue };
                        service.weigh(*at, call, rule, &groups, known);
                    }
                }
            },
            Fact::Alarm(change) => {
                let newer = self.alarms.get(&change.alarm.name).is_none_or(|known| known.since <= change.alarm.since);
                if newer {
                    self.alarms.insert(change.alarm.name.clone(), change.alarm.clone());
                }
            }
            Fact::AlarmDeleted(gone) => {
                self.alarms.remove(&gone.name);
            }
        }
    }

    fn of(&mut self, key: &ServiceKey, then: impl FnOnce(&mut Service, &survey::Service)) {
        if let (Some(service), Some(known)) = (self.services.get_mut(key), self.survey.services.get(key)) {
            then(service, known);
        }
    }

    /// A green stands beside a blue, and the recording still speaks of it.
    pub(super) fn is_deploying(&self, key: &ServiceKey, now: Timestamp, settle: Duration) -> bool {
        let Some((service, known)) = self.services.get(key).zip(self.survey.services.get(key)) else { return false };
        now <= known.ends_at.plus(settle) && service.living(now, known).count() >= 2
    }

    /// What other hands made of a deployment.
    pub fn fate(&self, key: &ServiceKey, green: &TaskSetId) -> Option<Fate> {
        self.services.get(key)?.told.fate(green)
    }

    /// When the first task of the task set failed.
    pub fn first_failure(&self, key: &ServiceKey, green: &TaskSetId) -> Option<Timestamp> {
        self.services.get(key)?.told.first_failure(green)
    }

    /// The answer to a read.
    pub(super) fn observe(&self, now: Timestamp, ask: &Ask) -> Observation {
        let known = self.survey.services.get(&ask.service).unwrap_or(&self.no_service);
        let empty = Service::default();
        let service = self.services.get(&ask.service).unwrap_or(&empty);
        let task_sets = service.task_sets(&ask.service, now, known);
        let groups: BTreeSet<_> =
            task_sets.iter().filter_map(|set| set.target_group.as_ref()).chain(&ask.groups).collect();
        let traffic = if groups.is_empty() {
            Traffic::NoLoadBalancer
        } else {
            let rules = service.rules.iter().map(|(id, weights)| rule(id, weights));
            Traffic::Rules(rules.filter(|rule| groups.iter().any(|group| rule.names(group))).collect())
        };
        let asked = |alarm: &&AlarmReading| ask.find_alarms || ask.alarms.contains(&alarm.name);
        Observation {
            read_at: now,
            service: ServiceReading {
                scope: known.scope.clone(),
                status: ServiceStatus::Active,
                controller: Controller::External,
                desired_count: task_sets.iter().map(|set| set.computed_desired).max().unwrap_or_default(),
                task_sets: task_sets.clone(),
                tags: Tags::new(),
            },
            task_sets_again: ask.twice.then_some(task_sets),
            traffic,
            targets: BTreeMap::new(),
            // No event is lost between the recording and the engine, so there is nothing to find beyond what it asks for.
            tasks: ask.tasks.iter().filter_map(|task| service.stopped.get(task)).cloned().collect(),
            alarms: Some(self.alarms.values().filter(asked).cloned().collect()),
            alarms_unlisted: false,
            samples: None,
            ask: ask.clone(),
        }
    }
}

impl Service {
    fn new(known: &survey::Service) -> Self {
        let old = known.sets.iter().filter(|(_, set)| !set.is_new);
        let sets = old.map(|(id, set)| {
            let told_steady = true;
            (id.clone(), Set { old: set.old_tasks, desired: set.old_tasks, told_steady, ..Set::default() })
        });
        let mut service = Self { sets: sets.collect(), ..Self::default() };
        if service.sets.is_empty() {
            service.sets.insert(TaskSetId::new(UNSEEN), Set { told_steady: true, ..Set::default() });
        }
        service
    }

    /// A task set that an event names. The blue that no event tells of stays until the next green has one beside it.
    fn set(&mut self, at: Timestamp, id: &TaskSetId) -> &mut Set {
        if !self.sets.contains_key(id) {
            let stands = |(other, set): (&TaskSetId, &Set)| other.as_str() != UNSEEN && !set.gone && set.told_steady;
            if self.sets.iter().any(stands) {
                self.sets.remove(UNSEEN);
            }
            self.sets.insert(id.clone(), Set { quiet_since: at, ..Set::default() });
        }
        self.sets.entry(id.clone()).or_default()
    }

    fn task(&mut self, at: Timestamp, change: &TaskChange, known: &survey::Service) {
        let TaskChange { task_set, task, version, last_status, stop, .. } = change;
        if let Some(before) = self.sets.get(task_set).and_then(|set| set.tasks.get(task))
            && before.version >= *version
        {
            return;
        }
        if let Some(known) = self.stopped.get_mut(task) {
            if let Some(stop) = stop.as_ref().filter(|_| known.version < *version) {
                *known = reading(change, stop);
            }
            return;
        }
        let set = self.set(at, task_set);
        set.quiet_since = at;
        if let Some(stop) = stop {
            let was_known = set.tasks.remove(task).is_some();
            if !was_known {
                set.old = set.old.saturating_sub(1);
            }
            if stop.class == StopClass::Neutral {
                set.desired = set.desired.saturating_sub(1);
            } else {
                set.told_steady = false;
            }
            if set.active() == 0 && stop.class == StopClass::Neutral {
                let drained = known.sets.get(task_set).is_none_or(|set| set.is_new || set.drained_at == Some(at));
                set.empty_since = drained.then_some(at);
            }
            self.stopped.insert(task.clone(), reading(change, stop));
            self.stops.push_back((at, task.clone()));
            while let Some((_, task)) = self.stops.pop_front_if(|(ended, _)| at.since(*ended) > STOPPED_KEPT) {
                self.stopped.remove(&task);
            }
            if stop.class == StopClass::Version {
                self.told.failed(task_set, at);
            }
        } else {
            let runs = &**last_status == "RUNNING";
            set.tasks.insert(task.clone(), Task { version: *version, runs });
            set.desired = set.desired.max(set.active());
            set.empty_since = None;
        }
        self.judge_ends(at, known);
    }

    /// ECS says that one of the task sets is steady, and not which: every one that looks so.
    fn steady(&mut self) {
        for set in self.sets.values_mut().filter(|set| set.is_whole()) {
            set.told_steady = true;
        }
    }

    fn call(&mut self, at: Timestamp, call: &ApiCall, id: Option<&TaskSetId>, known: &survey::Service) {
        let Some(id) = id else { return };
        match &*call.operation {
            "CreateTaskSet" => {
                self.set(at, id);
            }
            "UpdateServicePrimaryTaskSet" => self.primary = Some(id.clone()),
            "DeleteTaskSet" => {
                self.set(at, id).gone = true;
                self.ended(id, call.own, known);
            }
            _ => {}
        }
    }

    fn weigh(
        &mut self,
        at: Timestamp,
        call: &ApiCall,
        rule: &TrafficRuleId,
        groups: &[WeightedGroup],
        known: &survey::Service,
    ) {
        let ours =
            |group: &WeightedGroup| known.sets.values().any(|set| set.group.as_ref() == Some(&group.target_group));
        if !groups.iter().any(ours) {
            return;
        }
        let before = self.rules.insert(rule.clone(), groups.to_vec());
        let living: Vec<_> = self.living(at, known).map(|(id, _)| id.clone()).collect();
        let newest = living.iter().max_by_key(|id| created_at(id, known));
        let Some(green) = newest.filter(|_| living.len() >= 2) else { return };
        let Some(group) = known.sets.get(green).and_then(|set| set.group.as_ref()) else { return };
        let weight = |groups: &[WeightedGroup]| {
            let ours = groups.iter().filter(|weighted| weighted.target_group == *group);
            ours.map(WeightedGroup::effective_weight).sum::<u32>()
        };
        if before.is_some_and(|before| weight(&before) > 0) && weight(groups) == 0 {
            self.told.decide(green, Fate::Undone, call.own);
        }
    }

    /// Task sets that were drained, without a word of CloudTrail.
    fn judge_ends(&mut self, at: Timestamp, known: &survey::Service) {
        if known.has_trail {
            return;
        }
        let drained = |(_, set): &(&TaskSetId, &Set)| !set.gone && set.empty_since == Some(at);
        let ended: Vec<_> = self.sets.iter().filter(drained).map(|(id, _)| id.clone()).collect();
        for id in &ended {
            self.ended(id, false, known);
        }
    }

    /// A task set has ended, by a person's hand or the guardian's own.
    fn ended(&mut self, id: &TaskSetId, own: bool, known: &survey::Service) {
        let drained = |set: &Set| set.empty_since.is_some() && !known.has_trail;
        let there = |(other, set): &(&TaskSetId, &Set)| *other != id && !set.gone && !drained(set);
        let age = |id: &TaskSetId| created_at(id, known);
        let mut newer: Vec<_> =
            self.sets.iter().filter(there).map(|(id, _)| id).filter(|it| age(it) > age(id)).collect();
        newer.sort_by_key(|id| age(id));
        let older: Vec<_> = self.sets.iter().filter(there).map(|(id, _)| id).filter(|it| age(it) < age(id)).collect();
        let is_seen = older.iter().any(|id| id.as_str() != UNSEEN);
        match newer.first() {
            // Blue: whoever comes next has taken over.
            Some(green) if !is_seen => self.told.decide(green, Fate::Kept, own),
            None if older.is_empty() => {}
            _ => self.told.decide(id, Fate::Undone, own),
        }
    }

    fn living<'a>(
        &'a self,
        now: Timestamp,
        known: &'a survey::Service,
    ) -> impl Iterator<Item = (&'a TaskSetId, &'a Set)> {
        let newest = self.sets.iter().filter(|(_, set)| !set.gone).map(|(id, _)| id);
        let newest = newest.max_by_key(|id| created_at(id, known));
        self.sets.iter().filter(move |(id, set)| {
            let lingers = if newest == Some(*id) { Duration::ZERO } else { LINGERS };
            let drained = |since: Timestamp| !known.has_trail && now.since(since) >= lingers;
            !set.gone && !set.empty_since.is_some_and(drained)
        })
    }

    fn task_sets(&self, key: &ServiceKey, now: Timestamp, known: &survey::Service) -> Vec<TaskSet> {
        let mut living: Vec<_> = self.living(now, known).collect();
        living.sort_by_key(|(id, _)| created_at(id, known));
        let is_living = |id: &&TaskSetId| living.iter().any(|(living, _)| living == id);
        let oldest = living.first().map(|(id, _)| *id);
        let primary = self.primary.as_ref().filter(is_living).or(oldest);
        let largest = living.iter().map(|(_, set)| set.desired).max().unwrap_or_default();
        let scope = &known.scope;
        let set = |(id, set): &(&TaskSetId, &Set)| {
            let known_set = known.sets.get(*id);
            // Of a blue that no event tells of, nothing says that it is smaller.
            let unseen = id.as_str() == UNSEEN;
            let (running, pending, desired) =
                if unseen { (largest, 0, largest) } else { (set.running(), set.pending(), set.desired) };
            // Nor does any event say that it is to have no tasks, of one whose first is still to come.
            let unborn = set.active() == 0 && set.empty_since.is_none();
            let desired = if unborn { desired.max(1) } else { desired };
            let steady = unseen || set.is_steady(now, known.tells_steady);
            let (cluster, service) = (&key.cluster, &key.service);
            TaskSet {
                id: (*id).clone(),
                arn: TaskSetArn::new(format!(
                    "arn:aws:ecs:{}:{}:task-set/{cluster}/{service}/{id}",
                    scope.region, scope.account
                )),
                status: if primary == Some(*id) { TaskSetStatus::Primary } else { TaskSetStatus::Active },
                created_at: created_at(id, known).0,
                stability: if steady { Stability::Steady } else { Stability::Stabilizing },
                running,
                pending,
                computed_desired: desired,
                target_group: known_set.and_then(|set| set.group.clone()),
                task_definition: known_set
                    .and_then(|set| set.task_definition.clone())
                    .unwrap_or_else(|| Arc::from(format!("of {id}"))),
                external_id: None,
                tags: Tags::new(),
            }
        };
        living.iter().map(set).collect()
    }
}

impl Set {
    fn running(&self) -> u32 {
        self.old.saturating_add(count(self.tasks.values().filter(|task| task.runs)))
    }

    fn pending(&self) -> u32 {
        count(self.tasks.values().filter(|task| !task.runs))
    }

    fn active(&self) -> u32 {
        self.running().saturating_add(self.pending())
    }

    fn is_whole(&self) -> bool {
        self.desired > 0 && self.running() >= self.desired && self.pending() == 0
    }

    fn is_steady(&self, now: Timestamp, is_told: bool) -> bool {
        let undisturbed = !is_told && now.since(self.quiet_since) >= UNDISTURBED;
        self.is_whole() && (self.told_steady || undisturbed)
    }
}

fn count<T>(tasks: impl Iterator<Item = T>) -> u32 {
    u32::try_from(tasks.count()).unwrap_or(u32::MAX)
}

fn created_at(id: &TaskSetId, known: &survey::Service) -> (Timestamp, TaskSetId) {
    (known.sets.get(id).map(|set| set.created_at).unwrap_or_default(), id.clone())
}

fn reading(change: &TaskChange, stop: &Stop) -> TaskReading {
    TaskReading {
        task: change.task.clone(),
        task_set: change.task_set.clone(),
        version: change.version,
        stop: Some(stop.clone()),
        images: Images::new(),
    }
}

fn rule(id: &TrafficRuleId, weights: &[WeightedGroup]) -> TrafficRule {
    let forward = Forward { groups: weights.to_vec(), stickiness: None };
    TrafficRule {
        id: id.clone(),
        listener: ListenerArn::new(match id {
            TrafficRuleId::DefaultOf(listener) => listener.as_str(),
            TrafficRuleId::Rule(rule) => rule.as_str(),
        }),
        priority: Arc::from("1"),
        actions: vec![Action { order: None, kind: ActionKind::Forward(forward) }],
        unread: None,
    }
}
