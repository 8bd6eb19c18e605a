//! Health: what a task's version and its surroundings do to it, and what the load balancer's checks make of that.

use super::behaviour::Version;
use super::ecs::Service;
use super::tasks::Task;
use super::{Happening, World, names};
use crate::model::Timestamp;

/// A registered target.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) health: Health,
    /// Since when.
    since: Timestamp,
    /// Whether it passed the last check, and how many in a row ended like that.
    streak: (bool, u32),
}

impl Target {
    pub(super) fn new(group: &str, health: Health, since: Timestamp) -> Self {
        Self { group: group.to_owned(), health, since, streak: (false, 0) }
    }

    /// Its group was taken into use: nobody knows yet how it is.
    pub(super) fn begin(&mut self, now: Timestamp) {
        if self.health != Health::Draining {
            *self = Self::new(&self.group, Health::Initial, now);
        }
    }

    pub(super) fn turn(&mut self, health: Health, now: Timestamp) {
        if self.health != health {
            (self.health, self.since) = (health, now);
        }
    }
}

/// What the load balancer thinks of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Initial,
    Healthy,
    Unhealthy,
    Draining,
}

impl World {
    /// How a task behaves now: as its version does, with what has broken since, and what befalls its service.
    pub(super) fn behaviour(&self, task: &Task) -> Version {
        let version = self.version(&task.definition);
        let broken = version.breaks.filter(|_| self.breaks_at(task).is_some_and(|at| at <= self.now));
        let outage = self.services.get(&task.service).and_then(|service| service.outage.as_ref());
        let troubles = broken.map(|breaks| breaks.trouble).into_iter().chain(outage.map(|outage| outage.trouble));
        troubles.fold(version, Version::with)
    }

    pub(super) fn breaks_at(&self, task: &Task) -> Option<Timestamp> {
        let breaks = self.version(&task.definition).breaks?;
        breaks.begins(task.place, self.began, task.started_at?)
    }

    /// The load balancer's checks do not begin for all at once.
    pub(super) fn plan_checks(&mut self, arn: &str) {
        if self.tasks.get(arn).is_some_and(|task| task.target.is_some()) {
            let interval = names::about(&mut self.fate, self.setup.timing.health_interval);
            self.plan(interval, Happening::HealthCheck(arn.to_owned()));
        }
    }

    /// A healthy target is lost: of blue, or of another that a newer task set is to replace.
    pub(super) fn note_sickness(&mut self, arn: &str) {
        let Some(set) = self.task_set_of(arn) else { return };
        let service = self.tasks.get(arn).and_then(|task| self.services.get(&task.service));
        let newest = service.and_then(Service::green).map(|newest| newest.id.as_str());
        let is_older = newest.is_some_and(|newest| newest != set.id);
        if set.label == "blue" || (set.is_living() && is_older) {
            self.sickened_at = Some(self.now);
        }
    }

    /// One health check of a task's target. ECS stops and replaces a task whose target is unhealthy.
    pub(super) fn check_target(&mut self, arn: &str) {
        let (timing, now) = (self.setup.timing, self.now);
        let Some(task) = self.tasks.get(arn).filter(|task| task.wanted) else { return };
        let (service, task_set) = (task.service.clone(), task.started_by.clone());
        let passes = self.behaviour(task).passes_health_checks;
        let Some(group) = task.target.as_ref().map(|target| target.group.clone()) else { return };
        self.plan(timing.health_interval, Happening::HealthCheck(arn.to_owned()));
        // Of a group that is in no rule no target is checked.
        if !self.balancer.is_used(&group) {
            return;
        }
        let Some(target) = self.tasks.get_mut(arn).and_then(|task| task.target.as_mut()) else { return };
        let known = target.health == Health::Unhealthy;
        target.streak = if target.streak.0 == passes { (passes, target.streak.1 + 1) } else { (passes, 1) };
        let was_healthy = target.health == Health::Healthy;
        if target.streak.1 >= timing.health_threshold {
            target.turn(if passes { Health::Healthy } else { Health::Unhealthy }, now);
        }
        let since = target.since;
        if was_healthy && target.health != Health::Healthy {
            self.note_sickness(arn);
        }
        // ECS looks at target health on its own beat, not the load balancer's.
        if known && !passes && now.since(since) >= timing.unhealthy {
            let reason = format!("Task failed ELB health checks in (target-group {group})");
            self.tell(arn, "failed its health checks");
            self.stop_task(arn, "ServiceSchedulerInitiated", &reason);
            self.replace(&service, &task_set);
        }
        self.update_stability(&service, &task_set);
    }
}
