//! How live deployments went lately: what the status page draws. Memory only; after a restart it begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::engine::{DeploymentView, ServiceView};
use crate::model::{ServiceKey, TaskSetId, Timestamp};

/// Samples of one deployment. When there are more, every second one goes: an hour is drawn as well as a minute.
const MOST: usize = 240;

/// Without any change, a sample is taken this often.
const AT_LEAST_EVERY: Duration = Duration::from_secs(10);

/// One moment of a deployment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Green's share of the traffic, 0 to 1; absent without a load balancer.
    pub green_share: Option<f64>,
    /// Failed tasks of green in its window.
    pub green_failures: u32,
    /// The same of blue.
    pub blue_failures: u32,
}

impl Sample {
    fn of(at: Timestamp, deployment: &DeploymentView) -> Self {
        let DeploymentView { split, green_failures, blue_failures, .. } = deployment;
        let green_share = split.map(|split| split.green);
        Self { at, green_share, green_failures: *green_failures, blue_failures: *blue_failures }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        Self { at: other.at, ..*self } == *other
    }
}

#[derive(Debug)]
struct Trail {
    green: TaskSetId,
    samples: VecDeque<Sample>,
}

/// Trails by service.
#[derive(Debug, Default)]
pub struct History(Mutex<BTreeMap<ServiceKey, Trail>>);

impl History {
    /// Takes a sample of a service. Another green begins another trail; without a deployment there is none.
    pub fn show(&self, view: &ServiceView, now: Timestamp) {
        let mut trails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(deployment) = &view.deployment else {
            trails.remove(&view.service);
            return;
        };
        let begun = || Trail { green: deployment.green.clone(), samples: VecDeque::new() };
        let trail = trails.entry(view.service.clone()).or_insert_with(begun);
        if trail.green != deployment.green {
            *trail = begun();
        }
        let sample = Sample::of(now, deployment);
        let last = trail.samples.back();
        if last.is_some_and(|last| last.says_the_same(&sample) && sample.at.since(last.at) < AT_LEAST_EVERY) {
            return;
        }
        trail.samples.push_back(sample);
        if trail.samples.len() > MOST {
            let mut odd = false;
            trail.samples.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }

    /// The service is not protected any more.
    pub fn forget(&self, key: &ServiceKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Samples of the service's deployment, oldest first.
    pub fn of(&self, key: &ServiceKey) -> Vec<Sample> {
        let trails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trails.get(key).map(|trail| trail.samples.iter().copied().collect()).unwrap_or_default()
    }
}
