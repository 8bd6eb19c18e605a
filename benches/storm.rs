//! Two hundred services breach at once, with the fleet brake off, in an account that throttles as AWS does.
//!
//! ECS's token buckets are those that its documentation names; Elastic Load Balancing's is the quota that the worker is made
//! for. The bound is what the buckets let through of the calls that a shift needs: of each service the health of two target
//! groups, at the pace that the worker is given (`--elb-reads`, 8 a second of the account's 10).
//!
//! A service that is lost fails the bench: it waits until all are shifted and all greens deleted. `BENCH_SERVICES` (200).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::fleet::{self, Bucket, Fleet};
use common::machine::{Process, eventually, free_address, get, guardian};
use common::{Table, percentile, size};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";
const PATIENCE: Duration = Duration::from_mins(5);

const ELB_READS: &[&str] = &["DescribeTargetGroups", "DescribeListeners", "DescribeRules", "DescribeTargetHealth"];

/// The worker's own pace of [`ELB_READS`] a second, and how many it sends at once.
const PACE: (f64, f64) = (8.0, 20.0);

const BUCKETS: [Bucket; 4] = [
    Bucket {
        name: "ECS, service reads",
        operations: &["DescribeServices", "DescribeTaskSets", "ListServices"],
        burst: 100.0,
        rate: 20.0,
    },
    Bucket { name: "ECS, task reads", operations: &["DescribeTasks", "ListTasks"], burst: 100.0, rate: 20.0 },
    Bucket {
        name: "ECS, service changes",
        operations: &["DeleteTaskSet", "UpdateTaskSet", "UpdateServicePrimaryTaskSet"],
        burst: 50.0,
        rate: 5.0,
    },
    Bucket { name: "ELB, reads", operations: ELB_READS, burst: 40.0, rate: 10.0 },
];

fn main() {
    let services = size("BENCH_SERVICES", 200);
    let mut table = Table::new("storm", format_args!("{services} services breach at once, fleet brake off"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(storm(services, &mut table));
    table.end()
}

async fn storm(services: usize, table: &mut Table) {
    let fleet = Fleet::new(services).throttled_by(&BUCKETS);
    let sandbox = Sandbox::start(fleet, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/all.toml"), fleet::rule("[rollback]\ndrain = \"1s\"\n")).unwrap();
    let address = free_address();
    let mut command = guardian(directory.path(), &sandbox.endpoint(), &sandbox.endpoint());
    command.args(["run", "--queue-url", QUEUE, "--rules", "rules", "--state", "guardian.redb", "--listen", &address]);
    let _worker = Process::start(command.args(["--fleet-brake", "60000"]));
    let until = async |what: &str, met: &dyn Fn(&Fleet) -> bool| {
        let began = Instant::now();
        while !sandbox.peek(met) {
            assert!(began.elapsed() < PATIENCE, "it is not so that {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let watched = || {
        let page = get(&address, "/metrics")?;
        let watched = page.lines().filter(|line| line.contains("phase=\"watching\"") && line.ends_with(" 1")).count();
        (watched == services).then_some(())
    };
    // At the account's pace it takes a while to get to know them all.
    tokio::task::block_in_place(|| eventually("every deployment is watched", PATIENCE, watched));

    let began = sandbox.with(|fleet| {
        fleet.arrived.clear();
        for _ in 0..3 {
            (0..services).for_each(|service| fleet.crash(service, true));
        }
        Instant::now()
    });
    until("all are shifted", &|fleet| (0..services).all(|service| fleet.shifted(service).is_some())).await;
    let before = sandbox.peek(|fleet| fleet.arrived.clone());
    until("all greens are deleted", &|fleet| (0..services).all(|service| fleet.deleted(service).is_some())).await;

    let seconds = |of: &dyn Fn(usize) -> Option<Instant>| -> Vec<f64> {
        (0..services).map(|service| (of(service).unwrap() - began).as_secs_f64()).collect()
    };
    let shifted = sandbox.peek(|fleet| seconds(&|service| fleet.shifted(service)));
    let deleted = sandbox.peek(|fleet| seconds(&|service| fleet.deleted(service)));
    let bound = (2.0 * services as f64 - PACE.1).max(0.0) / PACE.0;
    table.row("calls until all were shifted, throttled ones in brackets", "");
    for operation in [
        "ReceiveMessage",
        "DescribeServices",
        "DescribeTasks",
        "ListTasks",
        "DescribeRules",
        "DescribeTargetHealth",
        "ModifyRule",
        "DescribeTaskSets",
        "DeleteTaskSet",
        "PutEvents",
    ] {
        let calls = before.iter().filter(|call| call.operation == operation);
        let (count, throttled) = (calls.clone().count(), calls.filter(|call| call.throttled).count());
        table.row(format_args!("  {operation}"), format_args!("{count} ({throttled})"));
    }
    table.row(
        "shifted after: p50, p99",
        format_args!("{:.1} s, {:.1} s", percentile(shifted.clone(), 50), percentile(shifted.clone(), 99)),
    );
    table.row(
        "deleted after: p50, p99",
        format_args!("{:.1} s, {:.1} s", percentile(deleted.clone(), 50), percentile(deleted.clone(), 99)),
    );
    table.row("the buckets' bound for the shifts", format_args!("{bound:.1} s"));
    let last = percentile(shifted, 100);
    table.at_most("the last shift, against the bound", last / bound, 1.2, 3.0, "x");
    let changes = BUCKETS[2];
    let bound = (services as f64 - changes.burst).max(0.0) / changes.rate;
    table.row("the buckets' bound for the deletes", format_args!("{bound:.1} s"));
}
