//! The cumulative gate (`compare.false_rollback`), told against a tiny AWS in memory: failures of green against chance, and against
//! what blue suffers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::*;
use taskset_guardian::engine::{GateState, Input};
use taskset_guardian::model::*;
use taskset_guardian::rules::{Compare, Rule, StabilityGates, Watch};

/// One false rollback in a hundred deployments, and no gate beside it.
fn alone() -> Rule {
    let compare = Compare { against_blue: true, false_rollback: Some(0.01), patience: minutes(2) };
    let stability =
        StabilityGates { task_failures: None, steady_within: None, unhealthy_targets: None, ..rule().stability };
    Rule { compare, stability, ..rule() }
}

fn minutes(number: u64) -> Duration {
    secs(60 * number)
}

/// Task sets of so many tasks: an hour of a quiet blue, then a green that is not steady yet.
fn sized(tasks: u32) -> Driver {
    with(tasks, alone())
}

fn with(tasks: u32, rule: Rule) -> Driver {
    let mut it = quiet(tasks, rule);
    deploy(&mut it);
    it
}

fn quiet(tasks: u32, rule: Rule) -> Driver {
    let mut aws = Aws::blue_and_green();
    aws.remove(GREEN);
    let blue = aws.set(BLUE);
    (blue.running, blue.computed_desired) = (tasks, tasks);
    aws.service.desired_count = tasks;
    let mut it = Driver::new(aws, rule);
    it.run(minutes(60));
    it
}

fn deploy(it: &mut Driver) {
    let tasks = it.aws.service.desired_count;
    let mut green = task_set(GREEN, it.now, TaskSetStatus::Active, "green");
    (green.running, green.computed_desired, green.stability) = (tasks, tasks, Stability::Stabilizing);
    it.aws.service.task_sets.push(green);
    it.run(secs(31));
}

/// Green has come up.
fn steady(it: &mut Driver) {
    it.aws.set(GREEN).stability = Stability::Steady;
    it.run(SWEEP);
}

/// When green was created.
fn born(it: &Driver) -> Timestamp {
    it.aws.service.task_sets.iter().find(|set| set.id.as_str() == GREEN).unwrap().created_at
}

/// Tasks of a task set crash at these seconds after green's creation.
fn crashes(it: &mut Driver, task_set: &str, at: &[u64]) {
    for second in at {
        it.run(born(it).plus(secs(*second)).since(it.now));
        it.crash_of(&key(), task_set, &format!("{}-{second}", TaskSetId::new(task_set).digits()));
    }
}

/// What the gate says, and why.
fn said(it: &Driver) -> (GateState, String) {
    let deployment = it.engine.service(&key(), it.now).unwrap().deployment.unwrap();
    let gate = deployment.gates.into_iter().find(|view| view.gate == "compare.false_rollback").unwrap();
    (gate.state, gate.why)
}

fn rolled_back(it: &Driver) -> bool {
    it.said().contains(&"Rollback Started")
}

#[test]
fn two_tasks_of_a_small_green_are_enough_in_a_quiet_service_and_the_evidence_can_be_read() {
    let mut it = sized(4);
    crashes(&mut it, GREEN, &[60]);
    it.run(SWEEP);
    assert_eq!(said(&it).0, GateState::Pending, "{}", said(&it).1);
    crashes(&mut it, GREEN, &[150]);
    assert!(rolled_back(&it), "{}", said(&it).1);
    let evidence = it.incidents.values().next().unwrap().evidence[0].clone();
    assert_eq!((&evidence.gate, evidence.threshold, evidence.unit), (&Gate::ExcessFailures, 100.0, Unit::Odds));
    insta::assert_snapshot!(format!("{evidence}\n\n{}", evidence.facts.join("\n")));
}

#[test]
fn one_task_alone_is_never_enough() {
    let mut it = with(2, Rule { compare: Compare { false_rollback: Some(0.1), ..alone().compare }, ..alone() });
    crashes(&mut it, GREEN, &[5]);
    it.run(minutes(10));
    assert_eq!((said(&it).0, rolled_back(&it)), (GateState::Pending, false));
}

#[test]
fn of_many_tasks_more_must_fail() {
    let mut it = sized(50);
    crashes(&mut it, GREEN, &[60, 75]);
    it.run(secs(10));
    assert!(!rolled_back(&it), "{}", said(&it).1);
    crashes(&mut it, GREEN, &[90]);
    assert!(rolled_back(&it), "{}", said(&it).1);
}

#[test]
fn it_counts_on_where_a_window_has_forgotten() {
    let apart = [60, 500, 1000];
    let mut window = with(10, Rule { compare: Compare { false_rollback: None, ..alone().compare }, ..rule() });
    steady(&mut window);
    crashes(&mut window, GREEN, &apart);
    window.run(minutes(1));
    assert!(!rolled_back(&window));
    let mut it = sized(10);
    crashes(&mut it, GREEN, &apart);
    it.run(minutes(1));
    assert!(rolled_back(&it), "{}", said(&it).1);
}

#[test]
fn of_a_service_whose_tasks_fail_now_and_then_more_is_asked() {
    let judged = |it: &mut Driver| {
        deploy(it);
        crashes(it, GREEN, &[60, 120]);
        rolled_back(it)
    };
    assert!(judged(&mut quiet(4, alone())), "a quiet one");
    let mut noisy = quiet(4, alone());
    for number in 0..20 {
        noisy.crash_of(&key(), BLUE, &format!("old-{number}"));
        noisy.run(minutes(3));
    }
    assert!(!judged(&mut noisy), "{}", said(&noisy).1);
}

#[test]
fn what_blue_suffers_as_well_is_held() {
    let mut it = sized(4);
    for second in [60, 62] {
        crashes(&mut it, BLUE, &[second]);
        crashes(&mut it, GREEN, &[second + 1]);
    }
    crashes(&mut it, GREEN, &[66, 67, 68, 69, 70, 71]);
    it.run(minutes(1));
    assert_eq!((said(&it).0, rolled_back(&it)), (GateState::Shared, false), "{}", said(&it).1);
    assert_eq!(it.said(), ["Rollback Held"]);
    assert!(said(&it).1.contains("blue, which has 4, lost 2"), "{}", said(&it).1);
}

#[test]
fn blue_is_heard_before_a_green_that_had_come_up_is_blamed() {
    let mut it = sized(4);
    steady(&mut it);
    crashes(&mut it, GREEN, &[90, 91]);
    it.run(secs(100));
    assert_eq!(said(&it).0, GateState::Pending, "{}", said(&it).1);
    let mut alone = sized(4);
    steady(&mut alone);
    crashes(&mut alone, GREEN, &[90, 91]);
    alone.run(secs(125));
    assert!(rolled_back(&alone), "nothing befell blue: {}", said(&alone).1);
    crashes(&mut it, BLUE, &[195, 196]);
    it.run(minutes(2));
    assert!(!rolled_back(&it), "{}", said(&it).1);
}

/// The plain count alone, which hears blue first.
fn counting(tasks: u32) -> Driver {
    let compare = Compare { false_rollback: None, ..alone().compare };
    let mut it = with(tasks, Rule { compare, ..rule() });
    steady(&mut it);
    it
}

/// What the count says.
fn counted(it: &Driver) -> (GateState, String) {
    let deployment = it.engine.service(&key(), it.now).unwrap().deployment.unwrap();
    let gate = deployment.gates.into_iter().find(|view| view.gate == "stability.task_failures").unwrap();
    (gate.state, gate.why)
}

#[test]
fn the_count_hears_blue_too_before_a_green_that_had_come_up_is_blamed() {
    let mut it = counting(4);
    crashes(&mut it, GREEN, &[90, 91, 92]);
    it.run(secs(115));
    let (state, why) = counted(&it);
    assert_eq!(state, GateState::Pending, "{why}");
    let third = born(&it).plus(secs(92));
    let until = third.plus(minutes(2));
    assert!(why.ends_with(&format!("; blue is watched until {until} before green is blamed")), "{why}");
    assert!(!rolled_back(&it));
    it.run(secs(7));
    assert!(rolled_back(&it), "two minutes after the third, not a sweep later: {}", counted(&it).1);

    let mut it = counting(4);
    crashes(&mut it, GREEN, &[90, 91, 92, 93, 94]);
    crashes(&mut it, BLUE, &[150]);
    it.run(minutes(10));
    assert!(!rolled_back(&it), "blue lost one in the wait, and five against one are chance: {}", counted(&it).1);
}

#[test]
fn a_green_that_never_came_up_is_not_waited_for() {
    let compare = Compare { false_rollback: None, ..alone().compare };
    let mut it = with(4, Rule { compare, ..rule() });
    crashes(&mut it, GREEN, &[90, 91, 92]);
    it.run(secs(3));
    assert!(rolled_back(&it), "{}", counted(&it).1);
}

#[test]
fn so_many_failures_that_one_cause_would_not_have_spared_blue_end_the_wait() {
    let mut it = counting(20);
    let seconds: Vec<u64> = (90..98).collect();
    crashes(&mut it, GREEN, &seconds);
    it.run(secs(3));
    assert!(!rolled_back(&it), "eight of green's and none of blue's: once in 116. {}", counted(&it).1);
    crashes(&mut it, GREEN, &[102]);
    it.run(secs(3));
    assert!(rolled_back(&it), "nine: once in 215. {}", counted(&it).1);
}

#[test]
fn what_was_three_within_a_window_is_so_still_when_blue_was_heard() {
    let mut it = counting(10);
    crashes(&mut it, GREEN, &[90, 200, 310]);
    it.run(secs(125));
    assert!(rolled_back(&it), "the first is older than a window by now: {}", counted(&it).1);
    let mut it = counting(10);
    crashes(&mut it, GREEN, &[90, 250, 410]);
    it.run(secs(125));
    assert!(!rolled_back(&it), "there never were three within a window: {}", counted(&it).1);
}

#[test]
fn a_restart_in_the_middle_of_the_wait_neither_ends_nor_prolongs_it() {
    let mut it = counting(4);
    crashes(&mut it, GREEN, &[90, 91, 92]);
    it.run(secs(60));
    it.restart();
    it.feed(Input::Restarted);
    it.run(secs(50));
    assert!(!rolled_back(&it), "{}", counted(&it).1);
    it.run(secs(12));
    assert!(rolled_back(&it), "{}", counted(&it).1);
}

#[test]
fn a_blue_without_tasks_can_not_be_heard() {
    let mut it = counting(4);
    it.aws.set(BLUE).running = 0;
    crashes(&mut it, GREEN, &[90, 91, 92]);
    it.run(secs(25));
    assert!(rolled_back(&it), "{}", counted(&it).1);
}

#[test]
fn the_bake_does_not_end_while_blue_is_heard() {
    let compare = Compare { false_rollback: None, ..alone().compare };
    let watch = Watch { bake: minutes(2), ..rule().watch };
    let mut it = with(4, Rule { compare, watch, ..rule() });
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    steady(&mut it);
    crashes(&mut it, GREEN, &[90, 91, 92]);
    it.run(secs(110));
    assert_eq!(it.phase(), "watching", "promoted for more than two minutes");
    it.run(secs(12));
    assert!(rolled_back(&it), "{}", counted(&it).1);
}

#[test]
fn a_team_may_have_no_patience_or_no_control_group() {
    for compare in [
        Compare { patience: Duration::ZERO, false_rollback: None, ..alone().compare },
        Compare { against_blue: false, false_rollback: None, ..alone().compare },
    ] {
        let mut it = with(4, Rule { compare, ..rule() });
        steady(&mut it);
        crashes(&mut it, GREEN, &[90, 91, 92]);
        it.run(secs(3));
        assert!(rolled_back(&it), "{}", counted(&it).1);
    }
}

#[test]
fn what_failed_while_blue_suffered_as_well_is_never_held_against_green() {
    let mut it = with(4, Rule { compare: alone().compare, ..rule() });
    steady(&mut it);
    let ill = |it: &mut Driver, unhealthy| {
        it.aws.healthy.insert(group("blue"), 4 - unhealthy);
        it.aws.unhealthy.insert(group("blue"), unhealthy);
    };
    crashes(&mut it, GREEN, &[90, 91, 92, 93]);
    ill(&mut it, 3);
    it.run(minutes(1));
    assert_eq!(it.said(), ["Rollback Held"]);
    ill(&mut it, 0);
    it.run(minutes(10));
    assert!(!rolled_back(&it), "{}", said(&it).1);
    assert!(said(&it).1.contains("4 are set aside"), "{}", said(&it).1);
    ill(&mut it, 3);
    it.run(minutes(1));
    ill(&mut it, 0);
    it.run(minutes(6));
    assert!(said(&it).1.contains("4 are set aside"), "nor after another outage: {}", said(&it).1);
    it.crash("one");
    it.crash("two");
    it.crash("three");
    it.run(minutes(3));
    assert!(rolled_back(&it), "what fails when blue is well again is green's own: {}", said(&it).1);
}

#[test]
fn a_green_that_is_much_worse_than_a_blue_that_suffers_is_rolled_back() {
    let mut it = sized(4);
    crashes(&mut it, BLUE, &[60]);
    crashes(&mut it, GREEN, &(7..22).map(|number| number * 10).collect::<Vec<_>>());
    it.run(minutes(1));
    assert!(rolled_back(&it), "{}", said(&it).1);
}

/// The deployer has made green PRIMARY with all the traffic, and has scaled blue to nothing.
fn promoted(it: &mut Driver) {
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    let blue = it.aws.set(BLUE);
    (blue.running, blue.computed_desired) = (0, 0);
    it.aws.healthy.insert(group("blue"), 0);
    it.run(SWEEP);
}

#[test]
fn a_blue_that_was_scaled_to_nothing_had_its_tasks_when_they_failed() {
    let mut it = quiet(4, alone());
    for number in 0..10 {
        it.crash_of(&key(), BLUE, &format!("old-{number}"));
        it.run(minutes(6));
    }
    deploy(&mut it);
    promoted(&mut it);
    crashes(&mut it, GREEN, &[120, 180]);
    it.run(minutes(3));
    assert!(!rolled_back(&it), "as usual here: {}", said(&it).1);
    crashes(&mut it, GREEN, &(40..60).map(|number| number * 10).collect::<Vec<_>>());
    assert!(rolled_back(&it), "{}", said(&it).1);

    let mut quiet = sized(4);
    crashes(&mut quiet, BLUE, &[60]);
    promoted(&mut quiet);
    crashes(&mut quiet, GREEN, &(12..27).map(|number| number * 10).collect::<Vec<_>>());
    assert!(rolled_back(&quiet), "blue lost one while it had tasks: {}", said(&quiet).1);
}

#[test]
fn a_green_that_is_scaled_in_has_run_what_it_has_run() {
    let mut it = quiet(50, alone());
    deploy(&mut it);
    it.run(minutes(60));
    crashes(&mut it, GREEN, &[3600, 7200, 10800, 14300]);
    assert!(!rolled_back(&it), "four accidents of fifty tasks in four hours: {}", said(&it).1);
    let green = it.aws.set(GREEN);
    (green.running, green.computed_desired) = (2, 2);
    it.run(minutes(5));
    assert!(!rolled_back(&it), "{}", said(&it).1);
}

#[test]
fn a_blue_that_was_scaled_to_nothing_tells_the_count_too_what_is_usual() {
    let compare = Compare { false_rollback: None, ..alone().compare };
    let mut it = quiet(4, Rule { compare, ..rule() });
    for number in 0..60 {
        it.crash_of(&key(), BLUE, &format!("old-{number}"));
        it.run(minutes(1));
    }
    it.run(minutes(11));
    deploy(&mut it);
    promoted(&mut it);
    crashes(&mut it, GREEN, &[120, 180, 240]);
    it.run(minutes(1));
    assert!(!rolled_back(&it), "{}", counted(&it).1);
}

#[test]
fn what_was_stale_when_it_was_heard_of_never_counts_and_what_was_fresh_needs_fresh_company() {
    let mut it = sized(2);
    it.run(minutes(20));
    for (task, at) in [("old-1", 60), ("old-2", 70), ("old-3", 80)] {
        let change = stopped(GREEN, task, born(&it).plus(secs(at)));
        let (task, version, stop) = (change.task.clone(), change.version, change.stop.clone());
        let (task_set, images) = (change.task_set.clone(), Images::new());
        it.aws.tasks.insert(task.clone(), TaskReading { task, task_set, version, stop, images });
        it.signal(Fact::Task(change));
    }
    it.run(minutes(2));
    assert!(!rolled_back(&it), "{}", said(&it).1);
    assert!(said(&it).1.starts_with("0 of"), "{}", said(&it).1);

    // Held by a person until the evidence is old: then it is history, not news.
    let mut it = sized(2);
    let until = born(&it).plus(secs(680));
    it.aws.service.tags.insert("taskset-guardian:hold-until".into(), until.to_string());
    crashes(&mut it, GREEN, &[60, 70]);
    it.run(secs(650));
    assert!(!rolled_back(&it), "{}", said(&it).1);
    assert!(said(&it).1.contains("old"), "{}", said(&it).1);
    it.crash("news");
    it.run(minutes(1));
    assert!(rolled_back(&it), "{}", said(&it).1);
}

#[test]
fn off_is_off() {
    let mut it = with(4, Rule { compare: Compare { false_rollback: None, ..alone().compare }, ..alone() });
    crashes(&mut it, GREEN, &[60, 70, 80, 90]);
    it.run(minutes(2));
    assert!(!rolled_back(&it));
}

/// The promise: of sound greens, whose tasks fail as often as those of the service's versions before, no more are rolled back than
/// was accepted, although they are judged at every failure. How often that is, is drawn as the gate assumes it.
#[test]
fn no_more_sound_greens_are_rolled_back_than_is_accepted() {
    const DEPLOYMENTS: u64 = 300;
    for (tasks, accepted) in [(4, 0.01), (20, 0.05)] {
        let rule = Rule { compare: Compare { false_rollback: Some(accepted), ..alone().compare }, ..alone() };
        let fallen = (0..DEPLOYMENTS).filter(|seed| falls(*seed, tasks, &rule)).count();
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let share = fallen as f64 / DEPLOYMENTS as f64;
        assert!(share <= accepted, "{share} of sound greens with {tasks} tasks were rolled back");
    }
}

/// An hour of blue and 40 minutes of green, of one service.
fn falls(seed: u64, tasks: u32, rule: &Rule) -> bool {
    let mut rng = fastrand::Rng::with_seed(seed);
    let wait = |rng: &mut fastrand::Rng, mean: f64| -rng.f64().max(1e-12).ln() * mean;
    // Failures of one task per minute: of the noisy kind, or of the quiet one (a gamma distribution of shape 1/2).
    let rate = if rng.f64() < 0.02 {
        wait(&mut rng, 1.0 / 60.0)
    } else {
        let normal = (wait(&mut rng, 2.0)).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
        normal * normal / 2.0 / 1440.0
    };
    let every = 60.0 / (rate.max(1e-9) * f64::from(tasks));
    let mut it = quiet(tasks, rule.clone());
    let end = it.now.plus(minutes(60));
    let mut live = |it: &mut Driver, task_set: &str, end: Timestamp| loop {
        let next = it.now.plus(Duration::from_secs_f64(wait(&mut rng, every).min(1e6)));
        if next >= end {
            return it.run(end.since(it.now));
        }
        it.run(next.since(it.now));
        it.crash_of(&key(), task_set, &format!("{}", next.as_millis()));
    };
    live(&mut it, BLUE, end);
    deploy(&mut it);
    let end = it.now.plus(minutes(40));
    live(&mut it, GREEN, end);
    rolled_back(&it)
}
