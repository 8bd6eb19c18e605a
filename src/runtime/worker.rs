//! The worker: puts the parts together, begins where the journal ends, and ends in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::WallClockWatch;
use super::entry::{self, Encoder};
use super::executor::{Executor, Observe};
use super::handle::Handle;
use super::health::{Health, Part};
use super::leader::{Held, Term, Watcher};
use super::machine::Machine;
use super::mutants::{Mutant, without};
use super::pump::{Arrival, Decoder, Pump};
use super::receipts::Custodian;
use super::reload::{Reload, RuleLoader};
use super::sweep::{Gauge, Sweep};
use super::turn::{Behind, Pending, QUESTIONS, Question, Turn};
use crate::engine::{self, Engine, Input, Report, StatusView};
use crate::model::{Timestamp, humane};
use crate::ports::{Actuator, Announcer, Clock, Fleet, Inbox, Journal, JournalError, Lease, Registrations};
use crate::rules::{Protect, RuleSet};
use crate::telemetry::{History, Metrics};

/// Answers, sweeps and rules on their way to the loop.
const CONTROL: usize = 256;
/// Signals on their way to the loop. When it is full, the pump stops receiving and the queue holds the rest.
const SIGNALS: usize = 1024;

/// From the order to stop to the end, whatever hangs. A long poll takes 10 s of it, and what was sent 10 s to be answered;
/// giving the lease back takes another 4 s at most. All fits into ECS's default `stopTimeout` of 30 s.
const ENDS_WITHIN: Duration = Duration::from_secs(25);

/// At a takeover the rule files are read within this time, or the last good rules stay in force.
const RULES_WITHIN: Duration = Duration::from_secs(5);

/// From one takeover whose journal can't be read to the next: from here, doubling,
const UNREAD_PAUSE: Duration = Duration::from_secs(1);

/// up to here. Meanwhile another replica may have better luck.
const UNREAD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Sees every report, after its inputs are durable, with the time of its step.
pub type Hook = Arc<dyn Fn(&Report, Timestamp) + Send + Sync>;

/// Everything outside.
#[derive(Clone)]
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The queue.
    pub inbox: Arc<dyn Inbox>,
    /// Lists services.
    pub fleet: Arc<dyn Fleet>,
    /// Finds services by their tag.
    pub registrations: Arc<dyn Registrations>,
    /// Reads a service.
    pub observer: Arc<dyn Observe>,
    /// `None`: a dry run, which has nothing to write with.
    pub actuator: Option<Arc<dyn Actuator>>,
    /// `None`: announcements go to the log alone.
    pub announcer: Option<Arc<dyn Announcer>>,
    /// Durable state.
    pub journal: Arc<dyn Journal>,
    /// The right to act. `None`: the journal is this worker's alone, and so is the right.
    pub lease: Option<Arc<dyn Lease>>,
    /// Reads a message body.
    pub decode: Decoder,
    /// Reads the rule files.
    pub rules: RuleLoader,
}

/// How the worker was started.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For the engine.
    pub engine: engine::Settings,
    /// Long polls at once.
    pub receivers: usize,
}

/// The worker can't begin, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The rule files are bad at start, when there are no last good rules.
    #[error("the rule files are bad:\n{0}")]
    Rules(String),
    /// The journal can't be read at start, or not be written at the end.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds what this version does not understand.
    #[error(
        "the journal holds {what} that this version can't read: {cause}. Run the version that wrote it, or move the \
         journal away: protection then begins anew from what AWS says"
    )]
    Incompatible {
        /// Checkpoint or entry.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// An input can't be written.
    #[error("an input can't be written to the journal: {0}")]
    Encode(String),
    /// It was told to end and could not do it in order.
    #[error(
        "it did not end in order within {}: what was not answered is looked at after the restart",
        humane(ENDS_WITHIN)
    )]
    Overdue,
    /// A part ended that should not have.
    #[error("the {part} ended unexpectedly: {cause}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        cause: String,
    },
}

impl WorkerError {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(crate) fn encode(error: serde_json::Error) -> Self {
        Self::Encode(error.to_string())
    }
}

/// One worker, not begun yet.
pub struct Worker {
    ports: Ports,
    settings: Settings,
    only: Vec<Protect>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    health: Arc<Health>,
    hooks: Vec<Hook>,
    reload: Arc<Notify>,
    ask: mpsc::Sender<Question>,
    /// Answered by the engine's loop, and by the worker itself while it stands by.
    questions: Arc<Mutex<mpsc::Receiver<Question>>>,
    started_at: Timestamp,
}

/// A part's name, and how it ended.
type Ended = (&'static str, Result<(), WorkerError>);

/// A takeover that came to nothing: the journal could not be read.
struct Unread {
    cause: JournalError,
    /// So long this replica leaves the lease to the others.
    pause: Duration,
}

impl Unread {
    /// After the last one, if the takeover before came to nothing as well.
    fn after(last: Option<&Self>, cause: JournalError) -> Self {
        let pause = last.map_or(UNREAD_PAUSE, |last| last.pause.saturating_mul(2).min(UNREAD_PAUSE_MAX));
        tracing::error!("The journal can't be read, standing by again for {}: {cause}", humane(pause));
        Self { cause, pause }
    }
}

/// The engine as the journal left it.
struct Recalled<M> {
    machine: M,
    behind: Behind,
    latest: Timestamp,
}

impl Worker {
    /// Puts it together; nothing runs yet.
    pub fn new(ports: Ports, settings: Settings, metrics: Arc<Metrics>, hooks: Vec<Hook>) -> Self {
        let started_at = ports.clock.now();
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let health = Health::default();
        if ports.lease.is_none() {
            health.set(Part::Leader, Ok(()));
        }
        Self {
            ports,
            settings,
            only: Vec::new(),
            metrics,
            history: Arc::default(),
            health: Arc::new(health),
            hooks,
            reload: Arc::default(),
            ask,
            questions: Arc::new(Mutex::new(questions)),
            started_at,
        }
    }

    /// Services that match none of these are another worker's: it guards them neither by a rule file nor by their tag. Without
    /// any, it guards all.
    #[must_use]
    pub fn guarding_only(mut self, only: Vec<Protect>) -> Self {
        self.only = only;
        self
    }

    /// For those who ask while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            clock: Arc::clone(&self.ports.clock),
            metrics: Arc::clone(&self.metrics),
            history: Arc::clone(&self.history),
            health: Arc::clone(&self.health),
            reload: Arc::clone(&self.reload),
            questions: self.ask.clone(),
            journal: Arc::downgrade(&self.ports.journal),
            started_at: self.started_at,
        }
    }

    /// Guards until `shutdown`, then ends in order: no new receive, those in flight are waited for, their signals are
    /// made durable and their messages deleted, what was sent is answered, the state is kept. While another replica has
    /// the lease it stands by: it receives nothing, reads nothing and writes nothing.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let settings = self.settings.engine;
        let restore = move |state: Option<Vec<u8>>| match state {
            Some(state) => Engine::restore(settings, &state),
            None => Ok(Engine::new(settings)),
        };
        self.run_machine(restore, shutdown).await
    }

    pub(crate) async fn run_machine<M: Machine>(
        self,
        restore: impl Fn(Option<Vec<u8>>) -> Result<M, String>,
        shutdown: CancellationToken,
    ) -> Result<(), WorkerError> {
        let first = (self.ports.rules)().await.map_err(WorkerError::Rules)?;
        self.metrics.reload(true);
        let Some(lease) = &self.ports.lease else {
            return self.act(&restore, |_| first, Term::endless(), &shutdown).await;
        };
        let mut unread: Option<Unread> = None;
        while let Some(held) = self.stand_by(lease, unread.as_ref(), &shutdown).await {
            // With the lease in hand nobody waits for a file system that hangs.
            let loaded = tokio::time::timeout(RULES_WITHIN, (self.ports.rules)()).await;
            let loaded = loaded.unwrap_or_else(|_| Err(format!("not read within {}", humane(RULES_WITHIN))));
            self.metrics.reload(loaded.is_ok());
            // Whoever acted until now may have loaded others since this process began: the journal has them.
            let rules = |machine: &M| match loaded {
                Ok(loaded) => loaded,
                Err(diagnostics) => {
                    tracing::error!("The rule files are bad, the last good rules stay in force:\n{diagnostics}");
                    let known = machine.rules();
                    if known.rules.is_empty() { first.clone() } else { known.clone() }
                }
            };
            let ended = self.act(&restore, rules, held.term.clone(), &shutdown).await;
            held.give_back().await;
            // Also when no turn came of it.
            self.metrics.leader(false);
            unread = match ended {
                Err(WorkerError::Journal(error @ JournalError::Deposed { .. })) => {
                    tracing::warn!("Standing by again: {error}");
                    None
                }
                // One bad answer must not end every replica in turn. Who is to end says what it could not write.
                Err(WorkerError::Journal(cause @ JournalError::Failed { .. })) if !shutdown.is_cancelled() => {
                    Some(Unread::after(unread.as_ref(), cause))
                }
                other => {
                    other?;
                    None
                }
            };
        }
        Ok(())
    }

    /// Waits for the lease, which after an unread journal is the others' first; `None` at shutdown.
    async fn stand_by(
        &self,
        lease: &Arc<dyn Lease>,
        unread: Option<&Unread>,
        shutdown: &CancellationToken,
    ) -> Option<Held> {
        self.health.stand_by();
        let clock = &*self.ports.clock;
        let mut questions = self.questions.lock().await;
        let watcher = Watcher { lease, clock, health: &self.health };
        let acquired = async {
            if let Some(unread) = unread {
                self.pause(unread).await;
            }
            watcher.acquire().await
        };
        tokio::pin!(acquired);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                held = &mut acquired => {
                    self.health.set(Part::Leader, Ok(()));
                    return Some(held);
                }
                Some(question) = questions.recv() => {
                    let dry_run = self.settings.engine.dry_run;
                    let nothing =
                        StatusView { at: clock.now(), dry_run, fleet_brake: None, rules: Vec::new(), services: Vec::new() };
                    // Who does not wait any more does not mind.
                    drop(question.send(nothing));
                }
            }
        }
    }

    /// Asks for no lease for a while, alive and saying why.
    async fn pause(&self, Unread { cause, pause }: &Unread) {
        self.health.set(Part::Leader, Err(format!("standby: {cause}")));
        let mut left = *pause;
        while !left.is_zero() {
            self.health.turned(self.ports.clock.elapsed());
            let turn = left.min(Health::BEAT);
            self.ports.clock.sleep(turn).await;
            left = left.saturating_sub(turn);
        }
    }

    /// Goes on where the journal ends, until shutdown or until the term is lost.
    async fn act<M: Machine>(
        &self,
        restore: &impl Fn(Option<Vec<u8>>) -> Result<M, String>,
        rules: impl FnOnce(&M) -> RuleSet,
        term: Term,
        shutdown: &CancellationToken,
    ) -> Result<(), WorkerError> {
        self.health.set(Part::Rules, Ok(()));
        let recalled = tokio::select! {
            biased;
            // Nothing has begun yet, so there is nothing to end in order.
            () = shutdown.cancelled() => return Ok(()),
            () = term.lost() => return Ok(()),
            recalled = recall(&*self.ports.journal, restore) => recalled?,
        };
        self.health.set(Part::Journal, Ok(()));
        let rules = rules(&recalled.machine);
        self.start(recalled, rules, term, shutdown).await
    }

    /// Begins all parts and waits for their end. Any part that ends on its own ends the worker: half a worker is worse
    /// than a restart.
    async fn start<M: Machine>(
        &self,
        recalled: Recalled<M>,
        rules: RuleSet,
        term: Term,
        shutdown: &CancellationToken,
    ) -> Result<(), WorkerError> {
        let Ports {
            clock,
            inbox,
            fleet,
            registrations,
            observer,
            actuator,
            announcer,
            journal,
            lease: _,
            decode,
            rules: loader,
        } = self.ports.clone();
        let (metrics, health) = (Arc::clone(&self.metrics), Arc::clone(&self.health));
        let questions = Arc::clone(&self.questions).lock_owned().await;
        let Recalled { machine, behind, latest } = recalled;
        let (control, control_inputs) = mpsc::channel(CONTROL);
        let (signals, arrivals) = mpsc::channel::<Arrival>(SIGNALS);
        let (receipts, told) = mpsc::unbounded_channel();
        let (in_force, rules_seen) = watch::channel(Arc::new(rules.clone()));
        // The parts stop at shutdown, when one of them has failed, and when another replica is to act.
        let stop = shutdown.child_token();
        let mut parts: JoinSet<Ended> = JoinSet::new();

        let known: BTreeSet<_> = machine.status(clock.now()).services.into_iter().map(|view| view.service).collect();
        let sweep = Sweep {
            clock: Arc::clone(&clock),
            fleet,
            registrations,
            denied: false,
            missing: BTreeSet::new(),
            control: control.clone(),
            in_force: rules_seen,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            every: self.settings.engine.sweep,
            only: self.only.clone(),
            known,
            gauge: Gauge { inbox: Arc::clone(&inbox), metrics: Arc::clone(&metrics), unknown: false },
        };
        parts.spawn(quiet("sweep", sweep.run(stop.clone())));

        let reload = Reload {
            clock: Arc::clone(&clock),
            loader,
            control: control.clone(),
            in_force,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            wanted: Arc::clone(&self.reload),
        };
        parts.spawn(quiet("rule reload", reload.run(stop.clone())));

        let pump = Arc::new(Pump {
            clock: Arc::clone(&clock),
            inbox: Arc::clone(&inbox),
            decode,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            signals,
            receipts: receipts.clone(),
            complained: std::sync::Mutex::default(),
        });
        for _ in 0..self.settings.receivers {
            parts.spawn(quiet("receiver", Arc::clone(&pump).receive(stop.clone())));
        }
        drop(pump);

        parts.spawn(quiet("message custodian", Custodian::new(Arc::clone(&clock), inbox, told).run()));

        let (wall, elapsed) = clock.at_once();
        let watch = WallClockWatch::new(wall, elapsed);
        let executor = Executor::new(Arc::clone(&clock), observer, actuator, announcer, control, term.clone());
        let begun = executor.begun();
        let turn = Turn {
            machine,
            executor,
            clock,
            journal,
            metrics,
            history: Arc::clone(&self.history),
            health,
            hooks: self.hooks.clone(),
            control: control_inputs,
            signals: arrivals,
            questions,
            receipts,
            shutdown: stop.clone(),
            term: term.clone(),
            behind,
            checkpoint_from: Duration::ZERO,
            encoder: Encoder::default(),
            latest,
            watch,
            pending: Pending::default(),
        };
        let turning =
            parts.spawn(async move { ("engine loop", turn.run(vec![Input::Restarted, Input::Rules(rules)]).await) });
        self.wait(parts, &turning, &begun, &term, &stop, shutdown).await
    }

    /// Waits for the end of all parts, or until there is no more time for it.
    async fn wait(
        &self,
        mut parts: JoinSet<Ended>,
        turning: &AbortHandle,
        begun: &TaskTracker,
        term: &Term,
        stop: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<(), WorkerError> {
        let overdue = async {
            stop.cancelled().await;
            if without(Mutant::NoEndInTime) {
                std::future::pending::<()>().await;
            }
            self.ports.clock.sleep(ENDS_WITHIN).await;
        };
        tokio::pin!(overdue);
        let mut first_error = None;
        loop {
            let ended = tokio::select! {
                biased;
                // First: the parts that end because of it ended as they should.
                () = term.lost(), if !stop.is_cancelled() => {
                    stop.cancel();
                    self.health.stand_by();
                    continue;
                }
                ended = parts.join_next() => ended,
                () = &mut overdue => {
                    if turning.is_finished() {
                        tracing::warn!("Some messages were not deleted in time and will be delivered again");
                    } else {
                        first_error.get_or_insert(WorkerError::Overdue);
                    }
                    break;
                }
            };
            let Some(ended) = ended else { break };
            let error = match ended {
                Ok((_, Err(error))) => Some(error),
                Ok((part, Ok(()))) if !stop.is_cancelled() && !term.is_lost() => {
                    Some(WorkerError::Part { part, cause: "it just returned".to_owned() })
                }
                Ok((_, Ok(()))) => None,
                Err(error) => Some(WorkerError::Part { part: "worker", cause: error.to_string() }),
            };
            if let Some(error) = error {
                stop.cancel();
                first_error.get_or_insert(error);
            }
        }
        if !begun.is_empty() && !term.is_endless() {
            // Given back, the lease would be the successor's before the last call is over: it is left to run out.
            term.lose();
        }
        match first_error {
            // Who was deposed is not told to end: it stands by.
            Some(WorkerError::Overdue) if !shutdown.is_cancelled() => Ok(()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

async fn quiet(part: &'static str, work: impl Future<Output = ()>) -> Ended {
    work.await;
    (part, Ok(()))
}

/// Checkpoint, then each entry with its own time. Effects are discarded: they were carried out, or the first step after
/// the restart asks again.
async fn recall<M: Machine>(
    journal: &dyn Journal,
    restore: &impl Fn(Option<Vec<u8>>) -> Result<M, String>,
) -> Result<Recalled<M>, WorkerError> {
    let recovered = journal.load().await?;
    let resumed = recovered.checkpoint.is_some();
    let mut behind = Behind::checkpoint(recovered.checkpoint.as_ref().map_or(0, Vec::len));
    let mut machine =
        restore(recovered.checkpoint).map_err(|cause| WorkerError::Incompatible { what: "a checkpoint", cause })?;
    let mut latest = Timestamp::from_millis(i64::MIN);
    for bytes in &recovered.entries {
        behind.add(bytes);
        let entry = entry::decode(bytes)
            .map_err(|error| WorkerError::Incompatible { what: "an entry", cause: error.to_string() })?;
        latest = entry.at;
        drop(machine.step(entry.at, &entry.input));
    }
    let entries = behind.entries;
    if resumed || entries > 0 {
        tracing::info!(entries, "Going on where the journal ends");
    }
    Ok(Recalled { machine, behind, latest })
}
