//! The end of a message's life: deleted once its signal is durable, kept invisible while that takes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::model::{CallError, ErrorClass};
use crate::ports::{Clock, Inbox, Receipt};

/// SQS takes ten entries in one batch call.
const BATCH: usize = 10;
/// How long a receipt waits for nine others. Short against any visibility time-out, long against a group commit.
const FLUSH: Duration = Duration::from_millis(200);
/// Attempts to delete one message. After that it reappears and its duplicate changes nothing.
const ATTEMPTS: u32 = 3;
/// Between attempts.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A message that waits this long is kept invisible: half of SQS's default time-out of 30 s.
const EXTEND_AFTER: Duration = Duration::from_secs(15);
/// How long it is kept invisible from then on, unless it is extended again.
const EXTEND_BY: Duration = Duration::from_mins(1);
/// How often waiting messages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the custodian is told of messages.
#[derive(Debug)]
pub(crate) enum Receipted {
    /// Received, and their signals not yet durable.
    Held(Vec<Receipt>),
    /// Nothing of them is needed any more.
    Finished(Vec<Receipt>),
}

impl Receipted {
    /// Of no message at all.
    pub(crate) fn is_empty(&self) -> bool {
        let (Self::Held(receipts) | Self::Finished(receipts)) = self;
        receipts.is_empty()
    }
}

/// Deletes finished messages and keeps held ones invisible, until all senders are gone.
pub(crate) struct Custodian {
    clock: Arc<dyn Clock>,
    inbox: Arc<dyn Inbox>,
    told: mpsc::UnboundedReceiver<Receipted>,
    /// [`Clock::elapsed`] when each held message's invisibility was last renewed.
    held: BTreeMap<Receipt, Duration>,
    finished: VecDeque<Receipt>,
    calls: JoinSet<()>,
}

impl Custodian {
    pub(crate) fn new(clock: Arc<dyn Clock>, inbox: Arc<dyn Inbox>, told: mpsc::UnboundedReceiver<Receipted>) -> Self {
        Self { clock, inbox, told, held: BTreeMap::new(), finished: VecDeque::new(), calls: JoinSet::new() }
    }

    /// Ends when every sender is gone and every delete is tried.
    pub(crate) async fn run(mut self) {
        let clock = Arc::clone(&self.clock);
        let mut look = clock.sleep(LOOK_EVERY);
        let mut flush = None;
        loop {
            tokio::select! {
                biased;
                // The timers first: they are rare, and a flood of messages must not keep those that wait from being
                // renewed.
                () = &mut look => {
                    look = clock.sleep(LOOK_EVERY);
                    self.extend();
                }
                () = async { if let Some(timer) = &mut flush { timer.await } }, if flush.is_some() => {
                    flush = None;
                    self.delete();
                }
                told = self.told.recv() => match told {
                    Some(Receipted::Held(receipts)) => {
                        let elapsed = self.clock.elapsed();
                        self.held.extend(receipts.into_iter().map(|receipt| (receipt, elapsed)));
                    }
                    Some(Receipted::Finished(receipts)) => {
                        for receipt in &receipts {
                            self.held.remove(receipt);
                        }
                        self.finished.extend(receipts);
                        while self.finished.len() >= BATCH {
                            self.delete();
                        }
                        if self.finished.is_empty() {
                            flush = None;
                        } else if flush.is_none() {
                            flush = Some(clock.sleep(FLUSH));
                        }
                    }
                    None => break,
                },
                Some(_) = self.calls.join_next() => {}
            }
        }
        while !self.finished.is_empty() {
            self.delete();
        }
        while self.calls.join_next().await.is_some() {}
    }

    fn delete(&mut self) {
        let batch: Vec<_> = self.finished.drain(..self.finished.len().min(BATCH)).collect();
        self.calls.spawn(delete(Arc::clone(&self.clock), Arc::clone(&self.inbox), batch));
    }

    fn extend(&mut self) {
        let elapsed = self.clock.elapsed();
        let waiting = self.held.iter_mut().filter(|(_, since)| elapsed.saturating_sub(**since) >= EXTEND_AFTER);
        let mut due: Vec<_> = waiting
            .map(|(receipt, since)| {
                // Counted from the call, not from when it would run out: a few spare renewals are cheap.
                *since = elapsed;
                receipt.clone()
            })
            .collect();
        while !due.is_empty() {
            let batch = due.split_off(due.len().saturating_sub(BATCH));
            let inbox = Arc::clone(&self.inbox);
            self.calls.spawn(async move {
                let failed = inbox.extend(&batch, EXTEND_BY).await;
                if let Some((_, error)) = failed.first() {
                    tracing::warn!(count = failed.len(), "Messages that still wait may be delivered again: {error}");
                }
            });
        }
    }
}

/// Deletes one batch, and again what failed for a passing reason.
async fn delete(clock: Arc<dyn Clock>, inbox: Arc<dyn Inbox>, mut batch: Vec<Receipt>) {
    for attempt in 1..=ATTEMPTS {
        let failed = inbox.delete(&batch).await;
        let Some((_, error)) = failed.first() else { return };
        let passing = |error: &CallError| matches!(error.class, ErrorClass::Throttled | ErrorClass::Transient);
        let last = attempt == ATTEMPTS || !failed.iter().any(|(_, error)| passing(error));
        if last {
            tracing::warn!(count = failed.len(), "Messages were not deleted and will be delivered again: {error}");
            return;
        }
        batch = failed.into_iter().filter(|(_, error)| passing(error)).map(|(receipt, _)| receipt).collect();
        clock.sleep(RETRY_AFTER).await;
    }
}
