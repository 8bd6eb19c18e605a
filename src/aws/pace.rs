//! The pace of calls: an account may read Elastic Load Balancing ten times a second and services of ECS twenty times, and its
//! deployers do so too. What comes faster waits here, in order, because what AWS throttles is lost, and is asked for again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many calls may go at once after a pause, in either lane: half of the smallest of AWS's buckets.
const BURST: u32 = 20;

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Sweeps over services at rest.
    Slow,
    /// What is being deployed. It has half of AWS's bucket for itself, and the slow lane gives way to it.
    Fast,
}

/// Gives calls their turns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Between two calls; zero means that nobody waits.
    gap: Duration,
    lanes: Mutex<Lanes>,
}

/// When each lane's bucket would be full if nobody called: ahead of now by a gap for each call that it lacks.
#[derive(Debug, Default)]
struct Lanes {
    slow: Option<Instant>,
    fast: Option<Instant>,
}

impl Pace {
    /// So many calls a second. AWS counts the account's; more than one worker have to share.
    pub(super) fn new(per_second: u16) -> Self {
        Self { gap: Duration::from_secs(1) / u32::from(per_second.max(1)), lanes: Mutex::default() }
    }

    /// Waits until the next call may go. A caller that gives up has had its turn.
    pub(super) async fn turn(&self, lane: Lane) {
        if self.gap.is_zero() {
            return;
        }
        let at = {
            // Two times are whole after any panic.
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let take = |full_at: &mut Option<Instant>| {
                let then = full_at.map_or(now, |at| at.max(now)) + self.gap;
                *full_at = Some(then);
                then.checked_sub(self.gap * BURST).unwrap_or(now)
            };
            let slow = take(&mut lanes.slow);
            if lane == Lane::Fast { take(&mut lanes.fast) } else { slow }
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_what_follows_at_the_pace() {
        let pace = Pace::new(10);
        let began = Instant::now();
        for _ in 0..BURST {
            pace.turn(Lane::Slow).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            pace.turn(Lane::Slow).await;
        }
        assert_eq!(began.elapsed().as_millis(), 1_000);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let later = Instant::now();
        for _ in 0..=BURST {
            pace.turn(Lane::Slow).await;
        }
        assert_eq!(later.elapsed().as_millis(), 100, "a pause saves up one burst, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pace_nobody_waits() {
        let (pace, began) = (Pace::default(), Instant::now());
        for _ in 0..1_000 {
            pace.turn(Lane::Slow).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_deployed_goes_before_any_queue_of_the_slow_lane() {
        let pace = Pace::new(10);
        let began = Instant::now();
        let slow = async {
            for _ in 0..60 {
                pace.turn(Lane::Slow).await;
            }
            began.elapsed()
        };
        let fast = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for _ in 0..BURST {
                pace.turn(Lane::Fast).await;
            }
            began.elapsed()
        };
        let (slow, fast) = tokio::join!(slow, fast);
        assert_eq!(fast.as_secs(), 1, "at once");
        assert_eq!(slow.as_secs(), 6, "both together stay below what AWS allows");
    }
}
