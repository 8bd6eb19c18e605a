//! The pump: several long polls at once, each message decoded on its own, signals handed to the engine in the order
//! received.
//!
//! A receive in flight is never cancelled: the messages that it took would stay invisible until their time-out, and the
//! rollback that they call for would wait as long. On shutdown no new receive begins.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::health::{Health, Part};
use super::receipts::Receipted;
use crate::events;
use crate::model::{CallError, ErrorClass, Fact, Signal};
use crate::ports::{Clock, Inbox, Message, Receipt};
use crate::telemetry::{MessageOutcome, Metrics};

/// First pause after a failed receive; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A queue that comes back is noticed within half a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How many undecodable messages are remembered, to log each once and not at every redelivery.
const REMEMBERED: usize = 256;

/// What a message body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One attributed fact.
    Signal(Box<Signal>),
    /// Nothing for the guardian, for this reason.
    Ignored(&'static str),
}

/// Reads a message body; the error says what is wrong with it.
pub type Decoder = Arc<dyn Fn(&str) -> Result<Decoded, String> + Send + Sync>;

/// The decoder of what EventBridge delivers.
pub fn decoder() -> Decoder {
    Arc::new(|body| match events::decode(body) {
        Ok(events::Decoded::Signal(signal)) => Ok(Decoded::Signal(Box::new(signal))),
        Ok(events::Decoded::Ignored(ignored)) => Ok(Decoded::Ignored(ignored.reason.as_str())),
        Err(error) => Err(error.to_string()),
    })
}

/// A signal and the message that is to be deleted once the signal is durable.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) signal: Signal,
    pub(crate) receipt: Receipt,
}

/// What all receivers share.
pub(crate) struct Pump {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) decode: Decoder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) signals: mpsc::Sender<Arrival>,
    pub(crate) receipts: mpsc::UnboundedSender<Receipted>,
    pub(crate) complained: Mutex<Complained>,
}

/// Hashes of undecodable bodies that were logged already, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Complained(VecDeque<u64>);

impl Complained {
    fn is_news(&mut self, body: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let hash = hasher.finish();
        let news = !self.0.contains(&hash);
        if news {
            if self.0.len() == REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back(hash);
        }
        news
    }
}

impl Pump {
    /// One receiver: long poll after long poll until shutdown, or until the engine's loop is gone.
    pub(crate) async fn receive(self: Arc<Self>, shutdown: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !shutdown.is_cancelled() {
            match self.inbox.receive().await {
                Ok(messages) => {
                    pause = FIRST_PAUSE;
                    if self.health.set(Part::Queue, Ok(())) {
                        tracing::info!("Receiving from the queue");
                    }
                    for arrival in self.read(messages) {
                        if self.signals.send(arrival).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    self.complain(&error);
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => {}
                        () = self.clock.sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// What was received together. The custodian is told once: it is woken for a batch, not for each message.
    fn read(&self, messages: Vec<Message>) -> Vec<Arrival> {
        let mut finished = Vec::new();
        let arrivals: Vec<_> =
            messages.into_iter().filter_map(|message| self.decoded(message, &mut finished)).collect();
        self.tell(Receipted::Held(arrivals.iter().map(|arrival| arrival.receipt.clone()).collect()));
        self.tell(Receipted::Finished(finished));
        arrivals
    }

    /// One message. Its neighbours in the batch don't matter to it.
    fn decoded(&self, message: Message, finished: &mut Vec<Receipt>) -> Option<Arrival> {
        let Message { receipt, body, receive_count } = message;
        match (self.decode)(&body) {
            Ok(Decoded::Signal(signal)) => {
                self.metrics.message(MessageOutcome::Signal);
                let now = self.clock.now();
                // CloudTrail is minutes late by itself, which tells nothing of the queue.
                if !matches!(signal.fact, Fact::Call(_)) {
                    self.metrics.event(signal.at, now);
                }
                self.health.event(signal.at.min(now));
                return Some(Arrival { signal: *signal, receipt });
            }
            Ok(Decoded::Ignored(reason)) => {
                self.metrics.message(MessageOutcome::Ignored);
                tracing::debug!(reason, "Ignored a message");
                finished.push(receipt);
            }
            Err(cause) => {
                self.metrics.message(MessageOutcome::Undecodable);
                if self.complained.lock().unwrap_or_else(PoisonError::into_inner).is_news(&body) {
                    tracing::warn!(
                        receive_count,
                        bytes = body.len(),
                        "A message can't be read and is left to the dead-letter queue: {cause}"
                    );
                }
            }
        }
        None
    }

    /// A custodian that is gone has no use for it; the message reappears.
    fn tell(&self, what: Receipted) {
        if !what.is_empty() {
            drop(self.receipts.send(what));
        }
    }

    fn complain(&self, error: &CallError) {
        if self.health.set(Part::Queue, Err(error.to_string())) {
            match error.class {
                ErrorClass::Denied | ErrorClass::NotFound | ErrorClass::Rejected => {
                    tracing::error!("The queue can't be used, and no retry helps: {error}");
                }
                ErrorClass::Throttled | ErrorClass::Transient => {
                    tracing::warn!("No receive from the queue, trying again: {error}");
                }
            }
        }
    }
}
