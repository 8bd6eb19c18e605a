//! EventBridge events, decoded: JSON goes in, one attributed [`Signal`] comes out.
//!
//! An event of a kind that nobody here reads is data ([`Ignored`]), never an error: AWS adds kinds and fields at any
//! time. An error means that the message is not what it claims to be, and that reading it again will not help.
//!
//! What an event says is a hint. Nothing is believed about a thing outside the account and Region that the envelope
//! names, and nothing here decides: that takes a read from AWS.

mod alarm;
mod call;
mod envelope;
mod service;
mod task;

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::model::{SOURCE, Signal, cut};
use envelope::{Head, LONGEST_BODY};

/// What came out of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A fact about a task set, a service or an alarm.
    Signal(Signal),
    /// A well-formed event without a word for us.
    Ignored(Ignored),
}

/// An event that is left aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Why.
    pub reason: IgnoredReason,
    /// As sent, cut at 128 bytes.
    pub detail_type: Arc<str>,
}

/// Why an event is left aside. Closed, for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoredReason {
    /// A source or detail type that nobody here reads.
    UnknownType,
    /// A task of `RunTask`, or of anything else than a service.
    NotOfAService,
    /// A service's task that no task set started.
    NotOfATaskSet,
    /// `ECS Deployment State Change`: it speaks of rolling updates, which ECS guards itself.
    RollingDeployment,
    /// A call that AWS refused, that changes nothing of ours, or that does not say what it changes.
    OtherCall,
    /// Emitted by the guardian.
    Own,
    /// It contradicts itself about account, Region, cluster or name. AWS doesn't: it is forged.
    Contradictory,
}

impl IgnoredReason {
    /// All of them, for closed label sets.
    pub const ALL: [Self; 7] = [
        Self::UnknownType,
        Self::NotOfAService,
        Self::NotOfATaskSet,
        Self::RollingDeployment,
        Self::OtherCall,
        Self::Own,
        Self::Contradictory,
    ];

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::NotOfAService => "not_of_a_service",
            Self::NotOfATaskSet => "not_of_a_task_set",
            Self::RollingDeployment => "rolling_deployment",
            Self::OtherCall => "other_call",
            Self::Own => "own",
            Self::Contradictory => "contradictory",
        }
    }
}

impl fmt::Display for IgnoredReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The message is not an event as AWS sends it. Says where and why in at most 300 bytes, whatever was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct DecodeError {
    /// As in `line 1 column 7` or `detail.stoppingAt`.
    place: Arc<str>,
    cause: Arc<str>,
}

impl DecodeError {
    /// Room for the cause: 300 bytes less the longest place and the colon between them.
    const LONGEST_CAUSE: usize = 240;

    fn at(place: &'static str, cause: impl fmt::Display) -> Self {
        Self { place: Arc::from(place), cause: cut(&cause.to_string(), Self::LONGEST_CAUSE) }
    }

    fn json(error: &serde_json::Error) -> Self {
        let place = format!("line {} column {}", error.line(), error.column());
        let said = error.to_string();
        // serde_json says the place itself, at the end, where a cut would lose it.
        let cause = said.strip_suffix(&format!(" at {place}")).unwrap_or(&said);
        Self { cause: cut(cause, Self::LONGEST_CAUSE), place: Arc::from(place) }
    }
}

/// Decodes the body of one SQS message: one EventBridge event.
///
/// # Errors
/// When the body is no EventBridge event, is longer than 1 MiB, or lacks what every event of its kind has.
pub fn decode(body: &str) -> Result<Decoded, DecodeError> {
    if body.len() > LONGEST_BODY {
        return Err(DecodeError::at("body", format_args!("{} bytes, more than SQS can carry", body.len())));
    }
    // Nearly all events are of this kind, and to find out which it is costs as much as to read it.
    if let Ok(event) = parse::<task::Event<'_>>(body)
        && event.is(task::KIND)
    {
        return decoded(task::read(&event), task::KIND.1);
    }
    let head: Head<'_> = parse(body)?;
    let found = match (head.source.as_str(), head.detail_type.as_str()) {
        task::KIND => task::read(&parse(body)?),
        ("aws.ecs", "ECS Service Action") => service::read(&parse(body)?),
        ("aws.ecs", "ECS Deployment State Change") => Err(IgnoredReason::RollingDeployment.into()),
        ("aws.cloudwatch", "CloudWatch Alarm State Change") => alarm::read_state(&parse(body)?),
        ("aws.cloudwatch", "CloudWatch Alarm Configuration Change") => alarm::read_configuration(&parse(body)?),
        ("aws.ecs" | "aws.elasticloadbalancing", "AWS API Call via CloudTrail") => call::read(&parse(body)?),
        (SOURCE, _) => Err(IgnoredReason::Own.into()),
        _ => Err(IgnoredReason::UnknownType.into()),
    };
    decoded(found, head.detail_type.as_str())
}

fn decoded(found: Result<Signal, NoSignal>, detail_type: &str) -> Result<Decoded, DecodeError> {
    match found {
        Ok(signal) => Ok(Decoded::Signal(signal)),
        Err(NoSignal::Undecodable(error)) => Err(error),
        Err(NoSignal::Ignored(reason)) => Ok(Decoded::Ignored(Ignored { reason, detail_type: cut(detail_type, 128) })),
    }
}

/// Why a reader of one kind of event gives no signal.
enum NoSignal {
    Ignored(IgnoredReason),
    Undecodable(DecodeError),
}

impl From<IgnoredReason> for NoSignal {
    fn from(reason: IgnoredReason) -> Self {
        Self::Ignored(reason)
    }
}

impl From<DecodeError> for NoSignal {
    fn from(error: DecodeError) -> Self {
        Self::Undecodable(error)
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(body).map_err(|error| DecodeError::json(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_error_says_where_and_stays_short() {
        let error = decode("{\n  \"source\": 7}").unwrap_err().to_string();
        assert_eq!(error, "line 2 column 13: invalid type: integer `7`, expected a string");
        let long = decode(&format!("{{\"source\":[\"{}\"]}}", "é".repeat(10_000))).unwrap_err().to_string();
        assert!(long.len() <= 300, "{long}");
        let echoing = decode(&format!("\"{}\"", "é".repeat(10_000))).unwrap_err().to_string();
        assert!(echoing.len() <= 300 && echoing.ends_with('…'), "{echoing}");
    }

    #[test]
    fn a_body_longer_than_a_message_can_be_is_not_parsed() {
        let body = format!("{{\"source\":\"aws.ecs\",\"detail-type\":\"{}\"}}", "x".repeat(1 << 20));
        assert_eq!(decode(&body).unwrap_err().to_string(), "body: 1048613 bytes, more than SQS can carry");
    }

    #[test]
    fn deep_nesting_is_survived_where_nobody_looks_and_where_somebody_does() {
        let deep = "[".repeat(200_000);
        let unread = format!("{{\"source\":\"x\",\"detail-type\":\"y\",\"detail\":{deep}{}}}", "]".repeat(200_000));
        assert!(matches!(decode(&unread), Ok(Decoded::Ignored(_))));
        assert!(decode(&deep).is_err());
        let read = format!("{{\"source\":\"aws.ecs\",\"detail-type\":\"ECS Task State Change\",\"detail\":{deep}");
        assert!(decode(&read).is_err());
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for body in ["", "null", "7", "[]", "{}", "not json", r#"{"Type":"Notification","Message":"{}"}"#] {
            assert!(decode(body).is_err(), "{body}");
        }
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = IgnoredReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), IgnoredReason::ALL.len());
    }
}
