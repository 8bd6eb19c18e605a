//! Text for terminals: as wide as they are, and without what would command them.

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
/// All is well, or well again.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Somebody should look.
pub(super) const CARE: Style = AnsiColor::Yellow.on_default();
/// Somebody must.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Used when the terminal does not say how wide it is.
const COLUMNS: usize = 100;

/// Standard output of verbs whose answer is their exit code, or what they do. When its reader has seen enough, as `head` does,
/// the rest goes nowhere, and nothing else changes.
pub(super) fn out() -> impl Write {
    WhileRead(anstream::stdout())
}

/// The same, for what is told on the way.
pub(super) fn err() -> impl Write {
    WhileRead(anstream::stderr())
}

struct WhileRead<W>(W);

impl<W: Write> Write for WhileRead<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
    }
}

/// Columns of the terminal, or of the variable `COLUMNS`; between 40 and 140.
pub(super) fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    said.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
        .unwrap_or(COLUMNS)
        .clamp(40, 140)
}

/// Words, on lines of at most `width` columns. A longer word gets a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = |line: &String| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width;
        if lines.last().is_some_and(full) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Names and reasons come from outside. A control character in one could move the cursor, or hide what stands before it; and
/// one that turns the direction of reading could show another order than there is.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let unfit = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(unfit) {
        Cow::Owned(text.chars().map(|c| if unfit(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// At most so many columns; what was cut ends in `…`.
pub(super) fn shortened(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_commands_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\r\u{202e}c\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c\u{fffd}");
        assert!(matches!(printable("prod/web «5xx»"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_are_as_long_as_the_terminal_is_wide() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
        assert_eq!((shortened("checkout", 8), shortened("checkout", 5)), ("checkout".to_owned(), "chec…".to_owned()));
    }
}
