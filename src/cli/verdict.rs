//! `verdict` and `quarantined`: what became of a deployment, as an exit code for a pipeline.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::account::{ServiceArg, say};
use super::server::{ServerArg, service};
use super::text::{self, printable};
use super::{Output, write_json};
use crate::model::{ServiceKey, humane};

/// How often a verdict that is waited for is asked for.
const LOOK: Duration = Duration::from_secs(5);

/// Flags of `verdict`.
#[derive(Debug, Args)]
pub struct VerdictArgs {
    #[command(flatten)]
    service: ServiceArg,

    /// The deployment's green, as in ecs-svc/4420815973316504711
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    task_set: String,

    /// Ask until there is a verdict, this long at most
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1h", value_parser = super::orders::duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    server: ServerArg,
}

/// Flags of `quarantined`.
#[derive(Debug, Args)]
pub struct QuarantinedArgs {
    #[command(flatten)]
    service: ServiceArg,

    /// ARN of the task definition, or FAMILY:REVISION
    #[arg(long, value_name = "ARN")]
    task_definition: String,

    #[command(flatten)]
    server: ServerArg,
}

/// What a deployment has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    service: String,
    task_set: String,
    /// The phase's word, as in metrics.
    phase: String,
    why: String,
    incident: Option<String>,
    /// A breach that is only told: the rule observes, or it is a dry run. One that is held may still be acted on, or end.
    #[serde(skip)]
    is_withheld: bool,
}

impl Verdict {
    /// Green took over: fine. Anything else that ends is not.
    fn code(&self) -> Option<u8> {
        match self.phase.as_str() {
            "graduated" => Some(0),
            "rolled_back" | "escalated" | "superseded" => Some(1),
            "breached" if self.is_withheld => Some(1),
            _ => None,
        }
    }
}

/// `None` while the worker has not seen the task set.
fn read(status: &Value, key: &ServiceKey, task_set: &str) -> Option<Verdict> {
    let deployment = &service(status, key)?["deployment"];
    if deployment["green"] != *task_set {
        return None;
    }
    let text = |name: &str| deployment[name].as_str().unwrap_or_default().to_owned();
    Some(Verdict {
        service: key.to_string(),
        task_set: task_set.to_owned(),
        phase: text("phase_word"),
        why: text("why"),
        incident: deployment["incident"].as_str().map(str::to_owned),
        is_withheld: !deployment["withheld"].is_null(),
    })
}

/// What had been seen as a deployment is none any more: there is one of another green.
fn replaced(status: &Value, key: &ServiceKey, task_set: &str) -> Option<Verdict> {
    let green = service(status, key)?["deployment"]["green"].as_str()?;
    Some(Verdict {
        service: key.to_string(),
        task_set: task_set.to_owned(),
        phase: "superseded".to_owned(),
        why: format!("a newer task set ({green}) was created"),
        incident: None,
        is_withheld: false,
    })
}

/// Exit code 0: graduated; 1: it did not; 2: there is no verdict (yet).
pub(super) async fn verdict(args: &VerdictArgs, output: Output) -> anyhow::Result<ExitCode> {
    let key = args.service.key()?;
    let began = Instant::now();
    let mut told = String::new();
    let mut was_green = false;
    loop {
        let found = match args.server.acting().await {
            Ok(status) if service(&status, &key).is_none() => Err(format!("{key} is not protected")),
            Ok(status) => read(&status, &key, &args.task_set)
                .or_else(|| replaced(&status, &key, &args.task_set).filter(|_| was_green))
                .ok_or_else(|| {
                    format!("{} is not the newest deployment of {key} that the worker has seen", args.task_set)
                }),
            // A worker may be replaced while a pipeline waits for it.
            Err(error) => Err(format!("{error:#}")),
        };
        if let Ok(verdict) = &found
            && let Some(code) = verdict.code()
        {
            show(verdict, output)?;
            return Ok(ExitCode::from(code));
        }
        was_green |= found.is_ok();
        let now = found.map_or_else(|why| why, |verdict| format!("{}: {}", verdict.phase, verdict.why));
        let Some(wait) = args.wait else { bail!("no verdict: {now}") };
        if began.elapsed() >= wait {
            bail!("no verdict after {}: {now}", humane(wait));
        }
        if now != told {
            say(&now);
            told = now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show(verdict: &Verdict, output: Output) -> anyhow::Result<()> {
    let out = &mut text::out();
    match output {
        Output::Text => {
            let Verdict { service, task_set, phase, why, incident, is_withheld: _ } = verdict;
            let incident = incident.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
            writeln!(out, "{}", printable(&format!("{service} {task_set}: {phase}: {why}{incident}")))?;
        }
        Output::Json => {
            write_json(verdict, out)?;
        }
    }
    Ok(())
}

/// Exit code 0: it is not in quarantine; 1: it is.
pub(super) async fn quarantined(args: &QuarantinedArgs, output: Output) -> anyhow::Result<ExitCode> {
    let key = args.service.key()?;
    let status = args.server.acting().await?;
    let Some(service) = service(&status, &key) else { bail!("{key} is not protected: the worker knows nothing of it") };
    let version = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let wanted = version(&args.task_definition);
    if !super::orders::is_revision(&wanted) {
        bail!("{:?} is no version: write FAMILY:REVISION, as in checkout:88, or its ARN", args.task_definition);
    }
    let known = service["quarantine"].as_array().into_iter().flatten();
    let found =
        known.into_iter().find(|one| one["task_definition"].as_str().is_some_and(|name| version(name) == wanted));
    let out = &mut text::out();
    match (output, found) {
        (Output::Json, found) => {
            writeln!(out, "{}", serde_json::json!({ "quarantined": found.is_some(), "record": found }))?;
        }
        (Output::Text, None) => writeln!(out, "{wanted} is not in quarantine for {key}")?,
        (Output::Text, Some(one)) => {
            let text = |name: &str| one[name].as_str().unwrap_or("?").to_owned();
            let (since, until, incident) = (text("since"), text("until"), text("incident"));
            let story =
                format!("{wanted} is in quarantine for {key}: rolled back at {since} ({incident}), until {until}");
            writeln!(out, "{}", printable(&story))?;
        }
    }
    Ok(ExitCode::from(u8::from(found.is_some())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_verdict_is_about_one_task_set_of_one_service() {
        let deployment =
            json!({ "green": "ecs-svc/2", "phase_word": "rolled_back", "why": "crashed", "incident": "i" });
        let view = json!({ "service": { "cluster": "prod", "service": "web" }, "deployment": deployment });
        let status = json!({ "services": [view] });
        let key = ServiceKey::new("prod", "web");
        assert_eq!(read(&status, &key, "ecs-svc/2").unwrap().code(), Some(1));
        assert_eq!(read(&status, &key, "ecs-svc/1"), None);
        assert_eq!(read(&status, &ServiceKey::new("prod", "api"), "ecs-svc/2"), None);
        assert_eq!(replaced(&status, &key, "ecs-svc/1").unwrap().code(), Some(1));
    }

    #[test]
    fn only_an_ending_has_a_code() {
        let verdict = |phase: &str, is_withheld| {
            let (service, task_set, why) = (String::new(), String::new(), String::new());
            Verdict { service, task_set, phase: phase.to_owned(), why, incident: None, is_withheld }.code()
        };
        let of = |phase: &str| verdict(phase, false);
        assert_eq!((of("breached"), verdict("breached", true)), (None, Some(1)), "what is held may still graduate");
        assert_eq!(
            [of("graduated"), of("watching"), of("rolling_back"), of("escalated")],
            [Some(0), None, None, Some(1)]
        );
    }
}
