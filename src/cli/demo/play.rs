//! One deployment in the sandbox: the world behind its wires, the worker in front of them, and what both tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::aws::{Aws, Endpoint};
use crate::cli::run::FLEET_BRAKE;
use crate::cli::wiring::{self, Wiring};
use crate::engine::{self, Note, Report, Stage};
use crate::http;
use crate::journal::RedbJournal;
use crate::model::{Incident, IncidentOutcome, Moment, Outcome, Phase, ServiceKey, Split, Step, Timestamp, Verdict};
use crate::ports::{Clock, Journal};
use crate::runtime::{Hook, Settings, Worker, WorkerError};
use crate::sandbox::clock::ScaledClock;
use crate::sandbox::scenario::{Expected, Scenario};
use crate::sandbox::wire::{Sandbox, WireSettings};
use crate::sandbox::world::{REGION, TrafficView, World};
use crate::telemetry::{Metrics, narrate};

/// The world's first moment. Any would do; a fixed one makes runs comparable.
const BEGIN: Timestamp = Timestamp::from_millis(1_772_445_600_000);

/// How long a receive waits, and how often services are read, in the world's time.
const WAIT: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(30);

/// How often the stage is looked at, in real time: smooth to the eye.
const LOOK: Duration = Duration::from_millis(50);

/// A change of the traffic smaller than this is noise of the users' own dice.
const VISIBLE: f64 = 0.06;

/// Weight of the newest second in the smoothed split.
const SMOOTHING: f64 = 0.4;

/// Seconds without anybody on green until it counts as left.
const QUIET: u32 = 2;

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    World,
    Traffic,
    Guardian,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) t: Duration,
    pub(super) teller: Teller,
    pub(super) what: String,
    /// For the bar, when the traffic moved.
    pub(super) split: Option<Split>,
    /// Worth a second look.
    pub(super) loud: bool,
}

/// How a play ended: the document of `demo --output json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ended {
    pub(super) scenario: &'static str,
    pub(super) outcome: &'static str,
    pub(super) expected: &'static str,
    pub(super) seed: u64,
    pub(super) timeline: Vec<Told>,
    /// From the first sign of trouble to the decision.
    pub(super) detection_ms: Option<u64>,
    /// From the first sign of trouble to all traffic proven on blue.
    pub(super) traffic_safe_ms: Option<u64>,
    /// From the first sign of trouble to green seen deleted.
    pub(super) deleted_ms: Option<u64>,
    /// What the listener rules say at the end, as shares of 1.
    pub(super) weights: Split,
    pub(super) failed_requests: u64,
    pub(super) requests: u64,
    pub(super) evidence: Vec<String>,
    /// Promises that the guardian broke. Empty.
    pub(super) violations: Vec<String>,
}

/// One line of the timeline in the document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Told {
    pub(super) t_ms: u64,
    pub(super) what: String,
}

impl Ended {
    /// The right ending, and no promise broken.
    pub(super) fn as_expected(&self) -> bool {
        self.outcome == self.expected && self.violations.is_empty()
    }
}

/// A running play.
pub(super) struct Play {
    scenario: &'static Scenario,
    seed: u64,
    service: ServiceKey,
    clock: Arc<dyn Clock>,
    sandbox: Sandbox<World>,
    journal: Arc<RedbJournal>,
    reports: mpsc::UnboundedReceiver<(Report, Timestamp)>,
    worker: JoinHandle<Result<(), WorkerError>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    stop: CancellationToken,
    lines: Vec<Line>,
    /// When the traffic was looked at last.
    traffic_at: Duration,
    /// Green's share, smoothed, and as shown last.
    smooth: f64,
    shown: f64,
    quiet_seconds: u32,
}

impl Play {
    /// Opens the curtain.
    pub(super) async fn begin(
        scenario: &'static Scenario,
        seed: u64,
        speed: f64,
        listen: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let setup = (scenario.setup)(seed);
        let service = setup.services.first().context("a scenario without a service")?.key.clone();
        let queue_url = format!("http://sandbox/queue/{}", setup.queue);
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::start(BEGIN, speed));
        let world = World::new(seed, BEGIN, setup);
        let sandbox =
            Sandbox::start(world, clock.clone(), WireSettings::default()).await.context("start the sandbox")?;

        let metrics = Arc::new(Metrics::new()?);
        let endpoint = Endpoint::Local { url: sandbox.endpoint(), region: REGION.to_owned() };
        let aws = Aws::connect(&endpoint, metrics.clone()).await?;
        let journal = Arc::new(RedbJournal::in_memory()?);
        let wiring = Wiring {
            clock: clock.clone(),
            journal: journal.clone(),
            rules: wiring::rules_of("demo.toml", scenario.rules_toml),
            queue_url,
            wait: WAIT,
            event_bus: "default".to_owned(),
            dry_run: false,
        };
        let settings = Settings {
            engine: engine::Settings { dry_run: false, sweep: SWEEP, fleet_brake: FLEET_BRAKE.into() },
            receivers: 2,
        };
        let (reported, reports) = mpsc::unbounded_channel();
        // Nobody listens any more once the play is over.
        let listen_in: Hook = Arc::new(move |report, at| drop(reported.send((report.clone(), at))));
        let worker = Worker::new(wiring::ports(&aws, wiring), settings, metrics, vec![listen_in]);
        let stop = CancellationToken::new();
        let serving = match listen {
            Some(address) => {
                let listener = http::bind(address).await?;
                Some(tokio::spawn(http::serve(listener, worker.handle(), stop.clone())))
            }
            None => None,
        };
        let worker = tokio::spawn(worker.run(stop.clone()));
        Ok(Self {
            scenario,
            seed,
            service,
            clock,
            sandbox,
            journal,
            reports,
            worker,
            serving,
            stop,
            lines: Vec::new(),
            traffic_at: Duration::ZERO,
            smooth: 0.0,
            shown: 0.0,
            quiet_seconds: 0,
        })
    }

    /// Tells each line as it happens, until the deployment has ended or its time is over.
    pub(super) async fn until_the_end(&mut self, mut tell: impl FnMut(&Line)) -> anyhow::Result<Ended> {
        let mut outcome = None;
        while outcome.is_none() && self.clock.now().since(BEGIN) < self.scenario.limit {
            if self.worker.is_finished() {
                anyhow::bail!("the worker ended in the middle of the play");
            }
            tokio::time::sleep(LOOK).await;
            outcome = self.look(&mut tell);
        }
        // The last moments, and users who are still on their way.
        self.clock.sleep(Duration::from_secs(2)).await;
        self.look(&mut tell);
        self.ended(outcome.unwrap_or("called_off")).await
    }

    /// What happened since the last look.
    fn look(&mut self, tell: &mut impl FnMut(&Line)) -> Option<&'static str> {
        let service = self.service.clone();
        let (story, traffic) = self.sandbox.with(|world| (world.drain_story(), world.traffic(&service)));
        let mut outcome = None;
        let mut lines: Vec<Line> = story.into_iter().map(from_world).collect();
        while let Ok((report, at)) = self.reports.try_recv() {
            lines.extend(report.notes.iter().filter_map(|note| from_guardian(note, at)));
            outcome = outcome.or_else(|| report.notes.iter().find_map(ending));
        }
        lines.extend(traffic.and_then(|view| self.traffic_moved(&view)));
        lines.sort_by_key(|line| line.t);
        lines.iter().for_each(tell);
        self.lines.append(&mut lines);
        outcome
    }

    /// A line when the users have visibly moved: their own dice are smoothed away over some seconds.
    fn traffic_moved(&mut self, view: &TrafficView) -> Option<Line> {
        let t = self.clock.now().since(BEGIN);
        if t.as_secs() == self.traffic_at.as_secs() || view.effective.blue + view.effective.green <= 0.0 {
            return None;
        }
        self.traffic_at = t;
        let green = view.effective.green;
        self.quiet_seconds = if green > 0.0 { 0 } else { self.quiet_seconds.saturating_add(1) };
        self.smooth = self.smooth.mul_add(1.0 - SMOOTHING, green * SMOOTHING);
        let gone = self.quiet_seconds >= QUIET && self.shown > 0.0;
        if !gone && (self.smooth - self.shown).abs() < VISIBLE {
            return None;
        }
        if gone {
            self.smooth = 0.0;
        }
        self.shown = self.smooth;
        let split = Split { blue: 1.0 - self.shown, green: self.shown };
        let what = format!("users: {:.0} % on blue, {:.0} % on green", split.blue * 100.0, split.green * 100.0);
        Some(Line { t, teller: Teller::Traffic, what, split: Some(split), loud: false })
    }

    async fn ended(&self, outcome: &'static str) -> anyhow::Result<Ended> {
        let incident: Option<Incident> = self.journal.incidents(1).await?.into_iter().next();
        let since_sign = |at: Option<Timestamp>| {
            let (incident, at) = (incident.as_ref()?, at?);
            u64::try_from(at.since(incident.first_sign_at).as_millis()).ok()
        };
        let service = self.service.clone();
        let (traffic, violations) = self.sandbox.with(|world| {
            let violations = world.violations().iter().map(ToString::to_string).collect();
            (world.traffic(&service).unwrap_or_default(), violations)
        });
        let told =
            |line: &Line| Told { t_ms: u64::try_from(line.t.as_millis()).unwrap_or(u64::MAX), what: line.what.clone() };
        Ok(Ended {
            scenario: self.scenario.name,
            outcome,
            expected: self.scenario.expected.as_str(),
            seed: self.seed,
            timeline: self.lines.iter().map(told).collect(),
            detection_ms: since_sign(incident.as_ref().map(|incident| incident.detected_at)),
            traffic_safe_ms: since_sign(incident.as_ref().and_then(|incident| incident.traffic_safe_at)),
            deleted_ms: since_sign(incident.as_ref().and_then(|incident| incident.deleted_at)),
            weights: traffic.configured,
            failed_requests: traffic.failed(),
            requests: traffic.requests(),
            evidence: incident
                .iter()
                .flat_map(|incident| &incident.evidence)
                .flat_map(|e| [e.to_string()].into_iter().chain(e.facts.clone()))
                .collect(),
            violations,
        })
    }

    /// Draws the curtain.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        // Waiting receives end with the sandbox, so that the worker's orderly end takes no time.
        self.sandbox.shutdown().await?;
        self.worker.abort();
        if let Some(serving) = self.serving {
            serving.await??;
        }
        Ok(())
    }
}

fn from_world(moment: Moment) -> Line {
    let Moment { at, what } = moment;
    Line { t: at.since(BEGIN), teller: Teller::World, what, split: None, loud: false }
}

/// What a newcomer wants to hear from the guardian: decisions and acts, not every signal. Logs say more, in other words.
fn from_guardian(note: &Note, at: Timestamp) -> Option<Line> {
    let loud = matches!(note, Note::Decided { .. } | Note::Closed { .. } | Note::Graduated { .. });
    let what = match note {
        Note::DeploymentBegan { .. } => "green appeared beside blue: watching it".to_owned(),
        Note::Judged { verdict: Verdict::Healthy, news: true, .. } => "every gate is clear so far".to_owned(),
        Note::Decided { held, evidence, .. } => {
            let what = if *held { "would roll back" } else { "rolls back" };
            let evidence: Vec<_> = evidence.iter().map(ToString::to_string).collect();
            format!("{what}: {}", evidence.join("; "))
        }
        Note::Reached { stage: Stage::Shift, .. } => "read the rules again: none sends anything to green".to_owned(),
        Note::Phase { to: Phase::RollingBack(Step::Drain | Step::VerifyGone), why, .. } | Note::Closed { why, .. } => {
            why.clone()
        }
        Note::Sent { what, .. } => what.clone(),
        Note::Returned { outcome: Outcome::Failed(_) | Outcome::Expired, .. }
        | Note::Unread { .. }
        | Note::NotReady { .. }
        | Note::Graduated { .. } => narrate(note)?.1,
        _ => return None,
    };
    Some(Line { t: at.since(BEGIN), teller: Teller::Guardian, what, split: None, loud })
}

/// The word for a note that ends a deployment.
fn ending(note: &Note) -> Option<&'static str> {
    let expected = match note {
        Note::Graduated { .. } => Expected::Graduated,
        Note::Closed { outcome, .. } => match outcome {
            IncidentOutcome::RolledBack => Expected::RolledBack,
            IncidentOutcome::Escalated => Expected::Escalated,
            IncidentOutcome::Held | IncidentOutcome::Superseded => Expected::Held,
            IncidentOutcome::Open => return None,
        },
        _ => return None,
    };
    Some(expected.as_str())
}
