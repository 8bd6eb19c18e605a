//! Which revision this is, for `--version` and the metric `build_info`: `TASKSET_GUARDIAN_REVISION` when whoever builds
//! says it, as the container image's build does; else the commit, in a release build out of a git work tree.
//!
//! A debug build does not ask git: every commit would compile the library and all tests again.

use std::path::Path;
use std::process::Command;

const NAME: &str = "TASKSET_GUARDIAN_REVISION";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={NAME}");
    let said = std::env::var(NAME).ok().filter(|text| is_revision(text));
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let revision = said.or_else(|| if is_release { commit() } else { None });
    println!("cargo::rustc-env={NAME}={}", revision.as_deref().unwrap_or("unknown"));
}

/// It becomes a label's value and a line of output.
fn is_revision(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+/".contains(c))
}

/// The work tree's commit. `None` without git, or in a source tree that was unpacked inside of somebody else's work tree.
fn commit() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // A commit, a checkout or a pull changes one of them. A path that is not there would make cargo run this every time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|text| is_revision(text))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
