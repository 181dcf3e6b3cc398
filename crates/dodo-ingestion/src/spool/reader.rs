//! Reads a spool's records in order, while its owner may be writing.
//!
//! A record that is not whole in the highest segment of a living owner is *not yet* there. In any
//! other segment it is the end of the segment: its append never succeeded. Bytes that were written
//! whole and read back wrong are damage: they are handed out for quarantine, and count as passed. A
//! segment that is missing counts as settled; what is missing at the end of one that is there was lost.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::Seq;
use super::format::{Header, Parsed, SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_header};
use super::open_segment::{MAX_SEGMENT_BYTES, OpenSegment};
use crate::disk::{Disk, Open};

/// A record and its body.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) header: Header,
    body: Box<[u8]>,
}

impl Record {
    pub(super) fn new(header: Header, body: &[u8]) -> Self {
        Self { header, body: body.into() }
    }

    pub(crate) fn event_id(&self) -> &[u8] {
        self.body.get(..self.header.id_len.into()).unwrap_or_default()
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
    /// The first record that it held, and how many; at least so many where that is not known. None,
    /// if it is most likely the beginning of one that was never accepted.
    pub(crate) first: Seq,
    pub(crate) records: u64,
}

/// Where damaged bytes lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment: Seq,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Damage {
    pub(crate) fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.offset, len: self.bytes.len() as u64 }
    }
}

/// A segment that was read to its end, and its records' sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) segment: Seq,
    pub(crate) end: Seq,
}

/// What one read found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    pub(crate) damage: Vec<Damage>,
    /// Sequence numbers of records that were there once.
    pub(crate) lost: Vec<Range<Seq>>,
    pub(crate) passed: Vec<Passed>,
    /// The version of a segment that this code is too old to read; reading stops before it.
    pub(crate) newer: Option<u16>,
    /// There is nothing after what was found, for now.
    pub(crate) at_end: bool,
    /// And there never will be.
    pub(crate) exhausted: bool,
}

impl Found {
    fn is_empty(&self) -> bool {
        let Self { records, damage, lost, passed, .. } = self;
        records.is_empty() && damage.is_empty() && lost.is_empty() && passed.is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The sequence number that is expected next.
    next: Seq,
    open: Option<OpenSegment>,
    /// The segment that was read to its end last.
    passed: Option<Seq>,
}

pub(crate) fn segment_name(first: Seq) -> String {
    format!("segment-{first:016x}")
}

/// The first sequence numbers of a spool's segments, in order.
pub(crate) fn segments(disk: &dyn Disk, dir: &std::path::Path) -> io::Result<Vec<Seq>> {
    let mut firsts: Vec<Seq> = disk
        .list(dir)?
        .iter()
        .filter_map(|name| {
            let first = Seq::from_str_radix(name.strip_prefix("segment-")?, 16).ok()?;
            (segment_name(first) == *name).then_some(first)
        })
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

    /// Reads until there are so many records or bytes, or no more for now.
    pub(crate) fn read(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        owner_alive: bool,
    ) -> io::Result<Found> {
        let mut found = Found::default();
        if let Some(segment) = &mut self.open {
            segment.look_for_more();
        }
        match self.read_into(&mut found, max_records, max_bytes, owner_alive) {
            // What was read before the disk failed was read: it is not handed out again.
            Err(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn read_into(
        &mut self,
        found: &mut Found,
        max_records: usize,
        max_bytes: usize,
        owner_alive: bool,
    ) -> io::Result<()> {
        let (mut bytes, mut damages) = (0, 0);
        loop {
            // Damaged bytes are held as well.
            bytes += found.damage[damages..].iter().map(|damage| damage.bytes.len()).sum::<usize>();
            damages = found.damage.len();
            if found.records.len() >= max_records || bytes >= max_bytes {
                return Ok(());
            }
            if self.open.is_none() && !self.open_next(owner_alive, found)? {
                found.at_end = true;
                return Ok(());
            }
            let Some(segment) = &mut self.open else { continue };
            match segment.parse() {
                Parsed::Whole(header) => {
                    let record = segment.take(header);
                    if header.seq < self.next {
                        continue;
                    }
                    let first = segment.info.first_seq;
                    self.lose_up_to(first, header.seq, found);
                    self.next = header.seq + 1;
                    bytes += header.frame_len();
                    found.records.push(record);
                }
                parsed => {
                    // Behind what is not committed there is nothing, as a rule.
                    let more = parsed != Parsed::Uncommitted && segment.fill()?;
                    if !more && !self.end_of_file(owner_alive, found)? {
                        found.at_end = true;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Notes that a segment's records up to `seq` are lost.
    fn lose_up_to(&mut self, segment: Seq, seq: Seq, found: &mut Found) {
        let missing = seq.saturating_sub(self.next);
        if missing == 0 {
            return;
        }
        found.lost.push(self.next..seq);
        match found.damage.last_mut() {
            Some(damage) if damage.segment == segment && damage.first == self.next => {
                damage.records = damage.records.max(missing);
            }
            _ => found.damage.push(Damage {
                segment,
                offset: 0,
                bytes: Vec::new(),
                first: self.next,
                records: missing,
            }),
        }
        self.next = seq;
    }

    fn pass(&mut self, segment: Seq, found: &mut Found) {
        self.open = None;
        self.passed = Some(segment);
        found.passed.push(Passed { segment, end: self.next.max(segment) });
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
            SegmentHeader::Readable(info) if info.first_seq == first => {
                // What lies between this segment and the one before it was settled and unlinked, if
                // that one was another than the one that was read last.
                match self.passed {
                    Some(passed) if info.previous == passed => {
                        self.lose_up_to(passed, first, found);
                    }
                    // No power loss set the cursor back: what stands at it was removed by somebody else. One that
                    // stands at the start may be that of a spool that others began, or be lost.
                    None if owner_alive && info.previous < first => {
                        if self.next == 0 {
                            self.next = info.previous;
                        }
                        self.lose_up_to(info.previous, first, found);
                    }
                    _ => self.next = self.next.max(first),
                }
                self.open = Some(OpenSegment::new(info, file));
            }
            SegmentHeader::Newer { version } => {
                found.newer = Some(version);
                return Ok(false);
            }
            // The owner looks after its own.
            _ if last && owner_alive => return Ok(false),
            SegmentHeader::Incomplete => self.pass(first, found),
            SegmentHeader::Bad | SegmentHeader::Readable(_) => {
                let bytes = crate::disk::read_to_end(&*file, MAX_SEGMENT_BYTES)?;
                let from = self.next.max(first);
                found.damage.push(Damage {
                    segment: first,
                    offset: 0,
                    bytes,
                    first: from,
                    records: 1,
                });
                self.next = from;
                self.pass(first, found);
            }
        }
        Ok(true)
    }

    /// Decides what bytes at the end of a file are that are no whole record. False: not yet.
    fn end_of_file(&mut self, owner_alive: bool, found: &mut Found) -> io::Result<bool> {
        let Some(segment) = &mut self.open else { return Ok(true) };
        if !segment.is_whole {
            if segment.was_begun_anew(&*self.disk, &self.dir) {
                self.open = None;
                return Ok(true);
            }
            // The owner ends a segment before it begins the next: look for the next one first, and
            // only then for what was appended to this one meanwhile. What was seen of a frame may
            // have been cut off and another written in its place.
            let higher = segments(&*self.disk, &self.dir)?.last() > Some(&segment.info.first_seq);
            let goes_on = !higher && owner_alive;
            // A record may be seen through memory before the one in front of it, but not before that
            // is there: what is still not whole when it is read once more is damage.
            if goes_on && (segment.has_nothing_more() || !segment.may_be_damaged()) {
                segment.forget_rest();
                return Ok(false);
            }
            segment.read_again()?;
            segment.is_whole = !goes_on;
        }
        let parsed = segment.parse();
        if matches!(parsed, Parsed::Whole(_)) {
            return Ok(true);
        }
        let has_room = segment.info.is_mapped && segment.has_nothing_more();
        if !has_room && let Some((bytes, seq)) = segment.skip_to_next_whole() {
            // What is followed by a settled record was handed out when that was read.
            if seq >= self.next {
                let offset = segment.position() - bytes.len() as u64;
                let segment = segment.info.first_seq;
                found.damage.push(Damage { segment, offset, bytes, first: self.next, records: 1 });
            }
            return Ok(true);
        }
        if !segment.is_whole {
            segment.forget_rest();
            return Ok(false);
        }
        let first = segment.info.first_seq;
        // A frame that is not whole was cut when its owner died, and nobody was told that it was
        // accepted: it is kept, and not counted. One whose length rotted is.
        let bytes = segment.leftover().to_vec();
        if !bytes.is_empty() {
            let offset = segment.position();
            let records = u64::from(
                parsed == Parsed::Bad || parsed == Parsed::Incomplete && segment.was_whole(),
            );
            found.damage.push(Damage { segment: first, offset, bytes, first: self.next, records });
        }
        self.pass(first, found);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Namespace, SpoolName, Writer, WriterSettings};
    use super::*;
    use crate::disk::MemoryDisk;

    fn writer(disk: &Arc<dyn Disk>) -> Writer {
        let namespace = Namespace::open(disk.clone(), "ns".into()).unwrap();
        let owned = namespace.create_spool(SpoolName("one".into())).unwrap();
        Writer::new(namespace, owned, WriterSettings { max_bytes: 4 << 20, sync: false })
    }

    #[test]
    fn of_damaged_segments_no_more_is_held_at_a_time_than_of_records() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let writer = writer(&disk);
        let mut draft = Draft::event("id");
        draft.json().resize(50_000, b'x');
        for _ in 0..20 {
            writer.append(&mut draft, 1_000).unwrap();
        }
        let dir = writer.dir();
        let damaged = segments(&*disk, &dir).unwrap();
        assert!(damaged.len() >= 4);
        for first in &damaged {
            let file = disk.open(&dir.join(segment_name(*first)), Open::Update).unwrap();
            file.write_all_at(b"spoilt", 0).unwrap();
        }
        let mut reader = Reader::new(disk, dir, 0);
        let mut read = Vec::new();
        while let found = reader.read(1_000, 1_000, false).unwrap()
            && !found.exhausted
        {
            assert_eq!(found.damage.len(), 1);
            read.extend(found.damage.iter().map(|damage| damage.segment));
        }
        assert_eq!(read, damaged);
    }

    #[test]
    fn what_a_segment_held_that_was_removed_of_a_living_owner_was_lost() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let writer = writer(&disk);
        let append = || writer.append(&mut Draft::event("id"), 1_000).unwrap();
        append();
        let dir = writer.dir();
        disk.remove_file(&dir.join(segment_name(0))).unwrap();
        writer.look_after(1_000, 60_000).unwrap();
        append();
        for (alive, lost) in [(true, Some(0..1)), (false, None)] {
            let mut reader = Reader::new(disk.clone(), dir.clone(), 0);
            let found = reader.read(9, usize::MAX, alive).unwrap();
            assert_eq!((found.records.len(), found.lost.first().cloned()), (1, lost));
        }
    }

    #[test]
    fn what_several_segments_held_that_were_removed_of_a_living_owner_was_lost() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let writer = writer(&disk);
        let append = || writer.append(&mut Draft::event("id"), 1_000).unwrap();
        let dir = writer.dir();
        append();
        for _ in 0..3 {
            append();
            let last = *segments(&*disk, &dir).unwrap().last().unwrap();
            disk.remove_file(&dir.join(segment_name(last))).unwrap();
            writer.look_after(1_000, 60_000).unwrap();
        }
        append();
        let mut reader = Reader::new(disk.clone(), dir.clone(), 1);
        let found = reader.read(9, usize::MAX, true).unwrap();
        assert_eq!((found.records.len(), found.lost.first().cloned()), (1, Some(1..4)));
    }

    #[test]
    fn what_comes_after_an_empty_segment_was_removed_is_read() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let writer = writer(&disk);
        let append = |text: &str| {
            let mut draft = Draft::event("id");
            draft.json().extend_from_slice(text.as_bytes());
            writer.append(&mut draft, 1_000).unwrap();
        };
        append("first");
        writer.look_after(61_000, 60_000).unwrap();
        let dir = writer.dir();
        let mut reader = Reader::new(disk.clone(), dir.clone(), 0);
        assert_eq!(reader.read(9, usize::MAX, true).unwrap().records.len(), 1);

        disk.remove_file(&dir.join(segment_name(1))).unwrap();
        assert!(reader.read(9, usize::MAX, true).unwrap().is_empty());
        writer.look_after(61_000, 60_000).unwrap();
        append("second");
        let found = reader.read(9, usize::MAX, true).unwrap();
        assert_eq!((found.records[0].json(), found.lost), (&b"second"[..], vec![]));
    }
}
