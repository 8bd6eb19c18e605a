//! Detection: how soon the guardian finds a bad green, and how often it blames a good one, beside other rules.
//!
//! ```console
//! $ cargo bench --bench detection
//! $ cargo bench --bench detection -- --output json
//! $ cargo bench --bench detection -- --output markdown
//! $ DETECT_CLASS=flapping_40,noisy_service DETECT_SIZE=10 DETECT_ONLY=guardian DETECT_TUNING=1 cargo bench --bench detection
//! $ DETECT_CLASS=slow_leak DETECT_SIZE=4 DETECT_SEED=7 cargo bench --bench detection
//! ```
//!
//! The first prints everything, and last which goals are met; the third the tables of docs/detection.md. `DETECT_CLASS`
//! (names, or `bad`, `good`, `goal`) and `DETECT_SIZE` choose cells, `DETECT_SEEDS` how many lives each has,
//! `DETECT_ONLY=guardian` leaves the peers out, and `DETECT_TUNING=1` takes the seeds that a rule may be tuned on.
//! `DETECT_RULE` is the path of another rule file. `DETECT_SEED` tells one life, line by line.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, clippy::panic, reason = "a benchmark")]
#![allow(unreachable_pub, missing_docs, reason = "its parts are shared with tests/detection.rs")]

#[path = "mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests/detection.rs uses the rest")]
mod detection;
mod markdown;
mod report;
mod trace;

use std::time::Instant;

use detection::class::{Class, SIZES};
use detection::guardian::{RULE, rules};
use detection::peers::{Peer, peers};
use detection::run::{Plan, REPORTED, TUNING, names, tune};

use report::{GOAL, Report};

/// Lives of a cell on which figures are reported, and on which the count is tuned.
const SEEDS: u64 = 1_000;
const TUNING_SEEDS: u64 = 400;
const _: () = assert!(TUNING + TUNING_SEEDS <= REPORTED, "nobody is judged on what he was tuned on");

fn main() {
    let asked = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let number = |name: &str| asked(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: no number")));
    let text =
        asked("DETECT_RULE").map_or_else(|| RULE.to_owned(), |path| std::fs::read_to_string(path).expect("a file"));
    let rules = rules(&text);
    let classes = asked("DETECT_CLASS").map_or_else(|| Class::ALL.to_vec(), |list| chosen(&list));
    let size = |size: &str| size.trim().parse().expect("DETECT_SIZE: sizes, as in 2,10");
    let sizes = asked("DETECT_SIZE").map_or_else(|| SIZES.to_vec(), |list| list.split(',').map(size).collect());

    if let Some(seed) = number("DETECT_SEED") {
        return trace::tell(&classes, &sizes, seed, &rules);
    }

    let arguments: Vec<String> = std::env::args().collect();
    let wanted = |output: &str| arguments.iter().any(|argument| argument.trim_start_matches("--output=") == output);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = number("DETECT_THREADS").and_then(|threads| usize::try_from(threads).ok()).unwrap_or(cores);
    let begun = Instant::now();
    let seeds = number("DETECT_SEEDS").unwrap_or(SEEDS);
    let first = if asked("DETECT_TUNING").is_some() { TUNING } else { REPORTED };
    let plan = Plan { classes, sizes, seeds: first..first + seeds, threads };
    let alone = asked("DETECT_ONLY").is_some();
    let peers: Vec<Box<dyn Peer>> = if alone { Vec::new() } else { peers() };
    let documented = (1..).zip(&peers).filter(|(_, peer)| peer.is_documented()).map(|(place, _)| place).collect();

    let mut counts = Vec::new();
    if !alone {
        // Whatever is reported, the count is tuned on all that it is judged by.
        let good = Class::ALL.into_iter().filter(|class| !class.is_bad());
        let classes = good.chain(GOAL).collect();
        let tuning = Plan { classes, seeds: TUNING..TUNING + TUNING_SEEDS.min(seeds), ..plan.clone() };
        let judged = tuning.run(&rules, &[], &[]);
        counts.extend(plan.sizes.iter().map(|size| (*size, tune(&judged, *size, &GOAL))));
    }
    let judged = plan.run(&rules, &peers, &counts);
    let report = Report { names: names(&peers, !alone), documented, counts, judged, plan, took: begun.elapsed() };
    if wanted("json") {
        println!("{}", report.json());
    } else if wanted("markdown") {
        report.print_markdown();
    } else {
        report.print();
    }
}

fn chosen(list: &str) -> Vec<Class> {
    let each = list.split(',').flat_map(|name| match name.trim() {
        "bad" => Class::ALL.into_iter().filter(|class| class.is_bad()).collect(),
        "good" => Class::ALL.into_iter().filter(|class| !class.is_bad()).collect(),
        "goal" => GOAL.to_vec(),
        name => vec![Class::named(name).unwrap_or_else(|| panic!("DETECT_CLASS: there is no class {name}"))],
    });
    each.collect()
}
