//! The load balancer: one for all services, a listener each, rules whose changes take a while to come into force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::super::api::{ApiError, ListenerView, Reply, RuleView, TargetGroupView, TargetView};
use super::ecs::count;
use super::setup::{RouteSetup, ServiceSetup};
use super::tasks::{Health, Target};
use super::{Happening, World, names};
use crate::model::{
    Action, ActionKind, Forward, KeptAction, ServiceKey, Stickiness, TargetGroupArn, Timestamp, WeightedGroup,
};

/// A user's `AWSALBTG` cookie: the group that it names, and until when.
pub(super) type Cookie = Option<(TargetGroupArn, Timestamp)>;

/// The load balancer.
#[derive(Debug)]
pub(super) struct Balancer {
    pub(super) arn: String,
    /// Port by ARN.
    listeners: BTreeMap<String, u16>,
    pub(super) rules: Vec<Rule>,
    /// Name by ARN.
    groups: BTreeMap<String, String>,
}

/// A listener rule, or the default action of a listener.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) arn: String,
    listener: String,
    priority: String,
    path: Option<String>,
    is_default: bool,
    /// As written.
    pub(super) actions: Vec<Action>,
    /// As the nodes of the load balancer route by now.
    pub(super) in_force: Vec<Action>,
    written: u64,
    propagated: u64,
    /// Every group that was ever named here.
    pub(super) named: BTreeSet<TargetGroupArn>,
    /// The service whose users come through here.
    pub(super) service: Option<ServiceKey>,
    /// Per user.
    pub(super) cookies: BTreeMap<u32, Cookie>,
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
        Self { arn, listeners: BTreeMap::new(), rules: Vec::new(), groups: BTreeMap::new() }
    }

    /// Adds a listener and two target groups for a service.
    pub(super) fn add_service(&mut self, rng: &mut Rng, setup: &ServiceSetup) -> [String; 2] {
        let groups = ["blue", "green"].map(|color| {
            let name = format!("{}-{color}", setup.key.service);
            let arn = names::elb_arn(&format!("targetgroup/{name}/{}", names::hex(rng, 16)));
            self.groups.insert(arn.clone(), name);
            arn
        });
        let balancer = names::dimension(&self.arn).to_owned();
        let listener = names::elb_arn(&format!("listener/{balancer}/{}", names::hex(rng, 16)));
        let port = 443 + u16::try_from(self.listeners.len()).unwrap_or(0);
        self.listeners.insert(listener.clone(), port);
        let mut add = |priority: String, route: Option<&RouteSetup>| {
            let rule = listener.replacen(":listener/", ":listener-rule/", 1);
            let actions = route.map_or_else(not_found, |route| route_actions(route, &groups));
            self.rules.push(Rule {
                arn: format!("{rule}/{}", names::hex(rng, 16)),
                listener: listener.clone(),
                is_default: priority == "default",
                priority,
                path: route.and_then(|route| route.path.clone()),
                named: forwards(&actions).flat_map(|f| f.groups.iter().map(|g| g.target_group.clone())).collect(),
                in_force: actions.clone(),
                actions,
                written: 0,
                propagated: 0,
                service: route.map(|_| setup.key.clone()),
                cookies: BTreeMap::new(),
            });
        };
        for (at, route) in setup.routes.iter().filter(|route| route.path.is_some()).enumerate() {
            add(format!("{}", (at + 1) * 10), Some(route));
        }
        add("default".to_owned(), setup.routes.iter().find(|route| route.path.is_none()));
        groups
    }

    /// Some rule names the group, whatever its weight.
    pub(super) fn is_used(&self, group: &str) -> bool {
        let group = TargetGroupArn::new(group);
        self.rules.iter().any(|rule| forwards(&rule.actions).any(|forward| forward.names(&group)))
    }

    pub(super) fn rules_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.service.as_ref() == Some(service))
    }

    pub(super) fn describe_target_groups(&self, arns: &[String]) -> Result<Reply, ApiError> {
        if arns.iter().any(|arn| !self.groups.contains_key(arn)) {
            return Err(no_target_group());
        }
        let wanted = self.groups.iter().filter(|(arn, _)| arns.is_empty() || arns.contains(arn));
        let view = |(arn, name): (&String, &String)| TargetGroupView {
            arn: arn.clone(),
            name: name.clone(),
            load_balancers: if self.is_used(arn) { vec![self.arn.clone()] } else { Vec::new() },
        };
        Ok(Reply::TargetGroups(wanted.map(view).collect()))
    }

    pub(super) fn describe_listeners(&self, balancer: Option<&str>, arns: &[String]) -> Result<Reply, ApiError> {
        if balancer.is_some_and(|balancer| balancer != self.arn) {
            return Err(ApiError::client("LoadBalancerNotFound", "The load balancer does not exist."));
        }
        if arns.iter().any(|arn| !self.listeners.contains_key(arn)) {
            return Err(no_listener());
        }
        let wanted = self.listeners.keys().filter(|arn| arns.is_empty() || arns.contains(arn));
        Ok(Reply::Listeners(wanted.filter_map(|arn| self.listener_view(arn)).collect()))
    }

    fn listener_view(&self, arn: &str) -> Option<ListenerView> {
        let default = self.rules.iter().find(|rule| rule.is_default && rule.listener == arn)?;
        Some(ListenerView {
            arn: arn.to_owned(),
            load_balancer: self.arn.clone(),
            port: *self.listeners.get(arn)?,
            protocol: "HTTPS".to_owned(),
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
    fn validate(&self, actions: &[Action]) -> Result<(), ApiError> {
        let ends = actions.iter().filter(|action| match &action.kind {
            ActionKind::Forward(_) => true,
            ActionKind::Kept(kept) => matches!(&*kept.kind, "redirect" | "fixed-response"),
        });
        if ends.count() != 1 {
            let message = "The actions must hold exactly one forward, redirect or fixed-response.";
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
}

impl Rule {
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
        self.balancer.validate(&actions)?;
        self.check_modify(at, &actions);
        self.write_actions(at, actions);
        Ok(())
    }

    /// The new actions can be read at once and are in force later.
    pub(super) fn write_actions(&mut self, at: usize, mut actions: Vec<Action>) {
        actions.iter_mut().for_each(hide_secret);
        let (least, most) = self.setup.timing.propagation;
        let after = names::between(&mut self.fate, least, most);
        let Some(rule) = self.balancer.rules.get_mut(at) else { return };
        rule.written += 1;
        rule.named.extend(forwards(&actions).flat_map(|f| f.groups.iter().map(|g| g.target_group.clone())));
        rule.actions.clone_from(&actions);
        let happening = Happening::Propagate { rule: rule.arn.clone(), generation: rule.written, actions };
        self.plan(after, happening);
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
            format!(
                "the load balancer now sends {:.0} % to blue and {:.0} % to green",
                share(&service.blue_group),
                share(&service.green_group)
            )
        };
        let said = rule.service.as_ref().and_then(|key| self.services.get(key)).map(named);
        if let Some(said) = said {
            self.say(said);
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

fn route_actions(route: &RouteSetup, groups: &[String; 2]) -> Vec<Action> {
    let weighted =
        |group: &String, weight| WeightedGroup { target_group: TargetGroupArn::new(group), weight: Some(weight) };
    let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let forward = Forward {
        groups: vec![weighted(&groups[0], 100), weighted(&groups[1], 0)],
        stickiness: Some(Stickiness {
            enabled: Some(route.sticky.is_some()),
            duration_seconds: route.sticky.map(seconds),
        }),
    };
    let login = json!({
        "Issuer": "https://login.example.com",
        "AuthorizationEndpoint": "https://login.example.com/authorize",
        "TokenEndpoint": "https://login.example.com/token",
        "UserInfoEndpoint": "https://login.example.com/userinfo",
        "ClientId": "checkout",
    });
    let mut actions = Vec::new();
    if route.authenticated {
        actions.push(kept("authenticate-oidc", OIDC, login));
    }
    actions.push(ActionKind::Forward(forward));
    (1..).zip(actions).map(|(order, kind)| Action { order: Some(order), kind }).collect()
}

fn not_found() -> Vec<Action> {
    vec![Action { order: Some(1), kind: kept("fixed-response", "FixedResponseConfig", json!({ "StatusCode": "404" })) }]
}

/// The member of an action that holds its login.
const OIDC: &str = "AuthenticateOidcConfig";

/// An action whose configuration is one member, by the API's name.
fn kept(kind: &str, member: &str, config: Value) -> ActionKind {
    ActionKind::Kept(KeptAction { kind: kind.into(), config: Map::from_iter([(member.to_owned(), config)]) })
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
