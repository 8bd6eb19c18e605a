//! Drives one or two workers and the sandbox world through one schedule, on virtual time and one thread: what the
//! worker's shell does, with every delay and every failure drawn from the seed.
//!
//! The engine, the journal with its table layout, the entries' codec and the lease's judgements are the real ones. What
//! waits and sends in the shell is told here again, on an agenda.

mod calls;
mod clock;
mod judge;
mod leadership;
mod queue;
mod reads;
mod table;
mod turn;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::engine::{DeploymentView, Settings};
use taskset_guardian::model::{
    Action, Announcement, AnnouncementKind, Ask, CallError, EffectId, IncidentId, Observation, Outcome, Phase,
    ServiceKey, ServiceReading, TaskSetId, Timestamp, TrafficRuleId, Write,
};
use taskset_guardian::rules::RuleSet;
use taskset_guardian::sandbox::world::{Act, World};
use tokio::runtime::{Builder, Runtime};

use crate::schedule::{self, Schedule, THIRD_COMES, is_disturbance};
use table::MemoryTable;
use worker::Worker;

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

/// More happenings than any schedule has: who needs more goes round in circles.
const ENDLESS: u64 = 1_000_000;

/// L1: an open rollback is done or escalated this long after its decision, and after the faults have stopped.
const FINISH: Duration = Duration::from_mins(5);

/// How long an escalated rollback is watched once nothing disturbs it any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that will happen.
#[derive(Debug)]
enum Todo {
    /// A worker does it, unless its process or its term is another one by then.
    Of { who: usize, process: u64, term: u64, own: Own },
    /// A write reaches AWS, whatever became of its sender. With the time of the sender's last check.
    Apply(usize, Decided, Timestamp),
    /// A process begins.
    Start(usize),
    /// Somebody acts while a process stands still.
    Meddle(ServiceKey, Act),
    /// A wall clock jumps by so many milliseconds.
    Jump(usize, i64),
    /// Rules are loaded.
    Load,
    /// The faults stop: clocks are set right.
    Calm,
}

impl Todo {
    fn is_sweep(&self) -> bool {
        matches!(self, Self::Of { own: Own::Sweep, .. })
    }
}

/// What a worker does.
#[derive(Debug)]
enum Own {
    /// It looks at the lease,
    Look,
    /// or renews it.
    Keep,
    /// What waits for the journal goes there.
    Commit,
    /// A read has room, by its number,
    BeginRead(ServiceKey, u64),
    /// and reaches AWS.
    Read(Ask, u64, Moment),
    Answer(ServiceKey, Result<Box<Observation>, CallError>, Asked),
    /// A write has room: the last check before it is sent.
    Send(Decided, Timestamp),
    Done(EffectId, Outcome),
    Announce(EffectId, Announcement),
    Receive,
    Tick,
    Sweep,
}

/// A read that was made.
#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u64,
    /// The time of what it shows.
    shows: Timestamp,
    /// The same of the second call for the task sets.
    again: Timestamp,
    /// The event after which it was made.
    after: u64,
    /// By the worker's monotonic clock.
    began: Duration,
}

/// On a worker's two clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    wall: Timestamp,
    elapsed: Duration,
}

/// The read that a step rests on.
#[derive(Clone, Copy, Debug, Default)]
struct Basis {
    /// The time of what it shows,
    read_at: Timestamp,
    /// of what its second call for the task sets shows, without which nothing is deleted,
    again_at: Timestamp,
    /// and the event after which it was made, for what happens within one millisecond.
    read_after: u64,
    /// It showed nothing healthy of green's: that blue need not be whole rests on it, and a target that passes its
    /// checks a moment later is no news that the world tells.
    green_was_dead: bool,
}

/// A write, and the read that it rests on.
#[derive(Clone, Debug)]
struct Decided {
    id: EffectId,
    service: ServiceKey,
    write: Write,
    basis: Basis,
    /// Of the lease under which it was decided.
    epoch: u64,
    /// By the worker's monotonic clock: not to be sent after this.
    until: Duration,
}

/// An announcement that somebody is to get.
#[derive(Debug)]
struct Owed {
    kind: AnnouncementKind,
    incident: Option<IncidentId>,
    since: Timestamp,
    /// Deliveries.
    times: u32,
    /// Deliveries whose answers were lost.
    unanswered: u32,
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
    /// A holder acts on until the journal refuses it.
    NoLeaseCheck,
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
    /// Virtual time.
    pub(crate) lasted: Duration,
    pub(crate) writes: u32,
    pub(crate) crashes: u32,
    /// Times that a worker took the lease over from another.
    pub(crate) takeovers: u32,
}

pub(crate) struct Simulation {
    schedule: Schedule,
    rng: Rng,
    /// Which replica answers a read: what is drawn from it changes nothing else.
    replicas: Rng,
    /// When one began not to know the service.
    unknown_from: Option<Timestamp>,
    world: World,
    began: Timestamp,
    now: Timestamp,
    settings: Settings,
    /// In boxes, since the map moves its values about.
    agenda: BTreeMap<(Timestamp, u64), Box<Todo>>,
    planned: u64,
    workers: Vec<Worker>,
    table: Arc<MemoryTable>,
    /// Where the journal's calls run; none of them waits.
    runtime: Runtime,
    without: Option<ShellMutant>,
    /// The last reads: when each was made, and what it showed of when.
    last_seen: BTreeMap<ServiceKey, (Timestamp, Timestamp, ServiceReading)>,
    /// Bodies of messages that were received: what an archive holds.
    archive: Vec<String>,
    judged: Judged,
    ended: Ended,
    hasher: DefaultHasher,
    story: Option<Vec<String>>,
}

/// What the judge remembers.
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
struct Judged {
    /// When the world last changed in a way that a check may not have seen,
    disturbed_at: Timestamp,
    /// and after which event, for what happens within one millisecond.
    disturbed_after: u64,
    happened: u64,
    /// What the write rests on which is applied just now.
    rests: Basis,
    /// Task sets on which a rollback was decided.
    decided: BTreeSet<TaskSetId>,
    /// Those that took over.
    graduated: BTreeSet<TaskSetId>,
    /// Of which service green was PRIMARY when the newest of them was.
    promotes: BTreeSet<ServiceKey>,
    /// Open rollbacks, by what was said of them.
    open: BTreeMap<IncidentId, (ServiceKey, Timestamp)>,
    /// Announcements that are owed, by their ids.
    owed: BTreeMap<String, Owed>,
    /// How often a worker began to act: each time it may say again what was not answered.
    terms: u32,
    /// A commit got no answer, and its worker did not live to try again: what it said may be durable.
    unsure: bool,
    /// Something was opened or ended since the engine's word on that was last checked.
    news: bool,
    /// When a write was last applied whose sender had been deposed, or had died long before: it counts as a shift, which
    /// nobody knows of.
    stray_at: Option<Timestamp>,
    /// Under which epoch a task set was deleted, and whether by a deposed worker.
    deleted: BTreeMap<String, (u64, bool)>,
    /// The journal was lost, and with it how often a rule was asserted.
    amnesia: bool,
    /// Writes to rules that were applied and whose answers were lost, with what the rules were before, until a read shows
    /// anything else.
    unheard: BTreeMap<TrafficRuleId, (EffectId, Vec<Action>)>,
    /// The answer to a write to a rule came late, or never.
    late_answers: bool,
    /// Somebody set a rule back in a way that no read can have shown: we overwrote it unseen, or it reads as if our write
    /// had never arrived. Nobody knows of that dispute.
    unseen_dispute: bool,
    /// A service was deleted and created anew.
    recreated: bool,
    /// There is a third task set, or was: who is called green may be blue to it.
    has_third: bool,
    /// When the newest task set was created,
    created_at: Timestamp,
    /// and when a worker last took one for green.
    begun_at: Timestamp,
    /// Since when no worker acts.
    leaderless_since: Timestamp,
    /// Of those that the world has found.
    violations: usize,
}

impl Simulation {
    pub(crate) fn new(schedule: Schedule, tell: bool) -> Self {
        let began = Timestamp::from_millis(1_772_445_600_000);
        let settings = Settings { dry_run: schedule.dry_run, sweep: schedule.sweep, fleet_brake: schedule::BRAKE };
        let world = World::new(schedule.seed, began, schedule.setup.clone());
        let workers = schedule.faults.clocks.iter().take(schedule.workers);
        let workers = workers.map(|clock| Worker::new(began, settings, clock)).collect();
        let judged = Judged {
            disturbed_at: began,
            disturbed_after: 0,
            happened: 0,
            rests: Basis { read_at: began, ..Basis::default() },
            decided: BTreeSet::new(),
            graduated: BTreeSet::new(),
            promotes: BTreeSet::new(),
            open: BTreeMap::new(),
            owed: BTreeMap::new(),
            terms: 0,
            unsure: false,
            news: false,
            stray_at: None,
            deleted: BTreeMap::new(),
            amnesia: false,
            unheard: BTreeMap::new(),
            late_answers: false,
            unseen_dispute: false,
            recreated: false,
            has_third: false,
            created_at: began,
            begun_at: began,
            leaderless_since: began,
            violations: 0,
        };
        let mut it = Self {
            rng: Rng::with_seed(schedule.seed),
            replicas: Rng::with_seed(schedule.seed ^ 0x0052_e911_ca5d),
            unknown_from: None,
            world,
            began,
            now: began,
            settings,
            agenda: BTreeMap::new(),
            planned: 0,
            workers,
            table: Arc::default(),
            runtime: Builder::new_current_thread().build().unwrap(),
            without: None,
            last_seen: BTreeMap::new(),
            archive: Vec::new(),
            judged,
            ended: Ended::default(),
            hasher: DefaultHasher::new(),
            story: tell.then(Vec::new),
            schedule,
        };
        for who in 0..it.workers.len() {
            it.plan(Duration::from_millis(who as u64), Todo::Start(who));
        }
        for (after, who, by_ms) in it.schedule.faults.jumps.clone() {
            it.plan(after, Todo::Jump(who, by_ms));
        }
        for at in 0..it.schedule.reloads.len() {
            it.plan(it.schedule.reloads[at].0, Todo::Load);
        }
        it.plan(it.schedule.calm_at, Todo::Calm);
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
        let hearing = self.schedule.hearing();
        let rest = self.schedule.rest;
        let end = self.began.plus(self.schedule.calm_at + rest + hearing + FINISH + drain + Duration::from_mins(1));
        // By then the calm has been read; what is open has until the end.
        let read = self.began.plus(self.schedule.calm_at + self.schedule.sweep);
        while let Some(((at, _), todo)) = self.agenda.pop_first() {
            if at > end || (at > read && todo.is_sweep() && self.is_over()) {
                break;
            }
            if self.judged.happened > ENDLESS {
                self.broken("L1", format!("{ENDLESS} things happened, and no end of it: {todo:?}"));
                break;
            }
            if let Todo::Of { who, .. } = &*todo
                && at < self.workers[*who].paused_until
            {
                let until = self.workers[*who].paused_until;
                self.agenda.insert((until, self.planned), todo);
                self.planned += 1;
                continue;
            }
            self.now = at;
            self.world.advance_to(at);
            self.listen();
            self.judged.happened += 1;
            self.happen(*todo);
            self.notice_violations();
            self.notice_leaders();
        }
        self.judge_the_end();
        self.ended.trace = self.hasher.finish();
        self.ended.lasted = self.now.since(self.began);
        (self.ended, self.story.unwrap_or_default())
    }

    /// Nothing is open, all is said, and whoever acts has had the time to look.
    fn is_over(&mut self) -> bool {
        let Some(who) = self.leader() else { return false };
        let Worker { able_since, acts_since, .. } = self.workers[who];
        let looked = able_since.max(acts_since).plus(3 * self.schedule.sweep) < self.now;
        let unwritten = self.workers[who].pending.is_some();
        let rests = self.now < self.began.plus(self.schedule.calm_at + self.schedule.rest);
        if rests || !looked || unwritten || self.judged.owed.values().any(|owed| owed.times == 0) {
            return false;
        }
        // Two sweeps after the calm a bad green is decided on. Who has called a person goes on trying, in the same way each
        // time: a few of those tries are enough.
        let (is_quiet, is_patient) = (self.quiet() < self.now, self.quiet().plus(PATIENCE) < self.now);
        let is_over = |deployment: DeploymentView| match deployment.phase {
            Phase::RolledBack | Phase::Graduated | Phase::Superseded => deployment.open_since.is_none(),
            Phase::Escalated => is_patient,
            _ => is_quiet && deployment.open_since.is_none(),
        };
        let protected = self.protected();
        let closed = |key| {
            let view = self.workers[who].engine.service(key, self.now);
            match view {
                Some(view) => protected.contains(key) && view.deployment.map_or(is_quiet, is_over),
                None => !protected.contains(key),
            }
        };
        if !is_quiet && self.world.is_awaiting_people() {
            return false;
        }
        self.schedule.keys().all(closed) && self.waiting() <= FEW
    }

    fn plan(&mut self, after: Duration, todo: Todo) {
        self.agenda.insert((self.now.plus(after), self.planned), Box::new(todo));
        self.planned += 1;
    }

    /// For a worker, in its process and its term.
    fn plan_own(&mut self, who: usize, after: Duration, own: Own) {
        let Worker { process, term, .. } = self.workers[who];
        self.plan(after, Todo::Of { who, process, term, own });
    }

    fn happen(&mut self, todo: Todo) {
        match todo {
            Todo::Of { who, process, term, own } => {
                let worker = &self.workers[who];
                // What waits to be sent outlives the term: its own check is to stop it.
                let of_the_process = matches!(own, Own::Send(..) | Own::Look);
                if worker.process == process && (worker.term == term || of_the_process) {
                    self.work(who, own);
                }
            }
            Todo::Apply(who, decided, sent_at) => self.apply(who, decided, sent_at),
            Todo::Start(who) => self.start(who),
            Todo::Meddle(key, act) => self.meddle(&key, &act),
            Todo::Jump(who, by_ms) => {
                let calm = self.calm();
                if let Some(worker) = self.workers.get_mut(who).filter(|_| !calm) {
                    worker.clock.jump(by_ms);
                    self.tell_of(who, "fault", || format!("the wall clock jumps by {by_ms} ms"));
                }
            }
            Todo::Load => self.load(),
            Todo::Calm => {
                self.tell("fault", || "the faults stop".to_owned());
                let now = self.now;
                self.workers.iter_mut().for_each(|worker| worker.clock.set_right(now));
            }
        }
    }

    fn work(&mut self, who: usize, own: Own) {
        match own {
            Own::Look => self.look(who),
            Own::Keep => self.keep(who),
            Own::Commit => self.commit(who),
            Own::BeginRead(key, id) => self.begin_read(who, &key, id),
            Own::Read(ask, id, sent) => self.read(who, &ask, id, sent),
            Own::Answer(key, answer, asked) => self.answered(who, key, answer, asked),
            Own::Send(decided, expires_at) => self.send(who, decided, expires_at),
            Own::Done(id, outcome) => self.returned(who, id, outcome),
            Own::Announce(id, announcement) => self.announce(who, id, &announcement),
            Own::Receive => self.receive(who),
            Own::Tick => self.tick(who),
            Own::Sweep => self.sweep(who),
        }
    }

    fn tell(&mut self, who: &str, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let at = self.now.since(self.began).as_secs_f64();
            story.push(format!("{at:>8.3} {who:<9} {}", what()));
        }
    }

    /// Something of one of several workers.
    fn tell_of(&mut self, who: usize, kind: &str, what: impl FnOnce() -> String) {
        let several = self.workers.len() > 1;
        self.tell(kind, || if several { format!("[{who}] {}", what()) } else { what() });
    }

    /// What the world has to tell, and whether it was disturbed.
    fn listen(&mut self) {
        for moment in self.world.drain_story() {
            moment.what.hash(&mut self.hasher);
            if moment.what.contains("the deployer creates") {
                self.judged.created_at = moment.at;
            }
            self.judged.recreated |= moment.what.contains("creates the service anew");
            self.judged.has_third |= moment.what.contains(THIRD_COMES);
            if is_disturbance(&moment.what, self.judged.has_third) {
                self.judged.disturbed_at = self.judged.disturbed_at.max(moment.at);
            }
            if let Some(story) = &mut self.story {
                let at = moment.at.since(self.began).as_secs_f64();
                story.push(format!("{at:>8.3} aws       {}", moment.what));
            }
        }
    }

    /// From here on a schedule may be over in which nothing was decided, or somebody is still to act. Of a green that is not
    /// bad nothing is promised.
    fn quiet(&self) -> Timestamp {
        let Schedule { calm_at, sweep, bad, .. } = self.schedule;
        let judged = if bad { 3 * sweep + self.schedule.hearing() } else { sweep };
        self.began.plus(calm_at).max(self.judged.begun_at).plus(judged)
    }

    /// In force.
    fn rules(&self) -> &RuleSet {
        self.schedule.rules_at(self.now.since(self.began))
    }

    fn calm(&self) -> bool {
        self.now.since(self.began) >= self.schedule.calm_at
    }

    fn during(&self, (from, until): (Duration, Duration)) -> bool {
        let since = self.now.since(self.began);
        from <= since && since < until && !self.calm()
    }

    fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && !self.calm() && self.rng.f64() < rate
    }

    /// Up to this.
    fn within(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.rng.u64(0..=u64::try_from(most.as_millis()).unwrap()))
    }

    fn latency(&mut self) -> Duration {
        self.within(self.schedule.faults.latency).max(Duration::from_millis(1))
    }
}
