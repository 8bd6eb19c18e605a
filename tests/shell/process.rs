//! A process: one life of a worker, from the opening of its journal to its end, by itself, as told, or killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use taskset_guardian::engine;
use taskset_guardian::model::{ServiceKey, Timestamp, humane};
use taskset_guardian::ports::{Clock, Lease as _};
use taskset_guardian::runtime::lease::LENGTH;
use taskset_guardian::runtime::{Handle, Observer, Ports, RuleLoader, Settings, Worker, WorkerError, decoder};
use taskset_guardian::sandbox::client::Client;
use taskset_guardian::telemetry::Metrics;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::hands::{Eyes, Hands, hook};
use crate::judge::Seen;
use crate::line::{QUEUE, Wire};
use crate::schedule::BRAKE;
use crate::stage::{BEGAN, Stage};
use crate::store::{Kept, TableLine};

/// Who ends by itself is started again.
const AGAIN: Duration = Duration::from_secs(2);

/// ECS's default `stopTimeout`: who has not ended by then is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// One process.
pub(crate) struct Life {
    pub(crate) who: usize,
    pub(crate) stage: Arc<Stage>,
    /// It can do nothing any more, whatever tasks of it are left.
    pub(crate) dead: CancellationToken,
    /// SIGTERM.
    pub(crate) stop: CancellationToken,
    facts: Mutex<Facts>,
}

/// What is known of a process from its calls and reports.
#[derive(Default)]
pub(crate) struct Facts {
    /// Nothing that it sends leaves before this.
    pub(crate) stalled_until: Timestamp,
    pub(crate) held_back: u32,
    /// Of the lease that it has or had; 0 before.
    pub(crate) epoch: u64,
    /// Until when it may act; `None` without a lease.
    pub(crate) may_act_until: Option<Instant>,
    pub(crate) gave_back: bool,
    /// Of each service the newest observation, the newest when the inputs in the newest commit were taken, and the one
    /// that the newest write rests on.
    pub(crate) answered: BTreeMap<ServiceKey, Seen>,
    pub(crate) stepped: BTreeMap<ServiceKey, Seen>,
    pub(crate) rests_on: BTreeMap<ServiceKey, Seen>,
    /// Whose a rule or a listener is, by its ARN.
    pub(crate) rules: BTreeMap<String, ServiceKey>,
    /// Of when the services are that the read under way has shown.
    pub(crate) shows: Option<Timestamp>,
    /// A commit is being tried, perhaps not for the first time.
    pub(crate) committing: bool,
    /// Writes that its reports named, when the newest of them was, and how many were sent.
    pub(crate) intents: usize,
    pub(crate) intended_at: Timestamp,
    pub(crate) sent: usize,
    /// What the writes that are not answered yet rest on, by what they change.
    pub(crate) in_flight: BTreeMap<String, Seen>,
    /// Signals that its reports named, and messages with a signal that it deleted. Receipts of all that it received, and
    /// whether they hold a signal.
    pub(crate) heard: usize,
    pub(crate) deleted: BTreeSet<String>,
    pub(crate) received: BTreeMap<String, bool>,
    pub(crate) handle: Option<Handle>,
}

impl Life {
    fn new(stage: &Arc<Stage>, who: usize) -> Self {
        let (dead, stop) = (CancellationToken::new(), CancellationToken::new());
        Self { who, stage: Arc::clone(stage), dead, stop, facts: Mutex::default() }
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Returns when the process can do something; never once it is dead.
    pub(crate) async fn present(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let (until, now) = (self.facts().stalled_until, self.stage.now());
            if until <= now {
                return;
            }
            sleep(until.since(now)).await;
        }
    }

    /// What it sends is held back from now on, as when the machine stands still behind the sending.
    pub(crate) fn stall(&self) {
        let stalled = self.stage.within(self.stage.schedule.faults.paused);
        let until = self.stage.now().plus(stalled);
        let mut facts = self.facts();
        facts.stalled_until = until;
        facts.held_back += 1;
        drop(facts);
        self.tell("fault", || format!("what it sends is held back for {}", humane(stalled)));
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, when: &str) {
        if !self.is_dead() {
            self.dead.cancel();
            let mut state = self.stage.enter();
            state.ended.crashes += 1;
            state.trace(("killed", self.who));
            drop(state);
            self.tell("fault", || format!("the process dies {when}"));
        }
    }

    pub(crate) fn tell(&self, kind: &str, what: impl FnOnce() -> String) {
        let (who, several) = (self.who, self.stage.schedule.workers > 1);
        self.stage.tell(kind, || if several { format!("[{who}] {}", what()) } else { what() });
    }

    pub(crate) fn broken(&self, invariant: &str, what: impl Into<String>) {
        self.stage.broken(invariant, what.into());
    }
}

/// A worker's clock: the wall is its machine's, what it waits is everybody's.
struct Wall(Arc<Life>);

#[async_trait]
impl Clock for Wall {
    fn now(&self) -> Timestamp {
        self.0.stage.wall(self.0.who)
    }

    fn at_once(&self) -> (Timestamp, Duration) {
        (self.now(), self.0.stage.monotonic(self.0.who))
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }
}

/// The rules that are in force by now, when their files can be read.
fn loader(life: &Arc<Life>) -> RuleLoader {
    let stage = Arc::clone(&life.stage);
    Arc::new(move || {
        let bad = stage.during(stage.trouble.bad_rules);
        let loaded = if bad {
            Err("injected".to_owned())
        } else {
            Ok(stage.schedule.rules_at(stage.now().since(BEGAN)).clone())
        };
        Box::pin(std::future::ready(loaded))
    })
}

async fn ports(life: &Arc<Life>) -> Option<Ports> {
    let kept = Kept::open(Arc::clone(life), Arc::new(TableLine::new(Arc::clone(life)))).await?;
    let clock = Arc::new(Wall(Arc::clone(life)));
    let client = Arc::new(Client::new(Wire(Arc::clone(life)), QUEUE));
    let observer = Observer::new(client.clone(), client.clone(), client.clone(), clock.clone());
    let hands = Arc::new(Hands(Arc::clone(life), Arc::clone(&client)));
    let kept = Arc::new(kept);
    if life.stage.trouble.owns_journal {
        // A worker that has no rivals takes its journal as it is, like one with a file.
        let record = kept.look().await.ok()?;
        kept.acquire(record.as_ref(), LENGTH).await.ok()??;
        life.facts().may_act_until = None;
    }
    Some(Ports {
        clock,
        inbox: client.clone(),
        fleet: client.clone(),
        registrations: client.clone(),
        observer: Arc::new(Eyes(Arc::clone(life), observer)),
        actuator: if life.stage.schedule.dry_run { None } else { Some(hands) },
        announcer: Some(client),
        journal: kept.clone(),
        lease: if life.stage.trouble.owns_journal { None } else { Some(kept) },
        decode: decoder(),
        rules: loader(life),
    })
}

thread_local! {
    /// What workers count is looked at by nobody here, and a registry of their own would cost more than all the rest.
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
}

/// A process of this worker after another, for ever.
pub(crate) async fn live(stage: Arc<Stage>, who: usize) {
    loop {
        let life = Arc::new(Life::new(&stage, who));
        stage.enter().lives[who] = Some(Arc::clone(&life));
        let pause = if run(&life).await { AGAIN } else { stage.within(stage.schedule.faults.dead) };
        life.dead.cancel();
        bury(&stage);
        sleep(pause).await;
    }
}

/// When all processes are dead, the journal may get lost.
fn bury(stage: &Stage) {
    let all_dead = stage.enter().lives.iter().flatten().all(|life| life.is_dead());
    if all_dead && stage.chance(stage.schedule.faults.journal_gone) {
        stage.tell("fault", || "the journal is gone".to_owned());
        stage.table.empty();
        let mut state = stage.enter();
        state.judged.decided.clear();
        state.judged.amnesia = true;
        state.tables += 1;
        state.judged.epoch = 0;
    }
}

/// One process to its end. True when it ended by itself.
async fn run(life: &Arc<Life>) -> bool {
    let ports = tokio::select! {
        biased;
        () = life.dead.cancelled() => return false,
        // Before it is there to hear it, a signal ends it at once.
        () = life.stop.cancelled() => return false,
        ports = ports(life) => ports,
    };
    let Some(ports) = ports else {
        life.tell("fault", || "the process can't open its journal and exits".to_owned());
        return true;
    };
    let schedule = &life.stage.schedule;
    let engine = engine::Settings { dry_run: schedule.dry_run, sweep: schedule.sweep, fleet_brake: BRAKE };
    let settings = Settings { engine, receivers: life.stage.trouble.receivers };
    let worker = Worker::new(ports, settings, METRICS.with(Arc::clone), vec![hook(life)]);
    life.facts().handle = Some(worker.handle());
    let mut running = tokio::spawn(worker.run(life.stop.clone()));
    tokio::select! {
        biased;
        () = life.dead.cancelled() => {}
        ended = &mut running => {
            note_end(life, ended.unwrap());
            return !life.stop.is_cancelled();
        }
        () = out_of_patience(life) => life.broken("shutdown", "it did not end within 30 s"),
    }
    running.abort();
    drop(running.await);
    false
}

/// Told to end, and the time for that is over. What is held back counts from when it is not any more.
async fn out_of_patience(life: &Life) {
    life.stop.cancelled().await;
    life.stage.tell("person", || format!("tells worker {} to end", life.who));
    loop {
        let held_back = life.facts().held_back;
        sleep(STOP_TIMEOUT).await;
        life.present().await;
        if life.facts().held_back == held_back && life.facts().stalled_until.plus(STOP_TIMEOUT) <= life.stage.now() {
            return;
        }
    }
}

fn note_end(life: &Life, ended: Result<(), WorkerError>) {
    match ended {
        Ok(()) if life.stop.is_cancelled() => {
            life.stage.enter().ended.shutdowns += 1;
            life.tell("process", || "ended in order".to_owned());
        }
        Ok(()) => life.broken("shutdown", "it ended, and nobody told it to"),
        // What was asked for during the faults may be answered, or given up, after them.
        Err(error @ (WorkerError::Journal(_) | WorkerError::Rules(_) | WorkerError::Overdue))
            if !life.stage.is_calm_for(STOP_TIMEOUT) =>
        {
            life.tell("process", || format!("exits: {error}"));
        }
        Err(error) => life.broken("exit", error.to_string()),
    }
}
