//! `terraform apply` and `destroy` of both examples against moto, and between them the real binary, with the environment
//! that the module gives it: green fails, and is rolled back.
//!
//! ```console
//! $ MOTO_SERVER=target/moto/bin/moto_server cargo test --test terraform -- --ignored
//! ```
//!
//! `terraform` must stand on PATH. The AWS provider comes from the registry, or from the folder that `TF_PLUGIN_DIR` names.
//!
//! Everything that the examples have is created; nothing is left out. What moto does not do with it: it starts no tasks of
//! the guardian's own service (the test starts the binary instead), it does not ask IAM, queue policies or topic policies
//! (tests/policy does, of the role), it evaluates no alarms, it never drops an event for its age, and it keeps no table's
//! TTL. What is added to moto is listed in moto.rs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "moto/account.rs"]
mod account;
#[path = "moto/cloudwatch.rs"]
mod cloudwatch;
#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};

use account::{Account, Created, Forward, REGION};
use cloudwatch::NoAlarms;
use process::{Process, eventually, free_address, get, guardian, launch_moto};

/// An example, in a directory of its own.
struct Terraform {
    directory: PathBuf,
    endpoint: String,
}

impl Terraform {
    /// Copies what the example needs, for Terraform writes beside it, and fetches the provider.
    fn new(directory: &Path, endpoint: &str, example: &str, variables: &Value) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let copied = Command::new("cp").arg("-R").args(["infra", "rules"]).arg(directory).current_dir(root).status();
        assert!(copied.unwrap().success());
        let directory = directory.join("infra/examples").join(example);
        std::fs::write(directory.join("terraform.tfvars.json"), variables.to_string()).unwrap();
        let terraform = Self { directory, endpoint: endpoint.to_owned() };
        let plugins = std::env::var("TF_PLUGIN_DIR").map(|folder| format!("-plugin-dir={folder}"));
        terraform.run(&["init"], &plugins.iter().map(String::as_str).collect::<Vec<_>>());
        terraform
    }

    /// What it said. It must succeed.
    fn run(&self, verb: &[&str], flags: &[&str]) -> String {
        let mut command = Command::new("terraform");
        command
            .args(verb)
            .args(["-no-color"])
            .args(flags)
            .current_dir(&self.directory)
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_INPUT", "0")
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.output().unwrap_or_else(|error| panic!("terraform: {error}. It must stand on PATH"));
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "terraform {verb:?}:\n{said}\n{complained}");
        said.into_owned()
    }

    /// Off the runtime's threads: others are to be answered meanwhile.
    fn apply(&self, variables: &[&str]) {
        let flags: Vec<String> = variables.iter().map(|variable| format!("-var={variable}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["-auto-approve"]).collect();
        tokio::task::block_in_place(|| self.run(&["apply"], &flags));
    }

    fn output(&self, name: &str) -> Value {
        serde_json::from_str(&self.run(&["output"], &["-json", name])).unwrap()
    }

    /// Everything goes. What Terraform can't destroy fails it.
    fn destroy(&self) {
        tokio::task::block_in_place(|| self.run(&["destroy"], &["-auto-approve"]));
        assert_eq!(self.run(&["state", "list"], &[]), "", "something is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs terraform and moto"]
async fn the_least_that_works_comes_and_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (_moto, network) = launch_moto(directory.path());
    let variables = json!({
        "cluster": "prod",
        "image": "registry.example.com/taskset-guardian:1.0.0",
        "vpc_id": network.vpc,
        "subnet_ids": network.subnets,
    });
    let terraform = Terraform::new(directory.path(), &network.endpoint, "minimal", &variables);
    terraform.apply(&[]);
    let settings = &terraform.output("guardian")["settings"]["all"];
    assert_eq!(settings["TASKSET_GUARDIAN_DRY_RUN"], "true");
    assert_eq!(settings["TASKSET_GUARDIAN_STATE"], "dynamodb://taskset-guardian");
    terraform.destroy();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs terraform and moto"]
async fn what_terraform_creates_is_rolled_back_by_a_worker_that_is_started_as_terraform_says() {
    let directory = tempfile::tempdir().unwrap();
    let (_moto, network) = launch_moto(directory.path());
    let endpoint = &network.endpoint;
    let cloudwatch = Sandbox::start(NoAlarms, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let (announcements_url, announcements_arn) = Account::queue(endpoint, "on-call").await;
    let variables = json!({
        "guardian_image": "registry.example.com/taskset-guardian:1.0.0",
        "blue_image": "checkout:1",
        "subscriptions": { "on-call": { "protocol": "sqs", "endpoint": announcements_arn } },
    });
    let terraform = Terraform::new(directory.path(), endpoint, "blue-green-service", &variables);

    // As the example's README says.
    terraform.apply(&[]);
    Account::set_primary(endpoint, terraform.output("task_sets")["blue"]["arn"].as_str().unwrap()).await;
    terraform.apply(&["green_image=checkout:2"]);
    let installed = terraform.output("guardian");
    let created = Created::read(|name| terraform.output(name));
    let events_url = installed["queue_urls"]["all"].as_str().unwrap().to_owned();
    let account = Account::created(endpoint, created, events_url, announcements_url).await;
    account.canary().await;
    account.promote_green().await;
    let others = account.other_rules().await;
    assert_eq!(account.forward().await, Forward::new([(&account.blue, 90), (&account.green, 10)]), "as deployed");

    // As in its container: the image names a directory of rules, which the module's outrank. Only where it listens is
    // another place.
    let settings: BTreeMap<String, String> = serde_json::from_value(installed["settings"]["all"].clone()).unwrap();
    let address = free_address();
    let mut command = guardian(directory.path(), endpoint);
    command.env("TASKSET_GUARDIAN_RULES", "/etc/taskset-guardian/rules").envs(settings);
    command.env("TASKSET_GUARDIAN_LISTEN", &address);
    command.env("AWS_ENDPOINT_URL_CLOUDWATCH", cloudwatch.endpoint()).arg("run");
    let mut worker = Process::start("taskset-guardian", command, directory.path());
    eventually("the worker protects what the tag names", async || {
        let ready = get(&address, "/readyz").is_some_and(|(status, _)| status == 200);
        let found = get(&address, "/status").is_some_and(|(_, said)| said.contains("\"service\":\"checkout\""));
        (ready && found).then_some(())
    })
    .await;

    account.fail_tasks_of(&account.green).await;

    let told = account.announcements(2).await;
    let kinds: BTreeSet<_> = told.iter().map(|event| event["detail-type"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["Rollback Started", "Rollback Completed"]), "by the topic");
    assert_eq!(account.task_sets().await, [&*account.blue.id], "green is gone");
    assert_eq!(account.standing(&account.blue).await, ("PRIMARY".to_owned(), 100.0));
    let back = Forward::new([(&account.blue, 100), (&account.green, 0)]);
    assert_eq!(account.forward().await, back, "users are on blue");
    assert_eq!(account.other_rules().await, others, "nobody else's traffic was touched");
    let (_, exposed) = get(&address, "/metrics").unwrap();
    let heard = "taskset_guardian_messages_total{outcome=\"signal\"} 2";
    assert!(exposed.contains(heard), "the events came by the rules that Terraform created: {exposed}");

    // Told that green is gone, Terraform leaves weights and scale alone.
    terraform.apply(&[]);
    assert_eq!((account.forward().await, account.task_sets().await), (back, vec![account.blue.id.clone()]));

    worker.terminate();
    let ended = eventually("the worker ends", async || worker.ended()).await;
    assert_eq!(ended.code(), Some(0));
    terraform.destroy();
    cloudwatch.shutdown().await.unwrap();
}
