//! What a step collects on its way through the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::brakes::Brakes;
use super::partition::Deployment;
use super::{Effect, Note, Settings, Step};
use crate::model::{
    Announcement, AnnouncementKind, CallError, EffectId, ErrorClass, Evidence, Incident, Outcome, SCHEMA_VERSION,
    ServiceKey, Timestamp, Write,
};

/// How long a write may wait for its turn. A pause of the process longer than this makes its reads too old.
const WRITE_LIFE: Duration = Duration::from_secs(5);

/// Between two tries of an announcement: from here, doubling,
const ANNOUNCE_RETRY: Duration = Duration::from_secs(1);

/// up to here. A bus that is away for an hour costs sixty calls.
const ANNOUNCE_RETRY_MAX: Duration = Duration::from_mins(1);

/// and up to here where the bus refuses it: it will, until a person mends a policy or a name.
const ANNOUNCE_REFUSED_MAX: Duration = Duration::from_mins(15);

/// Announcements that are kept for the bus. Each costs a call per try and a few kilobytes of every checkpoint.
const OUTBOX: usize = 200;

/// Effects and notes of one step, and the counters behind them.
pub(super) struct Out<'a> {
    pub(super) now: Timestamp,
    pub(super) settings: Settings,
    pub(super) step: Step,
    pub(super) next_effect: &'a mut u64,
    pub(super) outbox: &'a mut Outbox,
    pub(super) brakes: &'a mut Brakes,
}

impl Out<'_> {
    pub(super) fn note(&mut self, note: Note) {
        self.step.report.notes.push(note);
    }

    pub(super) fn touch(&mut self, service: &ServiceKey) {
        self.step.report.touched.push(service.clone());
    }

    fn id(&mut self) -> EffectId {
        // An id is spent, so the step that spent it must be durable.
        self.step.changed = true;
        *self.next_effect = self.next_effect.saturating_add(1);
        EffectId(*self.next_effect)
    }

    pub(super) fn write(&mut self, service: &ServiceKey, write: Write) -> EffectId {
        let id = self.id();
        let expires_at = self.now.plus(WRITE_LIFE);
        self.step.effects.push(Effect::Write { id, service: service.clone(), write, expires_at });
        id
    }

    /// Announces what became of a rollback.
    pub(super) fn announce_rollback(
        &mut self,
        kind: AnnouncementKind,
        service: &ServiceKey,
        deployment: &Deployment,
        incident: &Incident,
        reason: &str,
        dry_run: bool,
    ) {
        let evidence = incident.evidence.clone();
        let mut announcement = self.announcement(kind, service, deployment, reason, evidence);
        announcement.incident = Some(incident.id.clone());
        announcement.dry_run = dry_run;
        self.announce(announcement);
    }

    /// Announces that green took over.
    pub(super) fn announce_graduation(
        &mut self,
        service: &ServiceKey,
        deployment: &Deployment,
        reason: &str,
        dry_run: bool,
    ) {
        let kind = AnnouncementKind::DeploymentGraduated;
        let mut announcement = self.announcement(kind, service, deployment, reason, Vec::new());
        announcement.dry_run = dry_run;
        self.announce(announcement);
    }

    fn announcement(
        &mut self,
        kind: AnnouncementKind,
        service: &ServiceKey,
        deployment: &Deployment,
        reason: &str,
        evidence: Vec<Evidence>,
    ) -> Announcement {
        Announcement {
            schema_version: SCHEMA_VERSION,
            id: String::new(),
            kind,
            at: self.now,
            incident: None,
            service: service.clone(),
            scope: deployment.scope.to_string(),
            green: deployment.green.clone(),
            blue: deployment.blue.clone(),
            task_definition: deployment.task_definition.to_string(),
            reason: reason.to_owned(),
            dry_run: self.settings.dry_run,
            evidence,
        }
    }

    fn announce(&mut self, mut announcement: Announcement) {
        let id = self.id();
        announcement.id = format!("{}-{}", announcement.green.digits(), id.0);
        self.step.effects.push(Effect::Announce(id, announcement.clone()));
        self.outbox.keep(id, announcement);
    }
}

/// Announcements that the bus has not taken yet. Kept, so that a crash repeats rather than loses one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outbox {
    pending: BTreeMap<EffectId, Pending>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    announcement: Announcement,
    #[serde(skip)]
    tries: u32,
    #[serde(skip)]
    retry_at: Option<Timestamp>,
}

impl Outbox {
    /// Keeps an announcement until the bus takes it. When there are too many, a green that took over is the least to be missed,
    /// a call for a person the most, and of the same the oldest.
    fn keep(&mut self, id: EffectId, announcement: Announcement) {
        self.pending.insert(id, Pending { announcement, tries: 0, retry_at: None });
        while self.pending.len() > OUTBOX {
            let rank = |pending: &Pending| match pending.announcement.kind {
                AnnouncementKind::DeploymentGraduated => 0,
                AnnouncementKind::RollbackEscalated => 2,
                _ => 1,
            };
            let least = self.pending.iter().min_by_key(|(id, pending)| (rank(pending), **id));
            let Some(id) = least.map(|(id, _)| *id) else { break };
            self.pending.remove(&id);
        }
    }

    /// Takes the answer to an announcement. `None` when the id is not one. True when it was delivered.
    pub(super) fn done(&mut self, now: Timestamp, id: EffectId, outcome: &Outcome) -> Option<(bool, Announcement)> {
        let pending = self.pending.get_mut(&id)?;
        let announcement = pending.announcement.clone();
        let delivered = matches!(outcome, Outcome::Applied | Outcome::AlreadyDone | Outcome::Suppressed);
        if delivered {
            self.pending.remove(&id);
        } else {
            let most = if is_refused(outcome) { ANNOUNCE_REFUSED_MAX } else { ANNOUNCE_RETRY_MAX };
            let wait = ANNOUNCE_RETRY.saturating_mul(1_u32 << pending.tries.min(10)).min(most);
            pending.tries = pending.tries.saturating_add(1);
            pending.retry_at = Some(now.plus(wait));
        }
        Some((delivered, announcement))
    }

    /// When the next try is due.
    pub(super) fn next_retry(&self) -> Option<Timestamp> {
        self.pending.values().filter_map(|pending| pending.retry_at).min()
    }

    /// Announcements whose next try is due.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (id, pending) in &mut self.pending {
            if pending.retry_at.is_some_and(|at| at <= now) {
                pending.retry_at = None;
                effects.push(Effect::Announce(*id, pending.announcement.clone()));
            }
        }
        effects
    }

    /// The clock was set.
    pub(super) fn clock_set(&mut self, by_ms: i64) {
        for at in self.pending.values_mut().filter_map(|pending| pending.retry_at.as_mut()) {
            *at = at.moved(by_ms);
        }
    }

    /// After a restart nobody knows which were delivered: all are sent again.
    pub(super) fn restarted(&mut self) -> Vec<Effect> {
        self.pending.iter().map(|(id, pending)| Effect::Announce(*id, pending.announcement.clone())).collect()
    }
}

/// Trying again changes nothing by itself.
fn is_refused(outcome: &Outcome) -> bool {
    use ErrorClass::{Denied, NotFound, Rejected};
    matches!(outcome, Outcome::Failed(CallError { class: Denied | NotFound | Rejected, .. }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::TaskSetId;

    fn announcement(kind: AnnouncementKind) -> Announcement {
        Announcement {
            schema_version: SCHEMA_VERSION,
            id: String::new(),
            kind,
            at: Timestamp::EPOCH,
            incident: None,
            service: ServiceKey::new("prod", "checkout"),
            scope: String::new(),
            green: TaskSetId::new("ecs-svc/2"),
            blue: TaskSetId::new("ecs-svc/1"),
            task_definition: String::new(),
            reason: String::new(),
            dry_run: false,
            evidence: Vec::new(),
        }
    }

    /// Seconds between the tries of an announcement that fails so each time.
    fn waits(class: ErrorClass) -> Vec<u64> {
        let (mut outbox, mut now, id) = (Outbox::default(), Timestamp::EPOCH, EffectId(1));
        outbox.keep(id, announcement(AnnouncementKind::RollbackEscalated));
        let error = CallError { class, operation: "test".to_owned(), code: None, message: String::new() };
        let wait = |_| {
            outbox.done(now, id, &Outcome::Failed(error.clone())).unwrap();
            let wait = outbox.next_retry().unwrap().since(now);
            now = now.plus(wait);
            assert_eq!(outbox.due(now).len(), 1);
            wait.as_secs()
        };
        (0..12).map(wait).collect()
    }

    #[test]
    fn what_the_bus_refuses_is_tried_every_quarter_of_an_hour_and_what_fails_every_minute() {
        for class in [ErrorClass::Transient, ErrorClass::Throttled] {
            assert_eq!(waits(class), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60], "{class:?}");
        }
        for class in [ErrorClass::Denied, ErrorClass::NotFound, ErrorClass::Rejected] {
            assert_eq!(waits(class), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900], "{class:?}");
        }
    }

    #[test]
    fn a_bus_that_takes_nothing_costs_a_bounded_outbox_and_graduations_first() {
        let mut outbox = Outbox::default();
        let kinds = [AnnouncementKind::RollbackEscalated, AnnouncementKind::DeploymentGraduated];
        let kept = |outbox: &Outbox| {
            let of = |kind| outbox.pending.values().filter(|pending| pending.announcement.kind == kind).count();
            kinds.map(of)
        };
        for id in 0..300 {
            outbox.keep(EffectId(id), announcement(kinds[usize::from(id % 2 == 1)]));
        }
        assert_eq!(kept(&outbox), [150, 50]);
        assert!(outbox.pending.contains_key(&EffectId(0)) && outbox.pending.contains_key(&EffectId(299)));
        outbox.keep(EffectId(300), announcement(AnnouncementKind::RollbackHeld));
        for id in 301..501 {
            outbox.keep(EffectId(id), announcement(kinds[0]));
        }
        assert_eq!(kept(&outbox), [200, 0]);
        assert_eq!(outbox.pending.keys().next(), Some(&EffectId(301)), "the oldest are given up");
    }
}
