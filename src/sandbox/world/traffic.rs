//! User traffic: one second of requests at a time, split by the rules that are in force and by the users' cookies.

use std::collections::BTreeMap;
use std::time::Duration;

use super::behaviour::Version;
use super::elb::{Cookie, Rule, forwards};
use super::health::Health;
use super::{Happening, World};
use crate::model::{Forward, ServiceKey, Split, TargetGroupArn, Timestamp};

/// So many people use a service at a time; each keeps a cookie of its own.
const USERS: u32 = 500;
/// After one request in so many a person leaves and another comes, without a cookie. Were they always the same, a sticky
/// rule would never show anybody a new version.
const VISIT: u32 = 20;

/// What one target group answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Task definition of the newest task set there, as in `checkout:88`.
    pub version: Option<String>,
    /// All requests.
    pub requests: u64,
    /// Those that ended with a 5xx, whoever said it.
    pub failed: u64,
}

/// Traffic of one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficView {
    /// What the rules say, averaged over them.
    pub configured: Split,
    /// Where the users' requests went in the last second.
    pub effective: Split,
    /// Since the deployment began.
    pub blue: Tally,
    /// Since the deployment began.
    pub green: Tally,
}

impl TrafficView {
    /// All requests since the deployment began.
    pub fn requests(&self) -> u64 {
        self.blue.requests.saturating_add(self.green.requests)
    }

    /// Failed requests since the deployment began.
    pub fn failed(&self) -> u64 {
        self.blue.failed.saturating_add(self.green.failed)
    }
}

/// Counters per target group.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    total: BTreeMap<String, Tally>,
    last_second: BTreeMap<String, u32>,
}

/// One answer to a user.
enum Answer {
    /// A target answered, after this long.
    Target { failed: bool, latency: Duration },
    /// The load balancer did, because the target was gone (502).
    Unreachable,
    /// The load balancer did, without a healthy target (503).
    Balancer,
}

/// The healthy targets of the groups: whether the task still runs, and how its version behaves.
type Targets = BTreeMap<String, Vec<(bool, Version)>>;

impl World {
    /// Traffic of one service, for people to look at.
    pub fn traffic(&self, key: &ServiceKey) -> Option<TrafficView> {
        let service = self.services.get(key)?;
        let (Some(blue), Some(green)) = (service.blue_group(), service.green_group()) else {
            return Some(TrafficView::default());
        };
        let (mut configured, mut rules) = (Split::default(), 0.0);
        let production = self.balancer.rules_of(key).filter(|rule| rule.has_users);
        for forward in production.flat_map(|rule| forwards(&rule.actions)) {
            configured.blue += forward.share(&TargetGroupArn::new(blue));
            configured.green += forward.share(&TargetGroupArn::new(green));
            rules += 1.0;
        }
        let last = |group: &str| f64::from(service.tallies.last_second.get(group).copied().unwrap_or(0));
        let sum = last(blue) + last(green);
        let tally = |group: &str| {
            let newest = service.task_sets.iter().rev().find(|set| set.group.as_deref() == Some(group));
            let version = newest.map(|set| set.task_definition.clone());
            let total = service.tallies.total.get(group).cloned().unwrap_or_default();
            Tally { version: version.or_else(|| total.version.clone()), ..total }
        };
        Some(TrafficView {
            configured: part(configured.blue, configured.green, rules),
            effective: part(last(blue), last(green), sum),
            blue: tally(blue),
            green: tally(green),
        })
    }

    pub(super) fn traffic_second(&mut self) {
        let targets = self.healthy_targets();
        for key in self.services.keys().cloned().collect::<Vec<_>>() {
            self.service_second(&key, &targets);
        }
        self.plan(Duration::from_secs(1), Happening::TrafficSecond);
    }

    fn healthy_targets(&self) -> Targets {
        let mut targets = Targets::new();
        for task in self.tasks.values() {
            if let Some(target) = task.target.as_ref().filter(|target| target.health == Health::Healthy) {
                let entry = (task.is_running(), self.behaviour(task));
                targets.entry(target.group.clone()).or_default().push(entry);
            }
        }
        targets
    }

    fn service_second(&mut self, key: &ServiceKey, targets: &Targets) {
        let Some(service) = self.services.get_mut(key) else { return };
        service.tallies.last_second.clear();
        for set in &service.task_sets {
            // Remembered beyond the task set's end.
            if let Some(group) = &set.group {
                let tally = service.tallies.total.entry(group.clone()).or_default();
                tally.version = Some(set.task_definition.clone());
            }
        }
        let routes: Vec<usize> = (0..)
            .zip(&self.balancer.rules)
            .filter_map(|(at, rule)| (rule.has_users && rule.service.as_ref() == Some(key)).then_some(at))
            .collect();
        for _ in 0..service.requests_per_second {
            let Some(at) = self.users.choice(&routes) else { return };
            let Some(rule) = self.balancer.rules.get_mut(*at) else { return };
            let user = self.users.u32(0..USERS);
            if self.users.u32(0..VISIT) == 0 {
                rule.cookies.remove(&user);
            }
            let Some(group) = choose(&mut self.users, rule, user, self.now) else { continue };
            let answer = answer(&mut self.users, targets.get(group.as_str()));
            let bucket = (group.as_str().to_owned(), bucket(self.now));
            let failed = match answer {
                Answer::Target { failed, latency } => {
                    self.metrics.entry(bucket).or_default().record(failed, latency);
                    failed
                }
                Answer::Unreachable => {
                    self.metrics.entry(bucket).or_default().record_unreachable();
                    true
                }
                Answer::Balancer => true,
            };
            let tally = service.tallies.total.entry(group.as_str().to_owned()).or_default();
            tally.requests += 1;
            tally.failed += u64::from(failed);
            *service.tallies.last_second.entry(group.as_str().to_owned()).or_default() += 1;
        }
    }
}

/// The ten seconds that a moment belongs to, by their first millisecond. A request of the second that ends now counts
/// as sent within it.
fn bucket(now: Timestamp) -> i64 {
    (now.as_millis() - 1).div_euclid(super::cloudwatch::BUCKET) * super::cloudwatch::BUCKET
}

fn part(blue: f64, green: f64, whole: f64) -> Split {
    if whole > 0.0 { Split { blue: blue / whole, green: green / whole } } else { Split::default() }
}

/// A cookie outranks the weights, as long as the action still names its group.
fn choose(rng: &mut fastrand::Rng, rule: &mut Rule, user: u32, now: Timestamp) -> Option<TargetGroupArn> {
    let forward = forwards(&rule.in_force).next()?;
    let cookie = rule.cookies.entry(user).or_default();
    let stays = forward.is_sticky().then(|| cookie.as_ref().filter(|(_, until)| now < *until)).flatten();
    if let Some((group, _)) = stays.filter(|(group, _)| forward.names(group)) {
        return Some(group.clone());
    }
    let group = weighted(rng, forward)?;
    *cookie = new_cookie(forward, &group, now);
    Some(group)
}

fn new_cookie(forward: &Forward, group: &TargetGroupArn, now: Timestamp) -> Cookie {
    let seconds = forward.stickiness.as_ref().and_then(|sticky| sticky.duration_seconds).unwrap_or(0);
    let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    forward.is_sticky().then(|| (group.clone(), now.plus(lasts)))
}

fn weighted(rng: &mut fastrand::Rng, forward: &Forward) -> Option<TargetGroupArn> {
    let total: u32 = forward.groups.iter().map(crate::model::WeightedGroup::effective_weight).sum();
    let mut ticket = (total > 0).then(|| rng.u32(0..total))?;
    for group in &forward.groups {
        match ticket.checked_sub(group.effective_weight()) {
            Some(rest) => ticket = rest,
            None => return Some(group.target_group.clone()),
        }
    }
    None
}

fn answer(rng: &mut fastrand::Rng, targets: Option<&Vec<(bool, Version)>>) -> Answer {
    match targets.and_then(|targets| rng.choice(targets)) {
        Some((true, version)) => {
            Answer::Target { failed: rng.f64() < version.error_rate, latency: version.latency.mul_f64(0.5 + rng.f64()) }
        }
        Some((false, _)) => Answer::Unreachable,
        None => Answer::Balancer,
    }
}
