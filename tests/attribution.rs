//! Whose fault a breach is, told against a tiny AWS in memory: an alarm, and a share of failed requests, beside all that is known
//! of blue.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::*;
use taskset_guardian::engine::GateState;
use taskset_guardian::model::*;
use taskset_guardian::rules::{ErrorGates, Rule};

fn minutes(number: u64) -> Duration {
    secs(60 * number)
}

/// A minute after green's creation, with so many requests, of which so many failed.
fn minute(number: u64, requests: u64, http_5xx: u64) -> Sample {
    Sample { requests: Some(requests), http_5xx, ..Sample::empty(start().plus(minutes(number))) }
}

fn counts(it: &mut Driver, green: &[Sample], blue: &[Sample]) {
    it.aws.samples = Some([(group("green"), green.to_vec()), (group("blue"), blue.to_vec())].into());
}

/// What a gate says, and why.
fn said(it: &Driver, gate: &str) -> (GateState, String) {
    let deployment = it.engine.service(&key(), it.now).unwrap().deployment.unwrap();
    let gate = deployment.gates.into_iter().find(|view| view.gate == gate).unwrap();
    (gate.state, gate.why)
}

const ALARM: &str = "alarm \"green-5xx\"";

/// Five minutes into a deployment; CloudWatch knows what it has counted so far.
fn deployed(green: &[Sample], blue: &[Sample]) -> Driver {
    let mut aws = Aws::blue_and_green();
    aws.alarms = vec![AlarmReading { value: AlarmValue::Ok, ..red("green-5xx", start(), &["green"]) }];
    let mut it = Driver::new(aws, rule());
    it.run(minutes(5));
    counts(&mut it, green, blue);
    it
}

/// Green's alarm turns red, and says so.
fn turns_red(it: &mut Driver) {
    it.aws.alarms = vec![red("green-5xx", it.now, &["green"])];
    let alarm = it.aws.alarms[0].clone();
    it.signal(Fact::Alarm(AlarmChange { alarm }));
    it.run(secs(2));
}

#[test]
fn an_alarm_is_weighed_against_blues_traffic_by_the_very_read_that_finds_it_red() {
    let mut it = deployed(&[minute(2, 100, 20), minute(3, 100, 20)], &[minute(2, 900, 1), minute(3, 900, 0)]);
    assert_eq!(it.aws.sampled, [], "no gate of the rule reads the traffic");
    let before = it.aws.reads;
    turns_red(&mut it);
    assert_eq!((it.said(), it.aws.sampled.len()), (vec!["Rollback Started"], 1));
    let reads_to_decide = it.aws.reads - before;
    assert!(reads_to_decide <= 3, "one to decide, and the plan's own: {reads_to_decide}");
    let evidence = &it.incidents.values().next().unwrap().evidence[0];
    assert!(evidence.facts[1].starts_with("20 % of green's 200 requests and 0.1 % of blue's 1800"), "{evidence:?}");
}

#[test]
fn an_alarm_whose_trouble_blues_users_share_is_held() {
    let mut it = deployed(&[minute(2, 100, 20), minute(3, 100, 20)], &[minute(2, 900, 150), minute(3, 900, 160)]);
    turns_red(&mut it);
    assert_eq!((it.said(), it.aws.writes.len()), (vec!["Rollback Held"], 0));
    let (state, why) = said(&it, ALARM);
    assert_eq!(state, GateState::Shared);
    assert!(why.contains("17 % of blue's 1800 failed in the same minutes"), "{why}");
}

#[test]
fn an_alarm_that_only_the_sweep_finds_is_weighed_by_one_read_more() {
    let mut it = deployed(&[minute(3, 100, 20)], &[minute(3, 900, 200)]);
    it.aws.alarms = vec![red("green-5xx", it.now, &["green"])];
    it.run(SWEEP + secs(2));
    assert_eq!((it.said(), it.aws.sampled.len()), (vec!["Rollback Held"], 1));
}

#[test]
fn metrics_that_can_not_be_read_do_not_mute_an_alarm() {
    let mut it = deployed(&[], &[]);
    it.aws.samples = None;
    turns_red(&mut it);
    assert_eq!(it.said(), ["Rollback Started"]);
}

#[test]
fn an_alarm_while_blue_loses_its_tasks_is_held() {
    let mut it = deployed(&[], &[]);
    for task in ["b-1", "b-2"] {
        it.crash_of(&key(), BLUE, task);
    }
    turns_red(&mut it);
    it.run(SWEEP);
    assert_eq!((it.said(), it.aws.writes.len()), (vec!["Rollback Held"], 0));
    assert!(said(&it, ALARM).1.contains("blue, which has 4, lost 2 tasks"), "{}", said(&it, ALARM).1);
}

fn ratio() -> Rule {
    Rule { errors: ErrorGates { http_5xx_ratio: Some(0.05), ..ErrorGates::default() }, ..rule() }
}

fn judged(green: &[Sample], blue: &[Sample]) -> (GateState, String) {
    let mut it = Driver::new(Aws::blue_and_green(), ratio());
    it.run(minutes(6));
    counts(&mut it, green, blue);
    it.run(SWEEP + secs(1));
    said(&it, "errors.http_5xx_ratio")
}

#[test]
fn a_shift_of_traffic_in_an_outage_does_not_make_green_look_worse() {
    // An outage from minute 4 on, when green gets half of the users: most of blue's requests were before it.
    let green = [minute(2, 10, 0), minute(3, 10, 0), minute(4, 500, 150), minute(5, 500, 150)];
    let blue = [minute(2, 990, 0), minute(3, 990, 0), minute(4, 500, 150), minute(5, 500, 150)];
    let (state, why) = judged(&green, &blue);
    assert_eq!(state, GateState::Shared, "{why}");
    let well = [minute(2, 990, 0), minute(3, 990, 0), minute(4, 500, 1), minute(5, 500, 1)];
    assert_eq!(said_state(judged(&green, &well)), "rolled back");
}

/// A gate that is breached is not judged any more.
fn said_state((state, why): (GateState, String)) -> &'static str {
    assert_eq!(state, GateState::Breached, "{why}");
    "rolled back"
}

/// Three minutes into a deployment, whose users meet an outage on either side.
fn in_an_outage(rule: Rule) -> Driver {
    let mut it = Driver::new(Aws::blue_and_green(), rule);
    it.run(minutes(3));
    counts(&mut it, &[minute(1, 100, 30), minute(2, 100, 30)], &[minute(1, 900, 250), minute(2, 900, 250)]);
    it.run(SWEEP + secs(1));
    it
}

#[test]
fn what_began_while_blue_failed_too_stays_shared_when_blue_has_no_users_left() {
    let mut it = in_an_outage(ratio());
    assert_eq!(said(&it, "errors.http_5xx_ratio").0, GateState::Shared);
    it.run(minutes(7));
    let late = [minute(6, 1000, 300), minute(7, 1000, 300), minute(8, 1000, 300), minute(9, 1000, 300)];
    counts(&mut it, &late, &[]);
    it.run(SWEEP + secs(1));
    let (state, why) = said(&it, "errors.http_5xx_ratio");
    assert_eq!(state, GateState::Shared, "{why}");
    assert!(why.contains("it began while blue failed as well"), "{why}");
}

#[test]
fn requests_that_fail_with_a_lost_task_are_the_business_of_the_gates_on_tasks() {
    let burst = [minute(2, 100, 0), minute(3, 100, 40), minute(4, 100, 15), minute(5, 100, 0)];
    let blue = [2, 3, 4, 5].map(|number| minute(number, 900, 0));
    let judged = |crash: bool| {
        let mut it = Driver::new(Aws::blue_and_green(), ratio());
        it.run(minutes(3));
        if crash {
            it.crash("one");
        }
        it.run(minutes(3));
        counts(&mut it, &burst, &blue);
        it.run(SWEEP + secs(1));
        said(&it, "errors.http_5xx_ratio").0
    };
    assert_eq!((judged(true), judged(false)), (GateState::Pending, GateState::Breached));
}

#[test]
fn a_broken_green_that_has_gone_quiet_does_not_graduate() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.run(minutes(2));
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.crash("one");
    it.aws.set(GREEN).running = 3;
    it.run(minutes(20));
    assert_eq!(it.phase(), "watching", "ECS waits ever longer before it tries again");
    it.aws.set(GREEN).running = 4;
    it.run(SWEEP);
    assert_eq!(it.phase(), "graduated");
}

#[test]
fn twice_blues_share_is_measured_with_what_chance_makes_of_few_requests() {
    // Green's few requests met the worst of a minute that blue's many average out.
    let blue = [minute(3, 600, 0), minute(4, 600, 54)];
    let (state, why) = judged(&[minute(3, 70, 0), minute(4, 80, 16)], &blue);
    assert_eq!(state, GateState::Shared, "11 % beside 4.8 %, of 150: {why}");
    let (state, why) = judged(&[minute(3, 70, 0), minute(4, 80, 30)], &blue);
    assert_eq!(state, GateState::Breached, "20 % is another matter: {why}");
}

#[test]
fn blues_failing_users_are_heard_also_when_green_has_few() {
    let mut it = deployed(&[minute(2, 20, 4), minute(3, 20, 3)], &[minute(2, 900, 150), minute(3, 900, 160)]);
    turns_red(&mut it);
    assert_eq!(it.said(), ["Rollback Held"]);
}

#[test]
fn of_a_blue_without_users_its_failed_tasks_tell() {
    let failing = [minute(3, 1000, 300), minute(4, 1000, 300)];
    let state = |crashes: &[&str]| {
        let mut it = Driver::new(Aws::blue_and_green(), ratio());
        it.run(minutes(6));
        for task in crashes {
            it.crash_of(&key(), BLUE, task);
        }
        counts(&mut it, &failing, &[]);
        it.run(SWEEP + secs(1));
        said(&it, "errors.http_5xx_ratio")
    };
    assert_eq!(state(&[]).0, GateState::Breached);
    let (held, why) = state(&["b-1"]);
    assert_eq!(held, GateState::Shared, "{why}");
    assert!(why.contains("blue has no users, and 1 of its 4 tasks failed too"), "{why}");
}

#[test]
fn unhealthy_targets_are_weighed_against_all_that_blue_suffers() {
    let state = |lost: &[&str]| {
        let mut it = Driver::new(Aws::blue_and_green(), rule());
        it.run(minutes(2));
        for task in lost {
            it.crash_of(&key(), BLUE, task);
        }
        it.aws.healthy.insert(group("green"), 0);
        it.aws.unhealthy.insert(group("green"), 4);
        it.run(SWEEP * 3);
        said(&it, "stability.unhealthy_targets").0
    };
    assert_eq!(state(&[]), GateState::Breached);
    assert_eq!(state(&["b-1", "b-2"]), GateState::Shared);
}

#[test]
fn what_blues_users_were_seen_to_share_holds_for_slow_answers_too() {
    let errors = ErrorGates { latency_p99: Some(Duration::from_millis(800)), ..ratio().errors };
    let mut it = in_an_outage(Rule { errors, ..ratio() });
    it.run(minutes(7));
    let slow = |number| Sample { latency_p99: Some(secs(1)), ..minute(number, 1000, 300) };
    counts(&mut it, &[slow(6), slow(7), slow(8), slow(9)], &[]);
    it.run(SWEEP + secs(1));
    let (state, why) = said(&it, "errors.latency_p99");
    assert_eq!(state, GateState::Shared, "{why}");
}

/// A minute goes by, in which so many of a hundred requests fail.
fn a_minute_passes(it: &mut Driver, number: u64, green: u64, blue: u64) {
    let samples = it.aws.samples.as_mut().unwrap();
    for (name, failed) in [("green", green), ("blue", blue)] {
        samples.entry(group(name)).or_default().push(minute(number, 100, failed));
    }
    it.run(minutes(1));
}

#[test]
fn an_alarm_of_an_outage_is_held_for_as_long_as_it_is_red_and_green_is_no_worse() {
    let mut it = deployed(&[minute(3, 100, 20), minute(4, 100, 20)], &[minute(3, 100, 20), minute(4, 100, 20)]);
    turns_red(&mut it);
    for number in 5..12 {
        a_minute_passes(&mut it, number, 20, 20);
    }
    assert_eq!((it.said(), it.aws.writes.len()), (vec!["Rollback Held"], 0), "the outage lasts");
    for number in 12..20 {
        a_minute_passes(&mut it, number, 0, 0);
    }
    assert_eq!(
        (it.said(), it.aws.writes.len()),
        (vec!["Rollback Held"], 0),
        "the alarm is slow: {}",
        said(&it, ALARM).1
    );
    for number in 20..23 {
        a_minute_passes(&mut it, number, 30, 0);
    }
    assert_eq!(it.said()[..2], ["Rollback Held", "Rollback Started"], "now it is green alone");
}

#[test]
fn an_alarm_that_must_be_red_for_long_is_weighed_when_it_has_been() {
    let errors = ErrorGates { alarm_for: minutes(5), ..ErrorGates::default() };
    let mut aws = Aws::blue_and_green();
    aws.alarms = vec![AlarmReading { value: AlarmValue::Ok, ..red("green-5xx", start(), &["green"]) }];
    let mut it = Driver::new(aws, Rule { errors, ..rule() });
    it.run(minutes(5));
    counts(&mut it, &[minute(4, 100, 20)], &[minute(4, 100, 20)]);
    turns_red(&mut it);
    for number in 5..12 {
        a_minute_passes(&mut it, number, 20, 20);
    }
    assert_eq!((it.said(), it.aws.writes.len()), (vec!["Rollback Held"], 0));
}

#[test]
fn what_began_shared_is_over_when_blues_users_are_well() {
    let mut it = in_an_outage(ratio());
    assert_eq!(said(&it, "errors.http_5xx_ratio").0, GateState::Shared);
    it.run(minutes(10));
    counts(&mut it, &[minute(9, 3, 0)], &[9, 10, 11, 12].map(|number| minute(number, 900, 0)));
    it.run(SWEEP + secs(1));
    assert_eq!(said(&it, "errors.http_5xx_ratio").0, GateState::Pending, "too few to tell");
    for task in ["a", "b", "c"] {
        it.crash(task);
    }
    assert_eq!(it.said().last(), Some(&"Rollback Started"), "{}", said(&it, "stability.task_failures").1);
}

#[test]
fn one_accident_of_a_blue_without_users_excuses_green_no_longer_than_it_is_remembered() {
    let mut it = Driver::new(Aws::blue_and_green(), ratio());
    it.run(minutes(3));
    it.crash_of(&key(), BLUE, "b-1");
    it.run(minutes(2));
    counts(&mut it, &[minute(3, 1000, 300), minute(4, 1000, 300)], &[]);
    it.run(SWEEP + secs(1));
    assert_eq!(said(&it, "errors.http_5xx_ratio").0, GateState::Shared);
    for number in 5..20 {
        it.aws.samples.as_mut().unwrap().get_mut(&group("green")).unwrap().push(minute(number, 1000, 300));
        it.run(minutes(1));
    }
    assert_eq!(it.said()[..2], ["Rollback Held", "Rollback Started"]);
}

#[test]
fn green_does_not_graduate_while_an_alarm_is_about_to_count() {
    let errors = ErrorGates { alarm_for: minutes(2), ..ErrorGates::default() };
    let mut aws = Aws::promoted();
    aws.alarms = vec![AlarmReading { value: AlarmValue::Ok, ..red("green-5xx", start(), &["green"]) }];
    let mut it = Driver::new(aws, Rule { errors, ..rule() });
    let bake = rule().watch.bake;
    it.run(bake.saturating_sub(secs(30)));
    assert_eq!(it.phase(), "watching");
    turns_red(&mut it);
    it.run(minutes(3));
    assert_eq!(it.said().first(), Some(&"Rollback Started"));
}
