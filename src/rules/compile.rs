//! From texts to a [`RuleSet`]: first every file by itself, then what only shows in all of them together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diagnostic::{Code, Diagnostic, Diagnostics, Place, Source};
use super::file::{Draft, draft};
use super::glob::Specificity;
use super::rule::{Protect, RuleSet};
use super::value::{Walk, nearest};
use crate::model::ServiceKey;

/// Bytes of one file. A rule is a screenful; this is a thousand of them.
pub const LARGEST_FILE: usize = 256 * 1024;

/// Files in a directory: one for each service of a large account.
pub const MOST_FILES: usize = 1_000;

/// `[[protect]]` entries over all rules. Every one is compared with every other.
const MOST_ENTRIES_OVERALL: usize = 2_000;

/// One rule file, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// As errors are to name it.
    pub path: String,
    /// All of it.
    pub text: String,
    /// Why that is not what the file says.
    pub unread: Option<Unread>,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Where in its text, in bytes.
    pub at: usize,
    /// What is wrong.
    pub said: String,
    /// What to do.
    pub help: String,
}

impl RuleFile {
    /// One that was read.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), unread: None }
    }
}

/// Compiles all rule files. The rules come out in the order of their names.
///
/// # Errors
/// All errors of all files.
pub fn compile(files: &[RuleFile]) -> Result<RuleSet, Diagnostics> {
    let mut errors = Vec::new();
    let mut drafts = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if index >= MOST_FILES {
            let source = Source::new(&file.path, "");
            let said = format!("more than {MOST_FILES} rule files");
            errors.push(Diagnostic::new(Code::TooLarge, source.place(0..0), said, "let globs cover several services"));
            break;
        }
        drafts.push(drafted(file, &mut errors));
    }
    duplicate_names(&drafts, &mut errors);
    overlaps(&drafts, &mut errors);
    if !errors.is_empty() {
        return Err(Diagnostics(errors));
    }
    let mut rules: Vec<_> = drafts.into_iter().filter_map(|draft| draft.rule).map(Arc::new).collect();
    rules.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(RuleSet { rules })
}

/// An error for every `[[protect]]` that none of the services which exist fits, unless it `may_fit` one that nobody could
/// see. Of files that compile.
pub fn match_nothing(
    files: &[RuleFile],
    services: &BTreeSet<ServiceKey>,
    may_fit: impl Fn(&Protect) -> bool,
) -> Vec<Diagnostic> {
    let drafts = files.iter().map(|file| drafted(file, &mut Vec::new()));
    let entries = drafts.flat_map(|draft| draft.protect);
    let fits = |protect: &Protect| services.iter().any(|service| protect.matches(service));
    let idle = entries.filter(|(protect, _)| !fits(protect) && !may_fit(protect));
    let error = |(Protect { cluster, service }, place): (Protect, Place)| {
        let said = format!("{cluster}/{service} matches no service of this account and Region");
        let written = format!("{cluster}/{service}");
        let names: Vec<String> = services.iter().map(ToString::to_string).collect();
        let help = match nearest(&written, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                "correct the names, or look whether account and Region (AWS_REGION) are those that are meant".to_owned()
            }
        };
        Diagnostic::new(Code::MatchesNothing, place, said, help)
    };
    idle.map(error).collect()
}

fn drafted(file: &RuleFile, errors: &mut Vec<Diagnostic>) -> Draft {
    // Some editors begin a file with a byte order mark. Nobody sees it, so it takes no column.
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let mut walk = Walk::new(Source::new(&file.path, text));
    if let Some(Unread { at, said, help }) = &file.unread {
        let at = at.saturating_sub(file.text.len().saturating_sub(text.len()));
        walk.error(Code::Syntax, at..at, said.as_str(), help.as_str());
        errors.append(&mut walk.errors);
        return Draft::default();
    }
    let draft = draft(&mut walk, text);
    walk.errors.sort_by_key(|error| (error.place.line, error.place.column));
    errors.append(&mut walk.errors);
    draft
}

fn duplicate_names(drafts: &[Draft], errors: &mut Vec<Diagnostic>) {
    let mut known: BTreeMap<&str, &Place> = BTreeMap::new();
    for (name, place) in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        if let Some(first) = known.get(&**name) {
            let said = format!("another rule is called {name:?} too");
            let help = "give one of them another name: names are unique over all files";
            let error = Diagnostic::new(Code::DuplicateName, place.clone(), said, help);
            errors.push(error.related((*first).clone(), "the first one"));
        } else {
            known.insert(name, place);
        }
    }
}

/// Two entries of one rule may overlap: whichever wins, the rule is the same.
fn overlaps(drafts: &[Draft], errors: &mut Vec<Diagnostic>) {
    struct Entry<'d> {
        rule: usize,
        protect: &'d Protect,
        specificity: Specificity,
        place: &'d Place,
    }
    let entries: Vec<Entry<'_>> = drafts
        .iter()
        .enumerate()
        .flat_map(|(rule, draft)| draft.protect.iter().map(move |(protect, place)| (rule, protect, place)))
        .map(|(rule, protect, place)| Entry { rule, protect, specificity: protect.specificity(), place })
        .collect();
    if let Some(beyond) = entries.get(MOST_ENTRIES_OVERALL) {
        let said = format!("{} [[protect]] entries in all rules together", entries.len());
        let help = format!("there may be {MOST_ENTRIES_OVERALL}; use globs");
        errors.push(Diagnostic::new(Code::TooLarge, beyond.place.clone(), said, help));
        return;
    }
    for (index, entry) in entries.iter().enumerate() {
        let ties = |other: &&Entry<'_>| {
            entry.rule != other.rule && entry.specificity == other.specificity && entry.protect.overlaps(other.protect)
        };
        if let Some(first) = entries.iter().take(index).find(ties) {
            let Protect { cluster, service } = entry.protect;
            let said = format!("{cluster}/{service} can match a service of another rule, and neither is more specific");
            let help =
                "make one more specific: a name beats a pattern, more letters beat fewer; the cluster comes first";
            let there = format!("{}/{} here", first.protect.cluster, first.protect.service);
            let error = Diagnostic::new(Code::Overlap, entry.place.clone(), said, help);
            errors.push(error.related(first.place.clone(), there));
        }
    }
}
