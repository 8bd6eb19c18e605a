//! The worker's promises, over a fake world and paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fakes::{Scripted, World, born, delete_write, failure, locked, name_of, receipt, signal};
use super::leader::Term;
use super::{Handle, Ports, Settings, Worker, WorkerError, entry};
use crate::engine::{self, Effect, Input, Step};
use crate::model::{Ask, ErrorClass, Outcome, ServiceKey, Timestamp, Urgency};
use crate::ports::{Clock, Recovered};
use crate::rules::{
    AfterPromotion, BlueCapacity, Compare, DeletePolicy, ErrorGates, Limits, Mode, Protect, Quarantine, RollbackPolicy,
    Rule, RuleSet, StabilityGates, Watch,
};
use crate::telemetry::Metrics;

/// A worker that runs, and what its machine was given.
struct Running {
    world: Arc<World>,
    inputs: Arc<Mutex<Vec<Input>>>,
    deadline: Arc<Mutex<Option<Timestamp>>>,
    handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

/// A machine for which every signal changes the state.
fn begin(world: &Arc<World>) -> Running {
    begin_with(world, |_, input| Step { changed: name_of(input).is_some(), ..Step::default() })
}

fn begin_with(world: &Arc<World>, script: impl FnMut(Timestamp, &Input) -> Step + Send + Sync + 'static) -> Running {
    begin_on(world, world.ports(), script)
}

fn begin_on(
    world: &Arc<World>,
    ports: Ports,
    script: impl FnMut(Timestamp, &Input) -> Step + Send + Sync + 'static,
) -> Running {
    begin_as_shard(world, ports, Vec::new(), script)
}

fn begin_as_shard(
    world: &Arc<World>,
    ports: Ports,
    only: Vec<Protect>,
    mut script: impl FnMut(Timestamp, &Input) -> Step + Send + Sync + 'static,
) -> Running {
    let settings = engine::Settings { dry_run: false, sweep: Duration::from_secs(30), fleet_brake: 3 };
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = Settings { engine: settings, receivers: 1 };
    let worker = Worker::new(ports, settings, metrics, Vec::new()).guarding_only(only);
    let inputs = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&inputs);
    let deadline: Arc<Mutex<Option<Timestamp>>> = Arc::default();
    let machine = Scripted {
        script: Box::new(move |now, input| {
            locked(&seen).push(input.clone());
            script(now, input)
        }),
        deadline: Arc::clone(&deadline),
        services: Vec::new(),
    };
    let (handle, shutdown) = (worker.handle(), CancellationToken::new());
    let task = tokio::spawn(worker.run_machine(once(machine), shutdown.clone()));
    Running { world: Arc::clone(world), inputs, deadline, handle, shutdown, task }
}

/// A worker without rivals recalls its machine once.
fn once(machine: Scripted) -> impl Fn(Option<Vec<u8>>) -> Result<Scripted, String> {
    let machine = Mutex::new(Some(machine));
    move |_| Ok(locked(&machine).take().unwrap())
}

impl Running {
    async fn after(&self, duration: Duration) {
        self.world.clock.sleep(duration).await;
    }

    async fn end(self) -> Result<(), WorkerError> {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }

    fn signals(&self) -> Vec<String> {
        locked(&self.inputs).iter().filter_map(|input| name_of(input).map(str::to_owned)).collect()
    }

    fn done(&self) -> Vec<(u64, Outcome)> {
        let done = |input: &Input| match input {
            Input::Done(id, outcome) => Some((id.0, outcome.clone())),
            _ => None,
        };
        locked(&self.inputs).iter().filter_map(done).collect()
    }

    fn swept(&self) -> Vec<BTreeSet<ServiceKey>> {
        let swept = |input: &Input| match input {
            Input::Swept(set) => Some(set.clone()),
            _ => None,
        };
        locked(&self.inputs).iter().filter_map(swept).collect()
    }

    fn count(&self, series: &str) -> f64 {
        let text = self.handle.metrics().render(self.world.clock.now()).unwrap();
        let line = text.lines().find(|line| line.starts_with(series) && line[series.len()..].starts_with(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn far() -> Timestamp {
    Timestamp::from_millis(i64::MAX)
}

fn rules(protect: &[(&str, &str)]) -> RuleSet {
    let entry =
        |(cluster, service): &(&str, &str)| Protect { cluster: Arc::from(*cluster), service: Arc::from(*service) };
    RuleSet {
        rules: vec![Arc::new(Rule {
            name: "web".into(),
            mode: Mode::Enforce,
            protect: protect.iter().map(entry).collect(),
            watch: Watch { bake: seconds(900), freshness: seconds(600) },
            stability: StabilityGates {
                window: seconds(300),
                task_failures: Some(3),
                steady_within: None,
                unhealthy_targets: None,
            },
            errors: ErrorGates::default(),
            compare: Compare { against_blue: true, false_rollback: None, patience: Duration::ZERO },
            rollback: RollbackPolicy {
                drain: seconds(60),
                blue_capacity: BlueCapacity::Restore,
                after_promotion: AfterPromotion::Rollback,
                delete: DeletePolicy::Force,
            },
            limits: Limits { rollbacks_per_day: 3 },
            quarantine: Quarantine::default(),
        })],
    }
}

fn keys(names: &[(&str, &str)]) -> BTreeSet<ServiceKey> {
    names.iter().map(|(cluster, service)| ServiceKey::new(cluster, service)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_is_deleted_after_its_commit_and_effects_begin_after_it_too() {
    let world = Arc::new(World::default());
    world.deliver(&["one", "two"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some("two") => Step { changed: true, effects: vec![delete_write(7, "checkout", far())], ..Step::default() },
        Some(_) => Step { changed: true, ..Step::default() },
        None => Step::default(),
    });
    running.after(seconds(1)).await;
    assert_eq!(
        world.logged(&["commit", "delete", "write", "batch"]),
        ["commit 2 entries, 0 incidents", "write 7 begins", "write 7 ends", "delete one", "delete two", "batch of 2"]
    );
    assert_eq!(running.done(), [(7, Outcome::Applied)]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_fails_nothing_leaves_and_when_it_heals_all_goes_on() {
    let world = Arc::new(World::default());
    world.journal_fails.store(true, Ordering::Relaxed);
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some(_) => Step { changed: true, effects: vec![delete_write(7, "checkout", far())], ..Step::default() },
        None => Step::default(),
    });
    running.after(seconds(40)).await;
    assert!(world.logged(&["delete", "write"]).is_empty(), "{:?}", locked(&world.log));
    assert_eq!(world.logged(&["extend"]).first().map(String::as_str), Some("extend one by 60s"));
    let missing = running.handle.health().missing();
    assert!(missing.iter().any(|(part, reason)| part.as_str() == "journal" && reason.contains("as the test")));
    assert!(running.count("taskset_guardian_journal_commit_failures_total") >= 4.0);
    assert_eq!(running.handle.health().stuck_for(running.handle.now()), None, "it waits, it is not stuck");
    assert!(running.handle.status().await.is_some(), "and it still answers");

    world.journal_fails.store(false, Ordering::Relaxed);
    running.after(seconds(11)).await;
    assert_eq!(
        world.logged(&["commit 1", "delete", "write"]),
        ["commit 1 entries, 0 incidents", "write 7 begins", "write 7 ends", "delete one"]
    );
    assert_eq!(running.handle.health().missing(), []);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_journal_never_heals_ends_with_the_reason_and_deletes_nothing() {
    let world = Arc::new(World::default());
    world.journal_fails.store(true, Ordering::Relaxed);
    world.deliver(&["one"]);
    let running = begin(&world);
    running.after(seconds(5)).await;
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Journal(_)), "{error}");
    assert!(world.logged(&["delete", "checkpoint"]).is_empty());
}

/// Found by `tests/shell`, with calls that get no answer.
#[tokio::test(start_paused = true)]
async fn whatever_hangs_a_worker_ends_before_it_is_killed() {
    for (call, in_order) in [("delete", true), ("append", false), ("load", true)] {
        let world = Arc::new(World::default());
        locked(&world.hangs).insert(call);
        world.deliver(&["one"]);
        let running = begin(&world);
        running.after(seconds(3)).await;
        let told = world.clock.now();
        let ended = running.end().await;
        let took = world.clock.now().since(told);
        assert!(took <= seconds(25), "{call} hangs, and the end takes {took:?}");
        match ended {
            Ok(()) => assert!(in_order, "{call}"),
            Err(error) => assert!(!in_order && matches!(error, WorkerError::Overdue), "{call}: {error}"),
        }
        assert_eq!(world.logged(&["delete"]), [] as [&str; 0], "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_needs_no_commit_but_its_message_is_deleted() {
    let world = Arc::new(World::default());
    world.deliver(&["duplicate", "ignored this"]);
    let running = begin_with(&world, |_, _| Step::default());
    running.after(seconds(1)).await;
    assert_eq!(world.logged(&["commit", "delete"]).len(), 2);
    assert_eq!(running.signals(), ["duplicate"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_message_is_left_alone_and_its_neighbours_are_not() {
    let world = Arc::new(World::default());
    world.deliver(&["one", "bad {", "ignored x", "two"]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    let mut deleted = world.logged(&["delete"]);
    deleted.sort();
    assert_eq!(deleted, ["delete ignored x", "delete one", "delete two"]);
    assert_eq!(running.signals(), ["one", "two"]);
    for (outcome, count) in [("signal", 2.0), ("ignored", 1.0), ("undecodable", 1.0)] {
        let series = format!("taskset_guardian_messages_total{{outcome=\"{outcome}\"}}");
        assert!((running.count(&series) - count).abs() < f64::EPSILON, "{series}");
    }
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_receive_in_flight_at_shutdown_is_waited_for_and_its_messages_are_handled() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    running.after(seconds(3)).await;
    assert_eq!(world.polls_begun.load(Ordering::Relaxed), 1);
    world.deliver(&["late"]);
    let begun = world.clock.now();
    running.end().await.unwrap();
    assert_eq!(world.clock.now().since(begun), seconds(7), "no longer than the poll");
    assert_eq!(
        world.logged(&["receive", "commit", "delete", "checkpoint"]),
        ["commit 1 entries, 0 incidents", "checkpoint", "delete late"]
    );
    assert_eq!(world.polls_begun.load(Ordering::Relaxed), 1, "no new receive began");
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_at_shutdown_is_answered_and_nothing_new_begins() {
    let world = Arc::new(World::default());
    *locked(&world.write_takes) = seconds(12);
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match input {
        Input::Signal(_) => Step { changed: true, effects: vec![delete_write(1, "a", far())], ..Step::default() },
        Input::Done(..) => Step { changed: true, effects: vec![delete_write(2, "a", far())], ..Step::default() },
        _ => Step::default(),
    });
    running.after(seconds(1)).await;
    let inputs = Arc::clone(&running.inputs);
    running.end().await.unwrap();
    assert!(locked(&inputs).iter().any(|input| matches!(input, Input::Done(..))));
    assert_eq!(world.logged(&["write"]), ["write 1 begins", "write 1 ends"]);
    assert_eq!(world.logged(&["commit", "checkpoint"]).last().map(String::as_str), Some("checkpoint"));
}

#[tokio::test(start_paused = true)]
async fn an_expired_write_is_not_sent_even_when_it_expired_in_the_queue_behind_others() {
    let world = Arc::new(World::default());
    *locked(&world.write_takes) = seconds(5);
    world.deliver(&["one"]);
    let soon = world.clock.now().plus(seconds(3));
    // As many as there is room for, one that waits for room too long, and one that was late from the beginning.
    let room = u64::try_from(super::executor::DELETES).unwrap();
    let running = begin_with(&world, move |_, input| match input {
        Input::Signal(_) => {
            let late = delete_write(room + 2, "a", Timestamp::EPOCH);
            let effects = (1..=room + 1).map(|id| delete_write(id, "a", soon)).chain([late]).collect();
            Step { changed: true, effects, ..Step::default() }
        }
        _ => Step::default(),
    });
    running.after(seconds(9)).await;
    let begun = world.logged(&["write"]).into_iter().filter(|line| line.ends_with("begins")).collect::<BTreeSet<_>>();
    assert_eq!(begun, (1..=room).map(|id| format!("write {id} begins")).collect());
    let done: std::collections::BTreeMap<_, _> = running.done().into_iter().collect();
    let sent = (1..=room).map(|id| (id, Outcome::Applied));
    assert_eq!(done, sent.chain([(room + 1, Outcome::Expired), (room + 2, Outcome::Expired)]).collect());
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_that_users_wait_for_ends_a_less_urgent_one_and_one_answer_comes() {
    let world = Arc::new(World::default());
    locked(&world.hangs).insert("observe");
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| {
        let urgency = match name_of(input) {
            Some("one") => Urgency::Routine,
            Some(_) => Urgency::Traffic,
            None => return Step::default(),
        };
        let ask = Ask { urgency, ..Ask::examination(ServiceKey::new("prod", "a")) };
        Step { effects: vec![Effect::Observe(ask)], ..Step::default() }
    });
    running.after(seconds(1)).await;
    locked(&world.hangs).clear();
    world.deliver(&["two"]);
    running.after(seconds(30)).await;
    assert_eq!(world.logged(&["observe"]), ["observe prod/a Routine", "observe prod/a Traffic"]);
    let answers = locked(&running.inputs).iter().filter(|input| matches!(input, Input::Observed(..))).count();
    assert_eq!(answers, 1);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writes_that_are_sent_together_do_not_wait_for_each_other() {
    let world = Arc::new(World::default());
    *locked(&world.write_takes) = seconds(1);
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match input {
        Input::Signal(_) => {
            let effects = vec![delete_write(1, "a", far()), delete_write(2, "a", far()), delete_write(3, "b", far())];
            Step { changed: true, effects, ..Step::default() }
        }
        _ => Step::default(),
    });
    running.after(Duration::from_millis(500)).await;
    let mut begun = world.logged(&["write"]);
    begun.sort();
    assert_eq!(begun, ["write 1 begins", "write 2 begins", "write 3 begins"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_write_is_answered_whatever_happens() {
    for (class, panics, expected) in [
        (Some(ErrorClass::NotFound), false, Outcome::AlreadyDone),
        (Some(ErrorClass::Denied), false, Outcome::Failed(failure(ErrorClass::Denied))),
        (None, true, Outcome::Applied),
    ] {
        let world = Arc::new(World::default());
        *locked(&world.write_fails) = class;
        world.write_panics.store(panics, Ordering::Relaxed);
        world.deliver(&["one"]);
        let running = begin_with(&world, |_, input| match input {
            Input::Signal(_) => Step { effects: vec![delete_write(1, "a", far())], ..Step::default() },
            _ => Step::default(),
        });
        running.after(seconds(1)).await;
        match running.done().as_slice() {
            [(1, Outcome::Failed(error))] if panics => assert_eq!(error.class, ErrorClass::Transient),
            [(1, outcome)] => assert_eq!(*outcome, expected),
            other => panic!("{other:?}"),
        }
        running.end().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_has_nothing_to_write_with() {
    let world = Arc::new(World::default());
    let (answers, mut done) = tokio::sync::mpsc::channel(8);
    let ports = world.ports();
    let executor = super::executor::Executor::new(ports.clock, ports.observer, None, None, answers, Term::endless());
    executor.begin(delete_write(1, "a", far()), born(&world));
    executor.close().wait().await;
    assert_eq!(done.recv().await, Some(Input::Done(crate::model::EffectId(1), Outcome::Suppressed)));
    assert!(locked(&world.log).is_empty(), "{:?}", locked(&world.log));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_waits_until_the_entries_behind_it_have_its_size() {
    let entry = entry::encode(Timestamp::from_millis(5_000), &Input::Signal(signal("before"))).unwrap();
    let (entries, size) = (vec![entry.clone(); 2000], 2000 * entry.len());
    for (checkpoint, is_due) in [(size, true), (size * 2, false)] {
        let world = Arc::new(World::default());
        *locked(&world.recovered) = Recovered { checkpoint: Some(vec![0; checkpoint]), entries: entries.clone() };
        let running = begin_with(&world, |_, _| Step { changed: true, ..Step::default() });
        running.after(seconds(1)).await;
        assert_eq!(!world.logged(&["checkpoint"]).is_empty(), is_due, "of {checkpoint} bytes, behind {size}");
        running.end().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_replays_the_journal_with_its_own_times_and_begins_no_old_effect() {
    let world = Arc::new(World::default());
    let old = Timestamp::from_millis(5_000);
    let bytes = entry::encode(old, &Input::Signal(signal("before"))).unwrap();
    *locked(&world.recovered) = Recovered { checkpoint: Some(b"state".to_vec()), entries: vec![bytes] };
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let running = begin_with(&world, move |now, input| {
        locked(&seen).push(now);
        match input {
            Input::Signal(_) => Step { changed: true, effects: vec![delete_write(1, "a", far())], ..Step::default() },
            Input::Restarted => Step { changed: true, effects: vec![delete_write(2, "a", far())], ..Step::default() },
            _ => Step::default(),
        }
    });
    running.after(seconds(1)).await;
    assert_eq!(locked(&times)[0], old);
    assert!(matches!(locked(&running.inputs)[..3], [Input::Signal(_), Input::Restarted, Input::Rules(_)]));
    assert_eq!(world.logged(&["write", "commit"]), ["commit 1 entries, 0 incidents", "write 2 begins", "write 2 ends"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_another_version_is_refused_with_the_cure() {
    let world = Arc::new(World::default());
    *locked(&world.recovered) = Recovered { checkpoint: None, entries: vec![b"{}".to_vec()] };
    let error = begin(&world).task.await.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("an entry that this version can't read") && error.contains("move the journal away"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_becomes_a_tick_and_a_stale_one_does_not_spin() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    running.after(seconds(1)).await;
    let ticks = || locked(&running.inputs).iter().filter(|input| **input == Input::Tick).count();
    *locked(&running.deadline) = Some(world.clock.now().plus(seconds(7)));
    running.after(seconds(6)).await;
    assert_eq!(ticks(), 0);
    running.after(seconds(6)).await;
    let after = ticks();
    assert!((1..=260).contains(&after), "the deadline stays in the past for 5 s: {after} ticks");
    *locked(&running.deadline) = None;
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_for_a_passing_reason_is_tried_again_and_others_are_not() {
    let world = Arc::new(World::default());
    locked(&world.undeletable).insert(receipt("throttled"), (1, ErrorClass::Throttled));
    locked(&world.undeletable).insert(receipt("refused"), (9, ErrorClass::Rejected));
    world.deliver(&["throttled", "refused", "fine"]);
    let running = begin(&world);
    running.after(seconds(8)).await;
    assert_eq!(world.logged(&["delete", "batch"]), ["delete fine", "batch of 3", "delete throttled", "batch of 1"]);
    assert_eq!(locked(&world.undeletable)[&receipt("refused")].0, 8, "tried once");
    running.end().await.unwrap();
}

/// In receives of ten.
fn deliver_many(world: &World, signals: usize) {
    let bodies: Vec<_> = (0..signals).map(|n| format!("m{n}")).collect();
    for chunk in bodies.chunks(10) {
        world.deliver(&chunk.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_signals_is_committed_together() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    running.after(seconds(1)).await;
    // More than there is room for at once.
    deliver_many(&world, 300);
    running.after(seconds(30)).await;
    assert_eq!(world.logged(&["commit"]), ["commit 300 entries, 0 incidents"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_more_of_a_flood() {
    let world = Arc::new(World::default());
    let takes = Duration::from_millis(1);
    *locked(&world.write_takes) = takes;
    let times: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
    let seen = Arc::clone(&times);
    let running = begin_with(&world, move |now, input| match input {
        Input::Signal(_) if locked(&seen).is_empty() => {
            locked(&seen).push(now);
            Step { effects: vec![delete_write(7, "checkout", far())], ..Step::default() }
        }
        Input::Done(..) => {
            locked(&seen).push(now);
            Step::default()
        }
        _ => Step::default(),
    });
    running.after(seconds(1)).await;
    deliver_many(&world, 600);
    running.after(seconds(30)).await;
    let times = std::mem::take(&mut *locked(&times));
    assert_eq!(times, [times[0], times[0].plus(takes)]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletes_go_out_in_full_batches() {
    let world = Arc::new(World::default());
    deliver_many(&world, 23);
    let running = begin(&world);
    running.after(seconds(1)).await;
    assert_eq!(world.logged(&["batch"]), ["batch of 10", "batch of 10", "batch of 3"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_denied_drops_readiness_and_a_good_receive_restores_it() {
    let world = Arc::new(World::default());
    for _ in 0..3 {
        locked(&world.deliveries).push_back(Err(failure(ErrorClass::Denied)));
    }
    let running = begin(&world);
    running.after(Duration::from_millis(6500)).await;
    assert_eq!(world.polls_begun.load(Ordering::Relaxed), 3, "at 0 s, 1 s, 3 s; the next at 7 s");
    assert!(
        running.handle.health().missing().iter().any(|(part, why)| part.as_str() == "queue" && why.contains("denied"))
    );
    running.after(seconds(11)).await;
    assert_eq!(running.handle.health().missing(), []);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bad_rule_file_keeps_the_last_good_rules_and_is_fatal_only_at_start() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("prod", "checkout")]));
    world.deliver(&[]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    let loaded =
        |running: &Running| locked(&running.inputs).iter().filter(|input| matches!(input, Input::Rules(_))).count();
    assert_eq!((loaded(&running), running.swept()), (1, vec![keys(&[("prod", "checkout")])]));

    *locked(&world.rules) = Err("web.toml:3:1: unknown key".to_owned());
    running.after(seconds(3)).await;
    assert_eq!(loaded(&running), 1, "nothing changed for the engine");
    assert!(running.count("taskset_guardian_rules_last_reload_successful").abs() < f64::EPSILON);
    assert_eq!(running.handle.health().missing(), [], "the last good rules protect");

    *locked(&world.rules) = Ok(rules(&[("prod", "cart")]));
    running.after(seconds(3)).await;
    assert_eq!(loaded(&running), 2);
    assert_eq!(running.swept().last(), Some(&keys(&[("prod", "cart")])), "swept at once, not 30 s later");
    assert!((running.count("taskset_guardian_rules_last_reload_successful") - 1.0).abs() < f64::EPSILON);
    running.end().await.unwrap();

    *locked(&world.rules) = Err("web.toml:3:1: unknown key".to_owned());
    let error = begin(&world).task.await.unwrap().unwrap_err();
    assert!(matches!(&error, WorkerError::Rules(diagnostics) if diagnostics.contains("web.toml:3:1")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_sweep_lists_what_globs_match_and_a_failing_list_drops_nobody() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("prod", "checkout-*"), ("eu-?", "*"), ("other", "literal")]));
    let services = |names: &[&str]| Some(names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>());
    locked(&world.fleet).insert("prod".into(), services(&["checkout-web", "checkout-api", "billing"]));
    locked(&world.fleet).insert("eu-1".into(), services(&["cart"]));
    locked(&world.fleet).insert("us-1".into(), services(&["cart"]));
    world.deliver(&[]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    let all = [("prod", "checkout-web"), ("prod", "checkout-api"), ("eu-1", "cart"), ("other", "literal")];
    assert_eq!(running.swept(), [keys(&all)]);
    assert!(world.logged(&["list services of us-1", "list services of other"]).is_empty(), "nothing to find there");
    assert_eq!(running.handle.health().missing(), []);

    locked(&world.fleet).insert("prod".into(), None);
    world.clusters_fail.store(true, Ordering::Relaxed);
    running.after(seconds(30)).await;
    assert_eq!(running.swept().last(), Some(&keys(&all)));
    assert!(running.handle.health().missing().iter().any(|(part, _)| part.as_str() == "sweep"));

    locked(&world.fleet).insert("prod".into(), services(&["checkout-api"]));
    world.clusters_fail.store(false, Ordering::Relaxed);
    running.after(seconds(30)).await;
    assert_eq!(running.swept().last(), Some(&keys(&[all[1], all[2], all[3]])), "gone is gone, once AWS says so");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_sweep_finds_what_is_registered_by_tag_and_does_without_when_that_is_denied() {
    let world = Arc::new(World::default());
    let web: BTreeMap<_, Arc<str>> = BTreeMap::from([(ServiceKey::new("prod", "web"), Arc::from("strict"))]);
    *locked(&world.tagged) = Ok(web.clone());
    world.deliver(&[]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    assert!(locked(&running.inputs).contains(&Input::Registered(web)));

    *locked(&world.tagged) = Err(failure(ErrorClass::Throttled));
    running.after(seconds(30)).await;
    assert!(running.handle.health().missing().iter().any(|(part, _)| part.as_str() == "sweep"), "that is a fault");
    *locked(&world.tagged) = Err(failure(ErrorClass::Denied));
    running.after(seconds(30)).await;
    assert_eq!(running.handle.health().missing(), [], "who protects by files alone need not allow it");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shard_leaves_the_services_of_others_alone_whether_a_file_or_a_tag_protects_them() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("prod", "*"), ("prod", "billing"), ("prod", "cart")]));
    locked(&world.fleet).insert("prod".into(), Some(vec!["cart".into(), "checkout".into(), "billing".into()]));
    let tagged = |names: &[&str]| -> BTreeMap<_, Arc<str>> {
        names.iter().map(|name| (ServiceKey::new("prod", name), Arc::from("strict"))).collect()
    };
    *locked(&world.tagged) = Ok(tagged(&["web", "chat"]));
    world.deliver(&[]);
    let only = vec![Protect { cluster: "prod".into(), service: "c*".into() }];
    let running = begin_as_shard(&world, world.ports(), only, |_, _| Step::default());
    running.after(seconds(1)).await;
    assert_eq!(running.swept(), [keys(&[("prod", "cart"), ("prod", "checkout")])]);
    assert!(locked(&running.inputs).contains(&Input::Registered(tagged(&["chat"]))));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_part_that_dies_ends_the_worker() {
    let world = Arc::new(World::default());
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some(_) => panic!("as the test wants it"),
        None => Step::default(),
    });
    let error = running.task.await.unwrap().unwrap_err();
    assert!(matches!(error, WorkerError::Part { .. }), "{error}");
    assert!(world.logged(&["delete"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_next_worker_goes_on_from_the_journal_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guardian.redb");
    let run = async |world: &Arc<World>| {
        let journal = Arc::new(crate::journal::RedbJournal::open(&path).await.unwrap());
        let running = begin_on(world, Ports { journal, ..world.ports() }, |_, input| Step {
            changed: name_of(input).is_some(),
            ..Step::default()
        });
        running.after(seconds(2)).await;
        running
    };
    let world = Arc::new(World::default());
    world.deliver(&["one", "two"]);
    let crashed = run(&world).await;
    crashed.task.abort();
    assert!(crashed.task.await.unwrap_err().is_cancelled());

    world.deliver(&["three"]);
    let next = run(&world).await;
    assert_eq!(next.signals(), ["one", "two", "three"]);
    assert!(matches!(locked(&next.inputs)[2], Input::Restarted), "the first two were replayed");
    next.end().await.unwrap();
    assert_eq!(run(&world).await.signals(), Vec::<String>::new(), "an orderly end leaves a checkpoint, no entries");
}
