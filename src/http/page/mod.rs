//! The status page: one document, made anew for every request, with nothing from elsewhere in it. Names, reasons and alarms
//! come from outside; `maud` escapes whatever is put between tags.

mod plot;

use std::cmp::Ordering;
use std::time::Duration;

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

/// For so long after its decision an ended rollback is shown like a live one.
const RECENT: Duration = Duration::from_hours(1);

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
    let deployments = || state.services.iter().filter_map(|service| Some((service, service.deployment.as_ref()?)));
    let shown =
        deployments().filter(|(_, deployment)| is_live(deployment) || is_recent(deployment, incidents, state.at));
    let live = deployments().filter(|(_, deployment)| is_live(deployment)).count();
    let ready = state.services.iter().filter(|service| service.ready).count();
    html! {
        (header(worker, state.dry_run, state.fleet_brake.as_deref(), state.at))
        ul.counts {
            (count(state.services.len(), "protected"))
            (count(ready, "ready"))
            (count(live, "live deployments"))
            (count(incidents.len(), "incidents kept"))
        }
        @for (service, deployment) in shown {
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

/// There is something to watch.
const fn is_live(deployment: &DeploymentView) -> bool {
    !matches!(deployment.phase, Phase::Graduated | Phase::Superseded | Phase::RolledBack)
}

/// Whoever was paged for it may still be reading.
fn is_recent(deployment: &DeploymentView, incidents: &[Incident], now: Timestamp) -> bool {
    let of_it = incidents.iter().find(|incident| Some(&incident.id) == deployment.incident.as_ref());
    of_it.is_some_and(|incident| now.since(incident.detected_at) < RECENT)
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
            @match deployment.phase {
                Phase::RollingBack(step) => (plan(Some(step))),
                Phase::RolledBack => (plan(None)),
                _ => {}
            }
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

/// Without a current step, all of them are done.
fn plan(current: Option<Step>) -> Markup {
    let at = current.and_then(|current| STEPS.iter().position(|step| *step == current)).unwrap_or(STEPS.len());
    html! {
        ol.plan aria-label="The plan" {
            @for (index, step) in STEPS.iter().enumerate() {
                @let state = match index.cmp(&at) { Ordering::Less => "done", Ordering::Equal => "now", Ordering::Greater => "" };
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
    let safe = match incident.traffic_lost_at {
        None => safe.map(|after| format!("users safe after {after}")),
        Some(_) => Some("users are not all on blue any more".to_owned()),
    };
    html! {
        details id=(incident.id) {
            summary {
                span class=(class) { (incident.outcome.as_str()) } " " b { (incident.service) } " "
                (version(&incident.task_definition)) " "
                span.dim { (humane(now.since(incident.detected_at))) " ago" @if let Some(safe) = safe { ", " (safe) } }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::engine::StatusView;
    use crate::model::{HoldOrder, ServiceKey, Split, Verdict};

    const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&";

    fn service(name: &str) -> ServiceView {
        let gate =
            GateView { gate: HOSTILE.into(), state: GateState::Breached, ratio: Some(f64::NAN), why: HOSTILE.into() };
        ServiceView {
            service: ServiceKey::new(HOSTILE, name),
            rule: Some(Arc::from(HOSTILE)),
            ready: false,
            not_ready_because: Some(HOSTILE.into()),
            hold: Some(HoldOrder { until: None, reason: HOSTILE.into() }),
            quarantine: Vec::new(),
            observed_at: None,
            deployment: Some(DeploymentView {
                green: TaskSetId::new(HOSTILE),
                blue: TaskSetId::new("ecs-svc/1"),
                task_definition: Arc::from(HOSTILE),
                contract: None,
                began_at: Timestamp::EPOCH,
                phase: Phase::RollingBack(Step::Drain),
                phase_word: "rolling_back",
                why: HOSTILE.into(),
                verdict: Verdict::Breached,
                gates: vec![gate],
                split: Some(Split { blue: 1.0, green: 0.0 }),
                green_failures: 3,
                blue_failures: 0,
                green_failed_share: None,
                blue_failed_share: None,
                incident: None,
                open_since: None,
                withheld: Some(WithheldView {
                    at: Timestamp::EPOCH,
                    evidence: HOSTILE.into(),
                    because: HOSTILE.into(),
                    then: vec![Moment { at: Timestamp::EPOCH, what: HOSTILE.into() }],
                }),
            }),
        }
    }

    fn reply(services: Vec<ServiceView>) -> StatusReply {
        let worker = WorkerView {
            version: "1.0.0",
            started_at: Timestamp::EPOCH,
            role: "active",
            ready: false,
            not_ready: vec![HOSTILE.into()],
            last_event_at: None,
        };
        let state = StatusView {
            at: Timestamp::EPOCH,
            dry_run: false,
            fleet_brake: Some(HOSTILE.into()),
            rules: Vec::new(),
            services,
        };
        StatusReply { worker, state }
    }

    #[test]
    fn whatever_comes_from_outside_is_text() {
        let history = History::default();
        let view = service(HOSTILE);
        history.show(&view, Timestamp::EPOCH);
        let page = document(Some(&reply(vec![view])), &[], &history).into_string();
        assert_eq!(page.matches("<script").count(), 1, "its own");
        assert!(!page.contains("<img"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 10, "{page}");
    }

    #[test]
    fn the_plan_shows_what_is_done_and_what_is_under_way() {
        let page = document(Some(&reply(vec![service("web")])), &[], &History::default()).into_string();
        assert!(page.contains(
            "<li class=\"done\">VerifyTraffic</li><li class=\"now\">Drain</li><li class=\"\">DeleteGreen</li>"
        ));
        assert!(document(None, &[], &History::default()).into_string().contains("does not answer"));
    }

    #[test]
    fn five_hundred_services_make_a_page_that_a_phone_can_load() {
        let quiet = |n| ServiceView { deployment: None, ..service(&format!("service-{n}")) };
        let page = document(Some(&reply((0..500).map(quiet).collect())), &[], &History::default()).into_string();
        assert!(page.len() < 700_000 && page.contains("service-499"), "{}", page.len());
    }
}
