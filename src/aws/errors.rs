//! What a failed call means: its class, by wire code first and HTTP status second.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::calls::Operation;
use crate::model::{CallError, ErrorClass};

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

/// What the SDK says when no provider had credentials, as opposed to not reaching one that has.
const NO_CREDENTIALS: &str = "no credentials found in chain";

/// The class of an error by what AWS sent. An HTML page of a proxy or load balancer has no code.
pub(super) fn class_of(code: Option<&str>, message: &str, status: Option<u16>) -> ErrorClass {
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

/// An SDK error in the domain's words.
pub(super) fn classify<E>(operation: Operation, error: &SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let (class, code, message) = match error {
        SdkError::ServiceError(service) => {
            let metadata = service.err().meta();
            let message = metadata.message().unwrap_or_default();
            let class = class_of(metadata.code(), message, status);
            let message = match (message, status) {
                ("", Some(status)) => format!("HTTP {status}"),
                (message, _) => message.to_owned(),
            };
            (class, metadata.code().map(str::to_owned), message)
        }
        SdkError::ResponseError(_) => (class_of(None, "", status), None, chain(error)),
        // The request could not even be built: no Region, or an argument that the SDK refuses.
        SdkError::ConstructionFailure(_) => (ErrorClass::Rejected, None, chain(error)),
        // Time-outs, lost connections, and credentials: the SDK resolves them on the way out.
        _ => {
            let message = chain(error);
            let denied = message.contains(NO_CREDENTIALS);
            (if denied { ErrorClass::Denied } else { ErrorClass::Transient }, None, message)
        }
    };
    CallError { class, operation: operation.to_string(), code, message }
}

/// The error and all its causes, in one line: the SDK's outer words ("dispatch failure") say nothing alone.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use aws_sdk_ecs::operation::delete_task_set::DeleteTaskSetError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    const DELETE: Operation = Operation::new("ecs", "DeleteTaskSet");

    fn response(status: u16) -> HttpResponse {
        HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from("<html>"))
    }

    #[test]
    fn the_wire_code_decides_before_the_http_status() {
        let table = [
            ("ThrottlingException", 400, ErrorClass::Throttled),
            ("Throttling", 400, ErrorClass::Throttled),
            ("RequestThrottled", 400, ErrorClass::Throttled),
            ("PriorRequestNotComplete", 429, ErrorClass::Throttled),
            ("KMS.ThrottlingException", 400, ErrorClass::Throttled),
            ("OverLimit", 403, ErrorClass::Throttled),
            ("ServerException", 500, ErrorClass::Transient),
            ("RequestTimeout", 400, ErrorClass::Transient),
            ("ServiceUnavailable", 503, ErrorClass::Transient),
            ("SomethingNew", 500, ErrorClass::Transient),
            ("AccessDenied", 403, ErrorClass::Denied),
            ("AccessDeniedException", 400, ErrorClass::Denied),
            ("UnauthorizedOperation", 403, ErrorClass::Denied),
            ("ExpiredToken", 400, ErrorClass::Denied),
            ("ExpiredTokenException", 400, ErrorClass::Denied),
            ("NotAuthorizedForSourceException", 200, ErrorClass::Denied),
            ("TaskSetNotFoundException", 400, ErrorClass::NotFound),
            ("ServiceNotFoundException", 400, ErrorClass::NotFound),
            ("ClusterNotFoundException", 400, ErrorClass::NotFound),
            ("RuleNotFound", 400, ErrorClass::NotFound),
            ("TargetGroupNotFound", 400, ErrorClass::NotFound),
            ("AWS.SimpleQueueService.NonExistentQueue", 400, ErrorClass::NotFound),
            ("com.amazonaws.sqs#QueueDoesNotExist", 400, ErrorClass::NotFound),
            ("LimitExceededException", 400, ErrorClass::Rejected),
            ("InvalidParameterException", 400, ErrorClass::Rejected),
            ("InvalidLoadBalancerAction", 400, ErrorClass::Rejected),
            ("OperationNotPermitted", 400, ErrorClass::Rejected),
            ("SomethingNew", 400, ErrorClass::Rejected),
        ];
        for (code, status, expected) in table {
            assert_eq!(class_of(Some(code), "", Some(status)), expected, "{code} with HTTP {status}");
        }
    }

    #[test]
    fn without_a_code_the_http_status_decides_and_404_is_not_proof_of_absence() {
        let table = [
            (500, ErrorClass::Transient),
            (502, ErrorClass::Transient),
            (429, ErrorClass::Throttled),
            (403, ErrorClass::Denied),
            (404, ErrorClass::Rejected),
            (400, ErrorClass::Rejected),
            (200, ErrorClass::Transient),
        ];
        for (status, expected) in table {
            assert_eq!(class_of(None, "", Some(status)), expected, "HTTP {status}");
        }
    }

    #[test]
    fn a_missing_task_set_is_known_by_its_sentence_too() {
        assert_eq!(class_of(Some("ClientException"), NO_TASK_SET, Some(400)), ErrorClass::NotFound);
        assert_eq!(class_of(Some("ClientException"), "Bad cluster", Some(400)), ErrorClass::Rejected);
    }

    #[test]
    fn an_html_page_with_status_500_is_transient() {
        let unhandled = DeleteTaskSetError::generic(ErrorMetadata::builder().build());
        let error = classify(DELETE, &SdkError::service_error(unhandled, response(500)));
        assert_eq!((error.class, error.code), (ErrorClass::Transient, None));
        assert_eq!(error.message, "HTTP 500");
        assert_eq!(error.operation, "ecs:DeleteTaskSet");
    }

    #[test]
    fn what_the_transport_says_is_transient_and_keeps_its_cause() {
        let cut = ConnectorError::io("connection reset by peer".into());
        let error = classify::<DeleteTaskSetError>(DELETE, &SdkError::dispatch_failure(cut));
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("connection reset by peer"), "{}", error.message);
        let error = classify::<DeleteTaskSetError>(DELETE, &SdkError::timeout_error("5s"));
        assert_eq!(error.class, ErrorClass::Transient);
    }

    #[test]
    fn missing_credentials_are_denied() {
        let none = ConnectorError::other("no credentials found in chain. Attempted:\n  Environment".into(), None);
        let error = classify::<DeleteTaskSetError>(DELETE, &SdkError::dispatch_failure(none));
        assert_eq!(error.class, ErrorClass::Denied);
        assert!(error.message.ends_with("Attempted: Environment"), "one line: {}", error.message);
    }
}
