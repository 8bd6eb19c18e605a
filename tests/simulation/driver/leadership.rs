//! Who acts: the lease, looked at, taken over, renewed and lost, each by a worker's own monotonic clock.

use std::time::Duration;

use taskset_guardian::model::Timestamp;
use taskset_guardian::ports::{Lease as _, Tenure};
use taskset_guardian::runtime::lease::{LENGTH, LOOK_EVERY, MARGIN, RENEW_EVERY, Span, WRITE_WITHIN, Watched};

use super::{Own, ShellMutant, Simulation};

/// A renewal without an answer is given up and tried again after this: two seconds and a half.
const RENEW_AGAIN: Duration = Duration::from_millis(2500);

/// L4: somebody acts this long after the last one died.
const TWO_PERIODS: Duration = Duration::from_secs(20);

impl Simulation {
    fn alone(&self) -> bool {
        self.workers.len() == 1
    }

    /// The one that acts, if one does.
    pub(super) fn leader(&self) -> Option<usize> {
        self.workers.iter().position(|worker| worker.acting && worker.paused_until <= self.now)
    }

    fn monotonic(&self, who: usize) -> Duration {
        self.workers[who].clock.monotonic(self.now)
    }

    /// One look, and the takeover when it is time. Who owns its journal alone need not wait.
    pub(super) fn look(&mut self, who: usize) {
        let Ok(record) = self.journaled(who, async |journal| journal.look().await) else {
            return self.plan_own(who, LOOK_EVERY, Own::Look);
        };
        let seen = self.monotonic(who);
        let watched = Watched::look(self.workers[who].watched.take(), record, seen);
        let (free_at, record) = (watched.free_at(), watched.record.clone());
        self.workers[who].watched = Some(watched);
        if seen < free_at && !self.alone() {
            // The agenda knows milliseconds; what is left may be less.
            let wait = LOOK_EVERY.min(free_at.saturating_sub(seen)).max(Duration::from_millis(1));
            return self.plan_own(who, wait, Own::Look);
        }
        let acquired = self.journaled(who, async |journal| journal.acquire(record.as_ref(), LENGTH).await);
        match acquired {
            Ok(Some(tenure)) => self.lead(who, tenure, seen),
            Ok(None) | Err(_) => self.plan_own(who, LOOK_EVERY, Own::Look),
        }
    }

    fn lead(&mut self, who: usize, tenure: Tenure, asked: Duration) {
        if !self.alone() {
            self.ended.takeovers += 1;
            self.tell_of(who, "lease", || format!("acts, in epoch {}", tenure.epoch));
        }
        let rivals = self.workers.iter().enumerate().filter(|(other, worker)| *other != who && worker.acting);
        let in_force = rivals.clone().filter(|(_, worker)| {
            let left = |span: Span<Duration>| span.has_room_for(worker.clock.monotonic(self.now), Duration::ZERO);
            worker.span.is_some_and(left)
        });
        if in_force.count() > 0 {
            self.broken("L4", "two workers may act at a time".to_owned());
        }
        self.judged.leaderless_since = self.now;
        let alone = self.alone();
        let worker = &mut self.workers[who];
        worker.term += 1;
        worker.acting = true;
        worker.watched = None;
        worker.span = (!alone).then(|| Span::renewed(asked));
        worker.tenure = Some(tenure);
        if !alone {
            self.plan_own(who, RENEW_EVERY, Own::Keep);
        }
        self.begin(who);
    }

    /// The holder renews, or finds that it is too late for that.
    pub(super) fn keep(&mut self, who: usize) {
        let asked = self.monotonic(who);
        let worker = &mut self.workers[who];
        let (Some(span), Some(tenure)) = (worker.span, worker.tenure.as_mut()) else { return };
        tenure.beat += 1;
        let tenure = tenure.clone();
        let careless = self.without == Some(ShellMutant::NoLeaseCheck);
        if !span.has_room_for(asked, Duration::from_millis(1)) && !careless {
            return self.step_down(who, "the lease could not be renewed in time");
        }
        let lost = self.chance(self.schedule.faults.renewal_lost);
        let renewed = if lost {
            Err(())
        } else {
            self.journaled(who, async |journal| journal.renew(&tenure).await).map_err(drop)
        };
        match renewed {
            Ok(true) => {
                self.workers[who].span = Some(Span::renewed(asked));
                self.plan_own(who, RENEW_EVERY, Own::Keep);
            }
            Ok(false) if !careless => self.step_down(who, "another has taken the lease over"),
            Ok(false) | Err(()) => {
                let left = span.until().saturating_sub(asked).saturating_sub(MARGIN);
                let again = if careless { RENEW_AGAIN } else { RENEW_AGAIN.min(left) };
                self.plan_own(who, again.max(Duration::from_millis(1)), Own::Keep);
            }
        }
    }

    /// A write of this epoch may begin now and is over before anybody else may act.
    pub(super) fn has_room(&self, who: usize, epoch: u64) -> bool {
        let worker = &self.workers[who];
        let in_time = |span: Span<Duration>| span.has_room_for(self.monotonic(who), WRITE_WITHIN);
        self.alone()
            || self.without == Some(ShellMutant::NoLeaseCheck)
            || (worker.acting && worker.epoch() == epoch && worker.span.is_some_and(in_time))
    }

    /// S6: who sent a call under this epoch has been deposed. Checked when it is applied.
    pub(super) fn deposed(&self, epoch: u64) -> bool {
        !self.alone() && self.workers.iter().any(|worker| worker.epoch() > epoch)
    }

    /// L4: somebody acts within two periods, if anybody can.
    pub(super) fn notice_leaders(&mut self) {
        if self.leader().is_some() {
            self.judged.leaderless_since = self.now;
            return;
        }
        let able = |since: Timestamp| self.now.since(since.max(self.judged.leaderless_since)) > TWO_PERIODS;
        if self.workers.iter().any(|worker| worker.alive && worker.paused_until <= self.now && able(worker.able_since))
        {
            self.judged.leaderless_since = self.now;
            self.broken("L4", "nobody acts for two lease periods".to_owned());
        }
    }
}
