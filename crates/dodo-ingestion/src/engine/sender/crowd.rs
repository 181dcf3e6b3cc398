//! Which spools are drained when there are more than can be drained at a time: they take turns.

use std::collections::BTreeMap;
use std::io;

use super::{
    AlarmKind, Draining, Fault, Input, MonoMs, Now, Sender, SpoolId, SpoolName, is_planted,
};
use crate::spool::{Drain, Outcomes};

/// So many spools are drained at a time, if there are descriptors for them; and so many in any case.
const MAX_DRAINS: usize = 200;
const MIN_DRAINS: usize = 8;
/// Of a spool its segment, its cursor and the lock of an owner who is dead.
const DESCRIPTORS: u64 = 3;
/// One part in so many of what the host may open.
const SHARE: u64 = 4;
/// So long a spool keeps its turn for what it has to deliver. A call that is told apart, looked up or
/// held for a minute has to be done with in it: what comes after is begun anew.
const TURN_MS: MonoMs = 600_000;
/// A spool whose cursor cannot be written is left out for so long.
const REST_MS: MonoMs = 60_000;
/// That a spool is left out for so long is told.
const LONG_MS: MonoMs = 60_000;

/// Spools that are left out, and since when.
pub(super) type LeftOut = BTreeMap<SpoolName, MonoMs>;

/// How many spools are drained at a time. Few where it is tested.
pub(super) fn most_drains() -> usize {
    if cfg!(test) { MIN_DRAINS } else { drains_within(open_files()) }
}

fn drains_within(open_files: Option<u64>) -> usize {
    let drains = open_files.map_or(u64::MAX, |files| files / SHARE / DESCRIPTORS);
    usize::try_from(drains).unwrap_or(usize::MAX).clamp(MIN_DRAINS, MAX_DRAINS)
}

/// How many files the process may open, where that is limited.
fn open_files() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

impl Sender {
    /// Takes up spools that are new.
    pub(super) fn scan(&mut self, now: Now) {
        let spools = match self.namespace.spools() {
            Ok(spools) => spools,
            Err(error) => return self.alarm_storage("the spools cannot be listed", &error, now),
        };
        // They are in order, and may be very many.
        let is_there = |name: &SpoolName| spools.binary_search(name).is_ok();
        let gone: Vec<SpoolId> =
            self.ids.iter().filter(|(name, _)| !is_there(name)).map(|(_, spool)| *spool).collect();
        for spool in gone {
            self.forget(spool, now);
        }
        self.look_after_cursors(now);
        self.untold.retain(|name, _| is_there(name));
        self.settled.retain(|name, _| is_there(name));
        self.first_sent.retain(|name, _| is_there(name));
        self.resting.retain(|name, _| is_there(name));
        let own_name = self.shared.writer.name();
        for name in self.next_spools(&spools, now) {
            let own = name == own_name;
            if (is_planted(Fault::LeaveTheDead) && !own) || self.namespace.remove_if_empty(&name) {
                continue;
            }
            match self.open(&name, own) {
                Ok(drain) => {
                    let spool = self.next_id;
                    self.next_id += 1;
                    self.ids.insert(name, spool);
                    self.drains.insert(spool, Draining::new(drain, now));
                    self.handle(Input::Available { spool, metas: Vec::new() }, now);
                }
                Err(error) => {
                    let dir = self.namespace.spool_dir(&name);
                    let message = format!("a spool cannot be opened: {}: {error}", dir.display());
                    self.alarm(AlarmKind::Storage, &message, now);
                }
            }
        }
        if let Err(error) = self.namespace.remove_unfinished() {
            self.alarm_storage("an unfinished spool cannot be removed", &error, now);
        }
    }

    /// Owners wait for what is written there. Where it is still missing a second later it is not just the whole
    /// spool that is being removed.
    fn look_after_cursors(&mut self, now: Now) {
        let mut told = Vec::new();
        for draining in self.drains.values_mut() {
            let missed = std::mem::replace(
                &mut draining.misses_its_cursor,
                !draining.drain.cursor_is_in_place(),
            );
            if missed && draining.misses_its_cursor {
                told.push(draining.drain.put_cursor_back());
            }
        }
        for put_back in told {
            match put_back {
                Ok(()) => {
                    let message = "a spool's cursor was removed; another was made";
                    self.alarm(AlarmKind::Storage, message, now);
                }
                Err(error) => self.alarm_storage("a spool's cursor cannot be made", &error, now),
            }
        }
    }

    fn open(&mut self, name: &SpoolName, own: bool) -> io::Result<Drain> {
        let untold = self.untold.get(name).map_or(&[][..], Vec::as_slice);
        let mut drain = Drain::open(&self.namespace, name.clone(), own, untold)?;
        self.untold.remove(name);
        drain.pass_over(self.settled.remove(name).unwrap_or_default());
        if own {
            // What an earlier sender set aside is passed over from here on, and not told again.
            let (disk, dir) = (&**self.namespace.disk(), self.namespace.spool_dir(name));
            self.shared.settlement.learn(drain.cursor().settled, |each| {
                Outcomes::default().read_on(disk, &dir, each)
            })?;
        }
        Ok(drain)
    }

    /// Which of the spools, which are in order, are not drained and are to be, the longest left out first. Makes
    /// room for them where it can.
    fn next_spools(&mut self, spools: &[SpoolName], now: Now) -> Vec<SpoolName> {
        let is_there = |name: &SpoolName| spools.binary_search(name).is_ok();
        self.left_out.retain(|name, _| is_there(name) && !self.ids.contains_key(name));
        let own_name = self.shared.writer.name();
        let rests = |name| self.resting.get(name).is_some_and(|until| now.mono < *until);
        let new = spools.iter().filter(|name| !self.ids.contains_key(name) && !rests(name));
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
                "the calls of {late} processes had to wait for a minute: {} spools are delivered \
                 at a time, and those have calls that are not taken",
                self.max_drains
            );
            self.alarm(AlarmKind::Crowded, &message, now);
        }
        taken
    }

    /// Whether one spool more can be drained, besides so many others. If need be the one that was
    /// opened first is let go of: of those that have nothing to deliver, or else have had their turn.
    fn makes_room(&mut self, others: usize, now: Now) -> bool {
        if self.drains.len() + others < self.max_drains {
            return true;
        }
        let foreign = || self.drains.iter().filter(|(_, draining)| !draining.drain.is_own());
        let idle = foreign().find(|(_, draining)| draining.drain.is_idle() && draining.may_go());
        // Its answer would find nobody.
        let had_its_turn = |draining: &Draining| {
            self.under_way.is_none() && now.mono.saturating_sub(draining.opened) >= TURN_MS
        };
        let any = || foreign().find(|(_, draining)| draining.may_go() && had_its_turn(draining));
        let Some((spool, _)) = idle.or_else(any) else { return false };
        let spool = *spool;
        self.forget(spool, now);
        true
    }

    /// A spool's cursor could not be written, and nothing was sent for that. If it was so the last time
    /// as well, the others go on without it.
    pub(super) fn attempt_failed(&mut self, spool: SpoolId, now: Now) {
        let Some(draining) = self.drains.get(&spool) else { return };
        let name = draining.drain.name().clone();
        let failed_before = self.resting.insert(name, now.mono + REST_MS).is_some();
        if failed_before && self.drains.len() > 1 {
            self.forget(spool, now);
        }
    }

    /// Lets go of a spool. What was not written of it is written when it is opened again.
    pub(super) fn forget(&mut self, spool: SpoolId, now: Now) {
        if let Some(Draining { drain, unwritten, .. }) = self.drains.remove(&spool) {
            self.ids.remove(drain.name());
            if !unwritten.is_empty() {
                self.untold.insert(drain.name().clone(), unwritten);
            }
            let settled = drain.settled_behind_a_gap();
            if !settled.is_empty() {
                self.settled.insert(drain.name().clone(), settled);
            }
        }
        self.delivery.handle(Input::SpoolGone { spool }, now, &mut Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::config::{ApiKey, Builder};
    use crate::disk::MemoryDisk;
    use crate::id::IdSource;
    use crate::shared::Shared;
    use crate::spool::{Namespace, Writer, WriterSettings};

    fn sender(now: Now) -> Sender {
        let config = Builder::new().api_key("sk_1").event_name("call").config(|_| None).unwrap();
        let namespace = Namespace::open(Arc::new(MemoryDisk::default()), "ns".into()).unwrap();
        let owned = namespace.create_spool(SpoolName("own".into())).unwrap();
        let settings = WriterSettings { max_bytes: 4 << 20, sync: false };
        let writer = Writer::new(namespace.clone(), owned, settings);
        let key = ApiKey::for_test("sk_1");
        let shared = Shared::new(config.namespace, writer, IdSource::new().unwrap(), key);
        let lock = namespace.try_lock_sender().unwrap().unwrap();
        let connect = Rc::new(crate::transport::connect);
        Sender::new(Arc::new(shared), namespace, lock, connect, false, now).unwrap()
    }

    #[test]
    fn very_many_spools_that_wait_do_not_keep_the_sender_busy() {
        let now = Now { wall: 1_767_323_045_678, mono: 1 };
        let mut sender = sender(now);
        let spools: Vec<SpoolName> =
            (0..60_000).map(|spool| SpoolName(format!("1767323045{spool:019}"))).collect();
        let taken = sender.next_spools(&spools, now).len();
        assert_eq!((taken, sender.left_out.len()), (MIN_DRAINS, spools.len() - MIN_DRAINS));
        // Where each is looked for among all, this takes minutes.
        let taken = sender.next_spools(&spools, now).len();
        assert_eq!((taken, sender.left_out.len()), (MIN_DRAINS, spools.len() - MIN_DRAINS));
    }

    #[test]
    fn a_quarter_of_the_descriptors_is_for_spools() {
        assert_eq!(drains_within(Some(256)), 21);
        assert_eq!(drains_within(Some(1_024)), 85);
        assert_eq!([drains_within(Some(1 << 20)), drains_within(None)], [MAX_DRAINS; 2]);
        assert_eq!(drains_within(Some(20)), MIN_DRAINS);
    }
}
