//! Breaches that it is right not to act on.

use std::time::Duration;

use super::parts::{RULES, Rules, at, canary, crash, crashing, deployment, early_canary, named, plain};
use super::{Expected, Scenario};
use crate::sandbox::world::{Act, ServiceSetup, Setup, Trouble, Version};

/// Long enough to see a change, if there were one.
const WATCHED: Duration = Duration::from_secs(30);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "shared-outage",
            title: "blue fails as well: it is not green's fault",
            story: "The database goes down for forty seconds, and the tasks of blue and of checkout:88 crash alike. \
                    The guardian takes blue as the control group, holds the rollback and changes nothing.",
            expected: Expected::Held,
            setup: |_| {
                let trouble = Trouble { crash: Some(crash(1)), ..Trouble::default() };
                let lasts = Duration::from_secs(40);
                let mut script = canary();
                script.push(at(70, Act::Outage { what: "the database".to_owned(), lasts, trouble }));
                Setup { expect_no_writes: true, ..deployment(Version::default(), script) }
            },
            afterwards: Duration::from_mins(1),
            ..plain()
        },
        Scenario {
            name: "fleet-outage",
            title: "five services crash within a minute",
            story: "Five services get a new version within a minute, all on the same broken base image, and checkout \
                    is the last of them. Three are rolled back; then the guardian suspects a shared cause, pulls the \
                    brake and leaves the others, checkout among them, to people.",
            expected: Expected::Held,
            rules_toml: Rules { service: "*", ..RULES }.toml(),
            setup: |_| {
                let mut setup = deployment(crashing(), Vec::new());
                let create = |second, version: &str| {
                    at(second, Act::CreateTaskSet { version: version.to_owned(), scale: 100.0 })
                };
                setup.services.iter_mut().for_each(|service| service.script.push(create(60, "checkout:88")));
                for (second, name) in [(10, "cart"), (15, "search"), (20, "payments"), (25, "catalog")] {
                    let new = format!("{name}:2");
                    setup.versions.insert(new.clone(), crashing());
                    let (version, script) = (format!("{name}:1"), vec![create(second, &new)]);
                    setup.services.push(ServiceSetup { key: named(name), version, script, ..ServiceSetup::default() });
                }
                Setup { brake: Some(3), ..setup }
            },
            afterwards: WATCHED,
            ..plain()
        },
        Scenario {
            name: "dry-run",
            title: "--dry-run decides and changes nothing",
            story: "checkout:88 crashes as soon as it starts, and the guardian runs with --dry-run. It says what it \
                    would do and why, and changes nothing.",
            expected: Expected::Held,
            setup: |_| Setup { expect_no_writes: true, ..deployment(crashing(), early_canary()) },
            afterwards: WATCHED,
            dry_run: true,
            ..plain()
        },
        Scenario {
            name: "observe-mode",
            title: "a rule that only observes",
            story: "checkout:88 crashes as soon as it starts, and the rule says mode = \"observe\". The guardian \
                    decides and reports as ever, and changes nothing.",
            expected: Expected::Held,
            rules_toml: Rules { mode: "observe", ..RULES }.toml(),
            setup: |_| Setup { expect_no_writes: true, ..deployment(crashing(), early_canary()) },
            afterwards: WATCHED,
            ..plain()
        },
    ]
}
