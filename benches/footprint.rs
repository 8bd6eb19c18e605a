//! What the worker takes: memory, the time to its first receive, the size of the program, and of a page of metrics.
//!
//! `BENCH_SETS` (10,000) watched task sets, `BENCH_ROUNDS` (5) starts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::fleet::{self, Fleet};
use common::machine::{Process, eventually, free_address, get, guardian};
use common::queue::Queue;
use common::{Table, median, millis, size};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

const PATIENCE: Duration = Duration::from_mins(3);

fn main() {
    let (sets, rounds) = (size("BENCH_SETS", 10_000), size("BENCH_ROUNDS", 5));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut table = Table::new("footprint", format_args!("{rounds} starts, then {sets} watched task sets"));
    let program = std::fs::metadata(env!("CARGO_BIN_EXE_taskset-guardian")).unwrap().len();
    table.row("the program, MB", format_args!("{:.1}", program as f64 / 1e6));

    let (mut starts, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let one = runtime.block_on(Watch::begin(1));
        let received = eventually("it receives", PATIENCE, || one.queue.seen().first_receive);
        starts.push(millis(received - one.began));
        eventually("it is ready", PATIENCE, || one.get("/readyz").filter(|answer| answer.starts_with("HTTP/1.0 200")));
        // What a sweep needs is part of it.
        std::thread::sleep(Duration::from_secs(1));
        idle.push(one.process.memory("VmRSS"));
    }
    table.at_most("from start to the first receive, p50", median(starts.clone()), 150.0, 3000.0, " ms");
    table.at_most("memory at one service, nothing to do", median(idle), 30.0, 60.0, " MB");

    let many = runtime.block_on(Watch::begin(sets / 2));
    eventually("it watches all of them", PATIENCE, || {
        let page = many.get("/metrics")?;
        let watched = page.lines().filter(|line| line.contains("phase=\"watching\"") && line.ends_with(" 1")).count();
        std::thread::sleep(Duration::from_millis(200));
        (watched == sets / 2).then_some(())
    });
    // What the burst has freed goes back within a second.
    std::thread::sleep(Duration::from_secs(2));
    table.at_most(
        format_args!("memory at {sets} watched task sets"),
        many.process.memory("VmRSS"),
        120.0,
        360.0,
        " MB",
    );
    table.row("the most that it had on the way, MB", format_args!("{:.1}", many.process.memory("VmHWM")));
    let mut answers = Vec::new();
    let mut page = String::new();
    for _ in 0..20 {
        let began = Instant::now();
        page = many.get("/metrics").unwrap();
        answers.push(millis(began.elapsed()));
    }
    let series = page.lines().filter(|line| !line.starts_with('#') && line.contains(' ')).count();
    table.row(
        format_args!("/metrics with {series} series, p50"),
        format_args!("{:.1} ms, {:.1} MB", median(answers), page.len() as f64 / 1e6),
    );
    // The end of the process runs no destructors.
    drop(many);
    table.end()
}

/// A worker, and what it watches.
struct Watch {
    process: Process,
    queue: Queue,
    address: String,
    began: Instant,
    _sandbox: Sandbox<Fleet>,
    _directory: tempfile::TempDir,
}

impl Watch {
    async fn begin(services: usize) -> Self {
        let sandbox =
            Sandbox::start(Fleet::new(services), Arc::new(SystemClock), WireSettings::default()).await.unwrap();
        let queue = Queue::start(0, Box::new(|_, _| ()));
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let (process, began) = start(directory.path(), &queue, &sandbox.endpoint(), &address);
        Self { process, queue, address, began, _sandbox: sandbox, _directory: directory }
    }

    fn get(&self, path: &str) -> Option<String> {
        get(&self.address, path)
    }
}

fn start(directory: &Path, queue: &Queue, others: &str, address: &str) -> (Process, Instant) {
    std::fs::create_dir(directory.join("rules")).unwrap();
    std::fs::write(directory.join("rules/all.toml"), fleet::rule("")).unwrap();
    let mut command = guardian(directory, &queue.endpoint(), others);
    // The account's quotas would make the first sweep take minutes.
    command.args(["run", "--queue-url", &queue.url(), "--rules", "rules", "--state", "guardian.redb"]);
    command.args(["--listen", address, "--elb-reads", "1000"]);
    let began = Instant::now();
    (Process::start(&mut command), began)
}
