//! The opponent to respect, which nobody documents: so many failures of green within a window, tuned.
//!
//! It is told which stops are failures, by the guardian's own reading of code and reason, and as fast as events come. It
//! does not look at blue.

use taskset_guardian::model::Role;

use super::Peer;
use crate::detection::life::{Life, MINUTE, Ms};

/// How late an event comes, on average.
const DELIVERY: Ms = 1_000;

/// So many failures within a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Failures.
    pub failures: usize,
    /// Milliseconds.
    pub window: Ms,
}

impl Peer for Count {
    fn name(&self) -> &'static str {
        "plain count, tuned"
    }

    fn decides(&self, life: &Life) -> Option<Ms> {
        self.reached(&failures(life))
    }
}

/// When tasks of green failed, in order.
pub fn failures(life: &Life) -> Vec<Ms> {
    let ends = life.of(Role::Green).filter_map(|task| task.end).filter(|end| end.cause.is_failure());
    let mut times: Vec<Ms> = ends.map(|end| end.at).collect();
    times.sort_unstable();
    times
}

impl Count {
    /// When so many of these lie within the window.
    pub fn reached(&self, failures: &[Ms]) -> Option<Ms> {
        let within = |run: &&[Ms]| matches!(run, [first, .., last] if last - first <= self.window) || run.len() == 1;
        failures.windows(self.failures.max(1)).find(within).and_then(|run| run.last()).map(|at| at + DELIVERY)
    }

    /// All that are tried, per size: up to as many failures as two rounds of all tasks.
    pub fn candidates(size: u32) -> impl Iterator<Item = Self> {
        let most = usize::try_from(size).unwrap_or_default() * 2 + 6;
        let windows = [1, 2, 3, 5, 7, 10, 15, 20, 35];
        (1..=most).flat_map(move |failures| windows.map(|minutes| Self { failures, window: minutes * MINUTE }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_within_the_window_and_not_one_less() {
        let count = Count { failures: 3, window: 60_000 };
        assert_eq!(count.reached(&[0, 30_000, 61_000]), None);
        assert_eq!(count.reached(&[0, 30_000, 61_000, 90_000]), Some(91_000));
        assert_eq!(Count { failures: 1, window: 0 }.reached(&[5]), Some(1_005));
        assert_eq!(count.reached(&[]), None);
    }
}
