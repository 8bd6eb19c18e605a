//! Guards of the shell that a test can take out, one at a time, to see that `tests/shell` misses them. Without the feature
//! `mutants` all of them are always in.

/// A guard that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A message is deleted before its signal is durable.
    AcknowledgeBeforeCommit,
    /// Effects begin before what they follow from is durable.
    EffectsBeforeCommit,
    /// A write is sent however long it waited.
    NoExpiry,
    /// A write is sent however little is left of the lease.
    NoLeaseCheck,
    /// An end in order takes as long as it takes.
    NoEndInTime,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AcknowledgeBeforeCommit,
        Self::EffectsBeforeCommit,
        Self::NoExpiry,
        Self::NoLeaseCheck,
        Self::NoEndInTime,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static MISSING: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From now on workers whose runtime is on this thread alone miss this guard.
    pub fn take_out(mutant: Option<Mutant>) {
        MISSING.set(mutant);
    }

    /// Whether the guard is missing.
    pub(in crate::runtime) fn without(mutant: Mutant) -> bool {
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
