//! The rollback plan for every shape of service, told against a tiny AWS in memory: no clock, no I/O.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use taskset_guardian::engine::{Input, Note};
use taskset_guardian::model::*;
use taskset_guardian::rules::{
    AfterPromotion, BlueCapacity, DeletePolicy, Mode, Protect, Rule, RuleSet, StabilityGates,
};

const MODIFY: &str = "ModifyRule";
const SCALE: &str = "UpdateTaskSet";
const PROMOTE: &str = "UpdateServicePrimaryTaskSet";
const DELETE: &str = "DeleteTaskSet";

fn breach(it: &mut Driver) {
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
}

fn breached(aws: Aws, rule: Rule) -> Driver {
    let mut it = Driver::new(aws, rule);
    breach(&mut it);
    it
}

/// The deployer has promoted green and scaled blue to nothing.
fn scaled_to_zero() -> Aws {
    let mut aws = Aws::promoted();
    blue_runs(&mut aws, 0);
    aws.set(BLUE).computed_desired = 0;
    aws
}

fn blue_runs(aws: &mut Aws, count: u32) {
    aws.set(BLUE).running = count;
    aws.set(BLUE).stability = if count == 0 { Stability::Steady } else { Stability::Stabilizing };
    aws.healthy.insert(group("blue"), count);
}

fn sticky(aws: &mut Aws) {
    for action in aws.rules.iter_mut().flat_map(|rule| &mut rule.actions) {
        if let ActionKind::Forward(forward) = &mut action.kind {
            forward.stickiness = Some(Stickiness { enabled: Some(true), duration_seconds: Some(3600) });
        }
    }
}

fn shares(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

fn view(it: &Driver) -> taskset_guardian::engine::ServiceView {
    it.engine.service(&key(), it.now).unwrap()
}

#[test]
fn a_green_that_is_primary_already_loses_that_and_its_traffic_at_once() {
    let mut it = breached(Aws::promoted(), rule());
    assert_eq!(it.aws.calls(), [PROMOTE, MODIFY], "in the same instant");
    assert_eq!(it.aws.set(BLUE).status, TaskSetStatus::Primary);
    it.run(secs(65));
    assert_eq!(it.aws.calls(), [PROMOTE, MODIFY, DELETE]);
    assert_eq!(it.aws.weights(), shares(&[("blue", 100), ("green", 0)]));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_rule_may_leave_a_promoted_green_to_people() {
    let mut page = rule();
    page.rollback.after_promotion = AfterPromotion::Page;
    let mut it = breached(Aws::promoted(), page);
    it.run(secs(300));
    assert_eq!(it.aws.writes, []);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.aws.set(BLUE).status = TaskSetStatus::Primary;
    it.aws.set(GREEN).status = TaskSetStatus::Active;
    it.run(secs(200));
    assert_eq!(it.aws.calls(), [MODIFY, DELETE], "a person promoted blue: the rest is routine");
}

#[test]
fn a_refused_promotion_does_not_hold_the_traffic_back() {
    let mut aws = Aws::promoted();
    aws.outcomes = [Outcome::Failed(failed(Some("AccessDeniedException")))].into();
    let mut it = breached(aws, rule());
    assert_eq!(it.aws.calls(), [PROMOTE, MODIFY]);
    assert_eq!(it.aws.weights(), shares(&[("blue", 100), ("green", 0)]));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"], "at once");
    it.run(secs(120));
    assert_eq!(it.aws.calls(), [PROMOTE, MODIFY, PROMOTE, DELETE], "allowed now");
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated", "Rollback Completed"]);
}

#[test]
fn a_green_promoted_again_after_blue_was_is_somebody_elses_decision() {
    let mut it = breached(Aws::promoted(), rule());
    it.run(secs(20));
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.calls()), ("superseded", vec![PROMOTE, MODIFY]));
}

#[test]
fn one_read_of_two_that_calls_green_primary_supersedes_nothing() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(10));
    it.aws.second_opinion = Some(it.aws.service.task_sets.clone());
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.deletes().len()), ("rolling_back (Drain)", 0));
    it.aws.set(BLUE).status = TaskSetStatus::Primary;
    it.aws.set(GREEN).status = TaskSetStatus::Active;
    it.run(secs(60));
    assert_eq!(it.phase(), "rolled_back", "the read had lagged");
}

#[test]
fn a_blue_that_was_scaled_to_zero_is_scaled_back_before_it_gets_traffic() {
    let mut it = breached(scaled_to_zero(), rule());
    assert_eq!(it.aws.calls(), [SCALE]);
    assert_eq!(it.aws.set(BLUE).computed_desired, 4);
    it.run(secs(30));
    blue_runs(&mut it.aws, 4);
    it.aws.healthy.insert(group("blue"), 2);
    it.run(secs(30));
    assert_eq!(it.aws.calls(), [SCALE], "two of its targets still fail their checks");
    assert_eq!(it.phase(), "rolling_back (RestoreBlue)");
    blue_runs(&mut it.aws, 4);
    it.run(secs(2));
    assert_eq!(it.aws.calls(), [SCALE, PROMOTE, MODIFY]);
    it.run(secs(62));
    assert_eq!(it.aws.calls(), [SCALE, PROMOTE, MODIFY, DELETE]);
}

#[test]
fn a_green_with_nothing_healthy_left_is_no_reason_to_wait_for_all_of_blue() {
    let mut it = breached(scaled_to_zero(), rule());
    it.aws.healthy.insert(group("green"), 0);
    it.run(secs(10));
    assert_eq!(it.aws.calls(), [SCALE], "blue has nothing healthy either");
    blue_runs(&mut it.aws, 1);
    it.run(secs(2));
    assert_eq!(it.aws.calls(), [SCALE, PROMOTE, MODIFY], "one is more than none");
}

#[test]
fn a_blue_that_gets_the_traffic_before_it_is_whole_is_made_whole_all_the_same() {
    let mut aws = scaled_to_zero();
    blue_runs(&mut aws, 1);
    aws.set(BLUE).computed_desired = 1;
    aws.healthy.insert(group("green"), 0);
    aws.outcomes = [Outcome::Failed(failed(Some("ThrottlingException")))].into();
    let mut it = breached(aws, rule());
    assert_eq!(it.aws.calls(), [SCALE, PROMOTE, MODIFY], "at once");
    it.run(secs(70));
    assert_eq!(it.aws.calls(), [SCALE, PROMOTE, MODIFY, SCALE, DELETE]);
    assert_eq!(it.aws.set(BLUE).computed_desired, 4);
}

#[test]
fn autoscaling_changes_what_blue_needs() {
    let mut it = breached(scaled_to_zero(), rule());
    blue_runs(&mut it.aws, 4);
    it.aws.service.desired_count = 6;
    it.aws.set(BLUE).computed_desired = 6;
    it.run(secs(30));
    assert_eq!(it.aws.calls(), [SCALE], "four were enough when the plan began");
    it.aws.service.desired_count = 4;
    it.aws.set(BLUE).computed_desired = 4;
    it.run(secs(2));
    assert_eq!(it.aws.calls(), [SCALE, PROMOTE, MODIFY]);
}

#[test]
fn a_blue_that_does_not_come_back_calls_a_person_and_is_waited_for_all_the_same() {
    let mut it = breached(scaled_to_zero(), rule());
    let decided_at = it.now;
    it.run(secs(1800));
    let called = it.announced.iter().find(|a| a.kind == AnnouncementKind::RollbackEscalated).unwrap();
    assert!(called.at.since(decided_at) <= Duration::from_mins(5) && called.reason.contains("RestoreBlue"));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"], "once");
    assert_eq!(it.aws.calls(), [SCALE]);
    let reads = it.aws.reads;
    it.run(secs(600));
    assert!(it.aws.reads - reads <= 50, "{} reads in ten minutes of waiting", it.aws.reads - reads);
    blue_runs(&mut it.aws, 4);
    it.run(secs(100));
    assert_eq!(it.said().last(), Some(&"Rollback Completed"));
}

#[test]
fn somebody_who_scales_blue_down_again_gets_one_reassert() {
    let mut it = breached(scaled_to_zero(), rule());
    for _ in 0..3 {
        it.run(secs(20));
        it.aws.set(BLUE).computed_desired = 0;
    }
    it.run(secs(60));
    assert_eq!(it.aws.calls(), [SCALE, SCALE]);
    assert_eq!(it.phase(), "escalated");
}

#[test]
fn a_rule_may_require_or_ignore_the_capacity_of_blue() {
    for (policy, calls, phase) in [
        (BlueCapacity::Require, vec![], "escalated"),
        (BlueCapacity::Ignore, vec![PROMOTE, MODIFY, DELETE], "rolled_back"),
    ] {
        let mut aws = Aws::promoted();
        blue_runs(&mut aws, 1);
        aws.set(BLUE).computed_desired = 1;
        let mut chosen = rule();
        chosen.rollback.blue_capacity = policy;
        let mut it = breached(aws, chosen);
        it.run(secs(90));
        assert_eq!((it.aws.calls(), it.phase().as_str()), (calls, phase), "{policy:?}");
    }
    let mut ignore = rule();
    ignore.rollback.blue_capacity = BlueCapacity::Ignore;
    let mut it = breached(scaled_to_zero(), ignore);
    it.run(secs(600));
    assert_eq!(it.aws.calls(), [] as [&str; 0], "never onto nothing at all");
}

#[test]
fn without_a_load_balancer_green_ends_only_when_blue_can_do_its_work() {
    let mut aws = Aws::blue_and_green();
    aws.rules.clear();
    for set in &mut aws.service.task_sets {
        set.target_group = None;
    }
    aws.set(BLUE).running = 0;
    aws.set(BLUE).computed_desired = 0;
    let mut it = breached(aws, rule());
    it.run(secs(90));
    assert_eq!(it.aws.calls(), [SCALE]);
    it.aws.set(BLUE).running = 4;
    it.run(secs(70));
    assert_eq!(it.aws.calls(), [SCALE, DELETE]);
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn nobody_is_called_while_blue_starts_beside_a_green_that_never_ran() {
    let mut aws = Aws::blue_and_green();
    aws.rules.clear();
    for set in &mut aws.service.task_sets {
        (set.target_group, set.running) = (None, 0);
    }
    let green = aws.set(GREEN);
    (green.stability, green.pending) = (Stability::Stabilizing, 4);
    let blue = aws.set(BLUE);
    (blue.stability, blue.pending) = (Stability::Stabilizing, 4);
    let mut it = breached(aws, rule());
    it.run(secs(100));
    assert_eq!((it.said(), it.aws.writes.len()), (vec!["Rollback Started"], 0));
    it.run(secs(100));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"], "it does not come up");
    it.aws.set(BLUE).running = 4;
    it.run(secs(30));
    assert_eq!((it.aws.calls(), it.phase().as_str()), (vec![DELETE], "rolled_back"));
}

#[test]
fn without_a_load_balancer_a_green_that_is_kept_is_for_a_person_to_stop() {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let mut weights_only = Aws::blue_and_green();
    weights_only.set(GREEN).tags.insert(tags::CONTRACT.to_owned(), Contract::WeightsOnly.as_str().to_owned());
    for (mut aws, rule, who) in [(Aws::blue_and_green(), keep, "the rule"), (weights_only, rule(), "its contract")] {
        aws.rules.clear();
        aws.service.task_sets.iter_mut().for_each(|set| set.target_group = None);
        let mut it = breached(aws, rule);
        it.run(secs(120));
        assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("escalated", 0), "{who}");
        let why = view(&it).deployment.unwrap().why;
        let wanted = format!("there is no traffic to move, and green is kept as {who} says: stop it by hand");
        assert!(why.contains(&wanted), "{why}");
        let green = it.aws.set(GREEN);
        (green.running, green.computed_desired) = (0, 0);
        it.run(secs(120));
        assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("rolled_back", 0), "{who}");
        let why = view(&it).deployment.unwrap().why;
        assert!(why.contains("green, which runs no task any more, is kept"), "{why}");
    }
}

#[test]
fn a_sticky_rule_goes_to_blue_alone_and_gets_its_pair_back_when_green_is_gone() {
    let mut aws = Aws::blue_and_green();
    aws.rules = vec![weighted("main", &[("green", 10), ("third", 5), ("blue", 90)])];
    sticky(&mut aws);
    let mut it = breached(aws, rule());
    assert_eq!(it.aws.weights(), shares(&[("third", 5), ("blue", 100)]));
    it.run(secs(65));
    assert_eq!(it.aws.calls(), [MODIFY, DELETE, MODIFY]);
    assert_eq!(it.aws.weights(), shares(&[("green", 0), ("third", 5), ("blue", 100)]));
    let forward = it.aws.rules[0].forwards().next().unwrap();
    assert_eq!(forward.stickiness.as_ref().and_then(|s| s.duration_seconds), Some(3600));
    assert_eq!(it.phase(), "rolled_back");
    it.run(secs(3600));
    assert_eq!(it.aws.writes.len(), 3, "and then it rests");
}

#[test]
fn a_pair_that_can_not_be_put_back_does_not_undo_the_rollback() {
    let mut aws = Aws::blue_and_green();
    sticky(&mut aws);
    let denied = Outcome::Failed(failed(Some("AccessDeniedException")));
    aws.outcomes = [Outcome::Applied, Outcome::Applied, denied].into();
    let mut it = breached(aws, rule());
    it.run(secs(64));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.run(secs(60));
    assert_eq!(it.said().last(), Some(&"Rollback Completed"));
}

#[test]
fn a_rule_that_names_green_alone_learns_of_blue_before_it_gets_the_traffic() {
    let mut aws = Aws::blue_and_green();
    aws.rules = vec![weighted("main", &[("green", 1)])];
    aws.healthy.insert(group("blue"), 0);
    let mut it = breached(aws, rule());
    assert_eq!(it.aws.weights(), shares(&[("green", 1), ("blue", 0)]), "now its targets are checked");
    it.run(secs(10));
    assert_eq!(it.aws.calls(), [MODIFY]);
    it.aws.healthy.insert(group("blue"), 4);
    it.run(secs(2));
    assert_eq!(it.aws.weights(), shares(&[("green", 0), ("blue", 1)]));
}

#[test]
fn all_rules_and_default_actions_are_one_set() {
    let mut aws = Aws::blue_and_green();
    let mut default = weighted("listener", &[("green", 500), ("blue", 500)]);
    default.id = TrafficRuleId::DefaultOf(ListenerArn::new("test-listener"));
    aws.rules = vec![
        weighted("main", &[("blue", 90), ("third", 100), ("green", 10)]),
        default,
        weighted("theirs", &[("third", 7)]),
    ];
    aws.outcomes = [Outcome::Applied, Outcome::Failed(failed(Some("ThrottlingException")))].into();
    let mut it = breached(aws, rule());
    assert_eq!(it.aws.calls(), [MODIFY, "ModifyListener"]);
    it.run(secs(70));
    assert_eq!(it.aws.calls(), [MODIFY, "ModifyListener", "ModifyListener", DELETE]);
    let expected = [("blue", 100), ("third", 100), ("green", 0), ("green", 0), ("blue", 999), ("third", 7)];
    assert_eq!(it.aws.weights(), shares(&expected));
}

#[test]
fn shapes_that_are_not_understood_are_shown_before_any_deployment() {
    let mut aws = Aws::blue_and_green();
    aws.remove(GREEN);
    let unknown = KeptAction { kind: "authenticate-by-song".into(), config: serde_json::Map::new() };
    aws.rules[0].actions.insert(0, Action { order: Some(0), kind: ActionKind::Kept(unknown) });
    let it = Driver::new(aws, rule());
    let shown = view(&it);
    assert!(!shown.ready && shown.not_ready_because.unwrap().contains("authenticate-by-song"));
}

#[test]
fn what_took_over_long_ago_is_nobodys_green() {
    let mut aws = Aws::promoted();
    aws.set(GREEN).created_at = start().minus(Duration::from_hours(48));
    aws.set(BLUE).created_at = start().minus(Duration::from_hours(72));
    let mut it = breached(aws, rule());
    it.run(secs(120));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("none", 0));
}

/// Users are on green, which its deployer made PRIMARY; the blue before it still lives, with nothing to do.
fn graduated() -> Driver {
    let mut it = Driver::new(scaled_to_zero(), rule());
    it.run(secs(1000));
    assert_eq!(it.phase(), "graduated");
    it
}

/// And the next version comes.
fn third(it: &mut Driver) {
    let mut third = task_set("ecs-svc/3000000000000000000", it.now, TaskSetStatus::Active, "third");
    third.stability = Stability::Stabilizing;
    it.aws.service.task_sets.push(third);
}

#[test]
fn what_users_were_given_back_is_not_put_on_trial_against_the_version_before_it() {
    let mut it = graduated();
    third(&mut it);
    it.run(secs(60));
    assert_eq!(it.phase(), "watching");
    it.aws.remove("ecs-svc/3000000000000000000");
    it.aws.set(GREEN).stability = Stability::Stabilizing;
    breach(&mut it);
    it.run(secs(300));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("superseded", 0));
}

#[test]
fn nor_is_it_in_the_moment_in_which_nobody_is_primary() {
    let mut it = graduated();
    third(&mut it);
    it.aws.set("ecs-svc/3000000000000000000").status = TaskSetStatus::Primary;
    it.aws.set(GREEN).status = TaskSetStatus::Active;
    it.run(secs(60));
    it.aws.remove("ecs-svc/3000000000000000000");
    it.run(SWEEP);
    assert_eq!(it.phase(), "superseded");
    it.aws.set(BLUE).status = TaskSetStatus::Primary;
    it.run(SWEEP);
    assert_eq!(it.phase(), "watching", "a person went back to the one before it");
}

#[test]
fn a_green_that_one_read_does_not_show_is_judged_on() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.run(secs(1));
    let green = it.aws.set(GREEN).clone();
    it.aws.remove(GREEN);
    it.run(SWEEP);
    assert_eq!(it.phase(), "superseded");
    it.aws.service.task_sets.push(green);
    it.run(SWEEP);
    assert_eq!(it.phase(), "watching");
    breach(&mut it);
    it.run(secs(90));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn a_person_may_roll_back_what_has_taken_over() {
    let mut it = graduated();
    breach(&mut it);
    assert_eq!(it.aws.writes.len(), 0, "no gate does");
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(200));
    assert_eq!(it.aws.calls().first(), Some(&SCALE), "blue has nothing that could serve");
    blue_runs(&mut it.aws, 4);
    it.aws.set(BLUE).stability = Stability::Steady;
    it.run(secs(200));
    assert_eq!((it.phase().as_str(), it.aws.deletes().len()), ("rolled_back", 1));
}

fn refused(it: &Driver) -> Vec<String> {
    let why = |note: &Note| if let Note::Refused { why, .. } = note { Some(why.clone()) } else { None };
    it.notes.iter().filter_map(|(_, note)| why(note)).collect()
}

#[test]
fn an_order_about_what_was_decided_before_is_not_followed_and_not_dropped_in_silence() {
    let observing = Rule { mode: Mode::Observe, ..rule() };
    let mut it = breached(Aws::blue_and_green(), observing);
    it.run(secs(60));
    assert!(view(&it).ready);
    it.feed(Input::Rules(RuleSet { rules: vec![Arc::new(rule())] }));
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(120));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("breached", 0));
    let [why] = &refused(&it)[..] else { panic!("it is said once: {:?}", refused(&it)) };
    assert!(why.contains("decided on before, as rollback-") && why.contains("observe"), "{why}");
}

#[test]
fn an_order_on_what_took_over_long_ago_is_not_followed_and_says_so() {
    let mut aws = Aws::promoted();
    aws.set(GREEN).created_at = start().minus(Duration::from_hours(48));
    aws.set(BLUE).created_at = start().minus(Duration::from_hours(72));
    aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    let mut it = Driver::new(aws, rule());
    it.run(secs(120));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("none", 0), "the tag may be days old");
    assert_eq!(refused(&it).len(), 1);
    assert!(refused(&it)[0].contains("not the green of a deployment"));
}

#[test]
fn a_replica_that_does_not_know_the_service_yet_ends_no_rollback_in_half_a_second() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(10));
    it.aws.unreadable = Some(CallError { class: ErrorClass::NotFound, ..failed(None) });
    it.run(secs(13));
    it.aws.unreadable = None;
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
}

/// A replica does not know the service.
fn unknown() -> Input {
    Input::Observed(key(), Err(failed(Some("ServiceNotFoundException"))))
}

#[test]
fn nor_do_two_answers_that_come_close_together() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.aws.unreadable = Some(failed(None));
    it.feed(unknown());
    // One that is taken nine seconds later may have been sent four seconds later.
    it.run(secs(9));
    it.feed(unknown());
    it.aws.unreadable = None;
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn nor_do_the_answers_of_two_workers_whose_clocks_may_differ() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.aws.unreadable = Some(failed(None));
    it.feed(unknown());
    it.now = it.now.plus(secs(11));
    it.feed(Input::Restarted);
    it.feed(unknown());
    it.aws.unreadable = None;
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn a_long_drain_puts_off_no_call_for_a_person_before_anything_drains() {
    let mut patient = rule();
    patient.rollback.drain = secs(3600);
    let mut it = Driver::new(Aws::blue_and_green(), patient);
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(None)), 1000).collect();
    breach(&mut it);
    it.run(secs(300));
    assert_eq!((it.phase().as_str(), it.said().last()), ("escalated", Some(&"Rollback Escalated")));
}

#[test]
fn a_green_that_is_shown_again_is_looked_at_anew_before_it_is_called_unsteady() {
    let mut aws = Aws::blue_and_green();
    aws.set(GREEN).stability = Stability::Stabilizing;
    let mut it = Driver::new(aws, rule());
    it.run(secs(1));
    let green = it.aws.set(GREEN).clone();
    it.aws.remove(GREEN);
    it.run(SWEEP);
    // It came up, and nobody saw that.
    it.now = it.now.plus(secs(1000));
    it.aws.service.task_sets.push(green);
    it.run(secs(1));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("watching", 0));
}

#[test]
fn a_green_that_serves_and_is_first_seen_late_has_its_time_from_there_on() {
    let first_seen_late = |serves: bool| {
        let mut aws = Aws::blue_and_green();
        let green = aws.set(GREEN);
        (green.stability, green.created_at) = (Stability::Stabilizing, start().minus(secs(3600)));
        aws.healthy.insert(group("green"), if serves { 2 } else { 0 });
        Driver::new(aws, rule())
    };
    let mut it = first_seen_late(true);
    it.run(secs(590));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("watching", 0), "it may only be scaling");
    it.run(secs(20));
    assert_eq!(it.said()[0], "Rollback Started");
    let mut it = first_seen_late(false);
    it.run(SWEEP * 3);
    assert_eq!(it.said()[0], "Rollback Started", "it does nothing for anybody");
}

#[test]
fn people_who_keep_a_promoted_green_and_delete_blue_have_decided() {
    let mut page = rule();
    page.rollback.after_promotion = AfterPromotion::Page;
    let mut it = breached(Aws::promoted(), page);
    it.run(secs(60));
    assert_eq!(it.phase(), "escalated");
    it.aws.remove(BLUE);
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("superseded", 0));
    let calls = it.said().iter().filter(|said| **said == "Rollback Escalated").count();
    assert_eq!(calls, 1, "{:?}", it.said());
}

#[test]
fn users_who_are_left_on_a_blue_that_is_gone_are_no_decision() {
    let mut it = Driver::new(Aws::promoted(), rule());
    it.aws.outcomes = [Outcome::Failed(failed(Some("AccessDeniedException")))].into();
    breach(&mut it);
    assert_eq!(it.aws.weights(), shares(&[("blue", 100), ("green", 0)]));
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("AccessDeniedException"))), 100).collect();
    it.aws.remove(BLUE);
    it.run(secs(60));
    assert_eq!(it.phase(), "escalated");
    let calls = it.said().iter().filter(|said| **said == "Rollback Escalated").count();
    assert_eq!(calls, 2, "{:?}", it.said());
}

#[test]
fn users_of_a_blue_that_is_gone_may_have_been_taken_over_by_another_task_set() {
    let mut page = rule();
    page.rollback.after_promotion = AfterPromotion::Page;
    for green_lives in [true, false] {
        let mut it = breached(Aws::promoted(), page.clone());
        it.run(secs(60));
        assert_eq!(it.phase(), "escalated");
        it.aws.remove(BLUE);
        let status = if green_lives { TaskSetStatus::Active } else { TaskSetStatus::Primary };
        it.aws.service.task_sets.push(task_set("ecs-svc/900", start().minus(secs(90_000)), status, "blue"));
        it.aws.rules = vec![weighted("main", &[("blue", 20), ("green", if green_lives { 80 } else { 0 })])];
        if !green_lives {
            it.aws.remove(GREEN);
        }
        it.run(secs(60));
        assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("superseded", 0), "green lives: {green_lives}");
    }
}

#[test]
fn what_a_lost_answer_made_us_send_twice_is_no_dispute() {
    let mut aws = Aws::blue_and_green();
    aws.rules.push(weighted("second", &[("blue", 90), ("green", 10)]));
    let mut it = Driver::new(aws, rule());
    let lost = CallError { class: ErrorClass::Transient, ..failed(None) };
    it.aws.outcomes = [Outcome::Failed(lost)].into();
    breach(&mut it);
    it.run(secs(50));
    it.aws.rules[1] = weighted("second", &[("blue", 50), ("green", 50)]);
    it.run(secs(200));
    assert_eq!(it.phase(), "rolled_back");
}

#[test]
fn a_blue_that_vanishes_in_the_middle_of_a_rollback_calls_a_person_first() {
    let mut it = Driver::new(Aws::promoted(), rule());
    it.aws.obeys = false;
    breach(&mut it);
    it.aws.remove(BLUE);
    it.run(secs(60));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated", "Rollback Held"]);
}

#[test]
fn rules_that_are_undone_one_after_the_other_are_one_dispute() {
    for (later, shifts, phase) in [(secs(10), 4, "rolled_back"), (secs(40), 3, "escalated")] {
        let mut aws = Aws::blue_and_green();
        aws.rules.push(weighted("second", &[("blue", 90), ("green", 10)]));
        let mut it = breached(aws, rule());
        it.run(secs(10));
        it.aws.rules[0] = weighted("main", &[("blue", 50), ("green", 50)]);
        it.run(later);
        it.aws.rules[1] = weighted("second", &[("blue", 50), ("green", 50)]);
        it.run(secs(200));
        assert_eq!((it.aws.shifts().len(), it.phase().as_str()), (shifts, phase), "{later:?}");
    }
}

#[test]
fn after_a_restart_no_other_rule_belongs_to_the_one_dispute() {
    let mut aws = Aws::blue_and_green();
    aws.rules.push(weighted("second", &[("blue", 90), ("green", 10)]));
    let mut it = breached(aws, rule());
    it.run(secs(10));
    it.aws.rules[0] = weighted("main", &[("blue", 50), ("green", 50)]);
    it.run(secs(10));
    // By a clock that was set back meanwhile, or another machine's, it may be seconds ago or an hour.
    it.restart();
    it.feed(Input::Restarted);
    it.aws.rules[1] = weighted("second", &[("blue", 50), ("green", 50)]);
    it.run(secs(200));
    assert_eq!((it.aws.shifts().len(), it.phase().as_str()), (3, "escalated"));
}

#[test]
fn too_many_unhealthy_targets_in_two_sweeps_in_a_row_are_a_breach() {
    let ill = |it: &mut Driver, count: u32| {
        it.aws.unhealthy.insert(group("green"), count);
        it.aws.healthy.insert(group("green"), 4 - count);
    };
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    ill(&mut it, 3);
    it.run(SWEEP + secs(5));
    assert_eq!(it.phase(), "watching", "once may be a deployment of the load balancer's own");
    ill(&mut it, 2);
    it.run(SWEEP);
    ill(&mut it, 3);
    it.run(SWEEP);
    assert_eq!(it.phase(), "watching", "not in a row");
    it.run(SWEEP);
    assert_eq!(it.phase(), "rolling_back (Drain)");
    let incident = it.incidents.values().next().unwrap();
    assert_eq!(incident.evidence[0].gate, Gate::UnhealthyTargets);
}

#[test]
fn targets_that_start_behind_a_test_listener_are_not_judged_before_users_come() {
    let mut aws = Aws::blue_and_green();
    aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)]), weighted("test", &[("green", 1)])];
    aws.set(GREEN).stability = Stability::Stabilizing;
    aws.unhealthy.insert(group("green"), 4);
    aws.healthy.insert(group("green"), 0);
    let mut it = Driver::new(aws, rule());
    it.run(SWEEP * 4);
    assert_eq!(it.phase(), "watching", "the deployers' own tests are no users");
    it.aws.rules[0] = weighted("main", &[("blue", 90), ("green", 10)]);
    it.run(SWEEP * 3);
    assert_eq!(it.said()[0], "Rollback Started");
}

#[test]
fn a_green_that_had_no_task_was_not_steady_and_has_its_time_from_when_it_wants_some() {
    let mut aws = Aws::blue_and_green();
    aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)])];
    aws.healthy.insert(group("green"), 0);
    let green = aws.set(GREEN);
    (green.running, green.computed_desired) = (0, 0);
    let mut it = Driver::new(aws, rule());
    it.run(secs(1200));
    let green = it.aws.set(GREEN);
    (green.running, green.computed_desired, green.stability) = (2, 4, Stability::Stabilizing);
    it.run(secs(590));
    assert_eq!(it.phase(), "watching", "it has wanted tasks for less than ten minutes");
    it.restart();
    it.feed(Input::Restarted);
    it.run(secs(60));
    assert_eq!(it.said(), ["Rollback Started"], "it never came up");
    let evidence = &it.incidents.values().next().unwrap().evidence[0];
    assert_eq!(evidence.gate, Gate::SteadyWithin);
    assert!((600.0..631.0).contains(&evidence.value), "{evidence:?}");
}

/// A green of one task that was steady is scaled to four: one serves, three read as unhealthy.
fn grown(rule: Rule) -> Driver {
    let mut aws = Aws::blue_and_green();
    aws.healthy.insert(group("green"), 1);
    let green = aws.set(GREEN);
    (green.running, green.computed_desired) = (1, 1);
    let mut it = Driver::new(aws, rule);
    it.run(secs(60));
    let green = it.aws.set(GREEN);
    (green.running, green.computed_desired, green.stability) = (4, 4, Stability::Stabilizing);
    it.aws.unhealthy.insert(group("green"), 3);
    it.run(secs(570));
    assert_eq!(it.phase(), "watching", "the new ones are starting");
    it
}

#[test]
fn targets_of_a_green_that_was_scaled_up_have_their_time_to_come_up() {
    let mut it = grown(rule());
    it.run(secs(100));
    assert_eq!(it.said(), ["Rollback Started"], "not for ever");

    let mut it = grown(Rule { stability: StabilityGates { steady_within: None, ..rule().stability }, ..rule() });
    it.run(secs(100));
    assert_eq!(it.said(), ["Rollback Started"], "nor without that gate");

    let mut it = grown(rule());
    it.aws.healthy.insert(group("green"), 0);
    it.aws.unhealthy.insert(group("green"), 4);
    it.run(SWEEP * 2);
    assert_eq!(it.said(), ["Rollback Started"], "the one that served fails too");

    let mut it = grown(rule());
    it.aws.set(GREEN).stability = Stability::Steady;
    it.aws.healthy.insert(group("green"), 4);
    it.aws.unhealthy.insert(group("green"), 0);
    it.run(SWEEP);
    it.aws.set(GREEN).stability = Stability::Stabilizing;
    it.aws.healthy.insert(group("green"), 1);
    it.aws.unhealthy.insert(group("green"), 3);
    it.run(SWEEP * 2);
    assert_eq!(it.said(), ["Rollback Started"], "it was steady again, and all four count");
}

#[test]
fn targets_that_blue_loses_too_are_not_greens_fault() {
    let mut aws = Aws::blue_and_green();
    for color in ["blue", "green"] {
        aws.unhealthy.insert(group(color), 3);
        aws.healthy.insert(group(color), 1);
    }
    let mut it = Driver::new(aws, rule());
    it.run(secs(300));
    assert_eq!((it.aws.writes.len(), it.said()), (0, vec!["Rollback Held"]));
    assert_eq!(view(&it).deployment.unwrap().verdict, Verdict::NotAttributable);
}

#[test]
fn what_a_strict_rule_does_not_allow_green_is_no_trouble_of_blues() {
    let ill = |aws: &mut Aws, color, unhealthy| {
        aws.unhealthy.insert(group(color), unhealthy);
        aws.healthy.insert(group(color), 10 - unhealthy);
    };
    let mut strict = rule();
    strict.stability.unhealthy_targets = Some(0.0);
    let judged = |of_blue, of_green| {
        let mut aws = Aws::blue_and_green();
        ill(&mut aws, "blue", of_blue);
        ill(&mut aws, "green", of_green);
        let mut it = Driver::new(aws, strict.clone());
        it.run(SWEEP * 3);
        it.said().first().copied()
    };
    assert_eq!(judged(1, 3), Some("Rollback Started"));
    assert_eq!(judged(4, 5), Some("Rollback Held"), "not much worse than blue");
    let mut aws = Aws::blue_and_green();
    ill(&mut aws, "blue", 1);
    let mut it = breached(aws, strict);
    it.run(secs(30));
    assert_eq!(it.said(), ["Rollback Started"], "one host of blue's excuses no crash of green's");
}

#[test]
fn failures_that_blue_suffers_too_are_held_and_announced_once_until_green_fails_alone() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    for n in 0..3 {
        it.crash_of(&key(), BLUE, &format!("blue-{n}"));
        it.crash(&format!("green-{n}"));
        it.run(secs(2));
    }
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("breached", 0));
    assert_eq!(it.said(), ["Rollback Held"]);
    assert!(it.announced[0].reason.contains("blue"), "{}", it.announced[0].reason);
    let held = it.incidents.values().next().unwrap();
    assert_eq!((held.outcome, held.id.as_str()), (IncidentOutcome::Held, "held-2000-1"));
    assert_eq!(view(&it).deployment.unwrap().verdict, Verdict::NotAttributable);

    for n in 3..18 {
        it.crash(&format!("green-{n}"));
        it.run(secs(2));
    }
    it.run(secs(5));
    assert_eq!(it.aws.calls(), [] as [&str; 0], "eighteen against three may still be one cause");
    it.crash("green-18");
    it.run(secs(5));
    assert_eq!(it.aws.calls(), [MODIFY], "nineteen are not");
    assert_eq!(it.said(), ["Rollback Held", "Rollback Started"]);
}

#[test]
fn what_blue_lost_in_the_last_two_windows_is_remembered_for_as_long() {
    let mut wide = rule();
    wide.stability.window = secs(600);
    let mut it = Driver::new(Aws::blue_and_green(), wide);
    it.run(secs(60));
    for task in ["b-1", "b-2", "b-3"] {
        it.crash_of(&key(), BLUE, task);
    }
    it.run(secs(900));
    breach(&mut it);
    it.run(SWEEP);
    assert_eq!((it.aws.writes.len(), it.said()), (0, vec!["Rollback Held"]));
}

#[test]
fn while_blue_loses_tasks_too_a_breach_waits_for_news_of_them() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.aws.set(BLUE).running = 2;
    breach(&mut it);
    it.run(secs(8));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("watching", 0));
    it.aws.set(BLUE).running = 4;
    it.run(secs(2));
    assert_eq!(it.aws.calls(), [MODIFY], "blue has its tasks back, and lost none to the same cause");
}

#[test]
fn a_hold_ends_by_itself_when_the_failures_are_over() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    for n in 0..3 {
        it.crash_of(&key(), BLUE, &format!("blue-{n}"));
        it.crash(&format!("green-{n}"));
    }
    it.run(secs(10));
    assert_eq!(it.phase(), "breached");
    it.run(secs(330));
    assert_eq!(it.phase(), "watching");
    assert_eq!(it.said(), ["Rollback Held"]);
}

#[test]
fn without_the_control_group_every_failure_is_greens() {
    let mut alone = rule();
    alone.compare.against_blue = false;
    let mut it = Driver::new(Aws::blue_and_green(), alone);
    for n in 0..3 {
        it.crash_of(&key(), BLUE, &format!("blue-{n}"));
        it.crash(&format!("green-{n}"));
    }
    assert_eq!(it.aws.calls(), [MODIFY]);
}

#[test]
fn an_alarm_is_not_greens_fault_while_blues_own_is_red() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.run(secs(1));
    it.aws.alarms = vec![red("blue-5xx", it.now, &["blue"])];
    it.run(secs(1));
    // The alarms were searched when green was first seen; a restart searches anew only for a new green.
    let mut it = Driver::new(it.aws, rule());
    it.run(secs(60));
    let alarm = red("green-5xx", it.now, &["green"]);
    it.aws.alarms.push(alarm.clone());
    it.signal(Fact::Alarm(AlarmChange { alarm }));
    it.run(secs(60));
    assert_eq!((it.aws.writes.len(), it.said()), (0, vec!["Rollback Held"]));
    it.aws.alarms[0].value = AlarmValue::Ok;
    it.run(SWEEP);
    assert_eq!(it.aws.calls(), [MODIFY], "blue is well again, green is not");
}

#[test]
fn a_red_alarm_of_a_blue_that_has_no_users_or_was_red_before_green_came_excuses_nothing() {
    let after = start().plus(secs(1));
    let said = |mut aws: Aws, since: Timestamp| {
        aws.alarms = vec![red("blue-hosts", since, &["blue"])];
        let mut it = Driver::new(aws, rule());
        it.run(secs(60));
        let alarm = red("green-5xx", it.now, &["green"]);
        it.aws.alarms.push(alarm.clone());
        it.signal(Fact::Alarm(AlarmChange { alarm }));
        it.run(secs(10));
        it.said()
    };
    let mut died = Aws::blue_and_green();
    blue_runs(&mut died, 0);
    let mut unused = Aws::blue_and_green();
    unused.rules = vec![weighted("main", &[("blue", 0), ("green", 100)])];
    let mut none_wanted = Aws::blue_and_green();
    blue_runs(&mut none_wanted, 0);
    none_wanted.set(BLUE).computed_desired = 0;
    assert_eq!(said(Aws::blue_and_green(), after), ["Rollback Held"], "a canary, and blue has users");
    assert_eq!(said(died, after), ["Rollback Held"], "blue's tasks are wanted, and gone");
    assert_eq!(said(Aws::blue_and_green(), start().minus(secs(60))), ["Rollback Started"], "red before green came");
    assert_eq!(said(unused, after), ["Rollback Started"], "nobody uses blue");
    assert_eq!(said(none_wanted, after), ["Rollback Started"], "nobody wants a task of blue");
    assert_eq!(said(scaled_to_zero(), after), ["Rollback Started"], "blue was scaled to nothing");
}

#[test]
fn an_alarm_whose_actions_are_suppressed_is_shown_and_triggers_nothing() {
    let mut named = rule();
    named.errors.alarms = vec![AlarmName::new("site")];
    let mut it = Driver::new(Aws::blue_and_green(), named);
    it.run(secs(30));
    let doubt = Some(suppressed("Alarm"));
    it.aws.alarms = vec![AlarmReading { doubt, ..red("site", it.now, &[]) }];
    it.run(secs(300));
    assert_eq!((it.phase().as_str(), view(&it).deployment.unwrap().verdict), ("watching", Verdict::Blind));
    it.aws.alarms[0].doubt = None;
    it.run(SWEEP);
    assert_eq!(it.aws.calls(), [MODIFY], "the suppression is over, and it is still red");
}

fn neighbour(n: u32) -> ServiceKey {
    ServiceKey::new("prod", format!("service-{n}"))
}

/// So many services beside the first one, by one rule.
fn fleet(others: u32) -> Driver {
    let mut it = Driver::idle(Aws::blue_and_green(), false);
    it.neighbours = (0..others).map(|n| (neighbour(n), Aws::blue_and_green())).collect();
    it.protect(Rule { protect: vec![Protect { cluster: "prod".into(), service: "*".into() }], ..rule() });
    it
}

/// So many of them, ten seconds apart.
fn breach_in_turn(it: &mut Driver, services: u32) {
    for n in 0..services {
        for task in ["a", "b", "c"] {
            it.crash_of(&neighbour(n), GREEN, &format!("{n}{task}"));
        }
        it.run(secs(10));
    }
}

#[test]
fn services_that_nobody_protects_any_more_count_for_the_fleet_brake() {
    let mut it = fleet(4);
    breach_in_turn(&mut it, 4);
    assert_eq!(it.phase_of(&neighbour(3)), "breached");
    it.feed(Input::Swept([neighbour(3)].into()));
    it.run(secs(60));
    assert!(it.neighbours[&neighbour(3)].writes.is_empty(), "what the others breached for may be its reason too");
}

#[test]
fn a_fourth_service_that_breaches_within_ten_minutes_engages_the_fleet_brake() {
    let mut it = fleet(5);
    breach_in_turn(&mut it, 5);
    let acted: Vec<_> = it.neighbours.values().map(|aws| !aws.writes.is_empty()).collect();
    assert_eq!(acted, [true, true, true, false, false]);
    let count = |it: &Driver, kind| it.announced.iter().filter(|a| a.kind == kind).count();
    assert_eq!(count(&it, AnnouncementKind::RollbackHeld), 1, "one page for the fleet");
    assert!(it.engine.status(it.now).fleet_brake.is_some());
    assert_eq!(it.phase_of(&neighbour(4)), "breached");

    // The held ones go on crashing. Once no more than three breach within ten minutes, they have their turn.
    for minute in 0..12 {
        for n in 3..5 {
            for task in ["d", "e", "f"] {
                it.crash_of(&neighbour(n), GREEN, &format!("{n}{task}{minute}"));
            }
        }
        it.run(secs(60));
    }
    assert!(it.neighbours.values().all(|aws| !aws.writes.is_empty()));
    assert_eq!(it.engine.status(it.now).fleet_brake, None);
    assert_eq!(count(&it, AnnouncementKind::RollbackHeld), 1);
}

#[test]
fn a_fleet_that_is_well_again_releases_the_brake_without_another_breach() {
    let mut it = fleet(4);
    for n in 0..4 {
        for task in ["a", "b", "c"] {
            it.crash_of(&neighbour(n), GREEN, &format!("{n}{task}"));
        }
    }
    assert!(it.engine.status(it.now).fleet_brake.is_some());
    // Whoever deployed the last one takes it back.
    it.neighbours.get_mut(&neighbour(3)).unwrap().remove(GREEN);
    let all: std::collections::BTreeSet<_> = it.neighbours.keys().cloned().chain([key()]).collect();
    for _ in 0..24 {
        it.run(SWEEP);
        it.feed(Input::Swept(all.clone()));
    }
    assert_eq!(it.engine.status(it.now).fleet_brake, None);
    assert!(it.notes.iter().any(|(_, note)| matches!(note, Note::Brake { engaged: false, .. })));
}

#[test]
fn a_service_is_rolled_back_only_so_often_a_day() {
    let mut limited = rule();
    limited.limits.rollbacks_per_day = 1;
    let mut it = breached(Aws::blue_and_green(), limited);
    it.run(secs(100));
    assert_eq!(it.phase(), "rolled_back");
    let again = |it: &mut Driver, id: &str| {
        it.aws.service.task_sets.push(task_set(id, it.now, TaskSetStatus::Active, "green"));
        it.aws.rules = vec![weighted("main", &[("blue", 90), ("green", 10)])];
        it.run(SWEEP + secs(1));
        for n in 0..3 {
            it.crash_of(&key(), id, &format!("{id}-{n}"));
        }
        it.run(secs(100));
    };
    again(&mut it, "ecs-svc/3000");
    assert_eq!((it.phase().as_str(), it.aws.deletes().len()), ("breached", 1));
    assert_eq!(it.said().last(), Some(&"Rollback Held"));
    it.aws.remove("ecs-svc/3000");
    it.run(Duration::from_hours(24));
    again(&mut it, "ecs-svc/4000");
    assert_eq!((it.phase().as_str(), it.aws.deletes().len()), ("rolled_back", 2));
}

#[test]
fn evidence_that_grew_old_before_anything_was_done_is_looked_at_again() {
    let throttled = || Outcome::Failed(failed(Some("ThrottlingException")));
    for (still_fails, calls) in [(false, 0), (true, 2)] {
        let mut it = Driver::new(Aws::blue_and_green(), rule());
        it.aws.outcomes = std::iter::repeat_n(throttled(), 10_000).collect();
        breach(&mut it);
        it.run(secs(700));
        // Called for what can't be done, then for what is not to be done any more.
        assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated", "Rollback Escalated"]);
        let sent = it.aws.writes.len();
        it.aws.outcomes.clear();
        if still_fails {
            for task in ["x", "y", "z"] {
                it.crash(task);
            }
        }
        it.run(secs(120));
        assert_eq!(it.aws.writes.len() - sent, calls, "green still fails: {still_fails}");
        assert_eq!(it.phase(), if still_fails { "rolled_back" } else { "escalated" });
    }
}

#[test]
fn a_persons_order_does_not_grow_old_while_it_stands() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.run(secs(1));
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("AccessDeniedException"))), 10_000).collect();
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(900));
    assert_eq!((it.phase().as_str(), it.said().len()), ("escalated", 2));
    it.aws.outcomes.clear();
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back", "it goes on once the permission is there");
}

#[test]
fn what_was_half_done_is_finished_however_late() {
    let mut aws = Aws::blue_and_green();
    aws.rules.push(weighted("second", &[("blue", 90), ("green", 10)]));
    let throttled = std::iter::repeat_n(Outcome::Failed(failed(Some("ThrottlingException"))), 10_000);
    aws.outcomes = [Outcome::Applied].into_iter().chain(throttled).collect();
    let mut it = breached(aws, rule());
    it.run(Duration::from_hours(1));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.aws.outcomes.clear();
    it.run(secs(120));
    assert_eq!(it.said().last(), Some(&"Rollback Completed"));
}

#[test]
fn a_lost_answer_counts_for_the_one_reassert() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.crash_after_write.insert(1);
    breach(&mut it);
    for _ in 0..3 {
        it.run(secs(15));
        it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
    }
    it.run(secs(300));
    assert_eq!((it.aws.shifts().len(), it.phase().as_str()), (2, "escalated"));
}

/// As many steps as a rollback can have.
fn everything() -> Aws {
    let mut aws = scaled_to_zero();
    sticky(&mut aws);
    let mut default = weighted("listener", &[("blue", 0), ("green", 1)]);
    default.id = TrafficRuleId::DefaultOf(ListenerArn::new("listener"));
    aws.rules.push(default);
    aws
}

fn finishes_once(mut it: Driver, what: &str) {
    it.protect(rule());
    // A crash before anything was said of the service loses the listing; the shell lists again when it starts.
    it.feed(Input::Swept([key()].into()));
    breach(&mut it);
    it.run(secs(20));
    blue_runs(&mut it.aws, 4);
    it.run(secs(150));
    assert_eq!(it.phase(), "rolled_back", "{what}");
    let weights = shares(&[("blue", 100), ("green", 0), ("blue", 1), ("green", 0)]);
    assert_eq!(it.aws.weights(), weights, "{what}");
    let mut calls = it.aws.calls();
    calls.sort_unstable();
    assert_eq!(calls, [DELETE, "ModifyListener", MODIFY, MODIFY, PROMOTE, SCALE], "{what}: each once");
    let (shifts, deletes) = (it.aws.shifts(), it.aws.deletes());
    let last_shift = shifts.iter().filter(|at| **at < deletes[0]).max().unwrap();
    assert!(deletes[0].since(*last_shift) >= secs(60), "{what}");
    for kind in ["Rollback Started", "Rollback Completed"] {
        assert!(it.said().contains(&kind), "{what}: {kind} was lost");
    }
    assert_eq!(it.incidents.len(), 1, "{what}");
}

#[test]
fn a_crash_after_any_step_of_the_whole_plan_ends_in_the_same_place() {
    for step in 1..=60 {
        let mut it = Driver::idle(everything(), false);
        it.crash_after.insert(step);
        finishes_once(it, &format!("crash after step {step}"));
    }
    for write in 1..=6 {
        let mut it = Driver::idle(everything(), false);
        it.crash_after_write.insert(write);
        finishes_once(it, &format!("crash before the answer to write {write}"));
    }
}

#[test]
fn a_kept_green_keeps_sticky_rules_on_blue_alone() {
    let mut aws = Aws::blue_and_green();
    sticky(&mut aws);
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let mut it = breached(aws, keep);
    it.run(secs(600));
    assert_eq!(it.aws.weights(), shares(&[("blue", 100)]), "a cookie would lead to it");
}

#[test]
fn a_call_that_failed_and_was_repeated_leaves_the_one_reassert() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.aws.outcomes = [Outcome::Failed(failed(None))].into();
    breach(&mut it);
    it.run(secs(20));
    it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
    it.run(secs(200));
    assert_eq!((it.aws.shifts().len(), it.phase().as_str()), (3, "rolled_back"));
}

#[test]
fn a_dispute_about_a_sticky_rule_ends_when_people_roll_back_by_hand() {
    let mut aws = Aws::blue_and_green();
    sticky(&mut aws);
    let pair = aws.rules.clone();
    let mut it = breached(aws, rule());
    for _ in 0..2 {
        it.run(secs(20));
        it.aws.rules.clone_from(&pair);
    }
    it.run(secs(30));
    assert_eq!(it.phase(), "escalated");
    it.aws.rules = vec![weighted("main", &[("blue", 100)])];
    sticky(&mut it.aws);
    it.aws.remove(GREEN);
    it.run(secs(120));
    assert_eq!((it.phase().as_str(), it.aws.shifts().len()), ("rolled_back", 2));
    assert_eq!(view(&it).quarantine.len(), 1);
}

#[test]
fn a_person_who_wants_a_rollback_that_is_in_doubt_is_heard() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("AccessDeniedException"))), 10_000).collect();
    breach(&mut it);
    it.run(secs(700));
    it.aws.outcomes.clear();
    it.run(secs(60));
    assert_eq!(it.phase(), "escalated", "green is quiet by now");
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(150));
    assert_eq!(it.phase(), "rolled_back");
    let record = it.incidents.values().next().unwrap();
    assert!(record.evidence.iter().any(|evidence| evidence.gate == Gate::Person), "{:?}", record.evidence);
}

#[test]
fn a_person_who_wants_a_rollback_outranks_the_hold_that_stopped_it() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("ThrottlingException"))), 10_000).collect();
    breach(&mut it);
    let until = it.now.plus(secs(3600)).to_string();
    it.aws.service.tags.insert(tags::HOLD_UNTIL.to_owned(), until);
    it.run(SWEEP * 2);
    it.aws.outcomes.clear();
    it.run(secs(60));
    assert_eq!(it.aws.shifts().len(), it.aws.writes.len());
    assert_eq!(it.aws.weights(), shares(&[("blue", 90), ("green", 10)]), "held");
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(150));
    assert_eq!(it.phase(), "rolled_back");
}

/// Green is deleted, and ECS still stops its tasks.
fn draining(aws: Aws, until_deleted: Duration) -> Driver {
    let mut it = breached(aws, rule());
    it.run(until_deleted);
    it.aws.obeys = false;
    it.run(secs(5));
    it.aws.obeys = true;
    assert_eq!(it.aws.deletes().len(), 1);
    it.aws.set(GREEN).status = TaskSetStatus::Draining;
    it
}

#[test]
fn a_pipeline_that_tries_again_while_ecs_drains_finds_its_version_in_quarantine() {
    let mut it = draining(Aws::blue_and_green(), secs(58));
    let version = it.aws.set(GREEN).task_definition.clone();
    let next = task_set("ecs-svc/3000", it.now, TaskSetStatus::Active, "third");
    it.aws.service.task_sets.push(TaskSet { task_definition: version, ..next });
    it.run(secs(40));
    let record = &it.incidents[&IncidentId::new("rollback-2000")];
    assert_eq!((record.outcome, record.deleted_at.is_some()), (IncidentOutcome::RolledBack, true));
    assert_eq!(
        it.said(),
        ["Rollback Started", "Rollback Completed", "Rollback Held"],
        "and it is said that it is back"
    );
    assert_eq!(view(&it).deployment.unwrap().green, TaskSetId::new("ecs-svc/3000"));
}

#[test]
fn nobody_is_called_while_ecs_drains_what_a_slow_blue_has_replaced() {
    let mut it = breached(scaled_to_zero(), rule());
    it.run(secs(130));
    blue_runs(&mut it.aws, 4);
    it.run(secs(58));
    it.aws.obeys = false;
    it.run(secs(5));
    it.aws.obeys = true;
    assert_eq!(it.aws.deletes().len(), 1);
    it.aws.set(GREEN).status = TaskSetStatus::Draining;
    it.run(secs(140));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_blue_that_is_deleted_under_a_canary_is_no_graduation() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.run(secs(1));
    it.aws.remove(BLUE);
    it.run(SWEEP * 2);
    assert_eq!((it.phase().as_str(), it.said()), ("superseded", vec![]));
}

#[test]
fn a_blue_that_is_deleted_while_a_breach_is_held_is_no_graduation() {
    let mut aws = Aws::promoted();
    aws.set(GREEN).tags.insert(tags::CONTRACT.to_owned(), Contract::Page.as_str().to_owned());
    let mut it = breached(aws, rule());
    it.run(secs(1));
    assert_eq!(it.said(), ["Rollback Held"]);
    it.aws.remove(BLUE);
    it.run(SWEEP * 2);
    assert_eq!((it.phase().as_str(), it.said()), ("superseded", vec!["Rollback Held"]));
}

#[test]
fn a_breach_that_comes_and_goes_in_one_outage_is_announced_once() {
    let mut aws = Aws::blue_and_green();
    aws.alarms = vec![red("blue-5xx", start().plus(secs(1)), &["blue"])];
    let mut it = Driver::new(aws, rule());
    it.run(secs(60));
    for _ in 0..10 {
        let alarm = red("green-5xx", it.now, &["green"]);
        it.aws.alarms.truncate(1);
        it.aws.alarms.push(alarm.clone());
        it.signal(Fact::Alarm(AlarmChange { alarm }));
        it.run(secs(60));
        it.aws.alarms[1].value = AlarmValue::Ok;
        it.run(secs(60));
    }
    assert_eq!((it.said(), it.aws.writes.len()), (vec!["Rollback Held"], 0));
    assert_eq!(it.incidents.len(), 1);
    let told = &it.incidents.values().next().unwrap().timeline;
    assert_eq!(told.iter().filter(|moment| moment.what.contains("held again")).count(), 9, "{told:?}");
}

#[test]
fn a_long_wait_for_a_permission_does_not_push_the_end_out_of_the_record() {
    let mut it = Driver::new(Aws::blue_and_green(), rule());
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("AccessDeniedException"))), 10_000).collect();
    it.run(secs(1));
    // A person's order does not grow old.
    it.aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    it.run(secs(1800));
    it.aws.outcomes.clear();
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
    let record = it.incidents.values().next().unwrap();
    assert!(record.timeline[0].what.contains("first sign"), "{:?}", record.timeline[0]);
    assert!(record.timeline.last().unwrap().what.contains("green is gone"), "{:?}", record.timeline.last());
    assert!(record.calls.last().unwrap().call.contains(DELETE), "{:?}", record.calls.last());
}

#[test]
fn a_blue_that_does_not_come_up_is_not_told_at_every_look() {
    let mut it = breached(scaled_to_zero(), rule());
    it.run(secs(300));
    let told = |it: &Driver| it.incidents.values().next().unwrap().timeline.len();
    let before = told(&it);
    it.run(secs(1200));
    assert_eq!((it.phase().as_str(), told(&it)), ("escalated", before));
}
