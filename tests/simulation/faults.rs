//! What goes wrong in one schedule. Every rate is drawn for itself, and most are zero in any one schedule, so that some
//! schedules have no fault at all and some have one alone.

use std::time::Duration;

use fastrand::Rng;

/// Rates are chances from 0 to 1 for each occasion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// The process dies with a step's input not yet durable,
    pub(crate) crash_before_commit: f64,
    /// or durable and its effects not begun,
    pub(crate) crash_after_commit: f64,
    /// or with a write applied and its answer lost.
    pub(crate) crash_after_apply: f64,
    /// It is dead for at most so long.
    pub(crate) dead: Duration,
    /// The process stands still between the last check of a write and its sending, or at a step.
    pub(crate) pause: f64,
    /// At most so long.
    pub(crate) paused: Duration,
    /// A call fails and is not applied,
    pub(crate) throttled: f64,
    /// or fails with a 5xx before it is applied,
    pub(crate) failed_before: f64,
    /// or after.
    pub(crate) failed_after: f64,
    /// Writes are refused for want of permission, until this long after the beginning.
    pub(crate) denied_until: Duration,
    /// Nothing answers in this span after the beginning.
    pub(crate) outage: (Duration, Duration),
    /// A read of ECS shows what the one before showed.
    pub(crate) stale_read: f64,
    /// An event is lost,
    pub(crate) lost_event: f64,
    /// or its message is received again after it was handled.
    pub(crate) repeated_event: f64,
    /// Forged, old or foreign events, so many.
    pub(crate) noise: u32,
    /// Latency of a call, at most.
    pub(crate) latency: Duration,
    /// Somebody acts between our read and our write.
    pub(crate) meddling: f64,
}

fn seconds(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(0..=most * 1000))
}

impl Faults {
    /// Draws.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // Two schedules in three have any one kind of fault not at all.
        let rate = |rng: &mut Rng, most: f64| if rng.u8(0..3) == 0 { rng.f64() * most } else { 0.0 };
        let sometimes = |rng: &mut Rng, most: u64| if rng.u8(0..6) == 0 { seconds(rng, most) } else { Duration::ZERO };
        let outage_at = seconds(rng, 120);
        Self {
            crash_before_commit: rate(rng, 0.03),
            crash_after_commit: rate(rng, 0.03),
            crash_after_apply: rate(rng, 0.3),
            dead: seconds(rng, 40),
            pause: rate(rng, 0.02),
            paused: seconds(rng, 90),
            throttled: rate(rng, 0.3),
            failed_before: rate(rng, 0.2),
            failed_after: rate(rng, 0.3),
            denied_until: sometimes(rng, 150),
            outage: (outage_at, outage_at + sometimes(rng, 100)),
            stale_read: rate(rng, 0.3),
            lost_event: rate(rng, 1.0),
            repeated_event: rate(rng, 0.3),
            noise: if rng.bool() { rng.u32(0..20) } else { 0 },
            latency: Duration::from_millis(rng.u64(5..500)),
            meddling: rate(rng, 0.3),
        }
    }
}
