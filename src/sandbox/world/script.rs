//! The people who deploy, and do so by hand while the guardian watches.

use std::time::Duration;

use super::behaviour::{Act, Loss, TagValue, Trouble};
use super::ecs::{Outage, TaskSet, at_least};
use super::trail::Caller;
use super::{Happening, World};
use crate::model::{ActionKind, Forward, Role, ServiceKey, TargetGroupArn, WeightedGroup, tags};

impl World {
    /// One line of the script. A deployer who finds no green any more does nothing.
    pub(super) fn act(&mut self, key: &ServiceKey, act: &Act) {
        match act {
            Act::CreateTaskSet { version, scale } => {
                let said = match self.create_task_set(key, version, *scale) {
                    Ok("third") => format!("the deployer creates a third task set ({version})"),
                    Ok(label) => format!("the deployer creates {label} ({version})"),
                    Err(why) => format!("the deployer can't create {version}: {why}"),
                };
                self.say_of(key, &said);
            }
            Act::SetDesired(desired) => self.set_desired(key, *desired),
            Act::Outage { what, lasts, trouble } => self.break_down(key, what, *lasts, *trouble),
            Act::LoseTasks { loss, share } => self.lose_tasks(key, *loss, *share),
            Act::Tag(name, value) => self.tag(key, name, value),
            Act::Untag(name) => {
                if let Some(service) = self.services.get_mut(key) {
                    service.tags.remove(name);
                }
                self.say_of(key, &format!("somebody removes the tag {name}"));
            }
            Act::ApplyWeights { route, blue, green } => {
                self.weigh(key, Caller::InfrastructureCode, *route, [*blue, *green]);
                let on = route.map_or_else(String::new, |route| format!(" on route {route}"));
                self.say_of(key, &format!("infrastructure code gives blue weight {blue} and green weight {green}{on}"));
            }
            Act::DeleteService => self.delete_service(key),
            Act::CreateService { version } => self.recreate_service(key, version),
            _ => match self.roles(key) {
                Some(roles) => self.act_on(key, act, roles),
                None => self.say_of(key, "the deployer finds no green any more and stops"),
            },
        }
    }

    fn act_on(&mut self, key: &ServiceKey, act: &Act, (blue, green): (String, String)) {
        let id = |role: &Role| if *role == Role::Blue { blue.clone() } else { green.clone() };
        let said = match act {
            Act::SetWeights { blue, green } => {
                self.weigh(key, Caller::Deployer, None, [*blue, *green]);
                format!("the deployer gives blue weight {blue} and green weight {green}")
            }
            Act::ForwardTo(role) => {
                self.forward_to(key, *role);
                format!("the deployer forwards everything to {} alone", role.as_str())
            }
            Act::SetPrimary(role) => {
                self.apply_primary(key, &id(role));
                self.record_task_set(Caller::Deployer, "UpdateServicePrimaryTaskSet", key, &id(role));
                format!("the deployer makes {} PRIMARY", role.as_str())
            }
            Act::DeleteTaskSet(role) => {
                self.apply_delete(key, &id(role));
                self.record_task_set(Caller::Deployer, "DeleteTaskSet", key, &id(role));
                format!("the deployer deletes {}", role.as_str())
            }
            Act::ScaleTaskSet(role, scale) => {
                self.apply_scale(key, &id(role), *scale);
                self.record_task_set(Caller::Deployer, "UpdateTaskSet", key, &id(role));
                format!("the deployer scales {} to {scale} %", role.as_str())
            }
            // Those that need no roles were done before.
            _ => return,
        };
        self.say_of(key, &said);
    }

    /// People see what the guardian has just done.
    pub(super) fn react(&mut self, key: &ServiceKey, operation: &str) {
        let Some(service) = self.services.get_mut(key) else { return };
        let mut due = Vec::new();
        for reaction in service.reactions.iter_mut().filter(|reaction| reaction.to == operation && reaction.times > 0) {
            reaction.times -= 1;
            due.push((reaction.after, reaction.act.clone()));
        }
        for (after, act) in due {
            self.plan(after, Happening::Script(key.clone(), act));
        }
    }

    fn set_desired(&mut self, key: &ServiceKey, desired: u32) {
        let Some(service) = self.services.get_mut(key) else { return };
        let before = std::mem::replace(&mut service.desired, desired);
        for id in service.living().map(|set| set.id.clone()).collect::<Vec<_>>() {
            self.reconcile_soon(key, &id);
            self.update_stability(key, &id);
        }
        self.say_of(key, &format!("autoscaling wants {desired} tasks in every task set instead of {before}"));
    }

    fn tag(&mut self, key: &ServiceKey, name: &str, value: &TagValue) {
        let Some(service) = self.services.get_mut(key) else { return };
        let value = match value {
            TagValue::Text(text) => text.clone(),
            TagValue::In(wait) => self.now.plus(*wait).to_string(),
            TagValue::Green => service.green().map_or_else(|| "ecs-svc/0".to_owned(), |green| green.id.clone()),
        };
        self.say_of(key, &format!("somebody tags the service {name} = {value}"));
        if let Some(service) = self.services.get_mut(key) {
            if name == tags::ROLLBACK && service.task_set(&value).is_some() {
                self.asked.insert(key.clone());
            }
            service.tags.insert(name.to_owned(), value);
        }
    }

    /// The same share of every task set, as chance has it; ECS replaces what is lost.
    fn lose_tasks(&mut self, key: &ServiceKey, loss: Loss, share: f64) {
        let running = self.tasks.values().filter(|task| task.service == *key && task.is_running() && task.wanted);
        let mut hit: Vec<_> = running.map(|task| task.arn.clone()).collect();
        self.fate.shuffle(&mut hit);
        let count = at_least(u32::try_from(hit.len()).unwrap_or(u32::MAX), share);
        hit.truncate(count as usize);
        self.say_of(key, &format!("{count} tasks are lost ({loss:?})"));
        for arn in hit {
            self.lose_task(&arn, loss);
        }
    }

    fn break_down(&mut self, key: &ServiceKey, what: &str, lasts: Duration, trouble: Trouble) {
        let Some(service) = self.services.get_mut(key) else { return };
        service.outage = Some(Outage { what: what.to_owned(), trouble });
        self.say_of(key, &format!("{what} is down"));
        let running = self.tasks.values().filter(|task| task.service == *key && task.is_running());
        for arn in running.map(|task| task.arn.clone()).collect::<Vec<_>>() {
            self.plan_crash(&arn);
        }
        self.plan(lasts, Happening::Recover(key.clone(), what.to_owned()));
    }

    pub(super) fn recover(&mut self, key: &ServiceKey, what: &str) {
        let Some(service) = self.services.get_mut(key) else { return };
        if service.outage.take_if(|outage| outage.what == what).is_some() {
            self.say_of(key, &format!("{what} is back"));
        }
    }

    /// Ids of blue and green: the oldest and the newest of at least two living task sets.
    fn roles(&self, key: &ServiceKey) -> Option<(String, String)> {
        let mut living = self.services.get(key)?.living().map(|set: &TaskSet| set.id.clone());
        Some((living.next()?, living.next_back()?))
    }

    /// On every route or on one, restoring a group that somebody took out; everything else stays as it is.
    fn weigh(&mut self, key: &ServiceKey, by: Caller, route: Option<usize>, weights: [u32; 2]) {
        let wanted: Vec<_> = self.pair(key).into_iter().zip(weights).collect();
        self.rewrite(key, by, route, |forward| {
            for (group, weight) in &wanted {
                match forward.groups.iter_mut().find(|known| known.target_group == *group) {
                    Some(known) => known.weight = Some(*weight),
                    None => {
                        forward.groups.push(WeightedGroup { target_group: group.clone(), weight: Some(*weight) });
                    }
                }
            }
        });
    }

    /// As people do who write a bare `TargetGroupArn`.
    fn forward_to(&mut self, key: &ServiceKey, role: Role) {
        let Some(group) = self.pair(key).into_iter().nth(usize::from(role == Role::Green)) else { return };
        self.rewrite(key, Caller::Deployer, None, |forward| {
            let alone = WeightedGroup { target_group: group.clone(), weight: Some(1) };
            *forward = Forward { groups: vec![alone], stickiness: None };
        });
    }

    fn pair(&self, key: &ServiceKey) -> Vec<TargetGroupArn> {
        let pair = self.services.get(key).into_iter().flat_map(super::ecs::Service::pair);
        pair.map(TargetGroupArn::new).collect()
    }

    fn rewrite(&mut self, key: &ServiceKey, by: Caller, route: Option<usize>, change: impl Fn(&mut Forward)) {
        let rules = self.balancer.rules.iter().enumerate();
        let ours: Vec<_> = rules.filter(|(_, rule)| rule.service.as_ref() == Some(key)).map(|(at, _)| at).collect();
        let chosen = ours.into_iter().enumerate().filter(|(place, _)| route.is_none_or(|route| route == *place));
        for (_, at) in chosen {
            let Some(rule) = self.balancer.rules.get(at) else { continue };
            let (id, mut actions) = (rule.id(), rule.actions.clone());
            for action in &mut actions {
                if let ActionKind::Forward(forward) = &mut action.kind {
                    change(forward);
                }
            }
            self.note_undone(at, &actions);
            self.record_rule(by, &id, &actions);
            self.write_actions(at, actions);
        }
    }
}
