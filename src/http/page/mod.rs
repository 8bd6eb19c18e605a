//! The status page: one document, made anew for every request, with nothing from elsewhere in it. Names, reasons and alarms
//! come from outside; `maud` escapes whatever is put between tags.

mod plot;

use maud::{DOCTYPE, Markup, html};

use crate::engine::{DeploymentView, GateState, GateView, ServiceView, WithheldView};
use crate::model::{Incident, IncidentOutcome, Moment, Phase, Step, TaskSetId, Timestamp, humane};
use crate::runtime::{StatusReply, WorkerView};
use crate::telemetry::{History, Sample};

/// Looks again every two seconds and changes the document in place.
pub(super) const SCRIPT: &str = include_str!("page.js");
/// Dark and light, wide and narrow.
pub(super) const STYLE: &str = include_str!("page.css");

/// Incidents on the page.
pub(super) const INCIDENTS: usize = 20;

/// Steps that the page shows, in the plan's order.
const STEPS: [Step; 8] = [
    Step::Observe,
    Step::RestoreBlue,
    Step::PromoteBlue,
    Step::ShiftTraffic,
    Step::VerifyTraffic,
    Step::Drain,
    Step::DeleteGreen,
    Step::VerifyGone,
];

/// The whole document. Without scripts it is loaded anew every five seconds.
pub(super) fn document(status: Option<&StatusReply>, incidents: &[Incident], history: &History) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "taskset-guardian" }
                link rel="stylesheet" href="page.css";
                noscript { meta http-equiv="refresh" content="5"; }
                script src="page.js" defer {}
            }
            body {
                main id="page" { (content(status, incidents, history)) }
                footer {
                    a href="metrics" { "metrics" } " "
                    a href="status" { "status" } " "
                    a href="incidents" { "incidents" } " "
                    span id="stale" hidden { "The worker does not answer: what is shown is old." }
                }
            }
        }
    }
}

fn content(status: Option<&StatusReply>, incidents: &[Incident], history: &History) -> Markup {
    let Some(StatusReply { worker, state }) = status else {
        return html! { h1 { "taskset-guardian" } p.bad { "The worker does not answer: it begins, ends or is stuck." } };
    };
    let live = || state.services.iter().filter_map(|service| Some((service, is_live(service.deployment.as_ref()?)?)));
    let ready = state.services.iter().filter(|service| service.ready).count();
    html! {
        (header(worker, state.dry_run, state.fleet_brake.as_deref(), state.at))
        ul.counts {
            (count(state.services.len(), "protected"))
            (count(ready, "ready"))
            (count(live().count(), "live deployments"))
            (count(incidents.len(), "incidents kept"))
        }
        @for (service, deployment) in live() {
            (card(service, deployment, &history.of(&service.service), state.at))
        }
        @if !incidents.is_empty() {
            section {
                h2 { "Incidents" }
                @for incident in incidents { (incident_view(incident, state.at)) }
            }
        }
        section {
            h2 { "Services" }
            @if state.services.is_empty() { p.dim { "Nothing is protected yet: taskset-guardian register, or a [[protect]] in a rule file." } }
            @else { (services(&state.services)) }
        }
    }
}

/// A deployment about which there is something to watch.
fn is_live(deployment: &DeploymentView) -> Option<&DeploymentView> {
    let over = matches!(deployment.phase, Phase::Graduated | Phase::Superseded | Phase::RolledBack);
    (!over).then_some(deployment)
}

fn header(worker: &WorkerView, dry_run: bool, brake: Option<&str>, at: Timestamp) -> Markup {
    html! {
        header {
            h1 { "taskset-guardian " span.dim { (worker.version) } }
            p {
                span class=(if worker.ready { "badge good" } else { "badge bad" }) {
                    (if worker.ready { worker.role } else { "not ready" })
                }
                @if dry_run { " " span.badge.care { "dry run" } }
                " " span.dim {
                    @match worker.last_event_at {
                        Some(last) => { "last event " (humane(at.since(last))) " ago" }
                        None => "no event yet"
                    }
                    ", " (at)
                }
            }
            @for reason in &worker.not_ready { p.bad { (reason) } }
            @if let Some(brake) = brake { p.bad { "Fleet brake: " (brake) } }
        }
    }
}

fn count(number: usize, what: &str) -> Markup {
    html! { li { b { (number) } " " (what) } }
}

fn class_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Watching => "badge",
        Phase::Breached | Phase::Escalated => "badge bad",
        Phase::RollingBack(_) | Phase::Superseded => "badge care",
        Phase::RolledBack | Phase::Graduated => "badge good",
    }
}

fn version(task_definition: &str) -> &str {
    task_definition.rsplit('/').next().unwrap_or(task_definition)
}

fn card(service: &ServiceView, deployment: &DeploymentView, samples: &[Sample], now: Timestamp) -> Markup {
    html! {
        section.card {
            h2 { (service.service) " " span class=(class_of(deployment.phase)) data-phase=(deployment.phase_word) { (deployment.phase_word) } }
            p { (deployment.why) }
            (protection(service))
            dl {
                dt { "green" } dd { (task_set(&deployment.green)) " " (version(&deployment.task_definition)) ", for " (humane(now.since(deployment.began_at))) }
                dt { "blue" } dd { (task_set(&deployment.blue)) }
                @if let Some(split) = deployment.split { dt { "traffic" } dd { (split) } }
                @if let Some(id) = &deployment.incident { dt { "incident" } dd { a href={ "incidents/" (id) } { (id) } } }
            }
            @if let Some(withheld) = &deployment.withheld { (withheld_view(withheld)) }
            div.plots {
                (plot::split(samples))
                (plot::failures(samples))
            }
            @if !deployment.gates.is_empty() { (gates(&deployment.gates)) }
            @if let Phase::RollingBack(step) = deployment.phase { (plan(step)) }
        }
    }
}

fn task_set(id: &TaskSetId) -> Markup {
    html! { code { (id) } }
}

fn protection(service: &ServiceView) -> Markup {
    html! {
        @if let Some(why) = &service.not_ready_because { p.bad { "A rollback would not work: " (why) } }
        @if let Some(hold) = &service.hold { p.care { (hold) } }
    }
}

fn withheld_view(withheld: &WithheldView) -> Markup {
    html! {
        p.care { "Would have been rolled back at " (withheld.at) ": " (withheld.evidence) ". " (withheld.because) "." }
        @if !withheld.then.is_empty() { p { "Since then:" } (moments(&withheld.then)) }
    }
}

fn gates(gates: &[GateView]) -> Markup {
    html! {
        table.gates {
            caption { "Gates" }
            tbody {
                @for gate in gates {
                    tr {
                        th scope="row" { (gate.gate) }
                        td { (meter(gate)) }
                        td { (gate.why) }
                    }
                }
            }
        }
    }
}

/// How close to the threshold.
fn meter(gate: &GateView) -> Markup {
    let state = match gate.state {
        GateState::Clear => "clear",
        GateState::Pending => "pending",
        GateState::Blind => "blind",
        GateState::Shared => "shared",
        GateState::Breached => "breached",
    };
    html! {
        @match gate.ratio {
            Some(ratio) => meter min="0" max="1" high="0.7" low="0.35" optimum="0" value=(format!("{:.3}", ratio.clamp(0.0, 1.0))) title=(state) { (state) },
            None => span.dim { (state) }
        }
    }
}

fn plan(current: Step) -> Markup {
    let at = STEPS.iter().position(|step| *step == current);
    html! {
        ol.plan aria-label="The plan" {
            @for (index, step) in STEPS.iter().enumerate() {
                @let state = match at { Some(at) if index < at => "done", Some(at) if index == at => "now", _ => "" };
                li class=(state) { (step) }
            }
        }
    }
}

fn moments(moments: &[Moment]) -> Markup {
    html! {
        ol.timeline {
            @for moment in moments { li { time { (moment.at) } " " (moment.what) } }
        }
    }
}

fn incident_view(incident: &Incident, now: Timestamp) -> Markup {
    let class = match incident.outcome {
        IncidentOutcome::RolledBack => "badge good",
        IncidentOutcome::Escalated => "badge bad",
        IncidentOutcome::Open | IncidentOutcome::Held | IncidentOutcome::Superseded => "badge care",
    };
    let safe = incident.traffic_safe_at.map(|at| humane(at.since(incident.first_sign_at)));
    html! {
        details id=(incident.id) {
            summary {
                span class=(class) { (incident.outcome.as_str()) } " " b { (incident.service) } " "
                (version(&incident.task_definition)) " "
                span.dim { (humane(now.since(incident.detected_at))) " ago" @if let Some(safe) = safe { ", users safe after " (safe) } }
            }
            p { (incident.reasons()) }
            @if let Some(reason) = &incident.reason { p { (reason) } }
            (moments(&incident.timeline))
            @if !incident.aftermath.is_empty() { p { "What people did since:" } (moments(&incident.aftermath)) }
            p { a href={ "incidents/" (incident.id) } { (incident.id) } }
        }
    }
}

fn services(all: &[ServiceView]) -> Markup {
    html! {
        table.services {
            thead { tr { th { "service" } th { "ready" } th { "phase" } th { "rule" } th { "notes" } } }
            tbody {
                @for service in all {
                    tr {
                        th scope="row" { (service.service) }
                        td class=(if service.ready { "good" } else { "bad" }) { (if service.ready { "yes" } else { "no" }) }
                        td { @if let Some(deployment) = &service.deployment {
                            span class=(class_of(deployment.phase)) data-phase=(deployment.phase_word) { (deployment.phase_word) }
                        } }
                        td { (service.rule.as_deref().unwrap_or("")) }
                        td { (notes(service)) }
                    }
                }
            }
        }
    }
}

fn notes(service: &ServiceView) -> Markup {
    html! {
        (protection(service))
        @for version_kept in &service.quarantine {
            p.dim { "in quarantine: " (version(&version_kept.task_definition)) " until " (version_kept.until) }
        }
    }
}
