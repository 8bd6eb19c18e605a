//! What the benches share: sizes, clocks, tables of figures, processes, and the AWS that they run against.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each bench uses its part")]

pub mod bare;
pub mod events;
pub mod fleet;
pub mod machine;
pub mod queue;

use std::fmt::Display;
use std::time::Duration;

/// A size that the environment may change, as in `BENCH_EVENTS=2000`.
pub fn size(variable: &str, otherwise: usize) -> usize {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
}

/// Figures of one bench, and whether its goals are met.
pub struct Table {
    guard: bool,
    missed: usize,
}

impl Table {
    /// With `BENCH_GUARD=1` figures are held against the guard's bounds, which noise can't reach, and a missed one fails.
    pub fn new(bench: &str, setting: impl Display) -> Self {
        println!("\n{bench}: {setting}");
        Self { guard: std::env::var("BENCH_GUARD").is_ok_and(|value| value == "1"), missed: 0 }
    }

    /// A figure without a goal.
    #[allow(clippy::unused_self, reason = "a row is its table's")]
    pub fn row(&self, what: impl Display, figure: impl Display) {
        println!("  {what:<58} {figure}", what = what.to_string());
    }

    /// A figure that is to be at least its goal.
    pub fn at_least(&mut self, what: impl Display, figure: f64, goal: f64, guard: f64, unit: &str) {
        let bound = if self.guard { guard } else { goal };
        self.judge(what, figure, &format!(">= {}", number(bound)), figure >= bound, unit);
    }

    /// A figure that is to be at most its goal.
    pub fn at_most(&mut self, what: impl Display, figure: f64, goal: f64, guard: f64, unit: &str) {
        let bound = if self.guard { guard } else { goal };
        self.judge(what, figure, &format!("<= {}", number(bound)), figure <= bound, unit);
    }

    fn judge(&mut self, what: impl Display, figure: f64, bound: &str, met: bool, unit: &str) {
        let word = if met { "pass" } else { "MISSED" };
        let shown = format!("{}{unit}", number(figure));
        println!("  {what:<58} {shown:<18} {bound}{unit}  {word}", what = what.to_string());
        self.missed += usize::from(!met);
    }

    /// Ends the process: as a guard with 1 when a bound was missed.
    pub fn end(self) -> ! {
        std::process::exit(i32::from(self.guard && self.missed > 0))
    }
}

/// Digits as they are worth: 1234567 is `1,234,567`, 0.5 is `0.50`.
pub fn number(figure: f64) -> String {
    if figure.abs() < 100.0 {
        return format!("{figure:.2}");
    }
    let digits = format!("{:.0}", figure.abs());
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    if figure < 0.0 { format!("-{shown}") } else { shown }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

/// The smallest that at least so many percent do not exceed.
pub fn percentile(mut figures: Vec<f64>, percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() * percent).div_ceil(100).max(1);
    figures.get(rank - 1).copied().unwrap_or(f64::NAN)
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
