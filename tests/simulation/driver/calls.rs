//! Calls on their way to AWS and back, and what becomes of them there.

use std::collections::BTreeSet;
use std::hash::Hash as _;
use std::time::Duration;

use taskset_guardian::engine::Input;
use taskset_guardian::model::{
    Announcement, AnnouncementKind, CallError, EffectId, ErrorClass, Outcome, ServiceKey, Timestamp, TrafficRuleId,
    Write,
};
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};
use taskset_guardian::sandbox::direct;
use taskset_guardian::sandbox::world::Act;

use super::{Basis, Decided, Own, ShellMutant, Simulation, TIMEOUT, Todo};
use crate::schedule;

impl Simulation {
    pub(super) fn fault(&mut self, who: usize, operation: &str, class: ErrorClass) -> CallError {
        self.tell_of(who, "fault", || format!("{operation}: {}", class.as_str()));
        CallError { class, operation: operation.to_owned(), code: None, message: "injected".to_owned() }
    }

    /// How a call fails before anything of it is done, if it does.
    pub(super) fn refusal(&mut self, who: usize, operation: &str, denied: (Duration, Duration)) -> Option<CallError> {
        let class = if self.during(self.schedule.faults.outage) || self.chance(self.schedule.faults.failed_before) {
            ErrorClass::Transient
        } else if self.chance(self.schedule.faults.throttled) {
            ErrorClass::Throttled
        } else if self.during(denied) {
            ErrorClass::Denied
        } else {
            return None;
        };
        Some(self.fault(who, operation, class))
    }

    pub(super) fn sweep(&mut self, who: usize) {
        self.plan_own(who, self.schedule.sweep, Own::Sweep);
        let keys = self.schedule.keys().filter(|key| self.rules().rule_for(key).is_some()).cloned().collect();
        self.take(who, Input::Swept(keys).into());
        let registered = direct::registered(&mut self.world).unwrap_or_default();
        if !registered.is_empty() {
            self.take(who, Input::Registered(registered).into());
        }
    }

    /// Those that a rule in force protects, by its name or by their tag.
    pub(super) fn protected(&mut self) -> BTreeSet<ServiceKey> {
        let registered = direct::registered(&mut self.world).unwrap_or_default();
        let protects = |key: &&ServiceKey| self.rules().rule_for(key).is_some() || registered.contains_key(*key);
        self.schedule.keys().filter(protects).cloned().collect()
    }

    /// Whoever acts, or stands by, has them at once.
    pub(super) fn load(&mut self) {
        self.tell("person", || "other rules are loaded".to_owned());
        for who in 0..self.workers.len() {
            let rules = self.rules().clone();
            self.take(who, Input::Rules(rules).into());
        }
    }

    pub(super) fn meddle(&mut self, key: &ServiceKey, act: &Act) {
        self.tell("person", || format!("{}: {act:?}", key.service));
        self.world.person(key, act);
        (self.judged.disturbed_at, self.judged.disturbed_after) = (self.now, self.judged.happened);
    }

    /// The executor's last look before a write leaves.
    pub(super) fn send(&mut self, who: usize, decided: Decided, expires_at: Timestamp) {
        let clock = self.workers[who].clock;
        let old = clock.wall(self.now) > expires_at || clock.monotonic(self.now) > decided.until;
        if (old && self.without != Some(ShellMutant::NoExpiry)) || !self.has_room(who, decided.epoch) {
            return self.plan_own(who, Duration::ZERO, Own::Done(decided.id, Outcome::Expired));
        }
        if self.chance(self.schedule.faults.meddling) {
            let act = schedule::meddling(&mut self.rng);
            self.meddle(&decided.service, &act);
        }
        if self.chance(self.schedule.faults.pause) {
            // The check is behind it, the call before it. Nothing at AWS can tell how old it is.
            self.pause(who);
            let held = self.workers[who].paused_until.since(self.now);
            return self.plan(held, Todo::Apply(who, decided, self.now));
        }
        let slow = self.chance(self.schedule.faults.slow);
        let latency = if slow { self.within(TIMEOUT) } else { self.latency() };
        self.plan(latency, Todo::Apply(who, decided, self.now));
    }

    pub(super) fn apply(&mut self, who: usize, decided: Decided, sent_at: Timestamp) {
        let Decided { id, service: _, write, basis, epoch, until: _ } = decided;
        self.judged.rests = match write {
            Write::DeleteTaskSet { .. } => Basis { read_at: basis.again_at, ..basis },
            _ => basis,
        };
        let operation = write.operation();
        let late = self.now.since(sent_at) > TIMEOUT;
        let refused = self.refusal(who, operation, self.schedule.faults.writes_denied);
        let was_refused = refused.is_some();
        let outcome = refused.map_or_else(|| self.carry_out(who, &write, epoch, late), Outcome::Failed);
        if let Write::SetActions { rule, found, .. } = write
            && !was_refused
        {
            self.judged.unheard.insert(rule, (id, found));
        }
        // A deposed worker listens to nobody any more, and what it sent is news to its successor.
        let worker = &self.workers[who];
        if !worker.acting || worker.epoch() != epoch {
            (self.judged.disturbed_at, self.judged.disturbed_after) = (self.now, self.judged.happened);
            if late && !was_refused {
                self.judged.stray_at = Some(self.now);
            }
            return;
        }
        if self.chance(self.schedule.faults.crash_after_apply) {
            return self.crash(who, "after a call was applied");
        }
        let latency = self.latency();
        let outcome = if self.now.plus(latency).since(sent_at) > TIMEOUT && !late {
            Outcome::Failed(self.fault(who, operation, ErrorClass::Transient))
        } else {
            outcome
        };
        if !was_refused && outcome != Outcome::Applied {
            self.lose_answers();
        }
        self.plan_own(who, latency, Own::Done(id, outcome));
    }

    /// What was applied and not heard of by now is heard of late, or never.
    pub(super) fn lose_answers(&mut self) {
        self.judged.late_answers |= !self.judged.unheard.is_empty();
    }

    /// It reached AWS, which does what it says, or refuses.
    fn carry_out(&mut self, who: usize, write: &Write, epoch: u64, late: bool) -> Outcome {
        let operation = write.operation();
        if late {
            // Sent after a stand-still: what happened meanwhile is as good as unseen.
            (self.judged.disturbed_at, self.judged.disturbed_after) = (self.now, self.judged.happened);
            self.judged.rests = Basis { read_at: self.now, read_after: self.judged.happened - 1, ..self.judged.rests };
        }
        self.ended.writes += 1;
        operation.hash(&mut self.hasher);
        self.tell_of(who, "call", || format!("{operation} is applied"));
        self.check_epoch(write, epoch, late);
        // Moved off a green that was replaced meanwhile: the dispute about its successor has begun before its rollback has.
        let is_overtaken =
            matches!(write, Write::SetActions { .. }) && self.judged.created_at >= self.judged.rests.read_at;
        self.judged.unseen_dispute |= is_overtaken || self.is_blind(write);
        match direct::apply(&mut self.world, write) {
            Ok(()) if self.chance(self.schedule.faults.failed_after) => {
                Outcome::Failed(self.fault(who, operation, ErrorClass::Transient))
            }
            Ok(()) => Outcome::Applied,
            Err(error) if error.class == ErrorClass::NotFound && operation == "DeleteTaskSet" => Outcome::AlreadyDone,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Whether a rule is not what the call was made for any more, or reads as if an earlier call had never arrived.
    fn is_blind(&mut self, write: &Write) -> bool {
        let Write::SetActions { rule, found, .. } = write else { return false };
        if self.judged.unheard.get(rule).is_some_and(|(_, before)| before == found) {
            return true;
        }
        let call = match rule {
            TrafficRuleId::Rule(rule) => Call::DescribeRules { listener: None, arns: vec![rule.to_string()] },
            TrafficRuleId::DefaultOf(listener) => {
                Call::DescribeListeners { load_balancer: None, arns: vec![listener.to_string()] }
            }
        };
        match self.world.call(call) {
            Ok(Reply::Rules(rules)) => rules.iter().any(|rule| rule.actions != *found),
            Ok(Reply::Listeners(listeners)) => listeners.iter().any(|listener| listener.default_actions != *found),
            _ => false,
        }
    }

    /// S6, when a call is applied.
    fn check_epoch(&mut self, write: &Write, epoch: u64, late: bool) {
        let operation = write.operation();
        let stray = self.deposed(epoch);
        if stray {
            self.judged.stray_at = Some(self.now);
            self.broken_or_race("S6", format!("{operation} of a deposed worker is applied"), late);
        }
        if let Write::DeleteTaskSet { task_set, .. } = write
            && self.workers.len() > 1
            && let Some((other, was_stray)) = self.judged.deleted.insert(task_set.to_string(), (epoch, stray))
            && other != epoch
        {
            // What a deposed worker sends late, its successor can't know of.
            self.broken_or_race("S6", format!("{task_set} is deleted by two workers"), late || was_stray);
        }
    }

    pub(super) fn returned(&mut self, who: usize, id: EffectId, outcome: Outcome) {
        self.take(who, Input::Done(id, outcome).into());
    }

    pub(super) fn announce(&mut self, who: usize, id: EffectId, announcement: &Announcement) {
        let mut outcome = match self.refusal(who, "PutEvents", (Duration::ZERO, Duration::ZERO)) {
            Some(error) => Outcome::Failed(error),
            None => direct::announce(&mut self.world, announcement).map_or_else(Outcome::Failed, |()| Outcome::Applied),
        };
        if outcome == Outcome::Applied {
            self.ended.escalated |= announcement.kind == AnnouncementKind::RollbackEscalated;
            self.ended.completed |= announcement.kind == AnnouncementKind::RollbackCompleted;
            let unanswered = self.chance(self.schedule.faults.failed_after);
            self.note_delivery(announcement, unanswered);
            if unanswered {
                outcome = Outcome::Failed(self.fault(who, "PutEvents", ErrorClass::Transient));
            }
        }
        let latency = self.latency();
        self.plan_own(who, latency, Own::Done(id, outcome));
    }
}
