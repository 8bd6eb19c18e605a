//! How a call to AWS can fail, in the few classes on which behaviour depends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Codes that ask for a slower pace. `LimitExceededException` is not one: ECS uses it for real quotas.
const THROTTLED: [&str; 15] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "KmsThrottled",
    "OverLimit",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    // Of a DynamoDB transaction, when the reason is not that a row is another than expected: load or a conflict.
    "TransactionCanceledException",
];

/// Codes of failures on AWS's side, whatever the HTTP status. Nobody knows whether the call was applied.
const TRANSIENT: [&str; 10] = [
    "HealthUnavailable",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServiceError",
    "InternalServiceFault",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServerException",
    "ServiceUnavailable",
];

/// Codes of missing, wrong or expired permission, next to all that begin with `AccessDenied` or `NotAuthorized`.
const DENIED: [&str; 13] = [
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "KmsAccessDenied",
    "MissingAuthenticationToken",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
];

/// Codes for "does not exist", next to all that end with `NotFound` or `NotFoundException`. A service that is not
/// active has been deleted, and its task sets with it.
const NOT_FOUND: [&str; 3] = ["QueueDoesNotExist", "NonExistentQueue", "ServiceNotActiveException"];

/// What a local ECS emulator (moto) says, under the code `ClientException`, where ECS says `TaskSetNotFoundException`.
const NO_TASK_SET: &str = "The specified task set does not exist.";

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

    /// The class of an error by what AWS sent: wire code first, HTTP status second. An HTML page of a proxy or load
    /// balancer has no code.
    pub fn of(code: Option<&str>, message: &str, status: Option<u16>) -> Self {
        // As in `AWS.SimpleQueueService.NonExistentQueue`, `com.amazonaws.sqs#QueueDoesNotExist`, `KMS.ThrottlingException`.
        let last_part = code.and_then(|code| code.rsplit(['#', '.']).next());
        if let Some(class) = last_part.and_then(|code| class_of_code(code, message)) {
            return class;
        }
        match (status, code) {
            (Some(429), _) => ErrorClass::Throttled,
            (Some(401 | 403), None) => ErrorClass::Denied,
            // Success without a code: the answer could not be read.
            (Some(408 | 500..), _) | (Some(200..300), None) => ErrorClass::Transient,
            // 404 too: without a code some proxy said so, and "does not exist" is a word to act on.
            _ => ErrorClass::Rejected,
        }
    }
}

fn class_of_code(code: &str, message: &str) -> Option<ErrorClass> {
    if THROTTLED.contains(&code) {
        Some(ErrorClass::Throttled)
    } else if TRANSIENT.contains(&code) {
        Some(ErrorClass::Transient)
    } else if DENIED.contains(&code) || code.starts_with("AccessDenied") || code.starts_with("NotAuthorized") {
        Some(ErrorClass::Denied)
    } else if NOT_FOUND.contains(&code)
        || code.ends_with("NotFound")
        || code.ends_with("NotFoundException")
        || (code == "ClientException" && message == NO_TASK_SET)
    {
        Some(ErrorClass::NotFound)
    } else {
        None
    }
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
