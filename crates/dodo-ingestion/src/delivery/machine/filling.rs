//! Which records go into a request.

use std::collections::{BTreeMap, HashSet};

use super::{
    APART_SHARE, Delivery, EVENTS_PER_REQUEST, MINUTE, Meta, Now, Queue, Sent, SpoolId, cost,
};

impl Delivery {
    /// The records of one group that travels apart; within a tenth of the request budget.
    pub(super) fn take_apart(&mut self, now: Now) -> Vec<Sent> {
        let requests = u64::from(self.settings.requests_per_minute / APART_SHARE).max(1);
        self.apart_not_before = now.mono + MINUTE / requests;
        let next = self.apart.range(self.apart_turn..).next().or_else(|| self.apart.iter().next());
        let Some((&group, _)) = next else { return Vec::new() };
        self.apart_turn = group.wrapping_add(1);
        let records = self.apart.remove(&group).unwrap_or_default();
        let mut ids = HashSet::with_capacity(records.len().min(EVENTS_PER_REQUEST));
        let mut bytes = self.max_bytes;
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

    /// One record, of another group than the last one that was probed, where there is one.
    pub(super) fn take_probe(&mut self) -> Vec<Sent> {
        let probed = self.probed;
        let take = |queues: &mut BTreeMap<SpoolId, Queue>, fits: &dyn Fn(&Meta) -> bool| {
            queues.iter_mut().find_map(|(spool, queue)| {
                let item = queue.take_first(fits)?;
                Some(Sent { spool: *spool, item })
            })
        };
        let other = take(&mut self.queues, &|meta| meta.group != probed);
        let probe = other.or_else(|| take(&mut self.queues, &|_| true));
        if let Some(sent) = &probe {
            self.probed = sent.group();
        }
        probe.into_iter().collect()
    }

    /// Takes what waits, in equal shares of the spools as far as it goes.
    pub(super) fn fill(&mut self) -> Vec<Sent> {
        let mut records = Vec::new();
        let mut ids = HashSet::with_capacity(EVENTS_PER_REQUEST);
        let mut bytes = self.max_bytes;
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
            if self.refusals.any_apart() {
                self.part(&mut records);
            }
            if !took_some || records.len() == EVENTS_PER_REQUEST {
                break;
            }
        }
        self.turn = order.first().map_or(0, |first| first + 1);
        records
    }

    /// Moves the records of groups that travel apart to where they wait.
    pub(super) fn part(&mut self, records: &mut Vec<Sent>) {
        for sent in records.extract_if(.., |sent| self.refusals.is_apart(sent.group())) {
            self.apart.entry(sent.group()).or_default().push(sent);
        }
    }
}
