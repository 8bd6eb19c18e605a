//! One line a deployment: what the engine said of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::{Finding, GateState, Note, Report, Stage};
use crate::model::{Evidence, Gate, ServiceKey, TaskSetId, Timestamp, Verdict};

/// What would have happened to one deployment. The members are a public contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// As in `prod/checkout`.
    #[serde(serialize_with = "as_text")]
    pub service: ServiceKey,
    /// Green.
    pub task_set: TaskSetId,
    /// Green's creation.
    pub started_at: Timestamp,
    /// What it comes to.
    pub outcome: Outcome,
    /// When a rollback would have been decided.
    pub breached_at: Option<Timestamp>,
    /// The first of the gates whose threshold was reached.
    pub gate: Option<Gate>,
    /// What was found, by each gate whose threshold was reached.
    pub evidence: Vec<Evidence>,
}

fn as_text<S: serde::Serializer>(key: &ServiceKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// What a deployment comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A gate was breached: green would have been rolled back.
    Breached,
    /// No gate was.
    Healthy,
    /// A gate was, and it was not green's fault: blue, or many services, suffered as well.
    NotAttributable,
    /// There was not enough to judge it by.
    Blind,
}

impl Outcome {
    /// The word used in the result.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breached => "breached",
            Self::Healthy => "healthy",
            Self::NotAttributable => "not_attributable",
            Self::Blind => "blind",
        }
    }
}

/// What is known of all deployments so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    current: BTreeMap<ServiceKey, TaskSetId>,
    lines: BTreeMap<(ServiceKey, TaskSetId), Open>,
}

#[derive(Debug)]
struct Open {
    line: Line,
    decided: bool,
    said: Option<(Verdict, Vec<Finding>)>,
}

impl Ledger {
    /// Reads what a step has reported.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        report: &Report,
        started_at: impl Fn(&ServiceKey) -> Option<Timestamp>,
    ) {
        let mut notes = report.notes.iter().peekable();
        while let Some(note) = notes.next() {
            match note {
                Note::DeploymentBegan { service, green, .. } => {
                    self.open(service, green, started_at(service).unwrap_or(now));
                }
                Note::Judged { service, verdict, findings, .. } => {
                    if let Some(open) = self.live(service) {
                        open.said = Some((*verdict, findings.clone()));
                    }
                }
                Note::Decided { service, evidence, .. } => {
                    // A decision is followed by how long it took; what is only held is not.
                    let next = notes.peek();
                    let decides = matches!(next, Some(Note::Reached { stage: Stage::Detect, .. }));
                    if let Some(open) = self.live(service) {
                        open.decide(now, evidence, decides);
                    }
                }
                _ => {}
            }
        }
    }

    /// A deployment that is known from elsewhere.
    pub(super) fn open(&mut self, service: &ServiceKey, green: &TaskSetId, started_at: Timestamp) {
        self.current.insert(service.clone(), green.clone());
        self.recall(service, green, started_at);
    }

    /// One that is over.
    pub(super) fn recall(&mut self, service: &ServiceKey, green: &TaskSetId, started_at: Timestamp) {
        let line = Line {
            service: service.clone(),
            task_set: green.clone(),
            started_at,
            outcome: Outcome::Blind,
            breached_at: None,
            gate: None,
            evidence: Vec::new(),
        };
        let open = Open { line, decided: false, said: None };
        self.lines.entry((service.clone(), green.clone())).or_insert(open);
    }

    /// A decision that is known from elsewhere.
    pub(super) fn decided(&mut self, service: &ServiceKey, green: &TaskSetId, at: Timestamp, evidence: &[Evidence]) {
        if let Some(open) = self.lines.get_mut(&(service.clone(), green.clone())) {
            open.decide(at, evidence, true);
        }
    }

    fn live(&mut self, service: &ServiceKey) -> Option<&mut Open> {
        let green = self.current.get(service)?.clone();
        self.lines.get_mut(&(service.clone(), green)).filter(|open| !open.decided)
    }

    /// Whether a rollback of the newest green was decided.
    pub(super) fn is_decided(&self, service: &ServiceKey) -> bool {
        let green = self.current.get(service);
        let open = green.and_then(|green| self.lines.get(&(service.clone(), green.clone())));
        open.is_some_and(|open| open.decided)
    }

    /// All of them, by their begin.
    pub(super) fn lines(self) -> Vec<Line> {
        let mut lines: Vec<_> = self.lines.into_values().map(Open::close).collect();
        lines.sort_by(|one, other| {
            (one.started_at, &one.service, &one.task_set).cmp(&(other.started_at, &other.service, &other.task_set))
        });
        lines
    }
}

impl Open {
    fn decide(&mut self, now: Timestamp, evidence: &[Evidence], decides: bool) {
        let line = &mut self.line;
        line.outcome = if decides { Outcome::Breached } else { Outcome::NotAttributable };
        line.breached_at = decides.then_some(now);
        line.gate = evidence.first().map(|evidence| evidence.gate.clone());
        line.evidence = evidence.to_vec();
        self.decided |= decides;
    }

    fn close(self) -> Line {
        let Self { mut line, decided, said } = self;
        if decided || line.outcome == Outcome::NotAttributable {
            return line;
        }
        line.outcome = match said {
            None => Outcome::Blind,
            Some((verdict, findings)) => {
                let not_steady = findings
                    .iter()
                    .any(|finding| finding.gate == Gate::SteadyWithin && finding.state == GateState::Pending);
                let is_blind = findings.iter().any(|finding| finding.state == GateState::Blind);
                match verdict {
                    Verdict::Healthy => Outcome::Healthy,
                    Verdict::Watching if !not_steady && !is_blind => Outcome::Healthy,
                    _ => Outcome::Blind,
                }
            }
        };
        line
    }
}
