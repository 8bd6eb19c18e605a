//! Durations as written in rule files: one whole number and one unit.

use std::time::Duration;

/// Reads `"500ms"`, `"90s"`, `"5m"`, `"1h"`, `"7d"`.
///
/// # Errors
/// What is wrong and how to write it, for people.
pub(super) fn parse(text: &str) -> Result<Duration, (String, String)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let examples = || r#"write a whole number and a unit: "500ms", "90s", "5m", "1h", "7d""#.to_owned();
    if number.is_empty() {
        return Err(("not a duration".to_owned(), examples()));
    }
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(("a duration without a unit".to_owned(), with_units(number))),
        _ => {
            let spelled =
                ["s", "m", "h", "d"].into_iter().find(|known| unit.trim_start().to_lowercase().starts_with(known));
            let cure = match spelled {
                // Also right for "min", "sec" and "hours"; "1h30m" is told by the examples.
                Some(known) if !unit.contains(|c: char| c.is_ascii_digit()) => format!("write \"{number}{known}\""),
                _ => examples(),
            };
            return Err(("a duration has one of the units ms, s, m, h, d".to_owned(), cure));
        }
    };
    // Beyond any bound anyway: the range check says so.
    let millis = number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor);
    Ok(Duration::from_millis(millis))
}

/// The cure for a bare number.
pub(super) fn with_units(number: &str) -> String {
    format!("say which unit is meant: \"{number}s\", \"{number}m\"")
}

/// As a rule file would have it.
pub(super) fn written(duration: Duration) -> String {
    let (millis, seconds) = (duration.as_millis(), duration.as_secs());
    if !millis.is_multiple_of(1_000) {
        format!("{millis}ms")
    } else if seconds == 0 || !seconds.is_multiple_of(60) {
        format!("{seconds}s")
    } else if !seconds.is_multiple_of(3_600) {
        format!("{}m", seconds / 60)
    } else if seconds <= 86_400 || !seconds.is_multiple_of(86_400) {
        format!("{}h", seconds / 3_600)
    } else {
        format!("{}d", seconds / 86_400)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["0s", "1ms", "500ms", "90s", "5m", "1h", "24h", "36h", "2d", "7d", "61m", "86399999ms"] {
            assert_eq!(written(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn a_unit_is_never_guessed_but_named_in_the_cure() {
        let cure = |text: &str| parse(text).unwrap_err().1;
        assert_eq!(cure("5"), "say which unit is meant: \"5s\", \"5m\"");
        assert_eq!(cure("5 min"), "write \"5m\"");
        assert_eq!(cure("10 seconds"), "write \"10s\"");
        assert_eq!(cure("10MINUTES"), "write \"10m\"");
        for text in ["", "m", "-5m", "1.5h", "1h30m", "5w", "PT5M", "٣m"] {
            assert!(cure(text).starts_with("write a whole number"), "{text}");
        }
    }

    #[test]
    fn absurd_numbers_saturate() {
        assert_eq!(parse("99999999999999999999h"), Ok(Duration::from_millis(u64::MAX)));
    }
}
