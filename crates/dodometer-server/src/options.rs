//! What a meter can be told, with every default in one place.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::faults::{Fault, MAX_FAULTS};
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
    /// The API keys that are taken. Default: none listed, so that any non-empty key is taken, of requests
    /// whose `Host` names this machine. A key is of visible ASCII characters. All keys belong to one
    /// business and see the same data.
    pub keys: Vec<String>,
    /// The largest request body taken, in bytes; a larger one is answered with 413.
    /// Default: [`DEFAULT_MAX_BODY_BYTES`].
    pub max_body_bytes: usize,
    /// The customers that exist; an event of another refuses its request. Default: `None`, every
    /// customer exists.
    pub customers: Option<HashSet<String>>,
    /// How a request with an event of no customer is refused. Default: with 400.
    pub unknown_customer: UnknownCustomer,
    /// Whether `ingested_count` counts events that are ignored because their id is known. Default:
    /// no, only what is new.
    pub count_known_ids: bool,
    /// How long an id is remembered; an event that comes after that counts once more. Default:
    /// `None`, for ever.
    pub remember_ids: Option<Duration>,
    /// Whether an event with a known id is ignored whatever its age. Default: no, its age is
    /// checked first, and one that is too old refuses its request.
    pub id_before_age: bool,
    /// How many requests of a key are answered; more get 429. Default: `None`, any number.
    /// [`RateLimit::default`] is what the billing API publishes.
    pub rate_limit: Option<RateLimit>,
    /// What goes wrong on purpose, from the start. Default: nothing.
    pub faults: Vec<Fault>,
    /// What the chances of faults are drawn from; the same seed draws the same. Default: 0.
    pub fault_seed: u64,
}

/// The status that refuses a request with an event of an unknown customer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownCustomer {
    /// 400
    #[default]
    BadRequest,
    /// 404
    NotFound,
    /// 422
    Unprocessable,
}

/// How many requests of one API key are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// In any 60 seconds. Default: 100.
    pub per_minute: u32,
    /// In any second. Default: 10.
    pub per_second: u32,
}

impl RateLimit {
    /// What the billing API publishes.
    pub(crate) const PUBLISHED: Self = Self { per_minute: 100, per_second: 10 };
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::PUBLISHED
    }
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
        Self {
            data: Data::Memory,
            keys: Vec::new(),
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            customers: None,
            unknown_customer: UnknownCustomer::default(),
            count_known_ids: false,
            remember_ids: None,
            id_before_age: false,
            rate_limit: None,
            faults: Vec::new(),
            fault_seed: 0,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data", &self.data)
            .field("keys", &format_args!("[{} not shown]", self.keys.len()))
            .field("max_body_bytes", &self.max_body_bytes)
            .field("customers", &self.customers.as_ref().map(HashSet::len))
            .field("unknown_customer", &self.unknown_customer)
            .field("count_known_ids", &self.count_known_ids)
            .field("remember_ids", &self.remember_ids)
            .field("id_before_age", &self.id_before_age)
            .field("rate_limit", &self.rate_limit)
            .field("faults", &self.faults)
            .field("fault_seed", &self.fault_seed)
            .finish()
    }
}

impl Options {
    /// Whether a meter can be opened with these options, as far as they say by themselves.
    /// [`Meter::open`](crate::Meter::open) checks it too.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |message: &str| Err(Error::new(ErrorKind::Configuration, message));
        if matches!(&self.data, Data::File(path) if path.as_os_str().is_empty()) {
            return refuse("the data file must have a name");
        }
        if self.keys.iter().any(|key| key.trim() != key || key.is_empty()) {
            return refuse("an API key must not be empty, nor begin or end with a space");
        }
        // No HTTP header could carry it.
        if self.keys.iter().any(|key| key.bytes().any(|byte| !(b' '..=b'~').contains(&byte))) {
            return refuse("an API key must be of visible ASCII characters");
        }
        if self.max_body_bytes == 0 {
            return refuse("max_body_bytes must be at least 1");
        }
        if self.rate_limit.is_some_and(|limit| limit.per_minute == 0 || limit.per_second == 0) {
            return refuse("a rate limit must let at least one request through");
        }
        if self.faults.len() > MAX_FAULTS {
            return refuse(&format!("too many faults: give at most {MAX_FAULTS}"));
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

    /// Whether none are listed, so that any is taken.
    pub(crate) fn are_any(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that the value of an `Authorization` header carries, if it is taken.
    pub(crate) fn admit<'a>(&self, authorization: Option<&'a str>) -> Option<&'a str> {
        let (scheme, key) = authorization?.split_once(' ')?;
        let key = key.trim();
        let admitted = scheme.eq_ignore_ascii_case("bearer")
            && !key.is_empty()
            && (self.are_any() || self.0.iter().any(|known| same(known, key)));
        admitted.then_some(key)
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
            assert_eq!(any.admit(header).is_some(), by_any, "{header:?}");
            assert_eq!(listed.admit(header).is_some(), by_list, "{header:?}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused_and_keys_are_not_shown() {
        let options = Options { keys: vec!["secret".into()], ..Options::default() };
        assert!(options.validate().is_ok());
        assert!(!format!("{options:?}").contains("secret"));
        for bad in [
            Options { data: Data::File("".into()), ..Options::default() },
            Options { keys: vec![String::new()], ..Options::default() },
            Options { keys: vec![" k".into()], ..Options::default() },
            Options { keys: vec!["k".into(), "clé".into()], ..Options::default() },
            Options { keys: vec!["a\nb".into()], ..Options::default() },
            Options { max_body_bytes: 0, ..Options::default() },
            Options {
                rate_limit: Some(RateLimit { per_minute: 100, per_second: 0 }),
                ..Options::default()
            },
        ] {
            assert_eq!(bad.validate().unwrap_err().kind(), ErrorKind::Configuration);
        }
    }
}
