//! What callers were promised, and whether it holds.
//!
//! Each call carries a number in its metadata, so that it is known again wherever it turns up: in a
//! request, in a segment, among the dead letters. Nothing here reads the disk through the core.

mod look;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use memchr::memmem;
use serde_json::Value;

use super::disk::Machine;
use super::server::{Server, caller_data};
use crate::error::ErrorKind;

/// The number that a call carries.
pub(crate) type Number = u64;

const MINUTE_MS: i64 = 60_000;
const SECOND_MS: i64 = 1_000;

/// What becomes of a call in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Billed,
    /// Refused by the server whenever it is sent.
    Refused,
    /// The server fails whenever it is sent.
    Kept,
}

#[derive(Debug)]
struct Call {
    data: Value,
    end: End,
    accepted: bool,
    /// The disk may have lost it.
    excused: bool,
    billed_as: Option<String>,
}

/// The limits that hold at every moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) per_minute: usize,
    pub(crate) per_second: usize,
    pub(crate) disk_bytes: u64,
    /// Whether all that is refused is set aside in the end: there is room, and somebody else is taken.
    pub(crate) letters_fit: bool,
    /// Whether what is too old for the server is set aside.
    pub(crate) late_is_set_aside: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    bounds: Bounds,
    calls: Vec<Call>,
    /// Accepted, and neither billed nor set aside nor excused.
    open: BTreeSet<Number>,
    /// Handed over more than once, with one id.
    again: BTreeSet<Number>,
    /// Billed, which the disk may have forgotten, and not the call.
    forgotten: BTreeSet<Number>,
    /// Damaged on the disk, and where.
    damaged: BTreeMap<Number, PathBuf>,
    /// Segments whose header was damaged.
    headless: BTreeSet<PathBuf>,
    /// Set aside, and whether for certain.
    dead: BTreeMap<Number, bool>,
    /// Set aside with others of their customer.
    by_group: BTreeSet<Number>,
    /// Set aside for their age.
    late: BTreeSet<Number>,
    dead_letters_read: usize,
    cursors: BTreeMap<PathBuf, u64>,
    starts: VecDeque<i64>,
    /// Until then a new sender may not know of all starts.
    budget_unknown_until: i64,
    pub(crate) violations: Vec<String>,
    pub(crate) requests: u64,
}

impl Oracle {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            calls: Vec::new(),
            open: BTreeSet::new(),
            again: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            damaged: BTreeMap::new(),
            headless: BTreeSet::new(),
            dead: BTreeMap::new(),
            by_group: BTreeSet::new(),
            late: BTreeSet::new(),
            dead_letters_read: 0,
            cursors: BTreeMap::new(),
            starts: VecDeque::new(),
            budget_unknown_until: i64::MIN,
            violations: Vec::new(),
            requests: 0,
        }
    }

    fn violated(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(crate) fn next_number(&self) -> Number {
        self.calls.len() as Number
    }

    /// A caller is about to hand a call over; `data` is the event as it is to be billed, without its
    /// timestamp and id.
    pub(crate) fn attempted(&mut self, data: Value, end: End) {
        let (accepted, excused, billed_as) = (false, false, None);
        self.calls.push(Call { data, end, accepted, excused, billed_as });
    }

    /// A caller saw it accepted.
    pub(crate) fn accepted(&mut self, number: Number) {
        let call = &mut self.calls[number as usize];
        call.accepted = true;
        if call.billed_as.is_none() && !self.dead.contains_key(&number) {
            call.excused = false;
            self.open.insert(number);
        }
    }

    /// The caller handed it over before.
    pub(crate) fn attempted_again(&mut self, number: Number) {
        self.again.insert(number);
    }

    pub(crate) fn count_accepted(&self) -> u64 {
        self.calls.iter().filter(|call| call.accepted).count() as u64
    }

    pub(crate) fn count_billed(&self) -> u64 {
        self.calls.iter().filter(|call| call.billed_as.is_some()).count() as u64
    }

    pub(crate) fn count_late(&self) -> u64 {
        self.late.len() as u64
    }

    /// The customers of whom calls were set aside by themselves that the server takes, and not for their age.
    pub(crate) fn customers_set_aside(&self) -> BTreeSet<String> {
        let otherwise =
            |number: &&Number| self.by_group.contains(number) || self.late.contains(number);
        let alone = self.dead.keys().filter(|number| !otherwise(number));
        let calls = alone.map(|number| &self.calls[*number as usize]);
        let taken = calls.filter(|call| call.end == End::Billed);
        taken.map(|call| call.data["customer_id"].to_string()).collect()
    }

    /// What is still to be billed or set aside.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = Number> {
        let ends = |number: &&Number| match self.calls[**number as usize].end {
            End::Billed => true,
            End::Refused => self.bounds.letters_fit,
            End::Kept => false,
        };
        self.open.iter().filter(ends).copied()
    }

    /// A request was sent.
    pub(crate) fn started(&mut self, now: i64) {
        self.requests += 1;
        self.starts.push_back(now);
        while self.starts.front().is_some_and(|start| start + MINUTE_MS <= now) {
            self.starts.pop_front();
        }
        if now < self.budget_unknown_until {
            return;
        }
        let in_second = self.starts.iter().filter(|start| **start + SECOND_MS > now).count();
        if self.starts.len() > self.bounds.per_minute || in_second > self.bounds.per_second {
            let in_minute = self.starts.len();
            self.violated(format!("{in_minute} requests in a minute, {in_second} in a second"));
        }
    }

    /// The clocks were set, or the disk failed: what is known of earlier starts may be wrong.
    pub(crate) fn budget_is_unknown(&mut self, now: i64) {
        self.budget_unknown_until = now + MINUTE_MS + SECOND_MS;
    }

    /// The server took a request: these are the ids that it held.
    pub(crate) fn taken(&mut self, server: &Server, ids: &[String]) {
        for id in ids {
            let Some(commits) = server.billed.get(id) else { continue };
            // The API forgets; what a caller hands over twice a day apart it may bill twice.
            let again = commits[0].event["metadata"]["n"]
                .as_u64()
                .is_some_and(|number| self.again.contains(&number));
            if commits.len() > 1 && !again {
                self.violated(format!("{id} was billed {} times", commits.len()));
            }
            let event = caller_data(&commits[0].event);
            let Some(number) = event["metadata"]["n"].as_u64() else {
                self.violated(format!("billed and never tracked: {event}"));
                continue;
            };
            let Some(call) = self.calls.get_mut(number as usize) else {
                self.violated(format!("billed and never tracked: {event}"));
                continue;
            };
            match &call.billed_as {
                Some(known) if known != id => {
                    let known = known.clone();
                    self.violated(format!("call {number} was billed as {known} and as {id}"));
                    continue;
                }
                Some(_) => continue,
                None => call.billed_as = Some(id.clone()),
            }
            let mut data = event;
            if let Some(fields) = data.as_object_mut() {
                fields.remove("event_id");
            }
            if data != call.data {
                let expected = call.data.clone();
                self.violated(format!("call {number} was {expected} and was billed as {data}"));
            }
            self.open.remove(&number);
            if self.dead.get(&number) == Some(&true) && !self.again.contains(&number) {
                self.violated(format!("call {number} was set aside for certain, and billed"));
            }
        }
    }

    /// The power was lost: what was not synced may be gone.
    pub(crate) fn excuse_all(&mut self) {
        let billed = (0..).zip(&self.calls).filter(|(_, call)| call.billed_as.is_some());
        self.forgotten.extend(billed.map(|(number, _)| number));
        for number in std::mem::take(&mut self.open) {
            self.calls[number as usize].excused = true;
        }
        self.damaged.clear();
    }

    /// The disk may have gone back in time.
    pub(crate) fn look_again(&mut self) {
        self.cursors.clear();
        self.dead_letters_read = 0;
    }

    /// A caller was told what became of a call.
    pub(crate) fn told(
        &mut self,
        machine: &Machine,
        number: Number,
        verdict: Result<(), ErrorKind>,
    ) {
        let call = &self.calls[number as usize];
        let (billed, lost) = (call.billed_as.is_some(), call.excused);
        let lost = lost || self.damaged.contains_key(&number);
        let holds = match verdict {
            Ok(()) => billed,
            Err(ErrorKind::Rejected | ErrorKind::TooLarge) => {
                self.read_dead_letters(machine);
                self.dead.contains_key(&number)
            }
            Err(ErrorKind::Storage) => lost,
            Err(_) => false,
        };
        if !holds {
            let aside = self.dead.contains_key(&number);
            self.violated(format!(
                "the caller of {number} was told {verdict:?}: billed {billed}, set aside {aside}, \
                 lost {lost}"
            ));
        }
    }

    /// After the faults have stopped and everything had its time.
    pub(crate) fn finish(&mut self, blames_right: bool) {
        let left: Vec<Number> = self.unfinished().collect();
        if let Some(number) = left.first() {
            let call = &self.calls[*number as usize];
            let text = format!(
                "{} calls came to no end, the first is {number} ({:?}, {})",
                left.len(),
                call.end,
                call.data
            );
            self.violated(text);
        }
        // Of a customer of whom several calls are refused, others may be set aside with them.
        let wrong = |number: &&Number| {
            self.calls[**number as usize].end == End::Billed
                && !self.by_group.contains(number)
                && !self.late.contains(number)
        };
        let wrongly: Vec<Number> =
            self.dead.keys().filter(wrong).filter(|_| blames_right).copied().collect();
        for number in wrongly {
            self.violated(format!("call {number} was set aside though the server takes it"));
        }
    }
}

/// The numbers of the calls in some bytes.
pub(super) fn numbers(bytes: &[u8]) -> Vec<Number> {
    const KEY: &[u8] = b"\"n\":";
    let mut found = Vec::new();
    for at in memmem::find_iter(bytes, KEY) {
        let after = at + KEY.len();
        let digits = bytes[after..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = String::from_utf8_lossy(&bytes[after..after + digits]);
        // What is damaged may hold any number.
        found.extend(text.parse::<Number>().ok().filter(|_| digits < 10));
    }
    found
}
