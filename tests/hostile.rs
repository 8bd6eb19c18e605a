//! The real binary behind a queue full of old failures: well-formed stops of two living greens, six hours old or out of an
//! archive, and behind them the events of one green that really crashes. Real time, short delays.
//!
//! A release build sends 100,000 of them, a debug build 5,000; `HOSTILE_EVENTS` says otherwise.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/changes.rs"]
mod changes;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskset_guardian::model::{Role, ServiceKey, Split, Timestamp};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, EventEntry, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Act, Crash, Delivery, ServiceSetup, Setup, Timing, Version, World};

use changes::change;
use process::{Process, eventually, free_address, guardian, peak_memory};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";
const DEAD_LETTERS: &str = "http://sandbox/queue/taskset-guardian-dlq";
const EVENTS: usize = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

/// After the last message: one read of AWS and one call, on cores that others use too.
const SLACK: Duration = Duration::from_secs(5);

/// Of the worker, in MiB. It holds what its channels have room for, whatever the queue holds.
const MOST_MEMORY: u64 = 128;

/// Every hostile task's id begins like this.
const HOSTILE: &str = "deadbeef";

/// What ECS sends, in several moods.
const STOPS: [&str; 5] = [
    include_str!("fixtures/events/task-stop-essential-container.json"),
    include_str!("fixtures/events/task-stop-container-health.json"),
    include_str!("fixtures/events/task-stop-elb-health.json"),
    include_str!("fixtures/events/task-stop-out-of-memory.json"),
    include_str!("fixtures/events/task-stop-failed-to-start-image-missing.json"),
];

const RULE: &str = r#"
name = "all"

[[protect]]
cluster = "prod"
service = "*"

[stability]
task_failures = 3

[rollback]
drain = "1s"
"#;

/// A world in which green is opened, and crashes, when half of the hostile messages have been received: what its end is
/// told by comes behind the other half.
struct Besieged {
    world: World,
    hostile: usize,
    received: usize,
    first_received: Option<Instant>,
    opened: Option<Instant>,
    /// What was announced before that.
    said_before: Vec<EventEntry>,
    /// The first change of a service or a load balancer.
    acted: Option<Instant>,
    /// The queue was empty for the first time after green was opened.
    drained: Option<Instant>,
}

impl Besieged {
    fn took(&mut self, messages: usize) {
        self.first_received.get_or_insert_with(Instant::now);
        self.received += messages;
        if self.opened.is_none() && self.received >= self.hostile / 2 {
            self.said_before = self.world.announcements().to_vec();
            for act in [Act::ScaleTaskSet(Role::Green, 100.0), Act::SetWeights { blue: 90, green: 10 }] {
                self.world.person(&checkout(), &act);
            }
            self.opened = Some(Instant::now());
        }
    }

    fn waiting(&mut self, queue: &str) -> usize {
        let ask = Call::GetQueueAttributes { queue_url: queue.to_owned() };
        let Reply::Attributes(all) = self.world.call(ask).unwrap() else { panic!() };
        let number = |name: &str| all[name].parse::<usize>().unwrap();
        number("ApproximateNumberOfMessages") + number("ApproximateNumberOfMessagesNotVisible")
    }
}

impl Backend for Besieged {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let (changes, deletes) = (change(&call).is_some(), matches!(call, Call::DeleteMessages { .. }));
        let reply = self.world.call(call)?;
        if let Reply::Messages(messages) = &reply {
            self.took(messages.len());
        }
        if changes {
            self.acted.get_or_insert_with(Instant::now);
        }
        if deletes && self.opened.is_some() && self.drained.is_none() && self.waiting(QUEUE) == 0 {
            self.drained = Some(Instant::now());
        }
        Ok(reply)
    }
}

impl Timed for Besieged {
    fn advance_to(&mut self, now: Timestamp) {
        self.world.advance_to(now);
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn next_event(&self) -> Option<Timestamp> {
        self.world.next_event()
    }
}

fn checkout() -> ServiceKey {
    ServiceKey::new("prod", "checkout")
}

fn payments() -> ServiceKey {
    ServiceKey::new("prod", "payments")
}

/// Two greens, both there for twenty seconds when the worker begins: that of payments is sound and has users; that of
/// checkout stands at 0 %, and its tasks will crash.
fn two_deployments() -> Setup {
    let create =
        |version: &str, scale| (Duration::from_secs(1), Act::CreateTaskSet { version: version.to_owned(), scale });
    let shift = (Duration::from_secs(10), Act::SetWeights { blue: 50, green: 50 });
    let crash = Crash { after: Duration::from_secs(1), exit_code: 1, out_of_memory: false };
    let failing = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    Setup {
        services: vec![
            ServiceSetup { key: checkout(), script: vec![create("checkout:88", 0.0)], ..ServiceSetup::default() },
            ServiceSetup {
                key: payments(),
                version: "payments:30".to_owned(),
                script: vec![create("payments:31", 100.0), shift],
                ..ServiceSetup::default()
            },
        ],
        versions: BTreeMap::from([("checkout:88".to_owned(), failing)]),
        timing: Timing { deregistration: Duration::from_secs(1), ..Timing::default() },
        delivery: Delivery { delay: (Duration::from_millis(20), Duration::from_millis(100)), ..Delivery::default() },
        drain: Duration::from_secs(1),
        ..Setup::default()
    }
}

/// Id of a service's green, and the ARNs of the tasks that run in either of its task sets.
fn green_and_tasks(world: &mut World, key: &ServiceKey) -> (String, Vec<String>) {
    let (cluster, service) = (key.cluster.to_string(), key.service.to_string());
    let describe = Call::DescribeServices { cluster: cluster.clone(), services: vec![service.clone()] };
    let Reply::Services { services, .. } = world.call(describe).unwrap() else { panic!() };
    let list = Call::ListTasks { cluster, service: Some(service), started_by: None, stopped: false };
    let Reply::Arns(tasks) = world.call(list).unwrap() else { panic!() };
    (services[0].task_sets.last().unwrap().id.clone(), tasks)
}

/// Hostile events about the greens in turn. Most are of tasks that ECS does not know; every seventh says of a running task
/// that it ended. Every tenth comes out of an archive and is minutes old, so that only its mark tells; the others
/// are six hours old.
fn hostile(world: &mut World, count: usize) -> Vec<String> {
    let templates = STOPS.map(|text| serde_json::from_str::<Value>(text).unwrap());
    let greens = [checkout(), payments()].map(|key| (green_and_tasks(world, &key), key));
    let now = world.now();
    let event = |number: usize| {
        let ((green, running), key) = &greens[number % greens.len()];
        let mut event = templates[number % templates.len()].clone();
        let replayed = number % 10 == 3;
        let age = if replayed { Duration::from_mins(1) } else { Duration::from_hours(6) };
        let at = now.minus(age + Duration::from_millis(u64::try_from(number % 60_000).unwrap())).to_string();
        let unknown = || format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{HOSTILE}{number:024x}");
        let known = || running.get(number % running.len().max(1)).cloned();
        let task = if number % 7 == 5 { known() } else { None }.unwrap_or_else(unknown);
        event["id"] = json!(format!("00000000-0000-4000-8000-{number:012x}"));
        event["time"] = json!(at);
        event["resources"] = json!([task]);
        if replayed {
            event["replay-name"] = json!("last-week");
        }
        let detail = &mut event["detail"];
        for time in ["stoppingAt", "executionStoppedAt", "stoppedAt", "updatedAt"] {
            detail[time] = json!(at);
        }
        detail["group"] = json!(format!("service:{}", key.service));
        detail["startedBy"] = json!(green);
        detail["taskArn"] = json!(task);
        event.to_string()
    };
    (0..count).map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_old_failures_decide_nothing_and_do_not_hold_up_the_real_one() {
    let count = figures::set("HOSTILE_EVENTS", EVENTS);
    let mut world = World::new(7, SystemClock.now().minus(Duration::from_secs(20)), two_deployments());
    world.advance_to(SystemClock.now());
    let bodies = hostile(&mut world, count);
    let bytes = bodies.iter().map(String::len).sum::<usize>() / count;
    for body in bodies {
        world.call(Call::SendMessage { queue_url: QUEUE.to_owned(), body }).unwrap();
    }
    let besieged = Besieged {
        world,
        hostile: count,
        received: 0,
        first_received: None,
        opened: None,
        said_before: Vec::new(),
        acted: None,
        drained: None,
    };
    let sandbox = Sandbox::start(besieged, Arc::new(SystemClock), WireSettings::default()).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/all.toml"), RULE).unwrap();
    let mut command = guardian(directory.path(), &sandbox.endpoint());
    // No sweep comes to the events' help.
    command.args(["run", "--queue-url", QUEUE, "--rules", "rules", "--state", "guardian.redb"]).args([
        "--listen",
        &free_address(),
        "--sweep",
        "5m",
    ]);
    let worker = Process::start("worker", command, directory.path());

    eventually("half of them are received", async || sandbox.with(|besieged| besieged.opened)).await;
    eventually("the real breach is rolled back and the queue is empty", async || {
        sandbox.with(|besieged| {
            let said = besieged.world.announcements();
            let completed = said.iter().any(|event| event.detail_type == "Rollback Completed");
            (completed && besieged.drained.is_some() && besieged.waiting(QUEUE) == 0).then_some(())
        })
    })
    .await;
    let memory = peak_memory(worker.id());
    sandbox.with(|besieged| {
        let since = |at: Option<Instant>| at.unwrap() - besieged.first_received.unwrap();
        let (opened, acted, drained) = (since(besieged.opened), since(besieged.acted), since(besieged.drained));
        let rate = f64::from(u32::try_from(count).unwrap()) / drained.as_secs_f64();
        eprintln!(
            "{count} events of {bytes} bytes: drained in {drained:.1?}, {rate:.0} a second; green was opened at \
             {opened:.1?} and acted on at {acted:.1?}; peak memory {memory:?} MiB"
        );
        assert_eq!(besieged.said_before, [], "decided on hostile events alone");
        assert!(opened < acted, "acted on hostile events alone");
        assert!(acted <= drained + SLACK, "{acted:?}, drained in {drained:?}");
        assert!(memory.is_none_or(|most| most <= MOST_MEMORY), "{memory:?} MiB");
        judge(besieged);
    });
}

/// One rollback, of checkout, on its own failures; payments is as it was, and no message was given up.
fn judge(besieged: &mut Besieged) {
    for event in besieged.world.announcements() {
        let detail: Value = serde_json::from_str(&event.detail).unwrap();
        assert_eq!(detail["service"], json!({ "cluster": "prod", "service": "checkout" }), "{detail}");
        assert!(!event.detail.contains(HOSTILE), "{detail}");
    }
    let said: Vec<_> = besieged.world.announcements().iter().map(|event| event.detail_type.clone()).collect();
    assert_eq!(said, ["Rollback Started", "Rollback Completed"]);
    let violations: Vec<_> = besieged.world.violations().iter().map(ToString::to_string).collect();
    assert_eq!(violations, [] as [String; 0]);
    for (key, task_sets, split) in
        [(checkout(), 1, Split { blue: 1.0, green: 0.0 }), (payments(), 2, Split { blue: 0.5, green: 0.5 })]
    {
        assert_eq!(besieged.world.traffic(&key).unwrap().configured, split, "{key}");
        let (cluster, service) = (key.cluster.to_string(), key.service.to_string());
        let describe = Call::DescribeServices { cluster, services: vec![service] };
        let Reply::Services { services, .. } = besieged.world.call(describe).unwrap() else { panic!() };
        let living = services[0].task_sets.iter().filter(|set| set.status != "DRAINING").count();
        assert_eq!(living, task_sets, "{key}");
    }
    assert_eq!(besieged.waiting(DEAD_LETTERS), 0);
}
