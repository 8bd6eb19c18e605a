//! What goes wrong beside the faults of a schedule: only a whole worker can be stopped in order, be left without an answer,
//! or fail to delete a message.

use std::time::Duration;

use fastrand::Rng;

use crate::faults::Span;
use crate::schedule::Schedule;

/// Drawn from a stream of its own, so that the schedule stays the one that `tests/simulation` plays under the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// Long polls at once.
    pub(crate) receivers: usize,
    /// A worker that has no rivals: it runs without a lease.
    pub(crate) owns_journal: bool,
    /// A call, or its answer, is lost without a word.
    pub(crate) unanswered: f64,
    /// A write arrives after its sender has given it up.
    pub(crate) late: f64,
    /// A message is not deleted, and its entry in the answer says so.
    pub(crate) undeleted: f64,
    /// So many messages can't be read.
    pub(crate) poison: u32,
    /// When whose process is killed.
    pub(crate) kills: Vec<(Duration, usize)>,
    /// When whose process is told to end.
    pub(crate) ends: Vec<(Duration, usize)>,
    /// The rule files are bad.
    pub(crate) bad_rules: Span,
}

impl Trouble {
    /// Draws.
    pub(crate) fn draw(schedule: &Schedule) -> Self {
        let mut rng = Rng::with_seed(schedule.seed ^ 0x5be1_1f0e_0d1c);
        let rate = |rng: &mut Rng, most: f64| if rng.u8(0..3) == 0 { rng.f64() * most } else { 0.0 };
        let calm = u64::try_from(schedule.calm_at.as_millis()).unwrap();
        let moment = |rng: &mut Rng| Duration::from_millis(rng.u64(0..calm));
        let moments = |rng: &mut Rng| {
            let count = if rng.u8(0..3) == 0 { rng.u8(1..=2) } else { 0 };
            (0..count).map(|_| (moment(rng), rng.usize(0..schedule.workers))).collect()
        };
        let from = moment(&mut rng);
        let bad = Duration::from_secs(rng.u64(1..=60));
        Self {
            receivers: rng.usize(1..=2),
            owns_journal: schedule.workers == 1 && rng.bool(),
            unanswered: rate(&mut rng, 0.1),
            late: rate(&mut rng, 0.2),
            undeleted: rate(&mut rng, 0.5),
            poison: if rng.u8(0..3) == 0 { rng.u32(1..=5) } else { 0 },
            kills: moments(&mut rng),
            ends: moments(&mut rng),
            bad_rules: if rng.u8(0..8) == 0 { (from, from + bad) } else { Span::default() },
        }
    }
}
