//! The real binary, killed with SIGKILL at every mutating call of the longest rollback there is: just before the call is
//! applied, and just after, with the answer never sent. Real time, short delays.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use taskset_guardian::model::{Role, ServiceKey, Split, Timestamp};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Act, Crash, Delivery, RouteSetup, ServiceSetup, Setup, Timing, Version, World};

use process::{Process, eventually, free_address, guardian};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";
const RULE: &str = r#"
name = "all"

[[protect]]
cluster = "prod"
service = "*"

[stability]
task_failures = 2

[rollback]
drain = "1s"
"#;

/// As many workers at a time as two cores can start without slowing each other down to a crawl.
const AT_A_TIME: usize = 8;

/// When the worker dies: at its so-and-so-many-th mutating call, before or after that is applied.
#[derive(Clone, Copy, Debug)]
enum Death {
    Before(usize),
    After(usize),
}

/// A world that counts the mutating calls and kills whoever makes a certain one.
struct Deadly {
    world: World,
    death: Option<Death>,
    victim: Option<u32>,
    made: usize,
    applied: Vec<&'static str>,
}

impl Deadly {
    fn kill(&mut self) {
        self.death = None;
        let victim = self.victim.take().unwrap();
        assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
    }
}

impl Backend for Deadly {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let operation = match &call {
            Call::UpdateTaskSet { .. } => "UpdateTaskSet",
            Call::SetPrimary { .. } => "UpdateServicePrimaryTaskSet",
            Call::ModifyRule { .. } => "ModifyRule",
            Call::ModifyListener { .. } => "ModifyListener",
            Call::DeleteTaskSet { .. } => "DeleteTaskSet",
            _ => return self.world.call(call),
        };
        self.made += 1;
        if matches!(self.death, Some(Death::Before(n)) if n == self.made) {
            self.kill();
            return Err(ApiError::client("ServerException", "nobody hears this"));
        }
        let reply = self.world.call(call)?;
        self.applied.push(operation);
        if matches!(self.death, Some(Death::After(n)) if n == self.made) {
            self.kill();
        }
        Ok(reply)
    }
}

impl Timed for Deadly {
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

/// A deployer has made green PRIMARY, given it all the traffic and scaled blue down to one task; then green crashes. Its
/// traffic comes through a sticky rule with a login, a plain rule, and the listener's default action.
fn everything() -> Setup {
    let crash = Crash { after: Duration::from_secs(5), exit_code: 1, out_of_memory: false };
    let failing = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let sound = Version { start_delay: Duration::from_secs(1), ..Version::default() };
    let soon = Duration::from_millis;
    let script = vec![
        (soon(500), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (soon(600), Act::SetWeights { blue: 0, green: 100 }),
        (soon(700), Act::SetPrimary(Role::Green)),
        (soon(800), Act::ScaleTaskSet(Role::Blue, 25.0)),
    ];
    let login = RouteSetup {
        path: Some("/a".to_owned()),
        sticky: Some(Duration::from_mins(10)),
        authenticated: true,
        ..RouteSetup::default()
    };
    let routes = vec![login, RouteSetup::default(), RouteSetup { path: None, ..RouteSetup::default() }];
    Setup {
        services: vec![ServiceSetup { script, routes, ..ServiceSetup::default() }],
        versions: BTreeMap::from([("checkout:88".to_owned(), failing), ("checkout:87".to_owned(), sound)]),
        timing: Timing {
            deregistration: Duration::from_secs(1),
            health_interval: Duration::from_millis(500),
            ..Timing::default()
        },
        delivery: Delivery { delay: (Duration::from_millis(20), Duration::from_millis(100)), ..Delivery::default() },
        visibility: Duration::from_secs(1),
        drain: Duration::from_secs(1),
        ..Setup::default()
    }
}

fn worker(directory: &Path, endpoint: &str) -> Process {
    let mut command = guardian(directory, endpoint);
    command.args(["run", "--queue-url", QUEUE, "--rules", "rules", "--state", "guardian.redb"]).args([
        "--listen",
        &free_address(),
        "--sweep",
        "2s",
    ]);
    Process::start("worker", command, directory)
}

/// One rollback, with or without a death in the middle. Returns the calls that were applied.
async fn play(death: Option<Death>) -> Vec<&'static str> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/all.toml"), RULE).unwrap();
    let world = World::new(7, SystemClock.now(), everything());
    let deadly = Deadly { world, death, victim: None, made: 0, applied: Vec::new() };
    let sandbox = Sandbox::start(deadly, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let mut first = worker(directory.path(), &sandbox.endpoint());
    sandbox.with(|deadly| deadly.victim = Some(first.id()));

    let mut second = None;
    let announced = |deadly: &mut Deadly| -> Vec<(String, Value)> {
        let all = deadly.world.announcements().iter();
        all.map(|e| (e.detail_type.clone(), serde_json::from_str(&e.detail).unwrap())).collect()
    };
    eventually(&format!("the rollback is completed, {death:?}"), async || {
        if second.is_none() && first.ended().is_some() {
            second = Some(worker(directory.path(), &sandbox.endpoint()));
        }
        sandbox.with(announced).iter().any(|(said, _)| said == "Rollback Completed").then_some(())
    })
    .await;
    assert_eq!(second.is_some(), death.is_some(), "{death:?}: who was to die did, and nobody else");

    let incidents: BTreeSet<_> =
        sandbox.with(announced).iter().map(|(_, detail)| detail["incident"].to_string()).collect();
    assert_eq!(incidents.len(), 1, "{death:?}: one decision: {incidents:?}");
    sandbox.with(|deadly| {
        let violations: Vec<_> = deadly.world.violations().iter().map(ToString::to_string).collect();
        assert_eq!(violations, [] as [String; 0], "{death:?}");
        let key = ServiceKey::new("prod", "checkout");
        let split = deadly.world.traffic(&key).unwrap().configured;
        assert_eq!(split, Split { blue: 1.0, green: 0.0 }, "{death:?}");
        let describe = Call::DescribeServices { cluster: "prod".to_owned(), services: vec!["checkout".to_owned()] };
        let Reply::Services { services, .. } = deadly.world.call(describe).unwrap() else { panic!() };
        let living: Vec<_> = services[0].task_sets.iter().filter(|set| set.status != "DRAINING").collect();
        assert_eq!(living.len(), 1, "{death:?}");
        assert_eq!((living[0].status.as_str(), living[0].scale), ("PRIMARY", 100.0), "{death:?}");
        std::mem::take(&mut deadly.applied)
    })
}

/// On a runtime of its own.
fn played(death: Option<Death>) -> Vec<&'static str> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut applied = runtime.block_on(play(death));
    applied.sort_unstable();
    applied
}

#[test]
fn killed_at_any_call_the_next_worker_finishes_the_rollback_and_every_call_is_applied_once() {
    let all = [
        "DeleteTaskSet",
        "ModifyListener",
        "ModifyRule",
        "ModifyRule",
        "ModifyRule",
        "UpdateServicePrimaryTaskSet",
        "UpdateTaskSet",
    ];
    assert_eq!(played(None), all, "two rules and a default action shift, one pair comes back");

    let deaths = Mutex::new((1..=all.len()).flat_map(|n| [Death::Before(n), Death::After(n)]));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let next = || deaths.lock().unwrap().next();
                while let Some(death) = next() {
                    assert_eq!(played(Some(death)), all, "{death:?}");
                }
            });
        }
    });
}
