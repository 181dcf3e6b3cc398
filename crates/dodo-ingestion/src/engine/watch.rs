//! Receipts that were carried over a fork: their calls are in the spool of the parent, which is
//! read here and never written.

use std::collections::{BTreeSet, HashMap};
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
use crate::spool::{Outcomes, Rejection, Seq, damaged_from, dead_letters_of, read_cursor};

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

    /// All of it counts as settled. Of damaged calls nothing but the quarantine tells now: what was not
    /// seen settled may be one of them.
    fn learn_of_the_gone(&self, settlement: &Settlement) -> io::Result<()> {
        let known = settlement.settled();
        let damaged = damaged_from(&SystemDisk, &self.dir)?;
        settlement.learn(Seq::MAX, |each| {
            let mut set_aside = BTreeSet::new();
            dead_letters_of(&SystemDisk, &self.dir, |letter| {
                set_aside.insert(letter.seq);
                each(letter);
            })?;
            let first = damaged.map_or(Seq::MAX, |first| first.max(known));
            // Two that begin with the same record would be one.
            if let Some(first) = (first..Seq::MAX).find(|seq| !set_aside.contains(seq)) {
                each(Rejection::unknown(&(first..Seq::MAX)));
            }
            Ok(())
        })
    }

    /// Learns up to where the spool is settled, and what of that was not billed.
    fn look(&self, outcomes: &mut Outcomes, settlement: &Settlement) -> io::Result<()> {
        let cursor = match read_cursor(&SystemDisk, &self.dir) {
            Ok(cursor) if cursor.settled <= settlement.settled() => return Ok(()),
            Ok(cursor) => cursor,
            // A spool is removed when its owner is gone and all of it is settled.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_gone() => {
                return self.learn_of_the_gone(settlement);
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::settlement::block_on;

    #[test]
    fn a_call_that_may_have_been_damaged_in_a_spool_that_is_gone_is_not_taken_for_billed() {
        let namespace = tempfile::tempdir().unwrap();
        let quarantine = namespace.path().join("quarantine");
        std::fs::create_dir_all(&quarantine).unwrap();
        std::fs::create_dir_all(namespace.path().join("spools")).unwrap();
        let letter = r#"{"spool":"one","seq":12,"reason":"rejected","status":400,"message":"","uncertain":false}"#;
        std::fs::write(namespace.path().join("dead-letters.jsonl"), format!("{letter}\n")).unwrap();
        let kinds = |settled| {
            let settlement = Arc::new(Settlement::default());
            settlement.advance(settled);
            let dir = namespace.path().join("spools/one");
            let watch = Watch { dir, settlement: Arc::downgrade(&settlement) };
            watch.look(&mut Outcomes::default(), &settlement).unwrap();
            let outcome = |seq| {
                let outcome =
                    block_on(settlement.wait().until_settled(seq, Instant::now())).unwrap();
                outcome.map_err(|error| (error.kind(), error.may_be_billed())).err()
            };
            [9, 10, 11, 12, 13].map(outcome)
        };
        let (rejected, unknown) =
            (Some((ErrorKind::Rejected, false)), Some((ErrorKind::Storage, true)));
        assert_eq!(kinds(0), [None, None, None, rejected, None]);
        std::fs::write(quarantine.join("other-0000000000000000-0"), "damaged").unwrap();
        assert_eq!(kinds(0), [None, None, None, rejected, None]);
        std::fs::write(quarantine.join("one-000000000000000a-40"), "damaged").unwrap();
        assert_eq!(kinds(0), [None, unknown, unknown, rejected, unknown], "from that segment on");
        assert_eq!(kinds(12), [None, None, None, rejected, unknown], "that were not settled");
    }
}
