//! How a call to AWS can fail, in the few classes on which behaviour depends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to do about a failed call. Decided by wire code, then by HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Rate exceeded: try again later, and slower.
    Throttled,
    /// 5xx, time-out, connection lost: the call may or may not have been applied.
    Transient,
    /// No permission: no retry helps, a person must act.
    Denied,
    /// The thing named does not exist (any more).
    NotFound,
    /// AWS refuses the request itself; sending it again changes nothing.
    Rejected,
}

impl ErrorClass {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
        }
    }

    /// All of them, for closed label sets.
    pub const ALL: [Self; 5] = [Self::Throttled, Self::Transient, Self::Denied, Self::NotFound, Self::Rejected];
}

/// One failed call: which, what AWS said, and what it means for us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct CallError {
    /// What the caller can do about it.
    pub class: ErrorClass,
    /// As in `ecs:DeleteTaskSet`.
    pub operation: String,
    /// AWS's wire code, when it sent one.
    pub code: Option<String>,
    /// AWS's message, or the transport's.
    pub message: String,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, operation, code, message } = self;
        write!(f, "{operation} failed ({}", class.as_str())?;
        if let Some(code) = code {
            write!(f, ", {code}")?;
        }
        write!(f, "): {message}")
    }
}
