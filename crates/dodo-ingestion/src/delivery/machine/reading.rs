//! How far is read ahead of what is sent.
//!
//! Far enough that a request can be filled while another is under way; and so little, over all spools,
//! that memory is bounded. Each spool has a share that the others leave it, so that requests are filled
//! from all of them. Beyond that, whose turn comes first has more. What a spool holds is not known
//! before it was read: so they are asked one after another.

use super::{Action, Delivery, MAX_BYTES_ASIDE, Meta, Now, RecordRef, Sent, SpoolId};
use crate::delivery::queue::{Amount, FULL, Queue};

/// Of one spool: one request's records under way, one's to come.
pub(super) const OF_ONE: Amount = FULL.times(2);
/// Of all spools, where no more than their shares is read.
pub(super) const OF_ALL: Amount = FULL.times(4);

impl Delivery {
    /// Has all spools asked for records, unless too much waits outside of the queues. Where that is to be
    /// looked up, it takes hours, and the spools that it is of wait alone.
    pub(super) fn ask_for_records(&mut self) {
        self.to_read.clear();
        if self.bytes_aside() <= MAX_BYTES_ASIDE {
            let (owing, bytes) = self.owed();
            let reads = |spool: &SpoolId| bytes <= MAX_BYTES_ASIDE || !owing.contains(spool);
            let order = self.queues.range(self.turn..).chain(self.queues.range(..self.turn));
            self.to_read.extend(order.map(|(spool, _)| *spool).filter(reads));
        }
    }

    /// Asks the next spool that may have more. False if none is left.
    pub(super) fn read_on(&mut self, actions: &mut Vec<Action>) -> bool {
        let share = OF_ONE.shared_by(self.queues.len());
        while let Some(spool) = self.to_read.pop_front() {
            let Some(queue) = self.queues.get(&spool) else { continue };
            let held = queue.amount();
            let all = self.queues.values().map(Queue::amount).fold(Amount::default(), Amount::plus);
            let of_all = OF_ALL.minus(all).at_least(share.minus(held));
            // A record may be larger than a share.
            let room = of_all.at_most(OF_ONE.minus(held)).at_most(OF_ALL.plus(OF_ONE).minus(all));
            let Amount { records, bytes } = room;
            if records > 0 && bytes > 0 {
                actions.push(Action::Read { spool, records, bytes });
                return true;
            }
        }
        false
    }

    pub(super) fn available(
        &mut self,
        spool: SpoolId,
        metas: Vec<Meta>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let queue = self.queues.entry(spool).or_default();
        let resumes = metas.iter().any(|meta| meta.maybe_sent.is_some());
        let mut flushes = Vec::new();
        for meta in metas {
            if meta.flush {
                queue.flush(meta.seq);
                flushes.push(RecordRef { spool, seq: meta.seq });
            } else {
                queue.push(meta, now);
            }
        }
        if resumes {
            self.part_what_was_sent_long_ago(spool, now);
        }
        if !flushes.is_empty() {
            actions.push(Action::Settle { records: flushes });
        }
    }

    /// The bytes of what was read and waits elsewhere than in a queue, other than [what is owed a
    /// look-up](Self::owed).
    pub(super) fn bytes_aside(&self) -> usize {
        let sets = self.suspects.iter().chain(self.apart.values());
        let failing = self.failing.iter().map(|(_, records)| records);
        let alone = self.parked.iter().map(|(_, sent)| sent);
        let blamed =
            self.lookups.iter().filter(|(lookup, _)| lookup.is_blamed()).map(|(_, sent)| sent);
        let unwritten = self.unwritten.iter().map(|(_, sent)| sent);
        let words: usize = self.unwritten.iter().map(|(cause, _)| cause.message.len()).sum();
        let aside = sets.chain(failing).flatten().chain(alone).chain(blamed).chain(unwritten);
        aside.map(|sent: &Sent| sent.item.meta.json_bytes).sum::<usize>() + words
    }
}
