//! From an HTTP request to the service that it is for, and back: which protocol it speaks, and answers in its shape.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::input::Members;
use super::shared::Shared;
use super::{Timed, cloudwatch, ecs, elb, events, form, sqs, tagging, unknown_operation};
use crate::sandbox::api::ApiError;

/// A request's service and operation, by protocol.
enum Request<'a> {
    /// awsJson 1.0 and 1.1.
    Json { target: &'a str },
    /// awsQuery: the operation is in the form.
    Query,
    /// Smithy RPC v2 CBOR.
    Cbor { operation: &'a str },
}

/// An answer before it is HTTP.
struct Answer {
    content_type: &'static str,
    body: Vec<u8>,
    /// The error, and the code that the older query protocol had for it.
    error: Option<(ApiError, Option<String>)>,
}

/// Answers any request.
pub(super) async fn answer<B: Timed>(
    State(shared): State<Arc<Shared<B>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    shared.travel().await;
    let request_id = shared.request_id();
    let body = body.map_err(|rejection| ApiError {
        code: "RequestEntityTooLarge".to_owned(),
        message: rejection.body_text(),
        status: rejection.status().as_u16(),
    });
    let answer = match Request::of(&uri, &headers) {
        Request::Json { target } => json(target, body, &request_id, &shared).await,
        Request::Query => query(body, &request_id, &shared),
        Request::Cbor { operation } => cbor(operation, body, &shared),
    };
    answer.into_response(&request_id)
}

impl<'a> Request<'a> {
    fn of(uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        if let Some(operation) = uri.path().strip_prefix(cloudwatch::PATH) {
            return Self::Cbor { operation };
        }
        // The target outranks the content type, which curl sets to a form unless told otherwise.
        let target = header("x-amz-target");
        if target.is_empty() && header("content-type").starts_with("application/x-www-form-urlencoded") {
            return Self::Query;
        }
        Self::Json { target }
    }
}

async fn json<B: Timed>(target: &str, body: Result<Bytes, ApiError>, request_id: &str, shared: &Shared<B>) -> Answer {
    let (service, operation) = target.rsplit_once('.').unwrap_or_default();
    let read = |dialect| body.and_then(|body| Members::from_json(&body, dialect));
    let call = |call| shared.call(call);
    let result = match service {
        ecs::TARGET => read(ecs::DIALECT).and_then(|input| ecs::answer(operation, input, call)),
        tagging::TARGET => read(tagging::DIALECT).and_then(|input| tagging::answer(operation, input, call)),
        events::TARGET => read(events::DIALECT).and_then(|input| events::answer(operation, input, request_id, call)),
        sqs::TARGET => match read(sqs::DIALECT) {
            Ok(input) => sqs::answer(operation, input, shared).await,
            Err(error) => Err(error),
        },
        cloudwatch::TARGET => read(cloudwatch::DIALECT)
            .and_then(|input| cloudwatch::answer(operation, input, call))
            .map(cloudwatch::to_json),
        _ => Err(unknown_operation(target)),
    };
    // Services that once spoke the query protocol: JSON 1.0, and errors with their older code.
    let once_query = matches!(service, sqs::TARGET | cloudwatch::TARGET);
    let content_type = if once_query { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" };
    match result {
        Ok(value) => Answer { content_type, body: value.to_string().into_bytes(), error: None },
        Err(error) => {
            let (code, query_code) = match service {
                sqs::TARGET => sqs::error_names(&error.code),
                _ => (error.code.clone(), error.code.clone()),
            };
            let body: Value = json!({ "__type": code, "message": error.message });
            let error = Some((error, once_query.then_some(query_code)));
            Answer { content_type, body: body.to_string().into_bytes(), error }
        }
    }
}

fn query<B: Timed>(body: Result<Bytes, ApiError>, request_id: &str, shared: &Shared<B>) -> Answer {
    let result = body.and_then(|body| form::read(&body)).and_then(|form| {
        let mut input = Members::new(form, elb::DIALECT);
        let operation = input.text("Action")?;
        input.ignore(&["Version"]);
        elb::answer(&operation, input, request_id, |call| shared.call(call))
    });
    let content_type = "text/xml";
    match result {
        Ok(document) => Answer { content_type, body: document.into_bytes(), error: None },
        Err(error) => {
            Answer { content_type, body: elb::error(&error, request_id).into_bytes(), error: Some((error, None)) }
        }
    }
}

fn cbor<B: Timed>(operation: &str, body: Result<Bytes, ApiError>, shared: &Shared<B>) -> Answer {
    let result = body
        .and_then(|body| cloudwatch::read(&body))
        .and_then(|input| cloudwatch::answer(operation, input, |call| shared.call(call)));
    let content_type = "application/cbor";
    match result {
        Ok(value) => Answer { content_type, body: cloudwatch::write(&value), error: None },
        Err(error) => {
            let query_code = Some(error.code.clone());
            Answer {
                content_type,
                body: cloudwatch::write(&cloudwatch::error(&error)),
                error: Some((error, query_code)),
            }
        }
    }
}

impl Answer {
    fn into_response(self, request_id: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if self.content_type == "application/cbor" {
            headers.insert(HeaderName::from_static("smithy-protocol"), HeaderValue::from_static("rpc-v2-cbor"));
        }
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
        }
        if let Some((error, query_code)) = self.error {
            let fault = if error.status < 500 { "Sender" } else { "Receiver" };
            let query_error = query_code.and_then(|code| HeaderValue::from_str(&format!("{code};{fault}")).ok());
            if let Some(value) = query_error {
                headers.insert(HeaderName::from_static("x-amzn-query-error"), value);
            }
            // A backend's error must not pass for success, whatever status it has.
            let status =
                StatusCode::from_u16(error.status).ok().filter(|it| it.is_client_error() || it.is_server_error());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            *response.status_mut() = status;
        }
        response
    }
}
