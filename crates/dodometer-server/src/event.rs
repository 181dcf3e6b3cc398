//! An ingest request: reading it straight from the body's bytes, and the published rules.
//!
//! A refusal is for the request as a whole. What has the wrong shape (malformed JSON, a missing
//! field, a nested value, a time that is no RFC 3339) is 422; what has the right shape and breaks a
//! rule (an empty id, a limit, a repeated id, a time outside the window) is 400. Nothing here knows
//! of storage.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::clock::whole_micros;
use crate::metadata::{Metadata, Text};
use crate::object::{self, Object};
use crate::refusal::{Answer, Refusal};

/// The most events in one request.
pub(crate) const MAX_EVENTS: usize = 1000;
/// How old an event may be.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(1);
/// How far ahead of this server's clock an event may be.
const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// An event that keeps every rule.
#[expect(clippy::struct_field_names, reason = "the fields are named as on the wire")]
pub(crate) struct Event<'a> {
    pub(crate) event_id: Text<'a>,
    pub(crate) customer_id: Text<'a>,
    pub(crate) event_name: Text<'a>,
    /// As it was sent, to the nanosecond.
    timestamp: Option<Timestamp>,
    pub(crate) metadata: Option<Metadata<'a>>,
}

impl Event<'_> {
    /// The time that everything but the window sees; without one of its own it is that of the arrival.
    pub(crate) fn stored_time(&self, arrived: Timestamp) -> Timestamp {
        whole_micros(self.timestamp.unwrap_or(arrived))
    }
}

#[derive(Deserialize)]
struct WireRequest<'a> {
    #[serde(borrow)]
    events: Vec<Object<WireEvent<'a>>>,
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    #[serde(borrow)]
    customer_id: Text<'a>,
    #[serde(borrow)]
    event_name: Text<'a>,
    #[serde(borrow, default)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
}

/// Reads a request body and holds it against every rule that needs no storage, but for the window.
pub(crate) fn read_request(body: &[u8]) -> Answer<Vec<Event<'_>>> {
    let request: WireRequest<'_> = object::read_body(body)?;
    let count = request.events.len();
    if !(1..=MAX_EVENTS).contains(&count) {
        return Err(Refusal::invalid(format!(
            "events must hold 1 to {MAX_EVENTS} events, it holds {count}"
        )));
    }
    let mut events = Vec::with_capacity(count);
    for (index, Object(event)) in request.events.into_iter().enumerate() {
        events.push(check(event, index)?);
    }
    let mut seen = HashSet::with_capacity(count);
    for (index, event) in events.iter().enumerate() {
        if !seen.insert(event.event_id.0.as_ref()) {
            return Err(Refusal::invalid(format!(
                "events[{index}].event_id is the id of an earlier event of this request"
            )));
        }
    }
    Ok(events)
}

fn check(event: WireEvent<'_>, index: usize) -> Answer<Event<'_>> {
    let WireEvent { event_id, customer_id, event_name, timestamp, metadata } = event;
    let invalid = |field: &str, problem: &str| {
        Err(Refusal::invalid(format!("events[{index}].{field} {problem}")))
    };
    for (field, text) in
        [("event_id", &event_id), ("customer_id", &customer_id), ("event_name", &event_name)]
    {
        if text.0.is_empty() {
            return invalid(field, "must not be empty");
        }
    }
    let read = |text: Text<'_>| {
        parse_rfc3339(&text.0).ok_or_else(|| {
            Refusal::body(format!("events[{index}].timestamp is not an RFC 3339 date and time"))
        })
    };
    let timestamp = timestamp.map(read).transpose()?;
    if let Some(problem) = metadata.as_ref().and_then(Metadata::broken_limit) {
        return invalid("metadata", &problem);
    }
    Ok(Event { event_id, customer_id, event_name, timestamp, metadata })
}

/// How many events a body holds, if it can be told of one that is refused.
pub(crate) fn count(body: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Counted {
        events: Vec<serde::de::IgnoredAny>,
    }
    object::read_body(body).ok().map(|Counted { events }| events.len())
}

/// Holds the times of a request's events against the window, but for those that `exempt` is true of.
pub(crate) fn check_window(
    events: &[Event<'_>],
    now: Timestamp,
    mut exempt: impl FnMut(usize) -> bool,
) -> Answer<()> {
    for (index, event) in events.iter().enumerate() {
        let Some(timestamp) = event.timestamp else { continue };
        let problem = if now.duration_since(timestamp) > MAX_AGE {
            "is more than 1 hour old"
        } else if timestamp.duration_since(now) > MAX_AHEAD {
            "is more than 5 minutes in the future"
        } else {
            continue;
        };
        if !exempt(index) {
            return Err(Refusal::invalid(format!("events[{index}].timestamp {problem}")));
        }
    }
    Ok(())
}

/// Reads an RFC 3339 date and time. The library's own parser takes more forms than the billing
/// API promises to, so the shape is held against the grammar first.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (head, tail) = text.as_bytes().split_at_checked(19)?;
    let shaped = head.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let zone = match tail {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            // More digits than a nanosecond has are cut by nobody: refuse them.
            (digits <= 9).then(|| &fraction[digits..])?
        }
        zone => zone,
    };
    let zoned = match zone {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            // The library's parser takes hours up to 25.
            [h1, h2, m1, m2].into_iter().all(u8::is_ascii_digit) && [*h1, *h2] <= *b"23"
        }
        _ => false,
    };
    if !(shaped && zoned) {
        return None;
    }
    text.parse().ok().or_else(|| {
        // The library's times end in the night to the last day of the year 9999, whose last second is a usual
        // way to say that there is no end.
        let a_year_earlier = format!("9998{}", text.strip_prefix("9999")?);
        a_year_earlier.parse::<Timestamp>().ok().map(|_| Timestamp::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2025-06-15T12:00:00Z".parse().unwrap()
    }

    fn status(body: &str) -> u16 {
        read_request(body.as_bytes())
            .and_then(|events| check_window(&events, now(), |_| false))
            .map_or_else(|refusal| refusal.status(), |()| 200)
    }

    #[test]
    fn the_window_is_one_hour_back_and_five_minutes_ahead() {
        for (timestamp, expected) in [
            ("null", 200),
            (r#""2025-06-15T11:00:00Z""#, 200),
            (r#""2025-06-15T10:59:59.999999999Z""#, 400),
            (r#""2025-06-15T12:05:00Z""#, 200),
            (r#""2025-06-15T12:05:00.000000001Z""#, 400),
            (r#""2025-06-15T14:00:00+02:00""#, 200),
            (r#""0001-01-01T00:00:00Z""#, 400),
            (r#""9998-12-31T00:00:00Z""#, 400),
            (r#""9999-12-31T23:59:59Z""#, 400),
            (r#""9999-12-32T00:00:00Z""#, 422),
            (r#""2025-06-16T13:00:00+25:00""#, 422),
            (r#""yesterday""#, 422),
            ("1750000000", 422),
        ] {
            let body = format!(
                r#"{{"events":[{{"event_id":"e","customer_id":"c","event_name":"n","timestamp":{timestamp}}}]}}"#
            );
            assert_eq!(status(&body), expected, "{timestamp}");
        }
    }

    #[test]
    fn rfc_3339_and_nothing_else() {
        for good in [
            "2025-06-15T12:00:00Z",
            "2025-06-15t12:00:00z",
            "2025-06-15 12:00:00Z",
            "2025-06-15T12:00:00.123456789-07:00",
            "2025-06-15T12:00:00+23:59",
            "2025-06-15T12:00:00-23:59",
            "9999-12-31T23:59:59.999999999Z",
        ] {
            assert!(parse_rfc3339(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "2025-06-15",
            "2025-06-15T12:00Z",
            "2025-06-15T12:00:00",
            "2025-06-15T12:00:00.Z",
            "2025-06-15T12:00:00+02",
            "2025-06-15T12:00:00+0200",
            "2025-06-15T12:00:00+24:00",
            "2025-06-15T12:00:00-24:00",
            "2025-06-15T12:00:00+25:00",
            "2025-06-15T12:00:00+23:60",
            "9999-12-31T23:59:59+25:00",
            "2025-06-15T12:00:00Z[UTC]",
            "2025-13-15T12:00:00Z",
            "20250615T120000Z",
            "2025-06-15T12:00:00Z ",
            "２025-06-15T12:00:00Z",
        ] {
            assert!(parse_rfc3339(bad).is_none(), "{bad}");
        }
    }
}
