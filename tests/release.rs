//! What a release carries beside the worker: which build it is, the container's health check, shell completions.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/process.rs"]
mod process;

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use taskset_guardian::cli::Cli;
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Setup, World};

use process::{Process, eventually, free_address, guardian};

/// A check that takes longer would be ended by ECS, which then can't say why: 5 s is its default.
const CHECK_TAKES: Duration = Duration::from_secs(5);

const SECRET: &str = "wJalrXUtnFEMI-K7MDENG";

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The program without anything of this process's environment.
fn verb(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskset-guardian"));
    command.env_clear().args(arguments);
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), text(&output.stdout))
}

#[test]
fn version_and_revision_are_told() {
    let output = verb(&["--version"]).output().unwrap();
    let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("TASKSET_GUARDIAN_REVISION"));
    assert_eq!(said(&output), (Some(0), format!("taskset-guardian {version} (revision {revision})\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_healthy_wherever_it_listens_and_keeps_its_secrets() {
    let world = World::new(7, SystemClock.now(), Setup::default());
    let sandbox = Sandbox::start(world, Arc::new(SystemClock), WireSettings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/web.toml"), "name = \"web\"\n").unwrap();
    let address = free_address();
    let port = address.rsplit(':').next().unwrap();
    // As in the container image: the same variable configures both, and names no address that can be asked.
    let everywhere = format!("0.0.0.0:{port}");
    let mut command = guardian(directory.path(), &sandbox.endpoint());
    command.args(["run", "--queue-url", "http://sandbox/queue/taskset-guardian"]);
    command.env("TASKSET_GUARDIAN_LISTEN", &everywhere);
    // Nobody logs so much, but somebody may.
    command.env("TASKSET_GUARDIAN_LOG", "trace").env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_SESSION_TOKEN", SECRET);
    let worker = Process::start("worker", command, directory.path());

    let check = |arguments: &[&str]| verb(arguments).env("TASKSET_GUARDIAN_LISTEN", &everywhere).output().unwrap();
    eventually("the worker is healthy", async || (said(&check(&["healthcheck"])).0 == Some(0)).then_some(())).await;
    assert_eq!(said(&check(&["healthcheck"])), (Some(0), "healthy\n".to_owned()));
    let json: serde_json::Value = serde_json::from_str(&said(&check(&["healthcheck", "--output", "json"])).1).unwrap();
    assert_eq!((&json["healthy"], &json["said"]), (&true.into(), &"ok".into()), "{json}");
    let server = format!("http://{address}/");
    assert_eq!(said(&verb(&["healthcheck", "--server", &server]).output().unwrap()).0, Some(0));

    drop(worker);
    let log = std::fs::read_to_string(directory.path().join("worker.log")).unwrap();
    assert!(log.contains("DescribeServices") || log.contains("ReceiveMessage"), "the SDK logs its requests");
    let leak = log.lines().find(|line| line.contains(SECRET) || line.contains("Signature="));
    assert_eq!(leak, None, "a secret is in the log");

    let (code, out) = said(&check(&["healthcheck"]));
    assert_eq!((code, out.starts_with("unhealthy: ")), (Some(1), true), "{out}");
    assert!(out.contains(&format!("http://127.0.0.1:{port}/healthz")), "{out}");
}

/// Takes one connection and answers with this text, or never.
fn server(answer: Option<&'static str>) -> String {
    use std::io::Write as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if let Some(answer) = answer {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
        // Until the other side hangs up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    format!("http://{address}")
}

#[test]
fn who_is_stuck_says_so_and_who_is_no_worker_is_not_healthy() {
    const STUCK: &str = "the loop has not turned for 40s\n";
    let stuck = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 32\r\n\r\nthe loop has not turned for 40s\n";
    let stranger = "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nwhat";
    for (answer, expected) in [(stuck, STUCK), (stranger, "404 Not Found: what\n")] {
        let output = verb(&["healthcheck", "--server", &server(Some(answer))]).output().unwrap();
        assert_eq!(said(&output), (Some(1), format!("unhealthy: {expected}")));
    }
}

#[test]
fn who_takes_the_connection_and_says_nothing_is_not_waited_for() {
    let began = Instant::now();
    let output = verb(&["healthcheck", "--server", &server(None)]).output().unwrap();
    let (code, out) = said(&output);
    assert_eq!((code, out.contains("no answer within 3s")), (Some(1), true), "{out}");
    assert!(began.elapsed() < CHECK_TAKES, "{:?}", began.elapsed());
}

#[test]
fn every_verb_is_completed_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script) = said(&verb(&["completions", shell]).output().unwrap());
        assert_eq!(code, Some(0), "{shell}");
        for verb in Cli::command().get_subcommands() {
            assert!(script.contains(verb.get_name()), "{shell} does not know {}", verb.get_name());
        }
        assert!(script.contains("fleet-brake"), "{shell} does not know a flag of `run`");
    }
}

#[test]
fn a_reader_that_has_seen_enough_of_the_completions_is_no_error() {
    let mut child = verb(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

/// The build script, built for itself.
struct BuildScript {
    directory: tempfile::TempDir,
}

impl BuildScript {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
        let status = Command::new(if rustc.exists() { rustc } else { PathBuf::from("rustc") })
            .args(["--edition", "2024", "-o"])
            .arg(directory.path().join("build"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs"))
            .status();
        assert!(status.unwrap().success());
        std::fs::create_dir(directory.path().join("source")).unwrap();
        Self { directory }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// What it told cargo.
    fn lines(&self, profile: &str, revision: Option<&str>, path: &str) -> Vec<String> {
        let mut command = Command::new(self.directory.path().join("build"));
        command.current_dir(self.source()).env_clear().env("PATH", path).env("PROFILE", profile);
        command.envs(revision.map(|text| ("TASKSET_GUARDIAN_REVISION", text)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn revision(&self, profile: &str, revision: Option<&str>, path: &str) -> String {
        let lines = self.lines(profile, revision, path);
        let found = lines.iter().find_map(|line| line.strip_prefix("cargo::rustc-env=TASKSET_GUARDIAN_REVISION="));
        found.unwrap().to_owned()
    }
}

#[test]
fn a_build_knows_its_revision_and_never_fails_for_want_of_it() {
    let script = BuildScript::new();
    let path = std::env::var("PATH").unwrap();
    assert_eq!(script.revision("release", None, &path), "unknown", "no work tree");
    assert_eq!(script.revision("release", Some("v1.2-3"), &path), "v1.2-3");
    assert_eq!(script.revision("release", Some("1\ncargo::warning=x"), &path), "unknown", "it is printed for cargo");

    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]);
        let output = command.args(arguments).current_dir(script.source()).output().ok()?;
        output.status.success().then(|| text(&output.stdout).trim().to_owned())
    };
    if git(&["init", "--quiet", "--initial-branch=main"]).is_none() {
        eprintln!("there is no git: only the build without it is tested");
        return;
    }
    assert_eq!(script.revision("release", None, &path), "unknown", "no commit yet");
    git(&["commit", "--quiet", "--allow-empty", "--message", "one"]).unwrap();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap();
    assert_eq!(script.revision("release", None, &path), commit);
    assert_eq!(script.revision("debug", None, &path), "unknown", "a commit would build everything again");
    assert_eq!(script.revision("release", Some("abc"), &path), "abc", "who builds knows best");
    assert_eq!(script.revision("release", None, "/nowhere"), "unknown", "no git");

    // A path that does not exist makes cargo run the script, and so build everything, every time.
    let lines = script.lines("release", None, &path);
    let watched: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).collect();
    assert!(watched.contains(&".git/HEAD") && watched.contains(&".git/refs/heads/main"), "{watched:?}");
    for file in watched.iter().filter(|file| **file != "build.rs") {
        assert!(script.source().join(file).exists(), "{file}");
    }
}
