//! Judges an event by the billing API's published limits and writes the JSON that is sent.
//!
//! A refusal by the API is for the whole request of up to 1000 events, so whatever it documents as
//! wrong is refused here, at the door, with an error that names the field, the limit and what was
//! given. Lengths are in characters (Unicode scalar values), as the API counts them.

use std::hash::Hasher as _;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use siphasher::sip::SipHasher13;

use crate::clock::{self, HOUR_MS, MINUTE_MS, SECOND_MS, WallMs};
use crate::error::{Error, Result};
use crate::event::{Event, Metadata, MetadataValue};

/// The billing API's published limits, and those few that are this library's own.
pub mod limits {
    /// Events in one request.
    pub const EVENTS_PER_REQUEST: usize = 1000;
    /// Metadata pairs of an event.
    pub const METADATA_PAIRS: usize = 50;
    /// Characters of a metadata key.
    pub const METADATA_KEY_CHARS: usize = 100;
    /// Characters of a metadata value that is text.
    pub const METADATA_VALUE_CHARS: usize = 500;
    /// Characters of an event id, customer id or event name. The API publishes no limit; this
    /// one is the library's own, so that no single call can fill a request.
    pub const IDENTIFIER_CHARS: usize = 255;
    /// Milliseconds for which an event may lie in the past.
    pub const MAX_AGE_MS: i64 = super::HOUR_MS;
    /// Milliseconds for which an event may lie in the future.
    pub const MAX_AHEAD_MS: i64 = 5 * super::MINUTE_MS;

    /// As much of a text as a metadata value may have.
    #[must_use]
    pub fn cut_value(text: &str) -> &str {
        // Short text is not counted.
        if text.len() <= METADATA_VALUE_CHARS {
            return text;
        }
        let end = text.char_indices().nth(METADATA_VALUE_CHARS);
        end.map_or(text, |(end, _)| &text[..end])
    }
}

/// An event that the billing API's documentation allows.
#[derive(Debug)]
pub(crate) struct Valid {
    /// When it happened, by this machine's clock.
    pub(crate) occurred_at: WallMs,
    /// The same for the same customer and event name: what is refused for one is for all.
    pub(crate) group: u64,
    pub(crate) metadata_pairs: u8,
}

/// Checks the event and appends its JSON, without a timestamp, to `json`.
pub(crate) fn write_event(
    event: &Event,
    event_id: &str,
    event_name: &str,
    now: WallMs,
    json: &mut Vec<u8>,
) -> Result<Valid> {
    identifier("customer_id", &event.customer_id)?;
    identifier("event_id", event_id)?;
    self::event_name(event_name)?;
    let occurred_at = match event.timestamp {
        Some(time) => occurred_at(clock::wall_ms(time), now)?,
        None => now,
    };
    metadata(&event.metadata)?;
    let wire = WireEvent {
        event_id,
        customer_id: &event.customer_id,
        event_name,
        metadata: (!event.metadata.pairs().is_empty()).then_some(&event.metadata),
    };
    serde_json::to_writer(json, &wire).map_err(|error| {
        Error::validation("event", format!("cannot be written as JSON: {error}"))
    })?;
    Ok(Valid {
        occurred_at,
        group: group(&event.customer_id, event_name),
        metadata_pairs: event.metadata.pairs().len() as u8, // at most 50
    })
}

/// Checks an event name, also the client's own when it is built.
pub(crate) fn event_name(name: &str) -> Result<()> {
    identifier("event_name", name)
}

fn identifier(field: &str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(Error::validation(field, "is empty; the billing API requires it"));
    }
    if let Some(count) = more_chars_than(value, limits::IDENTIFIER_CHARS) {
        let limit = limits::IDENTIFIER_CHARS;
        return Err(Error::validation(field, format!("{count} characters; at most {limit}")));
    }
    Ok(())
}

fn occurred_at(time: WallMs, now: WallMs) -> Result<WallMs> {
    let age = now.saturating_sub(time);
    if age > limits::MAX_AGE_MS {
        return Err(Error::validation(
            "timestamp",
            format!(
                "{} is {} s ago; at most {} s (the billing API cannot back-date)",
                clock::rfc3339(time),
                age / SECOND_MS,
                limits::MAX_AGE_MS / SECOND_MS
            ),
        ));
    }
    if -age > limits::MAX_AHEAD_MS {
        return Err(Error::validation(
            "timestamp",
            format!(
                "{} is {} s ahead; at most {} s",
                clock::rfc3339(time),
                -age / SECOND_MS,
                limits::MAX_AHEAD_MS / SECOND_MS
            ),
        ));
    }
    Ok(time)
}

fn metadata(metadata: &Metadata) -> Result<()> {
    let pairs = metadata.pairs();
    if pairs.len() > limits::METADATA_PAIRS {
        let limit = limits::METADATA_PAIRS;
        return Err(Error::validation(
            "metadata",
            format!("{} pairs; at most {limit}", pairs.len()),
        ));
    }
    for (key, value) in pairs {
        if let Some(count) = more_chars_than(key, limits::METADATA_KEY_CHARS) {
            let (start, limit) = (abbreviated(key), limits::METADATA_KEY_CHARS);
            return Err(Error::validation(
                "metadata",
                format!("key {start:?}: {count} characters; at most {limit}"),
            ));
        }
        let wrong = |message: String| Err(Error::validation(format!("metadata.{key}"), message));
        match value {
            MetadataValue::String(text) => {
                if let Some(count) = more_chars_than(text, limits::METADATA_VALUE_CHARS) {
                    let limit = limits::METADATA_VALUE_CHARS;
                    return wrong(format!("{count} characters; at most {limit}"));
                }
            }
            MetadataValue::Integer(number) if i64::try_from(*number).is_err() => {
                return wrong(format!("{number} does not fit 64 bits; pass it as text"));
            }
            MetadataValue::Double(number) if !number.is_finite() => {
                return wrong(format!("{number} is not a finite number"));
            }
            MetadataValue::Unsupported(what) => {
                return wrong(format!(
                    "a value of type {what}; text, integers, doubles and booleans are taken"
                ));
            }
            MetadataValue::Integer(_) | MetadataValue::Double(_) | MetadataValue::Boolean(_) => {}
        }
    }
    Ok(())
}

/// The number of characters, if it is beyond the limit. Short text is not counted.
fn more_chars_than(text: &str, limit: usize) -> Option<usize> {
    if text.len() <= limit {
        return None;
    }
    Some(text.chars().count()).filter(|count| *count > limit)
}

fn abbreviated(text: &str) -> String {
    text.chars().take(20).chain(['…']).collect()
}

/// Wide enough that no two of a business are alike: what is refused of one would be set aside of the other. It
/// stands in the spool, where builds of several compilers write: theirs must be the same.
fn group(customer_id: &str, event_name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(customer_id.as_bytes());
    // No byte of UTF-8.
    hasher.write(&[0xff]);
    hasher.write(event_name.as_bytes());
    hasher.finish()
}

#[derive(Serialize)]
struct WireEvent<'a> {
    event_id: &'a str,
    customer_id: &'a str,
    event_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>, // last: what is added to an event that is sent goes to its end
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.pairs().len()))?;
        for (key, value) in self.pairs() {
            match value {
                MetadataValue::String(text) => map.serialize_entry(key, text)?,
                // `metadata` checked that it fits.
                MetadataValue::Integer(number) => map.serialize_entry(key, &(*number as i64))?,
                MetadataValue::Double(number) => map.serialize_entry(key, number)?,
                MetadataValue::Boolean(flag) => map.serialize_entry(key, flag)?,
                MetadataValue::Unsupported(_) => {
                    return Err(serde::ser::Error::custom("unsupported metadata value"));
                }
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod differential;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    const NOW: WallMs = 1_767_323_045_678;

    fn write(event: &Event) -> Result<String> {
        let mut json = Vec::new();
        let id = event.event_id.as_deref().unwrap_or("id");
        let name = event.event_name.as_deref().unwrap_or("api_call");
        write_event(event, id, name, NOW, &mut json)?;
        Ok(String::from_utf8(json).unwrap())
    }

    fn at(wall: WallMs) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(wall as u64)
    }

    #[test]
    fn the_wire_form_has_its_keys_in_order_and_metadata_last() {
        let event = Event::new("cus_1").metadata("a", "x\"\n").metadata("b", 1).metadata("c", 1.0);
        assert_eq!(
            write(&event).unwrap(),
            r#"{"event_id":"id","customer_id":"cus_1","event_name":"api_call","metadata":{"a":"x\"\n","b":1,"c":1.0}}"#
        );
        assert!(!write(&Event::new("cus_1")).unwrap().contains("metadata"));
    }

    #[test]
    fn numbers_that_json_does_not_have_are_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = write(&Event::new("c").metadata("x", number)).unwrap_err();
            assert_eq!(error.field(), Some("metadata.x"));
            assert!(error.message().contains("finite"), "{error}");
        }
        for number in [i128::from(i64::MAX) + 1, i128::from(i64::MIN) - 1] {
            let error = write(&Event::new("c").metadata("x", number)).unwrap_err();
            assert!(error.message().contains("64 bits"), "{error}");
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(limits::cut_value("short"), "short");
        let exact = "ä".repeat(limits::METADATA_VALUE_CHARS);
        assert_eq!(limits::cut_value(&exact), exact);
        assert_eq!(limits::cut_value(&format!("{exact}x")), exact);
    }

    #[test]
    fn the_window_of_time_is_the_apis_own() {
        for (offset, fits) in [
            (-limits::MAX_AGE_MS, true),
            (-limits::MAX_AGE_MS - 1, false),
            (limits::MAX_AHEAD_MS, true),
            (limits::MAX_AHEAD_MS + 1, false),
            (-NOW, false),
        ] {
            let result = write(&Event::new("c").timestamp(at(NOW + offset)));
            assert_eq!(result.is_ok(), fits, "{offset}");
            if let Err(error) = result {
                assert_eq!(error.field(), Some("timestamp"));
            }
        }
        let far = UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60)).unwrap_or(UNIX_EPOCH);
        assert!(write(&Event::new("c").timestamp(far)).is_err());
    }

    /// The shared table of events: here to the byte, in every other language by what is billed.
    #[test]
    fn the_shared_vectors_hold() {
        #[derive(serde::Deserialize)]
        struct Vector {
            name: String,
            input: Box<serde_json::value::RawValue>,
            timestamp_offset_seconds: Option<i64>,
            stored: Option<String>,
            error: Option<Refusal>,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Refusal {
            kind: String,
            field: Option<String>,
        }
        let text = include_str!("../../../tests/vectors/events.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 40, "{}", vectors.len());
        for vector in vectors {
            let event = Event::from_json(vector.input.get()).map(|event| {
                let offset = vector.timestamp_offset_seconds;
                offset.map_or(event.clone(), |seconds| event.timestamp(at(NOW + seconds * 1_000)))
            });
            let written = event.and_then(|event| write(&event));
            let refused = written.as_ref().err().map(|error| Refusal {
                kind: error.kind().to_string(),
                field: error.field().map(str::to_owned),
            });
            assert_eq!(refused, vector.error, "{}", vector.name);
            assert_eq!(written.ok(), vector.stored, "{}", vector.name);
        }
    }

    #[test]
    fn groups_tell_customers_and_event_names_apart() {
        assert_eq!(group("a", "b"), group("a", "b"));
        assert_ne!(group("a", "b"), group("b", "a"));
        assert_ne!(group("ab", "c"), group("a", "bc"));
        // Two that a checksum of 32 bits takes for one.
        let alike = ["cus_oteDvIsnwQ4oHahQ5P1U", "cus_l4n9vjZlklUqlvRF8m0k"];
        assert_ne!(group(alike[0], "e"), group(alike[1], "e"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_was_given(
            customer in "\\PC{1,255}", key in ".{0,100}", text in ".{0,500}",
            number in any::<i64>(), double in any::<f64>().prop_filter("finite", |d| d.is_finite()),
        ) {
            let event = Event::new(customer.clone())
                .metadata(key.clone(), text.clone())
                .metadata("number", number)
                .metadata("double", double);
            let back: serde_json::Value = serde_json::from_str(&write(&event).unwrap()).unwrap();
            prop_assert_eq!(back["customer_id"].as_str(), Some(&*customer));
            if key != "number" && key != "double" {
                prop_assert_eq!(back["metadata"][&key].as_str(), Some(&*text));
            }
            prop_assert_eq!(back["metadata"]["number"].as_i64(), Some(number));
            prop_assert_eq!(back["metadata"]["double"].as_f64(), Some(double));
        }
    }
}
