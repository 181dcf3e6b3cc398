//! What of a record the delivery logic and the dead letters hold.

use std::io;

use crate::clock::{HOUR_MS, Now, WallMs, rfc3339};
use crate::delivery::{Cause, Meta, id_hash};
use crate::planted::{Fault, is_planted};
use crate::spool::{Cursor, DeadLetter, Drain, Kind, Record, seal};

/// By so much a clock may have been set back since another sender looked at it, as where a time zone was taken
/// for another.
const MOST_SET_BACK_MS: i64 = 11 * HOUR_MS;

/// When a record was sent that another sender attempted, at the earliest.
fn sent_by_another(attempted_since: WallMs, accepted_at: WallMs, now: Now) -> Now {
    // Nothing is sent before it is accepted.
    let at = attempted_since.max(accepted_at);
    // Where that is still to come the clock was set back, and nobody knows by how much.
    let wall = if is_planted(Fault::TrustTheClock) {
        at
    } else if at > now.wall {
        0
    } else {
        at - MOST_SET_BACK_MS
    };
    Now { wall, ..now }
}

/// What delivery needs to know of a record, given when this sender first attempted something of its spool.
pub(super) fn meta(record: &Record, cursor: Cursor, own: Option<Now>, now: Now) -> Meta {
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
        maybe_sent: attempted.then(|| {
            own.unwrap_or_else(|| sent_by_another(cursor.attempted_since, header.accepted_at, now))
        }),
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
    let mut line = serde_json::to_vec(&letter)?;
    seal(&mut line);
    Ok(line)
}
