//! Durations as written in rule files: one whole number and one unit.

use std::time::Duration;

/// Units, in milliseconds.
pub(super) const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads `"500ms"`, `"90s"`, `"5m"`, `"1h"`, `"7d"`.
///
/// # Errors
/// What is wrong and how to write it, for people.
pub(crate) fn parse(text: &str) -> Result<Duration, (String, String)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let examples = || r#"write a whole number and a unit: "500ms", "90s", "5m", "1h", "7d""#.to_owned();
    if let Some(positive) = text.strip_prefix(['-', '+']).filter(|rest| parse(rest).is_ok()) {
        return Err(("a duration has no sign".to_owned(), format!("write \"{positive}\"")));
    }
    if number.is_empty() {
        return Err(("not a duration".to_owned(), examples()));
    }
    if unit.is_empty() {
        return Err(("a duration without a unit".to_owned(), with_units(number)));
    }
    let Some((_, factor)) = UNITS.into_iter().find(|(known, _)| *known == unit) else {
        if let Some(whole) = sum(text) {
            return Err((
                "a duration is one whole number and one unit".to_owned(),
                format!("write \"{}\"", written(whole)),
            ));
        }
        let cure = spelled(unit).map_or_else(examples, |known| format!("write \"{number}{known}\""));
        return Err(("a duration has one of the units ms, s, m, h, d".to_owned(), cure));
    };
    // Beyond any bound anyway: the range check says so.
    let millis = number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor);
    Ok(Duration::from_millis(millis))
}

/// The unit that somebody wrote in words: `min`, `Seconds`, ` hours`.
fn spelled(unit: &str) -> Option<&'static str> {
    let unit = unit.trim().to_lowercase();
    if !unit.chars().all(char::is_alphabetic) || unit.starts_with("mo") {
        // Months have no length.
        return None;
    }
    let is_small = unit.starts_with("mil") || unit.starts_with("mse");
    if is_small { Some("ms") } else { ["s", "m", "h", "d"].into_iter().find(|known| unit.starts_with(known)) }
}

/// The length of `1h30m` or `1.5h`: of several numbers with units, and decimals. `None` for all else.
fn sum(text: &str) -> Option<Duration> {
    let mut millis = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let (_, factor) = UNITS.into_iter().find(|(known, _)| *known == unit.trim())?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        // Nine digits of a fraction are more than anybody writes; a fraction of a millisecond is none.
        let scale = 10_u64.pow(u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?);
        let parts = factor.checked_mul(fraction.parse().ok()?)?;
        if parts % scale != 0 {
            return None;
        }
        millis = whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(parts / scale)?.checked_add(millis)?;
        rest = behind.trim_start();
    }
    Some(Duration::from_millis(millis))
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
        assert_eq!(cure("500 milliseconds"), "write \"500ms\"");
        assert_eq!(cure("-5m"), "write \"5m\"");
        assert_eq!(cure("1.5h"), "write \"90m\"");
        assert_eq!(cure("1h30m"), "write \"90m\"");
        assert_eq!(cure("1d 12h"), "write \"36h\"");
        for text in ["", "m", "--5m", "1.5.5h", "1h30", "1.h", "0.0001s", "5w", "2 months", "PT5M", "٣m"] {
            assert!(cure(text).starts_with("write a whole number"), "{text}");
        }
    }

    #[test]
    fn absurd_numbers_saturate() {
        assert_eq!(parse("99999999999999999999h"), Ok(Duration::from_millis(u64::MAX)));
    }
}
