//! The clocks of one machine: the wall clock, which may be wrong, jump and run fast or slow, and the monotonic one, which
//! only does the last.

use std::time::Duration;

use taskset_guardian::model::Timestamp;
use taskset_guardian::runtime::WallClockWatch;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Timestamp,
    /// Seconds that it gains each second.
    rate: f64,
    /// How far the wall clock is ahead of where it would be without jumps.
    ahead_ms: i64,
}

impl Clock {
    pub(super) fn new(began: Timestamp, rate: f64, ahead_ms: i64) -> Self {
        Self { began, rate, ahead_ms }
    }

    /// Since some beginning, on this machine.
    pub(super) fn monotonic(&self, now: Timestamp) -> Duration {
        now.since(self.began).mul_f64(1.0 + self.rate)
    }

    /// As this machine shows it.
    pub(super) fn wall(&self, now: Timestamp) -> Timestamp {
        let straight = self.began.plus(self.monotonic(now));
        Timestamp::from_millis(straight.as_millis() + self.ahead_ms)
    }

    /// For whoever wants to notice a jump.
    pub(super) fn watch(&self, now: Timestamp) -> WallClockWatch {
        WallClockWatch::new(self.wall(now), self.monotonic(now))
    }

    pub(super) fn jump(&mut self, by_ms: i64) {
        self.ahead_ms += by_ms;
    }

    /// Somebody sets the wall clock right.
    pub(super) fn set_right(&mut self, now: Timestamp) {
        self.ahead_ms = now.as_millis() - self.began.plus(self.monotonic(now)).as_millis();
    }
}
