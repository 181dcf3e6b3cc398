//! Who waits for which record, and until when.
//!
//! A waker is the host's code: it may look again at once, or drop what waited with it. So it is cloned, woken
//! and dropped where nothing is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::spool::Seq;

#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    registered: u64,
    by_seq: BTreeMap<(Seq, u64), (Instant, Waker)>,
    by_deadline: BTreeSet<(Instant, Seq, u64)>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) seq: Seq,
    pub(super) deadline: Instant,
    number: u64,
}

impl Waiters {
    fn list(&self) -> MutexGuard<'_, List> {
        // Nothing that can panic happens under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One who is not woken yet.
    pub(super) fn join(&self, seq: Seq, deadline: Instant) -> Waiter {
        let mut list = self.list();
        list.registered += 1;
        Waiter { seq, deadline, number: list.registered }
    }

    /// Has it woken, once, at its record, its deadline or the end: from before the caller looks again.
    pub(super) fn listen(&self, waiter: Waiter, waker: &Waker) {
        let Waiter { seq, deadline, number } = waiter;
        let waker = waker.clone();
        let mut list = self.list();
        list.by_deadline.insert((deadline, seq, number));
        let replaced = list.by_seq.insert((seq, number), (deadline, waker));
        drop(list);
        drop(replaced);
    }

    pub(super) fn leave(&self, waiter: Waiter) {
        let Waiter { seq, deadline, number } = waiter;
        let mut list = self.list();
        list.by_deadline.remove(&(deadline, seq, number));
        let removed = list.by_seq.remove(&(seq, number));
        drop(list);
        drop(removed);
    }

    pub(super) fn wake_below(&self, settled: Seq) {
        let mut list = self.list();
        let later = list.by_seq.split_off(&(settled, 0));
        let woken = mem::replace(&mut list.by_seq, later);
        for ((seq, number), (deadline, _)) in &woken {
            list.by_deadline.remove(&(*deadline, *seq, *number));
        }
        drop(list);
        wake(woken.into_values());
    }

    pub(super) fn wake_due(&self, now: Instant) {
        let mut list = self.list();
        let mut woken = Vec::new();
        while let Some(&(deadline, seq, number)) = list.by_deadline.first()
            && deadline <= now
        {
            list.by_deadline.pop_first();
            woken.extend(list.by_seq.remove(&(seq, number)));
        }
        drop(list);
        wake(woken);
    }

    pub(super) fn wake_all(&self) {
        let mut list = self.list();
        list.by_deadline.clear();
        let woken = mem::take(&mut list.by_seq);
        drop(list);
        wake(woken.into_values());
    }
}

fn wake(woken: impl IntoIterator<Item = (Instant, Waker)>) {
    for (_, waker) in woken {
        waker.wake();
    }
}
