//! `check`: all that is wrong with the rule files, or what they protect.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::model::{AlarmName, ErrorClass, ServiceKey, humane, once_in, percent, tags};
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
/// The files can't be read.
const UNREADABLE: u8 = 2;

/// Columns of a diagnostic: enough for a rule file's lines, and readable in the log of a build.
const COLUMNS: usize = 100;

/// Checks the rule files of a directory (or one file) and says the result to `out`. Returns the exit code: 0 fine, 1 an
/// error in a rule, 2 unreadable.
///
/// # Errors
/// When the result can't be written.
pub fn check(dir: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<u8> {
    check_against(dir, json, |_| Ok(None), out, err)
}

/// The same, and that every pattern fits one of the services which `existing` finds for rules without errors.
///
/// # Errors
/// When the result can't be written, or `existing` fails.
pub(super) fn check_against(
    dir: &Path,
    json: bool,
    existing: impl FnOnce(&RuleSet) -> anyhow::Result<Option<BTreeSet<ServiceKey>>>,
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
pub(super) async fn existing(fleet: &dyn Fleet, rules: &RuleSet) -> anyhow::Result<BTreeSet<ServiceKey>> {
    let listing = list(fleet, rules, &BTreeSet::new()).await;
    if let Some(error) = listing.errors.into_iter().find(|error| error.class != ErrorClass::NotFound) {
        return Err(error.into());
    }
    // Names without globs are not listed but taken for true.
    let mut found = BTreeSet::new();
    for key in listing.found {
        match fleet.describe(&key.cluster, std::slice::from_ref(&key.service)).await {
            Ok(readings) => found.extend(readings.into_keys()),
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
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
    existing: impl FnOnce(&RuleSet) -> anyhow::Result<Option<BTreeSet<ServiceKey>>>,
) -> anyhow::Result<(Examined, u8)> {
    let files = match read_rule_files(dir) {
        Ok(files) => files,
        Err(error) => return Ok((Examined::Impossible { error: error.to_string() }, UNREADABLE)),
    };
    if files.is_empty() {
        // A guardian that protects nothing is a mistake in a path, most likely.
        return Ok((Examined::Impossible { error: format!("no *.toml in {}", dir.display()) }, WRONG));
    }
    let rules = match compile(&files) {
        Ok(rules) => rules,
        Err(diagnostics) => return Ok((Examined::Wrong { diagnostics }, WRONG)),
    };
    let idle = existing(&rules)?.map(|services| match_nothing(&files, &services)).unwrap_or_default();
    Ok(if idle.is_empty() {
        (Examined::Fine { rules }, FINE)
    } else {
        (Examined::Wrong { diagnostics: Diagnostics(idle) }, WRONG)
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
