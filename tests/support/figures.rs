//! What a test measured, in one line; and how often it is to measure.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt;
use std::time::Duration;

/// Durations, shortest first.
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    /// The shortest duration that at least so many percent do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Figures {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut all: Vec<_> = durations.into_iter().collect();
        all.sort_unstable();
        Self(all)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, half, most_of_all, most] = [0, 50, 99, 100].map(|percent| self.percentile(percent).as_secs_f64());
        let count = self.0.len();
        write!(f, "{count:5} times: min {least:6.3} s, p50 {half:6.3} s, p99 {most_of_all:6.3} s, max {most:6.3} s")
    }
}

/// A number that the environment sets for longer runs than those of every day.
pub(crate) fn set(variable: &str, otherwise: usize) -> usize {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
}
