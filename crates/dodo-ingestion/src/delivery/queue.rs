//! The records of one spool that wait to be sent, and when they are due.

use std::collections::{HashSet, VecDeque};

use super::Meta;
use crate::clock::{MonoMs, Now};
use crate::planted::{Fault, is_planted};
use crate::spool::Seq;

/// So many waiting records make a full request and are due at once.
const FULL: usize = crate::validate::limits::EVENTS_PER_REQUEST;

/// So do so many bytes of them.
pub(crate) const FULL_BYTES: usize = 1_000_000;

/// A record on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) meta: Meta,
    pub(crate) due: MonoMs,
    pub(crate) attempts: u32,
    /// The requests with it that went unanswered: it may be billed.
    pub(crate) unanswered: Option<Unanswered>,
    /// How many requests with it the server failed on.
    pub(crate) failures: u32,
}

/// When requests went unanswered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unanswered {
    /// When the first of them was sent.
    pub(crate) first: Now,
    /// When the last of them was given up.
    pub(crate) last: MonoMs,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Item>,
    /// The JSON of the waiting.
    bytes: usize,
    /// The earliest due time among the waiting.
    due: Option<MonoMs>,
    /// Records below it are wanted by a flush.
    flush_below: Seq,
    /// Records below it were written down as attempted.
    pub(crate) attempted: Seq,
}

impl Queue {
    /// Adds the spool's next record.
    pub(crate) fn push(&mut self, meta: Meta, now: Now) {
        if meta.maybe_sent.is_some() {
            self.attempted = self.attempted.max(meta.seq + 1);
        }
        // By the wall clock, so that what waited through a restart is due; but never longer than
        // the delay from now on, should the clock have been set back.
        let delay = i64::from(meta.delay_ms);
        let left = meta.accepted_at.saturating_add(delay).saturating_sub(now.wall);
        let due = now.mono + left.clamp(0, delay) as u64;
        self.due = Some(self.due.map_or(due, |earliest| earliest.min(due)));
        self.bytes += meta.json_bytes;
        let unanswered = meta
            .maybe_sent
            .map(|wall| Unanswered { first: Now { wall, mono: now.mono }, last: now.mono });
        self.waiting.push_back(Item { meta, due, attempts: 0, unanswered, failures: 0 });
    }

    /// Everything below `seq` is due now.
    pub(crate) fn flush(&mut self, seq: Seq) {
        self.flush_below = self.flush_below.max(seq);
    }

    /// Puts records back that were taken, in order.
    pub(crate) fn put_back(&mut self, items: impl DoubleEndedIterator<Item = Item>, now: Now) {
        for item in items.rev() {
            self.bytes += item.meta.json_bytes;
            self.waiting.push_front(Item { due: now.mono, ..item });
            self.due = Some(now.mono);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When something here is due; what is due takes along all that waits.
    pub(crate) fn due(&self) -> Option<MonoMs> {
        if self.waiting.is_empty() {
            return None;
        }
        let full = self.waiting.len() >= FULL || self.bytes >= FULL_BYTES;
        if full || self.is_urgent() { Some(0) } else { self.due }
    }

    /// Whether a flush waits for something here.
    pub(crate) fn is_urgent(&self) -> bool {
        self.waiting.front().is_some_and(|item| item.meta.seq < self.flush_below)
    }

    pub(crate) fn any(&self, fits: impl Fn(&Meta) -> bool) -> bool {
        self.waiting.iter().any(|item| fits(&item.meta))
    }

    /// Takes the first record that fits.
    pub(crate) fn take_first(&mut self, fits: &dyn Fn(&Meta) -> bool) -> Option<Item> {
        let at = self.waiting.iter().position(|item| fits(&item.meta))?;
        let item = self.waiting.remove(at)?;
        self.bytes -= item.meta.json_bytes;
        Some(item)
    }

    /// Takes up to so many records and bytes; those that wait, and those whose id is
    /// in `ids` already, stay.
    pub(crate) fn take(
        &mut self,
        records: usize,
        bytes: &mut usize,
        cost: impl Fn(&Meta) -> usize,
        waits: impl Fn(&Meta) -> bool,
        ids: &mut HashSet<u64>,
    ) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut passed = Vec::new();
        while taken.len() < records {
            let Some(item) = self.waiting.front() else { break };
            let cost = cost(&item.meta);
            // A record alone goes, however large: only the server can say that it is too large.
            if cost > *bytes && !ids.is_empty() {
                break;
            }
            let Some(item) = self.waiting.pop_front() else { break };
            if !waits(&item.meta)
                && (ids.insert(item.meta.id_hash) || is_planted(Fault::OneIdTwice))
            {
                *bytes = bytes.saturating_sub(cost);
                self.bytes -= item.meta.json_bytes;
                taken.push(item);
            } else {
                passed.push(item);
            }
        }
        for item in passed.into_iter().rev() {
            self.waiting.push_front(item);
        }
        self.due = self.waiting.iter().map(|item| item.due).min();
        taken
    }
}
