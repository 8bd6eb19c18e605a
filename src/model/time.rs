//! Time as the engine sees it: milliseconds since the Unix epoch, with arithmetic that can't overflow or panic.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant, in milliseconds since 1970-01-01T00:00:00Z. Serialized as RFC 3339.
///
/// Not `jiff::Timestamp`, because its arithmetic is fallible and the engine is total: here every operation saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The epoch.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        let millis = i128::from(self.0).saturating_sub(i128::from(earlier.0));
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// So many milliseconds later, or earlier when they are negative.
    #[must_use]
    pub fn moved(self, by_ms: i64) -> Self {
        Self(self.0.saturating_add(by_ms))
    }

    /// Reads RFC 3339, with any number of fraction digits, and CloudWatch's `+0000` offset without a colon.
    pub fn parse(text: &str) -> Option<Self> {
        let instant = text
            .parse::<jiff::Timestamp>()
            .or_else(|_| jiff::Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text))
            .ok()?;
        Some(Self(instant.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            // Outside the years that a calendar knows: say the number rather than fail.
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Timestamp")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let beyond_calendar = || text.strip_suffix("ms").and_then(|n| n.parse().ok()).map(Self);
        Self::parse(&text)
            .or_else(beyond_calendar)
            .ok_or_else(|| serde::de::Error::custom(format_args!("not an RFC 3339 time: {text:?}")))
    }
}

/// A duration for people: `850ms`, `4.2s`, `45s`, `5m`, `1h 10m`.
pub fn humane(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis}ms"),
        1..10 if !millis.is_multiple_of(1000) => format!("{seconds}.{}s", millis % 1000 / 100),
        1..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ if seconds % 3600 < 60 => format!("{}h", seconds / 3600),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_aws_writes() {
        let expected = Timestamp::parse("2026-03-02T10:04:40.989Z");
        assert!(expected.is_some());
        assert_eq!(Timestamp::parse("2026-03-02T10:04:40.989+0000"), expected, "CloudWatch: offset without colon");
        assert_eq!(Timestamp::parse("2026-03-02T10:04:40.98900Z"), expected, "ECS: any number of digits");
        assert_eq!(Timestamp::parse("2026-03-02T11:04:40.989+01:00"), expected);
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn arithmetic_saturates() {
        let far = Timestamp::from_millis(i64::MAX);
        assert_eq!(far.plus(Duration::MAX), far);
        assert_eq!(Timestamp::from_millis(i64::MIN).minus(Duration::MAX), Timestamp::from_millis(i64::MIN));
        assert_eq!(Timestamp::EPOCH.since(far), Duration::ZERO);
    }

    #[test]
    fn survives_serialization_even_beyond_the_calendar() {
        for millis in [0, 1_772_445_880_989, i64::MAX, i64::MIN] {
            let at = Timestamp::from_millis(millis);
            let text = serde_json::to_string(&at).unwrap_or_default();
            assert_eq!(serde_json::from_str::<Timestamp>(&text).ok(), Some(at), "{text}");
        }
    }

    #[test]
    fn durations_read_well() {
        let say = |millis| humane(Duration::from_millis(millis));
        assert_eq!(say(850), "850ms");
        assert_eq!(say(4_230), "4.2s");
        assert_eq!(say(60_000), "1m");
        assert_eq!(say(75_000), "1m 15s");
        assert_eq!(say(4_200_000), "1h 10m");
    }
}
