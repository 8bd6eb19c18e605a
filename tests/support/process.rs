//! The processes of the test, and waiting for what they do.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long anything may take. On an idle machine nothing takes longer than one long poll, ten seconds.
const PATIENCE: Duration = Duration::from_mins(1);

const HOW_TO_GET_MOTO: &str = "MOTO_SERVER must name the moto_server of a Python environment, as in\n\
    \x20   python3 -m venv target/moto && target/moto/bin/pip install \"moto[server]==5.2.1\"\n\
    \x20   MOTO_SERVER=target/moto/bin/moto_server cargo test --test moto -- --ignored";

/// A process that does not outlive the test. What it says on stderr is shown when the test fails.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &'static str, mut command: Command, directory: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        Self { name, child, log }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it tells. Once.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// What it has said on stderr so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end, as ECS does.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Asks it to end, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Tells it that its terminal is gone.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{} is gone already", self.name);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {} said ----\n{}", self.name, self.said());
        }
    }
}

/// The program under test, with nothing of this process's environment, and every call of AWS going to `endpoint`.
pub(crate) fn guardian(directory: &Path, endpoint: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskset-guardian"));
    command
        .env_clear()
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        // Its time runs faster than the world's.
        .env("TASKSET_GUARDIAN_ELB_READS", "1000")
        .current_dir(directory);
    command
}

/// Where moto listens, and the network of its default VPC.
#[derive(Debug, Deserialize)]
pub(crate) struct Network {
    pub(crate) endpoint: String,
    pub(crate) vpc: String,
    pub(crate) subnets: Vec<String>,
    pub(crate) security_groups: Vec<String>,
}

/// Starts moto, extended, with the Python that it is installed for.
pub(crate) fn launch_moto(directory: &Path) -> (Process, Network) {
    let server = std::env::var("MOTO_SERVER").unwrap_or_else(|_| panic!("MOTO_SERVER is not set. {HOW_TO_GET_MOTO}"));
    let python = Path::new(&server).with_file_name("python");
    assert!(python.exists(), "there is no {}. {HOW_TO_GET_MOTO}", python.display());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/moto/launcher.py"));
    let mut moto = Process::start("moto", command, directory);
    let mut line = String::new();
    BufReader::new(moto.stdout()).read_line(&mut line).unwrap();
    let network = serde_json::from_str(&line)
        .unwrap_or_else(|error| panic!("moto did not start ({error}: {line:?}). {HOW_TO_GET_MOTO}"));
    (moto, network)
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Status and body of an HTTP page. `None` while nobody answers.
pub(crate) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // 1.0: the answer ends with the connection, and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The most memory that a running process has had at any time, in MiB. `None` where the system does not tell.
pub(crate) fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))?;
    Some(peak.parse::<u64>().unwrap().div_ceil(1024))
}

/// Looks until there is something to be seen.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "after {PATIENCE:?} it is not so that {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
