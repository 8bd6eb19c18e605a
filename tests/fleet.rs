//! A large account: 5,000 services, of which 300 are registered by tag. The sweeps stay within what ECS allows a caller to
//! read: a bucket of 100 calls that fills with 20 a second.
//!
//! ```console
//! $ cargo test --test fleet -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tells figures")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taskset_guardian::model::{ServiceKey, tags};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{BalancerKind, ServiceSetup, Setup, World};

use process::{Process, eventually, free_address, get, guardian};

const SERVICES: usize = 5_000;
const REGISTERED: usize = 300;

/// ECS's bucket for cluster-service reads: its size, and what flows in each second.
const BURST: f64 = 100.0;
const RATE: f64 = 20.0;

/// Faster than the 30 s of every day, so that the bucket is fuller than it will be.
const SWEEP: Duration = Duration::from_secs(10);

/// As many calls of ECS as were answered so far, and the services that are ready.
fn read(address: &str) -> Option<(f64, usize)> {
    let (_, text) = get(address, "/metrics")?;
    let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
    let calls = text
        .lines()
        .filter(|line| line.starts_with("taskset_guardian_aws_requests_total{") && line.contains("service=\"ecs\""));
    let ready = text.lines().filter(|line| line.starts_with("taskset_guardian_service_ready{") && line.ends_with(" 1"));
    Some((calls.filter_map(value).sum(), ready.count()))
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_of_a_large_account_stay_within_what_ecs_allows() {
    let service = |n: usize| ServiceSetup {
        key: ServiceKey::new("prod", format!("service-{n}")),
        desired: 1,
        requests_per_second: 0,
        balancer: BalancerKind::None,
        routes: Vec::new(),
        tags: if n < REGISTERED {
            BTreeMap::from([(tags::RULE.to_owned(), "web".to_owned())])
        } else {
            BTreeMap::new()
        },
        ..ServiceSetup::default()
    };
    let setup = Setup { services: (0..SERVICES).map(service).collect(), ..Setup::default() };
    let world = World::new(7, SystemClock.now(), setup);
    let sandbox = Sandbox::start(world, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/web.toml"), "name = \"web\"\n").unwrap();

    let address = free_address();
    let mut command = guardian(directory.path(), &sandbox.endpoint());
    command.args(["run", "--queue-url", "http://sandbox/queue/taskset-guardian", "--listen", &address]);
    command.args(["--sweep", &format!("{}s", SWEEP.as_secs())]);
    let began = Instant::now();
    let _worker = Process::start("worker", command, directory.path());
    eventually("every registered service is ready", async || {
        let (_, ready) = read(&address)?;
        (ready == REGISTERED).then_some(())
    })
    .await;
    let took = began.elapsed();

    let (mut seen, _) = read(&address).unwrap();
    let first = seen;
    let mut left = BURST - first;
    assert!(left >= 0.0, "the first sweep took {first} calls of ECS");
    let (mut least, mut at) = (left, Instant::now());
    let until = at + 3 * SWEEP;
    while at < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (calls, _) = read(&address).unwrap();
        left = (left + at.elapsed().as_secs_f64() * RATE).min(BURST) - (calls - seen);
        (seen, at, least) = (calls, Instant::now(), least.min(left));
        assert!(left >= 0.0, "more calls of ECS than it allows");
    }
    eprintln!(
        "{REGISTERED} of {SERVICES} services ready after {:.1} s and {first} calls of ECS; {:.0} calls in each of three more sweeps; at \
         the least {least:.0} of {BURST} were left",
        took.as_secs_f64(),
        (seen - first) / 3.0,
    );
}
