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

#[path = "simulation/driver/mod.rs"]
mod driver;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/schedule.rs"]
mod schedule;
#[path = "simulation/tales.rs"]
mod tales;

use std::sync::Mutex;

use driver::{ShellMutant, Simulation};
use schedule::Schedule;
use taskset_guardian::engine::mutants::{Mutant, take_out};

/// Schedules that a mutant may survive.
const BUDGET: u64 = 20_000;

/// A guard of the engine, or of the shell around it.
#[derive(Clone, Copy, Debug)]
enum Guard {
    Engine(Mutant),
    Shell(ShellMutant),
}

fn killed_by(guard: Guard) -> Option<(u64, String)> {
    let play = |seed| {
        let simulation = Simulation::new(Schedule::draw(seed), false);
        match guard {
            Guard::Engine(_) => simulation.run().0,
            Guard::Shell(mutant) => simulation.without(mutant).run().0,
        }
    };
    take_out(if let Guard::Engine(mutant) = guard { Some(mutant) } else { None });
    let broken = |seed| play(seed).broken.into_iter().find(|broken| !broken.race);
    let killed = (0..BUDGET).find_map(|seed| broken(seed).map(|broken| (seed, broken.invariant)));
    take_out(None);
    killed
}

#[test]
fn every_guard_that_is_taken_out_is_missed() {
    let shell = [
        ShellMutant::AcknowledgeBeforeCommit,
        ShellMutant::NoDurableIntent,
        ShellMutant::NoExpiry,
        ShellMutant::NoLeaseCheck,
    ];
    let guards = Mutant::ALL.into_iter().map(Guard::Engine).chain(shell.into_iter().map(Guard::Shell));
    let (next, found) = (Mutex::new(guards), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let draw = || next.lock().unwrap().next();
                while let Some(guard) = draw() {
                    let killed = killed_by(guard);
                    eprintln!("{guard:?}: {killed:?}");
                    found.lock().unwrap().push((killed.map(|(seed, _)| seed), format!("{guard:?}")));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort();
    let survivors: Vec<_> = found.iter().filter(|(seed, _)| seed.is_none()).map(|(_, guard)| guard.as_str()).collect();
    eprintln!(
        "{} of {} killed, median seed {:?}",
        found.len() - survivors.len(),
        found.len(),
        found[found.len() / 2].0
    );
    assert_eq!(survivors, [] as [&str; 0]);
}
