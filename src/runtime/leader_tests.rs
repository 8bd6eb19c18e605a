//! Two workers and one table, on paused time: who acts, when the other takes over, and what the deposed one still does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::executor::Executor;
use super::fakes::{Scripted, World, born, delete_write, locked, name_of};
use super::health::{Health, Part};
use super::leader::{Held, Watcher};
use super::lease::{LENGTH, WRITE_WITHIN};
use super::{Handle, Ports, Settings, Worker, WorkerError};
use crate::engine::{self, Input, Step};
use crate::journal::TableJournal;
use crate::journal::fakes::MemoryTable;
use crate::model::{CallError, EffectId, ErrorClass, Outcome, Timestamp};
use crate::ports::{Change, Fields, Journal, JournalError, Lease, RowKey, Table, Tenure};
use crate::rules::{Rule, RuleSet};
use crate::telemetry::Metrics;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One replica's line to the table, which can be cut.
struct Line {
    table: Arc<MemoryTable>,
    cut: AtomicBool,
    /// Partitions can't be listed: the journal can't be read, and the lease can.
    unlisted: AtomicBool,
    /// Times that it was tried.
    lists: AtomicUsize,
}

impl Line {
    async fn passes(&self) -> Result<(), CallError> {
        if self.cut.load(Ordering::Relaxed) {
            sleep(seconds(20)).await;
            let message = "as the test wants it".into();
            return Err(CallError { class: ErrorClass::Transient, operation: "dynamodb".into(), code: None, message });
        }
        Ok(())
    }
}

#[async_trait]
impl Table for Line {
    async fn get(&self, key: &RowKey) -> Result<Option<Fields>, CallError> {
        self.passes().await?;
        self.table.get(key).await
    }

    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError> {
        self.passes().await?;
        if self.unlisted.load(Ordering::Relaxed) {
            self.lists.fetch_add(1, Ordering::Relaxed);
            let message = "as the test wants it".into();
            return Err(CallError { class: ErrorClass::Throttled, operation: "list".into(), code: None, message });
        }
        self.table.list(partition).await
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, CallError> {
        self.passes().await?;
        self.table.change(changes).await
    }
}

/// A line of its own to the table, and the journal at its end.
async fn journal(table: &Arc<MemoryTable>, name: &str) -> (Arc<Line>, Arc<TableJournal>) {
    let line = Arc::new(Line {
        table: Arc::clone(table),
        cut: AtomicBool::new(false),
        unlisted: AtomicBool::new(false),
        lists: AtomicUsize::new(0),
    });
    let journal = TableJournal::open(line.clone(), "table guardian", name).await.unwrap();
    (line, Arc::new(journal))
}

async fn acquire(journal: &Arc<TableJournal>) -> Held {
    let lease: Arc<dyn Lease> = journal.clone();
    let world = World::default();
    Watcher { lease: &lease, clock: &*world.clock, health: &Health::default() }.acquire().await
}

#[tokio::test(start_paused = true)]
async fn the_first_takes_a_free_lease_at_once_and_a_released_one_is_free() {
    let table = Arc::default();
    let begun = Instant::now();
    let held = acquire(&journal(&table, "first").await.1).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(seconds(60)).await;
    assert!(!held.term.is_lost());
    held.give_back().await;
    let begun = Instant::now();
    acquire(&journal(&table, "second").await.1).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_over_when_its_record_has_not_changed_for_exactly_its_length() {
    let table = Arc::default();
    let first = acquire(&journal(&table, "first").await.1).await;
    drop(first);
    sleep(Duration::from_millis(7_300)).await;
    let begun = Instant::now();
    acquire(&journal(&table, "second").await.1).await;
    assert_eq!(begun.elapsed(), LENGTH, "counted from when it was seen, whenever it was written");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_is_not_taken_over() {
    let table = Arc::default();
    let first = acquire(&journal(&table, "first").await.1).await;
    let second = journal(&table, "second").await.1;
    tokio::time::timeout(seconds(3600), acquire(&second)).await.err().unwrap();
    assert!(!first.term.is_lost());
}

#[tokio::test(start_paused = true)]
async fn the_holder_stops_before_anybody_can_take_over_whenever_its_line_is_cut() {
    for after in (0..60).map(|n| Duration::from_millis(n * 100)) {
        let table = Arc::default();
        let (line, journal_of_first) = journal(&table, "first").await;
        let first = acquire(&journal_of_first).await;
        let watching = tokio::spawn(async move {
            acquire(&journal(&table, "second").await.1).await;
            Instant::now()
        });
        sleep(seconds(20) + after).await;
        line.cut.store(true, Ordering::Relaxed);
        let cut = Instant::now();
        first.term.lost().await;
        let stopped = Instant::now();
        let taken = watching.await.unwrap();
        assert!(taken - stopped >= seconds(1), "stopped {:?} after the cut, taken {:?}", stopped - cut, taken - cut);
        assert!(taken - cut <= seconds(11), "taken {:?} after the cut", taken - cut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_loses_nothing() {
    use crate::journal::fakes::Fault;
    let table = Arc::<MemoryTable>::default();
    let held = acquire(&journal(&table, "first").await.1).await;
    for _ in 0..5 {
        table.go_wrong([Some(Fault::Unanswered), Some(Fault::Lost)]);
        sleep(seconds(5)).await;
    }
    assert!(!held.term.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_write_begins_only_when_it_ends_before_the_lease_does() {
    let table = Arc::default();
    let (line, journal) = journal(&table, "first").await;
    let held = acquire(&journal).await;
    for _ in 0..100 {
        assert!(held.term.has_room_for(WRITE_WITHIN), "there is always room while it is renewed");
        sleep(Duration::from_millis(170)).await;
    }
    sleep(seconds(1)).await;
    line.cut.store(true, Ordering::Relaxed);
    let cut = Instant::now();
    while held.term.has_room_for(WRITE_WITHIN) {
        sleep(Duration::from_millis(10)).await;
    }
    let no_room = Instant::now();
    held.term.lost().await;
    assert!(no_room.elapsed() + Duration::from_millis(20) >= WRITE_WITHIN, "{:?}", no_room.elapsed());
    assert!(no_room - cut <= seconds(4));
    assert!(!held.term.has_room_for(Duration::ZERO));
}

/// A worker on a shared table.
struct Replica {
    world: Arc<World>,
    line: Arc<Line>,
    inputs: Arc<Mutex<Vec<Input>>>,
    handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

/// Every signal is kept and deletes a task set; every answer is kept.
fn step(_: Timestamp, input: &Input) -> Step {
    match input {
        Input::Signal(_) => {
            let far = Timestamp::from_millis(i64::MAX);
            Step { changed: true, effects: vec![delete_write(1, "checkout", far)], ..Step::default() }
        }
        Input::Done(..) => Step { changed: true, ..Step::default() },
        _ => Step::default(),
    }
}

async fn replica(table: &Arc<MemoryTable>, name: &str) -> Replica {
    replica_that_recalls(table, name, RuleSet::default()).await
}

/// One to whom the journal brings back these rules.
async fn replica_that_recalls(table: &Arc<MemoryTable>, name: &str, rules: RuleSet) -> Replica {
    let world = Arc::new(World::default());
    let (line, journal) = journal(table, name).await;
    let ports = Ports { journal: journal.clone(), lease: Some(journal), ..world.ports() };
    let settings = engine::Settings { dry_run: false, sweep: seconds(30), fleet_brake: 3 };
    let metrics = Arc::new(Metrics::new().unwrap());
    let worker = Worker::new(ports, Settings { engine: settings, receivers: 1 }, metrics, Vec::new());
    let inputs: Arc<Mutex<Vec<Input>>> = Arc::default();
    let seen = Arc::clone(&inputs);
    let restore = move |_| {
        let seen = Arc::clone(&seen);
        Ok(Scripted {
            rules: rules.clone(),
            script: Box::new(move |now, input| {
                locked(&seen).push(input.clone());
                step(now, input)
            }),
            deadline: Arc::default(),
            services: Vec::new(),
        })
    };
    let (handle, shutdown) = (worker.handle(), CancellationToken::new());
    let task = tokio::spawn(worker.run_machine(restore, shutdown.clone()));
    Replica { world, line, inputs, handle, shutdown, task }
}

impl Replica {
    fn leads(&self) -> bool {
        self.shows("leader 1")
    }

    fn shows(&self, sample: &str) -> bool {
        let text = self.handle.metrics().render(self.handle.now()).unwrap();
        text.contains(&format!("\ntaskset_guardian_{sample}\n"))
    }

    fn signals(&self) -> Vec<String> {
        locked(&self.inputs).iter().filter_map(|input| name_of(input).map(str::to_owned)).collect()
    }

    fn standby(&self) -> Option<String> {
        self.handle.health().missing().into_iter().find(|(part, _)| *part == Part::Leader).map(|(_, why)| why)
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_standby_touches_nothing_and_says_so_and_takes_over_as_after_a_restart() {
    let table = Arc::default();
    let active = replica(&table, "first").await;
    sleep(seconds(1)).await;
    let standby = replica(&table, "second").await;
    active.world.deliver(&["one"]);
    standby.world.deliver(&["two"]);
    sleep(seconds(60)).await;
    assert_eq!((active.leads(), standby.leads()), (true, false));
    assert_eq!((active.signals(), standby.signals()), (vec!["one".to_owned()], vec![]));
    assert!(locked(&standby.world.log).is_empty(), "{:?}", locked(&standby.world.log));
    assert_eq!(standby.world.polls_begun.load(Ordering::Relaxed), 0);
    assert_eq!(standby.standby().as_deref(), Some("standby: first holds the lease"));
    assert_eq!(standby.handle.stuck_for(), None, "alive");
    let status = standby.handle.status().await.unwrap().worker;
    assert_eq!((status.role, status.ready), ("standby", false));
    assert_eq!(active.handle.status().await.unwrap().worker.role, "active");
    assert_eq!(active.standby(), None);

    active.task.abort();
    let killed = Instant::now();
    while !standby.leads() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(killed.elapsed() <= seconds(11), "{:?}", killed.elapsed());
    sleep(seconds(1)).await;
    assert_eq!(standby.signals(), ["one", "two"], "the first was replayed");
    let restarted = locked(&standby.inputs).iter().position(|input| *input == Input::Restarted);
    assert!(restarted > Some(0), "{restarted:?}");
    assert_eq!(standby.world.logged(&["write"]), ["write 1 begins", "write 1 ends"], "for its own signal");
    assert_eq!(
        (standby.handle.health().missing(), standby.handle.status().await.unwrap().worker.role),
        (vec![], "active")
    );
}

#[tokio::test(start_paused = true)]
async fn bad_rule_files_at_a_takeover_leave_those_in_force_that_the_journal_knows() {
    let of = |name: &str| RuleSet { rules: vec![Arc::new(Rule::observing(name))] };
    for (recalled, expected) in [(of("newest"), "newest"), (RuleSet::default(), "oldest")] {
        let table = Arc::default();
        let active = replica(&table, "first").await;
        sleep(seconds(1)).await;
        let standby = replica_that_recalls(&table, "second", recalled).await;
        *locked(&standby.world.rules) = Ok(of("oldest"));
        sleep(seconds(1)).await;
        *locked(&standby.world.rules) = Err("rules/web.toml:3:1: no".to_owned());
        active.end().await;
        sleep(seconds(15)).await;
        assert!(standby.leads());
        let given = |input: &Input| matches!(input, Input::Rules(rules) if *rules == of(expected));
        assert!(locked(&standby.inputs).iter().any(given), "{expected}: {:?}", locked(&standby.inputs));
        standby.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_hands_over_within_a_second() {
    let table = Arc::default();
    let active = replica(&table, "first").await;
    sleep(seconds(1)).await;
    let standby = replica(&table, "second").await;
    sleep(seconds(5)).await;
    active.end().await;
    sleep(Duration::from_millis(1_100)).await;
    assert!(standby.leads());
    standby.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_given_back_while_a_call_is_on_its_way() {
    let table = Arc::default();
    let active = replica(&table, "first").await;
    *locked(&active.world.write_takes) = seconds(60);
    // Eight at a time, and each is given up after five seconds: together they outlast an orderly end's patience.
    active.world.deliver(&["signal"; 80]);
    sleep(seconds(1)).await;
    let (world, journal) = (Arc::clone(&active.world), journal(&table, "second").await.1);
    active.end().await;
    let begun = world.logged(&["write"]).len();
    assert!(begun < 80, "some have not begun yet, and the last ones have not ended");
    assert!(!journal.look().await.unwrap().unwrap().released);
    sleep(seconds(60)).await;
    assert_eq!(world.logged(&["write"]).len(), begun, "nor do they begin any more");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_asked_to_end_ends_at_once() {
    let table = Arc::default();
    let _active = replica(&table, "first").await;
    sleep(seconds(1)).await;
    let standby = replica(&table, "second").await;
    sleep(seconds(3)).await;
    let begun = Instant::now();
    standby.end().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_line_is_cut_begins_no_effect_stands_by_and_can_take_over_again() {
    let table = Arc::default();
    let active = replica(&table, "first").await;
    sleep(seconds(1)).await;
    let standby = replica(&table, "second").await;
    *locked(&active.world.rules) = Err("rules/web.toml:3:1: no".to_owned());
    sleep(seconds(5)).await;
    assert!(active.shows("rules_last_reload_successful 0") && active.shows("queue_messages{queue=\"dead_letter\"} 0"));
    active.line.cut.store(true, Ordering::Relaxed);
    active.world.deliver(&["lost"]);
    sleep(seconds(25)).await;
    assert_eq!((active.leads(), standby.leads()), (false, true));
    assert!(active.shows("rules_last_reload_successful 1") && !active.shows("queue_messages{queue=\"dead_letter\"} 0"));
    assert!(active.world.logged(&["write", "delete"]).is_empty(), "{:?}", locked(&active.world.log));
    assert!(active.standby().unwrap().starts_with("standby"));
    assert!(!active.task.is_finished() && active.handle.stuck_for().is_none());
    let polls = active.world.polls_begun.load(Ordering::Relaxed);

    active.line.cut.store(false, Ordering::Relaxed);
    sleep(seconds(30)).await;
    assert_eq!(active.world.polls_begun.load(Ordering::Relaxed), polls, "it receives nothing");
    assert_eq!(active.standby().as_deref(), Some("standby: second holds the lease"));
    standby.task.abort();
    sleep(seconds(12)).await;
    assert!(active.leads());
    active.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_has_nothing_to_do_stops_too_while_its_long_poll_lasts() {
    let table = Arc::default();
    let active = replica(&table, "first").await;
    sleep(seconds(5)).await;
    active.line.cut.store(true, Ordering::Relaxed);
    // Polls begin at 0, 10, 20 s; the lease was renewed at 3 s.
    sleep(Duration::from_millis(7_500)).await;
    assert!(!active.leads() && active.standby().is_some());
    assert_eq!(active.world.polls_ended.load(Ordering::Relaxed), 1, "the second one is not cut short");
    sleep(seconds(60)).await;
    assert_eq!(active.world.polls_begun.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_slept_through_its_lease_finds_its_journal_taken_and_steps_down() {
    let table = Arc::<MemoryTable>::default();
    let active = replica(&table, "first").await;
    sleep(seconds(4)).await;
    // What a machine that is frozen with its clock can't see: its lease is over, and its successor has read the journal.
    let (_, thief) = journal(&table, "second").await;
    let record = thief.look().await.unwrap().unwrap();
    let tenure = thief.acquire(Some(&record), LENGTH).await.unwrap().unwrap();
    thief.load().await.unwrap();
    active.world.deliver(&["late"]);
    sleep(seconds(11)).await;
    assert!(!active.leads());
    assert!(active.world.logged(&["write", "delete"]).is_empty(), "{:?}", locked(&active.world.log));
    let kept = Tenure { beat: 1, ..tenure };
    assert!(thief.renew(&kept).await.unwrap());
    thief.append([b"mine".to_vec()].into(), &[]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_does_not_fit_into_the_lease_is_not_sent_and_one_that_hangs_is_given_up() {
    let table = Arc::default();
    let (line, journal) = journal(&table, "first").await;
    let held = acquire(&journal).await;
    let world = Arc::new(World::default());
    let (answers, mut done) = tokio::sync::mpsc::channel(8);
    let Ports { clock, observer, actuator, .. } = world.ports();
    let executor = Executor::new(clock, observer, actuator, None, answers, held.term.clone());
    let far = Timestamp::from_millis(i64::MAX);
    *locked(&world.write_takes) = seconds(60);
    line.cut.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    executor.begin(delete_write(1, "checkout", far), born(&world));
    let Input::Done(_, Outcome::Failed(error)) = done.recv().await.unwrap().input else { panic!("it was answered") };
    assert_eq!(
        (error.class, begun.elapsed()),
        (ErrorClass::Transient, WRITE_WITHIN),
        "whether it was applied is unknown"
    );
    assert!(!held.term.is_lost(), "given up before the lease is over");
    executor.begin(delete_write(2, "checkout", far), born(&world));
    assert_eq!(done.recv().await.unwrap().input, Input::Done(EffectId(2), Outcome::Expired));
    assert_eq!(world.logged(&["write"]), ["write 1 begins"]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_not_understood_at_takeover_ends_the_worker_and_frees_the_lease() {
    let table = Arc::<MemoryTable>::default();
    let (_, first) = journal(&table, "first").await;
    let tenure = first.acquire(None, LENGTH).await.unwrap().unwrap();
    first.load().await.unwrap();
    first.append([b"{}".to_vec()].into(), &[]).await.unwrap();
    first.release(&tenure).await.unwrap();
    let error = replica(&table, "second").await.task.await.unwrap().unwrap_err();
    assert!(matches!(error, WorkerError::Incompatible { .. }), "{error}");
    assert!(first.look().await.unwrap().unwrap().released);
    let refused = first.append([b"x".to_vec()].into(), &[]).await.unwrap_err();
    assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_can_not_be_read_at_takeover_frees_the_lease_and_is_tried_again_later_and_later() {
    let table = Arc::default();
    let replica = replica(&table, "first").await;
    replica.line.unlisted.store(true, Ordering::Relaxed);
    // At 0, 1, 3 and 7 s.
    for (at, lists) in [(500, 1), (1_500, 2), (3_500, 3), (7_500, 4)] {
        let before = [0, 500, 1_500, 3_500][lists - 1];
        sleep(Duration::from_millis(at - before)).await;
        assert_eq!(replica.line.lists.load(Ordering::Relaxed), lists, "after {at} ms");
    }
    assert!(replica.standby().unwrap().contains("as the test wants it"), "{:?}", replica.standby());
    assert_eq!(replica.handle.status().await.unwrap().worker.role, "standby");
    let (_, other) = journal(&table, "second").await;
    assert!(other.look().await.unwrap().unwrap().released, "whoever reads it may act");

    for _ in 0..60 {
        sleep(seconds(10)).await;
        assert_eq!(replica.handle.stuck_for(), None, "alive");
    }
    let lists = replica.line.lists.load(Ordering::Relaxed);
    assert!((20..=30).contains(&lists), "every thirty seconds: {lists}");
    replica.line.unlisted.store(false, Ordering::Relaxed);
    sleep(seconds(31)).await;
    assert!(replica.leads());
    replica.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_could_not_read_the_journal_ends_at_once_when_it_is_asked_to() {
    let table = Arc::default();
    let replica = replica(&table, "first").await;
    replica.line.unlisted.store(true, Ordering::Relaxed);
    sleep(seconds(40)).await;
    let begun = Instant::now();
    replica.end().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
