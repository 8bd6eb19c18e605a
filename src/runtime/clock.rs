//! Time as it is, and how to notice that somebody has set the clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::engine::DENIAL_LASTS;
use crate::model::{CallError, ErrorClass, Observation, Timestamp, humane};
use crate::ports::Clock;

/// The system's clock. The only place of the worker that reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// When somebody first wanted to know how much time has passed.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    fn elapsed(&self) -> Duration {
        BEGAN.elapsed()
    }

    /// Read again when the process was held up between the two.
    fn at_once(&self) -> (Timestamp, Duration) {
        let mut before = self.elapsed();
        let mut wall = self.now();
        for _ in 0..READINGS {
            let after = self.elapsed();
            if after.saturating_sub(before) <= AT_ONCE {
                break;
            }
            (before, wall) = (after, self.now());
        }
        (wall, before)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Between the readings of two clocks that are to be of one moment.
const AT_ONCE: Duration = Duration::from_millis(10);

/// A process that is held up each time between two readings has other worries.
const READINGS: usize = 8;

/// Milliseconds. Less is no setting: time servers pull a clock by a two-thousandth at most, 3 ms between two looks that lie
/// 5 s apart, and the two clocks are not read at the very same moment.
const SET: u64 = 100;

/// Compares the wall clock with the time that has passed. Both go on while the process stands still; only the wall clock goes
/// on while the machine is suspended, and only it is set.
#[derive(Clone, Copy, Debug)]
pub struct WallClockWatch {
    wall: Timestamp,
    elapsed: Duration,
}

impl WallClockWatch {
    /// From now on.
    pub fn new(wall: Timestamp, elapsed: Duration) -> Self {
        Self { wall, elapsed }
    }

    /// By how many milliseconds the wall clock was set since the last look, if it was.
    pub fn look(&mut self, wall: Timestamp, elapsed: Duration) -> Option<i64> {
        let expected = self.wall.plus(elapsed.saturating_sub(self.elapsed));
        let by_ms = wall.as_millis().saturating_sub(expected.as_millis());
        *self = Self { wall, elapsed };
        (by_ms.unsigned_abs() >= SET).then_some(by_ms)
    }
}

/// Fails a read that is not as old as its time on the wall says: `began` is what [`Clock::elapsed`] said as it was sent, `now`
/// what both clocks say. A clock may have been set forward before it and back after it, with nobody looking in between. And
/// one that says that the service does not exist, when it is older than [`DENIAL_LASTS`].
pub fn doubt_age(answer: &mut Result<Box<Observation>, CallError>, began: Duration, now: (Timestamp, Duration)) {
    let age = now.1.saturating_sub(began);
    let doubt = match answer {
        Ok(seen) if WallClockWatch::new(seen.read_at, began).look(now.0, now.1).is_some() => {
            "the clock was set meanwhile, so nobody can tell how old the answer is".to_owned()
        }
        Err(error) if error.class == ErrorClass::NotFound && age > DENIAL_LASTS => {
            format!("it did not exist, by an answer that was held up for {}: {}", humane(age), error.message)
        }
        _ => return,
    };
    *answer =
        Err(CallError { class: ErrorClass::Transient, operation: "observe".to_owned(), code: None, message: doubt });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_is_pulled_is_not() {
        let (wall, second) = (Timestamp::from_millis(1_772_445_880_000), Duration::from_secs(1));
        let mut watch = WallClockWatch::new(wall, second);
        assert_eq!(watch.look(wall.plus(second * 60), second * 61), None);
        assert_eq!(watch.look(wall.plus(second * 61).moved(90), second * 62), None, "pulled");
        assert_eq!(watch.look(wall.plus(second * 362).moved(90), second * 63), Some(300_000), "set forward");
        assert_eq!(watch.look(wall.plus(second * 363).moved(90), second * 64), None);
        assert_eq!(watch.look(wall.plus(second * 64), second * 65), Some(-300_090), "set back");
    }

    #[test]
    fn that_a_service_does_not_exist_is_believed_while_it_is_news() {
        let (wall, second) = (Timestamp::from_millis(1_772_445_880_000), Duration::from_secs(1));
        let after = |age: Duration, class| {
            let (operation, message) = ("DescribeServices".to_owned(), "MISSING".to_owned());
            let mut answer = Err(CallError { class, operation, code: None, message });
            doubt_age(&mut answer, second, (wall, second + age));
            answer.unwrap_err().class
        };
        assert_eq!(after(DENIAL_LASTS, ErrorClass::NotFound), ErrorClass::NotFound);
        assert_eq!(after(DENIAL_LASTS + second, ErrorClass::NotFound), ErrorClass::Transient);
        assert_eq!(after(DENIAL_LASTS + second, ErrorClass::Denied), ErrorClass::Denied, "permissions do not lag so");
    }
}
