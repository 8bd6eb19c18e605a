//! The turn: collect what is ready, step the engine, commit, and only then let go of what follows from it. Reads alone do
//! not wait for the disk: they change nothing. And what only reads follow from, as the answer to a write, goes along with the
//! next commit: lost with the process, it is read again.
//!
//! While a commit fails, nothing else happens: no write, no announcement, no delete, no further input. The channels fill up, the pump
//! stops receiving, and all goes on where it was once the journal takes the batch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::clock::{WallClockWatch, doubt_age};
use super::entry::Encoder;
use super::executor::{Born, Executor};
use super::health::{Health, Part};
use super::leader::Term;
use super::lease::MARGIN;
use super::machine::Machine;
use super::mutants::{Mutant, without};
use super::pump::Arrival;
use super::receipts::Receipted;
use super::worker::{Hook, WorkerError};
use crate::engine::{Effect, Input, Report, StatusView};
use crate::model::{CallError, Incident, Observation, ServiceKey, Timestamp, humane};
use crate::ports::{Clock, Entries, Journal, JournalError, Receipt};
use crate::telemetry::{History, Metrics};

/// Inputs of each channel that are taken at once; a commit has twice as many at most, and what waited for it. Bounds memory and
/// the time until a status question is answered.
const BATCH: usize = 512;
/// When so many signals wait, the commit waits as well, for those that come meanwhile: a commit costs about the same for many
/// as for few. An answer to a read, or whatever else is decided on, ends the wait.
const FLOOD: usize = 24;
const GATHER: Duration = Duration::from_millis(5);
/// What nothing follows from waits for the next commit no longer than this.
pub(super) const LINGER: Duration = GATHER;
/// Entries between checkpoints: a restart replays at most this many (and one batch), which takes well under a second. A state
/// that is larger than they are waits until they have its size, so that it costs no more to write than they do.
const CHECKPOINT_EVERY: usize = 2000;
/// Or this many bytes, should they be few and large.
const CHECKPOINT_BYTES: usize = 8 << 20;
/// Longer than any pause between two tries: a journal that has not answered for so long has failed, and so each time again.
const HANGS_AFTER: Duration = Duration::from_secs(15);
/// First pause after a failed commit; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A volume with space again is noticed within ten seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Status questions on their way to the loop, which are answered before the next input.
pub(super) const QUESTIONS: usize = 16;
/// At least this between two ticks, whatever deadline the engine names: a deadline that has passed must not spin.
const TICK_PAUSE: Duration = Duration::from_millis(20);
/// What was sent gets this long to answer at shutdown. With the long poll that may be in flight before, both fit into
/// ECS's default `stopTimeout` of 30 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A journal that fails gets this much longer at shutdown. What it does not take is still in the queue.
const COMMITS_WITHIN: Duration = Duration::from_secs(10);

/// A question for the whole state.
pub(crate) type Question = oneshot::Sender<StatusView>;

/// The one task that turns the machine.
pub(crate) struct Turn<M> {
    pub(crate) machine: M,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) executor: Executor,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) history: Arc<History>,
    pub(crate) health: Arc<Health>,
    pub(crate) hooks: Vec<Hook>,
    /// Answers, sweeps, rules: few, and waited for.
    pub(crate) control: mpsc::Receiver<Incoming>,
    pub(crate) signals: mpsc::Receiver<Arrival>,
    pub(crate) questions: OwnedMutexGuard<mpsc::Receiver<Question>>,
    pub(crate) receipts: mpsc::UnboundedSender<Receipted>,
    pub(crate) shutdown: CancellationToken,
    /// When it is lost, the loop ends where it stands: what it has not committed is the successor's.
    pub(crate) term: Term,
    pub(crate) behind: Behind,
    /// No checkpoint is tried before this, by the clock that nobody sets.
    pub(crate) checkpoint_from: Duration,
    pub(crate) encoder: Encoder,
    /// The newest time given to the machine. It goes back only when the clock is set, and then the machine is told.
    pub(crate) latest: Timestamp,
    pub(crate) watch: WallClockWatch,
    pub(crate) pending: Pending,
}

/// What the journal has behind the checkpoint.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) entries: usize,
    bytes: usize,
    /// Of the checkpoint itself.
    checkpoint_bytes: usize,
}

impl Behind {
    /// Nothing yet behind one of this size.
    pub(crate) fn checkpoint(bytes: usize) -> Self {
        Self { entries: 0, bytes: 0, checkpoint_bytes: bytes }
    }

    pub(crate) fn add(&mut self, entry: &[u8]) {
        self.entries += 1;
        self.bytes += entry.len();
    }

    fn is_long(&self) -> bool {
        let is_large = self.bytes >= self.checkpoint_bytes;
        is_large && (self.entries >= CHECKPOINT_EVERY || self.bytes >= CHECKPOINT_BYTES)
    }
}

/// An input on its way to the loop.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) input: Input,
    /// Of the message that a signal came in.
    receipt: Option<Receipt>,
    /// [`Clock::elapsed`] when the read began that this is the answer to.
    read_began: Option<Duration>,
}

impl Incoming {
    /// The answer to a read that began then, by [`Clock::elapsed`].
    pub(crate) fn read(service: ServiceKey, answer: Result<Box<Observation>, CallError>, began: Duration) -> Self {
        Self { read_began: Some(began), ..Input::Observed(service, answer).into() }
    }
}

impl From<Input> for Incoming {
    fn from(input: Input) -> Self {
        Self { input, receipt: None, read_began: None }
    }
}

impl From<Arrival> for Incoming {
    fn from(Arrival { signal, receipt }: Arrival) -> Self {
        Self { receipt: Some(receipt), ..Input::Signal(signal).into() }
    }
}

type Batch = Vec<Incoming>;

/// What waits for the commit.
#[derive(Default)]
pub(crate) struct Pending {
    /// [`Clock::elapsed`] when there was something to commit first.
    since: Option<Duration>,
    entries: Vec<Vec<u8>>,
    incidents: Vec<Incident>,
    reads: Vec<(Effect, Born)>,
    effects: Vec<(Effect, Born)>,
    finished: Vec<Receipt>,
    reports: Vec<(Report, Timestamp)>,
}

impl Pending {
    fn needs_no_commit(&self) -> bool {
        self.entries.is_empty() && self.incidents.is_empty()
    }

    /// Something happens once it is durable.
    fn is_awaited(&self) -> bool {
        !self.effects.is_empty() || !self.finished.is_empty()
    }

    /// Whether it may wait for others to go along with.
    fn may_linger(&mut self, now: Duration) -> bool {
        self.since.get_or_insert(now);
        !self.is_awaited() && self.lingers(now).is_some_and(|left| !left.is_zero())
    }

    /// For how long it still does.
    fn lingers(&self, now: Duration) -> Option<Duration> {
        self.since.map(|since| LINGER.saturating_sub(now.saturating_sub(since)))
    }
}

/// What happened first.
enum Woken {
    Batch(Batch),
    Asked(Question),
    Idle,
    /// The pump has ended: shutdown.
    Drained,
    /// Another replica acts, or may soon.
    Deposed,
}

impl<M: Machine> Turn<M> {
    /// Until the pump has ended; then what is in flight is waited for and the state is kept.
    pub(crate) async fn run(mut self, first: Vec<Input>) -> Result<(), WorkerError> {
        self.metrics.leader(true);
        for view in self.machine.status(self.clock.now()).services {
            self.metrics.show(&view);
        }
        let mut result = self.turn_until_drained(first).await;
        if let Err(WorkerError::Journal(error @ JournalError::Deposed { .. })) = &result {
            self.step_down(error);
            result = Ok(());
        }
        self.metrics.leader(false);
        if self.term.is_lost() {
            // Its gauges are the successor's from now on.
            for view in self.machine.status(self.clock.now()).services {
                self.metrics.forget(&view.service);
            }
        }
        result
    }

    async fn turn_until_drained(&mut self, first: Vec<Input>) -> Result<(), WorkerError> {
        let (now, latest) = (self.clock.now(), self.latest);
        let mut first = first;
        if latest > now {
            // Set back while nobody looked.
            self.latest = now;
            first.insert(0, Input::ClockSet { by_ms: now.as_millis().saturating_sub(latest.as_millis()) });
        }
        self.process(first.into_iter().map(Incoming::from).collect(), true).await?;
        let mut ticked = None;
        loop {
            self.health.turned(self.clock.elapsed());
            // Before the wait, which prefers inputs: a flood of them must not leave people without an answer.
            // Nor must many who ask be a flood themselves.
            for _ in 0..QUESTIONS {
                let Ok(question) = self.questions.try_recv() else { break };
                answer(&self.machine, &*self.clock, question);
            }
            match self.wait(ticked).await {
                Woken::Batch(batch) => {
                    if batch.iter().any(|incoming| incoming.input == Input::Tick) {
                        ticked = Some(self.clock.elapsed());
                    }
                    self.process(batch, true).await?;
                }
                Woken::Asked(question) => answer(&self.machine, &*self.clock, question),
                // For the look at the clock.
                Woken::Idle => self.process(Batch::new(), true).await?,
                Woken::Drained => break,
                Woken::Deposed => return Ok(()),
            }
            if self.behind.is_long() && self.clock.elapsed() >= self.checkpoint_from {
                // An entry that comes after a checkpoint that knows it would count twice.
                self.flush().await?;
                // Failing is no harm: the entries are there. Trying at every turn would be some.
                if !self.checkpoint().await {
                    self.checkpoint_from = self.clock.elapsed() + LONGEST_PAUSE;
                }
            }
        }
        self.settle().await?;
        if !self.term.is_lost() {
            let _ = self.checkpoint().await;
        }
        Ok(())
    }

    /// Whether the clock was set: then the machine is told first. `None` when it is better to stand by.
    fn look_at_clock(&mut self, mut batch: Batch) -> Option<Batch> {
        let (wall, elapsed) = self.clock.at_once();
        let Some(by_ms) = self.watch.look(wall, elapsed) else { return Some(batch) };
        let by = humane(Duration::from_millis(by_ms.unsigned_abs()));
        let by_at_least_the_margin = u64::try_from(by_ms).is_ok_and(|by_ms| Duration::from_millis(by_ms) >= MARGIN);
        if by_at_least_the_margin && !self.term.is_endless() {
            // Or the machine stood still, and with it the clock that the lease is measured by.
            tracing::error!(by_ms, "Standing by: the system's clock is {by} further than the time that has passed");
            self.term.lose();
            return None;
        }
        tracing::warn!(by_ms, "The system's clock was set by {by}");
        self.latest = self.latest.moved(by_ms.min(0));
        batch.insert(0, Input::ClockSet { by_ms }.into());
        Some(batch)
    }

    /// Waits for something to do, then takes all that is ready. The last tick was at this [`Clock::elapsed`]: a wall clock that
    /// is set back must not hold up the next.
    async fn wait(&mut self, ticked: Option<Duration>) -> Woken {
        let (now, elapsed) = self.clock.at_once();
        let deadline = self.machine.next_deadline();
        let until_tick = deadline.map(|at| at.since(now).max(pause_after(ticked, elapsed)));
        let lingers = self.pending.lingers(elapsed);
        let timer = self.clock.sleep([until_tick, lingers].into_iter().flatten().fold(Health::BEAT, Duration::min));
        let mut batch = Batch::new();
        tokio::select! {
            biased;
            () = self.term.lost() => return Woken::Deposed,
            Some(incoming) = self.control.recv() => batch.push(incoming),
            arrival = self.signals.recv() => match arrival {
                Some(arrival) => batch.push(arrival.into()),
                None => return Woken::Drained,
            },
            () = timer => {
                let (now, elapsed) = self.clock.at_once();
                let due = deadline.is_some_and(|at| at <= now) && pause_after(ticked, elapsed).is_zero();
                return if due { Woken::Batch(vec![Input::Tick.into()]) } else { Woken::Idle };
            }
            // Last: whoever only asks holds up nobody who acts.
            Some(question) = self.questions.recv() => return Woken::Asked(question),
        }
        self.gather(&mut batch);
        if (FLOOD..BATCH).contains(&batch.len())
            && batch.iter().all(|incoming| matches!(incoming.input, Input::Signal(_)))
        {
            tokio::select! {
                biased;
                Some(incoming) = self.control.recv() => batch.push(incoming),
                () = self.clock.sleep(GATHER) => {}
            }
            self.gather(&mut batch);
        }
        if deadline.is_some_and(|at| at <= self.clock.now()) && until_tick == Some(Duration::ZERO) {
            batch.push(Input::Tick.into());
        }
        Woken::Batch(batch)
    }

    /// All that is ready. Each channel has a share of its own, so that a flood of one does not starve the other.
    fn gather(&mut self, batch: &mut Batch) {
        batch.extend(std::iter::from_fn(|| self.control.try_recv().ok()).take(BATCH));
        let signals = std::iter::from_fn(|| self.signals.try_recv().ok()).take(BATCH);
        batch.extend(signals.map(Incoming::from));
    }

    /// Steps, commits, and lets go; what nothing waits for may wait itself. At shutdown nothing new begins: the successor's first
    /// step asks for it again.
    async fn process(&mut self, batch: Batch, begin_effects: bool) -> Result<(), WorkerError> {
        let Some(batch) = self.look_at_clock(batch) else { return Ok(()) };
        let mut pending = std::mem::take(&mut self.pending);
        for Incoming { mut input, receipt, read_began } in batch {
            let (now, elapsed) = self.clock.at_once();
            if let (Some(began), Input::Observed(_, answer)) = (read_began, &mut input) {
                doubt_age(answer, began, (now, elapsed));
            }
            let at = now.max(self.latest);
            self.latest = at;
            let step = self.machine.step(at, &input);
            if step.changed {
                pending.entries.push(self.encoder.encode(at, &input).map_err(WorkerError::encode)?);
            }
            for effect in step.effects {
                match effect {
                    Effect::Keep(incident) => pending.incidents.push(incident),
                    read @ Effect::Observe(_) => pending.reads.push((read, Born { at, elapsed })),
                    other => pending.effects.push((other, Born { at, elapsed })),
                }
            }
            pending.finished.extend(receipt);
            pending.reports.push((step.report, at));
        }
        if without(Mutant::AcknowledgeBeforeCommit) {
            self.acknowledge(&mut pending.finished);
        }
        if without(Mutant::EffectsBeforeCommit) {
            self.begin(&mut pending.effects, begin_effects);
        }
        self.begin(&mut pending.reads, begin_effects);
        if begin_effects && !pending.needs_no_commit() && pending.may_linger(self.clock.elapsed()) {
            self.pending = pending;
            return Ok(());
        }
        self.let_go(pending, begin_effects).await
    }

    /// Commits what waits for others to go along with.
    async fn flush(&mut self) -> Result<(), WorkerError> {
        let pending = std::mem::take(&mut self.pending);
        self.let_go(pending, true).await
    }

    /// Commits, and lets go.
    async fn let_go(&mut self, mut pending: Pending, begin_effects: bool) -> Result<(), WorkerError> {
        if !pending.needs_no_commit() {
            pending.entries.iter().for_each(|entry| self.behind.add(entry));
            self.commit(pending.entries.into(), &pending.incidents).await?;
        }
        self.render(&pending.reports);
        self.acknowledge(&mut pending.finished);
        self.begin(&mut pending.effects, begin_effects);
        Ok(())
    }

    fn acknowledge(&self, finished: &mut Vec<Receipt>) {
        let finished = Receipted::Finished(std::mem::take(finished));
        if !finished.is_empty() {
            // A custodian that is gone means shutdown; the messages reappear and change nothing.
            drop(self.receipts.send(finished));
        }
    }

    fn begin(&self, effects: &mut Vec<(Effect, Born)>, begin_effects: bool) {
        for (effect, born) in effects.drain(..) {
            if begin_effects && !self.term.is_lost() {
                self.executor.begin(effect, born);
            }
        }
    }

    /// Commits, however long it takes; gives up only at shutdown, and at once when another replica has the journal.
    /// Questions are answered meanwhile.
    async fn commit(&mut self, entries: Entries, incidents: &[Incident]) -> Result<(), WorkerError> {
        let clock = Arc::clone(&self.clock);
        let journal = Arc::clone(&self.journal);
        let mut pause = FIRST_PAUSE;
        let mut last_chance = None;
        loop {
            let begun = clock.elapsed();
            let attempt = self.meanwhile(journal.append(entries.clone(), incidents)).await?;
            self.health.turned(clock.elapsed());
            match attempt {
                Ok(()) => {
                    self.metrics.commit(Some(clock.elapsed().saturating_sub(begun)));
                    self.praise();
                    return Ok(());
                }
                Err(error @ JournalError::Deposed { .. }) => return Err(error.into()),
                Err(error) => {
                    self.metrics.commit(None);
                    self.complain(&error);
                    if self.shutdown.is_cancelled() {
                        let first_refused = *last_chance.get_or_insert(clock.elapsed());
                        if clock.elapsed().saturating_sub(first_refused) >= COMMITS_WITHIN {
                            return Err(WorkerError::Journal(error));
                        }
                    }
                }
            }
            self.meanwhile(clock.sleep(pause)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn step_down(&self, error: &JournalError) {
        if !self.term.is_lost() {
            tracing::error!("Standing by: {error}");
            self.term.lose();
        }
    }

    fn praise(&self) {
        if self.health.set(Part::Journal, Ok(())) {
            tracing::info!("The journal takes entries");
        }
    }

    fn complain(&self, error: &JournalError) {
        if self.health.set(Part::Journal, Err(error.to_string())) {
            tracing::error!("Nothing is acted on and no message is deleted until this is solved: {error}");
        }
    }

    /// Answers questions while the journal is waited for, as long as the lease lasts. One that hangs is one that fails: the loop
    /// only waits for it, so to end the process would cure nothing.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, JournalError> {
        let (term, clock) = (self.term.clone(), Arc::clone(&self.clock));
        let mut waited_from = clock.elapsed();
        let mut beat = clock.sleep(Health::BEAT);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = term.lost() => return Err(JournalError::Deposed { context: "wait for it".to_owned() }),
                done = &mut work => return Ok(done),
                () = &mut beat => {
                    beat = clock.sleep(Health::BEAT);
                    let now = clock.elapsed();
                    self.health.turned(now);
                    if now.saturating_sub(waited_from) >= HANGS_AFTER {
                        waited_from = now;
                        self.metrics.commit(None);
                        let (context, cause) = ("write to the journal".to_owned(), "it does not answer".to_owned());
                        self.complain(&JournalError::Failed { context, cause });
                    }
                }
                Some(question) = self.questions.recv() => answer(&self.machine, &*self.clock, question),
            }
        }
    }

    fn render(&self, reports: &[(Report, Timestamp)]) {
        let mut touched = BTreeSet::new();
        for (report, at) in reports {
            self.metrics.record(report);
            for hook in &self.hooks {
                hook(report, *at);
            }
            touched.extend(&report.touched);
        }
        for key in touched {
            if let Some(view) = self.machine.service(key, self.latest) {
                self.metrics.show(&view);
                self.history.show(&view, self.latest);
            } else {
                self.metrics.forget(key);
                self.history.forget(key);
            }
        }
    }

    /// Waits for the answers of what was sent, and takes them.
    async fn settle(&mut self) -> Result<(), WorkerError> {
        let answered = self.executor.close();
        let (clock, term) = (Arc::clone(&self.clock), self.term.clone());
        let mut time_out = clock.sleep(ANSWERS_WITHIN);
        loop {
            tokio::select! {
                biased;
                () = term.lost() => return Ok(()),
                Some(incoming) = self.control.recv() => self.process(vec![incoming], false).await?,
                () = answered.wait() => break,
                () = &mut time_out => {
                    tracing::warn!(calls = answered.len(), "Calls did not answer in time; they are looked at after the restart");
                    break;
                }
            }
        }
        let late: Batch = std::iter::from_fn(|| self.control.try_recv().ok()).collect();
        self.process(late, false).await
    }

    /// Whether it was written. When it is not, the entries since the last one stay, and with them everything.
    async fn checkpoint(&mut self) -> bool {
        let state = match self.machine.checkpoint() {
            Ok(state) => state,
            Err(error) => {
                tracing::error!("The state can't be written down as a checkpoint: {error}");
                return false;
            }
        };
        let (journal, bytes) = (Arc::clone(&self.journal), state.len());
        match self.meanwhile(journal.checkpoint(state)).await.and_then(|done| done) {
            Ok(()) => {
                self.behind = Behind::checkpoint(bytes);
                self.praise();
            }
            Err(error @ JournalError::Deposed { .. }) => self.step_down(&error),
            Err(error) => {
                self.metrics.commit(None);
                tracing::error!("The journal takes no checkpoint, and grows with each entry until it does: {error}");
                return false;
            }
        }
        true
    }
}

/// What is left of the pause after the last tick.
fn pause_after(ticked: Option<Duration>, elapsed: Duration) -> Duration {
    ticked.map_or(Duration::ZERO, |ticked| TICK_PAUSE.saturating_sub(elapsed.saturating_sub(ticked)))
}

fn answer<M: Machine>(machine: &M, clock: &dyn Clock, question: Question) {
    if !question.is_closed() {
        // Who does not wait any more does not mind.
        drop(question.send(machine.status(clock.now())));
    }
}
