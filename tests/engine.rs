//! Whole rollbacks, told against a tiny AWS in memory: no clock, no I/O.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::*;
use taskset_guardian::engine::{Input, Note, Use};
use taskset_guardian::model::*;
use taskset_guardian::rules::{DeletePolicy, Mode, Rule};

fn watching() -> Driver {
    Driver::new(Aws::blue_and_green(), rule())
}

fn breached() -> Driver {
    let mut it = watching();
    breach(&mut it);
    it
}

fn breach(it: &mut Driver) {
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
}

#[test]
fn three_crashes_bring_the_traffic_back_to_blue_and_delete_green() {
    let mut it = watching();
    it.crash("a");
    it.crash("b");
    assert_eq!(it.phase(), "watching");
    let decided_at = it.now;
    it.crash("c");
    assert_eq!(it.aws.weights(), [("blue".to_owned(), 100), ("green".to_owned(), 0)], "in the same instant");
    assert_eq!(it.phase(), "rolling_back (Drain)");

    it.run(secs(59));
    assert_eq!(it.aws.deletes(), [], "requests in flight end first");
    it.run(secs(5));
    assert_eq!(it.aws.deletes(), [decided_at.plus(secs(60))]);
    assert_eq!(it.phase(), "rolled_back");
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);

    let incident = it.incidents.values().next().unwrap();
    assert_eq!(incident.outcome, IncidentOutcome::RolledBack);
    assert_eq!(incident.evidence.first().map(|e| (e.value, e.threshold, e.facts.len())), Some((3.0, 3.0, 3)));
    assert!(incident.traffic_safe_at.is_some() && incident.deleted_at.is_some());
    it.run(secs(3600));
    assert_eq!((it.aws.shifts().len(), it.aws.deletes().len()), (1, 1), "and then it rests");
}

#[test]
fn a_read_that_users_wait_for_takes_the_place_of_a_sweeps_and_asks_its_questions() {
    let mut it = watching();
    it.run(secs(29));
    it.unanswered = Some(Vec::new());
    it.run(secs(2));
    breach(&mut it);
    let asked = it.unanswered.take().unwrap();
    let urgent: Vec<_> = asked.iter().map(|ask| (ask.urgency, ask.find_stopped, ask.tasks.len())).collect();
    assert_eq!(urgent, [(Urgency::Deployed, true, 0), (Urgency::Traffic, true, 3)]);

    it.unanswered = Some(Vec::new());
    let answer = it.aws.observe(it.now, asked[1].clone());
    it.feed(Input::Observed(key(), answer));
    assert_eq!(it.aws.shifts(), [it.now]);
    let then = it.unanswered.take().unwrap();
    let then: Vec<_> = then.iter().map(|ask| (ask.urgency, ask.find_stopped)).collect();
    assert_eq!(then, [(Urgency::Plan, false)], "the read that proves the shift");
}

#[test]
fn a_claim_that_comes_while_a_decision_is_read_is_asked_about_at_once() {
    let mut it = watching();
    it.unanswered = Some(Vec::new());
    breach(&mut it);
    it.crash("d");
    let asked: Vec<_> = it.unanswered.take().unwrap().iter().map(|ask| (ask.urgency, ask.tasks.len())).collect();
    assert_eq!(asked.last(), Some(&(Urgency::Traffic, 4)), "{asked:?}");
}

#[test]
fn duplicates_of_one_failure_count_once() {
    let mut it = watching();
    for _ in 0..10 {
        it.crash("a");
    }
    it.run(secs(120));
    assert_eq!(it.phase(), "watching");
    let duplicates = |note: &Note| matches!(note, Note::Signal { used: Use::Duplicate, .. });
    assert_eq!(it.notes.iter().filter(|(_, note)| duplicates(note)).count(), 9);
}

#[test]
fn failures_that_ecs_does_not_know_count_for_nothing_and_cost_few_reads() {
    let mut it = watching();
    let before = it.aws.reads;
    for n in 0..100 {
        it.signal(Fact::Task(stopped(GREEN, &format!("forged-{n}"), it.now)));
    }
    it.run(secs(20));
    assert_eq!(it.phase(), "watching");
    assert_eq!(it.aws.writes, []);
    let reads = it.aws.reads - before;
    assert!(reads <= 110, "{reads} reads for 100 forged events");
}

#[test]
fn a_forger_of_unknown_task_sets_gets_one_read_in_five_seconds() {
    let mut it = watching();
    it.run(secs(10));
    let before = it.aws.reads;
    for n in 0..1000 {
        it.signal(Fact::Task(stopped(&format!("ecs-svc/9{n}"), "x", it.now)));
    }
    it.run(secs(10));
    assert!(it.aws.reads - before <= 4, "{} reads", it.aws.reads - before);
}

#[test]
fn failures_whose_events_were_lost_are_found_by_the_sweep() {
    let mut it = watching();
    for task in ["a", "b", "c"] {
        let change = stopped(GREEN, task, it.now);
        let (task, task_set) = (change.task, change.task_set);
        let reading = TaskReading { task, task_set, version: 5, stop: change.stop, images: Images::new() };
        it.aws.tasks.insert(reading.task.clone(), reading);
    }
    it.run(SWEEP + secs(1));
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn late_replayed_and_foreign_events_trigger_nothing() {
    let mut it = watching();
    it.run(secs(3600));
    let before = it.aws.reads;
    let old = it.now.minus(secs(1200));
    let signal = |at, scope: Scope, replayed, task: &str, stop_at| {
        let fact = Fact::Task(stopped(GREEN, task, stop_at));
        Input::Signal(Signal { at, scope, replayed, fact })
    };
    let elsewhere = Scope { account: "999999999999".into(), ..scope() };
    for task in ["a", "b", "c"] {
        it.feed(signal(it.now, scope(), false, &format!("late-{task}"), old));
        it.feed(signal(it.now, elsewhere.clone(), false, &format!("foreign-{task}"), it.now));
        it.feed(signal(it.now.plus(secs(3600)), scope(), false, &format!("future-{task}"), it.now));
        it.feed(signal(old, scope(), true, &format!("replayed-{task}"), it.now));
    }
    assert_eq!(it.aws.reads, before);
    assert_eq!(it.phase(), "watching");
    let used =
        |wanted| it.notes.iter().filter(|(_, n)| matches!(n, Note::Signal { used, .. } if *used == wanted)).count();
    assert_eq!((used(Use::Stale), used(Use::Foreign)), (6, 6));
}

#[test]
fn what_no_window_remembers_is_not_written_down() {
    let mut it = watching();
    it.run(secs(3600));
    // The rule's freshness, which is longer than its window, is what a window remembers.
    let freshness = rule().watch.freshness;
    for (age, is_written) in [(freshness + secs(1), false), (freshness, true)] {
        let before = it.journal.len();
        it.signal(Fact::Task(stopped(GREEN, &format!("{age:?}"), it.now.minus(age))));
        assert_eq!(it.journal.len() > before, is_written, "{age:?}");
    }
}

#[test]
fn a_task_that_was_told_to_end_by_a_scale_in_is_neither_written_down_nor_asked_about() {
    let mut it = watching();
    for (class, matters) in [(StopClass::Neutral, false), (StopClass::Infrastructure, true)] {
        let before = it.journal.len();
        let mut change = stopped(BLUE, &format!("{class:?}"), it.now);
        change.stop.as_mut().unwrap().class = class;
        it.signal(Fact::Task(change.clone()));
        assert_eq!(it.journal.len() > before, matters, "{class:?}");
        it.run(secs(60));
        assert_eq!(it.aws.asked.contains(&change.task), matters, "{class:?}");
    }
}

#[test]
fn observe_mode_and_dry_run_say_it_once_and_change_nothing() {
    for (mode, dry_run) in [(Mode::Observe, false), (Mode::Enforce, true)] {
        let mut it = Driver::with(Aws::blue_and_green(), Rule { mode, ..rule() }, dry_run);
        breach(&mut it);
        it.run(secs(600));
        assert_eq!(it.aws.writes, []);
        assert_eq!(it.phase(), "breached");
        assert_eq!(it.said(), ["Rollback Held"]);
        assert!(it.announced.iter().all(|a| a.dry_run));
        assert_eq!(it.incidents.values().map(|i| i.outcome).collect::<Vec<_>>(), [IncidentOutcome::Held]);
    }
}

#[test]
fn what_people_did_after_a_rollback_that_was_only_told_stands_beside_it() {
    let observing = Rule { mode: Mode::Observe, ..rule() };
    let mut it = Driver::with(Aws::blue_and_green(), observing, false);
    breach(&mut it);
    it.run(secs(60));
    let withheld = |it: &Driver| it.engine.service(&key(), it.now).unwrap().deployment.unwrap().withheld;
    let told = withheld(&it).unwrap();
    assert!(told.evidence.contains("3 tasks of green") && told.because.contains("observe"), "{told:?}");
    assert_eq!(told.then, []);

    it.aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)])];
    let next = it.steps() + 1;
    it.crash_after.insert(next);
    it.run(secs(60));
    it.aws.service.task_sets.pop();
    it.run(secs(60));
    let incident = it.incidents.values().next().unwrap();
    let then: Vec<_> = incident.aftermath.iter().map(|moment| moment.what.as_str()).collect();
    assert_eq!(then, ["the weights were set: blue 100 %, green 0 %", "green was deleted by somebody else"]);
    assert_eq!(withheld(&it).unwrap().then, incident.aftermath);
    assert_eq!(it.said(), ["Rollback Held"], "nobody is told twice");
}

#[test]
fn a_withheld_rollback_that_proves_wrong_shows_it() {
    let observing = Rule { mode: Mode::Observe, ..rule() };
    let mut it = Driver::with(Aws::blue_and_green(), observing, false);
    breach(&mut it);
    it.run(secs(30));
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    it.aws.service.task_sets[0].status = TaskSetStatus::Active;
    it.aws.service.task_sets[1].status = TaskSetStatus::Primary;
    it.run(secs(3600));
    let then: Vec<_> =
        it.incidents.values().flat_map(|incident| &incident.aftermath).map(|m| m.what.as_str()).collect();
    assert_eq!(then[..2], ["the weights were set: blue 0 %, green 100 %", "green was made PRIMARY"]);
    assert!(then[2].starts_with("green has been PRIMARY with all the traffic"), "{then:?}");
}

#[test]
fn an_alarm_on_greens_target_group_binds_by_itself() {
    let mut it = watching();
    it.run(secs(65));
    let alarm = red("green-5xx", it.now, &["green"]);
    it.aws.alarms.push(alarm.clone());
    it.signal(Fact::Alarm(AlarmChange { alarm }));
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn an_incident_keeps_the_alarms_that_count_and_not_those_of_the_account() {
    let mut aws = Aws::blue_and_green();
    aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    aws.alarms = vec![red("green-5xx", start().minus(secs(5)), &["green"]), red("stranger", start(), &["theirs"])];
    let mut it = Driver::new(aws, rule());
    it.run(secs(5));
    assert_eq!(it.said(), ["Rollback Started"], "on the read that looks through all alarms");
    let before = it.incidents.values().next().unwrap().before.clone().unwrap();
    let names: Vec<_> = before.alarms.iter().map(|alarm| alarm.name.as_str()).collect();
    assert_eq!(names, ["green-5xx"]);
}

#[test]
fn an_alarm_event_that_cloudwatch_denies_does_nothing() {
    let mut it = watching();
    it.run(secs(60));
    let alarm = red("green-5xx", it.now, &["green"]);
    it.signal(Fact::Alarm(AlarmChange { alarm }));
    it.run(secs(120));
    assert_eq!(it.phase(), "watching");
}

#[test]
fn alarms_that_were_red_before_green_or_watch_blue_are_no_evidence() {
    let mut aws = Aws::blue_and_green();
    aws.alarms = vec![red("born-red", start().minus(secs(5)), &[]), red("blue-5xx", start().plus(secs(5)), &["blue"])];
    let mut named = rule();
    named.errors.alarms = vec![AlarmName::new("born-red"), AlarmName::new("blue-5xx"), AlarmName::new("no-such")];
    let mut it = Driver::new(aws, named);
    it.run(secs(300));
    assert_eq!(it.phase(), "watching");
    let view = it.engine.service(&key(), it.now).unwrap().deployment.unwrap();
    assert_eq!(view.verdict, Verdict::Blind);
}

#[test]
fn an_alarm_must_be_red_for_as_long_as_the_rule_says() {
    let mut named = rule();
    named.errors.alarms = vec![AlarmName::new("checkout-5xx")];
    named.errors.alarm_for = secs(45);
    let mut it = Driver::new(Aws::blue_and_green(), named);
    it.run(secs(60));
    it.aws.alarms.push(red("checkout-5xx", it.now, &[]));
    it.run(secs(44));
    assert_eq!(it.phase(), "watching");
    it.run(secs(1));
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn a_green_that_is_never_steady_is_rolled_back_on_time() {
    let mut aws = Aws::blue_and_green();
    aws.set(GREEN).stability = Stability::Stabilizing;
    let mut it = Driver::new(aws, rule());
    it.run(secs(599));
    assert_eq!(it.phase(), "watching");
    it.run(secs(1));
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn a_green_that_was_steady_may_scale_for_as_long_as_it_likes() {
    let mut it = watching();
    it.aws.set(GREEN).stability = Stability::Stabilizing;
    it.run(secs(1800));
    assert_eq!(it.phase(), "watching");
}

#[test]
fn a_healthy_green_graduates_when_the_bake_ends() {
    let mut it = watching();
    it.run(secs(60));
    it.aws.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.run(SWEEP + secs(890));
    assert_eq!(it.phase(), "watching");
    it.run(secs(15));
    assert_eq!(it.phase(), "graduated");
    assert_eq!(it.said(), ["Deployment Graduated"]);
    breach(&mut it);
    it.run(secs(60));
    assert_eq!(it.aws.writes, [], "a graduated green is the team's own");
}

#[test]
fn shapes_that_can_not_be_rolled_back_are_escalated_and_not_touched() {
    type Change = fn(&mut Aws);
    let shapes: [(&str, Change); 4] = [
        ("nobody is PRIMARY", |aws| aws.set(BLUE).status = TaskSetStatus::Active),
        ("no rule forwards", |aws| aws.rules.clear()),
        ("one target group", |aws| aws.set(GREEN).target_group = Some(group("blue"))),
        ("blue is too small", |aws| aws.set(BLUE).running = 1),
    ];
    for (shape, change) in shapes {
        let mut aws = Aws::blue_and_green();
        change(&mut aws);
        let mut it = Driver::new(aws, rule());
        breach(&mut it);
        it.run(secs(300));
        assert_eq!(it.phase(), "escalated", "{shape}");
        assert_eq!(it.aws.writes, [], "{shape}");
        assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"], "{shape}");
    }
}

#[test]
fn a_blue_that_recovers_within_a_minute_gets_the_traffic() {
    let mut aws = Aws::blue_and_green();
    aws.set(BLUE).running = 3;
    let mut it = Driver::new(aws, rule());
    breach(&mut it);
    it.run(secs(20));
    assert_eq!(it.aws.writes, []);
    it.aws.set(BLUE).running = 4;
    it.run(secs(80));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_code_deploy_service_is_left_alone() {
    let mut aws = Aws::blue_and_green();
    aws.service.controller = Controller::CodeDeploy;
    let mut it = Driver::new(aws, rule());
    breach(&mut it);
    it.run(secs(300));
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said().len()), ("none", 0, 0));
    assert!(!it.engine.service(&key(), it.now).unwrap().ready);
}

#[test]
fn a_foreign_writer_gets_one_reassert_then_a_person_is_called() {
    let mut it = breached();
    for _ in 0..3 {
        it.run(secs(15));
        it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
    }
    it.run(secs(600));
    assert_eq!(it.aws.shifts().len(), 2);
    assert_eq!(it.aws.deletes(), []);
    assert_eq!(it.phase(), "escalated");
}

#[test]
fn a_later_shift_starts_the_drain_anew() {
    let mut it = breached();
    it.run(secs(50));
    it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
    it.run(secs(120));
    let (shifts, deletes) = (it.aws.shifts(), it.aws.deletes());
    assert_eq!((shifts.len(), deletes.len()), (2, 1));
    assert!(deletes[0].since(shifts[1]) >= secs(60));
}

#[test]
fn a_newer_task_set_supersedes_the_rollback() {
    let mut it = breached();
    it.run(secs(5));
    let newer = task_set("ecs-svc/3000", it.now, TaskSetStatus::Active, "third");
    it.aws.service.task_sets.push(newer);
    it.run(secs(300));
    assert_eq!(it.aws.deletes(), []);
    assert_eq!(it.incidents.values().map(|i| i.outcome).collect::<Vec<_>>(), [IncidentOutcome::Superseded]);
    assert_eq!(it.phase(), "watching", "the newer one is watched");
}

#[test]
fn a_green_promoted_during_the_drain_is_not_deleted() {
    let mut it = breached();
    it.run(secs(30));
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.run(secs(600));
    assert_eq!((it.aws.writes.len(), it.phase().as_str()), (1, "superseded"), "the shift alone");
    assert_eq!(it.said(), ["Rollback Started", "Rollback Held"]);
}

#[test]
fn one_read_of_two_that_calls_green_primary_forbids_the_delete() {
    let mut it = breached();
    let mut second = it.aws.service.task_sets.clone();
    second[0].status = TaskSetStatus::Active;
    second[1].status = TaskSetStatus::Primary;
    it.aws.second_opinion = Some(second);
    it.run(secs(600));
    assert_eq!((it.aws.deletes().len(), it.phase().as_str()), (0, "escalated"));
}

#[test]
fn green_is_kept_when_blue_dies_during_the_drain() {
    let mut it = breached();
    it.run(secs(30));
    it.aws.healthy.insert(group("blue"), 0);
    it.run(secs(600));
    assert_eq!((it.aws.deletes().len(), it.phase().as_str()), (0, "escalated"));
}

#[test]
fn a_green_deleted_by_somebody_else_still_loses_its_traffic() {
    let mut it = breached();
    it.run(secs(5));
    it.aws.remove(GREEN);
    it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
    it.run(secs(60));
    assert_eq!(it.aws.weights(), [("blue".to_owned(), 100), ("green".to_owned(), 0)]);
    assert_eq!(it.phase(), "rolled_back");
    assert_eq!(it.aws.deletes(), []);
}

#[test]
fn throttling_is_waited_out() {
    let mut it = watching();
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("ThrottlingException"))), 5).collect();
    breach(&mut it);
    it.run(secs(120));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_lost_answer_is_settled_by_reading() {
    let mut it = watching();
    it.aws.obeys = false;
    it.aws.outcomes = [Outcome::Failed(failed(None))].into();
    breach(&mut it);
    it.aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)])];
    it.aws.obeys = true;
    it.run(secs(70));
    assert_eq!((it.aws.shifts().len(), it.phase().as_str()), (1, "rolled_back"), "it had been applied: not sent again");
}

#[test]
fn a_missing_permission_calls_a_person_at_once() {
    let mut it = watching();
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("AccessDeniedException"))), 99).collect();
    breach(&mut it);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.aws.outcomes.clear();
    it.run(secs(120));
    assert_eq!(it.said().last(), Some(&"Rollback Completed"), "mended in time, it finishes");
}

#[test]
fn a_region_that_does_not_answer_calls_a_person_within_five_minutes() {
    let mut it = breached();
    let decided_at = it.now;
    it.aws.unreadable = Some(failed(None));
    it.run(secs(400));
    let called = it.announced.iter().find(|a| a.kind == AnnouncementKind::RollbackEscalated).unwrap();
    assert!(called.at.since(decided_at) <= secs(60) + Duration::from_mins(5), "drain aside");
}

#[test]
fn nor_does_a_clock_that_is_set_hold_up_the_call_or_make_it_early() {
    for by_ms in [-7_200_000, 7_200_000] {
        let mut it = breached();
        it.aws.unreadable = Some(failed(None));
        it.run(secs(60));
        it.now = it.now.moved(by_ms);
        it.feed(Input::ClockSet { by_ms });
        let called = |it: &Driver| it.said().contains(&"Rollback Escalated");
        it.run(secs(60));
        assert!(!called(&it), "two minutes after the decision, by {by_ms} ms");
        it.run(secs(300));
        assert!(called(&it), "by {by_ms} ms");
    }
}

#[test]
fn an_announcement_survives_a_bus_that_is_down_and_a_restart() {
    let mut it = watching();
    it.bus_is_down = true;
    breach(&mut it);
    it.run(secs(300));
    assert_eq!(it.phase(), "rolled_back", "the rollback does not wait for the bus");
    assert_eq!(it.said(), [] as [&str; 0]);
    it.bus_is_down = false;
    it.run(secs(120));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_rule_that_keeps_green_only_moves_the_weights() {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let mut it = Driver::new(Aws::blue_and_green(), keep);
    breach(&mut it);
    it.run(secs(300));
    assert_eq!((it.aws.shifts().len(), it.aws.deletes().len(), it.phase().as_str()), (1, 0, "rolled_back"));
}

#[test]
fn switching_the_rule_to_observe_stops_a_rollback_where_it_stands() {
    let mut it = breached();
    it.protect(Rule { mode: Mode::Observe, ..rule() });
    it.run(secs(300));
    assert_eq!((it.aws.deletes().len(), it.phase().as_str()), (0, "breached"));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Held"]);
}

#[test]
fn a_decided_green_is_never_decided_on_again() {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let mut it = Driver::new(Aws::blue_and_green(), keep);
    breach(&mut it);
    it.run(secs(60));
    it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
    breach(&mut it);
    it.run(secs(600));
    let decided = it.notes.iter().filter(|(_, note)| matches!(note, Note::Decided { held: false, .. })).count();
    assert_eq!((decided, it.aws.shifts().len()), (1, 2), "what somebody set back is undone once, by the same decision");
}

#[test]
fn a_crash_after_any_step_ends_in_the_same_place() {
    let mut steps = 0;
    for crash_after in 1.. {
        let mut it = Driver::idle(Aws::blue_and_green(), false);
        it.crash_after.insert(crash_after);
        it.protect(rule());
        // A crash before anything was said of the service loses the listing; the shell lists again when it starts.
        it.feed(Input::Swept([key()].into()));
        breach(&mut it);
        it.run(secs(150));
        assert_eq!(it.phase(), "rolled_back", "crash after step {crash_after}");
        assert_eq!(it.aws.weights(), [("blue".to_owned(), 100), ("green".to_owned(), 0)]);
        let (shifts, deletes) = (it.aws.shifts(), it.aws.deletes());
        assert_eq!(deletes.len(), 1, "crash after step {crash_after}");
        assert!(deletes[0].since(*shifts.last().unwrap()) >= secs(60), "crash after step {crash_after}");
        for kind in ["Rollback Started", "Rollback Completed"] {
            assert!(it.said().contains(&kind), "{kind} was lost in a crash after step {crash_after}");
        }
        steps = crash_after;
        if crash_after > 40 {
            break;
        }
    }
    assert!(steps > 40);
}

#[test]
fn an_account_whose_alarms_can_not_be_listed_is_searched_once_a_sweep_and_those_named_count() {
    let mut named = rule();
    named.errors.alarms = vec![AlarmName::new("checkout-5xx")];
    let mut it = Driver::idle(Aws::blue_and_green(), false);
    it.aws.alarms_unlisted = true;
    it.protect(named);
    let reads = it.aws.reads;
    for _ in 0..36 {
        it.run(secs(5));
        let alarm = red("checkout-5xx", it.now, &[]);
        it.signal(Fact::Alarm(AlarmChange { alarm }));
    }
    let searched = it.aws.searched.clone();
    assert!((5..=8).contains(&searched.len()) && it.aws.reads > reads + 30, "{} reads, {searched:?}", it.aws.reads);
    it.aws.alarms.push(red("checkout-5xx", it.now, &[]));
    it.run(SWEEP);
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn a_search_for_alarms_that_had_no_answer_is_made_up_for_by_the_next_sweep() {
    let mut it = Driver::idle(Aws::blue_and_green(), false);
    it.aws.alarms_unlisted = true;
    it.protect(rule());
    it.run(secs(60));
    it.aws.alarms_unlisted = false;
    it.aws.alarms.push(red("green-5xx", it.now, &["green"]));
    it.run(SWEEP);
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn an_observation_from_before_is_one_whose_alarms_were_searched() {
    let mut aws = Aws::blue_and_green();
    let seen = aws.observe(start(), Ask { find_listeners: false, ..Ask::examination(key()) }).unwrap();
    let mut before = serde_json::to_value(&*seen).unwrap();
    before.as_object_mut().unwrap().remove("alarms_unlisted").unwrap();
    before["ask"].as_object_mut().unwrap().remove("find_listeners").unwrap();
    let read: Observation = serde_json::from_value(before).unwrap();
    assert_eq!(read, *seen);
    assert!(read.has_all_alarms());
}
