//! A namespace: all that one account's processes on this host share.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::cursor::CursorFile;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_header, u64_at};
use super::outcomes::{Letter, Rejection, is_intact};
use super::reader::{segment_name, segments};
use super::writer::Owned;
use super::{Place, Seq};
use crate::clock::WallMs;
use crate::disk::{Disk, DiskFile, Open, append_line, is_in_place, read_tail, read_to_end};
use crate::planted::{Fault, is_planted};

/// The name of a spool's directory. Not a process id: no decision uses one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpoolName(pub(crate) String);

/// Directories that are being made begin with this, and do not count as spools yet.
const UNFINISHED: &str = ".new-";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const DEAD_LETTERS: &str = "dead-letters.jsonl";
/// More than the longest dead letter takes.
const LETTER_MAX_BYTES: u64 = 1 << 20;
/// So many bytes of dead letters, or one, are written together: what a crash may have come after.
pub(crate) const MOST_LETTERS_BYTES: usize = 256 << 10;
const START_BYTES: usize = size_of::<WallMs>();
const BEAT_BYTES: usize = size_of::<u64>() + 1;
/// Taking room is a matter of a millisecond.
const ROOM_LOCK_ATTEMPTS: u32 = 100;
const ROOM_LOCK_PAUSE: Duration = Duration::from_millis(1);

/// One call that was set aside, as it is kept: a line of JSON.
#[derive(Debug, Serialize)]
pub(crate) struct DeadLetter<'a> {
    /// When it was set aside, RFC 3339.
    pub(crate) at: String,
    /// The event in the API's form, with the time at which it happened.
    pub(crate) event: &'a serde_json::value::RawValue,
    pub(crate) occurred_at: String,
    /// The error kind.
    pub(crate) reason: &'a str,
    pub(crate) status: Option<u16>,
    /// The server's words.
    pub(crate) message: &'a str,
    pub(crate) attempts: u32,
    /// Whether the call may have been billed all the same.
    pub(crate) uncertain: bool,
    /// Whether it was refused together with others of its customer, after some were alone.
    pub(crate) by_group: bool,
    pub(crate) spool: &'a str,
    pub(crate) seq: Seq,
}

/// What a sender shows the other processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beat {
    /// Changes for as long as the sender lives.
    pub(crate) count: u64,
    /// What keeps calls from being billed: a number that senders agree on; 0 for nothing.
    pub(crate) trouble: u8,
}

/// The directory of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Namespace {
    /// The directories of a namespace, each in the one before.
    pub(crate) fn dirs(dir: &Path) -> [PathBuf; 3] {
        [dir.parent().unwrap_or(dir).to_owned(), dir.to_owned(), dir.join("spools")]
    }

    /// Opens a namespace, creating its directories if need be.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> io::Result<Self> {
        disk.create_dir_all(&dir.join("spools"))?;
        Ok(Self { disk, dir })
    }

    /// The namespaces that lie beside this one, so many at most.
    pub(crate) fn siblings(&self, most: usize) -> io::Result<Vec<Self>> {
        let Some(root) = self.dir.parent() else { return Ok(Vec::new()) };
        let mut names = self.disk.list(root)?;
        names.sort_unstable();
        let siblings = names.iter().map(|name| root.join(name)).filter(|dir| *dir != self.dir);
        Ok(siblings.take(most).map(|dir| Self { disk: self.disk.clone(), dir }).collect())
    }

    /// Makes the namespace's directories survive a power loss.
    pub(crate) fn sync_dirs(&self) -> io::Result<()> {
        self.dir.ancestors().take(3).try_for_each(|dir| self.disk.sync_dir(dir))
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn spool_dir(&self, name: &SpoolName) -> PathBuf {
        self.dir.join("spools").join(&name.0)
    }

    /// Makes a spool whose owner is the caller: locked first, and only then visible to a sender.
    pub(crate) fn create_spool(&self, name: SpoolName) -> io::Result<Owned> {
        let unfinished = self.dir.join("spools").join(format!("{UNFINISHED}{}", name.0));
        self.disk.create_dir_all(&unfinished)?;
        let owner = self.disk.open(&unfinished.join("owner"), Open::Update)?;
        if !owner.try_lock()? {
            return Err(io::Error::other("another process holds the new spool's lock"));
        }
        let id = owner.identify()?;
        CursorFile::create(&*self.disk, &unfinished.join("cursor"))?;
        let dir = self.spool_dir(&name);
        self.disk.rename(&unfinished, &dir)?;
        self.disk.sync_dir(&self.dir.join("spools"))?;
        Ok(Owned { name, dir, lock: Some(owner), id })
    }

    /// The spools of all processes, living and dead, oldest name first.
    pub(crate) fn spools(&self) -> io::Result<Vec<SpoolName>> {
        let mut names = self.disk.list(&self.dir.join("spools"))?;
        names.retain(|name| !name.starts_with('.'));
        names.sort_unstable();
        Ok(names.into_iter().map(SpoolName).collect())
    }

    /// Whether a spool's directory is all that is left of it. Removes it if it can.
    pub(crate) fn remove_if_empty(&self, name: &SpoolName) -> bool {
        let dir = self.spool_dir(name);
        let is_empty = || self.disk.list(&dir).is_ok_and(|left| left.is_empty());
        self.disk.remove_dir(&dir).is_ok() || is_empty()
    }

    /// Removes what processes left that died while they made their spool.
    pub(crate) fn remove_unfinished(&self) -> io::Result<()> {
        let spools = self.dir.join("spools");
        for name in self.disk.list(&spools)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            let dir = spools.join(name);
            let owner = match self.disk.open(&dir.join("owner"), Open::Read) {
                Ok(owner) => owner,
                // Just being made, and then begun again; or left empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    _ = self.disk.remove_dir(&dir);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if owner.try_lock()? {
                // The lock last: where there is none, a maker may be about to make it.
                for name in ["cursor", "owner"] {
                    self.disk.remove_file(&dir.join(name))?;
                }
                self.disk.remove_dir(&dir)?;
            }
        }
        Ok(())
    }

    /// Becomes the namespace's sender, until the file is dropped; `None` while another is.
    pub(crate) fn try_lock_sender(&self) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let file = self.disk.open(&self.dir.join("sender.lock"), Open::Update)?;
        Ok((file.try_lock()? || is_planted(Fault::TwoSenders)).then_some(file))
    }

    /// Whether a file that was locked by [`Self::try_lock_sender`] is still the one that others try.
    /// An unlinked lock file has two holders.
    pub(crate) fn is_sender_lock(&self, lock: &dyn DiskFile) -> bool {
        is_in_place(&*self.disk, &self.dir.join("sender.lock"), lock)
    }

    /// Appends lines to the dead letters, [`MOST_LETTERS_BYTES`] or one at most, and syncs them.
    pub(crate) fn append_dead_letters(&self, lines: &[u8]) -> io::Result<()> {
        let path = self.dir.join(DEAD_LETTERS);
        let first = self.disk.identify(&path).is_err();
        append_line(&*self.disk, &path, lines)?;
        if first {
            // The lines are on the disk; a directory that cannot be synced does not undo that.
            _ = self.sync_dirs();
        }
        Ok(())
    }

    /// The last dead letters, by spool: those that a crash may have come between and their outcomes.
    pub(crate) fn last_dead_letters(&self) -> io::Result<BTreeMap<SpoolName, Vec<Rejection>>> {
        let mut letters: BTreeMap<SpoolName, Vec<Rejection>> = BTreeMap::new();
        let file = match self.disk.open(&self.dir.join(DEAD_LETTERS), Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(letters),
            other => other?,
        };
        let tail = read_tail(&*file, LETTER_MAX_BYTES)?;
        let mut bytes = 0;
        let lines = tail.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let together = lines.take_while(|line| {
            let before = bytes;
            bytes += line.len();
            before == 0 || bytes <= MOST_LETTERS_BYTES
        });
        let intact = together.filter(|line| is_intact(line));
        for letter in intact.filter_map(|line| serde_json::from_slice::<Letter>(line).ok()) {
            let of_spool = letters.entry(SpoolName(letter.spool.clone())).or_default();
            of_spool.push(letter.outcome());
        }
        Ok(letters)
    }

    /// Keeps bytes of a spool that could not be read.
    pub(crate) fn quarantine(&self, spool: &SpoolName, at: Place, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let dir = self.dir.join(QUARANTINE);
        self.disk.create_dir_all(&dir)?;
        let name = format!("{}-{:016x}-{}", spool.0, at.segment, at.offset);
        let file = self.disk.open(&dir.join(name), Open::Update)?;
        file.truncate(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync()
    }

    /// When recent requests started, by the wall clock, in no order; and the slot that is the next
    /// request's.
    pub(crate) fn starts(&self, slots: usize, now: WallMs) -> io::Result<(Vec<WallMs>, usize)> {
        let file = self.disk.open(&self.dir.join("starts"), Open::Update)?;
        let bytes = read_to_end(&*file, (slots * START_BYTES) as u64)?;
        let starts = bytes.chunks_exact(START_BYTES).map(|chunk| u64_at(chunk, 0).cast_signed());
        // The clock may have been set back since: what lies ahead of it is not the newest.
        let passed = starts.clone().enumerate().filter(|(_, start)| (1..=now).contains(start));
        let newest = passed.max_by_key(|(_, start)| *start);
        let next = newest.map_or(0, |(slot, _)| (slot + 1) % slots);
        Ok((starts.filter(|start| *start > 0).collect(), next))
    }

    /// Notes the start of a request in one of the slots.
    pub(crate) fn record_start(&self, slot: usize, start: WallMs) -> io::Result<()> {
        let file = self.disk.open(&self.dir.join("starts"), Open::Update)?;
        file.write_all_at(&start.to_le_bytes(), (slot * START_BYTES) as u64)
    }

    /// What the sender wrote last by [`show_life`].
    pub(crate) fn last_beat(&self) -> io::Result<Beat> {
        let file = self.disk.open(&self.dir.join("sender.lock"), Open::Read)?;
        let mut bytes = [0; BEAT_BYTES];
        file.read_at(&mut bytes, 0)?;
        Ok(Beat { count: u64_at(&bytes, 0), trouble: bytes[BEAT_BYTES - 1] })
    }

    /// The bytes that the namespace takes, with what the segments being written may grow to.
    pub(crate) fn usage(&self) -> io::Result<u64> {
        let mut bytes = self.disk.usage(&self.dir)?;
        for spool in self.spools()? {
            bytes += self.room_of_last_segment(&self.spool_dir(&spool)).unwrap_or(0);
        }
        Ok(bytes)
    }

    fn room_of_last_segment(&self, spool: &Path) -> io::Result<u64> {
        let Some(last) = segments(&*self.disk, spool)?.pop() else { return Ok(0) };
        let file = self.disk.open(&spool.join(segment_name(last)), Open::Read)?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(&mut header, 0)?;
        let SegmentHeader::Readable(info) = parse_segment_header(&header[..read]) else {
            return Ok(0);
        };
        // It is as long as that while it is written to, and is cut when it is left.
        if info.is_mapped {
            return Ok(0);
        }
        Ok(u64::from(info.allotted).saturating_sub(file.len()?))
    }

    /// Takes room for a segment, given what the namespace takes.
    pub(crate) fn with_room<T>(&self, take: impl FnOnce(u64) -> io::Result<T>) -> io::Result<T> {
        self.alone(|| take(self.usage()?))
    }

    /// Does something while no other process does. A holder that was stopped does not stop the
    /// others; room may then be taken twice.
    pub(super) fn alone<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let lock = self.disk.open(&self.dir.join("room.lock"), Open::Update)?;
        let locked = (0..ROOM_LOCK_ATTEMPTS).any(|attempt| {
            if attempt > 0 {
                std::thread::sleep(ROOM_LOCK_PAUSE);
            }
            lock.try_lock().unwrap_or(false)
        });
        if !locked {
            tracing::debug!(target: "dodo_ingestion", "another process holds room.lock; going on without it");
        }
        act()
    }
}

/// Writes into the sender's lock what the others look for.
pub(crate) fn show_life(lock: &dyn DiskFile, beat: Beat) -> io::Result<()> {
    let mut bytes = [beat.trouble; BEAT_BYTES];
    bytes[..BEAT_BYTES - 1].copy_from_slice(&beat.count.to_le_bytes());
    lock.write_all_at(&bytes, 0)
}
