//! `doctor`: could a service be rolled back right now?

mod delivery;
mod writes;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use self::delivery::Way;
use super::account::{self, connect, rule_for, rules_in};
use super::server::ServerArg;
use super::text::printable;
use super::{Output, plan, text, write_json};
use crate::aws::{Aws, Writer};
use crate::engine::{Check, CheckVerdict, Rehearsal, examine, rehearse, rehearse_next};
use crate::model::{self, CallError, ErrorClass, Observation, ServiceKey, humane};
use crate::ports::{Clock as _, Registrations as _};
use crate::rules::{Rule, RuleSet};
use crate::runtime::{Listing, SystemClock, list};

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// CLUSTER/SERVICE, or CLUSTER SERVICE, or an ARN; without, every protected service
    #[arg(value_name = "SERVICE", num_args = 0..=2)]
    service: Vec<String>,

    /// Directory of rule files
    #[arg(long, value_name = "DIR", env = "TASKSET_GUARDIAN_RULES", default_value = "rules")]
    rules: PathBuf,

    /// Also look whether events reach this queue
    #[arg(long, value_name = "URL", env = "TASKSET_GUARDIAN_QUEUE_URL")]
    queue_url: Option<String>,

    /// Also ask this running worker what it has received
    #[arg(long, value_name = "URL", env = "TASKSET_GUARDIAN_SERVER")]
    server: Option<String>,

    /// Also try whether whoever runs this may write: every call of a rollback, on task sets and rules that do not exist
    #[arg(long)]
    try_writes: bool,
}

/// What was found about one service.
#[derive(Debug, Serialize)]
pub(super) struct Examined {
    service: String,
    /// A rollback would work now.
    pub(super) ready: bool,
    /// The rule that protects it, if one does.
    rule: Option<String>,
    checks: Vec<Check>,
    /// What a rollback of the live deployment would do.
    rollback: Option<Rehearsal>,
}

/// Examines. The exit code is 1 when a rollback of any of them would not work now.
pub(super) fn doctor(args: &DoctorArgs, output: Output) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("begin the runtime")?;
    runtime.block_on(async {
        let rules = rules_in(&args.rules)?;
        let aws = connect().await?;
        let services = match args.service.as_slice() {
            [] => protected(&aws, &rules).await?,
            names => BTreeSet::from([account::ServiceArg::of(names).reached(&aws).await?]),
        };
        anyhow::ensure!(
            !services.is_empty(),
            "no service is protected, by the rules in {} or by tag",
            args.rules.display()
        );
        let mut doctor = Doctor::new(&aws, &rules);
        if let Some(url) = &args.queue_url {
            doctor.way = Some(Way::read(aws.delivery(), url).await);
        }
        if let Some(url) = &args.server {
            doctor.status = Some(ServerArg::new(url).status().await);
        }
        doctor.writes = args.try_writes.then(|| aws.actuator());
        let mut examined = Vec::new();
        for service in &services {
            examined.push(doctor.examine(service, None).await);
        }
        let out = &mut text::out();
        match output {
            Output::Text => examined.iter().try_for_each(|one| write(one, out))?,
            Output::Json => write_json(&examined, out)?,
        }
        Ok(if examined.iter().all(|one| one.ready) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

async fn protected(aws: &Aws, rules: &RuleSet) -> Result<BTreeSet<ServiceKey>, CallError> {
    let Listing { mut found, unlisted, clusters_unknown } = list(&aws.fleet(), rules, &[], &BTreeSet::new()).await;
    if let Some(error) = clusters_unknown {
        return Err(error);
    }
    for (cluster, error) in unlisted {
        if !matches!(error.class, ErrorClass::Denied | ErrorClass::NotFound) {
            return Err(error);
        }
        account::say(format_args!("services of the cluster {cluster} can't be found: {error}"));
    }
    match aws.tagging().registered().await {
        Ok(registered) => found.extend(registered.into_keys()),
        Err(error) if error.class == ErrorClass::Denied => {
            account::say(format_args!("services that are registered by tag can't be found: {error}"));
        }
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// Looks at services, one after the other.
pub(super) struct Doctor<'a> {
    aws: &'a Aws,
    rules: &'a RuleSet,
    /// The way of events, when it is to be looked at.
    way: Option<Way>,
    /// What a worker says, when it is to be asked.
    status: Option<anyhow::Result<Value>>,
    /// What to try writes with, when they are to be tried.
    writes: Option<Writer>,
}

impl<'a> Doctor<'a> {
    /// Looks at the service alone.
    pub(super) fn new(aws: &'a Aws, rules: &'a RuleSet) -> Self {
        Self { aws, rules, way: None, status: None, writes: None }
    }

    /// One service, by the rule that protects it, or by the one that is to.
    pub(super) async fn examine(&self, service: &ServiceKey, by: Option<Arc<Rule>>) -> Examined {
        let mut examined = match account::observe_timed(self.aws, service).await {
            Err(error) => Examined::unread(service, &error),
            Ok((seen, round)) => self.seen(service, by, &seen, round).await,
        };
        if let Some(status) = &self.status {
            examined.checks.extend(delivery::worker(status, &examined.service, SystemClock.now()));
        }
        examined.ready = examined.checks.iter().all(|check| check.verdict != CheckVerdict::Blocks);
        examined
    }

    async fn seen(&self, service: &ServiceKey, by: Option<Arc<Rule>>, seen: &Observation, round: Duration) -> Examined {
        let is_named = by.is_none();
        let rule = by.or_else(|| rule_for(self.rules, service, &seen.service.tags));
        let judged = rule.clone().unwrap_or_else(|| Arc::new(Rule::observing("none")));
        let mut checks = examine(&judged, seen, SystemClock.now());
        if rule.is_none() {
            checks.retain(|check| check.check != "rule");
            let unprotected = Check::new("rule", CheckVerdict::Note, "no rule protects it");
            checks.insert(0, unprotected.cure("taskset-guardian register, or a [[protect]] in a rule file"));
        }
        if let Some(rule) = rule.as_ref().filter(|rule| is_named && self.rules.named(&rule.name).is_none()) {
            let what = format!(
                "its tag names the rule {:?}, which is not among these rule files: judged by defaults",
                rule.name
            );
            let unknown = Check::new("rule", CheckVerdict::Warning, what);
            let cure = "--rules DIR with the worker's rule files; where the worker has none of that name either, it only observes";
            checks
                .iter_mut()
                .filter(|check| check.check == "rule")
                .for_each(|check| *check = unknown.clone().cure(cure));
        }
        let tagged = model::tags::rule(&seen.service.tags).filter(|name| is_named && self.rules.named(name).is_none());
        if let Some((rule, tagged)) = rule.as_ref().zip(tagged).filter(|(rule, tagged)| *rule.name != **tagged) {
            let what = format!(
                "its tag names the rule {tagged:?}, which is not among these rule files: {:?} protects it instead",
                rule.name
            );
            checks.push(
                Check::new("tag", CheckVerdict::Warning, what).cure("correct the tag: taskset-guardian register"),
            );
        }
        let rollback = rehearse(&judged, seen);
        let blocked = checks.iter().any(|check| check.verdict == CheckVerdict::Blocks);
        if let Some(Rehearsal { completes: false, ending, .. }) = rollback.as_ref().filter(|_| !blocked) {
            let what = format!("a rollback of the live deployment would not end: {ending}");
            checks.push(Check::new("rollback", CheckVerdict::Blocks, what));
        } else if !blocked {
            let on_paper = rollback.clone().or_else(|| rehearse_next(&judged, seen));
            checks.extend(on_paper.map(|rehearsal| time_to_safe(&rehearsal, round)));
        }
        if let Some(way) = &self.way {
            checks.extend(way.examine(&judged, seen).await);
        }
        if let Some(actuator) = &self.writes {
            checks.extend(writes::examine(actuator, seen).await);
        }
        let rule = rule.map(|rule| rule.name.to_string());
        Examined { service: service.to_string(), ready: false, rule, checks, rollback }
    }
}

impl Examined {
    fn unread(service: &ServiceKey, error: &CallError) -> Self {
        let failed = Check::new("read", CheckVerdict::Blocks, error.to_string());
        let failed = match error.class {
            ErrorClass::Denied if error.message.contains("credentials") => {
                failed.cure("give this command credentials: a profile (AWS_PROFILE), AWS_ variables, or a role of the task or instance")
            }
            ErrorClass::Denied => {
                failed.cure("grant it; infra/modules/guardian/worker-policy.json has all that the guardian needs")
            }
            ErrorClass::NotFound => failed.cure("correct cluster and service, or the Region (AWS_REGION)"),
            _ => failed,
        };
        Self { service: service.to_string(), ready: false, rule: None, checks: vec![failed], rollback: None }
    }
}

/// One figure: how long users would be with a bad green after the decision against it.
fn time_to_safe(rehearsal: &Rehearsal, round: Duration) -> Check {
    let Rehearsal { calls, traffic_safe, rounds_until_safe: rounds, .. } = rehearsal;
    let Some(waits) = traffic_safe else {
        let what = "no read would prove that users are back on blue";
        return Check::new("reaction", CheckVerdict::Note, what);
    };
    let about = humane(waits.saturating_add(round.saturating_mul(*rounds)));
    let what = format!(
        "users would be back on blue about {about} after the decision: {rounds} rounds of calls, at the {} that one took now",
        humane(round)
    );
    let scales = calls.iter().any(|(_, call)| matches!(call, model::Write::ScaleTaskSet { .. }));
    if scales {
        Check::new("reaction", CheckVerdict::Warning, format!("{what}, and the start of blue's tasks before"))
            .cure("keep blue at 100 % until green has proven itself")
    } else {
        Check::new("reaction", CheckVerdict::Note, what)
    }
}

/// For people.
pub(super) fn write(examined: &Examined, out: &mut dyn Write) -> io::Result<()> {
    let Examined { service, ready, rule: _, checks, rollback } = examined;
    let verdict = if *ready { "could be rolled back now" } else { "could NOT be rolled back now" };
    writeln!(out, "{} {verdict}", printable(service))?;
    for Check { check, verdict, what, cure } in checks {
        let mark = match verdict {
            CheckVerdict::Fine => "ok  ",
            CheckVerdict::Note => "    ",
            CheckVerdict::Warning => "warn",
            CheckVerdict::Blocks => "FAIL",
        };
        writeln!(out, "  {mark}  {check:<11} {}", printable(what))?;
        if let Some(cure) = cure {
            writeln!(out, "        {:<11} -> {}", "", printable(cure))?;
        }
    }
    if let Some(rollback) = rollback {
        plan::write(rollback, out)?;
    }
    Ok(())
}
