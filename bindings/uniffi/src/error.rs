//! The core's error on its way across the boundary.

use std::fmt;

use dodo_ingestion::{Error, ErrorKind};

/// What went wrong. The hand-written side makes it an exception of its kind.
#[derive(Debug, uniffi::Error)]
pub enum Failure {
    /// An error of the core.
    Core {
        /// The kind's stable name.
        kind: String,
        /// The error in words.
        reason: String,
        /// The option or the part of the event that is to blame.
        field: Option<String>,
        /// The billing API's HTTP status, if it answered.
        status: Option<u16>,
        /// Whether the call may be billed in spite of the error.
        may_be_billed: bool,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Core { reason, .. } = self;
        f.write_str(reason)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core {
            kind: error.kind().as_str().to_owned(),
            reason: error.message().to_owned(),
            field: error.field().map(str::to_owned),
            status: error.status(),
            may_be_billed: error.may_be_billed(),
        }
    }
}

/// The kinds that the core may report, in its order.
#[uniffi::export]
pub fn error_kinds() -> Vec<String> {
    ErrorKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect()
}
