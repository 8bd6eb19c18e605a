//! Rule files through the compiler: the shipped ones, bad ones, and arbitrary text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod gallery;
mod schema;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use taskset_guardian::cli::check::check;
use taskset_guardian::model::ServiceKey;
use taskset_guardian::rules::{
    AfterPromotion, BlueCapacity, Code, DeletePolicy, Diagnostics, LARGEST_FILE, MOST_FILES, Mode, OnReturn, Protect,
    Quarantine, Rule, RuleFile, RuleSet, StabilityGates, compile, match_nothing,
};
use taskset_guardian::runtime::rule_files::read_rule_files;

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a directory, named without the part of the path that differs between machines.
fn files_of(path: &str) -> Vec<RuleFile> {
    let mut files = read_rule_files(&in_project(path)).unwrap();
    for file in &mut files {
        file.path = file.path.rsplit('/').next().unwrap().to_owned();
    }
    files
}

fn file(path: &str, text: &str) -> RuleFile {
    RuleFile::new(path, text)
}

/// A rule with this name and these `cluster/service` entries.
fn protecting(name: &str, entries: &[&str]) -> RuleFile {
    let mut text = format!("name = \"{name}\"\n");
    for entry in entries {
        let (cluster, service) = entry.split_once('/').unwrap();
        writeln!(text, "[[protect]]\ncluster = \"{cluster}\"\nservice = \"{service}\"").unwrap();
    }
    file(&format!("{name}.toml"), &text)
}

fn codes(result: &Result<RuleSet, Diagnostics>) -> Vec<Code> {
    result.as_ref().err().map(|errors| errors.0.iter().map(|error| error.code).collect()).unwrap_or_default()
}

#[test]
fn the_shipped_rule_watches_everything_touches_nothing_and_spells_out_the_defaults() {
    let shipped = compile(&files_of("rules")).unwrap();
    let [default] = shipped.rules.as_slice() else { panic!("one rule is shipped, not {}", shipped.rules.len()) };
    assert_eq!(default.mode, Mode::Observe);
    assert_eq!(shipped.rule_for(&ServiceKey::new("any", "thing")), Some(default));

    let bare =
        compile(&[file("bare.toml", "name = \"default\"\n[[protect]]\ncluster = \"*\"\nservice = \"*\"")]).unwrap();
    let bare = &bare.rules[0];
    assert_eq!(bare.mode, Mode::Enforce);
    assert_eq!(**default, Rule { mode: Mode::Observe, ..(**bare).clone() });
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let rules = compile(&[protecting("bare", &["prod/web"])]).unwrap();
    let Rule { watch, stability, errors, compare, rollback, limits, quarantine, .. } = &*rules.rules[0];
    let minutes = Duration::from_mins;
    assert_eq!((watch.bake, watch.freshness), (minutes(15), minutes(10)));
    assert_eq!(
        (stability.window, stability.task_failures, stability.steady_within),
        (minutes(5), Some(3), Some(minutes(10)))
    );
    assert_eq!((errors.alarms.len(), errors.alarm_for), (0, Duration::ZERO));
    assert_eq!((errors.http_5xx_ratio, errors.latency_p99, errors.min_requests), (None, None, 50));
    assert_eq!((stability.unhealthy_targets, compare.against_blue), (Some(0.5), true));
    assert_eq!((rollback.drain, rollback.delete), (minutes(1), DeletePolicy::Force));
    assert_eq!(
        (rollback.blue_capacity, rollback.after_promotion, limits.rollbacks_per_day),
        (BlueCapacity::Restore, AfterPromotion::Rollback, 3)
    );
    assert_eq!((quarantine.on_return, quarantine.ttl), (OnReturn::Report, Duration::from_hours(7 * 24)));
}

#[test]
fn the_examples_are_valid_together() {
    let rules = compile(&files_of("rules/examples")).unwrap();
    insta::assert_json_snapshot!("examples", rules);
}

#[test]
fn the_most_specific_entry_decides() {
    let rules = compile(&[
        protecting("all", &["*/*"]),
        protecting("prod", &["prod/*"]),
        protecting("checkouts", &["prod/checkout-*", "prod/*-checkout"]),
        protecting("api", &["prod/checkout-api"]),
        protecting("any-api", &["*/checkout-api"]),
    ])
    .unwrap();
    let rule = |cluster: &str, service: &str| {
        rules.rule_for(&ServiceKey::new(cluster, service)).map(|rule| rule.name.to_string()).unwrap_or_default()
    };
    assert_eq!(rule("prod", "checkout-api"), "api");
    assert_eq!(rule("prod", "checkout-web"), "checkouts");
    assert_eq!(rule("prod", "old-checkout"), "checkouts");
    assert_eq!(rule("prod", "web"), "prod");
    assert_eq!(rule("stage", "checkout-api"), "any-api");
    assert_eq!(rule("stage", "web"), "all");
}

#[test]
fn what_no_entry_matches_is_not_protected() {
    let rules = compile(&[protecting("web", &["prod/web"])]).unwrap();
    assert_eq!(rules.rule_for(&ServiceKey::new("prod", "web2")), None);
    assert_eq!(rules.rule_for(&ServiceKey::new("Prod", "web")), None);
    assert_eq!(RuleSet::default().rule_for(&ServiceKey::new("prod", "web")), None);
}

#[test]
fn gates_are_switched_off_by_a_word() {
    let text = protecting("quiet", &["prod/web"]).text
        + "[stability]\ntask_failures = \"off\"\nsteady_within = \"off\"\nunhealthy_targets = \"off\"\n";
    let rules = compile(&[file("quiet.toml", &text)]).unwrap();
    let StabilityGates { window: _, task_failures, steady_within, unhealthy_targets } = rules.rules[0].stability;
    assert_eq!((task_failures, steady_within, unhealthy_targets), (None, None, None));
}

#[test]
fn a_rule_says_what_a_rollback_may_do() {
    let text = protecting("careful", &["prod/web"]).text
        + "[stability]\nunhealthy_targets = 0\n[compare]\nagainst_blue = false\n[limits]\nrollbacks_per_day = 100\n\
           [rollback]\nblue_capacity = \"require\"\nafter_promotion = \"page\"\n";
    let rules = compile(&[file("careful.toml", &text)]).unwrap();
    let Rule { stability, compare, rollback, limits, .. } = &*rules.rules[0];
    assert_eq!((stability.unhealthy_targets, compare.against_blue, limits.rollbacks_per_day), (Some(0.0), false, 100));
    assert_eq!((rollback.blue_capacity, rollback.after_promotion), (BlueCapacity::Require, AfterPromotion::Page));
}

#[test]
fn gates_on_traffic_are_off_until_they_are_set_and_need_minutes_that_are_fresh() {
    let rule = |text: &str| compile(&[file("web.toml", &(protecting("web", &["prod/web"]).text + text))]);
    let set = rule("[errors]\nhttp_5xx_ratio = 0.05\nlatency_p99 = \"800ms\"\nmin_requests = 20").unwrap();
    let errors = set.rules[0].errors.clone();
    let millis = Duration::from_millis;
    assert_eq!((errors.http_5xx_ratio, errors.latency_p99, errors.min_requests), (Some(0.05), Some(millis(800)), 20));
    assert!(errors.read_traffic());
    let off = rule("[errors]\nhttp_5xx_ratio = \"off\"\nlatency_p99 = \"off\"").unwrap();
    assert!(!off.rules[0].errors.read_traffic());

    let short = "[watch]\nfreshness = \"2m\"\n[stability]\nwindow = \"2m\"\n[errors]\n";
    rule(short).unwrap();
    rule(&format!("{short}http_5xx_ratio = \"off\"")).unwrap();
    let both = rule(&format!("{short}http_5xx_ratio = 0.05\nlatency_p99 = \"1s\""));
    assert_eq!(codes(&both), [Code::Contradiction; 2]);
    for (text, code) in [
        ("http_5xx_ratio = 1.0", Code::OutOfRange),
        ("http_5xx_ratio = \"5%\"", Code::WrongType),
        ("latency_p99 = 800", Code::WrongType),
        ("latency_p99 = \"0s\"", Code::OutOfRange),
        ("min_requests = 0", Code::OutOfRange),
        ("min_requests = \"off\"", Code::WrongType),
    ] {
        assert_eq!(codes(&rule(&format!("[errors]\n{text}"))), [code], "{text}");
    }
}

#[test]
fn what_is_counted_is_still_fresh_when_blue_has_been_heard() {
    let rule = |text: &str| compile(&[file("web.toml", &(protecting("web", &["prod/web"]).text + text))]);
    let patient = |patience: &str, more: &str| format!("{more}[compare]\npatience = \"{patience}\"\n");
    rule(&patient("4m", "")).unwrap();
    let outlasted = rule(&patient("5m", ""));
    assert_eq!(codes(&outlasted), [Code::Contradiction]);
    assert!(outlasted.unwrap_err().to_string().contains("set watch.freshness to \"11m\" or more"));
    rule(&patient("5m", "[watch]\nfreshness = \"11m\"\n")).unwrap();
    rule(&patient("10m", "[stability]\ntask_failures = \"off\"\n")).unwrap();
    rule("[compare]\npatience = \"10m\"\nagainst_blue = false").unwrap();
    rule("[watch]\nfreshness = \"5m\"").unwrap();
}

#[test]
fn files_that_cannot_be_read_hide_no_error_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("a.toml"), b"name = \"a\"\n# \xff\n").unwrap();
    fs::write(path("b.toml"), "nam = 1\n").unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("c.toml")).unwrap();
    // Nobody ever writes into it, and whoever opens it waits.
    assert!(std::process::Command::new("mkfifo").arg(path("d.toml")).status().unwrap().success());
    let errors = compile(&read_rule_files(directory.path()).unwrap()).unwrap_err();
    let told: Vec<_> = errors.0.iter().map(|error| (error.code, error.place.line, error.place.column)).collect();
    let expected = [
        (Code::Syntax, 2, 3),
        (Code::UnknownKey, 1, 1),
        (Code::Missing, 1, 1),
        (Code::Syntax, 1, 1),
        (Code::Syntax, 1, 1),
    ];
    assert_eq!(told.iter().collect::<std::collections::BTreeSet<_>>(), expected.iter().collect());
    assert_eq!(told.len(), expected.len());
    assert!(read_rule_files(&path("d.toml")).is_err());
}

#[test]
fn a_rule_says_what_becomes_of_a_version_that_comes_back() {
    let rule = |text: &str| {
        let text = protecting("strict", &["prod/web"]).text + "[quarantine]\n" + text;
        compile(&[file("strict.toml", &text)])
    };
    let strict = rule("on_return = \"rollback\"\nttl = \"90d\"").unwrap().rules[0].quarantine;
    assert_eq!(strict, Quarantine { on_return: OnReturn::Rollback, ttl: Duration::from_hours(90 * 24) });
    for (text, code) in [
        ("ttl = \"59m\"", Code::OutOfRange),
        ("ttl = \"91d\"", Code::OutOfRange),
        ("ttl = 7", Code::WrongType),
        ("on_return = \"page\"", Code::WrongValue),
        ("until = \"7d\"", Code::UnknownKey),
    ] {
        assert_eq!(codes(&rule(text)), [code], "{text}");
    }
}

#[test]
fn a_journal_from_before_the_quarantine_is_read_with_its_default() {
    let set = compile(&[protecting("web", &["prod/web"])]).unwrap();
    let mut written = serde_json::to_value(&set).unwrap();
    written["rules"][0].as_object_mut().unwrap().remove("quarantine").unwrap();
    assert_eq!(serde_json::from_value::<RuleSet>(written).unwrap(), set);
}

#[test]
fn every_error_of_every_file_is_shown_with_its_place() {
    let errors = compile(&files_of("tests/fixtures/rules/bad")).unwrap_err();
    insta::assert_snapshot!("bad_narrow", errors.render(false, 60));
    insta::assert_json_snapshot!("bad", errors);
    insta::assert_snapshot!("bad_one_line_each", errors.to_string());
    let colored = errors.render(true, 100);
    assert!(colored.contains("\u{1b}[") && !errors.render(false, 100).contains('\u{1b}'));
}

#[test]
fn the_bad_files_show_every_code_but_too_large() {
    let shown = codes(&compile(&files_of("tests/fixtures/rules/bad")));
    let all = Code::ALL.into_iter().filter(|code| !matches!(code, Code::TooLarge | Code::MatchesNothing));
    for code in all {
        assert!(shown.contains(&code), "{}", code.as_str());
    }
}

#[test]
fn a_pattern_that_no_service_fits_is_shown_where_it_stands() {
    let files = [protecting("web", &["prod/checkout", "prod/chekout", "prd/*"])];
    let services = ["checkout", "other"].map(|name| ServiceKey::new("prod", name)).into();
    insta::assert_snapshot!(Diagnostics(match_nothing(&files, &services, |_| false)).to_string(), @"
    web.toml:5:1: R011: prod/chekout matches no service of this account and Region; did you mean prod/checkout?
    web.toml:8:1: R011: prd/* matches no service of this account and Region; correct the names, or look whether account and Region (AWS_REGION) are those that are meant
    ");
    let all = ["checkout", "chekout"]
        .map(|name| ServiceKey::new("prod", name))
        .into_iter()
        .chain([ServiceKey::new("prd", "a")]);
    assert_eq!(match_nothing(&files, &all.collect(), |_| false), []);
    let closed = |entry: &Protect| entry.reaches("prod");
    let sure = Diagnostics(match_nothing(&files, &[].into(), closed)).to_string();
    assert!(sure.contains("prd/* matches") && !sure.contains("prod/"), "nobody could see what is in prod: {sure}");
}

#[test]
fn what_is_too_large_is_refused_unread() {
    let large = file("large.toml", &format!("name = \"large\" # {}", "x".repeat(LARGEST_FILE)));
    assert_eq!(codes(&compile(&[large])), [Code::TooLarge]);

    let many: Vec<_> = (0..=MOST_FILES).map(|n| protecting(&format!("r{n}"), &[&format!("prod/s{n}")])).collect();
    assert_eq!(codes(&compile(&many)), [Code::TooLarge]);
    assert!(compile(&many[..MOST_FILES]).is_ok());

    let entries: Vec<_> = (0..101).map(|n| format!("prod/s{n}")).collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    assert_eq!(codes(&compile(&[protecting("wide", &entries)])), [Code::TooLarge]);
    let wide: Vec<_> = (0..21).map(|n| protecting(&format!("wide{n}"), &entries[..100])).collect();
    assert_eq!(codes(&compile(&wide)), [Code::TooLarge]);

    let alarms = (0..101).map(|n| format!("\"a{n}\"")).collect::<Vec<_>>().join(",");
    let text = protecting("loud", &["prod/web"]).text + &format!("[errors]\nalarms = [{alarms}]\n");
    assert_eq!(codes(&compile(&[file("loud.toml", &text)])), [Code::TooLarge]);
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let deep = LARGEST_FILE / 3;
    let texts = [
        format!("a = {}", "[".repeat(deep)),
        format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("a = {}", "{a=".repeat(deep)),
        format!("{}a = 1", "a.".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
        format!("[[{}a]]", "a.".repeat(deep)),
    ];
    for text in texts {
        let errors = compile(&[file("deep.toml", &text)]).unwrap_err();
        assert!(!errors.render(false, 80).is_empty());
    }
}

#[test]
fn overlaps_matter_only_between_rules_and_only_without_an_order() {
    let pair = |one: &[&str], other: &[&str]| codes(&compile(&[protecting("one", one), protecting("other", other)]));
    assert_eq!(pair(&["prod/web"], &["prod/web"]), [Code::Overlap]);
    assert_eq!(pair(&["prod/a-*"], &["prod/*-a"]), [Code::Overlap]);
    assert_eq!(pair(&["pro*/web"], &["*rod/web"]), [Code::Overlap]);
    assert_eq!(pair(&["prod/a-*"], &["prod/b-*"]), []);
    assert_eq!(pair(&["prod/web"], &["prod/we*"]), []);
    assert_eq!(pair(&["prod/web"], &["stage/web"]), []);
    assert_eq!(codes(&compile(&[protecting("same", &["prod/a-*", "prod/*-a"])])), []);
}

#[test]
fn check_summarizes_what_is_protected() {
    let (code, out, err) = checked("rules/examples", false);
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!("check_examples", out);
}

#[test]
fn check_shows_errors_on_stdout_and_counts_them_on_stderr() {
    let (code, out, err) = checked("tests/fixtures/rules/bad/empty.toml", false);
    assert_eq!(code, 1);
    assert!(out.contains("R007") && out.contains("empty.toml"), "{out}");
    assert!(err.starts_with("1 error in "), "{err}");
}

#[test]
fn check_gives_one_json_document_whatever_happens() {
    for (path, code, outcome) in [
        ("rules", 0, "fine"),
        ("tests/fixtures/rules/bad", 1, "wrong"),
        ("src", 1, "impossible"),
        ("no-such", 2, "impossible"),
    ] {
        let (found, out, err) = checked(path, true);
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((found, document["outcome"].as_str()), (code, Some(outcome)), "{path}: {out}");
        assert_eq!(err, "", "{path}");
    }
}

#[test]
fn check_can_tell_unreadable_from_wrong() {
    let (code, out, err) = checked("no-such-directory", false);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("no-such-directory"), "{err}");
}

fn checked(path: &str, json: bool) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check(&in_project(path), json, &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn only_visible_toml_files_of_the_directory_itself_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["b.toml", "a.toml", ".#a.toml", "notes.txt"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    fs::create_dir(directory.path().join("c.toml")).unwrap();
    let texts: Vec<_> = read_rule_files(directory.path()).unwrap().into_iter().map(|file| file.text).collect();
    assert_eq!(texts, ["a.toml", "b.toml"]);

    let error = read_rule_files(&directory.path().join("d.toml")).unwrap_err().to_string();
    assert!(error.contains("d.toml"), "{error}");
}

fn some_rule() -> impl Strategy<Value = Rule> {
    let template = compile(&[protecting("any", &["prod/web"])]).unwrap();
    let template = (*template.rules[0]).clone();
    let durations = proptest::array::uniform4(0_u64..1_000_000).prop_map(|all| all.map(Duration::from_millis));
    let gates = (proptest::option::of(1_u32..100), proptest::option::of(0_u64..1_000_000), any::<bool>());
    ("[a-z-]{1,20}", "[a-z*?]{1,20}", durations, gates, proptest::collection::vec(".{1,20}", 0..4)).prop_map(
        move |(name, glob, [bake, window, alarm_for, drain], (failures, steady, keep), alarms)| {
            let mut rule = template.clone();
            rule.name = Arc::from(name);
            rule.protect.push(Protect { cluster: Arc::from(glob.as_str()), service: Arc::from(glob) });
            rule.mode = if keep { Mode::Observe } else { Mode::Enforce };
            rule.watch.bake = bake;
            rule.stability.window = window;
            rule.stability.task_failures = failures;
            rule.stability.steady_within = steady.map(Duration::from_millis);
            rule.errors.alarm_for = alarm_for;
            rule.errors.alarms = alarms.iter().map(|name| name.as_str().into()).collect();
            rule.rollback.drain = drain;
            rule.rollback.delete = if keep { DeletePolicy::Keep } else { DeletePolicy::Force };
            rule
        },
    )
}

/// A bad or good rule file with a few characters changed.
fn damaged() -> impl Strategy<Value = String> {
    let mut files = files_of("tests/fixtures/rules/bad");
    files.extend(gallery::cases().iter().flat_map(|case| files_of(&gallery::folder(case))));
    files.extend(files_of("rules"));
    files.extend(files_of("rules/examples"));
    let texts: Vec<String> = files.into_iter().map(|file| file.text).filter(|text| !text.is_empty()).collect();
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..6);
    (prop::sample::select(texts), damage).prop_map(|(text, damage)| {
        let mut letters: Vec<char> = text.chars().collect();
        for (place, letter) in damage {
            let place = place.index(letters.len());
            letters[place] = letter;
        }
        letters.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_or_its_diagnostics_panic(text in "(?s).{0,200}") {
        if let Err(errors) = compile(&[file("any.toml", &text)]) {
            prop_assert!(!errors.render(true, 40).is_empty());
        }
    }

    #[test]
    fn no_damage_makes_the_compiler_or_its_diagnostics_panic(text in damaged()) {
        if let Err(errors) = compile(&[file("any.toml", &text), file("again.toml", &text)]) {
            prop_assert!(!errors.0.is_empty() && !errors.render(false, 80).is_empty());
            let lines = text.split('\n').count();
            prop_assert!(errors.0.iter().all(|error| (1..=lines).contains(&error.place.line) && error.place.column >= 1));
        }
    }

    #[test]
    fn a_rule_survives_the_journal(rule in some_rule()) {
        let set = RuleSet { rules: vec![Arc::new(rule)] };
        let text = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(serde_json::from_str::<RuleSet>(&text).unwrap(), set);
    }
}
