//! The IAM policies of infra/modules/guardian: what they allow is what the program does, to the action and the resource.
//!
//! The real binary runs against a sandbox that asks the policies before each call, as IAM would, and refuses what they do
//! not allow. Every call must be allowed, and every action that is allowed must have been used. DynamoDB is not in the
//! sandbox: its actions are compared with the calls that src/aws names. So are all others, for a call that no scenario
//! happens to make.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

mod asked;
mod iam;
#[path = "../support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::aws::{Aws, Endpoint};
use taskset_guardian::model::{Role, ServiceKey, Timestamp};
use taskset_guardian::ports::{Clock as _, Inbox as _};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{
    Act, Crash, Delivery, Guard, ListenerKind, REGION, RouteSetup, ServiceSetup, Setup, Timing, Version, World,
};
use taskset_guardian::telemetry::Metrics;

use iam::Policy;
use process::{Process, eventually, free_address, get, guardian};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

/// Found by its tag. The other rule finds clusters and services by globs.
const RULES: &str = r#"{
    "tagged.toml": "name = \"tagged\"\n\n[stability]\ntask_failures = 2\n\n[errors]\nhttp_5xx_ratio = 0.5\n\n[rollback]\ndrain = \"1s\"\n",
    "rest.toml": "name = \"rest\"\n\n[[protect]]\ncluster = \"*\"\nservice = \"check*\"\n"
}"#;

/// AWS behind IAM.
struct Guarded {
    world: World,
    policy: Policy,
    used: BTreeSet<String>,
    denied: BTreeSet<String>,
}

impl Backend for Guarded {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        for request in asked::requests(&call) {
            if !self.policy.allows(&request) {
                self.denied.insert(request.to_string());
                return Err(ApiError::client("AccessDeniedException", format!("not authorized to perform {request}")));
            }
            self.used.insert(request.action.to_owned());
        }
        self.world.call(call)
    }
}

impl Timed for Guarded {
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

/// Green crashes when it is PRIMARY already, blue has half its tasks, and a default action forwards to them as well as a
/// rule: a rollback takes every call that there is.
fn everything_at_once() -> Setup {
    let crash = Crash { after: Duration::from_secs(8), exit_code: 1, out_of_memory: false };
    let bad = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let script = vec![
        (Duration::from_secs(1), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (Duration::from_secs(4), Act::SetWeights { blue: 50, green: 50 }),
        (Duration::from_secs(5), Act::SetPrimary(Role::Green)),
        (Duration::from_secs(6), Act::ScaleTaskSet(Role::Blue, 50.0)),
    ];
    let default = RouteSetup { listener: ListenerKind::Http, path: None, ..RouteSetup::default() };
    let service = ServiceSetup {
        script,
        routes: vec![RouteSetup { guards: vec![Guard::Cognito], ..RouteSetup::default() }, default],
        tags: BTreeMap::from([("taskset-guardian:rule".to_owned(), "tagged".to_owned())]),
        ..ServiceSetup::default()
    };
    Setup {
        services: vec![service],
        versions: BTreeMap::from([("checkout:88".to_owned(), bad)]),
        timing: Timing { deregistration: Duration::from_secs(1), ..Timing::default() },
        delivery: Delivery { delay: (Duration::from_millis(20), Duration::from_millis(100)), ..Delivery::default() },
        drain: Duration::from_secs(1),
        ..Setup::default()
    }
}

struct Stage {
    sandbox: Sandbox<Guarded>,
    directory: tempfile::TempDir,
}

impl Stage {
    /// A world, and a policy with the names that are there.
    async fn new(setup: Setup, policy: impl FnOnce(&BTreeMap<&str, String>) -> Policy) -> Self {
        let mut world = World::new(7, SystemClock.now(), setup);
        let Ok(Reply::TargetGroups(groups)) = world.call(Call::DescribeTargetGroups { arns: Vec::new() }) else {
            panic!("no target groups")
        };
        let (_, balancer) = groups[0].load_balancers[0].split_once(":loadbalancer/").unwrap();
        let policy = policy(&iam::sandbox_names(balancer));
        let guarded = Guarded { world, policy, used: BTreeSet::new(), denied: BTreeSet::new() };
        let sandbox = Sandbox::start(guarded, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("rules")).unwrap();
        let rules: BTreeMap<String, String> = serde_json::from_str(RULES).unwrap();
        for (name, text) in rules {
            std::fs::write(directory.path().join("rules").join(name), text).unwrap();
        }
        Self { sandbox, directory }
    }

    fn program(&self) -> Command {
        guardian(self.directory.path(), &self.sandbox.endpoint())
    }

    fn nothing_denied(&self) {
        let denied = self.sandbox.with(|aws| aws.denied.clone());
        assert_eq!(denied, BTreeSet::new(), "the policy lacks what the program needs");
    }

    /// Nothing was refused, and nothing was allowed in vain. `elsewhere` was used where the sandbox does not see it.
    fn judge(&self, elsewhere: &[&str]) {
        self.nothing_denied();
        self.sandbox.with(|aws| {
            let used: BTreeSet<_> = aws.used.iter().map(String::as_str).chain(elsewhere.iter().copied()).collect();
            assert_eq!(used, aws.policy.actions(), "left: used; right: allowed");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_may_do_what_it_does_and_nothing_else() {
    let stage = Stage::new(everything_at_once(), |names| iam::worker().filled(names)).await;
    let address = free_address();
    let mut command = stage.program();
    command.args(["run", "--queue-url", QUEUE, "--sweep", "1s", "--listen", &address, "--rule-files", RULES]);
    let _worker = Process::start("worker", command, stage.directory.path());

    eventually("green is rolled back", async || {
        stage.nothing_denied();
        let told = |aws: &mut Guarded| aws.world.announcements().iter().any(|e| e.detail_type == "Rollback Completed");
        stage.sandbox.with(told).then_some(())
    })
    .await;
    assert_eq!(get(&address, "/readyz").unwrap().0, 200);

    // It keeps a message for longer only when its disk or its own loop is slow for 15 s.
    let endpoint = Endpoint::Local { url: stage.sandbox.endpoint(), region: REGION.to_owned() };
    let aws = Aws::connect(&endpoint, Arc::new(Metrics::new().unwrap())).await.unwrap();
    let inbox = aws.inbox(QUEUE, Duration::ZERO);
    inbox.extend(&[taskset_guardian::ports::Receipt(Arc::from("long-gone"))], Duration::from_mins(1)).await;

    // The journal of this worker is a file; see below for the table.
    let table: Vec<_> = iam::worker().of("State").actions().into_iter().map(str::to_owned).collect();
    stage.judge(&table.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn people_may_say_what_they_say_and_nothing_else() {
    let quiet = Setup { services: vec![ServiceSetup::default()], ..everything_at_once() };
    // As the module puts it together: what the worker reads, and what people alone do.
    let policy = |names: &BTreeMap<&str, String>| iam::worker().of("Read").and(iam::people()).filled(names);
    let stage = Stage::new(quiet, policy).await;
    for line in [
        "check --aws rules",
        "register prod/checkout --rule tagged",
        "doctor",
        &format!("doctor prod/checkout --queue-url {QUEUE}"),
        "hold prod/checkout --for 5m --reason cleaning",
        "release prod/checkout",
        "unregister prod/checkout",
    ] {
        let mut command = stage.program();
        command.args(line.split(' '));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
    }
    let key = ServiceKey::new("prod", "checkout");
    let green = Act::CreateTaskSet { version: "checkout:89".to_owned(), scale: 100.0 };
    stage.sandbox.with(|aws| aws.world.person(&key, &green));
    for line in ["rollback prod/checkout --dry-run", "rollback prod/checkout"] {
        let mut command = stage.program();
        command.args(line.split(' '));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
    }
    stage.judge(&[]);
}

#[test]
fn every_call_that_is_in_the_code_is_allowed_and_every_action_is_in_the_code() {
    let allowed = iam::worker().and(iam::people());
    let mut needed = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/aws")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // A file's own tests make up operations.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for named in code.split("Operation::new(\"").skip(1) {
            let mut words = named.split('"');
            let (service, operation) = (words.next().unwrap(), words.nth(1).unwrap());
            let text = if operation == "TransactWriteItems" { code } else { "" };
            needed.extend(asked::actions(service, operation, text));
        }
    }
    let allowed: BTreeSet<_> = allowed.actions().into_iter().map(str::to_owned).collect();
    assert_eq!(needed, allowed, "left: src/aws names it; right: a policy allows it");
}
