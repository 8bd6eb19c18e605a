//! Guards that a test can take out, one at a time, to see that the simulation misses them. Without the feature `mutants`
//! all of them are always in.

/// A guard that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Green is deleted without a look at who is PRIMARY.
    NoPrimaryCheck,
    /// One read is enough for a delete.
    SingleReadDelete,
    /// Traffic is shifted onto any blue, and green deleted beside any.
    NoBlueCheck,
    /// Green is deleted as soon as the traffic is safe.
    NoDrain,
    /// A later shift does not start the drain anew.
    DrainNotRestarted,
    /// Failures count however long ago they were.
    NoFreshness,
    /// A task counts as often as events told of it.
    NoDedup,
    /// What events claim counts, whatever ECS says.
    EventsDecide,
    /// A newer task set changes nothing.
    NoSupersede,
    /// Nor does a person who promotes green.
    PromotionForcedThrough,
    /// A foreign writer is fought for ever.
    NoForeignLimit,
    /// What the rollback has spent on a foreign writer is forgotten once it is done.
    ReassertForgotten,
    /// One rule that was shifted stands for all.
    OneRuleStandsForAll,
    /// Reads are acted on however old they are.
    OldReads,
    /// A green that was decided on may be decided on again.
    DecideAgain,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::NoPrimaryCheck,
        Self::SingleReadDelete,
        Self::NoBlueCheck,
        Self::NoDrain,
        Self::DrainNotRestarted,
        Self::NoFreshness,
        Self::NoDedup,
        Self::EventsDecide,
        Self::NoSupersede,
        Self::PromotionForcedThrough,
        Self::NoForeignLimit,
        Self::ReassertForgotten,
        Self::OneRuleStandsForAll,
        Self::OldReads,
        Self::DecideAgain,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static MISSING: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From now on engines on this thread miss this guard.
    pub fn take_out(mutant: Option<Mutant>) {
        MISSING.set(mutant);
    }

    /// Whether the guard is missing.
    pub(in crate::engine) fn without(mutant: Mutant) -> bool {
        MISSING.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::take_out;
#[cfg(feature = "mutants")]
pub(super) use switch::without;

/// Whether the guard is missing. It is not.
#[cfg(not(feature = "mutants"))]
pub(super) const fn without(_: Mutant) -> bool {
    false
}
