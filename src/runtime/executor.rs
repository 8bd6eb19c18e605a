//! The executor: carries effects out and answers each one, always, whatever happens on the way; but for reads, which end with it.
//!
//! What the engine sends together goes out together: the rules of a service shift as one set, and none waits for another's
//! call. Reads have rooms by their urgency, so a sweep over a large fleet never holds back a rollback.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::leader::Term;
use super::lease::WRITE_WITHIN;
use super::mutants::{Mutant, without};
use super::turn::Incoming;
use crate::engine::{Effect, Input};
use crate::model::{
    Announcement, Ask, CallError, EffectId, ErrorClass, Observation, Outcome, ServiceKey, Timestamp, Urgency, Write,
};
use crate::ports::{Actuator, Announcer, Clock};

/// Writes at once, over all services. ELB's limit for modifications is low; more would only be throttled.
pub(crate) const WRITES: usize = 8;
/// Deletes at once, apart from the others: ECS takes five a second, and no traffic waits for what is to be deleted.
pub(crate) const DELETES: usize = 4;
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
    answers: mpsc::Sender<Incoming>,
    term: Term,
    writes: Arc<Semaphore>,
    deletes: Arc<Semaphore>,
    announcements: Arc<Semaphore>,
    reads: Arc<Mutex<BTreeMap<ServiceKey, Read>>>,
    begun_reads: AtomicU64,
    rooms: Arc<[Semaphore; Urgency::ALL.len()]>,
    /// Ends all reads.
    reading: CancellationToken,
    _reads_end: DropGuard,
    /// Writes and announcements.
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
        answers: mpsc::Sender<Incoming>,
        term: Term,
    ) -> Self {
        let reading = CancellationToken::new();
        Self {
            clock,
            observer,
            actuator,
            announcer,
            answers,
            term,
            writes: Arc::new(Semaphore::new(WRITES)),
            deletes: Arc::new(Semaphore::new(DELETES)),
            announcements: Arc::new(Semaphore::new(ANNOUNCEMENTS)),
            reads: Arc::default(),
            begun_reads: AtomicU64::new(0),
            rooms: Arc::new(Urgency::ALL.map(|urgency| Semaphore::new(at_once(urgency)))),
            _reads_end: reading.clone().drop_guard(),
            reading,
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

    /// What was begun, might change something and is not answered yet.
    pub(crate) fn begun(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// For waiting until all that was begun is answered. Reads end: whoever acts next makes his own.
    pub(crate) fn close(&self) -> TaskTracker {
        self.reading.cancel();
        self.tasks.close();
        self.tasks.clone()
    }

    /// Reads. A read of the same service that has not begun asks this instead, and has its place in the queue; one that has
    /// begun is followed by this, or, if it is less urgent, ends without an answer: nobody waits behind a sweep's questions for
    /// what decides.
    fn observe(&self, ask: Ask) {
        let (service, urgency, ended) = (ask.service.clone(), ask.urgency, self.reading.child_token());
        let id = self.begun_reads.fetch_add(1, Ordering::Relaxed);
        {
            let mut reads = locked(&self.reads);
            if let Some(read) = reads.get_mut(&service)
                && read.urgency >= urgency
            {
                read.ask = Some(ask);
                return;
            }
            let read = Read { id, urgency, ask: Some(ask), ended: ended.clone() };
            if let Some(overtaken) = reads.insert(service.clone(), read) {
                overtaken.ended.cancel();
            }
        }
        let (observer, reads, rooms) = (Arc::clone(&self.observer), Arc::clone(&self.reads), Arc::clone(&self.rooms));
        let (answers, clock) = (self.answers.clone(), Arc::clone(&self.clock));
        let reading = async move {
            loop {
                let _room = enter(&rooms, urgency).await;
                // Its place is another's when it was overtaken, which it may not have noticed yet.
                let Some(ask) =
                    locked(&reads).get_mut(&service).filter(|read| read.id == id).and_then(|read| read.ask.take())
                else {
                    return;
                };
                let (observer, clock) = (Arc::clone(&observer), Arc::clone(&clock));
                let read = async move {
                    // When it runs, not when it is to: what it finds is dated by then.
                    let began = clock.elapsed();
                    (observer.observe(&ask).await.map(Box::new), began)
                };
                let answer = match survive("observe", read).await {
                    Ok((answer, began)) => Incoming::read(service.clone(), answer, began),
                    Err(error) => Input::Observed(service.clone(), Err(error)).into(),
                };
                let is_last = {
                    let mut reads = locked(&reads);
                    let Some(read) = reads.get(&service).filter(|read| read.id == id) else { return };
                    let is_last = read.ask.is_none();
                    if is_last {
                        reads.remove(&service);
                    }
                    is_last
                };
                // The loop is gone: its successor begins with `Restarted`, which says that answers were lost.
                drop(answers.send(answer).await);
                if is_last {
                    return;
                }
            }
        };
        tokio::spawn(async move { ended.run_until_cancelled(reading).await });
    }

    fn write(&self, id: EffectId, write: Write, expires_at: Timestamp, born: Born) {
        let (clock, actuator, term) = (Arc::clone(&self.clock), self.actuator.clone(), self.term.clone());
        let operation = write.operation();
        let room = if matches!(write, Write::DeleteTaskSet { .. }) { &self.deletes } else { &self.writes };
        let sending = in_turn(Arc::clone(room), async move {
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
            // As above.
            drop(answers.send(work.await.into()).await);
        });
    }
}

/// A read that waits for room, or is under way.
struct Read {
    id: u64,
    urgency: Urgency,
    /// What it will ask, or what is to be asked after it.
    ask: Option<Ask>,
    /// Ends it without an answer.
    ended: CancellationToken,
}

/// Reads at once, by urgency. What waits for room has not begun, so the time for it does not run yet. Of services that are not
/// being deployed there are as many as one `DescribeServices` answers for. More at once would not make any of them faster: they
/// would wait for their turns at Elastic Load Balancing, and the last would be too old to act on. Who is read for the first time
/// waits for up to three turns in a row, who is known for one: those that are known must not be so many that the others starve.
const fn at_once(urgency: Urgency) -> usize {
    match urgency {
        Urgency::Routine => 10,
        Urgency::Deployed | Urgency::Plan => 8,
        // As many as the pace lets through within a read's time, so that services behind one listener share its reading.
        Urgency::Traffic => 32,
    }
}

/// Waits for room. The semaphores are never closed; if they were, going on without a permit is the safe side.
async fn enter(rooms: &[Semaphore; Urgency::ALL.len()], urgency: Urgency) -> Option<SemaphorePermit<'_>> {
    let room = rooms[urgency as usize].acquire().await.ok();
    if urgency < Urgency::Traffic {
        // It would get no turns as long as users wait for theirs, and its time would run.
        drop(rooms[Urgency::Traffic as usize].acquire().await);
    }
    room
}

/// Waits for room, then works.
async fn in_turn<T>(room: Arc<Semaphore>, work: impl Future<Output = T>) -> T {
    // The semaphore is never closed; if it were, going on without a permit is the safe side.
    let _permit = room.acquire_owned().await;
    work.await
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A list of what is under way is whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic in an adapter is a failed call like any other: the engine waits for the answer. Work that nobody waits for any more
/// ends.
async fn survive<T: Send + 'static>(
    operation: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, CallError> {
    AbortOnDropHandle::new(tokio::spawn(work)).await.map_err(|error| CallError {
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
