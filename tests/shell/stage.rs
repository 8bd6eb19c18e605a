//! What all processes of a schedule share: the world and its time, chance, and what was seen.

use std::hash::{DefaultHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::model::{CallError, ErrorClass, Timestamp, humane};
use taskset_guardian::sandbox::api::ServiceView;
use taskset_guardian::sandbox::world::{Act, World};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::faults::Span;
use crate::judge::{Ended, Judged};
use crate::process::Life;
use crate::schedule::{Schedule, THIRD_COMES, is_disturbance};
use crate::table::MemoryTable;
use crate::trouble::Trouble;

/// When every schedule begins.
pub(crate) const BEGAN: Timestamp = Timestamp::from_millis(1_772_445_600_000);

/// The surroundings of the workers.
pub(crate) struct Stage {
    pub(crate) schedule: Schedule,
    pub(crate) trouble: Trouble,
    /// Shared by all workers, like the world.
    pub(crate) table: Arc<MemoryTable>,
    began: Instant,
    tell: bool,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) now: Timestamp,
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) clocks: Vec<Clock>,
    /// Of each worker the process that runs; dead ones are kept until the next begins.
    pub(crate) lives: Vec<Option<Arc<Life>>>,
    /// What `DescribeServices` said last: when, and of when that was.
    pub(crate) last_service: Option<(Timestamp, Timestamp, ServiceView)>,
    /// Forged or old messages, and unreadable ones, that are still to come.
    pub(crate) noise: u32,
    pub(crate) poison: u32,
    pub(crate) judged: Judged,
    pub(crate) ended: Ended,
    pub(crate) hasher: DefaultHasher,
    pub(crate) drain: Duration,
    /// Tables that were lost.
    pub(crate) tables: u32,
    calm_at: Duration,
    tell: bool,
}

impl Stage {
    /// To be called inside the runtime whose clock it shares.
    pub(crate) fn new(schedule: Schedule, tell: bool) -> Self {
        let trouble = Trouble::draw(&schedule);
        let clocks = schedule.faults.clocks.iter().take(schedule.workers);
        let state = State {
            now: BEGAN,
            world: World::new(schedule.seed, BEGAN, schedule.setup.clone()),
            rng: Rng::with_seed(schedule.seed),
            clocks: clocks.map(|fault| Clock::new(BEGAN, fault.rate, fault.ahead_ms)).collect(),
            lives: vec![None; schedule.workers],
            last_service: None,
            noise: schedule.faults.noise,
            poison: trouble.poison,
            judged: Judged::default(),
            ended: Ended::default(),
            hasher: DefaultHasher::new(),
            drain: schedule.setup.drain,
            tables: 0,
            calm_at: schedule.calm_at,
            tell,
        };
        let (table, began) = (Arc::default(), Instant::now());
        Self { schedule, trouble, table, began, tell, state: Mutex::new(state) }
    }

    /// Time as it is.
    pub(crate) fn now(&self) -> Timestamp {
        BEGAN.plus(self.began.elapsed())
    }

    /// The state of now.
    pub(crate) fn enter(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.now = self.now();
        let now = state.now;
        state.world.advance_to(now);
        state.listen();
        state.judged.happened += 1;
        state
    }

    /// A worker's wall clock.
    pub(crate) fn wall(&self, who: usize) -> Timestamp {
        self.state.lock().unwrap().clocks[who].wall(self.now())
    }

    /// What has passed by a worker's own reckoning.
    pub(crate) fn monotonic(&self, who: usize) -> Duration {
        self.state.lock().unwrap().clocks[who].monotonic(self.now())
    }

    /// Nothing goes wrong any more.
    pub(crate) fn is_calm(&self) -> bool {
        self.began.elapsed() >= self.schedule.calm_at
    }

    /// For so long already.
    pub(crate) fn is_calm_for(&self, duration: Duration) -> bool {
        self.began.elapsed() >= self.schedule.calm_at + duration
    }

    pub(crate) fn during(&self, (from, until): Span) -> bool {
        let since = self.began.elapsed();
        from <= since && since < until && !self.is_calm()
    }

    /// Whether it happens now.
    pub(crate) fn chance(&self, rate: f64) -> bool {
        rate > 0.0 && !self.is_calm() && self.state.lock().unwrap().rng.f64() < rate
    }

    /// Up to this.
    pub(crate) fn within(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap();
        Duration::from_millis(self.state.lock().unwrap().rng.u64(0..=most))
    }

    /// A call's way there, or back.
    pub(crate) fn half_way(&self) -> Duration {
        self.within(self.schedule.faults.latency / 2)
    }

    /// How a call fails before anything of it is done, if it does.
    pub(crate) fn refusal(&self, operation: &str, rarer: f64, denied: Span) -> Option<CallError> {
        let faults = &self.schedule.faults;
        let class = if self.during(faults.outage) || self.chance(faults.failed_before / rarer) {
            ErrorClass::Transient
        } else if self.chance(faults.throttled / rarer) {
            ErrorClass::Throttled
        } else if self.during(denied) {
            ErrorClass::Denied
        } else {
            return None;
        };
        Some(fault(operation, class))
    }

    /// A person does something.
    pub(crate) fn meddle(&self, act: &Act) {
        let mut state = self.enter();
        state.tell("person", || format!("{act:?}"));
        state.world.person(&self.schedule.key, act);
        let (now, happened) = (state.now, state.judged.happened);
        (state.judged.disturbed_at, state.judged.disturbed_after) = (now, happened);
        state.notice_violations();
    }

    pub(crate) fn broken(&self, invariant: &str, what: String) {
        self.enter().broken(invariant, what, false);
    }

    pub(crate) fn tell(&self, who: &str, what: impl FnOnce() -> String) {
        if self.tell {
            self.state.lock().unwrap().tell(who, what);
        }
    }
}

/// An error that the schedule wants.
pub(crate) fn fault(operation: &str, class: ErrorClass) -> CallError {
    CallError { class, operation: operation.to_owned(), code: None, message: "injected".to_owned() }
}

impl State {
    pub(crate) fn tell(&self, who: &str, what: impl FnOnce() -> String) {
        if self.tell {
            eprintln!("{:>8} {who:<9} {}", humane(self.now.since(BEGAN)), what());
        }
    }

    /// For the trace: what happened, and when.
    pub(crate) fn trace(&mut self, what: impl Hash) {
        (self.now, what).hash(&mut self.hasher);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now.since(BEGAN) >= self.calm_at
    }

    /// What the world has to tell, and whether it was disturbed.
    fn listen(&mut self) {
        for moment in self.world.drain_story() {
            (moment.at, &moment.what).hash(&mut self.hasher);
            self.judged.has_third |= moment.what.contains(THIRD_COMES);
            if is_disturbance(&moment.what, self.judged.has_third) {
                self.judged.disturbed_at = self.judged.disturbed_at.max(moment.at);
            }
            if self.tell {
                eprintln!("{:>8} aws       {}", humane(moment.at.since(BEGAN)), moment.what);
            }
        }
    }
}
