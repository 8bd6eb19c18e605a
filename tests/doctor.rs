//! What `doctor` makes of a service: every finding, with its verdict and its cure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use taskset_guardian::engine::{Check, CheckVerdict, examine, rehearse, rehearse_next};
use taskset_guardian::model::*;
use taskset_guardian::rules::{DeletePolicy, Mode, Rule};

/// The check, what it says, and what of AWS makes it say so.
type Case = (&'static str, &'static str, fn(&mut Aws));

fn seen(change: impl FnOnce(&mut Aws)) -> Observation {
    let mut aws = Aws::blue_and_green();
    aws.alarms = ["blue", "green"].map(|watched| red(&format!("{watched}-5xx"), start(), &[watched])).into();
    change(&mut aws);
    *aws.observe(start(), Ask::examination(key())).unwrap()
}

fn found(rule: &Rule, seen: &Observation, check: &str) -> Check {
    let checks = examine(rule, seen, start());
    let worst = checks.iter().filter(|found| found.check == check).max_by_key(|found| found.verdict);
    worst.unwrap_or_else(|| panic!("no {check} in {checks:#?}")).clone()
}

#[test]
fn a_sound_service_is_fine_throughout() {
    let seen = seen(|_| ());
    let checks = examine(&rule(), &seen, start());
    assert!(checks.iter().all(|check| check.verdict <= CheckVerdict::Note), "{checks:#?}");
    for check in ["controller", "rule", "traffic", "capacity", "alarms"] {
        assert_eq!(found(&rule(), &seen, check).verdict, CheckVerdict::Fine, "{check}");
    }
}

#[test]
fn every_obstacle_blocks_and_names_its_cure() {
    let unread = |aws: &mut Aws| aws.rules[0].unread = Some(Arc::from("the member RedirectConfig.Port2"));
    let changes: [Case; 5] = [
        ("controller", "not EXTERNAL", |aws| aws.service.controller = Controller::Ecs),
        ("service", "being deleted", |aws| aws.service.status = ServiceStatus::Inactive),
        ("primary", "no task set is PRIMARY", |aws| aws.set(BLUE).status = TaskSetStatus::Active),
        ("traffic", "no listener rule forwards to blue", |aws| aws.rules.clear()),
        ("traffic", "RedirectConfig.Port2", unread),
    ];
    for (check, what, change) in changes {
        let blocked = found(&rule(), &seen(change), check);
        assert_eq!(blocked.verdict, CheckVerdict::Blocks, "{blocked:?}");
        assert!(blocked.what.contains(what) && blocked.cure.is_some(), "{blocked:?}");
    }
}

#[test]
fn metrics_that_can_not_be_read_are_a_warning_that_says_what_is_lost() {
    let asked = SampleAsk { groups: [group("blue"), group("green")].into(), from: start() };
    let unread = |rule: &Rule| {
        let mut seen = seen(|_| ());
        (seen.ask.samples, seen.samples) = (Some(asked.clone()), None);
        found(rule, &seen, "metrics")
    };
    let plain = unread(&rule());
    assert!(plain.verdict == CheckVerdict::Warning && plain.cure.unwrap().contains("GetMetricData"));
    assert!(!plain.what.contains("blind"), "{}", plain.what);
    let mut gated = rule();
    gated.errors.http_5xx_ratio = Some(0.05);
    assert!(unread(&gated).what.contains("the rule's gates on traffic are blind"));
}

#[test]
fn what_will_hurt_is_a_warning_with_a_cure() {
    let changes: [Case; 6] = [
        ("capacity", "runs 1 of 4 tasks", |aws| aws.set(BLUE).running = 1),
        ("capacity", "2 healthy targets", |aws| _ = aws.healthy.insert(group("blue"), 2)),
        ("stickiness", "sticky for 1h", |aws| {
            let forward = aws.rules[0].forwards_mut().next().unwrap();
            forward.stickiness = Some(Stickiness { enabled: Some(true), duration_seconds: Some(3600) });
        }),
        ("alarms", "no alarm watches green", |aws| _ = aws.alarms.pop()),
        ("alarms", "no alarm watches the target groups", |aws| aws.alarms.clear()),
        ("task_sets", "4 task sets of the 5", |aws| {
            for id in ["ecs-svc/1", "ecs-svc/2"] {
                aws.service.task_sets.push(task_set(id, start().minus(secs(90_000)), TaskSetStatus::Draining, "blue"));
            }
        }),
    ];
    for (check, what, change) in changes {
        let warned = found(&rule(), &seen(change), check);
        assert_eq!(warned.verdict, CheckVerdict::Warning, "{warned:?}");
        assert!(warned.what.contains(what) && warned.cure.is_some(), "{warned:?}");
    }
    let mut named = rule();
    named.errors.alarms = vec![AlarmName::new("no-such")];
    assert!(found(&named, &seen(|_| ()), "alarms").what.contains("do not exist: no-such"));
    let mut blind = seen(|_| ());
    blind.alarms = None;
    assert!(found(&rule(), &blind, "alarms").what.contains("could not be read"));
    let held = seen(|aws| {
        aws.service.tags.insert(tags::HOLD_UNTIL.to_owned(), start().plus(secs(60)).to_string());
    });
    assert_eq!(found(&rule(), &held, "hold").verdict, CheckVerdict::Warning);
}

#[test]
fn what_is_good_to_know_is_a_note() {
    let observing = Rule { mode: Mode::Observe, ..rule() };
    assert_eq!(found(&observing, &seen(|_| ()), "rule").verdict, CheckVerdict::Note);
    assert!(found(&rule(), &seen(|_| ()), "deployment").what.contains("stands beside"));
    assert!(found(&rule(), &seen(|aws| aws.remove(GREEN)), "deployment").what.contains("no deployment"));
    let bare = seen(|aws| aws.service.task_sets.iter_mut().for_each(|set| set.target_group = None));
    assert!(found(&rule(), &bare, "traffic").what.contains("no load balancer"));
}

#[test]
fn where_green_is_kept_without_a_load_balancer_nobody_is_told_that_it_is_deleted() {
    let mut keep = rule();
    keep.rollback.delete = DeletePolicy::Keep;
    let bare = |aws: &mut Aws| aws.service.task_sets.iter_mut().for_each(|set| set.target_group = None);
    let contract = |aws: &mut Aws| {
        bare(aws);
        aws.set(GREEN).tags.insert(tags::CONTRACT.to_owned(), Contract::WeightsOnly.as_str().to_owned());
    };
    assert!(found(&rule(), &seen(bare), "traffic").what.contains("green is deleted"));
    for (rule, seen) in [(keep, seen(bare)), (rule(), seen(contract))] {
        let said = found(&rule, &seen, "traffic");
        assert!(said.what.contains("green is kept") && !said.what.contains("deleted"), "{said:?}");
        assert_eq!(said.verdict, CheckVerdict::Warning);
        let rehearsed = rehearse(&rule, &seen).unwrap();
        assert!(!rehearsed.completes && rehearsed.ending.contains("stop it by hand"), "{rehearsed:#?}");
    }
}

#[test]
fn a_rehearsal_tells_how_many_calls_stand_between_the_decision_and_safe_users() {
    let live = rehearse(&rule(), &seen(|_| ())).unwrap();
    assert_eq!((live.traffic_safe, live.rounds_until_safe), (Some(Duration::ZERO), 2), "{live:#?}");
    let quiet = |aws: &mut Aws| {
        aws.remove(GREEN);
        aws.rules = vec![weighted("main", &[("blue", 100), ("green", 0)])];
    };
    assert_eq!(rehearse(&rule(), &seen(quiet)), None);
    let next = rehearse_next(&rule(), &seen(quiet)).unwrap();
    assert_eq!((next.traffic_safe, next.rounds_until_safe, next.completes), (Some(Duration::ZERO), 2, true));
    assert_eq!(rehearse_next(&rule(), &seen(|_| ())), None, "the live one is what counts");
    let single = |aws: &mut Aws| {
        aws.remove(GREEN);
        aws.rules = vec![weighted("main", &[("blue", 100)])];
    };
    assert_eq!(rehearse_next(&rule(), &seen(single)), None, "nowhere for a green");
}

#[test]
fn alarms_that_could_not_be_listed_are_not_called_missing() {
    let warned = found(&rule(), &seen(|aws| aws.alarms_unlisted = true), "alarms");
    assert_eq!((warned.verdict, &*warned.what), (CheckVerdict::Warning, "the alarms could not be read"));
}
