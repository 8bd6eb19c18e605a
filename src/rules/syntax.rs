//! What is wrong with text that is no TOML, and how to cure it.
//!
//! The TOML library says what it expected. What was meant shows in the line, so that is looked at first; its message
//! only tells which kind of error it is. What it says in words that we do not know is passed on as it is.

use std::ops::Range;

use super::value::{of_a_hundred, shortened};

/// What stands where a merge was left half done.
const MARKERS: [&str; 3] = ["<<<<<<<", "=======", ">>>>>>>"];

/// A part of the library's message; what we say instead; the cure. The first that fits counts.
const KINDS: [(&str, &str, &str); 13] = [
    ("unclosed array table", "the name of a [[table]] has no end", "close it with `]]`"),
    ("unclosed table", "the name of a [table] has no end", "close it with `]`"),
    ("unclosed array", "a list has no end", "close it with `]`"),
    ("unclosed inline table", "a table in braces has no end", "close it with `}`"),
    ("missing comma", "two entries with nothing between them", "write a comma between them"),
    ("extra comma", "a comma with nothing before it", "leave the comma out"),
    ("escaped value", "no such escape", r"write `\\` for a backslash, or put the text between ' and '"),
    ("invalid basic string", "a text in quotes has no end, or has a control character", "end it on its line with a \""),
    (
        "invalid literal string",
        "a text in quotes has no end, or has a control character",
        "end it on its line with a '",
    ),
    ("mantissa", "not a number", "write a digit on either side of the point, as in 0.5"),
    ("leading zero", "a number that begins with 0", "leave the 0 out"),
    ("carriage return", "a carriage return in the middle of a line", "end lines as on Unix or on Windows"),
    (
        "unexpected key or value",
        "something follows the value",
        "put it on a line of its own; a comment begins with `#`",
    ),
];

/// For what is in no list.
const ANY: &str = "a line is `key = value`, `[table]` or `# comment`; a text is in quotes";

/// What is wrong at this place, and the cure.
pub(super) fn told(message: &str, text: &str, span: &Range<usize>) -> (String, String) {
    let found = text.get(span.clone()).unwrap_or_default().trim();
    let (before, rest) = text.split_at_checked(span.start).unwrap_or((text, ""));
    let before = before.rsplit('\n').next().unwrap_or_default();
    let rest = rest.lines().next().unwrap_or_default();
    let line = format!("{before}{rest}");
    let pair = |said: &str, cure: &str| (said.to_owned(), cure.to_owned());

    if MARKERS.iter().any(|marker| line.starts_with(marker)) {
        return pair("a merge that was not finished", "keep one side, and remove the lines of <, = and >");
    }
    if line.trim_start().starts_with('{') {
        return pair("a rule file is TOML, not JSON", "begin with name = \"…\" and [[protect]], without braces");
    }
    if rest.trim_start().starts_with("//") {
        return pair("this is no comment", "a comment begins with `#`");
    }
    if message.contains("must be quoted") {
        return unquoted(found);
    }
    if message.contains("invalid boolean") {
        return ("not true or false".to_owned(), format!("write {}, in small letters", found.to_lowercase()));
    }
    if message.contains("key") && !message.contains("duplicate") && line.contains(':') && !line.contains('=') {
        return pair("no `=` between a key and its value", "write `=` instead of `:`, as in mode = \"observe\"");
    }
    if message.contains("duplicate key") {
        let found = shortened(found);
        return if line.trim_start().starts_with('[') {
            (format!("the table `{found}` begins a second time"), format!("put all keys below one [{found}]"))
        } else {
            (format!("`{found}` is set a second time"), "keep one of them".to_owned())
        };
    }
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let decimal = rest.strip_prefix(',').is_some_and(|behind| is_digit(behind.chars().next()));
    if decimal && is_digit(before.chars().next_back()) {
        return pair("a comma in a number", "write a point, as in 0.5");
    }
    match KINDS.iter().find(|(part, _, _)| message.contains(part)) {
        Some((_, said, cure)) => pair(said, cure),
        None => pair(message.trim_end(), ANY),
    }
}

/// A text without quotes, or with the wrong ones.
fn unquoted(found: &str) -> (String, String) {
    let bare = found.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"%*?".contains(c));
    if found.is_empty() {
        ("a key without a value".to_owned(), "write one behind the `=`, or leave the key out".to_owned())
    } else if let Some(percent) = bare.strip_suffix('%') {
        let cure = percent.trim().parse().ok().and_then(of_a_hundred);
        ("a share is written without a sign".to_owned(), cure.unwrap_or_else(|| "as in 0.5 for a half".to_owned()))
    } else if bare.is_empty() || bare.contains(['"', '\n']) {
        ("a text that is not in quotes".to_owned(), "write it between \" and \"".to_owned())
    } else {
        ("a text that is not in quotes".to_owned(), format!("write \"{}\"", shortened(bare)))
    }
}
