//! How far a spool is settled, and how far it was ever attempted.
//!
//! The file holds two slots of 32 bytes, written in turn, each with a checksum: what spoils one slot
//! leaves the other, and so what was settled. The owner makes the file with the spool; so a cursor that is
//! missing or cannot be read was lost, and then everything may have been attempted.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Seq;
use super::format::{u32_at, u64_at};
use crate::clock::WallMs;
use crate::disk::{Disk, DiskFile, Open, is_in_place, read_to_end};
use crate::planted::{Fault, is_planted};

const SLOT_BYTES: usize = 32;

/// A position in a spool. Only moves forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// Every record below it is settled.
    pub(crate) settled: Seq,
    /// No record at or above it was ever part of a request.
    pub(crate) attempted: Seq,
    /// No record that is attempted and not settled was first part of a request before this, by the
    /// wall clock.
    pub(crate) attempted_since: WallMs,
}

impl Cursor {
    fn encode(self, generation: u32) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[0..8].copy_from_slice(&self.settled.to_le_bytes());
        slot[8..16].copy_from_slice(&self.attempted.to_le_bytes());
        slot[16..24].copy_from_slice(&self.attempted_since.to_le_bytes());
        slot[24..28].copy_from_slice(&generation.to_le_bytes());
        let crc = crc32c::crc32c(&slot[..28]);
        slot[28..32].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<(Self, u32)> {
        if slot.len() != SLOT_BYTES || crc32c::crc32c(&slot[..28]) != u32_at(slot, 28) {
            return None;
        }
        let cursor = Self {
            settled: u64_at(slot, 0),
            attempted: u64_at(slot, 8),
            attempted_since: u64_at(slot, 16).cast_signed(),
        };
        Some((cursor, u32_at(slot, 24)))
    }

    /// What a file's bytes say. Where a slot cannot be read it may have been the newer one, and
    /// everything may have been attempted.
    fn newest(bytes: &[u8]) -> Option<(Self, u32)> {
        let slots: Vec<_> = bytes.chunks(SLOT_BYTES).take(2).map(Self::decode).collect();
        let whole = slots.iter().flatten().copied();
        let (mut newest, generation) = whole.max_by_key(|(cursor, _)| {
            (cursor.settled, cursor.attempted != Seq::MAX, cursor.attempted)
        })?;
        if slots.contains(&None) {
            newest = Self { attempted: Seq::MAX, attempted_since: 0, ..newest };
        }
        Some((newest, generation))
    }
}

/// A cursor and the file that it is kept in.
#[derive(Debug)]
pub(crate) struct CursorFile {
    file: Arc<dyn DiskFile>,
    cursor: Cursor,
    generation: u32,
}

impl CursorFile {
    /// Makes the cursor of a new spool.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let file = disk.open(path, Open::Update)?;
        file.write_all_at(&Cursor::default().encode(0), 0)
    }

    /// Opens a spool's cursor.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, Open::Update)?;
        let bytes = read_to_end(&*file, 2 * SLOT_BYTES as u64)?;
        let lost = Cursor { attempted: Seq::MAX, ..Cursor::default() };
        let (cursor, generation) = Cursor::newest(&bytes).unwrap_or((lost, 0));
        Ok(Self { file, cursor, generation })
    }

    /// What a spool's cursor says, for those who do not write it.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Cursor> {
        let bytes = read_to_end(&*disk.open(path, Open::Read)?, 2 * SLOT_BYTES as u64)?;
        Ok(Cursor::newest(&bytes).map_or_else(Cursor::default, |(cursor, _)| cursor))
    }

    /// Whether it is the file that others find under its name.
    pub(crate) fn is_in_place(&self, disk: &dyn Disk, path: &Path) -> bool {
        is_in_place(disk, path, &*self.file)
    }

    /// Writes the cursor down where others look for it, after somebody removed or replaced its file.
    pub(crate) fn put_back(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let file = disk.open(path, Open::Update)?;
        file.truncate(0)?;
        file.write_all_at(&self.cursor.encode(0), 0)?;
        (self.file, self.generation) = (file, 0);
        Ok(())
    }

    pub(crate) fn get(&self) -> Cursor {
        self.cursor
    }

    /// Everything below `to` is settled; a step back is no step.
    pub(crate) fn settle(&mut self, to: Seq) -> io::Result<()> {
        if is_planted(Fault::CursorGoesBackward) {
            return self.write(Cursor { settled: to.saturating_sub(1), ..self.cursor });
        }
        self.write(Cursor { settled: self.cursor.settled.max(to), ..self.cursor })
    }

    /// Records below `end` are about to be sent. With `sync` that survives a power loss.
    pub(crate) fn attempt(&mut self, end: Seq, now: WallMs, sync: bool) -> io::Result<()> {
        let Cursor { settled, attempted, attempted_since } = self.cursor;
        if end > attempted {
            let since = if settled >= attempted { now } else { attempted_since };
            self.write(Cursor { settled, attempted: end, attempted_since: since })?;
        }
        if sync { self.file.sync() } else { Ok(()) }
    }

    /// After a lost cursor: all that is left was not attempted.
    pub(crate) fn nothing_is_attempted(&mut self) -> io::Result<()> {
        match self.cursor.attempted {
            Seq::MAX => self.write(Cursor { attempted: self.cursor.settled, ..self.cursor }),
            _ => Ok(()),
        }
    }

    fn write(&mut self, next: Cursor) -> io::Result<()> {
        if next == self.cursor {
            return Ok(());
        }
        let generation = self.generation.wrapping_add(1);
        let offset = u64::from(generation % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&next.encode(generation), offset)?;
        (self.cursor, self.generation) = (next, generation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_torn_slot_leaves_the_other_and_a_lost_cursor_counts_all_as_attempted() {
        let disk = MemoryDisk::default();
        let path = Path::new("cursor");
        let open = || CursorFile::open(&disk, path).unwrap();
        let lost = Cursor { attempted: Seq::MAX, ..Cursor::default() };
        assert_eq!(open().get(), lost, "a missing one was lost");
        CursorFile::create(&disk, path).unwrap();
        let mut cursor = open();
        assert_eq!(cursor.get(), Cursor::default());
        cursor.attempt(10, 7, true).unwrap();
        cursor.settle(10).unwrap();
        cursor.settle(2).unwrap();
        let settled = Cursor { settled: 10, attempted: 10, attempted_since: 7 };
        assert_eq!(open().get(), settled);

        let file = disk.open(path, Open::Update).unwrap();
        file.write_all_at(&[0xff; 5], 0).unwrap(); // the slot written last: generation 2
        assert_eq!(open().get(), lost, "the other slot knows of an attempt and of nothing settled");
        file.write_all_at(&[0xff; 5], 32).unwrap();
        let mut cursor = open();
        assert_eq!(cursor.get(), lost);
        cursor.settle(12).unwrap();
        cursor.nothing_is_attempted().unwrap();
        assert_eq!((open().get().settled, open().get().attempted), (12, 12));
    }

    #[test]
    fn the_time_of_the_first_attempt_stands_until_all_that_was_attempted_is_settled() {
        let disk = MemoryDisk::default();
        let path = Path::new("cursor");
        CursorFile::create(&disk, path).unwrap();
        let mut cursor = CursorFile::open(&disk, path).unwrap();
        cursor.attempt(5, 100, false).unwrap();
        cursor.settle(3).unwrap();
        cursor.attempt(8, 200, false).unwrap();
        assert_eq!(cursor.get().attempted_since, 100);
        cursor.settle(8).unwrap();
        cursor.attempt(9, 300, false).unwrap();
        assert_eq!(cursor.get().attempted_since, 300);
    }
}
