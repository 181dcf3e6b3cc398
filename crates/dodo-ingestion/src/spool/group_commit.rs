//! Group commit: of those who wait for their record to reach the disk, one syncs for all.
//!
//! # Invariants
//!
//! * At most one sync runs at a time, and covers every record that was written before it began.
//! * Nobody returns before a sync that began after their record was written has ended.
//! * A failed sync is told to everyone whose record it covered, and to nobody else; but to who waits while
//!   another hundred fail, a success may be told as a failure.
//!
//! # What it must not know
//!
//! Files, and what a record is.

use std::io;

use super::Seq;
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many ranges of failures are told apart.
const MOST_FAILURES: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
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

    pub(super) fn wait_for(
        &self,
        seq: Seq,
        sync: impl FnOnce() -> (Seq, io::Result<()>),
    ) -> io::Result<()> {
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
                let (begin, kind) = (progress.done, error.kind());
                match progress.failed.last_mut() {
                    // One entry for as long as the disk fails, however long that is.
                    Some((range, same)) if range.end == begin && *same == kind => range.end = end,
                    _ => progress.failed.push((begin..end, kind)),
                }
                if progress.failed.len() > MOST_FAILURES {
                    // Who still waits for one of the oldest is told so in any case.
                    let (oldest, _) = progress.failed.remove(0);
                    progress.failed[0].0.start = oldest.start;
                }
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
