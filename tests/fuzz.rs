//! The corpora of the fuzz targets, replayed: what libFuzzer found once is looked at in every test run. See docs/fuzzing.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

/// Inputs beside a target's own corpus: the first runs of a new target need not begin from nothing.
const FIXTURES: [(&str, &[&str]); 2] =
    [("events", &["tests/fixtures/events"]), ("rules", &["tests/fixtures/rules", "rules"])];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Every input of a target. A panic is told with the file that causes it.
fn replay(target: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (_, hold) = fuzz::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let fixtures = FIXTURES.iter().filter(|(name, _)| *name == target).flat_map(|(_, folders)| *folders);
    let folders = fixtures.map(|folder| root.join(folder)).chain([root.join("fuzz/corpus").join(target)]);
    let mut found: Vec<_> = folders.flat_map(|folder| files(&folder)).collect();
    found.sort();
    assert!(!found.is_empty(), "{target} has no corpus");
    for path in found {
        let input = fs::read(&path).unwrap();
        let held = std::panic::catch_unwind(|| hold(&input));
        assert!(held.is_ok(), "{} breaks what {target} promises, see above", path.display());
    }
}

#[test]
fn events() {
    replay("events");
}

#[test]
fn rules() {
    replay("rules");
}

#[test]
fn journal() {
    replay("journal");
}

#[test]
fn table() {
    replay("table");
}

#[test]
fn elb_actions() {
    replay("elb_actions");
}

#[test]
fn every_corpus_has_its_target_and_stays_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    folders.sort();
    let mut names: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
    let sizes = files(&root).into_iter().map(|path| fs::metadata(path).unwrap().len());
    assert!(sizes.sum::<u64>() < 200 * 1024, "minimize the corpora, as in docs/fuzzing.md");
}
