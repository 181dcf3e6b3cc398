//! Which records go into a request.

use std::collections::HashSet;

use super::{
    APART_SHARE, Delivery, EVENTS_PER_REQUEST, MAX_BYTES_ASIDE, MINUTE, Meta, MonoMs, Now, Sent,
    SpoolId, cost,
};
use crate::delivery::queue::Queue;

fn ids(records: &[Sent]) -> HashSet<u64> {
    records.iter().map(|sent| sent.item.meta.id_hash).collect()
}

impl Delivery {
    /// When a group that travels apart may go. The tenth of the budget does not hold while a stop has
    /// left groups in doubt, nor while so much waits that nothing else may be read soon.
    pub(super) fn apart_due(&self, now: Now) -> Option<MonoMs> {
        let not_before = self.apart.keys().map(|group| self.group_not_before(*group)).min()?;
        let is_doubted = |group: &u64| self.refusals.is_doubted(*group);
        let hurries = now.mono < self.apart_not_before
            && (self.apart.keys().any(is_doubted) || self.bytes_aside() > MAX_BYTES_ASIDE / 2);
        Some(not_before.max(if hurries { now.mono } else { self.apart_not_before }))
    }

    /// The records of one group that travels apart.
    pub(super) fn take_apart(&mut self, now: Now) -> Vec<Sent> {
        let requests = u64::from(self.settings.requests_per_minute / APART_SHARE).max(1);
        self.apart_not_before = now.mono + MINUTE / requests;
        let mut in_turn =
            self.apart.range(self.apart_turn..).chain(self.apart.range(..self.apart_turn));
        let next = in_turn.find(|(group, _)| self.group_not_before(**group) <= now.mono);
        let Some((&group, _)) = next else { return Vec::new() };
        self.apart_turn = group.wrapping_add(1);
        let mut records = self.apart.remove(&group).unwrap_or_default();
        if self.goes_alone(group) && records.len() > 1 {
            let last = records.split_off(records.len() - 1);
            self.apart.insert(group, records);
            return last;
        }
        let mut ids = HashSet::with_capacity(records.len().min(EVENTS_PER_REQUEST));
        let mut bytes = self.size.bytes();
        let (now, later): (Vec<Sent>, Vec<Sent>) = records.into_iter().partition(|sent| {
            let cost = cost(&sent.item.meta);
            let fits = ids.is_empty() || (cost <= bytes && ids.len() < EVENTS_PER_REQUEST);
            let goes = fits && ids.insert(sent.item.meta.id_hash);
            if goes {
                bytes = bytes.saturating_sub(cost);
            }
            goes
        });
        if !later.is_empty() {
            self.apart.insert(group, later);
        }
        now
    }

    /// Returns records of one group that travels apart; others of it are the next.
    pub(super) fn return_apart(&mut self, mut records: Vec<Sent>) {
        let Some(group) = records.first().map(Sent::group) else { return };
        // The last one is the next that goes alone; of more, the first are.
        let goes_alone = self.goes_alone(group);
        let waiting = self.apart.entry(group).or_default();
        if goes_alone {
            waiting.splice(..0, records);
        } else {
            waiting.append(&mut records);
        }
    }

    /// Takes what waits, in equal shares of the spools as far as it goes.
    pub(super) fn fill(&mut self) -> Vec<Sent> {
        self.part_queues();
        let mut records = Vec::new();
        let mut ids = HashSet::with_capacity(EVENTS_PER_REQUEST);
        let mut bytes = self.size.bytes();
        let suspected = self.suspected();
        let waits = |meta: &Meta| suspected.contains(&meta.group);
        let order: Vec<SpoolId> = self
            .queues
            .range(self.turn..)
            .chain(self.queues.range(..self.turn))
            .filter_map(|(spool, queue)| (queue.len() > 0).then_some(*spool))
            .collect();
        loop {
            let room = EVENTS_PER_REQUEST - records.len();
            let share = (room / order.len().max(1)).max(1);
            let mut took_some = false;
            for spool in &order {
                let room = share.min(EVENTS_PER_REQUEST - records.len());
                let Some(queue) = self.queues.get_mut(spool) else { continue };
                let taken = queue.take(room, &mut bytes, cost, waits, &mut ids);
                took_some |= !taken.is_empty();
                records.extend(taken.into_iter().map(|item| Sent { spool: *spool, item }));
            }
            if !took_some || records.len() == EVENTS_PER_REQUEST {
                break;
            }
        }
        self.turn = order.first().map_or(0, |first| first + 1);
        records
    }

    /// Takes what waits under the ids of records that were taken: the API counts an id once, and a request
    /// carries it once. Each of many would need a request of its own.
    pub(super) fn take_twins(&mut self, taken: &[Sent]) -> Vec<Sent> {
        let ids = ids(taken);
        let mut twins = Vec::new();
        for (spool, queue) in &mut self.queues {
            let items = queue.take_all(|meta| ids.contains(&meta.id_hash));
            twins.extend(items.into_iter().map(|item| Sent { spool: *spool, item }));
        }
        let groups: Vec<u64> = self.apart.keys().copied().collect();
        twins.extend(groups.iter().flat_map(|group| self.take_twins_apart(*group, taken)));
        twins
    }

    /// Of those, what is of a group that travels apart.
    pub(super) fn take_twins_apart(&mut self, group: u64, of: &[Sent]) -> Vec<Sent> {
        let Some(records) = self.apart.get_mut(&group) else { return Vec::new() };
        let ids = ids(of);
        let is_twin = |sent: &mut Sent| ids.contains(&sent.item.meta.id_hash);
        let twins = records.extract_if(.., is_twin).collect();
        if records.is_empty() {
            self.apart.remove(&group);
        }
        twins
    }

    /// The groups of which records wait that are under no suspicion.
    pub(super) fn groups_beyond_suspicion(&self) -> HashSet<u64> {
        let mut groups: HashSet<u64> = self.queues.values().flat_map(Queue::groups).collect();
        let suspected = self.suspected();
        groups.retain(|group| {
            !suspected.contains(group)
                && !self.refusals.is_apart(*group)
                && !self.failing_groups.contains_key(group)
        });
        groups
    }

    /// Takes any one record that waits, of a group that fits and is under no suspicion.
    pub(super) fn take_any_due(&mut self, fits: impl Fn(u64) -> bool) -> Option<Sent> {
        let groups = self.groups_beyond_suspicion();
        self.take_any_queued(|meta| groups.contains(&meta.group) && fits(meta.group))
    }

    /// Takes any one record that waits and fits.
    pub(super) fn take_any_queued(&mut self, fits: impl Fn(&Meta) -> bool) -> Option<Sent> {
        let random = &mut self.random;
        self.queues.iter_mut().find_map(|(spool, queue)| {
            let item = queue.take_any(random, &fits)?;
            Some(Sent { spool: *spool, item })
        })
    }

    /// Moves what waits in the queues of groups that travel apart: also those under one id, which would fill the
    /// queues. Says whether there was any.
    pub(super) fn part_queues(&mut self) -> bool {
        let (refusals, failing) = (&self.refusals, &self.failing_groups);
        if !refusals.any_apart() && failing.is_empty() {
            return false;
        }
        let is_apart = |group| refusals.is_apart(group) || failing.contains_key(&group);
        let mut parts = false;
        for (spool, queue) in &mut self.queues {
            for item in queue.take_all(|meta| is_apart(meta.group)) {
                parts = true;
                self.apart.entry(item.meta.group).or_default().push(Sent { spool: *spool, item });
            }
        }
        parts
    }

    /// Moves the records of groups that travel apart to where they wait.
    pub(super) fn part(&mut self, records: &mut Vec<Sent>) {
        let (refusals, failing) = (&self.refusals, &self.failing_groups);
        let is_apart = |group| refusals.is_apart(group) || failing.contains_key(&group);
        for sent in records.extract_if(.., |sent| is_apart(sent.group())) {
            self.apart.entry(sent.group()).or_default().push(sent);
        }
    }
}
