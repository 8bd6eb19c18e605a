//! What may happen next.

use std::fmt;
use std::time::Duration;

use taskset_guardian::ports::Tenure;
use taskset_guardian::runtime::lease::{LENGTH, RENEW_EVERY, WRITE_WITHIN, Watched};

use super::Flaw;
use super::state::{
    At, Aws, Call, FOREVER, GIVEN_UP, Holder, Intent, Log, NOW, Record, Renewal, Role, State, UNANSWERED, Write,
};
use super::state::{age, ago, ticks};

/// How far the wall clock of a watcher is ahead of the holder's, for whoever asks for it.
const AHEAD: u8 = 5;

/// Who does it, unless nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) who: Option<usize>,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Ticks,
    /// One clock goes alone.
    TicksAlone,
    Looks,
    Asks,
    Acquires,
    AcquiresUnknowing,
    IsRefused,
    AskIsLost,
    Renews,
    RenewalIsApplied,
    RenewalIsAnswered,
    RenewalIsGivenUp,
    StrayIsApplied,
    StrayIsLost,
    StandsBy,
    Releases,
    Claims,
    Reads,
    CommitIsApplied,
    CommitIsAnswered,
    Checks,
    IsTooLate,
    Freezes,
    Sends,
    WakesAndSends,
    CallIsApplied,
    CallIsLost,
    LateShiftIsApplied,
    LateDeleteIsApplied,
    LateCallIsLost,
    Crashes,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = ["A", "B"];
        write!(f, "{} {:?}", self.who.map_or("-", |who_is| who[who_is]), self.what)
    }
}

/// Collects what may happen.
pub(crate) struct Next<'a> {
    from: &'a State,
    flaw: Option<Flaw>,
    into: &'a mut Vec<(Move, State)>,
}

impl<'a> Next<'a> {
    pub(crate) fn of(from: &'a State, flaw: Option<Flaw>, into: &'a mut Vec<(Move, State)>) -> Self {
        Self { from, flaw, into }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn add(&mut self, who: Option<usize>, what: What, change: impl FnOnce(&mut State)) {
        let mut to = *self.from;
        change(&mut to);
        // Only who asks for it is told it.
        let ages = self.has(Flaw::WallClock) && matches!(what, What::Ticks | What::TicksAlone);
        to.stamped = (to.stamped + u8::from(ages)).min(FOREVER);
        self.into.push((Move { who, what }, to.in_short()));
    }

    /// A move that changes no more than where a holder is.
    fn goes_to(&mut self, who: usize, what: What, at: At) {
        self.add(Some(who), what, |to| to.workers[who].holder_mut().unwrap().at = at);
    }

    pub(crate) fn all(mut self) {
        self.time();
        self.stray();
        self.late_calls();
        for who in 0..2 {
            match self.from.workers[who].role {
                Role::Standby { watched, since, asked } => self.standby(who, watched, since, asked),
                Role::Holder(holder) => {
                    self.lease(who, &holder);
                    self.rollback(who, &holder);
                }
            }
            self.call(who);
            if self.from.workers[who].role != Role::NEW {
                self.add(Some(who), What::Crashes, |to| end(to, who));
            }
        }
    }

    fn time(&mut self) {
        // What takes no time happens before the clocks go on.
        let at = |at: fn(At) -> bool| self.from.workers.iter().filter_map(|w| w.holder()).any(|holder| at(holder.at));
        if at(|at| matches!(at, At::Checked(_))) {
            return;
        }
        self.add(None, What::Ticks, |to| {
            tick(to, 0);
            tick(to, 1);
        });
        // Two clocks may come apart by as much as the margin, which is one tick.
        let alone = usize::from(self.from.ahead);
        for who in 0..2 {
            if who == alone || self.has(Flaw::ClockStandsStill) {
                self.add(Some(who), What::TicksAlone, |to| {
                    tick(to, who);
                    to.ahead = who == 0;
                });
            }
        }
    }

    fn stray(&mut self) {
        let Some(stray) = self.from.stray else { return };
        self.add(None, What::StrayIsLost, |to| to.stray = None);
        self.add(None, What::StrayIsApplied, |to| {
            to.stray = None;
            put(to, stray);
        });
    }

    fn standby(&mut self, who: usize, watched: Option<Record>, since: u8, asked: Option<u8>) {
        if let Some(asked) = asked {
            let fits = self.from.lease == watched || self.has(Flaw::Unconditional);
            let epoch = self.from.lease.map_or(self.from.epoch, |record| record.epoch) + 1;
            let taken = Record { epoch, beat: 0, released: false };
            if fits && asked < UNANSWERED {
                self.add(Some(who), What::Acquires, |to| {
                    put_anew(to, taken);
                    to.workers[who].role = Role::Holder(Holder::new(epoch, asked));
                });
            }
            if fits {
                self.add(Some(who), What::AcquiresUnknowing, |to| {
                    put_anew(to, taken);
                    to.workers[who].role = Role::NEW;
                });
            }
            let what = if fits { What::AskIsLost } else { What::IsRefused };
            self.add(Some(who), what, |to| {
                to.workers[who].role = Role::Standby { watched, since, asked: None };
            });
            return;
        }
        let record = self.from.lease.map(Record::tenure);
        let before = watched.is_some().then(|| State::watch(watched, since));
        let look = Watched::look(before, record, NOW);
        let since = age(look.since);
        let watched = self.from.lease;
        if NOW < self.free_at(&look) {
            self.add(Some(who), What::Looks, |to| {
                to.workers[who].role = Role::Standby { watched, since, asked: None };
            });
        } else {
            self.add(Some(who), What::Asks, |to| {
                to.workers[who].role = Role::Standby { watched, since, asked: Some(0) };
            });
        }
    }

    fn free_at(&self, watched: &Watched<Duration>) -> Duration {
        match &watched.record {
            Some(Tenure { released: false, .. }) if self.has(Flaw::WallClock) => {
                ago((self.from.stamped + AHEAD).min(FOREVER)) + LENGTH
            }
            _ => watched.free_at(),
        }
    }

    /// The holder keeps its lease, loses it or gives it back.
    fn lease(&mut self, who: usize, holder: &Holder) {
        let room = holder.in_force();
        let current = self.from.lease.is_some_and(|record| record.epoch == holder.epoch);
        match holder.renewal {
            None if room && holder.renewed >= ticks(RENEW_EVERY) => {
                self.add(Some(who), What::Renews, |to| {
                    let holder = to.workers[who].holder_mut().unwrap();
                    holder.beat += 1;
                    holder.renewal = Some(Renewal { asked: 0, applied: false });
                });
            }
            None => {}
            Some(Renewal { asked, applied: false }) => {
                {
                    let renewed = Record { epoch: holder.epoch, beat: holder.beat, released: false };
                    let twice = self.has(Flaw::AppliedTwice);
                    self.add(Some(who), What::RenewalIsApplied, |to| {
                        put(to, renewed);
                        to.workers[who].holder_mut().unwrap().renewal = Some(Renewal { asked, applied: true });
                        to.stray = to.stray.or(twice.then_some(renewed));
                    });
                }
                self.add(Some(who), What::RenewalIsGivenUp, |to| give_up(to, who));
            }
            Some(Renewal { asked, applied: true }) => {
                let asked = if self.has(Flaw::CountsFromAnswer) { 0 } else { asked };
                self.add(Some(who), What::RenewalIsAnswered, |to| {
                    let holder = to.workers[who].holder_mut().unwrap();
                    (holder.renewed, holder.renewal) = (asked, None);
                });
                self.add(Some(who), What::RenewalIsGivenUp, |to| give_up(to, who));
            }
        }
        let stopped = !matches!(holder.at, At::Checked(_) | At::Frozen(_));
        // Too late, or its next renewal is refused.
        if stopped && !(room && current) {
            self.add(Some(who), What::StandsBy, |to| end(to, who));
        }
        let busy = matches!(holder.at, At::Committing(..) | At::Ready(_) | At::Checked(_) | At::Frozen(_));
        let waits = holder.at == At::Waiting && !self.has(Flaw::ReleasesEarly);
        if room && current && !busy && !waits {
            let released = Record { epoch: holder.epoch, beat: holder.beat + 1, released: true };
            self.add(Some(who), What::Releases, |to| {
                end(to, who);
                put(to, released);
            });
        }
    }

    /// The rollback, a step at a time.
    fn rollback(&mut self, who: usize, holder: &Holder) {
        match holder.at {
            At::Loading => self.load(who, holder),
            At::Reading | At::ReadingTwice | At::ReadingAgain => self.read(who, holder),
            At::Committing(intent, applied) => self.commit(who, holder, intent, applied),
            At::Ready(write) => {
                let span = holder.span();
                let room = if self.has(Flaw::NoMargin) {
                    NOW + WRITE_WITHIN <= span.until()
                } else {
                    self.has(Flaw::NoLastCheck) || span.has_room_for(NOW, WRITE_WITHIN)
                };
                if room {
                    self.goes_to(who, What::Checks, At::Checked(write));
                } else {
                    self.goes_to(who, What::IsTooLate, At::Reading);
                }
            }
            At::Checked(write) => {
                self.send(who, holder, write);
                self.goes_to(who, What::Freezes, At::Frozen(write));
            }
            At::Frozen(write) => self.send_late(who, write),
            At::Waiting | At::Resting => {}
        }
    }

    /// Claims the head, and reads what it says.
    fn load(&mut self, who: usize, holder: &Holder) {
        if self.from.epoch > holder.epoch {
            return self.add(Some(who), What::StandsBy, |to| end(to, who));
        }
        let at = match self.from.log {
            Log::Closed => At::Resting,
            Log::Deleting if self.has(Flaw::NoReads) => At::Ready(Write::Delete),
            _ => At::Reading,
        };
        let fenced = !self.has(Flaw::NoFence);
        self.add(Some(who), What::Claims, |to| {
            if fenced {
                to.epoch = holder.epoch;
                to.workers.iter_mut().filter_map(|worker| worker.holder_mut()).for_each(|it| it.has_head = false);
            }
            let decided = to.log != Log::Undecided;
            let holder = to.workers[who].holder_mut().unwrap();
            (holder.has_head, holder.decided, holder.at) = (true, decided, at);
        });
    }

    /// One read, and what the plan says about it.
    fn read(&mut self, who: usize, holder: &Holder) {
        let seen = self.from.aws;
        let intend = |intent: Intent| match intent.write() {
            Some(write) if self.has(Flaw::ActsBeforeCommit) => At::Ready(write),
            _ => At::Committing(intent, false),
        };
        let at = match (holder.decided, seen, holder.at) {
            (false, ..) => intend(Intent::Decide),
            (_, Aws::GreenServes, _) => intend(Intent::Shift),
            (_, Aws::Deleted, _) => intend(Intent::Close),
            (_, Aws::Shifted, At::ReadingTwice) => At::ReadingAgain,
            (_, Aws::Shifted, At::ReadingAgain) => intend(Intent::Delete),
            (_, Aws::Shifted, _) => At::ReadingTwice,
        };
        self.add(Some(who), What::Reads, |to| {
            let holder = to.workers[who].holder_mut().unwrap();
            holder.at = at;
            holder.proofs = if seen == Aws::Shifted { (holder.proofs + 1).min(3) } else { 0 };
        });
    }

    /// A commit is sent again until it is answered; when it was in force already, that is the answer.
    fn commit(&mut self, who: usize, holder: &Holder, intent: Intent, applied: bool) {
        if applied {
            let at = intent.write().map_or(At::Resting, At::Ready);
            return self.add(Some(who), What::CommitIsAnswered, |to| {
                let holder = to.workers[who].holder_mut().unwrap();
                (holder.at, holder.decided) = (at, true);
            });
        }
        if !holder.has_head {
            return self.add(Some(who), What::StandsBy, |to| end(to, who));
        }
        self.add(Some(who), What::CommitIsApplied, |to| {
            to.log = intent.logged();
            to.decisions += u8::from(intent == Intent::Decide);
            to.workers.iter_mut().filter_map(|worker| worker.holder_mut()).for_each(|it| it.has_head = false);
            let holder = to.workers[who].holder_mut().unwrap();
            (holder.has_head, holder.at) = (true, At::Committing(intent, true));
        });
    }

    fn send(&mut self, who: usize, holder: &Holder, write: Write) {
        let call = Call { write, epoch: holder.epoch, sent: 0 };
        assert!(self.from.workers[who].call.is_none(), "the call before has been answered or given up");
        self.add(Some(who), What::Sends, |to| {
            to.workers[who].call = Some(call);
            let holder = to.workers[who].holder_mut().unwrap();
            (holder.at, holder.proofs) = (At::Waiting, 0);
        });
    }

    fn send_late(&mut self, who: usize, write: Write) {
        self.add(Some(who), What::WakesAndSends, |to| {
            match write {
                Write::Shift => to.late_shift = true,
                Write::Delete => to.late_delete = true,
            }
            let holder = to.workers[who].holder_mut().unwrap();
            (holder.at, holder.proofs) = (At::Reading, 0);
        });
    }

    /// What becomes of a call. The plan goes by what it reads, so an answer that is lost is one that comes late.
    fn call(&mut self, who: usize) {
        let Some(call) = self.from.workers[who].call else { return };
        self.add(Some(who), What::CallIsApplied, |to| {
            apply(to, call.write);
            over(to, who);
        });
        self.add(Some(who), What::CallIsLost, |to| over(to, who));
    }

    fn late_calls(&mut self) {
        if self.from.late_shift {
            self.add(None, What::LateShiftIsApplied, |to| apply(to, Write::Shift));
            self.add(None, What::LateCallIsLost, |to| to.late_shift = false);
        }
        if self.from.late_delete {
            self.add(None, What::LateDeleteIsApplied, |to| apply(to, Write::Delete));
            self.add(None, What::LateCallIsLost, |to| to.late_delete = false);
        }
    }
}

fn apply(to: &mut State, write: Write) {
    to.aws = match (write, to.aws) {
        (Write::Shift, Aws::GreenServes) => Aws::Shifted,
        (Write::Shift, aws) => aws,
        (Write::Delete, _) => Aws::Deleted,
    };
}

fn put(to: &mut State, record: Record) {
    to.lease = Some(record);
    to.stamped = 0;
}

fn put_anew(to: &mut State, record: Record) {
    put(to, record);
    to.stray = None;
}

/// One worker's clock goes on.
fn tick(to: &mut State, who: usize) {
    let older = |age: &mut u8| *age = (*age + 1).min(FOREVER);
    let worker = &mut to.workers[who];
    match &mut worker.role {
        Role::Standby { since, asked, .. } => {
            older(since);
            *asked = asked.map(|asked| (asked + 1).min(UNANSWERED));
        }
        Role::Holder(holder) => {
            older(&mut holder.renewed);
            holder.renewal.iter_mut().for_each(|renewal| older(&mut renewal.asked));
            if holder.renewal.is_some_and(|renewal| renewal.asked == UNANSWERED) {
                give_up(to, who);
            }
        }
    }
    let worker = &mut to.workers[who];
    worker.call.iter_mut().for_each(|call| older(&mut call.sent));
    if worker.call.is_some_and(|call| call.sent == GIVEN_UP) {
        over(to, who);
    }
}

/// A call has ended. Who still waits for it reads again.
fn over(to: &mut State, who: usize) {
    let call = to.workers[who].call.take();
    if let Some(holder) = to.workers[who].holder_mut()
        && holder.at == At::Waiting
        && call.is_some_and(|call| call.epoch == holder.epoch)
    {
        holder.at = At::Reading;
    }
}

/// A renewal without an answer: if it is not in the record yet, it may come there later.
fn give_up(to: &mut State, who: usize) {
    let holder = to.workers[who].holder_mut().unwrap();
    if holder.renewal.take().is_some_and(|renewal| !renewal.applied) {
        let record = Record { epoch: holder.epoch, beat: holder.beat, released: false };
        to.stray = to.stray.or(Some(record));
    }
}

/// The worker is no holder any more. What it has sent is still on its way.
fn end(to: &mut State, who: usize) {
    if to.workers[who].holder().is_some() {
        give_up(to, who);
    }
    to.workers[who].role = Role::NEW;
}
