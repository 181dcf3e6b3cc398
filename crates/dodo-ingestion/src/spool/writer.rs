//! The owner's end of a spool: one write per record under one mutex, and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::format::{Draft, SEGMENT_HEADER_BYTES, segment_header};
use super::{Seq, SpoolName, reader::segment_name};
use crate::clock::WallMs;
use crate::disk::{Disk, DiskFile, Open};
use crate::error::{Error, ErrorKind, Result};

/// A spool that this process owns, for as long as it holds the lock of its `owner` file.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) name: SpoolName,
    pub(crate) dir: PathBuf,
    pub(crate) _lock: Arc<dyn DiskFile>,
}

/// How the owner writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterSettings {
    /// The bytes that all files of the namespace may take together.
    pub(crate) max_bytes: u64,
    /// Whether each record is synced to the disk before its append returns.
    pub(crate) sync: bool,
}

impl WriterSettings {
    /// So many that a settled segment frees a sixteenth of the room, and not a file for every call.
    fn segment_bytes(self) -> u64 {
        (self.max_bytes / 16).clamp(64 << 10, 8 << 20)
    }
}

/// Appends records to a spool.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    spool: Owned,
    settings: WriterSettings,
    /// Held for one write. Spins before it parks, which costs contending threads less.
    state: parking_lot::Mutex<State>,
    commit: GroupCommit,
    /// The bytes of the namespace when they were last measured, and what was appended since.
    namespace_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    segment: Option<Segment>,
    next_seq: Seq,
    last_append: WallMs,
    closed: bool,
}

#[derive(Debug)]
struct Segment {
    file: Arc<dyn DiskFile>,
    first_seq: Seq,
    salt: u32,
    len: u64,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, spool: Owned, settings: WriterSettings) -> Self {
        Self {
            disk,
            spool,
            settings,
            state: parking_lot::Mutex::new(State {
                segment: None,
                next_seq: 0,
                last_append: 0,
                closed: false,
            }),
            commit: GroupCommit::default(),
            namespace_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn spool(&self) -> &Owned {
        &self.spool
    }

    /// The sequence number that the next record gets: how many were appended.
    pub(crate) fn next_seq(&self) -> Seq {
        self.state.lock().next_seq
    }

    /// Takes no more records. Returns how many were appended.
    pub(crate) fn close(&self) -> Seq {
        let mut state = self.state.lock();
        state.closed = true;
        state.next_seq
    }

    pub(crate) fn set_namespace_bytes(&self, bytes: u64) {
        self.namespace_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Appends a record and returns its sequence number. When it returns, the record is with the
    /// operating system, and, where that is set, on the disk.
    pub(crate) fn append(&self, draft: &mut Draft, now: WallMs) -> Result<Seq> {
        let seq = {
            let mut state = self.state.lock();
            self.append_locked(&mut state, draft, now)?
        };
        if self.settings.sync {
            self.sync(seq)?;
        }
        Ok(seq)
    }

    fn append_locked(&self, state: &mut State, draft: &mut Draft, now: WallMs) -> Result<Seq> {
        if state.closed {
            return Err(Error::closed());
        }
        let frame_len = draft.frame_len() as u64;
        let used = self.namespace_bytes.load(Ordering::Relaxed);
        if used + frame_len > self.settings.max_bytes {
            return Err(self.overflow(used));
        }
        let seq = state.next_seq;
        let full = state.segment.as_ref().is_none_or(|segment| {
            segment.len + frame_len > self.settings.segment_bytes() && segment.first_seq < seq
        });
        if full {
            self.roll(state).map_err(|error| self.failed("cannot begin a segment", error))?;
        }
        let Some(segment) = &mut state.segment else { return Err(Error::closed()) };
        let frame = draft.seal(seq, now, segment.salt);
        let written = match segment.file.append(frame) {
            Ok(written) if written == frame.len() => written,
            short_or_failed => {
                // A reader takes what was written of the frame for the end of the segment, so the
                // segment may end here even if the file cannot be cut.
                let cut = segment.file.truncate(segment.len);
                if cut.is_err() || segment.first_seq < seq {
                    state.segment = None;
                }
                let error = match short_or_failed {
                    Err(error) => error,
                    Ok(_) => io::ErrorKind::StorageFull.into(),
                };
                return Err(self.failed("the call was not accepted", error));
            }
        };
        segment.len += written as u64;
        state.next_seq += 1;
        state.last_append = now;
        self.namespace_bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(seq)
    }

    fn overflow(&self, used: u64) -> Error {
        let max = self.settings.max_bytes;
        Error::new(
            ErrorKind::Overflow,
            format!(
                "the spool holds {used} of {max} bytes and the call was not accepted; \
                 see why calls are not delivered, or raise max_spool_bytes"
            ),
        )
        .with_field("max_spool_bytes")
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::storage(format!("{what}: {}", self.spool.dir.display()), error)
    }

    fn roll(&self, state: &mut State) -> io::Result<()> {
        if let Some(old) = &state.segment
            && self.settings.sync
        {
            old.file.sync()?;
        }
        state.segment = None;
        let first_seq = state.next_seq;
        let path = self.spool.dir.join(segment_name(first_seq));
        let salt = fastrand::u32(..);
        let file = match self.disk.open(&path, Open::CreateToAppend) {
            // Left by a roll that failed half-way: no record was ever whole in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = self.disk.open(&path, Open::Append)?;
                file.truncate(0)?;
                file
            }
            other => other?,
        };
        crate::disk::append_all(&*file, &segment_header(first_seq, salt))?;
        if self.settings.sync {
            self.disk.sync_dir(&self.spool.dir)?;
        }
        let len = SEGMENT_HEADER_BYTES as u64;
        self.namespace_bytes.fetch_add(len, Ordering::Relaxed);
        state.segment = Some(Segment { file, first_seq, salt, len });
        Ok(())
    }

    /// Begins a new segment if everything is settled and nothing was appended for a while, so that
    /// the sender can unlink the old one.
    pub(crate) fn roll_if_idle(&self, settled: Seq, now: WallMs, idle_ms: i64) -> io::Result<()> {
        let mut state = self.state.lock();
        let used = state.segment.as_ref().is_some_and(|segment| segment.first_seq < state.next_seq);
        if used && settled >= state.next_seq && now.saturating_sub(state.last_append) >= idle_ms {
            self.roll(&mut state)?;
        }
        Ok(())
    }

    /// Waits until the record is on the disk. One of those who wait syncs for all of them.
    fn sync(&self, seq: Seq) -> Result<()> {
        self.commit
            .wait_for(seq, || {
                let (file, end) = {
                    let state = self.state.lock();
                    (state.segment.as_ref().map(|segment| segment.file.clone()), state.next_seq)
                };
                let result = match file {
                    Some(file) => file.sync(),
                    None => Ok(()),
                };
                if result.is_err() {
                    // What the kernel could not write it may forget: begin again in another file.
                    self.state.lock().segment = None;
                }
                (end, result)
            })
            .map_err(|error| {
                self.failed("the call was written, but may not survive a power loss", error)
                    .and_may_be_billed()
            })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.spool.dir
    }
}

/// One sync at a time, for everything written before it.
#[derive(Debug, Default)]
struct GroupCommit {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    running: bool,
    /// Every record below it was synced or has failed.
    done: Seq,
    /// Ranges of records whose sync failed, and how.
    failed: Vec<(std::ops::Range<Seq>, io::ErrorKind)>,
}

impl GroupCommit {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing that can panic happens under it.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, seq: Seq, sync: impl FnOnce() -> (Seq, io::Result<()>)) -> io::Result<()> {
        let mut progress = self.lock();
        while progress.done <= seq && progress.running {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if progress.done <= seq {
            progress.running = true;
            drop(progress);
            let (end, result) = sync();
            progress = self.lock();
            progress.running = false;
            if let Err(error) = &result {
                let range = progress.done..end;
                progress.failed.push((range, error.kind()));
            }
            progress.done = progress.done.max(end);
            self.changed.notify_all();
        }
        match progress.failed.iter().find(|(range, _)| range.contains(&seq)) {
            Some((_, kind)) => Err((*kind).into()),
            None => Ok(()),
        }
    }
}
