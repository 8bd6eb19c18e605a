//! The load balancers: an application's and a network's, listeners, and rules whose changes take a while to come into
//! force.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Map, Value};

use super::super::api::{ApiError, ListenerView, Reply, RuleView, TargetGroupView, TargetView};
use super::ecs::count;
use super::health::{Health, Target};
use super::routes::OIDC;
use super::{Happening, World, names};
use crate::model::{Action, ActionKind, Forward, ServiceKey, TargetGroupArn, Timestamp, TrafficRuleId, WeightedGroup};

/// `DescribeTargetGroups` takes so many ARNs.
const GROUPS_A_CALL: usize = 20;

/// A user's `AWSALBTG` cookie: the group that it names, and until when.
pub(super) type Cookie = Option<(TargetGroupArn, Timestamp)>;

/// The load balancers.
#[derive(Debug)]
pub(super) struct Balancer {
    /// The Application Load Balancer's ARN.
    pub(super) arn: String,
    /// The Network Load Balancer's ARN, once a service is behind it.
    network: Option<String>,
    /// By ARN.
    pub(super) listeners: BTreeMap<String, Listener>,
    pub(super) rules: Vec<Rule>,
    /// By ARN.
    pub(super) groups: BTreeMap<String, Group>,
}

/// A listener.
#[derive(Debug)]
pub(super) struct Listener {
    /// ARN.
    pub(super) balancer: String,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
}

/// A target group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    /// It has a cookie of its own, besides that of the rule.
    pub(super) sticky: bool,
}

/// A listener rule, or the default action of a listener.
#[derive(Debug, Default)]
pub(super) struct Rule {
    pub(super) arn: String,
    pub(super) listener: String,
    pub(super) priority: String,
    pub(super) path: Option<String>,
    pub(super) is_default: bool,
    /// As written.
    pub(super) actions: Vec<Action>,
    /// As the nodes of the load balancer route by now.
    pub(super) in_force: Vec<Action>,
    pub(super) written: u64,
    pub(super) propagated: u64,
    /// Every group that was ever named here.
    pub(super) named: BTreeSet<TargetGroupArn>,
    /// The service whose users come through here.
    pub(super) service: Option<ServiceKey>,
    /// Users come this way, not just the deployers' tests.
    pub(super) has_users: bool,
    /// Per user.
    pub(super) cookies: BTreeMap<u32, Cookie>,
    /// How the guardian and others take turns here.
    pub(super) dispute: Dispute,
}

/// Whether two write one rule against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dispute {
    /// The guardian has moved traffic off green in this deployment.
    pub(super) cleared: bool,
    /// When somebody else has moved it back since.
    pub(super) undone: Option<Timestamp>,
    /// How often the guardian has moved it off again.
    pub(super) asserted: u32,
}

/// The forward actions of a list of actions.
pub(super) fn forwards(actions: &[Action]) -> impl Iterator<Item = &Forward> {
    actions.iter().filter_map(|action| match &action.kind {
        ActionKind::Forward(forward) => Some(forward),
        ActionKind::Kept(_) => None,
    })
}

impl Balancer {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let arn = names::elb_arn(&format!("loadbalancer/app/edge/{}", names::hex(rng, 16)));
        Self { arn, network: None, listeners: BTreeMap::new(), rules: Vec::new(), groups: BTreeMap::new() }
    }

    /// The Network Load Balancer, which is made when the first service wants it.
    pub(super) fn network(&mut self, rng: &mut Rng) -> String {
        let make = || names::elb_arn(&format!("loadbalancer/net/edge/{}", names::hex(rng, 16)));
        self.network.get_or_insert_with(make).clone()
    }

    /// Who wrote what in the last deployment does not matter any more.
    pub(super) fn begin_deployment(&mut self, service: &ServiceKey) {
        let ours = self.rules.iter_mut().filter(|rule| rule.service.as_ref() == Some(service));
        ours.for_each(|rule| rule.dispute = Dispute::default());
    }

    /// Some rule names the group, whatever its weight.
    pub(super) fn is_used(&self, group: &str) -> bool {
        let is_it = |known: &WeightedGroup| known.target_group.as_str() == group;
        self.rules.iter().any(|rule| forwards(&rule.actions).any(|forward| forward.groups.iter().any(is_it)))
    }

    /// The load balancers whose rules name the group.
    pub(super) fn balancers_of(&self, group: &str) -> BTreeSet<&str> {
        let group = TargetGroupArn::new(group);
        let naming = self.rules.iter().filter(|rule| forwards(&rule.actions).any(|forward| forward.names(&group)));
        naming.filter_map(|rule| Some(self.listeners.get(&rule.listener)?.balancer.as_str())).collect()
    }

    pub(super) fn rules_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.service.as_ref() == Some(service))
    }

    pub(super) fn describe_target_groups(&self, arns: &[String]) -> Result<Reply, ApiError> {
        if arns.len() > GROUPS_A_CALL {
            let message = format!("You cannot describe more than '{GROUPS_A_CALL}' target groups at a time");
            return Err(ApiError::client("ValidationError", message));
        }
        if arns.iter().any(|arn| !self.groups.contains_key(arn)) {
            return Err(no_target_group());
        }
        let wanted = self.groups.iter().filter(|(arn, _)| arns.is_empty() || arns.contains(arn));
        let view = |(arn, group): (&String, &Group)| TargetGroupView {
            arn: arn.clone(),
            name: group.name.clone(),
            load_balancers: self.balancers_of(arn).into_iter().map(str::to_owned).collect(),
        };
        Ok(Reply::TargetGroups(wanted.map(view).collect()))
    }

    pub(super) fn describe_listeners(&self, balancer: Option<&str>, arns: &[String]) -> Result<Reply, ApiError> {
        if balancer.is_some_and(|balancer| balancer != self.arn && self.network.as_deref() != Some(balancer)) {
            return Err(ApiError::client("LoadBalancerNotFound", "The load balancer does not exist."));
        }
        if arns.iter().any(|arn| !self.listeners.contains_key(arn)) {
            return Err(no_listener());
        }
        let wanted = self.listeners.iter().filter(|(arn, listener)| {
            (arns.is_empty() || arns.contains(arn)) && balancer.is_none_or(|balancer| balancer == listener.balancer)
        });
        Ok(Reply::Listeners(wanted.filter_map(|(arn, _)| self.listener_view(arn)).collect()))
    }

    fn listener_view(&self, arn: &str) -> Option<ListenerView> {
        let default = self.rules.iter().find(|rule| rule.is_default && rule.listener == arn)?;
        let listener = self.listeners.get(arn)?;
        Some(ListenerView {
            arn: arn.to_owned(),
            load_balancer: listener.balancer.clone(),
            port: listener.port,
            protocol: listener.protocol.to_owned(),
            default_actions: default.actions.clone(),
        })
    }

    pub(super) fn describe_rules(&self, listener: Option<&str>, arns: &[String]) -> Result<Reply, ApiError> {
        if listener.is_some_and(|listener| !self.listeners.contains_key(listener)) {
            return Err(no_listener());
        }
        if arns.iter().any(|arn| self.rules.iter().all(|rule| rule.arn != *arn)) {
            return Err(no_rule());
        }
        let wanted = self.rules.iter().filter(|rule| {
            listener.is_none_or(|l| l == rule.listener) && (arns.is_empty() || arns.contains(&rule.arn))
        });
        Ok(Reply::Rules(wanted.map(Rule::view).collect()))
    }

    /// As ELB would check it.
    fn validate(&self, rule: &Rule, actions: &[Action]) -> Result<(), ApiError> {
        if actions.iter().filter(|action| routes(action)).count() != 1 {
            let message = "The actions must hold exactly one forward, redirect or fixed-response.";
            return Err(ApiError::client("InvalidLoadBalancerAction", message));
        }
        if actions.len() > 1 && !are_in_order(actions) {
            let message = "Several actions need an Order each, and the one that routes the request has the highest.";
            return Err(ApiError::client("InvalidLoadBalancerAction", message));
        }
        for forward in forwards(actions) {
            if !(1..=5).contains(&forward.groups.len()) {
                return Err(ApiError::client("ValidationError", "A forward action takes one to five target groups."));
            }
            if forward.groups.iter().any(|group| group.effective_weight() > 999) {
                return Err(ApiError::client("ValidationError", "Weights must be between 0 and 999."));
            }
            if forward.groups.iter().any(|group| !self.groups.contains_key(group.target_group.as_str())) {
                return Err(no_target_group());
            }
            self.validate_stickiness(rule, forward)?;
        }
        if self.is_network(rule) && actions.len() > forwards(actions).count() {
            let message = "Network Load Balancers only forward.";
            return Err(ApiError::client("InvalidLoadBalancerAction", message));
        }
        let without_secret = actions.iter().any(|action| match &action.kind {
            ActionKind::Kept(kept) => &*kept.kind == "authenticate-oidc" && !has_secret(&kept.config),
            ActionKind::Forward(_) => false,
        });
        if without_secret {
            let message = "authenticate-oidc needs ClientSecret or UseExistingClientSecret.";
            return Err(ApiError::client("InvalidLoadBalancerAction", message));
        }
        Ok(())
    }

    fn is_network(&self, rule: &Rule) -> bool {
        let listener = self.listeners.get(&rule.listener);
        listener.is_some_and(|listener| self.network.as_deref() == Some(listener.balancer.as_str()))
    }

    /// The cookie of a group is of use only with one that leads to the group.
    fn validate_stickiness(&self, rule: &Rule, forward: &Forward) -> Result<(), ApiError> {
        let seconds = forward.stickiness.as_ref().and_then(|stickiness| stickiness.duration_seconds);
        let lasts = match seconds {
            None => self.is_network(rule) || !forward.is_sticky(),
            Some(seconds) => !self.is_network(rule) && (1..=604_800).contains(&seconds),
        };
        if !lasts {
            let message = "DurationSeconds must be between 1 and 604800, and is for Application Load Balancers only.";
            return Err(ApiError::client("ValidationError", message));
        }
        let wants_cookie = |arn: &TargetGroupArn| self.groups.get(arn.as_str()).is_some_and(|group| group.sticky);
        let inconsistent = forward.groups.len() > 1 && !forward.is_sticky();
        if inconsistent && forward.groups.iter().any(|group| wants_cookie(&group.target_group)) {
            let message = "You must enable group stickiness on a rule if you enabled target stickiness on one of its \
                           target groups";
            return Err(ApiError::client("InvalidLoadBalancerAction", message));
        }
        Ok(())
    }
}

/// It ends the list: no action comes after it.
fn routes(action: &Action) -> bool {
    match &action.kind {
        ActionKind::Forward(_) => true,
        ActionKind::Kept(kept) => matches!(&*kept.kind, "redirect" | "fixed-response"),
    }
}

fn are_in_order(actions: &[Action]) -> bool {
    let orders: BTreeSet<_> = actions.iter().filter_map(|action| action.order).collect();
    let last = actions.iter().find(|action| routes(action)).and_then(|action| action.order);
    orders.len() == actions.len() && last == orders.last().copied()
}

impl Rule {
    /// What a modification addresses.
    pub(super) fn id(&self) -> TrafficRuleId {
        if self.is_default {
            TrafficRuleId::DefaultOf(self.listener.as_str().into())
        } else {
            TrafficRuleId::Rule(self.arn.as_str().into())
        }
    }

    fn view(&self) -> RuleView {
        RuleView {
            arn: self.arn.clone(),
            priority: self.priority.clone(),
            is_default: self.is_default,
            path: self.path.clone(),
            actions: self.actions.clone(),
        }
    }
}

impl World {
    pub(super) fn modify_rule(&mut self, arn: &str, actions: Vec<Action>) -> Result<Reply, ApiError> {
        let Some(at) = self.balancer.rules.iter().position(|rule| rule.arn == arn) else { return Err(no_rule()) };
        if self.balancer.rules.get(at).is_some_and(|rule| rule.is_default) {
            return Err(ApiError::client(
                "OperationNotPermitted",
                "Default rule actions are modified on the listener.",
            ));
        }
        self.modify(at, actions)?;
        Ok(Reply::Rules(self.balancer.rules.get(at).map(Rule::view).into_iter().collect()))
    }

    pub(super) fn modify_listener(&mut self, arn: &str, actions: Vec<Action>) -> Result<Reply, ApiError> {
        let default = |rule: &Rule| rule.is_default && rule.listener == arn;
        let Some(at) = self.balancer.rules.iter().position(default) else { return Err(no_listener()) };
        self.modify(at, actions)?;
        Ok(Reply::Listeners(self.balancer.listener_view(arn).into_iter().collect()))
    }

    fn modify(&mut self, at: usize, actions: Vec<Action>) -> Result<(), ApiError> {
        let Some(rule) = self.balancer.rules.get(at) else { return Err(no_rule()) };
        self.balancer.validate(rule, &actions)?;
        self.check_modify(at, &actions);
        self.write_actions(at, actions);
        Ok(())
    }

    /// The new actions can be read at once and are in force later.
    pub(super) fn write_actions(&mut self, at: usize, mut actions: Vec<Action>) {
        actions.iter_mut().for_each(hide_secret);
        let (least, most) = self.setup.timing.propagation;
        let after = names::between(&mut self.fate, least, most);
        let unused: Vec<_> =
            self.balancer.groups.keys().filter(|group| !self.balancer.is_used(group)).cloned().collect();
        let Some(rule) = self.balancer.rules.get_mut(at) else { return };
        rule.written += 1;
        rule.named.extend(forwards(&actions).flat_map(|f| f.groups.iter().map(|g| g.target_group.clone())));
        rule.actions.clone_from(&actions);
        let happening = Happening::Propagate { rule: rule.arn.clone(), generation: rule.written, actions };
        self.plan(after, happening);
        // Of a group that comes into use no target was checked before.
        let now = self.now;
        for task in self.tasks.values_mut() {
            if let Some(target) = task.target.as_mut().filter(|target| unused.contains(&target.group))
                && self.balancer.is_used(&target.group)
            {
                target.begin(now);
            }
        }
    }

    pub(super) fn propagate(&mut self, arn: &str, generation: u64, actions: Vec<Action>) {
        let Some(rule) = self.balancer.rules.iter_mut().find(|rule| rule.arn == arn) else { return };
        if generation <= rule.propagated {
            return;
        }
        rule.propagated = generation;
        rule.in_force = actions;
        let named = |service: &super::ecs::Service| {
            let share = |group: &str| {
                let group = TargetGroupArn::new(group);
                // An empty sum is -0, which would be shown.
                (0.0 + forwards(&rule.in_force).map(|forward| forward.share(&group)).sum::<f64>()) * 100.0
            };
            let (blue, green) = (share(service.blue_group()?), share(service.green_group()?));
            let what = if rule.has_users { "the load balancer" } else { "the test listener" };
            Some((service.key.clone(), format!("{what} now sends {blue:.0} % to blue and {green:.0} % to green")))
        };
        let said = rule.service.as_ref().and_then(|key| self.services.get(key)).and_then(named);
        if let Some((key, said)) = said {
            self.say_of(&key, &said);
        }
    }

    /// Healthy targets of a group, as the load balancer counts them.
    pub(super) fn healthy(&self, group: &str) -> u32 {
        if !self.balancer.is_used(group) {
            return 0;
        }
        count(self.targets(group).filter(|(_, target)| target.health == Health::Healthy))
    }

    fn targets<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (&'a super::Task, &'a Target)> {
        let with_target = |task: &'a super::Task| task.target.as_ref().map(|target| (task, target));
        self.tasks.values().filter_map(with_target).filter(move |(_, target)| target.group == group)
    }

    pub(super) fn describe_target_health(&self, group: &str) -> Result<Reply, ApiError> {
        if !self.balancer.groups.contains_key(group) {
            return Err(no_target_group());
        }
        let used = self.balancer.is_used(group);
        let view = |(task, target): (&super::Task, &Target)| {
            let (state, reason) = match target.health {
                Health::Draining => ("draining", Some("Target.DeregistrationInProgress")),
                _ if !used => ("unused", Some("Target.NotInUse")),
                Health::Initial => ("initial", Some("Elb.InitialHealthChecking")),
                Health::Healthy => ("healthy", None),
                Health::Unhealthy => ("unhealthy", Some("Target.ResponseCodeMismatch")),
            };
            let (state, reason) = (state.to_owned(), reason.map(str::to_owned));
            TargetView { id: task.ip.clone(), port: 8080, state, reason }
        };
        Ok(Reply::Targets(self.targets(group).map(view).collect()))
    }
}

fn has_secret(config: &Map<String, Value>) -> bool {
    let login = config.get(OIDC).and_then(Value::as_object);
    login.is_some_and(|login| {
        let reused = login.get("UseExistingClientSecret");
        login.contains_key("ClientSecret")
            || reused.is_some_and(|v| v.as_bool() == Some(true) || v.as_str() == Some("true"))
    })
}

/// ELB never answers with the secret, nor with the order to keep it.
pub(super) fn hide_secret(action: &mut Action) {
    if let ActionKind::Kept(kept) = &mut action.kind
        && let Some(login) = kept.config.get_mut(OIDC).and_then(Value::as_object_mut)
    {
        login.remove("ClientSecret");
        login.remove("UseExistingClientSecret");
    }
}

fn no_target_group() -> ApiError {
    ApiError::client("TargetGroupNotFound", "One or more target groups not found")
}

fn no_listener() -> ApiError {
    ApiError::client("ListenerNotFound", "One or more listeners not found")
}

fn no_rule() -> ApiError {
    ApiError::client("RuleNotFound", "One or more rules not found")
}
