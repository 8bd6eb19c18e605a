//! A worker: its process, its clock, its journal and what it knows; how it dies and comes back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::engine::{Engine, Input, Settings};
use taskset_guardian::journal::TableJournal;
use taskset_guardian::model::{ServiceKey, TaskSetId, Timestamp, humane};
use taskset_guardian::ports::{Journal as _, JournalError, Lease as _, Table, Tenure};
use taskset_guardian::runtime::lease::{Span, Watched};
use taskset_guardian::runtime::{WallClockWatch, entry};

use super::clock::Clock;
use super::reads::UnderWay;
use super::table::Weather;
use super::turn::Pending;
use super::{Basis, Own, RECEIVE, Simulation, Todo};
use crate::faults::ClockFault;
use crate::schedule;

/// Who can't open its journal exits, and is started again.
const AGAIN: Duration = Duration::from_secs(2);

/// A deposed worker waits for its long polls before it stands by.
const LONG_POLL: Duration = Duration::from_secs(20);

pub(super) struct Worker {
    pub(super) clock: Clock,
    pub(super) watch: WallClockWatch,
    pub(super) alive: bool,
    /// Raised when the process dies.
    pub(super) process: u64,
    pub(super) paused_until: Timestamp,
    /// Since when nothing keeps it from acting, or from taking over.
    pub(super) able_since: Timestamp,
    pub(super) journal: Option<Arc<TableJournal>>,
    /// Raised when the right to act comes and goes.
    pub(super) term: u64,
    pub(super) acting: bool,
    /// When it last began to.
    pub(super) acts_since: Timestamp,
    pub(super) tenure: Option<Tenure>,
    /// `None` for a worker that has no rivals.
    pub(super) span: Option<Span<Duration>>,
    pub(super) watched: Option<Watched<Duration>>,
    pub(super) engine: Engine,
    /// By the rules that the engine was given last.
    pub(super) observes: bool,
    /// The newest time given to the engine.
    pub(super) latest: Timestamp,
    pub(super) inbox: VecDeque<Incoming>,
    pub(super) pending: Option<Pending>,
    /// In the journal behind the checkpoint.
    pub(super) entries: usize,
    pub(super) ticks_at: Option<Timestamp>,
    pub(super) seen: BTreeMap<ServiceKey, Seen>,
    /// One for each service at most.
    pub(super) reads: BTreeMap<ServiceKey, UnderWay>,
}

/// What the engine will be given.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) input: Input,
    /// That it is the answer to.
    pub(super) read: Option<Read>,
    /// Of the message that it came in.
    pub(super) receipt: Option<String>,
}

impl From<Input> for Incoming {
    fn from(input: Input) -> Self {
        Self { input, read: None, receipt: None }
    }
}

#[derive(Debug)]
pub(super) struct Read {
    /// When it was sent, by the monotonic clock.
    pub(super) began: Duration,
    /// By an observation.
    pub(super) shown: Option<Seen>,
}

/// What the engine was shown last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) basis: Basis,
    /// The newest living task set.
    pub(super) newest: Option<(Timestamp, TaskSetId)>,
    pub(super) primary: Option<TaskSetId>,
}

impl Worker {
    pub(super) fn new(began: Timestamp, settings: Settings, fault: &ClockFault) -> Self {
        let clock = Clock::new(began, fault.rate, fault.ahead_ms);
        Self {
            clock,
            watch: clock.watch(began),
            alive: false,
            process: 0,
            paused_until: began,
            able_since: began,
            journal: None,
            term: 0,
            acting: false,
            acts_since: began,
            tenure: None,
            span: None,
            watched: None,
            engine: Engine::new(settings),
            observes: false,
            latest: began,
            inbox: VecDeque::new(),
            pending: None,
            entries: 0,
            ticks_at: None,
            seen: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.tenure.as_ref().map_or(0, |tenure| tenure.epoch)
    }

    /// What the engine takes for now.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        self.clock.wall(now).max(self.latest)
    }

    fn end_term(&mut self) {
        self.term += 1;
        self.acting = false;
        self.inbox.clear();
        self.reads.clear();
        self.pending = None;
        self.ticks_at = None;
    }
}

impl Simulation {
    /// What was not committed is lost, and with it what it said; its messages must not be deleted.
    fn forget_pending(&mut self, who: usize) {
        self.lose_answers();
        let lost = self.workers[who].pending.take();
        self.judged.unsure |= lost.as_ref().is_some_and(|pending| pending.unsure);
        if lost.is_some_and(|pending| pending.acknowledged && !pending.entries.is_empty()) {
            self.broken("S8", "a message is deleted, and what it said is lost".to_owned());
        }
    }

    /// One operation of a worker's journal.
    pub(super) fn journaled<T>(
        &mut self,
        who: usize,
        operation: impl AsyncFnOnce(&TableJournal) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let weather = self.weather(who);
        self.table.set(weather);
        let journal = self.workers[who].journal.clone().unwrap();
        let result = self.runtime.block_on(operation(&journal));
        self.table.set(Weather::Fair);
        if result.is_err() {
            self.lose_answers();
            // A lost answer may have changed the record, for whoever watches it too.
            let now = self.now;
            self.workers.iter_mut().for_each(|worker| worker.able_since = worker.able_since.max(now));
            self.tell_of(who, "fault", || format!("the journal's table: {weather:?}"));
        }
        result
    }

    fn weather(&mut self, who: usize) -> Weather {
        let faults = &self.schedule.faults;
        let (lost, unanswered, torn) = (faults.commit_lost, faults.commit_unanswered, faults.commit_torn);
        if faults.cut.iter().any(|(cut, span)| *cut == who && self.during(*span)) {
            Weather::Cut
        } else if self.during(faults.full) {
            Weather::Full
        } else if self.chance(lost) {
            Weather::Lost
        } else if self.chance(unanswered) {
            Weather::Unanswered
        } else if self.chance(torn) {
            Weather::Torn
        } else {
            Weather::Fair
        }
    }

    /// The process begins: alone it acts at once, beside another it looks at the lease first.
    pub(super) fn start(&mut self, who: usize) {
        let table: Arc<dyn Table> = self.table.clone();
        let opened = self.runtime.block_on(TableJournal::open(table, "table", &format!("worker {who}")));
        let now = self.now;
        let worker = &mut self.workers[who];
        worker.alive = true;
        worker.journal = Some(Arc::new(opened.unwrap()));
        worker.watched = None;
        (worker.paused_until, worker.able_since) = (now, now);
        self.look(who);
    }

    /// Goes on where the journal ends.
    pub(super) fn begin(&mut self, who: usize) {
        let recovered = match self.journaled(who, async |journal| journal.load().await) {
            Ok(recovered) => recovered,
            Err(JournalError::Deposed { .. }) => return self.step_down(who, "another has the journal"),
            Err(_) => return self.exit(who),
        };
        let mut engine = match &recovered.checkpoint {
            Some(bytes) => Engine::restore(self.settings, bytes).unwrap(),
            None => Engine::new(self.settings),
        };
        let worker = &mut self.workers[who];
        worker.latest = Timestamp::from_millis(i64::MIN);
        for bytes in &recovered.entries {
            let entry = entry::decode(bytes).unwrap();
            worker.latest = entry.at;
            let _ = engine.step(entry.at, &entry.input);
        }
        (worker.engine, worker.entries) = (engine, recovered.entries.len());
        self.judged.terms += 1;
        let others = self.workers.iter().any(|worker| worker.pending.as_ref().is_some_and(|pending| pending.unsure));
        if std::mem::take(&mut self.judged.unsure) || others {
            self.believe_open(who);
        } else {
            self.check_open(who);
        }
        let (now, rules) = (self.now, self.rules().clone());
        let worker = &mut self.workers[who];
        worker.acts_since = now;
        worker.inbox.extend([Input::Restarted, Input::Rules(rules)].map(Incoming::from));
        let (wall, latest) = (worker.clock.wall(now), worker.latest);
        worker.watch = worker.clock.watch(now);
        if latest > wall {
            worker.latest = wall;
            let by_ms = wall.as_millis() - latest.as_millis();
            worker.inbox.push_front(Input::ClockSet { by_ms }.into());
        }
        self.plan_own(who, Duration::ZERO, Own::Sweep);
        self.plan_own(who, RECEIVE, Own::Receive);
        self.turn(who);
    }

    /// The process ends by itself, and is started again.
    fn exit(&mut self, who: usize) {
        self.tell_of(who, "fault", || "the process can't use its journal and exits".to_owned());
        if let Some(tenure) = self.workers[who].tenure.clone() {
            // Who can't give it back lets it run out.
            let _ = self.journaled(who, async |journal| journal.release(&tenure).await);
        }
        self.end_process(who);
        self.plan(AGAIN, Todo::Start(who));
    }

    fn end_process(&mut self, who: usize) {
        self.forget_pending(who);
        let worker = &mut self.workers[who];
        worker.end_term();
        worker.alive = false;
        worker.process += 1;
        worker.able_since = self.now;
    }

    pub(super) fn crash(&mut self, who: usize, when: &str) {
        self.ended.crashes += 1;
        self.tell_of(who, "fault", || format!("the process dies {when}"));
        self.end_process(who);
        if self.chance(self.schedule.faults.journal_gone) && !self.workers.iter().any(|worker| worker.alive) {
            self.tell("fault", || "the journal is gone".to_owned());
            self.table.empty();
            self.judged.decided.clear();
            self.judged.open.clear();
            self.judged.owed.clear();
            self.judged.amnesia = true;
            self.workers.iter_mut().for_each(|worker| worker.tenure = None);
        }
        let dead = self.within(self.schedule.faults.dead);
        self.plan(dead, Todo::Start(who));
    }

    /// The process stands still.
    pub(super) fn pause(&mut self, who: usize) {
        self.lose_answers();
        let paused = self.within(self.schedule.faults.paused);
        let worker = &mut self.workers[who];
        worker.paused_until = self.now.plus(paused);
        worker.able_since = worker.paused_until;
        self.tell_of(who, "fault", || format!("the process stands still for {}", humane(paused)));
        if self.rng.bool() {
            let act = schedule::meddling(&mut self.rng);
            let key = self.schedule.key.clone();
            self.plan(paused / 2, Todo::Meddle(key, act));
        }
    }

    /// Another acts, or may soon: what is not committed is its business.
    pub(super) fn step_down(&mut self, who: usize, why: &str) {
        self.tell_of(who, "lease", || format!("stands by: {why}"));
        self.forget_pending(who);
        let rest = self.within(LONG_POLL);
        let worker = &mut self.workers[who];
        worker.end_term();
        worker.watched = None;
        worker.able_since = worker.able_since.max(self.now.plus(rest));
        self.plan_own(who, rest, Own::Look);
    }
}
