//! How far a deployment has got when green breaks: promoted, with all the traffic, with blue scaled away.

use std::time::Duration;

use super::parts::{RULES, Rules, at, crashing_from, deployment, deployment_of, plain, quick_rollout};
use super::{Expected, Scenario};
use crate::model::Role;
use crate::sandbox::world::{Act, Reaction, RouteSetup, ServiceSetup, Setup};

/// Blue was scaled to nothing before half of green's tasks began to crash.
fn without_blue() -> Setup {
    let mut script = quick_rollout();
    script.push(at(70, Act::ScaleTaskSet(Role::Blue, 0.0)));
    deployment(crashing_from(100, Some(2)), script)
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "green-primary",
            title: "green breaks when it is PRIMARY already",
            story: "checkout:88 is sound until it is PRIMARY with all the users, and begins to crash while it is still \
                    being watched. The guardian makes blue PRIMARY again, gives it the users back and deletes green.",
            setup: |_| deployment(crashing_from(85, None), quick_rollout()),
            ..plain()
        },
        Scenario {
            name: "green-primary-page",
            title: "the rule leaves a promoted green to people",
            story: "checkout:88 begins to crash when it is PRIMARY with all the users already, and the rule says \
                    after_promotion = \"page\". The guardian changes nothing and calls a person.",
            expected: Expected::Escalated,
            rules_toml: Rules { after_promotion: "page", ..RULES }.toml(),
            setup: |_| Setup { expect_no_writes: true, ..deployment(crashing_from(85, None), quick_rollout()) },
            afterwards: Duration::from_secs(30),
            ..plain()
        },
        Scenario {
            name: "blue-scaled-to-zero",
            title: "blue has no tasks left to go back to",
            story: "The deployer made checkout:88 PRIMARY and scaled blue to zero, and then half of green's tasks \
                    begin to crash. The guardian scales blue back first, shifts only once blue can carry the load, and \
                    deletes green.",
            setup: |_| without_blue(),
            limit: Duration::from_mins(6),
            ..plain()
        },
        Scenario {
            name: "autoscaling",
            title: "the service grows while it is rolled back",
            story: "checkout:88 breaks when blue is scaled to zero, and while the guardian brings blue back \
                    autoscaling wants six tasks instead of four. The guardian waits until blue has what is needed now, \
                    shifts and deletes green.",
            setup: |_| {
                let mut setup = without_blue();
                let (to, after) = ("UpdateTaskSet".to_owned(), Duration::from_secs(6));
                let reaction = Reaction { to, after, act: Act::SetDesired(6), times: 1 };
                setup.services.iter_mut().for_each(|service| service.reactions.push(reaction.clone()));
                setup
            },
            limit: Duration::from_mins(6),
            ..plain()
        },
        Scenario {
            name: "killed-between-steps",
            title: "the guardian dies after each of its changes",
            story: "Half of the tasks of checkout:88 begin to crash when it is PRIMARY behind a sticky rule, and the \
                    guardian's process dies whenever it has changed something. Each time another one begins on the \
                    same journal and goes on where the last one was: nothing is done twice, nothing is left out.",
            setup: |_| {
                let routes = vec![RouteSetup { sticky: Some(Duration::from_hours(1)), ..RouteSetup::default() }];
                let service = ServiceSetup { routes, script: quick_rollout(), ..ServiceSetup::default() };
                deployment_of(crashing_from(85, Some(2)), service)
            },
            killed_after_changes: true,
            ..plain()
        },
    ]
}
