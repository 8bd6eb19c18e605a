//! The status page in a browser: Chromium without a window, driven over its debugging pipe.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskset_guardian::model::ServiceKey;
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Act, Crash, ServiceSetup, Setup, Version, World};

use process::{Process, free_address, guardian};

/// From the start of the deployment to its end, at the demo's speed, with room for a slow machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// One tab of one browser.
struct Tab {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    asked: u64,
}

impl Tab {
    fn open(url: &str, width: u32, profile: &std::path::Path) -> Self {
        // The pipe is file descriptors 3 and 4; a shell makes them of what every child has.
        let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let script = format!(
            "exec {browser} --headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={} \
             --window-size={width},900 3<&0 4>&1 >/dev/null 2>&1",
            profile.display()
        );
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut tab = Self { child, to, from, session: None, asked: 0 };
        let target =
            tab.ask("Target.createTarget", &json!({ "url": url, "width": width, "height": 900, "newWindow": true }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        tab.session = Some(tab.ask("Target.attachToTarget", &attach)["sessionId"].as_str().unwrap().to_owned());
        tab
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        write!(self.to, "{message}\0").unwrap();
        self.to.flush().unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert!(
                !answer.is_empty(),
                "the browser is gone: is Chromium installed? Its name may be given as CHROMIUM"
            );
            let answer: Value = serde_json::from_slice(&answer[..answer.len() - 1]).unwrap();
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.ask("Runtime.evaluate", &params)["result"]["value"].clone()
    }

    /// A picture for whoever wants to look: `PAGE_PICTURES` names the directory.
    fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("PAGE_PICTURES") else { return };
        let taken = self.ask("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": false }));
        let text = taken["data"].as_str().unwrap();
        let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = decode.stdin.take().unwrap();
        let text = text.to_owned();
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
        let picture = decode.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        std::fs::write(std::path::Path::new(&directory).join(name), picture).unwrap();
    }

    /// Looks until the expression has one of the values, and says which it had on the way.
    fn until(&mut self, expression: &str, wanted: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut had: Vec<String> = Vec::new();
        while had.last().is_none_or(|last| last != wanted) {
            assert!(begun.elapsed() < PATIENCE, "{expression} was {had:?} and never {wanted}");
            let value = self.evaluate(expression);
            let value = value.as_str().unwrap_or("-");
            if had.last().is_none_or(|last| last != value) {
                had.push(value.to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        had
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const OVERFLOWS: &str = "document.documentElement.scrollWidth > document.documentElement.clientWidth";

const PHASE: &str = "document.querySelector('[data-phase]')?.dataset.phase";

#[test]
#[ignore = "needs chromium"]
fn the_phase_changes_on_the_page_without_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut command = guardian(directory.path(), "http://127.0.0.1:1");
    command.args(["demo", "--serve", "--speed", "1", "--scenario", "crash-at-start", "--listen", &address]);
    let _demo = Process::start("demo", command, directory.path());
    let begun = Instant::now();
    while process::get(&address, "/status").is_none() {
        assert!(begun.elapsed() < PATIENCE, "nobody answers on {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut tab = Tab::open(&format!("http://{address}/"), 390, &directory.path().join("profile"));
    assert_eq!(tab.until("document.title", "taskset-guardian").last().unwrap(), "taskset-guardian");
    tab.evaluate("window.stamp = 'the same document'");
    let phases = tab.until(PHASE, "rolled_back");
    assert!(phases.len() > 1, "it was over before the browser looked: {phases:?}");
    assert_eq!(tab.evaluate("window.stamp"), "the same document", "it was loaded anew");
    // What was opened stays open while the rest changes.
    tab.evaluate("document.querySelector('details').open = true; document.querySelector('details').dataset.old = 1");
    tab.until("String(document.querySelector('details').dataset.old)", "undefined");
    assert_eq!(tab.evaluate("document.querySelector('details').open"), true);
    assert_eq!(tab.evaluate(OVERFLOWS), false, "a phone need not scroll sideways");
}

/// A worker with so many services, one of which is being rolled back and waits for its drain.
fn many(count: usize) -> Setup {
    let crash = Crash { after: Duration::from_secs(1), exit_code: 1, out_of_memory: false };
    let bad = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let service = |number: usize| {
        let deploys = number == count / 2;
        let create = Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 };
        let script =
            [(Duration::from_secs(20), create), (Duration::from_secs(21), Act::SetWeights { blue: 90, green: 10 })];
        ServiceSetup {
            key: ServiceKey::new("prod", format!("team-{}-service-{number:03}", number % 7)),
            requests_per_second: if deploys { 100 } else { 0 },
            script: if deploys { script.into() } else { Vec::new() },
            ..ServiceSetup::default()
        }
    };
    let drain = Duration::from_mins(10);
    let versions = BTreeMap::from([("checkout:88".to_owned(), bad)]);
    Setup { services: (0..count).map(service).collect(), versions, drain, ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn two_hundred_services_and_a_rollback_are_looked_at_on_a_phone_and_on_a_desk() {
    let world = World::new(7, SystemClock.now(), many(200));
    let sandbox = Sandbox::start(world, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    let rule = "name = \"all\"\n[[protect]]\ncluster = \"prod\"\nservice = \"*\"\n[rollback]\ndrain = \"10m\"\n";
    std::fs::write(directory.path().join("rules/all.toml"), rule).unwrap();
    let address = free_address();
    let mut command = guardian(directory.path(), &sandbox.endpoint());
    let queue = "http://sandbox/queue/taskset-guardian";
    command.args(["run", "--queue-url", queue, "--rules", "rules", "--sweep", "10s", "--listen", &address]);
    let _worker = Process::start("worker", command, directory.path());
    process::eventually("the worker answers", async || process::get(&address, "/status")).await;
    let looked = tokio::task::spawn_blocking(move || {
        for width in [1280, 390] {
            let profile = directory.path().join(format!("profile-{width}"));
            let mut tab = Tab::open(&format!("http://{address}/"), width, &profile);
            tab.until(PHASE, "rolling_back");
            tab.until("String(document.body.innerText.match(/team-\\d-service-\\d{3}/g)?.length >= 200)", "true");
            assert_eq!(tab.evaluate(OVERFLOWS), false, "{width} px: nobody need scroll sideways");
            tab.picture(&format!("rolling-back-{width}.png"));
            tab.evaluate("window.scrollTo(0, document.body.scrollHeight)");
            tab.picture(&format!("services-{width}.png"));
        }
    });
    looked.await.unwrap();
}
