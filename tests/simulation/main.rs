//! Deterministic simulation: the engine and its effects against the sandbox world, on virtual time, one thread, one seed.
//!
//! ```console
//! $ cargo test --release --test simulation -- --nocapture
//! $ SIM_SEEDS=1000000 SIM_START=0 cargo test --release --test simulation -- --nocapture
//! $ SIM_SEED=4711 cargo test --release --test simulation -- --nocapture
//! ```
//!
//! The last one replays one schedule with a readable trace.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[allow(dead_code, reason = "mutants use all of it")]
mod driver;
mod faults;
mod schedule;
mod tales;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use driver::{Ended, Simulation};
use schedule::Schedule;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Schedules of a debug build: enough to notice that something is wrong.
const FEW: u64 = 300;

/// Schedules of a release build.
const MANY: u64 = 100_000;

/// Schedules of these draws that once broke something, here or in what judges it; the name says what. Other draws give other
/// schedules, so what was the guardian's fault is told by itself too, in `tests/found.rs` or beside the code that was wrong.
const FOUND: &[(u64, &str)] = &[
    (
        568_260,
        "a clock was set forward before a read and back after it, and nobody looked in between: the read looked fresh",
    ),
    (876_866, "the same, and users were sent to a blue that had lost a task"),
    (586_903, "an older green became the candidate again just as the schedule ended"),
    (674_007, "the same, with two workers"),
    (502_572, "a call of one rollback was applied as the next deployment began, and counted as that one's first"),
    (609_669, "the same"),
    (3_452_622, "the newest was PRIMARY, and blue was a candidate on the spare target group"),
    (4_083_661, "the same, after the service was created anew"),
    (4_589_322, "a shift of a process that had died was applied while its successor waited for green to drain"),
    (2_398, "two answers of a replica that lags, brought close together by an event, dropped an open rollback"),
    (575_374, "services that lost their tag counted no longer for the fleet brake, which let go"),
    (607_364, "the same"),
    (625_147, "nobody was PRIMARY for a moment, and what users were given back was put on trial"),
    (33_380, "the answer to a re-assert was lost, and the next rule was undone when a read had shown it"),
    (16_007, "a rollback of a green was finished beside an older one whose contract allows none"),
    (19_367, "a person wanted a green rolled back that had taken over"),
    (40_650, "the fleet brake counts breaches, and the judge counted calls"),
    (646_858, "a read that lags showed a service that was deleted"),
    (1_179_826, "two such answers were taken long after one another, since the journal hung"),
    (1_374_714, "a worker took over in the last moment, and was judged before its first read"),
    (2_667_931, "one tale took out of the script that people take all of it back, and the fleet did not recover"),
    (3_064_601, "the same"),
    (6_522_033, "a re-assert looked as if it had just been made to a worker whose clock was behind"),
    (1_635_278, "beside a third task set the world's green was blue, and lost a task after a lagging read"),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn play(seed: u64) -> Ended {
    Simulation::new(Schedule::draw(seed), false).run().0
}

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let schedule = Schedule::draw(seed);
        eprintln!("{schedule:#?}");
        let (ended, story) = Simulation::new(schedule, true).run();
        eprintln!("{}\n{ended:#?}", story.join("\n"));
        assert!(ended.broken.iter().all(|broken| broken.race));
        return;
    }
    let count = number("SIM_SEEDS").unwrap_or(if cfg!(debug_assertions) { FEW } else { MANY });
    let start = number("SIM_START").unwrap_or(0);
    let (next, failed, races) = (AtomicU64::new(start), Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
    let (writes, tally) = (AtomicU64::new(0), [const { AtomicU64::new(0) }; 5]);
    let lasted = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start + count {
                        return;
                    }
                    let schedule = Schedule::draw(seed);
                    let undisturbed = schedule.faults.leave_reads_fresh() && schedule.setup.lag.is_zero();
                    let ended = Simulation::new(schedule, false).run().0;
                    writes.fetch_add(u64::from(ended.writes), Ordering::Relaxed);
                    lasted.fetch_add(ended.lasted.as_secs(), Ordering::Relaxed);
                    // A hundredth is played twice: the same seed is the same schedule.
                    if seed % 100 == 0 {
                        assert_eq!(play(seed).trace, ended.trace, "seed {seed} is not deterministic");
                    }
                    for (tally, count) in tally.iter().zip([
                        ended.decided,
                        ended.completed,
                        ended.escalated,
                        ended.crashes > 0,
                        ended.takeovers > 1,
                    ]) {
                        tally.fetch_add(u64::from(count), Ordering::Relaxed);
                    }
                    for broken in ended.broken {
                        let into = if broken.race { &races } else { &failed };
                        let found = (seed, broken.what, undisturbed);
                        into.lock().unwrap().entry(broken.invariant).or_insert_with(Vec::new).push(found);
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let [decided, completed, escalated, crashed, taken_over] = tally.map(AtomicU64::into_inner);
    eprintln!(
        "{count} schedules of {} hours in {:.1} s, {:.0} a second; {} writes, {decided} decided, {completed} completed, {escalated} escalated, {crashed} \
         crashed, {taken_over} taken over",
        lasted.into_inner() / 3600,
        took.as_secs_f64(),
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        writes.into_inner(),
    );
    for (invariant, found) in races.into_inner().unwrap() {
        let undisturbed = found.iter().filter(|(_, _, undisturbed)| *undisturbed).count();
        let (seed, what, _) = &found[0];
        eprintln!("races, {invariant}: {}, undisturbed {undisturbed}, as in seed {seed} ({what})", found.len());
    }
    let failed = failed.into_inner().unwrap();
    for (invariant, found) in &failed {
        let seeds: Vec<_> = found.iter().take(8).map(|(seed, ..)| seed).collect();
        eprintln!("BROKEN {invariant}: {} times, seeds {seeds:?}: {}", found.len(), found[0].1);
    }
    assert!(failed.is_empty(), "replay one with SIM_SEED=n");
}

#[test]
fn what_was_found_stays_mended() {
    for (seed, what) in FOUND {
        let broken: Vec<_> = play(*seed).broken.into_iter().filter(|broken| !broken.race).collect();
        assert!(broken.is_empty(), "{what} (seed {seed}): {broken:?}");
    }
}
