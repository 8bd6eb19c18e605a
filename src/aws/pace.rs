//! The pace of calls: an account may read Elastic Load Balancing ten times a second and services of ECS twenty times, and its
//! deployers do so too. What comes faster waits here, in order, because what AWS throttles is lost, and is asked for again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many calls may go at once after a pause: half of the smallest of AWS's buckets.
const BURST: u32 = 20;

/// Gives calls their turns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Between two calls; zero means that nobody waits.
    gap: Duration,
    /// When the bucket would be full if nobody called: ahead of now by a gap for each call that it lacks.
    full_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many calls a second. AWS counts the account's; more than one worker have to share.
    pub(super) fn new(per_second: u16) -> Self {
        Self { gap: Duration::from_secs(1) / u32::from(per_second.max(1)), full_at: Mutex::default() }
    }

    /// Waits until the next call may go. A caller that gives up has had its turn.
    pub(super) async fn turn(&self) {
        if self.gap.is_zero() {
            return;
        }
        let at = {
            // One time is whole after any panic.
            let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let then = full_at.map_or(now, |at| at.max(now)) + self.gap;
            *full_at = Some(then);
            then.checked_sub(self.gap * BURST).unwrap_or(now)
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
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed().as_millis(), 1_000);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let later = Instant::now();
        for _ in 0..=BURST {
            pace.turn().await;
        }
        assert_eq!(later.elapsed().as_millis(), 100, "a pause saves up one burst, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pace_nobody_waits() {
        let (pace, began) = (Pace::default(), Instant::now());
        for _ in 0..1_000 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
