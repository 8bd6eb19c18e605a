//! The detection benchmark's parts: the documented rules on their documentation's examples (beside the rules, in
//! `benches/detection/peers`), lives that are the same whenever they are drawn, and what the guardian makes of some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(unreachable_pub, missing_docs, reason = "its parts are shared with the benchmark")]

#[path = "../benches/detection/mod.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod detection;

use detection::class::{Class, SIZES};
use detection::guardian::{RULE, judge, rules};
use detection::life::{HORIZON, Life, MINUTE};
use detection::peers::peers;
use detection::run::{Plan, REPORTED, names, tune};
use taskset_guardian::model::Role;

fn handful(classes: &[Class]) -> impl Iterator<Item = Life> {
    let lives = |class: &Class| {
        let class = *class;
        SIZES.into_iter().flat_map(move |size| (0..4).map(move |seed| class.life(size, seed)))
    };
    classes.iter().flat_map(lives)
}

#[test]
fn the_same_seed_gives_the_same_life_and_the_same_verdict() {
    let rules = rules(RULE);
    for life in handful(&[Class::Flapping15, Class::SharedOutage]) {
        let again = life.class.life(life.size, life.seed);
        assert_eq!(life, again);
        assert_eq!(judge(&life, &rules, true), judge(&again, &rules, true));
    }
    assert_ne!(Class::Flapping15.life(4, 1).tasks, Class::Flapping15.life(4, 2).tasks);
}

#[test]
fn figures_do_not_depend_on_who_was_done_first() {
    let rules = rules(RULE);
    let plan =
        |threads| Plan { classes: vec![Class::Partial], sizes: vec![4], seeds: REPORTED..REPORTED + 12, threads };
    assert_eq!(plan(1).run(&rules, &peers(), &[]), plan(2).run(&rules, &peers(), &[]));
    assert_eq!(names(&peers(), true).len(), peers().len() + 2);
}

#[test]
fn a_bad_green_hurts_and_a_good_one_is_like_blue() {
    for life in handful(&Class::ALL) {
        assert_eq!(life.onset.is_some(), life.class.is_bad(), "{} {} {}", life.class, life.size, life.seed);
        let begins = life.of(Role::Green).map(|task| task.created).min();
        assert!(begins.is_some_and(|at| (0..MINUTE).contains(&at)), "green's first task is created after green");
        assert!(life.is_steady(Role::Blue, -1) || life.class == Class::NoisyService || life.size == 50);
        for task in &life.tasks {
            let moments = [Some(task.created), task.running, task.healthy, task.end.map(|end| end.at)];
            let told: Vec<_> = moments.into_iter().flatten().collect();
            assert!(told.is_sorted(), "{} {} {}: {task:?}", life.class, life.size, life.seed);
        }
    }
}

#[test]
fn what_crashes_at_its_start_is_rolled_back_at_every_size() {
    let rules = rules(RULE);
    for life in handful(&[Class::CrashAtStart]) {
        let (at, evidence) = judge(&life, &rules, false).decided.expect("a rollback");
        assert!(at < 3 * MINUTE && !evidence.is_empty(), "{at}: {evidence:?}");
    }
}

#[test]
fn one_unlucky_crash_is_no_reason_for_a_rollback() {
    let rules = rules(RULE);
    for size in SIZES {
        for seed in 0..8 {
            let life = Class::UnluckyCrash.life(size, seed);
            assert!(life.of(Role::Green).any(|task| task.end.is_some_and(|end| end.cause.is_failure())), "it crashes");
            assert_eq!(judge(&life, &rules, false).decided, None, "{size} tasks, seed {seed}");
        }
    }
}

#[test]
fn the_plain_count_is_tuned_to_no_more_false_rollbacks_than_the_guardian_has() {
    let rules = rules(RULE);
    let classes = vec![Class::UnluckyCrash, Class::SlowLeak];
    let judged = Plan { classes, sizes: vec![4], seeds: 0..2, threads: 1 }.run(&rules, &[], &[]);
    let count = tune(&judged, 4, &[Class::SlowLeak]);
    let good = judged.iter().filter(|life| life.class == Class::UnluckyCrash);
    assert!(good.clone().all(|life| count.reached(&life.failures).is_none_or(|at| at >= HORIZON)), "{count:?}");
    let bad = judged.iter().filter(|life| life.class == Class::SlowLeak);
    assert!(bad.clone().all(|life| count.reached(&life.failures).is_some()), "{count:?}");
}
