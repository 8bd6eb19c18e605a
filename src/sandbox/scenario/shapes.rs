//! The shapes in which traffic comes to a service, or doesn't.

use std::time::Duration;

use super::Scenario;
use super::parts::{
    RULES, Rules, at, crashing, crashing_from, create, deployment_of, early_canary, named, plain, weights,
};
use crate::model::Role;
use crate::sandbox::world::{Act, BalancerKind, Guard, ListenerKind, RouteSetup, ServiceSetup};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "sticky-rule",
            title: "a cookie keeps users on a green that crashes",
            story: "The rule is sticky: half of the users got a cookie for checkout:88 before its tasks began to \
                    crash, and to them weight 0 would mean nothing. The guardian takes green out of the rule, deletes \
                    it, and then names both groups again, so that the next deployment finds the pair.",
            setup: |_| {
                let routes = vec![RouteSetup { sticky: Some(Duration::from_hours(1)), ..RouteSetup::default() }];
                let script = vec![create(), weights(45, 50, 50)];
                deployment_of(crashing_from(75, None), ServiceSetup { routes, script, ..ServiceSetup::default() })
            },
            ..plain()
        },
        Scenario {
            name: "several-listeners",
            title: "rules, default actions and a test listener",
            story: "checkout is behind two rules, a default action and the default action of a test listener, and one \
                    rule sends a sixth of its users to another service. The guardian moves green's share of all four \
                    to blue, leaves the other service its sixth, and deletes green.",
            setup: |_| {
                let route = |listener, path: Option<&str>, third| RouteSetup {
                    listener,
                    path: path.map(str::to_owned),
                    third,
                    ..RouteSetup::default()
                };
                let routes = vec![
                    route(ListenerKind::Https, Some("/api/*"), Some(20)),
                    route(ListenerKind::Https, Some("/shop/*"), None),
                    route(ListenerKind::Https, None, None),
                    route(ListenerKind::Test, None, None),
                ];
                deployment_of(crashing(), ServiceSetup { routes, script: early_canary(), ..ServiceSetup::default() })
            },
            ..plain()
        },
        Scenario {
            name: "oidc-login",
            title: "a login comes before the forward",
            story: "Users log in with OIDC before one rule forwards them and show a token before another one does, and \
                    the load balancer never tells the login's secret. The guardian sends both rules' other actions \
                    back as they were, the secret kept, with green's users on blue.",
            setup: |_| {
                let login = RouteSetup { authenticated: true, ..RouteSetup::default() };
                let token =
                    RouteSetup { path: Some("/api/*".to_owned()), guards: vec![Guard::Jwt], ..RouteSetup::default() };
                let routes = vec![token, login];
                deployment_of(crashing(), ServiceSetup { routes, script: early_canary(), ..ServiceSetup::default() })
            },
            ..plain()
        },
        Scenario {
            name: "forward-to-green-alone",
            title: "the rule names green alone",
            story: "This deployer does not weigh but switch: the rule forwards to checkout:88 alone, so that nobody \
                    checks blue's targets any more, and then checkout:88 begins to crash. The guardian names blue \
                    beside green first, waits for its health checks while green lasts, shifts and deletes green.",
            setup: |_| {
                let script = vec![create(), at(45, Act::ForwardTo(Role::Green)), at(55, Act::SetPrimary(Role::Green))];
                deployment_of(crashing_from(75, Some(2)), ServiceSetup { script, ..ServiceSetup::default() })
            },
            ..plain()
        },
        Scenario {
            name: "network-load-balancer",
            title: "a Network Load Balancer, by its default action",
            story: "checkout is behind a Network Load Balancer, which has no rules but one default action with \
                    weights, and checkout:88 crashes as soon as it starts. The guardian shifts by ModifyListener and \
                    deletes green.",
            setup: |_| {
                let routes = vec![RouteSetup { path: None, ..RouteSetup::default() }];
                let (balancer, script) = (BalancerKind::Network, early_canary());
                deployment_of(crashing(), ServiceSetup { balancer, routes, script, ..ServiceSetup::default() })
            },
            ..plain()
        },
        Scenario {
            name: "no-load-balancer",
            title: "a queue worker, with no traffic to move",
            story: "mailer takes its work from a queue, so there is no load balancer and nothing to shift; the tasks \
                    of the new version crash as soon as they start. The guardian makes sure that blue runs all its \
                    tasks and deletes green.",
            rules_toml: Rules { service: "mailer", ..RULES }.toml(),
            setup: |_| {
                let service = ServiceSetup {
                    key: named("mailer"),
                    balancer: BalancerKind::None,
                    routes: Vec::new(),
                    requests_per_second: 0,
                    version: "mailer:41".to_owned(),
                    script: vec![at(10, Act::CreateTaskSet { version: "mailer:42".to_owned(), scale: 100.0 })],
                    ..ServiceSetup::default()
                };
                let mut setup = deployment_of(crashing(), service);
                setup.versions.insert("mailer:42".to_owned(), crashing());
                setup
            },
            ..plain()
        },
    ]
}
