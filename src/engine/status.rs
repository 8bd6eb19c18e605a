//! What the engine shows of its state: `/status`, gauges and the page.

use std::sync::Arc;

use serde::Serialize;

use super::GateState;
use crate::model::{IncidentId, Phase, ServiceKey, Split, TaskSetId, Timestamp, Verdict};

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    /// When this was taken.
    pub at: Timestamp,
    /// No mutating calls are made.
    pub dry_run: bool,
    /// Names of the rules in force.
    pub rules: Vec<Arc<str>>,
    /// By key.
    pub services: Vec<ServiceView>,
}

/// One protected service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceView {
    /// Which.
    pub service: ServiceKey,
    /// The rule that protects it.
    pub rule: Option<Arc<str>>,
    /// A rollback would work now, as far as the last observation tells.
    pub ready: bool,
    /// Why not, when it would not.
    pub not_ready_because: Option<String>,
    /// When it was last read.
    pub observed_at: Option<Timestamp>,
    /// The live deployment, or the last one while its green still exists.
    pub deployment: Option<DeploymentView>,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeploymentView {
    /// The newest task set.
    pub green: TaskSetId,
    /// The one that it is to replace.
    pub blue: TaskSetId,
    /// Green's task definition.
    pub task_definition: Arc<str>,
    /// When green was created.
    pub began_at: Timestamp,
    /// Where it stands.
    pub phase: Phase,
    /// The phase's word, as in metrics: `rolling_back` for every step.
    pub phase_word: &'static str,
    /// In plain words.
    pub why: String,
    /// What the gates said last.
    pub verdict: Verdict,
    /// Each gate.
    pub gates: Vec<GateView>,
    /// How the rules split the traffic; absent without a load balancer.
    pub split: Option<Split>,
    /// Failed tasks in the window.
    pub green_failures: u32,
    /// The same for blue.
    pub blue_failures: u32,
    /// Its incident, once there is one.
    pub incident: Option<IncidentId>,
    /// When the rollback was decided, while it is open.
    pub open_since: Option<Timestamp>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateView {
    /// As in `stability.task_failures`.
    pub gate: String,
    /// Its answer.
    pub state: GateState,
    /// In plain words.
    pub why: String,
}
