//! A large account: do the sweeps stay within what AWS allows an account to read, and is every service read in time? The
//! sandbox meters calls as AWS does, and throttles what is too much.
//!
//! ```console
//! $ cargo test --test fleet -- --nocapture
//! $ FLEET_SERVICES=1000 FLEET_REGISTERED=1000 FLEET_SWEEP=30 cargo test --release --test fleet -- --nocapture
//! ```
//!
//! `FLEET_BALANCED=1` puts each service behind a load balancer with one listener. Where they are too many, it says by how much,
//! and fails. `FLEET_ELB_READS=1000` takes away the pace at which the worker reads load balancers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tells figures")]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use taskset_guardian::model::{ServiceKey, Timestamp, tags};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{BalancerKind, ServiceSetup, Setup, World};

use process::{Process, free_address, get, guardian};

/// Calls that an account may make in a Region: a bucket that is filled at a steady rate.
struct Bucket {
    size: f64,
    /// Flows in each second.
    rate: f64,
    left: f64,
    at: Instant,
    least: f64,
    taken: usize,
    refused: usize,
}

impl Bucket {
    fn new(size: f64, rate: f64) -> Self {
        Self { size, rate, left: size, at: Instant::now(), least: size, taken: 0, refused: 0 }
    }

    fn take(&mut self) -> Result<(), ApiError> {
        self.left = (self.left + self.at.elapsed().as_secs_f64() * self.rate).min(self.size);
        self.at = Instant::now();
        if self.left < 1.0 {
            self.refused += 1;
            return Err(ApiError::client("ThrottlingException", "Rate exceeded"));
        }
        self.left -= 1.0;
        self.least = self.least.min(self.left);
        self.taken += 1;
        Ok(())
    }
}

/// A world that counts. Buckets are those of the request throttling pages of the two API references.
struct Account {
    world: World,
    /// ECS, "service read actions".
    services: Bucket,
    /// Elastic Load Balancing, "non-mutating".
    balancers: Bucket,
    /// The listener of each service. The world's are all on one load balancer; here each has its own.
    listeners: BTreeMap<String, String>,
}

impl Account {
    fn new(mut world: World) -> Self {
        let listeners = listeners(&mut world);
        Self { world, services: Bucket::new(100.0, 20.0), balancers: Bucket::new(40.0, 10.0), listeners }
    }
}

/// By the name of the service.
fn listeners(world: &mut World) -> BTreeMap<String, String> {
    let all = Call::DescribeListeners { load_balancer: None, arns: Vec::new() };
    let Ok(Reply::Listeners(all)) = world.call(all) else { return BTreeMap::new() };
    let mut listeners = BTreeMap::new();
    for listener in all {
        let rules = Call::DescribeRules { listener: Some(listener.arn.clone()), arns: Vec::new() };
        let Reply::Rules(rules) = world.call(rules).unwrap() else { panic!() };
        let text = format!("{rules:?}");
        let (_, from_name) = text.split_once("targetgroup/").unwrap();
        let (group, _) = from_name.split_once('/').unwrap();
        listeners.insert(group.trim_end_matches("-blue").trim_end_matches("-green").to_owned(), listener.arn);
    }
    listeners
}

impl Backend for Account {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        match call {
            Call::DescribeServices { .. } | Call::ListServices { .. } => self.services.take()?,
            Call::DescribeTargetGroups { .. }
            | Call::DescribeListeners { .. }
            | Call::DescribeRules { .. }
            | Call::DescribeTargetHealth { .. } => self.balancers.take()?,
            _ => {}
        }
        let call = match call {
            Call::DescribeListeners { load_balancer: Some(own), .. } => {
                let (_, service) = own.rsplit_once('/').unwrap();
                Call::DescribeListeners { load_balancer: None, arns: vec![self.listeners[service].clone()] }
            }
            other => other,
        };
        let mut reply = self.world.call(call)?;
        if let Reply::TargetGroups(groups) = &mut reply {
            for group in groups {
                let service = group.name.trim_end_matches("-blue").trim_end_matches("-green");
                group.load_balancers.iter_mut().for_each(|arn| *arn = format!("{arn}/{service}"));
            }
        }
        Ok(reply)
    }
}

impl Timed for Account {
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

/// How far the worker is.
struct Standing {
    /// Services that were read, and could be.
    ready: usize,
    /// Since the oldest of the last reads that succeeded.
    oldest: Duration,
}

fn standing(address: &str) -> Option<Standing> {
    let status: Value = serde_json::from_str(&get(address, "/status")?.1).ok()?;
    let at = |value: &Value| Timestamp::parse(value.as_str()?);
    let now = at(&status["at"])?;
    let services = status["services"].as_array()?;
    let ready = services.iter().filter(|service| service["ready"] == true).count();
    let ages = services.iter().filter_map(|service| Some(now.since(at(&service["observed_at"])?)));
    Some(Standing { ready, oldest: ages.max().unwrap_or_default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_of_a_large_account_stay_within_what_aws_allows() {
    let (all, registered) = (figures::set("FLEET_SERVICES", 5_000), figures::set("FLEET_REGISTERED", 300));
    let balanced = figures::set("FLEET_BALANCED", 0) > 0;
    // Faster than the 30 s of every day, so that the bucket is fuller than it will be.
    let sweep = Duration::from_secs(figures::set("FLEET_SWEEP", 10).try_into().unwrap());
    let service = |n: usize| {
        let mut setup = ServiceSetup {
            key: ServiceKey::new("prod", format!("service-{n}")),
            desired: 1,
            requests_per_second: 0,
            ..ServiceSetup::default()
        };
        if n < registered {
            setup.tags = BTreeMap::from([(tags::RULE.to_owned(), "web".to_owned())]);
        }
        if !balanced {
            (setup.balancer, setup.routes) = (BalancerKind::None, Vec::new());
        }
        setup
    };
    let setup = Setup { services: (0..all).map(service).collect(), ..Setup::default() };
    let world = World::new(7, SystemClock.now(), setup);
    let sandbox = Sandbox::start(Account::new(world), Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/web.toml"), "name = \"web\"\n").unwrap();

    let address = free_address();
    let mut command = guardian(directory.path(), &sandbox.endpoint());
    command.args(["run", "--queue-url", "http://sandbox/queue/taskset-guardian", "--listen", &address]);
    command.args(["--sweep", &format!("{}s", sweep.as_secs())]);
    command.env("TASKSET_GUARDIAN_ELB_READS", figures::set("FLEET_ELB_READS", 8).to_string());
    let began = Instant::now();
    let _worker = Process::start("worker", command, directory.path());

    // Two sweeps to find and read them all, and three more in which nothing is new.
    let (mut ready_after, mut oldest, mut least_ready) = (None, Duration::ZERO, usize::MAX);
    let (mut steady_from, mut taken) = (None, (0, 0));
    while steady_from.is_none_or(|from: Instant| from.elapsed() < 3 * sweep) {
        tokio::time::sleep(sweep / 20).await;
        let Some(Standing { ready, oldest: age }) = standing(&address) else { continue };
        if ready == registered {
            ready_after.get_or_insert(began.elapsed());
        }
        if steady_from.is_none() && (ready_after.is_some() || began.elapsed() > 6 * sweep) {
            steady_from = Some(Instant::now());
            taken = sandbox.with(|account| (account.services.taken, account.balancers.taken));
        }
        if steady_from.is_some() {
            (oldest, least_ready) = (oldest.max(age), least_ready.min(ready));
        }
    }
    let after = ready_after.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
    eprintln!("{registered} of {all} services, a sweep each {} s: all ready {after}", sweep.as_secs());
    eprintln!("in three more sweeps at least {least_ready} ready, the oldest read {:.1} s old", oldest.as_secs_f64());
    let refused = sandbox.with(|account| {
        for (name, bucket, before) in
            [("ECS", &account.services, taken.0), ("Elastic Load Balancing", &account.balancers, taken.1)]
        {
            let each = f64::from(u32::try_from(bucket.taken - before).unwrap()) / 3.0;
            eprintln!("{name}: {each:.0} calls a sweep; {} refused; least left {:.0}", bucket.refused, bucket.least);
        }
        account.services.refused + account.balancers.refused
    });
    assert_eq!(refused, 0, "more calls than AWS allows");
    assert!(oldest < 2 * sweep, "a breach would not be seen within two sweeps");
}
