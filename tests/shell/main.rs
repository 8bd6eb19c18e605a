//! Deterministic simulation of the whole worker: `runtime::Worker` itself against the sandbox world, on tokio's paused
//! clock, one thread, one seed. Only the transports are made up.
//!
//! ```console
//! $ cargo test --release --test shell -- --nocapture
//! $ SHELL_SEEDS=100000 SHELL_START=0 cargo test --release --test shell -- --nocapture
//! $ SHELL_SEED=4711 cargo test --release --test shell -- --nocapture
//! ```
//!
//! The last one replays one schedule with a readable trace. `tests/simulation` plays the same schedules with the engine
//! alone, many times as fast; there, what waits and sends is told again, and here it is the real one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[allow(dead_code, reason = "the other driver watches the clock itself")]
#[path = "../simulation/driver/clock.rs"]
mod clock;
#[allow(dead_code, reason = "some faults are those of the other driver")]
#[path = "../simulation/faults.rs"]
mod faults;
mod hands;
mod judge;
mod line;
#[cfg(feature = "mutants")]
mod mutants;
mod noise;
mod play;
mod process;
#[path = "../simulation/schedule.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod schedule;
mod stage;
mod store;
#[path = "../simulation/driver/table.rs"]
mod table;
#[path = "../simulation/tales.rs"]
mod tales;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use judge::Ended;
use schedule::Schedule;

/// Schedules of a debug build: enough to notice that something is wrong.
const FEW: u64 = 100;

/// Schedules of a release build.
const MANY: u64 = 10_000;

/// Every so many schedules one is played twice: the same seed is the same schedule, to the last call.
const TWICE: u64 = 50;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The worker's own log goes between the lines of the trace.
fn replay(seed: u64) {
    tracing_subscriber::fmt().without_time().with_writer(std::io::stderr).with_env_filter("info").init();
    let schedule = Schedule::draw(seed);
    eprintln!("{schedule:#?}\n{:#?}", trouble::Trouble::draw(&schedule));
    let ended = play::play(schedule, true);
    eprintln!("{ended:#?}");
    assert!(ended.broken.iter().all(|broken| broken.race));
}

#[test]
fn the_whole_worker_keeps_its_promises() {
    if let Some(seed) = number("SHELL_SEED") {
        return replay(seed);
    }
    let count = number("SHELL_SEEDS").unwrap_or(if cfg!(debug_assertions) { FEW } else { MANY });
    let start = number("SHELL_START").unwrap_or(0);
    let (next, failed, races) = (AtomicU64::new(start), Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
    let tally = [const { AtomicU64::new(0) }; 8];
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start + count {
                        return;
                    }
                    let ended = play::play(Schedule::draw(seed), false);
                    if seed % TWICE == 0 {
                        let again = play::play(Schedule::draw(seed), false);
                        assert_eq!(again.trace, ended.trace, "seed {seed} is not deterministic");
                    }
                    let Ended { decided, completed, escalated, crashes, takeovers, shutdowns, writes, calls, .. } =
                        ended;
                    for (tally, count) in tally.iter().zip([
                        u64::from(decided),
                        u64::from(completed),
                        u64::from(escalated),
                        crashes,
                        takeovers,
                        shutdowns,
                        writes,
                        calls,
                    ]) {
                        tally.fetch_add(count, Ordering::Relaxed);
                    }
                    for broken in ended.broken {
                        let into = if broken.race { &races } else { &failed };
                        into.lock().unwrap().entry(broken.invariant).or_insert_with(Vec::new).push((seed, broken.what));
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let [decided, completed, escalated, crashes, takeovers, shutdowns, writes, calls] =
        tally.map(AtomicU64::into_inner);
    eprintln!(
        "{count} schedules in {:.1} s, {:.0} a second; {decided} decided, {completed} completed, {escalated} escalated; \
         {crashes} crashes, {takeovers} takeovers, {shutdowns} orderly ends; {writes} writes applied, {calls} calls",
        took.as_secs_f64(),
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
    );
    for (invariant, found) in races.into_inner().unwrap() {
        eprintln!("races, {invariant}: {} as in seed {} ({})", found.len(), found[0].0, found[0].1);
    }
    let failed = failed.into_inner().unwrap();
    for (invariant, found) in &failed {
        let seeds: Vec<_> = found.iter().take(8).map(|(seed, _)| seed).collect();
        eprintln!("BROKEN {invariant}: {} times, seeds {seeds:?}: {}", found.len(), found[0].1);
    }
    assert!(failed.is_empty(), "replay one with SHELL_SEED=n");
}
