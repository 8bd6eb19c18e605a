//! `schema`: what a file may hold, for editors and other programs.

use std::io::{self, Write};

use clap::ValueEnum;

use crate::rules;

/// What there is a schema of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Described {
    /// A rule file.
    Rules,
}

/// Writes the JSON Schema to `out`.
///
/// # Errors
/// When it can't be written.
pub fn schema(what: Described, out: &mut dyn Write) -> io::Result<()> {
    let schema = match what {
        Described::Rules => rules::schema(),
    };
    // `{:#}` of a JSON value is its text with one member a line.
    writeln!(out, "{schema:#}")
}
