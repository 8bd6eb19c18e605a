//! What the judgements of many lives add up to.

use super::life::{HORIZON, Ms};
use super::run::Judged;

/// What one rule made of the lives of a cell: of a class, or of several, at one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Lives.
    pub lives: usize,
    /// Rolled back.
    pub rolled_back: usize,
    /// Delays of bad lives, ascending; see [`delay`].
    pub delays: Vec<Ms>,
    /// Failed requests until safe, ascending.
    pub failed: Vec<u64>,
}

impl Cell {
    /// Of the rule at this place.
    pub fn of<'a>(lives: impl Iterator<Item = &'a Judged>, rule: usize) -> Self {
        let mut it = Self { lives: 0, rolled_back: 0, delays: Vec::new(), failed: Vec::new() };
        for life in lives {
            let Some(found) = life.found.get(rule) else { continue };
            it.lives += 1;
            it.rolled_back += usize::from(found.decided.is_some());
            it.failed.push(found.failed);
            it.delays.extend(life.onset.map(|onset| delay(onset, found.decided)));
        }
        it.delays.sort_unstable();
        it.failed.sort_unstable();
        it
    }

    /// What the guardian decided.
    pub fn guardian(life: &Judged) -> Option<Ms> {
        life.found.first().and_then(|found| found.decided)
    }

    /// Share that was rolled back, in percent, with the bounds of its 95 % interval.
    pub fn rolled_back(&self) -> (f64, (f64, f64)) {
        let (low, high) = wilson(self.rolled_back, self.lives);
        (100.0 * float(self.rolled_back) / float(self.lives.max(1)), (100.0 * low, 100.0 * high))
    }

    /// Share that was not, in percent.
    pub fn missed(&self) -> f64 {
        100.0 * float(self.lives - self.rolled_back) / float(self.lives.max(1))
    }
}

/// From the first hurt to the decision. What was missed counts as if it had been found at the horizon, and what was rolled
/// back before it hurt as found at once.
pub fn delay(onset: Ms, decided: Option<Ms>) -> Ms {
    (decided.unwrap_or(HORIZON) - onset).max(0)
}

/// The value below which a share of them lies, of values in ascending order. The nearest rank.
pub fn quantile<T: Copy>(ascending: &[T], share: f64) -> Option<T> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let rank = (share * float(ascending.len())).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

/// The median of values in any order.
pub fn median(values: &mut [Ms]) -> Option<Ms> {
    values.sort_unstable();
    quantile(values, 0.5)
}

/// Wilson's score interval at 95 % for a share, 0 to 1 (E. B. Wilson, "Probable Inference, the Law of Succession, and
/// Statistical Inference", JASA 22, 1927). It has an upper bound for a share of nothing, too.
pub fn wilson(hits: usize, trials: usize) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    if trials == 0 {
        return (0.0, 1.0);
    }
    let n = float(trials);
    let share = float(hits) / n;
    let middle = share + Z * Z / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_is_that_of_the_textbook() {
        // R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998: 81 of 263 give 0.2553 to 0.3662.
        let (low, high) = wilson(81, 263);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson(0, 250);
        assert!(low < 1e-9 && (high - 0.0151).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(quantile(&[10, 20, 30, 40], 0.5), Some(20));
        assert_eq!(quantile(&[10, 20, 30, 40], 0.95), Some(40));
        assert_eq!(quantile::<Ms>(&[], 0.5), None);
    }

    #[test]
    fn what_was_missed_counts_as_found_at_the_horizon() {
        assert_eq!(delay(5_000, None), HORIZON - 5_000);
        assert_eq!(delay(5_000, Some(7_000)), 2_000);
        assert_eq!(delay(5_000, Some(1_000)), 0);
    }
}
