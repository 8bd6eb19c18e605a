//! `demo`: the unmodified worker against the embedded AWS twin, a deployment at a time.

mod guardian;
mod play;
mod practice;
mod render;
mod telling;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::task::JoinSet;

use self::play::{Ended, Play};
use super::{Output, write_json};
use crate::sandbox::scenario::{self, Scenario};

/// Slow enough to read along, fast enough to see the end within a minute.
const SPEED: f64 = 5.0;

/// Nobody reads along when all scenarios run.
const SPEED_OF_ALL: f64 = 15.0;

/// Scenarios that run at a time: two small processors carry so many at that speed without falling behind.
const AT_A_TIME: usize = 6;

/// Where the worker listens, as with `run`.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Where an AWS to practise on listens, as others of its kind do.
const PRACTICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4566);

/// Flags of `demo`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags, which exclude each other by clap's word")]
pub struct DemoArgs {
    /// Which deployment; see --list
    #[arg(long, value_name = "NAME", default_value = "crash-at-start", conflicts_with_all = ["all", "list", "practice"])]
    pub scenario: String,

    /// List the scenarios and what should come of each
    #[arg(long, conflicts_with_all = ["all", "serve"])]
    pub list: bool,

    /// Run every scenario, a few at a time, and print a table
    #[arg(long, conflicts_with = "serve")]
    pub all: bool,

    /// Makes the world's chance: the same seed gives the same crashes, users and delays
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub seed: u64,

    /// Seconds of the world in one second of yours [default: 5, with --all 15]
    #[arg(long, value_name = "N", value_parser = speed)]
    pub speed: Option<f64>,

    /// Keep running at the end, with /metrics and /status, until Ctrl-C
    #[arg(long)]
    pub serve: bool,

    /// Only the simulated AWS, in real time, for you to practise on: deploy, register, hold, roll back
    #[arg(long, conflicts_with_all = ["all", "list", "serve", "speed"])]
    pub practice: bool,

    /// Where --serve listens, or the AWS of --practice [default: 127.0.0.1:9464, of --practice 127.0.0.1:4566]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    // Faster, and the milliseconds of real calls become seconds of the world; slower, and nothing seems to happen.
    if (0.1..=50.0).contains(&speed) { Ok(speed) } else { Err("it must be between 0.1 and 50".to_owned()) }
}

/// Runs what was asked for. The exit code says whether everything ended as it should.
pub(super) fn demo(args: &DemoArgs, output: Output) -> anyhow::Result<ExitCode> {
    let out = &mut anstream::stdout().lock();
    if args.listen.is_some() && !args.serve && !args.practice {
        bail!("--listen is for --serve or --practice: nothing else listens");
    }
    if args.practice && output == Output::Json {
        bail!("--practice is a conversation, and has no JSON: leave out --output");
    }
    if args.list {
        render::list(scenario::all(), output, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("begin the runtime")?;
    if args.practice {
        return runtime.block_on(practice::practice(args.listen.unwrap_or(PRACTICE), args.seed, out));
    }
    let ended = if args.all {
        runtime.block_on(all(args, output, out))?
    } else {
        let scenario = scenario::find(&args.scenario).with_context(|| {
            let names: Vec<_> = scenario::all().iter().map(|scenario| scenario.name).collect();
            format!("there is no scenario {:?}; there are: {}", args.scenario, names.join(", "))
        })?;
        vec![runtime.block_on(one(args, scenario, output, out))?]
    };
    let fine = ended.iter().all(Ended::as_expected);
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// One scenario, told as it happens.
async fn one(
    args: &DemoArgs,
    scenario: &'static Scenario,
    output: Output,
    out: &mut dyn Write,
) -> anyhow::Result<Ended> {
    let speed = args.speed.unwrap_or(SPEED);
    let text = output == Output::Text;
    let listen = args.listen.unwrap_or(LISTEN);
    if text {
        render::title(scenario, args.seed, speed, out)?;
    }
    let mut play = Play::begin(scenario, args.seed, speed, args.serve.then_some(listen)).await?;
    if args.serve {
        render::note(&format!("metrics and status: http://{listen}/"), &mut anstream::stderr())?;
    }
    let mut told = Ok(());
    let ended = play
        .until_the_end(|line| {
            if text && told.is_ok() {
                told = render::line(line, out);
            }
        })
        .await?;
    told?;
    match output {
        Output::Text => render::summary(&ended, out)?,
        Output::Json => write_json(&ended, out)?,
    }
    out.flush()?;
    if args.serve {
        render::note("still running for you to look at; Ctrl-C ends it", &mut anstream::stderr())?;
        tokio::signal::ctrl_c().await?;
    }
    play.stop().await?;
    Ok(ended)
}

/// Every scenario, a few at a time, each in a world of its own.
async fn all(args: &DemoArgs, output: Output, out: &mut dyn Write) -> anyhow::Result<Vec<Ended>> {
    let speed = args.speed.unwrap_or(SPEED_OF_ALL);
    let seed = args.seed;
    let mut waiting = scenario::all().iter().enumerate();
    let total = waiting.len();
    let mut begin = move |plays: &mut JoinSet<_>| {
        if let Some((place, scenario)) = waiting.next() {
            plays.spawn(async move {
                let mut play = Play::begin(scenario, seed, speed, None).await?;
                let ended = play.until_the_end(|_| {}).await?;
                play.stop().await?;
                anyhow::Ok((place, ended))
            });
        }
    };
    let mut plays = JoinSet::new();
    (0..AT_A_TIME).for_each(|_| begin(&mut plays));
    let mut ended = Vec::new();
    while let Some(play) = plays.join_next().await {
        begin(&mut plays);
        let (place, one) = play??;
        ended.push((place, one));
        let (_, one) = ended.last().context("one was just added")?;
        let progress = format!("{} of {total}: {} {}", ended.len(), one.scenario, one.outcome);
        render::note(&progress, &mut anstream::stderr())?;
    }
    ended.sort_by_key(|(place, _)| *place);
    let ended: Vec<_> = ended.into_iter().map(|(_, ended)| ended).collect();
    match output {
        Output::Text => render::table(&ended, out)?,
        Output::Json => write_json(&ended, out)?,
    }
    out.flush().or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
    Ok(ended)
}
