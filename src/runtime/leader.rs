//! Who acts, when several replicas share a journal: the one that has the lease. The others watch.
//!
//! No two clocks are ever compared. A watcher waits until the record of the lease has not changed for the lease's length
//! by its own clock, and takes it over only if it still is the one that was watched. The holder counts the same length by
//! its own clock, from before it asked for its last renewal: so from an earlier moment than any watcher, and is done
//! before. What a stopped or partitioned holder still sends to the journal is refused there, by its epoch.
//!
//! What no lease can prevent: a process that is frozen between its last look at the clock and the sending of a call sends
//! it when it wakes. Each write says what is to be, not what is to change, so it is one that the plan wanted; and the
//! successor reads before it writes.
//!
//! ```text
//! holder    ask|--applied--|answer ......... margin|stop
//!              |<------------- length -------------->|
//! watcher          seen|<------------- length -------------->|take over
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::health::{Health, Part};
use super::lease::{LENGTH, LOOK_EVERY, MARGIN, RENEW_EVERY, Span, Watched};
use crate::ports::{Clock, JournalError, Lease, Tenure};

/// A renewal that failed is tried again soon: with [`ANSWER_WITHIN`], three times before the lease is lost.
const RENEW_AGAIN: Duration = Duration::from_millis(500);

/// DynamoDB answers within 20 ms; who waits longer had better ask again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The right to act, as the parts of a running worker see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Term {
    /// Until when it lasts unless it is renewed; `None` for a worker that has no rivals.
    until: Option<Arc<Mutex<Span<Instant>>>>,
    lost: CancellationToken,
}

impl Term {
    /// For the only worker of a journal.
    pub(crate) fn endless() -> Self {
        Self::default()
    }

    fn begun(at: Instant) -> Self {
        Self { until: Some(Arc::new(Mutex::new(Span::renewed(at)))), lost: CancellationToken::new() }
    }

    fn renewed(&self, at: Instant) {
        if let Some(until) = &self.until {
            *until.lock().unwrap_or_else(PoisonError::into_inner) = Span::renewed(at);
        }
    }

    fn span(&self) -> Option<Span<Instant>> {
        Some(*self.until.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the holder must have stopped.
    fn ends_at(&self) -> Option<Instant> {
        self.span()?.until().checked_sub(MARGIN)
    }

    /// Whether something that may take as long can begin now and is over before the term is.
    pub(crate) fn has_room_for(&self, duration: Duration) -> bool {
        !self.is_lost() && self.span().is_none_or(|span| span.has_room_for(Instant::now(), duration))
    }

    /// No rivals: nothing has to be over in time.
    pub(crate) fn is_endless(&self) -> bool {
        self.until.is_none()
    }

    /// It is over; nothing may begin any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Returns when it is over.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Ends it: the journal has refused what this replica wrote.
    pub(crate) fn lose(&self) {
        self.lost.cancel();
    }
}

/// A tenure that is renewed until it is lost or given back.
pub(crate) struct Held {
    pub(crate) term: Term,
    lease: Arc<dyn Lease>,
    enough: CancellationToken,
    keeper: AbortOnDropHandle<Tenure>,
}

impl Held {
    fn new(lease: Arc<dyn Lease>, tenure: Tenure, begun: Instant) -> Self {
        let (term, enough) = (Term::begun(begun), CancellationToken::new());
        let keeper = keep(Arc::clone(&lease), tenure, term.clone(), begun, enough.clone());
        Self { term, lease, enough, keeper: AbortOnDropHandle::new(tokio::spawn(keeper)) }
    }

    /// Stops renewing. When the lease is still held, the next replica need not wait for its end.
    pub(crate) async fn give_back(self) {
        self.enough.cancel();
        let Ok(tenure) = self.keeper.await else { return };
        if self.term.is_lost() {
            return;
        }
        match timeout(ANSWER_WITHIN, self.lease.release(&tenure)).await {
            Ok(Ok(())) => tracing::info!("The lease is given back"),
            Ok(Err(error)) => tracing::warn!("The lease is not given back, it runs out by itself: {error}"),
            Err(_) => tracing::warn!("The lease is not given back in time, it runs out by itself"),
        }
    }
}

/// Renews until told that it is enough, or until the lease is lost. Returns the tenure as last written.
async fn keep(
    lease: Arc<dyn Lease>,
    mut tenure: Tenure,
    term: Term,
    begun: Instant,
    enough: CancellationToken,
) -> Tenure {
    let mut next = begun + RENEW_EVERY;
    while let Some(end) = term.ends_at() {
        tokio::select! {
            biased;
            () = enough.cancelled() => return tenure,
            () = term.lost() => return tenure,
            () = sleep_until(next.min(end)) => {}
        }
        let asked = Instant::now();
        if asked >= end {
            tracing::error!("The lease could not be renewed in time: standing by");
            break;
        }
        // Raised before it is sent: a renewal whose answer is lost may be in the record, and the next one differs.
        tenure.beat += 1;
        let failure = match timeout(ANSWER_WITHIN.min(end - asked), lease.renew(&tenure)).await {
            Ok(Ok(true)) => {
                term.renewed(asked);
                next = asked + RENEW_EVERY;
                continue;
            }
            Ok(Ok(false)) => {
                tracing::error!("Another replica has taken the lease over: standing by");
                break;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!("The lease was not renewed, trying again: {failure}");
        next = Instant::now() + RENEW_AGAIN;
    }
    term.lose();
    tenure
}

/// One that waits for its turn.
pub(crate) struct Watcher<'a> {
    pub(crate) lease: &'a Arc<dyn Lease>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) health: &'a Health,
}

impl Watcher<'_> {
    /// Watches until the lease can be taken. Never ends otherwise; to be dropped at shutdown.
    pub(crate) async fn acquire(&self) -> Held {
        let mut watched: Option<Watched<Instant>> = None;
        loop {
            self.health.turned(self.clock.elapsed());
            match self.attempt(&mut watched).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(cause) => {
                    if self.health.set(Part::Leader, Err(format!("standby: the lease can't be read: {cause}"))) {
                        tracing::error!("Standing by, and the lease can't be read or taken: {cause}");
                    }
                }
            }
            let (now, free_at) = (Instant::now(), watched.as_ref().map(Watched::free_at));
            // A record that is free and can't be taken must not make it spin.
            let look = now + LOOK_EVERY;
            sleep_until(free_at.filter(|at| *at > now).map_or(look, |at| at.min(look))).await;
        }
    }

    /// One look, and the takeover when it is time.
    async fn attempt(&self, watched: &mut Option<Watched<Instant>>) -> Result<Option<Held>, String> {
        let record = in_time(self.lease.look()).await?;
        // From the answer on: the holder asked for what is in the record before.
        let seen = Instant::now();
        let holder = record.as_ref().map_or("nobody", |tenure| &tenure.holder).to_owned();
        if self.health.set(Part::Leader, Err(format!("standby: {holder} holds the lease"))) {
            tracing::info!(holder, "Standing by");
        }
        let look = Watched::look(watched.take(), record, seen);
        let watched = watched.insert(look);
        if seen < watched.free_at() {
            return Ok(None);
        }
        let asked = Instant::now();
        let Some(tenure) = in_time(self.lease.acquire(watched.record.as_ref(), LENGTH)).await? else {
            return Ok(None);
        };
        tracing::info!(epoch = tenure.epoch, "This replica has the lease and acts");
        Ok(Some(Held::new(Arc::clone(self.lease), tenure, asked)))
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, JournalError>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
