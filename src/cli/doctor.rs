//! `doctor`: could a service be rolled back right now?

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::account::{self, connect, observe, rule_for, rules_in};
use super::{Output, plan};
use crate::aws::Aws;
use crate::engine::{Check, CheckVerdict, Rehearsal, examine, rehearse};
use crate::model::{CallError, ErrorClass, ServiceKey};
use crate::ports::{Clock as _, Registrations as _};
use crate::rules::{Rule, RuleSet};
use crate::runtime::{SystemClock, list};

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// CLUSTER/SERVICE, or CLUSTER SERVICE, or an ARN; without, every protected service
    #[arg(value_name = "SERVICE", num_args = 0..=2)]
    service: Vec<String>,

    /// Directory of rule files
    #[arg(long, value_name = "DIR", env = "TASKSET_GUARDIAN_RULES", default_value = "rules")]
    rules: PathBuf,
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
            names => BTreeSet::from([account::ServiceArg::of(names).key()?]),
        };
        anyhow::ensure!(
            !services.is_empty(),
            "no service is protected, by the rules in {} or by tag",
            args.rules.display()
        );
        let mut examined = Vec::new();
        for service in &services {
            examined.push(one(&aws, &rules, service, None).await);
        }
        let out = &mut anstream::stdout().lock();
        match output {
            Output::Text => examined.iter().try_for_each(|one| write(one, out))?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut *out, &examined)?;
                writeln!(out)?;
            }
        }
        Ok(if examined.iter().all(|one| one.ready) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

async fn protected(aws: &Aws, rules: &RuleSet) -> Result<BTreeSet<ServiceKey>, CallError> {
    let listing = list(&aws.fleet(), rules, &BTreeSet::new()).await;
    if let Some(error) = listing.errors.into_iter().next() {
        return Err(error);
    }
    let mut found = listing.found;
    match aws.tagging().registered().await {
        Ok(registered) => found.extend(registered.into_keys()),
        Err(error) if error.class == ErrorClass::Denied => {
            account::say(format_args!("services that are registered by tag can't be found: {error}"));
        }
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// One service, by the rule that protects it, or by the one that is to.
pub(super) async fn one(aws: &Aws, rules: &RuleSet, service: &ServiceKey, by: Option<Arc<Rule>>) -> Examined {
    let failed = |error: &CallError| {
        let cure = match error.class {
            ErrorClass::Denied => Some("grant it; infra/iam-policy.json has all that the guardian needs".to_owned()),
            ErrorClass::NotFound => Some("correct cluster and service, or the Region (AWS_REGION)".to_owned()),
            _ => None,
        };
        Check { check: "read", verdict: CheckVerdict::Blocks, what: error.to_string(), cure }
    };
    let (checks, rule, rollback) = match observe(aws, service).await {
        Err(error) => (vec![failed(&error)], None, None),
        Ok(seen) => {
            let rule = by.or_else(|| rule_for(rules, service, &seen.service.tags));
            let judged = rule.clone().unwrap_or_else(|| Arc::new(Rule::observing("none")));
            let mut checks = examine(&judged, &seen, SystemClock.now());
            if rule.is_none() {
                let what = "no rule protects it".to_owned();
                let cure = Some("taskset-guardian register, or a [[protect]] in a rule file".to_owned());
                checks.retain(|check| check.check != "rule");
                checks.insert(0, Check { check: "rule", verdict: CheckVerdict::Note, what, cure });
            }
            let rollback = rehearse(&judged, &seen);
            if let Some(Rehearsal { completes: false, ending, .. }) = &rollback
                && checks.iter().all(|check| check.verdict != CheckVerdict::Blocks)
            {
                let (check, what) = ("rollback", format!("a rollback of the live deployment would not end: {ending}"));
                checks.push(Check { check, verdict: CheckVerdict::Blocks, what, cure: None });
            }
            (checks, rule.map(|rule| rule.name.to_string()), rollback)
        }
    };
    let ready = checks.iter().all(|check| check.verdict != CheckVerdict::Blocks);
    Examined { service: service.to_string(), ready, rule, checks, rollback }
}

/// For people.
pub(super) fn write(examined: &Examined, out: &mut dyn Write) -> io::Result<()> {
    let Examined { service, ready, rule: _, checks, rollback } = examined;
    let verdict = if *ready { "could be rolled back now" } else { "could NOT be rolled back now" };
    writeln!(out, "{service} {verdict}")?;
    for Check { check, verdict, what, cure } in checks {
        let mark = match verdict {
            CheckVerdict::Fine => "ok  ",
            CheckVerdict::Note => "    ",
            CheckVerdict::Warning => "warn",
            CheckVerdict::Blocks => "FAIL",
        };
        writeln!(out, "  {mark}  {check:<11} {what}")?;
        if let Some(cure) = cure {
            writeln!(out, "        {:<11} -> {cure}", "")?;
        }
    }
    if let Some(rollback) = rollback {
        plan::write(rollback, out)?;
    }
    Ok(())
}
