//! The real binary, `run`, against the sandbox: bad input, crashes, dry runs, bad rules, refusals. Real time, short delays.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use taskset_guardian::model::{ServiceKey, Split};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend as _, Call, Reply};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Act, Crash, Delivery, RouteSetup, ServiceSetup, Setup, Timing, Version, World};

use process::{Process, eventually, free_address, get, guardian};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";
const DEAD_LETTERS: &str = "http://sandbox/queue/taskset-guardian-dlq";
const DRAIN: Duration = Duration::from_secs(3);
const RULE: &str = r#"
name = "all"

[[protect]]
cluster = "prod"
service = "*"

[stability]
task_failures = 2

[rollback]
drain = "3s"
"#;

/// A green whose every task crashes a second after its start.
fn crashing() -> Setup {
    let crash = Crash { after: Duration::from_secs(1), exit_code: 1, out_of_memory: false };
    let fast = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let script = vec![
        (Duration::from_secs(1), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (Duration::from_millis(1100), Act::SetWeights { blue: 90, green: 10 }),
    ];
    let route = RouteSetup { sticky: Some(Duration::from_hours(1)), authenticated: true, ..RouteSetup::default() };
    Setup {
        // A login before the forward, and a cookie: both must survive the shift.
        services: vec![ServiceSetup { script, routes: vec![route], ..ServiceSetup::default() }],
        versions: BTreeMap::from([("checkout:88".to_owned(), fast)]),
        timing: Timing { deregistration: Duration::from_secs(1), ..Timing::default() },
        delivery: Delivery {
            delay: (Duration::from_millis(20), Duration::from_millis(100)),
            duplicates: 0.3,
            ..Delivery::default()
        },
        visibility: Duration::from_secs(1),
        max_receives: 2,
        drain: DRAIN,
        ..Setup::default()
    }
}

/// A worker in front of a world.
struct Stage {
    sandbox: Sandbox<World>,
    directory: tempfile::TempDir,
    address: String,
}

impl Stage {
    async fn new(setup: Setup) -> Self {
        Self::behind(setup, WireSettings::default()).await
    }

    async fn behind(setup: Setup, wire: WireSettings) -> Self {
        let begin = SystemClock.now();
        let world = World::new(7, begin, setup);
        let sandbox = Sandbox::start(world, Arc::new(SystemClock), wire).await.unwrap();
        let stage = Self { sandbox, directory: tempfile::tempdir().unwrap(), address: free_address() };
        std::fs::create_dir(stage.directory.path().join("rules")).unwrap();
        stage.rule(RULE);
        stage
    }

    fn rule(&self, text: &str) {
        std::fs::write(self.directory.path().join("rules/all.toml"), text).unwrap();
    }

    fn worker(&self, flags: &[&str]) -> Process {
        let mut command = guardian(self.directory.path(), &self.sandbox.endpoint());
        command
            .args(["run", "--queue-url", QUEUE, "--rules", "rules", "--state", "state/guardian.redb"])
            .args(["--listen", &self.address, "--sweep", "2s"])
            .args(flags);
        Process::start("worker", command, self.directory.path())
    }

    fn send(&self, body: &str) {
        let send = Call::SendMessage { queue_url: QUEUE.to_owned(), body: body.to_owned() };
        self.sandbox.with(|world| world.call(send)).unwrap();
    }

    fn split(&self, service: &str) -> Split {
        let key = ServiceKey::new("prod", service);
        self.sandbox.with(|world| world.traffic(&key)).unwrap().configured
    }

    fn task_sets(&self, service: &str) -> usize {
        let ask = Call::DescribeServices { cluster: "prod".to_owned(), services: vec![service.to_owned()] };
        let Reply::Services { services, .. } = self.sandbox.with(|world| world.call(ask)).unwrap() else { panic!() };
        services.iter().flat_map(|service| &service.task_sets).filter(|set| set.status != "DRAINING").count()
    }

    fn waiting(&self, queue: &str) -> u32 {
        let ask = Call::GetQueueAttributes { queue_url: queue.to_owned() };
        let Reply::Attributes(all) = self.sandbox.with(|world| world.call(ask)).unwrap() else { panic!() };
        let number = |name: &str| all.get(name).map_or(0, |text| text.parse::<u32>().unwrap());
        number("ApproximateNumberOfMessages") + number("ApproximateNumberOfMessagesNotVisible")
    }

    /// `detail-type` and detail of all that was announced.
    fn announced(&self) -> Vec<(String, Value)> {
        let said = |world: &mut World| {
            let all = world.announcements().iter();
            all.map(|e| (e.detail_type.clone(), serde_json::from_str(&e.detail).unwrap())).collect()
        };
        self.sandbox.with(said)
    }

    async fn announces(&self, detail_type: &str) {
        eventually(&format!("{detail_type} is announced"), async || {
            self.announced().iter().any(|(said, _)| said == detail_type).then_some(())
        })
        .await;
    }

    fn keeps_promises(&self) {
        let broken: Vec<_> = self.sandbox.with(|world| world.violations().iter().map(ToString::to_string).collect());
        assert_eq!(broken, [] as [String; 0]);
    }

    fn metric(&self, line: &str) -> Option<f64> {
        get(&self.address, "/metrics")?.1.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_harms_nobody_and_the_good_messages_beside_it_are_heard() {
    let mut setup = crashing();
    let script = vec![(Duration::from_secs(1), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 })];
    let key = ServiceKey::new("prod", "codedeploy");
    setup.services.push(ServiceSetup { key, controller: "CODE_DEPLOY".to_owned(), script, ..ServiceSetup::default() });
    let stage = Stage::new(setup).await;

    let event = |account: &str, service: &str| {
        let arn = |what: &str| format!("arn:aws:ecs:eu-west-1:{account}:{what}");
        let detail = json!({
            "clusterArn": arn("cluster/prod"), "taskArn": arn("task/prod/0f9de17a"), "group": format!("service:{service}"),
            "startedBy": "ecs-svc/1", "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "version": 4,
            "stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited",
        });
        json!({
            "version": "0", "id": "1", "detail-type": "ECS Task State Change", "source": "aws.ecs", "account": account,
            "time": SystemClock.now(), "region": "eu-west-1", "resources": [], "detail": detail,
        })
        .to_string()
    };
    let poison = [
        "{\"source\": \"aws.ecs\",".to_owned(),
        "{\"source\": 7, \"detail-type\": []}".to_owned(),
        event("111122223333", "checkout").replace("\"version\":4", "\"version\":\"four\""),
        format!("\"{}\"", "x".repeat(1_000_000)),
        "[".repeat(100_000),
    ];
    let harmless = [
        event("999999999999", "checkout"),
        event("111122223333", "nobody-protects-me"),
        event("111122223333", "codedeploy"),
        event("111122223333", "checkout").replace("ECS Task State Change", "ECS Hook State Change"),
        event("111122223333", "checkout").replace("ecs-svc/1", "CODE_DEPLOY"),
    ];
    poison.iter().chain(&harmless).for_each(|body| stage.send(body));

    let _worker = stage.worker(&[]);
    stage.announces("Rollback Completed").await;
    assert_eq!(stage.split("checkout"), Split { blue: 1.0, green: 0.0 });
    assert_eq!((stage.task_sets("checkout"), stage.task_sets("codedeploy")), (1, 2));

    eventually("poison is in the dead-letter queue and nothing else is left", async || {
        let number = u32::try_from(poison.len()).unwrap();
        (stage.waiting(DEAD_LETTERS) == number && stage.waiting(QUEUE) == 0).then_some(())
    })
    .await;
    let undecodable = stage.metric("taskset_guardian_messages_total{outcome=\"undecodable\"}").unwrap();
    assert!(undecodable >= 5.0, "{undecodable}");
    assert!(stage.metric("taskset_guardian_messages_total{outcome=\"ignored\"}").unwrap() >= 2.0);
    let rollbacks = "taskset_guardian_rollbacks_total{cluster=\"prod\",outcome=\"rolled_back\",service=\"checkout\"}";
    assert_eq!(stage.metric(rollbacks), Some(1.0));
    let (_, status) = get(&stage.address, "/status").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let codedeploy = status["services"].as_array().unwrap().iter().find(|s| s["service"]["service"] == "codedeploy");
    assert_eq!(codedeploy.unwrap()["ready"], false);
    stage.keeps_promises();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_goes_on_from_its_journal() {
    let stage = Stage::new(crashing()).await;
    let worker = stage.worker(&[]);
    stage.announces("Rollback Started").await;
    drop(worker);
    assert!(stage.announced().iter().all(|(said, _)| said == "Rollback Started"), "killed too late to show anything");

    let mut worker = stage.worker(&[]);
    stage.announces("Rollback Completed").await;
    assert_eq!(stage.split("checkout"), Split { blue: 1.0, green: 0.0 });
    assert_eq!(stage.task_sets("checkout"), 1);
    let incidents: std::collections::BTreeSet<_> =
        stage.announced().iter().map(|(_, detail)| detail["incident"].to_string()).collect();
    assert_eq!(incidents.len(), 1, "one decision, whatever happened: {incidents:?}");
    stage.keeps_promises();

    worker.terminate();
    let ended = eventually("the worker ends", async || worker.ended()).await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_an_observing_rule_say_what_they_would_do_and_do_nothing() {
    for (flags, rule) in [(vec!["--dry-run"], RULE.to_owned()), (vec![], format!("mode = \"observe\"\n{RULE}"))] {
        let stage = Stage::new(Setup { expect_no_writes: true, ..crashing() }).await;
        stage.rule(&rule);
        let _worker = stage.worker(&flags);
        stage.announces("Rollback Held").await;
        assert_eq!(stage.announced().iter().filter(|(said, _)| said != "Rollback Held").count(), 0);
        assert!(stage.announced().iter().all(|(_, detail)| detail["dryRun"] == true));
        assert_eq!(stage.task_sets("checkout"), 2);
        stage.keeps_promises();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_calls_a_person_and_the_rollback_goes_on_once_it_is_allowed() {
    let stage = Stage::new(crashing()).await;
    let denied = ApiError::client("AccessDeniedException", "not authorized to perform: ModifyRule");
    stage.sandbox.with(|world| world.fail_next("ModifyRule", &denied, 2));
    let _worker = stage.worker(&[]);
    stage.announces("Rollback Escalated").await;
    stage.announces("Rollback Completed").await;
    assert_eq!(stage.task_sets("checkout"), 1);
    stage.keeps_promises();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rules_end_a_worker_that_begins_and_leave_the_last_good_ones_to_one_that_runs() {
    let stage = Stage::new(Setup::default()).await;
    stage.rule("name = \"all\"\nprotekt = 1\n");
    let mut worker = stage.worker(&[]);
    let ended = eventually("it ends", async || worker.ended()).await;
    assert_eq!(ended.code(), Some(1));
    let said = std::fs::read_to_string(stage.directory.path().join("worker.log")).unwrap();
    assert!(said.contains("all.toml") && said.contains("protekt"), "{said}");

    stage.rule(RULE);
    let _worker = stage.worker(&[]);
    let loaded = "taskset_guardian_rules_last_reload_successful";
    let is = |number: f64| {
        let stage = &stage;
        async move || stage.metric(loaded).filter(|found| (found - number).abs() < 0.1).map(|_| ())
    };
    eventually("the rules are loaded", is(1.0)).await;
    eventually("it is ready", async || get(&stage.address, "/readyz").filter(|(code, _)| *code == 200)).await;
    stage.rule("name = 7");
    eventually("the bad file is noticed", is(0.0)).await;
    let (_, status) = get(&stage.address, "/status").unwrap();
    assert!(status.contains("\"rules\":[\"all\"]"), "{status}");
    stage.rule(RULE);
    eventually("the good one is back", is(1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_files_that_are_gone_for_a_moment_take_no_protection_with_them() {
    let stage = Stage::new(Setup::default()).await;
    let (rules, aside) = (stage.directory.path().join("rules"), stage.directory.path().join("aside"));
    let empty = || {
        std::fs::rename(&rules, &aside).unwrap();
        std::fs::create_dir(&rules).unwrap();
    };
    let refill = || {
        std::fs::remove_dir(&rules).unwrap();
        std::fs::rename(&aside, &rules).unwrap();
    };
    empty();
    let mut worker = stage.worker(&[]);
    let ended = eventually("it ends", async || worker.ended()).await;
    assert_eq!(ended.code(), Some(1));
    assert!(worker.said().contains("no *.toml in rules"), "{}", worker.said());
    refill();

    let worker = stage.worker(&[]);
    let loaded = |number: f64| {
        let stage = &stage;
        let name = "taskset_guardian_rules_last_reload_successful";
        async move || stage.metric(name).filter(|found| (found - number).abs() < 0.1).map(|_| ())
    };
    let ready = async || get(&stage.address, "/readyz").filter(|(code, _)| *code == 200);
    let protects = || get(&stage.address, "/status").unwrap().1.contains("\"rules\":[\"all\"]");
    eventually("it is ready", ready).await;
    empty();
    eventually("that it is empty is noticed", loaded(0.0)).await;
    assert!(protects() && worker.said().contains("the last good rules stay in force"), "{}", worker.said());
    std::fs::remove_dir(&rules).unwrap();
    eventually("that it is gone too", async || worker.said().contains("rules: No such file").then_some(())).await;
    assert!(protects() && ready().await.is_some(), "{}", worker.said());
    std::fs::rename(&aside, &rules).unwrap();
    eventually("the good one is back", loaded(1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_waits_for_calls_in_flight_and_asked_again_it_ends_at_once() {
    let slow = WireSettings { latency: Duration::from_mins(1), ..WireSettings::default() };
    let stage = Stage::behind(Setup::default(), slow).await;
    let mut worker = stage.worker(&[]);
    // Until its loop turns there is nothing to wait for.
    let turns = async || get(&stage.address, "/status").filter(|(status, _)| *status == 200);
    eventually("its loop turns", turns).await;
    worker.terminate();
    let log = stage.directory.path().join("worker.log");
    eventually("it ends", async || std::fs::read_to_string(&log).unwrap().contains("Ask again").then_some(())).await;
    assert_eq!(worker.ended(), None, "a call is in flight");
    worker.terminate();
    let ended = eventually("it has ended", async || worker.ended()).await;
    assert_eq!(ended.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_half_a_page_does_not_keep_it_from_ending() {
    use std::io::Write as _;
    let stage = Stage::new(Setup::default()).await;
    let mut worker = stage.worker(&[]);
    let ready = async || get(&stage.address, "/readyz").filter(|(status, _)| *status == 200);
    eventually("it is ready", ready).await;
    let mut half = std::net::TcpStream::connect(&stage.address).unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    worker.terminate();
    let ended = eventually("it ends", async || worker.ended()).await;
    assert_eq!(ended.code(), Some(0), "{}", worker.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_leads_through_all_the_lines_of_a_rollback() {
    let stage = Stage::new(crashing()).await;
    let worker = stage.worker(&[]);
    stage.announces("Rollback Completed").await;
    let id = stage.announced()[0].1["incident"].as_str().unwrap().to_owned();
    let log = eventually("the log tells of the end", async || {
        let log = worker.said();
        log.contains("is rolled back").then_some(log)
    })
    .await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let says = |line: &Value, what: &str| line["message"].as_str().is_some_and(|message| message.contains(what));
    let of_service: Vec<_> = lines.iter().filter(|line| line["service"] == "prod/checkout").collect();
    let from = of_service.iter().position(|line| says(line, "the guardian rolls back")).unwrap();
    let to = of_service.iter().position(|line| says(line, "is rolled back")).unwrap();
    let unnamed: Vec<_> = of_service[from..=to].iter().filter(|line| line["incident"] != id.as_str()).collect();
    assert!(unnamed.is_empty() && to - from > 5, "{unnamed:#?}");
    for secret in ["AKIA", "\"test\"", "SECRET"] {
        assert!(!log.contains(secret), "{secret}");
    }
}
