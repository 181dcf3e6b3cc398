//! A segment that is being read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Seq;
use super::format::{
    Header, Parsed, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentInfo,
    is_whole_but_for_its_length, parse_record,
};
use super::reader::{Record, segment_name};
use crate::disk::{Disk, DiskFile};

/// How much of a file is read at once. Little where it is tested, so that records lie across two.
const CHUNK_BYTES: usize = if cfg!(any(test, fuzzing)) { 4 << 10 } else { 64 << 10 };

/// No owner writes half as much into one segment. What lies beyond it in a file is not looked at.
pub(super) const MAX_SEGMENT_BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) info: SegmentInfo,
    file: Arc<dyn DiskFile>,
    /// Where the file ended when that was asked; `None` before it is.
    end: Option<u64>,
    /// Where in the file `bytes` begins.
    offset: u64,
    bytes: Vec<u8>,
    /// How much of `bytes` was parsed.
    parsed: usize,
    /// The last record that was parsed.
    last: Option<Seq>,
    /// All of it was read, and nothing comes after it.
    pub(super) is_whole: bool,
}

impl OpenSegment {
    pub(super) fn new(info: SegmentInfo, file: Arc<dyn DiskFile>) -> Self {
        Self {
            info,
            file,
            end: None,
            offset: SEGMENT_HEADER_BYTES as u64,
            bytes: Vec::new(),
            parsed: 0,
            last: None,
            is_whole: false,
        }
    }

    /// Where in the file the next record begins.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.parsed as u64
    }

    /// Lets the file have become longer.
    pub(super) fn look_for_more(&mut self) {
        self.end = None;
    }

    /// Whether another file has its name now. An owner whose segment was removed before it had a record
    /// begins it anew; one with records is never begun anew.
    pub(super) fn was_begun_anew(&self, disk: &dyn Disk, dir: &Path) -> bool {
        let by_name = || disk.identify(&dir.join(segment_name(self.info.first_seq)));
        self.last.is_none()
            && matches!((by_name(), self.file.identify()), (Ok(by_name), Ok(open)) if by_name != open)
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.parsed..).unwrap_or_default()
    }

    /// What was read and is no record, without the room for records that were never written.
    pub(super) fn leftover(&self) -> &[u8] {
        let rest = self.rest();
        let used =
            |rest: &[u8]| rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if self.info.is_mapped { &rest[..used(rest)] } else { rest }
    }

    /// Whether what was read and is no whole record was one once. Through memory a length is written last;
    /// what is appended comes in one piece.
    pub(super) fn was_whole(&self) -> bool {
        let bytes = self.leftover();
        let has_length = bytes.len() >= RECORD_HEADER_BYTES && bytes[..4] != [0; 4];
        has_length && (self.info.is_mapped || is_whole_but_for_its_length(bytes, self.info.salt))
    }

    /// Whether no one has begun to write a record behind those that were read.
    pub(super) fn has_nothing_more(&self) -> bool {
        self.rest().iter().all(|byte| *byte == 0)
    }

    pub(super) fn parse(&self) -> Parsed {
        match parse_record(self.rest(), self.info.salt) {
            // What is appended has its length from the start.
            Parsed::Uncommitted if !self.info.is_mapped => Parsed::Bad,
            parsed => parsed,
        }
    }

    pub(super) fn take(&mut self, header: Header) -> Record {
        let body = &self.rest()[RECORD_HEADER_BYTES..header.frame_len()]; // `parse` saw it whole
        let record = Record::new(header, body);
        self.parsed += header.frame_len();
        self.last = Some(header.seq);
        record
    }

    /// Reads more of the file, up to where it ended when that was first asked: an owner that goes on
    /// appending would else be followed record by record. False when there is no more.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.is_whole {
            return Ok(false);
        }
        self.bytes.drain(..self.parsed);
        self.offset += self.parsed as u64;
        self.parsed = 0;
        let old = self.bytes.len();
        let at = self.offset + old as u64;
        let end = match self.end {
            Some(end) => end,
            None => *self.end.insert(self.file.len()?.min(MAX_SEGMENT_BYTES)),
        };
        let there = end.saturating_sub(at).min(CHUNK_BYTES as u64) as usize;
        self.bytes.resize(old + there, 0);
        let read = self.file.read_at(&mut self.bytes[old..], at);
        self.bytes.truncate(old + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }

    pub(super) fn forget_rest(&mut self) {
        self.bytes.truncate(self.parsed);
    }

    /// Reads again what was read and is no record.
    pub(super) fn read_again(&mut self) -> io::Result<()> {
        self.forget_rest();
        self.end = None;
        while self.fill()? {}
        Ok(())
    }

    /// Whether the living owner wrote a record behind what is no record. What was appended is there in
    /// the order in which it was; what was written through memory may be seen in another, but only in
    /// one look.
    pub(super) fn may_be_damaged(&self) -> bool {
        !self.info.is_mapped || self.next_whole().is_some()
    }

    /// Skips to the next whole record that can follow the last one of this segment, settled or not,
    /// so that every reader skips the same. Returns what was skipped, and that record's number.
    pub(super) fn skip_to_next_whole(&mut self) -> Option<(Vec<u8>, Seq)> {
        let (skipped, seq) = self.next_whole()?;
        let bytes = self.rest()[..skipped].to_vec();
        self.parsed += skipped;
        Some((bytes, seq))
    }

    /// How far away that record is, and its number.
    fn next_whole(&self) -> Option<(usize, Seq)> {
        let rest = self.rest();
        let last_start = rest.len().checked_sub(RECORD_HEADER_BYTES)?;
        let follows = |seq| self.last.is_none_or(|last| seq > last);
        (1..=last_start).find_map(|start| match parse_record(&rest[start..], self.info.salt) {
            Parsed::Whole(header) if follows(header.seq) => Some((start, header.seq)),
            _ => None,
        })
    }
}
