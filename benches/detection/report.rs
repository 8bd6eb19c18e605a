//! The tables, the goals, and the same as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::detection::class::Class;
use crate::detection::figures::{Cell, quantile};
use crate::detection::life::{HORIZON, MINUTE, Ms};
use crate::detection::peers::count::Count;
use crate::detection::run::{Judged, Plan};

/// Failures that others miss or find late.
pub const GOAL: [Class; 4] = [Class::Flapping40, Class::Flapping15, Class::SlowLeak, Class::Partial];

/// Good deployments that must all but never be rolled back.
const SPARED: [Class; 6] =
    [Class::Spot, Class::Scaling, Class::OperatorStops, Class::SharedOutage, Class::ZoneLoss, Class::RedAtBirth];

/// All that is reported.
pub struct Report {
    /// Of the rules, in the order of what they found.
    pub names: Vec<&'static str>,
    /// Places of those that are documented.
    pub documented: Vec<usize>,
    /// The count tuned for each size.
    pub counts: Vec<(u32, Count)>,
    pub judged: Vec<Judged>,
    pub plan: Plan,
    pub took: Duration,
}

impl Report {
    pub fn cell(&self, classes: &[Class], size: u32, rule: usize) -> Cell {
        let lives = self.judged.iter().filter(|life| life.size == size && classes.contains(&life.class));
        Cell::of(lives, rule)
    }

    fn has(&self, classes: &[Class]) -> bool {
        classes.iter().all(|class| self.plan.classes.contains(class))
    }

    pub fn good(&self) -> Vec<Class> {
        self.plan.classes.iter().copied().filter(|class| !class.is_bad()).collect()
    }

    fn gates(&self, class: Class, size: u32) -> String {
        let mut gates: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        for life in self.judged.iter().filter(|life| life.class == class && life.size == size) {
            if let Some(gate) = life.found.first().and_then(|found| found.gate.as_deref()) {
                *gates.entry(gate).or_default() += 1;
            }
        }
        gates.iter().map(|(gate, count)| format!("{gate} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// Prints everything.
    pub fn print(&self) {
        let lives = self.judged.len();
        println!(
            "{lives} deployments, seeds {}..{} of each class and size, in {:.1} s on {} threads; {} ms each",
            self.plan.seeds.start,
            self.plan.seeds.end,
            self.took.as_secs_f64(),
            self.plan.threads,
            self.took.as_millis() * (self.plan.threads as u128) / (lives.max(1) as u128),
        );
        println!(
            "Delays in seconds from the first hurt; what was missed counts as found after {} minutes.",
            HORIZON / MINUTE
        );
        for (size, count) in &self.counts {
            let Count { failures, window } = count;
            println!("The plain count for {size} tasks, tuned: {failures} failures within {} minutes", window / MINUTE);
        }
        let bad: Vec<_> = self.plan.classes.iter().copied().filter(|class| class.is_bad()).collect();
        for class in &bad {
            println!("\n{class:<34} {:>5} {:>8} {:>8} {:>8} {:>10}", "tasks", "p50", "p95", "missed %", "failed req");
            for size in &self.plan.sizes {
                for (rule, name) in self.names.iter().enumerate() {
                    let cell = self.cell(&[*class], *size, rule);
                    let failed = quantile(&cell.failed, 0.5).unwrap_or_default();
                    println!(
                        "  {name:<32} {size:>5} {:>8} {:>8} {:>8.1} {failed:>10}",
                        seconds(quantile(&cell.delays, 0.5)),
                        seconds(quantile(&cell.delays, 0.95)),
                        cell.missed(),
                    );
                }
                println!("      guardian's gates: {}", self.gates(*class, *size));
            }
        }
        let good = self.good();
        if !good.is_empty() {
            println!("\n{:<34} {:>5} {:>9}   95 % interval", "false rollbacks", "tasks", "%");
        }
        for class in good.iter().map(|class| vec![*class]).chain((good.len() > 1).then(|| good.clone())) {
            let named = match class.as_slice() {
                [class] => class.name(),
                _ => "all of them",
            };
            println!("{named}");
            for size in &self.plan.sizes {
                for (rule, name) in self.names.iter().enumerate() {
                    let (share, (low, high)) = self.cell(&class, *size, rule).rolled_back();
                    println!("  {name:<32} {size:>5} {share:>9.2}   {low:.2} to {high:.2}");
                }
                if let [class] = class.as_slice()
                    && !self.gates(*class, *size).is_empty()
                {
                    println!("      guardian's gates: {}", self.gates(*class, *size));
                }
            }
        }
        let goals = self.goals();
        if !goals.is_empty() {
            println!("\ngoals");
        }
        for Goal { met, what } in goals {
            println!("  {} {what}", if met { "pass" } else { "FAIL" });
        }
    }

    /// What was promised, and whether it holds.
    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let good = self.good();
        let all_good: Vec<_> = Class::ALL.into_iter().filter(|class| !class.is_bad()).collect();
        for size in &self.plan.sizes {
            if self.has(&all_good) {
                let (share, (_, high)) = self.cell(&good, *size, 0).rolled_back();
                let what =
                    format!("{size} tasks: false rollbacks {share:.2} %, upper bound {high:.2} %, at most 1.5 %");
                goals.push(Goal { met: high <= 1.5, what });
            }
            for class in SPARED.into_iter().filter(|class| self.has(&[*class])) {
                let (share, _) = self.cell(&[class], *size, 0).rolled_back();
                goals.push(Goal { met: share < 0.5, what: format!("{size} tasks: {class} {share:.2} %, below 0.5 %") });
            }
            if self.names.len() < 2 {
                continue;
            }
            if self.has(&GOAL) {
                let most = match size {
                    ..=2 => 1.0,
                    3..=9 => 0.75,
                    _ => 0.5,
                };
                goals.extend(self.faster(&GOAL, *size, most, "flapping, leak and partial"));
                let missed = |rule| self.cell(&GOAL, *size, rule).missed();
                let others = self.documented.iter().map(|rule| (missed(*rule), *rule));
                if let Some((least, rule)) = others.min_by(|one, other| one.0.total_cmp(&other.0)) {
                    let own = missed(0);
                    let name = self.names.get(rule).copied().unwrap_or_default();
                    let what = format!("{size} tasks: missed {own:.1} %, at most 0.7 x {least:.1} % ({name})");
                    goals.push(Goal { met: own <= 0.7 * least, what });
                }
                if !self.counts.is_empty() {
                    let what = "flapping, leak and partial";
                    goals.extend(self.against(&GOAL, *size, 0.9, what, self.names.len() - 1));
                }
            }
            if self.has(&[Class::CrashAtStart]) {
                goals.extend(self.faster(&[Class::CrashAtStart], *size, 1.0, "crash at start"));
            }
        }
        goals
    }

    pub fn median(&self, classes: &[Class], size: u32, rule: usize) -> Option<Ms> {
        quantile(&self.cell(classes, size, rule).delays, 0.5)
    }

    fn faster(&self, classes: &[Class], size: u32, most: f64, what: &str) -> Option<Goal> {
        let best = self.documented.iter().copied().min_by_key(|rule| self.median(classes, size, *rule))?;
        self.against(classes, size, most, what, best)
    }

    fn against(&self, classes: &[Class], size: u32, most: f64, what: &str, rule: usize) -> Option<Goal> {
        let (own, other) = (self.median(classes, size, 0)?, self.median(classes, size, rule)?);
        let name = self.names.get(rule).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a life is short")]
        let ratio = own as f64 / other.max(1) as f64;
        let what = format!(
            "{size} tasks: median delay over {what} {} s, {ratio:.2} x {} s ({name}), at most {most} x",
            seconds(Some(own)),
            seconds(Some(other))
        );
        Some(Goal { met: ratio <= most, what })
    }

    /// The same as data.
    pub fn json(&self) -> Value {
        let mut cells = Vec::new();
        for class in &self.plan.classes {
            for size in &self.plan.sizes {
                for (rule, name) in self.names.iter().enumerate() {
                    let cell = self.cell(&[*class], *size, rule);
                    let (share, (low, high)) = cell.rolled_back();
                    let mut told = json!({
                        "class": class.name(), "bad": class.is_bad(), "tasks": size, "rule": name, "lives": cell.lives,
                        "rolled_back_percent": share, "interval_percent": [low, high],
                    });
                    if class.is_bad() {
                        told["delay_p50_ms"] = json!(quantile(&cell.delays, 0.5));
                        told["delay_p95_ms"] = json!(quantile(&cell.delays, 0.95));
                        told["missed_percent"] = json!(cell.missed());
                        told["failed_requests_p50"] = json!(quantile(&cell.failed, 0.5));
                    }
                    cells.push(told);
                }
            }
        }
        let counts = self
            .counts
            .iter()
            .map(|(size, count)| json!({"tasks": size, "failures": count.failures, "window_ms": count.window}));
        let goals = self.goals().into_iter().map(|Goal { met, what }| json!({"met": met, "what": what}));
        json!({
            "seeds": [self.plan.seeds.start, self.plan.seeds.end],
            "horizon_ms": HORIZON,
            "seconds": self.took.as_secs_f64(),
            "plain_counts": counts.collect::<Vec<_>>(),
            "cells": cells,
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}

/// A promise.
pub struct Goal {
    pub met: bool,
    pub what: String,
}

/// With a tenth.
pub fn seconds(delay: Option<Ms>) -> String {
    delay.map_or_else(|| "-".to_owned(), |delay| format!("{}.{}", delay / 1_000, delay % 1_000 / 100))
}
