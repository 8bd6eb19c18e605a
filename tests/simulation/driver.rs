//! Drives the engine and the sandbox world through one schedule, on virtual time and one thread: what the worker's shell
//! does, with every delay and every failure drawn from the seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::engine::{DeploymentView, Effect, Engine, Input, Note, Settings};
use taskset_guardian::events::{self, Decoded};
use taskset_guardian::model::{
    Announcement, AnnouncementKind, Ask, CallError, EffectId, ErrorClass, Gate, Observation, Outcome, Phase, Role,
    ServiceKey, ServiceReading, TaskSet, TaskSetId, TaskSetStatus, Timestamp, Write, humane,
};
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};
use taskset_guardian::sandbox::direct;
use taskset_guardian::sandbox::world::{Act, World};

use crate::schedule::{self, Schedule};

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

    /// Messages in the queue.
    fn waiting(&mut self) -> u32 {
        match self.world.call(Call::GetQueueAttributes { queue_url: QUEUE.to_owned() }) {
            Ok(Reply::Attributes(all)) => {
                all.get("ApproximateNumberOfMessages").and_then(|n| n.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        }
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

    /// One input, as the turn takes it: stepped, made durable, and only then let go.
    fn step(&mut self, input: Input) {
        let pause = self.schedule.faults.pause;
        if self.chance(pause) {
            self.pause();
        }
        let step = self.engine.step(self.now, input.clone());
        if self.chance(self.schedule.faults.crash_before_commit) && step.changed {
            return self.crash("before the commit");
        }
        let forgets = self.without == Some(ShellMutant::NoDurableIntent) && matches!(input, Input::Observed(..));
        if step.changed && !forgets {
            self.journal.push((self.now, input));
        }
        for note in &step.report.notes {
            self.heed(note);
        }
        if self.chance(self.schedule.faults.crash_after_commit) {
            return self.crash("after the commit");
        }
        if self.journal.len() >= 40 {
            self.checkpoint = Some(self.engine.checkpoint().unwrap());
            self.journal.clear();
        }
        for effect in step.effects {
            match effect {
                Effect::Observe(ask) => {
                    let latency = self.latency();
                    self.plan(latency, Todo::Read(ask, self.now));
                }
                Effect::Write { id, write, expires_at, .. } => {
                    let latency = self.latency() / 10;
                    let decided = Decided { id, write, read_at: self.read_at, read_after: self.read_after };
                    self.plan(latency, Todo::Send(decided, expires_at));
                }
                Effect::Announce(id, announcement) => {
                    let latency = self.latency();
                    self.plan(latency, Todo::Announce(id, announcement));
                }
                Effect::Keep(_) => {}
            }
        }
        let deadline = self.engine.next_deadline();
        if let Some(at) = deadline.filter(|at| self.ticks_at.is_none_or(|planned| *at < planned)) {
            self.ticks_at = Some(at);
            self.plan(at.since(self.now), Todo::Tick);
        }
    }

    fn heed(&mut self, note: &Note) {
        match note {
            Note::Decided { held: false, evidence, .. } => {
                self.ended.decided = true;
                let green = evidence.first().map(|evidence| evidence.task_set.clone());
                let oldest =
                    evidence.iter().filter(|evidence| evidence.gate == Gate::TaskFailures).map(|e| e.from).min();
                if self.schedule.sound && oldest.is_some() {
                    self.broken("S7", "a sound green is rolled back for failed tasks".to_owned());
                }
                self.promotes = green.is_some() && green == self.primary;
                if green.is_some_and(|green| !self.decided.insert(green)) {
                    self.broken("S5", "a second decision on one task set".to_owned());
                }
                let window = self.schedule.rules.rules[0].stability.window;
                if oldest.is_some_and(|oldest| self.now.since(oldest) > window) {
                    self.broken("S7", format!("decided on evidence of {oldest:?}"));
                }
            }
            Note::Sent { what, .. } => {
                what.hash(&mut self.hasher);
                if what.starts_with("UpdateServicePrimaryTaskSet") && !self.promotes {
                    self.broken("superseded", "green was promoted after the decision, and demoted".to_owned());
                }
                let view = self.engine.service(&self.schedule.key, self.now).and_then(|view| view.deployment);
                let newer = |(view, (at, newest)): &(DeploymentView, (Timestamp, TaskSetId))| {
                    *at > view.began_at && *newest != view.green
                };
                if let Some((view, (_, newest))) = view.zip(self.newest.clone()).filter(newer) {
                    self.broken("superseded", format!("{what}, though {newest} came after {}", view.green));
                }
            }
            _ => {}
        }
        if self.story.is_some()
            && let Some((_, said)) = taskset_guardian::telemetry::narrate(note)
        {
            self.tell("guardian", || said);
        }
    }

    fn broken(&mut self, invariant: &str, what: String) {
        self.tell("BROKEN", || format!("{invariant}: {what}"));
        self.ended.broken.push(Broken { invariant: invariant.to_owned(), what, race: false });
    }

    /// What the world found. A change in the world between our read and our call is a race that AWS leaves open.
    fn notice_violations(&mut self) {
        let found: Vec<_> = self.world.violations()[self.violations..].to_vec();
        self.violations += found.len();
        for violation in found {
            let revived = violation.invariant == "S3" && self.green_was_dead;
            let disturbed = self.disturbed_at > self.rests_on || self.disturbed_after > self.rests_after;
            let unseen = disturbed || revived;
            let race = unseen && self.now.since(self.rests_on) <= LONGEST_BLINDNESS;
            self.tell("BROKEN", || format!("{violation}{}", if race { " (race)" } else { "" }));
            self.ended.broken.push(Broken { invariant: violation.invariant.to_owned(), what: violation.what, race });
        }
    }

    fn pause(&mut self) {
        let most = u64::try_from(self.schedule.faults.paused.as_millis()).unwrap();
        let paused = Duration::from_millis(self.rng.u64(0..=most));
        self.paused_until = self.now.plus(paused);
        self.tell("fault", || format!("the process stands still for {}", humane(paused)));
        if self.rng.bool() {
            let act = schedule::meddling(&mut self.rng);
            self.plan(paused / 2, Todo::Meddle(act));
        }
    }

    fn crash(&mut self, when: &str) {
        self.ended.crashes += 1;
        self.tell("fault", || format!("the process dies {when}"));
        self.alive = false;
        self.ticks_at = None;
        self.agenda.retain(|_, todo| !todo.is_ours());
        let most = u64::try_from(self.schedule.faults.dead.as_millis()).unwrap();
        let dead = Duration::from_millis(self.rng.u64(0..=most));
        self.plan(dead, Todo::Restart);
    }

    /// The next process: the checkpoint, the entries after it, through their bytes.
    fn restart(&mut self) {
        let mut engine = match &self.checkpoint {
            Some(bytes) => Engine::restore(self.settings, bytes).unwrap(),
            None => Engine::new(self.settings),
        };
        for entry in &self.journal {
            let bytes = serde_json::to_vec(entry).unwrap();
            let (at, input): (Timestamp, Input) = serde_json::from_slice(&bytes).unwrap();
            let _ = engine.step(at, input);
        }
        self.engine = engine;
        self.alive = true;
        self.paused_until = self.now;
        self.step(Input::Restarted);
        if self.alive {
            self.step(Input::Rules(self.schedule.rules.clone()));
        }
        if self.alive {
            self.plan(Duration::ZERO, Todo::Sweep);
            self.plan(RECEIVE, Todo::Receive);
        }
    }

    fn outage(&self) -> bool {
        let since = self.now.since(self.began);
        let (from, until) = self.schedule.faults.outage;
        from <= since && since < until && !self.calm()
    }

    fn fault(&mut self, operation: &str, class: ErrorClass) -> CallError {
        self.tell("fault", || format!("{operation}: {}", class.as_str()));
        CallError { class, operation: operation.to_owned(), code: None, message: "injected".to_owned() }
    }

    fn read(&mut self, ask: &Ask, read_at: Timestamp) {
        let key = ask.service.clone();
        if ask.twice && self.chance(self.schedule.faults.meddling) {
            self.meddle(&Act::SetPrimary(Role::Green));
        }
        let now = self.now;
        let mut shows = self.now.minus(self.schedule.setup.lag);
        let answer = if self.outage() || self.chance(self.schedule.faults.failed_before) {
            Err(self.fault("observe", ErrorClass::Transient))
        } else if self.chance(self.schedule.faults.throttled) {
            Err(self.fault("observe", ErrorClass::Throttled))
        } else {
            direct::observe(&mut self.world, ask, read_at).map(|mut seen| {
                let fresh = (self.now, seen.service.clone());
                let old = self.last_service.replace(fresh).filter(|(at, _)| self.now.since(*at) <= LAG);
                if let Some((at, old)) = old
                    && self.chance(self.schedule.faults.stale_read)
                {
                    seen.service.task_sets = old.task_sets;
                    shows = shows.min(at);
                }
                if ask.twice {
                    // The second call is not answered by what was.
                    shows = now;
                }
                Box::new(seen)
            })
        };
        let latency = self.latency();
        self.plan(latency, Todo::Answer(key, answer, shows, self.happened));
    }

    fn meddle(&mut self, act: &Act) {
        self.tell("person", || format!("{act:?}"));
        let key = self.schedule.key.clone();
        self.world.person(&key, act);
        (self.disturbed_at, self.disturbed_after) = (self.now, self.happened);
    }

    /// The executor's last look before a write leaves.
    fn send(&mut self, decided: Decided, expires_at: Timestamp) {
        if self.now > expires_at && self.without != Some(ShellMutant::NoExpiry) {
            return self.plan(Duration::ZERO, Todo::Done(decided.id, Outcome::Expired));
        }
        if self.chance(self.schedule.faults.meddling) {
            let act = schedule::meddling(&mut self.rng);
            self.meddle(&act);
        }
        if self.chance(self.schedule.faults.pause) {
            // The check is behind it, the call before it. Nothing at AWS can tell how old it is.
            self.pause();
            let held = self.paused_until.since(self.now);
            return self.plan(held, Todo::Apply(decided, self.now));
        }
        let latency = self.latency();
        self.plan(latency, Todo::Apply(decided, self.now));
    }

    fn apply(&mut self, decided: Decided, sent_at: Timestamp) {
        let Decided { id, write, read_at, read_after } = decided;
        (self.rests_on, self.rests_after) = (read_at, read_after);
        let operation = write.operation();
        let late = self.now.since(sent_at) > TIMEOUT;
        let denied = self.now.since(self.began) < self.schedule.faults.denied_until && !self.calm();
        let outcome = if self.outage() || self.chance(self.schedule.faults.failed_before) {
            Outcome::Failed(self.fault(operation, ErrorClass::Transient))
        } else if self.chance(self.schedule.faults.throttled) {
            Outcome::Failed(self.fault(operation, ErrorClass::Throttled))
        } else if denied {
            Outcome::Failed(self.fault(operation, ErrorClass::Denied))
        } else {
            if late {
                // Sent after a stand-still: what happened meanwhile is as good as unseen.
                (self.disturbed_at, self.disturbed_after) = (self.now, self.happened);
                (self.rests_on, self.rests_after) = (self.now, self.happened - 1);
            }
            self.ended.writes += 1;
            operation.hash(&mut self.hasher);
            self.tell("call", || format!("{operation} is applied"));
            match direct::apply(&mut self.world, &write) {
                Ok(()) if self.chance(self.schedule.faults.failed_after) => {
                    Outcome::Failed(self.fault(operation, ErrorClass::Transient))
                }
                Ok(()) => Outcome::Applied,
                Err(error) if error.class == ErrorClass::NotFound && operation == "DeleteTaskSet" => {
                    Outcome::AlreadyDone
                }
                Err(error) => Outcome::Failed(error),
            }
        };
        if !self.alive {
            return;
        }
        if self.chance(self.schedule.faults.crash_after_apply) {
            return self.crash("after a call was applied");
        }
        let latency = self.latency();
        self.plan(latency, Todo::Done(id, outcome));
    }

    fn announce(&mut self, id: EffectId, announcement: &Announcement) {
        let failed = self.outage() || self.chance(self.schedule.faults.failed_before);
        let outcome = if failed {
            Outcome::Failed(self.fault("PutEvents", ErrorClass::Transient))
        } else {
            direct::announce(&mut self.world, announcement).map_or_else(Outcome::Failed, |()| Outcome::Applied)
        };
        if outcome == Outcome::Applied {
            self.ended.escalated |= announcement.kind == AnnouncementKind::RollbackEscalated;
            self.ended.completed |= announcement.kind == AnnouncementKind::RollbackCompleted;
            self.called.push_back(announcement.kind.detail_type().to_owned());
        }
        let latency = self.latency();
        self.plan(latency, Todo::Done(id, outcome));
    }

    /// One poll: each message decoded, taken, made durable, and only then deleted.
    fn receive(&mut self) {
        if self.schedule.faults.noise > 0 && !self.calm() && self.rng.u8(0..20) == 0 {
            self.schedule.faults.noise -= 1;
            self.noise();
        }
        let receive = Call::ReceiveMessage { queue_url: QUEUE.to_owned(), max: 10, visibility: None };
        let Ok(Reply::Messages(messages)) = self.world.call(receive) else { return };
        // A full answer says that there is more.
        let next = if messages.len() < 10 { RECEIVE } else { RECEIVE / 50 };
        self.plan(next, Todo::Receive);
        let mut done = Vec::new();
        for message in messages {
            if self.chance(self.schedule.faults.lost_event) {
                done.push(message.receipt);
                continue;
            }
            if let Ok(Decoded::Signal(signal)) = events::decode(&message.body) {
                let early = self.without == Some(ShellMutant::AcknowledgeBeforeCommit);
                let durable = self.journal.len();
                self.step(Input::Signal(signal));
                if !self.alive {
                    if early && self.journal.len() == durable {
                        self.broken("S8", "a message is deleted, and what it said is lost".to_owned());
                    }
                    return;
                }
            }
            if !self.chance(self.schedule.faults.repeated_event) {
                done.push(message.receipt);
            }
        }
        if !done.is_empty() {
            let delete = Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts: done };
            let _ = self.world.call(delete);
        }
    }

    /// An event that says nothing true: forged, or hours old.
    fn noise(&mut self) {
        let old = if self.rng.bool() { Duration::from_hours(6) } else { Duration::ZERO };
        let at = self.now.minus(old);
        let task_set = self.last_service.as_ref().and_then(|(_, service)| service.task_sets.last());
        let started_by = task_set.map_or_else(|| "ecs-svc/1".to_owned(), |set| set.id.to_string());
        let arn = |what: String| format!("arn:aws:ecs:eu-west-1:111122223333:{what}");
        let task = format!("{:032x}", self.rng.u128(..));
        let body = serde_json::json!({
            "version": "0", "id": task, "detail-type": "ECS Task State Change", "source": "aws.ecs",
            "account": "111122223333", "time": at, "region": "eu-west-1", "resources": [],
            "detail": {
                "clusterArn": arn("cluster/prod".to_owned()), "taskArn": arn(format!("task/prod/{task}")),
                "group": "service:checkout", "startedBy": started_by, "lastStatus": "STOPPED",
                "desiredStatus": "STOPPED", "version": 4, "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited", "stoppedAt": at,
            },
        });
        let send = Call::SendMessage { queue_url: QUEUE.to_owned(), body: body.to_string() };
        let _ = self.world.call(send);
    }

    /// Liveness: some minutes after the faults have stopped.
    fn judge_the_end(&mut self) {
        self.listen();
        self.notice_violations();
        let key = self.schedule.key.clone();
        let Some(view) = self.engine.service(&key, self.now) else {
            return self.broken("L2", "the service is not known at the end".to_owned());
        };
        let Some(deployment) = view.deployment else { return };
        if let Some(since) = deployment.open_since
            && deployment.phase != Phase::Escalated
        {
            let open = humane(self.now.since(since));
            self.broken("L1", format!("open for {open}, in {}: {}", deployment.phase, deployment.why));
        }
        if deployment.phase == Phase::Escalated && !self.called.iter().any(|said| said == "Rollback Escalated") {
            self.broken("L5", "escalated, and nobody was called".to_owned());
        }
        let waiting = self.waiting();
        if waiting > FEW {
            self.broken("L3", format!("{waiting} messages are left in the queue"));
        }
        let judged = matches!(deployment.phase, Phase::Watching);
        if self.schedule.bad && judged && deployment.green_failures >= 6 {
            self.broken(
                "L2",
                format!("{} failures, and nothing is decided: {}", deployment.green_failures, deployment.why),
            );
        }
    }
}
