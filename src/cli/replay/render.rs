//! The result of `replay`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::super::Output;
use super::super::text::{BAD, BOLD, CARE, DIM, GOOD, columns, printable, wrapped};
use crate::model::humane;
use crate::replay::{Line, Outcome, Setting, Tally};

/// What became of each deployment.
pub(super) fn deployments(lines: &[Line], output: Output, out: &mut dyn Write) -> io::Result<()> {
    if output == Output::Json {
        return lines.iter().try_for_each(|line| json_line(line, out));
    }
    for line in lines {
        let Line { service, task_set, started_at, outcome, breached_at, evidence, .. } = line;
        let (style, said) = match outcome {
            Outcome::Breached => (BAD, "breached"),
            Outcome::Healthy => (GOOD, "healthy"),
            Outcome::NotAttributable => (CARE, "not attributable"),
            Outcome::Blind => (CARE, "blind"),
        };
        let head = printable(&format!("{service} {task_set}")).into_owned();
        writeln!(out, "{BOLD}{head}{BOLD:#}  {style}{said}{style:#}")?;
        writeln!(out, "  {DIM}created{DIM:#}   {started_at}")?;
        if let Some(at) = breached_at {
            writeln!(out, "  {DIM}breached{DIM:#}  {at}, {} later", humane(at.since(*started_at)))?;
        }
        for found in evidence {
            paragraph("- ", &found.to_string(), out)?;
            for fact in found.facts.iter().filter(|fact| !found.to_string().contains(*fact)) {
                paragraph("    ", fact, out)?;
            }
        }
        writeln!(out)?;
    }
    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    for line in lines {
        *counts.entry(line.outcome).or_default() += 1;
    }
    let counts: Vec<_> =
        counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.as_str().replace('_', " "))).collect();
    let count = lines.len();
    let end = if count == 1 { "" } else { "s" };
    let colon = if counts.is_empty() { "" } else { ": " };
    writeln!(out, "{count} deployment{end}{colon}{}", counts.join(", "))
}

fn paragraph(begin: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
    let width = columns().saturating_sub(begin.len() + 2);
    for (number, line) in wrapped(&printable(text), width).into_iter().enumerate() {
        let before = if number == 0 { begin.to_owned() } else { " ".repeat(begin.len()) };
        writeln!(out, "  {before}{line}")?;
    }
    Ok(())
}

fn json_line(line: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}

/// What each setting would have done.
pub(super) fn settings(compared: &[(Option<Setting>, Tally)], output: Output, out: &mut dyn Write) -> io::Result<()> {
    if output == Output::Json {
        for (setting, tally) in compared {
            let mut line = json!(tally);
            let steady_within = setting.and_then(|setting| setting.steady_within);
            line["task_failures"] = setting.map(|setting| setting.task_failures).into();
            line["window_seconds"] = setting.map(|setting| setting.window.as_secs()).into();
            line["steady_within_seconds"] = steady_within.map(|within| within.as_secs()).into();
            line["median_detection_seconds"] = tally.median_detection().map(|median| median.as_secs_f64()).into();
            json_line(&line, out)?;
        }
        return Ok(());
    }
    if let Some((_, tally)) = compared.first() {
        let Tally { deployments, judged_by_people, .. } = tally;
        writeln!(out, "{deployments} deployments, {judged_by_people} of them undone or kept by people\n")?;
    }
    writeln!(
        out,
        "{BOLD}{:>8}  {:>6}  {:>6}  {:>11}  {:>6}  {:>9}  {:>6}  {:>9}{BOLD:#}",
        "failures", "window", "steady", "rolled back", "agreed", "too eager", "missed", "detection"
    )?;
    for (setting, tally) in compared {
        let of_rule = || "rule's".to_owned();
        let failures = setting.map_or_else(of_rule, |setting| setting.task_failures.to_string());
        let window = setting.map_or_else(of_rule, |setting| humane(setting.window));
        let steady = setting.and_then(|setting| setting.steady_within).map_or_else(of_rule, humane);
        let detection = tally.median_detection().map_or_else(|| "-".to_owned(), humane);
        let Tally { rolled_back, agreed, too_eager, missed, .. } = tally;
        writeln!(
            out,
            "{failures:>8}  {window:>6}  {steady:>6}  {rolled_back:>11}  {agreed:>6}  {too_eager:>9}  {missed:>6}  {detection:>9}"
        )?;
    }
    writeln!(
        out,
        "\nagreed: rolled back and undone by people, or neither. detection: median, from the first failed task to the decision"
    )
}
