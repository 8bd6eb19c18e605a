//! What goes wrong in one schedule. Every rate is drawn for itself, and most are zero in any one schedule, so that some
//! schedules have no fault at all and some have one alone.

use std::time::Duration;

use fastrand::Rng;

/// From, until; after the beginning.
pub(crate) type Span = (Duration, Duration);

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

    /// A commit takes so long at most.
    pub(crate) commit: Duration,
    /// A change of the journal's table does not arrive,
    pub(crate) commit_lost: f64,
    /// or is made and its answer is lost,
    pub(crate) commit_unanswered: f64,
    /// or is torn.
    pub(crate) commit_torn: f64,
    /// The journal takes nothing.
    pub(crate) full: Span,
    /// When all processes are dead, the journal is gone.
    pub(crate) journal_gone: f64,
    /// A worker is cut off from the table.
    pub(crate) cut: Vec<(usize, Span)>,
    /// A renewal of the lease gets no answer.
    pub(crate) renewal_lost: f64,
    /// Of each worker.
    pub(crate) clocks: [ClockFault; 2],
    /// When whose wall clock jumps, by how many milliseconds.
    pub(crate) jumps: Vec<(Duration, usize, i64)>,

    /// A call fails and is not applied,
    pub(crate) throttled: f64,
    /// or fails with a 5xx before it is applied,
    pub(crate) failed_before: f64,
    /// or after.
    pub(crate) failed_after: f64,
    /// A write takes seconds to arrive.
    pub(crate) slow: f64,
    /// A write waits for room before it is sent.
    pub(crate) crowd: f64,
    /// Writes are refused for want of permission,
    pub(crate) writes_denied: Span,
    /// or reads.
    pub(crate) reads_denied: Span,
    /// Nothing of AWS answers.
    pub(crate) outage: Span,
    /// A read of ECS shows what the one before showed.
    pub(crate) stale_read: f64,
    /// A replica does not know the service at all, for a while: that a read begins it.
    pub(crate) missing: f64,
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

/// What is wrong with a worker's clocks from the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockFault {
    /// Seconds gained each second, of both.
    pub(crate) rate: f64,
    /// Of the wall clock.
    pub(crate) ahead_ms: i64,
}

impl ClockFault {
    /// A quartz drifts by a hundredth of this; a virtual machine's clock, badly kept, by as much.
    const FASTEST: f64 = 0.001;

    fn draw(rng: &mut Rng) -> Self {
        let rate = if rng.u8(0..3) == 0 { (rng.f64() * 2.0 - 1.0) * Self::FASTEST } else { 0.0 };
        let ahead_ms = if rng.u8(0..4) == 0 { rng.i64(-30_000..=30_000) } else { 0 };
        Self { rate, ahead_ms }
    }
}

/// Up to five minutes in either direction.
fn jumps(rng: &mut Rng, workers: usize, calm: u64) -> Vec<(Duration, usize, i64)> {
    let count = if rng.u8(0..4) == 0 { rng.u8(1..=3) } else { 0 };
    (0..count).map(|_| (seconds(rng, calm), rng.usize(0..workers), rng.i64(-300_000..=300_000))).collect()
}

fn seconds(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(0..=most * 1000))
}

impl Faults {
    /// Nobody acts between our read and our write on purpose, reads do not lag, calls are quick, and the process does not
    /// stand still: what is left is chance within a fraction of a second.
    pub(crate) fn leave_reads_fresh(&self) -> bool {
        [self.meddling, self.stale_read, self.slow, self.crowd, self.pause].iter().all(|rate| *rate <= 0.0)
    }

    /// Draws, for so many workers: what begins before `calm_at`. A process is dead for at most `most`, anything else is out of
    /// order for twice as long.
    pub(crate) fn draw(rng: &mut Rng, workers: usize, calm_at: Duration, most: Duration) -> Self {
        // Two schedules in three have any one kind of fault not at all.
        let rate = |rng: &mut Rng, most: f64| if rng.u8(0..3) == 0 { rng.f64() * most } else { 0.0 };
        let (calm, most) = (calm_at.as_secs(), most.as_secs());
        let span = |rng: &mut Rng, one_in: u8| {
            let from = seconds(rng, calm);
            let lasts = Duration::from_millis(rng.u64(1000..=2 * most * 1000));
            if rng.u8(0..one_in) == 0 { (from, from + lasts) } else { Span::default() }
        };
        let outage = span(rng, 6);
        let cut = (0..workers).map(|who| (who, if workers > 1 { span(rng, 2) } else { Span::default() })).collect();
        Self {
            crash_before_commit: rate(rng, 0.08),
            crash_after_commit: rate(rng, 0.08),
            crash_after_apply: rate(rng, 0.5),
            dead: seconds(rng, most),
            pause: rate(rng, 0.06),
            paused: seconds(rng, 90),
            commit: if rng.bool() { Duration::ZERO } else { Duration::from_millis(rng.u64(1..=100)) },
            commit_lost: rate(rng, 0.1),
            commit_unanswered: rate(rng, 0.1),
            commit_torn: rate(rng, 0.1),
            full: span(rng, 6),
            journal_gone: rate(rng, 0.5),
            cut,
            renewal_lost: rate(rng, 0.5),
            clocks: [ClockFault::draw(rng), ClockFault::draw(rng)],
            jumps: jumps(rng, workers, calm),
            throttled: rate(rng, 0.3),
            failed_before: rate(rng, 0.2),
            failed_after: rate(rng, 0.3),
            slow: rate(rng, 0.2),
            crowd: rate(rng, 0.5),
            writes_denied: span(rng, 6),
            reads_denied: span(rng, 6),
            outage,
            stale_read: rate(rng, 0.6),
            missing: 0.0,
            lost_event: rate(rng, 1.0),
            repeated_event: rate(rng, 0.3),
            noise: if rng.bool() { rng.u32(0..30) } else { 0 },
            latency: Duration::from_millis(rng.u64(5..500)),
            meddling: rate(rng, 0.5),
        }
    }
}
