//! What is sent while everything seems to be refused: one record a minute, of one group after another.
//!
//! The groups that were refused already travel apart. What waits of them is moved out of the way, so that
//! the records behind it are seen; and they are tried again when no other group waits. The first record
//! that is taken ends the stop.

use super::{Delivery, MAX_BYTES_ASIDE, MonoMs, Now, Purpose, Sent, Turn};
use crate::delivery::queue::Queue;

impl Delivery {
    pub(super) fn probe_due(&self, now: Now) -> Option<MonoMs> {
        let apart = (!self.apart.is_empty()).then_some(now.mono);
        let others = [Turn::Lookup, Turn::Parked].map(|turn| self.due(turn, now));
        others.into_iter().chain([self.queues_due(), apart]).flatten().min()
    }

    /// One record. One that needs a look-up first may be the only one that would be taken.
    pub(super) fn take_probe(&mut self, now: Now) -> Option<(Purpose, Vec<Sent>)> {
        if let Some(lookup) = self.take_lookup(now) {
            return Some(lookup);
        }
        // As far as memory allows.
        if self.bytes_aside() <= MAX_BYTES_ASIDE && self.part_queues() {
            return None;
        }
        let records = match self.next_group() {
            Some(group) => {
                self.probed = group;
                self.take_of(group)
            }
            None => self.take_parked(now)?.1,
        };
        Some((Purpose::Probe, records))
    }

    /// The group after the one that was probed last; one that was not refused, if there is any.
    fn next_group(&self) -> Option<u64> {
        let queued = || self.queues.values().flat_map(Queue::groups);
        let all = || queued().chain(self.apart.keys().copied());
        let after = |group: &u64| (*group <= self.probed, *group);
        let fresh = queued().filter(|group| !self.refusals.is_apart(*group)).min_by_key(after);
        fresh.or_else(|| all().min_by_key(after))
    }

    pub(super) fn next_queued_group(&self) -> Option<u64> {
        let after = |group: &u64| (*group <= self.probed, *group);
        self.queues.values().flat_map(Queue::groups).min_by_key(after)
    }

    /// The first record of a group.
    fn take_of(&mut self, group: u64) -> Vec<Sent> {
        if let Some(mut records) = self.apart.remove(&group) {
            let first = records.remove(0);
            if !records.is_empty() {
                self.apart.insert(group, records);
            }
            return vec![first];
        }
        let first = self.queues.iter_mut().find_map(|(spool, queue)| {
            let item = queue.take_first(|meta| meta.group == group)?;
            Some(Sent { spool: *spool, item })
        });
        first.into_iter().collect()
    }

    /// A probe was refused.
    pub(super) fn probed_in_vain(&mut self, sent: Sent) {
        self.refusals.doubt(sent.group());
        self.apart.entry(sent.group()).or_default().insert(0, sent);
    }
}
