//! The groups on a record of which the server fails alone.
//!
//! Such a group travels apart, as one does that is refused. While nothing of it is taken, one of its
//! records is tried at a time, after a few failures ever more rarely: so a customer on whose every call
//! the server fails costs the others next to nothing. When one is taken, all that waits is sent; what
//! the server fails on then is told apart by halves, and when it takes all, the group is as any other.

use super::failing::{Evidence, FailingSet};
use super::{Action, Delivery, Failing, MonoMs, Now, Purpose, Request, Sent};

/// So many failures on records alone, with none taken in between, show that the server fails on all of a group.
const ALONE_TO_WAIT: u32 = 3;
const WAIT_MIN_MS: MonoMs = 60_000;
/// Not longer, since what waits for an hour can no longer be billed at its own time.
const WAIT_MAX_MS: MonoMs = 10 * 60_000;

/// A group of which a record was parked.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailingGroup {
    /// How often the server failed on a record of it alone since it took one.
    alone: u32,
    not_before: MonoMs,
    wait: MonoMs,
    /// How many requests had been acknowledged when it failed on the group last.
    acknowledged: u64,
}

impl FailingGroup {
    fn new(now: Now) -> Self {
        Self { alone: 0, not_before: now.mono, wait: WAIT_MIN_MS, acknowledged: 0 }
    }

    fn failed_alone(&mut self, acknowledged: u64, now: Now) {
        self.acknowledged = acknowledged;
        self.alone += 1;
        if self.alone >= ALONE_TO_WAIT {
            self.not_before = now.mono + self.wait;
            self.wait = (self.wait * 2).min(WAIT_MAX_MS);
        }
    }
}

impl Delivery {
    /// A record was parked, and its group is to cost the others nothing.
    pub(super) fn part_group(&mut self, group: u64, now: Now) {
        let failing = self.failing_groups.entry(group).or_insert_with(|| FailingGroup::new(now));
        failing.failed_alone(self.acknowledged, now);
        for (set, mut records) in std::mem::take(&mut self.failing) {
            self.part(&mut records);
            if !records.is_empty() {
                self.failing.push_back((set, records));
            }
        }
    }

    /// Whether one record of a group is tried at a time.
    pub(super) fn goes_alone(&self, group: u64) -> bool {
        self.failing_groups.get(&group).is_some_and(|failing| failing.alone > 0)
    }

    /// Until when a group that travels apart waits because the server fails on it.
    pub(super) fn group_not_before(&self, group: u64) -> MonoMs {
        self.failing_groups.get(&group).map_or(0, |failing| failing.not_before)
    }

    pub(super) fn is_group_at_fault(&self, records: &[Sent]) -> bool {
        let failing = records.first().and_then(|sent| self.failing_groups.get(&sent.group()));
        failing.is_some_and(|failing| self.passed_since(failing.acknowledged))
    }

    /// The server failed on records of a group that is at fault.
    pub(super) fn failed_apart(
        &mut self,
        records: Vec<Sent>,
        failing: Failing,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(sent) = records.first() else { return };
        let Some(group) = self.failing_groups.get_mut(&sent.group()) else { return };
        if group.alone > 0 {
            group.failed_alone(self.acknowledged, now);
            self.return_apart(records);
            return;
        }
        group.acknowledged = self.acknowledged;
        if failing == Failing::Silent {
            self.suspect_apart(records);
        } else {
            let acknowledged = self.acknowledged.saturating_sub(1);
            let denied = failing == Failing::Denied;
            let set = FailingSet { acknowledged, denied, ..self.new_set(true) };
            self.tell_apart_failing(records, set, Evidence::OthersPass, now, actions);
        }
    }

    /// Records were taken: the server does not fail on all of their groups.
    pub(super) fn taken_of_failing_groups(&mut self, request: &Request, now: Now) {
        if self.failing_groups.is_empty() {
            return;
        }
        for sent in &request.records {
            let Some(failing) = self.failing_groups.get_mut(&sent.group()) else { continue };
            if matches!(request.purpose, Purpose::Apart) && failing.alone == 0 {
                self.failing_groups.remove(&sent.group());
            } else {
                *failing =
                    FailingGroup { acknowledged: failing.acknowledged, ..FailingGroup::new(now) };
            }
        }
    }

    /// Tries the groups at once on which the server failed since so many requests had been acknowledged.
    pub(super) fn try_failing_groups(&mut self, since: u64, now: Now) {
        for failing in self.failing_groups.values_mut() {
            if failing.acknowledged >= since {
                (failing.not_before, failing.wait) = (now.mono, WAIT_MIN_MS);
            }
        }
    }
}
