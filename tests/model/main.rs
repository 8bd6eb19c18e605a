//! Two workers, one lease, one rollback: every state that they can reach, whatever goes wrong.
//!
//! The simulation draws schedules; this draws none and leaves none out, of a world that is much smaller. Its judgements of
//! time are the worker's own: `Span` and `Watched` of `runtime::lease`, on clocks that count seconds.
//!
//! | part | what may happen |
//! |---|---|
//! | lease | looked at, asked for, renewed, given back; a request or its answer is lost, and a renewal arrives late |
//! | clocks | one goes on without the other, until they are as far apart as the margin |
//! | process | dies and comes again at any point; stands still at any point, also between the last check and the call |
//! | journal | the head is claimed; a commit is applied, and answered later; that of a deposed holder is refused |
//! | AWS | a call is applied or not, at any time until it is given up; at any time at all when it was sent after a freeze |
//!
//! A process that stands still is one to which nothing happens, and one that has died is one that watches and does nothing
//! yet: both may last for as long as they like. Ages are counted up to the lease's length, epochs and beats are ranks. So
//! the states are finite, and the number of takeovers, faults and retries is not bounded.
//!
//! ```console
//! $ cargo test --release --test model -- --nocapture
//! ```
//!
//! A debug build goes no deeper than [`SHALLOW`].
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

mod changes;
mod explorer;
mod moves;
mod promises;
mod state;

use explorer::{System, explore};
use moves::{Move, Next};
use state::State;

/// Moves from the first state, for a debug build: two terms, and the second one's first call.
const SHALLOW: u32 = 26;

/// What the worker would do wrong, or what it relies on and would not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The last check before a call leaves no margin for clocks that drift.
    NoMargin,
    /// No check before a call.
    NoLastCheck,
    /// The record is old when its time stamp is, by the watcher's wall clock.
    WallClock,
    /// A renewal counts from its answer.
    CountsFromAnswer,
    /// The lease is taken whatever its record is by now.
    Unconditional,
    /// A renewal that was sent once is applied twice, the second time late.
    AppliedTwice,
    /// The lease is given back while a call is on its way.
    ReleasesEarly,
    /// One clock stands still for as long as it likes.
    ClockStandsStill,
    /// A takeover leaves the journal's head as it is.
    NoFence,
    /// A call leaves before what led to it is durable.
    ActsBeforeCommit,
    /// A successor goes on where the journal ends, without a read.
    NoReads,
}

/// The system, as it is or with a flaw.
struct Workers(Option<Flaw>);

impl System for Workers {
    type State = State;
    type Move = Move;

    fn first(&self) -> State {
        State::first()
    }

    fn moves(&self, from: &State, into: &mut Vec<(Move, State)>) {
        Next::of(from, self.0, into).all();
    }

    fn broken(&self, from: &State, by: Move, to: &State) -> Option<&'static str> {
        promises::broken(from, by, to)
    }

    fn is_fault(&self, from: &State, by: Move) -> bool {
        promises::is_fault(from, by)
    }

    fn is_goal(&self, state: &State) -> bool {
        promises::is_done(state)
    }
}

#[test]
fn every_promise_holds_in_every_state_and_from_each_the_rollback_can_be_finished() {
    let deepest = cfg!(debug_assertions).then_some(SHALLOW);
    let explored = explore(&Workers(None), deepest);
    let (states, moves, depth, took) = (explored.states, explored.moves, explored.depth, explored.took);
    eprintln!("{states} states, {moves} moves, up to {depth} from the first, in {took:.1?}");
    if let Some((promise, trace)) = explored.broken {
        panic!("{promise}, {} moves from the first state:\n{}", trace.len(), trace.join("\n"));
    }
    if let Some(trace) = explored.stuck {
        panic!("the rollback can't be finished any more, {} moves from the first:\n{}", trace.len(), trace.join("\n"));
    }
}

#[test]
fn without_any_of_its_guards_a_promise_is_broken() {
    let guards = [
        (Flaw::NoMargin, promises::OVER_IN_TIME),
        (Flaw::NoLastCheck, promises::STARTS_IN_TIME),
        (Flaw::WallClock, promises::ONE_LEADS),
        (Flaw::CountsFromAnswer, promises::ONE_LEADS),
        (Flaw::Unconditional, promises::ONE_LEADS),
        (Flaw::AppliedTwice, promises::ONE_LEADS),
        (Flaw::ReleasesEarly, promises::OVER_IN_TIME),
        (Flaw::ClockStandsStill, promises::ONE_LEADS),
        (Flaw::NoFence, promises::FENCE),
        (Flaw::ActsBeforeCommit, promises::DURABLE_FIRST),
        (Flaw::NoReads, promises::READS_FIRST),
    ];
    for (flaw, expected) in guards {
        let explored = explore(&Workers(Some(flaw)), None);
        let Some((promise, trace)) = explored.broken else { panic!("{flaw:?} breaks nothing") };
        eprintln!("{flaw:?}, after {} moves, in {} states: {promise}", trace.len(), explored.states);
        assert_eq!(promise, expected, "{flaw:?}:\n{}", trace.join("\n"));
    }
}
