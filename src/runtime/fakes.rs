//! A fake world for the worker's tests. Everything that matters is written into one log, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::executor::Born;
use super::machine::Machine;
use super::{Decoded, Observe, Ports};
use crate::engine::{Effect, Input, ServiceView, StatusView, Step};
use crate::model::{
    Announcement, Ask, CallError, Controller, EffectId, ErrorClass, Fact, Incident, Observation, Scope, ServiceAction,
    ServiceKey, ServiceReading, ServiceStatus, Signal, TaskArn, TaskReading, TaskSet, TaskSetArn, TaskSetId, Timestamp,
    Traffic, Write,
};
use crate::ports::{
    Actuator, Announcer, Clock, Entries, Fleet, Inbox, Journal, JournalError, Message, QueueDepth, Receipt, Recovered,
    Registrations,
};
use crate::rules::RuleSet;

/// A long poll that finds nothing takes this long.
const POLL: Duration = Duration::from_secs(10);

pub(crate) fn failure(class: ErrorClass) -> CallError {
    CallError { class, operation: "fake:Call".into(), code: None, message: "as the test wants it".into() }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// Time of tokio's paused runtime, and a wall clock that can be set.
pub(crate) struct PausedClock {
    began: Instant,
    ahead_ms: AtomicI64,
}

impl Default for PausedClock {
    fn default() -> Self {
        Self { began: Instant::now(), ahead_ms: AtomicI64::new(0) }
    }
}

impl PausedClock {
    pub(crate) fn set_by_ms(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// As it would read if nobody had set it.
    fn unset(&self) -> Timestamp {
        Timestamp::from_millis(1_772_445_880_000).plus(self.began.elapsed())
    }
}

#[async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.unset().moved(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn at_once(&self) -> (Timestamp, Duration) {
        (self.now(), self.unset().since(Timestamp::EPOCH))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

type Script = Box<dyn FnMut(Timestamp, &Input) -> Step + Send + Sync>;

/// Answers as the test wrote it down.
pub(crate) struct Scripted {
    pub(crate) script: Script,
    pub(crate) deadline: Arc<Mutex<Option<Timestamp>>>,
    pub(crate) services: Vec<ServiceView>,
    /// That the journal brought back.
    pub(crate) rules: RuleSet,
}

impl Machine for Scripted {
    fn step(&mut self, now: Timestamp, input: &Input) -> Step {
        (self.script)(now, input)
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        *locked(&self.deadline)
    }

    fn checkpoint(&self) -> Result<Vec<u8>, String> {
        Ok(b"checkpoint".to_vec())
    }

    fn service(&self, _: &ServiceKey, _: Timestamp) -> Option<ServiceView> {
        None
    }

    fn status(&self, now: Timestamp) -> StatusView {
        StatusView { at: now, dry_run: false, fleet_brake: None, rules: Vec::new(), services: self.services.clone() }
    }

    fn rules(&self) -> &RuleSet {
        &self.rules
    }
}

/// A cluster's services; `None` for a listing that fails.
pub(crate) type Listed = Option<Vec<Arc<str>>>;

/// All of the outside, and what happened to it.
pub(crate) struct World {
    pub(crate) clock: Arc<PausedClock>,
    pub(crate) log: Mutex<Vec<String>>,
    /// What the next receives give; then long polls that find nothing.
    pub(crate) deliveries: Mutex<VecDeque<Result<Vec<Message>, CallError>>>,
    pub(crate) polls_begun: AtomicUsize,
    pub(crate) polls_ended: AtomicUsize,
    /// Receipts whose delete fails, how often, and how.
    pub(crate) undeletable: Mutex<BTreeMap<Receipt, (u32, ErrorClass)>>,
    pub(crate) journal_fails: AtomicBool,
    pub(crate) checkpoint_fails: AtomicBool,
    /// Calls of these names never answer.
    pub(crate) hangs: Mutex<BTreeSet<&'static str>>,
    pub(crate) recovered: Mutex<Recovered>,
    /// How far ahead the clock is by which reads are dated; without one they find no service.
    pub(crate) reads_ahead: Mutex<Option<Duration>>,
    pub(crate) write_takes: Mutex<Duration>,
    pub(crate) write_fails: Mutex<Option<ErrorClass>>,
    pub(crate) write_panics: AtomicBool,
    pub(crate) fleet: Mutex<BTreeMap<Arc<str>, Listed>>,
    pub(crate) clusters_fail: AtomicBool,
    /// Services that have the tag.
    pub(crate) tagged: Mutex<Result<BTreeMap<ServiceKey, Arc<str>>, CallError>>,
    pub(crate) rules: Mutex<Result<RuleSet, String>>,
    /// What the machine knows out of the journal.
    pub(crate) known: Mutex<Vec<ServiceView>>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            clock: Arc::default(),
            log: Mutex::default(),
            deliveries: Mutex::default(),
            polls_begun: AtomicUsize::new(0),
            polls_ended: AtomicUsize::new(0),
            undeletable: Mutex::default(),
            journal_fails: AtomicBool::new(false),
            checkpoint_fails: AtomicBool::new(false),
            hangs: Mutex::default(),
            recovered: Mutex::default(),
            reads_ahead: Mutex::default(),
            write_takes: Mutex::default(),
            write_fails: Mutex::default(),
            write_panics: AtomicBool::new(false),
            fleet: Mutex::default(),
            clusters_fail: AtomicBool::new(false),
            tagged: Mutex::new(Ok(BTreeMap::new())),
            rules: Mutex::new(Ok(RuleSet::default())),
            known: Mutex::default(),
        }
    }
}

impl World {
    pub(crate) fn say(&self, what: impl Into<String>) {
        locked(&self.log).push(what.into());
    }

    /// Never returns if the call of this name is to hang.
    async fn perhaps_hang(&self, name: &str) {
        if locked(&self.hangs).contains(name) {
            std::future::pending::<()>().await;
        }
    }

    /// What was logged with one of these beginnings.
    pub(crate) fn logged(&self, beginnings: &[&str]) -> Vec<String> {
        locked(&self.log).iter().filter(|line| beginnings.iter().any(|b| line.starts_with(b))).cloned().collect()
    }

    /// One receive that finds these bodies; each is its own receipt.
    pub(crate) fn deliver(&self, bodies: &[&str]) {
        let message = |body: &&str| Message { receipt: receipt(body), body: (*body).to_owned(), receive_count: 1 };
        locked(&self.deliveries).push_back(Ok(bodies.iter().map(message).collect()));
    }

    pub(crate) fn ports(self: &Arc<Self>) -> Ports {
        let rules = Arc::clone(self);
        Ports {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            inbox: Arc::clone(self) as Arc<dyn Inbox>,
            fleet: Arc::clone(self) as Arc<dyn Fleet>,
            registrations: Arc::clone(self) as Arc<dyn Registrations>,
            observer: Arc::clone(self) as Arc<dyn Observe>,
            actuator: Some(Arc::clone(self) as Arc<dyn Actuator>),
            announcer: Some(Arc::clone(self) as Arc<dyn Announcer>),
            journal: Arc::clone(self) as Arc<dyn Journal>,
            lease: None,
            decode: Arc::new(decode),
            rules: Arc::new(move || Box::pin(std::future::ready(locked(&rules.rules).clone()))),
        }
    }
}

pub(crate) fn receipt(text: &str) -> Receipt {
    Receipt(Arc::from(text))
}

/// `ignored …` is ignored, `bad …` is no event, everything else is a service action of that name.
fn decode(body: &str) -> Result<Decoded, String> {
    match body.split(' ').next() {
        Some("bad") => Err("not an event".to_owned()),
        Some("ignored") => Ok(Decoded::Ignored("test")),
        _ => Ok(Decoded::Signal(Box::new(signal(body)))),
    }
}

pub(crate) fn signal(name: &str) -> Signal {
    let action = ServiceAction { service: ServiceKey::new("prod", "checkout"), name: Arc::from(name) };
    Signal { at: Timestamp::EPOCH, scope: Scope::default(), replayed: false, fact: Fact::Service(action) }
}

/// The name inside [`signal`].
pub(crate) fn name_of(input: &Input) -> Option<&str> {
    match input {
        Input::Signal(Signal { fact: Fact::Service(action), .. }) => Some(&action.name),
        _ => None,
    }
}

/// Now, on both clocks.
pub(crate) fn born(world: &World) -> Born {
    Born { at: world.clock.now(), elapsed: world.clock.elapsed() }
}

pub(crate) fn delete_write(id: u64, service: &str, expires_at: Timestamp) -> Effect {
    let service = ServiceKey::new("prod", service);
    let task_set = TaskSetArn::new(format!("{id}"));
    let write = Write::DeleteTaskSet { service: service.clone(), task_set };
    Effect::Write { id: EffectId(id), service, write, expires_at }
}

#[async_trait]
impl Inbox for World {
    async fn receive(&self) -> Result<Vec<Message>, CallError> {
        /// A future that is dropped before its end shows in the log.
        struct Whole<'a>(&'a World, bool);
        impl Drop for Whole<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.say("receive cancelled");
                }
            }
        }
        self.polls_begun.fetch_add(1, Ordering::Relaxed);
        let mut whole = Whole(self, false);
        let next = locked(&self.deliveries).pop_front();
        let found = if let Some(delivery) = next {
            delivery
        } else {
            self.clock.sleep(POLL).await;
            // What arrives during the poll is found at its end.
            locked(&self.deliveries).pop_front().unwrap_or_else(|| Ok(Vec::new()))
        };
        whole.1 = true;
        self.polls_ended.fetch_add(1, Ordering::Relaxed);
        found
    }

    async fn delete(&self, receipts: &[Receipt]) -> Vec<(Receipt, CallError)> {
        self.perhaps_hang("delete").await;
        let mut failed = Vec::new();
        for receipt in receipts {
            match locked(&self.undeletable).get_mut(receipt) {
                Some((left, class)) if *left > 0 => {
                    *left -= 1;
                    failed.push((receipt.clone(), failure(*class)));
                }
                _ => self.say(format!("delete {}", receipt.0)),
            }
        }
        self.say(format!("batch of {}", receipts.len()));
        failed
    }

    async fn depth(&self) -> Result<QueueDepth, CallError> {
        Ok(QueueDepth { waiting: u64::try_from(locked(&self.deliveries).len()).unwrap_or(u64::MAX), dead: Some(0) })
    }

    async fn extend(&self, receipts: &[Receipt], by: Duration) -> Vec<(Receipt, CallError)> {
        for receipt in receipts {
            self.say(format!("extend {} by {}s", receipt.0, by.as_secs()));
        }
        Vec::new()
    }
}

#[async_trait]
impl Journal for World {
    async fn load(&self) -> Result<Recovered, JournalError> {
        self.perhaps_hang("load").await;
        Ok(locked(&self.recovered).clone())
    }

    async fn append(&self, entries: Entries, incidents: &[Incident]) -> Result<(), JournalError> {
        self.perhaps_hang("append").await;
        if self.journal_fails.load(Ordering::Relaxed) {
            self.say("commit failed");
            return Err(JournalError::Failed { context: "append".into(), cause: "as the test wants it".into() });
        }
        self.say(format!("commit {} entries, {} incidents", entries.len(), incidents.len()));
        locked(&self.recovered).entries.extend_from_slice(&entries);
        Ok(())
    }

    async fn checkpoint(&self, state: Vec<u8>) -> Result<(), JournalError> {
        self.say("checkpoint");
        if self.checkpoint_fails.load(Ordering::Relaxed) {
            return Err(JournalError::Failed { context: "checkpoint".into(), cause: "as the test wants it".into() });
        }
        *locked(&self.recovered) = Recovered { checkpoint: Some(state), entries: Vec::new() };
        Ok(())
    }

    async fn incidents(&self, _: usize) -> Result<Vec<Incident>, JournalError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Actuator for World {
    async fn apply(&self, write: &Write) -> Result<(), CallError> {
        let Write::DeleteTaskSet { task_set, .. } = write else { panic!("the tests delete only") };
        self.say(format!("write {task_set} begins"));
        assert!(!self.write_panics.load(Ordering::Relaxed), "as the test wants it");
        let takes = *locked(&self.write_takes);
        self.clock.sleep(takes).await;
        self.say(format!("write {task_set} ends"));
        locked(&self.write_fails).map_or(Ok(()), |class| Err(failure(class)))
    }
}

#[async_trait]
impl Announcer for World {
    async fn announce(&self, announcement: &Announcement) -> Result<(), CallError> {
        self.say(format!("announce {}", announcement.id));
        Ok(())
    }
}

#[async_trait]
impl Observe for World {
    async fn observe(&self, ask: &Ask) -> Result<Observation, CallError> {
        self.say(format!("observe {} {:?}", ask.service, ask.urgency));
        self.perhaps_hang("observe").await;
        let ahead = locked(&self.reads_ahead).ok_or_else(|| failure(ErrorClass::NotFound))?;
        Ok(Observation {
            ask: ask.clone(),
            read_at: self.clock.now().plus(ahead),
            service: ServiceReading {
                scope: Scope::default(),
                status: ServiceStatus::Active,
                controller: Controller::External,
                desired_count: 1,
                task_sets: Vec::new(),
                tags: BTreeMap::new(),
            },
            task_sets_again: None,
            traffic: Traffic::NoLoadBalancer,
            targets: BTreeMap::new(),
            tasks: Vec::new(),
            alarms: None,
            alarms_unlisted: false,
            samples: None,
        })
    }
}

#[async_trait]
impl Registrations for World {
    async fn registered(&self) -> Result<BTreeMap<ServiceKey, Arc<str>>, CallError> {
        locked(&self.tagged).clone()
    }
}

#[async_trait]
impl Fleet for World {
    async fn clusters(&self) -> Result<Vec<Arc<str>>, CallError> {
        self.say("list clusters");
        if self.clusters_fail.load(Ordering::Relaxed) {
            return Err(failure(ErrorClass::Throttled));
        }
        Ok(locked(&self.fleet).keys().cloned().collect())
    }

    async fn services(&self, cluster: &str) -> Result<Vec<Arc<str>>, CallError> {
        self.say(format!("list services of {cluster}"));
        let listed = locked(&self.fleet).get(cluster).cloned();
        listed.unwrap_or(Some(Vec::new())).ok_or_else(|| failure(ErrorClass::Throttled))
    }

    async fn describe(&self, _: &str, _: &[Arc<str>]) -> Result<BTreeMap<ServiceKey, ServiceReading>, CallError> {
        Ok(BTreeMap::new())
    }

    async fn task_sets(&self, _: &ServiceKey, _: &[TaskSetId]) -> Result<Vec<TaskSet>, CallError> {
        Ok(Vec::new())
    }

    async fn tasks(&self, _: &ServiceKey, _: &[TaskArn], _: bool) -> Result<Vec<TaskReading>, CallError> {
        Ok(Vec::new())
    }
}
