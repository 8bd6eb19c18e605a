//! Calls on their way to AWS and back, and what becomes of them there.

use std::hash::Hash as _;
use std::time::Duration;

use taskset_guardian::model::{
    Announcement, AnnouncementKind, Ask, CallError, EffectId, ErrorClass, Outcome, Role, Timestamp,
};
use taskset_guardian::sandbox::direct;
use taskset_guardian::sandbox::world::Act;

use super::{Decided, LAG, ShellMutant, Simulation, TIMEOUT, Todo};
use crate::schedule;

impl Simulation {
    pub(super) fn outage(&self) -> bool {
        let since = self.now.since(self.began);
        let (from, until) = self.schedule.faults.outage;
        from <= since && since < until && !self.calm()
    }

    pub(super) fn fault(&mut self, operation: &str, class: ErrorClass) -> CallError {
        self.tell("fault", || format!("{operation}: {}", class.as_str()));
        CallError { class, operation: operation.to_owned(), code: None, message: "injected".to_owned() }
    }

    pub(super) fn read(&mut self, ask: &Ask, read_at: Timestamp) {
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

    pub(super) fn meddle(&mut self, act: &Act) {
        self.tell("person", || format!("{act:?}"));
        let key = self.schedule.key.clone();
        self.world.person(&key, act);
        (self.disturbed_at, self.disturbed_after) = (self.now, self.happened);
    }

    /// The executor's last look before a write leaves.
    pub(super) fn send(&mut self, decided: Decided, expires_at: Timestamp) {
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

    pub(super) fn apply(&mut self, decided: Decided, sent_at: Timestamp) {
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

    pub(super) fn announce(&mut self, id: EffectId, announcement: &Announcement) {
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
}
