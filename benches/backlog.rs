//! A queue with a million stale failures, and one real breach behind them.
//!
//! The stale events are well formed and hours old; they speak of greens that are alive, of tasks that ECS does not know. The
//! real breach happens when the worker has begun to receive, and its events come last. Whichever is first shows it: its
//! events, or a sweep.
//!
//! `BENCH_EVENTS` (1,000,000), `BENCH_RECEIVERS` (4).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::events::{Fields, Mood, Template, task_set_number};
use common::fleet::{self, Fleet};
use common::machine::{Process, aws, eventually, free_address, guardian};
use common::queue::{Make, Queue};
use common::{Table, size};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

const SERVICES: usize = 20;
/// Its green crashes, behind all others'.
const REAL: usize = 7;
const FAILURES: usize = 3;
const PATIENCE: Duration = Duration::from_mins(10);

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--bare") {
        return common::bare::drain(&args[at + 1], args[at + 2].parse().unwrap());
    }
    let (events, receivers) = (size("BENCH_EVENTS", 1_000_000), size("BENCH_RECEIVERS", 4));
    let mut table = Table::new(
        "backlog",
        format_args!("{events} stale events of {SERVICES} services, and one real breach behind them"),
    );

    let queue = Queue::start(events + FAILURES, make(events));
    let mut command = Command::new(std::env::current_exe().unwrap());
    aws(&mut command, &queue.endpoint(), &queue.endpoint()).stderr(Stdio::null());
    let bare = Process::start(command.args(["--bare", &queue.url(), &receivers.to_string()]));
    let bare_took = eventually("the bare loop drains it", PATIENCE, || queue.took()).as_secs_f64();
    drop((bare, queue));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sandbox =
        runtime.block_on(Sandbox::start(Fleet::new(SERVICES), Arc::new(SystemClock), WireSettings::default())).unwrap();
    let queue = Queue::start(events + FAILURES, make(events));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/all.toml"), fleet::rule("[rollback]\ndrain = \"1s\"\n")).unwrap();
    let mut command = guardian(directory.path(), &queue.endpoint(), &sandbox.endpoint());
    command.args(["run", "--queue-url", &queue.url(), "--rules", "rules", "--state", "guardian.redb"]);
    let worker = Process::start(command.args(["--listen", &free_address(), "--receivers", &receivers.to_string()]));

    eventually("a hundredth is received", PATIENCE, || (queue.seen().received * 100 >= events).then_some(()));
    let crashed = sandbox.with(|fleet| {
        (0..FAILURES).for_each(|_| fleet.crash(REAL, false));
        std::time::Instant::now()
    });
    let began = queue.seen().first_receive.unwrap();
    let shifted = eventually("the real breach is acted on", PATIENCE, || sandbox.peek(|fleet| fleet.shifted(REAL)));
    let took = eventually("the queue is empty", PATIENCE, || queue.took()).as_secs_f64();
    eventually("the rollback is completed", PATIENCE, || {
        sandbox.peek(|fleet| fleet.announced.iter().any(|said| said.starts_with("Rollback Completed")).then_some(()))
    });
    let wrong = sandbox.peek(|fleet| (0..SERVICES).filter(|it| *it != REAL && fleet.shifted(*it).is_some()).count());
    let said = sandbox.peek(|fleet| fleet.announced.len());

    table.row("the bare loop drains it in", format_args!("{bare_took:.1} s"));
    table.row("the worker drains it in", format_args!("{took:.1} s"));
    table.row("memory at most, MB", format_args!("{:.1}", worker.memory("VmHWM")));
    let (acted, since_crash) = ((shifted - began).as_secs_f64(), (shifted - crashed).as_secs_f64());
    table.row(
        "the real breach: after the crash, after the first receive",
        format_args!("{since_crash:.1} s, {acted:.1} s"),
    );
    table.at_most(
        "acted on after the crash, at most 60 s or 1.5x the bare drain",
        since_crash,
        (1.5 * bare_took).max(60.0),
        (3.0 * bare_took).max(90.0),
        " s",
    );
    table.at_most("false rollbacks", wrong as f64, 0.0, 0.0, "");
    table.at_most("announcements beside the real rollback's two", said as f64 - 2.0, 0.0, 0.0, "");
    // The end of the process runs no destructors.
    drop(worker);
    table.end()
}

fn make(events: usize) -> Make {
    let template = Template::escaped(Mood::Crashed);
    Box::new(move |number, out| {
        let now = jiff::Timestamp::now().as_second();
        let fields = if number < events {
            let service = number.wrapping_mul(0x9e37_79b9) / 8 % SERVICES;
            // Beyond all tasks that ECS knows.
            let task = 1_000_000_000 + number;
            let at = now - 6 * 3600 + i64::try_from(number % 600).unwrap();
            Fields { event: number, task, service, task_set: task_set_number(service, true), version: number, at }
        } else {
            let task = REAL * 1000 + number - events;
            Fields { event: number, task, service: REAL, task_set: task_set_number(REAL, true), version: 7, at: now }
        };
        template.write(out, &fields);
    })
}
