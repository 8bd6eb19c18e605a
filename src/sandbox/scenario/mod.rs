//! Scenarios: deployments with a known good ending, each a world, a rule file and what the guardian should make of it.
//!
//! A file each for what they are about: bad versions, the shapes in which traffic comes, how far a deployment has got,
//! people who act at the same time, breaches that are held, and an AWS or a guardian that fails.

mod faults;
mod holds;
mod parts;
mod people;
mod progress;
mod shapes;
#[cfg(test)]
mod tests;
mod versions;

use std::sync::LazyLock;
use std::time::Duration;

use super::world::Setup;

/// One deployment, from the moment that the deployer begins.
#[derive(Debug)]
pub struct Scenario {
    /// For the command line.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// Two plain sentences: what goes on, and what should come of it.
    pub story: &'static str,
    /// The right ending.
    pub expected: Expected,
    /// The rule file that is in force.
    pub rules_toml: String,
    /// The world. Its first service is the one that the story is about. The seed is for setups that vary by it.
    pub setup: fn(seed: u64) -> Setup,
    /// Virtual time after which the run is called off.
    pub limit: Duration,
    /// Virtual time that it goes on after its ending, for what must not happen then.
    pub afterwards: Duration,
    /// The guardian runs with `--dry-run`.
    pub dry_run: bool,
    /// The guardian's process dies after every change that it makes, and another one begins on the same journal.
    pub killed_after_changes: bool,
}

/// How a scenario should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Traffic is back on blue and green is gone.
    RolledBack,
    /// Green took over.
    Graduated,
    /// Decided, and deliberately not done.
    Held,
    /// A person was called.
    Escalated,
}

impl Expected {
    /// The word in `demo --output json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::Graduated => "graduated",
            Self::Held => "held",
            Self::Escalated => "escalated",
        }
    }
}

static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
    let families = [versions::all(), shapes::all(), progress::all(), people::all(), holds::all(), faults::all()];
    families.into_iter().flatten().collect()
});

/// Every scenario, in the order in which they are shown.
pub fn all() -> &'static [Scenario] {
    &ALL
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
