//! The pace of calls: an account may read Elastic Load Balancing ten times a second and services of ECS twenty times, and its
//! deployers do so too. What comes faster waits here, in the order of its urgency, because what AWS throttles is lost, and is
//! asked for again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::Urgency;

/// So many calls may go at once after a pause: the smallest of AWS's buckets.
const BURST: u32 = 40;

/// Calls of the burst that are left to what is more urgent.
const fn left_by(urgency: Urgency) -> u32 {
    match urgency {
        Urgency::Routine | Urgency::Deployed | Urgency::Plan => BURST / 2,
        Urgency::Traffic => 0,
    }
}

/// Sweeps over many deployments, or many rollbacks that wait for green to go, can take all the turns that there are, every time.
/// They must not starve each other, so they share a lane, each with as many reads in it as may be made at once.
const fn lane(urgency: Urgency) -> usize {
    match urgency {
        Urgency::Routine | Urgency::Deployed | Urgency::Plan => 0,
        Urgency::Traffic => 1,
    }
}

/// Gives calls their turns: of those that wait, the most urgent first, and of these the first that came.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Between two calls; zero means that nobody waits.
    gap: Duration,
    /// When the bucket will be full if nobody calls: ahead of now by a gap for each call that it lacks.
    full_at: Mutex<Option<Instant>>,
    lanes: [Lane; 2],
    /// Somebody does not wait any more.
    left: Notify,
}

/// Calls of one urgency.
#[derive(Debug, Default)]
struct Lane {
    waiting: AtomicUsize,
    /// Whoever has it is next.
    front: tokio::sync::Mutex<()>,
}

/// A place in a lane. Who gives up leaves it, and takes nobody's turn.
struct Place<'a> {
    pace: &'a Pace,
    urgency: Urgency,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pace.lane(self.urgency).waiting.fetch_sub(1, Ordering::SeqCst);
        self.pace.left.notify_waiters();
    }
}

impl Pace {
    /// So many calls a second. AWS counts the account's; more than one worker have to share.
    pub(super) fn new(per_second: u16) -> Self {
        Self { gap: Duration::from_secs(1) / u32::from(per_second.max(1)), ..Self::default() }
    }

    /// Waits until the next call may go.
    pub(super) async fn turn(&self, urgency: Urgency) {
        if self.gap.is_zero() {
            return;
        }
        self.lane(urgency).waiting.fetch_add(1, Ordering::SeqCst);
        let _place = Place { pace: self, urgency };
        let _front = self.lane(urgency).front.lock().await;
        loop {
            let left = self.left.notified();
            if self.waits_for_others(urgency) {
                left.await;
                continue;
            }
            let Some(at) = self.take(urgency) else { return };
            tokio::time::sleep_until(at).await;
        }
    }

    fn lane(&self, urgency: Urgency) -> &Lane {
        &self.lanes[lane(urgency)]
    }

    fn waits_for_others(&self, urgency: Urgency) -> bool {
        self.lanes.iter().skip(lane(urgency) + 1).any(|lane| lane.waiting.load(Ordering::SeqCst) > 0)
    }

    /// Takes a call out of the bucket, or says when there will be one.
    fn take(&self, urgency: Urgency) -> Option<Instant> {
        let now = Instant::now();
        // A time is whole after any panic.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let then = full_at.map_or(now, |at| at.max(now)) + self.gap;
        let at = then.checked_sub(self.gap * (BURST - left_by(urgency))).unwrap_or(now);
        if at > now {
            return Some(at);
        }
        *full_at = Some(then);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_what_follows_at_the_pace() {
        let pace = Pace::new(10);
        let began = Instant::now();
        for _ in 0..BURST / 2 {
            pace.turn(Urgency::Routine).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            pace.turn(Urgency::Routine).await;
        }
        assert_eq!(began.elapsed().as_millis(), 1_000);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let later = Instant::now();
        for _ in 0..=BURST / 2 {
            pace.turn(Urgency::Routine).await;
        }
        assert_eq!(later.elapsed().as_millis(), 100, "a pause saves up one burst, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pace_nobody_waits() {
        let (pace, began) = (Pace::default(), Instant::now());
        for _ in 0..1_000 {
            pace.turn(Urgency::Routine).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_users_wait_for_goes_before_any_queue_of_sweeps() {
        let pace = Pace::new(10);
        let began = Instant::now();
        let sweeps = async {
            for _ in 0..60 {
                pace.turn(Urgency::Routine).await;
            }
            began.elapsed()
        };
        let traffic = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for _ in 0..BURST / 2 {
                pace.turn(Urgency::Traffic).await;
            }
            began.elapsed()
        };
        let (sweeps, traffic) = tokio::join!(sweeps, traffic);
        assert_eq!(traffic.as_secs(), 1, "at once");
        assert_eq!(sweeps.as_secs(), 6, "both together stay below what AWS allows");
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_urgent_overtake_a_queue_and_who_gives_up_takes_no_turn() {
        let pace = Pace::new(10);
        let began = Instant::now();
        let turns = async |urgency: Urgency, after: u64, count: u32| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            for _ in 0..count {
                pace.turn(urgency).await;
            }
            began.elapsed().as_millis()
        };
        let gives_up = tokio::time::timeout(Duration::from_millis(500), turns(Urgency::Traffic, 1, BURST * 2));
        let (queue, traffic) = (turns(Urgency::Deployed, 10, 1), turns(Urgency::Traffic, 30, 5));
        let (gave_up, queue, traffic) = tokio::join!(gives_up, queue, traffic);
        assert!(gave_up.is_err());
        // The burst was gone. Both took turns until one gave up, a call each 100 ms.
        assert!((650..=750).contains(&traffic), "{traffic}");
        assert!((2_750..=2_850).contains(&queue), "{queue}: half of the burst is left to traffic");
    }
}
