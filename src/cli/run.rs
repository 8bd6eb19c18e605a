//! `run`: the worker against AWS.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::orders::duration;
use super::wiring::{self, Wiring};
use crate::aws::{Aws, Endpoint};
use crate::journal::{RedbJournal, TableJournal};
use crate::model::humane;
use crate::ports::{Journal, Lease};
use crate::rules::{Protect, RuleFile};
use crate::runtime::rule_files::rule_files_of;
use crate::runtime::{Handle, Ports, Settings, SystemClock, Worker, WorkerError};
use crate::telemetry::{self, Metrics};
use crate::{engine, http};

/// Faster only spends ECS's read quota; slower makes "decided within two sweeps" an empty promise.
const SWEEP: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);

/// How long a receive waits. With the calls in flight an orderly end stays within 30 s, ECS's default `stopTimeout`.
const WAIT: Duration = Duration::from_secs(10);

/// Three teams may deploy something bad within ten minutes; four at once is the network, a region, or a base image.
pub(super) const FLEET_BRAKE: u16 = 3;

/// Flags of `run`. Region, credentials and endpoints come from the usual AWS environment.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The SQS queue that EventBridge delivers ECS and CloudWatch events to
    #[arg(long, value_name = "URL", env = "TASKSET_GUARDIAN_QUEUE_URL", value_parser = NonEmptyStringValueParser::new())]
    pub queue_url: String,

    /// Directory of rule files (*.toml), read again when they change and on SIGHUP
    #[arg(long, value_name = "DIR", env = "TASKSET_GUARDIAN_RULES", default_value = "rules")]
    pub rules: PathBuf,

    /// Rule files themselves, as a JSON object of texts by file name, for a container without a disk. The directory is
    /// then not read
    #[arg(long, value_name = "JSON", env = "TASKSET_GUARDIAN_RULE_FILES", hide_env_values = true,
          value_parser = rule_files)]
    pub rule_files: Option<RuleFiles>,

    /// Guard no service but those that match, whatever rules and tags say: one shard of several. Globs; repeated, or
    /// separated by commas. No service may be in two shards
    #[arg(long, value_name = "CLUSTER/SERVICE", env = "TASKSET_GUARDIAN_ONLY", value_delimiter = ',', value_parser = only)]
    pub only: Vec<Protect>,

    /// The journal, what a restarted worker goes on from: a file that one worker owns, or a DynamoDB table that several
    /// replicas share. Of these one acts, the others stand by and take over within seconds. The table needs the
    /// partition key pk and the sort key sk, both String, and lets incidents expire by the TTL attribute expires_at
    #[arg(long, value_name = "PATH|dynamodb://TABLE", env = "TASKSET_GUARDIAN_STATE",
          default_value = "./taskset-guardian.redb", value_parser = state)]
    pub state: State,

    /// Where /metrics, /healthz, /readyz and /status are served
    #[arg(long, value_name = "ADDR", env = "TASKSET_GUARDIAN_LISTEN", default_value = "127.0.0.1:9464")]
    pub listen: SocketAddr,

    /// How often every protected service is read, whatever the events say
    #[arg(long, value_name = "DURATION", env = "TASKSET_GUARDIAN_SWEEP", default_value = "30s", value_parser = sweep)]
    pub sweep: Duration,

    /// Begin no rollback while more services than this breach within ten minutes: then the cause is shared
    #[arg(long, value_name = "N", env = "TASKSET_GUARDIAN_FLEET_BRAKE", default_value_t = FLEET_BRAKE,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub fleet_brake: u16,

    /// EventBridge bus for the guardian's own events
    #[arg(long, value_name = "NAME", env = "TASKSET_GUARDIAN_EVENT_BUS", default_value = "default",
          value_parser = NonEmptyStringValueParser::new())]
    pub event_bus: String,

    /// Decide, report and announce, but make no mutating call
    #[arg(long, env = "TASKSET_GUARDIAN_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,

    /// Reads of Elastic Load Balancing a second, at most. An account has 10 unless AWS has raised it, for all that it runs.
    /// With fewer than 4 a read would not end in time
    #[arg(long, value_name = "N", env = "TASKSET_GUARDIAN_ELB_READS", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(4..=1000))]
    pub elb_reads: u16,

    /// Long polls of the queue at once
    #[arg(long, value_name = "N", env = "TASKSET_GUARDIAN_RECEIVERS", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub receivers: u8,
}

/// Rule files that were handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFiles(Vec<RuleFile>);

fn rule_files(json: &str) -> Result<RuleFiles, String> {
    let found = rule_files_of(json);
    found.map(RuleFiles).map_err(|error| format!("{error}; it is a JSON object of texts by file name"))
}

fn only(text: &str) -> Result<Protect, String> {
    let part = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_*?".contains(c);
        (!part.is_empty() && part.chars().all(fits)).then(|| Arc::from(part))
    };
    let both = text.split_once('/').and_then(|(cluster, service)| Some((part(cluster)?, part(service)?)));
    let (cluster, service) = both.ok_or("write CLUSTER/SERVICE, both names or globs, for example prod/checkout-*")?;
    Ok(Protect { cluster, service })
}

/// Where the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In a file, for one worker.
    File(PathBuf),
    /// In the DynamoDB table of this name or ARN, for several replicas.
    Table(String),
}

fn state(text: &str) -> Result<State, String> {
    match text.split_once("://") {
        Some(("dynamodb", table)) => {
            let part_of_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let name =
                table.strip_prefix("arn:").and_then(|arn| arn.split_once(":table/")).map_or(table, |(_, name)| name);
            if (3..=255).contains(&name.len()) && name.chars().all(part_of_name) {
                Ok(State::Table(table.to_owned()))
            } else {
                Err("a table's name has 3 to 255 letters, digits, _, - and .; write for example dynamodb://guardian"
                    .to_owned())
            }
        }
        Some((scheme, _)) => Err(format!("{scheme}:// is not known; give a file, or dynamodb://TABLE")),
        None if text.is_empty() => Err("it is empty; give a file, or dynamodb://TABLE".to_owned()),
        None => Ok(State::File(PathBuf::from(text))),
    }
}

fn sweep(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if SWEEP.contains(&every) {
        Ok(every)
    } else {
        Err(format!("it must be between {} and {}", humane(*SWEEP.start()), humane(*SWEEP.end())))
    }
}

/// What was asked over HTTP before the worker's end is answered within this time after it, or not at all.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Runs until a signal.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("begin the runtime")?;
    let guarded = runtime.block_on(guard(args));
    // A file system that hangs keeps nobody either.
    runtime.shutdown_timeout(ANSWERED_WITHIN);
    match guarded {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if matches!(error.downcast_ref(), Some(WorkerError::Rules(_))) => {
            // Stderr may be closed; the exit code says it too.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            Ok(ExitCode::from(1))
        }
        Err(error) => Err(error),
    }
}

async fn guard(args: &RunArgs) -> anyhow::Result<()> {
    let listener = http::bind(args.listen).await?;
    let metrics = Arc::new(Metrics::new()?);
    let ports = connect(args, &metrics).await?;
    let settings = Settings {
        engine: engine::Settings { dry_run: args.dry_run, sweep: args.sweep, fleet_brake: args.fleet_brake.into() },
        receivers: args.receivers.into(),
    };
    let log: crate::runtime::Hook = Arc::new(|report, _| telemetry::log_report(report));
    let worker = Worker::new(ports, settings, metrics, vec![log]).guarding_only(args.only.clone());
    let handle = worker.handle();
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(obey_signals(handle.clone(), stop.clone())?);
    // Served until the worker has ended, so that its last minute can be seen.
    let serving = tokio::spawn(http::serve(listener, handle, done.clone()));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("TASKSET_GUARDIAN_REVISION"),
        dry_run = args.dry_run,
        "Guarding; metrics and status at http://{}/",
        args.listen
    );
    let result = worker.run(stop).await;
    done.cancel();
    // Whoever has asked for half a page, or does not read it, keeps nobody.
    if tokio::time::timeout(ANSWERED_WITHIN, serving).await.is_err() {
        tracing::info!("Somebody is still connected to {}, and is left", args.listen);
    }
    if result.is_ok() {
        tracing::info!("Ended in order");
    }
    result.map_err(anyhow::Error::from)
}

/// SIGTERM and SIGINT end in order, a second one at once; SIGHUP reads the rules again.
fn obey_signals(worker: Handle, stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("listen to signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hang_up.recv() => {
                    worker.reload();
                    continue;
                }
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("Ended at once, as asked twice; the journal has all that was decided");
                std::process::exit(2);
            }
            tracing::info!("Ending: waiting for receives and calls in flight, 25 s at most. Ask again to end at once");
            stop.cancel();
        }
    })
}

/// Connects to AWS, as the environment says, and opens the journal.
async fn connect(args: &RunArgs, metrics: &Arc<Metrics>) -> anyhow::Result<Ports> {
    let aws = Aws::connect(&Endpoint::Environment, metrics.clone()).await?.paced(args.elb_reads);
    let (journal, lease): (Arc<dyn Journal>, Option<Arc<dyn Lease>>) = match &args.state {
        State::File(path) => (Arc::new(RedbJournal::open(path).await?), None),
        State::Table(name) => {
            let place = format!("table {name} in {}", aws.region());
            let journal = TableJournal::open(Arc::new(aws.table(name)), &place, &holder()).await?;
            let journal = Arc::new(journal);
            (journal.clone(), Some(journal))
        }
    };
    let wiring = Wiring {
        clock: Arc::new(SystemClock),
        journal,
        rules: match &args.rule_files {
            Some(RuleFiles(files)) => wiring::rules_of(files.clone()),
            None => wiring::rules_in(args.rules.clone()),
        },
        queue_url: args.queue_url.clone(),
        wait: WAIT,
        event_bus: args.event_bus.clone(),
        dry_run: args.dry_run,
    };
    Ok(Ports { lease, ..wiring::ports(&aws, wiring) })
}

/// This replica, for people who read the lease: the container's id on ECS, the host's name elsewhere, and the process.
fn holder() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or(host);
    let host = if host.trim().is_empty() { "unknown host" } else { host.trim() };
    format!("{host}, process {}", std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn parse(words: &[&str]) -> Result<RunArgs, clap::Error> {
        let all = ["taskset-guardian", "run", "--queue-url", "https://sqs.eu-west-1.amazonaws.com/1/events"];
        let Verb::Run(args) = Cli::try_parse_from(all.iter().chain(words))?.verb else { panic!("another verb") };
        Ok(args)
    }

    #[test]
    fn the_queue_is_all_that_must_be_said() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.sweep, Duration::from_secs(30));
        assert_eq!(args.listen.to_string(), "127.0.0.1:9464");
        assert_eq!(args.state, State::File(PathBuf::from("./taskset-guardian.redb")));
        assert_eq!((args.receivers, args.dry_run, args.event_bus.as_str()), (4, false, "default"));
        assert!(Cli::try_parse_from(["taskset-guardian", "run"]).is_err());
    }

    #[test]
    fn the_state_is_a_file_or_a_table_and_anything_else_is_refused_with_the_reason() {
        let arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/guardian";
        for (text, expected) in [
            ("/data/guardian.redb", State::File(PathBuf::from("/data/guardian.redb"))),
            ("dynamodb://guardian-prod", State::Table("guardian-prod".to_owned())),
            (&format!("dynamodb://{arn}"), State::Table(arn.to_owned())),
        ] {
            assert_eq!(parse(&["--state", text]).unwrap().state, expected);
        }
        for (text, reason) in [
            ("dynamodb://", "3 to 255"),
            ("dynamodb://eu-west-1/guardian", "3 to 255"),
            ("s3://bucket/key", "s3:// is not known"),
            ("", "it is empty"),
        ] {
            let error = parse(&[&format!("--state={text}")]).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn rules_may_be_handed_over() {
        let args = parse(&["--rule-files", r#"{"web.toml":"name = \"web\""}"#]).unwrap();
        assert_eq!(args.rule_files.unwrap().0[0].path, "web.toml");
        let error = parse(&["--rule-files", "rules"]).unwrap_err().to_string();
        assert!(error.contains("JSON object"), "{error}");
    }

    #[test]
    fn a_shard_is_named_by_globs_and_what_is_none_is_refused() {
        let args = parse(&["--only", "prod/checkout,prod/web-*", "--only", "*/edge"]).unwrap();
        let shown: Vec<_> = args.only.iter().map(|one| format!("{} {}", one.cluster, one.service)).collect();
        assert_eq!(shown, ["prod checkout", "prod web-*", "* edge"]);
        for text in ["checkout", "prod/", "/checkout", "prod/a/b", ""] {
            let error = parse(&[&format!("--only={text}")]).unwrap_err().to_string();
            assert!(error.contains("CLUSTER/SERVICE"), "{text}: {error}");
        }
    }

    #[test]
    fn a_sweep_that_makes_no_sense_is_refused_with_the_reason() {
        assert_eq!(parse(&["--sweep", "2m"]).unwrap().sweep, Duration::from_mins(2));
        for (text, reason) in [
            ("0s", "between 1s and 5m"),
            ("2h", "between 1s and 5m"),
            ("1d", "between 1s and 5m"),
            ("-3s", "has no sign"),
            ("30", "\"30s\""),
            ("soon", "\"90s\""),
        ] {
            let error = parse(&[&format!("--sweep={text}")]).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
