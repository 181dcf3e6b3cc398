//! The sender's end of a spool: a window of records that are being delivered, and what of them is
//! settled.
//!
//! Records may be settled in any order; the cursor moves over those that are settled without a gap.
//! After a crash the records behind a gap are sent again with the same ids, which costs a request.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursor::{Cursor, CursorFile};
use super::outcomes::{self, Rejection};
use super::reader::{Damage, Found, Reader, Record, segment_name, segments};
use super::{Namespace, Seq, SpoolName};
use crate::clock::WallMs;
use crate::disk::{Disk, DiskFile, Open};

/// A spool as its sender sees it.
#[derive(Debug)]
pub(crate) struct Drain {
    disk: Arc<dyn Disk>,
    name: SpoolName,
    dir: PathBuf,
    reader: Reader,
    cursor: CursorFile,
    window: VecDeque<Slot>,
    /// The first record of the last segment that was unlinked.
    unlinked: Option<Seq>,
    /// Held when the owner is dead and the spool adopted.
    owner: Option<Arc<dyn DiskFile>>,
    /// Whether the owner is this process.
    own: bool,
    exhausted: bool,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    settled: bool,
}

/// What a read brought.
#[derive(Debug)]
pub(crate) struct ReadResult {
    /// The first of the new records; they are the last of the window.
    pub(crate) from: Seq,
    pub(crate) damage: Vec<Damage>,
    pub(crate) newer: Option<u16>,
}

impl Drain {
    pub(crate) fn open(namespace: &Namespace, name: SpoolName, own: bool) -> io::Result<Self> {
        let (disk, dir) = (namespace.disk().clone(), namespace.spool_dir(&name));
        let cursor = CursorFile::open(&*disk, &dir.join("cursor"))?;
        let reader = Reader::new(disk.clone(), dir.clone(), cursor.get().settled);
        let window = VecDeque::new();
        let (unlinked, owner, exhausted) = (None, None, false);
        let mut drain =
            Self { disk, name, dir, reader, cursor, window, unlinked, owner, own, exhausted };
        drain.unlink_settled()?;
        Ok(drain)
    }

    pub(crate) fn name(&self) -> &SpoolName {
        &self.name
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor.get()
    }

    /// Whether the owner lives. Takes the lock of one who does not, so that it stays dead.
    fn owner_alive(&mut self) -> io::Result<bool> {
        if self.own {
            return Ok(true);
        }
        if self.owner.is_none() {
            let owner = self.disk.open(&self.dir.join("owner"), Open::Update)?;
            if owner.try_lock()? {
                self.owner = Some(owner);
            }
        }
        Ok(self.owner.is_none())
    }

    /// Reads up to so many records into the window.
    pub(crate) fn read(&mut self, max_records: usize, max_bytes: usize) -> io::Result<ReadResult> {
        let from = self.reader.position();
        let alive = self.owner_alive()?;
        let Found { records, damage, newer, exhausted } =
            self.reader.read(max_records, max_bytes, alive)?;
        self.exhausted = exhausted;
        self.window.extend(records.into_iter().map(|record| Slot { record, settled: false }));
        Ok(ReadResult { from, damage, newer })
    }

    /// The records of the window from a sequence number on.
    pub(crate) fn records_from(&self, from: Seq) -> impl Iterator<Item = &Record> {
        let start = self.window.partition_point(|slot| slot.record.header.seq < from);
        self.window.range(start..).map(|slot| &slot.record)
    }

    pub(crate) fn record(&self, seq: Seq) -> Option<&Record> {
        Some(&self.window[self.position(seq)?].record)
    }

    /// Where in the window a record lies.
    fn position(&self, seq: Seq) -> Option<usize> {
        let first = self.window.front()?.record.header.seq;
        // Sequence numbers have gaps only where the disk was damaged.
        let likely = usize::try_from(seq.checked_sub(first)?).ok()?;
        if self.window.get(likely).is_some_and(|slot| slot.record.header.seq == seq) {
            return Some(likely);
        }
        self.window.binary_search_by_key(&seq, |slot| slot.record.header.seq).ok()
    }

    /// Notes, before a request, that records below `end` are part of it.
    pub(crate) fn record_attempt(&mut self, end: Seq, now: WallMs) -> io::Result<()> {
        let attempt = Cursor { attempted: end, attempted_at: now, ..self.cursor.get() };
        self.cursor.advance(attempt)
    }

    /// Writes down why records are set aside; they are to be settled after this.
    pub(crate) fn record_outcomes(&self, rejections: &[Rejection]) -> io::Result<()> {
        outcomes::append(&*self.disk, &self.dir.join("outcomes"), rejections)
    }

    /// Marks a record as settled. [`Drain::commit`] makes it last.
    pub(crate) fn settle(&mut self, seq: Seq) {
        if let Some(at) = self.position(seq) {
            let slot = &mut self.window[at];
            slot.settled = true;
            slot.record.discard_body();
        }
    }

    /// Moves the cursor over what is settled, and unlinks segments that hold nothing else.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        while self.window.front().is_some_and(|slot| slot.settled) {
            self.window.pop_front();
        }
        let settled = match self.window.front() {
            Some(slot) => slot.record.header.seq,
            None => self.reader.position(),
        };
        self.cursor.advance(Cursor { settled, ..self.cursor.get() })?;
        if self.reader.passed() > self.unlinked {
            self.unlink_settled()?;
        }
        Ok(())
    }

    fn unlink_settled(&mut self) -> io::Result<()> {
        let settled = self.cursor.get().settled;
        let firsts = segments(&*self.disk, &self.dir)?;
        for pair in firsts.windows(2).filter(|pair| pair[1] <= settled) {
            self.disk.remove_file(&self.dir.join(segment_name(pair[0])))?;
            self.unlinked = Some(pair[0]);
        }
        Ok(())
    }

    /// Whether the owner is dead and everything it accepted is settled.
    pub(crate) fn is_finished(&self) -> bool {
        self.owner.is_some() && self.exhausted && self.window.is_empty()
    }

    /// Removes the spool's files, the owner's lock last.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove_spool(&*self.disk, &self.dir)
    }
}

/// Removes a spool in the order that leaves nothing behind which looks alive or unsent.
pub(crate) fn remove_spool(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for first in segments(disk, dir)? {
        disk.remove_file(&dir.join(segment_name(first)))?;
    }
    for name in ["outcomes", "cursor", "owner"] {
        disk.remove_file(&dir.join(name))?;
    }
    disk.remove_dir(dir)
}
