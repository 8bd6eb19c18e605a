//! The two judgements on which a lease rests, each on one process's own monotonic clock `I`. The shell in `leader` makes
//! them on the process's clock, the simulation on a virtual one.

use std::ops::Add;
use std::time::Duration;

use crate::ports::Tenure;

/// How long the holder may act after a renewal. Three renewals may fail in a row, and a write that takes its full
/// [`WRITE_WITHIN`] still begins at any moment between two that succeed: 3 s to the next renewal, 1 s until it is
/// answered, 5 s for the write and 1 s of margin are 10 s. A takeover comes 7 to 11 s after the holder has died.
pub const LENGTH: Duration = Duration::from_secs(10);

/// How often the holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How often a watcher looks. A takeover is late by at most as much; a read a second is a dollar or two a month.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The holder stops acting when less than this is left: two clocks that drift apart by 1 % are 0.1 s apart after 10 s,
/// and a stop takes a moment.
pub const MARGIN: Duration = Duration::from_secs(1);

/// A mutating call is given up after this: the time-out of its one attempt.
pub const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// How long a holder may act.
#[derive(Clone, Copy, Debug)]
pub struct Span<I> {
    until: I,
}

impl<I: Copy + Ord + Add<Duration, Output = I>> Span<I> {
    /// From a renewal that succeeded, counted from before it was asked for.
    pub fn renewed(asked: I) -> Self {
        Self { until: asked + LENGTH }
    }

    /// Whether something that may take as long can begin now and is over, with [`MARGIN`] to spare, before anybody else
    /// may act.
    pub fn has_room_for(&self, now: I, duration: Duration) -> bool {
        now + duration + MARGIN <= self.until
    }

    /// When it ends for the record.
    pub fn until(&self) -> I {
        self.until
    }
}

/// What a watcher has seen, and since when.
#[derive(Clone, Debug)]
pub struct Watched<I> {
    /// The record of the lease; `None` when nobody ever had it.
    pub record: Option<Tenure>,
    /// When the first look that found it so was answered.
    pub since: I,
}

impl<I: Copy + Ord + Add<Duration, Output = I>> Watched<I> {
    /// A look was answered: the watch begins anew if the record is another than before.
    pub fn look(before: Option<Self>, record: Option<Tenure>, seen: I) -> Self {
        match before {
            Some(watched) if watched.record == record => watched,
            _ => Self { record, since: seen },
        }
    }

    /// When it may be taken over, if it does not change.
    pub fn free_at(&self) -> I {
        match &self.record {
            Some(tenure) if !tenure.released => self.since + tenure.length,
            _ => self.since,
        }
    }
}
