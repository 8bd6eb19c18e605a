//! After the incident: weights that somebody puts back on the group that was rolled away from.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use taskset_guardian::engine::{Engine, Input, Note};
use taskset_guardian::model::*;
use taskset_guardian::rules::{DeletePolicy, Mode, Rule, RuleSet};

/// Until a sweep has found something, a second look has confirmed it, and what follows is over.
const FOUND: Duration = Duration::from_secs(30 + 5 + 10);

fn breached(aws: Aws, rule: Rule) -> Driver {
    let mut it = Driver::new(aws, rule);
    for task in ["a", "b", "c"] {
        it.run(secs(1));
        it.crash(task);
    }
    it
}

/// Green crashed, blue has all the traffic and green is gone; what was said and done so far does not count.
fn rolled_back_by(rule: Rule) -> Driver {
    let mut it = breached(Aws::blue_and_green(), rule);
    it.run(secs(120));
    forget(&mut it);
    it
}

fn rolled_back() -> Driver {
    rolled_back_by(rule())
}

fn forget(it: &mut Driver) {
    assert_eq!(it.phase(), "rolled_back");
    it.announced.clear();
    it.aws.writes.clear();
}

fn keeping() -> Rule {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    keep
}

/// Infrastructure code is applied that knows nothing of the rollback.
fn reapply(it: &mut Driver) {
    it.aws.rules = vec![weighted("main", &[("blue", 50), ("green", 50)])];
}

/// The next version is deployed, onto the group that is free.
fn deploy(it: &mut Driver) {
    let mut next = task_set("ecs-svc/3000", it.now, TaskSetStatus::Active, "green");
    next.task_definition = Arc::from("checkout:next");
    it.aws.service.task_sets.push(next);
}

fn clean(it: &mut Driver) {
    it.aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)])];
}

fn is_clean(it: &Driver) -> bool {
    it.aws.weights() == [("blue".to_owned(), 100), ("green".to_owned(), 0)]
}

fn incident(it: &Driver) -> &Incident {
    assert_eq!(it.incidents.len(), 1, "one record, whatever came after");
    it.incidents.values().next().unwrap()
}

fn tells(it: &Driver, what: &str) -> usize {
    incident(it).timeline.iter().filter(|moment| moment.what.contains(what)).count()
}

fn use_rule(it: &mut Driver, rule: Rule) {
    it.feed(Input::Rules(RuleSet { rules: vec![Arc::new(rule)] }));
}

#[test]
fn weights_that_are_put_back_once_are_given_to_blue_again_and_that_is_told() {
    let mut it = rolled_back();
    let deleted_at = incident(&it).deleted_at;
    reapply(&mut it);
    it.run(FOUND);
    assert!(is_clean(&it), "{:?}", it.aws.weights());
    assert_eq!(it.aws.calls(), ["ModifyRule"]);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
    let reason = &it.announced[0].reason;
    assert!(reason.contains("sends users to green again") && reason.contains("once"), "{reason}");
    assert_eq!((it.phase().as_str(), incident(&it).outcome), ("rolled_back", IncidentOutcome::RolledBack));
    assert_eq!(tells(&it, "sends users to green again"), 1);
    assert_eq!(incident(&it).deleted_at, deleted_at, "green went when it went");
    assert_eq!(incident(&it).traffic_lost_at, None);
    it.run(secs(3600));
    assert_eq!((it.aws.writes.len(), it.announced.len()), (1, 2), "and then it rests");
}

#[test]
fn weights_that_are_put_back_again_are_left_there_and_one_person_is_called() {
    let mut it = rolled_back();
    reapply(&mut it);
    it.run(FOUND);
    it.announced.clear();
    reapply(&mut it);
    it.run(FOUND);
    assert_eq!(it.said(), ["Rollback Escalated"]);
    assert!(it.announced[0].reason.contains("given back to blue once already"), "{}", it.announced[0].reason);
    assert_eq!((it.phase().as_str(), incident(&it).outcome), ("escalated", IncidentOutcome::Escalated));
    assert!(
        incident(&it).traffic_lost_at > incident(&it).traffic_safe_at,
        "users are not safe, and it does not say so"
    );
    it.run(secs(3600));
    assert_eq!((it.aws.writes.len(), it.said()), (1, vec!["Rollback Escalated"]), "no further write, no further page");

    clean(&mut it);
    it.run(FOUND);
    assert_eq!(incident(&it).traffic_lost_at, None);
    assert_eq!((it.phase().as_str(), incident(&it).outcome), ("rolled_back", IncidentOutcome::RolledBack));
    reapply(&mut it);
    it.run(secs(3600));
    assert_eq!(it.phase(), "escalated", "it shows,");
    let pages = it.said().iter().filter(|said| **said == "Rollback Escalated").count();
    assert_eq!((it.aws.writes.len(), pages), (1, 1), "and a person has heard of it before");
}

#[test]
fn a_person_who_was_called_is_not_called_for_what_nobody_would_write() {
    let mut it = rolled_back();
    for _ in 0..2 {
        reapply(&mut it);
        it.run(FOUND);
    }
    it.announced.clear();
    it.aws.healthy.insert(group("blue"), 0);
    it.run(secs(600));
    it.aws.rules[0].unread = Some(Arc::from("the member RedirectConfig.Port2"));
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.said()), ("escalated", vec![]));
}

#[test]
fn weights_that_come_back_while_they_are_given_to_blue_are_not_fought_for() {
    let mut it = rolled_back();
    // The write is accepted, and undone before the next read.
    it.aws.obeys = false;
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!(it.aws.calls(), ["ModifyRule"]);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
}

#[test]
fn a_rollback_that_has_used_its_reassert_calls_a_person_at_once() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(20));
    reapply(&mut it);
    it.run(secs(120));
    assert_eq!(it.aws.calls(), ["ModifyRule", "ModifyRule", "DeleteTaskSet"]);
    forget(&mut it);
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.aws.calls(), it.said()), (vec![], vec!["Rollback Escalated"]));
}

#[test]
fn a_rollback_that_was_done_in_spite_of_a_foreign_writer_calls_again_when_he_comes_back_later() {
    let mut it = breached(Aws::blue_and_green(), rule());
    for _ in 0..2 {
        it.run(secs(20));
        reapply(&mut it);
    }
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.shifts().len()), ("escalated", 2));
    // People finish it.
    clean(&mut it);
    it.aws.remove(GREEN);
    it.run(secs(120));
    forget(&mut it);
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.aws.calls(), it.said()), (vec![], vec!["Rollback Escalated"]));
}

#[test]
fn several_rules_are_given_back_at_once_and_one_that_follows_later_is_not() {
    let pair = |name: &str, green: u32| weighted(name, &[("blue", 100 - green), ("green", green)]);
    let mut aws = Aws::blue_and_green();
    aws.rules = vec![pair("main", 10), pair("second", 10), pair("third", 10)];
    let mut it = breached(aws, rule());
    it.run(secs(120));
    forget(&mut it);
    it.aws.rules = vec![pair("main", 50), pair("second", 50), pair("third", 0)];
    it.run(FOUND);
    assert_eq!(it.aws.calls(), ["ModifyRule", "ModifyRule"]);
    it.aws.rules[2] = pair("third", 50);
    it.run(secs(600));
    assert_eq!(it.aws.writes.len(), 2, "one re-assert for the deployment, whatever rule it was");
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed", "Rollback Escalated"]);
}

#[test]
fn a_new_green_on_the_same_group_is_a_deployment_like_any_other() {
    let mut it = rolled_back();
    deploy(&mut it);
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said()), ("watching", 0, vec![]));
}

#[test]
fn a_new_green_that_is_read_a_moment_after_its_weights_loses_nothing() {
    let mut it = rolled_back();
    reapply(&mut it);
    let shown = |it: &Driver| {
        it.notes.iter().any(|(_, note)| matches!(note, Note::TrafficMoved { split, .. } if split.green > 0.4))
    };
    while !shown(&it) {
        it.run(secs(1));
    }
    it.run(secs(3));
    deploy(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said()), ("watching", 0, vec![]));
}

#[test]
fn a_group_that_an_older_task_set_uses_too_is_left_to_its_deployer() {
    let mut aws = Aws::blue_and_green();
    aws.service.task_sets.push(task_set("ecs-svc/500", start().minus(secs(90_000)), TaskSetStatus::Active, "green"));
    let mut it = breached(aws, keeping());
    it.run(secs(120));
    forget(&mut it);
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said()), ("rolled_back", 0, vec![]));
}

#[test]
fn a_newer_task_set_ends_what_came_after() {
    let mut it = rolled_back();
    for _ in 0..2 {
        reapply(&mut it);
        it.run(FOUND);
    }
    assert_eq!(it.phase(), "escalated");
    deploy(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("watching", 1));
}

#[test]
fn nothing_is_put_back_where_blue_is_not_primary_any_more() {
    let mut it = rolled_back();
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said()), ("rolled_back", 0, vec![]));
}

#[test]
fn while_a_person_holds_the_service_it_is_only_said() {
    let mut it = rolled_back();
    let until = it.now.plus(secs(1200)).to_string();
    it.aws.service.tags.insert(tags::HOLD_UNTIL.to_owned(), until);
    it.aws.service.tags.insert(tags::HOLD_REASON.to_owned(), "a drill".to_owned());
    reapply(&mut it);
    it.run(secs(1100));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("rolled_back", 0));
    assert_eq!(it.said(), ["Rollback Held"]);
    let said = &it.announced[0];
    assert!(said.reason.contains("sends users to green again") && said.reason.contains("a drill"), "{}", said.reason);
    assert!(!said.dry_run);
    it.run(secs(200));
    assert_eq!(it.aws.calls(), ["ModifyRule"], "nobody holds it any more");
    assert_eq!(it.said(), ["Rollback Held", "Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_person_who_wanted_the_rollback_can_hold_what_comes_after() {
    let mut aws = Aws::blue_and_green();
    aws.service.tags.insert(tags::ROLLBACK.to_owned(), GREEN.to_owned());
    let mut it = Driver::new(aws, rule());
    it.run(secs(150));
    forget(&mut it);
    // Reopened, and held before anything could be written.
    it.aws.outcomes = [Outcome::Failed(failed(Some("ThrottlingException")))].into();
    reapply(&mut it);
    while it.aws.writes.is_empty() {
        it.run(Duration::from_millis(100));
    }
    let until = it.now.plus(secs(120)).to_string();
    it.aws.service.tags.insert(tags::HOLD_UNTIL.to_owned(), until);
    it.run(secs(100));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("rolling_back (ShiftTraffic)", 1));
    it.run(secs(60));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("rolled_back", 2));
}

#[test]
fn a_rule_that_only_observes_by_now_only_says_it() {
    let mut it = rolled_back();
    use_rule(&mut it, Rule { mode: Mode::Observe, ..rule() });
    for _ in 0..2 {
        reapply(&mut it);
        it.run(secs(600));
        clean(&mut it);
        it.run(secs(60));
    }
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said()), ("rolled_back", 0, vec!["Rollback Held"]));
    assert!(it.announced[0].dry_run && it.announced[0].reason.contains("observe"));
}

#[test]
fn a_rule_that_turns_to_observe_in_the_middle_leaves_it_where_it_is() {
    let mut it = rolled_back();
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("ThrottlingException"))), 1000).collect();
    reapply(&mut it);
    it.run(FOUND);
    use_rule(&mut it, Rule { mode: Mode::Observe, ..rule() });
    it.aws.outcomes.clear();
    let tried = it.aws.writes.len();
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("rolled_back", tried));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Held"]);
}

#[test]
fn a_dry_run_that_takes_over_only_says_it() {
    let mut it = rolled_back();
    it.settings.dry_run = true;
    it.engine = Engine::restore(it.settings, &it.engine.checkpoint().unwrap()).unwrap();
    it.feed(Input::Restarted);
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.aws.writes.len(), it.said()), (0, vec!["Rollback Held"]));
}

#[test]
fn a_kept_green_is_kept_and_loses_its_traffic_again() {
    let mut it = rolled_back_by(keeping());
    reapply(&mut it);
    it.run(FOUND);
    assert!(is_clean(&it));
    // The rule has changed its mind by now; what was kept is not deleted for that.
    use_rule(&mut it, rule());
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!(it.aws.calls(), ["ModifyRule"]);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed", "Rollback Escalated"]);
}

#[test]
fn a_kept_green_is_not_deleted_by_what_comes_after() {
    let mut it = rolled_back_by(keeping());
    use_rule(&mut it, rule());
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.calls()), ("rolled_back", vec!["ModifyRule"]));
}

#[test]
fn a_kept_green_that_a_person_promotes_is_the_persons() {
    let mut it = rolled_back_by(keeping());
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    reapply(&mut it);
    it.run(secs(600));
    assert_eq!((it.phase().as_str(), it.aws.writes.len(), it.said()), ("rolled_back", 0, vec![]));
}

#[test]
fn users_wait_on_the_wrong_group_for_a_blue_that_has_nothing_healthy() {
    let mut it = rolled_back();
    it.aws.healthy.insert(group("blue"), 0);
    reapply(&mut it);
    it.run(FOUND);
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("rolling_back (RestoreBlue)", 0));
    it.aws.healthy.insert(group("blue"), 4);
    it.run(secs(5));
    assert_eq!((it.phase().as_str(), it.aws.calls()), ("rolled_back", vec!["ModifyRule"]));
}

#[test]
fn a_rule_that_is_not_understood_any_more_calls_a_person() {
    let mut it = rolled_back();
    reapply(&mut it);
    it.aws.rules[0].unread = Some(Arc::from("the member RedirectConfig.Port2"));
    it.run(secs(600));
    assert_eq!(it.aws.writes, []);
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.aws.rules[0].unread = None;
    it.run(secs(60));
    assert!(is_clean(&it));
}

#[test]
fn the_shares_of_others_stay() {
    let mut it = rolled_back();
    it.aws.rules =
        vec![weighted("main", &[("third", 30), ("green", 50), ("blue", 20)]), weighted("theirs", &[("third", 7)])];
    it.run(FOUND);
    let expected = [("third", 30), ("green", 0), ("blue", 70), ("third", 7)];
    assert_eq!(it.aws.weights(), expected.map(|(name, weight)| (name.to_owned(), weight)));
}

#[test]
fn how_long_it_is_open_counts_from_when_it_was_opened_again() {
    let mut it = rolled_back();
    it.run(secs(7200));
    it.aws.outcomes = std::iter::repeat_n(Outcome::Failed(failed(Some("ThrottlingException"))), 1000).collect();
    reapply(&mut it);
    it.run(FOUND);
    let open_since = |it: &Driver| it.engine.service(&key(), it.now).unwrap().deployment.unwrap().open_since;
    assert!(open_since(&it).is_some_and(|at| it.now.since(at) <= FOUND));
    assert_eq!(it.said(), ["Rollback Started"], "two hours ago it was decided: that is no reason to call");
    it.run(secs(400));
    assert_eq!(it.said(), ["Rollback Started", "Rollback Escalated"]);
    it.aws.outcomes.clear();
    it.run(secs(60));
    assert_eq!(open_since(&it), None);
}

#[test]
fn a_crash_at_any_step_of_it_writes_once_and_calls_once() {
    let played = |crash_after: Option<usize>, crash_after_write: Option<usize>| {
        let mut it = breached(Aws::blue_and_green(), rule());
        it.run(secs(120));
        let before = it.steps();
        it.crash_after.extend(crash_after.map(|step| before + step));
        it.crash_after_write.extend(crash_after_write);
        forget(&mut it);
        for _ in 0..2 {
            reapply(&mut it);
            it.run(secs(120));
        }
        it.run(secs(600));
        it.aws.writes.retain(|(_, write)| matches!(write, Write::SetActions { .. }));
        let pages = it.said().iter().filter(|said| **said == "Rollback Escalated").count();
        (it.phase(), it.aws.writes.len(), pages.min(1), it.steps() - before)
    };
    let (phase, writes, pages, steps) = played(None, None);
    assert_eq!((phase.as_str(), writes, pages), ("escalated", 1, 1));
    assert!(steps > 20, "{steps}");
    for step in 1..steps.min(60) {
        let (phase, writes, pages, _) = played(Some(step), None);
        // A write that a crash kept from leaving is not made, and one that was made is not repeated.
        assert!(
            phase == "escalated" && writes <= 1 && pages == 1,
            "step {step}: {phase}, {writes} writes, {pages} pages"
        );
    }
    let (phase, writes, pages, _) = played(None, Some(1));
    assert_eq!((phase.as_str(), writes, pages), ("escalated", 1, 1));
}

#[test]
fn a_clock_that_is_set_in_between_changes_nothing() {
    for by_ms in [-3_600_000, 3_600_000] {
        let mut it = rolled_back();
        it.now = it.now.moved(by_ms);
        it.feed(Input::ClockSet { by_ms });
        let reads = it.aws.reads;
        reapply(&mut it);
        it.run(FOUND);
        assert_eq!((it.aws.calls(), it.phase().as_str()), (vec!["ModifyRule"], "rolled_back"), "by {by_ms} ms");
        assert!(it.aws.reads - reads < 20, "{} reads", it.aws.reads - reads);
    }
}

#[test]
fn a_checkpoint_from_before_loads_and_the_reassert_is_still_there() {
    let mut it = rolled_back();
    let text = String::from_utf8(it.engine.checkpoint().unwrap()).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rollback = &mut state["services"][0][1]["kept"]["deployment"]["rollback"];
    assert!(rollback.as_object_mut().unwrap().remove("after").is_some());
    let old = serde_json::to_vec(&state).unwrap();
    it.engine = Engine::restore(it.settings, &old).unwrap();
    it.feed(Input::Restarted);
    reapply(&mut it);
    it.run(FOUND);
    assert_eq!((it.aws.calls(), it.phase().as_str()), (vec!["ModifyRule"], "rolled_back"));
}

#[test]
fn a_successor_whose_clock_is_behind_does_not_wait_for_the_writes_of_its_predecessor() {
    let mut it = rolled_back();
    it.now = it.now.minus(secs(360));
    let next = it.steps() + 1;
    it.crash_after.insert(next);
    it.feed(Input::Tick);
    reapply(&mut it);
    it.run(FOUND);
    assert!(is_clean(&it), "{:?}", it.aws.weights());
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn a_rule_that_sends_users_to_a_group_that_nobody_serves_and_to_no_other_is_found() {
    let mut it = rolled_back();
    it.aws.rules.push(weighted("other", &[("green", 100)]));
    it.run(FOUND);
    assert_eq!(it.aws.calls(), ["ModifyRule"]);
    let sent: Vec<_> = it.aws.rules.iter().flat_map(TrafficRule::forwards).map(|f| f.share(&group("green"))).collect();
    assert!(sent.iter().all(|share| *share <= 0.0), "{:?}", it.aws.rules);
    assert_eq!(it.phase(), "rolled_back");
}

/// Who set the weights, as CloudTrail tells it.
fn applied_by(who: &str) -> Fact {
    let groups = [group("blue"), group("green")].iter().map(|group| Arc::from(group.dimension())).collect();
    let rule = weighted("main", &[]).id;
    let target = CallTarget::Rule { rule, groups };
    Fact::Call(ApiCall { operation: Arc::from("ModifyRule"), by: Arc::from(who), own: false, target })
}

const TERRAFORM: &str = "arn:aws:sts::111122223333:assumed-role/terraform/apply";

#[test]
fn whoever_put_the_weights_back_is_named_where_cloudtrail_tells() {
    let mut it = rolled_back();
    for _ in 0..2 {
        reapply(&mut it);
        it.run(secs(3));
        it.signal(applied_by(TERRAFORM));
        it.run(FOUND);
    }
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed", "Rollback Escalated"]);
    for said in [&it.announced[0], &it.announced[2]] {
        assert!(said.reason.contains(TERRAFORM) && said.reason.contains("ModifyRule of rule main"), "{}", said.reason);
    }
    assert!(!it.announced[1].reason.contains(TERRAFORM), "{}", it.announced[1].reason);
}

#[test]
fn a_change_that_is_heard_of_is_looked_at_without_waiting_for_the_sweep() {
    let mut it = rolled_back();
    it.run(secs(8));
    let before = it.aws.reads;
    it.signal(applied_by(TERRAFORM));
    it.run(secs(1));
    assert_eq!(it.aws.reads, before + 1);
    for _ in 0..3 {
        it.run(secs(1));
        it.signal(applied_by(TERRAFORM));
    }
    assert_eq!(it.aws.reads, before + 1, "not for each of them");
}

#[test]
fn a_name_that_comes_late_is_in_the_incident_and_calls_nobody_again() {
    let mut it = rolled_back();
    for _ in 0..2 {
        reapply(&mut it);
        it.run(FOUND);
    }
    let said = it.announced.len();
    it.signal(applied_by(TERRAFORM));
    it.signal(applied_by(TERRAFORM));
    it.run(secs(600));
    assert_eq!((it.announced.len(), tells(&it, &format!("changed by {TERRAFORM}"))), (said, 1));
}

#[test]
fn the_guardians_own_calls_name_nobody() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(2));
    assert_eq!(it.aws.calls(), ["ModifyRule"]);
    // By its time and kind; the next one by its name.
    it.signal(applied_by("arn:aws:sts::111122223333:assumed-role/guardian/worker"));
    let Fact::Call(call) = applied_by(TERRAFORM) else { unreachable!() };
    it.run(secs(200));
    it.signal(Fact::Call(ApiCall { own: true, ..call }));
    assert_eq!(tells(&it, "says CloudTrail"), 0);
    reapply(&mut it);
    it.run(FOUND);
    assert!(it.announced.iter().all(|said| !said.reason.contains("CloudTrail")), "{:?}", it.announced);
}

#[test]
fn new_listeners_are_looked_for_by_the_sweep_after_a_rollback_and_by_no_other_at_rest() {
    let swept = |it: &mut Driver| {
        it.unanswered = Some(Vec::new());
        it.run(secs(31));
        it.unanswered.take().unwrap()
    };
    let asked = swept(&mut rolled_back());
    assert!(!asked.is_empty() && asked.iter().all(|ask| ask.find_listeners && !ask.find_stopped), "{asked:?}");
    let mut graduated = Driver::new(Aws::blue_and_green(), rule());
    graduated.aws.remove(BLUE);
    graduated.aws.set(GREEN).status = TaskSetStatus::Primary;
    graduated.run(secs(60));
    assert_eq!(graduated.phase(), "graduated");
    let asked = swept(&mut graduated);
    assert!(!asked.is_empty() && asked.iter().all(|ask| !ask.find_listeners), "{asked:?}");
}

#[test]
fn a_call_that_failed_and_was_repeated_is_no_reassert() {
    let mut aws = Aws::blue_and_green();
    aws.outcomes = [Outcome::Failed(failed(None))].into();
    let mut it = breached(aws, rule());
    it.run(secs(120));
    forget(&mut it);
    reapply(&mut it);
    it.run(FOUND);
    assert!(is_clean(&it), "{:?}", it.aws.weights());
    assert_eq!(it.said(), ["Rollback Started", "Rollback Completed"]);
}

#[test]
fn the_record_of_what_is_only_said_follows_the_weights() {
    let mut it = rolled_back();
    use_rule(&mut it, Rule { mode: Mode::Observe, ..rule() });
    for _ in 0..2 {
        reapply(&mut it);
        it.run(FOUND);
        assert!(incident(&it).traffic_lost_at.is_some());
        clean(&mut it);
        it.run(FOUND);
        assert_eq!(incident(&it).traffic_lost_at, None);
    }
    assert_eq!(it.said(), ["Rollback Held"]);
}

#[test]
fn who_set_a_rule_is_not_named_for_a_promotion() {
    let mut it = breached(Aws::blue_and_green(), rule());
    it.run(secs(10));
    it.signal(applied_by(TERRAFORM));
    it.aws.set(BLUE).status = TaskSetStatus::Active;
    it.aws.set(GREEN).status = TaskSetStatus::Primary;
    it.run(secs(60));
    let last = it.announced.last().unwrap();
    assert!(last.reason.contains("made PRIMARY") && !last.reason.contains(TERRAFORM), "{}", last.reason);
}
