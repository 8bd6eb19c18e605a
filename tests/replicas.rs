//! Two real binaries on one DynamoDB table, which is moto's; everything else of AWS is the sandbox's. One acts, the other
//! stands by, and the first one dies or freezes in the middle of a rollback. Real time.
//!
//! `REPLICA_ROUNDS=10` repeats the death so often and tells how long the takeovers took.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/changes.rs"]
mod changes;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use taskset_guardian::aws::{Aws, Endpoint};
use taskset_guardian::journal::TableJournal;
use taskset_guardian::model::{ServiceKey, Split, Timestamp};
use taskset_guardian::ports::{Clock as _, Journal as _, JournalError, Lease as _, Recovered};
use taskset_guardian::runtime::{SystemClock, lease};
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Act, Crash, Delivery, ServiceSetup, Setup, Timing, Version, World};
use taskset_guardian::telemetry::Metrics;

use changes::change;
use figures::Figures;
use process::{Process, eventually, free_address, get, launch_moto};

const REGION: &str = "eu-west-1";
const TABLE: &str = "guardian";
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

/// The lease's length and the second between two looks; then the journal is read, and two cores are busy.
const TAKEOVER: Duration = Duration::from_secs(14);

/// The mutating calls of the rollback.
const CHANGES: [&str; 2] = ["ModifyRule", "DeleteTaskSet"];

/// A world in which the worker that makes a certain mutating call gets a signal right after it is applied.
struct Struck {
    world: World,
    /// Which signal, to whom.
    signal: Option<(&'static str, u32)>,
    /// After how many calls.
    strike_after: usize,
    at: Option<Instant>,
    made: Vec<&'static str>,
}

impl Backend for Struck {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let Some(operation) = change(&call) else { return self.world.call(call) };
        // Counted whether it is accepted or not: a second delete would be refused.
        self.made.push(operation);
        let reply = self.world.call(call)?;
        if let Some((signal, victim)) = self.signal.take_if(|_| self.made.len() == self.strike_after) {
            send(signal, victim);
            self.at = Some(Instant::now());
        }
        Ok(reply)
    }
}

impl Timed for Struck {
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

fn send(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// A green whose every task crashes, from the tenth second on: both replicas are at their places then.
fn crashing() -> Setup {
    let crash = Crash { after: Duration::from_secs(1), exit_code: 1, out_of_memory: false };
    let failing = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let script = vec![
        (Duration::from_secs(10), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (Duration::from_millis(10_100), Act::SetWeights { blue: 90, green: 10 }),
    ];
    Setup {
        services: vec![ServiceSetup { script, ..ServiceSetup::default() }],
        versions: BTreeMap::from([("checkout:88".to_owned(), failing)]),
        timing: Timing { deregistration: Duration::from_secs(1), ..Timing::default() },
        delivery: Delivery { delay: (Duration::from_millis(20), Duration::from_millis(100)), ..Delivery::default() },
        visibility: Duration::from_secs(1),
        drain: Duration::from_secs(1),
        ..Setup::default()
    }
}

/// Makes a table with these key attributes, the second one the sort key.
async fn create_table(moto: &str, name: &str, keys: &[&str]) {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(moto)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .build();
    let mut create = aws_sdk_dynamodb::Client::from_conf(config)
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest);
    for (key, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        let text = ScalarAttributeType::S;
        create = create
            .attribute_definitions(
                AttributeDefinition::builder().attribute_name(*key).attribute_type(text).build().unwrap(),
            )
            .key_schema(KeySchemaElement::builder().attribute_name(*key).key_type(kind).build().unwrap());
    }
    create.send().await.unwrap();
}

fn replica(name: &'static str, directory: &Path, sandbox: &str, moto: &str, table: &str, listen: &str) -> Process {
    let rules = directory.join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("all.toml"), RULE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskset-guardian"));
    command
        .env_clear()
        .env("AWS_ENDPOINT_URL", sandbox)
        .env("AWS_ENDPOINT_URL_DYNAMODB", moto)
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOSTNAME", name)
        .current_dir(directory)
        .args(["run", "--queue-url", QUEUE, "--rules", "rules", "--state", &format!("dynamodb://{table}")])
        .args(["--listen", listen, "--sweep", "2s"]);
    Process::start(name, command, directory)
}

/// Two replicas in front of one world.
struct Stage {
    sandbox: Sandbox<Struck>,
    first: Process,
    second: Process,
    /// Of the second one.
    address: String,
    first_address: String,
    _moto: Process,
    /// Last: what the processes said is in there.
    directory: tempfile::TempDir,
}

impl Stage {
    /// The first one acts, the second one stands by, and the signal is in place for the first one.
    async fn new(signal: &'static str, seed: u64, strike_after: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (moto, network) = launch_moto(directory.path());
        create_table(&network.endpoint, TABLE, &["pk", "sk"]).await;
        let world = World::new(seed, SystemClock.now(), crashing());
        let struck = Struck { world, signal: None, strike_after, at: None, made: Vec::new() };
        let sandbox = Sandbox::start(struck, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
        let (first_address, address) = (free_address(), free_address());
        let start = |name, address: &str| {
            replica(name, directory.path(), &sandbox.endpoint(), &network.endpoint, TABLE, address)
        };
        let first = start("first", &first_address);
        eventually("the first replica acts", async || get(&first_address, "/readyz").filter(|(code, _)| *code == 200))
            .await;
        let second = start("second", &address);
        sandbox.with(|struck| struck.signal = Some((signal, first.id())));
        let stage = Self { sandbox, first, second, address, first_address, _moto: moto, directory };
        eventually("the second one stands by", async || stands_by(&stage.address, "first")).await;
        stage
    }

    async fn struck(&self) -> Instant {
        eventually("the first replica is struck", async || self.sandbox.with(|struck| struck.at)).await
    }

    async fn acts(&self, address: &str) {
        let leads = async || metric(address, "taskset_guardian_leader").filter(|number| *number > 0.5);
        eventually(&format!("the replica at {address} acts"), leads).await;
    }

    async fn completes(&self) {
        eventually("the rollback is completed", async || {
            self.sandbox.with(|struck| {
                let said = struck.world.announcements();
                said.iter().any(|event| event.detail_type == "Rollback Completed").then_some(())
            })
        })
        .await;
        self.sandbox.with(|struck| {
            let violations: Vec<_> = struck.world.violations().iter().map(ToString::to_string).collect();
            assert_eq!(violations, [] as [String; 0]);
            let split = struck.world.traffic(&ServiceKey::new("prod", "checkout")).unwrap().configured;
            assert_eq!(split, Split { blue: 1.0, green: 0.0 });
            assert_eq!(struck.made, CHANGES, "each once, by whichever replica");
        });
    }
}

fn stands_by(address: &str, holder: &str) -> Option<()> {
    let (code, text) = get(address, "/readyz")?;
    (code == 503 && text.contains("leader: standby") && text.contains(holder)).then_some(())
}

fn metric(address: &str, series: &str) -> Option<f64> {
    get(address, "/metrics")?.1.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// One death after so many mutating calls: how long until the standby acted, and until it had finished.
async fn killed(seed: u64, strike_after: usize) -> (Duration, Duration) {
    let mut stage = Stage::new("-KILL", seed, strike_after).await;
    assert_eq!(get(&stage.address, "/healthz").unwrap().0, 200, "a standby is alive");
    let (_, status) = get(&stage.address, "/status").unwrap();
    assert!(status.contains("\"role\":\"standby\""), "{status}");
    assert_eq!(metric(&stage.address, "taskset_guardian_leader"), Some(0.0));
    let received = r#"taskset_guardian_aws_requests_total{operation="ReceiveMessage",outcome="ok",service="sqs"}"#;
    assert_eq!(metric(&stage.address, received), Some(0.0), "it receives nothing");

    let struck = stage.struck().await;
    stage.acts(&stage.address).await;
    let takeover = struck.elapsed();
    stage.completes().await;
    let completed = struck.elapsed();
    assert!(takeover < TAKEOVER, "{takeover:?}");
    assert!(stage.first.ended().is_some());

    stage.second.terminate();
    let ended = eventually("it ends", async || stage.second.ended()).await;
    assert_eq!(ended.code(), Some(0));
    let said = std::fs::read_to_string(stage.directory.path().join("second.log")).unwrap();
    assert!(said.contains("The lease is given back"), "{said}");
    (takeover, completed)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto"]
async fn killed_in_the_middle_of_a_rollback_its_standby_finishes_it_and_every_call_is_made_once() {
    let mut times = Vec::new();
    for round in 0..figures::set("REPLICA_ROUNDS", 1) {
        let strike_after = 1 + round % CHANGES.len();
        let (takeover, completed) = killed(7 + u64::try_from(round).unwrap(), strike_after).await;
        let call = CHANGES[strike_after - 1];
        eprintln!("killed after {call}: taken over after {takeover:.1?}, completed after {completed:.1?}");
        times.push((takeover, completed));
    }
    let length = lease::LENGTH.as_secs();
    eprintln!("killed to taken over, the lease is {length} s {}", times.iter().map(|all| all.0).collect::<Figures>());
    eprintln!("killed to completed                   {}", times.iter().map(|all| all.1).collect::<Figures>());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto"]
async fn frozen_in_the_middle_of_a_rollback_and_woken_after_the_takeover_it_changes_nothing_and_stands_by() {
    let mut stage = Stage::new("-STOP", 7, 1).await;
    let struck = stage.struck().await;
    stage.acts(&stage.address).await;
    assert!(struck.elapsed() < TAKEOVER, "{:?}", struck.elapsed());
    send("-CONT", stage.first.id());
    eventually("the first one stands by", async || stands_by(&stage.first_address, "second")).await;
    stage.completes().await;
    assert_eq!(metric(&stage.first_address, "taskset_guardian_leader"), Some(0.0));
    assert!(stage.first.ended().is_none(), "it may be needed again");

    // And it is: an orderly end hands over at once.
    stage.second.terminate();
    eventually("the second one ends", async || stage.second.ended()).await;
    let ended = Instant::now();
    stage.acts(&stage.first_address).await;
    assert!(ended.elapsed() < Duration::from_secs(6), "{:?}", ended.elapsed());
    stage.sandbox.with(|struck| assert_eq!(struck.made, CHANGES));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto"]
async fn a_table_that_is_missing_or_has_another_key_ends_the_worker_with_cause_and_cure() {
    let directory = tempfile::tempdir().unwrap();
    let (_moto, network) = launch_moto(directory.path());
    create_table(&network.endpoint, "other-key", &["id"]).await;
    create_table(&network.endpoint, "other-names", &["hash", "range"]).await;
    for (table, cause) in [
        ("not-there", "there is no such table"),
        ("other-key", "the table has another key schema"),
        ("other-names", "the table has another key schema"),
    ] {
        let mut worker =
            replica("worker", directory.path(), &network.endpoint, &network.endpoint, table, &free_address());
        let ended = eventually("it ends", async || worker.ended()).await;
        let said = std::fs::read_to_string(directory.path().join("worker.log")).unwrap();
        assert_eq!(ended.code(), Some(2), "{said}");
        let cure = "partition key pk and sort key sk";
        assert!(
            said.contains(&format!("table {table} in {REGION}")) && said.contains(cause) && said.contains(cure),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto"]
async fn the_journal_holds_on_a_real_wire_what_needs_many_transactions_and_refuses_a_deposed_holder() {
    let directory = tempfile::tempdir().unwrap();
    let (_moto, network) = launch_moto(directory.path());
    create_table(&network.endpoint, TABLE, &["pk", "sk"]).await;
    let endpoint = Endpoint::Local { url: network.endpoint.clone(), region: REGION.to_owned() };
    let aws = Aws::connect(&endpoint, Arc::new(Metrics::new().unwrap())).await.unwrap();
    let length = Duration::from_secs(10);
    let take_over = async |holder: &str| {
        let journal = TableJournal::open(Arc::new(aws.table(TABLE)), "table", holder).await.unwrap();
        let watched = journal.look().await.unwrap();
        let tenure = journal.acquire(watched.as_ref(), length).await.unwrap().unwrap();
        let recovered = journal.load().await.unwrap();
        (journal, tenure, recovered)
    };
    let (first, mut tenure, recovered) = take_over("first").await;
    assert_eq!(recovered, Recovered::default());
    assert_eq!(first.acquire(None, length).await.unwrap(), None, "there is a record");
    let big = |fill: u8| vec![fill; 2_500_000];
    first.append([big(1), b"small".to_vec(), Vec::new()].into(), &[]).await.unwrap();
    first.checkpoint(big(2)).await.unwrap();
    first.append([b"a".to_vec(), big(3)].into(), &[]).await.unwrap();
    tenure.beat += 1;
    assert!(first.renew(&tenure).await.unwrap());

    let (second, _, recovered) = take_over("second").await;
    assert_eq!(recovered.checkpoint, Some(big(2)));
    assert_eq!(recovered.entries, [b"a".to_vec(), big(3)]);
    let refused = first.append([b"late".to_vec()].into(), &[]).await.unwrap_err();
    assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
    let refused = first.append([big(4)].into(), &[]).await.unwrap_err();
    assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
    assert!(!first.renew(&tenure).await.unwrap());
    second.checkpoint(b"state".to_vec()).await.unwrap();
    let expected = Recovered { checkpoint: Some(b"state".to_vec()), entries: Vec::new() };
    assert_eq!(take_over("third").await.2, expected);
}
