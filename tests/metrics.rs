//! Every metric, by its value: deployments with a known ending are played, and the numbers must tell them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_cmp,
    clippy::print_stderr,
    reason = "a test may panic, and counts are exact"
)]

#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/process.rs"]
mod process;
#[path = "support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use taskset_guardian::engine::{Note, Report};
use taskset_guardian::model::{ServiceKey, TaskSetStatus, Timestamp};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend as _, Call};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{ServiceSetup, Setup, World};
use taskset_guardian::telemetry::Metrics;

use exposition::{Exposition, METRICS, metric};
use process::{Process, eventually, free_address, get, guardian};
use support::{Aws, Driver, GREEN, SWEEP, rule, start, task_set};

type Asked = Rc<RefCell<BTreeSet<String>>>;

const CHECKOUT: [(&str, &str); 2] = [("cluster", "prod"), ("service", "checkout")];
/// The first moment of a demo.
const BEGIN: f64 = 1_772_445_600.0;

/// With these labels, of checkout.
fn of<'a>(label: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
    [CHECKOUT[0], CHECKOUT[1], (label, value)]
}

/// A demo under way, and somebody who looks at it all the time.
struct Demo(JoinHandle<(Vec<String>, Value)>);

/// A demo that has ended: what was to be seen on its way, at its end, and what it says itself.
struct Played {
    seen: Vec<Exposition>,
    last: Exposition,
    told: Value,
}

/// Half a minute of looks that find the worker in the middle of a message are more than chance.
const LOOKS: usize = 1_500;

/// Every message that was counted has been taken in.
fn is_settled(text: &str) -> bool {
    let values = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let messages = values("taskset_guardian_messages_total{outcome=\"signal\"}");
    let lags = values("taskset_guardian_event_lag_seconds_count");
    messages == lags && messages == values("taskset_guardian_signals_total{")
}

impl Demo {
    fn begin(scenario: &str, speed: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskset-guardian"));
        command.args(["demo", "--scenario", scenario, "--speed", speed, "--serve", "--listen", &address]);
        command.args(["--output", "json"]);
        let mut process = Process::start("demo", command, directory.path());
        let stdout = process.stdout();
        let told = std::thread::spawn(move || {
            serde_json::Deserializer::from_reader(stdout).into_iter().next().unwrap().unwrap()
        });
        Self(std::thread::spawn(move || {
            // Owned here, so that it ends when this does.
            let (_process, _directory) = (process, directory);
            let look = || get(&address, "/metrics").map(|(_, text)| text);
            let mut seen = Vec::new();
            while !told.is_finished() {
                seen.extend(look());
                std::thread::sleep(Duration::from_millis(20));
            }
            // The worker serves on, and its counters are not read at one moment: looked at until they agree.
            for _ in 0..LOOKS {
                seen.extend(look());
                if seen.last().is_some_and(|text| is_settled(text)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (seen, told.join().unwrap())
        }))
    }

    fn played(self, asked: &Asked) -> Played {
        let (seen, told) = self.0.join().unwrap();
        let seen: Vec<_> = seen.iter().map(|text| Exposition::parse(text, asked)).collect();
        Played { last: seen.last().unwrap().clone(), seen, told }
    }
}

impl Played {
    /// The highest value on the way; 0 for what never was there.
    fn most(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.seen.iter().filter_map(|seen| seen.get(name, labels)).fold(0.0, f64::max)
    }

    fn ever(&self, name: &str, labels: &[(&str, &str)], value: f64) -> bool {
        self.seen.iter().any(|seen| seen.get(name, labels) == Some(value))
    }

    /// Seconds, of a time that the demo tells in milliseconds.
    fn seconds(&self, name: &str) -> f64 {
        self.told[name].as_f64().unwrap() / 1000.0
    }

    fn ended(&self, outcome: &str) {
        assert_eq!(self.told["outcome"], outcome, "{:#}", self.told["timeline"]);
    }
}

/// What must be so whatever happens.
fn consistent(played: &Played) {
    let Played { seen, last, told: _ } = played;
    let count = |now: &Exposition| now.sum("taskset_guardian_messages_total", &[("outcome", "signal")]);
    assert!(count(last) > 0.0);
    assert_eq!(last.one("taskset_guardian_event_lag_seconds_count", &[]), count(last));
    assert_eq!(last.sum("taskset_guardian_signals_total", &[]), count(last), "each message is one signal");
    assert_eq!(last.sum("taskset_guardian_messages_total", &[("outcome", "undecodable")]), 0.0);
    for calls in last.all("taskset_guardian_aws_request_duration_seconds_count", &[]) {
        let [service, operation] = ["service", "operation"].map(|label| (label, calls.labels[label].as_str()));
        let counted = last.sum("taskset_guardian_aws_requests_total", &[service, operation]);
        // Calls may end between the two.
        assert!(
            (counted - calls.value).abs() <= 0.05 * counted + 2.0,
            "{service:?} {operation:?}: {counted} and {}",
            calls.value
        );
    }
    for now in seen {
        let phases = now.sum("taskset_guardian_deployment_phase", &CHECKOUT);
        assert!(phases <= 1.0, "at most one phase at a time");
    }
    assert_eq!(last.one("taskset_guardian_leader", &[]), 1.0);
    assert_eq!(last.one("taskset_guardian_rules_last_reload_successful", &[]), 1.0);
    let build = [("version", env!("CARGO_PKG_VERSION")), ("revision", env!("TASKSET_GUARDIAN_REVISION"))];
    assert_eq!(last.one("taskset_guardian_build_info", &build), 1.0);
    assert_eq!(last.one("taskset_guardian_journal_commit_failures_total", &[]), 0.0);
    assert!(last.one("taskset_guardian_journal_commit_duration_seconds_count", &[]) >= 1.0);
    assert!(last.one("process_resident_memory_bytes", &[]) > 1e6);
    assert!(last.one("process_cpu_seconds_total", &[]) >= 0.0);
    // Whatever is no service's own was there before it happened, at 0.
    // The queue's depth is not known before the first sweep.
    let own = |series: &&exposition::Series| {
        !series.labels.contains_key("cluster") && series.name != "taskset_guardian_queue_messages"
    };
    let names = |now: &Exposition| -> BTreeSet<_> {
        now.series.iter().filter(own).map(|one| (one.name.clone(), one.labels.clone())).collect()
    };
    assert_eq!(names(&seen[0]), names(last), "closed label sets are closed");
    let ours = last.series.iter().map(|one| metric(&one.name)).filter(|name| name.starts_with("taskset_guardian_"));
    let unknown: BTreeSet<_> = ours.filter(|name| !METRICS.contains(name)).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
}

fn rolled_back(played: &Played) {
    consistent(played);
    played.ended("rolled_back");
    let last = &played.last;
    assert_eq!(last.one("taskset_guardian_protected_services", &[]), 1.0);
    assert_eq!(last.one("taskset_guardian_service_ready", &CHECKOUT), 1.0);
    assert_eq!(last.one("taskset_guardian_rollbacks_total", &of("outcome", "rolled_back")), 1.0);
    assert_eq!(last.sum("taskset_guardian_rollbacks_total", &[]), 1.0, "and no other outcome");
    assert!(played.ever("taskset_guardian_rollbacks_total", &of("outcome", "rolled_back"), 0.0), "increase() needs it");
    assert_eq!(last.one("taskset_guardian_quarantined_versions", &[]), 1.0);

    for phase in ["watching", "rolling_back"] {
        assert!(played.ever("taskset_guardian_deployment_phase", &of("phase", phase), 1.0), "{phase}");
        assert_eq!(last.one("taskset_guardian_deployment_phase", &of("phase", phase),), 0.0, "{phase}");
    }
    let split = |role, share| played.ever("taskset_guardian_traffic_weight_ratio", &of("role", role), share);
    assert!(split("blue", 1.0) && split("green", 0.0), "while requests in flight end");
    assert!(played.most("taskset_guardian_window_task_failures", &of("role", "green")) >= 3.0, "the threshold");
    assert_eq!(played.most("taskset_guardian_window_task_failures", &of("role", "blue")), 0.0);
    let gate = |name| played.most("taskset_guardian_gate_ratio", &of("gate", name));
    assert!(gate("stability.task_failures") >= 1.0);
    assert!(gate("compare.false_rollback") > 0.0);
    assert!(gate("stability.steady_within") > 0.0 && gate("stability.steady_within") < 1.0);
    assert_eq!(last.sum("taskset_guardian_verdicts_total", &[("verdict", "breached")]), 1.0, "the decision");
    assert!(last.sum("taskset_guardian_verdicts_total", &[("verdict", "watching")]) >= 1.0);
    assert_eq!(last.sum("taskset_guardian_verdicts_total", &[("verdict", "healthy")]), 0.0);

    let decided = played.seconds("detection_ms");
    for (stage, seconds) in [
        ("detect", decided),
        ("shift", played.seconds("traffic_safe_ms") - decided),
        ("delete", played.seconds("deleted_ms") - decided),
    ] {
        assert_eq!(last.one("taskset_guardian_rollback_duration_seconds_count", &[("stage", stage)]), 1.0);
        let sum = last.one("taskset_guardian_rollback_duration_seconds_sum", &[("stage", stage)]);
        assert!((sum - seconds).abs() < 0.002, "{stage}: {sum} s and not {seconds} s");
    }
    let open = played.most("taskset_guardian_rollback_oldest_open_seconds", &[]);
    assert!(open > 0.0 && open < 60.0, "{open} s");
    assert_eq!(last.one("taskset_guardian_rollback_oldest_open_seconds", &[]), 0.0);
    assert_eq!(last.one("taskset_guardian_brake_engaged", &[]), 0.0);

    // The shift, the shift again after somebody undid it, and one delete.
    for (operation, times) in [("ModifyRule", 2.0), ("DeleteTaskSet", 1.0)] {
        let calls = |outcome| [("operation", operation), ("outcome", outcome)];
        assert_eq!(last.one("taskset_guardian_aws_requests_total", &calls("ok")), times, "{operation}");
        assert_eq!(last.one("taskset_guardian_aws_requests_total", &calls("denied")), 0.0, "{operation}");
    }
    let lag = last.one("taskset_guardian_event_lag_seconds_sum", &[])
        / last.one("taskset_guardian_event_lag_seconds_count", &[]);
    assert!(lag > 0.0 && lag < 30.0, "{lag} s");
    let newest = last.one("taskset_guardian_last_event_timestamp_seconds", &[]) - BEGIN;
    // The crash is the newest event that is told in the story, or one of what came after it.
    assert!(newest > 15.0 && newest < 120.0, "the newest event came {newest} s after the beginning");
    assert!(last.one("taskset_guardian_sweep_duration_seconds_count", &[]) >= 1.0);
    assert!(last.one("taskset_guardian_sweep_duration_seconds_sum", &[]) > 0.0);
}

fn judged_by_its_traffic(played: &Played) {
    consistent(played);
    played.ended("rolled_back");
    let ratio = |role| played.most("taskset_guardian_window_http_5xx_ratio", &of("role", role));
    assert!(ratio("green") > 0.2 && ratio("green") < 0.3, "every fourth request: {}", ratio("green"));
    assert_eq!(ratio("blue"), 0.0);
    assert!(played.most("taskset_guardian_gate_ratio", &of("gate", "errors.http_5xx_ratio")) >= 1.0);
    let read = [("operation", "GetMetricData"), ("outcome", "ok")];
    assert!(played.last.one("taskset_guardian_aws_requests_total", &read) >= 1.0);
}

fn held_by_the_brake(played: &Played) {
    consistent(played);
    played.ended("held");
    let last = &played.last;
    assert_eq!(last.one("taskset_guardian_protected_services", &[]), 5.0);
    assert!(played.ever("taskset_guardian_brake_engaged", &[], 0.0));
    assert!(played.ever("taskset_guardian_brake_engaged", &[], 1.0));
    assert_eq!(last.one("taskset_guardian_rollbacks_total", &of("outcome", "held")), 1.0);
    assert_eq!(last.one("taskset_guardian_rollbacks_total", &of("outcome", "rolled_back")), 0.0);
    assert_eq!(last.sum("taskset_guardian_rollbacks_total", &[("outcome", "rolled_back")]), 3.0);
    assert_eq!(last.one("taskset_guardian_quarantined_versions", &[]), 3.0, "one for each that was rolled back");
}

fn escalated(played: &Played) {
    consistent(played);
    played.ended("escalated");
    let last = &played.last;
    assert_eq!(last.one("taskset_guardian_rollbacks_total", &of("outcome", "escalated")), 1.0);
    assert_eq!(last.one("taskset_guardian_deployment_phase", &of("phase", "escalated")), 1.0);
    assert_eq!(last.one("taskset_guardian_quarantined_versions", &[]), 0.0);
    assert!(last.one("taskset_guardian_rollback_oldest_open_seconds", &[]) > 0.0, "it is open until a person ends it");
}

fn graduated(played: &Played) {
    consistent(played);
    played.ended("graduated");
    let last = &played.last;
    assert_eq!(last.sum("taskset_guardian_rollbacks_total", &[]), 0.0);
    assert!(last.sum("taskset_guardian_verdicts_total", &[("verdict", "healthy")]) >= 1.0);
    assert_eq!(last.sum("taskset_guardian_verdicts_total", &[("verdict", "breached")]), 0.0);
    for (blue, green) in [(0.9, 0.1), (0.5, 0.5), (0.0, 1.0)] {
        let split = |role, share| played.ever("taskset_guardian_traffic_weight_ratio", &of("role", role), share);
        assert!(split("blue", blue) && split("green", green), "{blue} and {green}");
    }
    assert!(played.most("taskset_guardian_gate_ratio", &of("gate", "stability.task_failures")) < 1.0);
}

/// A worker that is given bad messages, a bad rule file and an AWS that refuses.
async fn troubled(asked: &Asked) {
    const QUEUE: &str = "http://sandbox/queue/taskset-guardian";
    const RULE: &str = "name = \"all\"\n[[protect]]\ncluster = \"prod\"\nservice = \"checkout\"\n\
        [[protect]]\ncluster = \"prod\"\nservice = \"absent\"\n";
    let setup = Setup { services: vec![ServiceSetup::default()], max_receives: 2, ..Setup::default() };
    let setup = Setup { visibility: Duration::from_secs(1), ..setup };
    let mut world = World::new(7, SystemClock.now(), setup);
    let denied = ApiError::client("AccessDeniedException", "no");
    world.fail_next("DescribeServices", &denied, 2);
    let send = |world: &mut World, body: &str| {
        world.call(Call::SendMessage { queue_url: QUEUE.to_owned(), body: body.to_owned() }).unwrap();
    };
    let event = |kind: &str, detail: &str| {
        format!(
            r#"{{"version":"0","id":"1","detail-type":"{kind}","source":"aws.ecs","account":"111122223333","time":"{}",
            "region":"eu-west-1","resources":[],"detail":{detail}}}"#,
            Timestamp::from_millis(1_772_445_600_000)
        )
    };
    (0..3).for_each(|_| send(&mut world, "no event"));
    (0..4).for_each(|_| send(&mut world, &event("ECS Container Instance State Change", "{}")));
    let sandbox = Sandbox::start(world, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    let rules = directory.path().join("rules/all.toml");
    std::fs::write(&rules, RULE).unwrap();
    let address = free_address();
    let mut command = guardian(directory.path(), &sandbox.endpoint());
    command.args(["run", "--queue-url", QUEUE, "--rules", "rules", "--listen", &address, "--sweep", "1s"]);
    let _worker = Process::start("worker", command, directory.path());
    let look = || get(&address, "/metrics").map(|(_, text)| Exposition::parse(&text, asked));

    eventually("the messages were received, the bad ones twice", async || {
        let now = look()?;
        let count = |outcome| now.one("taskset_guardian_messages_total", &[("outcome", outcome)]);
        (count("ignored") == 4.0 && count("undecodable") == 6.0).then_some(())
    })
    .await;
    eventually("the bad ones are in the dead-letter queue", async || {
        let now = look()?;
        let depth = |queue| now.get("taskset_guardian_queue_messages", &[("queue", queue)]);
        (depth("dead_letter") == Some(3.0) && depth("events") == Some(0.0)).then_some(())
    })
    .await;
    let ready = eventually("one service is ready, and the absent one is not", async || {
        let now = look()?;
        let ready = |service| now.get("taskset_guardian_service_ready", &[("service", service)]);
        (ready("checkout") == Some(1.0) && ready("absent") == Some(0.0)).then_some(now)
    })
    .await;
    assert_eq!(ready.one("taskset_guardian_protected_services", &[]), 2.0);
    let refused = [("operation", "DescribeServices"), ("outcome", "denied")];
    assert_eq!(ready.one("taskset_guardian_aws_requests_total", &refused), 2.0);
    assert_eq!(ready.sum("taskset_guardian_signals_total", &[]), 0.0, "no message was one");

    let reloaded = async |value| {
        eventually("the rule files are judged anew", async || {
            (look()?.one("taskset_guardian_rules_last_reload_successful", &[]) == value).then_some(())
        })
        .await;
    };
    std::fs::write(&rules, "name = 7\n").unwrap();
    reloaded(0.0).await;
    std::fs::write(&rules, RULE).unwrap();
    reloaded(1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_the_value_of_what_happened() {
    let asked = Asked::default();
    let rollback = Demo::begin("foreign-writer-once", "10");
    let brake = Demo::begin("fleet-outage", "10");
    rolled_back(&rollback.played(&asked));
    held_by_the_brake(&brake.played(&asked));
    let (page, sound) = (Demo::begin("green-primary-page", "20"), Demo::begin("healthy", "20"));
    escalated(&page.played(&asked));
    graduated(&sound.played(&asked));
    judged_by_its_traffic(&Demo::begin("errors-without-an-alarm", "20").played(&asked));
    troubled(&asked).await;
    let known: BTreeSet<_> = METRICS.into_iter().map(str::to_owned).collect();
    assert_eq!(*asked.borrow(), known, "a metric without a value that is checked");
}

#[test]
fn task_sets_leave_no_series_behind() {
    const TASK_SETS: u64 = 10_000;
    const SERVICES: u64 = 300;
    let metrics = Metrics::new().unwrap();
    let mut driver = Driver::new(Aws::blue_and_green(), rule());
    let mut green = GREEN.to_owned();
    let series = |metrics: &Metrics| -> BTreeSet<_> {
        let now = Exposition::parse(&metrics.render(start()).unwrap(), &Asked::default());
        now.series.into_iter().map(|one| (one.name, one.labels)).collect()
    };
    let mut first = BTreeSet::new();
    let mut at_first = Duration::ZERO;
    let mut began = 0;
    for number in 0..TASK_SETS {
        driver.aws.remove(&green);
        // What AWS and the test forget, so that it stays fast.
        driver.aws.tasks.clear();
        driver.journal.clear();
        green = format!("ecs-svc/{}", 10_000 + number);
        driver.aws.service.task_sets.push(task_set(&green, driver.now, TaskSetStatus::Active, "green"));
        driver.run(2 * SWEEP);
        driver.crash_of(&support::key(), &green, &format!("task-{number}"));
        let notes: Vec<_> = driver.notes.drain(..).map(|(_, note)| note).collect();
        began += notes.iter().filter(|note| matches!(note, Note::DeploymentBegan { .. })).count();
        metrics.record(&Report { notes, ..Report::default() });
        let mut view = driver.engine.service(&support::key(), driver.now).unwrap();
        metrics.show(&view);
        // The others look the same.
        view.service = ServiceKey::new("prod", format!("service-{}", number % SERVICES));
        metrics.show(&view);
        if number + 1 == SERVICES {
            first = series(&metrics);
            at_first = fastest(&metrics);
        }
    }
    assert!(began >= 10_000, "{began} deployments were seen");
    assert_eq!(series(&metrics), first);

    let size = metrics.render(start()).unwrap().len();
    assert!(size < 2_000_000, "{size} bytes");
    let took = fastest(&metrics);
    eprintln!("{size} bytes in {took:?}, after {TASK_SETS} task sets of {SERVICES} services");
    assert!(took < 3 * at_first, "{took:?}, and {at_first:?} at first");
    // What it takes on a machine that does much else, in a build that is not made for speed, says nothing.
    if !cfg!(debug_assertions) {
        assert!(took < Duration::from_millis(50), "{took:?} for {size} bytes");
    }
}

/// The shortest of some answers: the machine does other things, too.
fn fastest(metrics: &Metrics) -> Duration {
    let answer = |_| {
        let began = Instant::now();
        metrics.render(start()).unwrap();
        began.elapsed()
    };
    (0..20).map(answer).min().unwrap()
}
