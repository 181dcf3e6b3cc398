//! A segment that is being written.

use std::io;
use std::mem;
use std::sync::Arc;

use super::format::{SEGMENT_HEADER_BYTES, SegmentInfo};
use crate::disk::{DiskFile, FileId, Preparation, Reserved};

/// So much of a segment is prepared before it is written to, at most.
const MOST_PREPARED_BYTES: u64 = 512 << 10;

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    id: FileId,
    pub(super) info: SegmentInfo,
    /// Where the next record goes.
    pub(super) len: u64,
    /// What it is written through; `None` where it is appended to.
    memory: Option<Box<dyn Reserved>>,
    /// Where the next record went when the file was last found to take changes.
    proven: u64,
    /// Where the next record went when it was last looked what is to be prepared.
    prepared: u64,
}

impl Segment {
    pub(super) fn new(
        file: Arc<dyn DiskFile>,
        id: FileId,
        info: SegmentInfo,
        memory: Option<Box<dyn Reserved>>,
    ) -> Self {
        let len = SEGMENT_HEADER_BYTES as u64;
        Self { file, id, info, len, memory, proven: len, prepared: len }
    }

    pub(super) fn has_room_for(&self, frame_len: u64) -> bool {
        self.len + frame_len <= u64::from(self.info.allotted)
    }

    /// Whether it is written through memory, and not by calls of the operating system.
    pub(super) fn is_mapped(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether writing to it waits for no disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.is_mapped() || self.file.is_in_memory()
    }

    /// Writes a record, or a part of it.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<usize> {
        match &mut self.memory {
            Some(memory) => memory.commit(frame, self.len).map(|()| frame.len()),
            None => self.file.append(frame),
        }
    }

    /// Whether the disk still takes what is written. Memory does in any case.
    pub(super) fn prove(&mut self) -> io::Result<()> {
        if self.is_mapped() && self.proven != self.len {
            self.file.truncate(self.info.allotted.into())?;
            self.proven = self.len;
        }
        Ok(())
    }

    /// Does what the next records would wait for: for as much as was written since the last time.
    pub(super) fn preparation(&mut self) -> Option<Preparation> {
        let written = self.len - mem::replace(&mut self.prepared, self.len);
        let until = self.len + written.min(MOST_PREPARED_BYTES);
        self.memory.as_ref().filter(|_| written > 0)?.preparation(until)
    }

    /// Makes the file end where the last record does, if it is still this file.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        if self.file.identify()? != self.id {
            return Err(io::ErrorKind::NotFound.into());
        }
        // What lies behind the end may not be written to.
        self.memory = None;
        self.file.truncate(self.len)
    }
}
