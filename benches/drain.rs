//! How fast a full queue is emptied by the real worker: receive, decode, dedup, window, durable commit, delete.
//!
//! Against a bare loop of the same SDK that receives and deletes and does nothing else, and against what others would write:
//! boto3 with 8 threads (`BENCH_PYTHON`: a Python that has boto3) and sqs-consumer with 8 consumers (`BENCH_NODE_MODULES`: a
//! `node_modules` that has `sqs-consumer` and `@aws-sdk/client-sqs`). All on one lean queue, in turn, over and over.
//!
//! `BENCH_EVENTS` (200,000), `BENCH_PEER_EVENTS` (20,000), `BENCH_ROUNDS` (5), `BENCH_RECEIVERS` (4).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod common;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::events::{Fields, Mood, Template, task_set_number};
use common::fleet::{self, Fleet};
use common::machine::{Process, aws, eventually, free_address, guardian};
use common::queue::{Make, Queue};
use common::{Table, median, size};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

/// Services that the events are about, each with blue and green.
const SERVICES: usize = 100;

const PATIENCE: Duration = Duration::from_mins(10);

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--bare") {
        return common::bare::drain(&args[at + 1], args[at + 2].parse().unwrap());
    }
    let (events, peer_events) = (size("BENCH_EVENTS", 200_000), size("BENCH_PEER_EVENTS", 20_000));
    let (rounds, receivers) = (size("BENCH_ROUNDS", 5), size("BENCH_RECEIVERS", 4));
    let templates = templates();
    let bytes = templates.iter().map(Template::len).sum::<usize>() / templates.len();
    let mut table = Table::new(
        "drain",
        format_args!("{events} events of {bytes} bytes (escaped) a round, {rounds} rounds, {receivers} receivers"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    let others = others();
    let mut runs: Vec<(Run, Vec<f64>)> =
        [Run::Bare, Run::Worker, Run::Raw].into_iter().chain(others).map(|run| (run, Vec::new())).collect();
    let mut cpu = Vec::new();
    for round in 0..rounds {
        for (run, rates) in &mut runs {
            let count = if matches!(run, Run::Boto3(_) | Run::SqsConsumer(_)) { peer_events } else { events };
            let queue = Queue::start(count, make());
            let took = match run {
                Run::Bare => drained(&queue, &mut bare_loop(&queue, receivers)),
                Run::Worker => {
                    let (took, spent) = runtime.block_on(worker(&queue, receivers));
                    cpu.push(spent.as_secs_f64() * 1e6 / count as f64);
                    took
                }
                Run::Raw => raw(&queue, receivers),
                Run::Boto3(python) => drained(&queue, &mut boto3(&queue, python)),
                Run::SqsConsumer(modules) => drained(&queue, &mut sqs_consumer(&queue, modules)),
            };
            let rate = count as f64 / took.as_secs_f64();
            if std::env::var_os("BENCH_VERBOSE").is_some() {
                println!("  round {round}: {:<14} {rate:.0}/s", run.name());
            }
            rates.push(rate);
        }
    }

    let rates = |name: &str| runs.iter().find(|(run, _)| run.name() == name).map(|(_, rates)| rates.clone());
    let ratios = |of: &[f64], to: &[f64]| median(of.iter().zip(to).map(|(one, other)| one / other).collect());
    for (run, rates) in &runs {
        table.row(format_args!("{}, events a second", run.name()), common::number(median(rates.clone())));
    }
    table.row("the worker's time on all cores, an event", format_args!("{:.1} µs", median(cpu)));
    let (worker, bare, raw) = (rates("worker").unwrap(), rates("bare loop").unwrap(), rates("raw").unwrap());
    table.at_least("the worker against the bare loop", ratios(&worker, &bare), 0.65, 0.3, "x");
    let fastest: Vec<_> = worker.iter().zip(&bare).map(|(one, other)| one.max(*other)).collect();
    table.at_least("the queue against its fastest client (else: stub-bound)", ratios(&raw, &fastest), 1.3, 1.0, "x");
    let peers: Vec<_> = ["boto3", "sqs-consumer"].iter().filter_map(|name| rates(name)).collect();
    if peers.is_empty() {
        table.row(
            "the worker against boto3 and sqs-consumer",
            "not run: BENCH_PYTHON and BENCH_NODE_MODULES are not set",
        );
    } else {
        let better: Vec<_> =
            (0..rounds).map(|round| peers.iter().map(|rates| rates[round]).fold(0.0, f64::max)).collect();
        table.at_least(
            format_args!("the worker against the better of {} peers", peers.len()),
            ratios(&worker, &better),
            4.0,
            1.5,
            "x",
        );
    }
    table.end()
}

/// Who empties the queue.
enum Run {
    Bare,
    Worker,
    /// No client at all: the same requests as bytes, over and over, and nobody reads the answers. What the queue can do.
    Raw,
    Boto3(PathBuf),
    SqsConsumer(PathBuf),
}

impl Run {
    fn name(&self) -> &'static str {
        match self {
            Self::Bare => "bare loop",
            Self::Worker => "worker",
            Self::Raw => "raw",
            Self::Boto3(_) => "boto3",
            Self::SqsConsumer(_) => "sqs-consumer",
        }
    }
}

fn others() -> Vec<Run> {
    let path = |variable| std::env::var_os(variable).map(PathBuf::from);
    path("BENCH_PYTHON").map(Run::Boto3).into_iter().chain(path("BENCH_NODE_MODULES").map(Run::SqsConsumer)).collect()
}

/// What an outage leaves: tasks that ran, and whose capacity was reclaimed, each with the two events of its end.
fn templates() -> [Template; 4] {
    [Mood::Runs, Mood::Reclaimed, Mood::Reclaimed, Mood::Runs].map(Template::escaped)
}

fn make() -> Make {
    let templates = templates();
    let now = jiff::Timestamp::now().as_second();
    Box::new(move |number, out| {
        // Four events of one task set in a row: a task that ran, the two of an end, another that ran. Spread as a hash spreads.
        let four = number / 4;
        let service = four.wrapping_mul(0x9e37_79b9) / 8 % SERVICES;
        let task_set = task_set_number(service, four % 2 == 0);
        let task = [0, 1, 1, 2][number % 4] + 4 * four;
        // Fresh: what is older than any window remembers would not even be written down.
        let at = now - 300 + i64::try_from(number % 300).unwrap();
        templates[number % 4].write(out, &Fields { event: number, task, service, task_set, version: number, at });
    })
}

/// Waits for the end.
fn drained(queue: &Queue, client: &mut Process) -> Duration {
    eventually("the queue is empty", PATIENCE, || {
        if queue.took().is_none()
            && let Some(ended) = client.0.try_wait().unwrap()
        {
            panic!("the client ended too early: {ended}");
        }
        queue.took()
    })
}

async fn worker(queue: &Queue, receivers: usize) -> (Duration, Duration) {
    let sandbox = Sandbox::start(Fleet::new(SERVICES), Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut process = start_worker(directory.path(), queue, &sandbox.endpoint(), receivers);
    let took = tokio::task::block_in_place(|| drained(queue, &mut process));
    let announced = sandbox.with(|fleet| fleet.announced.clone());
    assert_eq!(announced, [] as [String; 0], "none of these events speaks against a version");
    (took, process.cpu())
}

fn start_worker(directory: &Path, queue: &Queue, others: &str, receivers: usize) -> Process {
    std::fs::create_dir(directory.join("rules")).unwrap();
    std::fs::write(directory.join("rules/all.toml"), fleet::rule("")).unwrap();
    let mut command = guardian(directory, &queue.endpoint(), others);
    command.args(["run", "--queue-url", &queue.url(), "--rules", "rules", "--state", "guardian.redb"]);
    Process::start(command.args(["--listen", &free_address(), "--receivers", &receivers.to_string()]))
}

/// This program again, as a client.
fn bare_loop(queue: &Queue, receivers: usize) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    aws(&mut command, &queue.endpoint(), &queue.endpoint());
    Process::start(command.args(["--bare", &queue.url(), &receivers.to_string()]).stderr(Stdio::null()))
}

fn boto3(queue: &Queue, python: &Path) -> Process {
    let mut command = Command::new(python);
    aws(&mut command, &queue.endpoint(), &queue.endpoint());
    Process::start(
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/drain.py")).args([&queue.url(), "8"]),
    )
}

fn sqs_consumer(queue: &Queue, modules: &Path) -> Process {
    let mut command = Command::new("node");
    aws(&mut command, &queue.endpoint(), &queue.endpoint()).env("NODE_MODULES", modules);
    Process::start(
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/drain.cjs")).args([&queue.url(), "8"]),
    )
}

/// As many connections as the clients have.
fn raw(queue: &Queue, connections: usize) -> Duration {
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let address = queue.address();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut answer = vec![0; 1 << 17];
                loop {
                    let receive = "{\"QueueUrl\":\"events\",\"MaxNumberOfMessages\":10,\"WaitTimeSeconds\":0}";
                    let length = exchange(&mut stream, "ReceiveMessage", receive, &mut answer);
                    let Some(entries) = entries(&answer[..length]) else { return };
                    exchange(&mut stream, "DeleteMessageBatch", &entries, &mut answer);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("the queue is empty", Duration::from_secs(1), || queue.took())
}

/// Sends a request; returns the length of the answer in `answer`, head included.
fn exchange(stream: &mut TcpStream, operation: &str, body: &str, answer: &mut [u8]) -> usize {
    let request = format!(
        "POST / HTTP/1.1\r\nhost: queue\r\ncontent-type: application/x-amz-json-1.0\r\nx-amz-target: AmazonSQS.{operation}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut length, mut whole) = (0, None);
    while whole.is_none_or(|whole| length < whole) {
        length += stream.read(&mut answer[length..]).unwrap();
        if whole.is_none()
            && let Some(end) = answer[..length].windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&answer[..end]).unwrap().to_ascii_lowercase();
            let (_, rest) = head.split_once("content-length: ").unwrap();
            whole = Some(end + 4 + rest.lines().next().unwrap().parse::<usize>().unwrap());
        }
    }
    length
}

/// A batch that deletes what was received. Looks from behind, where each message has its handle.
fn entries(answer: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\"ReceiptHandle\":\"";
    let mut entries = String::new();
    let mut end = answer.len();
    let mut index = 0;
    while let Some(at) = answer[..end].windows(KEY.len()).rposition(|window| window == KEY) {
        let handle = &answer[at + KEY.len()..];
        let handle = std::str::from_utf8(&handle[..handle.iter().position(|byte| *byte == b'"').unwrap()]).unwrap();
        if index > 0 {
            entries.push(',');
        }
        write!(entries, "{{\"Id\":\"{index}\",\"ReceiptHandle\":\"{handle}\"}}").unwrap();
        index += 1;
        end = at.saturating_sub(4000);
    }
    (index > 0).then(|| format!("{{\"QueueUrl\":\"events\",\"Entries\":[{entries}]}}"))
}
