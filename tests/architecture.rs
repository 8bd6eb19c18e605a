//! The dependency rule: who may name whom, and what the pure rooms may not name at all.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms that it may use.
const RULE: [(&str, &[&str]); 13] = [
    ("model", &[]),
    ("rules", &["model"]),
    ("events", &["model"]),
    ("engine", &["model", "rules"]),
    ("replay", &["model", "rules", "events", "engine"]),
    ("ports", &["model"]),
    ("aws", &["model", "ports"]),
    ("journal", &["model", "ports"]),
    ("sandbox", &["model", "ports"]),
    ("telemetry", &["model", "ports", "events", "engine"]),
    ("runtime", &["model", "rules", "events", "engine", "ports", "telemetry"]),
    ("http", &["model", "engine", "ports", "telemetry", "runtime"]),
    (
        "cli",
        &[
            "model",
            "rules",
            "events",
            "engine",
            "replay",
            "ports",
            "aws",
            "journal",
            "sandbox",
            "telemetry",
            "runtime",
            "http",
        ],
    ),
];

const PURE: [&str; 5] = ["model", "rules", "events", "engine", "replay"];

/// Clock, I/O, randomness, environment, and the libraries of the shell.
const IMPURE: [&str; 14] = [
    "tokio",
    "aws_sdk_",
    "aws_config",
    "aws_smithy",
    "tracing",
    "prometheus",
    "axum",
    "redb",
    "fastrand",
    "std::fs",
    "std::env",
    "std::net",
    "SystemTime",
    "Instant",
];

fn files(room: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let single = src.join(format!("{room}.rs"));
    if single.exists() {
        return vec![single];
    }
    let mut found = Vec::new();
    let mut open = vec![src.join(room)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if stem.ends_with("tests") || stem == "fakes" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Lines of code; comments and what follows `#[cfg(test)]` are left out.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim().to_owned()));
    lines.take_while(|(_, line)| line != "#[cfg(test)]").filter(|(_, line)| !line.starts_with("//")).collect()
}

fn names(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word).any(|(at, _)| {
        boundary(line[..at].chars().next_back())
            && (word.ends_with('_') || boundary(line[at + word.len()..].chars().next()))
    })
}

#[test]
fn each_room_uses_only_the_rooms_behind_it() {
    let mut broken = Vec::new();
    for (room, allowed) in RULE {
        for path in files(room) {
            for (number, line) in code(&path) {
                for (other, _) in RULE.iter().filter(|(other, _)| *other != room && !allowed.contains(other)) {
                    if names(&line, &format!("crate::{other}")) {
                        broken.push(format!("{}:{number}: {room} uses {other}: {line}", path.display()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_is_in_the_rule() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    for room in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")).map(|line| line.trim_end_matches(';')) {
        assert!(RULE.iter().any(|(known, _)| *known == room), "{room} is not in the rule");
    }
}

#[test]
fn pure_rooms_name_nothing_of_the_outside_world() {
    let mut broken = Vec::new();
    for path in PURE.iter().flat_map(|room| files(room)) {
        for (number, line) in code(&path) {
            for word in IMPURE.iter().filter(|word| names(&line, word)) {
                broken.push(format!("{}:{number}: names {word}: {line}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_aws_room_names_the_sdk() {
    for (room, _) in RULE.iter().filter(|(room, _)| *room != "aws") {
        for path in files(room) {
            for (number, line) in code(&path) {
                assert!(!names(&line, "aws_sdk_"), "{}:{number}: {line}", path.display());
            }
        }
    }
}
