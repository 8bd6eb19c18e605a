//! How long users see bad traffic because of the guardian itself: from the moment that the breaching event is in the queue
//! until `ModifyRule` arrives, and until `DeleteTaskSet` arrives (with no drain), with and without 100 ms a call.
//!
//! Against a bare loop of the same SDK (receive, the reads that the decision needs, side by side, and the write; no state, no
//! journal), and against the same steps in boto3 (`BENCH_PYTHON`: a Python that has it). One breach after the other, each
//! in all clients in turn.
//!
//! `BENCH_REACTIONS` (200) without latency, `BENCH_SLOW_REACTIONS` (20) with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::events::{service_name, task_set_id};
use common::fleet::{self, Fleet};
use common::machine::{Process, aws, free_address, guardian};
use common::{Table, median, millis, percentile, size};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

const LATENCY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);
/// Breaches in one account. They follow each other faster than in life, and its quota for reads of ECS would be used up: that
/// is what `storm` measures.
const TOGETHER: usize = 25;

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--bare") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(bare());
    }
    let (reactions, slow) = (size("BENCH_REACTIONS", 200), size("BENCH_SLOW_REACTIONS", 20));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut table =
        Table::new("reaction", format_args!("{reactions} breaches without latency, {slow} with {LATENCY:?} a call"));
    runtime.block_on(async {
        let python = std::env::var_os("BENCH_PYTHON").map(PathBuf::from);
        let [mut worker, mut bare, mut boto3] = [const { Vec::new() }; 3];
        for first in (0..reactions).step_by(TOGETHER) {
            let some = measure(TOGETHER.min(reactions - first), Duration::ZERO, python.as_deref()).await;
            [&mut worker, &mut bare, &mut boto3].into_iter().zip(some).for_each(|(all, some)| all.extend(some));
        }
        for (what, of) in [("ModifyRule", Reaction::shift as fn(&Reaction) -> f64), ("DeleteTaskSet", Reaction::delete)]
        {
            let all = |reactions: &[Reaction]| reactions.iter().map(of).collect::<Vec<_>>();
            for (client, reactions) in [("worker", &worker), ("bare loop", &bare), ("boto3", &boto3)] {
                if !reactions.is_empty() {
                    let figures = format!("{:.1} ms, {:.1} ms", median(all(reactions)), percentile(all(reactions), 99));
                    table.row(format_args!("event to {what}, {client}: p50, p99"), figures);
                }
            }
            let to = |other: &[Reaction]| median(all(&worker).iter().zip(all(other)).map(|(a, b)| a / b).collect());
            table.at_most(format_args!("event to {what}, against the bare loop"), to(&bare), 2.0, 6.0, "x");
            if boto3.is_empty() {
                table.row(format_args!("event to {what}, against boto3"), "not run: BENCH_PYTHON is not set");
            } else {
                table.at_least(
                    format_args!("event to {what}, times as fast as boto3"),
                    1.0 / to(&boto3),
                    3.0,
                    1.0,
                    "x",
                );
            }
        }
        table.at_most(
            "event to ModifyRule, p99",
            percentile(worker.iter().map(Reaction::shift).collect(), 99),
            25.0,
            250.0,
            " ms",
        );

        let [worker, _, _] = measure(slow, LATENCY, None).await;
        let calls = worker.iter().map(|one| one.sequential as f64).fold(0.0, f64::max);
        table.at_most("calls one after the other from event to ModifyRule", calls, 3.0, 3.0, "");
        let shift = median(worker.iter().map(Reaction::shift).collect());
        table.row("event to ModifyRule with latency: p50", format_args!("{shift:.1} ms"));
        let sum = |one: &Reaction| one.shift() / (one.sequential as f64 * millis(LATENCY));
        table.at_most(
            "the same, against the sum of these calls",
            median(worker.iter().map(sum).collect()),
            1.1,
            1.5,
            "x",
        );
        let delete = median(worker.iter().map(Reaction::delete).collect());
        table.row("event to DeleteTaskSet with latency: p50", format_args!("{delete:.1} ms"));
    });
    table.end()
}

/// One breach, from its event on.
struct Reaction {
    shifted: Duration,
    deleted: Duration,
    /// Rounds of calls until the shift, the shift included.
    sequential: usize,
}

impl Reaction {
    fn shift(&self) -> f64 {
        millis(self.shifted)
    }

    fn delete(&self) -> f64 {
        millis(self.deleted)
    }
}

/// A client and the account that is its own.
struct Client {
    sandbox: Sandbox<Fleet>,
    _process: Process,
    _directory: tempfile::TempDir,
    /// It counts failures; the others act on every event.
    counts: bool,
    latency: Duration,
}

impl Client {
    async fn start(
        services: usize,
        latency: Duration,
        counts: bool,
        command: impl FnOnce(&tempfile::TempDir, &str) -> Command,
    ) -> Self {
        let settings = WireSettings { latency, ..WireSettings::default() };
        let sandbox = Sandbox::start(Fleet::new(services), Arc::new(SystemClock), settings).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&mut command(&directory, &sandbox.endpoint()));
        Self { sandbox, _process: process, _directory: directory, counts, latency }
    }

    /// It polls, and what it does first is done.
    async fn ready(&self) {
        self.wait("it polls", |fleet| (fleet.calls(&["ReceiveMessage"]) > 0).then_some(())).await;
        let mut calls = (0, Instant::now());
        self.wait("it is quiet", |fleet| {
            if fleet.arrived.len() > calls.0 {
                calls = (fleet.arrived.len(), Instant::now());
            }
            (calls.1.elapsed() > Duration::from_secs(1)).then_some(())
        })
        .await;
    }

    async fn wait<T>(&self, what: &str, mut look: impl FnMut(&Fleet) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            // Looking must not wake those who wait for messages.
            if let Some(seen) = self.sandbox.peek(&mut look) {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "it is not so that {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn react(&self, service: usize) -> Reaction {
        if self.counts {
            self.sandbox.with(|fleet| (0..2).for_each(|_| fleet.crash(service, true)));
            self.wait("the first failures are taken", |fleet| fleet.is_drained().then_some(())).await;
        }
        let began = self.sandbox.with(|fleet| {
            fleet.arrived.clear();
            fleet.crash(service, true);
            Instant::now()
        });
        let deleted = self.wait("green is deleted", |fleet| fleet.deleted(service)).await;
        let (shifted, arrived) = self.sandbox.peek(|fleet| (fleet.shifted(service).unwrap(), fleet.arrived.clone()));
        let of_queue = |operation| matches!(operation, "ReceiveMessage" | "DeleteMessageBatch");
        let between = arrived.iter().filter(|call| call.at > began && call.at <= shifted && !of_queue(call.operation));
        let (mut sequential, mut last) = (0, None::<Instant>);
        for call in between {
            if last.is_none_or(|last| call.at - last > self.latency / 2) {
                sequential += 1;
            }
            last = Some(call.at);
        }
        Reaction { shifted: shifted - began, deleted: deleted - began, sequential }
    }
}

/// Of the worker, the bare loop and boto3.
async fn measure(reactions: usize, latency: Duration, python: Option<&std::path::Path>) -> [Vec<Reaction>; 3] {
    let rules = "[rollback]\ndrain = \"0s\"\n";
    let worker = Client::start(reactions, latency, true, |directory, endpoint| {
        std::fs::create_dir(directory.path().join("rules")).unwrap();
        std::fs::write(directory.path().join("rules/all.toml"), fleet::rule(rules)).unwrap();
        let mut command = guardian(directory.path(), endpoint, endpoint);
        command.args([
            "run",
            "--queue-url",
            QUEUE,
            "--rules",
            "rules",
            "--state",
            "guardian.redb",
            "--listen",
            &free_address(),
        ]);
        // So many breaches would engage the brake, and reads of one after the other would use up the account's quota.
        command.args(["--fleet-brake", "60000", "--elb-reads", "1000"]);
        command
    });
    let bare = Client::start(reactions, latency, false, |_, endpoint| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        aws(&mut command, endpoint, endpoint).arg("--bare").stderr(Stdio::null());
        command
    });
    let mut clients = vec![worker.await, bare.await];
    if let Some(python) = python {
        clients.push(
            Client::start(reactions, latency, false, |_, endpoint| {
                let mut command = Command::new(python);
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/reaction.py");
                aws(&mut command, endpoint, endpoint).args([script, QUEUE]);
                command
            })
            .await,
        );
    }
    for client in &clients {
        client.ready().await;
    }
    let mut measured = [Vec::new(), Vec::new(), Vec::new()];
    for service in 0..reactions {
        for (client, measured) in clients.iter().zip(&mut measured) {
            measured.push(client.react(service).await);
        }
    }
    measured
}

/// What a rollback needs at least, for events that are all believed.
async fn bare() {
    let config = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).load().await;
    let sqs = aws_sdk_sqs::Client::new(&config);
    let ecs = aws_sdk_ecs::Client::new(&config);
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&config);
    loop {
        let receive = sqs.receive_message().queue_url(QUEUE).max_number_of_messages(10).wait_time_seconds(10);
        for message in receive.send().await.unwrap().messages.unwrap_or_default() {
            let event: serde_json::Value = serde_json::from_str(message.body().unwrap()).unwrap();
            let name = event["detail"]["group"].as_str().unwrap().trim_start_matches("service:").to_owned();
            let number: usize = name.trim_start_matches("service-").parse().unwrap();
            assert_eq!(name, service_name(number));
            let task = event["detail"]["taskArn"].as_str().unwrap();
            let (blue, green) = (fleet::group(number, false), fleet::group(number, true));
            let (service, tasks, rules, of_blue, of_green) = tokio::join!(
                ecs.describe_services().cluster("prod").services(&name).send(),
                ecs.describe_tasks().cluster("prod").tasks(task).send(),
                elb.describe_rules().listener_arn(fleet::listener_of(number)).send(),
                elb.describe_target_health().target_group_arn(&blue).send(),
                elb.describe_target_health().target_group_arn(&green).send(),
            );
            drop((service.unwrap(), tasks.unwrap(), rules.unwrap(), of_blue.unwrap(), of_green.unwrap()));
            let weighted = |group: &str, weight| {
                aws_sdk_elasticloadbalancingv2::types::TargetGroupTuple::builder()
                    .target_group_arn(group)
                    .weight(weight)
                    .build()
            };
            let forward = aws_sdk_elasticloadbalancingv2::types::ForwardActionConfig::builder()
                .target_groups(weighted(&blue, 100))
                .target_groups(weighted(&green, 0))
                .build();
            let action = aws_sdk_elasticloadbalancingv2::types::Action::builder()
                .r#type(aws_sdk_elasticloadbalancingv2::types::ActionTypeEnum::Forward)
                .forward_config(forward)
                .build();
            elb.modify_rule().rule_arn(fleet::rule_arn(number)).actions(action).send().await.unwrap();
            let green = task_set_id(number, true);
            let (rules, service, again) = tokio::join!(
                elb.describe_rules().listener_arn(fleet::listener_of(number)).send(),
                ecs.describe_services().cluster("prod").services(&name).send(),
                ecs.describe_task_sets().cluster("prod").service(&name).task_sets(&green).send(),
            );
            drop((rules.unwrap(), service.unwrap(), again.unwrap()));
            ecs.delete_task_set().cluster("prod").service(&name).task_set(&green).force(true).send().await.unwrap();
            let entry = aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder().id("0");
            let entry = entry.receipt_handle(message.receipt_handle().unwrap()).build().unwrap();
            sqs.delete_message_batch().queue_url(QUEUE).entries(entry).send().await.unwrap();
        }
    }
}
