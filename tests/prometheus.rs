//! Dashboards and alerts in a real Prometheus that scrapes the demo: every expression is understood, every panel has data in
//! the scenario meant for it, and the alerts fire.
//!
//! ```console
//! $ apt-get install --no-install-recommends prometheus
//! $ cargo test --test prometheus -- --ignored
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/boards.rs"]
mod boards;
#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/process.rs"]
mod process;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use boards::{Board, expressions, names, root, rules, values};
use exposition::{Exposition, metric};
use process::{Process, eventually, free_address, get};

/// Scrape jobs: their scenario, and how fast it is played. Each phase of interest lasts some scrapes.
const JOBS: [(&str, &str, &str); 5] = [
    ("taskset-guardian", "foreign-writer-once", "4"),
    ("live", "healthy", "10"),
    ("brake", "fleet-outage", "10"),
    ("page", "green-primary-page", "10"),
    ("errors", "errors-without-an-alarm", "20"),
];

/// The job whose scenario has data for a panel: a rollback.
const USUAL: &str = "taskset-guardian";

/// Dashboard, panel, its scenario, and the value that it must reach there.
const REACHED: [(&str, &str, &str, f64); 18] = [
    ("overview", "Protected services", "brake", 5.0),
    ("overview", "Ready", USUAL, 1.0),
    ("overview", "Live deployments", "live", 1.0),
    ("overview", "Rolled back", USUAL, 1.0),
    ("overview", "Need a person", "page", 1.0),
    ("overview", "Fleet brake", "brake", 1.0),
    ("overview", "Versions in quarantine", USUAL, 1.0),
    ("overview", "Acting replicas", USUAL, 1.0),
    ("overview", "Oldest open rollback", USUAL, 5.0),
    ("overview", "Time to safe", USUAL, 1.0),
    ("overview", "Rule files", USUAL, 1.0),
    ("service", "Phase", USUAL, 1.0),
    ("service", "Rolled back", USUAL, 1.0),
    ("service", "Need a person", "page", 1.0),
    ("service", "Traffic split", "live", 1.0),
    ("service", "Gates", USUAL, 1.0),
    ("service", "Failed tasks in the window", USUAL, 3.0),
    ("service", "Failed requests", "errors", 0.05),
];

/// Alerts that must fire: name, job, and service where it has one.
const FIRING: [(&str, &str, Option<&str>); 3] = [
    ("TasksetGuardianRollbackPerformed", USUAL, Some("checkout")),
    ("TasksetGuardianRollbackEscalated", "page", Some("checkout")),
    ("TasksetGuardianFleetBrake", "brake", None),
];

/// The longest scenario takes half a minute.
const PATIENCE: Duration = Duration::from_mins(2);

const HOW: &str = "Both come with Debian's package prometheus, and stand on PATH";

/// Runs promtool. What it says is shown when it complains, and lints are complaints.
fn promtool(words: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(words).current_dir(root().join("grafana/prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("promtool: {error}. {HOW}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "promtool {words:?}: {}", String::from_utf8_lossy(&said));
}

fn demo(directory: &Path, scenario: &str, speed: &str, address: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskset-guardian"));
    command.args(["demo", "--scenario", scenario, "--speed", speed, "--serve", "--listen", address]);
    command.args(["--output", "json"]);
    let place = directory.join(scenario);
    std::fs::create_dir(&place).unwrap();
    Process::start("demo", command, &place)
}

/// A Prometheus over these targets, which need not be there yet.
struct Prometheus {
    address: String,
    began: f64,
    _process: Process,
}

impl Prometheus {
    async fn begin(directory: &Path, targets: &[(&str, String)]) -> Self {
        let rules = root().join("grafana/prometheus/rules.yml");
        let job = |(job, target): &(&str, String)| {
            format!("  - {{ job_name: {job}, static_configs: [{{ targets: [{target:?}] }}] }}\n")
        };
        let jobs: String = targets.iter().map(job).collect();
        let global = "global: { scrape_interval: 1s, evaluation_interval: 1s }";
        let config = format!("{global}\nrule_files: [\"{}\"]\nscrape_configs:\n{jobs}", rules.display());
        std::fs::write(directory.join("prometheus.yml"), config).unwrap();
        let (address, began) = (free_address(), now());
        let mut command = Command::new("prometheus");
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]);
        command.arg(format!("--web.listen-address={address}")).current_dir(directory);
        assert!(Command::new("prometheus").arg("--version").output().is_ok(), "there is no prometheus. {HOW}");
        let process = Process::start("prometheus", command, directory);
        eventually("Prometheus is ready", async || get(&address, "/-/ready").filter(|(status, _)| *status == 200))
            .await;
        let prometheus = Self { address, began, _process: process };
        eventually("it looks for every target, so that it sees their first moments", async || {
            (prometheus.api("query", &[("query", "up")])["result"].as_array()?.len() == targets.len()).then_some(())
        })
        .await;
        prometheus
    }

    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let (_, text) = get(&self.address, &format!("/api/v1/{path}?{query}")).unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer:#}");
        answer["data"].take()
    }

    /// Every number that an expression gave since the beginning.
    fn numbers(&self, expression: &str) -> Vec<f64> {
        let (start, end) = (self.began.to_string(), now().to_string());
        let data = self.api("query_range", &[("query", expression), ("start", &start), ("end", &end), ("step", "1")]);
        let series = data["result"].as_array().unwrap().iter();
        let samples = series.flat_map(|series| series["values"].as_array().unwrap());
        let number = |sample: &Value| sample[1].as_str().unwrap().parse::<f64>().unwrap();
        samples.map(number).filter(|number| number.is_finite()).collect()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// As Grafana fills it in, for one job's prod/checkout.
fn filled(expression: &str, job: &str) -> String {
    let values = [
        ("$job", job),
        ("$cluster", "prod"),
        ("$service", "checkout"),
        ("$__rate_interval", "10s"),
        ("$__range", "10m"),
    ];
    let filled = values.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!filled.contains('$'), "{filled} has a variable that is not known here");
    filled
}

/// Panels that don't show yet what they should.
fn empty(prometheus: &Prometheus) -> Vec<String> {
    let mut empty = Vec::new();
    for board in Board::all() {
        for panel in board.panels() {
            let title = panel["title"].as_str().unwrap();
            let of_this = |(name, panel, ..): &&(&str, &str, &str, f64)| *name == board.name && *panel == title;
            let (job, least) =
                REACHED.iter().find(of_this).map_or((USUAL, f64::MIN), |(_, _, job, least)| (*job, *least));
            for expression in expressions(panel) {
                let expression = filled(expression, job);
                let most = prometheus.numbers(&expression).into_iter().reduce(f64::max);
                if most.is_none_or(|most| most < least) {
                    empty.push(format!("{}, {title:?} in {job}: {most:?} of {least}: {expression}", board.name));
                }
            }
        }
        for annotation in board.annotations() {
            let expression = filled(annotation["expr"].as_str().unwrap(), USUAL);
            if prometheus.numbers(&expression).is_empty() {
                empty.push(format!("{}, annotation {}: {expression}", board.name, annotation["name"]));
            }
        }
    }
    empty
}

/// Alerts that should have fired and have not.
fn silent(prometheus: &Prometheus) -> Vec<&'static str> {
    let fired = |(name, job, service): &&(&str, &str, Option<&str>)| {
        let service = service.map_or_else(String::new, |service| format!(", service={service:?}"));
        let fired = format!("ALERTS{{alertstate=\"firing\", alertname={name:?}, job={job:?}{service}}}");
        !prometheus.numbers(&fired).is_empty()
    };
    FIRING.iter().filter(|wanted| !fired(wanted)).map(|(name, ..)| *name).collect()
}

#[tokio::test]
#[ignore = "needs prometheus and promtool"]
async fn prometheus_understands_all_of_it_and_has_data_for_it() {
    promtool(&["check", "rules", "rules.yml"], "");
    promtool(&["test", "rules", "rules.test.yml"], "");
    for (board, panel, ..) in REACHED {
        let boards = Board::all();
        let known = boards.iter().any(|it| it.name == board && it.panels().any(|it| it["title"] == panel));
        assert!(known, "{board} has no panel {panel:?}");
    }

    let directory = tempfile::tempdir().unwrap();
    let targets = JOBS.map(|(job, ..)| (job, free_address()));
    let prometheus = Prometheus::begin(directory.path(), &targets).await;
    let mut demos = Vec::new();
    for ((_, scenario, speed), (_, address)) in JOBS.iter().zip(&targets) {
        demos.push(demo(directory.path(), scenario, speed, address));
    }

    let looked = Instant::now();
    loop {
        let (silent, empty) = (silent(&prometheus), empty(&prometheus));
        if silent.is_empty() && empty.is_empty() {
            break;
        }
        assert!(
            looked.elapsed() < PATIENCE,
            "after {PATIENCE:?} alerts are silent, {silent:?}, or panels empty: {empty:#?}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    // Every rule was evaluated without a fault.
    let data = prometheus.api("rules", &[]);
    let groups = data["groups"].as_array().unwrap().iter();
    let loaded: Vec<_> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    for rule in &loaded {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    let rules = rules();
    let recorded: BTreeSet<_> = values(&rules, "record").collect();
    assert_eq!(loaded.len(), values(&rules, "alert").count() + recorded.len());

    // Whatever is asked for, the demo has.
    let text = get(&targets[0].1, "/metrics").unwrap().1;
    promtool(&["check", "metrics"], &text);
    let exposed = Exposition::parse(&text, &Rc::new(RefCell::default()));
    let exposed: BTreeSet<_> = exposed.series.iter().map(|series| metric(&series.name)).collect();
    let boards = Board::all();
    let panels = boards.iter().flat_map(Board::panels).flat_map(expressions);
    let annotations = boards.iter().flat_map(Board::annotations).filter_map(|annotation| annotation["expr"].as_str());
    let asked = loaded.iter().filter_map(|rule| rule["query"].as_str()).chain(panels).chain(annotations);
    let asked: BTreeSet<_> = asked.flat_map(names).filter(|name| !recorded.contains(name)).map(metric).collect();
    let absent: Vec<_> = asked.difference(&exposed).collect();
    // Those of a deployment are gone with it.
    let with_deployment =
        ["gate_ratio", "traffic_weight_ratio", "window_http_5xx_ratio"].map(|name| format!("taskset_guardian_{name}"));
    let absent: Vec<_> = absent.into_iter().filter(|name| !with_deployment.iter().any(|one| one == **name)).collect();
    assert!(absent.is_empty(), "asked for, and not there: {absent:?}");
}
