//! The body of a request: events as they were stored, with a timestamp put in at each attempt.

use super::Stamp;
use crate::clock::{WallMs, rfc3339};
use crate::event::keys::ORIGINAL_TIMESTAMP;
use crate::validate::limits::METADATA_PAIRS;

const START: &[u8] = br#"{"events":["#;
const END: &[u8] = b"]}";

/// A body being made.
#[derive(Debug)]
pub(crate) struct RequestBody {
    bytes: Vec<u8>,
    /// The stamp that was written last, and its text: calls under load share a millisecond.
    last: (WallMs, String),
}

impl RequestBody {
    /// The most that [`RequestBody::push`] adds to an event, and its share of the brackets.
    pub(crate) const EXTRA_BYTES_PER_EVENT: usize = 128;

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut body = Vec::with_capacity(bytes + START.len() + END.len());
        body.extend_from_slice(START);
        Self { bytes: body, last: (0, rfc3339(0)) }
    }

    /// Adds an event: `json` is what [`crate::validate::write_event`] wrote.
    pub(crate) fn push(&mut self, json: &[u8], metadata_pairs: u8, stamp: Stamp) {
        let Some((b'{', fields)) = json.split_first() else { return };
        if self.last.0 != stamp.at {
            self.last = (stamp.at, rfc3339(stamp.at));
        }
        let bytes = &mut self.bytes;
        if bytes.len() > START.len() {
            bytes.push(b',');
        }
        bytes.extend_from_slice(br#"{"timestamp":""#);
        bytes.extend_from_slice(self.last.1.as_bytes());
        bytes.extend_from_slice(br#"","#);
        bytes.extend_from_slice(fields);
        let room = usize::from(metadata_pairs) < METADATA_PAIRS;
        if let Some(original) = stamp.moved_from
            && room
            && !has_original_timestamp(json)
        {
            let original = format!(r#""{ORIGINAL_TIMESTAMP}":"{}""#, rfc3339(original));
            // The metadata, where there is any, is the last field: see `validate::WireEvent`.
            let (brackets, addition) = if metadata_pairs == 0 {
                (1, format!(r#","metadata":{{{original}}}}}"#))
            } else {
                (2, format!(",{original}}}}}"))
            };
            bytes.truncate(bytes.len() - brackets);
            bytes.extend_from_slice(addition.as_bytes());
        }
    }

    /// See [`Fault::AnotherIdOnRetry`](crate::planted::Fault).
    pub(crate) fn spoil_the_last_id(&mut self, attempt: usize) {
        const KEY: &[u8] = b"\"event_id\":\"";
        let at = self.bytes.windows(KEY.len()).rposition(|part| part == KEY);
        if let Some(at) = at {
            let at = at + KEY.len();
            self.bytes.splice(at..at, attempt.to_string().into_bytes());
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(END);
        self.bytes
    }
}

/// Whether the caller's own metadata may hold the key: then theirs stays.
fn has_original_timestamp(json: &[u8]) -> bool {
    json.windows(ORIGINAL_TIMESTAMP.len()).any(|part| part == ORIGINAL_TIMESTAMP.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(events: &[(&str, u8, Stamp)]) -> serde_json::Value {
        let mut body = RequestBody::with_capacity(0);
        let mut bound = START.len() + END.len();
        for (json, pairs, stamp) in events {
            body.push(json.as_bytes(), *pairs, *stamp);
            bound += json.len() + RequestBody::EXTRA_BYTES_PER_EVENT;
        }
        let bytes = body.finish();
        assert!(bytes.len() <= bound);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_stamp_goes_in_and_the_original_where_it_moved_and_there_is_room() {
        let moved = Stamp { at: 60_000, moved_from: Some(0) };
        let value = body(&[
            (r#"{"event_id":"a"}"#, 0, Stamp { at: 0, moved_from: None }),
            (r#"{"event_id":"b"}"#, 0, moved),
            (r#"{"event_id":"c","metadata":{"x":1}}"#, 1, moved),
            (r#"{"event_id":"d","metadata":{"x":1}}"#, 50, moved),
            (r#"{"event_id":"e","metadata":{"original_timestamp":1}}"#, 1, moved),
        ]);
        let (start, original) = ("1970-01-01T00:00:00.000Z", "original_timestamp");
        let events = value["events"].as_array().unwrap();
        assert_eq!(events.len(), 5);
        assert_eq!(events[0]["timestamp"], start);
        assert_eq!(events[1]["timestamp"], "1970-01-01T00:01:00.000Z");
        assert_eq!(events[1]["metadata"][original], start);
        assert_eq!(events[2]["metadata"], serde_json::json!({"x": 1, original: start}));
        assert_eq!(events[3]["metadata"], serde_json::json!({"x": 1}));
        assert_eq!(events[4]["metadata"], serde_json::json!({original: 1}));
    }
}
