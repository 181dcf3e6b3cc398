//! What a caller hands over: a call of a customer, with metadata.
//!
//! These types hold whatever they are given; [`crate::validate`] judges it when it is tracked.

mod customer;
mod json;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

pub use customer::customer_in_header;

macro_rules! keys {
    ($($(#[$doc:meta])+ $name:ident = $key:literal;)+) => {
        /// The metadata keys that this library writes, the same in every language.
        pub mod keys {
            $($(#[$doc])+ pub const $name: &str = $key;)+

            /// The same text, if it is one of them.
            pub(super) fn known(key: &str) -> Option<&'static str> {
                match key {
                    $($key => Some($key),)+
                    _ => None,
                }
            }
        }
    };
}
keys! {
    /// The route template of the call, such as `/v1/users/{id}`.
    ENDPOINT = "endpoint";
    /// The HTTP method.
    METHOD = "method";
    /// The HTTP status of the response.
    STATUS_CODE = "status_code";
    /// Milliseconds from the request to the end of the response.
    RESPONSE_TIME_MS = "response_time_ms";
    /// Milliseconds from the request to the first byte of the response's body.
    TTFB_MS = "ttfb_ms";
    /// The response body's size.
    RESPONSE_BYTES = "response_bytes";
    /// Whether the response came to no end, most often because the client went away.
    ABORTED = "aborted";
    /// How much this call counts, where calls cost unequally.
    UNITS = "units";
    /// The code of a gRPC call.
    GRPC_STATUS = "grpc_status";
    /// The call's own time, where it had to be billed at another.
    ORIGINAL_TIMESTAMP = "original_timestamp";
    /// Bytes stored or streamed.
    BYTES = "bytes";
    /// A time range's length in milliseconds.
    DURATION_MS = "durationMs";
    /// A time range's length in seconds.
    DURATION_SECONDS = "durationSeconds";
    /// A time range's length in minutes.
    DURATION_MINUTES = "durationMinutes";
}

/// A metadata value. The billing API takes text, 64-bit integers, doubles and booleans.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MetadataValue {
    /// Text of at most 500 characters.
    String(String),
    /// An integer; refused when it does not fit 64 bits.
    Integer(i128),
    /// A number; refused when it is not finite.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Something that the billing API does not take, by the name of its type. Always refused.
    Unsupported(String),
}

macro_rules! metadata_value_from {
    ($($from:ty => $variant:ident,)+) => {$(
        impl From<$from> for MetadataValue {
            fn from(value: $from) -> Self { Self::$variant(value.into()) }
        }
    )+};
}
metadata_value_from! {
    &str => String, String => String, bool => Boolean, f64 => Double,
    i8 => Integer, i16 => Integer, i32 => Integer, i64 => Integer, i128 => Integer,
    u8 => Integer, u16 => Integer, u32 => Integer, u64 => Integer,
}

// What a length is counted in fits 128 bits, and has no `Into` that says so.
impl From<usize> for MetadataValue {
    fn from(value: usize) -> Self {
        Self::Integer(value as i128)
    }
}

impl From<isize> for MetadataValue {
    fn from(value: isize) -> Self {
        Self::Integer(value as i128)
    }
}

/// A fraction is the number that it is written as: `0.1_f32` is billed as 0.1.
impl From<f32> for MetadataValue {
    fn from(value: f32) -> Self {
        let written = value.to_string().parse();
        // A large whole number is written with fewer digits than it has.
        Self::Double(written.ok().filter(|_| value.fract() != 0.0).unwrap_or(value.into()))
    }
}

/// Metadata pairs in the order in which they were first set; a key that is set again takes the
/// new value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metadata(Vec<(Cow<'static, str>, MetadataValue)>);

impl Metadata {
    pub(crate) fn set(&mut self, key: Cow<'static, str>, value: MetadataValue) {
        if self.0.capacity() == 0 {
            self.0 = Vec::with_capacity(8);
        }
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    pub(crate) fn pairs(&self) -> &[(Cow<'static, str>, MetadataValue)] {
        &self.0
    }
}

/// One billable event: a customer, what happened, when, and metadata.
#[expect(clippy::struct_field_names, reason = "the names of the billing API's own fields")]
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub(crate) customer_id: String,
    pub(crate) event_id: Option<String>,
    pub(crate) event_name: Option<String>,
    pub(crate) timestamp: Option<SystemTime>,
    pub(crate) metadata: Metadata,
}

impl Event {
    /// An event of this customer, now, by the client's event name.
    pub fn new(customer_id: impl Into<String>) -> Self {
        Self {
            customer_id: customer_id.into(),
            event_id: None,
            event_name: None,
            timestamp: None,
            metadata: Metadata::default(),
        }
    }

    /// The caller's own idempotency key: the billing API counts an id once, however often it comes.
    pub fn event_id(mut self, id: impl Into<String>) -> Self {
        self.event_id = Some(id.into());
        self
    }

    /// Another event name than the client's.
    pub fn event_name(mut self, name: impl Into<String>) -> Self {
        self.event_name = Some(name.into());
        self
    }

    /// When it happened: at most an hour ago, at most five minutes ahead.
    pub fn timestamp(mut self, time: SystemTime) -> Self {
        self.timestamp = Some(time);
        self
    }

    /// Sets one metadata pair.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<MetadataValue>) -> Self {
        self.metadata.set(Cow::Owned(key.into()), value.into());
        self
    }
}

/// Defines a kind of call: an [`Event`] with setters for the metadata that the kind is about.
macro_rules! event_kind {
    ($(#[$doc:meta])+ $name:ident { $($(#[$setter_doc:meta])+ $setter:ident: $type:ty => $key:expr, $convert:path;)* }) => {
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(Event);

        impl $name {
            /// One of this customer's, now.
            pub fn new(customer_id: impl Into<String>) -> Self {
                Self(Event::new(customer_id))
            }

            $($(#[$setter_doc])+
            #[inline]
            pub fn $setter(mut self, value: $type) -> Self {
                self.0.metadata.set(Cow::Borrowed($key), $convert(value));
                self
            })*

            /// The caller's own idempotency key. See [`Event::event_id`].
            pub fn event_id(self, id: impl Into<String>) -> Self {
                Self(self.0.event_id(id))
            }

            /// Another event name than the client's.
            pub fn event_name(self, name: impl Into<String>) -> Self {
                Self(self.0.event_name(name))
            }

            /// When it happened. See [`Event::timestamp`].
            pub fn timestamp(self, time: SystemTime) -> Self {
                Self(self.0.timestamp(time))
            }

            /// Sets one metadata pair of the caller's own.
            pub fn metadata(self, key: impl Into<String>, value: impl Into<MetadataValue>) -> Self {
                Self(self.0.metadata(key, value))
            }
        }

        impl From<$name> for Event {
            fn from(kind: $name) -> Self { kind.0 }
        }
    };
}

fn text(text: impl Into<String>) -> MetadataValue {
    MetadataValue::String(text.into())
}

fn milliseconds(duration: Duration) -> MetadataValue {
    // Microseconds are as fine as any gateway measures; more digits would only be noise.
    ((duration.as_secs_f64() * 1e6).round() / 1e3).into()
}

event_kind! {
    /// One API call.
    ApiCall {
        /// The route template, such as `/v1/users/{id}`, not the raw path.
        endpoint: impl Into<String> => keys::ENDPOINT, text;
        /// The HTTP method.
        method: impl Into<String> => keys::METHOD, text;
        /// The HTTP status of the response.
        status_code: u16 => keys::STATUS_CODE, MetadataValue::from;
        /// From the request to the end of the response.
        response_time: Duration => keys::RESPONSE_TIME_MS, milliseconds;
        /// From the request to the first byte of the response's body.
        ttfb: Duration => keys::TTFB_MS, milliseconds;
        /// The response body's size in bytes.
        response_bytes: u64 => keys::RESPONSE_BYTES, MetadataValue::from;
        /// Whether the response came to no end, most often because the client went away.
        aborted: bool => keys::ABORTED, MetadataValue::from;
        /// How much this call counts, where calls cost unequally.
        units: f64 => keys::UNITS, MetadataValue::from;
    }
}

event_kind! {
    /// Bytes put into or held in an object store.
    ObjectStorage {
        /// How many bytes.
        bytes: u64 => keys::BYTES, MetadataValue::from;
    }
}

event_kind! {
    /// Bytes streamed to a customer.
    StreamBytes {
        /// How many bytes.
        bytes: u64 => keys::BYTES, MetadataValue::from;
    }
}

event_kind! {
    /// A length of time that a customer used something.
    TimeRange {
        /// The length in milliseconds.
        duration_ms: f64 => keys::DURATION_MS, MetadataValue::from;
        /// The length in seconds.
        duration_seconds: f64 => keys::DURATION_SECONDS, MetadataValue::from;
        /// The length in minutes.
        duration_minutes: f64 => keys::DURATION_MINUTES, MetadataValue::from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_call_is_an_event_with_the_documented_keys() {
        let call = ApiCall::new("cus_1")
            .endpoint("/v1/users/{id}")
            .method("GET")
            .status_code(200)
            .response_time(Duration::from_micros(12_345))
            .units(2.0)
            .metadata("region", "eu")
            .metadata("region", "us");
        let expected = Event::new("cus_1")
            .metadata("endpoint", "/v1/users/{id}")
            .metadata("method", "GET")
            .metadata("status_code", 200)
            .metadata("response_time_ms", 12.345)
            .metadata("units", 2.0)
            .metadata("region", "us");
        assert_eq!(Event::from(call), expected);
    }

    #[test]
    fn a_length_is_an_integer() {
        assert_eq!(MetadataValue::from([1, 2].len()), MetadataValue::Integer(2));
        assert_eq!(MetadataValue::from(-2_isize), MetadataValue::Integer(-2));
    }

    #[test]
    fn a_single_means_the_digits_that_it_is_written_with() {
        for (single, double) in
            [(0.1_f32, 0.1), (-2.5, -2.5), (123_456_792.0, 123_456_792.0), (2.5e-7, 2.5e-7)]
        {
            assert_eq!(MetadataValue::from(single), MetadataValue::Double(double));
        }
        assert!(
            matches!(MetadataValue::from(f32::NAN), MetadataValue::Double(nan) if nan.is_nan())
        );
        assert_eq!(MetadataValue::from(f32::INFINITY), MetadataValue::Double(f64::INFINITY));
    }
}
