//! ECS, reading: what its Describe and List calls answer.

use std::collections::BTreeMap;

use super::super::api::{ApiError, ContainerView, Reply, ServiceView, TaskSetView, TaskView};
use super::ecs::{Service, TaskSet};
use super::tasks::Task;
use super::{World, names};
use crate::model::{ServiceKey, Timestamp};

fn invalid(message: &str) -> ApiError {
    ApiError::client("InvalidParameterException", message)
}

impl World {
    pub(super) fn list_clusters(&self) -> Reply {
        let mut arns: Vec<_> = self.services.keys().map(|key| names::cluster_arn(&key.cluster)).collect();
        arns.dedup();
        Reply::Arns(arns)
    }

    pub(super) fn list_services(&self, cluster: &str) -> Result<Reply, ApiError> {
        let cluster = self.find_cluster(cluster)?;
        let keys = self.services.keys().filter(|key| *key.cluster == *cluster);
        Ok(Reply::Arns(keys.map(|key| names::service_arn(&key.cluster, &key.service)).collect()))
    }

    /// The services as they were some time ago, while reads lag; only what has happened since the world began lags.
    fn service_read(&self, key: &ServiceKey) -> Option<ServiceView> {
        let now = || self.services.get(key).map(|service| self.service_view(service));
        self.as_of().map_or_else(now, |(_, views)| views.get(key).cloned())
    }

    /// What a lagging read shows. `None` when it shows what is.
    pub(super) fn as_of(&self) -> Option<&(Timestamp, BTreeMap<ServiceKey, ServiceView>)> {
        let then = self.now.minus(self.setup.lag);
        self.history.iter().rev().find(|(at, _)| *at <= then)
    }

    /// Keeps what lagging reads will answer.
    pub(super) fn remember(&mut self) {
        if self.setup.lag.is_zero() {
            return;
        }
        let views = self.services.iter().map(|(key, service)| (key.clone(), self.service_view(service))).collect();
        self.history.push_back((self.now, views));
        let then = self.now.minus(self.setup.lag);
        while self.history.get(1).is_some_and(|(at, _)| *at <= then) {
            self.history.pop_front();
        }
    }

    pub(super) fn describe_services(&self, cluster: &str, services: &[String]) -> Result<Reply, ApiError> {
        let cluster = self.find_cluster(cluster)?;
        if !(1..=10).contains(&services.len()) {
            return Err(invalid("Services must hold one to ten services."));
        }
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in services.iter().map(|service| names::last_part(service)) {
            match self.service_read(&ServiceKey::new(cluster, name)) {
                Some(service) => found.push(service),
                None => missing.push(names::service_arn(cluster, name)),
            }
        }
        Ok(Reply::Services { services: found, missing })
    }

    pub(super) fn describe_task_sets(&self, cluster: &str, service: &str, ids: &[String]) -> Result<Reply, ApiError> {
        let service = self.find_external(cluster, service)?;
        if ids.is_empty() {
            return Err(invalid("TaskSets cannot be empty."));
        }
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for id in ids.iter().map(|id| names::task_set_id(id)) {
            match service.task_set(id) {
                Some(set) => found.push(self.task_set_view(service, set)),
                None => missing.push(names::task_set_arn(&service.key.cluster, &service.key.service, id)),
            }
        }
        Ok(Reply::TaskSets { task_sets: found, missing })
    }

    pub(super) fn one_task_set(&self, key: &ServiceKey, id: &str) -> Result<Reply, ApiError> {
        let ids = [id.to_owned()];
        self.describe_task_sets(&key.cluster, &key.service, &ids)
    }

    /// As on AWS, `startedBy` allows no other filter.
    pub(super) fn list_tasks(
        &self,
        cluster: &str,
        service: Option<&str>,
        started_by: Option<&str>,
        stopped: bool,
    ) -> Result<Reply, ApiError> {
        if started_by.is_some() && (service.is_some() || stopped) {
            return Err(invalid("startedBy cannot be combined with other filters."));
        }
        let service = service.map(|service| self.find_service(cluster, service)).transpose()?;
        let cluster = self.find_cluster(cluster)?;
        let tasks = self.tasks.values().chain(self.ended.values()).filter(|task| {
            *task.service.cluster == *cluster
                && task.wanted != stopped
                && service.is_none_or(|service| service.key == task.service)
                && started_by.is_none_or(|id| id == task.started_by)
        });
        Ok(Reply::Arns(tasks.map(|task| task.arn.clone()).collect()))
    }

    pub(super) fn describe_tasks(&self, cluster: &str, tasks: &[String]) -> Result<Reply, ApiError> {
        let cluster = self.find_cluster(cluster)?;
        if !(1..=100).contains(&tasks.len()) {
            return Err(invalid("Tasks must hold one to 100 tasks."));
        }
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for arn in tasks.iter().map(|task| names::task_arn(cluster, names::last_part(task))) {
            match self.tasks.get(&arn).or_else(|| self.ended.get(&arn)) {
                Some(task) => found.push(task_view(task)),
                None => missing.push(arn),
            }
        }
        Ok(Reply::Tasks { tasks: found, missing })
    }

    fn find_cluster<'a>(&self, cluster: &'a str) -> Result<&'a str, ApiError> {
        let name = names::last_part(cluster);
        let known = self.services.keys().any(|key| *key.cluster == *name);
        known.then_some(name).ok_or_else(|| ApiError::client("ClusterNotFoundException", "Cluster not found."))
    }

    pub(super) fn find_service(&self, cluster: &str, service: &str) -> Result<&Service, ApiError> {
        let cluster = self.find_cluster(cluster)?;
        let key = ServiceKey::new(cluster, names::last_part(service));
        self.services.get(&key).ok_or_else(|| ApiError::client("ServiceNotFoundException", "Service not found."))
    }

    fn service_view(&self, service: &Service) -> ServiceView {
        let key = &service.key;
        let sum = |count: fn(&Self, &str) -> u32| service.task_sets.iter().map(|set| count(self, &set.id)).sum();
        ServiceView {
            arn: names::service_arn(&key.cluster, &key.service),
            name: key.service.to_string(),
            cluster_arn: names::cluster_arn(&key.cluster),
            status: if service.active { "ACTIVE" } else { "INACTIVE" }.to_owned(),
            controller: service.controller.clone(),
            desired_count: service.desired,
            running: sum(Self::running),
            pending: sum(Self::pending),
            task_sets: service.task_sets.iter().map(|set| self.task_set_view(service, set)).collect(),
            tags: service.tags.clone(),
            created_at: service.created_at,
        }
    }

    fn task_set_view(&self, service: &Service, set: &TaskSet) -> TaskSetView {
        let key = &service.key;
        TaskSetView {
            id: set.id.clone(),
            arn: names::task_set_arn(&key.cluster, &key.service, &set.id),
            service_arn: names::service_arn(&key.cluster, &key.service),
            cluster_arn: names::cluster_arn(&key.cluster),
            status: set.status.as_str().to_owned(),
            stability: if set.steady { "STEADY_STATE" } else { "STABILIZING" }.to_owned(),
            stability_at: set.stability_at,
            created_at: set.created_at,
            updated_at: set.updated_at,
            running: self.running(&set.id),
            pending: self.pending(&set.id),
            computed_desired: if set.is_living() { set.computed(service.desired) } else { 0 },
            scale: set.scale,
            task_definition: names::task_definition_arn(&set.task_definition),
            target_group: set.group.clone(),
            external_id: set.external_id.clone(),
            tags: self.tags_of(set),
        }
    }
}

fn task_view(task: &Task) -> TaskView {
    let (stop_code, stopped_reason) = task.stop.clone().unzip();
    TaskView {
        arn: task.arn.clone(),
        cluster_arn: names::cluster_arn(&task.service.cluster),
        group: format!("service:{}", task.service.service),
        started_by: task.started_by.clone(),
        task_definition: names::task_definition_arn(&task.definition),
        last_status: task.status.as_str().to_owned(),
        desired_status: task.desired_status().to_owned(),
        // No container health checks here: the load balancer's count.
        health_status: "UNKNOWN".to_owned(),
        version: task.version,
        stop_code,
        stopped_reason,
        created_at: task.created_at,
        started_at: task.started_at,
        stopping_at: task.stopping_at,
        stopped_at: task.stopped_at,
        containers: vec![ContainerView {
            name: "app".to_owned(),
            image: task.image(),
            image_digest: task.image_digest(),
            last_status: task.container_status().to_owned(),
            exit_code: task.exit_code,
            reason: task.exit_reason.clone(),
        }],
    }
}
