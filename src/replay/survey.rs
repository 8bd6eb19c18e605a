//! What there is in a recording: task sets with their age and target group, alarms with their first state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, More};
use crate::model::{
    AlarmName, AlarmReading, AlarmValue, CallTarget, Fact, Scope, ServiceKey, StopClass, TargetGroupArn, TaskArn,
    TaskChange, TaskSetId, Timestamp,
};

/// A task set that was there before the recording is so much older than its begin, where nothing tells its age.
const BEFORE: Duration = Duration::from_hours(24);

/// Scale-ins that lie no further apart belong to one draining.
const DRAINING: Duration = Duration::from_mins(10);

/// Tasks of a new task set begin together.
const TOGETHER: Duration = Duration::from_mins(1);

/// Ended tasks of one task set that are remembered, to count each once however many events tell of it.
const REMEMBERED: usize = 4096;

/// What a recording is about.
#[derive(Debug, Default)]
pub struct Survey {
    pub(super) services: BTreeMap<ServiceKey, Service>,
    /// As they were before the first event that tells of them.
    pub(super) alarms: BTreeMap<AlarmName, AlarmReading>,
    /// The files' spans of time, by number.
    spans: Vec<(Timestamp, Timestamp)>,
}

/// One service.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) scope: Scope,
    pub(super) sets: BTreeMap<TaskSetId, Set>,
    /// ECS says in this recording when its task sets are steady.
    pub(super) tells_steady: bool,
    /// CloudTrail says in this recording when its task sets are created and deleted.
    pub(super) has_trail: bool,
    /// The recording speaks about it until then.
    pub(super) ends_at: Timestamp,
    files: BTreeSet<usize>,
    pairs: BTreeSet<Vec<TargetGroupArn>>,
}

/// One task set.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) created_at: Timestamp,
    /// It came to be while the recording ran.
    pub(super) is_new: bool,
    pub(super) group: Option<TargetGroupArn>,
    pub(super) task_definition: Option<Arc<str>>,
    /// Tasks that it had when the recording began, as far as is known.
    pub(super) old_tasks: u32,
    /// Its last tasks were stopped by ECS's scheduler then, and none came after them.
    pub(super) drained_at: Option<Timestamp>,
    first_at: Timestamp,
    told_at: Option<Timestamp>,
    /// CreateTaskSet, by CloudTrail's word.
    called_at: Option<Timestamp>,
    alive: BTreeSet<TaskArn>,
    ended: BTreeSet<TaskArn>,
    peak: u32,
    /// Tasks that began within a minute of the first.
    began: u32,
    scaled_in: (u32, Timestamp),
}

impl Set {
    fn new(at: Timestamp, is_new: bool) -> Self {
        Self {
            created_at: at,
            is_new,
            group: None,
            task_definition: None,
            old_tasks: 0,
            drained_at: None,
            first_at: at,
            told_at: None,
            called_at: None,
            alive: BTreeSet::new(),
            ended: BTreeSet::new(),
            peak: 0,
            began: 0,
            scaled_in: (0, at),
        }
    }

    fn take(&mut self, at: Timestamp, change: &TaskChange, event: &Event) {
        let More { created_at, task_definition, .. } = &event.more;
        if task_definition.is_some() {
            self.task_definition.clone_from(task_definition);
        }
        self.told_at = [self.told_at, *created_at].into_iter().flatten().min();
        let Some(stop) = &change.stop else {
            if !self.ended.contains(&change.task) {
                let begins = self.alive.insert(change.task.clone()) && at <= self.first_at.plus(TOGETHER);
                self.began = self.began.saturating_add(u32::from(begins));
                self.drained_at = None;
                self.peak = self.peak.max(count(&self.alive));
            }
            return;
        };
        if stop.target_group.is_some() {
            self.group.clone_from(&stop.target_group);
        }
        if !self.ended.insert(change.task.clone()) {
            return;
        }
        if self.ended.len() > REMEMBERED {
            self.ended.pop_first();
        }
        if !self.alive.remove(&change.task) {
            self.old_tasks = self.old_tasks.saturating_add(1);
        }
        if stop.class == StopClass::Neutral {
            let before = if at.since(self.scaled_in.1) > DRAINING { 0 } else { self.scaled_in.0 };
            self.scaled_in = (before.saturating_add(1), at);
            self.drained_at = self.alive.is_empty().then_some(at);
        }
    }
}

fn count(tasks: &BTreeSet<TaskArn>) -> u32 {
    u32::try_from(tasks.len()).unwrap_or(u32::MAX)
}

impl Survey {
    /// Of files with these spans of time.
    pub fn new(spans: Vec<(Timestamp, Timestamp)>) -> Self {
        Self { spans, ..Self::default() }
    }

    /// The services in it that have task sets.
    pub fn services(&self) -> BTreeSet<ServiceKey> {
        self.services.iter().filter(|(_, service)| !service.sets.is_empty()).map(|(key, _)| key.clone()).collect()
    }

    /// When its first event was.
    pub fn begins_at(&self) -> Timestamp {
        self.spans.iter().map(|(from, _)| *from).min().unwrap_or_default()
    }

    /// Takes one event out of a file. Events come in the order of [`Event::key`].
    pub fn take(&mut self, file: usize, event: &Event) {
        let Event { at, signal, more } = event;
        match &signal.fact {
            Fact::Task(change) => {
                let service = self.service(&change.service, &signal.scope, file);
                // What begins with an end began before, unless it never came to run.
                let is_new = change.stop.as_ref().is_none_or(|stop| &*stop.code == "TaskFailedToStart");
                let set = service.sets.entry(change.task_set.clone()).or_insert_with(|| Set::new(*at, is_new));
                set.take(*at, change, event);
            }
            Fact::Service(action) => {
                let service = self.service(&action.service, &signal.scope, file);
                service.tells_steady |= &*action.name == "TASKSET_STEADY_STATE";
            }
            Fact::Call(call) => match &call.target {
                CallTarget::TaskSet { service, id } => {
                    let service = self.service(service, &signal.scope, file);
                    let creates = &*call.operation == "CreateTaskSet";
                    service.has_trail |= creates || &*call.operation == "DeleteTaskSet";
                    if let Some(id) = id {
                        let set = service.sets.entry(id.clone()).or_insert_with(|| Set::new(*at, creates));
                        if creates {
                            set.is_new = true;
                            set.called_at = Some(*at);
                            set.group = more.groups.first().map(|(group, _)| group.clone()).or(set.group.take());
                        }
                    }
                }
                CallTarget::Rule { .. } => {
                    let mut pair: Vec<_> = more.groups.iter().map(|(group, _)| group.clone()).collect();
                    pair.sort();
                    if pair.len() == 2 {
                        self.services.values_mut().for_each(|service| {
                            service.pairs.insert(pair.clone());
                        });
                    }
                }
            },
            Fact::Alarm(change) => {
                let alarm = &change.alarm;
                if !self.alarms.contains_key(&alarm.name) {
                    let (value, since) = more.before.unwrap_or((AlarmValue::InsufficientData, Timestamp::EPOCH));
                    let reason = Arc::from("its state before the first event of it in the recording");
                    let before = AlarmReading { value, since, reason, ..alarm.clone() };
                    self.alarms.insert(alarm.name.clone(), before);
                }
            }
            Fact::AlarmDeleted(_) => {}
        }
    }

    fn service(&mut self, key: &ServiceKey, scope: &Scope, file: usize) -> &mut Service {
        let service = self.services.entry(key.clone()).or_default();
        service.scope.clone_from(scope);
        service.files.insert(file);
        service
    }

    /// After the last event: what each task set's age and target group are.
    #[must_use]
    pub fn finished(mut self) -> Self {
        let begins = |files: &BTreeSet<usize>, spans: &[(Timestamp, Timestamp)]| {
            files.iter().filter_map(|file| spans.get(*file)).map(|(from, _)| *from).min().unwrap_or_default()
        };
        for service in self.services.values_mut() {
            let begins_at = begins(&service.files, &self.spans);
            let until = service.files.iter().filter_map(|file| self.spans.get(*file)).map(|(_, until)| *until).max();
            service.ends_at = until.unwrap_or_default();
            let mut order: Vec<_> = service.sets.iter().map(|(id, set)| (set.first_at, id.clone())).collect();
            order.sort();
            let rank = |id: &TaskSetId| order.iter().position(|(_, other)| other == id).unwrap_or_default();
            let peak = service.sets.values().map(|set| set.peak).max().unwrap_or_default();
            service.tell_new(begins_at);
            for (id, set) in &mut service.sets {
                set.created_at = match (set.called_at, set.told_at) {
                    (Some(at), _) => at,
                    (None, Some(at)) => at.min(set.first_at),
                    (None, None) if set.is_new => set.first_at,
                    (None, None) => {
                        let millis = u64::try_from(rank(id)).unwrap_or(u64::MAX);
                        begins_at.minus(BEFORE).plus(Duration::from_millis(millis))
                    }
                };
                if !set.is_new {
                    set.created_at = set.created_at.min(begins_at.minus(Duration::from_secs(1)));
                    set.old_tasks = set.old_tasks.max(count(&set.alive));
                    // A few tasks less are a smaller task set, not none.
                    set.drained_at = set.drained_at.filter(|_| set.scaled_in.0.saturating_mul(2) >= peak);
                    if set.drained_at.is_none() {
                        set.old_tasks = set.old_tasks.max(peak).max(1);
                    }
                }
                (set.alive, set.ended) = Default::default();
            }
            service.tell_groups();
        }
        self
    }
}

impl Service {
    /// Which task sets came to be while the recording ran.
    fn tell_new(&mut self, begins_at: Timestamp) {
        let is_called = self.sets.values().any(|set| set.called_at.is_some());
        for set in self.sets.values_mut() {
            // Where CloudTrail tells of creations, what it does not tell of was there before; so was what has a task from
            // before.
            let by_age = set.told_at.map(|at| at >= begins_at.minus(Duration::from_mins(1)));
            set.is_new = by_age.unwrap_or(set.is_new) && (set.called_at.is_some() || !is_called);
        }
        let alone = self.sets.len() == 1;
        if !self.sets.values().all(|set| set.is_new && set.called_at.is_none()) || alone {
            return;
        }
        // Of several of which none is told to be older, the first may be the blue that was there: a blue begins a task at a
        // time, to replace one or to grow.
        let first = self.sets.values_mut().min_by_key(|set| (set.told_at.unwrap_or(set.first_at), set.first_at));
        if let Some(first) = first.filter(|set| set.began < 2) {
            first.is_new = false;
        }
    }

    /// Blue and green are registered in two groups, so that weights can be put on them: the group that is left is the other
    /// one's.
    fn tell_groups(&mut self) {
        let mut known: BTreeSet<_> = self.sets.values().filter_map(|set| set.group.clone()).collect();
        let ours = |pair: &&Vec<TargetGroupArn>| pair.iter().any(|group| known.contains(group));
        if let Some(pair) = self.pairs.iter().find(ours).cloned() {
            known.extend(pair);
        }
        let pair: Vec<_> = known.into_iter().collect();
        let [one, other] = pair.as_slice() else { return };
        let mut order: Vec<_> = self.sets.iter().map(|(id, set)| (set.created_at, id.clone())).collect();
        order.sort();
        let mut pass = |ids: &mut dyn Iterator<Item = &TaskSetId>| {
            let mut before: Option<TargetGroupArn> = None;
            for id in ids {
                let Some(set) = self.sets.get_mut(id) else { continue };
                if set.group.is_none() {
                    let opposite = |group: &TargetGroupArn| if group == one { other.clone() } else { one.clone() };
                    set.group = before.as_ref().map(opposite);
                }
                before.clone_from(&set.group);
            }
        };
        pass(&mut order.iter().map(|(_, id)| id));
        pass(&mut order.iter().rev().map(|(_, id)| id));
    }
}
