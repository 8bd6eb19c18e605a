//! What requests share: the backend, its time, and the waking of those who wait for messages.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Timed, misfit};
use crate::model::Timestamp;
use crate::ports::Clock;
use crate::sandbox::api::{ApiError, Call, MessageView, Reply};

/// The driver advances the backend no oftener than this, in real time, so that a fast clock does not keep a core busy.
/// Nobody sees older state for it: every call advances the backend too.
const GRANULARITY: Duration = Duration::from_millis(10);

/// The backend and its time.
pub(super) struct Shared<B> {
    backend: Mutex<B>,
    clock: Arc<dyn Clock>,
    latency: Duration,
    /// The backend's next event, for the driver.
    due: watch::Sender<Option<Timestamp>>,
    /// Changes whenever a message may have become available.
    stirred: watch::Sender<u64>,
    stop: CancellationToken,
    requests: AtomicU64,
}

impl<B: Timed> Shared<B> {
    pub(super) fn new(backend: B, clock: Arc<dyn Clock>, latency: Duration, stop: CancellationToken) -> Self {
        let due = watch::Sender::new(backend.next_event());
        let (backend, stirred) = (Mutex::new(backend), watch::Sender::new(0));
        Self { backend, clock, latency, due, stirred, stop, requests: AtomicU64::new(0) }
    }

    /// Looks into the backend. What was done there is unknown, so waiting receives look again.
    pub(super) fn with<R>(&self, look: impl FnOnce(&mut B) -> R) -> R {
        self.enter(true, look)
    }

    /// Looks into the backend and changes nothing, not even its time.
    pub(super) fn peek<R>(&self, look: impl FnOnce(&B) -> R) -> R {
        look(&self.backend.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One call, now.
    pub(super) fn call(&self, call: Call) -> Result<Reply, ApiError> {
        self.enter(stirs(&call), |backend| backend.call(call))
    }

    /// Receives messages, for which it waits `patience` at most, on the backend's clock.
    pub(super) async fn receive(&self, receive: Call, patience: Duration) -> Result<Vec<MessageView>, ApiError> {
        let mut stirred = self.stirred.subscribe();
        let mut over = self.clock.sleep(patience);
        let mut last_try = patience.is_zero();
        loop {
            // Seen before the call, so that a message which arrives during it wakes the wait after it.
            stirred.mark_unchanged();
            let Reply::Messages(messages) = self.call(receive.clone())? else { return Err(misfit("ReceiveMessage")) };
            if last_try || !messages.is_empty() {
                return Ok(messages);
            }
            tokio::select! {
                _ = stirred.changed() => {}
                () = &mut over => last_try = true,
                () = self.stop.cancelled() => return Ok(Vec::new()),
            }
        }
    }

    pub(super) fn latency(&self) -> Duration {
        self.latency
    }

    /// The network's share of a call.
    pub(super) async fn travel(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    /// A new request id, shaped as AWS's.
    pub(super) fn request_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.requests.fetch_add(1, Ordering::Relaxed))
    }

    fn enter<R>(&self, stirs: bool, act: impl FnOnce(&mut B) -> R) -> R {
        // A backend whose own assertion failed under the lock has said so; others may still look at it.
        let mut backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let happened = backend.next_event().is_some_and(|due| due <= now);
        if now > backend.now() {
            backend.advance_to(now);
        }
        let result = act(&mut backend);
        let next = backend.next_event();
        // Still under the lock: an older view of the next event must not overtake a newer one.
        self.due.send_if_modified(|due| mem::replace(due, next) != next);
        drop(backend);
        if stirs || happened {
            self.stirred.send_modify(|count| *count = count.wrapping_add(1));
        }
        result
    }
}

/// Advances the backend whenever its next event is due, until stopped.
pub(super) async fn drive<B: Timed>(shared: Arc<Shared<B>>) {
    let mut due = shared.due.subscribe();
    loop {
        let next = *due.borrow_and_update();
        let wait = async {
            let Some(at) = next else { return std::future::pending().await };
            tokio::time::sleep(GRANULARITY).await;
            shared.clock.sleep(at.since(shared.clock.now())).await;
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = due.changed() => {}
            () = wait => shared.enter(false, |_| ()),
        }
    }
}

/// Whether a call may make a message available. Receives must not count, or two waiting ones would keep each other awake.
fn stirs(call: &Call) -> bool {
    match call {
        Call::UpdateTaskSet { .. }
        | Call::SetPrimary { .. }
        | Call::DeleteTaskSet { .. }
        | Call::ModifyRule { .. }
        | Call::ModifyListener { .. }
        | Call::ChangeVisibility { .. }
        | Call::SendMessage { .. }
        | Call::PutEvents { .. } => true,
        Call::ListClusters
        | Call::ListServices { .. }
        | Call::DescribeServices { .. }
        | Call::DescribeTaskSets { .. }
        | Call::ListTasks { .. }
        | Call::DescribeTasks { .. }
        | Call::TagResource { .. }
        | Call::UntagResource { .. }
        | Call::GetResources { .. }
        | Call::DescribeTargetGroups { .. }
        | Call::DescribeListeners { .. }
        | Call::DescribeRules { .. }
        | Call::DescribeTargetHealth { .. }
        | Call::DescribeAlarms { .. }
        | Call::GetMetricData { .. }
        | Call::ReceiveMessage { .. }
        | Call::DeleteMessages { .. }
        | Call::GetQueueUrl { .. }
        | Call::GetQueueAttributes { .. }
        | Call::ListRuleNamesByTarget { .. }
        | Call::DescribeEventRule { .. }
        | Call::TestEventPattern { .. } => false,
    }
}
