//! Rule files are read again when they change. A bad file keeps the last good rules in force.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::health::{Health, Part};
use super::turn::Incoming;
use crate::engine::Input;
use crate::ports::Clock;
use crate::rules::RuleSet;
use crate::telemetry::Metrics;

/// Reading a handful of small files is cheaper than being right about modification times.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads and compiles all rule files; the error is the diagnostics, for people. What blocks goes through
/// [`blocking_loader`].
pub type RuleLoader = Arc<dyn Fn() -> LoadedRules + Send + Sync>;

/// A load under way.
pub type LoadedRules = Pin<Box<dyn Future<Output = Result<RuleSet, String>> + Send>>;

/// A loader that reads files: it runs off the async threads.
pub fn blocking_loader(load: impl Fn() -> Result<RuleSet, String> + Send + Sync + 'static) -> RuleLoader {
    let load = Arc::new(load);
    Arc::new(move || {
        let load = Arc::clone(&load);
        Box::pin(async move {
            let loaded = tokio::task::spawn_blocking(move || load()).await;
            loaded.map_err(|error| error.to_string()).and_then(|rules| rules)
        })
    })
}

/// Watches the rule files.
pub(crate) struct Reload {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) loader: RuleLoader,
    pub(crate) control: mpsc::Sender<Incoming>,
    pub(crate) in_force: watch::Sender<Arc<RuleSet>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    /// Somebody wants the rules read now.
    pub(crate) wanted: Arc<Notify>,
}

impl Reload {
    /// Until shutdown, or until the engine's loop is gone.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut complaint = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // Before the timer, which loads them too, but says nothing about files that are as bad as before.
                () = self.wanted.notified() => {
                    tracing::info!("Reading the rules again, as asked");
                    complaint = None;
                }
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
            match (self.loader)().await {
                Ok(rules) => {
                    self.metrics.reload(true);
                    self.health.set(Part::Rules, Ok(()));
                    let news = **self.in_force.borrow() != rules;
                    if (complaint.take().is_some() || news) && !self.take(rules, news).await {
                        return;
                    }
                }
                Err(diagnostics) => {
                    self.metrics.reload(false);
                    // Still ready: the last good rules protect. The metric and the log say that the files are bad.
                    if complaint.as_ref() != Some(&diagnostics) {
                        tracing::error!("The rule files are bad, the last good rules stay in force:\n{diagnostics}");
                        complaint = Some(diagnostics);
                    }
                }
            }
        }
    }

    /// Returns false when nobody takes rules any more.
    async fn take(&self, rules: RuleSet, news: bool) -> bool {
        tracing::info!(rules = rules.rules.len(), "The rule files are in force");
        if !news {
            return true;
        }
        self.in_force.send_replace(Arc::new(rules.clone()));
        self.control.send(Input::Rules(rules).into()).await.is_ok()
    }
}
