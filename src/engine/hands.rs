//! Other hands: who else changed task sets and rules, by CloudTrail's word. It gives a name to what reads have shown.
//! Nothing is decided on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::out::Out;
use super::partition::Partition;
use super::progress::{Rollback, log_into};
use super::signals::{DISCOVERY_GAP, hint};
use super::{Effect, Use, witness};
use crate::model::{ApiCall, CallTarget, Signal, TaskSetId, Timestamp};

/// Calls that are remembered for a service.
const REMEMBERED: usize = 16;

/// CloudTrail's times have no fractions, and are by AWS's clock.
const SLACK: Duration = Duration::from_secs(2);

/// The last changes that others made, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Hands(Vec<Hand>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Hand {
    at: Timestamp,
    operation: Arc<str>,
    what: Arc<str>,
    by: Arc<str>,
}

impl fmt::Display for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, operation, what, by } = self;
        write!(f, "by {by} ({operation} of {what} at {at}, says CloudTrail)")
    }
}

/// What others were found to have done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed<'a> {
    /// Rules were set.
    Rules,
    /// A task set was made PRIMARY.
    Promotion,
    /// This one was deleted.
    Deletion(&'a TaskSetId),
}

impl Deed<'_> {
    /// Whether it may have been done by this call: whoever did anything else is not to be named for it.
    fn is_of(self, hand: &Hand) -> bool {
        match self {
            Self::Rules => matches!(&*hand.operation, "ModifyRule" | "ModifyListener"),
            Self::Promotion => &*hand.operation == "UpdateServicePrimaryTaskSet",
            Self::Deletion(id) => &*hand.operation == "DeleteTaskSet" && *hand.what == *id.as_str(),
        }
    }
}

impl Hands {
    /// What was found, with the last one who may have done it since then.
    pub(super) fn named(&self, what: String, since: Timestamp, deed: Deed<'_>) -> String {
        let since = since.minus(SLACK);
        match self.0.iter().rfind(|hand| hand.at >= since && deed.is_of(hand)) {
            Some(hand) => format!("{what}; {hand}"),
            None => what,
        }
    }

    /// False when it is known already.
    fn remember(&mut self, hand: Hand) -> bool {
        let Err(place) = self.0.binary_search(&hand) else { return false };
        self.0.insert(place, hand);
        if self.0.len() > REMEMBERED {
            self.0.remove(0);
        }
        true
    }
}

/// A call that somebody made.
pub(super) fn take(partition: &mut Partition, signal: &Signal, call: &ApiCall, out: &mut Out<'_>) -> Use {
    let Partition { kept, soft } = partition;
    if signal.replayed || out.now.since(signal.at) > kept.rule.watch.freshness {
        return Use::Stale;
    }
    let rollback = kept.deployment.as_mut().and_then(|deployment| deployment.rollback.as_mut());
    if call.own || rollback.as_ref().is_some_and(|rollback| is_ours(rollback, call, signal.at)) {
        return Use::Irrelevant;
    }
    let what = match &call.target {
        CallTarget::TaskSet { id: Some(id), .. } => Arc::from(id.as_str()),
        CallTarget::TaskSet { id: None, .. } => Arc::from("a task set"),
        CallTarget::Rule { rule, .. } => Arc::from(rule.short()),
    };
    let hand = Hand { at: signal.at, operation: call.operation.clone(), what, by: call.by.clone() };
    let said = hand.to_string();
    if !kept.hands.remember(hand) {
        return Use::Duplicate;
    }
    out.step.changed = true;
    if let Some(rollback) = rollback.filter(|rollback| signal.at.plus(SLACK) >= rollback.incident.detected_at) {
        let withheld = witness::was_withheld(rollback);
        if withheld || !rollback.closed {
            let incident = &mut rollback.incident;
            let moments = if withheld { &mut incident.aftermath } else { &mut incident.timeline };
            log_into(moments, out.now, format!("changed {said}"));
            out.step.effects.push(Effect::Keep(incident.clone()));
        }
    }
    hint(soft, out.now, DISCOVERY_GAP);
    Use::Taken
}

/// Whether the rollback has itself made such a call in that moment, where the caller's name does not tell.
fn is_ours(rollback: &Rollback, call: &ApiCall, at: Timestamp) -> bool {
    let in_flight = rollback.in_flight.values().map(|sent| (sent.at, None, sent.purpose.operation()));
    let answered = rollback.incident.calls.iter().map(|made| (made.sent_at, Some(made.at), made.operation.as_str()));
    in_flight.chain(answered).any(|(sent_at, until, operation)| {
        let began = sent_at.or(until).is_none_or(|began| at.plus(SLACK) >= began);
        operation == &*call.operation && began && until.is_none_or(|until| at <= until.plus(SLACK))
    })
}
