//! ECS, writing: the calls that change task sets, checked as AWS checks them.

use super::super::api::{ApiError, Reply};
use super::ecs::{Service, SetStatus};
use super::{World, names};
use crate::model::ServiceKey;

impl World {
    pub(super) fn update_task_set(
        &mut self,
        cluster: &str,
        service: &str,
        task_set: &str,
        scale: f64,
    ) -> Result<Reply, ApiError> {
        let (key, id) = self.find_task_set(cluster, service, task_set)?;
        if !(0.0..=100.0).contains(&scale) {
            return Err(ApiError::client("InvalidParameterException", "Scale value must be between 0 and 100."));
        }
        self.check_living(&key, &id)?;
        self.check_scale(&key, &id, scale);
        self.apply_scale(&key, &id, scale);
        self.one_task_set(&key, &id)
    }

    pub(super) fn set_primary(&mut self, cluster: &str, service: &str, task_set: &str) -> Result<Reply, ApiError> {
        let (key, id) = self.find_task_set(cluster, service, task_set)?;
        self.check_living(&key, &id)?;
        self.check_primary(&key, &id);
        self.apply_primary(&key, &id);
        self.one_task_set(&key, &id)
    }

    fn check_living(&self, key: &ServiceKey, id: &str) -> Result<(), ApiError> {
        match self.services.get(key).and_then(|service| service.task_set(id)) {
            Some(set) if !set.is_living() => {
                Err(ApiError::client("InvalidParameterException", "The task set is draining."))
            }
            _ => Ok(()),
        }
    }

    /// As on AWS, `force` deletes even a PRIMARY. A repeat while it drains is accepted.
    pub(super) fn delete_task_set(
        &mut self,
        cluster: &str,
        service: &str,
        task_set: &str,
        force: bool,
    ) -> Result<Reply, ApiError> {
        let (key, id) = self.find_task_set(cluster, service, task_set)?;
        let Some(set) = self.services.get(&key).and_then(|service| service.task_set(&id)) else {
            return Err(no_task_set());
        };
        if set.is_living() {
            if !force && set.status == SetStatus::Primary {
                return Err(ApiError::client("InvalidParameterException", "The primary task set cannot be deleted."));
            }
            if !force && set.scale > 0.0 {
                let message = "The task set must be scaled to zero, or deleted with force.";
                return Err(ApiError::client("InvalidParameterException", message));
            }
            self.check_delete(&key, &id);
            self.apply_delete(&key, &id);
        }
        self.one_task_set(&key, &id)
    }

    /// The service, by names or ARNs. Only services with the EXTERNAL controller have task sets to manage.
    pub(super) fn find_external(&self, cluster: &str, service: &str) -> Result<&Service, ApiError> {
        let found = self.find_service(cluster, service)?;
        if !found.active {
            return Err(ApiError::client("ServiceNotActiveException", "The service is not active."));
        }
        if found.controller == "EXTERNAL" {
            return Ok(found);
        }
        let message = "Amazon ECS only supports task set management on services configured to use external \
                       deployment controllers.";
        Err(ApiError::client("InvalidParameterException", message))
    }

    pub(super) fn find_task_set(
        &self,
        cluster: &str,
        service: &str,
        task_set: &str,
    ) -> Result<(ServiceKey, String), ApiError> {
        let service = self.find_external(cluster, service)?;
        let set = service.task_set(names::task_set_id(task_set)).ok_or_else(no_task_set)?;
        Ok((service.key.clone(), set.id.clone()))
    }
}

fn no_task_set() -> ApiError {
    ApiError::client("TaskSetNotFoundException", "The specified task set does not exist.")
}
