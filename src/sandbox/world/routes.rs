//! Routes: what a service's listeners, rules and target groups look like when the world begins.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::elb::{Balancer, Group, Listener, Rule, forwards};
use super::names;
use super::setup::{BalancerKind, Guard, ListenerKind, RouteSetup, ServiceSetup};
use crate::model::{Action, ActionKind, Forward, KeptAction, Role, Stickiness, TargetGroupArn, WeightedGroup};

/// The member of an action that holds its login with OIDC.
pub(super) const OIDC: &str = "AuthenticateOidcConfig";

/// Blue's weight when the world begins.
const ALL: u32 = 100;

impl Balancer {
    /// Adds the listeners, rules and target groups of a service. Answers its groups: blue's, green's, the spare one.
    pub(super) fn add_service(&mut self, rng: &mut Rng, setup: &ServiceSetup) -> Vec<String> {
        let balancer = match setup.balancer {
            BalancerKind::Application => self.arn.clone(),
            BalancerKind::Network => self.network(rng),
            BalancerKind::None => return Vec::new(),
        };
        let colors = if setup.spare_group { &["blue", "green", "spare"][..] } else { &["blue", "green"] };
        let groups: Vec<_> = colors.iter().map(|color| self.add_group(rng, setup, color)).collect();
        let wants_third = setup.routes.iter().any(|route| route.third.is_some());
        let third = wants_third.then(|| self.add_group(rng, setup, "legacy"));
        let mut kinds: Vec<_> = setup.routes.iter().map(|route| route.listener).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.is_empty() {
            kinds.push(ListenerKind::Https);
        }
        for kind in kinds {
            let listener = self.add_listener(rng, &balancer, setup.balancer, kind);
            let mut add = |priority: String, route: Option<&RouteSetup>| {
                let rule = listener.replacen(":listener/", ":listener-rule/", 1);
                let actions = route.map_or_else(not_found, |route| {
                    let network = setup.balancer == BalancerKind::Network;
                    route_actions(route, &groups, third.as_deref(), network)
                });
                self.rules.push(Rule {
                    arn: format!("{rule}/{}", names::hex(rng, 16)),
                    listener: listener.clone(),
                    is_default: priority == "default",
                    priority,
                    path: route.and_then(|route| route.path.clone()),
                    named: forwards(&actions).flat_map(|f| f.groups.iter().map(|g| g.target_group.clone())).collect(),
                    in_force: actions.clone(),
                    actions,
                    service: route.map(|_| setup.key.clone()),
                    has_users: kind != ListenerKind::Test,
                    ..Rule::default()
                });
            };
            let here = || setup.routes.iter().filter(|route| route.listener == kind);
            for (at, route) in here().filter(|route| route.path.is_some()).enumerate() {
                add(format!("{}", (at + 1) * 10), Some(route));
            }
            add("default".to_owned(), here().find(|route| route.path.is_none()));
        }
        groups
    }

    fn add_group(&mut self, rng: &mut Rng, setup: &ServiceSetup, color: &str) -> String {
        let name = format!("{}-{color}", setup.key.service);
        let arn = names::elb_arn(&format!("targetgroup/{name}/{}", names::hex(rng, 16)));
        self.groups.insert(arn.clone(), Group { name, sticky: setup.sticky_targets });
        arn
    }

    fn add_listener(&mut self, rng: &mut Rng, balancer: &str, of: BalancerKind, kind: ListenerKind) -> String {
        let arn = names::elb_arn(&format!("listener/{}/{}", names::dimension(balancer), names::hex(rng, 16)));
        let (first_port, protocol) = match kind {
            ListenerKind::Https => (443, "HTTPS"),
            ListenerKind::Http => (80, "HTTP"),
            ListenerKind::Test => (8443, "HTTPS"),
        };
        let taken: Vec<_> = self.listeners.values().map(|listener| listener.port).collect();
        let port = (first_port..=u16::MAX).find(|port| !taken.contains(port)).unwrap_or(first_port);
        let protocol = if of == BalancerKind::Network { "TCP" } else { protocol };
        self.listeners.insert(arn.clone(), Listener { balancer: balancer.to_owned(), port, protocol });
        arn
    }
}

fn route_actions(route: &RouteSetup, groups: &[String], third: Option<&str>, network: bool) -> Vec<Action> {
    let weighted = |group: &str, weight| WeightedGroup { target_group: TargetGroupArn::new(group), weight };
    let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let only = route.only.map(|role| usize::from(role == Role::Green));
    let forward = if let Some(group) = only.and_then(|at| groups.get(at)) {
        // As AWS keeps what was written as a bare `TargetGroupArn`.
        Forward { groups: vec![weighted(group, Some(1))], stickiness: None }
    } else {
        let mut weights = [ALL].into_iter().chain(std::iter::repeat(0));
        let pair = groups.iter().zip(weights.by_ref()).map(|(group, weight)| weighted(group, Some(weight)));
        let third = third.zip(route.third).map(|(group, weight)| weighted(group, Some(weight)));
        let stickiness = Stickiness {
            enabled: Some(route.sticky.is_some()),
            duration_seconds: route.sticky.filter(|_| !network).map(seconds),
        };
        Forward { groups: pair.chain(third).collect(), stickiness: Some(stickiness) }
    };
    let mut actions = Vec::new();
    if route.authenticated {
        actions.push(kept("authenticate-oidc", OIDC, oidc()));
    }
    actions.extend(route.guards.iter().map(|guard| match guard {
        Guard::Cognito => kept("authenticate-cognito", "AuthenticateCognitoConfig", cognito()),
        Guard::Jwt => kept("jwt-validation", "JwtValidationConfig", jwt()),
    }));
    actions.push(ActionKind::Forward(forward));
    (1..).zip(actions).map(|(order, kind)| Action { order: Some(order), kind }).collect()
}

fn oidc() -> Value {
    json!({
        "Issuer": "https://login.example.com",
        "AuthorizationEndpoint": "https://login.example.com/authorize",
        "TokenEndpoint": "https://login.example.com/token",
        "UserInfoEndpoint": "https://login.example.com/userinfo",
        "ClientId": "checkout",
    })
}

fn cognito() -> Value {
    let pool = "eu-west-1_a1b2c3d4e";
    json!({
        "UserPoolArn": format!("arn:aws:cognito-idp:{}:{}:userpool/{pool}", names::REGION, names::ACCOUNT),
        "UserPoolClientId": "3n4b5urk1ft4fl3mg5e62d9ado",
        "UserPoolDomain": "login",
    })
}

fn jwt() -> Value {
    json!({ "JwksEndpoint": "https://login.example.com/jwks.json", "Issuer": "https://login.example.com" })
}

fn not_found() -> Vec<Action> {
    vec![Action { order: Some(1), kind: kept("fixed-response", "FixedResponseConfig", json!({ "StatusCode": "404" })) }]
}

/// An action whose configuration is one member, by the API's name.
fn kept(kind: &str, member: &str, config: Value) -> ActionKind {
    ActionKind::Kept(KeptAction { kind: kind.into(), config: Map::from_iter([(member.to_owned(), config)]) })
}
