//! The observer over a service and its surroundings in memory: what goes out together, and what is not waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::model::{
    Action, ActionKind, AlarmName, AlarmValue, Forward, ListenerArn, RuleArn, Sample, SampleAsk, Scope, ServiceStatus,
    Stability, TaskArn, TaskSetArn, TaskSetStatus, TrafficRuleId, WeightedGroup,
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
    /// Through all alarms.
    searches: usize,
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
        self.state().searches += 1;
        self.call("all alarms", "").await?;
        let mut all = self.named(&["found", "of another service"].map(AlarmName::new).into()).await?;
        all[0].target_groups.insert(Arc::from("green"));
        Ok(all)
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
        find_listeners: false,
        groups: BTreeSet::new(),
        samples: None,
        urgency: Urgency::Routine,
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
async fn what_is_being_deployed_is_read_in_a_lane_of_its_own_from_the_read_on_that_finds_it() {
    let (rest, deployed) = (World::with(&PAIR[..1]), World::with(&PAIR));
    let observer = observer(&rest).with_lanes(|urgency| {
        let world = if urgency == Urgency::Routine { &rest } else { &deployed };
        (world.clone(), world.clone())
    });
    observer.observe(&ask()).await.unwrap();
    assert_eq!(deployed.rounds(), [] as [BTreeSet<String>; 0], "at rest");
    rest.state().task_sets = PAIR.to_vec();
    for _ in 0..2 {
        observer.observe(&ask()).await.unwrap();
        assert_eq!(deployed.rounds().len(), 1);
    }
    rest.rounds();
    observer.observe(&ask()).await.unwrap();
    assert_eq!(rest.rounds(), [set(["alarms"])], "all of it");
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
    let names = |seen: Observation| seen.alarms.unwrap().iter().map(|alarm| alarm.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(seen), ["5xx", "found"], "an account's thousands of others are nothing to this service");
    let examined = observer(&world).with_all_alarms().observe(&Ask { find_alarms: true, ..ask() }).await.unwrap();
    assert_eq!(names(examined), ["5xx", "found", "of another service"]);
}

#[tokio::test(start_paused = true)]
async fn those_who_search_all_alarms_at_once_share_one_search() {
    let world = World::with(&PAIR);
    let observer = observer(&world);
    let search = Ask { find_alarms: true, ..ask() };
    let (first, second) = tokio::join!(observer.observe(&search), observer.observe(&search));
    assert_eq!(first.unwrap().alarms, second.unwrap().alarms);
    assert_eq!(world.state().searches, 1);
    tokio::time::advance(LISTING_LIMIT + Duration::from_secs(1)).await;
    observer.observe(&search).await.unwrap();
    assert_eq!(world.state().searches, 2, "what they were is not what they are");
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

#[tokio::test(start_paused = true)]
async fn alarms_that_can_not_be_listed_leave_those_named_and_no_user_waits_for_them() {
    let world = World::with(&PAIR);
    let observer = observer(&world);
    let searching = |urgency| Ask { find_alarms: true, urgency, ..ask() };
    let named = |seen: &Observation| seen.alarms.iter().flatten().map(|it| it.name.to_string()).collect::<Vec<_>>();
    world.state().fails = BTreeMap::from([("all alarms", ErrorClass::Throttled)]);
    let seen = observer.observe(&searching(Urgency::Routine)).await.unwrap();
    assert_eq!((named(&seen), seen.alarms_unlisted, seen.has_all_alarms()), (vec!["5xx".to_owned()], true, false));

    world.state().hangs = BTreeSet::from(["all alarms"]);
    for (urgency, limit) in [(Urgency::Deployed, 8), (Urgency::Traffic, 3)] {
        let begun = tokio::time::Instant::now();
        let seen = observer.observe(&searching(urgency)).await.unwrap();
        assert_eq!((named(&seen), seen.alarms_unlisted), (vec!["5xx".to_owned()], true));
        assert_eq!(begun.elapsed(), Duration::from_secs(limit), "{urgency:?}");
    }
    world.state().hangs.clear();
    world.state().fails.clear();
    assert!(observer.observe(&searching(Urgency::Traffic)).await.unwrap().has_all_alarms());
    assert!(!observer.observe(&ask()).await.unwrap().has_all_alarms(), "nobody asked");
}

#[tokio::test]
async fn what_a_failed_read_did_not_show_is_still_known_and_what_does_not_exist_is_forgotten() {
    let world = World::with(&PAIR);
    let observer = observer(&world);
    let rounds = |world: &World| world.rounds().len();
    observer.observe(&ask()).await.unwrap();
    for class in [ErrorClass::Throttled, ErrorClass::Transient, ErrorClass::Denied] {
        world.state().fails = BTreeMap::from([("describe", class)]);
        observer.observe(&ask()).await.unwrap_err();
        world.state().fails.clear();
        world.rounds();
        observer.observe(&ask()).await.unwrap();
        assert_eq!(rounds(&world), 1, "{class:?}");
    }
    world.state().controller = None;
    observer.observe(&ask()).await.unwrap_err();
    world.state().controller = Some(Controller::External);
    world.rounds();
    observer.observe(&ask()).await.unwrap();
    assert_eq!(rounds(&world), 2, "it may be another one of the same name");
}

#[tokio::test]
async fn after_a_rollback_listeners_are_looked_up_anew_in_the_same_round() {
    let world = World::with(&PAIR[..1]);
    let observer = observer(&world);
    let after = Ask { find_listeners: true, groups: BTreeSet::from([TargetGroupArn::new("green")]), ..ask() };
    observer.observe(&after).await.unwrap();
    world.rounds();
    observer.observe(&after).await.unwrap();
    assert_eq!(world.rounds(), [set(["describe", "tasks", "alarms", "relearn blue green", "health blue"])]);
}
