//! `replay`: recorded events through the engine. What would have happened, and when?

mod files;
mod journal;
mod render;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use self::files::{Found, Looked};
use super::account::say;
use super::{Output, text};
use crate::model::{ServiceKey, Timestamp};
use crate::ports::Clock as _;
use crate::replay::{Line, Outcome, Replay, Setting, Survey, Tally, World, grid};
use crate::rules::{self, Protect, Rule, RuleSet};
use crate::runtime::SystemClock;
use crate::runtime::rule_files::read_rule_files;

/// How often the engine looks where no event and no deadline makes it look. A worker does so to find what events failed to
/// tell; a recording has nothing else, so this only costs time.
const SWEEP: Duration = Duration::from_mins(2);

/// How many services may breach at a time: the worker's own default.
const FLEET_BRAKE: usize = 3;

/// Between two lines about how far a long run has come, where nobody watches it.
const TELL: Duration = Duration::from_secs(5);

/// The same on a terminal, where each replaces the one before.
const SHOW: Duration = Duration::from_millis(200);

/// Flags of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Recorded EventBridge events, one JSON document a line: events, or SQS messages that carry one. A file, or a directory
    /// of such files
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "state", conflicts_with = "state")]
    events: Option<PathBuf>,

    /// A worker's state file instead: what it has kept of its own inputs and incidents. It is only read
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,

    /// Directory of rule files, or one file
    #[arg(long, value_name = "DIR", env = "TASKSET_GUARDIAN_RULES", default_value = "rules")]
    rules: PathBuf,

    /// Judge every service by the rule of this name, whatever it protects
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,

    /// Compare thresholds: what each of a grid of them would have done
    #[arg(long, conflicts_with = "state")]
    sweep_thresholds: bool,
}

/// Exit code 0: no deployment would have been rolled back; 1: at least one.
pub(super) fn replay(args: &ReplayArgs, output: Output) -> anyhow::Result<ExitCode> {
    let rules = rules_of(&args.rules, args.rule.as_deref())?;
    let lines = match (&args.state, &args.events) {
        (Some(state), _) => journal::replay(state, &rules)?,
        (None, Some(events)) if args.sweep_thresholds => {
            let compared = compare(events, &rules)?;
            render::settings(&compared, output, &mut text::out())?;
            return Ok(ExitCode::SUCCESS);
        }
        (None, Some(events)) => deployments(events, &rules)?,
        (None, None) => bail!("give --events or --state"),
    };
    render::deployments(&lines, output, &mut text::out())?;
    let breached = lines.iter().any(|line| line.outcome == Outcome::Breached);
    Ok(ExitCode::from(u8::from(breached)))
}

/// The rules, or one of them for everything.
fn rules_of(path: &Path, only: Option<&str>) -> anyhow::Result<RuleSet> {
    let files = read_rule_files(path)?;
    if files.is_empty() {
        bail!("no *.toml in {}", path.display());
    }
    let rules = rules::compile(&files)
        .map_err(|errors| anyhow::anyhow!("the rules in {} are bad:\n{errors}", path.display()))?;
    let Some(name) = only else { return Ok(rules) };
    let Some(rule) = rules.named(name) else {
        let names: Vec<_> = rules.rules.iter().map(|rule| rule.name.to_string()).collect();
        bail!("no rule is called {name:?}: {} has {}", path.display(), names.join(", "));
    };
    let every = Protect { cluster: Arc::from("*"), service: Arc::from("*") };
    Ok(RuleSet { rules: vec![Arc::new(Rule { protect: vec![every], ..Rule::clone(rule) })] })
}

/// What would have happened to each deployment.
fn deployments(path: &Path, rules: &RuleSet) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    play(path, rules, &[None], |_, found, _| lines.extend(found))?;
    lines.sort_by(|one, other| (one.started_at, &one.service).cmp(&(other.started_at, &other.service)));
    Ok(lines)
}

/// What each setting would have done.
fn compare(path: &Path, rules: &RuleSet) -> anyhow::Result<Vec<(Option<Setting>, Tally)>> {
    // First of all the rules as they are.
    let settings: Vec<_> = std::iter::once(None).chain(grid().into_iter().map(Some)).collect();
    let mut compared: Vec<_> = settings.iter().map(|setting| (*setting, Tally::default())).collect();
    play(path, rules, &settings, |number, found, world| {
        if let Some((_, tally)) = compared.get_mut(number) {
            tally.add(&found, world);
        }
    })?;
    Ok(compared)
}

/// Plays all recordings, each with every setting. `done` gets the number of the setting, and what it has made of one.
fn play(
    path: &Path,
    rules: &RuleSet,
    settings: &[Option<Setting>],
    mut done: impl FnMut(usize, Vec<Line>, &World<'_>),
) -> anyhow::Result<()> {
    let (begun, now) = (Instant::now(), SystemClock.now());
    let mut progress = Progress::new();
    let Found { files, lines, ignored, unreadable, shown } =
        files::look(files::list(path)?, now, |lines| progress.tell(|| format!("{lines} lines looked through")))?;
    let events: u64 = files.iter().map(|file| file.events).sum();
    progress.end();
    for line in &shown {
        say(format_args!("left out: {line}"));
    }
    if unreadable > shown.len() as u64 {
        say(format_args!("left out: {} lines more that can't be read", unreadable - shown.len() as u64));
    }
    if events == 0 {
        let (path, few) =
            (path.display(), if lines == 0 { "is empty" } else { "has no event that tells of a deployment" });
        bail!(
            "{path} {few}: {lines} lines, {ignored} of other kinds, {unreadable} that can't be read. \
             A line is an EventBridge event, or an SQS message with the event as its Body"
        );
    }
    let (mut services, mut unprotected) = (BTreeSet::new(), BTreeSet::new());
    let mut played = 0_u64;
    for recording in files::recordings(files) {
        let survey = look_over(&recording, now)?;
        for key in survey.services() {
            let known = if rules.rule_for(&key).is_some() { &mut services } else { &mut unprotected };
            known.insert(key);
        }
        let mut world = World::new(&survey);
        let protected: BTreeSet<ServiceKey> =
            survey.services().into_iter().filter(|key| services.contains(key)).collect();
        let mut replays: Vec<_> = settings
            .iter()
            .map(|setting| {
                let rules = setting.map_or_else(|| rules.clone(), |setting| setting.apply(rules));
                Replay::new(&rules, &protected, (SWEEP, FLEET_BRAKE), &world, survey.begins_at())
            })
            .collect();
        files::in_order(&recording, now, |_, event| {
            for replay in &mut replays {
                replay.advance(event.at, &world);
            }
            world.take(event);
            for replay in &mut replays {
                replay.take(event, &world);
            }
            played += 1;
            progress.tell(|| format!("{played} of {events} events"));
        })?;
        for (number, replay) in replays.into_iter().enumerate() {
            done(number, replay.finish(&world), &world);
        }
    }
    progress.end();
    let took = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = events as f64 / took.max(1e-6);
    let (of, many) = (services.len(), if services.len() == 1 { "" } else { "s" });
    say(format_args!("{events} events, {of} protected service{many}, {took:.1} s: {rate:.0} events a second"));
    for key in &unprotected {
        say(format_args!("left out: no rule protects {key}"));
    }
    if services.is_empty() && !unprotected.is_empty() {
        let names: Vec<_> = rules.rules.iter().map(|rule| rule.name.to_string()).collect();
        bail!(
            "no rule protects any service of the recording. Judge all of them by one rule: --rule {}",
            names.join(" or --rule ")
        );
    }
    Ok(())
}

fn look_over(recording: &[Looked], now: Timestamp) -> anyhow::Result<Survey> {
    let mut survey = Survey::new(recording.iter().map(|file| (file.first, file.last)).collect());
    files::in_order(recording, now, |file, event| survey.take(file, event))?;
    Ok(survey.finished())
}

/// How far a long run has come, on stderr.
struct Progress {
    every: Duration,
    told_at: Instant,
    on_terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        let on_terminal = io::stderr().is_terminal();
        let every = if on_terminal { SHOW } else { TELL };
        Self { every, told_at: Instant::now(), on_terminal, shown: false }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told_at.elapsed() < self.every {
            return;
        }
        self.told_at = Instant::now();
        if self.on_terminal {
            let _ = write!(io::stderr(), "\r\u{1b}[K{}", what());
            self.shown = true;
        } else {
            say(what());
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
