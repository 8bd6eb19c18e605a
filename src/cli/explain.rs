//! `explain`: one incident, or one live deployment, as a story with its timeline.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::account::ServiceArg;
use super::server::{ServerArg, acts};
use super::text::{BAD, BOLD, CARE, DIM, GOOD, columns, printable, wrapped};
use super::{Output, text, write_json};
use crate::model::{
    CallRecord, EndedTask, Incident, IncidentOutcome, Moment, Role, RuleSnapshot, ServiceKey, Snapshot, Timestamp,
    humane,
};

/// Columns before the text of a line.
const MARGIN: usize = 13;

/// Ended tasks that are told one by one.
const TASKS: usize = 5;

/// Flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// CLUSTER/SERVICE (or two words, or its ARN), or an incident, as in rollback-4420815973316504711
    #[arg(value_name = "SERVICE|INCIDENT", num_args = 1..=2, required = true)]
    what: Vec<String>,

    #[command(flatten)]
    server: ServerArg,
}

/// Exit code 0: told; 1: there is nothing to tell; 2: this worker can't tell.
pub(super) async fn explain(args: &ExplainArgs, output: Output) -> anyhow::Result<ExitCode> {
    let out = &mut text::out();
    if let [id] = args.what.as_slice()
        && !id.contains('/')
    {
        let Some(incident) = args.server.incident(id).await? else {
            bail!("the worker knows of no incident {id}; taskset-guardian status lists services");
        };
        return show(&incident, output, out);
    }
    let key = ServiceArg::of(&args.what).key()?;
    let status = args.server.status().await?;
    let live = live(&status, &key);
    if live.is_none() {
        // It reads what is over in the table, and would tell that as if nothing went on.
        acts(&status)?;
    }
    // What goes on outranks what is over.
    let of_live = live.and_then(|deployment| deployment["incident"].as_str());
    let incident = match (of_live, live.filter(|deployment| is_open(deployment))) {
        (Some(id), _) => args.server.incident(id).await?,
        (None, Some(_)) => None,
        (None, None) => args.server.incidents(Some(&key)).await?.into_iter().next(),
    };
    // What became of an earlier green is not how the service stands.
    let (incident, earlier) = match (incident, live) {
        (Some(incident), Some(deployment)) if deployment["green"].as_str() != Some(incident.green.as_str()) => {
            (None, Some(incident))
        }
        (incident, _) => (incident, None),
    };
    match (incident, live) {
        (Some(incident), _) => show(&incident, output, out),
        (None, Some(deployment)) => {
            match output {
                Output::Json => write_json(deployment, out)?,
                Output::Text => {
                    tell_deployment(&key, deployment, out)?;
                    if let Some(earlier) = earlier {
                        line("before", &format!("{} of {}", earlier.id, earlier.green), columns(), out)?;
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => {
            super::account::say(format_args!("there is nothing to tell of {key}: no deployment, no incident"));
            Ok(ExitCode::from(1))
        }
    }
}

fn is_open(deployment: &Value) -> bool {
    deployment["phase_word"].as_str().is_some_and(|phase| !matches!(phase, "graduated" | "rolled_back" | "superseded"))
}

fn live<'a>(status: &'a Value, key: &ServiceKey) -> Option<&'a Value> {
    let service = super::server::service(status, key)?;
    service.get("deployment").filter(|deployment| !deployment.is_null())
}

fn show(incident: &Incident, output: Output, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => write_json(incident, out)?,
        Output::Text => tell(incident, columns(), out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One line, as wide as the terminal; the next ones indented.
fn line(label: &str, text: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    for (number, part) in wrapped(&printable(text), width.saturating_sub(MARGIN)).into_iter().enumerate() {
        let label = if number == 0 { label } else { "" };
        writeln!(out, "{DIM}{label:<MARGIN$}{DIM:#}{part}")?;
    }
    Ok(())
}

/// The whole story.
pub(super) fn tell(incident: &Incident, width: usize, out: &mut dyn Write) -> io::Result<()> {
    headline(incident, width, out)?;
    line("green", &format!("{}, {}", incident.green, short(&incident.task_definition)), width, out)?;
    if let Some(before) = &incident.before {
        for (container, digest) in before.images(Role::Green) {
            line("", &format!("{container} ran {digest}"), width, out)?;
        }
    }
    line("blue", incident.blue.as_str(), width, out)?;
    let mut label = "why";
    for evidence in &incident.evidence {
        line(label, &evidence.to_string(), width, out)?;
        label = "";
        for fact in evidence.facts.iter().take(TASKS) {
            line("", &format!("- {fact}"), width, out)?;
        }
    }
    if let Some(before) = &incident.before {
        let facts: Vec<_> = incident.evidence.iter().flat_map(|evidence| &evidence.facts).collect();
        tell_ended(before, &facts, width, out)?;
        tell_targets(before, width, out)?;
        tell_rules(before, incident.after.as_deref(), width, out)?;
    }
    times(incident, width, out)?;
    writeln!(out)?;
    timeline(incident, width, out)?;
    if !incident.aftermath.is_empty() {
        writeln!(out, "\n{BOLD}What people did since{BOLD:#}")?;
        moments(&incident.aftermath, incident.detected_at, width, out)?;
    }
    Ok(())
}

fn headline(incident: &Incident, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let Incident { id, service, outcome, reason, .. } = incident;
    let (style, words) = match outcome {
        IncidentOutcome::RolledBack => (GOOD, "was rolled back"),
        IncidentOutcome::Open => (CARE, "is being rolled back"),
        IncidentOutcome::Escalated => (BAD, "needs a person"),
        IncidentOutcome::Held => (CARE, "was not rolled back"),
        IncidentOutcome::Superseded => (CARE, "was overtaken by events"),
    };
    let service = service.to_string();
    writeln!(out, "{BOLD}{}{BOLD:#} {style}{words}{style:#}  {DIM}{id}{DIM:#}", printable(&service))?;
    let users = match (incident.traffic_safe_at, incident.traffic_lost_at) {
        (Some(safe), None) => {
            let took = humane(safe.since(incident.first_sign_at));
            format!("all on blue since {safe}, {took} after the first sign of trouble")
        }
        (Some(safe), Some(lost)) => {
            format!("NOT all on blue: since {lost} rules send some of them elsewhere again. All were at {safe}")
        }
        (None, _) => "no read has proven that all of them are on blue".to_owned(),
    };
    line("users", &users, width, out)?;
    match reason {
        Some(reason) if *outcome != IncidentOutcome::RolledBack => line("because", reason, width, out),
        _ => Ok(()),
    }
}

fn short(task_definition: &str) -> &str {
    task_definition.rsplit('/').next().unwrap_or(task_definition)
}

fn tell_ended(before: &Snapshot, facts: &[&String], width: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut label = "ended tasks";
    // Those that the decision rests on were told with it.
    let told = |ended: &&EndedTask| facts.iter().any(|fact| fact.contains(short(ended.task.as_str())));
    let untold: Vec<_> = before.ended.iter().filter(|ended| !told(ended)).collect();
    for EndedTask { task, role, stop } in untold.iter().take(TASKS) {
        let exits = stop.containers.iter().map(|container| {
            let code = container.exit_code.map_or_else(|| "did not run".to_owned(), |code| format!("exit code {code}"));
            let reason = container.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"));
            format!("; {} {code}{reason}", container.name)
        });
        let id = short(task.as_str());
        let what = format!(
            "{} {id} at {}: {} ({}){}",
            role.as_str(),
            stop.at,
            stop.reason,
            stop.code,
            exits.collect::<String>()
        );
        line(label, &what, width, out)?;
        label = "";
    }
    match untold.len().saturating_sub(TASKS) {
        0 => Ok(()),
        more => line(label, &format!("and {more} more: --output json has them"), width, out),
    }
}

/// Why the load balancer would send nobody to some of green's targets.
fn tell_targets(before: &Snapshot, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let green = before.task_sets.iter().filter(|set| set.role == Some(Role::Green));
    let reasons = green.filter_map(|set| set.targets.as_ref()).flat_map(|targets| &targets.reasons);
    let mut label = "targets";
    for (reason, targets) in reasons {
        line(label, &format!("{targets} of green's: {reason}"), width, out)?;
        label = "";
    }
    Ok(())
}

fn tell_rules(before: &Snapshot, after: Option<&Snapshot>, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let weights = |rule: &RuleSnapshot| {
        rule.weights.iter().map(|(group, weight)| format!("{group} {weight}")).collect::<Vec<_>>().join(", ")
    };
    let mut label = "rules";
    for rule in &before.rules {
        let now = after.and_then(|after| after.rules.iter().find(|other| other.rule == rule.rule)).map(weights);
        let became = now.map_or_else(String::new, |now| format!(" -> {now}"));
        line(label, &format!("{}: {}{became}", short(&rule.rule), weights(rule)), width, out)?;
        label = "";
    }
    Ok(())
}

fn times(incident: &Incident, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let Incident { first_sign_at, detected_at, traffic_safe_at, traffic_lost_at, deleted_at, .. } = incident;
    let since = |at: Timestamp| humane(at.since(*detected_at));
    let mut told = vec![format!("decided {} after the first sign", humane(detected_at.since(*first_sign_at)))];
    let safe_at = traffic_safe_at.filter(|_| traffic_lost_at.is_none());
    told.extend(safe_at.map(|at| format!("users safe {} after that", since(at))));
    told.extend(deleted_at.map(|at| format!("green deleted {} after it", since(at))));
    line("times", &told.join(", "), width, out)
}

fn timeline(incident: &Incident, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let date = incident.detected_at.to_string();
    writeln!(out, "{BOLD}Timeline{BOLD:#}  {DIM}from the decision at {date}{DIM:#}")?;
    moments(&incident.timeline, incident.detected_at, width, out)?;
    let failed = incident.calls.iter().filter(|call| !call.applied);
    let failed: Vec<&CallRecord> = failed.collect();
    if !failed.is_empty() {
        writeln!(out, "{DIM}{} of {} calls did not go through at once{DIM:#}", failed.len(), incident.calls.len())?;
    }
    Ok(())
}

fn moments(moments: &[Moment], zero: Timestamp, width: usize, out: &mut dyn Write) -> io::Result<()> {
    for Moment { at, what } in moments {
        let signed = |sign: &str, span: Duration| format!("{sign}{}", humane(span));
        let when = if *at < zero { signed("-", zero.since(*at)) } else { signed("+", at.since(zero)) };
        line(&format!("{when:>10}"), what, width, out)?;
    }
    Ok(())
}

fn tell_deployment(key: &ServiceKey, deployment: &Value, out: &mut dyn Write) -> io::Result<()> {
    let width = columns();
    let text = |name: &str| deployment[name].as_str().unwrap_or("?").to_owned();
    let key = key.to_string();
    let phase = text("phase_word");
    writeln!(out, "{BOLD}{}{BOLD:#} {CARE}{phase}{CARE:#}", printable(&key))?;
    line(
        "green",
        &format!("{}, {}, since {}", text("green"), short(&text("task_definition")), text("began_at")),
        width,
        out,
    )?;
    line("blue", &text("blue"), width, out)?;
    if let Some(green) = deployment["split"]["green"].as_f64() {
        line("traffic", &format!("{:.0} % on green", green * 100.0), width, out)?;
    }
    line("verdict", &format!("{}: {}", text("verdict"), text("why")), width, out)?;
    let mut label = "gates";
    for gate in deployment["gates"].as_array().into_iter().flatten() {
        let part = |name: &str| gate[name].as_str().unwrap_or("?");
        line(label, &format!("{} {}: {}", part("gate"), part("state"), part("why")), width, out)?;
        label = "";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn users_are_not_called_safe_when_somebody_has_sent_them_back() {
        let mut incident: Incident = serde_json::from_str(
            r#"{"id":"rollback-7","service":{"cluster":"prod","service":"web"},"green":"ecs-svc/7","blue":"ecs-svc/6",
            "task_definition":"web:7","outcome":"escalated","reason":null,"first_sign_at":"2026-01-02T03:04:05Z",
            "detected_at":"2026-01-02T03:04:05Z","traffic_safe_at":"2026-01-02T03:04:09Z","deleted_at":null,"evidence":[],
            "timeline":[]}"#,
        )
        .unwrap();
        let told = |incident: &Incident| {
            let mut out = Vec::new();
            tell(incident, 120, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let safe = told(&incident);
        assert!(safe.contains("all on blue since") && safe.contains("users safe 4s after"), "{safe}");
        incident.traffic_lost_at = Some(incident.detected_at.plus(std::time::Duration::from_mins(1)));
        let lost = told(&incident);
        assert!(lost.contains("NOT all on blue: since 2026-01-02T03:05:05") && !lost.contains("users safe"), "{lost}");
    }
}
