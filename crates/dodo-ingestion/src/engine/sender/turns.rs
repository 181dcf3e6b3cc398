//! Which spools are drained when there are more than can be drained at a time: they take turns.

use std::collections::BTreeMap;

use super::{AlarmKind, MonoMs, Now, Sender, SpoolId, SpoolName};

/// So many spools are drained at a time: each takes a descriptor or two. Few where it is tested.
const MAX_DRAINS: usize = if cfg!(test) { 8 } else { 200 };
/// So long a spool keeps its turn for what it has to deliver. A call that is told apart, looked up or
/// held for a minute has to be done with in it: what comes after is begun anew.
const TURN_MS: MonoMs = 600_000;
/// That a spool is left out for so long is told.
const LONG_MS: MonoMs = 60_000;

/// Spools that are left out, and since when.
pub(super) type LeftOut = BTreeMap<SpoolName, MonoMs>;

impl Sender {
    /// Which of the spools that are not drained are to be, the longest left out first. Makes room
    /// for them where it can.
    pub(super) fn next_spools(&mut self, spools: &[SpoolName], now: Now) -> Vec<SpoolName> {
        self.left_out.retain(|name, _| spools.contains(name) && !self.ids.contains_key(name));
        let own_name = self.shared.writer.name();
        let new = spools.iter().filter(|name| !self.ids.contains_key(name));
        let mut waiting: Vec<(MonoMs, SpoolName)> = new
            .map(|name| {
                let since = self.left_out.get(name).copied().unwrap_or(now.mono);
                // Its own is always drained.
                (if *name == own_name { 0 } else { since }, name.clone())
            })
            .collect();
        waiting.sort_unstable();
        let (mut taken, mut late) = (Vec::new(), 0);
        for (since, name) in waiting {
            late += usize::from(name != own_name && now.mono.saturating_sub(since) >= LONG_MS);
            if name == own_name || self.makes_room(taken.len(), now) {
                self.left_out.remove(&name);
                taken.push(name);
            } else {
                self.left_out.entry(name).or_insert(since);
            }
        }
        if late > 0 {
            let message = format!(
                "the calls of {late} processes had to wait for a minute: {MAX_DRAINS} spools are \
                 delivered at a time, and those have calls that are not taken"
            );
            self.alarm(AlarmKind::Crowded, &message, now);
        }
        taken
    }

    /// Whether one spool more can be drained, besides so many others. If need be the one that was
    /// opened first is let go of: of those that have nothing to deliver, or else have had their turn.
    fn makes_room(&mut self, others: usize, now: Now) -> bool {
        if self.drains.len() + others < MAX_DRAINS {
            return true;
        }
        let may_go = |spool: &SpoolId| !self.owes(*spool) && !self.uncommitted.contains(spool);
        let foreign = || self.drains.iter().filter(|(_, drain)| !drain.is_own());
        let idle = foreign().find(|(spool, drain)| drain.is_idle() && may_go(spool));
        // Its answer would find nobody.
        let had_its_turn = |spool: &SpoolId| {
            let opened = self.opened.get(spool).copied().unwrap_or_default();
            self.under_way.is_none() && now.mono.saturating_sub(opened) >= TURN_MS
        };
        let any = || foreign().find(|(spool, _)| may_go(spool) && had_its_turn(spool));
        let Some((spool, _)) = idle.or_else(any) else { return false };
        let spool = *spool;
        self.forget(spool, now);
        true
    }
}
