//! People, and their tools, who act while the guardian does.

use std::time::Duration;

use super::parts::{crashing, deployment, early_canary, half_crashing, plain, reacting};
use super::{Expected, Scenario};
use crate::model::Role;
use crate::sandbox::world::{Act, Reaction, Setup};

/// Long enough to see a third write, if there were one.
const WATCHED: Duration = Duration::from_secs(30);

/// A tool that sets the canary's weights again after each change of them.
fn set_back(times: u32) -> Setup {
    reacting(half_crashing(), "ModifyRule", 6, Act::SetWeights { blue: 90, green: 10 }, times)
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "foreign-writer-once",
            title: "a deploy tool undoes the shift, once",
            story: "Half of the tasks of checkout:88 crash, and six seconds after the guardian has shifted, a deploy \
                    tool sets the old weights again. The guardian shifts once more, the tool leaves it at that, and \
                    green is deleted.",
            setup: |_| set_back(1),
            ..plain()
        },
        Scenario {
            name: "foreign-writer",
            title: "a deploy tool undoes the shift, again and again",
            story: "Half of the tasks of checkout:88 crash, and a deploy tool sets the old weights again whenever it \
                    finds others. The guardian shifts once more, then stops writing and calls a person, for two \
                    machines that write one rule against each other help nobody.",
            expected: Expected::Escalated,
            setup: |_| set_back(5),
            afterwards: WATCHED,
            ..plain()
        },
        Scenario {
            name: "third-task-set",
            title: "a newer task set appears during the rollback",
            story: "While the guardian takes the users off checkout:88, half of whose tasks crash, the deployer \
                    creates a task set with checkout:89. The deployment that was to be rolled back is overtaken: the \
                    guardian leaves it to the deployer and says so.",
            expected: Expected::Held,
            setup: |_| {
                let create = Act::CreateTaskSet { version: "checkout:89".to_owned(), scale: 100.0 };
                let mut setup = reacting(half_crashing(), "ModifyRule", 3, create, 1);
                setup.services.iter_mut().for_each(|service| service.spare_group = true);
                setup
            },
            afterwards: WATCHED,
            ..plain()
        },
        Scenario {
            name: "green-promoted-meanwhile",
            title: "somebody promotes green during the rollback",
            story: "While the guardian takes the users off checkout:88, half of whose tasks crash, somebody makes it \
                    PRIMARY. That is a person's decision against the rollback: the guardian stops, deletes nothing and \
                    says so.",
            expected: Expected::Held,
            setup: |_| reacting(half_crashing(), "ModifyRule", 3, Act::SetPrimary(Role::Green), 1),
            afterwards: WATCHED,
            ..plain()
        },
        Scenario {
            name: "deleted-by-somebody",
            title: "the deployer deletes green first",
            story: "The deployer sees half of the tasks of checkout:88 crash as well, and deletes it while the \
                    guardian still waits for requests to end. The guardian finds green gone, has nothing more to do \
                    and closes the incident.",
            setup: |_| reacting(half_crashing(), "ModifyRule", 5, Act::DeleteTaskSet(Role::Green), 1),
            ..plain()
        },
        Scenario {
            name: "weights-reapplied",
            title: "infrastructure code puts green's weight back afterwards",
            story: "checkout:88 crashes and is rolled back, and half a minute later infrastructure code that knows \
                    nothing of it sends half of the users to a target group without a target. The guardian gives the \
                    rules to blue once more, and when they are changed again it only calls a person, with the name that \
                    CloudTrail gave it.",
            setup: |_| {
                let again = |after| Reaction {
                    to: "DeleteTaskSet".to_owned(),
                    after: Duration::from_secs(after),
                    act: Act::ApplyWeights { route: None, blue: 50, green: 50 },
                    times: 1,
                };
                let mut setup = deployment(crashing(), early_canary());
                setup.services.iter_mut().for_each(|service| {
                    service.reactions = vec![again(30), again(75)];
                });
                setup.trail = Some((Duration::from_secs(1), Duration::from_secs(4)));
                setup
            },
            afterwards: Duration::from_mins(2),
            ..plain()
        },
    ]
}
