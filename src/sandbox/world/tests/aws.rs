//! What AWS would do.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{AlarmMetric, AlarmSetup, Crash, Delivery, RouteSetup, ServiceSetup, Start, Version};
use super::*;
use crate::model::{AlarmValue, Role};
use crate::sandbox::api::EventEntry;

fn with_green(version: Version) -> Setup {
    let versions = BTreeMap::from([("checkout:88".to_owned(), version)]);
    creating(Setup { versions, ..Setup::default() })
}

fn crashing() -> Setup {
    let crash = Crash { after: seconds(3), exit_code: 137, out_of_memory: true };
    with_green(Version { crash: Some(crash), ..Version::default() })
}

fn alarmed(period: u32) -> Setup {
    let alarm = AlarmSetup {
        name: "checkout green 5xx".to_owned(),
        service: key(),
        watches: Some(Role::Green),
        metric: AlarmMetric::Target5xx,
        period,
        evaluation_periods: 1,
        threshold: 10.0,
        initial: AlarmValue::Ok,
    };
    Setup { alarms: vec![alarm], ..with_green(Version { error_rate: 0.5, ..Version::default() }) }
}

fn task_events(events: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    let mut tasks: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["detail-type"] == "ECS Task State Change") {
        tasks.entry(event["detail"]["taskArn"].as_str().unwrap().to_owned()).or_default().push(&event["detail"]);
    }
    tasks
}

fn reasons(events: &[Value]) -> BTreeSet<String> {
    events.iter().filter_map(|event| event["detail"]["stoppedReason"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_world_begins_steady_on_blue_and_stays_so() {
    let mut stage = Stage::new(Setup::default());
    let service = stage.at(0).service();
    let blue = &service.task_sets[0];
    assert_eq!((blue.status.as_str(), blue.stability.as_str(), blue.running), ("PRIMARY", "STEADY_STATE", 4));
    assert_eq!(blue.task_definition, "arn:aws:ecs:eu-west-1:111122223333:task-definition/checkout:87");
    assert_eq!(blue.arn, format!("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/{}", blue.id));
    stage.at(600);
    assert_eq!(stage.blue().stability, "STEADY_STATE");
    assert!(stage.events().is_empty(), "nothing happens in a steady world");
    let traffic = stage.world.traffic(&key()).unwrap();
    assert_eq!((traffic.blue.requests, traffic.green.requests), (60_000, 0));
    assert_eq!(traffic.blue.version.as_deref(), Some("checkout:87"));
}

#[test]
fn a_crash_looping_green_tells_of_each_task_with_rising_versions() {
    let mut stage = Stage::new(crashing());
    stage.at(60);
    let green = stage.green();
    let events = stage.events();
    let tasks = task_events(&events);
    let ended = tasks.values().filter(|task| task.iter().any(|detail| detail["lastStatus"] == "STOPPED"));
    assert!(ended.count() >= 8, "four tasks, replaced at least once");
    for task in tasks.values() {
        let mut versions: Vec<_> = task.iter().map(|detail| detail["version"].as_u64().unwrap()).collect();
        versions.sort_unstable();
        let expected: Vec<_> = (1..).take(versions.len()).collect();
        assert_eq!(versions, expected, "one event for each version");
        for detail in task {
            assert_eq!(detail["startedBy"], green.id);
            assert_eq!(detail["group"], "service:checkout");
            let stopped = detail["desiredStatus"] == "STOPPED";
            assert_eq!(detail["stopCode"].as_str(), stopped.then_some("EssentialContainerExited"));
            assert_eq!(detail["containers"][0]["exitCode"].as_i64(), stopped.then_some(137));
        }
    }
    let event = &events[0];
    assert_eq!(event["version"], "0");
    assert_eq!(event["resources"][0], event["detail"]["taskArn"]);
    assert_eq!(event["time"].as_str().unwrap().len(), "2026-03-02T10:00:10Z".len(), "to the second");
    assert_eq!(stage.green().stability, "STABILIZING");
}

#[test]
fn a_sound_green_becomes_steady_after_its_health_checks() {
    let mut stage = Stage::new(with_green(Version::default()));
    stage.at(20);
    let green = stage.green();
    assert_eq!((green.running, green.computed_desired, green.stability.as_str()), (4, 4, "STABILIZING"));
    stage.at(45);
    assert_eq!(stage.green().stability, "STEADY_STATE");
    let names: Vec<_> = stage.events().iter().map(|event| event["detail"]["eventName"].clone()).collect();
    assert!(names.contains(&Value::from("TASKSET_STEADY_STATE")));
    let Ok(Reply::Targets(targets)) =
        stage.call(Call::DescribeTargetHealth { target_group: green.target_group.unwrap() })
    else {
        panic!("no targets")
    };
    assert!(targets.len() == 4 && targets.iter().all(|target| target.state == "healthy"), "{targets:?}");
}

#[test]
fn each_way_to_fail_has_the_reason_that_aws_gives() {
    let reasons_of = |version: Version| {
        let mut stage = Stage::new(with_green(version));
        stage.at(90);
        (reasons(&stage.events()), stage.green())
    };
    let (health, green) = reasons_of(Version { passes_health_checks: false, ..Version::default() });
    let group = green.target_group.unwrap();
    assert_eq!(health, BTreeSet::from([format!("Task failed ELB health checks in (target-group {group})")]));
    let (pull, green) = reasons_of(Version { start: Start::CannotPull, ..Version::default() });
    assert!(pull.len() == 1 && pull.iter().all(|reason| reason.starts_with("CannotPullContainerError: ")), "{pull:?}");
    assert_eq!(green.running, 0);
    let (spot, _) = reasons_of(Version { spot_interruption: Some(seconds(20)), ..Version::default() });
    assert_eq!(spot, BTreeSet::from(["Your Spot Task was interrupted.".to_owned()]));
    let (stuck, green) = reasons_of(Version { start: Start::AtMost(2), ..Version::default() });
    assert_eq!((stuck.len(), green.running, green.pending), (0, 2, 2));
}

#[test]
fn tasks_that_cannot_start_come_ever_more_slowly() {
    let mut stage = Stage::new(with_green(Version { start: Start::CannotPull, ..Version::default() }));
    let mut tasks_by = |second| task_events(&stage.at(second).events()).len();
    let (early, late) = (tasks_by(300), tasks_by(600));
    assert!(early >= 8 && late < early, "{early} tasks in the first five minutes, {late} in the next");
}

#[test]
fn desired_counts_are_rounded_up() {
    let mut setup = Setup::default();
    setup.services[0].desired = 3;
    let scale = Act::ScaleTaskSet(Role::Green, 10.0);
    setup.services[0].script.push((seconds(60), scale));
    let mut stage = Stage::new(creating(setup));
    stage.at(120);
    let green = stage.green();
    assert_eq!((green.computed_desired, green.running, green.stability.as_str()), (1, 1, "STEADY_STATE"));
}

#[test]
fn weights_move_the_traffic_when_they_are_in_force() {
    let mut stage = Stage::new(with_green(Version::default()));
    stage.at(60).weigh(0, 100).unwrap();
    stage.at(61);
    assert!(stage.green_share() < 0.01, "still the old rule");
    stage.at(65);
    assert!(stage.green_share() > 0.99, "four seconds at most");
    stage.weigh(90, 10).unwrap();
    stage.at(70);
    assert!((0.01..0.25).contains(&stage.green_share()), "{}", stage.green_share());
}

#[test]
fn requests_to_a_group_without_healthy_targets_fail() {
    let mut stage = Stage::new(with_green(Version { start: Start::AtMost(0), ..Version::default() }));
    stage.at(60).weigh(0, 100).unwrap();
    stage.at(70);
    let before = stage.world.traffic(&key()).unwrap().failed();
    stage.at(80);
    assert_eq!(stage.world.traffic(&key()).unwrap().failed() - before, 1000);
}

#[test]
fn sticky_users_stay_at_weight_zero_but_not_when_the_group_is_gone() {
    let mut setup = with_green(Version::default());
    setup.services[0].routes = vec![RouteSetup { sticky: Some(seconds(3600)), ..RouteSetup::default() }];
    let mut stage = Stage::new(setup);
    stage.at(60).weigh(0, 100).unwrap();
    stage.at(300).weigh(100, 0).unwrap();
    stage.at(310);
    assert!(stage.green_share() > 0.5, "the cookie outranks the weight: {}", stage.green_share());
    let blue = forward(&stage.rule().actions).groups[0].target_group.clone();
    stage.write(&[(blue, 1)]).unwrap();
    stage.at(320);
    assert!(stage.green_share() < 0.001, "{}", stage.green_share());
}

#[test]
fn an_alarm_turns_red_from_5xx_and_green_again_when_they_stop() {
    for period in [10, 60] {
        let mut stage = Stage::new(alarmed(period));
        stage.at(60).weigh(50, 50).unwrap();
        stage.at(200).weigh(100, 0).unwrap();
        stage.at(400);
        let events = stage.events();
        let alarms: Vec<_> =
            events.iter().filter(|event| event["detail-type"] == "CloudWatch Alarm State Change").collect();
        let values: Vec<_> = alarms.iter().map(|event| event["detail"]["state"]["value"].as_str().unwrap()).collect();
        assert_eq!(values, ["ALARM", "OK"], "period {period}");
        let detail = &alarms[0]["detail"];
        let timestamp = detail["state"]["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with("+0000") && Timestamp::parse(timestamp).is_some(), "{timestamp}");
        let metric = &detail["configuration"]["metrics"][0]["metricStat"]["metric"];
        let group = stage.green().target_group.unwrap();
        assert_eq!(metric["dimensions"]["TargetGroup"], TargetGroupArn::new(group).dimension());
        let data = detail["state"]["reasonData"].as_str().expect("a string that holds JSON");
        assert!(serde_json::from_str::<Value>(data).unwrap()["recentDatapoints"][0].as_f64().unwrap() > 10.0);
        assert_eq!(alarms[0]["resources"][0], "arn:aws:cloudwatch:eu-west-1:111122223333:alarm:checkout green 5xx");
    }
}

#[test]
fn a_delete_is_asynchronous_and_may_be_repeated() {
    let mut stage = Stage::new(with_green(Version::default()));
    let green = stage.at(60).green().id;
    stage.delete(&green).unwrap();
    stage.at(70);
    assert_eq!(stage.green().status, "DRAINING");
    stage.delete(&green).expect("accepted while it drains");
    stage.at(100);
    assert_eq!(stage.service().task_sets.len(), 1, "gone after the deregistration delay");
    assert_eq!(code(stage.delete(&green)), "TaskSetNotFoundException");
    let expected = format!("Scaling activity initiated by (deployment {green})");
    assert_eq!(reasons(&stage.events()), BTreeSet::from([expected]));
}

#[test]
fn primary_is_one_task_set_and_only_force_deletes_it() {
    let mut stage = Stage::new(with_green(Version::default()));
    let green = stage.at(60).green();
    let names = || ("prod".to_owned(), "checkout".to_owned());
    let (cluster, service) = names();
    stage.call(Call::SetPrimary { cluster, service, task_set: green.arn.clone() }).unwrap();
    assert_eq!((stage.blue().status.as_str(), stage.green().status.as_str()), ("ACTIVE", "PRIMARY"));
    let (cluster, service) = names();
    let gently = Call::DeleteTaskSet { cluster, service, task_set: green.arn.clone(), force: false };
    assert_eq!(code(stage.call(gently)), "InvalidParameterException");
    stage.delete(&green.arn).expect("AWS itself does not mind");
}

#[test]
fn what_does_not_exist_is_refused_by_the_wire_code_of_aws() {
    let mut setup = Setup::default();
    let rolling =
        ServiceSetup { key: ServiceKey::new("prod", "web"), controller: "ECS".to_owned(), ..ServiceSetup::default() };
    setup.services.push(rolling);
    let mut stage = Stage::new(setup);
    let describe = |cluster: &str, service: &str, ids: &[&str]| Call::DescribeTaskSets {
        cluster: cluster.to_owned(),
        service: service.to_owned(),
        task_sets: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    assert_eq!(code(stage.call(describe("dev", "checkout", &["ecs-svc/1"]))), "ClusterNotFoundException");
    assert_eq!(code(stage.call(describe("prod", "cart", &["ecs-svc/1"]))), "ServiceNotFoundException");
    assert_eq!(code(stage.call(describe("prod", "web", &["ecs-svc/1"]))), "InvalidParameterException");
    let empty = stage.call(describe("prod", "checkout", &[])).unwrap_err();
    assert_eq!(empty, ApiError::client("InvalidParameterException", "TaskSets cannot be empty."));
    let Ok(Reply::TaskSets { task_sets, missing }) = stage.call(describe("prod", "checkout", &["ecs-svc/1"])) else {
        panic!("not an error: {missing:?}", missing = "ecs-svc/1")
    };
    assert_eq!((task_sets.len(), missing.len()), (0, 1));
    let nowhere = Call::GetQueueUrl { name: "nowhere".to_owned() };
    assert_eq!(code(stage.call(nowhere)), "AWS.SimpleQueueService.NonExistentQueue");
}

#[test]
fn rules_are_written_as_elb_allows() {
    let mut stage = Stage::new(Setup::default());
    let rule = stage.rule();
    let modify = |arn: &str, actions: &[Action]| Call::ModifyRule { rule: arn.to_owned(), actions: actions.to_vec() };
    let Ok(Reply::Rules(rules)) = stage.call(Call::DescribeRules { listener: None, arns: Vec::new() }) else {
        panic!("no rules")
    };
    let default = rules.iter().find(|rule| rule.is_default).unwrap();
    assert_eq!(default.priority, "default");
    assert_eq!(code(stage.call(modify(&default.arn, &rule.actions))), "OperationNotPermitted");
    assert_eq!(code(stage.call(modify("arn:nothing", &rule.actions))), "RuleNotFound");
    assert_eq!(code(stage.weigh(1000, 0)), "ValidationError");
    let unknown = TargetGroupArn::new("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/x/1");
    assert_eq!(code(stage.write(&[(unknown, 1)])), "TargetGroupNotFound");
    let blue = forward(&rule.actions).groups[0].target_group.clone();
    assert_eq!(code(stage.write(&vec![(blue, 1); 6])), "ValidationError");
    let listener = Call::ModifyListener { listener: "arn:nothing".to_owned(), default_actions: rule.actions.clone() };
    assert_eq!(code(stage.call(listener)), "ListenerNotFound");
    assert_eq!(stage.rule(), rule, "nothing of that was applied");
}

#[test]
fn a_received_message_is_invisible_for_a_while_and_has_a_new_handle_each_time() {
    let mut stage = Stage::new(Setup::default());
    stage.call(Call::SendMessage { queue_url: QUEUE.to_owned(), body: "hello".to_owned() }).unwrap();
    let first = stage.receive().remove(0);
    assert!(stage.at(29).receive().is_empty());
    let second = stage.at(30).receive().remove(0);
    assert_eq!((first.receive_count, second.receive_count), (1, 2));
    assert_ne!(first.receipt, second.receipt);
    let delete =
        |receipt: &str| Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts: vec![receipt.to_owned()] };
    assert_eq!(stage.call(delete(&first.receipt)), Ok(Reply::Entries(vec![None])), "accepted, and without effect");
    let now = Call::ChangeVisibility { queue_url: QUEUE.to_owned(), entries: vec![(second.receipt, seconds(0))] };
    assert_eq!(stage.call(now), Ok(Reply::Entries(vec![None])));
    let third = stage.receive().remove(0);
    stage.call(delete(&third.receipt)).unwrap();
    assert!(stage.at(600).receive().is_empty());
    let Ok(Reply::Entries(refused)) = stage.call(delete("nonsense")) else { panic!("batches fail by entry") };
    assert_eq!(refused[0].as_ref().unwrap().code, "ReceiptHandleIsInvalid");
}

#[test]
fn a_message_received_too_often_goes_to_the_dead_letter_queue() {
    let mut stage = Stage::new(Setup { max_receives: 2, ..Setup::default() });
    stage.call(Call::SendMessage { queue_url: QUEUE.to_owned(), body: "poison".to_owned() }).unwrap();
    let mut waiting = |second: u64, queue: String| {
        let Ok(Reply::Attributes(attributes)) = stage.at(second).call(Call::GetQueueAttributes { queue_url: queue })
        else {
            panic!("no attributes")
        };
        let received = stage.receive().len();
        (attributes["ApproximateNumberOfMessages"].clone(), received)
    };
    assert_eq!(waiting(0, QUEUE.to_owned()), ("1".to_owned(), 1));
    assert_eq!(waiting(40, QUEUE.to_owned()), ("1".to_owned(), 1));
    assert_eq!(waiting(80, QUEUE.to_owned()), ("1".to_owned(), 0), "the third receive buries it");
    assert_eq!(waiting(80, format!("{QUEUE}-dlq")), ("1".to_owned(), 0));
}

#[test]
fn the_bus_takes_events_but_none_in_the_name_of_aws() {
    let mut stage = Stage::new(Setup::default());
    let entry = |source: &str, detail: &str| EventEntry {
        source: source.to_owned(),
        detail_type: "Rollback Started".to_owned(),
        detail: detail.to_owned(),
        resources: Vec::new(),
        bus: None,
    };
    let entries = vec![entry("taskset-guardian", "{}"), entry("aws.ecs", "{}"), entry("taskset-guardian", "[]")];
    let Ok(Reply::Entries(answers)) = stage.call(Call::PutEvents { entries }) else { panic!("fails by entry") };
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|error| error.code.as_str())).collect();
    assert_eq!(codes, [None, Some("NotAuthorizedForSourceException"), Some("MalformedDetail")]);
    assert_eq!(stage.world.announcements().len(), 1);
}

#[test]
fn tasks_are_listed_by_task_set_or_by_state_but_not_by_both() {
    let mut stage = Stage::new(crashing());
    let green = stage.at(40).green().id;
    let list = |service: Option<&str>, started_by: Option<&str>, stopped| Call::ListTasks {
        cluster: "prod".to_owned(),
        service: service.map(str::to_owned),
        started_by: started_by.map(str::to_owned),
        stopped,
    };
    assert_eq!(code(stage.call(list(None, Some(&green), true))), "InvalidParameterException");
    let Ok(Reply::Arns(stopped)) = stage.call(list(Some("checkout"), None, true)) else { panic!("no list") };
    let Ok(Reply::Tasks { tasks, .. }) = stage.call(Call::DescribeTasks { cluster: "prod".to_owned(), tasks: stopped })
    else {
        panic!("no tasks")
    };
    assert!(tasks.len() >= 4);
    for task in tasks {
        assert_eq!(
            (task.started_by.as_str(), task.stop_code.as_deref()),
            (green.as_str(), Some("EssentialContainerExited"))
        );
        assert!(task.containers[0].reason.as_deref().unwrap().starts_with("OutOfMemoryError"), "{task:?}");
    }
}

#[test]
fn calls_can_be_made_to_fail() {
    let mut stage =
        Stage::new(Setup { throttle: BTreeMap::from([("ListClusters".to_owned(), 2)]), ..Setup::default() });
    assert_eq!(code(stage.call(Call::ListClusters)), "");
    assert_eq!(code(stage.call(Call::ListClusters)), "ThrottlingException");
    let down = ApiError { code: "ServerException".to_owned(), message: String::new(), status: 500 };
    stage.world.fail_next("ListServices", &down, 1);
    let list = || Call::ListServices { cluster: "prod".to_owned() };
    assert_eq!(stage.call(list()), Err(down));
    assert!(stage.call(list()).is_ok());
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_others() {
    let run = |seed| {
        let delivery = Delivery { duplicates: 0.2, stragglers: 0.2, ..Delivery::default() };
        let mut stage = Stage::seeded(seed, Setup { delivery, ..alarmed(10) });
        stage.at(60).weigh(50, 50).unwrap();
        stage.at(180).events()
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
    let ids: BTreeSet<_> = first.iter().map(|event| event["id"].to_string()).collect();
    assert!(ids.len() < first.len(), "some came twice");
    let times: Vec<_> = first.iter().map(|event| event["time"].as_str().unwrap()).collect();
    assert!(!times.is_sorted(), "some came late");
}

#[test]
fn time_in_small_steps_gives_the_same_world_as_in_one() {
    let mut leap = Stage::new(alarmed(10));
    let mut walk = Stage::new(alarmed(10));
    leap.at(120);
    for second in 0..=120 {
        walk.at(second);
    }
    assert_eq!(leap.events(), walk.events());
    assert_eq!(leap.world.traffic(&key()), walk.world.traffic(&key()));
    assert!(walk.world.next_event().is_some_and(|next| next > walk.world.now()));
}
