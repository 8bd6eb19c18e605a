//! The tables of docs/detection.md.

use crate::detection::class::Class;
use crate::detection::figures::{Cell, quantile};
use crate::report::{Report, seconds};

impl Report {
    /// Prints them.
    pub fn print_markdown(&self) {
        println!(
            "| bad green | tasks | guardian p50 / p95, s | missed | failed requests | best documented rule, p50, s | missed | failed requests | plain count p50, s | missed |"
        );
        println!("|---|---:|---:|---:|---:|---|---:|---:|---:|---:|");
        for class in self.plan.classes.iter().filter(|class| class.is_bad()) {
            for size in &self.plan.sizes {
                self.bad_row(*class, *size);
            }
        }
        println!();
        let sizes: Vec<_> = self.plan.sizes.iter().map(|size| format!(" {size} tasks |")).collect();
        let sizes = sizes.concat();
        println!("| guardian's false rollbacks, % (upper bound) |{sizes}");
        println!("|---|{}", "---:|".repeat(self.plan.sizes.len()));
        let good = self.good();
        for class in &good {
            self.good_row(class.name(), &[*class], 0);
        }
        self.good_row("all of them", &good, 0);
        println!();
        println!("| false rollbacks over all good ones, % (upper bound) |{sizes}");
        println!("|---|{}", "---:|".repeat(self.plan.sizes.len()));
        for (rule, name) in self.names.iter().enumerate() {
            self.good_row(name, &good, rule);
        }
        println!();
        for goal in self.goals() {
            println!("- {}: {}", if goal.met { "met" } else { "**not met**" }, goal.what);
        }
    }

    fn bad_row(&self, class: Class, size: u32) {
        let own = self.cell(&[class], size, 0);
        let p50 = |cell: &Cell| seconds(quantile(&cell.delays, 0.5));
        let failed = |cell: &Cell| quantile(&cell.failed, 0.5).unwrap_or_default();
        let best = self.documented.iter().copied().min_by_key(|rule| self.median(&[class], size, *rule));
        let best =
            best.map(|rule| (self.names.get(rule).copied().unwrap_or_default(), self.cell(&[class], size, rule)));
        let best = best.map_or_else(
            || "- | - | -".to_owned(),
            |(name, cell)| format!("{name}: {} | {:.1} % | {}", p50(&cell), cell.missed(), failed(&cell)),
        );
        let count = (!self.counts.is_empty()).then(|| self.cell(&[class], size, self.names.len() - 1));
        let count = count.map_or_else(|| "- | -".to_owned(), |cell| format!("{} | {:.1} %", p50(&cell), cell.missed()));
        println!(
            "| {class} | {size} | {} / {} | {:.1} % | {} | {best} | {count} |",
            p50(&own),
            seconds(quantile(&own.delays, 0.95)),
            own.missed(),
            failed(&own),
        );
    }

    fn good_row(&self, name: &str, classes: &[Class], rule: usize) {
        let cell = |size: &u32| {
            let (share, (_, high)) = self.cell(classes, *size, rule).rolled_back();
            format!(" {share:.2} ({high:.2}) |")
        };
        println!("| {name} |{}", self.plan.sizes.iter().map(cell).collect::<Vec<_>>().concat());
    }
}
