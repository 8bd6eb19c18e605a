//! `status`: every protected service, as a running worker sees it.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use clap::Args;
use serde_json::Value;

use super::account::say;
use super::server::ServerArg;
use super::text::{BAD, BOLD, CARE, DIM, GOOD, columns, printable, shortened, wrapped};
use super::{Output, write_json};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Cursor home, and everything below it away: redraws in place.
const REDRAW: &str = "\u{1b}[H\u{1b}[J";

/// The terminal's other screen, which leaves what was there before in place.
const OTHER_SCREEN: &str = "\u{1b}[?1049h";
const BACK: &str = "\u{1b}[?1049l";

/// Columns of phase, split and failures.
const FIXED: usize = 13 + 2 + 11 + 2 + 9 + 2;

/// A name that is cut shorter than this says nothing.
const ROOM: usize = 30;

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    server: ServerArg,
}

/// Exit code 0: the worker and all services are ready; 1: something is not.
pub(super) async fn status(args: &StatusArgs, output: Output) -> anyhow::Result<ExitCode> {
    if args.watch {
        return watch(args, output).await;
    }
    let status = args.server.status().await?;
    show(&status, output, &mut super::text::out())?;
    Ok(if all_is_well(&status) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn watch(args: &StatusArgs, output: Output) -> anyhow::Result<ExitCode> {
    let in_place = output == Output::Text && io::stdout().is_terminal();
    if in_place {
        write!(anstream::stdout(), "{OTHER_SCREEN}")?;
    }
    let ended = loop {
        let looked = args.server.status().await;
        let mut screen = Vec::new();
        let written = match &looked {
            Ok(status) => show(status, output, &mut screen),
            // A worker may be replaced while somebody watches.
            Err(error) => {
                let why = format!("{error:#}");
                if output == Output::Json {
                    say(why);
                    Ok(())
                } else {
                    writeln!(screen, "{BAD}{}{BAD:#}", printable(&why))
                }
            }
        };
        let mut out = anstream::stdout().lock();
        let drawn = written.and_then(|()| {
            if in_place {
                write!(out, "{REDRAW}")?;
            }
            out.write_all(&screen)?;
            out.flush()
        });
        drop(out);
        if let Err(error) = drawn {
            break Err(error);
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
    };
    if in_place {
        write!(anstream::stdout(), "{BACK}")?;
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn all_is_well(status: &Value) -> bool {
    let services = status["services"].as_array();
    status["worker"]["ready"] == true && services.is_some_and(|all| all.iter().all(|one| one["ready"] == true))
}

fn show(status: &Value, output: Output, out: &mut dyn Write) -> io::Result<()> {
    match output {
        Output::Json => write_json(status, out),
        Output::Text => table(status, columns(), out),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// For people: a table, and a line below each service about which there is something to say.
fn table(status: &Value, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let worker = &status["worker"];
    let (role, version) = (text(worker, "role"), text(worker, "version"));
    let last = worker["last_event_at"].as_str().unwrap_or("none yet");
    writeln!(out, "{BOLD}taskset-guardian {version}{BOLD:#} {role}{DIM}, last event {last}{DIM:#}")?;
    for reason in worker["not_ready"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        below(BAD, &format!("not ready: {reason}"), width, out)?;
    }
    if status["dry_run"] == true {
        writeln!(out, "{CARE}dry run: nothing is changed{CARE:#}")?;
    }
    if let Some(brake) = status["fleet_brake"].as_str() {
        below(BAD, &format!("fleet brake: {brake}"), width, out)?;
    }
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> = services.iter().map(name).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("SERVICE".len());
    let beside = width.saturating_sub(FIXED);
    // In a narrow terminal names get lines of their own.
    let room = if longest > beside && beside < ROOM { 0 } else { longest.min(beside) };
    writeln!(
        out,
        "\n{DIM}{:<room$}  {:<13}  {:<11}  FAILURES{DIM:#}",
        if room > 0 { "SERVICE" } else { "" },
        "PHASE",
        "BLUE/GREEN"
    )?;
    for (service, name) in services.iter().zip(&names) {
        if room == 0 {
            writeln!(out, "{BOLD}{}{BOLD:#}", shortened(name, width))?;
            row(service, "", room, width, out)?;
        } else {
            row(service, &shortened(name, room), room, width, out)?;
        }
    }
    let ready = services.iter().filter(|service| service["ready"] == true).count();
    writeln!(out, "\n{} services, {ready} ready", services.len())
}

fn name(service: &Value) -> String {
    let key = &service["service"];
    printable(&format!("{}/{}", text(key, "cluster"), text(key, "service"))).into_owned()
}

fn row(service: &Value, name: &str, room: usize, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let deployment = Some(&service["deployment"]).filter(|deployment| !deployment.is_null());
    let phase = deployment.map_or("-", |deployment| text(deployment, "phase_word"));
    let style = match phase {
        "breached" | "escalated" => BAD,
        "rolling_back" => CARE,
        "graduated" | "rolled_back" => GOOD,
        _ => Style::new(),
    };
    let split = deployment.and_then(|deployment| deployment["split"].as_object());
    let percent = |role: &str| split.and_then(|split| split[role].as_f64()).map(|share| share * 100.0);
    let split =
        percent("blue").zip(percent("green")).map_or_else(|| "-".to_owned(), |(b, g)| format!("{b:.0}/{g:.0} %"));
    let failures = deployment.map_or_else(
        || "-".to_owned(),
        |deployment| format!("{}/{}", deployment["blue_failures"], deployment["green_failures"]),
    );
    writeln!(out, "{name:<room$}  {style}{phase:<13}{style:#}  {split:<11}  {failures}")?;
    if service["ready"] != true {
        below(BAD, &format!("not ready: {}", text(service, "not_ready_because")), width, out)?;
    }
    if let Some(hold) = service["hold"].as_object() {
        let until = hold["until"].as_str().unwrap_or("it is released");
        let reason = hold["reason"].as_str().unwrap_or_default();
        below(CARE, &format!("held until {until}: {reason}"), width, out)?;
    }
    if let Some(deployment) = deployment.filter(|deployment| !matches!(text(deployment, "phase_word"), "graduated")) {
        let incident = deployment["incident"].as_str().map_or_else(String::new, |id| format!(" ({id})"));
        below(DIM, &format!("{}{incident}", text(deployment, "why")), width, out)?;
        if let Some(because) = deployment["withheld"]["because"].as_str() {
            below(CARE, &format!("not acted on: {because}"), width, out)?;
        }
    }
    let versions = service["quarantine"].as_array().into_iter().flatten().map(|one| text(one, "task_definition"));
    let versions: Vec<_> = versions.map(|name| name.rsplit('/').next().unwrap_or(name)).collect();
    if !versions.is_empty() {
        below(DIM, &format!("in quarantine: {}", versions.join(", ")), width, out)?;
    }
    Ok(())
}

fn below(style: Style, said: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    wrapped(&printable(said), width.saturating_sub(2))
        .iter()
        .try_for_each(|part| writeln!(out, "  {style}{part}{style:#}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn drawn(width: usize) -> String {
        let status = json!({
            "worker": { "version": "1.0.0", "role": "active", "ready": true, "not_ready": [], "last_event_at": null },
            "dry_run": false, "fleet_brake": null, "rules": ["web"],
            "services": [{
                "service": { "cluster": "production-europe", "service": "check\u{1b}[2Jout-with-a-long-name" },
                "ready": false, "not_ready_because": "no listener rule forwards to checkout-blue, the PRIMARY's target group",
                "hold": { "until": "2026-03-02T10:30:00Z", "reason": "migration" }, "quarantine": [],
                "deployment": {
                    "phase_word": "watching", "why": "nothing speaks against it", "incident": null,
                    "split": { "blue": 0.9, "green": 0.1 }, "blue_failures": 0, "green_failures": 2,
                },
            }],
        });
        let mut out = Vec::new();
        table(&status, width, &mut out).unwrap();
        String::from_utf8(anstream::adapter::strip_bytes(&out).into_vec()).unwrap()
    }

    #[test]
    fn a_narrow_terminal_gets_narrow_lines() {
        for width in [40, 60, 100] {
            let out = drawn(width);
            assert!(out.lines().skip(1).all(|line| line.chars().count() <= width), "{width}\n{out}");
            assert!(out.contains("production-europe/check") && out.contains("held until"), "{width}\n{out}");
            assert!(out.contains("90/10 %") && !out.contains('\u{1b}'), "{width}\n{out}");
        }
    }
}
