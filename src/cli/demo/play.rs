//! One deployment in the sandbox: the world behind its wires, the worker in front of them, and what both tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::mpsc;

use super::guardian::{Guardian, Surroundings};
use super::telling::{Line, Teller, ending, from_guardian, from_world, outcome_word};
use crate::engine::Report;
use crate::journal::RedbJournal;
use crate::model::{Incident, ServiceKey, Split, Timestamp};
use crate::ports::{Clock, Journal};
use crate::sandbox::clock::ScaledClock;
use crate::sandbox::scenario::Scenario;
use crate::sandbox::wire::{Sandbox, WireSettings};
use crate::sandbox::world::{TrafficView, World};

/// The world's first moment. Any would do; a fixed one makes runs comparable.
pub(super) const BEGIN: Timestamp = Timestamp::from_millis(1_772_445_600_000);

/// How often the stage is looked at, in real time: smooth to the eye.
const LOOK: Duration = Duration::from_millis(50);

/// The same where the guardian is to die before it makes its next change.
const GLANCE: Duration = Duration::from_millis(5);

/// How long every play goes on after its ending, in the world's time.
const CODA: Duration = Duration::from_secs(2);

/// Incidents among which the one of the play's service is looked for.
const INCIDENTS: usize = 100;

/// A change of the traffic smaller than this is noise of the users' own dice.
const VISIBLE: f64 = 0.06;

/// Weight of the newest second in the smoothed split.
const SMOOTHING: f64 = 0.4;

/// Seconds without anybody on green until it counts as left.
const QUIET: u32 = 2;

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
    /// The service that it is about.
    service: ServiceKey,
    clock: Arc<dyn Clock>,
    sandbox: Sandbox<World>,
    journal: Arc<RedbJournal>,
    around: Surroundings,
    guardian: Guardian,
    reports: mpsc::UnboundedReceiver<(Report, Timestamp)>,
    /// Changes that the guardian had made when it began.
    changes: usize,
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
        let journal = Arc::new(RedbJournal::in_memory()?);
        let (reported, reports) = mpsc::unbounded_channel();
        let around = Surroundings {
            scenario,
            clock: clock.clone(),
            endpoint: sandbox.endpoint(),
            queue_url,
            journal: journal.clone(),
            reported,
            listen,
        };
        let guardian = Guardian::begin(&around).await?;
        Ok(Self {
            scenario,
            seed,
            service,
            clock,
            sandbox,
            journal,
            around,
            guardian,
            reports,
            changes: 0,
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
        let mut until = BEGIN.plus(self.scenario.limit);
        while self.clock.now() < until {
            if self.guardian.is_over() {
                anyhow::bail!("the worker ended in the middle of the play");
            }
            tokio::time::sleep(if self.scenario.killed_after_changes { GLANCE } else { LOOK }).await;
            let mut ended = self.look(&mut tell);
            if self.scenario.killed_after_changes && self.kill_after_change(&mut tell).await? {
                // A process can die after it wrote the ending down and before it told anybody.
                ended = ended.or(self.incident().await?.and_then(|incident| outcome_word(incident.outcome)));
            }
            if outcome.is_none() && ended.is_some() {
                outcome = ended;
                // The last moments, and users who are still on their way.
                until = self.clock.now().plus(self.scenario.afterwards.max(CODA));
            }
        }
        self.ended(outcome.unwrap_or("called_off")).await
    }

    /// The newest incident of the service.
    async fn incident(&self) -> anyhow::Result<Option<Incident>> {
        let mut incidents = self.journal.incidents(INCIDENTS).await?.into_iter();
        Ok(incidents.find(|incident| incident.service == self.service))
    }

    /// One change, one life. Says whether there was a change.
    async fn kill_after_change(&mut self, tell: &mut impl FnMut(&Line)) -> anyhow::Result<bool> {
        let changes = self.sandbox.with(|world| world.changes());
        if changes == self.changes {
            return Ok(false);
        }
        self.changes = changes;
        self.guardian.die().await;
        self.guardian = Guardian::begin(&self.around).await?;
        let line = Line {
            t: self.clock.now().since(BEGIN),
            teller: Teller::Guardian,
            what: "its process dies; another one begins on the same journal".to_owned(),
            split: None,
            loud: true,
        };
        tell(&line);
        self.lines.push(line);
        Ok(true)
    }

    /// What happened since the last look.
    fn look(&mut self, tell: &mut impl FnMut(&Line)) -> Option<&'static str> {
        let service = self.service.clone();
        let (story, traffic) = self.sandbox.with(|world| (world.drain_story(), world.traffic(&service)));
        let mut outcome = None;
        let mut lines: Vec<Line> = story.into_iter().map(from_world).collect();
        while let Ok((report, at)) = self.reports.try_recv() {
            lines.extend(report.notes.iter().filter_map(|note| from_guardian(note, &service, at)));
            outcome = outcome.or_else(|| report.notes.iter().find_map(|note| ending(note, &service)));
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
        let incident = self.incident().await?;
        let since_sign = |at: Option<Timestamp>| {
            let (incident, at) = (incident.as_ref()?, at?);
            u64::try_from(at.since(incident.first_sign_at).as_millis()).ok()
        };
        let service = self.service.clone();
        let (traffic, violations) = self.sandbox.with(|world| {
            let violations = world.violations().iter().map(ToString::to_string).collect();
            (world.traffic(&service).unwrap_or_default(), violations)
        });
        // What one look found may be older than what the one before it did.
        let mut lines: Vec<_> = self.lines.iter().collect();
        lines.sort_by_key(|line| line.t);
        let told =
            |line: &Line| Told { t_ms: u64::try_from(line.t.as_millis()).unwrap_or(u64::MAX), what: line.what.clone() };
        Ok(Ended {
            scenario: self.scenario.name,
            outcome,
            expected: self.scenario.expected.as_str(),
            seed: self.seed,
            timeline: lines.into_iter().map(told).collect(),
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
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        // The guardian first, or it would complain of an AWS that is gone.
        self.guardian.die().await;
        Ok(self.sandbox.shutdown().await?)
    }
}
