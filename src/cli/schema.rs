//! `schema`: what files and documents hold, for editors and other programs.

use std::io::{self, Write};

use clap::ValueEnum;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::model::{Announcement, AnnouncementKind, Incident, SCHEMA_VERSION, SOURCE};
use crate::rules;

/// What there is a schema of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Described {
    /// A rule file
    Rules,
    /// The events that are emitted on EventBridge
    #[value(alias = "announcements")]
    Events,
    /// An incident, as `explain --output json` and `/incidents/ID` have it
    #[value(alias = "incident")]
    Incidents,
}

/// Writes the JSON Schema to `out`.
///
/// # Errors
/// When it can't be written.
pub fn schema(what: Described, out: &mut dyn Write) -> io::Result<()> {
    let schema = match what {
        Described::Rules => rules::schema(),
        Described::Events => event(),
        Described::Incidents => generator().into_root_schema_for::<Incident>().to_value(),
    };
    // `{:#}` of a JSON value is its text with one member a line.
    writeln!(out, "{schema:#}")
}

/// Of what is written, not of what is read: what always stands there is required.
fn generator() -> schemars::SchemaGenerator {
    SchemaSettings::draft2020_12().for_serialize().into_generator()
}

/// The parts of EventBridge's envelope that the guardian fills in, around its document.
fn event() -> Value {
    let mut generator = generator();
    let mut detail = generator.subschema_for::<Announcement>().to_value();
    let mut definitions = generator.take_definitions(true);
    if let Some(described) = definitions.remove("Announcement") {
        detail = described;
    }
    detail["properties"]["schemaVersion"] = json!({
        "const": SCHEMA_VERSION,
        "description": "Raised when a member changes its meaning or goes away. Others may be added at any time.",
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event of taskset-guardian",
        "type": "object",
        "properties": {
            "source": { "const": SOURCE },
            "detail-type": { "enum": AnnouncementKind::ALL.map(AnnouncementKind::detail_type) },
            "detail": detail,
        },
        "required": ["source", "detail-type", "detail"],
        "$defs": definitions,
    })
}
