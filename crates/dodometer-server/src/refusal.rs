//! A refused request, in the billing API's own form: a status and `{"code", "message"}`.
//!
//! Every answer of this server that is not a success is made here, so the form cannot differ from
//! one route to another.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::UnknownCustomer;

/// The result of anything that a request asks for.
pub(crate) type Answer<T> = Result<T, Refusal>;

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_seconds: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_seconds: None }
    }

    /// 400: the body has the right shape and a value that breaks a rule.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST_PARAMETERS", message)
    }

    /// An event of nobody; the billing API does not publish the status.
    pub(crate) fn unknown_customer(how: UnknownCustomer, message: impl Into<String>) -> Self {
        match how {
            UnknownCustomer::BadRequest => Self::invalid(message),
            UnknownCustomer::NotFound => Self::not_found(message),
            UnknownCustomer::Unprocessable => Self::body(message),
        }
    }

    /// 429.
    pub(crate) fn too_many(room_after: Duration) -> Self {
        let refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOO_MANY_REQUESTS",
            "the rate limit of this API key is reached",
        );
        // Whole seconds, and never before there is room.
        let seconds = room_after.as_secs() + u64::from(room_after.subsec_nanos() > 0);
        Self { retry_after_seconds: Some(seconds.max(1)), ..refusal }
    }

    /// 429: of ours, not of the billing API's.
    pub(crate) fn crowded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", message)
    }

    /// 409: right by itself, and not beside what there is.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "CONFLICT", message)
    }

    /// 422: malformed JSON, or JSON of another shape.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST_BODY", message)
    }

    /// 422: a path that cannot be an id.
    pub(crate) fn path(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST_PARAMETERS", message)
    }

    /// 400: the query string.
    pub(crate) fn query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_QUERY_PARAMS", message)
    }

    /// 401: no key, or not one of ours.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "missing or invalid API key")
    }

    /// 403: a page or a tool for this machine was asked for from elsewhere.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 405.
    pub(crate) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "this address does not take that method",
        )
    }

    /// 408.
    pub(crate) fn too_slow(limit: Duration) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            format!("the request body did not come within {} seconds", limit.as_secs()),
        )
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PAYLOAD_TOO_LARGE",
            format!("the request body is larger than {limit} bytes"),
        )
    }

    /// What a fault answers with.
    pub(crate) fn asked_for(status: u16, retry_after_seconds: Option<u64>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = match status.as_u16() {
            400 => "INVALID_REQUEST_PARAMETERS",
            401 => "UNAUTHORIZED",
            403 => "FORBIDDEN",
            404 => "NOT_FOUND",
            413 => "PAYLOAD_TOO_LARGE",
            422 => "INVALID_REQUEST_BODY",
            429 => "TOO_MANY_REQUESTS",
            500 => "INTERNAL_SERVER_ERROR",
            503 => "SERVICE_UNAVAILABLE",
            _ => "FAULT",
        };
        let refusal = Self::new(status, code, "a fault that was asked for");
        Self { retry_after_seconds, ..refusal }
    }

    /// 415.
    pub(crate) fn compressed() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "a request body must not have a Content-Encoding",
        )
    }

    /// 500. The cause goes to the log, not to the caller.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_SERVER_ERROR",
            "the meter could not store or read its data; its log says why",
        )
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(cause: rusqlite::Error) -> Self {
        Self::internal(&cause)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            code: &'static str,
            message: String,
        }
        let status = self.status;
        let mut response =
            (status, Json(Body { code: self.code, message: self.message })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
