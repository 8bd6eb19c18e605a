//! The real SDK clients against a backend of canned answers: what they send arrives as a call, what the backend answers
//! arrives in their outputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cloudwatch;
mod ecs;
mod elb;
mod events;
mod hostile;
mod sqs;
mod tagging;
mod time;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{Sandbox, Timed, WireSettings};
use crate::model::Timestamp;
use crate::ports::Clock;
use crate::sandbox::api::{ApiError, Backend, Call, MessageView, Reply};

/// When every test begins: with milliseconds, so that lost ones show.
const START: Timestamp = Timestamp::from_millis(1_772_445_880_989);

/// A client of one service's SDK that talks to the sandbox.
macro_rules! client {
    ($sdk:ident, $rig:expr) => {{
        let credentials = $sdk::config::Credentials::new("test", "test", None, None, "test");
        $sdk::Client::from_conf(
            $sdk::Config::builder()
                .behavior_version($sdk::config::BehaviorVersion::v2026_01_12())
                .region($sdk::config::Region::new("eu-central-1"))
                .credentials_provider(credentials)
                .retry_config($sdk::config::retry::RetryConfig::disabled())
                .endpoint_url($rig.sandbox.endpoint())
                .build(),
        )
    }};
}
use client;

/// Answers with what it was given, in order; receives without a canned answer take from its queue.
struct Stub {
    replies: VecDeque<Result<Reply, ApiError>>,
    queue: Vec<MessageView>,
    arrivals: BTreeMap<Timestamp, MessageView>,
    now: Timestamp,
    calls: mpsc::UnboundedSender<Call>,
}

impl Backend for Stub {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let receives = matches!(call, Call::ReceiveMessage { .. });
        self.calls.send(call).ok();
        match self.replies.pop_front() {
            Some(reply) => reply,
            None if receives => Ok(Reply::Messages(self.queue.drain(..).collect())),
            None => Err(ApiError::client("NothingCanned", "the test gave no answer")),
        }
    }
}

impl Timed for Stub {
    fn advance_to(&mut self, now: Timestamp) {
        self.now = now;
        while let Some(arrival) = self.arrivals.first_entry().filter(|arrival| *arrival.key() <= now) {
            self.queue.push(arrival.remove());
        }
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn next_event(&self) -> Option<Timestamp> {
        self.arrivals.keys().next().copied()
    }
}

/// Time that passes when the test says so.
struct ManualClock(watch::Sender<Timestamp>);

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now().plus(duration);
        self.0.subscribe().wait_for(|now| *now >= until).await.expect("the clock outlives its sleepers");
    }
}

impl ManualClock {
    fn pass(&self, duration: Duration) {
        self.0.send_modify(|now| *now = now.plus(duration));
    }
}

/// A sandbox around a stub.
struct Rig<C = ManualClock> {
    sandbox: Sandbox<Stub>,
    clock: Arc<C>,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Rig {
    async fn start() -> Self {
        Self::start_on(ManualClock(watch::Sender::new(START)), WireSettings::default()).await
    }
}

impl<C: Clock + 'static> Rig<C> {
    async fn start_on(clock: C, settings: WireSettings) -> Self {
        let (seen, calls) = mpsc::unbounded_channel();
        let (replies, queue, arrivals) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        let stub = Stub { replies, queue, arrivals, now: START, calls: seen };
        let clock = Arc::new(clock);
        let sandbox = Sandbox::start(stub, Arc::clone(&clock) as Arc<dyn Clock>, settings).await.expect("loopback");
        Self { sandbox, clock, calls }
    }

    /// The answer to the next call that has none yet.
    fn answer(&self, reply: Reply) {
        self.sandbox.with(|stub| stub.replies.push_back(Ok(reply)));
    }

    /// The refusal of the next call that has no answer yet.
    fn refuse(&self, code: &str, status: u16) {
        let error = ApiError { code: code.to_owned(), message: "because & <why>".to_owned(), status };
        self.sandbox.with(|stub| stub.replies.push_back(Err(error)));
    }

    /// The next call that reached the backend.
    async fn call(&mut self) -> Call {
        soon(self.calls.recv()).await.expect("the backend lives")
    }

    /// No call reached the backend, beyond those that were looked at.
    fn assert_untouched(&mut self) {
        assert_eq!(self.calls.try_recv().ok(), None);
    }
}

/// What must come without anybody waiting for it; a test that waits in vain shall fail rather than hang.
async fn soon<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), coming).await.expect("it never came")
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (text(key), text(value))).collect()
}

/// `START` plus a few milliseconds, so that every time of a view is another one.
fn at(millis: u64) -> Timestamp {
    START.plus(Duration::from_millis(millis))
}

/// An SDK's time in the same milliseconds.
macro_rules! millis {
    ($time:expr) => {
        $time.map(|time| crate::model::Timestamp::from_millis(time.to_millis().unwrap()))
    };
}
use millis;

fn message(id: &str) -> MessageView {
    MessageView { id: text(id), receipt: format!("receipt-{id}"), body: text("{}"), receive_count: 1, sent_at: START }
}
