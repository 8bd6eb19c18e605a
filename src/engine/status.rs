//! What the engine shows of its state: `/status`, gauges and the page.

use std::sync::Arc;

use serde::Serialize;

use super::gates::SKEW;
use super::partition::{Deployment, Kept, Partition, Soft};
use super::progress::Rollback;
use super::quarantine::Quarantined;
use super::{Finding, GateState, sampled, witness};
use crate::model::{
    Contract, HoldOrder, IncidentId, Moment, Phase, ServiceKey, Split, Standing, TaskSetId, Timestamp, Verdict, Window,
};

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    /// When this was taken.
    pub at: Timestamp,
    /// No mutating calls are made.
    pub dry_run: bool,
    /// Why no rollback is begun anywhere, while the fleet brake is on.
    pub fleet_brake: Option<String>,
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
    /// Until when a person holds it, and why.
    pub hold: Option<HoldOrder>,
    /// Versions that were rolled back and are remembered.
    pub quarantine: Vec<QuarantineView>,
    /// When it was last read.
    pub observed_at: Option<Timestamp>,
    /// The live deployment, or the last one while its green still exists.
    pub deployment: Option<DeploymentView>,
}

/// One version in quarantine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuarantineView {
    /// Its task definition.
    pub task_definition: Arc<str>,
    /// When it was rolled back.
    pub since: Timestamp,
    /// When it is forgotten.
    pub until: Timestamp,
    /// The record of its rollback.
    pub incident: IncidentId,
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
    /// What green's tags allow, once they were read.
    pub contract: Option<&'static str>,
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
    /// Share of the requests in the window that failed, while a gate needs to know.
    pub green_failed_share: Option<f64>,
    /// The same for blue.
    pub blue_failed_share: Option<f64>,
    /// Its incident, once there is one.
    pub incident: Option<IncidentId>,
    /// When the rollback was decided, or opened again, while it is open.
    pub open_since: Option<Timestamp>,
    /// What was decided and only told, in observe mode or a dry run.
    pub withheld: Option<WithheldView>,
}

/// A rollback that was decided and not done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithheldView {
    /// When it was decided.
    pub at: Timestamp,
    /// On which evidence, in plain words.
    pub evidence: String,
    /// Why it was not done.
    pub because: String,
    /// What other hands did since.
    pub then: Vec<Moment>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateView {
    /// As in `stability.task_failures`.
    pub gate: String,
    /// Its answer.
    pub state: GateState,
    /// How far it is on its way to a breach, which is at 1; absent while it has no numbers.
    pub ratio: Option<f64>,
    /// In plain words.
    pub why: String,
}

/// What is shown of a service.
pub(super) fn view(key: &ServiceKey, partition: &Partition, now: Timestamp) -> ServiceView {
    let Partition { kept, soft } = partition;
    let not_ready_because = match soft.observed_at {
        None if soft.not_ready.is_none() => Some("not read yet".to_owned()),
        _ => soft.not_ready.clone(),
    };
    ServiceView {
        service: key.clone(),
        rule: Some(kept.rule.name.clone()),
        ready: not_ready_because.is_none(),
        not_ready_because,
        hold: soft.hold.clone().filter(|hold| hold.until.is_none_or(|until| now < until)),
        quarantine: quarantine(kept),
        observed_at: soft.observed_at,
        deployment: kept.deployment.as_ref().map(|deployment| deployment_view(kept, soft, deployment, now)),
    }
}

fn quarantine(kept: &Kept) -> Vec<QuarantineView> {
    let ttl = kept.rule.quarantine.ttl;
    let view = |one: &Quarantined| QuarantineView {
        task_definition: one.task_definition.clone(),
        since: one.since,
        until: one.since.plus(ttl),
        incident: one.incident.clone(),
    };
    kept.quarantine.iter().map(view).collect()
}

fn deployment_view(kept: &Kept, soft: &Soft, deployment: &Deployment, now: Timestamp) -> DeploymentView {
    let from = now.minus(kept.rule.stability.window);
    let failures = |id| {
        let confirmed = |window: &Window| {
            let failures = window.failures(from, now.plus(SKEW)).into_iter();
            failures.filter(|(_, record)| record.standing == Standing::Confirmed).count()
        };
        u32::try_from(kept.windows.get(id).map_or(0, confirmed)).unwrap_or(u32::MAX)
    };
    let (blue_failed_share, green_failed_share) = sampled::failed_shares(now, &kept.rule, deployment);
    let open = deployment.rollback.as_ref().filter(|rollback| !rollback.closed);
    DeploymentView {
        green: deployment.green.clone(),
        blue: deployment.blue.clone(),
        task_definition: deployment.task_definition.clone(),
        contract: deployment.contract.map(Contract::as_str),
        began_at: deployment.began_at,
        phase: deployment.phase,
        phase_word: deployment.phase.as_str(),
        why: deployment.why.clone(),
        verdict: soft.verdict.unwrap_or(Verdict::Watching),
        gates: soft.findings.iter().map(gate_view).collect(),
        split: soft.split,
        green_failures: failures(&deployment.green),
        blue_failures: failures(&deployment.blue),
        green_failed_share,
        blue_failed_share,
        incident: deployment.incident_id().cloned(),
        open_since: open.map(Rollback::open_since),
        withheld: deployment.rollback.as_ref().filter(|rollback| witness::was_withheld(rollback)).map(withheld),
    }
}

fn withheld(rollback: &Rollback) -> WithheldView {
    let incident = &rollback.incident;
    WithheldView {
        at: incident.detected_at,
        evidence: incident.reasons(),
        because: incident.reason.clone().unwrap_or_default(),
        then: incident.aftermath.clone(),
    }
}

fn gate_view(finding: &Finding) -> GateView {
    let Finding { gate, state, evidence: _, why } = finding;
    GateView { gate: gate.to_string(), state: *state, ratio: finding.ratio(), why: why.clone() }
}
