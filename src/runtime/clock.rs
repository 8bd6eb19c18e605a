//! Time as it is.

use std::time::Duration;

use async_trait::async_trait;

use crate::model::Timestamp;
use crate::ports::Clock;

/// The system's clock. The only place of the worker that reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
