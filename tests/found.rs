//! What the simulation found in the engine, each told as the shortest story that shows it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use support::*;
use taskset_guardian::engine::{Input, Note};
use taskset_guardian::model::*;
use taskset_guardian::rules::{AfterPromotion, DeletePolicy, Protect, Rule};

fn breached(aws: Aws, rule: Rule) -> Driver {
    let mut it = Driver::new(aws, rule);
    breach(&mut it);
    it
}

fn breach(it: &mut Driver) {
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
}

/// The wall clock is set by so many milliseconds.
fn set_clock(it: &mut Driver, by_ms: i64) {
    it.now = it.now.moved(by_ms);
    it.feed(Input::ClockSet { by_ms });
}

fn decisions(it: &Driver) -> usize {
    it.notes.iter().filter(|(_, note)| matches!(note, Note::Decided { held: false, .. })).count()
}

#[test]
fn a_rollback_that_a_person_wants_while_a_hold_lasts_is_decided_once() {
    let mut aws = Aws::blue_and_green();
    aws.service.tags.insert(tags::HOLD_UNTIL.to_owned(), start().plus(secs(600)).to_string());
    let mut it = breached(aws, rule());
    it.run(secs(20));
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("breached", 0), "held");
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(150));
    assert_eq!((it.phase().as_str(), it.aws.calls()), ("rolled_back", vec!["ModifyRule", "DeleteTaskSet"]));
    assert_eq!(decisions(&it), 1, "it was decided anew at every read, and began anew each time");
}

#[test]
fn a_clock_that_is_set_forward_does_not_shorten_the_drain() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(10));
    assert_eq!(it.phase(), "rolling_back (Drain)");
    set_clock(&mut it, 300_000);
    it.run(secs(40));
    assert_eq!(it.aws.deletes(), [], "50 s of the minute have passed, whatever the clock says");
    it.run(secs(20));
    assert_eq!(it.aws.deletes().len(), 1);
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_the_rollback() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(10));
    set_clock(&mut it, -300_000);
    it.run(secs(40));
    assert_eq!(it.aws.deletes(), []);
    it.run(secs(20));
    assert_eq!(it.aws.deletes().len(), 1, "a minute after the shift, not six");
}

#[test]
fn after_a_restart_the_drain_begins_anew_for_the_clock_may_be_another_machines() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(50));
    it.feed(Input::Restarted);
    it.run(secs(50));
    assert_eq!(it.aws.deletes(), []);
    it.run(secs(20));
    assert_eq!(it.aws.deletes().len(), 1);
}

#[test]
fn the_drain_waits_for_a_shift_that_an_earlier_process_sent_and_nobody_answered_for() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.crash_after_write.insert(1);
    breach(&mut it);
    assert_eq!((it.phase().as_str(), it.aws.calls()), ("rolling_back (Drain)", vec!["ModifyRule"]), "a read proves it");
    // By whose clock the first restart counted, nobody knows at the second.
    it.feed(Input::Restarted);
    it.run(secs(63));
    assert_eq!(it.aws.deletes(), [], "it may have been on its way for five seconds more, and moved requests then");
    it.run(secs(5));
    assert_eq!(it.aws.deletes().len(), 1);
}

#[test]
fn a_re_assert_that_a_read_has_shown_counts_though_its_process_dies_before_the_answer() {
    let mut it = breached(Aws::blue_and_green(), rule());
    let set_back = vec![weighted("main", &[("blue", 90), ("green", 10)])];
    it.aws.rules.clone_from(&set_back);
    it.withheld = Some(Vec::new());
    it.run(secs(11));
    assert_eq!(it.aws.calls(), ["ModifyRule", "ModifyRule"], "it is set back, and once more given to blue");
    it.run(SWEEP);
    it.withheld = None;
    it.aws.rules = set_back;
    it.restart();
    it.feed(Input::Restarted);
    it.run(secs(20));
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("escalated", 2), "it reads as if it had never arrived");
}

#[test]
fn tasks_that_blue_is_about_to_lose_can_not_carry_the_traffic() {
    let mut aws = Aws::blue_and_green();
    // Somebody scales blue down: its tasks still run, and ECS will stop three of them within a second.
    aws.set(BLUE).computed_desired = 1;
    aws.obeys = false;
    let mut it = breached(aws, rule());
    assert_eq!(it.aws.calls(), ["UpdateTaskSet"], "first blue gets back what it needs");
    it.aws.obeys = true;
    it.aws.set(BLUE).computed_desired = 4;
    it.run(secs(5));
    assert_eq!(it.aws.calls(), ["UpdateTaskSet", "ModifyRule"]);
}

#[test]
fn where_two_reads_disagree_about_blue_the_smaller_one_counts() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(59));
    // Somebody gives green the traffic back and scales blue to nothing; DescribeServices lags behind, and for the delete
    // DescribeTaskSets is asked too.
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    let mut sets = it.aws.service.task_sets.clone();
    (sets[0].running, sets[0].computed_desired) = (0, 0);
    it.aws.second_opinion = Some(sets);
    it.run(secs(1));
    assert_eq!(it.aws.calls(), ["ModifyRule"], "nothing is shifted onto a blue that may be gone");
    it.aws.second_opinion = None;
    it.run(secs(90));
    assert_eq!(it.aws.calls(), ["ModifyRule", "ModifyRule", "DeleteTaskSet"]);
}

#[test]
fn a_green_promoted_after_a_decision_at_which_nobody_was_primary_is_left_alone() {
    let mut aws = Aws::blue_and_green();
    aws.set(BLUE).status = TaskSetStatus::Active;
    let mut it = breached(aws, rule());
    it.run(secs(20));
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("escalated", 0), "whose deployment is it?");
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("superseded", 0), "a person wants it");
}

#[test]
fn forged_claims_about_strangers_do_not_push_greens_own_out_of_the_read() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    for stranger in 0..150 {
        it.signal(Fact::Task(stopped("ecs-svc/0001", &format!("forged-{stranger}"), it.now)));
    }
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
    assert_eq!(it.phase(), "rolling_back (Drain)", "the three are asked for at once, not at the next sweep");
}

#[test]
fn a_version_that_was_rolled_back_is_none_to_go_back_to() {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let mut it = breached(Aws::blue_and_green(), keep);
    it.run(secs(100));
    assert_eq!((it.phase().as_str(), it.aws.deletes()), ("rolled_back", vec![]));
    // The next version is made and promoted before any read shows it: no older one is PRIMARY then.
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    let third = "ecs-svc/3000";
    let next = task_set(third, it.now, TaskSetStatus::Primary, "third");
    it.aws.service.task_sets.push(TaskSet { task_definition: "checkout:90".into(), ..next });
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 0), ("third", 100)])];
    it.aws.healthy.insert(group("third"), 4);
    it.run(secs(31));
    for task in ["d", "e", "f"] {
        it.run(secs(1));
        it.crash_of(&key(), third, task);
    }
    it.run(secs(10));
    assert_eq!(it.aws.set(BLUE).status, TaskSetStatus::Primary, "green is newer, and condemned");
    assert_eq!(it.aws.weights(), [("blue".to_owned(), 100), ("green".to_owned(), 0), ("third".to_owned(), 0)]);
}

#[test]
fn a_candidate_is_not_made_primary_because_the_green_that_was_is_gone() {
    let mut page = rule();
    page.rollback.after_promotion = AfterPromotion::Page;
    let mut aws = Aws::blue_and_green();
    // The first read finds a third version that was promoted past the second, which nobody ever has.
    let third = "ecs-svc/3000";
    aws.set(BLUE).status = TaskSetStatus::Active;
    let promoted = task_set(third, start().plus(secs(1)), TaskSetStatus::Primary, "third");
    aws.service.task_sets.push(TaskSet { task_definition: "checkout:90".into(), ..promoted });
    aws.rules = vec![weighted("main", &[("blue", 10), ("green", 10), ("third", 80)])];
    aws.healthy.insert(group("third"), 4);
    let mut it = Driver::new(aws, page);
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash_of(&key(), third, task);
    }
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("escalated", 0), "it is PRIMARY: a person is called");
    it.aws.remove(third);
    it.run(secs(60));
    assert_eq!(it.aws.calls(), ["ModifyRule"], "its users go to whoever is healthy");
    assert_eq!(it.phase(), "escalated", "which of the two is to be PRIMARY is for people to say");
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.run(secs(60));
    assert_eq!(it.said().last(), Some(&"Rollback Completed"), "a person has said");
}

#[test]
fn a_read_that_comes_while_another_write_is_under_way_answers_for_the_one_whose_answer_was_lost() {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let mut aws = Aws::blue_and_green();
    let canary = || ["a", "b"].map(|name| weighted(name, &[("blue", 34), ("green", 66)])).to_vec();
    aws.rules = canary();
    let mut it = breached(aws, keep);
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("rolled_back", 2));
    // Somebody gives green its weight again, and both rules are given back to blue, once.
    it.aws.rules = canary();
    it.withheld = Some(Vec::new());
    it.run(secs(60));
    let sent = it.withheld.take().unwrap();
    let [Input::Done(first, _), second @ Input::Done(..)] = sent.as_slice() else { panic!("{sent:?}") };
    it.feed(Input::Done(*first, Outcome::Failed(failed(None))));
    it.aws.rules[1] = canary()[1].clone();
    let ask = Ask { find_alarms: false, twice: false, groups: [group("green")].into(), ..Ask::examination(key()) };
    let seen = it.aws.observe(it.now, ask);
    it.feed(Input::Observed(key(), seen));
    // And once more, before anything else is read.
    it.aws.rules = canary();
    it.feed(second.clone());
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.calls().len()), ("escalated", 4), "one re-assert, and then a person");
}

/// Four services breach in a row, the fourth after `between`: rollbacks that have begun.
fn fleet(between: impl FnOnce(&mut Driver)) -> usize {
    let everywhere = Rule { protect: vec![Protect { cluster: "prod".into(), service: "*".into() }], ..rule() };
    let neighbour = |n: u32| (ServiceKey::new("prod", format!("fleet-{n}")), Aws::blue_and_green());
    let mut it = Driver::idle(Aws::blue_and_green(), false);
    it.neighbours.extend((1..=3).map(neighbour));
    it.protect(everywhere);
    let crash = |it: &mut Driver, service: &ServiceKey| {
        for n in 0..3 {
            it.run(secs(1));
            it.crash_of(service, GREEN, &format!("{service}-{n}"));
        }
    };
    (1..=3).for_each(|n| crash(&mut it, &neighbour(n).0));
    between(&mut it);
    crash(&mut it, &key());
    it.run(secs(20));
    decisions(&it)
}

#[test]
fn the_fleet_brake_is_not_outrun_by_a_clock() {
    assert_eq!(fleet(|it| it.run(secs(500))), 3);
    assert_eq!(fleet(|it| it.run(secs(610))), 4, "ten minutes are over");
    let set = |it: &mut Driver| {
        it.run(secs(100));
        set_clock(it, 600_000);
    };
    assert_eq!(fleet(set), 3, "two minutes are over, whatever the clock says");
    let another_machine = |it: &mut Driver| {
        it.run(secs(100));
        it.now = it.now.plus(secs(600));
        it.feed(Input::Restarted);
    };
    assert_eq!(fleet(another_machine), 3, "nobody knows how much of the ten minutes its predecessor saw pass");
}
