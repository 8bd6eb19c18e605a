//! Takes the engine's guards out, one at a time. Each must be missed by the simulation within its budget.
//!
//! ```console
//! $ cargo test --release --features mutants --test mutants -- --nocapture
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    dead_code,
    reason = "a test may panic, and tell why"
)]

#[path = "simulation/driver.rs"]
mod driver;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/schedule.rs"]
mod schedule;

use std::sync::Mutex;

use driver::Simulation;
use schedule::Schedule;
use taskset_guardian::engine::mutants::{Mutant, take_out};

/// Schedules that a mutant may survive.
const BUDGET: u64 = 3000;

fn killed_by(mutant: Mutant) -> Option<(u64, String)> {
    take_out(Some(mutant));
    let killed = (0..BUDGET).find_map(|seed| {
        let (ended, _) = Simulation::new(Schedule::draw(seed), false).run();
        ended.broken.into_iter().find(|broken| !broken.race).map(|broken| (seed, broken.invariant))
    });
    take_out(None);
    killed
}

#[test]
fn every_guard_that_is_taken_out_is_missed() {
    let next = Mutex::new(Mutant::ALL.into_iter());
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let draw = || next.lock().unwrap().next();
                while let Some(mutant) = draw() {
                    let killed = killed_by(mutant);
                    eprintln!("{mutant:?}: {killed:?}");
                    found.lock().unwrap().push((killed, mutant));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    let survivors: Vec<_> = found.iter().filter(|(killed, _)| killed.is_none()).map(|(_, mutant)| *mutant).collect();
    found.sort_by_key(|(killed, _)| killed.as_ref().map(|(seed, _)| *seed));
    eprintln!(
        "{} of {} killed, median seed {:?}",
        found.len() - survivors.len(),
        found.len(),
        found[found.len() / 2].0
    );
    assert_eq!(survivors, []);
}
