//! What the model remembers: the table, AWS, and two workers. All times are ages on the clock of the one who counts them,
//! and epochs and beats are ranks, so that there are finitely many states however often the lease moves on.

use std::fmt;
use std::time::Duration;

use taskset_guardian::ports::Tenure;
use taskset_guardian::runtime::lease::{LENGTH, Span, WRITE_WITHIN, Watched};

pub(crate) const NAMES: [&str; 2] = ["A", "B"];

/// The model's clocks count this.
const TICK: Duration = Duration::from_secs(1);

/// Any moment will do: only differences count.
pub(crate) const NOW: Duration = Duration::from_secs(1_000);

/// Older than this is as good as forever: nobody compares with more than the lease's length.
pub(crate) const FOREVER: u8 = ticks(LENGTH);

/// From here on a call is given up.
pub(crate) const GIVEN_UP: u8 = ticks(WRITE_WITHIN);

/// A request to the table is given up when it is as old as this: two seconds, and no sooner than at the next tick.
pub(crate) const UNANSWERED: u8 = 3;

#[allow(clippy::cast_possible_truncation, reason = "a lease lasts ten seconds")]
pub(crate) const fn ticks(duration: Duration) -> u8 {
    (duration.as_secs() / TICK.as_secs()) as u8
}

/// A moment, by its age.
pub(crate) fn ago(age: u8) -> Duration {
    NOW.checked_sub(TICK * age.into()).unwrap()
}

pub(crate) fn age(moment: Duration) -> u8 {
    ticks(NOW.checked_sub(moment).unwrap())
}

/// The record of the lease. Who wrote it is told by its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) epoch: u8,
    pub(crate) beat: u8,
    pub(crate) released: bool,
}

impl Record {
    /// One that can't be in the table any more.
    const GONE: Self = Self { epoch: 0, beat: 63, released: false };

    pub(crate) fn tenure(self) -> Tenure {
        let (epoch, beat) = (self.epoch.into(), self.beat.into());
        Tenure { holder: String::new(), epoch, beat, length: LENGTH, released: self.released }
    }
}

/// How far the journal has the rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Log {
    Undecided,
    Decided,
    Deleting,
    Closed,
}

/// The service, as AWS has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Aws {
    GreenServes,
    Shifted,
    Deleted,
}

/// A call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Shift,
    Delete,
}

/// What a commit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Intent {
    /// The one decision; with it, the first shift.
    Decide,
    Shift,
    Delete,
    Close,
}

impl Intent {
    /// What is sent after it.
    pub(crate) fn write(self) -> Option<Write> {
        match self {
            Self::Decide | Self::Shift => Some(Write::Shift),
            Self::Delete => Some(Write::Delete),
            Self::Close => None,
        }
    }

    pub(crate) fn logged(self) -> Log {
        match self {
            Self::Decide | Self::Shift => Log::Decided,
            Self::Delete => Log::Deleting,
            Self::Close => Log::Closed,
        }
    }
}

/// Where the holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// Has the lease, and not the journal yet.
    Loading,
    Reading,
    /// A read has shown that nothing goes to green. After a while, the first of two more reads,
    ReadingTwice,
    /// and the second, by another call.
    ReadingAgain,
    /// Sent to the table; in force there or not yet.
    Committing(Intent, bool),
    /// Waits for room to send.
    Ready(Write),
    /// The last check is passed; the call leaves at once,
    Checked(Write),
    /// unless the process stands still.
    Frozen(Write),
    Waiting,
    /// The rollback is done.
    Resting,
}

/// A renewal that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Renewal {
    pub(crate) asked: u8,
    pub(crate) applied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    pub(crate) epoch: u8,
    pub(crate) beat: u8,
    /// The age of the newest renewal that is known to have succeeded, from before it was asked for.
    pub(crate) renewed: u8,
    pub(crate) renewal: Option<Renewal>,
    /// The head of the journal is as this worker left it: else its commits are refused.
    pub(crate) has_head: bool,
    /// It knows of the decision.
    pub(crate) decided: bool,
    pub(crate) at: At,
    /// Reads in this tenure, since its last write, that have shown green there and without traffic. For the promises.
    pub(crate) proofs: u8,
}

impl Holder {
    pub(crate) fn new(epoch: u8, renewed: u8) -> Self {
        Self { epoch, beat: 0, renewed, renewal: None, has_head: false, decided: false, at: At::Loading, proofs: 0 }
    }

    pub(crate) fn span(&self) -> Span<Duration> {
        Span::renewed(ago(self.renewed))
    }

    /// Whether its term lasts, if only for a moment.
    pub(crate) fn in_force(&self) -> bool {
        self.span().has_room_for(NOW, Duration::from_millis(1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Also one that is dead, and one that stands still: it may do nothing for as long as it likes.
    Standby {
        /// What the last look found, and since when.
        watched: Option<Record>,
        since: u8,
        /// Has asked for the lease so long ago, on condition that the record is what was watched.
        asked: Option<u8>,
    },
    Holder(Holder),
}

impl Role {
    pub(crate) const NEW: Self = Self::Standby { watched: None, since: 0, asked: None };
}

/// Under way to AWS. It outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) write: Write,
    pub(crate) epoch: u8,
    pub(crate) sent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    pub(crate) role: Role,
    pub(crate) call: Option<Call>,
}

impl Worker {
    pub(crate) fn holder(&self) -> Option<&Holder> {
        match &self.role {
            Role::Holder(holder) => Some(holder),
            Role::Standby { .. } => None,
        }
    }

    pub(crate) fn holder_mut(&mut self) -> Option<&mut Holder> {
        match &mut self.role {
            Role::Holder(holder) => Some(holder),
            Role::Standby { .. } => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) lease: Option<Record>,
    /// The age of the record by the wall clock of who wrote it. Nobody should ask for it.
    pub(crate) stamped: u8,
    /// A renewal that its sender has given up, and that may be applied all the same.
    pub(crate) stray: Option<Record>,
    /// Of the journal's head; 0 before the first.
    pub(crate) epoch: u8,
    pub(crate) log: Log,
    /// How many were ever made durable.
    pub(crate) decisions: u8,
    pub(crate) aws: Aws,
    /// Calls that were sent after a freeze: they may be applied at any time, or not. Any number of each: twice is once.
    pub(crate) late_shift: bool,
    pub(crate) late_delete: bool,
    pub(crate) workers: [Worker; 2],
    /// A's clock has gone a tick further than B's.
    pub(crate) ahead: bool,
}

impl State {
    pub(crate) fn first() -> Self {
        let worker = Worker { role: Role::NEW, call: None };
        Self {
            lease: None,
            stamped: 0,
            stray: None,
            epoch: 0,
            log: Log::Undecided,
            decisions: 0,
            aws: Aws::GreenServes,
            late_shift: false,
            late_delete: false,
            workers: [worker; 2],
            ahead: false,
        }
    }

    /// What a watcher judges by.
    pub(crate) fn watch(watched: Option<Record>, since: u8) -> Watched<Duration> {
        Watched { record: watched.map(Record::tenure), since: ago(since) }
    }

    /// The same state in its shortest words. Epochs and beats are only ever compared, and a new one is above all others:
    /// their ranks do. What can't have any effect any more is left out.
    pub(crate) fn in_short(mut self) -> Self {
        let newest = self.lease.map(|record| record.epoch);
        self.stray = self.stray.filter(|stray| Some(stray.epoch) == newest);
        self.late_shift &= self.aws == Aws::GreenServes;
        self.late_delete &= self.aws != Aws::Deleted;
        let (lease, stray) = (self.lease, self.stray);
        for worker in &mut self.workers {
            match &mut worker.role {
                Role::Standby { watched: None, since, .. } => *since = 0,
                // It matters to nobody how long it was watched: so for the longest time, should it matter after all.
                Role::Standby { watched: watched @ Some(_), since, .. } if *watched != lease && *watched != stray => {
                    (*watched, *since) = (Some(Record::GONE), FOREVER);
                }
                Role::Holder(holder) if Some(holder.epoch) != newest => {
                    (holder.beat, holder.renewal) = (0, None);
                }
                Role::Standby { .. } | Role::Holder(_) => {}
            }
        }
        rank(|visit| self.each_epoch(visit));
        rank(|visit| self.each_beat(visit));
        self
    }

    fn each_epoch(&mut self, visit: &mut dyn FnMut(&mut u8)) {
        visit(&mut self.epoch);
        self.each_record(&mut |record| visit(&mut record.epoch));
        for worker in &mut self.workers {
            worker.holder_mut().into_iter().for_each(|holder| visit(&mut holder.epoch));
            worker.call.iter_mut().for_each(|call| visit(&mut call.epoch));
        }
    }

    fn each_beat(&mut self, visit: &mut dyn FnMut(&mut u8)) {
        self.each_record(&mut |record| visit(&mut record.beat));
        for worker in &mut self.workers {
            worker.holder_mut().into_iter().for_each(|holder| visit(&mut holder.beat));
        }
    }

    fn each_record(&mut self, visit: &mut dyn FnMut(&mut Record)) {
        self.lease.iter_mut().for_each(&mut *visit);
        self.stray.iter_mut().for_each(&mut *visit);
        for worker in &mut self.workers {
            if let Role::Standby { watched: Some(record), .. } = &mut worker.role
                && *record != Record::GONE
            {
                visit(record);
            }
        }
    }
}

/// Puts the place in their order for each of a handful of numbers below 64.
fn rank(mut each: impl FnMut(&mut dyn FnMut(&mut u8))) {
    let mut used = 0_u64;
    each(&mut |number| used |= 1 << *number);
    each(&mut |number| *number = u8::try_from((used & ((1 << *number) - 1)).count_ones()).unwrap());
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lease {
            None => write!(f, "no lease")?,
            Some(Record { epoch, beat, released }) => {
                write!(f, "lease {epoch}.{beat}{}", if released { " released" } else { "" })?;
            }
        }
        write!(f, ", head {}, {:?}, {:?}", self.epoch, self.log, self.aws)?;
        for (name, worker) in NAMES.iter().zip(&self.workers) {
            match worker.role {
                Role::Standby { watched: None, .. } => write!(f, " | {name} watches")?,
                Role::Standby { watched: Some(Record::GONE), .. } => write!(f, " | {name} watches what is gone")?,
                Role::Standby { watched: Some(_), since, .. } => write!(f, " | {name} watches for {since} s")?,
                Role::Holder(Holder { epoch, beat, renewed, at, .. }) => {
                    write!(f, " | {name} holds {epoch}.{beat} for {renewed} s, {at:?}")?;
                }
            }
            if let Some(Call { write, epoch, sent, .. }) = worker.call {
                write!(f, ", {write:?} of {epoch} on its way for {sent} s")?;
            }
        }
        Ok(())
    }
}
