//! A worker's own journal as a recording: the inputs that it has kept, through the same engine, by other rules.
//!
//! A journal keeps inputs since its last checkpoint, and of those only the ones that changed the state. Reads are among
//! them, so here the engine's answers are the recorded ones. What was decided before is told as it was.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ledger::{Ledger, Line};
use crate::engine::{Effect, Engine, Input, Settings};
use crate::model::{Incident, Outcome, Timestamp};
use crate::rules::RuleSet;

/// What would have become of the deployments that the journal still knows.
///
/// # Errors
/// When the checkpoint is of another version.
pub fn again(
    rules: &RuleSet,
    (sweep, fleet_brake): (Duration, usize),
    checkpoint: Option<&[u8]>,
    inputs: &[(Timestamp, Input)],
    incidents: &[Incident],
) -> Result<Vec<Line>, String> {
    let settings = Settings { dry_run: true, sweep, fleet_brake };
    let mut engine = match checkpoint {
        Some(state) => Engine::restore(settings, state)?,
        None => Engine::new(settings),
    };
    let mut ledger = Ledger::default();
    let begin = inputs.first().map(|(at, _)| *at);
    let known = engine.status(begin.unwrap_or_default());
    for view in &known.services {
        if let Some(deployment) = &view.deployment {
            ledger.open(&view.service, &deployment.green, deployment.began_at);
        }
    }
    let kept: BTreeSet<_> =
        known.services.iter().filter_map(|view| view.deployment.as_ref()).map(|known| known.green.clone()).collect();
    // What was decided on inputs that are still there is decided again.
    for incident in incidents.iter().filter(|incident| begin.is_none_or(|begin| incident.detected_at < begin)) {
        if incident.id.as_str().starts_with("rollback-") {
            if !kept.contains(&incident.green) {
                ledger.recall(&incident.service, &incident.green, incident.first_sign_at);
            }
            ledger.decided(&incident.service, &incident.green, incident.detected_at, &incident.evidence);
        }
    }
    let first = begin.map(|at| (at, Input::Rules(rules.clone())));
    // Its own rules are not asked, and nothing was written.
    let told = inputs.iter().filter(|(_, input)| !matches!(input, Input::Rules(_) | Input::Done(..))).cloned();
    for (now, input) in first.into_iter().chain(told) {
        let mut next = vec![input];
        while let Some(input) = next.pop() {
            let step = engine.step(now, &input);
            ledger.take(now, &step.report, |key| {
                engine.service(key, now)?.deployment.map(|deployment| deployment.began_at)
            });
            for effect in step.effects {
                if let Effect::Announce(id, _) = effect {
                    next.push(Input::Done(id, Outcome::Applied));
                }
            }
        }
    }
    Ok(ledger.lines())
}
