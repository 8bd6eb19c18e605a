//! How far a rollback has come: what was decided, sent and proven. A restart goes on from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mutants::{Mutant, without};
use super::partition::Deployment;
use super::traffic::Seats;
use super::witness::Witnessed;
use crate::model::{
    Action, CallRecord, EffectId, Evidence, Gate, Incident, IncidentOutcome, Moment, Outcome, ServiceKey, Step,
    Timestamp, TrafficRuleId, Write,
};

/// Moments that an incident keeps, and calls.
const MOMENTS: usize = 200;

/// A rollback that is neither done nor escalated this long after its decision, drain aside, calls a person: the promise
/// is five minutes, one is left for the call.
const PATIENCE: Duration = Duration::from_mins(4);

/// How often a write may be accepted: the first, and one re-assert against somebody who undid it.
const ASSERTS: u32 = 2;

/// For how long somebody who undoes one rule after the other is undoing them once.
const ONE_ACT: Duration = Duration::from_secs(30);

/// One decided rollback.
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollback {
    /// Its record.
    pub(super) incident: Incident,
    /// Nothing more will be done: finished, held or superseded.
    pub(super) closed: bool,
    /// A person was called. The plan is still tried, slowly.
    pub(super) escalation: Option<Escalation>,
    /// When the gates last found the evidence.
    pub(super) evidence_at: Timestamp,
    /// Green was PRIMARY when the rollback was decided: blue is to be promoted again.
    pub(super) promotes: bool,
    /// A read showed blue as PRIMARY.
    pub(super) blue_was_primary: bool,
    /// Writes sent and not yet answered.
    pub(super) in_flight: BTreeMap<EffectId, Sent>,
    /// Writes that AWS accepted.
    #[serde(with = "super::pairs")]
    pub(super) accepted: BTreeMap<Purpose, Accepted>,
    /// Writes that AWS may have accepted: their answers were lost.
    #[serde(with = "super::pairs")]
    pub(super) unsure: BTreeMap<Purpose, Sent>,
    /// Rules that are given back to blue again, or were.
    #[serde(default)]
    pub(super) undone: BTreeSet<TrafficRuleId>,
    /// Rules that are undone from here on do not belong to the one re-assert any more.
    #[serde(default)]
    pub(super) act_is_over: bool,
    /// Where green's group stood in sticky rules that it was taken out of.
    #[serde(with = "super::pairs")]
    pub(super) seats: Seats,
    /// Since when reads prove that no rule sends anything to green.
    pub(super) safe_since: Option<Timestamp>,
    /// Until when a shift may still arrive that an earlier process sent.
    #[serde(default)]
    pub(super) strays_until: Option<Timestamp>,
    /// Since when a read shows green on its way out.
    pub(super) draining_since: Option<Timestamp>,
    /// Since when blue lacks capacity.
    pub(super) blue_short_since: Option<Timestamp>,
    /// Failed writes in a row.
    pub(super) failures: u32,
    /// No write before this.
    pub(super) retry_at: Option<Timestamp>,
    /// Since when it is to be done, by the time that has passed; of one that an older version wrote down, since when it is open.
    #[serde(default)]
    pub(super) late_from: Option<Timestamp>,
    /// What came after it was done.
    #[serde(default)]
    pub(super) after: After,
    /// Where the deployment stood at the last look, when this was decided and not done.
    #[serde(default)]
    pub(super) witnessed: Option<Witnessed>,
}

/// What came after a rollback was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct After {
    /// When it was opened again last, because somebody gave green's group weight.
    pub(super) opened_at: Option<Timestamp>,
    /// It was said that nothing is done about that.
    pub(super) said: bool,
    /// Since when reads show such weight, until it is opened again.
    pub(super) seen_since: Option<Timestamp>,
}

/// What a person is needed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Escalation {
    /// In plain words.
    pub(super) why: String,
    /// Nothing may be written any more: somebody else writes the same rules.
    pub(super) frozen: bool,
    /// The steps that a person was called for, each once.
    pub(super) steps: BTreeSet<Step>,
}

/// What a write is for. How often it may be repeated is counted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Blue's group is named in a rule, with weight 0, so that its health is checked.
    Introduce(TrafficRuleId),
    /// Blue is scaled back.
    Scale,
    /// Blue is made PRIMARY.
    Promote,
    /// A rule goes to blue.
    Shift(TrafficRuleId),
    /// Green is deleted.
    Delete,
    /// A sticky rule gets its pair back.
    Pair(TrafficRuleId),
    /// A rule goes to blue again, after the rollback was done.
    Reassert(TrafficRuleId),
}

/// A write that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) purpose: Purpose,
    /// Of a rule: what it was before.
    pub(super) found: Vec<Action>,
    /// When.
    #[serde(default)]
    pub(super) at: Option<Timestamp>,
    /// A read has shown that it arrived, and its answer has not come yet.
    #[serde(default)]
    pub(super) seen: bool,
}

impl Sent {
    pub(super) fn new(now: Timestamp, purpose: Purpose, write: &Write) -> Self {
        let found = match write {
            Write::SetActions { found, .. } => found.clone(),
            Write::ScaleTaskSet { .. } | Write::SetPrimary { .. } | Write::DeleteTaskSet { .. } => Vec::new(),
        };
        Self { purpose, found, at: Some(now), seen: false }
    }
}

/// A write that AWS accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    /// How often.
    pub(super) times: u32,
    /// When last.
    pub(super) at: Timestamp,
}

impl Purpose {
    /// What a write is for; `of_rule` says it for those that address a rule.
    pub(super) fn of(write: &Write, of_rule: fn(TrafficRuleId) -> Self) -> Self {
        match write {
            Write::SetActions { rule, .. } => of_rule(rule.clone()),
            Write::ScaleTaskSet { .. } => Self::Scale,
            Write::SetPrimary { .. } => Self::Promote,
            Write::DeleteTaskSet { .. } => Self::Delete,
        }
    }

    /// The step that it belongs to.
    pub(super) const fn step(&self) -> Step {
        match self {
            Self::Introduce(_) | Self::Scale => Step::RestoreBlue,
            Self::Promote => Step::PromoteBlue,
            Self::Shift(_) | Self::Reassert(_) => Step::ShiftTraffic,
            Self::Delete => Step::DeleteGreen,
            Self::Pair(_) => Step::VerifyGone,
        }
    }

    /// It takes traffic from green.
    pub(super) const fn shifts(&self) -> bool {
        self.shifted().is_some()
    }

    /// The rule in which it does.
    pub(super) const fn shifted(&self) -> Option<&TrafficRuleId> {
        match self {
            Self::Shift(rule) | Self::Reassert(rule) => Some(rule),
            Self::Introduce(_) | Self::Scale | Self::Promote | Self::Delete | Self::Pair(_) => None,
        }
    }

    /// How often it may be accepted.
    pub(super) fn limit(&self) -> u32 {
        match self {
            _ if without(Mutant::NoForeignLimit) => u32::MAX,
            // By then somebody has undone the first.
            Self::Reassert(_) => 1,
            _ => ASSERTS,
        }
    }

    /// The call's name.
    pub(super) const fn operation(&self) -> &'static str {
        match self {
            Self::Introduce(rule) | Self::Shift(rule) | Self::Pair(rule) | Self::Reassert(rule) => rule.operation(),
            Self::Scale => "UpdateTaskSet",
            Self::Promote => "UpdateServicePrimaryTaskSet",
            Self::Delete => "DeleteTaskSet",
        }
    }
}

impl fmt::Display for Purpose {
    /// The call, as it is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation();
        match self {
            Self::Introduce(rule) => write!(f, "{operation}: {} names blue too, with weight 0", rule.short()),
            Self::Scale => write!(f, "{operation}: blue to 100 %"),
            Self::Promote => write!(f, "{operation}: blue PRIMARY again"),
            Self::Shift(rule) => write!(f, "{operation}: all of {} to blue", rule.short()),
            Self::Reassert(rule) => write!(f, "{operation}: all of {} to blue again", rule.short()),
            Self::Delete => write!(f, "{operation} with force: green"),
            Self::Pair(rule) => write!(f, "{operation}: {} names green again, with weight 0", rule.short()),
        }
    }
}

/// Adds a line to an incident's timeline.
pub(super) fn log(incident: &mut Incident, at: Timestamp, what: impl Into<String>) {
    log_into(&mut incident.timeline, at, what);
}

/// How it began and how it ended is kept; what goes is from the middle.
fn make_room<T>(list: &mut Vec<T>) {
    if list.len() >= MOMENTS {
        list.remove(MOMENTS / 2);
    }
}

/// Adds a line to one of an incident's lists of moments.
pub(super) fn log_into(moments: &mut Vec<Moment>, at: Timestamp, what: impl Into<String>) {
    make_room(moments);
    moments.push(Moment { at, what: what.into() });
}

impl Rollback {
    /// A decision, with its record opened.
    pub(super) fn new(
        now: Timestamp,
        service: &ServiceKey,
        deployment: &Deployment,
        evidence: Vec<Evidence>,
        promotes: bool,
    ) -> Self {
        // One decision per task set, so the task set's number makes the incident's name.
        let id = format!("rollback-{}", deployment.green.digits());
        let incident = deployment.incident(now, service, id, evidence);
        Self {
            incident,
            closed: false,
            evidence_at: now,
            promotes,
            blue_was_primary: false,
            unsure: BTreeMap::new(),
            undone: BTreeSet::new(),
            act_is_over: false,
            seats: Seats::new(),
            escalation: None,
            in_flight: BTreeMap::new(),
            accepted: BTreeMap::new(),
            safe_since: None,
            strays_until: None,
            draining_since: None,
            blue_short_since: None,
            failures: 0,
            retry_at: None,
            late_from: Some(now),
            after: After::default(),
            witnessed: None,
        }
    }

    /// Adds a line to the timeline.
    pub(super) fn log(&mut self, at: Timestamp, what: impl Into<String>) {
        log(&mut self.incident, at, what);
    }

    /// A call was answered.
    pub(super) fn record(&mut self, now: Timestamp, sent: &Sent, outcome: &Outcome) {
        make_room(&mut self.incident.calls);
        self.incident.calls.push(CallRecord {
            sent_at: sent.at,
            at: now,
            operation: sent.purpose.operation().to_owned(),
            call: sent.purpose.to_string(),
            applied: matches!(outcome, Outcome::Applied | Outcome::AlreadyDone),
            outcome: outcome.to_string(),
        });
    }

    /// The step that a phase shows while the plan stands here.
    pub(super) fn step(&self) -> Step {
        let shifted = self.accepted.keys().any(|purpose| matches!(purpose, Purpose::Shift(_)));
        if self.is_reopened() {
            Step::VerifyTraffic
        } else if self.accepted(&Purpose::Delete).is_some() {
            Step::VerifyGone
        } else if self.safe_since.is_some() {
            Step::Drain
        } else if shifted {
            Step::VerifyTraffic
        } else {
            Step::Observe
        }
    }

    /// When requests that were under way to green have had this long to end.
    pub(super) fn drained_at(&self, drain: Duration) -> Option<Timestamp> {
        let since = self.safe_since?;
        let strays = self.strays_until.filter(|_| !drain.is_zero());
        Some(strays.map_or(since, |until| until.max(since)).plus(drain))
    }

    /// When a write of this purpose was last accepted.
    pub(super) fn accepted(&self, purpose: &Purpose) -> Option<Timestamp> {
        self.accepted.get(purpose).map(|accepted| accepted.at)
    }

    /// When any write was last accepted.
    pub(super) fn last_accepted(&self) -> Option<Timestamp> {
        self.accepted.values().map(|accepted| accepted.at).max()
    }

    /// It was done, and is open again: only the rules are to be given back to blue.
    pub(super) const fn is_reopened(&self) -> bool {
        self.after.opened_at.is_some()
    }

    /// Since when it is open.
    pub(super) fn open_since(&self) -> Timestamp {
        self.after.opened_at.unwrap_or(self.incident.detected_at)
    }

    /// Since when it is to be done.
    pub(super) fn late_from(&self) -> Timestamp {
        self.late_from.unwrap_or(self.open_since())
    }

    /// When a person is called, if it is not done by then.
    pub(super) fn late_at(&self, drain: Duration) -> Timestamp {
        // Before it drains, and when it was done already, nothing waits for that.
        let drains = self.safe_since.is_some() && !self.is_reopened();
        self.late_from().plus(if drains { PATIENCE.saturating_add(drain) } else { PATIENCE })
    }

    /// A rule was set back once against somebody who had undone a shift, during the rollback or after it.
    pub(super) fn has_reasserted(&self) -> bool {
        self.reasserted().next().is_some()
    }

    /// The rules that were, each with when.
    fn reasserted(&self) -> impl Iterator<Item = (&TrafficRuleId, Timestamp)> {
        self.accepted.iter().filter_map(|(purpose, accepted)| {
            let spent = accepted.times >= purpose.limit() && !without(Mutant::ReassertForgotten);
            purpose.shifted().filter(|_| spent).map(|rule| (rule, accepted.at))
        })
    }

    /// This would set a rule back long after the one re-assert. Who applies a plan writes rule after rule: what was undone just
    /// after it belongs to it.
    pub(super) fn is_undone_too_late(&self, purpose: &Purpose, now: Timestamp) -> bool {
        let Some(rule) = purpose.shifted().filter(|rule| self.was_shifted(rule)) else { return false };
        let is_over = self.disputed_at().is_some_and(|at| self.act_is_over || now.since(at) >= ONE_ACT);
        is_over && !self.undone.contains(rule)
    }

    /// When the one re-assert was made first.
    fn disputed_at(&self) -> Option<Timestamp> {
        // What a lost answer made us send twice is no dispute.
        self.reasserted().filter(|(rule, _)| self.undone.contains(*rule)).map(|(_, at)| at).min()
    }

    /// A process began, perhaps elsewhere: by its clock nobody can tell how long ago a re-assert was. True when that is news.
    pub(super) fn end_act(&mut self) -> bool {
        let is_news = !self.act_is_over && !self.undone.is_empty();
        self.act_is_over |= is_news;
        is_news
    }

    /// A rule was given to blue before.
    pub(super) fn was_shifted(&self, rule: &TrafficRuleId) -> bool {
        self.accepted.keys().any(|purpose| purpose.shifted() == Some(rule))
    }

    /// It was done, and is not any more.
    pub(super) fn open_again(&mut self, now: Timestamp, why: &str) {
        // A call about a step that was done in the end says nothing of what is to come; of a foreign writer a person has
        // heard, unless the rollback was done in spite of one.
        let first = !self.is_reopened();
        self.escalation.take_if(|escalation| first || !escalation.frozen);
        self.after.opened_at = Some(now);
        self.late_from = Some(now);
        self.after.seen_since = None;
        self.closed = false;
        // Rules that lost their pair have it back, or are somebody else's by now.
        self.seats.clear();
        self.unsure.clear();
        self.failures = 0;
        self.retry_at = None;
        self.blue_short_since = None;
        self.incident.outcome = IncidentOutcome::Open;
        self.incident.reason = None;
        self.log(now, why);
    }

    /// A person was called because somebody else writes the rules: nothing may be written any more.
    pub(super) fn is_frozen(&self) -> bool {
        self.escalation.as_ref().is_some_and(|escalation| escalation.frozen)
    }

    /// A person's hold stops it. A person's rollback it does not stop, but what comes after is nobody's order.
    pub(super) fn heeds_holds(&self) -> bool {
        !self.is_by_person() || self.is_reopened()
    }

    /// Nothing was changed, nor may have been.
    pub(super) fn is_untouched(&self) -> bool {
        self.accepted.is_empty() && self.unsure.is_empty() && self.in_flight.is_empty()
    }

    /// A person wanted it, and no gate.
    pub(super) fn is_by_person(&self) -> bool {
        self.incident.evidence.iter().any(|evidence| evidence.gate == Gate::Person)
    }

    /// Nothing has been done yet, and what it was decided on is no longer fresh.
    pub(super) fn is_stale(&self, now: Timestamp, freshness: Duration) -> bool {
        !self.is_reopened() && self.accepted.is_empty() && now.since(self.evidence_at) > freshness
    }

    /// The clock was set. How old the evidence is, and since when the rollback is shown as open, is told by the clock.
    pub(super) fn clock_set(&mut self, by_ms: i64) {
        let Self { safe_since, strays_until, draining_since, blue_short_since, retry_at, accepted, after, .. } = self;
        let measured = [safe_since, strays_until, draining_since, blue_short_since, retry_at, &mut after.seen_since];
        for at in measured.into_iter().chain([&mut self.late_from]).flatten() {
            *at = at.moved(by_ms);
        }
        let sent = self.in_flight.values_mut().chain(self.unsure.values_mut());
        sent.filter_map(|sent| sent.at.as_mut()).for_each(|at| *at = at.moved(by_ms));
        for accepted in accepted.values_mut() {
            accepted.at = accepted.at.moved(by_ms);
        }
    }

    /// AWS accepted a write.
    pub(super) fn accept(&mut self, now: Timestamp, purpose: Purpose) {
        let accepted = self.accepted.entry(purpose).or_insert(Accepted { times: 0, at: now });
        *accepted = Accepted { times: accepted.times.saturating_add(1), at: now };
    }
}
