//! The form of a request, as the API's documentation has it.

use serde_json::{Map, Value};

use super::{Refusal, invalid};

const EVENTS: std::ops::RangeInclusive<usize> = 1..=1000;
const METADATA_PAIRS: usize = 50;
const METADATA_KEY_CHARS: usize = 100;
const METADATA_TEXT_CHARS: usize = 500;

/// An event of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) customer: String,
    pub(super) stamp: Option<i64>,
    /// Without its timestamp.
    pub(super) json: Value,
}

fn malformed(message: impl Into<String>) -> Refusal {
    (422, "INVALID_REQUEST_BODY", message.into(), "invalid request")
}

pub(super) fn read_request(body: &[u8]) -> Result<Vec<Event>, Refusal> {
    let value = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let Value::Object(mut fields) = value else {
        return Err(malformed("the body is no object"));
    };
    let Some(Value::Array(events)) = fields.remove("events") else {
        return Err(malformed("there is no array `events`"));
    };
    if let Some(field) = fields.keys().next() {
        return Err(malformed(format!("there is no field `{field}` in a request")));
    }
    if !EVENTS.contains(&events.len()) {
        return Err(invalid(format!("{} events", events.len())));
    }
    events.into_iter().map(read_event).collect()
}

fn read_event(event: Value) -> Result<Event, Refusal> {
    let Value::Object(mut fields) = event else {
        return Err(malformed("an event is no object"));
    };
    let stamp = match fields.remove("timestamp") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => {
            Some(rfc3339(&text).ok_or_else(|| malformed(format!("{text:?} is no RFC 3339 time")))?)
        }
        Some(other) => return Err(malformed(format!("{other} is no timestamp"))),
    };
    for (name, value) in &fields {
        match (name.as_str(), value) {
            ("event_id" | "customer_id" | "event_name", Value::String(text)) => {
                if text.is_empty() {
                    return Err(invalid(format!("`{name}` is empty")));
                }
            }
            ("metadata", Value::Null) => {}
            ("metadata", Value::Object(pairs)) => check_metadata(pairs)?,
            _ => return Err(malformed(format!("`{name}` cannot be {value}"))),
        }
    }
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(malformed(format!("an event has no `{name}`"))),
    };
    text("event_name")?;
    let (id, customer) = (text("event_id")?, text("customer_id")?);
    Ok(Event { id, customer, stamp, json: Value::Object(fields) })
}

fn check_metadata(pairs: &Map<String, Value>) -> Result<(), Refusal> {
    if pairs.len() > METADATA_PAIRS {
        return Err(invalid(format!("{} metadata pairs", pairs.len())));
    }
    for (key, value) in pairs {
        if key.chars().count() > METADATA_KEY_CHARS {
            return Err(invalid(format!("the metadata key {key:?} is too long")));
        }
        match value {
            Value::Bool(_) => {}
            Value::Number(number) if number.is_i64() || number.is_f64() => {}
            Value::String(text) if text.chars().count() <= METADATA_TEXT_CHARS => {}
            _ => return Err(invalid(format!("metadata {key:?} cannot be {value}"))),
        }
    }
    Ok(())
}

/// Milliseconds since 1970. A year has four digits.
fn rfc3339(text: &str) -> Option<i64> {
    let shape = text.get(..19)?.bytes().enumerate();
    let right = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    if !shape.into_iter().all(right) {
        return None;
    }
    Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}
