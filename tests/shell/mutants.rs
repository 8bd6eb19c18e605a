//! Takes the shell's guards out, one at a time. Each must be missed within a few schedules.
//!
//! ```console
//! $ cargo test --release --features mutants --test shell -- --nocapture
//! ```

use taskset_guardian::runtime::mutants::{Mutant, take_out};

use crate::play::play;
use crate::schedule::Schedule;

/// Schedules that a mutant may survive.
const BUDGET: u64 = 3_000;

#[test]
fn every_guard_of_the_shell_that_is_taken_out_is_missed() {
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        take_out(Some(mutant));
        let broken = |seed| play(Schedule::draw(seed), false).broken.into_iter().find(|broken| !broken.race);
        let killed = (0..BUDGET).find_map(|seed| broken(seed).map(|broken| (seed, broken.invariant, broken.what)));
        take_out(None);
        eprintln!("{mutant:?}: {killed:?}");
        if killed.is_none() {
            survivors.push(mutant);
        }
    }
    assert_eq!(survivors, []);
}
