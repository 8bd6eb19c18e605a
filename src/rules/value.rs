//! Reading the values of one file, so that every error in it is found and not only the first.
//!
//! Every getter gives `None` for a value that is wrong, after having said so; the rule is put together at the end, when
//! all of them have been asked.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Code, Diagnostic, Source};
use super::duration;

/// A value, and where it is written; nowhere when it is the default.
#[derive(Clone, Debug)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) span: Option<Range<usize>>,
}

/// Bounds of a duration, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// One table, under the name by which errors speak of it; empty for the file itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'t> {
    name: &'static str,
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    pub(super) fn of(name: &'static str, table: &'t DeTable<'t>) -> Self {
        Self { name, table: Some(table) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table?.get(key)
    }

    /// As in `watch.bake`.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
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
        self.errors.push(Diagnostic::new(code, self.source.place(span), message).help(help));
    }

    /// The table under a key. Absent means empty, and so does what is no table, once that is said.
    pub(super) fn section<'t>(&mut self, root: &Section<'t>, name: &'static str) -> Section<'t> {
        let table = root.get(name).and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let said = format!("`{name}` is a table, not {}", type_of(other));
                self.error(Code::WrongType, value.span(), said, format!("write [{name}] on a line of its own"));
                None
            }
        });
        Section { name, table }
    }

    /// Text, if the key is there.
    pub(super) fn text<'t>(&mut self, section: &Section<'t>, key: &str) -> Option<(&'t str, Range<usize>)> {
        let value = section.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text, value.span())),
            other => {
                let said = format!("`{}` is a string, not {}", section.path(key), type_of(other));
                self.error(Code::WrongType, value.span(), said, format!("as in {key} = \"…\""));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        words: &[(&str, T)],
        default: T,
    ) -> Option<T> {
        if section.get(key).is_none() {
            return Some(default);
        }
        let (text, span) = self.text(section, key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let said = format!("`{}` can't be {:?}", section.path(key), shortened(text));
            self.error(Code::WrongValue, span, said, format!("write {}", all.join(" or ")));
        }
        found
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &mut self,
        section: &Section<'_>,
        key: &str,
        bounds: Bounds,
        default: Duration,
    ) -> Option<Setting<Duration>> {
        let Some(value) = section.get(key) else { return Some(Setting { value: default, span: None }) };
        let (span, path) = (value.span(), section.path(key));
        let text = match value.get_ref() {
            DeValue::String(text) => text,
            DeValue::Integer(number) if number.radix() == 10 => {
                let help = duration::with_units(&shortened(number.as_str()));
                self.error(Code::WrongType, span, format!("`{path}` is a duration, not a bare number"), help);
                return None;
            }
            other => {
                let said = format!("`{path}` is a duration in quotes, not {}", type_of(other));
                self.error(Code::WrongType, span, said, format!("as in {key} = \"{}\"", duration::written(default)));
                return None;
            }
        };
        match duration::parse(text) {
            Err((what, help)) => {
                self.error(Code::WrongValue, span, format!("`{path}`: {what}"), help);
                None
            }
            Ok(value) if value < bounds.least || value > bounds.most => {
                let help =
                    format!("it goes from {} to {}", duration::written(bounds.least), duration::written(bounds.most));
                self.error(Code::OutOfRange, span, format!("`{path}` is out of range"), help);
                None
            }
            Ok(value) => Some(Setting { value, span: Some(span) }),
        }
    }

    /// A duration within bounds, or `"off"`.
    pub(super) fn duration_or_off(
        &mut self,
        section: &Section<'_>,
        key: &str,
        bounds: Bounds,
        default: Duration,
    ) -> Option<Setting<Option<Duration>>> {
        if let Some(off) = off(section, key) {
            return Some(off);
        }
        self.duration(section, key, bounds, default).map(|Setting { value, span }| Setting { value: Some(value), span })
    }

    /// A whole number within bounds, or `"off"`.
    pub(super) fn count_or_off(
        &mut self,
        section: &Section<'_>,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
    ) -> Option<Setting<Option<u32>>> {
        if let Some(off) = off(section, key) {
            return Some(off);
        }
        let or_off = format!("; {key} = \"off\" switches the gate off");
        self.number(section, key, bounds, default, &or_off)
            .map(|Setting { value, span }| Setting { value: Some(value), span })
    }

    /// A whole number within bounds.
    pub(super) fn count(
        &mut self,
        section: &Section<'_>,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
    ) -> Option<Setting<u32>> {
        self.number(section, key, bounds, default, "")
    }

    fn number(
        &mut self,
        section: &Section<'_>,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
        instead: &str,
    ) -> Option<Setting<u32>> {
        let Some(value) = section.get(key) else { return Some(Setting { value: default, span: None }) };
        let (span, path) = (value.span(), section.path(key));
        let DeValue::Integer(number) = value.get_ref() else {
            let said = format!("`{path}` is a whole number, not {}", type_of(value.get_ref()));
            self.error(Code::WrongType, span, said, format!("as in {key} = {default}{instead}"));
            return None;
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(count) if bounds.contains(&count) => Some(Setting { value: count, span: Some(span) }),
            _ => {
                let (least, most) = bounds.into_inner();
                let help = format!("it goes from {least} to {most}{instead}");
                self.error(Code::OutOfRange, span, format!("`{path}` is out of range"), help);
                None
            }
        }
    }

    /// A share of the whole that something can be above of, or `"off"`.
    pub(super) fn share_or_off(
        &mut self,
        section: &Section<'_>,
        key: &str,
        default: f64,
    ) -> Option<Setting<Option<f64>>> {
        let Some(value) = section.get(key) else { return Some(Setting { value: Some(default), span: None }) };
        if let Some(off) = off(section, key) {
            return Some(off);
        }
        let (span, path) = (value.span(), section.path(key));
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            other => {
                let said = format!("`{path}` is a share from 0 to 1, not {}", type_of(other));
                self.error(Code::WrongType, span, said, format!("as in {key} = {default}, or {key} = \"off\""));
                return None;
            }
        };
        let share = number.filter(|share| (0.0..1.0).contains(share));
        if share.is_none() {
            let help =
                format!("it goes from 0 to less than 1, as in 0.5 for a half; {key} = \"off\" switches the gate off");
            self.error(Code::OutOfRange, span.clone(), format!("`{path}` is out of range"), help);
        }
        share.map(|share| Setting { value: Some(share), span: Some(span) })
    }

    /// True or false.
    pub(super) fn flag(&mut self, section: &Section<'_>, key: &str, default: bool) -> Option<bool> {
        let Some(value) = section.get(key) else { return Some(default) };
        let DeValue::Boolean(flag) = value.get_ref() else {
            let said = format!("`{}` is true or false, not {}", section.path(key), type_of(value.get_ref()));
            self.error(Code::WrongType, value.span(), said, format!("write {key} = {default}, without quotes"));
            return None;
        };
        Some(*flag)
    }

    /// Complains about every key of the section that is not `known`. `elsewhere` are all paths that there are.
    pub(super) fn unknown_keys(&mut self, section: &Section<'_>, known: &[&str], elsewhere: &[&str]) {
        let keys = section.table.into_iter().flat_map(|table| table.iter().map(|(key, _)| key));
        for key in keys.filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let written: &str = key.get_ref();
            let said = format!("no rule has a key `{}`", section.path(&shortened(written)));
            let help = suggestion(written, section, known, elsewhere);
            self.error(Code::UnknownKey, key.span(), said, help);
        }
    }
}

/// A gate that is switched off.
fn off<T>(section: &Section<'_>, key: &str) -> Option<Setting<Option<T>>> {
    let value = section.get(key).filter(|value| value.get_ref().as_str() == Some("off"))?;
    Some(Setting { value: None, span: Some(value.span()) })
}

fn suggestion(written: &str, section: &Section<'_>, known: &[&str], elsewhere: &[&str]) -> String {
    let leaf = |path: &&&str| path.rsplit('.').next() == Some(written);
    if let Some((table, key)) = elsewhere.iter().find(leaf).and_then(|path| path.rsplit_once('.')) {
        return format!("`{key}` belongs into [{table}]");
    }
    // A third of the letters may be wrong: more is another word.
    match known.iter().map(|name| (distance(written, name), *name)).min() {
        Some((wrong, name)) if wrong <= name.len().div_ceil(3) => format!("did you mean `{}`?", section.path(name)),
        _ => format!("the keys here are {}", known.join(", ")),
    }
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
