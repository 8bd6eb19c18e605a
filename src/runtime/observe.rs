//! One observation: a round of reads that go out together, put into one answer for the engine.
//!
//! Rules and target health can only be asked for by target group, and the groups are in the answer of `DescribeServices`.
//! Between deployments they do not change, so those of the last observation are asked for at once. When the answer then
//! shows others, they are read again. So a rollback waits for one round of reads, then writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::executor::Observe;
use super::together::Together;
use crate::model::{
    AlarmReading, Ask, CallError, Controller, ErrorClass, Observation, Samples, ServiceKey, ServiceReading,
    TargetCounts, TargetGroupArn, TaskReading, TaskSet, TaskSetId, Timestamp, Traffic, TrafficRule, humane,
};
use crate::ports::{Alarms, Clock, Fleet, LoadBalancers, TrafficMetrics};

/// Every question gets an answer within this. Longer than one call with one retry; what comes later rests on reads that
/// are too old to act on. It bounds real calls, so it is real time, also where the clock runs faster.
const LIMIT: Duration = Duration::from_secs(15);

/// Alarms and metrics may be missing from an observation, so they get no chance to use up its time: a CloudWatch that
/// hangs must not make every observation too old to act on.
const CLOUDWATCH_LIMIT: Duration = Duration::from_secs(3);

/// Observations at once of services that are not being deployed: as many as one `DescribeServices` answers for. A sweep over
/// a large fleet waits for room, and for its turns at Elastic Load Balancing; what is being deployed does not wait for it.
const IDLE: usize = 10;

/// Observations at once of services that are being deployed. Each is a handful of calls.
const LIVE: usize = 16;

/// Reads services.
pub struct Observer {
    fleet: Arc<dyn Fleet>,
    services: Together,
    balancers: Arc<dyn LoadBalancers>,
    /// The same ones, for services that are being deployed.
    fast: Arc<dyn LoadBalancers>,
    alarms: Arc<dyn Alarms>,
    metrics: Option<Arc<dyn TrafficMetrics>>,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<ServiceKey, Known>>,
    idle: Semaphore,
    live: Semaphore,
    limit: Duration,
    cloudwatch_limit: Duration,
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
    pub fn new(
        fleet: Arc<dyn Fleet>,
        balancers: Arc<dyn LoadBalancers>,
        alarms: Arc<dyn Alarms>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (known, services) = (Mutex::default(), Together::new(fleet.clone()));
        let (idle, live) = (Semaphore::new(IDLE), Semaphore::new(LIVE));
        let (fast, metrics) = (balancers.clone(), None);
        let (limit, cloudwatch_limit) = (LIMIT, CLOUDWATCH_LIMIT);
        Self { fleet, services, balancers, fast, alarms, metrics, clock, known, idle, live, limit, cloudwatch_limit }
    }

    /// Reads the load balancers of what is being deployed by a way of its own, which does not wait for sweeps.
    #[must_use]
    pub fn with_fast_lane(self, fast: Arc<dyn LoadBalancers>) -> Self {
        Self { fast, ..self }
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
        // They are never closed; if they were, going on without a permit is the safe side.
        let (room, balancers) = if deployed { (&self.live, &self.fast) } else { (&self.idle, &self.balancers) };
        let _room = room.acquire().await;
        match tokio::time::timeout(self.limit, self.read(ask, balancers)).await {
            Ok(observation) => observation,
            Err(_) => Err(failure(ErrorClass::Transient, format!("no answer within {}", humane(self.limit)))),
        }
    }

    async fn read(&self, ask: &Ask, balancers: &Arc<dyn LoadBalancers>) -> Result<Observation, CallError> {
        let read_at = self.clock.now();
        let key = &ask.service;
        let guess = self.known().get(key).cloned().unwrap_or_default();
        // A sweep finds new listeners, and before a delete none may have been missed. A rollback that has just been
        // decided must not wait for them.
        let relearn = ask.find_stopped || ask.twice;
        let guessed = ask.samples.iter().flat_map(|wanted| &wanted.groups).all(|it| guess.balancers.contains_key(it));
        let (service, tasks, alarms, balance, again, samples) = tokio::join!(
            self.service(key),
            self.tasks(ask),
            self.alarms(ask),
            read_balance(balancers, &guess.groups, &ask.groups, relearn),
            self.task_sets(ask, &guess.ids),
            async { if guessed { self.samples(ask, &guess.balancers, read_at).await } else { None } },
        );
        let service = match service {
            Ok(service) => service,
            Err(error) => {
                self.known().remove(key);
                return Err(error);
            }
        };
        let tasks = tasks?;

        let mut found = found(&service);
        let (balance, again) = tokio::join!(
            // Other groups may be on other listeners.
            async {
                if found.groups == guess.groups {
                    balance
                } else {
                    read_balance(self.lane(&found), &found.groups, &ask.groups, true).await
                }
            },
            async { if found.ids == guess.ids { again } else { self.task_sets(ask, &found.ids).await } },
        );
        if let Ok(Balance { rules, .. }) = &balance {
            found.balancers = behind(&found.groups, rules);
        }
        self.known().insert(key.clone(), found.clone());
        let (Balance { rules, targets }, task_sets_again) = (balance?, again?);
        // Which load balancer it is may have been in this very answer.
        let samples = if guessed { samples } else { self.samples(ask, &found.balancers, read_at).await };
        let traffic = if found.groups.is_empty() && ask.groups.is_empty() {
            Traffic::NoLoadBalancer
        } else {
            Traffic::Rules(rules)
        };
        let ask = ask.clone();
        Ok(Observation { ask, read_at, service, task_sets_again, traffic, targets, tasks, alarms, samples })
    }

    async fn service(&self, key: &ServiceKey) -> Result<ServiceReading, CallError> {
        self.services
            .describe(key)
            .await?
            .ok_or_else(|| failure(ErrorClass::NotFound, format!("there is no service {key}")))
    }

    async fn tasks(&self, ask: &Ask) -> Result<Vec<TaskReading>, CallError> {
        if ask.tasks.is_empty() && !ask.find_stopped {
            return Ok(Vec::new());
        }
        or_nothing(self.fleet.tasks(&ask.service, &ask.tasks, ask.find_stopped).await)
    }

    async fn task_sets(&self, ask: &Ask, ids: &[TaskSetId]) -> Result<Option<Vec<TaskSet>>, CallError> {
        match (ask.twice, ids) {
            (false, _) => Ok(None),
            (true, []) => Ok(Some(Vec::new())),
            (true, ids) => or_nothing(self.fleet.task_sets(&ask.service, ids).await).map(Some),
        }
    }

    /// Alarms are one source of evidence among several: without them the others still count.
    async fn alarms(&self, ask: &Ask) -> Option<Vec<AlarmReading>> {
        let named = async { if ask.alarms.is_empty() { Ok(Vec::new()) } else { self.alarms.named(&ask.alarms).await } };
        let all = async { if ask.find_alarms { self.alarms.all().await } else { Ok(Vec::new()) } };
        let named = tokio::time::timeout(self.cloudwatch_limit, named);
        let all = tokio::time::timeout(self.cloudwatch_limit, all);
        let (named, all) = tokio::join!(named, all);
        let mut readings: Option<BTreeMap<_, _>> = Some(BTreeMap::new());
        // Those named come last and win: they were read by one call, all of them by many.
        for read in [all, named] {
            match read {
                Ok(Ok(alarms)) => {
                    if let Some(readings) = &mut readings {
                        readings.extend(alarms.into_iter().map(|alarm| (alarm.name.clone(), alarm)));
                    }
                }
                Ok(Err(error)) => {
                    readings = None;
                    tracing::warn!(service = %ask.service, %error, "alarms could not be read, deciding without them");
                }
                Err(_) => {
                    readings = None;
                    tracing::warn!(service = %ask.service, "alarms were not read in time, deciding without them");
                }
            }
        }
        readings.map(|readings| readings.into_values().collect())
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

    /// A deployment that this very read has found does not wait either.
    fn lane(&self, found: &Known) -> &Arc<dyn LoadBalancers> {
        if found.ids.len() > 1 { &self.fast } else { &self.balancers }
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::model::{
        Action, ActionKind, AlarmName, AlarmValue, Forward, ListenerArn, RuleArn, Sample, SampleAsk, Scope,
        ServiceStatus, Stability, TaskArn, TaskSetArn, TaskSetStatus, TrafficRuleId, WeightedGroup,
    };

    /// A service and its surroundings. Counts rounds: a round begins when a call is made while none is under way.
    #[derive(Default)]
    struct World {
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        controller: Option<Controller>,
        /// Number of a task set, and its target group.
        task_sets: Vec<(u32, Option<&'static str>)>,
        deleted_groups: BTreeSet<&'static str>,
        fails: BTreeMap<&'static str, ErrorClass>,
        hangs: BTreeSet<&'static str>,
        rules: Vec<TrafficRule>,
        under_way: usize,
        rounds: Vec<BTreeSet<String>>,
    }

    impl World {
        fn with(task_sets: &[(u32, Option<&'static str>)]) -> Arc<Self> {
            let world = Self::default();
            world.state().task_sets = task_sets.to_vec();
            world.state().controller = Some(Controller::External);
            Arc::new(world)
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap()
        }

        /// Takes long enough for every call that is made at the same time to be seen as such.
        async fn call(&self, name: &'static str, argument: &str) -> Result<(), CallError> {
            {
                let mut state = self.state();
                if state.under_way == 0 {
                    state.rounds.push(BTreeSet::new());
                }
                state.under_way += 1;
                state.rounds.last_mut().unwrap().insert(format!("{name} {argument}").trim().to_owned());
            }
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            if self.state().hangs.contains(name) {
                std::future::pending::<()>().await;
            }
            self.state().under_way -= 1;
            self.state().fails.get(name).map_or(Ok(()), |class| Err(failure(*class, name.to_owned())))
        }

        /// What was asked for since the last time, by rounds.
        fn rounds(&self) -> Vec<BTreeSet<String>> {
            std::mem::take(&mut self.state().rounds)
        }

        fn readings(&self) -> Vec<TaskSet> {
            let task_sets = self.state().task_sets.clone();
            let reading = |(number, group): (u32, Option<&str>)| TaskSet {
                id: TaskSetId::new(format!("ecs-svc/{number}")),
                arn: TaskSetArn::new(format!("arn:{number}")),
                status: TaskSetStatus::Active,
                created_at: Timestamp::from_millis(number.into()),
                stability: Stability::Steady,
                running: 1,
                pending: 0,
                computed_desired: 1,
                target_group: group.map(TargetGroupArn::new),
                task_definition: "web:1".into(),
                external_id: None,
                tags: BTreeMap::new(),
            };
            task_sets.into_iter().map(reading).collect()
        }
    }

    #[async_trait]
    impl Fleet for World {
        async fn clusters(&self) -> Result<Vec<Arc<str>>, CallError> {
            Ok(Vec::new())
        }

        async fn services(&self, _: &str) -> Result<Vec<Arc<str>>, CallError> {
            Ok(Vec::new())
        }

        async fn describe(
            &self,
            cluster: &str,
            services: &[Arc<str>],
        ) -> Result<BTreeMap<ServiceKey, ServiceReading>, CallError> {
            self.call("describe", "").await?;
            let Some(controller) = self.state().controller.clone() else { return Ok(BTreeMap::new()) };
            let reading = ServiceReading {
                scope: Scope::default(),
                status: ServiceStatus::Active,
                controller,
                desired_count: 1,
                task_sets: self.readings(),
                tags: BTreeMap::new(),
            };
            Ok(BTreeMap::from([(ServiceKey::new(cluster, &services[0]), reading)]))
        }

        async fn task_sets(&self, _: &ServiceKey, ids: &[TaskSetId]) -> Result<Vec<TaskSet>, CallError> {
            self.call("task_sets", &ids.iter().map(TaskSetId::as_str).collect::<Vec<_>>().join(" ")).await?;
            Ok(self.readings().into_iter().filter(|task_set| ids.contains(&task_set.id)).collect())
        }

        async fn tasks(&self, _: &ServiceKey, asked: &[TaskArn], _: bool) -> Result<Vec<TaskReading>, CallError> {
            self.call("tasks", "").await?;
            let task_set = TaskSetId::new("ecs-svc/1");
            let reading = |task: &TaskArn| TaskReading {
                task: task.clone(),
                task_set: task_set.clone(),
                version: 1,
                stop: None,
                images: BTreeMap::new(),
            };
            Ok(asked.iter().map(reading).collect())
        }
    }

    #[async_trait]
    impl LoadBalancers for World {
        async fn rules(&self, groups: &BTreeSet<TargetGroupArn>, relearn: bool) -> Result<Vec<TrafficRule>, CallError> {
            let groups: Vec<_> = groups.iter().map(TargetGroupArn::as_str).collect();
            self.call(if relearn { "relearn" } else { "rules" }, &groups.join(" ")).await?;
            Ok(self.state().rules.clone())
        }

        async fn health(&self, group: &TargetGroupArn) -> Result<TargetCounts, CallError> {
            self.call("health", group.as_str()).await?;
            if self.state().deleted_groups.contains(group.as_str()) {
                return Err(failure(ErrorClass::NotFound, "TargetGroupNotFound".to_owned()));
            }
            Ok(TargetCounts { healthy: 1, ..TargetCounts::default() })
        }
    }

    #[async_trait]
    impl Alarms for World {
        async fn named(&self, names: &BTreeSet<AlarmName>) -> Result<Vec<AlarmReading>, CallError> {
            self.call("alarms", "").await?;
            let reading = |name: &AlarmName| AlarmReading {
                name: name.clone(),
                value: AlarmValue::Ok,
                since: Timestamp::EPOCH,
                reason: "".into(),
                doubt: None,
                target_groups: BTreeSet::new(),
            };
            Ok(names.iter().map(reading).collect())
        }

        async fn all(&self) -> Result<Vec<AlarmReading>, CallError> {
            self.call("all alarms", "").await?;
            self.named(&BTreeSet::from([AlarmName::new("found")])).await
        }
    }

    #[async_trait]
    impl TrafficMetrics for World {
        async fn samples(
            &self,
            groups: &BTreeMap<TargetGroupArn, Arc<str>>,
            _: Timestamp,
            _: Timestamp,
        ) -> Result<Samples, CallError> {
            let said: Vec<_> = groups.iter().map(|(group, balancer)| format!("{group} {balancer}")).collect();
            self.call("metrics", &said.join(" ")).await?;
            Ok(groups.keys().map(|group| (group.clone(), vec![Sample::empty(Timestamp::EPOCH)])).collect())
        }
    }

    /// A rule of a load balancer that forwards to both.
    fn shared_rule(balancer: &str) -> TrafficRule {
        let group = |name| WeightedGroup { target_group: TargetGroupArn::new(name), weight: Some(50) };
        let forward = Forward { groups: vec![group("blue"), group("green")], stickiness: None };
        TrafficRule {
            id: TrafficRuleId::Rule(RuleArn::new("rule")),
            listener: ListenerArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:1:listener/{balancer}/1a2b")),
            priority: "1".into(),
            actions: vec![Action { order: None, kind: ActionKind::Forward(forward) }],
            unread: None,
        }
    }

    fn asking_for_samples() -> Ask {
        let groups = ["blue", "green"].map(TargetGroupArn::new).into();
        Ask { samples: Some(SampleAsk { groups, from: Timestamp::EPOCH }), ..ask() }
    }

    #[tokio::test]
    async fn metrics_of_both_groups_go_out_in_one_call_with_the_other_reads() {
        let world = World::with(&PAIR);
        world.state().rules = vec![shared_rule("app/web/50dc")];
        let observer = observer(&world).with_metrics(world.clone());
        let metrics = "metrics blue app/web/50dc green app/web/50dc";
        let first = observer.observe(&asking_for_samples()).await.unwrap();
        assert_eq!(first.samples.unwrap().len(), 2);
        assert_eq!(world.rounds()[2], set([metrics]), "which load balancer it is had to be learned first");

        let second = observer.observe(&asking_for_samples()).await.unwrap();
        assert_eq!(second.samples.unwrap().len(), 2);
        let rounds = world.rounds();
        assert!(rounds.len() == 1 && rounds[0].contains(metrics), "{rounds:?}");
        assert_eq!(observer.observe(&ask()).await.unwrap().samples, None, "nobody asked");
    }

    #[tokio::test]
    async fn a_network_load_balancer_is_not_asked_for_what_it_does_not_count() {
        let world = World::with(&PAIR);
        world.state().rules = vec![shared_rule("net/web/50dc")];
        let observer = observer(&world).with_metrics(world.clone());
        for _ in 0..2 {
            assert_eq!(observer.observe(&asking_for_samples()).await.unwrap().samples, Some(Samples::new()));
        }
        assert!(world.rounds().iter().flatten().all(|call| !call.starts_with("metrics")));
    }

    #[tokio::test]
    async fn metrics_that_are_refused_or_hang_hold_nothing_up() {
        let world = World::with(&PAIR);
        world.state().rules = vec![shared_rule("app/web/50dc")];
        let mut observer = observer(&world).with_metrics(world.clone());
        world.state().fails = BTreeMap::from([("metrics", ErrorClass::Denied)]);
        for _ in 0..2 {
            let seen = observer.observe(&asking_for_samples()).await.unwrap();
            assert_eq!((seen.samples, seen.alarms.unwrap().len()), (None, 1));
        }
        world.state().fails.clear();
        world.state().hangs = BTreeSet::from(["metrics"]);
        observer.cloudwatch_limit = Duration::from_millis(1);
        assert_eq!(observer.observe(&asking_for_samples()).await.unwrap().samples, None);
    }

    #[async_trait]
    impl Clock for World {
        /// The number of rounds begun, so that a late reading of the clock shows.
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(i64::try_from(self.state().rounds.len()).unwrap())
        }

        async fn sleep(&self, _: Duration) {}
    }

    fn observer(world: &Arc<World>) -> Observer {
        Observer::new(world.clone(), world.clone(), world.clone(), world.clone())
    }

    fn ask() -> Ask {
        Ask {
            service: ServiceKey::new("prod", "checkout"),
            tasks: vec![TaskArn::new("task")],
            find_stopped: false,
            alarms: BTreeSet::from([AlarmName::new("5xx")]),
            find_alarms: false,
            twice: false,
            groups: BTreeSet::new(),
            samples: None,
        }
    }

    fn set<const N: usize>(calls: [&str; N]) -> BTreeSet<String> {
        calls.map(str::to_owned).into()
    }

    const PAIR: [(u32, Option<&str>); 2] = [(1, Some("blue")), (2, Some("green"))];

    #[tokio::test]
    async fn the_first_observation_learns_the_groups_and_the_second_takes_one_round() {
        let world = World::with(&PAIR);
        let observer = observer(&world);
        let first = observer.observe(&ask()).await.unwrap();
        let learned = set(["relearn blue green", "health blue", "health green"]);
        assert_eq!(world.rounds(), [set(["describe", "tasks", "alarms"]), learned]);

        let second = observer.observe(&ask()).await.unwrap();
        let all = ["describe", "tasks", "alarms", "rules blue green", "health blue", "health green"];
        assert_eq!(world.rounds(), [set(all)]);
        assert_eq!(first, second, "the same answer by either way");
        assert_eq!(second.read_at, Timestamp::EPOCH, "the clock was read before the first call");
        assert_eq!(second.targets.len(), 2);
    }

    #[tokio::test]
    async fn what_is_being_deployed_is_read_in_the_fast_lane_from_the_read_on_that_finds_it() {
        let (world, fast) = (World::with(&PAIR[..1]), World::with(&PAIR));
        let observer = observer(&world).with_fast_lane(fast.clone());
        observer.observe(&ask()).await.unwrap();
        assert_eq!(fast.rounds(), [] as [BTreeSet<String>; 0], "at rest");
        world.state().task_sets = PAIR.to_vec();
        for _ in 0..2 {
            observer.observe(&ask()).await.unwrap();
            assert_eq!(fast.rounds().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_deployed_does_not_wait_for_a_sweep() {
        let world = World::with(&PAIR);
        let observer = observer(&world);
        observer.observe(&ask()).await.unwrap();
        // A sweep over a large fleet has taken all the room that it has.
        let _sweep = observer.idle.acquire_many(u32::try_from(IDLE).unwrap()).await.unwrap();
        observer.observe(&ask()).await.unwrap();
        let idle = Ask { service: ServiceKey::new("prod", "idle"), ..ask() };
        let waits = tokio::time::timeout(Duration::from_mins(1), observer.observe(&idle)).await;
        assert!(waits.is_err(), "its time begins when there is room, and it is no failure");
    }

    #[tokio::test]
    async fn of_a_group_that_nobody_serves_the_rules_are_read_and_no_targets() {
        let world = World::with(&PAIR[..1]);
        let observer = observer(&world);
        let wanted = Ask { groups: BTreeSet::from([TargetGroupArn::new("green")]), ..ask() };
        observer.observe(&wanted).await.unwrap();
        world.rounds();
        let seen = observer.observe(&wanted).await.unwrap();
        let all = ["describe", "tasks", "alarms", "rules blue green", "health blue"];
        assert_eq!((world.rounds(), seen.targets.len()), (vec![set(all)], 1));
    }

    #[tokio::test]
    async fn a_new_green_makes_rules_and_health_be_read_again() {
        let world = World::with(&PAIR[..1]);
        let observer = observer(&world);
        observer.observe(&ask()).await.unwrap();
        world.rounds();
        world.state().task_sets = PAIR.to_vec();
        let seen = observer.observe(&ask()).await.unwrap();
        assert_eq!(seen.targets.keys().map(TargetGroupArn::as_str).collect::<Vec<_>>(), ["blue", "green"]);
        assert_eq!(world.rounds()[1], set(["relearn blue green", "health blue", "health green"]));
    }

    #[tokio::test]
    async fn before_a_delete_the_task_sets_are_read_twice_in_one_round_and_listeners_anew() {
        let world = World::with(&PAIR);
        let observer = observer(&world);
        let twice = Ask { twice: true, ..ask() };
        let first = observer.observe(&twice).await.unwrap();
        assert_eq!(first.task_sets_again, Some(first.service.task_sets.clone()));
        world.rounds();

        observer.observe(&twice).await.unwrap();
        let rounds = world.rounds();
        assert_eq!(rounds.len(), 1);
        assert!(rounds[0].is_superset(&set(["describe", "task_sets ecs-svc/1 ecs-svc/2", "relearn blue green"])));

        // A third task set: the guess does not cover it.
        world.state().task_sets.push((3, Some("green")));
        let third = observer.observe(&twice).await.unwrap();
        assert_eq!(third.task_sets_again.unwrap().len(), 3);
        assert_eq!(world.rounds()[1], set(["task_sets ecs-svc/1 ecs-svc/2 ecs-svc/3"]));
    }

    #[tokio::test]
    async fn a_missing_service_is_not_found_and_a_missing_group_is_left_out() {
        let world = World::with(&PAIR);
        let observer = observer(&world);
        world.state().deleted_groups.insert("green");
        let seen = observer.observe(&ask()).await.unwrap();
        assert_eq!(seen.targets.keys().map(TargetGroupArn::as_str).collect::<Vec<_>>(), ["blue"]);

        world.state().controller = None;
        assert_eq!(observer.observe(&ask()).await.unwrap_err().class, ErrorClass::NotFound);
    }

    #[tokio::test]
    async fn only_the_service_itself_can_be_not_found() {
        let world = World::with(&PAIR);
        let mut seen = BTreeMap::new();
        for what in ["tasks", "task_sets", "health", "relearn"] {
            world.state().fails = BTreeMap::from([(what, ErrorClass::NotFound)]);
            seen.insert(what, observer(&world).observe(&Ask { twice: true, ..ask() }).await);
        }
        assert_eq!(seen["tasks"].as_ref().unwrap().tasks, []);
        assert_eq!(seen["task_sets"].as_ref().unwrap().task_sets_again, Some(Vec::new()));
        assert_eq!(seen["health"].as_ref().unwrap().targets, BTreeMap::new());
        assert_eq!(seen["relearn"].as_ref().unwrap_err().class, ErrorClass::Transient);
    }

    #[tokio::test]
    async fn a_service_of_another_controller_gets_no_load_balancer_reads() {
        let world = World::with(&PAIR);
        world.state().controller = Some(Controller::CodeDeploy);
        let observer = observer(&world);
        for _ in 0..2 {
            let seen = observer.observe(&ask()).await.unwrap();
            assert_eq!((seen.traffic, seen.targets.len()), (Traffic::NoLoadBalancer, 0));
            assert_eq!(world.rounds(), [set(["describe", "tasks", "alarms"])]);
        }
    }

    #[tokio::test]
    async fn unreadable_alarms_do_not_blind_the_observation_and_anything_else_does() {
        let world = World::with(&PAIR);
        let observer = observer(&world);
        world.state().fails = BTreeMap::from([("alarms", ErrorClass::Denied)]);
        assert_eq!(observer.observe(&ask()).await.unwrap().alarms, None);
        for what in ["describe", "tasks", "rules", "health"] {
            world.state().fails = BTreeMap::from([(what, ErrorClass::Throttled)]);
            assert_eq!(observer.observe(&ask()).await.unwrap_err().class, ErrorClass::Throttled, "{what}");
            world.state().fails.clear();
            observer.observe(&ask()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn found_and_named_alarms_are_both_in_the_answer() {
        let world = World::with(&PAIR);
        let seen = observer(&world).observe(&Ask { find_alarms: true, ..ask() }).await.unwrap();
        assert_eq!(seen.alarms.unwrap().iter().map(|alarm| alarm.name.as_str()).collect::<Vec<_>>(), ["5xx", "found"]);
    }

    #[tokio::test]
    async fn a_read_that_never_ends_ends_the_observation_unless_it_is_of_alarms() {
        let world = World::with(&PAIR);
        let mut observer = observer(&world);
        observer.cloudwatch_limit = Duration::from_millis(1);
        world.state().hangs = BTreeSet::from(["alarms"]);
        assert_eq!(observer.observe(&ask()).await.unwrap().alarms, None);

        observer.limit = Duration::from_millis(1);
        world.state().hangs = BTreeSet::from(["describe"]);
        assert_eq!(observer.observe(&ask()).await.unwrap_err().class, ErrorClass::Transient);
    }
}
