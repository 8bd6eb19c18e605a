//! What docs/replay.md shows is what the command says.

use std::path::Path;

use assert_cmd::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn said(words: &[&str]) -> String {
    let mut command = Command::cargo_bin("taskset-guardian").unwrap();
    command.current_dir(root()).env("COLUMNS", "100").args([
        "replay",
        "--events",
        "tests/fixtures/replay",
        "--rules",
        "rules",
    ]);
    String::from_utf8(command.args(words).output().unwrap().stdout).unwrap()
}

#[test]
fn the_example_in_the_docs_is_what_the_command_says() {
    let page = std::fs::read_to_string(root().join("docs/replay.md")).unwrap();
    let text = said(&[]);
    assert!(page.contains(&text), "docs/replay.md does not show:\n{text}");
    let json = said(&["--output", "json"]);
    let first = json.lines().next().unwrap();
    assert!(page.contains(first), "docs/replay.md does not show:\n{first}");
    let settings = said(&["--sweep-thresholds"]);
    let shown: Vec<_> = settings
        .lines()
        .filter(|line| {
            let words: Vec<_> = line.split_whitespace().take(2).collect();
            !matches!(words.as_slice(), [failures, window] if failures.parse().is_ok_and(|n: u32| n > 4) || *window != "5m" && failures.parse::<u32>().is_ok())
        })
        .collect();
    for line in shown.iter().filter(|line| !line.contains("deployments")) {
        assert!(page.contains(line), "docs/replay.md does not show:\n{}", shown.join("\n"));
    }
}
