//! How far a spool is settled, and how far it was ever attempted.
//!
//! The file holds two slots of 32 bytes, written in turn, each with a checksum: a torn write
//! spoils one slot and leaves the other. A lost cursor means that everything was attempted.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Seq;
use super::format::{u32_at, u64_at};
use crate::clock::WallMs;
use crate::disk::{Disk, DiskFile, Open, read_to_end};

const SLOT_BYTES: usize = 32;

/// A position in a spool. Only moves forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// Every record below it is settled.
    pub(crate) settled: Seq,
    /// No record at or above it was ever part of a request.
    pub(crate) attempted: Seq,
    /// When `attempted` last moved, by the wall clock.
    pub(crate) attempted_at: WallMs,
}

impl Cursor {
    fn encode(self, generation: u32) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[0..8].copy_from_slice(&self.settled.to_le_bytes());
        slot[8..16].copy_from_slice(&self.attempted.to_le_bytes());
        slot[16..24].copy_from_slice(&self.attempted_at.to_le_bytes());
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
            attempted_at: u64_at(slot, 16).cast_signed(),
        };
        Some((cursor, u32_at(slot, 24)))
    }

    /// The newest whole slot of a file's bytes.
    fn newest(bytes: &[u8]) -> Option<(Self, u32)> {
        bytes.chunks(SLOT_BYTES).take(2).filter_map(Self::decode).max()
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
    /// Opens a spool's cursor, creating it if need be. A cursor that exists but cannot be read
    /// counts everything as attempted.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, Open::Update)?;
        let bytes = read_to_end(&*file, 2 * SLOT_BYTES as u64)?;
        let (cursor, generation) = match Cursor::newest(&bytes) {
            Some(newest) => newest,
            None if bytes.is_empty() => (Cursor::default(), 0),
            None => (Cursor { attempted: Seq::MAX, ..Cursor::default() }, 0),
        };
        Ok(Self { file, cursor, generation })
    }

    /// What a spool's cursor says, for those who do not write it.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Cursor> {
        let bytes = read_to_end(&*disk.open(path, Open::Read)?, 2 * SLOT_BYTES as u64)?;
        Ok(Cursor::newest(&bytes).map_or_else(Cursor::default, |(cursor, _)| cursor))
    }

    pub(crate) fn get(&self) -> Cursor {
        self.cursor
    }

    /// Moves forward to `to`; a step back is no step.
    pub(crate) fn advance(&mut self, to: Cursor) -> io::Result<()> {
        let mut next = self.cursor;
        next.settled = next.settled.max(to.settled);
        if to.attempted > next.attempted {
            (next.attempted, next.attempted_at) = (to.attempted, to.attempted_at);
        }
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

    fn at(settled: Seq, attempted: Seq) -> Cursor {
        Cursor { settled, attempted, attempted_at: 7 }
    }

    #[test]
    fn a_torn_slot_leaves_the_other_and_a_lost_cursor_counts_all_as_attempted() {
        let disk = MemoryDisk::default();
        let path = Path::new("cursor");
        let mut cursor = CursorFile::open(&disk, path).unwrap();
        assert_eq!(cursor.get(), Cursor::default());
        cursor.advance(at(3, 10)).unwrap();
        cursor.advance(at(10, 10)).unwrap();
        cursor.advance(at(2, 2)).unwrap();
        assert_eq!(CursorFile::open(&disk, path).unwrap().get(), at(10, 10));

        let file = disk.open(path, Open::Update).unwrap();
        file.write_all_at(&[0xff; 5], 0).unwrap(); // the second slot written: generation 2
        assert_eq!(CursorFile::open(&disk, path).unwrap().get(), at(3, 10));
        file.write_all_at(&[0xff; 5], 32).unwrap();
        let lost = CursorFile::open(&disk, path).unwrap().get();
        assert_eq!((lost.settled, lost.attempted), (0, Seq::MAX));
    }
}
