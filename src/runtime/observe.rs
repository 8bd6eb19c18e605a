//! One observation: a round of reads that go out together, put into one answer for the engine.
//!
//! Rules and target health can only be asked for by target group, and the groups are in the answer of `DescribeServices`.
//! Between deployments they do not change, so those of the last observation are asked for at once. When the answer then
//! shows others, they are read again. So a rollback waits for one round of reads, then writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::executor::Observe;
use super::lanes::Lanes;
use super::together::Together;
use crate::model::{
    AlarmReading, Ask, CallError, Controller, ErrorClass, Observation, Samples, ServiceKey, ServiceReading,
    TargetCounts, TargetGroupArn, TaskReading, TaskSet, TaskSetId, Timestamp, Traffic, TrafficRule, Urgency, humane,
};
use crate::ports::{Alarms, Clock, Fleet, LoadBalancers, TrafficMetrics};

/// Every question gets an answer within this. Longer than one call with one retry; what comes later rests on reads that
/// are too old to act on. It bounds real calls, so it is real time, also where the clock runs faster.
const LIMIT: Duration = Duration::from_secs(15);

/// Alarms and metrics may be missing from an observation, so they get no chance to use up its time: a CloudWatch that
/// hangs must not make every observation too old to act on.
const CLOUDWATCH_LIMIT: Duration = Duration::from_secs(3);

/// For the search through all alarms of an account, where no user waits for the read: fifty pages at nine calls a second take
/// six. Half of [`LIMIT`], so that what is read after it still finds its time.
const LISTING_LIMIT: Duration = Duration::from_secs(8);

/// Reads services.
pub struct Observer {
    fleet: Lanes<dyn Fleet>,
    services: Together,
    balancers: Lanes<dyn LoadBalancers>,
    alarms: Arc<dyn Alarms>,
    metrics: Option<Arc<dyn TrafficMetrics>>,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<ServiceKey, Known>>,
    /// The last answer to a search through all alarms, and when it was begun.
    listing: tokio::sync::Mutex<Option<(Instant, Vec<AlarmReading>)>>,
    /// Alarms that no rule names and that watch nothing of the service are told too.
    all_alarms: bool,
    limit: Duration,
    cloudwatch_limit: Duration,
    listing_limit: Duration,
}

/// What the last observation of a service found: a guess at what the next one will ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    groups: BTreeSet<TargetGroupArn>,
    ids: Vec<TaskSetId>,
    /// The `LoadBalancer` dimension of the one that each group is behind.
    balancers: BTreeMap<TargetGroupArn, Arc<str>>,
}

/// What the load balancers say.
struct Balance {
    rules: Vec<TrafficRule>,
    targets: BTreeMap<TargetGroupArn, TargetCounts>,
}

impl Observer {
    /// Knows no target groups yet.
    #[allow(clippy::needless_pass_by_value, reason = "as `with_metrics` does")]
    pub fn new(
        fleet: Arc<dyn Fleet>,
        balancers: Arc<dyn LoadBalancers>,
        alarms: Arc<dyn Alarms>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (fleet, balancers) = (Lanes::one(&fleet), Lanes::one(&balancers));
        let (known, services) = (Mutex::default(), Together::new(fleet.clone()));
        let (limit, cloudwatch_limit, listing_limit) = (LIMIT, CLOUDWATCH_LIMIT, LISTING_LIMIT);
        Self {
            fleet,
            services,
            balancers,
            alarms,
            metrics: None,
            clock,
            known,
            listing: tokio::sync::Mutex::default(),
            all_alarms: false,
            limit,
            cloudwatch_limit,
            listing_limit,
        }
    }

    /// Tells of all alarms of the account, where they were searched: for whoever examines a service. What is watched goes into the
    /// journal, and an account may have thousands.
    #[must_use]
    pub fn with_all_alarms(self) -> Self {
        Self { all_alarms: true, ..self }
    }

    /// Reads ECS and the load balancers by a way of its own for each urgency, which does not wait for the others.
    #[must_use]
    pub fn with_lanes(self, at: impl Fn(Urgency) -> (Arc<dyn Fleet>, Arc<dyn LoadBalancers>)) -> Self {
        let (fleet, balancers) = (Lanes::each(|urgency| at(urgency).0), Lanes::each(|urgency| at(urgency).1));
        Self { services: Together::new(fleet.clone()), fleet, balancers, ..self }
    }

    /// Reads the traffic of rules that have a gate for it. Without, those gates are blind.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<dyn TrafficMetrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Reads what was asked for. Always ends.
    ///
    /// # Errors
    /// `NotFound` when the service does not exist, and only then. Any failed read of ECS or the load balancers fails the
    /// whole; alarms and metrics that can't be read are left out.
    pub async fn observe(&self, ask: &Ask) -> Result<Observation, CallError> {
        let deployed = ask.twice || self.known().get(&ask.service).is_some_and(|known| known.ids.len() > 1);
        let urgency = ask.urgency.max(if deployed { Urgency::Deployed } else { Urgency::Routine });
        match tokio::time::timeout(self.limit, self.read(ask, urgency)).await {
            Ok(observation) => observation,
            Err(_) => Err(failure(ErrorClass::Transient, format!("no answer within {}", humane(self.limit)))),
        }
    }

    async fn read(&self, ask: &Ask, urgency: Urgency) -> Result<Observation, CallError> {
        let read_at = self.clock.now();
        let key = &ask.service;
        let guess = self.known().get(key).cloned().unwrap_or_default();
        // A sweep finds new listeners, and before a delete none may have been missed. What users wait for must not wait for
        // them.
        let relearn = (ask.find_stopped || ask.find_listeners || ask.twice) && urgency < Urgency::Traffic;
        let guessed = ask.samples.iter().flat_map(|wanted| &wanted.groups).all(|it| guess.balancers.contains_key(it));
        let (service, tasks, (alarms, alarms_unlisted), balance, again, samples) = tokio::join!(
            self.service(key, urgency),
            self.tasks(ask, urgency),
            self.alarms(ask, urgency),
            read_balance(self.balancers.at(urgency), &guess.groups, &ask.groups, relearn),
            self.task_sets(ask, &guess.ids, urgency),
            async { if guessed { self.samples(ask, &guess.balancers, read_at).await } else { None } },
        );
        let service = match service {
            Ok(service) => service,
            Err(error) => {
                // What could not be read is as it was, and the next read needs no second round for it.
                if error.class == ErrorClass::NotFound {
                    self.known().remove(key);
                }
                return Err(error);
            }
        };
        let tasks = tasks?;

        let mut found = found(&service);
        // A deployment that this very read has found does not wait for services at rest either.
        let urgency = urgency.max(if found.ids.len() > 1 { Urgency::Deployed } else { Urgency::Routine });
        let (balance, again) = tokio::join!(
            // Other groups may be on other listeners.
            async {
                if found.groups == guess.groups {
                    balance
                } else {
                    read_balance(self.balancers.at(urgency), &found.groups, &ask.groups, true).await
                }
            },
            async { if found.ids == guess.ids { again } else { self.task_sets(ask, &found.ids, urgency).await } },
        );
        if let Ok(Balance { rules, .. }) = &balance {
            found.balancers = behind(&found.groups, rules);
        }
        self.known().insert(key.clone(), found.clone());
        let (Balance { rules, targets }, task_sets_again) = (balance?, again?);
        // Which load balancer it is may have been in this very answer.
        let samples = if guessed { samples } else { self.samples(ask, &found.balancers, read_at).await };
        let alarms = alarms.map(|all| if self.all_alarms { all } else { watching(all, ask, &found.groups) });
        let traffic = if found.groups.is_empty() && ask.groups.is_empty() {
            Traffic::NoLoadBalancer
        } else {
            Traffic::Rules(rules)
        };
        let ask = ask.clone();
        Ok(Observation {
            ask,
            read_at,
            service,
            task_sets_again,
            traffic,
            targets,
            tasks,
            alarms,
            alarms_unlisted,
            samples,
        })
    }

    async fn service(&self, key: &ServiceKey, urgency: Urgency) -> Result<ServiceReading, CallError> {
        self.services
            .describe(key, urgency)
            .await?
            .ok_or_else(|| failure(ErrorClass::NotFound, format!("there is no service {key}")))
    }

    async fn tasks(&self, ask: &Ask, urgency: Urgency) -> Result<Vec<TaskReading>, CallError> {
        if ask.tasks.is_empty() && !ask.find_stopped {
            return Ok(Vec::new());
        }
        or_nothing(self.fleet.at(urgency).tasks(&ask.service, &ask.tasks, ask.find_stopped).await)
    }

    async fn task_sets(
        &self,
        ask: &Ask,
        ids: &[TaskSetId],
        urgency: Urgency,
    ) -> Result<Option<Vec<TaskSet>>, CallError> {
        match (ask.twice, ids) {
            (false, _) => Ok(None),
            (true, []) => Ok(Some(Vec::new())),
            (true, ids) => or_nothing(self.fleet.at(urgency).task_sets(&ask.service, ids).await).map(Some),
        }
    }

    /// Alarms are one source of evidence among several: without them the others still count, and those named without the rest.
    /// Also says whether the search through all was wanted and had no answer.
    async fn alarms(&self, ask: &Ask, urgency: Urgency) -> (Option<Vec<AlarmReading>>, bool) {
        let named = async { if ask.alarms.is_empty() { Ok(Vec::new()) } else { self.alarms.named(&ask.alarms).await } };
        let all = async { if ask.find_alarms { self.listed().await } else { Ok(Vec::new()) } };
        let listing_limit = if urgency < Urgency::Traffic { self.listing_limit } else { self.cloudwatch_limit };
        let (named, all) = tokio::join!(in_time(self.cloudwatch_limit, named), in_time(listing_limit, all));
        let service = &ask.service;
        let unlisted = all.as_ref().err();
        if let Some(cause) = unlisted {
            tracing::warn!(%service, "the alarms of the account could not be searched, deciding without those found: {cause}");
        }
        let named = match named {
            Ok(named) => named,
            Err(cause) => {
                tracing::warn!(%service, "alarms could not be read, deciding without them: {cause}");
                return (None, unlisted.is_some());
            }
        };
        let unlisted = unlisted.is_some();
        // Those named come last and win: they were read by one call, all of them by many.
        let readings = all.into_iter().flatten().chain(named).map(|alarm| (alarm.name.clone(), alarm));
        (Some(readings.collect::<BTreeMap<_, _>>().into_values().collect()), unlisted)
    }

    /// All alarms of the account. Services that search at the same time share one answer: each page counts against CloudWatch's rate
    /// limit, and so against the alarms that others ask for by name.
    async fn listed(&self) -> Result<Vec<AlarmReading>, CallError> {
        let mut last = self.listing.lock().await;
        if let Some((_, alarms)) = last.as_ref().filter(|(begun, _)| begun.elapsed() <= LISTING_LIMIT) {
            return Ok(alarms.clone());
        }
        let begun = Instant::now();
        let alarms = self.alarms.all().await?;
        *last = Some((begun, alarms.clone()));
        Ok(alarms)
    }

    /// So is the traffic. Only Application Load Balancers count it.
    async fn samples(
        &self,
        ask: &Ask,
        balancers: &BTreeMap<TargetGroupArn, Arc<str>>,
        now: Timestamp,
    ) -> Option<Samples> {
        let (wanted, metrics) = (ask.samples.as_ref()?, self.metrics.as_ref()?);
        let known = wanted.groups.iter().filter_map(|group| Some((group.clone(), balancers.get(group)?.clone())));
        let groups: BTreeMap<_, _> = known.filter(|(_, balancer)| balancer.starts_with("app/")).collect();
        if groups.is_empty() {
            return Some(Samples::new());
        }
        match tokio::time::timeout(self.cloudwatch_limit, metrics.samples(&groups, wanted.from, now)).await {
            Ok(Ok(samples)) => return Some(samples),
            Ok(Err(error)) => {
                tracing::warn!(service = %ask.service, %error, "metrics could not be read, deciding without them");
            }
            Err(_) => tracing::warn!(service = %ask.service, "metrics were not read in time, deciding without them"),
        }
        None
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, Known>> {
        // A guess is as good after a panic as before.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Observe for Observer {
    async fn observe(&self, ask: &Ask) -> Result<Observation, CallError> {
        Self::observe(self, ask).await
    }
}

/// Those that were asked for by name, or that watch one of the groups.
fn watching(mut alarms: Vec<AlarmReading>, ask: &Ask, groups: &BTreeSet<TargetGroupArn>) -> Vec<AlarmReading> {
    let watches = |alarm: &AlarmReading| groups.iter().any(|group| alarm.target_groups.contains(group.dimension()));
    alarms.retain(|alarm| ask.alarms.contains(&alarm.name) || watches(alarm));
    alarms
}

/// The answer, or why there is none.
async fn in_time<T>(limit: Duration, read: impl Future<Output = Result<T, CallError>>) -> Result<T, String> {
    match tokio::time::timeout(limit, read).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", humane(limit))),
    }
}

/// Rules and target health side by side; of `others` the rules alone.
async fn read_balance(
    balancers: &Arc<dyn LoadBalancers>,
    groups: &BTreeSet<TargetGroupArn>,
    others: &BTreeSet<TargetGroupArn>,
    relearn: bool,
) -> Result<Balance, CallError> {
    let named = groups | others;
    if named.is_empty() {
        return Ok(Balance { rules: Vec::new(), targets: BTreeMap::new() });
    }
    let rules = async {
        // A listener that is gone says nothing about the service.
        balancers.rules(&named, relearn).await.map_err(|error| match error.class {
            ErrorClass::NotFound => CallError { class: ErrorClass::Transient, ..error },
            _ => error,
        })
    };
    let (rules, targets) = tokio::try_join!(rules, read_targets(balancers, groups))?;
    Ok(Balance { rules, targets })
}

/// A group that was deleted has no targets and is left out.
async fn read_targets(
    balancers: &Arc<dyn LoadBalancers>,
    groups: &BTreeSet<TargetGroupArn>,
) -> Result<BTreeMap<TargetGroupArn, TargetCounts>, CallError> {
    let mut reads = JoinSet::new();
    for group in groups {
        let (balancers, group) = (balancers.clone(), group.clone());
        reads.spawn(async move { (balancers.health(&group).await, group) });
    }
    let mut targets = BTreeMap::new();
    while let Some(read) = reads.join_next().await {
        match read {
            Ok((Ok(counts), group)) => {
                targets.insert(group, counts);
            }
            Ok((Err(error), _)) if error.class == ErrorClass::NotFound => {}
            Ok((Err(error), _)) => return Err(error),
            Err(died) => return Err(failure(ErrorClass::Transient, died.to_string())),
        }
    }
    Ok(targets)
}

/// What the service's task sets have to be asked about. Nothing when it is not ours to act on.
fn found(service: &ServiceReading) -> Known {
    if service.controller != Controller::External {
        // ECS refuses to describe task sets that it manages itself.
        return Known::default();
    }
    let groups = service.task_sets.iter().filter_map(|task_set| task_set.target_group.clone()).collect();
    let balancers = BTreeMap::new();
    Known { groups, balancers, ids: service.task_sets.iter().map(|task_set| task_set.id.clone()).collect() }
}

/// The load balancer that each group is behind: one at most, where requests are counted.
fn behind(groups: &BTreeSet<TargetGroupArn>, rules: &[TrafficRule]) -> BTreeMap<TargetGroupArn, Arc<str>> {
    let of = |group: &TargetGroupArn| {
        let mut naming = rules.iter().filter(|rule| rule.names(group)).filter_map(|rule| rule.listener.balancer());
        naming.next().map(|balancer| (group.clone(), Arc::from(balancer)))
    };
    groups.iter().filter_map(of).collect()
}

/// Whether the service exists is for `DescribeServices` to say; to the reads beside it, what is gone is empty.
fn or_nothing<T>(read: Result<Vec<T>, CallError>) -> Result<Vec<T>, CallError> {
    match read {
        Err(error) if error.class == ErrorClass::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// A failure of the observation as a whole.
fn failure(class: ErrorClass, message: String) -> CallError {
    CallError { class, operation: "observe".to_owned(), code: None, message }
}

#[cfg(test)]
mod tests;
