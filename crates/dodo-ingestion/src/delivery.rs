//! Delivery: which records go into which request, when, and what an answer means.
//!
//! [`Delivery`] is a state machine. It does no I/O, reads no clock and draws randomness from a seed:
//! the engine feeds it [`Input`]s and carries out its [`Action`]s over a real disk and network, and
//! a test or a simulator does the same over made-up ones.
//!
//! # Invariants
//!
//! * At most one request is under way.
//! * A record is in exactly one place: waiting in its spool's queue, among the suspects, apart, to be
//!   looked up, parked, to be written among the dead letters, or in the request. It leaves by [`Action::Settle`] or [`Action::SetAside`] only.
//! * Before a record is first sent, [`Action::RecordAttempt`] was carried out for it.
//! * No request carries one event id twice.
//!
//! # What it must not know
//!
//! Files, sockets, what a record's bytes say, or that threads exist.

mod answer;
mod body;
mod budget;
mod machine;
mod queue;
mod refusal;
mod size;
mod stamp;

pub(crate) use answer::{Answer, Failure, Response, ResponseHeaders};
pub(crate) use body::RequestBody;
pub(crate) use machine::{Delivery, Settings};
pub(crate) use stamp::{Stamp, StampBase};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    answer::{Failing, HoldReason, LookupVerdict, Verdict, judge, judge_lookup},
    stamp::Skew,
};

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::alarm::AlarmKind;
use crate::clock::{Now, WallMs};
use crate::error::ErrorKind;
use crate::spool::Seq;

/// The engine's number for a spool. Never used again for another.
pub(crate) type SpoolId = u32;
/// Ties an [`Action`] to the [`Input`] that reports on it.
pub(crate) type Token = u64;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordRef {
    pub(crate) spool: SpoolId,
    pub(crate) seq: Seq,
}

/// What delivery needs to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) seq: Seq,
    /// The event's JSON, without its timestamp.
    pub(crate) json_bytes: usize,
    pub(crate) accepted_at: WallMs,
    pub(crate) occurred_at: WallMs,
    pub(crate) delay_ms: u32,
    pub(crate) id_hash: u64,
    /// The same for the same customer and event name.
    pub(crate) group: u64,
    /// A request for everything before it to be sent, not an event.
    pub(crate) flush: bool,
    /// When it may first have been sent, if it was, before it was read.
    pub(crate) maybe_sent: Option<Now>,
}

/// By which one id is told from another, without holding it.
pub(crate) fn id_hash(event_id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    event_id.hash(&mut hasher);
    hasher.finish()
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// Time passed, or records may have been added.
    Tick,
    /// A spool's next records, in order. An unknown spool is new.
    Available { spool: SpoolId, metas: Vec<Meta> },
    /// A [`Action::RecordAttempt`] or [`Action::SetAside`] was carried out, or could not be.
    Stored { token: Token, ok: bool },
    /// A request or look-up came to an end.
    Answer { request: Token, answer: Answer },
    /// The API key or another setting of the connection is a new one.
    KeyChanged,
    /// A spool was removed.
    SpoolGone { spool: SpoolId },
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Report up to so many further records, and about so many bytes, of this spool as
    /// [`Input::Available`].
    Read { spool: SpoolId, records: usize, bytes: usize },
    /// Write down that records below these positions are being sent.
    RecordAttempt { token: Token, ends: Vec<RecordRef> },
    /// Send these records as one request.
    Send { request: Token, records: Vec<RecordRef>, stamps: StampBase },
    /// Ask the API whether it knows the event of this record.
    Lookup { request: Token, record: RecordRef },
    /// These records are done with.
    Settle { records: Vec<RecordRef> },
    /// Put a record among the dead letters; then it is done with.
    SetAside { token: Token, record: RecordRef, cause: Cause },
    /// Tell the operator.
    Alarm { kind: AlarmKind, message: String },
}

/// What keeps calls from being taken. None of it loses any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The API key is refused, with this status.
    KeyRefused { status: u16 },
    /// The address is wrong, or something stands between.
    WrongAddress,
    /// Several requests failed in a row.
    Unreachable,
    /// Calls of many customers were refused and none is taken.
    Systemic,
}

/// Why a record is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) kind: ErrorKind,
    pub(crate) status: Option<u16>,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    /// Whether it may have been billed all the same.
    pub(crate) uncertain: bool,
    /// It was refused together with others of its customer, after some had been refused alone.
    pub(crate) by_group: bool,
}

impl Cause {
    /// Of a record alone; how often it was sent is added when it is set aside.
    fn new(kind: ErrorKind, status: Option<u16>, message: &str) -> Self {
        let message = message.to_owned();
        Self { kind, status, message, attempts: 0, uncertain: false, by_group: false }
    }
}
