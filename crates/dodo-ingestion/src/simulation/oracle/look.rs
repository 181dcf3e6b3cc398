//! The disk, as it lies there at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{End, Number, Oracle, numbers};
use crate::simulation::disk::Machine;
use crate::simulation::process::NAMESPACE;

const SEGMENT_HEADER: usize = 40;
const RECORD_HEADER: usize = 48;
const ZEROS: [u8; 1024] = [0; 1024];

impl Oracle {
    /// A range of a segment was damaged, which held `before`.
    pub(crate) fn excuse_damage(&mut self, path: &Path, before: &[u8], range: &Range<u64>) {
        let range = range.start as usize..range.end as usize;
        let header = range.start < SEGMENT_HEADER;
        if header {
            self.headless.insert(path.to_owned());
        }
        for (_, record) in records(before) {
            if header || (record.start < range.end && record.end > range.start) {
                for number in numbers(&before[record]) {
                    self.open.remove(&number);
                    self.calls[number as usize].excused = true;
                    self.damaged.insert(number, path.to_owned());
                }
            }
        }
    }

    /// What was accepted into a segment without a right header, until its owner sees that, is damaged with it.
    pub(crate) fn excuse_headless(&mut self, machine: &Machine, spool: &Path, number: Number) {
        if !self.headless.iter().any(|path| path.starts_with(spool)) {
            return;
        }
        let is_segment = |path: &PathBuf| path.to_string_lossy().contains("/segment-");
        let paths = machine.paths().into_iter();
        let last = paths.filter(|path| path.starts_with(spool) && is_segment(path)).max();
        if let Some(path) = last.filter(|path| self.headless.contains(path)) {
            self.open.remove(&number);
            self.calls[number as usize].excused = true;
            self.damaged.insert(number, path);
        }
    }

    /// Holds what lies on the disk against what was promised.
    pub(crate) fn look(&mut self, machine: &Machine) {
        self.read_dead_letters(machine);
        let paths = machine.paths();
        let (mut segments, mut settled) = (Vec::new(), BTreeMap::new());
        let mut bytes = 0;
        for path in paths.iter().filter(|path| path.starts_with(NAMESPACE)) {
            let Some(contents) = machine.read(path) else { continue };
            bytes += contents.len() as u64;
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if name.starts_with("segment-") {
                segments.push((path.parent(), contents));
            } else if name == "cursor" {
                settled.insert(path.parent(), self.look_at_cursor(path, &contents));
            }
        }
        let mut found = BTreeSet::new();
        for (spool, contents) in &segments {
            // What the cursor has passed will not be sent, wherever its bytes lie.
            let settled = settled.get(spool).copied().unwrap_or(0);
            let spooled = records(contents).into_iter().filter(|(seq, _)| *seq >= settled);
            found.extend(spooled.flat_map(|(_, range)| numbers(&contents[range])));
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

    /// Returns how far the spool is settled.
    fn look_at_cursor(&mut self, path: &Path, contents: &[u8]) -> u64 {
        let whole = |slot: &&[u8]| {
            slot.len() == 32 && crc32c::crc32c(&slot[..28]).to_le_bytes() == slot[28..32]
        };
        let settled = |slot: &[u8]| slot[..8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let Some(now) = contents.chunks(32).filter(whole).map(settled).max() else { return 0 };
        let before = self.cursors.insert(path.to_owned(), now).unwrap_or(0);
        if now < before {
            self.violated(format!("a cursor went back from {before} to {now}"));
        }
        now
    }

    pub(super) fn read_dead_letters(&mut self, machine: &Machine) {
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
            // No server has refused it.
            let is_late = self.bounds.late_is_set_aside && letter["status"].is_null();
            if is_late {
                self.late.insert(number);
            }
            let is_wrong = call.end == End::Kept && !is_late
                || call.end == End::Billed && letter["reason"] != "rejected";
            if is_wrong {
                self.violated(format!("call {number} was set aside: {letter}"));
            }
            let is_known = billed && !self.forgotten.contains(&number);
            if certain && is_known && !self.again.contains(&number) {
                self.violated(format!("call {number} was billed, and set aside for certain"));
            }
            let known = self.dead.entry(number).or_insert(certain);
            *known |= certain;
            self.open.remove(&number);
        }
    }
}

/// The whole records of a segment: their sequence numbers, and where they lie. What is damaged is
/// passed, byte by byte.
fn records(segment: &[u8]) -> Vec<(u64, Range<usize>)> {
    let number = |at: usize, bytes: usize| {
        let bytes = segment.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let whole = |at: usize| {
        // Most of what is none is the room for records that were never written.
        if !matches!(segment.get(at + 44), Some(1 | 2)) {
            return None;
        }
        let end = (at + RECORD_HEADER).saturating_add(number(at, 4)? as usize);
        let (rest, crc) = (segment.get(at + 8..end)?, number(at + 4, 4)?);
        let salted = crc32c::crc32c_append(crc32c::crc32c(segment.get(12..16)?), rest);
        let is_right = u64::from(crc32c::crc32c_append(salted, &segment[at..at + 4])) == crc;
        is_right.then_some((number(at + 8, 8)?, at..end))
    };
    let empty = segment.rchunks(ZEROS.len()).take_while(|chunk| ZEROS.starts_with(chunk)).count();
    let end = segment.len().saturating_sub(empty * ZEROS.len());
    let (mut found, mut at) = (Vec::new(), SEGMENT_HEADER);
    while at < end && at + RECORD_HEADER <= segment.len() {
        let record = whole(at);
        at = record.as_ref().map_or(at + 1, |(_, range)| range.end);
        found.extend(record);
    }
    found
}
