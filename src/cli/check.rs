//! `check`: all that is wrong with the rule files, or what they protect.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use super::account::say;
use crate::model::{AlarmName, CallError, ErrorClass, ServiceKey, humane, once_in, percent, tags};
use crate::ports::Fleet;
use crate::rules::{
    AfterPromotion, BlueCapacity, Diagnostics, OnReturn, Protect, Rule, RuleSet, compile, match_nothing,
};
use crate::runtime::list;
use crate::runtime::rule_files::read_rule_files;

/// All rules are right.
const FINE: u8 = 0;
/// At least one is wrong, or there is none.
const WRONG: u8 = 1;
/// The files can't be read, or AWS not be asked about all that they protect.
const UNKNOWN: u8 = 2;

/// Columns of a diagnostic: enough for a rule file's lines, and readable in the log of a build.
const COLUMNS: usize = 100;

/// Checks the rule files of a directory (or one file) and says the result to `out`. Returns the exit code: 0 fine, 1 an
/// error in a rule, 2 not known.
///
/// # Errors
/// When the result can't be written.
pub fn check(dir: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<u8> {
    check_against(dir, json, |_| Ok(None), out, err)
}

/// What AWS has for the rules.
#[derive(Debug, Default)]
pub(super) struct Existing {
    /// Services that a `[[protect]]` fits.
    services: BTreeSet<ServiceKey>,
    /// Clusters into which whoever asks may not look.
    closed: BTreeSet<Arc<str>>,
}

/// The same, and that every pattern fits one of the services which `existing` finds for rules without errors.
///
/// # Errors
/// When the result can't be written, or `existing` fails.
pub(super) fn check_against(
    dir: &Path,
    json: bool,
    existing: impl FnOnce(&RuleSet) -> anyhow::Result<Option<Existing>>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    let colored = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let (result, code) = examine(dir, existing)?;
    if json {
        super::write_json(&result, out)?;
        return Ok(code);
    }
    match &result {
        Examined::Fine { rules } => write_summary(rules, out)?,
        Examined::Wrong { diagnostics } => {
            writeln!(out, "{}", diagnostics.render(colored, COLUMNS))?;
            let count = diagnostics.0.len();
            writeln!(err, "{count} {} in {}", if count == 1 { "error" } else { "errors" }, dir.display())?;
        }
        Examined::Impossible { error } => writeln!(err, "error: {error}")?,
    }
    Ok(code)
}

/// Every service of the account and Region that a `[[protect]]` fits.
pub(super) async fn existing(fleet: &dyn Fleet, rules: &RuleSet) -> anyhow::Result<Existing> {
    let listing = list(fleet, rules, &[], &BTreeSet::new()).await;
    if let Some(error) = listing.clusters_unknown {
        return Err(error.into());
    }
    let mut existing = Existing::default();
    for (cluster, error) in listing.unlisted {
        existing.missed(&cluster, error)?;
    }
    // Names without globs are not listed but taken for true.
    for key in listing.found {
        match fleet.describe(&key.cluster, std::slice::from_ref(&key.service)).await {
            Ok(readings) => existing.services.extend(readings.into_keys()),
            Err(error) => existing.missed(&key.cluster, error)?,
        }
    }
    Ok(existing)
}

impl Existing {
    /// Who may not look into a cluster still learns of the others.
    fn missed(&mut self, cluster: &Arc<str>, error: CallError) -> Result<(), CallError> {
        match error.class {
            ErrorClass::NotFound => Ok(()),
            ErrorClass::Denied => {
                if self.closed.insert(Arc::clone(cluster)) {
                    say(format_args!("services of the cluster {cluster} can't be found: {error}"));
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// What neither fits a service nor is sure to fit none, since it may fit one of a cluster that is closed.
    fn undecided(&self, rules: &RuleSet) -> Option<String> {
        let entries = rules.rules.iter().flat_map(|rule| &rule.protect);
        let open = entries.filter(|entry| self.may_fit(entry) && !self.services.iter().any(|key| entry.matches(key)));
        let names: Vec<_> = open.map(|Protect { cluster, service }| format!("{cluster}/{service}")).collect();
        let closed: Vec<_> = self.closed.iter().map(|cluster| &**cluster).collect();
        let cause = format!("no access to the services of {}", closed.join(", "));
        let cure = "allow ecs:ListServices and ecs:DescribeServices there";
        let what = names.join(", ");
        (!names.is_empty()).then(|| format!("whether a service matches {what} is not known: {cause}; {cure}"))
    }

    fn may_fit(&self, entry: &Protect) -> bool {
        self.closed.iter().any(|cluster| entry.reaches(cluster))
    }
}

/// The JSON document.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Examined {
    Fine { rules: RuleSet },
    Wrong { diagnostics: Diagnostics },
    Impossible { error: String },
}

fn examine(
    dir: &Path,
    existing: impl FnOnce(&RuleSet) -> anyhow::Result<Option<Existing>>,
) -> anyhow::Result<(Examined, u8)> {
    let files = match read_rule_files(dir) {
        Ok(files) => files,
        Err(error) => return Ok((Examined::Impossible { error: error.to_string() }, UNKNOWN)),
    };
    if files.is_empty() {
        // A guardian that protects nothing is a mistake in a path, most likely.
        return Ok((Examined::Impossible { error: format!("no *.toml in {}", dir.display()) }, WRONG));
    }
    let rules = match compile(&files) {
        Ok(rules) => rules,
        Err(diagnostics) => return Ok((Examined::Wrong { diagnostics }, WRONG)),
    };
    let Some(existing) = existing(&rules)? else { return Ok((Examined::Fine { rules }, FINE)) };
    let idle = match_nothing(&files, &existing.services, |entry| existing.may_fit(entry));
    Ok(if !idle.is_empty() {
        (Examined::Wrong { diagnostics: Diagnostics(idle) }, WRONG)
    } else if let Some(error) = existing.undecided(&rules) {
        (Examined::Impossible { error }, UNKNOWN)
    } else {
        (Examined::Fine { rules }, FINE)
    })
}

fn write_summary(rules: &RuleSet, out: &mut dyn Write) -> io::Result<()> {
    let count = rules.rules.len();
    writeln!(out, "{count} {}, no errors", if count == 1 { "rule" } else { "rules" })?;
    for rule in &rules.rules {
        let Rule { name, mode, protect, watch, stability, errors, compare, rollback, limits, quarantine } = &**rule;
        writeln!(out, "\n{name} ({})", mode.as_str())?;
        for Protect { cluster, service } in protect {
            writeln!(out, "  protects {cluster}/{service}")?;
        }
        if protect.is_empty() {
            writeln!(out, "  protects the services whose tag {} is {name}", tags::RULE)?;
        }
        if let Some(failures) = stability.task_failures {
            writeln!(out, "  breach at {failures} failed tasks in {}", humane(stability.window))?;
        }
        if let Some(within) = stability.steady_within {
            writeln!(out, "  breach when green is not steady after {}", humane(within))?;
        }
        if let Some(share) = stability.unhealthy_targets {
            writeln!(out, "  breach when more than {:.0} % of green's targets are unhealthy", share * 100.0)?;
        }
        if let Some(share) = errors.http_5xx_ratio {
            writeln!(out, "  breach when more than {} of green's requests fail", percent(share))?;
        }
        if let Some(limit) = errors.latency_p99 {
            writeln!(out, "  breach when green's p99 is above {}", humane(limit))?;
        }
        if errors.read_traffic() {
            writeln!(out, "    from {} requests on", errors.min_requests)?;
        }
        let alarms: Vec<_> =
            errors.alarms.iter().map(AlarmName::as_str).chain(["those of green's target group"]).collect();
        let long =
            if errors.alarm_for.is_zero() { String::new() } else { format!(" for {}", humane(errors.alarm_for)) };
        writeln!(out, "  breach when an alarm is red{long}: {}", alarms.join(", "))?;
        if let Some(accepted) = compare.false_rollback {
            writeln!(out, "  breach when green's failed tasks are chance {} at most", once_in(1.0 / accepted))?;
        }
        if !compare.against_blue {
            writeln!(out, "  also when blue suffers as well")?;
        } else if !compare.patience.is_zero() {
            writeln!(out, "  watches blue for {} before a green that had come up is blamed", humane(compare.patience))?;
        }
        if rollback.after_promotion == AfterPromotion::Page {
            writeln!(out, "  leaves a green that is PRIMARY to people")?;
        }
        let capacity = match rollback.blue_capacity {
            BlueCapacity::Restore => "is scaled back before it gets all the traffic",
            BlueCapacity::Require => "must be able to carry all the traffic",
            BlueCapacity::Ignore => "gets all the traffic, whatever it can carry",
        };
        writeln!(out, "  blue {capacity}")?;
        let per_day = limits.rollbacks_per_day;
        writeln!(out, "  at most {per_day} {} a day", if per_day == 1 { "rollback" } else { "rollbacks" })?;
        if quarantine.on_return == OnReturn::Rollback {
            writeln!(out, "  rolls a version back at once that comes back within {}", humane(quarantine.ttl))?;
        }
        writeln!(out, "  guards green for {} after its promotion", humane(watch.bake))?;
    }
    Ok(())
}
