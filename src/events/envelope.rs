//! The envelope that all events share, and the checks that every name out of an event passes.

use std::borrow::Cow;

use serde::Deserialize;

use super::DecodeError;
use crate::model::{Arn, Fact, Scope, Signal, Timestamp};

/// What SQS can carry.
pub(super) const LONGEST_BODY: usize = 1 << 20;

/// Longest name or ARN that is kept. ECS names end at 255 characters and alarm names too; an ARN joins two of them.
/// The bound keeps a forger from filling the state.
const LONGEST_NAME: usize = 1024;

/// A string borrowed from the body unless it has escapes, also inside `Option` and `Vec`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What decides who reads the rest.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) source: Text<'a>,
    #[serde(borrow, rename = "detail-type")]
    pub(super) detail_type: Text<'a>,
}

/// An event whose `detail` is a `D`. Who has no use for `resources` passes over them.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a, D, R = Vec<Text<'a>>> {
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow, rename = "detail-type")]
    detail_type: Text<'a>,
    #[serde(borrow)]
    account: Text<'a>,
    #[serde(borrow)]
    region: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,
    resources: Option<R>,
    /// Only on events out of an archive.
    #[serde(borrow, rename = "replay-name")]
    replay_name: Option<Text<'a>>,
    pub(super) detail: D,
}

impl<D, R> Envelope<'_, D, R> {
    /// Whether it is of this source and detail type.
    pub(super) fn is(&self, kind: (&str, &str)) -> bool {
        (self.source.as_str(), self.detail_type.as_str()) == kind
    }

    /// When AWS says that it happened.
    pub(super) fn at(&self) -> Result<Timestamp, DecodeError> {
        timestamp("time", &self.time)
    }

    /// Whether the ARN lives where the envelope says that the event comes from.
    pub(super) fn covers(&self, arn: &Arn<'_>) -> bool {
        arn.account == self.account.as_str() && arn.region == self.region.as_str()
    }

    /// The fact with its provenance; `at` is when AWS says that it happened.
    pub(super) fn signal(&self, at: Timestamp, fact: Fact) -> Result<Signal, DecodeError> {
        let account = name("account", self.account.as_str())?.into();
        let region = name("region", self.region.as_str())?.into();
        Ok(Signal { at, scope: Scope { account, region }, replayed: self.replay_name.is_some(), fact })
    }
}

impl<D> Envelope<'_, D> {
    /// The first of the event's resources that is an ARN of the service, with the resource behind `prefix`.
    pub(super) fn resource(&self, service: &str, prefix: &str) -> Option<Arn<'_>> {
        let resources = self.resources.iter().flatten();
        resources
            .filter_map(|text| Arn::parse(text.as_str()))
            .find(|arn| arn.service == service && arn.resource.starts_with(prefix))
    }
}

/// A name that may be kept: there, bounded, and fit to be printed.
pub(super) fn name<'t>(place: &'static str, text: &'t str) -> Result<&'t str, DecodeError> {
    if text.is_empty() {
        Err(DecodeError::at(place, "empty"))
    } else if text.len() > LONGEST_NAME {
        Err(DecodeError::at(place, format_args!("{} bytes long, no name in AWS is", text.len())))
    } else if !is_plain(text) && text.contains(char::is_control) {
        Err(DecodeError::at(place, "contains control characters"))
    } else {
        Ok(text)
    }
}

/// Printable ASCII, as nearly all names are. Looks at all bytes, which is faster than to stop at the first that is not.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte))
}

/// A name that is one part of an ARN.
pub(super) fn part<'t>(place: &'static str, text: &'t str) -> Result<&'t str, DecodeError> {
    if text.contains('/') {
        Err(DecodeError::at(place, format_args!("not a name: {text:?}")))
    } else {
        name(place, text)
    }
}

/// An ARN of ECS, and its resource behind `kind/`.
pub(super) fn ecs_arn<'t>(
    place: &'static str,
    text: &'t str,
    kind: &'static str,
) -> Result<(Arn<'t>, &'t str), DecodeError> {
    let found = Arn::parse(name(place, text)?).filter(|arn| arn.service == "ecs").and_then(|arn| {
        let behind = arn.resource.strip_prefix(kind)?.strip_prefix('/')?;
        Some((arn, behind))
    });
    found.ok_or_else(|| DecodeError::at(place, format_args!("not an ARN of an ECS {kind}: {text:?}")))
}

/// A time in either of the two ways in which AWS writes it.
pub(super) fn timestamp(place: &'static str, text: &Text<'_>) -> Result<Timestamp, DecodeError> {
    Timestamp::parse(text.as_str())
        .ok_or_else(|| DecodeError::at(place, format_args!("not a time: {:?}", text.as_str())))
}
