//! What of a record the delivery logic and the dead letters hold.

use std::io;

use crate::clock::{Now, rfc3339};
use crate::delivery::{Cause, Meta, id_hash};
use crate::spool::{Cursor, DeadLetter, Drain, Kind, Record};

/// What delivery needs to know of a record, given when something of its spool was first attempted.
pub(super) fn meta(record: &Record, cursor: Cursor, first: Now) -> Meta {
    let header = &record.header;
    let attempted = header.seq < cursor.attempted;
    Meta {
        seq: header.seq,
        json_bytes: record.json().len(),
        accepted_at: header.accepted_at,
        occurred_at: header.occurred_at,
        delay_ms: header.delay_ms,
        id_hash: id_hash(record.event_id()),
        group: header.group,
        flush: header.kind == Kind::Flush,
        // Nothing is sent before it is accepted.
        maybe_sent: attempted.then_some(Now { wall: first.wall.max(header.accepted_at), ..first }),
    }
}

/// A record as a line of the dead letters.
pub(super) fn dead_letter(
    drain: &Drain,
    record: &Record,
    cause: &Cause,
    now: Now,
) -> io::Result<Vec<u8>> {
    let letter = DeadLetter {
        at: rfc3339(now.wall),
        event: serde_json::from_slice(record.json())?,
        occurred_at: rfc3339(record.header.occurred_at),
        reason: cause.kind.as_str(),
        status: cause.status,
        message: &cause.message,
        attempts: cause.attempts,
        uncertain: cause.uncertain,
        by_group: cause.by_group,
        spool: &drain.name().0,
        seq: record.header.seq,
    };
    Ok(serde_json::to_vec(&letter)?)
}
