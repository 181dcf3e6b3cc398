//! Reads a spool's records in order, while its owner may be writing.
//!
//! A record that is not whole in the highest segment of a living owner is *not yet* there. In any
//! other segment it is the end of the segment: its append never succeeded. Bytes that were written
//! whole and read back wrong are damage: they are handed out for quarantine, and count as passed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Seq;
use super::format::{
    Header, Parsed, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, parse_record,
    parse_segment_header,
};
use crate::disk::{Disk, DiskFile, Open};

const CHUNK_BYTES: usize = 256 << 10;

/// A record and its body.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) header: Header,
    body: Box<[u8]>,
}

impl Record {
    pub(crate) fn event_id(&self) -> &[u8] {
        self.body.get(..self.header.id_len.into()).unwrap_or_default()
    }

    /// Frees the memory of a record that is only remembered for its place.
    pub(crate) fn discard_body(&mut self) {
        self.body = Box::default();
    }

    /// The event as it is sent, without its timestamp.
    pub(crate) fn json(&self) -> &[u8] {
        self.body.get(self.header.id_len.into()..).unwrap_or_default()
    }
}

/// A range of a segment that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) segment: Seq,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// How many records it held; at least so many where that is not known.
    pub(crate) records: u64,
}

/// What one read found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    pub(crate) damage: Vec<Damage>,
    /// The version of a segment that this code is too old to read; reading stops before it.
    pub(crate) newer: Option<u16>,
    /// There is nothing after what was found, and there never will be.
    pub(crate) exhausted: bool,
}

#[derive(Debug)]
pub(crate) struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The sequence number that is expected next.
    next: Seq,
    open: Option<OpenSegment>,
    passed: Option<Seq>,
}

#[derive(Debug)]
struct OpenSegment {
    first: Seq,
    salt: u32,
    file: Arc<dyn DiskFile>,
    /// Where in the file `bytes` begins.
    offset: u64,
    bytes: Vec<u8>,
    /// How much of `bytes` was parsed.
    parsed: usize,
}

pub(crate) fn segment_name(first: Seq) -> String {
    format!("segment-{first:016x}")
}

/// The first sequence numbers of a spool's segments, in order.
pub(crate) fn segments(disk: &dyn Disk, dir: &std::path::Path) -> io::Result<Vec<Seq>> {
    let mut firsts: Vec<Seq> = disk
        .list(dir)?
        .iter()
        .filter_map(|name| Seq::from_str_radix(name.strip_prefix("segment-")?, 16).ok())
        .collect();
    firsts.sort_unstable();
    Ok(firsts)
}

impl Reader {
    /// A reader that begins at the record `next`.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, next: Seq) -> Self {
        Self { disk, dir, next, open: None, passed: None }
    }

    /// The sequence number after the last record that was handed out.
    pub(crate) fn position(&self) -> Seq {
        self.next
    }

    /// The first sequence number of the segment that was last read to its end.
    pub(crate) fn passed(&self) -> Option<Seq> {
        self.passed
    }

    /// Reads until there are so many records or bytes, or no more for now.
    pub(crate) fn read(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        owner_alive: bool,
    ) -> io::Result<Found> {
        let mut found = Found::default();
        let mut bytes = 0;
        while found.records.len() < max_records && bytes < max_bytes {
            if self.open.is_none() && !self.open_next(owner_alive, &mut found)? {
                break;
            }
            let Some(segment) = &mut self.open else { continue };
            match segment.parse() {
                Parsed::Whole(header) => {
                    let record = segment.take(header);
                    if header.seq < self.next {
                        continue;
                    }
                    self.expect(header.seq, &mut found);
                    self.next = header.seq + 1;
                    bytes += header.frame_len();
                    found.records.push(record);
                }
                parsed => {
                    if segment.fill(CHUNK_BYTES)? {
                        continue;
                    }
                    if !self.end_of_file(&parsed, owner_alive, &mut found)? {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Notes the records between the one that is expected and the one that is there.
    fn expect(&mut self, seq: Seq, found: &mut Found) {
        let missing = seq.saturating_sub(self.next);
        if missing == 0 {
            return;
        }
        match found.damage.last_mut() {
            Some(damage) => damage.records = damage.records.max(missing),
            None => found.damage.push(Damage {
                segment: self.open.as_ref().map_or(seq, |segment| segment.first),
                offset: 0,
                bytes: Vec::new(),
                records: missing,
            }),
        }
        self.next = seq;
    }

    /// Opens the segment that holds the next record. False when there is none for now.
    fn open_next(&mut self, owner_alive: bool, found: &mut Found) -> io::Result<bool> {
        let firsts = segments(&*self.disk, &self.dir)?;
        let after_passed = |first: &&Seq| self.passed.is_none_or(|passed| **first > passed);
        let mut candidates = firsts.iter().filter(after_passed);
        let holding = candidates.clone().rev().find(|first| **first <= self.next);
        let Some(&first) = holding.or_else(|| candidates.next()) else {
            found.exhausted = !owner_alive;
            return Ok(false);
        };
        let last = firsts.last() == Some(&first);
        let file = match self.disk.open(&self.dir.join(segment_name(first)), Open::Read) {
            // Unlinked since it was listed: settled.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.passed = Some(first);
                return Ok(true);
            }
            other => other?,
        };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(&mut header, 0)?;
        match parse_segment_header(&header[..read]) {
            SegmentHeader::Readable { first_seq, salt } if first_seq == first => {
                let offset = SEGMENT_HEADER_BYTES as u64;
                let (bytes, parsed) = (Vec::new(), 0);
                self.open = Some(OpenSegment { first, salt, file, offset, bytes, parsed });
                // A segment that is gone counts as settled.
                if self.next < first && self.passed.is_none() {
                    self.next = first;
                }
            }
            SegmentHeader::Newer { version } => {
                found.newer = Some(version);
                return Ok(false);
            }
            SegmentHeader::Incomplete if last && owner_alive => return Ok(false),
            SegmentHeader::Incomplete => self.passed = Some(first),
            SegmentHeader::Bad | SegmentHeader::Readable { .. } => {
                let bytes = crate::disk::read_to_end(&*file, u64::MAX)?;
                found.damage.push(Damage { segment: first, offset: 0, bytes, records: 1 });
                self.passed = Some(first);
            }
        }
        Ok(true)
    }

    /// Decides what bytes at the end of a file are that are no whole record. False: not yet.
    fn end_of_file(
        &mut self,
        parsed: &Parsed,
        owner_alive: bool,
        found: &mut Found,
    ) -> io::Result<bool> {
        let Some(segment) = &mut self.open else { return Ok(true) };
        // The owner ends a segment before it begins the next: look for the next one first, and
        // only then for what was appended to this one meanwhile.
        let higher = segments(&*self.disk, &self.dir)?.last() > Some(&segment.first);
        if segment.fill(CHUNK_BYTES)? {
            return Ok(true);
        }
        if let Some(bytes) = segment.skip_to_next_whole(self.next) {
            let offset = segment.offset + segment.parsed as u64 - bytes.len() as u64;
            found.damage.push(Damage { segment: segment.first, offset, bytes, records: 1 });
            return Ok(true);
        }
        if owner_alive && !higher {
            return Ok(false);
        }
        if *parsed == Parsed::Bad {
            let bytes = segment.rest().to_vec();
            let offset = segment.offset + segment.parsed as u64;
            found.damage.push(Damage { segment: segment.first, offset, bytes, records: 1 });
        }
        self.passed = Some(segment.first);
        self.open = None;
        Ok(true)
    }
}

impl OpenSegment {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.parsed..).unwrap_or_default()
    }

    fn parse(&self) -> Parsed {
        parse_record(self.rest(), self.salt)
    }

    fn take(&mut self, header: Header) -> Record {
        let body = &self.rest()[RECORD_HEADER_BYTES..header.frame_len()]; // `parse` saw it whole
        let record = Record { header, body: body.into() };
        self.parsed += header.frame_len();
        record
    }

    /// Reads more of the file. False when there is no more.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        self.bytes.drain(..self.parsed);
        self.offset += self.parsed as u64;
        self.parsed = 0;
        let old = self.bytes.len();
        self.bytes.resize(old + bytes, 0);
        let read = self.file.read_at(&mut self.bytes[old..], self.offset + old as u64);
        self.bytes.truncate(old + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }

    /// Skips to the next whole record that can follow; returns what was skipped.
    fn skip_to_next_whole(&mut self, next: Seq) -> Option<Vec<u8>> {
        let rest = self.rest();
        let last_start = rest.len().checked_sub(RECORD_HEADER_BYTES)?;
        let skipped = (1..=last_start).find(|start| {
            matches!(parse_record(&rest[*start..], self.salt),
                Parsed::Whole(header) if header.seq > next)
        })?;
        let bytes = rest[..skipped].to_vec();
        self.parsed += skipped;
        Some(bytes)
    }
}
