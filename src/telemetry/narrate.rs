//! One readable sentence for each [`Note`]: the text of a log line and of the demo's timeline.

use tracing::Level;

use crate::engine::{GateState, Note, Use};
use crate::model::{IncidentOutcome, Outcome, humane};

/// The sentence and how loud it is; `None` for what is no news. Every field is named here, so that a new one is not
/// forgotten: it is said, or left out on purpose.
pub fn narrate(note: &Note) -> Option<(Level, String)> {
    let said = match note {
        Note::Signal { kind, service, used } => {
            let level = if *used == Use::Foreign { Level::WARN } else { Level::DEBUG };
            let about = service.as_ref().map_or_else(String::new, |key| format!(" about {key}"));
            (level, format!("Signal {kind}{about}: {}", used.as_str()))
        }
        Note::DeploymentBegan { service, green, blue } => {
            (Level::INFO, format!("{service}: a deployment began; green {green} is to replace blue {blue}"))
        }
        Note::Judged { news: false, .. } => return None,
        Note::Judged { service, verdict, news: true, findings } => {
            // Clear gates are no news; the others say why the verdict is not better.
            let why: Vec<_> = findings
                .iter()
                .filter(|finding| finding.state != GateState::Clear)
                .map(|finding| format!("{}: {}", finding.gate, finding.why))
                .collect();
            let because = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
            (Level::INFO, format!("{service}: green is now judged {verdict}{because}"))
        }
        Note::Decided { service, incident, held, evidence } => {
            let evidence: Vec<_> = evidence.iter().map(ToString::to_string).collect();
            let evidence = evidence.join("; ");
            let what = if *held { "would roll back, and holds" } else { "rolls back" };
            (Level::WARN, format!("{service}: the guardian {what} ({incident}), because {evidence}"))
        }
        Note::Phase { service, from, to, why } => (Level::INFO, format!("{service}: {from} -> {to}: {why}")),
        Note::Waiting { service, step, why } => (Level::INFO, format!("{service}: {step}: {why}")),
        Note::Sent { service, what } => (Level::INFO, format!("{service}: {what}")),
        Note::Returned { service, operation, outcome } => {
            (level_of(outcome, Level::DEBUG), format!("{service}: {operation}: {outcome}"))
        }
        Note::TrafficMoved { service, split } => {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            let (blue, green) = (percent(split.blue), percent(split.green));
            (Level::INFO, format!("{service}: traffic is now {blue} blue, {green} green"))
        }
        Note::Reached { service, stage, took } => {
            (Level::INFO, format!("{service}: {} took {}", stage.as_str(), humane(*took)))
        }
        Note::Closed { service, incident, outcome, why } => {
            let (level, what) = match outcome {
                IncidentOutcome::Open => (Level::INFO, "is open again"),
                IncidentOutcome::RolledBack => (Level::INFO, "is rolled back"),
                IncidentOutcome::Escalated => (Level::ERROR, "needs a person"),
                IncidentOutcome::Held => (Level::WARN, "was deliberately not rolled back"),
                IncidentOutcome::Superseded => (Level::WARN, "was overtaken by events"),
            };
            (level, format!("{service}: {incident} {what}: {why}"))
        }
        Note::Graduated { service, green, why } => {
            (Level::INFO, format!("{service}: {green} graduated and is the new baseline: {why}"))
        }
        Note::Unread { service, error, news } => {
            (if *news { Level::WARN } else { Level::DEBUG }, format!("{service} could not be read: {error}"))
        }
        Note::Refused { service, why } => (Level::WARN, format!("{service}: a person's order is not followed: {why}")),
        Note::NotReady { service, why } => (Level::WARN, format!("{service} can't be protected as it is: {why}")),
        Note::Witnessed { service, what } => {
            (Level::INFO, format!("{service} was not rolled back, and since then: {what}"))
        }
        Note::Brake { engaged: true, why } => (Level::ERROR, format!("Rollbacks are held: {why}")),
        Note::Brake { engaged: false, why } => (Level::WARN, format!("Rollbacks are allowed again: {why}")),
        Note::Announced { service: _, incident: _, detail_type, outcome } => {
            (level_of(outcome, Level::DEBUG), format!("Announcement {detail_type:?}: {outcome}"))
        }
    };
    Some(said)
}

/// Failures are heard, a refusal for want of permission loudest: no retry will help it.
fn level_of(outcome: &Outcome, fine: Level) -> Level {
    match outcome {
        Outcome::Applied | Outcome::AlreadyDone => fine,
        Outcome::Suppressed => Level::INFO,
        Outcome::Failed(_) if outcome.is_denied() => Level::ERROR,
        Outcome::Failed(_) | Outcome::Expired => Level::WARN,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;
    use crate::engine::{Finding, Stage};
    use crate::model::{
        CallError, Comparator, ErrorClass, Evidence, Gate, IncidentId, Phase, Role, ServiceKey, Split, Step, TaskSetId,
        Timestamp, Unit, Verdict,
    };

    fn evidence() -> Evidence {
        Evidence {
            gate: Gate::TaskFailures,
            role: Role::Green,
            task_set: TaskSetId::new("ecs-svc/2"),
            value: 3.0,
            comparator: Comparator::AtLeast,
            threshold: 3.0,
            unit: Unit::Tasks,
            from: Timestamp::EPOCH,
            to: Timestamp::from_millis(300_000),
            facts: Vec::new(),
        }
    }

    #[test]
    fn a_rollback_reads_as_a_story() {
        let service = ServiceKey::new("prod", "checkout");
        let incident = IncidentId::new("i-1");
        let (green, blue) = (TaskSetId::new("ecs-svc/2"), TaskSetId::new("ecs-svc/1"));
        let denied = CallError {
            class: ErrorClass::Denied,
            operation: "ecs:DeleteTaskSet".into(),
            code: Some("AccessDeniedException".into()),
            message: "no".into(),
        };
        let finding = Finding { gate: Gate::TaskFailures, state: GateState::Breached, evidence: None, why: "3".into() };
        let clear = Finding { gate: Gate::SteadyWithin, state: GateState::Clear, evidence: None, why: "ok".into() };
        let notes = [
            Note::Signal { kind: "task_stopped", service: Some(service.clone()), used: Use::Taken },
            Note::Signal { kind: "alarm_changed", service: None, used: Use::Foreign },
            Note::DeploymentBegan { service: service.clone(), green: green.clone(), blue },
            Note::Judged {
                service: service.clone(),
                verdict: Verdict::Breached,
                news: true,
                findings: vec![finding, clear],
            },
            Note::Judged { service: service.clone(), verdict: Verdict::Breached, news: false, findings: Vec::new() },
            Note::Decided {
                service: service.clone(),
                incident: incident.clone(),
                held: false,
                evidence: vec![evidence()],
            },
            Note::Phase {
                service: service.clone(),
                from: Phase::Watching,
                to: Phase::RollingBack(Step::ShiftTraffic),
                why: "breached".into(),
            },
            Note::Sent { service: service.clone(), what: "shifts rule 10 to blue".into() },
            Note::Returned { service: service.clone(), operation: "ModifyRule", outcome: Outcome::Applied },
            Note::Returned { service: service.clone(), operation: "DeleteTaskSet", outcome: Outcome::Failed(denied) },
            Note::TrafficMoved { service: service.clone(), split: Split { blue: 1.0, green: 0.0 } },
            Note::Reached { service: service.clone(), stage: Stage::Shift, took: Duration::from_millis(2300) },
            Note::Closed {
                service: service.clone(),
                incident,
                outcome: IncidentOutcome::Escalated,
                why: "not allowed to delete".into(),
            },
            Note::Graduated { service: service.clone(), green, why: "bake is over".into() },
            Note::NotReady { service: service.clone(), why: "controller is ECS".into() },
            Note::Refused { service: service.clone(), why: "it was decided on before".into() },
            Note::Witnessed { service, what: "green was made PRIMARY".into() },
            Note::Announced {
                service: ServiceKey::new("prod", "checkout"),
                incident: None,
                detail_type: "Rollback Started",
                outcome: Outcome::Applied,
            },
        ];
        let story: Vec<_> = notes
            .iter()
            .map(|note| narrate(note).map_or_else(|| "-".to_owned(), |(level, text)| format!("{level} {text}")))
            .collect();
        insta::assert_snapshot!(story.join("\n"), @r#"
        DEBUG Signal task_stopped about prod/checkout: taken
        WARN Signal alarm_changed: foreign
        INFO prod/checkout: a deployment began; green ecs-svc/2 is to replace blue ecs-svc/1
        INFO prod/checkout: green is now judged breached (stability.task_failures: 3)
        -
        WARN prod/checkout: the guardian rolls back (i-1), because 3 tasks of green (ecs-svc/2) failed within 5m (breach: >= 3)
        INFO prod/checkout: watching -> rolling_back (ShiftTraffic): breached
        INFO prod/checkout: shifts rule 10 to blue
        DEBUG prod/checkout: ModifyRule: done
        ERROR prod/checkout: DeleteTaskSet: ecs:DeleteTaskSet failed (denied, AccessDeniedException): no
        INFO prod/checkout: traffic is now 100 % blue, 0 % green
        INFO prod/checkout: shift took 2.3s
        ERROR prod/checkout: i-1 needs a person: not allowed to delete
        INFO prod/checkout: ecs-svc/2 graduated and is the new baseline: bake is over
        WARN prod/checkout can't be protected as it is: controller is ECS
        WARN prod/checkout: a person's order is not followed: it was decided on before
        INFO prod/checkout was not rolled back, and since then: green was made PRIMARY
        DEBUG Announcement "Rollback Started": done
        "#);
    }
}
