//! The real binary against a third party's AWS: moto_server, set up through the real SDK clients.
//!
//! An EXTERNAL service has a blue and a green task set behind a weighted, sticky rule of an ALB. Green is PRIMARY already,
//! and blue scaled down to half. Two of green's tasks die; their events go through EventBridge and SQS to
//! `taskset-guardian run`. It must scale blue back, make it PRIMARY, give it all traffic, delete green, put the rule's pair
//! back, announce it all on EventBridge, leave the queue empty, count it, and end in order.
//!
//! `tests/moto/launcher.py` adds to moto what a rollback can't do without:
//! - a task set runs tasks of its own, as many as its scale says, with `startedBy` and `group` as in ECS, and replaces
//!   those that end (moto starts tasks that belong to nobody);
//! - a task set counts them: `runningCount`, `computedDesiredCount` (moto says nothing, which reads as 0);
//! - a task has a `version`, and `StopTask` makes it look as if its container had exited by itself: `stopCode`,
//!   `stoppedAt`, exit code (a task stopped in moto has only a reason);
//! - a task stays as it is until it is stopped (in moto every `DescribeTasks` brings it nearer to its end), and its
//!   containers' `cpu` and `memory` are texts, as the SDK demands (moto sends numbers);
//! - an event that EventBridge delivers names its `account` (moto leaves it out), and goes to SNS topics, too;
//! - a queue has a `RedriveAllowPolicy`, keeps its policy when another attribute is set, and a service has a
//!   `networkConfiguration` only when it was given one: Terraform's provider waits for the first two for ever, and trips over
//!   the last.
//!
//! CloudWatch is the sandbox's, without alarms, for moto does not speak its present protocol. ECS's events are put by the
//! test, for moto emits none, and lets anyone put events of AWS's sources.
//!
//! What this can't show, because moto does it at once or does not check: a task set that is DRAINING, a PRIMARY that must
//! not be deleted (moto deletes it), a task set that is not steady, targets that are unhealthy or not yet registered,
//! weights that take time to arrive at the load balancer, requests that are lost meanwhile, throttling, and what IAM
//! refuses. Those are the sandbox's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "moto/account.rs"]
mod account;
#[path = "moto/cloudwatch.rs"]
mod cloudwatch;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

use account::{Account, Forward};
use cloudwatch::NoAlarms;
use process::{Process, eventually, free_address, get, guardian, launch_moto};

/// Long enough that only the events can have told of the failures, not a sweep.
const SWEEP: &str = "5m";

/// The rule's, as below.
const DRAIN: Duration = Duration::from_secs(2);

const RULE: &str = r#"
name = "checkout"

[[protect]]
cluster = "prod"
service = "checkout"

[stability]
task_failures = 2

[rollback]
drain = "2s"
"#;

/// Starts the program, with nothing of this process's environment.
fn start_guardian(directory: &Path, account: &Account, cloudwatch: &str, address: &str) -> Process {
    let rules = directory.join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("checkout.toml"), RULE).unwrap();
    let mut command = guardian(directory, &account.endpoint);
    command
        .env("AWS_ENDPOINT_URL_CLOUDWATCH", cloudwatch)
        .args(["run", "--sweep", SWEEP, "--event-bus", "default"])
        .args(["--listen", address, "--queue-url", &account.events_url])
        .arg("--rules")
        .arg(rules)
        .arg("--state")
        .arg(directory.join("state.redb"));
    Process::start("taskset-guardian", command, directory)
}

/// The value of a metric, by its name and labels as exposed.
fn metric(exposed: &str, series: &str) -> Option<f64> {
    exposed.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto"]
async fn green_fails_on_moto_and_the_program_brings_the_traffic_back_to_blue_and_deletes_green() {
    let directory = tempfile::tempdir().unwrap();
    let (_moto, network) = launch_moto(directory.path());
    let cloudwatch = Sandbox::start(NoAlarms, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let account = Account::set_up(&network).await;
    account.promote_green().await;
    let others = account.other_rules().await;
    assert_eq!(account.forward().await, Forward::new([(&account.blue, 90), (&account.green, 10)]), "as set up");

    let address = free_address();
    let mut guardian = start_guardian(directory.path(), &account, &cloudwatch.endpoint(), &address);
    eventually("the guardian is ready", async || get(&address, "/readyz").filter(|(status, _)| *status == 200)).await;

    account.fail_tasks_of(&account.green).await;

    let told = account.announcements(2).await;
    let kinds: BTreeSet<_> = told.iter().map(|event| event["detail-type"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["Rollback Started", "Rollback Completed"]));
    for event in &told {
        assert_eq!(event["detail"]["green"], *account.green.id, "{event}");
        assert_eq!(event["detail"]["blue"], *account.blue.id, "{event}");
    }

    assert_eq!(account.task_sets().await, [&*account.blue.id], "green is gone");
    assert_eq!(account.standing(&account.blue).await, ("PRIMARY".to_owned(), 100.0), "blue is what it was");
    // The rule is sticky: it went to blue alone, and got its pair back.
    assert_eq!(account.forward().await, Forward::new([(&account.blue, 100), (&account.green, 0)]));
    assert_eq!(account.other_rules().await, others, "nobody else's traffic was touched");

    eventually("the queue is empty", async || (account.waiting_events().await == 0).then_some(())).await;
    let (_, exposed) = get(&address, "/metrics").unwrap();
    let rolled_back = r#"taskset_guardian_rollbacks_total{cluster="prod",outcome="rolled_back",service="checkout"}"#;
    assert_eq!(metric(&exposed, rolled_back), Some(1.0), "{exposed}");
    assert_eq!(metric(&exposed, r#"taskset_guardian_messages_total{outcome="signal"}"#), Some(2.0), "{exposed}");
    let until_deleted = metric(&exposed, r#"taskset_guardian_rollback_duration_seconds_sum{stage="delete"}"#).unwrap();
    assert!(until_deleted >= DRAIN.as_secs_f64(), "green was deleted {until_deleted} s after the shift");
    let failed =
        |line: &&str| line.starts_with("taskset_guardian_aws_requests_total") && !line.contains("outcome=\"ok\"");
    let failed: Vec<_> = exposed.lines().filter(failed).filter(|line| !line.ends_with(" 0")).collect();
    assert!(failed.is_empty(), "calls that moto refused: {failed:#?}");

    guardian.terminate();
    let ended = eventually("the guardian ends", async || guardian.ended()).await;
    assert_eq!(ended.code(), Some(0));
    cloudwatch.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto"]
async fn people_speak_to_the_program_by_tags_that_moto_keeps() {
    let directory = tempfile::tempdir().unwrap();
    let (_moto, network) = launch_moto(directory.path());
    let cloudwatch = Sandbox::start(NoAlarms, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let account = Account::set_up(&network).await;
    let address = free_address();
    let command = |line: &str| {
        let mut command = guardian(directory.path(), &account.endpoint);
        command.env("AWS_ENDPOINT_URL_CLOUDWATCH", cloudwatch.endpoint()).args(line.split(' '));
        command
    };
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/web.toml"), "name = \"web\"\n").unwrap();
    let run = format!("run --sweep 1s --listen {address} --rules rules --queue-url {}", account.events_url);
    let _guardian = Process::start("taskset-guardian", command(&run), directory.path());
    let verb = async |line: &str| {
        let mut command = command(line);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    let service = async |what: &str, fits: fn(&serde_json::Value) -> bool| {
        eventually(what, async || {
            let status: serde_json::Value = serde_json::from_str(&get(&address, "/status")?.1).ok()?;
            fits(&status["services"]).then_some(())
        })
        .await;
    };
    service("nobody is protected", |all| *all == serde_json::json!([])).await;
    verb("register prod/checkout --rule web").await;
    service("it is protected, and ready", |all| all[0]["rule"] == "web" && all[0]["ready"] == true).await;
    verb("hold prod/checkout --for 30m --reason migrating").await;
    service("it is held", |all| all[0]["hold"].to_string().contains("migrating")).await;
    verb("release prod/checkout").await;
    service("it is not held any more", |all| all[0]["hold"].is_null()).await;
    verb("unregister prod/checkout").await;
    service("nobody is protected again", |all| *all == serde_json::json!([])).await;
}
