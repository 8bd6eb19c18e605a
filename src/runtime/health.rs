//! Is the worker alive, and is it ready? Each part holds its own latch and says why it is open.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::Timestamp;

/// The loop turns at least every [`Health::BEAT`]; missing six turns is no hiccup any more.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// No event yet.
const NEVER: i64 = i64::MIN;

/// Not begun: nothing to be late for.
const NO_TURN: u64 = u64::MAX;

/// What must work before the worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Rule files are in force.
    Rules,
    /// A receive from the queue succeeded.
    Queue,
    /// The protected services were listed.
    Sweep,
    /// The journal takes what it is given.
    Journal,
    /// This replica is the one that acts.
    Leader,
}

impl Part {
    /// All of them, in the order shown.
    pub const ALL: [Self; 5] = [Self::Rules, Self::Queue, Self::Sweep, Self::Journal, Self::Leader];

    /// The word used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Queue => "queue",
            Self::Sweep => "sweep",
            Self::Journal => "journal",
            Self::Leader => "leader",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Rules => 0,
            Self::Queue => 1,
            Self::Sweep => 2,
            Self::Journal => 3,
            Self::Leader => 4,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Liveness and readiness of one worker.
#[derive(Debug)]
pub struct Health {
    /// Per part why it is not ready; `None` when it is.
    parts: Mutex<[Option<String>; Part::ALL.len()]>,
    /// In milliseconds, by the clock that nobody sets.
    last_turn: AtomicU64,
    last_event: AtomicI64,
}

/// Why nothing is ready at the beginning.
fn not_yet() -> [Option<String>; Part::ALL.len()] {
    Part::ALL.map(|part| {
        Some(match part {
            Part::Rules => "not loaded yet".to_owned(),
            Part::Queue => "no receive succeeded yet".to_owned(),
            Part::Sweep => "the first sweep is not done yet".to_owned(),
            Part::Journal => "not read yet".to_owned(),
            Part::Leader => "standby: the lease is not read yet".to_owned(),
        })
    })
}

impl Default for Health {
    fn default() -> Self {
        Self { parts: Mutex::new(not_yet()), last_turn: AtomicU64::new(NO_TURN), last_event: AtomicI64::new(NEVER) }
    }
}

impl Health {
    /// How often the loop turns when nothing happens.
    pub const BEAT: Duration = Duration::from_secs(5);

    /// Sets a part ready, or not with the reason. Returns true when that is news, so that it is logged once.
    pub fn set(&self, part: Part, state: Result<(), String>) -> bool {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let latch = &mut parts[part.index()];
        let state = state.err();
        let news = *latch != state;
        *latch = state;
        news
    }

    /// Nothing is ready any more: this replica does not act.
    pub(crate) fn stand_by(&self) {
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = not_yet();
    }

    /// Whether a part is ready.
    pub fn is_ready(&self, part: Part) -> bool {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)[part.index()].is_none()
    }

    /// Parts that are not ready, with the reason. Empty: ready.
    pub fn missing(&self) -> Vec<(Part, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        Part::ALL.into_iter().filter_map(|part| Some((part, parts[part.index()].clone()?))).collect()
    }

    /// The loop turned; `elapsed` is by the clock that nobody sets, as everywhere here.
    pub fn turned(&self, elapsed: Duration) {
        self.last_turn.store(millis(elapsed), Ordering::Relaxed);
    }

    /// How long the loop has been standing, when that is too long.
    pub fn stuck_for(&self, elapsed: Duration) -> Option<Duration> {
        let last = self.last_turn.load(Ordering::Relaxed);
        let standing = Duration::from_millis(millis(elapsed).saturating_sub(last));
        (last != NO_TURN && standing > STUCK_AFTER).then_some(standing)
    }

    /// An event that AWS dates `at` was received.
    pub fn event(&self, at: Timestamp) {
        self.last_event.fetch_max(at.as_millis(), Ordering::Relaxed);
    }

    /// The newest time that AWS gave in an event.
    pub fn last_event(&self) -> Option<Timestamp> {
        let last = self.last_event.load(Ordering::Relaxed);
        (last != NEVER).then(|| Timestamp::from_millis(last))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_news_once() {
        let health = Health::default();
        assert_eq!(health.missing().len(), Part::ALL.len(), "nothing is ready at first");
        assert!(health.set(Part::Queue, Ok(())));
        assert!(!health.set(Part::Queue, Ok(())));
        assert!(health.set(Part::Queue, Err("denied".into())));
        assert!(!health.set(Part::Queue, Err("denied".into())));
        assert!(health.missing().contains(&(Part::Queue, "denied".into())));
        for part in Part::ALL {
            health.set(part, Ok(()));
        }
        assert_eq!(health.missing(), []);
    }

    #[test]
    fn a_loop_that_stands_is_noticed_but_not_before_it_began() {
        let health = Health::default();
        let [begin, later, too_late] = [1_000, 1_030, 1_031].map(Duration::from_secs);
        assert_eq!(health.stuck_for(begin), None);
        health.turned(begin);
        assert_eq!(health.stuck_for(later), None);
        assert_eq!(health.stuck_for(too_late), Some(Duration::from_secs(31)));
    }
}
