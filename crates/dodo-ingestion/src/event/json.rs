//! Events as JSON text, for hosts that have it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Event, Metadata, MetadataValue, keys};
use crate::clock;
use crate::error::{Error, Result};

impl Event {
    /// Reads `{"customer_id", "event_id"?, "event_name"?, "timestamp"?, "metadata"?}`. The
    /// timestamp is RFC 3339. Null counts as absent, also as a metadata value.
    ///
    /// # Errors
    /// `validation` when the text is not JSON of this form or holds another key.
    pub fn from_json(text: &str) -> Result<Self> {
        // Serde would also take an array, its elements for the fields.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Error::validation("event", "not an event: not a JSON object"));
        }
        let fields: Fields = serde_json::from_str(text).map_err(|error| {
            culprit(text)
                .unwrap_or_else(|| Error::validation("event", format!("not an event: {error}")))
        })?;
        let timestamp = fields.timestamp.map(|text| {
            clock::parse_rfc3339(&text)
                .map(system_time)
                .ok_or_else(|| no_time(&format!("{text:?}")))
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    customer_id: String,
    event_id: Option<String>,
    event_name: Option<String>,
    timestamp: Option<String>,
    metadata: Option<Metadata>,
}

/// What is wrong with the fields of an object that is no event, the first of them.
fn culprit(text: &str) -> Option<Error> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let wrong = fields.iter().find_map(|(name, json)| culpable(name, json.get()));
    let has_customer = || fields.get("customer_id").is_some_and(|json| json.get() != "null");
    wrong.or_else(|| (!has_customer()).then(|| Error::validation("customer_id", "is missing")))
}

fn culpable(name: &str, json: &str) -> Option<Error> {
    let is_text = || serde_json::from_str::<Option<String>>(json).is_ok();
    match name {
        "customer_id" | "event_id" | "event_name" => {
            let why = || format!("is {}, not text", kind_of(json));
            (!is_text()).then(|| Error::validation(name, why()))
        }
        "timestamp" => (!is_text()).then(|| no_time(kind_of(json))),
        "metadata" => {
            let error = serde_json::from_str::<Option<Metadata>>(json).err()?;
            let why = if !json.starts_with('{') {
                format!("is {}, not an object", kind_of(json))
            } else if error.is_syntax() {
                // The text is JSON, and its values tell of their own: it is what is escaped in a key.
                "a key holds a lone surrogate".into()
            } else {
                error.to_string()
            };
            Some(Error::validation(name, why))
        }
        _ => {
            let known = "customer_id, event_id, event_name, timestamp, metadata";
            Some(Error::validation(name, format!("is no field of an event; they are {known}")))
        }
    }
}

fn no_time(given: &str) -> Error {
    let why = format!("{given} is not an RFC 3339 time such as 2026-01-02T03:04:05Z");
    Error::validation("timestamp", why)
}

fn kind_of(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "text with a lone surrogate or a control character",
        Some(b't' | b'f') => "a boolean",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b'n') => "null",
        _ => "a number",
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

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_key_that_is_no_text_is_told() {
        let error =
            Event::from_json(r#"{"customer_id": "c", "metadata": {"a\ud800": 1}}"#).unwrap_err();
        assert_eq!(error.field(), Some("metadata"));
        assert_eq!(error.to_string(), "metadata: a key holds a lone surrogate");
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
