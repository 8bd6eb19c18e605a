//! The command line: one file per verb. Stdout is the result, stderr the narration.
//!
//! Exit codes: 0 fine, 1 the gate says no (bad rules, a breach), 2 usage or internal error.

mod check;
mod run;
mod wiring;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::telemetry::LogFormat;

pub use run::RunArgs;

/// Rolls ECS task sets back when green goes bad.
#[derive(Debug, Parser)]
#[command(name = "taskset-guardian", version, about, max_term_width = 110)]
pub struct Cli {
    /// How a verb that reports writes its result.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,

    /// How log lines on stderr look: text on a terminal and JSON elsewhere, or always one of them.
    #[arg(long, global = true, value_enum, default_value_t, env = "TASKSET_GUARDIAN_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// How results look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Guard: consume events, watch deployments, roll back.
    Run(RunArgs),
}

/// Parses, begins to log, runs the verb.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = crate::telemetry::init(cli.log_format).map_err(anyhow::Error::from).and_then(|()| match cli.verb {
        Verb::Run(args) => run::run(&args),
    });
    result.unwrap_or_else(|error| {
        // Nobody reads stderr any more: the exit code says it.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::from(2)
    })
}
