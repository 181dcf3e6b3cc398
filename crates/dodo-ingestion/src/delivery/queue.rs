//! The records of one spool that wait to be sent, and when they are due.

use std::collections::{HashSet, VecDeque};

use super::Meta;
use crate::clock::{MonoMs, Now};
use crate::planted::{Fault, is_planted};
use crate::spool::Seq;

/// So many waiting records, or so many bytes of them, make a full request and are due at once.
pub(crate) const FULL: Amount =
    Amount { records: crate::validate::limits::EVENTS_PER_REQUEST, bytes: 1_000_000 };

/// Some records, and their JSON.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Amount {
    pub(crate) const fn times(self, factor: usize) -> Self {
        Self { records: self.records * factor, bytes: self.bytes * factor }
    }

    pub(crate) fn shared_by(self, parts: usize) -> Self {
        let of = |whole: usize| (whole / parts.max(1)).max(1);
        Self { records: of(self.records), bytes: of(self.bytes) }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, usize::saturating_add)
    }

    /// What is left of it; never less than none.
    pub(crate) fn minus(self, other: Self) -> Self {
        self.with(other, usize::saturating_sub)
    }

    pub(crate) fn at_least(self, other: Self) -> Self {
        self.with(other, usize::max)
    }

    pub(crate) fn at_most(self, other: Self) -> Self {
        self.with(other, usize::min)
    }

    fn with(self, other: Self, of: impl Fn(usize, usize) -> usize) -> Self {
        let Self { records, bytes } = other;
        Self { records: of(self.records, records), bytes: of(self.bytes, bytes) }
    }
}

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
    /// How many requests had been acknowledged when it was last denied alone, though nothing said that it was
    /// at fault.
    pub(crate) denied_at: Option<u64>,
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
        let unanswered = meta.maybe_sent.map(|first| Unanswered { first, last: now.mono });
        self.waiting.push_back(Item {
            meta,
            due,
            attempts: 0,
            unanswered,
            failures: 0,
            denied_at: None,
        });
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

    pub(crate) fn amount(&self) -> Amount {
        Amount { records: self.len(), bytes: self.bytes }
    }

    /// Of those that fit.
    pub(crate) fn amount_of(&self, fits: impl Fn(&Meta) -> bool) -> Amount {
        let fit = self.waiting.iter().filter(|item| fits(&item.meta));
        fit.fold(Amount::default(), |sum, item| {
            sum.plus(Amount { records: 1, bytes: item.meta.json_bytes })
        })
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|item| item.meta.group)
    }

    /// When something here is due; what is due takes along all that waits.
    pub(crate) fn due(&self) -> Option<MonoMs> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.is_urgent() { Some(0) } else { self.due }
    }

    /// Whether a flush waits for something here.
    pub(crate) fn is_urgent(&self) -> bool {
        self.waiting.front().is_some_and(|item| item.meta.seq < self.flush_below)
    }

    /// Takes the first record that fits.
    pub(crate) fn take_first(&mut self, fits: impl Fn(&Meta) -> bool) -> Option<Item> {
        let at = self.waiting.iter().position(|item| fits(&item.meta))?;
        let item = self.waiting.remove(at)?;
        self.bytes -= item.meta.json_bytes;
        Some(item)
    }

    /// Takes one of the records that fit.
    pub(crate) fn take_any(
        &mut self,
        random: &mut fastrand::Rng,
        fits: impl Fn(&Meta) -> bool,
    ) -> Option<Item> {
        let fit = (0..self.len()).filter(|at| fits(&self.waiting[*at].meta));
        let item = self.waiting.remove(random.choice(fit.collect::<Vec<_>>())?)?;
        self.bytes -= item.meta.json_bytes;
        Some(item)
    }

    /// Takes what was denied alone.
    pub(crate) fn take_denied(&mut self) -> Vec<Item> {
        self.take_items(|item| item.denied_at.is_some())
    }

    /// Takes all records that fit.
    pub(crate) fn take_all(&mut self, fits: impl Fn(&Meta) -> bool) -> Vec<Item> {
        self.take_items(|item| fits(&item.meta))
    }

    fn take_items(&mut self, fits: impl Fn(&Item) -> bool) -> Vec<Item> {
        if !self.waiting.iter().any(&fits) {
            return Vec::new();
        }
        let (taken, stay): (Vec<Item>, Vec<Item>) = self.waiting.drain(..).partition(fits);
        self.waiting = stay.into();
        self.bytes -= taken.iter().map(|item| item.meta.json_bytes).sum::<usize>();
        self.due = self.waiting.iter().map(|item| item.due).min();
        taken
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
