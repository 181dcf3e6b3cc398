//! The clients that are open, for the end of the program.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dodo_ingestion::Ingestion;

static NEXT: AtomicU64 = AtomicU64::new(0);
/// Only locked by a thread that holds the interpreter, as one that forks does: a child finds it free.
static OPEN: Mutex<BTreeMap<u64, Ingestion>> = Mutex::new(BTreeMap::new());

/// Keeps a client on the list while it lives.
pub(crate) struct Open(u64);

impl Drop for Open {
    fn drop(&mut self) {
        // Dropped outside of the lock: it may be the last of its clones.
        let removed = list().remove(&self.0);
        drop(removed);
    }
}

pub(crate) fn open(core: &Ingestion) -> Open {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    list().insert(number, core.clone());
    Open(number)
}

pub(crate) fn still_open() -> Vec<Ingestion> {
    list().values().cloned().collect()
}

fn list() -> MutexGuard<'static, BTreeMap<u64, Ingestion>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}
