//! What other thresholds would have done with the same recording.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::ledger::{Line, Outcome};
use super::person::Fate;
use super::world::World;
use crate::rules::{Rule, RuleSet};

/// Thresholds that replace those of every rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `stability.task_failures`.
    pub task_failures: u32,
    /// `stability.window`.
    pub window: Duration,
    /// `stability.steady_within`; `None` leaves the rule's own.
    pub steady_within: Option<Duration>,
}

/// Minutes.
const WINDOWS: [u64; 7] = [1, 2, 3, 5, 10, 15, 30];
const STEADY: [u64; 5] = [3, 5, 10, 20, 30];

/// Every setting that is compared: failures by window, and then how long green may take to be steady, beside the defaults
/// of the other two.
pub fn grid() -> Vec<Setting> {
    let windows = WINDOWS.iter().map(|minutes| Duration::from_mins(*minutes));
    let failures = (1..=10).flat_map(|task_failures| {
        windows.clone().map(move |window| Setting { task_failures, window, steady_within: None })
    });
    let steady = STEADY.iter().map(|minutes| Setting {
        task_failures: 3,
        window: Duration::from_mins(5),
        steady_within: Some(Duration::from_mins(*minutes)),
    });
    failures.chain(steady).collect()
}

impl Setting {
    /// The rules with these thresholds.
    pub fn apply(&self, rules: &RuleSet) -> RuleSet {
        let changed = |rule: &Arc<Rule>| {
            let mut rule = Rule::clone(rule);
            rule.stability.task_failures = Some(self.task_failures);
            rule.stability.window = self.window;
            // It would be first more often than not, whatever the count is set to.
            rule.compare.false_rollback = None;
            if self.steady_within.is_some() {
                rule.stability.steady_within = self.steady_within;
            }
            // Older failures are not counted, however long the window is.
            rule.watch.freshness = rule.watch.freshness.max(self.window);
            Arc::new(rule)
        };
        RuleSet { rules: rules.rules.iter().map(changed).collect() }
    }
}

/// What one setting would have done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Deployments in the recording.
    pub deployments: u32,
    /// Of these, rolled back.
    pub rolled_back: u32,
    /// Of these, those that people ended one way or the other, by the recording.
    pub judged_by_people: u32,
    /// Rolled back, and undone by people; or neither.
    pub agreed: u32,
    /// Rolled back, and kept by people.
    pub too_eager: u32,
    /// Not rolled back, and undone by people.
    pub missed: u32,
    /// From green's first failed task (its creation, where none failed) to the decision.
    #[serde(skip)]
    pub detection: Vec<Duration>,
}

impl Tally {
    /// Adds what became of a recording's deployments.
    pub fn add(&mut self, lines: &[Line], world: &World<'_>) {
        for line in lines {
            self.deployments = self.deployments.saturating_add(1);
            let rolled_back = line.outcome == Outcome::Breached;
            self.rolled_back = self.rolled_back.saturating_add(u32::from(rolled_back));
            if let Some(at) = line.breached_at {
                let since = world.first_failure(&line.service, &line.task_set).unwrap_or(line.started_at);
                self.detection.push(at.since(since));
            }
            let Some(fate) = world.fate(&line.service, &line.task_set) else { continue };
            self.judged_by_people = self.judged_by_people.saturating_add(1);
            let count = match (rolled_back, fate) {
                (true, Fate::Undone) | (false, Fate::Kept) => &mut self.agreed,
                (true, Fate::Kept) => &mut self.too_eager,
                (false, Fate::Undone) => &mut self.missed,
            };
            *count = count.saturating_add(1);
        }
    }

    /// The lower of two in the middle.
    pub fn median_detection(&self) -> Option<Duration> {
        let mut all = self.detection.clone();
        all.sort_unstable();
        all.get(all.len().checked_sub(1)? / 2).copied()
    }
}
