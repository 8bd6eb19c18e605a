//! The crash matrix: a rollback, with one fault or two at any of its effect boundaries, against the sandbox world on virtual
//! time.
//!
//! A boundary is a mutating call, an announcement or a commit of the journal, numbered in the order in which they come up
//! from the decision on. At each of them four things may go wrong. The second fault of a pair is laid at every boundary that
//! comes up after the first one, retries and restarts included, so no pair is left out.
//!
//! ```console
//! $ cargo test --release --test crashes -- --nocapture
//! ```
//!
//! A debug build lays second faults at every seventh place only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[allow(dead_code, reason = "the wire test uses other parts")]
#[path = "support/shapes.rs"]
mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use taskset_guardian::engine::{Effect, Engine, Input, Note, Settings};
use taskset_guardian::events::{self, Decoded};
use taskset_guardian::model::{
    Announcement, Ask, CallError, EffectId, ErrorClass, Incident, IncidentId, IncidentOutcome, Observation, Outcome,
    Phase, ServiceKey, Timestamp, Write,
};
use taskset_guardian::rules::RuleSet;
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};
use taskset_guardian::sandbox::direct;
use taskset_guardian::sandbox::world::{Setup, World};

const SETTINGS: Settings = Settings { dry_run: false, sweep: SWEEP, fleet_brake: 3 };
const SWEEP: Duration = Duration::from_secs(30);
const RECEIVE: Duration = Duration::from_secs(1);
const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

/// Of every call, there and back.
const LATENCY: Duration = Duration::from_millis(40);

/// What is sent together arrives one after the other.
const STAGGER: Duration = Duration::from_millis(3);

/// Between a death and the next process.
const DEAD: Duration = Duration::from_secs(2);

/// First pause of the shell after a commit that failed.
const COMMIT_AGAIN: Duration = Duration::from_millis(250);

/// Two faults cost seconds. What is not finished by then never will be.
const FINISH: Duration = Duration::from_mins(5);

/// Entries between checkpoints: few, so that restarts begin with a checkpoint and entries behind it.
const CHECKPOINT_EVERY: usize = 7;

/// What goes wrong at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The call fails and nothing is applied.
    FailsBefore,
    /// The call is applied and fails all the same.
    FailsAfter,
    /// The process dies with nothing applied.
    DiesBefore,
    /// The call is applied, and the process dies before it knows.
    DiesAfter,
}

const FAULTS: [Fault; 4] = [Fault::FailsBefore, Fault::FailsAfter, Fault::DiesBefore, Fault::DiesAfter];

/// By boundary.
type Plan = BTreeMap<usize, Fault>;

#[derive(Debug)]
enum Todo {
    Read(Ask, Timestamp),
    Answer(ServiceKey, Result<Box<Observation>, CallError>),
    Apply(EffectId, Write),
    Announce(EffectId, Announcement),
    Done(EffectId, Outcome),
    Receive,
    Sweep,
    Tick,
    Restart,
}

/// One rollback under a plan of faults.
struct Cell {
    key: ServiceKey,
    rules: RuleSet,
    world: World,
    now: Timestamp,
    engine: Engine,
    agenda: BTreeMap<(Timestamp, u64), Todo>,
    planned: u64,
    ticks_at: Option<Timestamp>,
    alive: bool,
    checkpoint: Option<Vec<u8>>,
    journal: Vec<Vec<u8>>,
    incidents: BTreeMap<IncidentId, Incident>,
    plan: Plan,
    /// What came up since the decision: the last one's number is the length.
    boundaries: Vec<String>,
    decided_at: Option<Timestamp>,
    deletes: u32,
    writes: usize,
    /// Deliveries of each announcement, by id: its kind, how many, and how many were lost on us or on the journal.
    delivered: BTreeMap<String, Delivered>,
    /// Delivered, and the answer not durable yet.
    unsure: BTreeMap<EffectId, String>,
}

#[derive(Debug, Default)]
struct Delivered {
    kind: &'static str,
    times: u32,
    excused: u32,
}

/// What a cell came to.
struct Ended {
    boundaries: Vec<String>,
    escalated: bool,
    writes: usize,
}

impl Cell {
    fn new(setup: Setup, rules: RuleSet, plan: Plan) -> Self {
        let now = Timestamp::from_millis(1_772_445_600_000);
        let mut it = Self {
            key: ServiceKey::new("prod", "checkout"),
            rules,
            world: World::new(7, now, setup),
            now,
            engine: Engine::new(SETTINGS),
            agenda: BTreeMap::new(),
            planned: 0,
            ticks_at: None,
            alive: false,
            checkpoint: None,
            journal: Vec::new(),
            incidents: BTreeMap::new(),
            plan,
            boundaries: Vec::new(),
            decided_at: None,
            deletes: 0,
            writes: 0,
            delivered: BTreeMap::new(),
            unsure: BTreeMap::new(),
        };
        it.plan(Duration::ZERO, Todo::Restart);
        it
    }

    fn plan(&mut self, after: Duration, todo: Todo) {
        self.agenda.insert((self.now.plus(after), self.planned), todo);
        self.planned += 1;
    }

    /// Whether something goes wrong here.
    fn strikes(&mut self, what: &str) -> Option<Fault> {
        self.decided_at?;
        self.boundaries.push(what.to_owned());
        self.plan.get(&self.boundaries.len()).copied()
    }

    fn run_until(&mut self, end: Timestamp, over: impl Fn(&Self) -> bool) {
        while let Some((at, _)) = self.agenda.keys().next().copied().filter(|(at, _)| *at <= end) {
            let Some((_, todo)) = self.agenda.pop_first() else { return };
            self.pass_to(at);
            if !self.alive && !matches!(todo, Todo::Restart) {
                continue;
            }
            self.happen(todo);
            if over(self) {
                return;
            }
        }
        self.pass_to(end);
    }

    fn pass_to(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        self.world.advance_to(self.now);
    }

    fn happen(&mut self, todo: Todo) {
        match todo {
            Todo::Read(ask, read_at) => {
                let answer = direct::observe(&mut self.world, &ask, read_at).map(Box::new);
                self.plan(LATENCY / 2, Todo::Answer(ask.service, answer));
            }
            Todo::Answer(key, answer) => self.step(&Input::Observed(key, answer)),
            Todo::Apply(id, write) => self.apply(id, &write),
            Todo::Announce(id, announcement) => self.announce(id, &announcement),
            Todo::Done(id, outcome) => {
                let applied = outcome == Outcome::Applied;
                let durable = self.journal.len();
                self.step(&Input::Done(id, outcome));
                if applied && (self.alive || self.journal.len() > durable) {
                    self.unsure.remove(&id);
                }
            }
            Todo::Receive => self.receive(),
            Todo::Sweep => {
                self.plan(SWEEP, Todo::Sweep);
                self.step(&Input::Swept(BTreeSet::from([self.key.clone()])));
            }
            Todo::Tick => {
                self.ticks_at = None;
                self.step(&Input::Tick);
            }
            Todo::Restart => self.restart(),
        }
    }

    /// As the shell does it: stepped, made durable, and only then let go.
    fn step(&mut self, input: &Input) {
        let entry = serde_json::to_vec(&(self.now, input)).unwrap();
        // Events go on coming in; they are no part of the rollback.
        let is_ours = !matches!(input, Input::Signal(_));
        let step = self.engine.step(self.now, input);
        if step.report.notes.iter().any(|note| matches!(note, Note::Decided { .. })) {
            self.decided_at.get_or_insert(self.now);
        }
        let kept = step.effects.iter().filter_map(|effect| match effect {
            Effect::Keep(incident) => Some((incident.id.clone(), incident.clone())),
            _ => None,
        });
        let kept: Vec<_> = kept.collect();
        if step.changed || !kept.is_empty() {
            let fault = if is_ours { self.strikes("commit") } else { None };
            if fault == Some(Fault::DiesBefore) {
                return self.die();
            }
            if step.changed {
                self.journal.push(entry);
            }
            self.incidents.extend(kept);
            match fault {
                Some(Fault::DiesAfter) => return self.die(),
                // Both journals see a repeated append, or fail before anything is written: to the engine it is a delay.
                Some(_) => self.pass_to(self.now.plus(COMMIT_AGAIN)),
                None => {}
            }
        }
        if self.journal.len() >= CHECKPOINT_EVERY {
            self.checkpoint = Some(self.engine.checkpoint().unwrap());
            self.journal.clear();
        }
        let mut wait = LATENCY / 2;
        for effect in step.effects {
            wait += STAGGER;
            match effect {
                Effect::Observe(ask) => self.plan(wait, Todo::Read(ask, self.now)),
                Effect::Write { id, write, .. } => self.plan(wait, Todo::Apply(id, write)),
                Effect::Announce(id, announcement) => self.plan(wait, Todo::Announce(id, announcement)),
                Effect::Keep(_) => {}
            }
        }
        let deadline = self.engine.next_deadline();
        if let Some(at) = deadline.filter(|at| self.ticks_at.is_none_or(|planned| *at < planned)) {
            self.ticks_at = Some(at);
            self.plan(at.since(self.now), Todo::Tick);
        }
    }

    fn apply(&mut self, id: EffectId, write: &Write) {
        let fault = self.strikes(write.operation());
        self.writes += 1;
        let applied = |it: &mut Self| {
            if matches!(write, Write::DeleteTaskSet { .. }) {
                it.deletes += 1;
            }
            direct::apply(&mut it.world, write)
        };
        self.answer(id, fault, applied);
    }

    fn announce(&mut self, id: EffectId, announcement: &Announcement) {
        let kind = announcement.kind.detail_type();
        let fault = self.strikes(kind);
        let put = |it: &mut Self| {
            direct::announce(&mut it.world, announcement).unwrap();
            let delivered = it.delivered.entry(announcement.id.clone()).or_default();
            delivered.kind = kind;
            delivered.times += 1;
            delivered.excused += u32::from(fault == Some(Fault::FailsAfter));
            it.unsure.insert(id, announcement.id.clone());
            Ok(())
        };
        self.answer(id, fault, put);
    }

    /// Carries a call out, or not, and answers, or not.
    fn answer(&mut self, id: EffectId, fault: Option<Fault>, apply: impl FnOnce(&mut Self) -> Result<(), CallError>) {
        let injected = || CallError {
            class: ErrorClass::Transient,
            operation: "injected".to_owned(),
            code: None,
            message: "as the test wants it".to_owned(),
        };
        let outcome = match fault {
            Some(Fault::DiesBefore) => return self.die(),
            Some(Fault::FailsBefore) => Err(injected()),
            Some(Fault::FailsAfter) => apply(self).and(Err(injected())),
            Some(Fault::DiesAfter) => {
                // AWS applied it, or refused it; nobody hears.
                drop(apply(self));
                return self.die();
            }
            None => apply(self),
        };
        let outcome = outcome.map_or_else(Outcome::Failed, |()| Outcome::Applied);
        self.plan(LATENCY / 2, Todo::Done(id, outcome));
    }

    fn die(&mut self) {
        for announced in self.unsure.values() {
            self.delivered.entry(announced.clone()).or_default().excused += 1;
        }
        self.alive = false;
        self.ticks_at = None;
        self.agenda.clear();
        self.plan(DEAD, Todo::Restart);
    }

    /// The next process, from the bytes that the last one left.
    fn restart(&mut self) {
        self.engine = match &self.checkpoint {
            Some(bytes) => Engine::restore(SETTINGS, bytes).unwrap(),
            None => Engine::new(SETTINGS),
        };
        for entry in &self.journal {
            let (at, input): (Timestamp, Input) = serde_json::from_slice(entry).unwrap();
            let _ = self.engine.step(at, &input);
        }
        self.alive = true;
        self.step(&Input::Restarted);
        if self.alive {
            self.step(&Input::Rules(self.rules.clone()));
        }
        if self.alive {
            self.plan(Duration::ZERO, Todo::Sweep);
            self.plan(RECEIVE, Todo::Receive);
        }
    }

    fn receive(&mut self) {
        let receive = Call::ReceiveMessage { queue_url: QUEUE.to_owned(), max: 10, visibility: None };
        let Ok(Reply::Messages(messages)) = self.world.call(receive) else { panic!("the queue does not answer") };
        self.plan(RECEIVE, Todo::Receive);
        let mut receipts = Vec::new();
        for message in messages {
            if let Ok(Decoded::Signal(signal)) = events::decode(&message.body) {
                self.step(&Input::Signal(signal));
            }
            receipts.push(message.receipt);
        }
        if !receipts.is_empty() {
            self.world.call(Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts }).unwrap();
        }
    }

    fn phase(&self) -> Option<Phase> {
        self.engine.service(&self.key, self.now)?.deployment.map(|deployment| deployment.phase)
    }

    /// The rollback is done, and all that was to be said of it is said.
    fn is_over(&self) -> bool {
        let said = |kind| self.delivered.values().any(|delivered| delivered.kind == kind);
        self.alive
            && self.phase() == Some(Phase::RolledBack)
            && self.unsure.is_empty()
            && ["Rollback Started", "Rollback Completed"].into_iter().all(said)
    }

    /// Runs to the end and holds it to every promise.
    fn judged(mut self) -> Result<Ended, String> {
        let began = self.now;
        self.run_until(began.plus(Duration::from_mins(3)), |it| it.decided_at.is_some());
        let Some(decided_at) = self.decided_at else { return Err("nothing was decided".to_owned()) };
        self.run_until(decided_at.plus(FINISH), Self::is_over);
        let wrong = |what: String| Err(what);
        if !self.is_over() {
            return wrong(format!("after {FINISH:?} it stands at {:?}", self.phase()));
        }
        let (boundaries, writes) = (self.boundaries.clone(), self.writes);
        // A worker that comes back to a finished rollback has nothing to do and nothing to say.
        let before = (self.writes, self.delivered.values().map(|delivered| delivered.times).sum::<u32>());
        self.plan.clear();
        self.die();
        self.run_until(self.now.plus(Duration::from_secs(40)), |_| false);
        let after = (self.writes, self.delivered.values().map(|delivered| delivered.times).sum::<u32>());
        if before != after {
            return wrong(format!("a restart afterwards repeats: {before:?}, then {after:?}"));
        }
        if let Some(violation) = self.world.violations().first() {
            return wrong(violation.to_string());
        }
        if self.deletes != 1 {
            return wrong(format!("{} deletes reached AWS", self.deletes));
        }
        let outcomes: Vec<_> = self.incidents.values().map(|incident| incident.outcome).collect();
        if outcomes != [IncidentOutcome::RolledBack] {
            return wrong(format!("incidents: {outcomes:?}"));
        }
        for kind in ["Rollback Started", "Rollback Completed"] {
            let ids = self.delivered.values().filter(|delivered| delivered.kind == kind).count();
            if ids != 1 {
                return wrong(format!("{ids} announcements of {kind}"));
            }
        }
        if let Some((id, too_often)) = self.delivered.iter().find(|(_, it)| it.times > 1 + it.excused) {
            return wrong(format!("announcement {id} without need: {too_often:?}"));
        }
        let split = self.world.traffic(&self.key).unwrap().configured;
        if split.blue < 1.0 || split.green > 0.0 {
            return wrong(format!("the traffic is split {split:?}"));
        }
        let escalated = self.delivered.values().any(|delivered| delivered.kind == "Rollback Escalated");
        Ok(Ended { boundaries, escalated, writes })
    }
}

/// Every cell of one shape. Returns how many, and how many called a person on the way.
fn matrix(name: &str, setup: &Setup, every: usize) {
    let play = |plan: Plan| {
        let shown = format!("{name}, {plan:?}");
        Cell::new(setup.clone(), shapes::rules(), plan).judged().map_err(|what| format!("{shown}: {what}"))
    };
    let began = Instant::now();
    let plain = play(Plan::new()).unwrap();
    eprintln!(
        "{name}: {} boundaries, {} writes: {}",
        plain.boundaries.len(),
        plain.writes,
        plain.boundaries.join(", ")
    );
    let firsts: Vec<_> = (1..=plain.boundaries.len()).flat_map(|n| FAULTS.map(|fault| (n, fault))).collect();
    let (next, places, cells) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (called, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let count = |ended: &Result<Ended, String>| {
        cells.fetch_add(1, Ordering::Relaxed);
        match ended {
            Ok(ended) => drop(called.fetch_add(usize::from(ended.escalated), Ordering::Relaxed)),
            Err(what) => wrong.lock().unwrap().push(what.clone()),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(first) = firsts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let single = play([*first].into());
                    count(&single);
                    let Ok(single) = single else { continue };
                    let seconds = (first.0 + 1..=single.boundaries.len()).flat_map(|n| FAULTS.map(|fault| (n, fault)));
                    for second in seconds {
                        if places.fetch_add(1, Ordering::Relaxed) % every == 0 {
                            count(&play([*first, second].into()));
                        }
                    }
                }
            });
        }
    });
    let (cells, called, wrong) = (cells.into_inner(), called.into_inner(), wrong.into_inner().unwrap());
    eprintln!(
        "{name}: {cells} cells in {:.1} s, {called} of them called a person on the way, {} wrong",
        began.elapsed().as_secs_f64(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} of {cells} cells, as\n{}", wrong.len(), wrong[..wrong.len().min(8)].join("\n"));
    assert!(cells >= firsts.len());
}

/// Of the second faults, all in a release build.
const EVERY: usize = if cfg!(debug_assertions) { 7 } else { 1 };

#[test]
fn a_canary_beside_a_warm_blue_survives_any_two_faults() {
    matrix("warm blue", &shapes::warm_blue(), EVERY);
}

#[test]
fn a_promoted_green_beside_a_small_blue_survives_any_two_faults() {
    matrix("small blue", &shapes::small_blue(), EVERY);
}

#[test]
fn a_canary_behind_several_rules_one_of_them_sticky_survives_any_two_faults() {
    matrix("several rules", &shapes::several_rules(), EVERY);
}

#[test]
fn the_longest_rollback_there_is_survives_any_two_faults() {
    matrix("everything", &shapes::everything(), EVERY);
}
