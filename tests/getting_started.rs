//! `docs/getting-started.md`, typed word for word: the real binary in three terminals.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use process::{eventually, free_address};

const GUIDE: &str = include_str!("../docs/getting-started.md");

/// Ports that the guide names, which may be taken here.
const PORTS: [&str; 2] = ["127.0.0.1:4566", "127.0.0.1:9464"];

/// One fenced block: what stands behind the fence, and its lines.
struct Block {
    kind: String,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(kind), None) => open = Some(Block { kind: kind.to_owned(), lines: Vec::new() }),
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    found
}

/// A line of the guide in what was printed; `…` stands for anything.
fn is_in(line: &str, printed: &str) -> bool {
    printed.lines().any(|printed| {
        let mut rest = printed;
        line.trim().split('…').all(|part| {
            let at = rest.find(part);
            rest = at.map_or("", |at| &rest[at + part.len()..]);
            at.is_some()
        })
    })
}

/// A terminal in which something runs that does not end.
struct Terminal {
    child: Child,
    log: PathBuf,
    seen: usize,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {} ----\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

struct Session {
    directory: PathBuf,
    ports: BTreeMap<&'static str, String>,
    environment: String,
    terminals: BTreeMap<String, Terminal>,
}

impl Session {
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let binary = Path::new(env!("CARGO_BIN_EXE_taskset-guardian")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        command
            .arg("-c")
            .arg(self.here(&format!("{}exec {line}", self.environment)))
            .env("PATH", path)
            .env("TASKSET_GUARDIAN_LOG_FORMAT", "text")
            .env("TASKSET_GUARDIAN_LISTEN", &self.ports[PORTS[1]])
            .current_dir(&self.directory);
        command
    }

    /// With the ports that are free here.
    fn here(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn begin(&mut self, terminal: &str, line: &str) {
        let log = self.directory.join(format!("terminal-{terminal}.log"));
        let file = File::create(&log).unwrap();
        let listen = &self.ports[PORTS[0]];
        let line = line.replace("demo --practice", &format!("demo --practice --listen {listen}"));
        let mut command = self.shell(&line);
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        self.terminals.insert(terminal.to_owned(), Terminal { child, log, seen: 0 });
    }

    /// Waits for a line that has not been waited for yet.
    async fn sees(&mut self, terminal: &str, line: &str) {
        let terminal = self.terminals.get_mut(terminal).unwrap();
        let log = terminal.log.clone();
        let seen = terminal.seen;
        terminal.seen = eventually(&format!("{} shows {line:?}", log.display()), async || {
            let all = std::fs::read_to_string(&log).unwrap_or_default();
            is_in(line, &all[seen..]).then_some(all.len())
        })
        .await;
    }
}

#[test]
fn a_line_is_found_with_anything_between() {
    assert!(is_in("  a … c", "x\n a b c d"));
    assert!(!is_in("a … c", "a b\nc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_can_be_typed_word_for_word() {
    let directory = tempfile::tempdir().unwrap();
    let mut session = Session {
        directory: directory.path().to_owned(),
        ports: PORTS.map(|port| (port, free_address())).into(),
        environment: String::new(),
        terminals: BTreeMap::new(),
    };
    for Block { kind, lines } in blocks(GUIDE) {
        let (kind, rest) = kind.split_once(' ').unwrap_or((&kind, ""));
        let terminal = rest.strip_prefix("terminal=");
        let commands = lines.iter().filter_map(|line| line.strip_prefix("$ "));
        let expected: Vec<_> = lines.iter().filter(|line| !line.starts_with("$ ")).collect();
        match (kind, rest, terminal) {
            ("console", "install", _) => {}
            ("console", "environment", _) => {
                session.environment = commands.flat_map(|line| [line, "; "]).collect();
            }
            ("console", _, Some(terminal)) => {
                commands.for_each(|line| session.begin(terminal, line));
                for line in expected {
                    session.sees(terminal, line).await;
                }
            }
            ("console", ..) => {
                let mut printed = String::new();
                for line in commands {
                    let run = session.shell(line).output().unwrap();
                    printed.push_str(&String::from_utf8(run.stdout).unwrap());
                    let said = String::from_utf8(run.stderr).unwrap();
                    assert!(run.status.success(), "{line}: {printed}{said}");
                }
                for line in expected {
                    assert!(is_in(line, &printed), "{line:?} is not in what was printed:\n{printed}");
                }
            }
            ("text", _, Some(terminal)) => {
                for line in &lines {
                    session.sees(terminal, line).await;
                }
            }
            ("practice", ..) => {
                let stdin = session.terminals.get_mut("1").unwrap().child.stdin.as_mut().unwrap();
                for line in &lines {
                    writeln!(stdin, "{line}").unwrap();
                }
            }
            other => panic!("the guide has a block {other:?}, which nobody can type"),
        }
    }
}
