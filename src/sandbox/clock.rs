//! The sandbox's clock: virtual time that runs a fixed number of times faster than life.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::model::Timestamp;
use crate::ports::Clock;

/// Virtual time: starts at `epoch` when it is made and passes `speed` virtual seconds a real second.
#[derive(Clone, Copy, Debug)]
pub struct ScaledClock {
    started: Instant,
    epoch: Timestamp,
    speed: f64,
}

impl ScaledClock {
    /// From a thousandth of life's speed, which is as good as standing still, to a million times it, where one real
    /// millisecond is a quarter of an hour: beyond these a typing error is likelier than a wish.
    const SPEEDS: (f64, f64) = (0.001, 1_000_000.0);

    /// Starts at `epoch`, now. Speeds out of bounds are brought within them; what is no number counts as 1.
    pub fn start(epoch: Timestamp, speed: f64) -> Self {
        let speed = if speed.is_nan() { 1.0 } else { speed.clamp(Self::SPEEDS.0, Self::SPEEDS.1) };
        Self { started: Instant::now(), epoch, speed }
    }

    /// Virtual seconds a real second.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// How long `duration` on this clock takes in life.
    fn in_life(&self, duration: Duration) -> Duration {
        Duration::try_from_secs_f64(duration.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
    }
}

#[async_trait]
impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        let passed = self.started.elapsed().as_secs_f64() * self.speed;
        self.epoch.plus(Duration::try_from_secs_f64(passed).unwrap_or(Duration::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(self.in_life(duration)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_at_speed_sixty_takes_a_second() {
        let clock = ScaledClock::start(Timestamp::EPOCH, 60.0);
        assert_eq!(clock.in_life(Duration::from_mins(1)), Duration::from_secs(1));
    }

    #[test]
    fn starts_at_its_epoch_and_runs_forward() {
        let epoch = Timestamp::from_millis(1_772_445_880_989);
        let clock = ScaledClock::start(epoch, 1_000_000.0);
        let first = clock.now();
        assert!(first >= epoch);
        while clock.now() == first {
            std::hint::spin_loop();
        }
        assert!(clock.now() > first);
    }

    #[test]
    fn absurd_speeds_do_not_break_it() {
        for (asked, got) in [(f64::NAN, 1.0), (f64::INFINITY, 1_000_000.0), (-3.0, 0.001), (0.0, 0.001)] {
            let clock = ScaledClock::start(Timestamp::EPOCH, asked);
            assert!((clock.speed() - got).abs() < f64::EPSILON, "{asked}");
            assert!(clock.in_life(Duration::MAX) > Duration::ZERO);
        }
    }
}
