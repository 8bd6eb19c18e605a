//! How a play looks in a terminal.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::play::Ended;
use super::telling::{Line, Teller};
use crate::cli::Output;
use crate::cli::text::{columns, wrapped};
use crate::model::{Split, humane};
use crate::sandbox::scenario::Scenario;

/// Columns of the traffic bar, at most.
const BAR: u16 = 30;

/// Columns before the text of a timeline line.
const MARGIN: usize = 19;

/// Columns of a scenario's name and of its outcome, in tables.
const NAME: usize = 24;
const OUTCOME: usize = 11;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const BLUE: Style = AnsiColor::Blue.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// What is about to be played.
pub(super) fn title(scenario: &Scenario, seed: u64, speed: f64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{BOLD}{}{BOLD:#}: {}", scenario.name, scenario.title)?;
    for line in wrapped(scenario.story, columns()) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{DIM}simulated AWS, seed {seed}, {speed} s of it in one of yours{DIM:#}\n")
}

/// One line of the timeline.
pub(super) fn line(line: &Line, out: &mut dyn Write) -> io::Result<()> {
    let Line { t, teller, what, split, loud } = line;
    let (who, style) = match teller {
        Teller::World => ("aws", DIM),
        Teller::Traffic => ("traffic", Style::new()),
        Teller::Guardian => ("guardian", YELLOW),
    };
    let clock = format!("{}:{:04.1}", t.as_secs() / 60, t.as_secs_f64() % 60.0);
    write!(out, "{DIM}{clock:>7}{DIM:#}  {style}{who:<8}{style:#}  ")?;
    if let Some(split) = split {
        return bar(*split, out);
    }
    let style = match (loud, teller) {
        (true, _) => BOLD,
        (false, Teller::World) => DIM,
        (false, _) => Style::new(),
    };
    for (number, part) in wrapped(what, columns().saturating_sub(MARGIN)).into_iter().enumerate() {
        let indent = if number == 0 { 0 } else { MARGIN };
        writeln!(out, "{:indent$}{style}{part}{style:#}", "")?;
    }
    out.flush()
}

fn bar(split: Split, out: &mut dyn Write) -> io::Result<()> {
    // The numbers behind the bar take 24 columns.
    let room = u16::try_from(columns().saturating_sub(MARGIN + 24)).unwrap_or(BAR).clamp(5, BAR);
    let cells = (1..=room).map(|cell| (f64::from(cell) - 0.5) / f64::from(room) < split.blue);
    let blue: String = cells.clone().filter(|blue| *blue).map(|_| '█').collect();
    let green: String = cells.filter(|blue| !*blue).map(|_| '▒').collect();
    writeln!(out, "{BLUE}{blue}{BLUE:#}{GREEN}{green}{GREEN:#} {split}")?;
    out.flush()
}

/// How it ended.
pub(super) fn summary(ended: &Ended, out: &mut dyn Write) -> io::Result<()> {
    let verdict = if ended.as_expected() { GREEN } else { RED };
    writeln!(out, "\n{verdict}{}{verdict:#} (expected: {})\n", ended.outcome, ended.expected)?;
    let rows = [
        ("first sign to decision", time(ended.detection_ms)),
        ("first sign to traffic safe", time(ended.traffic_safe_ms)),
        ("first sign to green deleted", time(ended.deleted_ms)),
        ("requests failed", format!("{} of {}", ended.failed_requests, ended.requests)),
        ("promises broken", ended.violations.len().to_string()),
    ];
    for (name, value) in rows {
        writeln!(out, "  {name:<28} {value:>14}")?;
    }
    if !ended.evidence.is_empty() {
        writeln!(out, "\n{BOLD}why{BOLD:#}")?;
    }
    for fact in &ended.evidence {
        for (number, part) in wrapped(fact, columns().saturating_sub(4)).into_iter().enumerate() {
            writeln!(out, "{}{part}", if number == 0 { "  - " } else { "    " })?;
        }
    }
    for broken in &ended.violations {
        writeln!(out, "{RED}broken promise{RED:#}: {broken}")?;
    }
    Ok(())
}

/// All endings.
pub(super) fn table(all: &[Ended], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{BOLD}{:<NAME$} {:<OUTCOME$} {:>7} {:>7} {:>7} {:>8} {:>8}{BOLD:#}",
        "scenario", "outcome", "decided", "safe", "deleted", "failed", "promises"
    )?;
    for ended in all {
        let verdict = if ended.as_expected() { GREEN } else { RED };
        let promises = if ended.violations.is_empty() { "kept" } else { "BROKEN" };
        let [decided, safe, deleted] = [ended.detection_ms, ended.traffic_safe_ms, ended.deleted_ms].map(seconds);
        writeln!(
            out,
            "{:<NAME$} {verdict}{:<OUTCOME$}{verdict:#} {decided:>7} {safe:>7} {deleted:>7} {:>8} {promises:>8}",
            ended.scenario, ended.outcome, ended.failed_requests
        )?;
    }
    writeln!(
        out,
        "{DIM}seconds since the first sign of trouble; requests that failed since the deployment began{DIM:#}"
    )?;
    for ended in all.iter().filter(|ended| !ended.as_expected()) {
        writeln!(out, "{RED}{}{RED:#}: {}, expected {}", ended.scenario, ended.outcome, ended.expected)?;
        for broken in &ended.violations {
            writeln!(out, "  broken promise: {broken}")?;
        }
    }
    Ok(())
}

/// What there is to play.
pub(super) fn list(all: &[Scenario], output: Output, out: &mut dyn Write) -> io::Result<()> {
    if output == Output::Json {
        let scenario = |s: &Scenario| serde_json::json!({ "name": s.name, "title": s.title, "story": s.story, "expected": s.expected.as_str() });
        let all: Vec<_> = all.iter().map(scenario).collect();
        return writeln!(out, "{}", serde_json::Value::from(all));
    }
    let width = columns().saturating_sub(NAME + OUTCOME + 2);
    for scenario in all {
        write!(out, "{BOLD}{:<NAME$}{BOLD:#} {:<OUTCOME$} ", scenario.name, scenario.expected.as_str())?;
        for (number, part) in wrapped(scenario.title, width).into_iter().enumerate() {
            let indent = if number == 0 { 0 } else { NAME + OUTCOME + 2 };
            writeln!(out, "{:indent$}{part}", "")?;
        }
    }
    Ok(())
}

/// Narration, for stderr.
pub(super) fn note(text: &str, err: &mut dyn Write) -> io::Result<()> {
    writeln!(err, "{DIM}{text}{DIM:#}")
}

fn time(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| humane(Duration::from_millis(millis)))
}

/// For a column of numbers.
fn seconds(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| format!("{:.1}", Duration::from_millis(millis).as_secs_f64()))
}
