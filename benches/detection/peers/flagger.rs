//! Flagger's canary analysis.
//!
//! Flagger documentation, "How it works" (<https://docs.flagger.app/usage/how-it-works>): every `interval` the metrics are
//! checked, and when `threshold`, the "max number of failed metric checks before rollback", is reached, the canary is
//! rolled back; a canary that makes no progress is rolled back after ten minutes (`progressDeadlineSeconds`). The numbers
//! are its tutorial's ("Istio Canary Deployments"): interval 1m, threshold 5, request-success-rate at least 99 % and
//! request-duration p99 at most 500 ms.
//!
//! While pods are not ready it halts; here it goes on checking.

use taskset_guardian::model::Role;

use super::{Peer, SCRAPE, scraped};
use crate::detection::life::{BUCKET, HORIZON, Life, MINUTE, Ms};

/// As in its tutorial.
pub struct Flagger;

const THRESHOLD: u32 = 5;
const SUCCESS: f64 = 0.99;
const P99: f64 = 500.0;
const PROGRESS_DEADLINE: Ms = 10 * MINUTE;

impl Peer for Flagger {
    fn name(&self) -> &'static str {
        "flagger, 1m x 5"
    }

    fn decides(&self, life: &Life) -> Option<Ms> {
        let ready = (0..PROGRESS_DEADLINE / BUCKET).any(|n| life.is_steady(Role::Green, n * BUCKET));
        let deadline = (!ready).then_some(PROGRESS_DEADLINE);
        deadline.into_iter().chain(too_many_failed(life)).min()
    }
}

fn too_many_failed(life: &Life) -> Option<Ms> {
    let (begins, _) = *life.weights.first()?;
    let mut failed = 0;
    let mut at = begins + MINUTE;
    while at < HORIZON {
        let seen = scraped(life, at - SCRAPE - MINUTE, at - SCRAPE);
        let wrong =
            seen.is_some_and(|seen| seen.error_share().is_some_and(|share| 1.0 - share < SUCCESS) || seen.p99 > P99);
        failed += u32::from(wrong);
        if failed >= THRESHOLD {
            return Some(at);
        }
        at += MINUTE;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::lives::{minutes, quiet, task};
    use super::*;
    use crate::detection::life::Bucket;

    fn ready() -> Life {
        let mut life = quiet(1);
        task(&mut life, Some(30_000), Some(60_000), None);
        life
    }

    #[test]
    fn five_failed_checks_roll_back_and_four_do_not() {
        let mut life = ready();
        let failing = Bucket { requests: 1_000, http_5xx: 11, p99: 200.0, ..Bucket::default() };
        minutes(&mut life, 3..6, failing);
        assert_eq!(Flagger.decides(&life), None, "three minutes of it fill two checks");
        minutes(&mut life, 20..30, failing);
        assert_eq!(Flagger.decides(&life), Some(24 * MINUTE), "they need not be in a row");
    }

    #[test]
    fn a_success_rate_of_99_percent_and_half_a_second_are_allowed() {
        let mut life = ready();
        minutes(&mut life, 1..30, Bucket { requests: 1_000, http_5xx: 10, p99: 500.0, ..Bucket::default() });
        assert_eq!(Flagger.decides(&life), None);
        minutes(&mut life, 1..30, Bucket { requests: 1_000, p99: 501.0, ..Bucket::default() });
        assert_eq!(Flagger.decides(&life), Some(6 * MINUTE));
    }

    #[test]
    fn a_canary_without_progress_is_rolled_back_after_ten_minutes() {
        assert_eq!(Flagger.decides(&quiet(1)), Some(10 * MINUTE));
    }
}
