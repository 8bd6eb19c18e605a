//! ECS: services and their task sets, and what ECS does about them by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::behaviour::{Reaction, Trouble};
use super::health::Health;
use super::setup::ServiceSetup;
use super::tasks::Task;
use super::traffic::Tallies;
use super::trail::Caller;
use super::{Happening, World, names};
use crate::model::{ServiceKey, Timestamp};

/// ECS acts on a change within this.
const SOON: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// ECS allows this many task sets in a service.
const MOST_TASK_SETS: usize = 5;

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) key: ServiceKey,
    pub(super) controller: String,
    /// Not deleted. ECS shows a deleted service for a while, as INACTIVE.
    pub(super) active: bool,
    pub(super) desired: u32,
    pub(super) created_at: Timestamp,
    pub(super) tags: BTreeMap<String, String>,
    /// Oldest first.
    pub(super) task_sets: Vec<TaskSet>,
    /// The groups of blue and of green, of the current deployment or the next, and the spare one. None without a load
    /// balancer.
    pub(super) groups: Vec<String>,
    /// When a caller last moved traffic between them.
    pub(super) last_shift: Option<Timestamp>,
    /// When the guardian first set a rule back in this deployment that somebody had undone.
    pub(super) asserted_at: Option<Timestamp>,
    pub(super) requests_per_second: u32,
    pub(super) tallies: Tallies,
    /// What befalls all of its tasks.
    pub(super) outage: Option<Outage>,
    /// What people do when the guardian changes something, as often as is left.
    pub(super) reactions: Vec<Reaction>,
}

/// Something that all task sets of a service need does not work.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) what: String,
    pub(super) trouble: Trouble,
}

/// One task set.
#[derive(Debug)]
pub(super) struct TaskSet {
    pub(super) id: String,
    /// What people call it: blue, green, third.
    pub(super) label: &'static str,
    pub(super) status: SetStatus,
    pub(super) steady: bool,
    pub(super) stability_at: Timestamp,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Percent of the service's desired count.
    pub(super) scale: f64,
    /// As in `checkout:88`.
    pub(super) task_definition: String,
    pub(super) group: Option<String>,
    pub(super) external_id: Option<String>,
    /// Tasks in a row that could not start.
    pub(super) start_failures: u32,
    /// ECS starts no task before this.
    pub(super) not_before: Timestamp,
}

/// `status` of a task set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetStatus {
    Primary,
    Active,
    Draining,
}

impl SetStatus {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
        }
    }
}

impl TaskSet {
    /// As CreateTaskSet makes it.
    fn new(id: String, label: &'static str, now: Timestamp, scale: f64, version: &str, group: Option<String>) -> Self {
        Self {
            id,
            label,
            status: SetStatus::Active,
            steady: false,
            stability_at: now,
            created_at: now,
            updated_at: now,
            scale,
            task_definition: version.to_owned(),
            group,
            external_id: Some(label.to_owned()),
            start_failures: 0,
            not_before: now,
        }
    }

    pub(super) fn is_living(&self) -> bool {
        self.status != SetStatus::Draining
    }

    /// `ceil(desired count * scale / 100)`.
    pub(super) fn computed(&self, desired: u32) -> u32 {
        at_least(desired, self.scale / 100.0)
    }
}

/// The least number of tasks that is this share of the desired count, or more.
pub(super) fn at_least(desired: u32, share: f64) -> u32 {
    // 29 % of 100 is 28.999… in floating point and 29 for everybody else.
    let exact = f64::from(desired) * share - 1e-9;
    (0..=desired).find(|count| f64::from(*count) >= exact).unwrap_or(desired)
}

impl Service {
    pub(super) fn task_set(&self, id: &str) -> Option<&TaskSet> {
        self.task_sets.iter().find(|set| set.id == id)
    }

    pub(super) fn task_set_mut(&mut self, id: &str) -> Option<&mut TaskSet> {
        self.task_sets.iter_mut().find(|set| set.id == id)
    }

    pub(super) fn living(&self) -> impl DoubleEndedIterator<Item = &TaskSet> {
        self.task_sets.iter().filter(|set| set.is_living())
    }

    /// The groups of blue and green.
    pub(super) fn pair(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().take(2).map(String::as_str)
    }

    pub(super) fn blue_group(&self) -> Option<&str> {
        self.groups.first().map(String::as_str)
    }

    pub(super) fn green_group(&self) -> Option<&str> {
        self.groups.get(1).map(String::as_str)
    }

    /// The newest of several living task sets.
    pub(super) fn green(&self) -> Option<&TaskSet> {
        let mut living = self.living();
        living.next()?;
        living.next_back()
    }
}

impl World {
    pub(super) fn create_service(&mut self, setup: &ServiceSetup) {
        let created_at = self.now.minus(Duration::from_hours(30 * 24));
        let groups = self.balancer.add_service(&mut self.fate, setup);
        let since = self.now.minus(Duration::from_hours(1));
        let id = names::new_task_set_id(&mut self.fate);
        let steady_at = since.plus(Duration::from_secs(90));
        let blue = TaskSet {
            status: SetStatus::Primary,
            steady: true,
            stability_at: steady_at,
            updated_at: steady_at,
            ..TaskSet::new(id.clone(), "blue", since, setup.scale, &setup.version, groups.first().cloned())
        };
        for _ in 0..blue.computed(setup.desired) {
            self.found_task(&setup.key, &id, &setup.version, groups.first().map(String::as_str));
        }
        let service = Service {
            key: setup.key.clone(),
            controller: setup.controller.clone(),
            active: true,
            desired: setup.desired,
            created_at,
            tags: setup.tags.clone(),
            task_sets: vec![blue],
            groups,
            last_shift: None,
            asserted_at: None,
            requests_per_second: setup.requests_per_second,
            tallies: Tallies::default(),
            outage: None,
            reactions: setup.reactions.clone(),
        };
        self.services.insert(setup.key.clone(), service);
    }

    pub(super) fn task_set_of(&self, task: &str) -> Option<&TaskSet> {
        let task = self.tasks.get(task)?;
        self.services.get(&task.service)?.task_set(&task.started_by)
    }

    pub(super) fn task_set_of_mut(&mut self, task: &str) -> Option<&mut TaskSet> {
        let task = self.tasks.get(task)?;
        self.services.get_mut(&task.service)?.task_set_mut(&task.started_by)
    }

    /// Its tasks that have not ended.
    pub(super) fn tasks_of<'a>(&'a self, task_set: &'a str) -> impl Iterator<Item = &'a Task> {
        self.tasks.values().filter(move |task| task.started_by == task_set)
    }

    pub(super) fn running(&self, task_set: &str) -> u32 {
        count(self.tasks_of(task_set).filter(|task| task.is_running()))
    }

    pub(super) fn pending(&self, task_set: &str) -> u32 {
        count(self.tasks_of(task_set).filter(|task| task.is_pending()))
    }

    /// Starts what is missing and stops what is too much.
    pub(super) fn reconcile(&mut self, key: &ServiceKey, id: &str) {
        let Some(service) = self.services.get(key) else { return };
        let Some(set) = service.task_set(id) else { return };
        let wanted = if set.is_living() { set.computed(service.desired) } else { 0 };
        let (not_before, task_definition) = (set.not_before, set.task_definition.clone());
        let mut kept: Vec<_> = self.tasks_of(id).filter(|task| task.wanted).collect();
        kept.sort_by_key(|task| (task.created_at, task.arn.clone()));
        let have = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        let surplus: Vec<_> =
            kept.iter().rev().take(kept.len().saturating_sub(wanted as usize)).map(|task| task.arn.clone()).collect();
        for arn in surplus {
            let reason = format!("Scaling activity initiated by (deployment {id})");
            self.stop_task(&arn, "ServiceSchedulerInitiated", &reason);
        }
        if have < wanted && self.now < not_before {
            let rest = not_before.since(self.now);
            self.plan(rest, Happening::Reconcile(key.clone(), id.to_owned()));
        } else {
            for _ in have..wanted {
                self.start_task(key, id, &task_definition);
            }
        }
        self.update_stability(key, id);
        self.drained(key, id);
    }

    pub(super) fn reconcile_soon(&mut self, key: &ServiceKey, id: &str) {
        let soon = names::between(&mut self.fate, SOON.0, SOON.1);
        self.plan(soon, Happening::Reconcile(key.clone(), id.to_owned()));
    }

    /// Steady: running as desired, nothing pending, every target healthy.
    pub(super) fn update_stability(&mut self, key: &ServiceKey, id: &str) {
        let Some(service) = self.services.get(key) else { return };
        let Some(set) = service.task_set(id).filter(|set| set.is_living()) else { return };
        let unhealthy = |task: &&Task| task.target.as_ref().is_some_and(|target| target.health != Health::Healthy);
        let steady = self.running(id) == set.computed(service.desired)
            && self.pending(id) == 0
            && self.tasks_of(id).filter(|task| task.is_running()).find(unhealthy).is_none()
            && set.group.as_deref().is_none_or(|group| self.balancer.is_used(group));
        if steady == set.steady {
            return;
        }
        let label = set.label;
        let now = self.now;
        if let Some(set) = self.services.get_mut(key).and_then(|service| service.task_set_mut(id)) {
            set.steady = steady;
            set.stability_at = now;
            set.updated_at = now;
        }
        if steady {
            self.emit_service_action(key, "INFO", "TASKSET_STEADY_STATE");
            self.say_of(key, &format!("{label} is steady"));
        }
    }

    /// A draining task set whose last task has ended vanishes.
    pub(super) fn drained(&mut self, key: &ServiceKey, id: &str) {
        let draining =
            self.services.get(key).and_then(|service| service.task_set(id)).is_some_and(|set| !set.is_living());
        if draining && self.tasks_of(id).next().is_none() {
            let soon = names::between(&mut self.fate, SOON.0, SOON.1);
            self.plan(soon, Happening::TaskSetGone(key.clone(), id.to_owned()));
        }
    }

    pub(super) fn remove_task_set(&mut self, key: &ServiceKey, id: &str) {
        let Some(set) = self.services.get(key).and_then(|service| service.task_set(id)) else { return };
        let label = set.label;
        if let Some(service) = self.services.get_mut(key) {
            service.task_sets.retain(|set| set.id != id);
        }
        self.say_of(key, &format!("{label} is gone"));
    }

    /// The deployer's CreateTaskSet: on the group that no other task set uses. Returns its label.
    pub(super) fn create_task_set(
        &mut self,
        key: &ServiceKey,
        version: &str,
        scale: f64,
    ) -> Result<&'static str, String> {
        let id = names::new_task_set_id(&mut self.fate);
        let now = self.now;
        let Some(service) = self.services.get_mut(key).filter(|service| service.active) else {
            return Err(format!("there is no service {key}"));
        };
        if service.task_sets.len() >= MOST_TASK_SETS {
            return Err("5 deployments exist on the service".to_owned());
        }
        let is_free = |group: &String| service.task_sets.iter().all(|set| set.group.as_ref() != Some(group));
        let group = service.groups.iter().find(|group| is_free(group)).cloned();
        if group.is_none() && !service.groups.is_empty() {
            return Err("every target group is in use".to_owned());
        }
        if group.as_deref().is_some_and(|group| !self.balancer.is_used(group)) {
            return Err("the target group does not have an associated load balancer".to_owned());
        }
        let living = service.living().count();
        if living <= 1 {
            // A new deployment: whoever took over in the last one is blue now.
            if group.as_deref() == service.blue_group() && group.is_some() {
                service.groups.swap(0, 1);
            }
            service.tallies = Tallies::default();
            service.task_sets.iter_mut().filter(|set| set.is_living()).for_each(|set| set.label = "blue");
        }
        let label = if living <= 1 { "green" } else { "third" };
        service.asserted_at = None;
        service.task_sets.push(TaskSet::new(id.clone(), label, now, scale, version, group));
        self.balancer.begin_deployment(key);
        self.reconcile_soon(key, &id);
        self.record_task_set(Caller::Deployer, "CreateTaskSet", key, &id);
        Ok(label)
    }

    /// With force: every task set drains, and the name is free again.
    pub(super) fn delete_service(&mut self, key: &ServiceKey) {
        let Some(service) = self.services.get_mut(key).filter(|service| service.active) else { return };
        service.active = false;
        service.desired = 0;
        for id in service.living().map(|set| set.id.clone()).collect::<Vec<_>>() {
            self.apply_delete(key, &id);
        }
        self.say_of(key, "somebody deletes the service");
    }

    /// The first task set of the new service takes the group that its predecessors are not draining from.
    pub(super) fn recreate_service(&mut self, key: &ServiceKey, version: &str) {
        let id = names::new_task_set_id(&mut self.fate);
        let (now, desired) = (self.now, self.setup.services.iter().find(|setup| setup.key == *key));
        let desired = desired.map_or(1, |setup| setup.desired);
        let Some(service) = self.services.get_mut(key).filter(|service| !service.active) else { return };
        let is_free = |group: &&String| service.task_sets.iter().all(|set| set.group.as_ref() != Some(*group));
        let group = service.groups.iter().find(is_free).or(service.groups.first()).cloned();
        if group.is_some() && group.as_deref() == service.green_group() {
            service.groups.swap(0, 1);
        }
        (service.active, service.desired, service.created_at) = (true, desired, now);
        service.tags.clear();
        service.last_shift = None;
        service.asserted_at = None;
        let set = TaskSet::new(id.clone(), "blue", now, 100.0, version, group);
        service.task_sets.push(TaskSet { status: SetStatus::Primary, ..set });
        self.balancer.begin_deployment(key);
        self.reconcile_soon(key, &id);
        self.say_of(key, &format!("somebody creates the service anew, on {version}"));
    }

    pub(super) fn apply_scale(&mut self, key: &ServiceKey, id: &str, scale: f64) {
        let now = self.now;
        if let Some(set) = self.services.get_mut(key).and_then(|service| service.task_set_mut(id)) {
            set.scale = scale;
            set.updated_at = now;
        }
        self.reconcile_soon(key, id);
        self.update_stability(key, id);
    }

    /// Both statuses flip.
    pub(super) fn apply_primary(&mut self, key: &ServiceKey, id: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(key) else { return };
        for set in service.task_sets.iter_mut().filter(|set| set.is_living()) {
            let status = if set.id == id { SetStatus::Primary } else { SetStatus::Active };
            if set.status != status {
                set.status = status;
                set.updated_at = now;
            }
        }
    }

    pub(super) fn apply_delete(&mut self, key: &ServiceKey, id: &str) {
        let now = self.now;
        if let Some(set) = self.services.get_mut(key).and_then(|service| service.task_set_mut(id)) {
            set.status = SetStatus::Draining;
            set.steady = false;
            set.stability_at = now;
            set.updated_at = now;
        }
        self.reconcile_soon(key, id);
    }
}

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
