//! Rule files: arbitrary text through the compiler, and what it complains about through the renderer.

use taskset_guardian::engine::Input;
use taskset_guardian::model::{ServiceKey, Timestamp};
use taskset_guardian::rules::{Diagnostics, Place, RuleFile, RuleSet, compile};
use taskset_guardian::runtime::entry;

use super::documents;

/// Terminals: none at all, narrow, wide.
const COLUMNS: [usize; 3] = [0, 20, 140];

/// Rule files that are loaded together.
pub fn rules(data: &[u8]) {
    let file = |(index, text)| RuleFile::new(format!("{index}.toml"), text);
    let files: Vec<_> = documents(data).into_iter().enumerate().map(file).collect();
    let compiled = compile(&files);
    assert_eq!(compile(&files), compiled, "compiling twice gives two answers");
    match compiled {
        Ok(rules) => sound(&files, &rules),
        Err(errors) => told_well(&files, &errors),
    }
}

/// What compiles can be relied on.
fn sound(files: &[RuleFile], rules: &RuleSet) {
    assert_eq!(rules.rules.len(), files.len(), "a file is not a rule");
    let mut turned = files.to_vec();
    turned.reverse();
    assert_eq!(compile(&turned).as_ref(), Ok(rules), "the order of the files matters");

    let at = Timestamp::EPOCH;
    let input = Input::Rules(rules.clone());
    let bytes = entry::encode(at, &input).expect("rules can be written down");
    let read = entry::decode(&bytes).unwrap_or_else(|error| panic!("the journal can't read its rules: {error}"));
    assert_eq!(read.input, input, "the journal changes a rule");

    for rule in &rules.rules {
        let exact = |glob: &str| !glob.contains(['*', '?']);
        for entry in rule.protect.iter().filter(|entry| exact(&entry.cluster) && exact(&entry.service)) {
            let found = rules.rule_for(&ServiceKey::new(&*entry.cluster, &*entry.service));
            assert_eq!(found, Some(rule), "{entry:?} is protected by another rule than the one that names it");
        }
    }
}

/// Every complaint points into its file and can be shown.
fn told_well(files: &[RuleFile], errors: &Diagnostics) {
    assert!(!errors.0.is_empty(), "no rules, and no reason why");
    for error in &errors.0 {
        inside(files, &error.place);
        if let Some(related) = &error.related {
            inside(files, &related.place);
        }
        assert!(!error.message.is_empty(), "an error without a word: {error:?}");
        let line = error.to_string();
        assert!(line.contains(error.code.as_str()), "an error without its code: {line}");
    }
    for columns in COLUMNS {
        let plain = errors.render(false, columns);
        for error in &errors.0 {
            let code = error.code.as_str();
            assert!(plain.contains(code), "{code} is not shown in {columns} columns: {plain}");
        }
    }
    errors.render(true, 80);
    serde_json::to_string(errors).expect("errors are data");
}

fn inside(files: &[RuleFile], place: &Place) {
    let file = files.iter().find(|file| *file.path == *place.file);
    let file = file.unwrap_or_else(|| panic!("an error in {}, which is no file", place.file));
    let line = place.line.checked_sub(1).and_then(|before| file.text.split('\n').nth(before));
    let line = line.unwrap_or_else(|| panic!("an error in line {} of {}", place.line, place.file));
    let columns = line.chars().count() + 1;
    assert!((1..=columns).contains(&place.column), "an error in column {} of {line:?}", place.column);
}
