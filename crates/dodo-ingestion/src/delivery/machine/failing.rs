//! What the server fails on.
//!
//! A batch on which the server fails again and again, while it takes others, holds an event that it
//! cannot digest. It is told apart by halves: at each failure if others passed since, for then the
//! batch is at fault; seldom if nothing passes, for an outage of the server is nobody's fault. The
//! culprit is *parked*: tried alone, ever more rarely, and kept.

use super::{
    Action, AlarmKind, Delivery, EVENTS_PER_REQUEST, MonoMs, Now, Purpose, STORAGE_RETRY_MS, Sent,
    split,
};

/// So often the server fails on a batch before others are let pass.
const FAILURES_TO_SPLIT: u32 = 5;
const PARKED_MIN_MS: MonoMs = 60_000;
const PARKED_MAX_MS: MonoMs = 60 * 60_000;

/// Records on which the server fails together.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailingSet {
    /// How many requests had been acknowledged when it failed on them last.
    acknowledged: u64,
    /// How often it failed on them since, while nothing passed.
    failures: u32,
}

/// A record on which it fails alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parking {
    pub(super) not_before: MonoMs,
    wait: MonoMs,
}

impl Delivery {
    pub(super) fn take_failing(&mut self) -> Option<(Purpose, Vec<Sent>)> {
        let (set, records) = self.failing.pop_front()?;
        debug_assert!(records.len() <= EVENTS_PER_REQUEST);
        Some((Purpose::Failing(set), records))
    }

    pub(super) fn take_parked(&mut self, now: Now) -> Option<(Purpose, Vec<Sent>)> {
        let at = self.parked.iter().position(|(parking, _)| parking.not_before <= now.mono)?;
        let (parking, sent) = self.parked.remove(at);
        Some((Purpose::Parked(parking), vec![sent]))
    }

    /// The server failed on a batch that was due. True when the batch is to let others pass.
    pub(super) fn fails_again(&mut self, records: &mut [Sent]) -> bool {
        for sent in &mut *records {
            sent.item.failures += 1;
        }
        let worst = records.iter().map(|sent| sent.item.failures).max().unwrap_or(0);
        // One batch under suspicion is enough while nothing passes.
        let passes = self.failing.iter().all(|(set, _)| self.others_passed_since(*set));
        worst >= FAILURES_TO_SPLIT && passes
    }

    /// The server failed on a set: it is told apart if others passed since it failed last.
    pub(super) fn failed_set(
        &mut self,
        set: FailingSet,
        records: Vec<Sent>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let failures = set.failures + 1;
        if self.others_passed_since(set) || failures >= FAILURES_TO_SPLIT {
            self.tell_apart_failing(records, now, actions);
        } else {
            self.keep_failing(FailingSet { failures, ..set }, records);
        }
    }

    pub(super) fn others_passed_since(&self, set: FailingSet) -> bool {
        set.acknowledged < self.acknowledged
    }

    pub(super) fn tell_apart_failing(
        &mut self,
        records: Vec<Sent>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let [alone] = records[..] {
            self.park(alone, None, now, actions);
            return;
        }
        let set = FailingSet { acknowledged: self.acknowledged, failures: 0 };
        self.failing.extend(split(records).map(|records| (set, records)));
    }

    pub(super) fn keep_failing(&mut self, set: FailingSet, records: Vec<Sent>) {
        self.failing.push_back((set, records));
    }

    /// The server works again: what it failed on while it failed on everything is tried at once.
    pub(super) fn unpark(&mut self, now: Now) {
        for (parking, _) in &mut self.parked {
            *parking = Parking { not_before: now.mono, wait: PARKED_MIN_MS };
        }
    }

    /// Tries a record again that was to be set aside and could not be. Others do not wait for it.
    pub(super) fn keep_for_later(&mut self, sent: Sent, now: Now) {
        let parking = Parking { not_before: now.mono + STORAGE_RETRY_MS, wait: PARKED_MIN_MS };
        self.parked.push((parking, sent));
    }

    /// A parked record was tried, and no answer says that it is at fault.
    pub(super) fn park_again(&mut self, sent: Sent, before: Parking, now: Now) {
        let parking = Parking { not_before: now.mono + before.wait, ..before };
        self.parked.push((parking, sent));
    }

    /// Tries a record again after a wait that grows.
    pub(super) fn park(
        &mut self,
        sent: Sent,
        before: Option<Parking>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let wait = before.map_or(PARKED_MIN_MS, |parking| (parking.wait * 2).min(PARKED_MAX_MS));
        let message = format!(
            "the billing API fails on a call whenever it is sent; the call is kept, and tried again \
             in {} minutes",
            wait / 60_000
        );
        actions.push(Action::Alarm { kind: AlarmKind::Parked, message });
        self.parked.push((Parking { not_before: now.mono + wait, wait }, sent));
    }
}
