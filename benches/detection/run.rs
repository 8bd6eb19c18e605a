//! Many lives, each judged by every rule.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use taskset_guardian::rules::RuleSet;

use super::class::Class;
use super::figures::{Cell, delay, median};
use super::guardian;
use super::life::{HORIZON, Life, Ms};
use super::peers::Peer;
use super::peers::count::{self, Count};

/// On which a rule may be tuned.
pub const TUNING: u64 = 0;
/// On which figures are reported.
pub const REPORTED: u64 = 1_000_000;

/// As the first of the rules.
pub const GUARDIAN: &str = "guardian";

/// Which lives.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of these classes,
    pub classes: Vec<Class>,
    /// of these sizes,
    pub sizes: Vec<u32>,
    /// one for each of these.
    pub seeds: Range<u64>,
    /// Threads that share the work.
    pub threads: usize,
}

/// What a rule made of a life.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// When it decided to roll back.
    pub decided: Option<Ms>,
    /// Users' requests to green that failed until then.
    pub failed: u64,
    /// The first gate that spoke; only the guardian says so.
    pub gate: Option<String>,
}

/// One life, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its class.
    pub class: Class,
    /// Its size.
    pub size: u32,
    /// When it first hurt, if it is bad.
    pub onset: Option<Ms>,
    /// By rule, in their order.
    pub found: Vec<Found>,
    /// When tasks of green failed, so far as a count can be interested in it.
    pub failures: Vec<Ms>,
}

impl Plan {
    /// Judges every life by the guardian and the peers; the lives of one size by the count tuned for it. In the order of
    /// classes, sizes and seeds, whoever was done first.
    pub fn run(&self, rules: &RuleSet, peers: &[Box<dyn Peer>], counts: &[(u32, Count)]) -> Vec<Judged> {
        let mut jobs = Vec::new();
        for class in &self.classes {
            for size in &self.sizes {
                jobs.extend(self.seeds.clone().map(|seed| (*class, *size, seed)));
            }
        }
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(jobs.len()));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some((class, size, seed)) = jobs.get(number).copied() else { break };
                        let count = counts.iter().find(|(of, _)| *of == size).map(|(_, count)| count);
                        mine.push((number, judged(&class.life(size, seed), rules, peers, count)));
                    }
                    done.lock().expect("no other thread has panicked").append(&mut mine);
                });
            }
        });
        let mut done = done.into_inner().expect("no thread has panicked");
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, judged)| judged).collect()
    }
}

fn judged(life: &Life, rules: &RuleSet, peers: &[Box<dyn Peer>], count: Option<&Count>) -> Judged {
    let verdict = guardian::judge(life, rules, false);
    let gate = verdict.decided.as_ref().and_then(|(_, evidence)| evidence.first()).map(|first| first.gate.to_string());
    let found = |decided: Option<Ms>, gate| {
        let decided = decided.filter(|at| *at < HORIZON);
        Found { decided, failed: life.failed_until_safe(decided), gate }
    };
    let mut all = vec![found(verdict.decided.map(|(at, _)| at), gate)];
    all.extend(peers.iter().map(|peer| found(peer.decides(life), None)));
    all.extend(count.map(|count| found(count.decides(life), None)));
    let mut failures = count::failures(life);
    failures.truncate(usize::try_from(life.size).unwrap_or_default() * 2 + 8);
    Judged { class: life.class, size: life.size, onset: life.onset, found: all, failures }
}

/// The names of the rules, in their order.
pub fn names(peers: &[Box<dyn Peer>], counted: bool) -> Vec<&'static str> {
    let count = Count { failures: 1, window: 0 };
    let own = std::iter::once(GUARDIAN).chain(peers.iter().map(|peer| peer.name()));
    own.chain(counted.then(|| count.name())).collect()
}

/// The count that finds the bad greens of these classes soonest, of those that roll back no more of the good ones than the
/// guardian does.
pub fn tune(judged: &[Judged], size: u32, goal: &[Class]) -> Count {
    let of_size = || judged.iter().filter(|life| life.size == size);
    let allowed = of_size().filter(|life| !life.class.is_bad()).filter(|life| Cell::guardian(life).is_some()).count();
    let mut best: Option<((Ms, Ms), Count)> = None;
    for count in Count::candidates(size) {
        let false_rollbacks = of_size().filter(|life| !life.class.is_bad() && decided(&count, life).is_some()).count();
        if false_rollbacks > allowed {
            continue;
        }
        let bad = of_size().filter(|life| goal.contains(&life.class));
        let mut delays: Vec<Ms> = bad.filter_map(|life| Some(delay(life.onset?, decided(&count, life)))).collect();
        let mean = delays.iter().sum::<Ms>() / Ms::try_from(delays.len().max(1)).unwrap_or(Ms::MAX);
        let worth = (median(&mut delays).unwrap_or(HORIZON), mean);
        if best.is_none_or(|(known, _)| worth < known) {
            best = Some((worth, count));
        }
    }
    best.map_or(Count { failures: usize::MAX, window: 0 }, |(_, count)| count)
}

fn decided(count: &Count, life: &Judged) -> Option<Ms> {
    count.reached(&life.failures).filter(|at| *at < HORIZON)
}
