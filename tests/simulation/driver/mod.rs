//! Drives the engine and the sandbox world through one schedule, on virtual time and one thread: what the worker's shell
//! does, with every delay and every failure drawn from the seed.

mod calls;
mod judge;
mod queue;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::engine::{Engine, Input, Settings};
use taskset_guardian::model::{
    Announcement, Ask, CallError, EffectId, Observation, Outcome, ServiceKey, ServiceReading, TaskSet, TaskSetId,
    TaskSetStatus, Timestamp, Write, humane,
};
use taskset_guardian::sandbox::world::{Act, World};

use crate::schedule::Schedule;

const SWEEP: Duration = Duration::from_secs(30);
const RECEIVE: Duration = Duration::from_secs(1);
const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

/// The client gives a call up after this long, and with it the write: `operation_attempt_timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between a read and the call that rests on it, without a stand-still in between: life of a read, life of a write, and the
/// call's own time. What changed in the world earlier must have been seen.
const LONGEST_BLINDNESS: Duration = Duration::from_secs(16 + 5 + 5);

/// Messages that may be in the queue at any time: ECS goes on talking.
const FEW: u32 = 20;

/// How old a read of ECS may be: it is eventually consistent, for seconds.
const LAG: Duration = Duration::from_secs(5);

/// L1: an open rollback is done or escalated this long after its decision, and after the faults have stopped.
const FINISH: Duration = Duration::from_mins(5);

/// Something that will happen.
#[derive(Debug)]
enum Todo {
    /// The reads of an observation are made.
    Read(Ask, Timestamp),
    /// With the time of what it shows.
    Answer(ServiceKey, Result<Box<Observation>, CallError>, Timestamp, u64),
    /// A write has room: the last check before it is sent.
    Send(Decided, Timestamp),
    /// It reaches AWS. With the time of that check.
    Apply(Decided, Timestamp),
    Done(EffectId, Outcome),
    Announce(EffectId, Announcement),
    Receive,
    Tick,
    Sweep,
    Restart,
    /// Somebody acts while the process stands still.
    Meddle(Act),
}

/// A write, and the newest read that it rests on: when, and after which event.
#[derive(Debug)]
struct Decided {
    id: EffectId,
    write: Write,
    read_at: Timestamp,
    read_after: u64,
}

/// A guard of the shell that a test takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShellMutant {
    /// A message is deleted before what it said is durable.
    AcknowledgeBeforeCommit,
    /// What an observation made of the state is not written down before its effects go out.
    NoDurableIntent,
    /// A write is sent however long it waited.
    NoExpiry,
}

impl Todo {
    /// Dies with the process. What AWS has been sent does not.
    fn is_ours(&self) -> bool {
        !matches!(self, Self::Apply(..) | Self::Restart | Self::Meddle(_))
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: String,
    pub(crate) what: String,
    /// The world changed between our read and our call, which nothing at AWS can prevent.
    pub(crate) race: bool,
}

/// How a schedule ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) broken: Vec<Broken>,
    pub(crate) trace: u64,
    pub(crate) decided: bool,
    pub(crate) escalated: bool,
    pub(crate) completed: bool,
    pub(crate) writes: u32,
    pub(crate) crashes: u32,
}

pub(crate) struct Simulation {
    schedule: Schedule,
    rng: Rng,
    world: World,
    began: Timestamp,
    now: Timestamp,
    engine: Engine,
    settings: Settings,
    alive: bool,
    paused_until: Timestamp,
    agenda: BTreeMap<(Timestamp, u64), Todo>,
    planned: u64,
    ticks_at: Option<Timestamp>,
    checkpoint: Option<Vec<u8>>,
    journal: Vec<(Timestamp, Input)>,
    /// When the newest observation that the engine has was read.
    read_at: Timestamp,
    /// When the world last changed in a way that a check may not have seen.
    disturbed_at: Timestamp,
    /// The same by the order of events, for what happens within one millisecond.
    happened: u64,
    read_after: u64,
    /// The read that the write rests on which is applied just now.
    rests_on: Timestamp,
    rests_after: u64,
    disturbed_after: u64,
    last_service: Option<(Timestamp, ServiceReading)>,
    /// The newest living task set that the engine was shown.
    newest: Option<(Timestamp, TaskSetId)>,
    /// It was PRIMARY when the engine decided.
    primary: Option<TaskSetId>,
    promotes: bool,
    without: Option<ShellMutant>,
    /// The newest read showed nothing healthy of green's: that blue need not be whole rests on it, and a target that
    /// passes its checks a moment later is no news that the world tells.
    green_was_dead: bool,
    decided: BTreeSet<TaskSetId>,
    called: VecDeque<String>,
    ended: Ended,
    hasher: DefaultHasher,
    story: Option<Vec<String>>,
    violations: usize,
}

impl Simulation {
    pub(crate) fn new(schedule: Schedule, tell: bool) -> Self {
        let began = Timestamp::from_millis(1_772_445_600_000);
        let settings = Settings { dry_run: false, sweep: SWEEP, fleet_brake: 3 };
        let world = World::new(schedule.seed, began, schedule.setup.clone());
        let mut it = Self {
            rng: Rng::with_seed(schedule.seed),
            world,
            began,
            now: began,
            engine: Engine::new(settings),
            settings,
            alive: true,
            paused_until: began,
            agenda: BTreeMap::new(),
            planned: 0,
            ticks_at: None,
            checkpoint: None,
            journal: Vec::new(),
            read_at: began,
            disturbed_at: began,
            happened: 0,
            read_after: 0,
            rests_on: began,
            rests_after: 0,
            disturbed_after: 0,
            last_service: None,
            newest: None,
            primary: None,
            promotes: false,
            without: None,
            green_was_dead: false,
            decided: BTreeSet::new(),
            called: VecDeque::new(),
            ended: Ended::default(),
            hasher: DefaultHasher::new(),
            story: tell.then(Vec::new),
            violations: 0,
            schedule,
        };
        it.plan(Duration::ZERO, Todo::Restart);
        it
    }

    /// Without one of the shell's guards.
    pub(crate) fn without(mut self, guard: ShellMutant) -> Self {
        self.without = Some(guard);
        self
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> (Ended, Vec<String>) {
        let drain = self.schedule.setup.drain;
        let end = self.began.plus(self.schedule.calm_at + FINISH + drain + Duration::from_mins(1));
        // Two sweeps after the calm a bad green is decided on; what is open by then has until the end.
        let quiet = self.began.plus(self.schedule.calm_at + 3 * SWEEP);
        while let Some((at, _)) = self.agenda.keys().next().copied() {
            if at > end || (at > quiet && self.is_over()) {
                break;
            }
            let Some(((at, _), todo)) = self.agenda.pop_first() else { break };
            if todo.is_ours() && at < self.paused_until {
                let until = self.paused_until;
                self.agenda.insert((until, self.planned), todo);
                self.planned += 1;
                continue;
            }
            self.now = at;
            self.world.advance_to(at);
            self.listen();
            if todo.is_ours() && !self.alive {
                continue;
            }
            self.happen(todo);
            self.notice_violations();
        }
        self.judge_the_end();
        self.ended.trace = self.hasher.finish();
        (self.ended, self.story.unwrap_or_default())
    }

    /// Nothing is open, and nothing is wrong.
    fn is_over(&mut self) -> bool {
        let view = self.engine.service(&self.schedule.key, self.now);
        let closed = view.is_some_and(|view| view.deployment.is_none_or(|deployment| deployment.open_since.is_none()));
        self.alive && closed && self.waiting() <= FEW
    }

    fn plan(&mut self, after: Duration, todo: Todo) {
        self.agenda.insert((self.now.plus(after), self.planned), todo);
        self.planned += 1;
    }

    fn tell(&mut self, who: &str, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let at = humane(self.now.since(self.began));
            story.push(format!("{at:>8} {who:<9} {}", what()));
        }
    }

    fn calm(&self) -> bool {
        self.now.since(self.began) >= self.schedule.calm_at
    }

    fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && !self.calm() && self.rng.f64() < rate
    }

    fn latency(&mut self) -> Duration {
        let most = u64::try_from(self.schedule.faults.latency.as_millis()).unwrap();
        Duration::from_millis(self.rng.u64(1..=most.max(2)))
    }

    /// What the world has to tell, and whether it was disturbed.
    fn listen(&mut self) {
        for moment in self.world.drain_story() {
            moment.what.hash(&mut self.hasher);
            self.disturbed_at = self.disturbed_at.max(moment.at);
            if let Some(story) = &mut self.story {
                let at = humane(moment.at.since(self.began));
                story.push(format!("{at:>8} aws       {}", moment.what));
            }
        }
    }

    fn happen(&mut self, todo: Todo) {
        self.happened += 1;
        match todo {
            Todo::Read(ask, read_at) => self.read(&ask, read_at),
            Todo::Answer(key, answer, shows, after) => {
                if let Ok(seen) = &answer {
                    (self.read_at, self.read_after) = (shows, after);
                    let living = seen.service.task_sets.iter().filter(|set| set.is_living());
                    let primary = seen.service.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary);
                    self.primary = primary.map(|set| set.id.clone());
                    let newest = living.clone().max_by_key(|set| set.created_at);
                    let serving = |set: &TaskSet| match &set.target_group {
                        Some(group) => seen.targets.get(group).map_or(0, |counts| counts.healthy),
                        None => set.running,
                    };
                    self.green_was_dead = newest.is_none_or(|green| serving(green) == 0);
                    self.newest = living.map(|set| (set.created_at, set.id.clone())).max();
                }
                self.step(Input::Observed(key, answer));
            }
            Todo::Send(decided, expires_at) => self.send(decided, expires_at),
            Todo::Apply(decided, sent_at) => self.apply(decided, sent_at),
            Todo::Done(id, outcome) => self.step(Input::Done(id, outcome)),
            Todo::Announce(id, announcement) => self.announce(id, &announcement),
            Todo::Receive => self.receive(),
            Todo::Tick => {
                self.ticks_at = None;
                self.step(Input::Tick);
            }
            Todo::Sweep => {
                let found = BTreeSet::from([self.schedule.key.clone()]);
                self.plan(SWEEP, Todo::Sweep);
                self.step(Input::Swept(found));
            }
            Todo::Restart => self.restart(),
            Todo::Meddle(act) => self.meddle(&act),
        }
    }
}
