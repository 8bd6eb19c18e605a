//! The verbs by which people speak to the worker: the real binary, against the sandbox.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::model::{AlarmValue, Incident, Role, ServiceKey};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend as _, Call, Reply};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{
    Act, AlarmMetric, AlarmSetup, Crash, Delivery, EventRuleSetup, ServiceSetup, Setup, Timing, Version, World,
};

use process::{Process, eventually, free_address, guardian};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

const RULES: &str = "name = \"web\"\n\n[stability]\ntask_failures = 2\n\n[rollback]\ndrain = \"1s\"\n";

struct Stage {
    sandbox: Sandbox<World>,
    directory: tempfile::TempDir,
    address: String,
}

/// What a verb said, and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Stage {
    async fn new() -> Self {
        Self::with(vec![EventRuleSetup::default()]).await
    }

    async fn with(event_rules: Vec<EventRuleSetup>) -> Self {
        let crash = Crash { after: Duration::from_secs(1), exit_code: 1, out_of_memory: false };
        let bad = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
        let service = |name: &str, controller: &str| ServiceSetup {
            key: ServiceKey::new("prod", name),
            controller: controller.to_owned(),
            requests_per_second: 0,
            ..ServiceSetup::default()
        };
        let setup = Setup {
            services: vec![service("checkout", "EXTERNAL"), service("rolling", "ECS")],
            alarms: vec![AlarmSetup {
                name: "checkout-blue-5xx".to_owned(),
                service: ServiceKey::new("prod", "checkout"),
                watches: Some(Role::Blue),
                metric: AlarmMetric::Target5xx,
                period: 60,
                evaluation_periods: 1,
                threshold: 1.0,
                initial: AlarmValue::Ok,
            }],
            versions: BTreeMap::from([("checkout:88".to_owned(), bad)]),
            timing: Timing { deregistration: Duration::from_secs(1), ..Timing::default() },
            delivery: Delivery {
                delay: (Duration::from_millis(20), Duration::from_millis(100)),
                ..Delivery::default()
            },
            drain: Duration::ZERO,
            event_rules,
            ..Setup::default()
        };
        let world = World::new(7, SystemClock.now(), setup);
        let sandbox = Sandbox::start(world, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
        let stage = Self { sandbox, directory: tempfile::tempdir().unwrap(), address: free_address() };
        std::fs::create_dir(stage.directory.path().join("rules")).unwrap();
        std::fs::write(stage.directory.path().join("rules/web.toml"), RULES).unwrap();
        stage
    }

    fn worker(&self) -> Process {
        let mut command = guardian(self.directory.path(), &self.sandbox.endpoint());
        command.args(["run", "--queue-url", QUEUE, "--sweep", "1s", "--listen", &self.address]);
        Process::start("worker", command, self.directory.path())
    }

    /// One verb. Off the runtime's threads: the sandbox has to answer it meanwhile.
    async fn verb(&self, line: &str) -> Said {
        let mut command = guardian(self.directory.path(), &self.sandbox.endpoint());
        command.args(line.split(' ')).env("TASKSET_GUARDIAN_SERVER", format!("http://{}", self.address));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The code of one whose readers are gone before it says anything.
    async fn verb_into_nothing(&self, line: &str) -> Option<i32> {
        let mut command = guardian(self.directory.path(), &self.sandbox.endpoint());
        command.args(line.split(' ')).env("TASKSET_GUARDIAN_SERVER", format!("http://{}", self.address));
        let closed = || std::io::pipe().unwrap().1;
        command.stdout(closed()).stderr(closed());
        tokio::task::spawn_blocking(move || command.status().unwrap().code()).await.unwrap()
    }

    fn tags(&self, service: &str) -> BTreeMap<String, String> {
        let ask = Call::DescribeServices { cluster: "prod".to_owned(), services: vec![service.to_owned()] };
        let Reply::Services { services, .. } = self.sandbox.with(|world| world.call(ask)).unwrap() else { panic!() };
        services[0].tags.clone()
    }

    fn deploy(&self, version: &str) -> String {
        let key = ServiceKey::new("prod", "checkout");
        let act = Act::CreateTaskSet { version: version.to_owned(), scale: 100.0 };
        self.sandbox.with(|world| world.person(&key, &act));
        let ask = Call::DescribeServices { cluster: "prod".to_owned(), services: vec!["checkout".to_owned()] };
        let Reply::Services { services, .. } = self.sandbox.with(|world| world.call(ask)).unwrap() else { panic!() };
        services[0].task_sets.last().unwrap().id.clone()
    }

    async fn protected(&self) {
        eventually("the worker has found it", async || {
            let status = process::get(&self.address, "/status")?.1;
            status.contains("\"service\":\"checkout\"").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_could_not_be_rolled_back_is_not_registered() {
    let stage = Stage::new().await;
    let refused = stage.verb("register prod/rolling --rule web").await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains("its deployment controller is ECS, not EXTERNAL"), "{refused:?}");
    assert!(stage.tags("rolling").is_empty());

    let misspelt = stage.verb("register prod checkout --rule wbe").await;
    assert!(misspelt.code == 1 && misspelt.err.contains("there are: web"), "{misspelt:?}");
    assert!(stage.tags("checkout").is_empty());

    assert_eq!(stage.verb("register prod/rolling --rule web --force").await.code, 0);
    assert_eq!(stage.tags("rolling")["taskset-guardian:rule"], "web");
    assert_eq!(stage.verb("unregister prod/rolling").await.code, 0);
    assert!(stage.tags("rolling").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_in_the_way() {
    let stage = Stage::new().await;
    let nobody = stage.verb("doctor prod/nobody").await;
    assert!(nobody.code == 1 && nobody.out.contains("correct cluster and service"), "{nobody:?}");
    let bare = stage.verb("doctor checkout").await;
    assert!(bare.code == 2 && bare.err.contains("CLUSTER/checkout"), "{bare:?}");
    let none = stage.verb("doctor").await;
    assert!(none.code == 2 && none.err.contains("no service is protected"), "{none:?}");

    assert_eq!(stage.verb("register prod/checkout --rule web").await.code, 0);
    let all = stage.verb("doctor --output json").await;
    let document: serde_json::Value = serde_json::from_str(&all.out).unwrap();
    assert_eq!((all.code, document[0]["ready"].as_bool(), document[0]["rule"].as_str()), (0, Some(true), Some("web")));

    let denied = ApiError::client("AccessDeniedException", "not allowed");
    stage.sandbox.with(|world| world.fail_next("DescribeServices", &denied, 1));
    let refused = stage.verb("doctor prod/checkout").await;
    assert!(refused.code == 1 && refused.out.contains("grant it"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_follows_the_events_to_the_worker() {
    let stage = Stage::new().await;
    assert_eq!(stage.verb("register prod/checkout --rule web").await.code, 0);
    let doctor = format!("doctor prod/checkout --queue-url {QUEUE} --server http://{}", stage.address);
    let alone = stage.verb(&doctor).await;
    assert!(alone.code == 0 && alone.out.contains("run one, or name it by --server"), "{alone:?}");
    let _worker = stage.worker();
    stage.protected().await;
    eventually("the worker is ready", async || (process::get(&stage.address, "/readyz")?.0 == 200).then_some(())).await;
    let all = stage.verb(&doctor).await;
    for said in [
        "messages wait in the queue",
        "task events reach the queue by the rule taskset-guardian",
        "alarm events reach the queue by the rule taskset-guardian",
        "a worker runs and protects this service",
        "received no event since its start",
        "back on blue about",
    ] {
        assert!(all.code == 0 && all.out.contains(said), "{said}: {all:?}");
    }
    let nothing = stage.verb("explain prod/checkout").await;
    assert!(nothing.code == 1 && nothing.err.contains("no deployment, no incident"), "{nothing:?}");
    stage.deploy("checkout:90");
    let live = eventually("the live deployment is told, with its gates", async || {
        Some(stage.verb("explain prod/checkout").await).filter(|said| said.out.contains("stability.task_failures"))
    });
    let live = live.await;
    assert!(live.code == 0 && live.out.contains("watching"), "{live:?}");
    let other = stage.verb(&doctor.replace("queue/taskset-guardian", "queue/elsewhere")).await;
    assert!(other.code == 0 && other.out.contains("correct --queue-url"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_events_that_get_lost_on_their_way() {
    let tight = r#"{ "source": ["aws.ecs"], "detail": { "group": ["service:other"] } }"#;
    let as_installed = EventRuleSetup::default();
    for (rule, said) in [
        (EventRuleSetup { enabled: false, ..as_installed.clone() }, "is switched off"),
        (EventRuleSetup { may_send: false, ..as_installed.clone() }, "policy does not let the EventBridge rule"),
        (EventRuleSetup { pattern: tight.to_owned(), ..as_installed }, "no EventBridge rule sends this service's"),
    ] {
        let stage = Stage::with(vec![rule]).await;
        let lost = stage.verb(&format!("doctor prod/checkout --queue-url {QUEUE}")).await;
        assert!(lost.code == 0 && lost.out.contains(said), "{said}: {lost:?}");
        assert_eq!(lost.out.matches("warn  events").count(), 2, "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_what_may_be_written_without_writing() {
    let stage = Stage::new().await;
    let doctor = "doctor prod/checkout --try-writes";
    let allowed = stage.verb(doctor).await;
    assert_eq!((allowed.code, allowed.out.matches("is allowed (tried on").count()), (0, 4), "{allowed:?}");
    let denied = ApiError::client("AccessDeniedException", "not authorized to perform ecs:DeleteTaskSet");
    stage.sandbox.with(|world| world.fail_next("DeleteTaskSet", &denied, 1));
    let refused = stage.verb(doctor).await;
    assert!(refused.code == 1 && refused.out.contains("DeleteTaskSet is not allowed"), "{refused:?}");
    assert_eq!(refused.out.matches("is allowed (tried on").count(), 3, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_learns_what_became_of_its_deployment() {
    let stage = Stage::new().await;
    let early = stage.verb("verdict prod/checkout --task-set ecs-svc/1").await;
    assert!(early.code == 2 && early.err.contains("--server names another one"), "{early:?}");

    assert_eq!(stage.verb("register prod/checkout --rule web").await.code, 0);
    let _worker = stage.worker();
    stage.protected().await;
    let nothing = stage.verb("rollback prod/checkout --reason none").await;
    assert!(nothing.code == 1 && nothing.err.contains("nothing to go back to"), "{nothing:?}");

    let observing = RULES.replace("name", "mode = \"observe\"\nname");
    std::fs::create_dir(stage.directory.path().join("elsewhere")).unwrap();
    std::fs::write(stage.directory.path().join("elsewhere/web.toml"), observing).unwrap();
    let green = stage.deploy("checkout:88");
    let watched = stage.verb("rollback prod/checkout --rules elsewhere").await;
    assert!(watched.code == 1 && watched.err.contains("only observes"), "{watched:?}");
    let afar = stage.verb("doctor prod/checkout --rules nowhere").await;
    assert!(afar.code == 0 && afar.out.contains("\"web\", which is not among these rule files"), "{afar:?}");
    let bad = stage.verb(&format!("verdict prod/checkout --task-set {green} --wait 60s")).await;
    assert!(bad.code == 1 && bad.out.contains("rolled_back"), "{bad:?}");
    let told = stage.verb("explain prod/checkout").await;
    for said in
        ["prod/checkout was rolled back", "2 tasks of green", "exit code 1", "checkout-green 0", "DeleteTaskSet done"]
    {
        assert!(told.code == 0 && told.out.contains(said), "{said}: {told:?}");
    }
    let document = stage.verb("explain prod/checkout --output json").await;
    let incident: Incident = serde_json::from_str(&document.out).unwrap();
    let (before, after) = (incident.before.unwrap(), incident.after.unwrap());
    assert_eq!((before.task_sets.len(), before.ended.iter().filter(|one| one.role == Role::Green).count()), (2, 2));
    assert!(!before.rules.is_empty() && before.rules.len() == after.rules.len(), "{before:?} {after:?}");
    assert!(incident.calls.iter().all(|call| call.applied && call.sent_at.is_some_and(|sent| sent <= call.at)));
    assert_eq!(stage.verb(&format!("explain {}", incident.id)).await.out, told.out);
    let table = stage.verb("status").await;
    assert!(
        table.code == 0 && table.out.contains("rolled_back") && table.out.contains("1 services, 1 ready"),
        "{table:?}"
    );
    assert_eq!(stage.verb("register prod/rolling --rule web --force").await.code, 0);
    let told = eventually("one that is not ready shows", async || {
        let reason = "not ready: its deployment controller is ECS";
        Some(stage.verb("status").await).filter(|said| said.out.contains(reason))
    });
    let told = told.await;
    assert!(told.code == 1 && told.out.contains("2 services, 1 ready"), "{told:?}");
    let unknown = stage.verb("explain rollback-1").await;
    assert!(unknown.code == 2 && unknown.err.contains("knows of no incident"), "{unknown:?}");

    let gone = stage.verb_into_nothing(&format!("verdict prod/checkout --task-set {green}")).await;
    assert_eq!(gone, Some(1), "the code says it, whoever reads");
    let gone = stage.verb_into_nothing("quarantined prod/checkout --task-definition checkout:88").await;
    assert_eq!(gone, Some(1));

    let known = stage.verb("quarantined prod/checkout --task-definition checkout:88").await;
    assert!(known.code == 1 && known.out.contains("is in quarantine"), "{known:?}");
    assert_eq!(stage.verb("quarantined prod/checkout --task-definition checkout:87").await.code, 0);

    let released = stage.verb("release prod/checkout --version checkout:88 --wait 4s").await;
    assert_eq!(released.code, 0, "{released:?}");
    assert_eq!(stage.verb("quarantined prod/checkout --task-definition checkout:88").await.code, 0);
    assert!(!stage.tags("checkout").contains_key("taskset-guardian:release"), "it would lift every later one");
    assert_eq!(stage.verb("release prod/checkout --version latest").await.code, 2);

    stage.deploy("checkout:88");
    // Rules of somebody else's, in a folder that lies about, and then bad ones. The worker has its own.
    let theirs = stage.directory.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    let rehearsal = "rollback prod/checkout --rules theirs --reason slow --dry-run";
    let afar = stage.verb(rehearsal).await;
    assert!(afar.out.contains("DeleteTaskSet") && afar.err.contains("is not in theirs"), "{afar:?}");
    std::fs::write(theirs.join("web.toml"), "name = 7").unwrap();
    let afar = stage.verb(rehearsal).await;
    assert!(afar.out.contains("DeleteTaskSet") && afar.err.contains("\ntheirs/web.toml:1:8: R003"), "{afar:?}");
    let afar = stage.verb("rollback prod/checkout --rules nowhere --reason slow").await;
    assert!(afar.code == 0 && afar.err.contains("is not in nowhere"), "who is in a hurry is not refused: {afar:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_patterns_that_match_nothing_when_aws_can_be_asked() {
    let stage = Stage::new().await;
    let protects =
        |cluster: &str, service: &str| format!("[[protect]]\ncluster = \"{cluster}\"\nservice = \"{service}\"\n");
    let entries =
        [("prod", "check*"), ("prod", "rolling"), ("prod", "chekout"), ("prod", "pay-*"), ("prd", "checkout")];
    let text = entries.iter().map(|(cluster, service)| protects(cluster, service)).collect::<String>();
    std::fs::write(stage.directory.path().join("rules/web.toml"), format!("name = \"web\"\n{text}")).unwrap();
    let alone = stage.verb("check rules").await;
    assert_eq!(alone.code, 0, "{alone:?}");
    let asked = stage.verb("check rules --aws").await;
    assert_eq!(asked.code, 1, "{asked:?}");
    for (wrong, line) in [("prod/chekout", 8), ("prod/pay-*", 11), ("prd/checkout", 14)] {
        let said = format!("error[R011]: {wrong} matches no service of this account and Region");
        let place = format!("--> rules/web.toml:{line}:1");
        assert!(asked.out.contains(&said) && asked.out.contains(&place), "{said} {place} {asked:?}");
    }
    assert!(asked.out.contains("did you mean prod/checkout?") && asked.err.contains("3 errors"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_may_not_be_listed_is_named_and_the_rest_is_looked_at() {
    let stage = Stage::new().await;
    let rules = stage.directory.path().join("rules/web.toml");
    let protects = |entries: &[(&str, &str)]| {
        let entry = |(cluster, service): &(&str, &str)| {
            format!("[[protect]]\ncluster = \"{cluster}\"\nservice = \"{service}\"\n")
        };
        std::fs::write(&rules, format!("name = \"web\"\n{}", entries.iter().map(entry).collect::<String>())).unwrap();
    };
    // The clusters are listed in the order of their names: this one comes before prod, and is denied alone.
    let refused = ApiError::client("AccessDeniedException", "not allowed");
    let deny = || stage.sandbox.with(|world| world.fail_next("ListServices", &refused, 1));
    let said = "services of the cluster alpha can't be found: ecs:ListServices failed (denied";

    protects(&[("alpha", "web-*"), ("prod", "check*"), ("prod", "pay-*")]);
    deny();
    let asked = stage.verb("check rules --aws").await;
    assert!(asked.code == 1 && asked.err.contains(said), "{asked:?}");
    assert!(asked.out.contains("prod/pay-* matches no service") && !asked.out.contains("alpha"), "{asked:?}");

    protects(&[("alpha", "web-*"), ("prod", "check*")]);
    deny();
    let asked = stage.verb("check rules --aws").await;
    let unknown = "whether a service matches alpha/web-* is not known";
    assert!(asked.code == 2 && asked.err.contains(unknown), "neither right nor wrong: {asked:?}");

    deny();
    let examined = stage.verb("doctor").await;
    assert!(examined.code == 0 && examined.err.contains(said), "{examined:?}");
    assert!(examined.out.contains("prod/checkout could be rolled back now"), "{examined:?}");

    let down = ApiError { status: 500, ..ApiError::client("ServerException", "down") };
    stage.sandbox.with(|world| world.fail_next("ListServices", &down, 9));
    assert_eq!(stage.verb("doctor").await.code, 2, "it may be different next time");
}

/// Of a replica that stands by.
const STANDBY: &str = r#"{"worker":{"role":"standby","ready":false,"not_ready":["leader: standby"]},"services":[]}"#;

/// Answers every question with this status, and with one old incident.
fn answers(address: &str, status: &'static str) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    let old = r#"{"id":"rollback-7","service":{"cluster":"prod","service":"checkout"},"green":"ecs-svc/7","blue":"ecs-svc/6",
        "task_definition":"checkout:7","outcome":"rolled_back","reason":null,"first_sign_at":"2026-01-02T03:04:05Z",
        "detected_at":"2026-01-02T03:04:05Z","traffic_safe_at":null,"deleted_at":null,"evidence":[],"timeline":[]}"#;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).unwrap();
            let body = match String::from_utf8_lossy(&asked[..read]).split(' ').nth(1).unwrap() {
                "/status" => status,
                "/incidents/rollback-7" => old,
                _ => &format!("[{old}]"),
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_by_is_not_taken_for_one_that_knows() {
    let stage = Stage::new().await;
    answers(&stage.address, STANDBY);
    let asked = [
        "explain prod/checkout",
        "verdict prod/checkout --task-set ecs-svc/8",
        "quarantined prod/checkout --task-definition checkout:7",
    ];
    for verb in asked {
        let told = stage.verb(verb).await;
        assert!(told.code == 2 && told.out.is_empty() && told.err.contains("this replica stands by"), "{told:?}");
    }
    let told = stage.verb("explain rollback-7").await;
    assert!(told.code == 0 && told.out.contains("rollback-7"), "what is over is in the table: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_interrupted_leaves_no_tag_behind() {
    let stage = Stage::new().await;
    for end in [Process::interrupt, Process::terminate, Process::hang_up] {
        let mut command = guardian(stage.directory.path(), &stage.sandbox.endpoint());
        command.args(["release", "prod/checkout", "--version", "checkout:88", "--wait", "10m"]);
        let mut releasing = Process::start("release", command, stage.directory.path());
        eventually("it says what it waits for", async || releasing.said().contains("waiting 10m").then_some(())).await;
        assert_eq!(stage.tags("checkout")["taskset-guardian:release"], "checkout:88");
        end(&releasing);
        let ended = eventually("it ends", async || releasing.ended()).await;
        assert_eq!(ended.code(), Some(2), "{}", releasing.said());
        assert!(releasing.said().contains("the worker may not have read it"), "{}", releasing.said());
        assert!(stage.tags("checkout").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_rollback_is_not_how_a_service_stands() {
    let stage = Stage::new().await;
    answers(
        &stage.address,
        r#"{"worker":{"role":"active","ready":true,"not_ready":[]},"services":[{"service":{"cluster":"prod","service":"checkout"},
        "ready":true,"deployment":{"green":"ecs-svc/8","blue":"ecs-svc/6","phase":"graduated","phase_word":"graduated",
        "why":"green has been PRIMARY with all the traffic for 15m","incident":null}}]}"#,
    );
    let told = stage.verb("explain prod/checkout").await;
    assert!(told.code == 0 && told.out.contains("ecs-svc/8") && !told.out.contains("was rolled back"), "{told:?}");
    assert!(told.out.contains("rollback-7 of ecs-svc/7"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arn_of_another_account_or_region_is_refused() {
    let stage = Stage::new().await;
    let arn = |region: &str, account: u64| format!("arn:aws:ecs:{region}:{account}:service/prod/checkout");
    for elsewhere in [arn("us-east-1", 111_122_223_333), arn("eu-west-1", 999_988_887_777)] {
        for verb in ["hold ARN --for 30m --reason x", "release ARN", "unregister ARN", "doctor ARN", "rollback ARN"] {
            let said = stage.verb(&verb.replace("ARN", &elsewhere)).await;
            assert!(said.code == 2 && said.err.contains("is not what is reached here"), "{said:?}");
        }
    }
    assert!(stage.tags("checkout").is_empty());
    let here = arn("eu-west-1", 111_122_223_333);
    assert_eq!(stage.verb(&format!("hold {here} --for 30m --reason x")).await.code, 0);
    assert!(stage.tags("checkout").contains_key("taskset-guardian:hold-until"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_rollback_that_would_not_end_is_not_told_that_it_is_done() {
    let stage = Stage::new().await;
    let page = format!("{RULES}after_promotion = \"page\"\n");
    std::fs::write(stage.directory.path().join("rules/web.toml"), page).unwrap();
    assert_eq!(stage.verb("register prod/checkout --rule web").await.code, 0);
    stage.deploy("checkout:89");
    let key = ServiceKey::new("prod", "checkout");
    stage.sandbox.with(|world| world.person(&key, &Act::SetPrimary(Role::Green)));
    let waited = stage.verb("rollback prod/checkout --wait 2s").await;
    assert_eq!(waited.code, 1, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_right_is_no_good_news() {
    let stage = Stage::new().await;
    let named = stage.verb("register prod/checkout --rule we!b").await;
    assert!(named.code == 2 && named.err.contains("can't be the name of a rule"), "{named:?}");
    assert_eq!(stage.verb("register prod/checkout --rule web").await.code, 0);
    let rules = stage.directory.path().join("rules/web.toml");
    let protects =
        "[[protect]]\ncluster = \"prod\"\nservice = \"check*\"\n[[protect]]\ncluster = \"gone\"\nservice = \"*\"\n";
    std::fs::write(&rules, format!("name = \"other\"\n{protects}")).unwrap();
    let _worker = stage.worker();
    stage.protected().await;
    eventually("a cluster that does not exist keeps it from no other", async || {
        Some(()).filter(|()| process::get(&stage.address, "/readyz").is_some_and(|(code, _)| code == 200))
    })
    .await;
    for nothing in ["", "checkout", ":7"] {
        let asked = stage.verb(&format!("quarantined prod/checkout --task-definition {nothing}")).await;
        assert!(asked.code == 2 && asked.err.contains("is no version"), "{asked:?}");
    }
    let examined = stage.verb("doctor prod/checkout").await;
    assert!(examined.out.contains("\"other\" protects it instead"), "{examined:?}");
    assert!(examined.out.contains("a worker runs, and could not roll this service back: its tag"), "{examined:?}");
    let all = stage.verb("doctor").await;
    assert!(all.out.contains("prod/checkout") && all.err.contains("cluster gone can't be found"), "{all:?}");
    assert_eq!(stage.verb("status").await.code, 1, "one is not ready");
    assert_eq!(stage.verb_into_nothing("status").await, Some(1), "nor is it when nobody reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_written_with_its_reason_and_its_end() {
    let stage = Stage::new().await;
    let held = stage.verb("hold prod checkout --for 30m --reason migration#7").await;
    assert_eq!(held.code, 0, "{held:?}");
    let tags = stage.tags("checkout");
    assert_eq!(tags["taskset-guardian:hold-reason"], "migration 7", "as AWS takes it");
    let until = taskset_guardian::model::Timestamp::parse(&tags["taskset-guardian:hold-until"]).unwrap();
    let left = until.since(SystemClock.now());
    assert!(left > Duration::from_mins(29) && left <= Duration::from_mins(30), "{left:?}");
    assert_eq!(stage.verb("release prod checkout").await.code, 0);
    assert!(stage.tags("checkout").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_outside_can_not_command_the_terminal() {
    let stage = Stage::new().await;
    let hostile = ApiError::client("AccessDeniedException", "\u{1b}[2J\u{1b}]0;all is well\u{7}not allowed");
    stage.sandbox.with(|world| world.fail_next("DescribeServices", &hostile, 9));
    let told = stage.verb("doctor prod/checkout").await;
    assert!(told.out.contains("\u{fffd}[2J") && !told.out.contains('\u{1b}'), "{told:?}");
    let refused = stage.verb("hold prod/checkout --for 30m --reason x").await;
    assert!(refused.err.contains("\u{fffd}[2J") && !refused.err.contains('\u{1b}'), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_status_follows_the_worker_and_ends_when_it_is_told_to() {
    let stage = Stage::new().await;
    assert_eq!(stage.verb("register prod/checkout --rule web").await.code, 0);
    let mut command = guardian(stage.directory.path(), &stage.sandbox.endpoint());
    command.args(["status", "--watch", "--server", &format!("http://{}", stage.address)]);
    let mut watching = Process::start("status", command, stage.directory.path());
    let mut pipe = watching.stdout();
    let (sender, screens) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut some) {
            if sender.send(String::from_utf8_lossy(&some[..read]).into_owned()).is_err() {
                break;
            }
        }
    });
    let seen = std::cell::RefCell::new(String::new());
    let shows = async |what: &str| {
        eventually(&format!("status shows {what:?}"), async || {
            seen.borrow_mut().extend(screens.try_iter());
            seen.borrow().contains(what).then_some(())
        })
        .await;
    };
    shows(&stage.address).await;
    let _worker = stage.worker();
    shows("prod/checkout").await;
    stage.deploy("checkout:88");
    shows("rolled_back").await;
    watching.interrupt();
    let ended = eventually("it ends", async || watching.ended()).await;
    assert_eq!(ended.code(), Some(0));
}
