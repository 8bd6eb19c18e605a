//! CloudWatch alarms that stop a deployment, as CodeDeploy and ECS can be told to.
//!
//! Amazon CloudWatch User Guide, "Using Amazon CloudWatch alarms", "Evaluating an alarm": an alarm goes into ALARM when M of
//! the last N data points breach; with M = N they must be consecutive. The numbers are AWS's own example for a load
//! balancer, Incident Detection and Response User Guide, "Example use cases for CloudWatch alarms"
//! (<https://docs.aws.amazon.com/IDR/latest/userguide/idr-ex-alarm-use-cases.html>), use case A: period 60 seconds, 3 out
//! of 3. Missing data is not breaching: a group without errors has none.
//!
//! Three alarms on green's target group: more than 5 % of the requests fail (the recommended threshold of a 5xx rate,
//! "Recommended alarms", API Gateway `5XXError`), `UnHealthyHostCount` of one or more, and a p99 of more than 800 ms, which
//! is what the guardian's rule says.

use taskset_guardian::model::Role;

use super::Peer;
use crate::detection::life::{Bucket, HORIZON, Life, MINUTE, Ms};

/// 3 of 3 minutes.
pub struct Alarms;

const DATAPOINTS: u32 = 3;
const ERROR_SHARE: f64 = 0.05;
const P99: f64 = 800.0;

impl Peer for Alarms {
    fn name(&self) -> &'static str {
        "cloudwatch alarms, 3 of 3"
    }

    fn decides(&self, life: &Life) -> Option<Ms> {
        let alarms: [fn(&Life, Ms) -> bool; 3] = [too_many_errors, unhealthy_hosts, too_slow];
        let mut in_a_row = [0; 3];
        for minute in 0..HORIZON / MINUTE {
            let begins = minute * MINUTE;
            let known = begins + MINUTE + life.metrics_lag;
            for (count, breaches) in in_a_row.iter_mut().zip(alarms) {
                *count = if breaches(life, begins) { *count + 1 } else { 0 };
            }
            if in_a_row.iter().any(|count| *count >= DATAPOINTS) && known < HORIZON {
                return Some(known);
            }
        }
        None
    }
}

fn sum(life: &Life, begins: Ms) -> Bucket {
    Bucket::sum(life.traffic(Role::Green, begins, begins + MINUTE))
}

fn too_many_errors(life: &Life, begins: Ms) -> bool {
    sum(life, begins).error_share().is_some_and(|share| share > ERROR_SHARE)
}

fn too_slow(life: &Life, begins: Ms) -> bool {
    let sum = sum(life, begins);
    sum.requests > 0 && sum.p99 > P99
}

/// The statistic is Maximum: it is enough that there was one at some time of the minute.
fn unhealthy_hosts(life: &Life, begins: Ms) -> bool {
    life.of(Role::Green).any(|task| {
        let until = task.end.map_or(Ms::MAX, |end| end.at);
        task.unhealthy.is_some_and(|from| from < begins + MINUTE && until > begins)
    })
}

#[cfg(test)]
mod tests {
    use super::super::lives::{minutes, quiet, task};
    use super::*;
    use crate::detection::life::Cause;

    /// Requests of one bucket, so many of them 5xx.
    fn errors(http_5xx: u64) -> Bucket {
        Bucket { requests: 1_000, http_5xx, p99: 200.0, ..Bucket::default() }
    }

    #[test]
    fn three_consecutive_minutes_above_the_threshold_are_an_alarm() {
        let mut life = quiet(4);
        minutes(&mut life, 4..7, errors(60));
        assert_eq!(Alarms.decides(&life), Some(7 * MINUTE + life.metrics_lag));
    }

    #[test]
    fn two_of_three_are_none_and_missing_data_does_not_breach() {
        let mut life = quiet(4);
        minutes(&mut life, 4..10, errors(60));
        for gap in [6, 9] {
            minutes(&mut life, gap..gap + 1, Bucket::default());
        }
        assert_eq!(Alarms.decides(&life), None);
        minutes(&mut life, 0..30, errors(50));
        assert_eq!(Alarms.decides(&life), None, "five in a hundred are allowed");
    }

    #[test]
    fn a_host_that_stays_unhealthy_and_answers_that_stay_slow_are_alarms_too() {
        let mut life = quiet(4);
        task(&mut life, Some(30_000), None, Some((4 * MINUTE, Cause::FailedChecks)));
        if let Some(task) = life.tasks.last_mut() {
            task.unhealthy = Some(65_000);
        }
        assert_eq!(Alarms.decides(&life), Some(4 * MINUTE + life.metrics_lag));

        let mut life = quiet(4);
        minutes(&mut life, 2..9, Bucket { p99: 900.0, ..errors(0) });
        assert_eq!(Alarms.decides(&life), Some(5 * MINUTE + life.metrics_lag));
    }
}
