//! What comes later, and from outside: versions that break after a while, outages, autoscaling, people who react.

use std::collections::BTreeMap;

use super::super::{
    BalancerKind, Breaks, Crash, Reaction, RouteSetup, ServiceSetup, Throttled, Timing, Trouble, Version, When,
};
use super::*;
use crate::model::Role;

const CRASH: Crash = Crash { after: Duration::from_secs(2), exit_code: 1, out_of_memory: false };

fn breaking(when: When, tasks: Option<u32>, trouble: Trouble) -> Setup {
    let version = Version { breaks: Some(Breaks { when, tasks, trouble }), ..Version::default() };
    creating(Setup { versions: BTreeMap::from([("checkout:88".to_owned(), version)]), ..Setup::default() })
}

fn with_script(mut setup: Setup, script: &[(u64, Act)]) -> Setup {
    let acts = script.iter().map(|(at, act)| (seconds(*at), act.clone()));
    setup.services[0].script.extend(acts);
    setup
}

fn reacting(to: &str, act: Act, times: u32) -> Setup {
    let mut setup = creating(Setup::default());
    setup.services[0].reactions.push(Reaction { to: to.to_owned(), after: seconds(2), act, times });
    with_script(setup, &[(45, Act::SetWeights { blue: 50, green: 50 })])
}

fn count(story: &[String], what: &str) -> usize {
    story.iter().filter(|line| line.contains(what)).count()
}

fn story(stage: &mut Stage) -> Vec<String> {
    stage.world.drain_story().into_iter().map(|moment| moment.what).collect()
}

fn targets(stage: &mut Stage, target_group: String) -> Vec<String> {
    match stage.call(Call::DescribeTargetHealth { target_group }) {
        Ok(Reply::Targets(targets)) => targets.into_iter().map(|target| target.state).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_breaks_when_its_tasks_have_run_for_a_while() {
    let trouble = Trouble { crash: Some(CRASH), ..Trouble::default() };
    let mut stage = Stage::new(breaking(When::Aged(seconds(60)), None, trouble));
    stage.at(60);
    assert_eq!((stage.green().running, count(&story(&mut stage), "crashed")), (4, 0));
    stage.at(100);
    assert_eq!(count(&story(&mut stage), "crashed"), 4, "all four, and those after them are young again");
    stage.at(130);
    assert_eq!(count(&story(&mut stage), "crashed"), 0);
}

#[test]
fn a_version_breaks_at_a_time_for_old_and_new_tasks_alike() {
    let trouble = Trouble { crash: Some(CRASH), ..Trouble::default() };
    let mut stage = Stage::new(breaking(When::At(seconds(90)), Some(2), trouble));
    stage.at(89);
    assert_eq!(count(&story(&mut stage), "crashed"), 0);
    stage.at(150);
    assert!(count(&story(&mut stage), "green task") > 8, "replacements crash as well");
    assert!((2..=4).contains(&stage.green().running), "two of the four keep running");
}

#[test]
fn failing_health_checks_make_targets_unhealthy_and_ecs_replaces_them_at_its_own_pace() {
    let trouble = Trouble { fails_health_checks: true, ..Trouble::default() };
    let states = |patience: u64| {
        let timing = Timing { unhealthy: seconds(patience), ..Timing::default() };
        let mut stage = Stage::new(Setup { timing, ..breaking(When::At(seconds(60)), Some(3), trouble) });
        let group = stage.at(85).green().target_group.unwrap();
        let mut states = targets(&mut stage, group);
        states.sort();
        (states, count(&story(&mut stage), "failed its health checks"))
    };
    assert_eq!(states(600), (["healthy", "unhealthy", "unhealthy", "unhealthy"].map(str::to_owned).to_vec(), 0));
    assert_eq!(states(0).1, 3, "ECS stops them at once");
}

#[test]
fn users_see_errors_from_the_moment_on_at_which_a_version_breaks() {
    let trouble = Trouble { error_rate: 1.0, ..Trouble::default() };
    let setup = breaking(When::At(seconds(100)), None, trouble);
    let mut stage = Stage::new(with_script(setup, &[(45, Act::SetWeights { blue: 0, green: 100 })]));
    stage.at(99);
    assert!(stage.world.traffic(&key()).unwrap().failed() < 50);
    stage.at(110);
    assert!(stage.world.traffic(&key()).unwrap().failed() > 900);
}

#[test]
fn an_outage_hits_blue_and_green_and_ends() {
    let trouble = Trouble { crash: Some(CRASH), ..Trouble::default() };
    let outage = Act::Outage { what: "the database".to_owned(), lasts: seconds(20), trouble };
    let mut stage = Stage::new(with_script(creating(Setup::default()), &[(60, outage)]));
    stage.at(80);
    let during = story(&mut stage);
    assert_eq!((count(&during, "the database is down"), count(&during, "the database is back")), (1, 1));
    assert!(count(&during, "blue task") >= 4 && count(&during, "green task") >= 4, "{during:#?}");
    stage.at(160);
    assert_eq!((stage.blue().stability.as_str(), stage.green().stability.as_str()), ("STEADY_STATE", "STEADY_STATE"));
}

#[test]
fn targets_recover_when_an_outage_ends() {
    let trouble = Trouble { fails_health_checks: true, ..Trouble::default() };
    let outage = Act::Outage { what: "the database".to_owned(), lasts: seconds(30), trouble };
    let timing = Timing { unhealthy: seconds(600), ..Timing::default() };
    let mut stage = Stage::new(with_script(Setup { timing, ..Setup::default() }, &[(60, outage)]));
    let group = stage.at(85).blue().target_group.unwrap();
    assert_eq!(targets(&mut stage, group.clone()), ["unhealthy"; 4]);
    assert_eq!(stage.blue().stability, "STABILIZING");
    stage.at(110);
    assert_eq!(targets(&mut stage, group), ["healthy"; 4]);
}

#[test]
fn autoscaling_moves_every_task_set() {
    let mut stage = Stage::new(with_script(creating(Setup::default()), &[(60, Act::SetDesired(6))]));
    stage.at(61);
    assert_eq!(stage.service().desired_count, 6);
    assert_eq!((stage.blue().computed_desired, stage.blue().stability.as_str()), (6, "STABILIZING"));
    stage.at(120);
    assert_eq!((stage.blue().running, stage.green().running), (6, 6));
}

#[test]
fn people_react_to_a_call_as_often_as_they_are_set_up_to() {
    let mut stage = Stage::new(reacting("ModifyRule", Act::SetWeights { blue: 50, green: 50 }, 1));
    stage.at(60).weigh(100, 0).unwrap();
    stage.at(70);
    assert!(stage.green_share() > 0.3, "set back after two seconds: {}", stage.green_share());
    stage.weigh(100, 0).unwrap();
    stage.at(80);
    assert!(stage.green_share() < 0.01, "and not again: {}", stage.green_share());
}

#[test]
fn infrastructure_code_does_not_look_whether_there_is_a_green() {
    let weights = (90, Act::SetWeights { blue: 50, green: 50 });
    let mut script = vec![(60, Act::DeleteTaskSet(Role::Green)), weights];
    let share = |stage: &Stage| stage.world.traffic(&ServiceKey::new("prod", "checkout")).unwrap().configured.green;
    let mut stage = Stage::new(with_script(creating(Setup::default()), &script));
    assert!(share(stage.at(100)) <= 0.0);
    script.push((110, Act::ApplyWeights { route: None, blue: 50, green: 50 }));
    let mut stage = Stage::new(with_script(creating(Setup::default()), &script));
    assert!((share(stage.at(120)) - 0.5).abs() < 0.01);
}

#[test]
fn a_refused_call_makes_nobody_react() {
    let mut stage = Stage::new(reacting("ModifyRule", Act::SetPrimary(Role::Green), 1));
    assert_eq!(code(stage.at(60).weigh(1000, 0)), "ValidationError");
    stage.at(70);
    assert_eq!(stage.green().status, "ACTIVE");
    assert_eq!(stage.world.changes(), 0);
    stage.weigh(100, 0).unwrap();
    stage.at(80);
    assert_eq!((stage.green().status.as_str(), stage.world.changes()), ("PRIMARY", 1));
}

#[test]
fn a_third_task_set_has_a_group_of_its_own_and_leaves_the_weights_alone() {
    let create = Act::CreateTaskSet { version: "checkout:89".to_owned(), scale: 100.0 };
    let mut setup = reacting("ModifyRule", create, 1);
    setup.services[0].spare_group = true;
    let mut stage = Stage::new(setup);
    stage.at(60).weigh(100, 0).unwrap();
    let rule = stage.rule();
    stage.at(110);
    let sets = stage.service().task_sets;
    let groups: std::collections::BTreeSet<_> = sets.iter().map(|set| set.target_group.clone().unwrap()).collect();
    assert_eq!((sets.len(), groups.len(), sets[2].stability.as_str()), (3, 3, "STEADY_STATE"));
    assert_eq!(stage.rule(), rule);
    assert_eq!(count(&story(&mut stage), "third"), 1 + 4 + 1, "its creation, its four tasks, its steady state");
    let fourth = stage.world.create_task_set(&key(), "checkout:90", 100.0);
    assert_eq!(fourth, Err("every target group is in use".to_owned()));
}

#[test]
fn a_service_without_a_load_balancer_is_steady_as_soon_as_its_tasks_run() {
    let service = ServiceSetup { balancer: BalancerKind::None, routes: Vec::new(), ..ServiceSetup::default() };
    let mut stage = Stage::new(creating(Setup { services: vec![service], ..Setup::default() }));
    stage.at(25);
    let (blue, green) = (stage.blue(), stage.green());
    assert_eq!((blue.target_group, blue.stability.as_str(), blue.running), (None, "STEADY_STATE", 4));
    assert_eq!((green.target_group, green.stability.as_str(), green.running), (None, "STEADY_STATE", 4));
    assert_eq!(stage.world.traffic(&key()), Some(super::super::TrafficView::default()));
    stage.delete(&green.id).unwrap();
    stage.at(45);
    assert_eq!(stage.service().task_sets.len(), 1);
    assert!(story(&mut stage).contains(&"green is gone".to_owned()));
}

#[test]
fn operations_are_throttled_for_a_span_of_time() {
    let throttled = vec![Throttled {
        operations: vec!["ModifyRule".to_owned(), "ModifyListener".to_owned()],
        from: seconds(60),
        until: seconds(100),
    }];
    let mut stage = Stage::new(creating(Setup { throttled, ..Setup::default() }));
    assert_eq!(code(stage.at(59).weigh(90, 10)), "");
    assert_eq!(code(stage.at(60).weigh(100, 0)), "ThrottlingException");
    assert_eq!(code(stage.at(99).weigh(100, 0)), "ThrottlingException");
    let green = stage.green().id;
    assert!(stage.delete(&green).is_ok(), "other operations are not");
    assert_eq!(code(stage.at(100).weigh(100, 0)), "");
}

#[test]
fn a_lagging_read_answers_what_was_while_the_second_opinion_does_not() {
    let mut stage = Stage::new(creating(Setup { lag: seconds(5), ..Setup::default() }));
    let green = stage.at(60).green();
    stage.delete(&green.id).unwrap();
    assert_eq!(stage.at(63).green().status, "ACTIVE", "as it was at the 58th second");
    let call = Call::DescribeTaskSets {
        cluster: "prod".to_owned(),
        service: "checkout".to_owned(),
        task_sets: vec![green.id],
    };
    let Ok(Reply::TaskSets { task_sets, .. }) = stage.call(call) else { panic!("no task sets") };
    assert_eq!(task_sets[0].status, "DRAINING");
    assert_eq!(stage.at(67).green().status, "DRAINING");
}

#[test]
fn the_story_says_of_which_other_service_it_speaks() {
    let mut setup = creating(Setup::default());
    let script = vec![(seconds(5), Act::CreateTaskSet { version: "cart:2".to_owned(), scale: 100.0 })];
    let routes = vec![RouteSetup::default()];
    let key = ServiceKey::new("prod", "cart");
    setup.services.push(ServiceSetup { key, version: "cart:1".to_owned(), routes, script, ..ServiceSetup::default() });
    let mut stage = Stage::new(setup);
    stage.at(60);
    let story = story(&mut stage);
    assert!(story.contains(&"cart: the deployer creates green (cart:2)".to_owned()), "{story:#?}");
    assert!(story.contains(&"cart: green is steady".to_owned()) && story.contains(&"green is steady".to_owned()));
}

#[test]
fn a_draining_task_set_is_neither_scaled_nor_promoted() {
    let mut stage = Stage::new(creating(Setup::default()));
    let task_set = stage.at(60).green().id;
    stage.delete(&task_set).unwrap();
    let names = || ("prod".to_owned(), "checkout".to_owned(), task_set.clone());
    let (cluster, service, set) = names();
    let scale = Call::UpdateTaskSet { cluster, service, task_set: set, scale: 100.0 };
    assert_eq!(code(stage.at(65).call(scale)), "InvalidParameterException");
    let (cluster, service, set) = names();
    let promote = Call::SetPrimary { cluster, service, task_set: set };
    assert_eq!(code(stage.call(promote)), "InvalidParameterException");
}
