//! What a play tells: lines out of the world's story and the guardian's notes, about the service that it is about.

use std::time::Duration;

use tracing::Level;

use super::play::BEGIN;
use crate::engine::{Note, Stage};
use crate::model::{IncidentOutcome, Moment, Outcome, Phase, ServiceKey, Split, Step, Timestamp, Verdict};
use crate::sandbox::scenario::Expected;
use crate::telemetry::narrate;

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    World,
    Traffic,
    Guardian,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) t: Duration,
    pub(super) teller: Teller,
    pub(super) what: String,
    /// For the bar, when the traffic moved.
    pub(super) split: Option<Split>,
    /// Worth a second look.
    pub(super) loud: bool,
}

pub(super) fn from_world(moment: Moment) -> Line {
    let Moment { at, what } = moment;
    Line { t: at.since(BEGIN), teller: Teller::World, what, split: None, loud: false }
}

/// What a newcomer wants to hear from the guardian: decisions and acts, not every signal. Logs say more, in other words.
pub(super) fn from_guardian(note: &Note, about: &ServiceKey, at: Timestamp) -> Option<Line> {
    if note.service().is_some_and(|service| service != about) {
        return None;
    }
    let loud = matches!(note, Note::Decided { .. } | Note::Closed { .. } | Note::Graduated { .. });
    let what = match note {
        Note::DeploymentBegan { .. } => "green appeared beside blue: watching it".to_owned(),
        Note::Judged { verdict: Verdict::Healthy, news: true, .. } => "every gate is clear so far".to_owned(),
        Note::Decided { held, evidence, .. } => {
            let what = if *held { "would roll back" } else { "rolls back" };
            let evidence: Vec<_> = evidence.iter().map(ToString::to_string).collect();
            format!("{what}: {}", evidence.join("; "))
        }
        Note::Reached { stage: Stage::Shift, .. } => "read the rules again: none sends anything to green".to_owned(),
        Note::Phase { to: Phase::RollingBack(Step::RestoreBlue | Step::Drain | Step::VerifyGone), why, .. }
        | Note::Closed { why, .. } => why.clone(),
        Note::Sent { what, .. } | Note::Waiting { why: what, .. } => what.clone(),
        Note::Returned { outcome: Outcome::Failed(_) | Outcome::Expired, .. }
        | Note::Unread { .. }
        | Note::NotReady { .. }
        | Note::Refused { .. }
        | Note::Witnessed { .. }
        | Note::Graduated { .. } => narrate(note)?.1,
        // The fleet's brake, and an announcement that did not get through, are told when they are warnings.
        Note::Announced { .. } | Note::Brake { .. } => match narrate(note)? {
            (Level::WARN | Level::ERROR, what) => what,
            _ => return None,
        },
        _ => return None,
    };
    Some(Line { t: at.since(BEGIN), teller: Teller::Guardian, what, split: None, loud })
}

/// The word for a note that ends the deployment of this service.
pub(super) fn ending(note: &Note, about: &ServiceKey) -> Option<&'static str> {
    match note {
        Note::Graduated { service, .. } if service == about => Some(Expected::Graduated.as_str()),
        Note::Closed { service, outcome, .. } if service == about => outcome_word(*outcome),
        _ => None,
    }
}

/// The word for how an incident ended, if it did.
pub(super) fn outcome_word(outcome: IncidentOutcome) -> Option<&'static str> {
    let expected = match outcome {
        IncidentOutcome::RolledBack => Expected::RolledBack,
        IncidentOutcome::Escalated => Expected::Escalated,
        IncidentOutcome::Held | IncidentOutcome::Superseded => Expected::Held,
        IncidentOutcome::Open => return None,
    };
    Some(expected.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::IncidentId;

    fn closed(service: &str) -> Note {
        Note::Closed {
            service: ServiceKey::new("prod", service),
            incident: IncidentId::new("rollback-1"),
            outcome: IncidentOutcome::Superseded,
            why: "a newer task set was created".to_owned(),
        }
    }

    #[test]
    fn other_services_neither_end_a_play_nor_speak_in_it() {
        let about = ServiceKey::new("prod", "checkout");
        assert_eq!(ending(&closed("checkout"), &about), Some("held"));
        assert_eq!(ending(&closed("cart"), &about), None);
        assert!(from_guardian(&closed("checkout"), &about, BEGIN).unwrap().loud);
        assert_eq!(from_guardian(&closed("cart"), &about, BEGIN), None);
    }

    #[test]
    fn an_announcement_that_did_not_get_through_is_told_and_one_that_did_is_not() {
        let about = ServiceKey::new("prod", "checkout");
        let announced = |outcome| Note::Announced {
            service: ServiceKey::new("prod", "checkout"),
            incident: None,
            detail_type: "Rollback Held",
            outcome,
        };
        assert_eq!(from_guardian(&announced(Outcome::Applied), &about, BEGIN), None);
        let expired = from_guardian(&announced(Outcome::Expired), &about, BEGIN).unwrap();
        assert!(expired.what.contains("Rollback Held"), "{expired:?}");
    }
}
