//! What callers were promised, and whether it holds.
//!
//! Each call carries a number in its metadata, so that it is known again wherever it turns up: in a
//! request, in a segment, among the dead letters. Nothing here reads the disk through the core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk::Machine;
use super::process::NAMESPACE;
use super::server::{Server, caller_data};

/// The number that a call carries.
pub(crate) type Number = u64;

const MINUTE_MS: i64 = 60_000;
const SECOND_MS: i64 = 1_000;
const SEGMENT_HEADER: usize = 40;
const RECORD_HEADER: usize = 44;

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
}

#[derive(Debug)]
pub(crate) struct Oracle {
    bounds: Bounds,
    calls: Vec<Call>,
    /// Accepted, and neither billed nor set aside nor excused.
    open: BTreeSet<Number>,
    /// Handed over more than once, with one id.
    again: BTreeSet<Number>,
    /// Damaged on the disk, and where.
    damaged: BTreeMap<Number, PathBuf>,
    /// Set aside, and whether for certain.
    dead: BTreeMap<Number, bool>,
    /// Set aside with others of their customer.
    by_group: BTreeSet<Number>,
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
            damaged: BTreeMap::new(),
            dead: BTreeMap::new(),
            by_group: BTreeSet::new(),
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

    /// The customers of whom calls were set aside by themselves that the server takes.
    pub(crate) fn customers_set_aside(&self) -> BTreeSet<String> {
        let alone = self.dead.keys().filter(|number| !self.by_group.contains(number));
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

    /// A range of a segment was damaged, which held `before`.
    pub(crate) fn excuse_damage(&mut self, path: &Path, before: &[u8], range: &Range<u64>) {
        let range = range.start as usize..range.end as usize;
        let mut at = SEGMENT_HEADER;
        let header = range.start < SEGMENT_HEADER;
        while let Some(length) = before.get(at..at + 4) {
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            let end = (at + RECORD_HEADER).saturating_add(length).min(before.len());
            if header || (at < range.end && end > range.start) {
                for number in numbers(&before[at..end]) {
                    self.open.remove(&number);
                    self.calls[number as usize].excused = true;
                    self.damaged.insert(number, path.to_owned());
                }
            }
            at = end.max(at + 1);
        }
    }

    /// Holds what lies on the disk against what was promised.
    pub(crate) fn look(&mut self, machine: &Machine) {
        self.read_dead_letters(machine);
        let paths = machine.paths();
        let mut found = BTreeSet::new();
        let mut bytes = 0;
        for path in paths.iter().filter(|path| path.starts_with(NAMESPACE)) {
            let Some(contents) = machine.read(path) else { continue };
            bytes += contents.len() as u64;
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if name.starts_with("segment-") {
                found.extend(numbers(&contents));
            } else if name == "cursor" {
                self.look_at_cursor(path, &contents);
            }
        }
        if bytes > self.bounds.disk_bytes {
            let most = self.bounds.disk_bytes;
            self.violated(format!("{bytes} bytes on the disk, of {most} allowed"));
        }
        self.look_for_what_was_damaged(&paths);
        let missing: Vec<Number> = self.open.difference(&found).copied().collect();
        if let Some(number) = missing.first() {
            let count = missing.len();
            self.violated(format!("{count} accepted calls are nowhere, the first is {number}"));
        }
    }

    /// What was damaged is billed all the same, or lies where it was, or in quarantine.
    fn look_for_what_was_damaged(&mut self, paths: &[PathBuf]) {
        let names = |path: &Path| {
            let name = |part: Option<&std::ffi::OsStr>| {
                part.map(|name| name.to_string_lossy().into_owned())
            };
            Some((name(path.parent()?.file_name())?, name(path.file_name())?))
        };
        let kept: Vec<String> = paths
            .iter()
            .filter_map(|path| names(path))
            .filter_map(|(dir, name)| (dir == "quarantine").then_some(name))
            .collect();
        let gone = |(number, path): &(&Number, &PathBuf)| {
            let Some((spool, segment)) = names(path) else { return false };
            let segment = segment.trim_start_matches("segment-");
            self.calls[**number as usize].billed_as.is_none()
                && !self.dead.contains_key(number)
                && !paths.contains(path)
                && !kept.iter().any(|name| name.starts_with(&format!("{spool}-{segment}-")))
        };
        let gone: Vec<Number> =
            self.damaged.iter().filter(gone).map(|(number, _)| *number).collect();
        if let Some(number) = gone.first() {
            self.violated(format!("call {number} was damaged, and its bytes were not kept"));
        }
    }

    fn look_at_cursor(&mut self, path: &Path, contents: &[u8]) {
        let whole = |slot: &&[u8]| {
            slot.len() == 32 && crc32c::crc32c(&slot[..28]).to_le_bytes() == slot[28..32]
        };
        let settled = |slot: &[u8]| slot[..8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let Some(now) = contents.chunks(32).filter(whole).map(settled).max() else { return };
        let before = self.cursors.insert(path.to_owned(), now).unwrap_or(0);
        if now < before {
            self.violated(format!("a cursor went back from {before} to {now}"));
        }
    }

    fn read_dead_letters(&mut self, machine: &Machine) {
        let path = Path::new(NAMESPACE).join("dead-letters.jsonl");
        let Some(contents) = machine.read(&path) else { return };
        let from = self.dead_letters_read.min(contents.len());
        let whole = contents[from..].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.dead_letters_read = from + whole;
        for line in contents[from..from + whole].split(|byte| *byte == b'\n') {
            // A line that a crash cut is followed by its whole.
            let Ok(letter) = serde_json::from_slice::<Value>(line) else { continue };
            let Some(number) = letter["event"]["metadata"]["n"].as_u64() else { continue };
            let certain = letter["uncertain"] == false;
            let call = &self.calls[number as usize];
            let billed = call.billed_as.is_some();
            if letter["by_group"] == true {
                self.by_group.insert(number);
            }
            if call.end == End::Kept || (call.end == End::Billed && letter["reason"] != "rejected")
            {
                self.violated(format!("call {number} was set aside: {letter}"));
            }
            if certain && billed && !self.again.contains(&number) {
                self.violated(format!("call {number} was billed, and set aside for certain"));
            }
            let known = self.dead.entry(number).or_insert(certain);
            *known |= certain;
            self.open.remove(&number);
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
            self.calls[**number as usize].end == End::Billed && !self.by_group.contains(number)
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
    let colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':');
    for (colon, _) in colons {
        let after = colon + 1;
        if !bytes[..after].ends_with(KEY) {
            continue;
        }
        let digits = bytes[after..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = String::from_utf8_lossy(&bytes[after..after + digits]);
        // What is damaged may hold any number.
        found.extend(text.parse::<Number>().ok().filter(|_| digits < 10));
    }
    found
}
