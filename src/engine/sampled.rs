//! The traffic gates: how the requests to green fare, minute by minute, beside those to blue.

use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::{self, Control};
use super::partition::Deployment;
use super::roles::Roles;
use super::{Finding, GateState};
use crate::model::{
    Comparator, Evidence, Gate, Observation, Role, Sample, SampleAsk, Samples, TargetGroupArn, Timestamp, TrafficRule,
    Unit, humane, percent,
};
use crate::rules::{LEAST_TRAFFIC, Rule};

/// Least span between two reads of one service's metrics: each is paid for, and says something new once a minute.
pub(super) const GAP: Duration = Duration::from_secs(30);

/// What a look says holds no longer than this: CloudWatch has newer minutes by then.
pub(super) const FRESH: Duration = Duration::from_mins(1);

/// More minutes than this are another deployment's weather, and an answer of many pages.
const LONGEST: Duration = Duration::from_hours(1);

/// In less there may not be the two minutes that a latency takes: CloudWatch tells of a minute up to two after its end.
const LEAST_LATENCY: Duration = Duration::from_mins(5);

/// Single minutes that evidence carries.
const FACTS: usize = 8;

/// Minutes without which what they tell is chance.
const LEAST_MINUTES: usize = 2;

/// What the last read of the metrics found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sampled {
    /// When it was sent.
    pub(super) read_at: Timestamp,
    /// `None` when CloudWatch could not be read.
    pub(super) samples: Option<Samples>,
}

/// What to ask for. Nothing when there is no target group.
pub(super) fn ask(now: Timestamp, rule: &Rule, deployment: &Deployment) -> Option<SampleAsk> {
    let green = deployment.green_group.clone()?;
    let groups = deployment.blue_group.clone().into_iter().chain([green]).collect();
    Some(SampleAsk { groups, from: Sample::minute_of(now.minus(span(rule))) })
}

/// How far back minutes count.
fn span(rule: &Rule) -> Duration {
    let shortest = if rule.errors.latency_p99.is_some() { LEAST_LATENCY } else { LEAST_TRAFFIC };
    rule.stability.window.max(shortest).min(LONGEST).min(rule.watch.freshness)
}

/// A gate on traffic, looked at.
pub(super) struct Judged {
    pub(super) finding: Finding,
    /// It is over, and blue's requests fail as well, or did when they could last be compared.
    pub(super) met_by_blue: bool,
}

impl From<Finding> for Judged {
    fn from(finding: Finding) -> Self {
        Self { finding, met_by_blue: false }
    }
}

/// The gates on traffic that the rule has.
pub(super) fn judge(
    now: Timestamp,
    rule: &Rule,
    roles: Roles<'_>,
    seen: &Observation,
    (sampled, shared): (Option<&Sampled>, &[Gate]),
    control: &Control,
) -> Vec<Judged> {
    let ratio = rule.errors.http_5xx_ratio.map(|limit| (Gate::Http5xxRatio, limit));
    let latency = rule.errors.latency_p99.map(|limit| (Gate::LatencyP99, limit.as_secs_f64()));
    let gates = || [ratio.clone(), latency.clone()].into_iter().flatten();
    let blocked = |state, why: &str| {
        gates().map(|(gate, _)| Finding { gate, state, evidence: None, why: why.to_owned() }.into()).collect()
    };
    let samples = match countable(roles, seen).and(Ok(sampled)) {
        Err(why) => return blocked(GateState::Blind, why),
        Ok(None) => return blocked(GateState::Pending, "its traffic was not read yet"),
        Ok(Some(Sampled { samples: None, .. })) => {
            return blocked(GateState::Blind, "CloudWatch's metrics could not be read");
        }
        Ok(Some(Sampled { samples: Some(samples), read_at })) => {
            let (green, blue) = (roles.green.target_group.as_ref(), roles.blue.target_group.as_ref());
            Minutes::of(now, rule, *read_at, samples, (green, blue, roles.green.created_at))
        }
    };
    if samples.green.is_empty() {
        let why =
            format!("CloudWatch has counted no requests to green in a whole minute of the last {}", humane(span(rule)));
        return blocked(GateState::Blind, &why);
    }
    // An outage that blue's users met makes answers fail and makes them slow: what one gate has seen of it holds for both.
    let shared_before = shared.iter().any(Gate::is_of_traffic);
    gates()
        .map(|(gate, limit)| finding(now, rule, roles, &samples, (shared_before, control), Measure { gate, limit }))
        .collect()
}

/// Shares of the requests that failed, of blue's and of green's, for whoever looks on.
pub(super) fn failed_shares(now: Timestamp, rule: &Rule, deployment: &Deployment) -> (Option<f64>, Option<f64>) {
    let Some(Sampled { read_at, samples: Some(samples) }) = &deployment.sampled else { return (None, None) };
    let groups = (deployment.green_group.as_ref(), deployment.blue_group.as_ref(), deployment.began_at);
    let minutes = Minutes::of(now, rule, *read_at, samples, groups);
    (Sum::of(&minutes.blue).share(), Sum::of(&minutes.green).share())
}

/// How requests to the two fare in the same minutes, for a gate that has no numbers of its own.
#[derive(Debug)]
pub(super) struct Beside {
    /// In plain words.
    pub(super) words: String,
    /// Blue fails, and not much less than green.
    pub(super) shared: bool,
    /// Green fails.
    pub(super) green_fails: bool,
}

/// Blue fails when more than this share of its requests does.
const FAILING: f64 = 0.01;

/// And green is not much worse while its share is at most so many times blue's.
const MUCH_WORSE: f64 = 2.0;

/// Nor much slower while it takes at most so many times as long.
const MUCH_SLOWER: f64 = 1.5;

/// Blue fails, and green, with so many requests, by no more than chance makes of twice as much.
fn not_much_worse(of_green: f64, of_blue: f64, requests: f64) -> bool {
    let most = requests * of_blue * MUCH_WORSE;
    of_blue > FAILING && requests * of_green <= most + control::DEVIATIONS * most.sqrt()
}

/// The two, side by side. `None` when that was not read, or with too few requests to blue. Green may have few: chance is allowed for.
pub(super) fn beside(
    now: Timestamp,
    rule: &Rule,
    roles: Roles<'_>,
    seen: &Observation,
    sampled: Option<&Sampled>,
) -> Option<Beside> {
    let Sampled { read_at, samples: Some(samples) } = sampled? else { return None };
    countable(roles, seen).ok()?;
    let groups = (roles.green.target_group.as_ref(), roles.blue.target_group.as_ref(), roles.green.created_at);
    let minutes = Minutes::of(now, rule, *read_at, samples, groups);
    let (green, blue) = (Sum::of(&minutes.green), Sum::of(&minutes.blue));
    let least = u64::from(rule.errors.min_requests);
    let (of_green, of_blue) = (green.share()?, blue.share()?);
    let shared = not_much_worse(of_green, of_blue, green.requests());
    let words = format!(
        "{} of green's {} requests and {} of blue's {} failed in the same minutes",
        percent(of_green),
        green.requests,
        percent(of_blue),
        blue.requests
    );
    let green_fails = of_green > FAILING;
    (blue.requests >= least).then_some(Beside { words, shared, green_fails })
}

/// Blue has requests enough to tell, with green or without, and they do not fail.
pub(super) fn blue_is_well(now: Timestamp, rule: &Rule, roles: Roles<'_>, sampled: Option<&Sampled>) -> bool {
    let Some(Sampled { read_at, samples: Some(samples) }) = sampled else { return false };
    let from = now.minus(span(rule)).max(roles.green.created_at);
    let of_blue = Sum::of(&whole(samples, roles.blue.target_group.as_ref(), (from, *read_at)));
    of_blue.requests >= u64::from(rule.errors.min_requests) && of_blue.share().is_some_and(|share| share <= FAILING)
}

/// Whether a look at the traffic could tell whose fault it is that something is wrong since then, and was not taken yet.
pub(super) fn is_wanted(now: Timestamp, roles: Roles<'_>, since: Timestamp, sampled: Option<&Sampled>) -> bool {
    let can_tell = roles.green.target_group.is_some() && roles.blue.target_group.is_some();
    // CloudWatch has something new to say once a minute: a look taken a moment before will do.
    let taken = |sampled: &Sampled| {
        let age = now.since(sampled.read_at);
        age < GAP || (sampled.read_at >= since && age <= FRESH)
    };
    can_tell && !sampled.is_some_and(taken)
}

/// Why the load balancer's metrics can't tell how green fares.
fn countable(roles: Roles<'_>, seen: &Observation) -> Result<(), &'static str> {
    let Some(green) = roles.green.target_group.as_ref() else {
        return Err("green has no target group: nobody counts its requests");
    };
    if roles.blue.target_group.as_ref() == Some(green) {
        return Err("green and blue share a target group: CloudWatch can't tell their requests apart");
    }
    let mut naming = seen.traffic.rules().iter().filter(|rule| rule.names(green)).peekable();
    if naming.peek().is_none() {
        return Err("no listener forwards to green's target group: there is no traffic to count");
    }
    let is_network = |rule: &TrafficRule| rule.listener.balancer().is_some_and(|name| !name.starts_with("app/"));
    if naming.all(is_network) {
        return Err("green is behind a Network Load Balancer, which counts no HTTP: use an alarm of your own");
    }
    Ok(())
}

/// The whole minutes in which green had requests, and the same ones of blue.
struct Minutes<'a> {
    green: Vec<&'a Sample>,
    blue: Vec<&'a Sample>,
}

impl<'a> Minutes<'a> {
    /// Of green's and blue's group, from green's creation on: before it, the group was another version's.
    fn of(
        now: Timestamp,
        rule: &Rule,
        read_at: Timestamp,
        samples: &'a Samples,
        (green, blue, created_at): (Option<&TargetGroupArn>, Option<&TargetGroupArn>, Timestamp),
    ) -> Self {
        let within = (now.minus(span(rule)).max(created_at), read_at);
        let green = whole(samples, green, within);
        let same = |sample: &&Sample| green.iter().any(|minute| minute.at == sample.at);
        let blue = whole(samples, blue, within).into_iter().filter(same).collect();
        Self { green, blue }
    }

    /// Those in which both had requests.
    fn pairs(&self) -> Vec<(&'a Sample, &'a Sample)> {
        let of_blue = |minute: &&'a Sample| self.blue.iter().find(|sample| sample.at == minute.at).copied();
        self.green.iter().filter_map(|minute| Some((*minute, of_blue(minute)?))).collect()
    }
}

/// The minutes of one group that had requests, from then on. One that was still running when it was read says nothing yet, in
/// either direction.
fn whole<'a>(
    samples: &'a Samples,
    group: Option<&TargetGroupArn>,
    (from, read_at): (Timestamp, Timestamp),
) -> Vec<&'a Sample> {
    let all = group.and_then(|group| samples.get(group)).into_iter().flatten();
    let is_whole = |sample: &&Sample| sample.at >= from && sample.at.plus(Sample::LENGTH) <= read_at;
    all.filter(is_whole).filter(|sample| sample.requests.is_some_and(|requests| requests > 0)).collect()
}

/// What minutes add up to.
#[derive(Clone, Copy, Default)]
struct Sum {
    requests: u64,
    http_5xx: u64,
    connection_errors: u64,
}

impl Sum {
    fn of(minutes: &[&Sample]) -> Self {
        minutes.iter().fold(Self::default(), |sum, minute| Self {
            requests: sum.requests.saturating_add(minute.requests.unwrap_or_default()),
            http_5xx: sum.http_5xx.saturating_add(minute.http_5xx),
            connection_errors: sum.connection_errors.saturating_add(minute.connection_errors),
        })
    }

    fn failed(self) -> u64 {
        // A request can fail at several targets.
        self.http_5xx.saturating_add(self.connection_errors).min(self.requests)
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 requests in an hour")]
    fn requests(self) -> f64 {
        self.requests as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 requests in an hour")]
    fn share(self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed() as f64 / self.requests())
    }
}

/// The median of the minutes' quantiles, the lower of two: one slow minute is none. `None` for too few minutes.
fn latency(minutes: &[&Sample]) -> Option<Duration> {
    let mut told: Vec<_> = minutes.iter().filter_map(|minute| minute.latency_p99).collect();
    told.sort_unstable();
    let middle = told.len().checked_sub(1)? / 2;
    told.get(middle).copied().filter(|_| told.len() >= LEAST_MINUTES)
}

/// What is measured of the minutes, and its bound.
struct Measure {
    gate: Gate,
    limit: f64,
}

impl Measure {
    fn is_latency(&self) -> bool {
        self.gate == Gate::LatencyP99
    }

    /// `None` when there are too few minutes to tell.
    fn of(&self, minutes: &[&Sample]) -> Option<f64> {
        if self.is_latency() { latency(minutes).map(|took| took.as_secs_f64()) } else { Sum::of(minutes).share() }
    }

    /// What green would have if each of its minutes were as blue's.
    fn as_blue(&self, minutes: &Minutes<'_>) -> Option<f64> {
        if self.is_latency() {
            return self.of(&minutes.blue);
        }
        let pairs = minutes.pairs();
        let (requests, failed) = pairs.iter().fold((0.0, 0.0), |(requests, failed), (green, blue)| {
            let of_green = Sum::of(&[green]).requests();
            (requests + of_green, failed + of_green * Sum::of(&[blue]).share().unwrap_or_default())
        });
        (requests > 0.0).then(|| failed / requests)
    }

    /// It lasts: so many minutes do not make it alone, and it is not over either.
    fn lasts(&self, minutes: &[&Sample], brief: usize) -> bool {
        if self.is_latency() || brief == 0 {
            // The latency is a median of minutes already.
            return true;
        }
        let over = |minutes: &[&Sample]| Sum::of(minutes).share().is_some_and(|share| share > self.limit);
        let mut rest = minutes.to_vec();
        rest.sort_by_key(|minute| Reverse(Sum::of(&[minute]).failed()));
        let newest = minutes.get(minutes.len().saturating_sub(LEAST_MINUTES)..).unwrap_or_default();
        over(rest.get(brief..).unwrap_or_default()) && over(newest)
    }

    /// Blue fares badly, and green not much worse.
    fn is_shared(&self, value: f64, control: f64, requests: f64) -> bool {
        let nearly =
            if self.is_latency() { value <= control * MUCH_SLOWER } else { not_much_worse(value, control, requests) };
        nearly || (control > self.limit && value - control <= self.limit)
    }

    fn words(&self, value: f64) -> String {
        if self.is_latency() { humane(Duration::try_from_secs_f64(value).unwrap_or_default()) } else { percent(value) }
    }
}

fn finding(
    now: Timestamp,
    rule: &Rule,
    roles: Roles<'_>,
    minutes: &Minutes<'_>,
    (shared_before, control): (bool, &Control),
    measure: Measure,
) -> Judged {
    let Minutes { green, blue } = minutes;
    let is_latency = measure.is_latency();
    let (of_green, of_blue) = (Sum::of(green), Sum::of(blue));
    let from = green.first().map_or(now, |minute| minute.at);
    let to = green.last().map_or(now, |minute| minute.at.plus(Sample::LENGTH));
    let least = u64::from(rule.errors.min_requests);
    let value = measure.of(green);
    let (Some(value), true) = (value, of_green.requests >= least) else {
        let why = if of_green.requests < least {
            format!("{} of {least} requests that it takes, in {}", of_green.requests, humane(to.since(from)))
        } else {
            format!("{} of {LEAST_MINUTES} minutes with a latency that it takes", green.len().min(1))
        };
        return Finding { gate: measure.gate, state: GateState::Pending, evidence: None, why }.into();
    };
    // Of a blue with as few requests as that, a share is chance.
    let as_blue = measure.as_blue(minutes).filter(|_| of_blue.requests >= least);
    let compared: Vec<_> = minutes.pairs().into_iter().map(|(green, _)| green).collect();
    let beside_blue = if is_latency { Some(value) } else { Sum::of(&compared).share() }.unwrap_or(value);
    // What blue suffers too is not green's fault; what green suffers beyond that is. And what began so stays so, also when
    // blue has no traffic any more to tell.
    let has_users = blue.last().is_some_and(|blue| green.last().is_some_and(|green| green.at == blue.at));
    let trouble = if has_users { control.trouble() } else { control.trouble_without_users() };
    let met_by_blue =
        as_blue.map_or(shared_before, |as_blue| measure.is_shared(beside_blue, as_blue, Sum::of(&compared).requests()));
    let shared = met_by_blue || !trouble.is_empty();
    // With every task that green loses some requests fail.
    let brief = if control.green_lost { 2 } else { 0 };
    let state = match (value > measure.limit, shared) {
        (false, _) => GateState::Clear,
        (true, _) if !measure.lasts(green, brief) => GateState::Pending,
        (true, true) => GateState::Shared,
        (true, false) => GateState::Breached,
    };
    let beside = match as_blue {
        Some(as_blue) => {
            format!("{} of blue's {} requests in the same minutes", measure.words(as_blue), of_blue.requests)
        }
        None if state == GateState::Shared => "it began while blue failed as well".to_owned(),
        None => format!("blue had {} requests in the same minutes, too few to compare with", of_blue.requests),
    };
    let what = if is_latency { "is the p99" } else { "failed" };
    let trouble = control::clauses(&trouble);
    let brief = if state == GateState::Pending { "; it has not lasted yet, or it is over" } else { "" };
    let why = format!(
        "{} {what} of green's {} requests in {}, {} are allowed; {beside}{trouble}{brief}",
        measure.words(value),
        of_green.requests,
        humane(to.since(from)),
        measure.words(measure.limit)
    );
    let newest = green.get(green.len().saturating_sub(FACTS)..).unwrap_or_default();
    let evidence = Evidence {
        gate: measure.gate.clone(),
        role: Role::Green,
        task_set: roles.green.id.clone(),
        value,
        comparator: Comparator::MoreThan,
        threshold: measure.limit,
        unit: if is_latency { Unit::Seconds } else { Unit::Share },
        from,
        to,
        facts: std::iter::once(beside).chain(newest.iter().map(|minute| fact(minute))).collect(),
    };
    let met_by_blue = met_by_blue && state == GateState::Shared;
    Judged { finding: Finding { gate: measure.gate, state, evidence: Some(evidence), why }, met_by_blue }
}

/// One minute of green, as people read it.
fn fact(minute: &Sample) -> String {
    let Sample { at, requests, http_5xx, connection_errors, latency_p99 } = minute;
    let requests = requests.unwrap_or_default();
    let took = latency_p99.map(|took| format!(", p99 {}", humane(took))).unwrap_or_default();
    format!(
        "{at} green had {requests} requests: {http_5xx} answered 5xx, {connection_errors} without a connection{took}"
    )
}
