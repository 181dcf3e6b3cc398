//! The one error type, and the list of kinds that every language binding maps one to one.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A result whose error is [`Error`](struct@Error).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stands in the place of a secret.
pub(crate) const HIDDEN: &str = "•••";
/// What is shorter is no secret, and may be part of any text.
pub(crate) const LEAST_SECRET_BYTES: usize = 8;

macro_rules! error_kinds {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// What went wrong, as a stable name. Every language has exactly this list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])+ $variant,)+ }

        impl ErrorKind {
            /// Every kind, in the order in which it is documented.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The kind's stable name, the same in every language.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

error_kinds! {
    /// An option is missing, unknown or out of range, or conflicts with another client's in this process.
    Configuration = "configuration",
    /// A call breaks a published limit of the billing API. Nothing was accepted.
    Validation = "validation",
    /// The billing API does not take the API key. Accepted calls wait in the spool for one that it takes.
    Authentication = "authentication",
    /// The billing API refused this call. It is kept among the dead letters with the API's words.
    Rejected = "rejected",
    /// The billing API takes no request as large as this one call. It is kept among the dead letters.
    TooLarge = "too_large",
    /// The spool holds as much as `max_spool_bytes` allows. Nothing was accepted.
    Overflow = "overflow",
    /// The spool could not be written or read.
    Storage = "storage",
    /// The time given was over before the work was. Accepted calls stay in the spool.
    Timeout = "timeout",
    /// The billing API could not be reached, or answered what it never answers.
    Network = "network",
    /// The client was closed. What is handed over after that is not accepted; a call that was accepted
    /// before stays spooled, and the next sender delivers it.
    Closed = "closed",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed: a stable [`kind`](Error::kind), and a message that names the field,
/// the limit and the way out. Cheap to clone; never holds the API key.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    field: Option<String>,
    status: Option<u16>,
    may_be_billed: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            field: None,
            status: None,
            may_be_billed: false,
            source: None,
        }))
    }

    pub(crate) fn configuration(field: &str, message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Configuration, format!("{field}: {message}")).with_field(field)
    }

    pub(crate) fn validation(field: impl Into<String>, message: impl fmt::Display) -> Self {
        let field = field.into();
        let message = format!("{}: {message}", one_line(&field));
        Self::new(ErrorKind::Validation, message).with_field(field)
    }

    pub(crate) fn storage(message: impl fmt::Display, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Storage, format!("{message}: {source}")).with_source(source)
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the client is closed; build a new one to go on tracking")
    }

    fn map(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    pub(crate) fn with_field(self, field: impl Into<String>) -> Self {
        self.map(|inner| inner.field = Some(field.into()))
    }

    /// What is wrong with a call, as what is wrong with an option.
    pub(crate) fn of_configuration(self) -> Self {
        self.map(|inner| inner.kind = ErrorKind::Configuration)
    }

    /// The same error, whose message names its field by another text.
    pub(crate) fn named(self, field: &str, text: &str) -> Self {
        let prefix = format!("{field}: ");
        self.map(|inner| {
            if let Some(what) = inner.message.strip_prefix(&prefix) {
                inner.message = format!("{text}: {what}");
            }
        })
    }

    /// With dots wherever the message repeats a secret.
    pub(crate) fn without(self, secret: &str) -> Self {
        if secret.len() < LEAST_SECRET_BYTES || !self.0.message.contains(secret) {
            return self;
        }
        self.map(|inner| inner.message = inner.message.replace(secret, HIDDEN))
    }

    pub(crate) fn with_status(self, status: Option<u16>) -> Self {
        self.map(|inner| inner.status = status)
    }

    pub(crate) fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.map(|inner| inner.source = Some(Arc::new(source)))
    }

    pub(crate) fn and_may_be_billed(self) -> Self {
        self.map(|inner| inner.may_be_billed = true)
    }

    /// What went wrong, as a stable name.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, for a person: the field, the limit, what was given and the way out.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The option or the part of the call at fault, such as `customer_id` or `metadata.region`.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The HTTP status of the billing API's refusal, where there was one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Whether the call may be billed though this error was returned: the record was written, but
    /// could not be synced, or a request went unanswered before the call was given up, or the call
    /// stays spooled. A caller that tries again should pass the same `event_id`.
    pub fn may_be_billed(&self) -> bool {
        self.0.may_be_billed
    }
}

/// Characters that break a line or turn its direction escaped: another's text cannot forge a line of a
/// log.
pub(crate) fn one_line(text: &str) -> String {
    on_one_line(text).collect()
}

/// The same, character by character.
pub(crate) fn on_one_line(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(|c| {
        let (escaped, plain) = match c {
            c if c.is_control() => (Some(c.escape_default()), None),
            // Separators of lines and paragraphs, and what turns the direction of text.
            '\u{2028}'
            | '\u{2029}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => (Some(c.escape_default()), None),
            c => (None, Some(c)),
        };
        escaped.into_iter().flatten().chain(plain)
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, field, status, may_be_billed, source } = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("kind", kind).field("message", message);
        if let Some(field) = field {
            debug.field("field", field);
        }
        if let Some(status) = status {
            debug.field("status", status);
        }
        if *may_be_billed {
            debug.field("may_be_billed", may_be_billed);
        }
        if let Some(source) = source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn an_error_tells_field_status_and_source() {
        let error = Error::storage("spool", std::io::Error::other("no space"))
            .with_field("spool_dir")
            .with_status(Some(507))
            .and_may_be_billed();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert_eq!(error.to_string(), "spool: no space");
        assert_eq!(error.field(), Some("spool_dir"));
        assert_eq!(error.status(), Some(507));
        assert!(error.may_be_billed());
        assert!(error.source().is_some());
    }
}
