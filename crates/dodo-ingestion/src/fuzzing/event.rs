//! Events as fields, each beginning with what it is: `c` customer, `i` event id, `n` event name, `t`
//! milliseconds from now, `m` milliseconds from now that the event is sent at, `j` a JSON event to go on
//! from, `|` the next event. Metadata is `s` text, `g` integer, `d` double, `x` the bits of a double, `b`
//! boolean, `u` a type that is not taken; then the key, the byte 0xfe and the value. `*N` before any of
//! them repeats its last character N times.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::FIELD;
use crate::clock::{WallMs, rfc3339, wall_ms};
use crate::delivery::{RequestBody, Stamp};
use crate::error::ErrorKind;
use crate::event::{Event, MetadataValue, keys};
use crate::spool::Draft;
use crate::validate::{limits, write_event};

const NOW: WallMs = 1_767_323_045_678;
/// The separator of a metadata key and its value.
const VALUE: u8 = 0xfe;

/// Puts events into a request body. What is taken lies within the limits and is read back as it was
/// given by another parser; what is refused names a field that breaks a limit.
pub fn event(input: &[u8]) {
    let mut body = RequestBody::with_capacity(0);
    let mut taken = Vec::new();
    let mut bound = br#"{"events":[]}"#.len();
    for fields in input.split(|byte| *byte == b'|') {
        let (event, moved_to) = given(fields);
        let id = event.event_id.clone().unwrap_or_else(|| "id".into());
        let name = event.event_name.clone().unwrap_or_else(|| "api_call".into());
        let mut draft = Draft::event(&id);
        let before = draft.frame_len();
        let written = write_event(&event, &id, &name, NOW, draft.json());
        let broken = broken_limits(&event, &id, &name);
        let valid = match written {
            Ok(valid) => valid,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Validation);
                let field = error.field().unwrap();
                assert!(broken.iter().any(|broken| broken == field), "{field}: {broken:?}");
                continue;
            }
        };
        assert!(broken.is_empty(), "{broken:?}");
        assert_eq!(usize::from(valid.metadata_pairs), event.metadata.pairs().len());
        assert!(draft.frame_len() < 1 << 20, "a record of {} bytes", draft.frame_len());
        let moved_from = (moved_to != valid.occurred_at).then_some(valid.occurred_at);
        let json = draft.json()[before..].to_vec();
        body.push(&json, valid.metadata_pairs, Stamp { at: moved_to, moved_from });
        bound += json.len() + RequestBody::EXTRA_BYTES_PER_EVENT;
        taken.push((event, id, name, moved_to, moved_from));
    }
    let body = body.finish();
    assert!(body.len() <= bound, "{} bytes, at most {bound}", body.len());
    let back: Value = serde_json::from_slice(&body).unwrap();
    let back = back["events"].as_array().unwrap();
    assert_eq!(back.len(), taken.len());
    for (json, (event, id, name, at, moved_from)) in back.iter().zip(&taken) {
        assert_eq!(json["event_id"], **id);
        assert_eq!(json["customer_id"], event.customer_id);
        assert_eq!(json["event_name"], **name);
        assert_eq!(json["timestamp"], rfc3339(*at));
        compare_metadata(json, event, *moved_from);
    }
}

/// One event, and when it is sent.
fn given(fields: &[u8]) -> (Event, WallMs) {
    let mut event = Event::new("cus");
    let mut sent_at = NOW;
    for field in fields.split(|byte| *byte == FIELD) {
        let (kind, text) = match String::from_utf8_lossy(field).strip_prefix('*') {
            None => match field.split_first() {
                Some((kind, text)) => (*kind, text.to_vec()),
                None => continue,
            },
            Some(_) => match repeated(&field[1..]) {
                Some(repeated) => repeated,
                None => continue,
            },
        };
        let mut parts = text.splitn(2, |byte| *byte == VALUE).map(String::from_utf8_lossy);
        let key = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let offset = |text: &str| text.parse::<i64>().unwrap_or_default();
        event = match kind {
            b'c' => Event { customer_id: key.into_owned(), ..event },
            b'i' => event.event_id(key),
            b'n' => event.event_name(key),
            b't' => event.timestamp(system_time(NOW.saturating_add(offset(&key)))),
            b'm' => {
                sent_at = NOW.saturating_add(offset(&key));
                event
            }
            b'j' => Event::from_json(&key).unwrap_or(event),
            _ => match metadata_value(kind, value) {
                Some(value) => event.metadata(key, value),
                None => event,
            },
        };
    }
    (event, sent_at)
}

/// `N`, a kind and text, whose last character is repeated.
fn repeated(field: &[u8]) -> Option<(u8, Vec<u8>)> {
    let digits = field.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let times: usize = String::from_utf8_lossy(&field[..digits]).parse().ok()?;
    let (kind, text) = field[digits..].split_first()?;
    let text = String::from_utf8_lossy(text);
    let last = text.chars().last()?;
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend(last.to_string().repeat(times.min(2_000)).bytes());
    Some((*kind, bytes))
}

fn metadata_value(kind: u8, text: Cow<'_, str>) -> Option<MetadataValue> {
    Some(match kind {
        b's' => MetadataValue::String(text.into_owned()),
        b'g' => MetadataValue::Integer(text.parse().unwrap_or_default()),
        b'd' => MetadataValue::Double(text.parse().unwrap_or(f64::NAN)),
        b'x' => MetadataValue::Double(f64::from_bits(u64::from_str_radix(&text, 16).ok()?)),
        b'b' => MetadataValue::Boolean(&*text == "1"),
        b'u' => MetadataValue::Unsupported(text.into_owned()),
        _ => return None,
    })
}

fn system_time(wall: WallMs) -> SystemTime {
    let distance = Duration::from_millis(wall.unsigned_abs());
    let time =
        if wall < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// The fields that break a limit, said once more and more simply than `validate` does.
fn broken_limits(event: &Event, id: &str, name: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (field, text) in
        [("customer_id", &*event.customer_id), ("event_id", id), ("event_name", name)]
    {
        if !(1..=limits::IDENTIFIER_CHARS).contains(&text.chars().count()) {
            broken.push(field.to_owned());
        }
    }
    if let Some(ahead) = event.timestamp.map(|time| i128::from(wall_ms(time)) - i128::from(NOW))
        && !(-i128::from(limits::MAX_AGE_MS)..=limits::MAX_AHEAD_MS.into()).contains(&ahead)
    {
        broken.push("timestamp".into());
    }
    let pairs = event.metadata.pairs();
    let long = |key: &str| key.chars().count() > limits::METADATA_KEY_CHARS;
    if pairs.len() > limits::METADATA_PAIRS || pairs.iter().any(|(key, _)| long(key)) {
        broken.push("metadata".into());
    }
    for (key, value) in pairs {
        let fits = match value {
            MetadataValue::String(text) => text.chars().count() <= limits::METADATA_VALUE_CHARS,
            MetadataValue::Integer(number) => i64::try_from(*number).is_ok(),
            MetadataValue::Double(number) => number.is_finite(),
            MetadataValue::Boolean(_) => true,
            MetadataValue::Unsupported(_) => false,
        };
        if !fits {
            broken.push(format!("metadata.{key}"));
        }
    }
    broken
}

fn compare_metadata(json: &Value, event: &Event, moved_from: Option<WallMs>) {
    let pairs = event.metadata.pairs();
    let empty = serde_json::Map::new();
    let back = json.get("metadata").map_or(&empty, |metadata| metadata.as_object().unwrap());
    for (key, value) in pairs {
        let back = &back[&**key];
        let same = match value {
            MetadataValue::String(text) => back == &**text,
            MetadataValue::Integer(number) => back.as_i64().map(i128::from) == Some(*number),
            MetadataValue::Double(number) => {
                back.is_f64() && back.as_f64().map(f64::to_bits) == Some(number.to_bits())
            }
            MetadataValue::Boolean(flag) => back == flag,
            MetadataValue::Unsupported(_) => false,
        };
        assert!(same, "{key:?}: {value:?} came back as {back}");
    }
    let added = back.len() - pairs.len();
    let original = back.get(keys::ORIGINAL_TIMESTAMP);
    assert!(back.len() <= limits::METADATA_PAIRS && added <= 1, "{back:?}");
    if added == 1 {
        assert_eq!(original, moved_from.map(|at| Value::from(rfc3339(at))).as_ref());
    } else if moved_from.is_some() && pairs.len() < limits::METADATA_PAIRS {
        // There was room, so the key stands somewhere in what the caller gave.
        assert!(json.to_string().contains(keys::ORIGINAL_TIMESTAMP), "{json}");
    }
}
