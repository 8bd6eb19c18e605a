//! The deployment circuit breaker of Amazon ECS.
//!
//! Amazon ECS Developer Guide, "How the Amazon ECS deployment circuit breaker detects failures"
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>): the threshold is half
//! the desired count, three at least and 200 at most; first, tasks that do not reach RUNNING are counted, and once one has,
//! those that fail their health checks. API reference, `DeploymentCircuitBreaker` and `ThresholdConfiguration`: by default
//! a task that is found healthy takes the count back to zero; `resetOnHealthyTask = false` counts on. The circuit breaker
//! watches until the deployment is COMPLETED, which it is when it is steady.
//!
//! A task that ran and exited is counted here too, which the documentation promises for tasks that have not passed their
//! health checks only.

use taskset_guardian::model::Role;

use super::Peer;
use crate::detection::life::{BUCKET, Cause, HORIZON, Life, Ms};

/// With its two choices.
pub struct Breaker {
    /// A healthy task takes the count back to zero: the default.
    pub reset_on_healthy: bool,
    /// It is done when the deployment is steady. ECS offers nothing else; what it could do in a bake time is shown without.
    pub completes: bool,
}

/// `BOUNDED_PERCENT` of 50, the default.
fn threshold(desired: u32) -> u32 {
    desired.div_ceil(2).clamp(3, 200)
}

impl Peer for Breaker {
    fn name(&self) -> &'static str {
        match (self.reset_on_healthy, self.completes) {
            (true, _) => "ecs circuit breaker",
            (false, true) => "ecs breaker, cumulative",
            (false, false) => "(ecs breaker that is never done)",
        }
    }

    fn is_documented(&self) -> bool {
        self.completes
    }

    fn decides(&self, life: &Life) -> Option<Ms> {
        let done = self.completes.then(|| completed(life)).flatten().unwrap_or(HORIZON);
        let mut happened: Vec<(Ms, bool)> = Vec::new();
        for task in life.of(Role::Green) {
            happened.extend(task.healthy.map(|at| (at, false)));
            let failed = task.end.filter(|end| failed(end.cause));
            happened.extend(failed.map(|end| (end.at, true)));
        }
        happened.sort_unstable();
        let mut count = 0;
        for (at, failed) in happened.into_iter().filter(|(at, _)| *at < done) {
            if failed {
                count += 1;
            } else if self.reset_on_healthy {
                count = 0;
            }
            if count >= threshold(life.desired_at(at)) {
                return Some(at);
            }
        }
        None
    }
}

fn failed(cause: Cause) -> bool {
    matches!(cause, Cause::Crashed | Cause::OutOfMemory | Cause::FailedChecks | Cause::CannotPull)
}

fn completed(life: &Life) -> Option<Ms> {
    (0..HORIZON / BUCKET).map(|n| n * BUCKET).find(|at| life.is_steady(Role::Green, *at))
}

#[cfg(test)]
mod tests {
    use super::super::lives::{quiet, task};
    use super::*;

    const DEFAULT: Breaker = Breaker { reset_on_healthy: true, completes: true };
    const CUMULATIVE: Breaker = Breaker { reset_on_healthy: false, completes: true };
    const NEVER_DONE: Breaker = Breaker { reset_on_healthy: false, completes: false };

    #[test]
    fn the_thresholds_are_those_of_the_documentations_table() {
        let table = [(1, 3), (25, 13), (400, 200), (800, 200)];
        assert_eq!(table.map(|(desired, _)| (desired, threshold(desired))), table);
    }

    #[test]
    fn three_tasks_of_one_that_can_not_start_fail_the_deployment() {
        let mut life = quiet(1);
        for at in [30_000, 60_000] {
            task(&mut life, None, None, Some((at, Cause::CannotPull)));
        }
        assert_eq!(DEFAULT.decides(&life), None);
        task(&mut life, None, None, Some((90_000, Cause::CannotPull)));
        assert_eq!(DEFAULT.decides(&life), Some(90_000));
    }

    #[test]
    fn a_healthy_task_takes_the_count_back_unless_it_is_cumulative() {
        let mut life = quiet(4);
        for (running, ended) in [(20_000, 30_000), (40_000, 50_000)] {
            task(&mut life, Some(running), None, Some((ended, Cause::Crashed)));
        }
        task(&mut life, Some(30_000), Some(55_000), None);
        task(&mut life, Some(70_000), None, Some((80_000, Cause::FailedChecks)));
        assert_eq!(DEFAULT.decides(&life), None);
        assert_eq!(CUMULATIVE.decides(&life), Some(80_000));
    }

    #[test]
    fn once_steady_it_is_done() {
        let mut life = quiet(1);
        task(&mut life, Some(20_000), Some(40_000), Some((100_000, Cause::Crashed)));
        for at in [130_000, 160_000, 190_000] {
            task(&mut life, Some(at - 10_000), None, Some((at, Cause::Crashed)));
        }
        assert_eq!((DEFAULT.decides(&life), CUMULATIVE.decides(&life)), (None, None));
        assert_eq!(NEVER_DONE.decides(&life), Some(160_000));
    }

    #[test]
    fn spot_and_people_are_no_failures() {
        let mut life = quiet(1);
        for at in [100_000, 130_000, 160_000, 190_000] {
            task(&mut life, Some(at - 10_000), None, Some((at, Cause::Spot)));
            task(&mut life, Some(at - 10_000), None, Some((at, Cause::Operator)));
        }
        assert_eq!(NEVER_DONE.decides(&life), None);
    }
}
