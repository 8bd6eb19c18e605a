//! A recording on disk, and the binary that replays it.

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Recording {
    pub(crate) directory: TempDir,
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

impl Recording {
    pub(crate) fn of(rule: &str, bodies: &[String]) -> Self {
        let recording = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(recording.rules()).unwrap();
        fs::create_dir(recording.events()).unwrap();
        fs::write(recording.rules().join("rule.toml"), rule).unwrap();
        recording.write("events.jsonl", bodies.join("\n"));
        recording
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.events().join(name), content).unwrap();
    }

    pub(crate) fn rules(&self) -> PathBuf {
        self.directory.path().join("rules")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.directory.path().join("events")
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::cargo_bin("taskset-guardian").unwrap();
        command.arg("replay").arg("--events").arg(self.events()).arg("--rules").arg(self.rules()).args(words);
        let output = command.env("COLUMNS", "100").output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// One document a deployment.
    pub(crate) fn replay(&self) -> Vec<Value> {
        let Ran { code, out, err } = self.run(&["--output", "json"]);
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let breached = lines.iter().any(|line| line["outcome"] == "breached");
        assert_eq!(code, i32::from(breached), "{err}");
        lines
    }
}
