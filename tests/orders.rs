//! What people say through tags, told against a tiny AWS in memory: registration, hold, contract, a person's rollback, and
//! versions that come back from quarantine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use taskset_guardian::engine::Input;
use taskset_guardian::model::*;
use taskset_guardian::rules::{Mode, OnReturn, Rule, RuleSet};

fn breach(it: &mut Driver) {
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
}

fn tag(it: &mut Driver, key: &str, value: &str) {
    it.aws.service.tags.insert(key.to_owned(), value.to_owned());
}

fn hold(it: &mut Driver, by: Duration) {
    let until = it.now.plus(by).to_string();
    tag(it, tags::HOLD_UNTIL, &until);
    tag(it, tags::HOLD_REASON, "schema migration");
}

fn contract(word: &str) -> Aws {
    let mut aws = Aws::blue_and_green();
    aws.set(GREEN).tags.insert(tags::CONTRACT.to_owned(), word.to_owned());
    aws
}

fn said(it: &Driver) -> Vec<(&'static str, String)> {
    it.announced.iter().map(|one| (one.kind.detail_type(), one.reason.clone())).collect()
}

fn named(name: &str) -> Arc<Rule> {
    Arc::new(Rule { name: name.into(), ..rule() })
}

/// A worker that knows these rules, of which none names the service.
fn unregistered(aws: Aws, rules: &[&str]) -> Driver {
    let mut it = Driver::idle(aws, false);
    let rules = rules.iter().map(|name| Arc::new(Rule { protect: Vec::new(), ..(*named(name)).clone() })).collect();
    it.feed(Input::Rules(RuleSet { rules }));
    it.feed(Input::Swept([].into()));
    it
}

/// The same, and its tag names one of them.
fn registered() -> Driver {
    let mut it = unregistered(Aws::blue_and_green(), &["web"]);
    tag(&mut it, tags::RULE, "web");
    it.feed(Input::Registered([(key(), "web".into())].into()));
    it
}

fn status(it: &Driver) -> taskset_guardian::engine::ServiceView {
    it.engine.service(&key(), it.now).unwrap()
}

#[test]
fn a_tag_registers_a_service_and_its_removal_lets_it_go() {
    let mut it = unregistered(Aws::blue_and_green(), &["web"]);
    assert!(it.engine.service(&key(), it.now).is_none());
    tag(&mut it, tags::RULE, "web");
    it.feed(Input::Registered([(key(), "web".into())].into()));
    assert!(status(&it).ready);
    // Globs know nothing of it: that must not matter.
    it.feed(Input::Swept([].into()));
    breach(&mut it);
    it.run(secs(90));
    assert_eq!(it.phase(), "rolled_back");
    it.aws.service.tags.clear();
    it.run(SWEEP);
    it.feed(Input::Swept([].into()));
    assert!(it.engine.service(&key(), it.now).is_none());
}

#[test]
fn a_tag_search_that_lags_takes_nothing_away_in_the_middle_of_a_rollback() {
    let mut it = registered();
    breach(&mut it);
    it.feed(Input::Registered([].into()));
    it.feed(Input::Swept([].into()));
    it.run(secs(90));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn what_another_worker_guards_is_let_go_tag_or_not_and_says_so() {
    let mut it = registered();
    breach(&mut it);
    it.run(secs(10));
    it.feed(Input::LetGo([key()].into()));
    assert!(it.engine.service(&key(), it.now).is_none());
    let (last, reason) = said(&it).pop().unwrap();
    assert_eq!((last, reason.as_str()), ("Rollback Held", "another worker guards it"));
    assert!(!it.announced.last().unwrap().dry_run, "users are on blue already");
}

#[test]
fn a_service_that_is_deleted_with_its_tag_is_not_read_for_ever() {
    let mut it = registered();
    it.run(secs(5));
    it.aws.unreadable = Some(CallError { class: ErrorClass::NotFound, ..failed(None) });
    it.run(3 * SWEEP);
    it.feed(Input::Swept([].into()));
    assert!(it.engine.service(&key(), it.now).is_some(), "what is remembered of it is kept for a while");
    it.run(20 * SWEEP);
    it.feed(Input::Swept([].into()));
    assert!(it.engine.service(&key(), it.now).is_none());
}

#[test]
fn a_tag_wins_over_a_file() {
    let mut it = Driver::idle(Aws::blue_and_green(), false);
    let lenient = Rule { protect: Vec::new(), mode: Mode::Observe, ..(*named("lenient")).clone() };
    it.feed(Input::Rules(RuleSet { rules: vec![named("file"), Arc::new(lenient)] }));
    tag(&mut it, tags::RULE, "lenient");
    it.feed(Input::Swept([key()].into()));
    assert_eq!(status(&it).rule.as_deref(), Some("lenient"));
    breach(&mut it);
    it.run(secs(90));
    assert_eq!(it.aws.writes, []);
    it.aws.service.tags.clear();
    it.run(SWEEP);
    assert_eq!(status(&it).rule.as_deref(), Some("file"));
}

#[test]
fn a_tag_that_names_no_rule_is_shown_and_never_acted_on() {
    let mut it = unregistered(Aws::blue_and_green(), &["web"]);
    tag(&mut it, tags::RULE, "wbe");
    it.feed(Input::Registered([(key(), "wbe".into())].into()));
    assert!(status(&it).not_ready_because.unwrap().contains("\"wbe\", and no rule is called so"));
    breach(&mut it);
    it.run(secs(90));
    assert_eq!(it.aws.writes, []);
    assert_eq!(said(&it)[0].0, "Rollback Held");
}

#[test]
fn while_a_person_holds_it_a_breach_changes_nothing_and_afterwards_it_is_rolled_back() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    hold(&mut it, secs(120));
    it.run(SWEEP);
    breach(&mut it);
    it.run(secs(60));
    assert_eq!(it.aws.writes, []);
    assert_eq!(it.said(), ["Rollback Held"]);
    assert!(said(&it)[0].1.contains("schema migration"), "{:?}", said(&it));
    assert!(status(&it).hold.unwrap().to_string().contains("schema migration"));
    it.run(secs(60 + 90));
    assert_eq!(it.phase(), "rolled_back");
    assert_eq!(status(&it).hold, None);
}

#[test]
fn a_green_whose_breach_is_held_does_not_graduate_meanwhile() {
    let mut it = Driver::new(Aws::promoted(), rule());
    hold(&mut it, secs(1700));
    for n in 0..26 {
        it.run(secs(60));
        it.crash(&format!("task-{n}"));
    }
    assert_eq!(it.phase(), "breached", "the bake is over");
    it.run(secs(240));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn a_hold_lasts_while_nobody_can_read_whether_its_reason_does() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    hold(&mut it, secs(3600));
    it.run(secs(65));
    let alarm = red("green-5xx", it.now, &["green"]);
    it.aws.alarms.push(alarm.clone());
    it.signal(Fact::Alarm(AlarmChange { alarm }));
    assert_eq!(it.phase(), "breached");
    it.aws.alarms_unread = true;
    it.run(SWEEP);
    it.aws.alarms_unread = false;
    it.run(SWEEP);
    assert_eq!((it.phase().as_str(), it.said()), ("breached", vec!["Rollback Held"]));
    it.aws.alarms.clear();
    it.run(SWEEP);
    assert_eq!(it.phase(), "watching");
}

#[test]
fn a_green_that_is_not_judged_shows_no_gates_of_the_one_before_it() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    breach(&mut it);
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
    let mut next = task_set("ecs-svc/3000000000000000000", it.now, TaskSetStatus::Active, "green");
    next.tags.insert(tags::CONTRACT.to_owned(), Contract::Off.as_str().to_owned());
    it.aws.service.task_sets.push(next);
    it.run(secs(60));
    let deployment = status(&it).deployment.unwrap();
    assert_eq!((it.phase().as_str(), deployment.gates), ("watching", vec![]));
}

#[test]
fn a_hold_in_the_middle_of_a_rollback_stops_it_and_a_person_hears_of_it() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    breach(&mut it);
    it.run(secs(5));
    assert!(!it.aws.shifts().is_empty());
    hold(&mut it, secs(600));
    it.run(secs(330));
    assert_eq!(it.aws.deletes(), []);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.run(secs(400));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn a_hold_whose_time_nobody_can_read_holds_and_says_so() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    tag(&mut it, tags::HOLD_UNTIL, "tomorrow");
    it.run(SWEEP);
    breach(&mut it);
    it.run(secs(60));
    assert_eq!(it.aws.writes, []);
    assert!(said(&it)[0].1.contains("no RFC 3339 time before"));
}

#[test]
fn a_contract_bounds_what_is_done_to_a_version() {
    for (word, writes, announced) in [
        ("full", vec!["ModifyRule", "DeleteTaskSet"], vec!["Rollback Started", "Rollback Completed"]),
        ("weights-only", vec!["ModifyRule"], vec!["Rollback Started", "Rollback Completed"]),
        ("page", vec![], vec!["Rollback Held"]),
        ("a word that nobody knows", vec![], vec!["Rollback Held"]),
        ("off", vec![], vec![]),
    ] {
        let mut it = Driver::new(contract(word), rule());
        breach(&mut it);
        it.run(secs(120));
        assert_eq!((it.aws.calls(), it.said()), (writes, announced), "{word}");
    }
}

#[test]
fn a_person_pulls_the_cord() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.run(secs(10));
    tag(&mut it, tags::ROLLBACK, "ecs-svc/4711");
    it.run(SWEEP);
    assert_eq!(it.aws.writes, [], "that is another task set");
    tag(&mut it, tags::ROLLBACK, GREEN);
    tag(&mut it, tags::ROLLBACK_REASON, "customers call");
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
    assert!(said(&it)[0].1.contains("customers call"), "{:?}", said(&it));
    assert_eq!(it.incidents.len(), 1, "the tag stays, and is done with");
}

#[test]
fn a_person_is_not_held_by_a_hold_and_not_by_a_contract_to_page_but_by_one_that_forbids_the_delete() {
    for (word, deletes) in [("page", 1), ("off", 1), ("weights-only", 0)] {
        let mut it = Driver::new(contract(word), rule());
        hold(&mut it, secs(6000));
        tag(&mut it, tags::ROLLBACK, GREEN);
        it.run(secs(150));
        assert_eq!((it.phase().as_str(), it.aws.deletes().len()), ("rolled_back", deletes), "{word}");
    }
}

#[test]
fn a_person_can_not_make_an_observing_rule_act() {
    let mut it = Driver::new(Aws::blue_and_green(), Rule { mode: Mode::Observe, ..rule() });
    tag(&mut it, tags::ROLLBACK, GREEN);
    it.run(secs(120));
    assert_eq!(it.aws.writes, []);
    assert_eq!(it.said(), ["Rollback Held"]);
}

const AGAIN: &str = "ecs-svc/3000";

/// Green was rolled back, and its version comes back.
fn returned(on_return: OnReturn, released: Option<&str>) -> Driver {
    let mut rule = rule();
    rule.quarantine.on_return = on_return;
    let mut it = Driver::new(Aws::blue_and_green(), rule);
    let version = it.aws.set(GREEN).task_definition.clone();
    breach(&mut it);
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
    assert_eq!(status(&it).quarantine.len(), 1);
    it.announced.clear();
    it.aws.writes.clear();
    if let Some(version) = released {
        tag(&mut it, tags::RELEASE, version);
    }
    let mut again = task_set(AGAIN, it.now, TaskSetStatus::Active, "green");
    again.task_definition = version;
    it.aws.service.task_sets.push(again);
    it.aws.rules = vec![weighted("main", &[("blue", 90), ("green", 10)])];
    it.run(secs(150));
    it
}

#[test]
fn a_version_that_comes_back_is_said_at_once() {
    let it = returned(OnReturn::Report, None);
    assert_eq!(it.said(), ["Rollback Held"]);
    assert!(said(&it)[0].1.contains("is back: it was rolled back at"), "{:?}", said(&it));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("watching", 0), "it is judged like any other");
}

#[test]
fn a_version_that_comes_back_is_rolled_back_at_once_where_the_rule_wants_it() {
    let it = returned(OnReturn::Rollback, None);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
    assert!(it.aws.service.task_sets.iter().all(|set| set.id.as_str() != AGAIN));
}

#[test]
fn a_released_version_is_a_version_like_any_other() {
    let version = Aws::blue_and_green().set(GREEN).task_definition.to_string();
    let it = returned(OnReturn::Rollback, Some(&version));
    assert_eq!(it.said(), [] as [&str; 0]);
    assert_eq!(status(&it).quarantine, []);
}

#[test]
fn a_version_is_forgotten_after_its_time() {
    let mut it = returned(OnReturn::Report, Some("another:1"));
    assert_eq!(status(&it).quarantine.len(), 1);
    for _ in 0..7 {
        it.run(rule().quarantine.ttl / 7);
    }
    assert_eq!(status(&it).quarantine, []);
}

/// Green ran this image when it crashed, was rolled back, and its task definition comes back. A task of it then runs that
/// image, and an event says so `after`, if one does.
fn returned_with_images(on_return: OnReturn, then: &str, now: &str, after: Option<Duration>) -> Driver {
    let mut rule = rule();
    rule.quarantine.on_return = on_return;
    let mut it = Driver::new(Aws::blue_and_green(), rule);
    let version = it.aws.set(GREEN).task_definition.clone();
    for name in ["a", "b", "c"] {
        it.run(secs(1));
        let mut change = stopped(GREEN, name, it.now);
        change.stop.as_mut().unwrap().containers[0].image_digest = Some(Arc::from(then));
        let (task, task_set, stop) = (change.task.clone(), change.task_set.clone(), change.stop.clone());
        it.aws.tasks.insert(task.clone(), TaskReading { task, task_set, version: 5, stop, images: Images::new() });
        it.signal(Fact::Task(change));
    }
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
    it.announced.clear();
    it.aws.writes.clear();
    let mut again = task_set(AGAIN, it.now, TaskSetStatus::Active, "green");
    again.task_definition = version;
    it.aws.service.task_sets.push(again);
    it.aws.rules = vec![weighted("main", &[("blue", 90), ("green", 10)])];
    it.run(secs(31));
    if let Some(after) = after {
        it.run(after);
        let running = TaskChange { stop: None, last_status: Arc::from("RUNNING"), ..stopped(AGAIN, "new", it.now) };
        let images = Images::from([(Arc::from("app"), Arc::from(now))]);
        let (task, task_set) = (running.task.clone(), running.task_set.clone());
        it.aws.tasks.insert(task.clone(), TaskReading { task, task_set, version: 5, stop: None, images });
        it.signal(Fact::Task(running));
    }
    it
}

#[test]
fn a_mended_image_under_the_same_task_definition_is_another_version() {
    let mut it = returned_with_images(OnReturn::Rollback, "sha256:bad", "sha256:mended", Some(secs(20)));
    it.run(secs(600));
    assert_eq!((it.said(), it.aws.writes.len(), it.phase().as_str()), (vec![], 0, "watching"));
}

#[test]
fn the_same_image_is_rolled_back_once_ecs_has_said_that_it_is_the_same() {
    let mut it = returned_with_images(OnReturn::Rollback, "sha256:bad", "sha256:bad", Some(secs(20)));
    it.run(secs(2));
    assert_eq!(it.said(), ["Rollback Started"]);
    assert!(it.announced[0].reason.contains("with the same images"), "{}", it.announced[0].reason);
}

#[test]
fn a_version_whose_images_nobody_tells_is_known_by_its_task_definition_a_minute_later() {
    let mut it = returned_with_images(OnReturn::Rollback, "sha256:bad", "", None);
    assert_eq!(it.said(), [] as [&str; 0]);
    it.run(secs(61));
    assert_eq!(it.said(), ["Rollback Started"]);
}

#[test]
fn an_event_alone_does_not_let_a_version_out_of_quarantine() {
    let mut it = returned_with_images(OnReturn::Rollback, "sha256:bad", "", None);
    // Forged: ECS knows no such task.
    let forged = TaskChange { stop: None, last_status: Arc::from("RUNNING"), ..stopped(AGAIN, "forged", it.now) };
    it.signal(Fact::Task(forged));
    it.run(secs(61));
    assert_eq!(it.said(), ["Rollback Started"]);
}

#[test]
fn one_that_is_only_reported_is_said_at_once_whatever_it_runs() {
    let it = returned_with_images(OnReturn::Report, "sha256:bad", "sha256:mended", None);
    assert_eq!(it.said(), ["Rollback Held"]);
}

#[test]
fn a_clock_that_is_set_back_does_not_make_the_comparison_longer() {
    let mut it = returned_with_images(OnReturn::Rollback, "sha256:bad", "", None);
    let by_ms = -3_600_000;
    it.now = it.now.moved(by_ms);
    it.feed(Input::ClockSet { by_ms });
    it.run(secs(61));
    assert_eq!(it.said(), ["Rollback Started"]);
}
