//! `register`, `unregister`, `hold`, `release`, `rollback`: what people tell the worker, by tags on the service. IAM
//! authorises it, CloudTrail records it, and the worker reads it at its next sweep.

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::account::{ServiceArg, connect, observe, rule_for, rules_in, say};
use super::text::printable;
use super::{Output, doctor, plan, text, write_json};
use crate::aws::Aws;
use crate::engine::{Rehearsal, rehearse};
use crate::model::{Observation, ServiceKey, TaskSetId, TrafficRule, Write as Call, humane, tags};
use crate::ports::{Clock as _, Tagger as _};
use crate::rules::{Mode, Rule, RuleSet, is_rule_name, parse_duration};
use crate::runtime::SystemClock;

/// A hold is for an hour or a night; what is to last longer is unregistered.
const LONGEST_HOLD: Duration = Duration::from_hours(7 * 24);

/// Characters of a tag's value.
const LONGEST_VALUE: usize = 256;

/// How often a rollback that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Flags of `register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    service: ServiceArg,

    /// Name of the rule that is to protect it
    #[arg(long, value_name = "NAME")]
    rule: String,

    /// Directory of rule files, to see whether there is such a rule
    #[arg(long, value_name = "DIR", env = "TASKSET_GUARDIAN_RULES", default_value = "rules")]
    rules: PathBuf,

    /// Register it even when a rollback would not work now
    #[arg(long)]
    force: bool,
}

/// Flags of `unregister`.
#[derive(Debug, Args)]
pub struct UnregisterArgs {
    #[command(flatten)]
    service: ServiceArg,
}

/// Flags of `hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    #[command(flatten)]
    service: ServiceArg,

    /// How long; it ends by itself
    #[arg(long = "for", value_name = "DURATION", value_parser = hold_for)]
    lasts: Duration,

    /// Why, for whoever is called meanwhile
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Flags of `release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    service: ServiceArg,

    /// Lift the quarantine of this version (FAMILY:REVISION, or all) instead of the hold
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// How long the worker gets to see it before the tag is removed again: two of the worker's sweeps (run --sweep) and a
    /// moment, at least. With less it may never see it
    #[arg(long, value_name = "DURATION", default_value = "70s", value_parser = duration, requires = "version")]
    wait: Duration,
}

/// Flags of `rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    service: ServiceArg,

    /// The task set, to be sure that it is the one that you mean [default: the newest]
    #[arg(long, value_name = "ID")]
    task_set: Option<String>,

    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,

    /// Print the plan with each call, and ask for nothing
    #[arg(long)]
    dry_run: bool,

    /// Stay until it is done, this long at most
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "10m", value_parser = duration)]
    wait: Option<Duration>,

    /// Directory of rule files
    #[arg(long, value_name = "DIR", env = "TASKSET_GUARDIAN_RULES", default_value = "rules")]
    rules: PathBuf,
}

/// What was asked for, as JSON.
#[derive(Serialize)]
struct Ordered<'a> {
    service: String,
    /// Tags that were written, or removed when `None`.
    tags: &'a [(&'a str, Option<String>)],
}

/// As in a rule file, or as people say it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let said = text.parse::<jiff::SignedDuration>().ok().and_then(|said| Duration::try_from(said).ok());
    parse_duration(text).or_else(|(why, cure)| said.ok_or_else(|| format!("{why}; {cure}")))
}

fn hold_for(text: &str) -> Result<Duration, String> {
    let lasts = duration(text)?;
    let least = Duration::from_mins(1);
    if (least..=LONGEST_HOLD).contains(&lasts) {
        Ok(lasts)
    } else {
        Err(format!("it must be between {} and {}", humane(least), humane(LONGEST_HOLD)))
    }
}

/// Runs one verb to its end.
pub(super) fn block_on<T>(verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new().context("begin the runtime")?.block_on(verb)
}

/// What AWS takes in a tag's value; anything else becomes a space.
fn value(text: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || "_.:/=+-@".contains(c);
    let cleaned: String = text.chars().map(|c| if allowed(c) { c } else { ' ' }).take(LONGEST_VALUE).collect();
    cleaned.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Writes and removes tags, and says so.
async fn order(
    aws: &Aws,
    service: &ServiceKey,
    said: &[(&str, Option<String>)],
    output: Output,
    story: &str,
) -> anyhow::Result<ExitCode> {
    let tagging = aws.tagging();
    let written: tags::Tags =
        said.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.clone()?))).collect();
    let removed: Vec<&str> = said.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| *key).collect();
    if !written.is_empty() {
        tagging.tag(service, &written).await?;
    }
    if !removed.is_empty() {
        tagging.untag(service, &removed).await?;
    }
    let out = &mut text::out();
    match output {
        Output::Text => writeln!(out, "{}", printable(story))?,
        Output::Json => write_json(&Ordered { service: service.to_string(), tags: said }, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Registers a service, once a rollback of it would work.
pub(super) async fn register(args: &RegisterArgs, output: Output) -> anyhow::Result<ExitCode> {
    let RegisterArgs { service, rule, rules: directory, force } = args;
    if !is_rule_name(rule) {
        bail!("{rule:?} can't be the name of a rule: it has ASCII letters, digits, hyphens and underscores");
    }
    let rules = rules_in(directory)?;
    if rules.named(rule).is_none() {
        if !rules.rules.is_empty() {
            let names: Vec<&str> = rules.rules.iter().map(|rule| &*rule.name).collect();
            say(format_args!(
                "error: no rule in {} is called {rule:?}; there are: {}",
                directory.display(),
                names.join(", ")
            ));
            return Ok(ExitCode::from(1));
        }
        say(format_args!(
            "there are no rule files in {}: whether the worker has a rule {rule:?} is not checked",
            directory.display()
        ));
    }
    let aws = connect().await?;
    let service = service.reached(&aws).await?;
    let by = rules.named(rule).cloned().unwrap_or_else(|| Arc::new(Rule::observing(rule)));
    let examined = doctor::Doctor::new(&aws, &rules).examine(&service, Some(by)).await;
    doctor::write(&examined, &mut text::err())?;
    if !examined.ready && !force {
        say("error: not registered, because a rollback would not work now; --force registers it all the same");
        return Ok(ExitCode::from(1));
    }
    let story = format!("{service} is registered: the rule {rule:?} protects it from the worker's next sweep on");
    order(&aws, &service, &[(tags::RULE, Some(value(rule)))], output, &story).await
}

/// Takes a service out again.
pub(super) async fn unregister(args: &UnregisterArgs, output: Output) -> anyhow::Result<ExitCode> {
    let aws = connect().await?;
    let service = args.service.reached(&aws).await?;
    let story = format!("{service} is not registered by tag any more; a rule file may still protect it");
    order(&aws, &service, &[(tags::RULE, None)], output, &story).await
}

/// Suspends action for a while.
pub(super) async fn hold(args: &HoldArgs, output: Output) -> anyhow::Result<ExitCode> {
    let aws = connect().await?;
    let service = args.service.reached(&aws).await?;
    let until = SystemClock.now().plus(args.lasts);
    let reason = value(&args.reason);
    let story = format!("{service} is held for {}, until {until}: {reason}", humane(args.lasts));
    let said = [(tags::HOLD_UNTIL, Some(until.to_string())), (tags::HOLD_REASON, Some(reason))];
    order(&aws, &service, &said, output, &story).await
}

/// Lifts a hold, or the quarantine of a version.
pub(super) async fn release(args: &ReleaseArgs, output: Output) -> anyhow::Result<ExitCode> {
    let aws = connect().await?;
    let service = args.service.reached(&aws).await?;
    let Some(version) = &args.version else {
        let story = format!("{service} is not held any more");
        return order(&aws, &service, &[(tags::HOLD_UNTIL, None), (tags::HOLD_REASON, None)], output, &story).await;
    };
    let is_version = version == "all" || is_revision(version);
    if !is_version || value(version) != *version {
        bail!("{version:?} is no version: write FAMILY:REVISION, as in checkout:88, or all");
    }
    let said = [(tags::RELEASE, Some(version.clone()))];
    let story = format!("{version} may come back to {service}; the worker reads it at its next sweep");
    // Listened to before the tag is there. A pipeline is ended by SIGTERM, and a terminal that is closed by SIGHUP.
    let listen = |kind| signal(kind).context("listen to signals");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let code = match order(&aws, &service, &said, output, &story).await {
        Ok(code) => code,
        Err(error) => {
            // It may be there, and nobody was told.
            drop(aws.tagging().untag(&service, &[tags::RELEASE]).await);
            return Err(error);
        }
    };
    let wait = humane(args.wait);
    say(format_args!(
        "waiting {wait} for the worker to read it; then, or at once when interrupted, the tag is removed"
    ));
    let interrupted = tokio::select! {
        () = tokio::time::sleep(args.wait) => false,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
        _ = hang_up.recv() => true,
    };
    // Left in place, it would lift the quarantine of every later rollback as well.
    let tag = tags::RELEASE;
    let removed = aws.tagging().untag(&service, &[tag]).await;
    removed.with_context(|| {
        format!("the tag {tag} is still on {service}: remove it, or the quarantine of every later rollback is lifted")
    })?;
    say(format_args!("the tag {tag} is removed again"));
    if interrupted {
        bail!("interrupted: the worker may not have read it");
    }
    Ok(code)
}

/// FAMILY:REVISION.
pub(super) fn is_revision(version: &str) -> bool {
    version.rsplit_once(':').is_some_and(|(family, number)| !family.is_empty() && number.parse::<u32>().is_ok())
}

/// A person pulls the cord.
pub(super) async fn rollback(args: &RollbackArgs, output: Output) -> anyhow::Result<ExitCode> {
    let rules = rules_in(&args.rules).unwrap_or_else(|error| {
        format!("{error:#}").lines().for_each(say);
        say("the worker goes on with the rules that it has");
        RuleSet::default()
    });
    let aws = connect().await?;
    let service = args.service.reached(&aws).await?;
    let seen = observe(&aws, &service).await?;
    let by = rule_for(&rules, &service, &seen.service.tags);
    if by.is_none() && !rules.rules.is_empty() {
        say(format_args!("error: nobody would act: no rule protects {service}; taskset-guardian register does that"));
        return Ok(ExitCode::from(1));
    }
    let rule = by.unwrap_or_else(|| Arc::new(Rule::observing("unknown")));
    // Whoever is in a hurry may be far from the worker's rule files.
    let is_known = rules.named(&rule.name).is_some();
    if !is_known {
        let place = args.rules.display();
        say(format_args!(
            "the rule that protects {service} is not in {place}: this is the plan by defaults, and the worker's own rules say \
             whether it acts; --rules DIR names its rule files"
        ));
    }
    let Some(rehearsal) = rehearse(&rule, &seen) else {
        say(format_args!("error: {service} has one living task set: there is nothing to go back to"));
        return Ok(ExitCode::from(1));
    };
    if let Some(wanted) = &args.task_set
        && *wanted != *rehearsal.green.as_str()
    {
        say(format_args!("error: the newest task set of {service} is {}, not {wanted}", rehearsal.green));
        return Ok(ExitCode::from(1));
    }
    if args.dry_run {
        show(&rehearsal, output)?;
        return Ok(if rehearsal.completes { ExitCode::SUCCESS } else { ExitCode::from(1) });
    }
    if is_known && rule.mode == Mode::Observe {
        let name = &rule.name;
        say(format_args!("error: nobody would act: the rule {name:?} only observes; --dry-run shows what it would do"));
        return Ok(ExitCode::from(1));
    }
    let green = rehearsal.green.clone();
    let said = [(tags::ROLLBACK, Some(green.to_string())), (tags::ROLLBACK_REASON, Some(value(&args.reason)))];
    let story = format!("the worker is asked to roll {green} back; it begins at its next sweep");
    if output == Output::Text {
        plan::write(&rehearsal, &mut text::err())?;
    }
    let code = order(&aws, &service, &said, output, &story).await?;
    match args.wait {
        Some(wait) => {
            let is_delete = |call: &Call| matches!(call, Call::DeleteTaskSet { .. });
            // One that would not end as things are has a person end it, and is done when green is gone.
            let deletes = !rehearsal.completes || rehearsal.calls.iter().any(|(_, call)| is_delete(call));
            until_done(&aws, &service, &green, deletes, wait).await
        }
        None => Ok(code),
    }
}

fn show(rehearsal: &Rehearsal, output: Output) -> anyhow::Result<()> {
    let out = &mut text::out();
    match output {
        Output::Text => plan::write(rehearsal, out)?,
        Output::Json => write_json(rehearsal, out)?,
    }
    Ok(())
}

/// Looks on until green is gone, or, where it is kept, until no rule sends anything to it.
async fn until_done(
    aws: &Aws,
    service: &ServiceKey,
    green: &TaskSetId,
    deletes: bool,
    wait: Duration,
) -> anyhow::Result<ExitCode> {
    let began = SystemClock.now();
    let mut told = String::new();
    while SystemClock.now().since(began) < wait {
        match observe(aws, service).await {
            Ok(seen) => {
                let (now, share) = standing(&seen, green);
                if now != told {
                    say(&now);
                    told = now;
                }
                if share.is_none_or(|share| !deletes && share <= 0.0) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(error) => say(format_args!("it could not be read: {error}")),
        }
        tokio::time::sleep(LOOK).await;
    }
    say(format_args!("error: it is not done after {}: ask the worker why (/status)", humane(wait)));
    Ok(ExitCode::from(1))
}

/// How green stands, and the greatest share that a rule gives it; `None` once it is gone.
fn standing(seen: &Observation, green: &TaskSetId) -> (String, Option<f64>) {
    let set = seen.service.task_sets.iter().find(|set| set.id == *green && set.is_living());
    let Some(set) = set else { return (format!("{green} is gone"), None) };
    let Some(group) = &set.target_group else {
        return (format!("{green} lives, with {} tasks", set.running), Some(0.0));
    };
    let forwards = seen.traffic.rules().iter().flat_map(TrafficRule::forwards);
    let most = forwards.map(|forward| forward.share(group)).fold(0.0, f64::max);
    let said = format!("{green} lives, with {} tasks and up to {:.0} % of a rule's traffic", set.running, most * 100.0);
    (said, Some(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_becomes_what_aws_takes_in_a_tag() {
        assert_eq!(value("schema #42 (irreversible);\n see wiki"), "schema 42 irreversible see wiki");
        assert_eq!(value(&"x".repeat(300)).len(), 256);
    }

    #[test]
    fn a_hold_is_bounded() {
        assert_eq!(hold_for("30m"), Ok(Duration::from_mins(30)));
        assert!(hold_for("5s").is_err() && hold_for("30d").is_err() && hold_for("soon").is_err());
    }
}
