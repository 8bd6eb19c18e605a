//! A gallery of mistakes: each folder holds one that somebody could make, and what they are told about it.

use std::collections::BTreeSet;
use std::fs;

use taskset_guardian::rules::{Code, Diagnostics, compile};

use crate::{file, files_of, in_project, protecting};

const GALLERY: &str = "tests/fixtures/rules/gallery";

/// As `check` shows them.
const COLUMNS: usize = 100;

/// Every case's name.
pub(crate) fn cases() -> BTreeSet<String> {
    let entries = fs::read_dir(in_project(GALLERY)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Where a case's files are.
pub(crate) fn folder(case: &str) -> String {
    format!("{GALLERY}/{case}")
}

/// What is said about a case.
pub(crate) fn told(case: &str) -> Diagnostics {
    let Err(errors) = compile(&files_of(&folder(case))) else { panic!("{case} has nothing wrong") };
    errors
}

#[test]
fn each_mistake_is_told_with_its_place_its_cause_and_its_cure() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("gallery");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for case in cases() {
        let shown = told(&case).render(false, COLUMNS);
        settings.bind(|| insta::assert_snapshot!(case.as_str(), shown));
    }
}

#[test]
fn every_snapshot_has_its_case_and_shows_every_error_with_a_caret_and_a_cure() {
    let snapshots = in_project("tests/rules/gallery");
    let files = fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = files.filter_map(|name| Some(name.strip_suffix(".snap")?.to_owned())).collect();
    assert_eq!(names, cases());
    for name in names {
        let text = fs::read_to_string(snapshots.join(format!("{name}.snap"))).unwrap();
        let lines = |wanted: &dyn Fn(&str) -> bool| text.lines().filter(|line| wanted(line)).count();
        let errors = lines(&|line| line.starts_with("error[R"));
        assert!((1..=4).contains(&errors), "{name}");
        let is_place = |line: &str| line.trim_start().starts_with("--> ") && line.matches(':').count() == 2;
        assert_eq!(lines(&is_place), errors, "{name}: places");
        assert_eq!(lines(&|line| line.contains("= help: ")), errors, "{name}: cures");
        let is_caret = |line: &str| line.split_once('|').is_some_and(|(_, rest)| rest.trim_start().starts_with('^'));
        assert_eq!(lines(&is_caret), errors, "{name}: carets");
    }
}

#[test]
fn the_gallery_shows_every_code_that_a_file_of_its_size_can_have() {
    let shown: BTreeSet<Code> = cases().iter().flat_map(|case| told(case).0).map(|error| error.code).collect();
    assert_eq!(shown.len(), Code::ALL.len() - 2, "{shown:?}");
    assert!(!shown.contains(&Code::TooLarge) && !shown.contains(&Code::MatchesNothing));
}

/// An editor that mends them would leave nothing to test.
#[test]
fn the_files_have_the_bytes_that_they_are_about() {
    let text = |case: &str| fs::read_to_string(in_project(&folder(case)).join("checkout.toml")).unwrap();
    assert_eq!(text("63-line-ends-of-windows").matches("\r\n").count(), 8);
    assert!(text("64-byte-order-mark").starts_with('\u{feff}'));
    assert!(text("61-column-after-tabs").contains("\n\ttask_failures\t=\t"));
}

/// Nobody sees a byte order mark, and a rule that is right stays right behind one.
#[test]
fn a_byte_order_mark_changes_nothing() {
    let plain = protecting("web", &["prod/web"]);
    let marked = file("web.toml", &format!("\u{feff}{}", plain.text));
    assert_eq!(compile(&[marked]), compile(&[plain]));
}
