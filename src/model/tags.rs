//! ECS tags as the control plane: what people and pipelines tell the guardian. IAM authorises it, `CloudTrail` records it,
//! and there is no admin port.
//!
//! Values are made of what AWS allows in a tag: letters, digits, spaces and `_ . : / = + - @`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{TaskSetId, Timestamp, cut};

/// On a service: the name of the rule that protects it. Wins over rule files' `[[protect]]`.
pub const RULE: &str = "taskset-guardian:rule";

/// On a service: until when (RFC 3339) no rollback is begun or carried on.
pub const HOLD_UNTIL: &str = "taskset-guardian:hold-until";

/// On a service: why it is held, for people.
pub const HOLD_REASON: &str = "taskset-guardian:hold-reason";

/// On a service: the id of the task set that a person wants rolled back.
pub const ROLLBACK: &str = "taskset-guardian:rollback";

/// On a service: why, for people.
pub const ROLLBACK_REASON: &str = "taskset-guardian:rollback-reason";

/// On a service: `family:revision` of the quarantined version that may come back, or `all`.
pub const RELEASE: &str = "taskset-guardian:release";

/// On a task set, given at its creation: what may be done to it, see [`Contract`].
pub const CONTRACT: &str = "taskset-guardian:contract";

/// What is kept of a reason, in bytes: AWS allows 256 characters.
const REASON_BYTES: usize = 256;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// The rule that a service's tag names.
pub fn rule(tags: &Tags) -> Option<&str> {
    tags.get(RULE).map(|name| name.trim()).filter(|name| !name.is_empty())
}

/// A service that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldOrder {
    /// Until then. `None` when the tag's value is no time: then until somebody corrects it, because whoever wrote it did not
    /// want anything done.
    pub until: Option<Timestamp>,
    /// In the words of whoever held it, or what is wrong with the tag.
    pub reason: String,
}

impl fmt::Display for HoldOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "held by a person until {until}: {}", self.reason),
            None => write!(f, "held by a person: {}", self.reason),
        }
    }
}

/// Whether a service's tags hold it now.
pub fn hold(tags: &Tags, now: Timestamp) -> Option<HoldOrder> {
    let text = tags.get(HOLD_UNTIL)?.trim();
    let Some(until) = Timestamp::parse(text) else {
        let shown = cut(text, 64);
        let reason =
            format!("the tag {HOLD_UNTIL} = {shown:?} is no RFC 3339 time before 9999-12-30; correct it or remove it");
        return Some(HoldOrder { until: None, reason });
    };
    let reason = tags.get(HOLD_REASON).map_or_else(unsaid, |reason| cut(reason, REASON_BYTES).to_string());
    (now < until).then_some(HoldOrder { until: Some(until), reason })
}

fn unsaid() -> String {
    "no reason given".to_owned()
}

/// The task set that a person wants rolled back, and why.
pub fn rollback(tags: &Tags) -> Option<(TaskSetId, String)> {
    let id = tags.get(ROLLBACK).map(|id| id.trim()).filter(|id| !id.is_empty())?;
    let reason = tags.get(ROLLBACK_REASON).map_or_else(unsaid, |reason| cut(reason, REASON_BYTES).to_string());
    Some((TaskSetId::new(id), reason))
}

/// Whether a person lifted the quarantine of this task definition (its ARN).
pub fn releases(tags: &Tags, task_definition: &str) -> bool {
    let version = task_definition.rsplit('/').next().unwrap_or(task_definition);
    tags.get(RELEASE).map(|released| released.trim()).is_some_and(|released| released == version || released == "all")
}

/// What a deployment allows the guardian to do to it: a version that migrated a schema can't be taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// The whole plan.
    #[default]
    Full,
    /// Shift the traffic; green is left for inspection.
    WeightsOnly,
    /// Call a person and change nothing.
    Page,
    /// Do not judge it at all.
    Off,
}

impl Contract {
    /// What a task set's tags say. A word that we do not know is taken for `page`: somebody wanted less than everything.
    pub fn of(tags: &Tags) -> Self {
        match tags.get(CONTRACT).map(|word| word.trim()) {
            None | Some("full") => Self::Full,
            Some("weights-only") => Self::WeightsOnly,
            Some("off") => Self::Off,
            Some(_) => Self::Page,
        }
    }

    /// As written in the tag.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::WeightsOnly => "weights-only",
            Self::Page => "page",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_hold_ends_at_its_time_and_an_unreadable_one_does_not() {
        let held = tags(&[(HOLD_UNTIL, "1970-01-01T00:01:00Z"), (HOLD_REASON, "migration")]);
        let at = Timestamp::from_millis;
        assert_eq!(hold(&held, at(59_999)).map(|hold| hold.reason), Some("migration".to_owned()));
        assert_eq!(hold(&held, at(60_000)), None);
        let wrong = hold(&tags(&[(HOLD_UNTIL, "tomorrow")]), at(0));
        assert!(wrong.is_some_and(|hold| hold.until.is_none() && hold.reason.contains("tomorrow")));
        assert_eq!(hold(&tags(&[]), at(0)), None);
    }

    #[test]
    fn a_contract_that_nobody_knows_pages() {
        assert_eq!(Contract::of(&tags(&[])), Contract::Full);
        for contract in [Contract::Full, Contract::WeightsOnly, Contract::Page, Contract::Off] {
            assert_eq!(Contract::of(&tags(&[(CONTRACT, contract.as_str())])), contract);
        }
        assert_eq!(Contract::of(&tags(&[(CONTRACT, "weight-only")])), Contract::Page);
    }

    #[test]
    fn a_release_names_one_version_or_all() {
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task-definition/web:7";
        assert!(releases(&tags(&[(RELEASE, "web:7")]), arn) && releases(&tags(&[(RELEASE, "all")]), arn));
        assert!(!releases(&tags(&[(RELEASE, "web:71")]), arn) && !releases(&tags(&[]), arn));
    }
}
