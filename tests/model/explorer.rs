//! Breadth first through all states that a system can reach: so the first trace to a broken promise is a shortest one.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

/// What is explored.
pub(crate) trait System {
    type State: Copy + Eq + Hash + Display;
    type Move: Copy + Display;

    fn first(&self) -> Self::State;

    /// Whatever may happen next, and what comes of it.
    fn moves(&self, from: &Self::State, into: &mut Vec<(Self::Move, Self::State)>);

    /// The promise that this move breaks.
    fn broken(&self, from: &Self::State, by: Self::Move, to: &Self::State) -> Option<&'static str>;

    /// Whether it happens only when something goes wrong.
    fn is_fault(&self, from: &Self::State, by: Self::Move) -> bool;

    /// Where everything is to end once nothing goes wrong any more.
    fn is_goal(&self, state: &Self::State) -> bool;
}

/// What came of it.
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) moves: usize,
    /// Moves from the first state to the farthest.
    pub(crate) depth: u32,
    pub(crate) took: Duration,
    /// The first promise that was broken, and how.
    pub(crate) broken: Option<(&'static str, Vec<String>)>,
    /// How to come to a state from which the goal is out of reach even without faults.
    pub(crate) stuck: Option<Vec<String>>,
}

/// All states, in the order in which they were found.
struct Found<S: System> {
    states: Vec<S::State>,
    numbers: HashMap<S::State, u32, BuildHasherDefault<Mixer>>,
    /// For all but the first state: where it was reached from, and by what.
    reached: Vec<Option<(u32, S::Move)>>,
}

impl<S: System> Found<S> {
    fn number(&mut self, state: S::State, reached: Option<(u32, S::Move)>) -> u32 {
        *self.numbers.entry(state).or_insert_with(|| {
            self.states.push(state);
            self.reached.push(reached);
            u32::try_from(self.states.len() - 1).unwrap()
        })
    }

    /// The moves that lead to a state, one a line, each with what came of it.
    fn trace(&self, mut at: u32) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some((before, by)) = self.reached[at as usize] {
            lines.push(line(by, self.states[at as usize]));
            at = before;
        }
        lines.reverse();
        lines
    }
}

fn line(by: impl Display, to: impl Display) -> String {
    format!("{by:<44} {to}")
}

/// Explores until a promise is broken, or to the end, or as deep as is wanted: then it is not known what gets stuck.
pub(crate) fn explore<S: System>(system: &S, deepest: Option<u32>) -> Explored {
    let began = Instant::now();
    let mut found: Found<S> = Found { states: Vec::new(), numbers: HashMap::default(), reached: Vec::new() };
    found.number(system.first(), None);
    // Moves that are no faults, for the way back from the goal.
    let mut fair: Vec<(u32, u32)> = Vec::new();
    let (mut at, mut moves, mut depth, mut level_ends, mut next) = (0, 0, 0, 1, Vec::new());
    let mut broken = None;
    'all: while at < found.states.len() {
        if at == level_ends {
            (depth, level_ends) = (depth + 1, found.states.len());
            if deepest == Some(depth) {
                break;
            }
        }
        let (from, number) = (found.states[at], u32::try_from(at).unwrap());
        next.clear();
        system.moves(&from, &mut next);
        for (by, to) in &next {
            moves += 1;
            if let Some(promise) = system.broken(&from, *by, to) {
                let mut trace = found.trace(number);
                trace.push(line(by, to));
                broken = Some((promise, trace));
                break 'all;
            }
            let to = found.number(*to, Some((number, *by)));
            if to != number && !system.is_fault(&from, *by) {
                fair.push((number, to));
            }
        }
        at += 1;
    }
    let whole = at == found.states.len();
    let stuck = if whole { stuck(system, &found.states, fair) } else { None };
    let stuck = stuck.map(|at| found.trace(at));
    Explored { states: found.states.len(), moves, depth, took: began.elapsed(), broken, stuck }
}

/// The nearest state from which no goal can be reached by moves that are no faults.
fn stuck<S: System>(system: &S, states: &[S::State], mut fair: Vec<(u32, u32)>) -> Option<u32> {
    fair.sort_unstable_by_key(|(_, to)| *to);
    let mut safe: Vec<bool> = states.iter().map(|state| system.is_goal(state)).collect();
    let mut todo: Vec<u32> = (0..).zip(&safe).filter(|(_, safe)| **safe).map(|(at, _)| at).collect();
    while let Some(at) = todo.pop() {
        let first = fair.partition_point(|(_, to)| *to < at);
        for (from, _) in fair[first..].iter().take_while(|(_, to)| *to == at) {
            if !std::mem::replace(&mut safe[*from as usize], true) {
                todo.push(*from);
            }
        }
    }
    (0..).zip(&safe).find(|(_, safe)| !**safe).map(|(at, _)| at)
}

/// States are a few dozen small numbers: the standard hasher would take most of the time.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
