//! The people who deploy, and do so by hand while the guardian watches.

use super::World;
use super::ecs::TaskSet;
use super::setup::Act;
use crate::model::{Action, ActionKind, Role, ServiceKey, TargetGroupArn, WeightedGroup};

impl World {
    /// One line of the script. A deployer who finds no green any more does nothing.
    pub(super) fn act(&mut self, key: &ServiceKey, act: &Act) {
        if let Act::CreateTaskSet { version, scale } = act {
            let said = match self.create_task_set(key, version, *scale) {
                Ok(_) => format!("the deployer creates green ({version})"),
                Err(why) => format!("the deployer can't create {version}: {why}"),
            };
            return self.say(said);
        }
        let Some((blue, green)) = self.roles(key) else {
            return self.say("the deployer finds no green any more and stops");
        };
        let id = |role: &Role| if *role == Role::Blue { blue.clone() } else { green.clone() };
        match act {
            Act::CreateTaskSet { .. } => {}
            Act::SetWeights { blue, green } => self.set_weights(key, *blue, *green),
            Act::SetPrimary(role) => {
                self.apply_primary(key, &id(role));
                self.say(format!("the deployer makes {} PRIMARY", role.as_str()));
            }
            Act::DeleteTaskSet(role) => {
                self.apply_delete(key, &id(role));
                self.say(format!("the deployer deletes {}", role.as_str()));
            }
            Act::ScaleTaskSet(role, scale) => {
                self.apply_scale(key, &id(role), *scale);
                self.say(format!("the deployer scales {} to {scale} %", role.as_str()));
            }
        }
    }

    /// Ids of blue and green: the oldest and the newest of at least two living task sets.
    fn roles(&self, key: &ServiceKey) -> Option<(String, String)> {
        let mut living = self.services.get(key)?.living().map(|set: &TaskSet| set.id.clone());
        Some((living.next()?, living.next_back()?))
    }

    /// On every route, restoring a group that somebody took out; everything else stays as it is.
    fn set_weights(&mut self, key: &ServiceKey, blue: u32, green: u32) {
        let Some(service) = self.services.get(key) else { return };
        let wanted = [(&service.blue_group, blue), (&service.green_group, green)]
            .map(|(group, weight)| (TargetGroupArn::new(group), weight));
        for at in 0..self.balancer.rules.len() {
            let Some(rule) = self.balancer.rules.get(at).filter(|rule| rule.service.as_ref() == Some(key)) else {
                continue;
            };
            let mut actions = rule.actions.clone();
            for action in &mut actions {
                weigh(action, &wanted);
            }
            self.write_actions(at, actions);
        }
        self.say(format!("the deployer gives blue weight {blue} and green weight {green}"));
    }
}

fn weigh(action: &mut Action, wanted: &[(TargetGroupArn, u32)]) {
    let ActionKind::Forward(forward) = &mut action.kind else { return };
    for (group, weight) in wanted {
        match forward.groups.iter_mut().find(|known| known.target_group == *group) {
            Some(known) => known.weight = Some(*weight),
            None => forward.groups.push(WeightedGroup { target_group: group.clone(), weight: Some(*weight) }),
        }
    }
}
