//! Which service a fact is about, when the fact does not name one: by alarm, by target group, by effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::partition::{Deployment, Listed, Partition};
use crate::model::{AlarmName, EffectId, Phase, ServiceKey, TargetGroupArn};

/// Derived from the partitions, never stored.
#[derive(Debug, Default)]
pub(super) struct Index {
    alarms: BTreeMap<AlarmName, BTreeSet<ServiceKey>>,
    groups: BTreeMap<Arc<str>, BTreeSet<ServiceKey>>,
    effects: BTreeMap<EffectId, ServiceKey>,
}

impl Index {
    /// Services that the alarm may gate, by its name or its target groups.
    pub(super) fn gated_by<'a>(&'a self, alarm: &AlarmName, groups: &BTreeSet<Arc<str>>) -> BTreeSet<&'a ServiceKey> {
        let by_name = self.alarms.get(alarm).into_iter();
        by_name.chain(groups.iter().filter_map(|group| self.groups.get(group))).flatten().collect()
    }

    /// Services whose deployment, live or rolled back, has one of these groups.
    pub(super) fn forwarding_to<'a>(&'a self, groups: &BTreeSet<Arc<str>>) -> BTreeSet<&'a ServiceKey> {
        groups.iter().filter_map(|group| self.groups.get(group)).flatten().collect()
    }

    /// The service that a write belongs to.
    pub(super) fn service_of(&self, effect: EffectId) -> Option<&ServiceKey> {
        self.effects.get(&effect)
    }

    /// Brings the service's entries up to date.
    pub(super) fn update(&mut self, key: &ServiceKey, partition: &mut Partition) {
        let wanted = listed(partition);
        if wanted != partition.soft.listed {
            unlist(&mut self.alarms, &partition.soft.listed.alarms, key);
            unlist(&mut self.groups, &partition.soft.listed.groups, key);
            for alarm in &wanted.alarms {
                self.alarms.entry(alarm.clone()).or_default().insert(key.clone());
            }
            for group in &wanted.groups {
                self.groups.entry(group.clone()).or_default().insert(key.clone());
            }
            for effect in &partition.soft.listed.effects {
                self.effects.remove(effect);
            }
            self.effects.extend(wanted.effects.iter().map(|effect| (*effect, key.clone())));
            partition.soft.listed = wanted;
        }
    }

    /// The service is gone.
    pub(super) fn remove(&mut self, key: &ServiceKey) {
        let forget = |services: &mut BTreeSet<ServiceKey>| {
            services.remove(key);
            !services.is_empty()
        };
        self.alarms.retain(|_, services| forget(services));
        self.groups.retain(|_, services| forget(services));
        self.effects.retain(|_, other| other != key);
    }
}

fn listed(partition: &Partition) -> Listed {
    let watched = |deployment: &&Deployment| !deployment.ended() || deployment.phase == Phase::RolledBack;
    let Some(deployment) = partition.kept.deployment.as_ref().filter(watched) else {
        return Listed::default();
    };
    let alarms = partition.kept.rule.errors.alarms.iter().chain(&deployment.bound_alarms);
    let group = |group: &Option<TargetGroupArn>| group.as_ref().map(|group| Arc::from(group.dimension()));
    Listed {
        effects: deployment.rollback.iter().flat_map(|rollback| rollback.in_flight.keys()).copied().collect(),
        alarms: if deployment.ended() { BTreeSet::new() } else { alarms.cloned().collect() },
        groups: [group(&deployment.green_group), group(&deployment.blue_group)].into_iter().flatten().collect(),
    }
}

fn unlist<K: Ord>(map: &mut BTreeMap<K, BTreeSet<ServiceKey>>, names: &BTreeSet<K>, key: &ServiceKey) {
    for name in names {
        if let Some(services) = map.get_mut(name) {
            services.remove(key);
            if services.is_empty() {
                map.remove(name);
            }
        }
    }
}
