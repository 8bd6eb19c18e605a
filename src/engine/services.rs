//! The partitions of all services, by name. An event finds its service at the same cost in a fleet of any size; who wants
//! all of them gets them in the order of their names, so that the same inputs always have the same effects.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::partition::Partition;
use crate::model::ServiceKey;

/// Boxed, since a table has room for more than it holds. Its hash has no secret: only names that AWS has listed get in.
#[derive(Debug, Default)]
pub(super) struct Services(HashMap<ServiceKey, Box<Partition>, BuildHasherDefault<DefaultHasher>>);

impl Services {
    pub(super) fn get(&self, key: &ServiceKey) -> Option<&Partition> {
        self.0.get(key).map(|partition| &**partition)
    }

    pub(super) fn get_mut(&mut self, key: &ServiceKey) -> Option<&mut Partition> {
        self.0.get_mut(key).map(|partition| &mut **partition)
    }

    pub(super) fn contains(&self, key: &ServiceKey) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: ServiceKey, partition: Partition) {
        self.0.insert(key, Box::new(partition));
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) -> Option<Partition> {
        self.0.remove(key).map(|partition| *partition)
    }

    /// All, by name.
    pub(super) fn all(&self) -> Vec<(&ServiceKey, &Partition)> {
        let mut all: Vec<_> = self.0.iter().map(|(key, partition)| (key, &**partition)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// All, by name.
    pub(super) fn all_mut(&mut self) -> Vec<(&ServiceKey, &mut Partition)> {
        let mut all: Vec<_> = self.0.iter_mut().map(|(key, partition)| (key, &mut **partition)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

/// As a list of pairs: JSON has no maps whose keys are not strings.
impl Serialize for Services {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.all())
    }
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::<(ServiceKey, Partition)>::deserialize(deserializer)?;
        Ok(Self(all.into_iter().map(|(key, partition)| (key, Box::new(partition))).collect()))
    }
}
