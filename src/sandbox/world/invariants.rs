//! The guardian's promises, checked at the moment that one of its calls is applied. The deployer's own acts are not
//! checked: people may do what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::ecs::{Service, SetStatus, TaskSet, at_least};
use super::elb::{Dispute, Rule, forwards, hide_secret};
use super::tasks::Task;
use super::{World, names};
use crate::model::{Action, ActionKind, Contract, ServiceKey, TargetGroupArn, Timestamp, humane};

/// A promise that a call broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When the call was applied.
    pub at: Timestamp,
    /// Which promise, as in `S2`.
    pub invariant: &'static str,
    /// What the call did.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, invariant, what } = self;
        write!(f, "{at} {invariant}: {what}")
    }
}

/// S9: a share that only rounding has changed.
const ROUNDING: f64 = 0.01;

/// S11: the span in which services are counted. The guardian counts breaches within ten minutes, and the calls that follow from
/// one take up to two.
const BRAKED: Duration = Duration::from_mins(10 - 2);

/// S10: rules that are undone so soon after the one re-assert belong to it, for whoever applies a plan writes one after the
/// other. The guardian counts from when it knows that its call was applied, which is a little later.
const ONE_ACT: Duration = Duration::from_secs(30 + 10);

/// Share of a rule's traffic by group, for all groups that it names.
type Shares = BTreeMap<TargetGroupArn, f64>;

fn shares(actions: &[Action]) -> Shares {
    let groups = forwards(actions).flat_map(|forward| {
        forward.groups.iter().map(|group| (group.target_group.clone(), forward.share(&group.target_group)))
    });
    groups.collect()
}

/// The same for those groups that get anything.
fn routed(actions: &[Action]) -> Shares {
    shares(actions).into_iter().filter(|(_, share)| *share > 0.0).collect()
}

impl Dispute {
    /// The guardian moves traffic off green.
    fn assert(self) -> Self {
        Self { cleared: true, undone: None, asserted: self.asserted + u32::from(self.undone.is_some()) }
    }
}

/// All that is not a forward action, and where the forwards stand among them.
fn others(actions: &[Action]) -> Vec<(Option<i32>, Option<ActionKind>)> {
    let other = |action: &Action| {
        let mut action = action.clone();
        hide_secret(&mut action);
        let kind = match action.kind {
            ActionKind::Forward(_) => None,
            kept @ ActionKind::Kept(_) => Some(kept),
        };
        (action.order, kind)
    };
    actions.iter().map(other).collect()
}

impl World {
    fn broken(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.violations.push(Violation { at: self.now, invariant, what: what.into() });
    }

    /// S11 and S12, before any change. `service` is the one that it is for.
    pub(super) fn check_change(&mut self, service: Option<&ServiceKey>, operation: &str) {
        if self.setup.expect_no_writes {
            self.broken("S12", format!("{operation} although nothing may be changed"));
        }
        // What a person wants no brake holds.
        let Some(service) = service.filter(|service| !self.asked.contains(*service)) else { return };
        let horizon = self.now.minus(BRAKED);
        self.changes.retain(|(at, _)| *at >= horizon);
        let known = self.changes.iter().any(|(_, changed)| changed == service);
        self.changes.push((self.now, service.clone()));
        let changed: BTreeSet<_> = self.changes.iter().map(|(_, changed)| changed).collect();
        if let Some(brake) = self.setup.brake.filter(|brake| !known && changed.len() > *brake) {
            let (changed, within) = (changed.len(), humane(BRAKED));
            let what =
                format!("{operation}: {service} is service number {changed} changed within {within}, not {brake}");
            self.broken("S11", what);
        }
    }

    /// S3, before a task set is scaled: that only ever gives blue more.
    pub(super) fn check_scale(&mut self, key: &ServiceKey, id: &str, scale: f64) {
        let Some(service) = self.services.get(key) else { return };
        let Some(set) = service.task_set(id) else { return };
        let mut found = Vec::new();
        if service.green().is_some_and(|green| green.id == id) {
            found.push(format!("{id} is green, and scaled"));
        }
        if scale < set.scale {
            found.push(format!("{id} is scaled down from {} % to {scale} %", set.scale));
        }
        for what in found {
            self.broken("S3", what);
        }
    }

    /// S2, before a task set becomes PRIMARY.
    pub(super) fn check_primary(&mut self, key: &ServiceKey, id: &str) {
        let green = self.services.get(key).and_then(Service::green);
        if green.is_some_and(|green| green.id == id) {
            self.broken("S2", format!("{id} is green, and made PRIMARY"));
        }
    }

    /// S1, S3, S9, S10 and S12, before new actions are written; remembers the shift for S13.
    pub(super) fn check_modify(&mut self, at: usize, new: &[Action]) {
        let Some(rule) = self.balancer.rules.get(at) else { return };
        let service = rule.service.as_ref().and_then(|key| self.services.get(key));
        let mut found = self.check_routes(rule, new);
        found.extend(check_ownership(rule, service, new));
        if let Some(service) = service {
            found.extend(self.check_capacity(service, &rule.actions, new));
        }
        let moved = routed(&rule.actions) != routed(new);
        let (key, mut dispute) = (rule.service.clone(), rule.dispute);
        let mut asserted_at = service.and_then(|service| service.asserted_at);
        if self.green_gains(rule, new) == Some(false) {
            if let Some(green) = service.filter(|service| !self.asked.contains(&service.key)).and_then(Service::green)
                && green.group.as_deref() == service.and_then(Service::green_group)
                && let contract @ (Contract::Page | Contract::Off) = self.contract(green)
            {
                found.push(("S12", format!("{} loses traffic, and its contract is {}", green.id, contract.as_str())));
            }
            if let Some(undone) = dispute.undone {
                let first = *asserted_at.get_or_insert(self.now);
                if undone.since(first) > ONE_ACT {
                    let after = humane(undone.since(first));
                    found.push(("S10", format!("{}: undone {after} after the re-assert, and set back", rule.arn)));
                }
            }
            dispute = dispute.assert();
            if dispute.asserted > 1 && dispute != rule.dispute {
                found.push(("S10", format!("{}: taken from green again, {} times", rule.arn, dispute.asserted)));
            }
        }
        if let Some(rule) = self.balancer.rules.get_mut(at) {
            rule.dispute = dispute;
        }
        for (invariant, what) in found {
            self.broken(invariant, what);
        }
        if let Some(service) = key.and_then(|key| self.services.get_mut(&key)) {
            service.asserted_at = asserted_at;
            if moved {
                service.last_shift = Some(self.now);
            }
        }
    }

    /// Whether green gets more of a rule's traffic, or less; `None` when it stays.
    fn green_gains(&self, rule: &Rule, new: &[Action]) -> Option<bool> {
        let service = rule.service.as_ref().and_then(|key| self.services.get(key))?;
        let green = TargetGroupArn::new(service.green_group()?);
        let share = |actions: &[Action]| shares(actions).get(&green).copied().unwrap_or(0.0);
        let (before, after) = (share(&rule.actions), share(new));
        ((before - after).abs() > f64::EPSILON).then_some(after > before)
    }

    /// S10: somebody else writes a rule.
    pub(super) fn note_undone(&mut self, at: usize, new: &[Action]) {
        let gains = self.balancer.rules.get(at).and_then(|rule| self.green_gains(rule, new)) == Some(true);
        if let Some(rule) = self.balancer.rules.get_mut(at).filter(|rule| gains && rule.dispute.cleared) {
            rule.dispute.undone.get_or_insert(self.now);
        }
    }

    /// S1.
    fn check_routes(&self, rule: &Rule, new: &[Action]) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for forward in forwards(new) {
            if forward.groups.iter().all(|group| group.effective_weight() == 0) {
                found.push(("S1", format!("{}: all weights are zero", rule.arn)));
            }
        }
        if self.has_route(&rule.actions) && !self.has_route(new) {
            found.push(("S1", format!("{}: all weight is on groups without a healthy target", rule.arn)));
        }
        found
    }

    fn has_route(&self, actions: &[Action]) -> bool {
        shares(actions).iter().any(|(group, share)| *share > 0.0 && self.healthy(group.as_str()) > 0)
    }

    /// S3: whoever gets more must be able to carry it, unless those who lose it carry nothing any more.
    fn check_capacity(&self, service: &Service, old: &[Action], new: &[Action]) -> Vec<(&'static str, String)> {
        let (before, after) = (shares(old), shares(new));
        let share = |shares: &Shares, group: &TargetGroupArn| shares.get(group).copied().unwrap_or(0.0);
        let loser_is_well =
            before.keys().any(|group| share(&after, group) < share(&before, group) && self.healthy(group.as_str()) > 0);
        let mut found = Vec::new();
        for (group, after) in after.iter().filter(|(group, after)| **after > share(&before, group)) {
            let Some(set) = service.living().find(|set| set.group.as_deref() == Some(group.as_str())) else { continue };
            let (running, needed) = (self.running(&set.id), at_least(service.desired, *after));
            if running < needed && loser_is_well {
                let what = format!("{} gets more traffic with {running} of {needed} tasks that it needs", set.id);
                found.push(("S3", what));
            }
        }
        found
    }

    /// S1, S2, S3, S12 and S13, before a living task set is deleted.
    pub(super) fn check_delete(&mut self, key: &ServiceKey, id: &str) {
        let Some(service) = self.services.get(key) else { return };
        let Some(set) = service.task_set(id) else { return };
        let others: Vec<_> = service.living().filter(|other| other.id != id).collect();
        let mut found = Vec::new();
        let contract = self.contract(set);
        if contract == Contract::WeightsOnly || (contract != Contract::Full && !self.asked.contains(key)) {
            found.push(("S12", format!("{id} is deleted, and its contract is {}", contract.as_str())));
        }
        if set.status == SetStatus::Primary {
            found.push(("S2", format!("{id} is the PRIMARY")));
        }
        if others.is_empty() {
            found.push(("S2", format!("{id} is the last task set")));
        } else if self.is_well(set) && !others.iter().any(|other| self.is_well(other)) {
            found.push(("S2", format!("{id} is the last healthy task set")));
        }
        if let Some(group) = set.group.as_deref().map(TargetGroupArn::new) {
            for rule in &self.balancer.rules {
                let shares = shares(&rule.actions);
                if shares.get(&group).copied().unwrap_or(0.0) > 0.0 {
                    found.push(("S3", format!("{} still sends traffic to {id}", rule.arn)));
                    let well = |other: &TargetGroupArn| self.healthy(other.as_str()) > 0;
                    let rest = shares.iter().any(|(other, share)| *other != group && *share > 0.0 && well(other));
                    if well(&group) && !rest {
                        found.push(("S1", format!("{}: its last healthy targets are those of {id}", rule.arn)));
                    }
                }
            }
        }
        // Without a load balancer nothing shows who does the work but the tasks themselves.
        let most = others.iter().map(|other| self.running(&other.id)).max().unwrap_or(0);
        if set.group.is_none() && self.running(id) > 0 && most < service.desired {
            let needed = service.desired;
            found.push(("S3", format!("{id} is deleted while blue runs {most} of the {needed} tasks that are needed")));
        }
        if let Some(shift) = service.last_shift.filter(|shift| self.now.since(*shift) < self.setup.drain) {
            // A task that began later passed its first health check when no user was sent there any more.
            let served = |task: &Task| task.is_running() && task.started_at.is_some_and(|at| at <= shift);
            if self.tasks_of(id).any(served) {
                let (drained, wanted) = (humane(self.now.since(shift)), humane(self.setup.drain));
                found.push(("S13", format!("{id} is deleted {drained} after the last shift, not {wanted}")));
            }
        }
        for (invariant, what) in found {
            self.broken(invariant, what);
        }
    }

    /// What the pipeline that made it allows.
    fn contract(&self, set: &TaskSet) -> Contract {
        Contract::of(&self.tags_of(set))
    }

    fn is_well(&self, set: &TaskSet) -> bool {
        match &set.group {
            Some(group) => self.healthy(group) > 0,
            None => self.running(&set.id) > 0,
        }
    }
}

/// S9: only the deployment's own groups may come or change, and all else is echoed.
fn check_ownership(rule: &Rule, service: Option<&Service>, new: &[Action]) -> Vec<(&'static str, String)> {
    let ours = |group: &TargetGroupArn| {
        let uses = |set: &TaskSet| set.group.as_deref() == Some(group.as_str());
        service.is_some_and(|service| service.task_sets.iter().any(uses))
    };
    // Green is the newest; blue is the PRIMARY among the older ones, else the newest of them. Wherever their tasks are registered:
    // a third task set may have outlived the others, and one that came while a group was draining is on the spare one.
    let mut older: Vec<&TaskSet> = service.into_iter().flat_map(Service::living).collect();
    let green = older.pop();
    let blue = older.iter().find(|set| set.status == SetStatus::Primary).or(older.last());
    let deployed = |group: &TargetGroupArn| {
        green.into_iter().chain(blue.copied()).any(|set| set.group.as_deref() == Some(group.as_str()))
            || service.is_some_and(|service| service.pair().any(|ours| ours == group.as_str()))
    };
    let (before, after) = (shares(&rule.actions), shares(new));
    let name = |group: &TargetGroupArn| names::dimension(group.as_str()).to_owned();
    let mut found = Vec::new();
    for group in after.keys().filter(|group| !rule.named.contains(*group) && !ours(group)) {
        found.push(("S9", format!("{} is no group of the deployment", name(group))));
    }
    for (group, share) in before.iter().filter(|(group, _)| !deployed(group)) {
        // Weights end at 999, so a sum may have to be scaled down, and the others with it.
        let same = |now: &f64| (now - share).abs() <= ROUNDING && (*now > 0.0) == (*share > 0.0);
        if !after.get(group).is_some_and(same) {
            found.push(("S9", format!("the share of {} is not ours to change", name(group))));
        }
    }
    if others(&rule.actions) != others(new) {
        found.push(("S9", format!("{}: actions other than the forward were changed", rule.arn)));
    }
    found
}
