//! The owner's end of a spool: one write per record under one mutex, and nothing else.
//!
//! A segment is written through memory where that is safe and no record is synced: that costs a
//! fraction of a call of the operating system, and what was written survives the process just so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::format::{Draft, SEGMENT_HEADER_BYTES, SegmentInfo, segment_header};
use super::group_commit::GroupCommit;
use super::written_segment::Segment;
use super::{Namespace, Seq, SpoolName, reader::segment_name};
use crate::clock::WallMs;
use crate::disk::{DiskFile, FileId, Open, is_in_place};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Fault, is_planted};

/// Segments grow from this, so that a process with few calls takes little of the room, and from one part in so many
/// of little room: that many processes have a segment at once.
const LEAST_SEGMENT_BYTES: u64 = 64 << 10;
const PROCESSES: u64 = 64;
const MOST_SEGMENT_BYTES: u64 = 8 << 20;
/// One part in so many of the room is kept for cursors, dead letters and what else is not a segment.
const RESERVE: u64 = 16;
/// The last segments of living processes stay when all of them is settled: together they take one part in so many of
/// the room, where the processes are many.
const SHARE: u64 = 2;
/// How often a lock that is held for one write is tried before this thread sleeps.
const SPINS: u32 = 40;

/// A spool that this process owns, for as long as it holds the lock of its `owner` file.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) name: SpoolName,
    pub(crate) dir: PathBuf,
    /// `None` when it was let go of.
    pub(crate) lock: Option<Arc<dyn DiskFile>>,
    /// Which file `owner` is, also when `lock` is not of it any more.
    pub(crate) id: FileId,
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
    fn most_segment_bytes(self) -> u64 {
        (self.max_bytes / 16).clamp(LEAST_SEGMENT_BYTES, MOST_SEGMENT_BYTES)
    }

    fn least_segment_bytes(self) -> u64 {
        (self.max_bytes / PROCESSES).min(LEAST_SEGMENT_BYTES)
    }

    fn bytes_for_segments(self) -> u64 {
        self.max_bytes - self.max_bytes / RESERVE
    }
}

/// Appends records to a spool.
#[derive(Debug)]
pub(crate) struct Writer {
    namespace: Namespace,
    settings: WriterSettings,
    /// Held for one write. Not a mutex with a table that all locks share: another thread may hold
    /// that when the process forks.
    state: Mutex<State>,
    /// Where the first spool is, and whether it was replaced: for a forked child, which must not
    /// touch `state`.
    first_dir: PathBuf,
    replaced: AtomicBool,
    /// Whether records are written without waiting for a disk. Changed while `state` is held.
    writes_at_once: AtomicBool,
    commit: GroupCommit,
}

#[derive(Debug)]
struct State {
    spool: Owned,
    segment: Option<Segment>,
    /// The segment that was begun last.
    last_segment: Option<SegmentInfo>,
    /// Segments that were left with records that nobody has synced yet.
    left_unsynced: Vec<Arc<dyn DiskFile>>,
    /// What the next segment may grow to.
    next_segment_bytes: u64,
    next_seq: Seq,
    last_append: WallMs,
    /// Why no segment could be begun when it was last tried.
    refused: Option<Error>,
    closed: bool,
}

/// What [`Writer::look_after`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    InPlace,
    /// The segment was damaged or is gone; another was begun.
    SegmentReplaced,
    /// The spool is gone, and with it whatever was not settled.
    Gone,
    /// The spool is there, and the host closed our descriptors of it: it is the next sender's.
    Closed,
}

impl Writer {
    pub(crate) fn new(namespace: Namespace, spool: Owned, settings: WriterSettings) -> Self {
        Self {
            namespace,
            settings,
            first_dir: spool.dir.clone(),
            replaced: AtomicBool::new(false),
            writes_at_once: AtomicBool::new(false),
            state: Mutex::new(State {
                spool,
                segment: None,
                last_segment: None,
                left_unsynced: Vec::new(),
                next_segment_bytes: settings.least_segment_bytes(),
                next_seq: 0,
                last_append: 0,
                refused: None,
                closed: false,
            }),
            commit: GroupCommit::default(),
        }
    }

    // Nothing that can panic happens under the lock, so a poisoned one is whole.

    fn lock(&self) -> MutexGuard<'_, State> {
        let free = self.try_lock();
        free.unwrap_or_else(|| self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lock, unless it is held for longer than for one write.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        for _ in 0..SPINS {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.settings.max_bytes
    }

    pub(crate) fn name(&self) -> SpoolName {
        self.lock().spool.name.clone()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.lock().spool.dir.clone()
    }

    /// Where the spool was at a fork, without a lock; `None` when it had been replaced by then.
    pub(crate) fn inherited_dir(&self) -> Option<&Path> {
        (!self.replaced.load(Ordering::Acquire)).then_some(&self.first_dir)
    }

    /// The sequence number that the next record gets: how many were appended.
    pub(crate) fn next_seq(&self) -> Seq {
        self.lock().next_seq
    }

    /// Takes no more records. Returns how many were appended.
    pub(crate) fn close(&self) -> Seq {
        let mut state = self.lock();
        state.closed = true;
        state.next_seq
    }

    /// Closes the files of a closed spool, and with them lets go of its lock: whoever keeps a handle
    /// for longer, as a language does that collects garbage, does not keep them.
    pub(crate) fn let_go(&self) {
        let mut state = self.lock();
        self.leave_segment(&mut state);
        state.spool.lock = None;
    }

    /// Appends a record and returns its sequence number. When it returns, the record is with the
    /// operating system, and, where that is set, on the disk.
    pub(crate) fn append(&self, draft: &mut Draft, now: WallMs) -> Result<Seq> {
        let seq = self.append_locked(&mut self.lock(), draft, now)?;
        if self.settings.sync && !is_planted(Fault::AcceptUnsynced) {
            self.sync(seq)?;
        }
        Ok(seq)
    }

    /// Whether [`try_append`](Self::try_append) is worth trying.
    pub(crate) fn writes_at_once(&self) -> bool {
        self.writes_at_once.load(Ordering::Relaxed)
    }

    /// [`append`](Self::append) where neither the disk nor another thread has to be waited for. `None`
    /// where one would have to be, and nothing is appended.
    pub(crate) fn try_append(&self, draft: &mut Draft, now: WallMs) -> Option<Result<Seq>> {
        let state = &mut *self.try_lock()?;
        let has_room = state.segment.as_ref()?.has_room_for(draft.frame_len() as u64);
        (has_room && self.writes_at_once()).then(|| self.append_locked(state, draft, now))
    }

    fn append_locked(&self, state: &mut State, draft: &mut Draft, now: WallMs) -> Result<Seq> {
        if state.closed {
            return Err(Error::closed());
        }
        let frame_len = draft.frame_len() as u64;
        let seq = state.next_seq;
        if !state.segment.as_ref().is_some_and(|segment| segment.has_room_for(frame_len)) {
            self.roll(state, frame_len)?;
        }
        let Some(segment) = &mut state.segment else { return Err(Error::closed()) };
        let frame = draft.seal(seq, now, segment.info.salt);
        let lose =
            is_planted(Fault::LoseTheFirstOfASegment) && segment.len == SEGMENT_HEADER_BYTES as u64;
        let appended = if lose { Ok(frame.len()) } else { segment.append(frame) };
        let written = match appended {
            Ok(written) if written == frame.len() => written,
            short_or_failed => return self.append_elsewhere(state, draft, now, short_or_failed),
        };
        segment.len += written as u64;
        state.next_seq += 1;
        state.last_append = now;
        Ok(seq)
    }

    /// Takes back what was written of a frame, and begins another segment for it where that may help.
    #[cold]
    fn append_elsewhere(
        &self,
        state: &mut State,
        draft: &mut Draft,
        now: WallMs,
        short_or_failed: io::Result<usize>,
    ) -> Result<Seq> {
        let Some(segment) = &mut state.segment else { return Err(Error::closed()) };
        // A reader takes what was written of the frame for the end of the segment, so the
        // segment may end here even if the file cannot be cut.
        let cut = segment.cut();
        let has_records = segment.info.first_seq < state.next_seq;
        if cut.is_err() || segment.info.is_mapped || has_records {
            self.leave_segment(state);
        }
        let error = short_or_failed.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into());
        if has_records && error.kind() == io::ErrorKind::FileTooLarge {
            // Of this process no file may be as long as was allotted. Another one is not.
            return self.append_locked(state, draft, now);
        }
        Err(failed(&state.spool.dir, "the call was not accepted", error))
    }

    /// Begins a segment with room for a frame.
    fn roll(&self, state: &mut State, frame_len: u64) -> Result<()> {
        if let Some(error) = &state.refused {
            return Err(error.clone());
        }
        let least = SEGMENT_HEADER_BYTES as u64 + frame_len;
        let begun = self.namespace.with_room(|used| {
            let room = self.settings.bytes_for_segments().saturating_sub(used);
            if room < least && !is_planted(Fault::IgnoreTheRoom) {
                return Ok(false);
            }
            let spools = self.namespace.spools()?.len() as u64;
            let share = self.settings.bytes_for_segments() / (SHARE * spools.max(1));
            let most = room.min(share.max(self.settings.least_segment_bytes()));
            let allotted = state.next_segment_bytes.min(most).max(least);
            self.begin_segment(state, allotted as u32)?; // a few megabytes at most
            Ok(true)
        });
        let error = match begun {
            Ok(true) => {
                let most = self.settings.most_segment_bytes();
                state.next_segment_bytes = (state.next_segment_bytes * 2).min(most);
                return Ok(());
            }
            Ok(false) => self.overflow(),
            Err(error) => failed(&state.spool.dir, "a segment cannot be begun", error),
        };
        // Looking for room takes a lock that all processes share.
        state.refused = Some(error.clone());
        Err(error)
    }

    fn begin_segment(&self, state: &mut State, allotted: u32) -> io::Result<()> {
        self.leave_segment(state);
        let first_seq = state.next_seq;
        let may_map = !self.settings.sync;
        let (previous, salt, may_map) = match state.last_segment {
            // It is begun again; a reader may have it open.
            Some(last) if last.first_seq == first_seq => {
                (last.previous, last.salt, may_map && last.is_mapped)
            }
            Some(last) => (last.first_seq, fastrand::u32(..), may_map),
            None => (first_seq, fastrand::u32(..), may_map),
        };
        let disk = self.namespace.disk();
        let path = state.spool.dir.join(segment_name(first_seq));
        let file = match disk.open(&path, Open::CreateToAppend) {
            // Left by a start that failed half-way: no record was ever whole in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = disk.open(&path, Open::Append)?;
                file.truncate(0)?;
                file
            }
            other => other?,
        };
        let id = file.identify()?;
        let memory = if may_map { file.reserve(allotted.into()) } else { None };
        let is_mapped = memory.is_some();
        let info = SegmentInfo { first_seq, previous, salt, allotted, is_mapped };
        crate::disk::append_all(&*file, &segment_header(info))?;
        state.last_segment = Some(info);
        if is_mapped {
            file.truncate(allotted.into())?;
        }
        if self.settings.sync {
            disk.sync_dir(&state.spool.dir)?;
        }
        let segment = Segment::new(file, id, info, memory);
        let at_once = segment.is_in_memory() && !self.settings.sync;
        self.writes_at_once.store(at_once, Ordering::Relaxed);
        state.segment = Some(segment);
        Ok(())
    }

    /// Appends nothing more to the segment.
    fn leave_segment(&self, state: &mut State) {
        let Some(mut segment) = state.segment.take() else { return };
        if segment.is_mapped() {
            // What is not given back is given back with the segment.
            _ = segment.cut();
        }
        if self.settings.sync {
            state.left_unsynced.push(segment.file);
        }
    }

    fn overflow(&self) -> Error {
        let max = self.settings.max_bytes;
        Error::new(
            ErrorKind::Overflow,
            format!(
                "the spool is full: its {max} bytes are taken, and the call was not accepted; \
                 see why calls are not delivered, or raise max_spool_bytes, and where calls are kept \
                 in memory set a spool_dir that can be written"
            ),
        )
        .with_field("max_spool_bytes")
    }

    /// To be called often, by a thread that no call waits for. Does what the next ones would wait for.
    pub(crate) fn prepare(&self) {
        let preparation = self.lock().segment.as_mut().and_then(Segment::preparation);
        // Without the lock: meanwhile calls are accepted.
        if let Some(prepare) = preparation {
            prepare();
        }
    }

    /// To be called every second or so. Sees that records go where a reader finds them, and lets the
    /// next append try to begin a segment if none could be begun.
    pub(crate) fn look_after(&self, now: WallMs, idle_ms: i64) -> io::Result<Found> {
        let state = &mut *self.lock();
        state.refused = None;
        let disk = &**self.namespace.disk();
        let Owned { dir, lock, id, .. } = &state.spool;
        if !disk.identify(&dir.join("owner")).is_ok_and(|found| found == *id) {
            return Ok(Found::Gone);
        }
        let is_ours = |lock: &Arc<dyn DiskFile>| lock.identify().is_ok_and(|found| found == *id);
        if !lock.as_ref().is_some_and(is_ours) {
            return Ok(Found::Closed);
        }
        let Some(segment) = &mut state.segment else {
            // What was left because it could not be written is read to its end once another follows.
            if state.last_segment.is_some_and(|left| left.first_seq < state.next_seq) {
                self.begin_segment(state, SEGMENT_HEADER_BYTES as u32)?;
            }
            return Ok(Found::InPlace);
        };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let path = dir.join(segment_name(segment.info.first_seq));
        let whole = is_in_place(disk, &path, &*segment.file)
            && segment.file.read_at(&mut header, 0)? == header.len()
            && header == segment_header(segment.info);
        if whole && let Err(error) = segment.prove() {
            self.leave_segment(state);
            return Err(error);
        }
        let used = segment.info.first_seq < state.next_seq;
        let idle = used && now.saturating_sub(state.last_append) >= idle_ms;
        if whole && !idle {
            return Ok(Found::InPlace);
        }
        // The old one is then not the highest any more: it can be read to its end and unlinked. The
        // new one takes no more room than that had left.
        let left = u64::from(segment.info.allotted).saturating_sub(segment.len);
        let least = self.settings.least_segment_bytes();
        let allotted =
            left.clamp(SEGMENT_HEADER_BYTES as u64, least.max(SEGMENT_HEADER_BYTES as u64));
        state.next_segment_bytes = least;
        self.begin_segment(state, allotted as u32)?;
        Ok(if whole { Found::InPlace } else { Found::SegmentReplaced })
    }

    /// Goes on in a new spool, after the old one was removed from under us or closed. Returns how many
    /// records were appended to that.
    pub(crate) fn move_to(&self, spool: Owned) -> Seq {
        let mut state = self.lock();
        self.replaced.store(true, Ordering::Release);
        state.spool = spool;
        self.leave_segment(&mut state);
        state.last_segment = None;
        state.next_seq
    }

    /// Waits until the record is on the disk. One of those who wait syncs for all of them.
    fn sync(&self, seq: Seq) -> Result<()> {
        self.commit
            .wait_for(seq, || {
                let (files, end) = {
                    let mut state = self.lock();
                    let mut files = std::mem::take(&mut state.left_unsynced);
                    files.extend(state.segment.as_ref().map(|segment| segment.file.clone()));
                    (files, state.next_seq)
                };
                let synced: Vec<io::Result<()>> = files.iter().map(|file| file.sync()).collect();
                let result: io::Result<()> = synced.into_iter().collect();
                if result.is_ok() {
                    return (end, result);
                }
                // What the kernel could not write it may forget, also of what others wrote
                // meanwhile: all of it has failed, and another file is begun.
                let mut state = self.lock();
                state.segment = None;
                state.left_unsynced.clear();
                (state.next_seq, result)
            })
            .map_err(|error| {
                let what = "the call was written, but may not survive a power loss";
                failed(&self.dir(), what, error).and_may_be_billed()
            })
    }
}

fn failed(spool: &Path, what: &str, error: io::Error) -> Error {
    Error::storage(format!("{what}: {}", spool.display()), error)
}

#[cfg(test)]
mod tests;
