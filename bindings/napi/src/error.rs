//! The core's error as a JavaScript exception.
//!
//! It crosses as JSON in the message of an error with the code [`CODE`]; the TypeScript side makes
//! it an instance of the class of its kind.

use std::time::Duration;

use dodo_ingestion::{Error, ErrorKind};
use napi::Status;
use napi_derive::napi;
use serde_json::json;

/// Tells the core's errors from Node-API's own.
const CODE: &str = "DODO_INGESTION";

/// The code of a thrown error.
pub(crate) enum Code {
    Core,
    Node(Status),
}

impl AsRef<str> for Code {
    fn as_ref(&self) -> &str {
        match self {
            Self::Core => CODE,
            Self::Node(status) => status.as_ref(),
        }
    }
}

impl From<Status> for Code {
    fn from(status: Status) -> Self {
        Self::Node(status)
    }
}

pub(crate) type Result<T> = std::result::Result<T, napi::Error<Code>>;

pub(crate) fn thrown(error: &Error) -> napi::Error<Code> {
    let details = json!({
        "kind": error.kind().as_str(),
        "message": error.message(),
        "field": error.field(),
        "status": error.status(),
        "mayBeBilled": error.may_be_billed(),
    });
    napi::Error::new(Code::Core, details.to_string())
}

/// The error for a value that cannot be converted, and so never reached the core.
pub(crate) fn unconvertible(field: &str, message: &str) -> napi::Error<Code> {
    let details = json!({
        "kind": ErrorKind::Configuration.as_str(),
        "message": format!("{field}: {message}"),
        "field": field,
        "status": null,
        "mayBeBilled": false,
    });
    napi::Error::new(Code::Core, details.to_string())
}

/// Milliseconds, as JavaScript counts time.
pub(crate) fn duration(field: &str, milliseconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(|_| {
        unconvertible(field, &format!("{milliseconds} is not a number of milliseconds, at least 0"))
    })
}

/// The kinds that the core may report, in its order.
#[napi(catch_unwind)]
pub(crate) fn error_kinds() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect()
}
