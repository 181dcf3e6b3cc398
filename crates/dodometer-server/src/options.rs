//! What a meter can be told, with every default in one place.

use std::fmt;
use std::path::PathBuf;

use crate::{Error, ErrorKind};

/// The largest request body taken unless [`Options::max_body_bytes`] says otherwise: 1 MiB.
pub const DEFAULT_MAX_BODY_BYTES: usize = 1024 * 1024;

/// How a [`Meter`](crate::Meter) is opened.
///
/// ```
/// use dodometer_server::{Data, Options};
///
/// let options = Options { data: Data::File("meter.db".into()), ..Options::default() };
/// assert!(options.keys.is_empty(), "any key is taken unless keys are listed");
/// ```
#[derive(Clone)]
pub struct Options {
    /// Where events and meters are kept. Default: in memory.
    pub data: Data,
    /// The API keys that are taken. Default: none listed, so that any non-empty key is taken.
    /// All keys belong to one business and see the same data.
    pub keys: Vec<String>,
    /// The largest request body taken, in bytes; a larger one is answered with 413.
    /// Default: [`DEFAULT_MAX_BODY_BYTES`].
    pub max_body_bytes: usize,
}

/// Where a meter keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In memory: gone with the last handle of the meter.
    Memory,
    /// In an SQLite file, made if it is missing. One meter at a time may hold a file.
    File(PathBuf),
}

impl Default for Options {
    fn default() -> Self {
        Self { data: Data::Memory, keys: Vec::new(), max_body_bytes: DEFAULT_MAX_BODY_BYTES }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data", &self.data)
            .field("keys", &format_args!("[{} not shown]", self.keys.len()))
            .field("max_body_bytes", &self.max_body_bytes)
            .finish()
    }
}

impl Options {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |message: &str| Err(Error::new(ErrorKind::Configuration, message));
        if self.keys.iter().any(|key| key.trim() != key || key.is_empty()) {
            return refuse("an API key must not be empty, nor begin or end with a space");
        }
        if self.max_body_bytes == 0 {
            return refuse("max_body_bytes must be at least 1");
        }
        Ok(())
    }
}

/// The keys that a request may carry.
pub(crate) struct Keys(Vec<String>);

impl Keys {
    pub(crate) fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    /// Whether the value of an `Authorization` header carries a key that is taken.
    pub(crate) fn admit(&self, authorization: Option<&str>) -> bool {
        let Some((scheme, key)) = authorization.and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let key = key.trim();
        scheme.eq_ignore_ascii_case("bearer")
            && !key.is_empty()
            && (self.0.is_empty() || self.0.iter().any(|known| same(known, key)))
    }
}

/// Equality that takes as long for a near miss as for a far one.
fn same(known: &str, given: &str) -> bool {
    known.len() == given.len()
        && known.bytes().zip(given.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_admitted_by_the_list() {
        let any = Keys::new(vec![]);
        let listed = Keys::new(vec!["k_1".into(), "k_2".into()]);
        for (header, by_any, by_list) in [
            (None, false, false),
            (Some(""), false, false),
            (Some("Bearer"), false, false),
            (Some("Bearer "), false, false),
            (Some("Basic k_1"), false, false),
            (Some("k_1"), false, false),
            (Some("Bearer k_1"), true, true),
            (Some("bearer k_2"), true, true),
            (Some("Bearer k_3"), true, false),
            (Some("Bearer K_1"), true, false),
        ] {
            assert_eq!(any.admit(header), by_any, "{header:?}");
            assert_eq!(listed.admit(header), by_list, "{header:?}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused_and_keys_are_not_shown() {
        let options = Options { keys: vec!["secret".into()], ..Options::default() };
        assert!(options.validate().is_ok());
        assert!(!format!("{options:?}").contains("secret"));
        for bad in [
            Options { keys: vec![String::new()], ..Options::default() },
            Options { keys: vec![" k".into()], ..Options::default() },
            Options { max_body_bytes: 0, ..Options::default() },
        ] {
            assert_eq!(bad.validate().unwrap_err().kind(), ErrorKind::Configuration);
        }
    }
}
