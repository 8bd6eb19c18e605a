//! Other rules that roll a deployment back, each as its public documentation tells, on the same recorded life.
//!
//! Where a documentation leaves something open, the rule gets the answer that lets it find more.

pub mod alarms;
pub mod argo;
pub mod breaker;
pub mod count;
pub mod flagger;

use super::life::{Bucket, Life, Ms};

/// A rule.
pub trait Peer: Sync {
    /// In tables.
    fn name(&self) -> &'static str;

    /// It is documented as it stands.
    fn is_documented(&self) -> bool {
        true
    }

    /// When it rolls back, if it does.
    fn decides(&self, life: &Life) -> Option<Ms>;
}

/// How old what Prometheus tells is: its default is to scrape every minute, its own examples do every 15 seconds.
pub const SCRAPE: Ms = 15_000;

/// All but the plain count.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(breaker::Breaker { reset_on_healthy: true, completes: true }),
        Box::new(breaker::Breaker { reset_on_healthy: false, completes: true }),
        Box::new(breaker::Breaker { reset_on_healthy: false, completes: false }),
        Box::new(alarms::Alarms),
        Box::new(flagger::Flagger),
        Box::new(argo::BACKGROUND),
        Box::new(argo::STEPS),
    ]
}

/// What green's users saw in a span, as a Prometheus shows it.
fn scraped(life: &Life, from: Ms, to: Ms) -> Option<Bucket> {
    let sum = Bucket::sum(life.traffic(taskset_guardian::model::Role::Green, from.max(0), to));
    // A mesh sees what the load balancer would answer itself, too.
    let all = Bucket { requests: sum.requests + sum.refused, http_5xx: sum.http_5xx + sum.refused, refused: 0, ..sum };
    (all.requests > 0).then_some(all)
}

#[cfg(test)]
mod lives {
    //! Lives in which only what a test is about happens.

    use taskset_guardian::model::Role;

    use super::super::class::Class;
    use super::super::life::{BEFORE, BUCKET, Bucket, Cause, End, HORIZON, Life, MINUTE, Ms, TaskLife};

    /// Green of so many tasks, none of which exists yet, and users from the beginning on.
    pub(super) fn quiet(size: u32) -> Life {
        let buckets = usize::try_from((BEFORE + HORIZON) / BUCKET).expect("a life's length");
        let sound = vec![Bucket { requests: 1_000, p99: 200.0, ..Bucket::default() }; buckets];
        Life {
            class: Class::SlowStart,
            size,
            seed: 0,
            desired: vec![(-BEFORE, size)],
            weights: vec![(0, 10)],
            tasks: Vec::new(),
            blue: sound.clone(),
            green: sound,
            metrics_lag: 90_000,
            red: None,
            onset: None,
        }
    }

    /// Green's traffic of these minutes, the first of which is 0, looks like this.
    pub(super) fn minutes(life: &mut Life, minutes: std::ops::Range<Ms>, bucket: Bucket) {
        for minute in minutes {
            let first = usize::try_from((BEFORE + minute * MINUTE) / BUCKET).expect("a life's length");
            for place in first..first + usize::try_from(MINUTE / BUCKET).expect("a life's length") {
                life.green[place] = bucket;
            }
        }
    }

    /// A task of green that ran and ended.
    pub(super) fn task(life: &mut Life, running: Option<Ms>, healthy: Option<Ms>, ended: Option<(Ms, Cause)>) {
        let created = running.unwrap_or(0).min(ended.map_or(Ms::MAX, |(at, _)| at)) - 20_000;
        let end = ended.map(|(at, cause)| End { at, stopped: at + 1_000, cause });
        life.tasks.push(TaskLife { role: Role::Green, created, running, healthy, unhealthy: None, end });
    }
}
