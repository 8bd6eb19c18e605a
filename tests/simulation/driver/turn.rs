//! The turn: inputs are stepped, made durable together, and only then let go. While a commit fails nothing else happens.
//!
//! Each turn is committed at once. In the worker what nothing follows from may wait for the next one, for some milliseconds:
//! that is what a crash before the commit loses here too, and `tests/shell` plays it.

use std::time::Duration;

use taskset_guardian::engine::{Effect, Input};
use taskset_guardian::model::{Announcement, EffectId, Incident, Timestamp};
use taskset_guardian::ports::{Journal as _, JournalError};
use taskset_guardian::rules::Mode;
use taskset_guardian::runtime::lease::MARGIN;
use taskset_guardian::runtime::{doubt_age, entry};
use taskset_guardian::sandbox::api::{Backend as _, Call};

use super::judge::Heard;
use super::worker::{Incoming, Read};
use super::{Decided, Own, QUEUE, ShellMutant, Simulation};

/// Entries between checkpoints: few, so that a schedule has several.
const CHECKPOINT_EVERY: usize = 40;

/// First pause after a failed commit; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The loop turns at least this often, and looks whether a deadline has passed.
const BEAT: Duration = Duration::from_secs(5);

/// At least this between two ticks.
const TICK_PAUSE: Duration = Duration::from_millis(20);

/// What waits for the commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) entries: Vec<Vec<u8>>,
    incidents: Vec<Incident>,
    writes: Vec<(Decided, Timestamp)>,
    announcements: Vec<(EffectId, Announcement)>,
    receipts: Vec<String>,
    heard: Vec<Heard>,
    /// Its messages are deleted already, which they must not be.
    pub(super) acknowledged: bool,
    /// A try to commit it failed, or got no answer.
    pub(super) unsure: bool,
    /// After the next failure.
    pause: Duration,
}

impl Simulation {
    /// Something comes in: a signal with the message that it came in.
    pub(super) fn take(&mut self, who: usize, incoming: Incoming) {
        if self.workers[who].acting {
            self.workers[who].inbox.push_back(incoming);
            self.turn(who);
        }
    }

    /// All that waits, as the turn takes it.
    pub(super) fn turn(&mut self, who: usize) {
        let worker = &self.workers[who];
        if !worker.acting || worker.pending.is_some() || worker.inbox.is_empty() {
            return;
        }
        self.look_at_clock(who);
        if !self.workers[who].acting {
            return;
        }
        if self.chance(self.schedule.faults.pause) {
            self.pause(who);
        }
        let mut pending = Pending { pause: FIRST_PAUSE, ..Pending::default() };
        let mut reads = Vec::new();
        for Incoming { mut input, read, receipt } in std::mem::take(&mut self.workers[who].inbox) {
            if let (Input::Observed(key, answer), Some(Read { began, shown })) = (&mut input, read) {
                let worker = &mut self.workers[who];
                let now = (worker.clock.wall(self.now), worker.clock.monotonic(self.now));
                doubt_age(answer, began, now);
                if let (true, Some(shown)) = (answer.is_ok(), shown) {
                    worker.seen.insert(key.clone(), shown);
                }
            }
            if let Input::Rules(rules) = &input {
                self.workers[who].observes = rules.rules.iter().all(|rule| rule.mode == Mode::Observe);
            }
            let at = self.workers[who].time(self.now);
            self.workers[who].latest = at;
            let forgets = self.without == Some(ShellMutant::NoDurableIntent) && matches!(input, Input::Observed(..));
            let step = self.workers[who].engine.step(at, &input);
            if step.changed && !forgets {
                pending.entries.push(entry::encode(at, &input).unwrap());
            }
            for effect in step.effects {
                match effect {
                    Effect::Keep(incident) => pending.incidents.push(incident),
                    Effect::Observe(ask) => reads.push(ask),
                    Effect::Announce(id, announcement) => pending.announcements.push((id, announcement)),
                    Effect::Write { id, service, write, expires_at } => {
                        let worker = &self.workers[who];
                        let basis = worker.seen.get(&service).map(|seen| seen.basis).unwrap_or_default();
                        let until = worker.clock.monotonic(self.now) + expires_at.since(at);
                        let decided = Decided { id, service, write, basis, epoch: worker.epoch(), until };
                        pending.writes.push((decided, expires_at));
                    }
                }
            }
            pending.receipts.extend(receipt);
            pending.heard.push(self.hear(who, at, &input, step.report.notes));
        }
        if self.without == Some(ShellMutant::AcknowledgeBeforeCommit) && !pending.receipts.is_empty() {
            pending.acknowledged = true;
            self.delete(std::mem::take(&mut pending.receipts));
        }
        // They change nothing, so they do not wait for the journal.
        for ask in reads {
            self.want_read(who, ask);
        }
        let is_durable = pending.entries.is_empty() && pending.incidents.is_empty();
        self.workers[who].pending = Some(pending);
        let takes = self.within(self.schedule.faults.commit);
        if is_durable {
            self.let_go(who);
        } else if takes.is_zero() {
            self.commit(who);
        } else {
            self.plan_own(who, takes, Own::Commit);
        }
    }

    /// What the loop of the worker does each time it turns.
    pub(super) fn look_at_clock(&mut self, who: usize) {
        let now = self.now;
        let worker = &mut self.workers[who];
        let (wall, elapsed) = (worker.clock.wall(now), worker.clock.monotonic(now));
        let leased = worker.span.is_some();
        if let Some(by_ms) = worker.watch.look(wall, elapsed) {
            if leased && u64::try_from(by_ms).is_ok_and(|by_ms| Duration::from_millis(by_ms) >= MARGIN) {
                return self.step_down(who, "its clock is further than the time that has passed");
            }
            worker.latest = worker.latest.moved(by_ms.min(0));
            worker.inbox.push_front(Input::ClockSet { by_ms }.into());
        }
    }

    /// Tries to make durable what waits for it.
    pub(super) fn commit(&mut self, who: usize) {
        if self.chance(self.schedule.faults.crash_before_commit) {
            return self.crash(who, "before the commit");
        }
        let Some(pending) = &self.workers[who].pending else { return };
        let (entries, incidents, count) =
            (pending.entries.as_slice().into(), pending.incidents.clone(), pending.entries.len());
        match self.journaled(who, async |journal| journal.append(entries, &incidents).await) {
            Ok(()) => {
                self.workers[who].entries += count;
                self.let_go(who);
            }
            Err(JournalError::Deposed { .. }) => self.step_down(who, "the journal is another's"),
            Err(_) => {
                let Some(pending) = &mut self.workers[who].pending else { return };
                pending.unsure = true;
                let pause = pending.pause;
                pending.pause = (pause * 2).min(LONGEST_PAUSE);
                self.plan_own(who, pause, Own::Commit);
            }
        }
    }

    /// It is durable: messages are deleted, effects begin, and what came in meanwhile has its turn.
    fn let_go(&mut self, who: usize) {
        let Some(pending) = self.workers[who].pending.take() else { return };
        for heard in pending.heard {
            self.heed(who, heard);
        }
        if self.judged.news {
            self.check_open(who);
        }
        if self.chance(self.schedule.faults.crash_after_commit) {
            return self.crash(who, "after the commit");
        }
        let mut done = Vec::new();
        for receipt in pending.receipts {
            // What is not deleted is received again.
            if !self.chance(self.schedule.faults.repeated_event) {
                done.push(receipt);
            }
        }
        self.delete(done);
        for (decided, expires_at) in pending.writes {
            let crowded = self.chance(self.schedule.faults.crowd);
            let wait = if crowded { self.within(Duration::from_secs(40)) } else { self.latency() / 10 };
            self.plan_own(who, wait, Own::Send(decided, expires_at));
        }
        for (id, announcement) in pending.announcements {
            self.owe(&announcement);
            let latency = self.latency();
            self.plan_own(who, latency, Own::Announce(id, announcement));
        }
        if self.workers[who].entries >= CHECKPOINT_EVERY {
            self.checkpoint(who);
        }
        if self.chance(self.schedule.faults.pause) {
            self.pause(who);
        }
        self.plan_tick(who, Duration::ZERO);
        self.turn(who);
    }

    fn checkpoint(&mut self, who: usize) {
        let state = self.workers[who].engine.checkpoint().unwrap();
        let done = self.journaled(who, async |journal| {
            let done = journal.checkpoint(state).await;
            // Room for the removal of what does not count any more.
            tokio::task::yield_now().await;
            done
        });
        match done {
            Ok(()) => self.workers[who].entries = 0,
            Err(JournalError::Deposed { .. }) => self.step_down(who, "the journal is another's"),
            Err(_) => {}
        }
    }

    /// Plans the tick for the engine's next deadline, which is a time on the wall.
    fn plan_tick(&mut self, who: usize, at_least: Duration) {
        let worker = &self.workers[who];
        let Some(deadline) = worker.engine.next_deadline().filter(|_| worker.acting) else { return };
        let wait = deadline.since(worker.clock.wall(self.now)).min(BEAT).max(at_least);
        let at = self.now.plus(wait);
        if worker.ticks_at.is_none_or(|planned| at < planned) {
            self.workers[who].ticks_at = Some(at);
            self.plan_own(who, wait, Own::Tick);
        }
    }

    pub(super) fn tick(&mut self, who: usize) {
        let worker = &mut self.workers[who];
        if worker.ticks_at.is_some_and(|planned| planned > self.now) {
            // An earlier one was planned after it, and has planned the next.
            return;
        }
        worker.ticks_at = None;
        if worker.acting && worker.pending.is_none() {
            self.look_at_clock(who);
            self.turn(who);
        }
        let worker = &self.workers[who];
        let wall = worker.clock.wall(self.now);
        if worker.pending.is_none() && worker.engine.next_deadline().is_some_and(|deadline| deadline <= wall) {
            self.take(who, Input::Tick.into());
        }
        self.plan_tick(who, TICK_PAUSE);
    }

    pub(super) fn delete(&mut self, receipts: Vec<String>) {
        let mut receipts = receipts.into_iter().peekable();
        while receipts.peek().is_some() {
            let batch = receipts.by_ref().take(10).collect();
            let _ = self.world.call(Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts: batch });
        }
    }
}
