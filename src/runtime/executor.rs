//! The executor: carries effects out and answers each one, always, whatever happens on the way.
//!
//! What the engine sends together goes out together: the rules of a service shift as one set, and none waits for another's
//! call. Reads have their room in the observer, so a sweep over a large fleet never holds back a rollback.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::leader::Term;
use super::lease::WRITE_WITHIN;
use super::mutants::{Mutant, without};
use crate::engine::{Effect, Input};
use crate::model::{Announcement, Ask, CallError, EffectId, ErrorClass, Observation, Outcome, Timestamp, Write};
use crate::ports::{Actuator, Announcer, Clock};

/// Writes at once, over all services. ELB's limit for modifications is low; more would only be throttled.
pub(crate) const WRITES: usize = 8;
/// Announcements at once.
const ANNOUNCEMENTS: usize = 4;

/// One round of reads. Implemented over the reading ports.
#[async_trait]
pub trait Observe: Send + Sync {
    /// Reads what is asked. An error of class not found means that the service does not exist.
    async fn observe(&self, ask: &Ask) -> Result<Observation, CallError>;
}

/// Where effects go.
pub(crate) struct Executor {
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observe>,
    actuator: Option<Arc<dyn Actuator>>,
    announcer: Option<Arc<dyn Announcer>>,
    answers: mpsc::Sender<Input>,
    term: Term,
    writes: Arc<Semaphore>,
    announcements: Arc<Semaphore>,
    /// Raised when the clock is set: nobody can tell how old a read is that was under way then.
    clock_sets: Arc<AtomicU64>,
    tasks: TaskTracker,
}

/// When a step was made, on both clocks: an effect ages on either.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    /// The time that the engine was given.
    pub(crate) at: Timestamp,
    /// [`Clock::elapsed`] then.
    pub(crate) elapsed: Duration,
}

impl Executor {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observe>,
        actuator: Option<Arc<dyn Actuator>>,
        announcer: Option<Arc<dyn Announcer>>,
        answers: mpsc::Sender<Input>,
        term: Term,
    ) -> Self {
        Self {
            clock,
            observer,
            actuator,
            announcer,
            answers,
            term,
            writes: Arc::new(Semaphore::new(WRITES)),
            announcements: Arc::new(Semaphore::new(ANNOUNCEMENTS)),
            clock_sets: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins one effect. Records are none of its business: the journal took them with the inputs.
    pub(crate) fn begin(&self, effect: Effect, born: Born) {
        match effect {
            Effect::Observe(ask) => self.observe(ask),
            Effect::Write { id, service: _, write, expires_at } => self.write(id, write, expires_at, born),
            Effect::Announce(id, announcement) => self.announce(id, announcement),
            Effect::Keep(_) => {}
        }
    }

    /// What was begun and is not answered yet.
    pub(crate) fn begun(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// The clock was set: the reads under way are answered as failed.
    pub(crate) fn void_reads(&self) {
        self.clock_sets.fetch_add(1, Ordering::Relaxed);
    }

    /// For waiting until all that was begun is answered.
    pub(crate) fn close(&self) -> TaskTracker {
        self.tasks.close();
        self.tasks.clone()
    }

    fn observe(&self, ask: Ask) {
        let observer = Arc::clone(&self.observer);
        let service = ask.service.clone();
        let (clock_sets, before) = (Arc::clone(&self.clock_sets), self.clock_sets.load(Ordering::Relaxed));
        let reading = async move { observer.observe(&ask).await };
        self.answer(async move {
            let result = survive("observe", reading).await.and_then(|result| result);
            let result = if clock_sets.load(Ordering::Relaxed) == before { result } else { Err(of_unknown_age()) };
            Input::Observed(service, result.map(Box::new))
        });
    }

    fn write(&self, id: EffectId, write: Write, expires_at: Timestamp, born: Born) {
        let (clock, actuator, term) = (Arc::clone(&self.clock), self.actuator.clone(), self.term.clone());
        let operation = write.operation();
        let sending = in_turn(Arc::clone(&self.writes), async move {
            // Last thing before the call: the wait for room counts too, and so does that for the journal.
            let age = clock.elapsed().saturating_sub(born.elapsed);
            let old = clock.now() > expires_at || age > expires_at.since(born.at);
            let late = (old && !without(Mutant::NoExpiry))
                || !(term.has_room_for(WRITE_WITHIN) || without(Mutant::NoLeaseCheck));
            match actuator {
                None => Outcome::Suppressed,
                Some(_) if late => Outcome::Expired,
                Some(actuator) => send(&*actuator, &write, &term).await,
            }
        });
        self.answer(async move { Input::Done(id, survive(operation, sending).await.unwrap_or_else(Outcome::Failed)) });
    }

    fn announce(&self, id: EffectId, announcement: Announcement) {
        let announcer = self.announcer.clone();
        let putting = in_turn(Arc::clone(&self.announcements), async move {
            match announcer {
                Some(announcer) => announcer.announce(&announcement).await,
                // Without a bus, the log is where it is announced.
                None => Ok(()),
            }
        });
        self.answer(async move {
            let result = survive("announce", putting).await.and_then(|result| result);
            Input::Done(id, result.map_or_else(Outcome::Failed, |()| Outcome::Applied))
        });
    }

    fn answer(&self, work: impl Future<Output = Input> + Send + 'static) {
        let answers = self.answers.clone();
        self.tasks.spawn(async move {
            // The loop is gone: its successor begins with `Restarted`, which says that answers were lost.
            drop(answers.send(work.await).await);
        });
    }
}

/// What becomes of a read during which the clock was set.
pub(crate) fn of_unknown_age() -> CallError {
    CallError {
        class: ErrorClass::Transient,
        operation: "observe".to_owned(),
        code: None,
        message: "the clock was set meanwhile, so nobody can tell how old the answer is".to_owned(),
    }
}

/// Waits for room, then works.
async fn in_turn<T>(room: Arc<Semaphore>, work: impl Future<Output = T>) -> T {
    // The semaphore is never closed; if it were, going on without a permit is the safe side.
    let _permit = room.acquire_owned().await;
    work.await
}

/// A panic in an adapter is a failed call like any other: the engine waits for the answer.
async fn survive<T: Send + 'static>(
    operation: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, CallError> {
    tokio::spawn(work).await.map_err(|error| CallError {
        class: ErrorClass::Transient,
        operation: operation.to_owned(),
        code: None,
        message: format!("the call broke off: {error}"),
    })
}

async fn send(actuator: &dyn Actuator, write: &Write, term: &Term) -> Outcome {
    let answer = if term.is_endless() {
        actuator.apply(write).await
    } else {
        // In time for the successor, who reads what became of it.
        tokio::time::timeout(WRITE_WITHIN, actuator.apply(write)).await.unwrap_or_else(|_| {
            Err(CallError {
                class: ErrorClass::Transient,
                operation: write.operation().to_owned(),
                code: None,
                message: "given up, because the lease does not last longer".to_owned(),
            })
        })
    };
    match (answer, write) {
        (Ok(()), _) => Outcome::Applied,
        (Err(CallError { class: ErrorClass::NotFound, .. }), Write::DeleteTaskSet { .. }) => Outcome::AlreadyDone,
        (Err(error), _) => Outcome::Failed(error),
    }
}
