//! One file: every key of it read, every error in it said.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::compile::LARGEST_FILE;
use super::diagnostic::{Code, Diagnostic, Place};
use super::duration::written;
use super::rule::{
    AfterPromotion, BlueCapacity, Compare, DeletePolicy, ErrorGates, Limits, Mode, OnReturn, Protect, Quarantine,
    RollbackPolicy, Rule, StabilityGates, Watch,
};
use super::value::{Bounds, Section, Setting, Walk, shortened, type_of};
use crate::model::AlarmName;

/// `[[protect]]` entries of one rule.
const MOST_ENTRIES: usize = 100;

/// Alarms of one rule: `DescribeAlarms` answers for 100 names a call.
const MOST_ALARMS: usize = 100;

/// Failed tasks that a breach may ask for: a window remembers 128 tasks, and nobody waits for more.
const MOST_FAILURES: u32 = 100;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A duration that may be zero.
const UP_TO_A_DAY: Bounds = Bounds { least: Duration::ZERO, most: Duration::from_hours(24) };
/// A span of time in which something is to happen.
const SOME_TIME: Bounds = Bounds { least: Duration::from_secs(1), most: UP_TO_A_DAY.most };
/// A drain holds the whole rollback open: an hour is more than any target group's deregistration delay.
const UP_TO_AN_HOUR: Bounds = Bounds { least: Duration::ZERO, most: HOUR };

/// A version that is forgotten within the hour can be deployed again before anybody has looked at it; after 90 days an image
/// has been rebuilt.
const SOME_DAYS: Bounds = Bounds { least: HOUR, most: Duration::from_hours(90 * 24) };

/// Rollbacks a day that may be allowed: one in a quarter of an hour, and nobody could call it a limit any more.
const MOST_ROLLBACKS: u32 = 100;

const TOP: [&str; 10] =
    ["name", "mode", "protect", "watch", "stability", "errors", "compare", "rollback", "limits", "quarantine"];
const PROTECT: [&str; 2] = ["cluster", "service"];
const WATCH: [&str; 2] = ["bake", "freshness"];
const STABILITY: [&str; 4] = ["window", "task_failures", "steady_within", "unhealthy_targets"];
const ERRORS: [&str; 2] = ["alarms", "alarm_for"];
const COMPARE: [&str; 1] = ["against_blue"];
const ROLLBACK: [&str; 4] = ["drain", "blue_capacity", "after_promotion", "delete"];
const LIMITS: [&str; 1] = ["rollbacks_per_day"];
const QUARANTINE: [&str; 2] = ["on_return", "ttl"];

/// Every key inside of a table, to tell where a misplaced one belongs.
const PATHS: [&str; 18] = [
    "protect.cluster",
    "protect.service",
    "watch.bake",
    "watch.freshness",
    "stability.window",
    "stability.task_failures",
    "stability.steady_within",
    "stability.unhealthy_targets",
    "errors.alarms",
    "errors.alarm_for",
    "compare.against_blue",
    "rollback.drain",
    "rollback.blue_capacity",
    "rollback.after_promotion",
    "rollback.delete",
    "limits.rollbacks_per_day",
    "quarantine.on_return",
    "quarantine.ttl",
];

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
        let said = format!("a rule file of {} KiB", text.len() / 1024);
        walk.error(Code::TooLarge, 0..0, said, format!("it may have {} KiB", LARGEST_FILE / 1024));
        return Draft::default();
    }
    let (root, wrong) = DeTable::parse_recoverable(text);
    if !wrong.is_empty() {
        // What was read around a syntax error is a guess: errors in it would be noise.
        for error in wrong {
            let place = walk.source.place(error.span().unwrap_or_default());
            walk.errors.push(Diagnostic::new(Code::Syntax, place, error.message().trim_end()));
        }
        return Draft::default();
    }
    let root = Section::of("", root.get_ref());
    walk.unknown_keys(&root, &TOP, &PATHS);

    let name = name(walk, &root);
    let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let mode = walk.choice(&root, "mode", &modes, Mode::default());
    let protect = protect(walk, &root);
    let watch_and_stability = watch_and_stability(walk, &root);
    let errors = error_gates(walk, &root);
    let compare = compare(walk, &root);
    let rollback = rollback(walk, &root);
    let limits = limits(walk, &root);
    let quarantine = quarantine(walk, &root);

    let rule = || {
        let (watch, stability) = watch_and_stability?;
        let name = Arc::clone(&name.as_ref()?.0);
        let protect = protect.iter().map(|(protect, _)| protect.clone()).collect();
        let (errors, compare, rollback) = (errors?, compare?, rollback?);
        let (limits, quarantine) = (limits?, quarantine?);
        Some(Rule { name, mode: mode?, protect, watch, stability, errors, compare, rollback, limits, quarantine })
    };
    let rule = if walk.errors.is_empty() { rule() } else { None };
    Draft { name, protect, rule }
}

fn name(walk: &mut Walk, root: &Section<'_>) -> Option<(Arc<str>, Place)> {
    if root.get("name").is_none() {
        walk.error(Code::Missing, 0..0, "the rule has no name", "begin the file with name = \"…\"");
        return None;
    }
    let (text, span) = walk.text(root, "name")?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(is_word) {
        let said = format!("{:?} can't be the name of a rule", shortened(text));
        walk.error(Code::WrongValue, span, said, "a name has 1 to 64 ASCII letters, digits, hyphens and underscores");
        return None;
    }
    Some((Arc::from(text), walk.source.place(span)))
}

fn protect(walk: &mut Walk, root: &Section<'_>) -> Vec<(Protect, Place)> {
    let help = "add [[protect]] with cluster = \"…\" and service = \"…\"";
    let Some(value) = root.get("protect") else {
        walk.error(Code::Missing, 0..0, "the rule protects nothing", help);
        return Vec::new();
    };
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
        let section = Section::of("protect", table);
        walk.unknown_keys(&section, &PROTECT, &PATHS);
        let cluster = glob(walk, &section, entry.span(), "cluster");
        let service = glob(walk, &section, entry.span(), "service");
        if let (Some(cluster), Some(service)) = (cluster, service) {
            found.push((Protect { cluster, service }, walk.source.place(entry.span())));
        }
    }
    found
}

fn glob(walk: &mut Walk, section: &Section<'_>, entry: Range<usize>, key: &str) -> Option<Arc<str>> {
    if section.get(key).is_none() {
        walk.error(Code::Missing, entry, format!("[[protect]] names no {key}"), format!("add {key} = \"…\""));
        return None;
    }
    let (text, span) = walk.text(section, key)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '?');
    if text.is_empty() || text.len() > 255 || !text.chars().all(fits) {
        let said = format!("{:?} can match no {key}", shortened(text));
        let help = if text.starts_with("arn:") {
            format!("write the {key}'s name, not its ARN")
        } else {
            "names have up to 255 letters, digits, hyphens and underscores; * is any run of them, ? any one".to_owned()
        };
        walk.error(Code::WrongValue, span, said, help);
        return None;
    }
    Some(Arc::from(text))
}

fn watch_and_stability(walk: &mut Walk, root: &Section<'_>) -> Option<(Watch, StabilityGates)> {
    let section = walk.section(root, "watch");
    walk.unknown_keys(&section, &WATCH, &PATHS);
    let bake = walk.duration(&section, "bake", UP_TO_A_DAY, 15 * MINUTE);
    let freshness = walk.duration(&section, "freshness", SOME_TIME, 10 * MINUTE);

    let section = walk.section(root, "stability");
    walk.unknown_keys(&section, &STABILITY, &PATHS);
    let window = walk.duration(&section, "window", SOME_TIME, 5 * MINUTE);
    let task_failures = walk.count_or_off(&section, "task_failures", 1..=MOST_FAILURES, 3);
    let steady_within = walk.duration_or_off(&section, "steady_within", SOME_TIME, 10 * MINUTE);
    let unhealthy_targets = walk.share_or_off(&section, "unhealthy_targets", 0.5);
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
    let said = format!("`watch.freshness` of {} is shorter than `stability.window`", written(freshness.value));
    let help = format!(
        "what is counted must be able to trigger: set watch.freshness to \"{}\" or more",
        written(window.value)
    );
    let span = freshness.span.as_ref().or(window.span.as_ref()).cloned().unwrap_or_default();
    let mut error = Diagnostic::new(Code::Contradiction, walk.source.place(span), said).help(help);
    if let (Some(_), Some(other)) = (&freshness.span, &window.span) {
        error = error.related(walk.source.place(other.clone()), "the window");
    }
    walk.errors.push(error);
}

fn error_gates(walk: &mut Walk, root: &Section<'_>) -> Option<ErrorGates> {
    let section = walk.section(root, "errors");
    walk.unknown_keys(&section, &ERRORS, &PATHS);
    let alarms = alarms(walk, &section);
    let alarm_for = walk.duration(&section, "alarm_for", UP_TO_A_DAY, Duration::ZERO);
    Some(ErrorGates { alarms: alarms?, alarm_for: alarm_for?.value })
}

fn alarms(walk: &mut Walk, section: &Section<'_>) -> Option<Vec<AlarmName>> {
    let Some(value) = section.get("alarms") else { return Some(Vec::new()) };
    let DeValue::Array(names) = value.get_ref() else {
        let said = format!("`errors.alarms` is a list of names, not {}", type_of(value.get_ref()));
        walk.error(Code::WrongType, value.span(), said, "as in alarms = [\"checkout-5xx\"]");
        return None;
    };
    if names.len() > MOST_ALARMS {
        let said = format!("{} alarms in one rule", names.len());
        walk.error(
            Code::TooLarge,
            value.span(),
            said,
            format!("there may be {MOST_ALARMS}; a composite alarm joins several"),
        );
        return None;
    }
    let before = walk.errors.len();
    let mut found: Vec<AlarmName> = Vec::new();
    for name in names {
        match name.get_ref() {
            DeValue::String(text) if text.starts_with("arn:") => {
                let said = "this is an ARN, not the name of an alarm";
                walk.error(Code::WrongValue, name.span(), said, "write what follows `:alarm:`");
            }
            DeValue::String(text)
                if text.is_empty() || text.chars().count() > 255 || text.contains(char::is_control) =>
            {
                let said = format!("{:?} can't be the name of an alarm", shortened(text));
                walk.error(Code::WrongValue, name.span(), said, "alarm names have 1 to 255 printable characters");
            }
            DeValue::String(text) if found.iter().any(|known| known.as_str() == text.as_ref()) => {
                let said = format!("{:?} is listed twice", shortened(text));
                walk.error(Code::WrongValue, name.span(), said, "list every alarm once");
            }
            DeValue::String(text) => found.push(AlarmName::new(text)),
            other => {
                let said = format!("the name of an alarm is a string, not {}", type_of(other));
                walk.error(Code::WrongType, name.span(), said, "write it in quotes");
            }
        }
    }
    (walk.errors.len() == before).then_some(found)
}

fn rollback(walk: &mut Walk, root: &Section<'_>) -> Option<RollbackPolicy> {
    let section = walk.section(root, "rollback");
    walk.unknown_keys(&section, &ROLLBACK, &PATHS);
    let drain = walk.duration(&section, "drain", UP_TO_AN_HOUR, MINUTE);
    let capacities =
        [("restore", BlueCapacity::Restore), ("require", BlueCapacity::Require), ("ignore", BlueCapacity::Ignore)];
    let blue_capacity = walk.choice(&section, "blue_capacity", &capacities, BlueCapacity::default());
    let promotions = [("rollback", AfterPromotion::Rollback), ("page", AfterPromotion::Page)];
    let after_promotion = walk.choice(&section, "after_promotion", &promotions, AfterPromotion::default());
    let policies = [("force", DeletePolicy::Force), ("keep", DeletePolicy::Keep)];
    let delete = walk.choice(&section, "delete", &policies, DeletePolicy::default());
    let (drain, blue_capacity, after_promotion) = (drain?.value, blue_capacity?, after_promotion?);
    Some(RollbackPolicy { drain, blue_capacity, after_promotion, delete: delete? })
}

fn compare(walk: &mut Walk, root: &Section<'_>) -> Option<Compare> {
    let section = walk.section(root, "compare");
    walk.unknown_keys(&section, &COMPARE, &PATHS);
    Some(Compare { against_blue: walk.flag(&section, "against_blue", true)? })
}

fn limits(walk: &mut Walk, root: &Section<'_>) -> Option<Limits> {
    let section = walk.section(root, "limits");
    walk.unknown_keys(&section, &LIMITS, &PATHS);
    Some(Limits { rollbacks_per_day: walk.count(&section, "rollbacks_per_day", 1..=MOST_ROLLBACKS, 3)?.value })
}

fn quarantine(walk: &mut Walk, root: &Section<'_>) -> Option<Quarantine> {
    let section = walk.section(root, "quarantine");
    walk.unknown_keys(&section, &QUARANTINE, &PATHS);
    let returns = [("report", OnReturn::Report), ("rollback", OnReturn::Rollback)];
    let on_return = walk.choice(&section, "on_return", &returns, OnReturn::default());
    let ttl = walk.duration(&section, "ttl", SOME_DAYS, Quarantine::default().ttl);
    Some(Quarantine { on_return: on_return?, ttl: ttl?.value })
}
