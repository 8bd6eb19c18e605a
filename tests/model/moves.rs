//! What may happen next.

use std::fmt;
use std::time::Duration;

use taskset_guardian::ports::Tenure;
use taskset_guardian::runtime::lease::{LENGTH, RENEW_EVERY, WRITE_WITHIN, Watched};

use super::Flaw;
use super::changes::{apply, end, give_up, over, put, put_anew, tick};
use super::state::{
    At, Aws, Call, FOREVER, Holder, Intent, Log, NAMES, NOW, Record, Renewal, Role, State, UNANSWERED, Worker, Write,
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

/// Their names are the words of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Ticks,
    /// One clock goes alone.
    TicksAlone,
    Looks,
    Asks,
    Acquires,
    /// The record says so, and nobody answers.
    AcquiresUnknowing,
    IsRefused,
    AskIsLost,
    Renews,
    RenewalIsApplied,
    RenewalIsAnswered,
    RenewalIsGivenUp,
    /// A renewal that was given up.
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
        write!(f, "{} {:?}", self.who.map_or("-", |who| NAMES[who]), self.what)
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
        // From the last check to the call takes no time, unless there is a freeze.
        if self.from.workers.iter().filter_map(Worker::holder).any(|holder| matches!(holder.at, At::Checked(_))) {
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
                let renewed = Record { epoch: holder.epoch, beat: holder.beat, released: false };
                let twice = self.has(Flaw::AppliedTwice);
                self.add(Some(who), What::RenewalIsApplied, |to| {
                    put(to, renewed);
                    to.workers[who].holder_mut().unwrap().renewal = Some(Renewal { asked, applied: true });
                    to.stray = to.stray.or(twice.then_some(renewed));
                });
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
                to.workers.iter_mut().filter_map(Worker::holder_mut).for_each(|it| it.has_head = false);
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
            to.workers.iter_mut().filter_map(Worker::holder_mut).for_each(|it| it.has_head = false);
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
