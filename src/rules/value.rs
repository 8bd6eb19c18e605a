//! Reading the values of one file, so that every error in it is found and not only the first.
//!
//! Every getter gives `None` for a value that is wrong, after having said so; the rule is put together at the end, when
//! all of them have been asked.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Code, Diagnostic, Source};
use super::duration::{self, written};
use super::keys::{
    Chance, Choice, Count, FILE, Flag, Key, OFF, OrOff, PROTECT, Share, Span, TABLES, Table, UntilSet, Word,
};

/// A value, and where it is written; nowhere when it is the default.
#[derive(Clone, Debug)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) span: Option<Range<usize>>,
}

/// One table of the file, or the file itself.
#[derive(Clone, Copy)]
pub(super) struct Section<'t> {
    known: &'static Table,
    found: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    pub(super) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.found?.get(key)
    }

    /// As in `watch.bake`.
    pub(super) fn path(&self, key: &str) -> String {
        path(self.known, key)
    }
}

fn path(table: &Table, key: &str) -> String {
    if table.name.is_empty() { key.to_owned() } else { format!("{}.{key}", table.name) }
}

/// As it stands above its keys.
fn header(table: &Table) -> String {
    if table.name == PROTECT.name { format!("[[{}]]", table.name) } else { format!("[{}]", table.name) }
}

/// One file, and what was found wrong in it.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) source: Arc<Source>,
    pub(super) errors: Vec<Diagnostic>,
}

impl Walk {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, errors: Vec::new() }
    }

    /// Records an error at a span.
    pub(super) fn error(
        &mut self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors.push(Diagnostic::new(code, self.source.place(span), message, help));
    }

    /// A table that was found. Complains about every key of it that no rule has.
    pub(super) fn entered<'t>(&mut self, known: &'static Table, found: &'t DeTable<'t>) -> Section<'t> {
        for (key, value) in found.iter().filter(|(key, _)| !names(known).any(|name| name == key.get_ref())) {
            let written: &str = key.get_ref();
            let kind = if known.name == FILE.name && value.get_ref().is_table() { "table" } else { "key" };
            let said = format!("no rule has a {kind} `{}`", path(known, &shortened(written)));
            self.error(Code::UnknownKey, key.span(), said, suggestion(written, known));
        }
        Section { known, found: Some(found) }
    }

    /// The table of this name. Absent means empty, and so does what is no table, once that is said.
    pub(super) fn section<'t>(&mut self, root: &Section<'t>, known: &'static Table) -> Section<'t> {
        let nothing = Section { known, found: None };
        let Some(value) = root.get(known.name) else { return nothing };
        if let DeValue::Table(found) = value.get_ref() {
            return self.entered(known, found);
        }
        let said = format!("`{}` is a table, not {}", known.name, type_of(value.get_ref()));
        let help = format!("write {} on a line of its own, and its keys below it", header(known));
        self.error(Code::WrongType, value.span(), said, help);
        nothing
    }

    /// What a key is set to, or its default.
    pub(super) fn setting<K: Read>(&mut self, section: &Section<'_>, key: &Key<K>) -> Option<Setting<K::Value>> {
        let Some(value) = section.get(key.name) else {
            return Some(Setting { value: key.holds.without(), span: None });
        };
        let found = Found { path: section.path(key.name), name: key.name, value, has_off: false };
        let read = key.holds.read(self, &found)?;
        Some(Setting { value: read, span: Some(value.span()) })
    }

    /// The text of a key without a default, if it is there.
    pub(super) fn text<'t>(&mut self, section: &Section<'t>, key: &Key<Word>) -> Option<(&'t str, Range<usize>)> {
        let value = section.get(key.name)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text, value.span())),
            other => {
                let said = format!("`{}` is a string, not {}", section.path(key.name), type_of(other));
                self.error(Code::WrongType, value.span(), said, format!("as in {} = \"…\"", key.name));
                None
            }
        }
    }
}

/// A key that is there, and what is written behind it.
pub(super) struct Found<'t> {
    pub(super) path: String,
    name: &'static str,
    pub(super) value: &'t Spanned<DeValue<'t>>,
    /// Whether "off" could be written instead.
    has_off: bool,
}

impl Found<'_> {
    fn wrong(&self, walk: &mut Walk, code: Code, said: impl Into<String>, help: impl Into<String>) {
        walk.error(code, self.value.span(), said, help);
    }

    fn wrong_type(&self, walk: &mut Walk, wanted: &str, help: impl Into<String>) {
        let said = format!("`{}` is {wanted}, not {}", self.path, type_of(self.value.get_ref()));
        self.wrong(walk, Code::WrongType, said, help);
    }

    /// A cure, and whether the gate can be switched off when somebody may have wanted that.
    fn or_off(&self, cure: &str) -> String {
        let wanted_off = match self.value.get_ref() {
            DeValue::Boolean(on) => !on,
            DeValue::String(text) => text == OFF,
            _ => false,
        };
        if self.has_off && wanted_off {
            format!("write {} = \"{OFF}\" to switch the gate off", self.name)
        } else if self.has_off {
            format!("{cure}; {} = \"{OFF}\" switches the gate off", self.name)
        } else if wanted_off {
            format!("{cure}; it can't be switched off")
        } else {
            cure.to_owned()
        }
    }
}

/// A kind of key that has a default.
pub(super) trait Read {
    /// What a rule keeps of it.
    type Value;

    /// The default.
    fn without(&self) -> Self::Value;

    /// What is written, if it is right.
    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<Self::Value>;
}

impl<T: Copy + Default> Read for Choice<T> {
    type Value = T;

    fn without(&self) -> T {
        T::default()
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<T> {
        let all: Vec<_> = self.words.iter().map(|(word, _, _)| format!("\"{word}\"")).collect();
        let DeValue::String(text) = found.value.get_ref() else {
            found.wrong_type(walk, "a string", format!("write {}", all.join(" or ")));
            return None;
        };
        let word = self.words.iter().find(|(word, _, _)| word == text).map(|(_, value, _)| *value);
        if word.is_none() {
            let said = format!("`{}` can't be {:?}", found.path, shortened(text));
            let meant = nearest(&text.to_lowercase(), self.words.iter().map(|(word, _, _)| *word));
            let help = match meant {
                Some(word) => format!("did you mean \"{word}\"? It is {}", all.join(" or ")),
                None => format!("write {}", all.join(" or ")),
            };
            found.wrong(walk, Code::WrongValue, said, help);
        }
        word
    }
}

impl Read for Span {
    type Value = Duration;

    fn without(&self) -> Duration {
        self.default
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<Duration> {
        let text = match found.value.get_ref() {
            DeValue::String(text) => text,
            DeValue::Integer(number) if number.radix() == 10 && !number.as_str().starts_with('-') => {
                let said = format!("`{}` is a duration, not a bare number", found.path);
                found.wrong(walk, Code::WrongType, said, duration::with_units(&shortened(number.as_str())));
                return None;
            }
            _ => {
                let help = format!("as in {} = \"{}\"", found.name, written(self.default));
                found.wrong_type(walk, "a duration in quotes", found.or_off(&help));
                return None;
            }
        };
        match duration::parse(text) {
            Err((what, help)) => {
                let said = format!("`{}`: {what}", found.path);
                found.wrong(walk, Code::WrongValue, said, found.or_off(&help));
                None
            }
            Ok(value) if value < self.least || value > self.most => {
                let help = format!("it goes from \"{}\" to \"{}\"", written(self.least), written(self.most));
                let said = format!("`{}` is out of range", found.path);
                found.wrong(walk, Code::OutOfRange, said, found.or_off(&help));
                None
            }
            Ok(value) => Some(value),
        }
    }
}

impl Read for Count {
    type Value = u32;

    fn without(&self) -> u32 {
        self.default
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<u32> {
        let number = match found.value.get_ref() {
            DeValue::Integer(number) => number,
            DeValue::String(text) if text.parse::<u32>().is_ok() => {
                found.wrong_type(walk, "a whole number", format!("write {} = {text}, without quotes", found.name));
                return None;
            }
            _ => {
                let help = found.or_off(&format!("as in {} = {}", found.name, self.default));
                found.wrong_type(walk, "a whole number", help);
                return None;
            }
        };
        let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let count = count.filter(|count| (self.least..=self.most).contains(count));
        if count.is_none() {
            let help = found.or_off(&format!("it goes from {} to {}", self.least, self.most));
            found.wrong(walk, Code::OutOfRange, format!("`{}` is out of range", found.path), help);
        }
        count
    }
}

impl Read for Share {
    type Value = f64;

    fn without(&self) -> f64 {
        self.default
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<f64> {
        let range = "it goes from 0 to less than 1";
        share(walk, found, ("a share from 0 to 1", range, self.default), |share| (0.0..1.0).contains(&share))
    }
}

impl Read for Chance {
    type Value = f64;

    fn without(&self) -> f64 {
        self.default
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<f64> {
        let Self { least, most, default } = *self;
        let range = format!("it goes from {least} to {most}");
        share(walk, found, ("a probability", &range, default), |share| (least..=most).contains(&share))
    }
}

/// A number that is part of a whole.
fn share(
    walk: &mut Walk,
    found: &Found<'_>,
    (kind, range, example): (&str, &str, f64),
    fits: impl Fn(f64) -> bool,
) -> Option<f64> {
    let number = match found.value.get_ref() {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        other => {
            let percent = other.as_str().and_then(|text| text.trim().strip_suffix('%')?.trim_end().parse().ok());
            let help = percent.and_then(of_a_hundred).unwrap_or_else(|| format!("as in {} = {example}", found.name));
            found.wrong_type(walk, kind, found.or_off(&help));
            return None;
        }
    };
    let share = number.filter(|share| fits(*share));
    if share.is_none() {
        let help = match number.and_then(of_a_hundred) {
            Some(cure) => format!("{range}: {cure}"),
            None => range.to_owned(),
        };
        found.wrong(walk, Code::OutOfRange, format!("`{}` is out of range", found.path), found.or_off(&help));
    }
    share
}

/// For somebody who thought in percent.
pub(super) fn of_a_hundred(percent: f64) -> Option<String> {
    (1.0 < percent && percent < 100.0).then(|| format!("{percent} % is {}", percent / 100.0))
}

impl Read for Flag {
    type Value = bool;

    fn without(&self) -> bool {
        self.default
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<bool> {
        let flag = found.value.get_ref().as_bool();
        if flag.is_none() {
            let help = format!("write {0} = true or {0} = false, without quotes", found.name);
            found.wrong_type(walk, "true or false", help);
        }
        flag
    }
}

impl<K: Read> Read for OrOff<K> {
    type Value = Option<K::Value>;

    fn without(&self) -> Self::Value {
        Some(self.0.without())
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<Self::Value> {
        if found.value.get_ref().as_str() == Some(OFF) {
            return Some(None);
        }
        let found = Found { path: found.path.clone(), has_off: true, ..*found };
        self.0.read(walk, &found).map(Some)
    }
}

impl<K: Read> Read for UntilSet<K> {
    type Value = Option<K::Value>;

    fn without(&self) -> Self::Value {
        None
    }

    fn read(&self, walk: &mut Walk, found: &Found<'_>) -> Option<Self::Value> {
        self.0.read(walk, found)
    }
}

/// What may stand in a table; for the file also the tables.
fn names(table: &'static Table) -> impl Iterator<Item = &'static str> {
    let tables: &[&Table] = if table.name == FILE.name { &TABLES } else { &[] };
    table.keys.iter().map(|key| key.name()).chain(tables.iter().map(|table| table.name))
}

/// The cure for a key that its table does not have.
fn suggestion(written: &str, here: &'static Table) -> String {
    let tables = || TABLES.into_iter().chain([&FILE]).filter(|table| table.name != here.name);
    if let Some(table) = tables().find(|table| table.keys.iter().any(|key| key.name() == written)) {
        return match table.name {
            "" => format!("`{written}` belongs to the top of the file, above every [table]"),
            _ => format!("`{written}` belongs into {}", header(table)),
        };
    }
    if let Some(table) = TABLES.into_iter().find(|table| table.name == written) {
        return format!("write {} on a line of its own, and its keys below it", header(table));
    }
    if let Some(name) = nearest(written, names(here)) {
        return format!("did you mean `{}`?", path(here, name));
    }
    let elsewhere = || tables().flat_map(|table| table.keys.iter().map(move |key| (key.name(), table)));
    if let Some(near) = nearest(written, elsewhere().map(|(name, _)| name))
        && let Some((name, table)) = elsewhere().find(|(name, _)| *name == near)
    {
        return format!("did you mean `{}`?", path(table, name));
    }
    format!("the keys here are {}", names(here).collect::<Vec<_>>().join(", "))
}

/// The name that was probably meant. A third of the letters may be wrong: more is another word.
pub(super) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if written.len() > 64 {
        // No name is half as long, and a distance takes its time.
        return None;
    }
    let (wrong, name) = names.map(|name| (distance(written, name), name)).min()?;
    (wrong <= name.len().div_ceil(3)).then_some(name)
}

/// How many letters must be changed, added or left out to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, mine) in one.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (theirs, before) in other.iter().zip(row.windows(2)) {
            let [diagonal, up] = *before else { break };
            left = (diagonal + usize::from(mine != *theirs)).min(up + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// For messages that repeat what was written.
pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 40 { text.to_owned() } else { text.chars().take(39).chain(['…']).collect() }
}

/// For messages: `an array`, `a boolean`.
pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted_in_letters() {
        for (one, other, expected) in [("bake", "bake", 0), ("bkae", "bake", 2), ("", "bake", 4), ("drän", "drain", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}
