//! What a caller hands over: a call of a customer, with metadata.
//!
//! These types hold whatever they are given; [`crate::validate`] judges it when it is tracked.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock;
use crate::error::{Error, Result};

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

/// A fraction is the number that it is written as: `0.1_f32` is billed as 0.1.
impl From<f32> for MetadataValue {
    fn from(value: f32) -> Self {
        let written = value.to_string().parse();
        // A large whole number is written with fewer digits than it has.
        Self::Double(written.ok().filter(|_| value.fract() != 0.0).unwrap_or(value.into()))
    }
}

impl MetadataValue {
    /// A JSON value as it was written, so that an integer is told from a double and none loses
    /// digits; `None` for null.
    fn from_json(json: &RawValue) -> serde_json::Result<Option<Self>> {
        let text = json.get();
        Ok(Some(match text.as_bytes().first() {
            Some(b'n') => return Ok(None),
            // Most have nothing escaped: they are what stands between the quotes.
            Some(b'"') if !text.contains('\\') => Self::String(text[1..text.len() - 1].to_owned()),
            Some(b'"') => Self::String(serde_json::from_str(text)?),
            Some(b't' | b'f') => Self::Boolean(serde_json::from_str(text)?),
            Some(b'[') => Self::Unsupported("array".into()),
            Some(b'{') => Self::Unsupported("object".into()),
            _ if text.contains(['.', 'e', 'E']) => Self::Double(serde_json::from_str(text)?),
            _ => match text.parse() {
                Ok(integer) => Self::Integer(integer),
                Err(_) => Self::Unsupported(format!("integer of {} characters", text.len())),
            },
        }))
    }
}

/// Metadata pairs in the order in which they were first set; a key that is set again takes the
/// new value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metadata(Vec<(Cow<'static, str>, MetadataValue)>);

impl Metadata {
    pub(crate) fn set(&mut self, key: Cow<'static, str>, value: MetadataValue) {
        if self.0.is_empty() {
            self.0.reserve(8);
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

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of metadata")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Metadata, A::Error> {
                let mut metadata = Metadata::default();
                while let Some((Key(key), json)) = map.next_entry::<Key, &RawValue>()? {
                    if let Some(value) =
                        MetadataValue::from_json(json).map_err(de::Error::custom)?
                    {
                        metadata.set(key, value);
                    }
                }
                Ok(metadata)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A metadata key. Most are of this library's own, and are not copied.
struct Key(Cow<'static, str>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key of metadata")
            }
            fn visit_str<E: de::Error>(self, key: &str) -> std::result::Result<Key, E> {
                let known = keys::known(key).map(Cow::Borrowed);
                Ok(Key(known.unwrap_or_else(|| Cow::Owned(key.to_owned()))))
            }
        }
        deserializer.deserialize_str(Text)
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

    /// Reads `{"customer_id", "event_id"?, "event_name"?, "timestamp"?, "metadata"?}`. The
    /// timestamp is RFC 3339. Null counts as absent, also as a metadata value.
    ///
    /// # Errors
    /// `validation` when the text is not JSON of this form or holds another key.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            customer_id: String,
            event_id: Option<String>,
            event_name: Option<String>,
            timestamp: Option<String>,
            metadata: Option<Metadata>,
        }
        // Serde would also take an array, its elements for the fields.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Error::validation("event", "not an event: not a JSON object"));
        }
        let fields: Fields = serde_json::from_str(text)
            .map_err(|error| Error::validation("event", format!("not an event: {error}")))?;
        let timestamp = fields.timestamp.map(|text| {
            clock::parse_rfc3339(&text).map(system_time).ok_or_else(|| {
                Error::validation(
                    "timestamp",
                    format!("{text:?} is not an RFC 3339 time such as 2026-01-02T03:04:05Z"),
                )
            })
        });
        Ok(Self {
            customer_id: fields.customer_id,
            event_id: fields.event_id,
            event_name: fields.event_name,
            timestamp: timestamp.transpose()?,
            metadata: fields.metadata.unwrap_or_default(),
        })
    }
}

fn system_time(wall: clock::WallMs) -> SystemTime {
    let distance = Duration::from_millis(wall.unsigned_abs());
    let time = if wall < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    // A time that the platform cannot hold is far outside of the hour that is taken.
    time.unwrap_or(SystemTime::UNIX_EPOCH)
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
            pub fn $setter(self, value: $type) -> Self {
                let mut event = self.0;
                event.metadata.set(Cow::Borrowed($key), $convert(value));
                Self(event)
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

    #[test]
    fn json_that_is_no_event_is_a_validation_error() {
        for text in [
            "",
            "{}",
            "[]",
            r#"["c", null, null, null, null]"#,
            r#"{"customer_id": 1}"#,
            r#"{"customer_id": "c", "customer": "c"}"#,
            r#"{"customer_id": "c", "metadata": []}"#,
            r#"{"customer_id": "c", "timestamp": "yesterday"}"#,
            "{\"customer_id\": \"c\", \"metadata\": {\"a\": \"b\u{7}\"}}",
        ] {
            let error = Event::from_json(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Validation, "{text}");
        }
    }

    #[test]
    fn json_values_keep_their_types() {
        let event = Event::from_json(
            r#"{"customer_id":"c","event_id":null,"metadata":
                {"a":1,"b":1.0,"c":"x","d":true,"e":null,"f":[1,{}],"g":{"h":1},"i":18446744073709551615}}"#,
        )
        .unwrap();
        let expected = Event::new("c")
            .metadata("a", 1)
            .metadata("b", 1.0)
            .metadata("c", "x")
            .metadata("d", true)
            .metadata("f", MetadataValue::Unsupported("array".into()))
            .metadata("g", MetadataValue::Unsupported("object".into()))
            .metadata("i", u64::MAX);
        assert_eq!(event, expected);
    }
}
