//! An AnalysisRun of Argo Rollouts.
//!
//! Argo Rollouts documentation, "Analysis & Progressive Delivery"
//! (<https://argo-rollouts.readthedocs.io/en/stable/features/analysis/>). Its background analysis: interval 5m, success
//! when at least 95 % of the requests of the last five minutes succeed, `failureLimit: 3`, and "if there are three such
//! measurements, the analysis is considered Failed". Its analysis at a step: interval 60s, count 5, and no failure limit,
//! so that the first failed measurement fails it; it is run at each of the deployer's steps here. A measurement that finds
//! nothing is an error, and more than `consecutiveErrorLimit` (4) in a row fail the run.

use super::{Peer, SCRAPE, scraped};
use crate::detection::life::{HORIZON, Life, MINUTE, Ms};

/// One analysis.
pub struct Analysis {
    name: &'static str,
    interval: Ms,
    /// Measurements, from a step on; `None` for as long as the deployment lasts.
    count: Option<Ms>,
    /// Failed measurements that fail it.
    failures: u32,
}

/// The documentation's background analysis.
pub const BACKGROUND: Analysis =
    Analysis { name: "argo, 5m, failureLimit 3", interval: 5 * MINUTE, count: None, failures: 3 };

/// The documentation's analysis at a step.
pub const STEPS: Analysis = Analysis { name: "argo, 60s x 5 a step", interval: MINUTE, count: Some(5), failures: 1 };

const SUCCESS: f64 = 0.95;
const CONSECUTIVE_ERRORS: u32 = 4;

impl Peer for Analysis {
    fn name(&self) -> &'static str {
        self.name
    }

    fn decides(&self, life: &Life) -> Option<Ms> {
        let steps = life.weights.iter().map(|(at, _)| *at);
        match self.count {
            None => self.run(life, steps.min()?, HORIZON / self.interval),
            Some(count) => steps.filter_map(|at| self.run(life, at, count)).min(),
        }
    }
}

impl Analysis {
    fn run(&self, life: &Life, from: Ms, count: Ms) -> Option<Ms> {
        let (mut failed, mut errors) = (0, 0);
        for measurement in 1..=count {
            let at = from + measurement * self.interval;
            if at >= HORIZON {
                return None;
            }
            match scraped(life, at - SCRAPE - self.interval, at - SCRAPE).and_then(|seen| seen.error_share()) {
                None => errors += 1,
                Some(share) => {
                    errors = 0;
                    failed += u32::from(1.0 - share < SUCCESS);
                }
            }
            if failed >= self.failures || errors > CONSECUTIVE_ERRORS {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::lives::{minutes, quiet};
    use super::*;
    use crate::detection::life::Bucket;

    const FAILING: Bucket = Bucket { requests: 1_000, http_5xx: 51, unreachable: 0, refused: 0, p99: 200.0 };
    const ALLOWED: Bucket = Bucket { http_5xx: 50, ..FAILING };

    #[test]
    fn three_measurements_below_95_percent_fail_the_background_analysis() {
        let mut life = quiet(4);
        minutes(&mut life, 0..35, ALLOWED);
        assert_eq!(BACKGROUND.decides(&life), None);
        let mut life = quiet(4);
        minutes(&mut life, 0..10, FAILING);
        assert_eq!(BACKGROUND.decides(&life), None, "two, and a third in which most of the time was fine");
        minutes(&mut life, 0..15, FAILING);
        assert_eq!(BACKGROUND.decides(&life), Some(15 * MINUTE));
    }

    #[test]
    fn without_a_failure_limit_the_first_failed_measurement_fails_a_steps_analysis() {
        let mut life = quiet(4);
        minutes(&mut life, 6..9, FAILING);
        assert_eq!(STEPS.decides(&life), None, "its five measurements are over");
        life.weights.push((7 * MINUTE, 50));
        assert_eq!(STEPS.decides(&life), Some(8 * MINUTE));
    }

    #[test]
    fn five_measurements_in_a_row_that_find_nothing_are_too_many_errors() {
        let mut life = quiet(4);
        minutes(&mut life, 0..35, Bucket::default());
        assert_eq!(STEPS.decides(&life), Some(5 * MINUTE));
        assert_eq!(BACKGROUND.decides(&life), Some(25 * MINUTE));
    }
}
