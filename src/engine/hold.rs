//! Held breaches: a gate is breached, and yet it is right not to act. Announced once, looked at again at every read, over
//! when the reason or the breach is.

use std::time::Duration;

use super::Effect;
use super::Note;
use super::brakes::Turn;
use super::gates::Judgement;
use super::out::Out;
use super::partition::{Cause, Deployment, Hold, Kept};
use super::progress;
use super::rollback::enter;
use crate::model::{
    AnnouncementKind, Contract, Evidence, HoldOrder, IncidentOutcome, Phase, ServiceKey, Timestamp, Verdict, humane,
    tags,
};
use crate::rules::Mode;

/// A breach that is held again for the same cause, this long after it was released at most, is announced no second time.
const SAME_TROUBLE: Duration = Duration::from_hours(1);

/// The span of `limits.rollbacks_per_day`.
const DAY: Duration = Duration::from_hours(24);

/// Why a breach of this service must not be acted on, if there is one and it must not.
pub(super) fn cause(
    key: &ServiceKey,
    kept: &Kept,
    by_person: Option<&HoldOrder>,
    judgement: &Judgement,
    out: &mut Out<'_>,
) -> Option<(Cause, String)> {
    if !judgement.is_over() {
        return None;
    }
    // What only observes is often still being tuned: its breaches must not hold back those that act.
    let enforces = kept.rule.mode == Mode::Enforce;
    if enforces {
        out.brakes.breaching(out.now, key);
        settle_brake(out);
    }
    if judgement.verdict == Verdict::NotAttributable {
        let why = judgement.why();
        return Some((Cause::NotAttributable, format!("blue suffers as well, so it is not green's fault: {why}")));
    }
    if !enforces {
        return None;
    }
    if let Some(order) = by_person {
        return Some((Cause::Person, order.to_string()));
    }
    if kept.live().and_then(|d| d.contract) == Some(Contract::Page) {
        let why = format!("green's tag {} wants a person to decide", tags::CONTRACT);
        return Some((Cause::Contract, why));
    }
    if let Some(why) = out.brakes.held() {
        return Some((Cause::FleetBrake, why));
    }
    let limit = kept.rule.limits.rollbacks_per_day;
    let today = kept.rollbacks.iter().filter(|at| out.now.since(**at) < DAY).count();
    (today >= usize::try_from(limit).unwrap_or(usize::MAX)).then(|| {
        let why = format!("{today} rollbacks within {}, and the rule allows {limit} a day", humane(DAY));
        (Cause::DailyLimit, why)
    })
}

/// Brings the fleet brake up to date.
pub(super) fn settle_brake(out: &mut Out<'_>) {
    if let Some(turn) = out.brakes.settle(out.now, out.settings.fleet_brake) {
        out.step.changed = true;
        let why = out.brakes.held().unwrap_or_else(|| "fewer services breach again".to_owned());
        out.note(Note::Brake { engaged: turn == Turn::Engaged, why });
    }
}

/// The breach is not acted on, as long as this lasts. `changes_nothing`: nor would it be without that.
pub(super) fn hold(
    key: &ServiceKey,
    deployment: &mut Deployment,
    cause: Cause,
    why: &str,
    evidence: Vec<Evidence>,
    changes_nothing: bool,
    out: &mut Out<'_>,
) {
    if deployment.hold.as_ref().is_some_and(|hold| hold.cause == cause) {
        return;
    }
    release(key, deployment, "held for another reason now", out);
    let same = |held: &Hold| held.cause == cause && held.is_of_late(out.now);
    if let Some(at) = deployment.released.iter().position(same) {
        // It comes and goes, and people have heard of it.
        let mut hold = deployment.released.remove(at);
        progress::log(&mut hold.incident, out.now, format!("held again: {why}"));
        enter(key, deployment, Phase::Breached, &format!("held: {why}"), out);
        out.step.effects.push(Effect::Keep(hold.incident.clone()));
        deployment.hold = Some(hold);
        return;
    }
    deployment.holds = deployment.holds.saturating_add(1);
    let id = format!("held-{}-{}", deployment.green.digits(), deployment.holds);
    let mut incident = deployment.incident(out.now, key, id, evidence.clone());
    incident.outcome = IncidentOutcome::Held;
    incident.reason = Some(why.to_owned());
    progress::log(&mut incident, out.now, format!("held: {why}"));
    enter(key, deployment, Phase::Breached, &format!("held: {why}"), out);
    out.note(Note::Decided { service: key.clone(), incident: incident.id.clone(), held: true, evidence });
    let (service, outcome) = (key.clone(), IncidentOutcome::Held);
    out.note(Note::Closed { service, incident: incident.id.clone(), outcome, why: why.to_owned() });
    // The brake is one state of the whole fleet: the first service that it holds speaks for all.
    if cause != Cause::FleetBrake || !out.brakes.announced() {
        out.announce_rollback(AnnouncementKind::RollbackHeld, key, deployment, &incident, why, changes_nothing);
    }
    out.step.effects.push(Effect::Keep(incident.clone()));
    deployment.hold = Some(Hold { cause, incident });
}

/// The reason to hold is gone: with it the hold.
pub(super) fn release(key: &ServiceKey, deployment: &mut Deployment, why: &str, out: &mut Out<'_>) {
    if let Some(mut hold) = deployment.hold.take() {
        progress::log(&mut hold.incident, out.now, format!("no longer held: {why}"));
        out.step.effects.push(Effect::Keep(hold.incident.clone()));
        enter(key, deployment, Phase::Watching, why, out);
        deployment.released.retain(|other| other.cause != hold.cause);
        deployment.released.push(hold);
    }
}

impl Hold {
    /// By what its record says last, when it was released.
    fn is_of_late(&self, now: Timestamp) -> bool {
        self.incident.timeline.last().is_some_and(|released| now.since(released.at) <= SAME_TROUBLE)
    }
}
