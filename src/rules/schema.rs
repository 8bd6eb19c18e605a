//! A JSON Schema of a rule file, for editors: the same tables that the parser reads by.
//!
//! It is a little wider than the parser. What a schema can't say, or an editor could only show as a riddle, is left to
//! `check`: bounds of durations, a window longer than the freshness, whatever is about several files.

use serde_json::{Value, json};

use super::duration::{UNITS, written};
use super::keys::{
    ARN, Alarms, Chance, Choice, Count, FILE, Flag, Key, MOST_ENTRIES, OFF, OrOff, PROTECT, Share, Span, TABLES, Table,
    UntilSet, Word,
};

/// A key of any kind.
pub(super) trait Described: Sync {
    /// As written in a rule file.
    fn name(&self) -> &'static str;
    /// What may be written behind it.
    fn schema(&self) -> Value;
    /// Whether a rule can't be without it.
    fn is_required(&self) -> bool {
        false
    }
}

/// What a key can hold.
pub(super) trait Kind: Sync {
    /// The values themselves.
    fn values(&self) -> Value;
    /// What it is without the key, as a rule file would have it. `None` when there must be one.
    fn default(&self) -> Option<Value>;
    /// What the values mean and which there are, where the schema can't say it. With a space before it.
    fn bounds(&self) -> String {
        String::new()
    }
}

impl<K: Kind> Described for Key<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        let mut schema = self.holds.values();
        schema["description"] = format!("{}{}", self.about, self.holds.bounds()).into();
        if let Some(default) = self.holds.default() {
            schema["default"] = default;
        }
        schema
    }

    fn is_required(&self) -> bool {
        self.holds.default().is_none()
    }
}

/// The JSON Schema (2020-12) of a rule file. Its descriptions are for people who write one.
pub fn schema() -> Value {
    let mut file = table(&FILE);
    for each in TABLES {
        let shown = if each.name == PROTECT.name {
            json!({
                "type": "array",
                "items": table(each),
                "minItems": 1,
                "maxItems": MOST_ENTRIES,
                "description": each.about,
            })
        } else {
            table(each)
        };
        file["properties"][each.name] = shown;
    }
    file["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    file["title"] = "Rule of taskset-guardian".into();
    file
}

fn table(table: &Table) -> Value {
    let properties: serde_json::Map<_, _> =
        table.keys.iter().map(|key| (key.name().to_owned(), key.schema())).collect();
    let required: Vec<_> = table.keys.iter().filter(|key| key.is_required()).map(|key| key.name()).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

impl Kind for Word {
    fn values(&self) -> Value {
        json!({ "type": "string", "pattern": format!("^[A-Za-z0-9{}]{{1,{}}}$", self.beside, self.most) })
    }

    fn default(&self) -> Option<Value> {
        None
    }
}

impl<T: Default + PartialEq + Sync> Kind for Choice<T> {
    fn values(&self) -> Value {
        let words: Vec<_> = self.words.iter().map(|(word, _, _)| *word).collect();
        json!({ "enum": words })
    }

    fn default(&self) -> Option<Value> {
        self.words.iter().find(|(_, value, _)| *value == T::default()).map(|(word, _, _)| (*word).into())
    }

    fn bounds(&self) -> String {
        let said: Vec<_> = self.words.iter().map(|(word, _, meaning)| format!("\"{word}\": {meaning}.")).collect();
        format!(" {}", said.join(" "))
    }
}

impl Kind for Span {
    fn values(&self) -> Value {
        json!({ "type": "string", "pattern": format!("^[0-9]+({})$", UNITS.map(|(unit, _)| unit).join("|")) })
    }

    fn default(&self) -> Option<Value> {
        Some(written(self.default).into())
    }

    fn bounds(&self) -> String {
        format!(" \"{}\" to \"{}\".", written(self.least), written(self.most))
    }
}

impl Kind for Count {
    fn values(&self) -> Value {
        json!({ "type": "integer", "minimum": self.least, "maximum": self.most })
    }

    fn default(&self) -> Option<Value> {
        Some(self.default.into())
    }

    fn bounds(&self) -> String {
        format!(" {} to {}.", self.least, self.most)
    }
}

impl Kind for Share {
    fn values(&self) -> Value {
        json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 })
    }

    fn default(&self) -> Option<Value> {
        Some(self.default.into())
    }

    fn bounds(&self) -> String {
        " 0 to less than 1.".to_owned()
    }
}

impl Kind for Chance {
    fn values(&self) -> Value {
        json!({ "type": "number", "minimum": self.least, "maximum": self.most })
    }

    fn default(&self) -> Option<Value> {
        Some(self.default.into())
    }

    fn bounds(&self) -> String {
        format!(" {} to {}.", self.least, self.most)
    }
}

impl Kind for Flag {
    fn values(&self) -> Value {
        json!({ "type": "boolean" })
    }

    fn default(&self) -> Option<Value> {
        Some(self.default.into())
    }
}

impl Kind for Alarms {
    fn values(&self) -> Value {
        json!({
            "type": "array",
            "items": {
                "type": "string",
                "maxLength": self.longest,
                // At least one character, and none that controls a terminal.
                "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
                "not": { "pattern": format!("^{ARN}") },
            },
            "maxItems": self.most,
            "uniqueItems": true,
        })
    }

    fn default(&self) -> Option<Value> {
        Some(json!([]))
    }
}

impl<K: Kind> Kind for OrOff<K> {
    fn values(&self) -> Value {
        json!({ "anyOf": [self.0.values(), { "const": OFF }] })
    }

    fn default(&self) -> Option<Value> {
        self.0.default()
    }

    fn bounds(&self) -> String {
        let bounds = self.0.bounds();
        format!("{}, or \"{OFF}\".", bounds.trim_end_matches('.'))
    }
}

impl<K: Kind> Kind for UntilSet<K> {
    fn values(&self) -> Value {
        self.0.values()
    }

    fn default(&self) -> Option<Value> {
        Some(OFF.into())
    }

    fn bounds(&self) -> String {
        self.0.bounds()
    }
}
