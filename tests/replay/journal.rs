//! A worker's own state file as a recording.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use taskset_guardian::engine::Engine;
use taskset_guardian::journal::{RedbJournal, read_only};
use taskset_guardian::ports::Journal as _;
use taskset_guardian::runtime::entry;
use taskset_guardian::sandbox::scenario;

use crate::live::{Lived, lived};
use crate::recorded::text;

fn replay(state: &Path, rules: &Path) -> (i32, String, String) {
    let mut command = Command::cargo_bin("taskset-guardian").unwrap();
    command.args(["replay", "--output", "json", "--state"]).arg(state).arg("--rules").arg(rules);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn documents(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_journal_tells_what_its_worker_decided_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (state, rules) = (directory.path().join("guardian.redb"), directory.path().join("rules"));
    let scenario = scenario::find("crash-at-start").unwrap();
    fs::create_dir(&rules).unwrap();
    fs::write(rules.join("demo.toml"), &scenario.rules_toml).unwrap();
    let Lived { decisions, inputs, incidents, settings, .. } = lived(scenario, 7, false, false);
    let ((service, green), (at, _)) = decisions.first_key_value().unwrap();

    let journal = RedbJournal::open(&state).await.unwrap();
    let entries: Vec<_> = inputs.iter().map(|(at, input)| entry::encode(*at, input).unwrap()).collect();
    journal.append(entries.into(), &incidents).await.unwrap();
    let (code, out, err) = replay(&state, &rules);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("a running worker has it open"), "{err}");

    // What a crash leaves: the file as it is while it is open.
    let crashed = directory.path().join("crashed.redb");
    fs::copy(&state, &crashed).unwrap();
    drop(journal);
    for file in [&state, &crashed] {
        let before = fs::read(file).unwrap();
        let (code, out, err) = replay(file, &rules);
        assert_eq!(code, 1, "{err}");
        let found = documents(&out);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (text(&found[0]["service"]), text(&found[0]["task_set"])),
            (service.to_string().as_str(), green.as_str())
        );
        assert_eq!((text(&found[0]["outcome"]), text(&found[0]["breached_at"])), ("breached", at.to_string().as_str()));
        assert!(err.contains("inputs since the last checkpoint"), "{err}");
        assert_eq!(fs::read(file).unwrap(), before, "it was only read");
    }

    // By other rules the same inputs come to another end.
    fs::write(rules.join("demo.toml"), scenario.rules_toml.replace("task_failures = 3", "task_failures = 100"))
        .unwrap();
    let (code, out, err) = replay(&state, &rules);
    assert_eq!((code, documents(&out).len()), (0, 1), "{err}");

    // Behind a checkpoint the inputs are gone, and what was decided is told as it was.
    let mut engine = Engine::new(settings);
    for (at, input) in &inputs {
        let _ = engine.step(*at, input);
    }
    let journal = RedbJournal::open(&state).await.unwrap();
    journal.checkpoint(engine.checkpoint().unwrap()).await.unwrap();
    drop(journal);
    let (code, out, err) = replay(&state, &rules);
    assert_eq!(code, 1, "{err}");
    let found = documents(&out);
    assert_eq!((found.len(), text(&found[0]["breached_at"])), (1, at.to_string().as_str()));
    assert!(err.contains("0 inputs since the last checkpoint, and 1 incidents"), "{err}");
}

#[test]
fn what_is_no_journal_is_an_error_with_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.redb");
    assert!(read_only(&missing).unwrap_err().to_string().contains("missing.redb"));
    let text = directory.path().join("notes.txt");
    fs::write(&text, "these are not the bytes of a journal".repeat(400)).unwrap();
    assert!(read_only(&text).unwrap_err().to_string().contains("notes.txt"));
    assert!(!missing.exists(), "a look creates nothing");
}
