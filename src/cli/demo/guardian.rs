//! The guardian in a play: the unmodified worker in front of the sandbox, and how it dies and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::aws::{Aws, Endpoint};
use crate::cli::run::FLEET_BRAKE;
use crate::cli::wiring::{self, Wiring};
use crate::engine::{self, Report};
use crate::http;
use crate::journal::RedbJournal;
use crate::model::Timestamp;
use crate::ports::Clock;
use crate::rules::RuleFile;
use crate::runtime::{Hook, Settings, Worker, WorkerError};
use crate::sandbox::scenario::Scenario;
use crate::sandbox::world::REGION;
use crate::telemetry::Metrics;

/// How long a receive waits, and how often services are read, in the world's time.
const WAIT: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(30);

/// Everything that outlives the guardian's process.
pub(super) struct Surroundings {
    pub(super) scenario: &'static Scenario,
    pub(super) clock: Arc<dyn Clock>,
    /// Of the sandbox.
    pub(super) endpoint: String,
    pub(super) queue_url: String,
    pub(super) journal: Arc<RedbJournal>,
    /// Told of every report.
    pub(super) reported: mpsc::UnboundedSender<(Report, Timestamp)>,
    /// Where metrics and status are to be had, if anywhere.
    pub(super) listen: Option<SocketAddr>,
}

/// One process of it.
pub(super) struct Guardian {
    worker: JoinHandle<Result<(), WorkerError>>,
    serving: Option<JoinHandle<()>>,
}

impl Guardian {
    /// Begins where the journal ends.
    pub(super) async fn begin(around: &Surroundings) -> anyhow::Result<Self> {
        let scenario = around.scenario;
        let metrics = Arc::new(Metrics::new()?);
        let endpoint = Endpoint::Local { url: around.endpoint.clone(), region: REGION.to_owned() };
        let aws = Aws::connect(&endpoint, metrics.clone()).await?;
        let wiring = Wiring {
            clock: around.clock.clone(),
            journal: around.journal.clone(),
            rules: wiring::rules_of(vec![RuleFile::new("demo.toml", scenario.rules_toml.clone())]),
            queue_url: around.queue_url.clone(),
            wait: WAIT,
            event_bus: "default".to_owned(),
            dry_run: scenario.dry_run,
        };
        let engine = engine::Settings { dry_run: scenario.dry_run, sweep: SWEEP, fleet_brake: FLEET_BRAKE.into() };
        let settings = Settings { engine, receivers: 2 };
        let reported = around.reported.clone();
        // Nobody listens any more once the play is over.
        let listen_in: Hook = Arc::new(move |report, at| drop(reported.send((report.clone(), at))));
        let worker = Worker::new(wiring::ports(&aws, wiring), settings, metrics, vec![listen_in]);
        // It never ends in order: whoever watches a play has seen enough when it is over.
        let stop = CancellationToken::new();
        let serving = match around.listen {
            Some(address) => {
                let listener = http::bind(address).await?;
                Some(tokio::spawn(http::serve(listener, worker.handle(), stop.clone())))
            }
            None => None,
        };
        let worker = tokio::spawn(worker.run(stop));
        Ok(Self { worker, serving })
    }

    /// It ended by itself, which it should not.
    pub(super) fn is_over(&self) -> bool {
        self.worker.is_finished()
    }

    /// Dies at once, in the middle of whatever it does, as by SIGKILL.
    pub(super) async fn die(&mut self) {
        self.worker.abort();
        // Another one wants the same address, so the end is waited for; how it comes does not matter.
        drop((&mut self.worker).await);
        if let Some(mut serving) = self.serving.take() {
            serving.abort();
            drop((&mut serving).await);
        }
    }
}
