//! What the server fails on.
//!
//! A batch on which the server fails again and again, while it takes others, holds an event that it
//! cannot digest. It is told apart by halves: at each failure if others passed since, for then the
//! batch is at fault; seldom if nothing passes, for an outage of the server is nobody's fault. That
//! nobody answers may also be chance, or the network's fault: it has to happen several times. The
//! culprit is *parked*: tried alone, ever more rarely, and kept.

use super::{
    Action, AlarmKind, Delivery, EVENTS_PER_REQUEST, Failing, MonoMs, Now, Purpose, Sent, split,
};

/// So often the server fails on a batch before others are let pass.
const FAILURES_TO_SPLIT: u32 = 5;
/// So often there is no answer to a set, while others pass, before it is told apart.
const SILENCES_TO_SPLIT: u32 = 3;
const PARKED_MIN_MS: MonoMs = 60_000;
const PARKED_MAX_MS: MonoMs = 60 * 60_000;

/// Records on which the server fails together.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailingSet {
    /// How many requests had been acknowledged when the set was made.
    acknowledged: u64,
    /// How often it has failed on them.
    failures: u32,
}

/// A record on which it fails alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parking {
    pub(super) not_before: MonoMs,
    wait: MonoMs,
    /// How many requests had been acknowledged when it failed on it last.
    acknowledged: u64,
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
        let passes = self.failing.iter().all(|(set, _)| self.others_passed_since(set.acknowledged));
        worst >= FAILURES_TO_SPLIT && passes
    }

    /// The server failed on a set: it is told apart if others passed since it was made.
    pub(super) fn failed_set(
        &mut self,
        set: FailingSet,
        failing: Failing,
        records: Vec<Sent>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let failures = set.failures + 1;
        let others_pass = self.others_passed_since(set.acknowledged);
        let enough = match failing {
            Failing::Answered if others_pass => 1,
            Failing::Silent if others_pass => SILENCES_TO_SPLIT,
            _ => FAILURES_TO_SPLIT,
        };
        if failures >= enough {
            let sure = others_pass || failing == Failing::Answered;
            self.tell_apart_failing(records, sure, now, actions);
        } else {
            self.keep_failing(FailingSet { failures, ..set }, records);
        }
    }

    fn others_passed_since(&self, acknowledged: u64) -> bool {
        acknowledged < self.acknowledged
    }

    /// Whether the server fails on what was sent, and not on everything.
    pub(super) fn is_at_fault(&self, purpose: &Purpose, failing: Failing) -> bool {
        match (purpose, failing) {
            (_, Failing::No) => false,
            (Purpose::Parked(_), Failing::Answered) => true,
            (Purpose::Parked(parking), _) => self.others_passed_since(parking.acknowledged),
            (Purpose::Failing(set), _) => self.others_passed_since(set.acknowledged),
            _ => false,
        }
    }

    /// Unless it is `sure` that a record alone is at fault, it is put by and nobody is told.
    pub(super) fn tell_apart_failing(
        &mut self,
        records: Vec<Sent>,
        sure: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let set = FailingSet { acknowledged: self.acknowledged, failures: 0 };
        match records[..] {
            [alone] if sure => self.park(alone, None, now, actions),
            [alone] => {
                let (not_before, acknowledged) = (now.mono, self.acknowledged);
                let parking = Parking { not_before, wait: PARKED_MIN_MS, acknowledged };
                self.park_again(alone, parking, now);
            }
            _ => self.failing.extend(split(records).map(|records| (set, records))),
        }
    }

    pub(super) fn keep_failing(&mut self, set: FailingSet, records: Vec<Sent>) {
        self.failing.push_back((set, records));
    }

    /// The server works again: what it failed on while it failed on everything is tried at once.
    pub(super) fn unpark(&mut self, now: Now) {
        for (parking, _) in &mut self.parked {
            *parking = Parking { not_before: now.mono, wait: PARKED_MIN_MS, ..*parking };
        }
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
            "the billing API fails on a call, or does not answer, whenever it is sent; the call is \
             kept, and tried again in {} minutes",
            wait / 60_000
        );
        actions.push(Action::Alarm { kind: AlarmKind::Parked, message });
        let (not_before, acknowledged) = (now.mono + wait, self.acknowledged);
        self.parked.push((Parking { not_before, wait, acknowledged }, sent));
    }
}
