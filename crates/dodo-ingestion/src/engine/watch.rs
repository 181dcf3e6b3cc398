//! Receipts that were carried over a fork: their calls are in the spool of the parent, which is
//! read here and never written.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::registry::is_in_memory;
use super::{Job, serve};
use crate::disk::{Disk as _, SystemDisk};
use crate::error::{Error, ErrorKind, Result};
use crate::process::PerProcess;
use crate::settlement::Settlement;
use crate::spool::{Outcomes, Seq, dead_letters_of, read_cursor};

const POLL: Duration = Duration::from_millis(20);

/// A spool of the parent's.
#[derive(Clone)]
pub(super) struct Watch {
    dir: PathBuf,
    settlement: Weak<Settlement>,
}

/// What becomes of the calls in the spool of a process that this one was forked from; learnt for
/// as long as anyone holds it.
pub(crate) fn settlement_of_inherited(dir: Option<&Path>) -> Result<Arc<Settlement>> {
    static WATCHED: PerProcess<Mutex<HashMap<PathBuf, Weak<Settlement>>>> = PerProcess::new();

    let Some(dir) = dir.filter(|dir| !is_in_memory(dir)) else {
        let message = "only the process before the fork knows what becomes of the call: it was \
                       accepted in memory, or its spool was removed";
        return Err(Error::new(ErrorKind::Storage, message));
    };
    let watched = WATCHED.get_or_init(Mutex::default);
    let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    watched.retain(|_, settlement| settlement.strong_count() > 0);
    if let Some(settlement) = watched.get(dir).and_then(Weak::upgrade) {
        return Ok(settlement);
    }
    let settlement = Arc::new(Settlement::default());
    let watch = Watch { dir: dir.to_owned(), settlement: Arc::downgrade(&settlement) };
    watched.insert(dir.to_owned(), watch.settlement.clone());
    serve(Job::Watch(watch))?;
    Ok(settlement)
}

impl Watch {
    pub(super) async fn run(self) {
        let mut outcomes = Outcomes::default();
        while let Some(settlement) = self.settlement.upgrade() {
            // What cannot be read now may be readable the next time.
            _ = self.look(&mut outcomes, &settlement);
            settlement.tick();
            if settlement.settled() == Seq::MAX {
                return;
            }
            drop(settlement);
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_gone(&self) -> bool {
        SystemDisk.identify(&self.dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Learns up to where the spool is settled, and what of that was not billed.
    fn look(&self, outcomes: &mut Outcomes, settlement: &Settlement) -> io::Result<()> {
        let cursor = match read_cursor(&SystemDisk, &self.dir) {
            Ok(cursor) if cursor.settled <= settlement.settled() => return Ok(()),
            Ok(cursor) => cursor,
            // A spool is removed when its owner is gone and all of it is settled.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_gone() => {
                return settlement
                    .learn(Seq::MAX, |each| dead_letters_of(&SystemDisk, &self.dir, each));
            }
            Err(error) => return Err(error),
        };
        settlement.learn(cursor.settled, |each| {
            outcomes.read_on(&SystemDisk, &self.dir, each)?;
            // Of a spool the cursor is removed after the outcomes: as long as it is there, they were.
            read_cursor(&SystemDisk, &self.dir).map(drop)
        })
    }
}
