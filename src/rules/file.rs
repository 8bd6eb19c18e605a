//! One file: every key of it read, every error in it said.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::compile::LARGEST_FILE;
use super::diagnostic::{Code, Diagnostic, Place};
use super::duration::written;
use super::keys::{self, ARN, Alarms, Key, MOST_ENTRIES, Word};
use super::rule::{
    BLUE_LAG, Compare, ErrorGates, LEAST_TRAFFIC, Limits, Protect, Quarantine, RollbackPolicy, Rule, StabilityGates,
    Watch,
};
use super::syntax;
use super::value::{Found, Read, Section, Setting, Walk, shortened, type_of};
use crate::model::AlarmName;

/// What is known of a file, even when something in it is wrong.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) name: Option<(Arc<str>, Place)>,
    pub(super) protect: Vec<(Protect, Place)>,
    /// Only when nothing is wrong.
    pub(super) rule: Option<Rule>,
}

pub(super) fn draft(walk: &mut Walk, text: &str) -> Draft {
    if text.len() > LARGEST_FILE {
        let said = format!("a rule file of more than {} KiB", LARGEST_FILE / 1024);
        walk.error(Code::TooLarge, 0..0, said, "a rule is a screenful: look what is in it");
        return Draft::default();
    }
    let (root, wrong) = DeTable::parse_recoverable(text);
    if !wrong.is_empty() {
        // What was read around a syntax error is a guess: errors in it would be noise.
        for error in wrong {
            let span = error.span().unwrap_or_default();
            let (said, help) = syntax::told(error.message(), text, &span);
            walk.error(Code::Syntax, span, said, help);
        }
        // The parser stumbles on over the rest of a line that it did not understand.
        walk.errors.sort_by_key(|error| (error.place.line, error.place.column));
        walk.errors.dedup_by_key(|error| error.place.line);
        return Draft::default();
    }
    let root = walk.entered(&keys::FILE, root.get_ref());

    let name = name(walk, &root);
    let mode = walk.setting(&root, &keys::MODE);
    let protect = protect(walk, &root);
    let watch_and_stability = watch_and_stability(walk, &root);
    let freshness = watch_and_stability.as_ref().map(|(watch, _)| watch.freshness);
    let errors = error_gates(walk, &root, freshness);
    let compare = compare(walk, &root, watch_and_stability.as_ref());
    let rollback = rollback(walk, &root);
    let limits = limits(walk, &root);
    let quarantine = quarantine(walk, &root);

    let rule = || {
        let (watch, stability) = watch_and_stability?;
        let name = Arc::clone(&name.as_ref()?.0);
        let protect = protect.iter().map(|(protect, _)| protect.clone()).collect();
        let mode = mode?.value;
        let (errors, compare, rollback) = (errors?, compare?, rollback?);
        let (limits, quarantine) = (limits?, quarantine?);
        Some(Rule { name, mode, protect, watch, stability, errors, compare, rollback, limits, quarantine })
    };
    let rule = if walk.errors.is_empty() { rule() } else { None };
    Draft { name, protect, rule }
}

/// Whether a rule may be called so.
pub fn is_rule_name(text: &str) -> bool {
    keys::NAME.holds.fits(text)
}

fn name(walk: &mut Walk, root: &Section<'_>) -> Option<(Arc<str>, Place)> {
    if root.get(keys::NAME.name).is_none() {
        walk.error(Code::Missing, 0..0, "the rule has no name", "begin the file with name = \"…\"");
        return None;
    }
    let (text, span) = walk.text(root, &keys::NAME)?;
    if !keys::NAME.holds.fits(text) {
        let said = format!("{:?} can't be the name of a rule", shortened(text));
        let most = keys::NAME.holds.most;
        let help = format!("a name has 1 to {most} ASCII letters, digits, hyphens and underscores");
        let proper: String = text.trim().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let help = if keys::NAME.holds.fits(&proper) { format!("write {proper:?}: {help}") } else { help };
        walk.error(Code::WrongValue, span, said, help);
        return None;
    }
    Some((Arc::from(text), walk.source.place(span)))
}

fn protect(walk: &mut Walk, root: &Section<'_>) -> Vec<(Protect, Place)> {
    let help = "add [[protect]] with cluster = \"…\" and service = \"…\"";
    // Without any, it protects those services whose tag names it.
    let Some(value) = root.get(keys::PROTECT.name) else { return Vec::new() };
    let entries = match value.get_ref() {
        DeValue::Array(entries) if entries.is_empty() => {
            walk.error(Code::Missing, value.span(), "the rule protects nothing", help);
            return Vec::new();
        }
        DeValue::Array(entries) if entries.len() > MOST_ENTRIES => {
            let said = format!("{} [[protect]] entries in one rule", entries.len());
            walk.error(Code::TooLarge, value.span(), said, format!("there may be {MOST_ENTRIES}; use globs"));
            return Vec::new();
        }
        DeValue::Array(entries) => entries,
        DeValue::Table(_) => {
            walk.error(
                Code::WrongType,
                value.span(),
                "`protect` is a list of tables",
                "write [[protect]], with two brackets",
            );
            return Vec::new();
        }
        other => {
            walk.error(
                Code::WrongType,
                value.span(),
                format!("`protect` is a list of tables, not {}", type_of(other)),
                help,
            );
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let DeValue::Table(table) = entry.get_ref() else {
            let said = format!("`protect` is a list of tables, and this is {}", type_of(entry.get_ref()));
            walk.error(Code::WrongType, entry.span(), said, help);
            continue;
        };
        let section = walk.entered(&keys::PROTECT, table);
        let cluster = glob(walk, &section, entry.span(), &keys::CLUSTER);
        let service = glob(walk, &section, entry.span(), &keys::SERVICE);
        if let (Some(cluster), Some(service)) = (cluster, service) {
            found.push((Protect { cluster, service }, walk.source.place(entry.span())));
        }
    }
    found
}

fn glob(walk: &mut Walk, section: &Section<'_>, entry: Range<usize>, key: &Key<Word>) -> Option<Arc<str>> {
    let Key { name, holds, .. } = key;
    if section.get(name).is_none() {
        walk.error(Code::Missing, entry, format!("[[protect]] names no {name}"), format!("add {name} = \"…\""));
        return None;
    }
    let (text, span) = walk.text(section, key)?;
    if !holds.fits(text) {
        let said = format!("{:?} can match no {name}", shortened(text));
        walk.error(Code::WrongValue, span, said, cure_of_a_glob(text, key));
        return None;
    }
    Some(Arc::from(text))
}

fn cure_of_a_glob(text: &str, Key { name, holds, .. }: &Key<Word>) -> String {
    // Somebody who thinks of regular expressions.
    let plain = text.trim_start_matches('^').trim_end_matches('$').replace(".*", "*");
    if text.starts_with(ARN) {
        format!("write the {name}'s name, not its ARN")
    } else if text.contains('/') {
        "write the cluster's name behind `cluster`, and the service's behind `service`".to_owned()
    } else if text.contains(['{', '[', '|', ',']) {
        format!("* is any run of characters, ? any one; write a [[protect]] for each {name} that is meant")
    } else if holds.fits(&plain) {
        format!("write {plain:?}: * is any run of characters, ? any one")
    } else {
        let most = holds.most;
        format!("names have 1 to {most} letters, digits, hyphens and underscores; * is any run of them, ? any one")
    }
}

fn watch_and_stability(walk: &mut Walk, root: &Section<'_>) -> Option<(Watch, StabilityGates)> {
    let section = walk.section(root, &keys::WATCH);
    let bake = walk.setting(&section, &keys::BAKE);
    let freshness = walk.setting(&section, &keys::FRESHNESS);

    let section = walk.section(root, &keys::STABILITY);
    let window = walk.setting(&section, &keys::WINDOW);
    let task_failures = walk.setting(&section, &keys::TASK_FAILURES);
    let steady_within = walk.setting(&section, &keys::STEADY_WITHIN);
    let unhealthy_targets = walk.setting(&section, &keys::UNHEALTHY_TARGETS);
    if let (Some(freshness), Some(window)) = (&freshness, &window) {
        stale_window(walk, freshness, window);
    }
    let watch = Watch { bake: bake?.value, freshness: freshness?.value };
    let (window, task_failures, steady_within) = (window?.value, task_failures?.value, steady_within?.value);
    let unhealthy_targets = unhealthy_targets?.value;
    Some((watch, StabilityGates { window, task_failures, steady_within, unhealthy_targets }))
}

/// Failures at the far end of a window that is longer than the freshness could be counted and yet never trigger.
fn stale_window(walk: &mut Walk, freshness: &Setting<Duration>, window: &Setting<Duration>) {
    if freshness.value >= window.value {
        return;
    }
    let default = if freshness.span.is_none() { ", the default," } else { "" };
    let said = format!("`watch.freshness` of {}{default} is shorter than `stability.window`", written(freshness.value));
    let help = format!(
        "what is counted must be able to trigger: set watch.freshness to \"{}\" or more",
        written(window.value)
    );
    let span = freshness.span.as_ref().or(window.span.as_ref()).cloned().unwrap_or_default();
    let mut error = Diagnostic::new(Code::Contradiction, walk.source.place(span), said, help);
    if let (Some(_), Some(other)) = (&freshness.span, &window.span) {
        error = error.related(walk.source.place(other.clone()), "the window");
    }
    walk.errors.push(error);
}

fn error_gates(walk: &mut Walk, root: &Section<'_>, freshness: Option<Duration>) -> Option<ErrorGates> {
    let section = walk.section(root, &keys::ERRORS);
    let alarms = walk.setting(&section, &keys::ALARMS);
    let alarm_for = walk.setting(&section, &keys::ALARM_FOR);
    let http_5xx_ratio = walk.setting(&section, &keys::HTTP_5XX_RATIO);
    let latency_p99 = walk.setting(&section, &keys::LATENCY_P99);
    let min_requests = walk.setting(&section, &keys::MIN_REQUESTS);
    if let Some(freshness) = freshness.filter(|freshness| *freshness < LEAST_TRAFFIC) {
        let ratio = http_5xx_ratio.as_ref().and_then(|set| set.span.clone().filter(|_| set.value.is_some()));
        let latency = latency_p99.as_ref().and_then(|set| set.span.clone().filter(|_| set.value.is_some()));
        let gates = [(keys::HTTP_5XX_RATIO.name, ratio), (keys::LATENCY_P99.name, latency)];
        for (name, span) in gates.into_iter().filter_map(|(name, span)| Some((name, span?))) {
            let said = format!("`errors.{name}` sees nothing within a `watch.freshness` of {}", written(freshness));
            let least = written(LEAST_TRAFFIC);
            let help =
                format!("CloudWatch tells of whole minutes, and late: set watch.freshness to \"{least}\" or more");
            walk.error(Code::Contradiction, span, said, help);
        }
    }
    let (http_5xx_ratio, latency_p99) = (http_5xx_ratio?.value, latency_p99?.value);
    let (alarms, alarm_for, min_requests) = (alarms?.value, alarm_for?.value, min_requests?.value);
    Some(ErrorGates { alarms, alarm_for, http_5xx_ratio, latency_p99, min_requests })
}

impl Read for Alarms {
    type Value = Vec<AlarmName>;

    fn without(&self) -> Self::Value {
        Vec::new()
    }

    fn read(&self, walk: &mut Walk, Found { path, value, .. }: &Found<'_>) -> Option<Self::Value> {
        let DeValue::Array(names) = value.get_ref() else {
            let said = format!("`{path}` is a list of names, not {}", type_of(value.get_ref()));
            let help = match value.get_ref() {
                DeValue::String(name) => format!("write it in brackets: [{:?}]", shortened(name)),
                _ => "as in alarms = [\"checkout-5xx\"]".to_owned(),
            };
            walk.error(Code::WrongType, value.span(), said, help);
            return None;
        };
        if names.len() > self.most {
            let said = format!("{} alarms in one rule", names.len());
            let help = format!("there may be {}; a composite alarm joins several", self.most);
            walk.error(Code::TooLarge, value.span(), said, help);
            return None;
        }
        let before = walk.errors.len();
        let mut found: Vec<(AlarmName, Range<usize>)> = Vec::new();
        for name in names {
            let text = match name.get_ref() {
                DeValue::String(text) => text,
                other => {
                    let said = format!("the name of an alarm is a string, not {}", type_of(other));
                    walk.error(Code::WrongType, name.span(), said, "write it in quotes");
                    continue;
                }
            };
            if text.starts_with(ARN) {
                let help = match text.split_once(":alarm:") {
                    Some((_, name)) => format!("write {:?}", shortened(name)),
                    None => "write what follows `:alarm:`".to_owned(),
                };
                walk.error(Code::WrongValue, name.span(), "this is an ARN, not the name of an alarm", help);
            } else if text.is_empty() || text.chars().count() > self.longest || text.contains(char::is_control) {
                let said = format!("{:?} can't be the name of an alarm", shortened(text));
                let help = format!("alarm names have 1 to {} printable characters", self.longest);
                walk.error(Code::WrongValue, name.span(), said, help);
            } else if let Some((_, first)) = found.iter().find(|(known, _)| known.as_str() == text.as_ref()) {
                let (place, first) = (walk.source.place(name.span()), walk.source.place(first.clone()));
                let said = format!("{:?} is listed twice", shortened(text));
                let error = Diagnostic::new(Code::WrongValue, place, said, "list every alarm once");
                walk.errors.push(error.related(first, "the first time"));
            } else {
                found.push((AlarmName::new(text), name.span()));
            }
        }
        (walk.errors.len() == before).then(|| found.into_iter().map(|(name, _)| name).collect())
    }
}

fn rollback(walk: &mut Walk, root: &Section<'_>) -> Option<RollbackPolicy> {
    let section = walk.section(root, &keys::ROLLBACK);
    let drain = walk.setting(&section, &keys::DRAIN);
    let blue_capacity = walk.setting(&section, &keys::BLUE_CAPACITY);
    let after_promotion = walk.setting(&section, &keys::AFTER_PROMOTION);
    let delete = walk.setting(&section, &keys::DELETE);
    let (drain, blue_capacity) = (drain?.value, blue_capacity?.value);
    Some(RollbackPolicy { drain, blue_capacity, after_promotion: after_promotion?.value, delete: delete?.value })
}

fn compare(walk: &mut Walk, root: &Section<'_>, gates: Option<&(Watch, StabilityGates)>) -> Option<Compare> {
    let section = walk.section(root, &keys::COMPARE);
    let against_blue = walk.setting(&section, &keys::AGAINST_BLUE);
    let false_rollback = walk.setting(&section, &keys::FALSE_ROLLBACK);
    let patience = walk.setting(&section, &keys::PATIENCE);
    let (against_blue, false_rollback) = (against_blue?.value, false_rollback?.value);
    let Setting { value: patience, span } = patience?;
    if let Some((watch, stability)) = gates.filter(|_| against_blue && !patience.is_zero())
        && stability.task_failures.is_some()
    {
        outlasted(walk, patience, span.unwrap_or_default(), watch, stability);
    }
    Some(Compare { against_blue, false_rollback, patience })
}

/// Failures that are out of date when the wait for blue is over would never trigger.
fn outlasted(walk: &mut Walk, patience: Duration, span: Range<usize>, watch: &Watch, stability: &StabilityGates) {
    let least = stability.window.saturating_add(patience).saturating_add(BLUE_LAG);
    if watch.freshness >= least {
        return;
    }
    let said = format!(
        "`compare.patience` of {} outlasts `watch.freshness` of {}: a failure at the beginning of `stability.window` would be \
         out of date when blue has been heard",
        written(patience),
        written(watch.freshness)
    );
    let (least, most) = (whole_minutes(least), keys::FRESHNESS.holds.most);
    let help = if least <= most {
        format!("set watch.freshness to \"{}\" or more", written(least))
    } else {
        "shorten compare.patience or stability.window".to_owned()
    };
    walk.error(Code::Contradiction, span, said, help);
}

fn whole_minutes(duration: Duration) -> Duration {
    Duration::from_mins(duration.as_secs().div_ceil(60))
}

fn limits(walk: &mut Walk, root: &Section<'_>) -> Option<Limits> {
    let section = walk.section(root, &keys::LIMITS);
    Some(Limits { rollbacks_per_day: walk.setting(&section, &keys::ROLLBACKS_PER_DAY)?.value })
}

fn quarantine(walk: &mut Walk, root: &Section<'_>) -> Option<Quarantine> {
    let section = walk.section(root, &keys::QUARANTINE);
    let on_return = walk.setting(&section, &keys::ON_RETURN);
    let ttl = walk.setting(&section, &keys::TTL);
    Some(Quarantine { on_return: on_return?.value, ttl: ttl?.value })
}
