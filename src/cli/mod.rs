//! The command line: one file per verb. Stdout is the result, stderr the narration.
//!
//! Exit codes: 0 fine, 1 the gate says no (bad rules, a breach), 2 usage or internal error.

mod account;
pub mod check;
mod completions;
mod demo;
mod doctor;
mod explain;
mod healthcheck;
mod orders;
mod plan;
mod replay;
mod run;
pub mod schema;
mod server;
mod status;
mod text;
mod verdict;
mod wiring;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::telemetry::LogFormat;

pub use demo::DemoArgs;
pub use doctor::DoctorArgs;
pub use explain::ExplainArgs;
pub use healthcheck::HealthcheckArgs;
pub use orders::{HoldArgs, RegisterArgs, ReleaseArgs, RollbackArgs, UnregisterArgs};
pub use replay::ReplayArgs;
pub use run::RunArgs;
pub use status::StatusArgs;
pub use verdict::{QuarantinedArgs, VerdictArgs};

/// As `--version` says it.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("TASKSET_GUARDIAN_REVISION"), ")");

/// Rolls ECS task sets back when green goes bad.
#[derive(Debug, Parser)]
#[command(name = "taskset-guardian", version = VERSION, about, max_term_width = 110)]
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
    /// Guard: consume events, watch deployments, roll back
    Run(RunArgs),
    /// See it work: deployments go bad in a simulated AWS, and the real worker deals with them
    Demo(DemoArgs),
    /// Check rule files: every error with its place, or what they protect
    Check {
        /// Directory of rule files, or one file
        #[arg(value_name = "DIR", default_value = "rules")]
        rules: PathBuf,

        /// Ask AWS too, whether every entry of `protect` matches a service
        #[arg(long)]
        aws: bool,
    },
    /// What would have happened, and when? Recorded events through the engine; exit code 1 when a gate was breached
    Replay(ReplayArgs),
    /// Every protected service: phase, split of the traffic, readiness
    Status(StatusArgs),
    /// Why was it rolled back? An incident, or a live deployment, with its evidence and timeline
    Explain(ExplainArgs),
    /// Could a service be rolled back right now? What is in the way, and the cure
    Doctor(DoctorArgs),
    /// Protect a service, by a tag on it
    Register(RegisterArgs),
    /// Take a service out of protection by tag
    Unregister(UnregisterArgs),
    /// Change nothing of a service for a while
    Hold(HoldArgs),
    /// End a hold, or let a version come back that was rolled back
    Release(ReleaseArgs),
    /// Roll the newest task set back, by the worker's plan and with its checks
    Rollback(RollbackArgs),
    /// What became of a deployment, as an exit code: 0 graduated, 1 it did not, 2 no verdict (yet)
    Verdict(VerdictArgs),
    /// Whether a version was rolled back lately, as an exit code: 0 no, 1 yes
    Quarantined(QuarantinedArgs),
    /// Print the JSON Schema of a file, for editors
    Schema {
        /// Which file
        what: schema::Described,
    },
    /// Is the worker on this host alive? For a container's health check: exit code 0 yes, 1 no
    Healthcheck(HealthcheckArgs),
    /// Print what completes this command line in a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// A result for programs.
fn write_json(result: &impl serde::Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, result)?;
    writeln!(out)
}

/// Parses, begins to log, runs the verb.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let quiet = !matches!(cli.verb, Verb::Run(_));
    let result =
        crate::telemetry::init(cli.log_format, quiet).map_err(anyhow::Error::from).and_then(|()| match cli.verb {
            Verb::Run(args) => run::run(&args),
            Verb::Demo(args) => demo::demo(&args, cli.output),
            Verb::Replay(args) => replay::replay(&args, cli.output),
            Verb::Status(args) => orders::block_on(status::status(&args, cli.output)),
            Verb::Explain(args) => orders::block_on(explain::explain(&args, cli.output)),
            Verb::Doctor(args) => doctor::doctor(&args, cli.output),
            Verb::Register(args) => orders::block_on(orders::register(&args, cli.output)),
            Verb::Unregister(args) => orders::block_on(orders::unregister(&args, cli.output)),
            Verb::Hold(args) => orders::block_on(orders::hold(&args, cli.output)),
            Verb::Release(args) => orders::block_on(orders::release(&args, cli.output)),
            Verb::Rollback(args) => orders::block_on(orders::rollback(&args, cli.output)),
            Verb::Verdict(args) => orders::block_on(verdict::verdict(&args, cli.output)),
            Verb::Quarantined(args) => orders::block_on(verdict::quarantined(&args, cli.output)),
            Verb::Check { rules, aws } => {
                let (json, out, err) = (cli.output == Output::Json, &mut text::out(), &mut text::err());
                let ask = |rules: &crate::rules::RuleSet| {
                    orders::block_on(async {
                        Ok(Some(check::existing(&account::connect().await?.fleet(), rules).await?))
                    })
                };
                let code = if aws {
                    check::check_against(&rules, json, ask, out, err)
                } else {
                    check::check(&rules, json, out, err)
                };
                code.map(ExitCode::from)
            }
            Verb::Schema { what } => {
                schema::schema(what, &mut text::out())?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Healthcheck(args) => orders::block_on(healthcheck::healthcheck(&args, cli.output)),
            Verb::Completions { shell } => {
                completions::completions(shell, &mut text::out())?;
                Ok(ExitCode::SUCCESS)
            }
        });
    result.unwrap_or_else(|error| {
        // As it is: a connection to AWS may break like a pipe too.
        let cut_off = error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe);
        if cut_off {
            // What only tells, and goes on telling, ends when its reader has seen enough: nothing went wrong.
            return ExitCode::SUCCESS;
        }
        // Nobody reads stderr any more: the exit code says it.
        let said = format!("error: {error:#}");
        // Some errors show a line with a caret below it.
        let lines = said.lines().map(text::printable).collect::<Vec<_>>();
        let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
        ExitCode::from(2)
    })
}
