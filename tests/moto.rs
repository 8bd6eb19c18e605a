//! The real binary against a third party's AWS: moto_server, set up through the real SDK clients.
//!
//! An EXTERNAL service has a blue and a green task set behind a weighted, sticky rule of an ALB. Two of green's tasks die;
//! their events go through EventBridge and SQS to `taskset-guardian run`. It must give all traffic to blue, delete green,
//! announce both on EventBridge, leave the queue empty, count it, and end in order.
//!
//! `tests/moto/launcher.py` adds to moto what a rollback can't do without:
//! - task sets run tasks of their own, as many as their scale says, with `startedBy` and `group` as in ECS, and replace
//!   those that end (moto starts tasks that belong to nobody);
//! - task sets count them: `runningCount`, `computedDesiredCount` (moto says nothing, which reads as 0);
//! - tasks have a `version`, and `StopTask` makes a task look as if its container had exited: `stopCode`, `stoppedAt`,
//!   exit code (moto's stopped tasks have only a reason);
//! - tasks stay as they are until they are stopped (in moto every `DescribeTasks` brings them nearer to their end).
//!
//! CloudWatch is the sandbox's, for moto does not speak its present protocol; it has no alarms. ECS's events are put by the
//! test, for moto emits none.
//!
//! What this can't show, because moto does it at once or does not check: a task set that is DRAINING, the PRIMARY that must
//! not be deleted, instability of a task set, targets that are unhealthy or not yet registered, rules that take time to
//! propagate, throttling, and refusals by IAM. The sandbox does these.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "moto/account.rs"]
mod account;
#[path = "moto/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use taskset_guardian::model::Timestamp;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

use account::{Account, Forward, REGION};
use process::{Process, eventually, free_address, get, launch_moto};

/// Long enough that only the events can have told of the failures, not a sweep.
const SWEEP: &str = "5m";

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

/// A CloudWatch without alarms.
struct NoAlarms;

impl Backend for NoAlarms {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        match call {
            Call::DescribeAlarms { .. } => Ok(Reply::Alarms(Vec::new())),
            other => Err(ApiError::client("InvalidAction", format!("only DescribeAlarms is expected here: {other:?}"))),
        }
    }
}

impl Timed for NoAlarms {
    fn advance_to(&mut self, _now: Timestamp) {}

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn next_event(&self) -> Option<Timestamp> {
        None
    }
}

/// Starts the program, with nothing of this process's environment.
fn start_guardian(directory: &Path, account: &Account, cloudwatch: &str, address: &str) -> Process {
    let rules = directory.join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("checkout.toml"), RULE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskset-guardian"));
    command
        .env_clear()
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ENDPOINT_URL", &account.endpoint)
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
    let before = account.rules().await;
    assert_eq!(account.forward().await, Forward::new([(&account.blue, 90), (&account.green, 10)]), "as set up");

    let address = free_address();
    let mut guardian = start_guardian(directory.path(), &account, &cloudwatch.endpoint(), &address);
    eventually("the guardian is ready", async || get(&address, "/readyz").filter(|(status, _)| *status == 200)).await;

    for task in account.tasks_of(&account.green).await {
        account.fail_task(&task).await;
    }

    let told = account.announcements(2).await;
    let kinds: BTreeSet<_> = told.iter().map(|event| event["detail-type"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["Rollback Started", "Rollback Completed"]));
    for event in &told {
        assert_eq!(event["detail"]["green"], account.green.id.as_str());
        assert_eq!(event["detail"]["blue"], account.blue.id.as_str());
    }

    assert_eq!(account.task_sets().await, [account.blue.id.clone()], "green is gone");
    assert_eq!(account.forward().await, Forward::new([(&account.blue, 100)]));
    let others =
        |rules: Vec<(String, String)>| rules.into_iter().filter(|(arn, _)| *arn != account.rule).collect::<Vec<_>>();
    assert_eq!(others(account.rules().await), others(before), "nobody else's traffic was touched");
    eventually("the queue is empty", async || (account.waiting_events().await == 0).then_some(())).await;

    let (_, exposed) = get(&address, "/metrics").unwrap();
    let rolled_back = r#"taskset_guardian_rollbacks_total{cluster="prod",outcome="rolled_back",service="checkout"}"#;
    assert_eq!(metric(&exposed, rolled_back), Some(1.0), "{exposed}");

    guardian.terminate();
    let ended = eventually("the guardian ends", async || guardian.ended()).await;
    assert_eq!(ended.code(), Some(0));
    cloudwatch.shutdown().await.unwrap();
}
