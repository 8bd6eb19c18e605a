//! Tags of services: how people and pipelines speak to the guardian.

use std::collections::BTreeMap;

use super::super::api::{ApiError, Reply};
use super::ecs::{Service, TaskSet};
use super::{World, names};

/// AWS allows so many tags on a resource.
const MOST_TAGS: usize = 50;

/// Of a key and of a value, in characters.
const LONGEST: (usize, usize) = (128, 256);

impl World {
    pub(super) fn tag_resource(&mut self, resource: &str, tags: BTreeMap<String, String>) -> Result<Reply, ApiError> {
        let fits = |text: &str, least: usize, most: usize| {
            let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
            (least..=most).contains(&text.chars().count()) && text.chars().all(allowed)
        };
        if tags.is_empty() || !tags.iter().all(|(key, value)| fits(key, 1, LONGEST.0) && fits(value, 0, LONGEST.1)) {
            return Err(ApiError::client("InvalidParameterException", "Tags hold no valid keys and values."));
        }
        let service = self.tagged(resource)?;
        let count = service.tags.keys().chain(tags.keys()).collect::<std::collections::BTreeSet<_>>().len();
        if count > MOST_TAGS {
            return Err(ApiError::client("InvalidParameterException", "A resource may have 50 tags."));
        }
        service.tags.extend(tags);
        Ok(Reply::Empty)
    }

    pub(super) fn untag_resource(&mut self, resource: &str, keys: &[String]) -> Result<Reply, ApiError> {
        let service = self.tagged(resource)?;
        service.tags.retain(|key, _| !keys.contains(key));
        Ok(Reply::Empty)
    }

    /// Unlike AWS's index, this one does not lag.
    pub(super) fn get_resources(&self, key: &str, values: &[String]) -> Reply {
        let has =
            |service: &&Service| service.tags.get(key).is_some_and(|value| values.is_empty() || values.contains(value));
        let found = self.services.values().filter(|service| service.active).filter(has);
        let arn = |service: &Service| names::service_arn(&service.key.cluster, &service.key.service);
        Reply::Resources(found.map(|service| (arn(service), service.tags.clone())).collect())
    }

    /// As the pipeline that made it gave them.
    pub(super) fn tags_of(&self, set: &TaskSet) -> BTreeMap<String, String> {
        self.setup.versions.get(&set.task_definition).map(|version| version.tags.clone()).unwrap_or_default()
    }

    fn tagged(&mut self, resource: &str) -> Result<&mut Service, ApiError> {
        let is_it = |service: &&mut Service| names::service_arn(&service.key.cluster, &service.key.service) == resource;
        let found = self.services.values_mut().filter(|service| service.active).find(is_it);
        found.ok_or_else(|| ApiError::client("InvalidParameterException", "The specified resource is no service."))
    }
}
