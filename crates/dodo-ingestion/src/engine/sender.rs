//! The namespace's one sender: carries out over disk and network what the delivery logic asks for.

mod crowd;
mod draining;
mod keeping;

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crowd::LeftOut;
use draining::Draining;
use keeping::Aside;

use super::records::meta;
use super::trouble;
use crate::alarm::{AlarmKind, bounded};
use crate::clock::{MINUTE_MS, MonoMs, Now};
use crate::config::{ApiKey, Durability};
use crate::delivery::{
    Action, Answer, Cause, Delivery, Failure, Input, Meta, RecordRef, RequestBody, Settings,
    SpoolId, StampBase, Token, Trouble,
};
use crate::disk::DiskFile;
use crate::error::Result;
use crate::planted::{Fault, is_planted};
use crate::shared::Shared;
use crate::spool::{Beat, Damage, Namespace, Record, Rejection, Seq, SpoolName, show_life};
use crate::transport::{AnswerFuture, Connect, Transport};

/// How often the directory is looked at for new spools, and others are shown a sign of life.
const SCAN_MS: MonoMs = 1_000;
/// How often the spools of other processes are looked at for new records.
const FOREIGN_POLL_MS: MonoMs = 250;
/// A process whose key is taken is given the chance when this key is refused so long after it was first. That
/// may have been for what the request held.
const REFUSED_MS: MonoMs = MINUTE_MS as MonoMs;
/// Whoever can read a newer format is given the chance to become the sender this often.
const YIELD_MS: MonoMs = 10 * MINUTE_MS as MonoMs;

/// A spool of which so many outcomes cannot be written is read on when they are.
const MOST_UNWRITTEN: usize = 1_000;

pub(crate) struct Sender {
    shared: Arc<Shared>,
    namespace: Namespace,
    /// Held for as long as this is the sender.
    lock: Arc<dyn DiskFile>,
    /// The lock file was replaced: another may be the sender.
    deposed: bool,
    connect: Rc<Connect>,
    transport: Box<dyn Transport>,
    key: ApiKey,
    delivery: Delivery,
    drains: BTreeMap<SpoolId, Draining>,
    ids: BTreeMap<SpoolName, SpoolId>,
    next_id: SpoolId,
    /// What was set aside and may not be among the outcomes, of spools that are not drained.
    untold: BTreeMap<SpoolName, Vec<Rejection>>,
    /// What is settled behind a gap of spools that are not drained.
    settled: BTreeMap<SpoolName, Vec<Range<Seq>>>,
    max_drains: usize,
    left_out: LeftOut,
    /// Spools whose cursor could not be written, and until when they are left out.
    resting: BTreeMap<SpoolName, MonoMs>,
    /// When this sender first sent something of a spool of which not all is settled. Where it drains many
    /// in turn, the wall clock may be set between two turns of one.
    first_sent: BTreeMap<SpoolName, Now>,
    /// What is to be set aside, until all that it comes with is known.
    asides: Vec<Aside>,
    under_way: Option<(Token, AnswerFuture)>,
    /// The place of the next request's start among those that are kept: theirs is a ring.
    starts: usize,
    next_scan: MonoMs,
    beats: u64,
    /// What the namespace took when it was last measured, and what was added since; when that is to be measured
    /// again, where it is asked for.
    used_bytes: u64,
    next_measure: MonoMs,
    /// A spool is in a format that only a newer version can read.
    met_newer: bool,
    /// When the lock is given up for a moment if it is.
    yield_at: MonoMs,
    /// What delivery said last of what holds it up.
    trouble_words: Option<String>,
    /// When the key was refused first, and last.
    refused: Option<Range<MonoMs>>,
}

/// What a sender holds in memory.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) spools: usize,
    pub(crate) bytes: usize,
}

impl Sender {
    #[cfg(test)]
    pub(crate) fn held(&self) -> Held {
        let bytes = self.drains.values().map(|draining| draining.drain.held_bytes()).sum();
        Held { spools: self.drains.len(), bytes }
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        namespace: Namespace,
        lock: Arc<dyn DiskFile>,
        connect: Rc<Connect>,
        yielded: bool,
        now: Now,
    ) -> Result<Self> {
        let config = &shared.config;
        let key = shared.key();
        let transport = connect(config, &key)?;
        let settings = Settings {
            requests_per_minute: config.requests_per_minute,
            requests_per_second: config.requests_per_second,
            late: config.late,
            seed: fastrand::u64(..),
        };
        // Without the memory of recent starts the budget begins full: at worst a 429.
        let slots = config.requests_per_minute as usize;
        let (starts, next_start) = namespace.starts(slots, now.wall).unwrap_or_default();
        Ok(Self {
            delivery: Delivery::new(settings, &starts, yielded, now),
            starts: next_start,
            connect,
            transport,
            key,
            // So that those who watch see a change at once.
            beats: namespace.last_beat().unwrap_or_default().count,
            // Dead letters that cannot be read hold up no delivery: at worst a call that was set aside
            // in the moment of a crash is sent again.
            untold: namespace.last_dead_letters().unwrap_or_default(),
            settled: BTreeMap::new(),
            namespace,
            lock,
            deposed: false,
            drains: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 0,
            max_drains: crowd::most_drains(),
            left_out: LeftOut::new(),
            resting: BTreeMap::new(),
            first_sent: BTreeMap::new(),
            asides: Vec::new(),
            under_way: None,
            next_scan: 0,
            used_bytes: 0,
            next_measure: 0,
            met_newer: false,
            trouble_words: None,
            refused: None,
            yield_at: if yielded { now.mono + YIELD_MS } else { now.mono },
            shared,
        })
    }

    pub(crate) fn wake_at(&self) -> Option<MonoMs> {
        self.delivery.wake_at()
    }

    pub(crate) fn poll_interval(&self) -> MonoMs {
        if self.drains.len() > 1 { FOREIGN_POLL_MS } else { SCAN_MS }
    }

    /// The answer to the request under way; pending for ever when there is none.
    pub(crate) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<(Token, Answer)> {
        let Some((request, answer)) = &mut self.under_way else { return Poll::Pending };
        answer.as_mut().poll(context).map(|answer| (*request, answer))
    }

    pub(crate) fn answered(&mut self, request: Token, answer: Answer, now: Now) {
        self.under_way = None;
        // The certificates that are trusted are read when the transport is made.
        if let Answer::Failed(Failure::Tls(_)) = &answer
            && let Ok(transport) = (self.connect)(&self.shared.config, &self.key)
        {
            self.transport = transport;
        }
        self.handle(Input::Answer { request, answer }, now);
        if let Some(refused) = &mut self.refused {
            refused.end = now.mono;
        }
    }

    pub(crate) fn tick(&mut self, now: Now) {
        self.renew_key(now);
        if now.mono >= self.next_scan && self.may_act() {
            self.next_scan = now.mono + SCAN_MS;
            self.beat(now);
            self.scan(now);
            self.keep_what_is_owed(now);
        }
        self.handle(Input::Tick, now);
    }

    /// Whether the lock is to be given up for a while, for a newer version to take it, or a process
    /// that has another key.
    pub(crate) fn yields(&self, now: Now) -> bool {
        let is_refused = |at: &Range<MonoMs>| at.end.saturating_sub(at.start) >= REFUSED_MS;
        let better = (self.met_newer && now.mono >= self.yield_at)
            || self.refused.as_ref().is_some_and(is_refused);
        better && self.under_way.is_none()
    }

    /// The key that requests are made with.
    pub(crate) fn key(&self) -> &ApiKey {
        &self.key
    }

    fn renew_key(&mut self, now: Now) {
        let key = self.shared.key();
        if key == self.key {
            return;
        }
        match (self.connect)(&self.shared.config, &key) {
            Ok(transport) => {
                self.transport = transport;
                self.key = key;
                self.handle(Input::KeyChanged, now);
            }
            Err(error) => self.alarm(AlarmKind::Authentication, error.message(), now),
        }
    }

    fn beat(&mut self, now: Now) {
        self.beats = self.beats.wrapping_add(1);
        let beat = Beat { count: self.beats, trouble: trouble::code(self.delivery.trouble()) };
        if let Err(error) = show_life(&*self.lock, beat) {
            self.alarm_storage("the sign of life cannot be written", &error, now);
        }
    }

    /// Whether this must stand down: nothing is sent, set aside or removed any more.
    pub(super) fn is_deposed(&self) -> bool {
        self.deposed
    }

    /// Looks whether the lock that is held is still the namespace's.
    fn may_act(&mut self) -> bool {
        self.deposed |= !self.namespace.is_sender_lock(&*self.lock);
        !self.deposed
    }

    /// Tells the delivery logic what happened, and carries out what it asks for in turn.
    fn handle(&mut self, input: Input, now: Now) {
        let mut actions = Vec::new();
        let before = self.delivery.counts();
        self.delivery.handle(input, now, &mut actions);
        loop {
            for action in std::mem::take(&mut actions) {
                if let Some(input) = self.carry_out(action, now, &mut actions) {
                    self.delivery.handle(input, now, &mut actions);
                }
            }
            for input in self.set_aside(now) {
                self.delivery.handle(input, now, &mut actions);
            }
            if actions.is_empty() {
                self.delivery.decide(now, &mut actions);
            }
            if actions.is_empty() {
                break;
            }
        }
        // Before those who wait are told, so that they find the counters right.
        let counts = self.delivery.counts();
        let counters = &self.shared.counters;
        let add = |counter: &AtomicU64, more| _ = counter.fetch_add(more, Ordering::Relaxed);
        add(&counters.requests, counts.requests - before.requests);
        add(&counters.retries, counts.retries - before.retries);
        add(&counters.restamped, counts.restamped - before.restamped);
        self.tell_trouble();
        let is_refused = matches!(self.delivery.trouble(), Some(Trouble::KeyRefused { .. }));
        self.refused = is_refused.then(|| self.refused.take().unwrap_or(now.mono..now.mono));
        self.commit(now);
    }

    fn tell_trouble(&self) {
        let words = self.trouble_words.as_deref();
        self.shared.settlement.set_trouble(self.delivery.trouble(), words);
    }

    fn carry_out(&mut self, action: Action, now: Now, actions: &mut Vec<Action>) -> Option<Input> {
        let needs_lock = matches!(
            action,
            Action::RecordAttempt { .. } | Action::Send { .. } | Action::Lookup { .. }
        );
        if needs_lock && !self.may_act() {
            return None;
        }
        match action {
            Action::Read { spool, records, bytes } => self.read(spool, records, bytes, now),
            Action::RecordAttempt { token, ends } => {
                let failed = self.record_attempt(&ends, now);
                let stored = Input::Stored { token, ok: failed.is_empty() };
                // What was to be sent is put back first: then it is let go of with its spool.
                self.delivery.handle(stored, now, actions);
                for spool in failed {
                    self.attempt_failed(spool, now);
                }
                None
            }
            Action::Send { request, records, stamps } => {
                self.send(request, &records, stamps, now);
                None
            }
            Action::Lookup { request, record } => {
                let id = self
                    .record(record)
                    .map(|record| String::from_utf8_lossy(record.event_id()).into_owned());
                self.note_start(now);
                let answer = self.transport.look_up(&id.unwrap_or_default());
                self.under_way = Some((request, answer));
                None
            }
            Action::Settle { records } => {
                for RecordRef { spool, seq } in records {
                    self.settle(spool, seq);
                }
                None
            }
            Action::SetAside { token, record, cause } => {
                self.asides.push(Aside { token, record, cause });
                None
            }
            Action::Alarm { kind, message } => {
                if kind.holds_up_delivery() {
                    self.trouble_words = Some(bounded(&message));
                    // Before the alarm: who hears it may ask a wait why at once.
                    self.tell_trouble();
                }
                self.alarm(kind, &message, now);
                None
            }
        }
    }

    fn read(&mut self, spool: SpoolId, records: usize, bytes: usize, now: Now) -> Option<Input> {
        let Draining { drain, unwritten, .. } = self.drains.get_mut(&spool)?;
        if unwritten.len() >= MOST_UNWRITTEN {
            return None;
        }
        let from = drain.position();
        let found = match drain.read(records, bytes) {
            Ok(found) => found,
            Err(error) => {
                self.alarm_storage("a spool cannot be read", &error, now);
                return None;
            }
        };
        let cursor = drain.cursor();
        let own = self.first_sent.get(drain.name()).copied();
        let own = own.filter(|own| own.wall == cursor.attempted_since);
        let metas: Vec<Meta> =
            drain.records_from(from).map(|record| meta(record, cursor, own, now)).collect();
        let lost: Vec<Rejection> = found.lost.iter().map(Rejection::lost).collect();
        if !lost.is_empty() {
            self.note_outcomes(spool, lost, now);
        }
        for damage in found.damage {
            self.set_damage_aside(spool, damage, now);
        }
        if let Some(version) = found.newer {
            let message = format!(
                "a spool is in format {version}, which this version cannot read; it is left to a \
                 newer one"
            );
            self.alarm(AlarmKind::NewerFormat, &message, now);
            self.met_newer = true;
        }
        // Also when there are no records: a damaged or torn end may finish the spool.
        if let Some(draining) = self.drains.get_mut(&spool) {
            draining.uncommitted = true;
        }
        (!metas.is_empty()).then_some(Input::Available { spool, metas })
    }

    /// Returns the spools whose cursor could not be written.
    fn record_attempt(&mut self, ends: &[RecordRef], now: Now) -> Vec<SpoolId> {
        let mut failed = Vec::new();
        if is_planted(Fault::ForgetAttempts) {
            return failed;
        }
        let sync = self.shared.config.durability == Durability::Disk;
        for RecordRef { spool, seq } in ends {
            let Some(Draining { drain, .. }) = self.drains.get_mut(spool) else { continue };
            if let Err(error) = drain.record_attempt(*seq, now.wall, sync) {
                let what = format!("an attempt cannot be written down in {}", drain.name().0);
                self.alarm_storage(&what, &error, now);
                failed.push(*spool);
                continue;
            }
            self.resting.remove(drain.name());
            let own = self.first_sent.get(drain.name());
            if drain.cursor().attempted_since == now.wall
                && own.is_none_or(|own| own.wall != now.wall)
            {
                self.first_sent.insert(drain.name().clone(), now);
            }
        }
        failed
    }

    fn send(&mut self, request: Token, records: &[RecordRef], stamps: StampBase, now: Now) {
        let found = || records.iter().filter_map(|at| self.record(*at));
        let bytes = found().map(|r| r.json().len() + RequestBody::EXTRA_BYTES_PER_EVENT).sum();
        let mut body = RequestBody::with_capacity(bytes);
        for record in found() {
            let header = &record.header;
            body.push(record.json(), header.metadata_pairs, stamps.stamp(header.occurred_at));
            if is_planted(Fault::AnotherIdOnRetry) {
                body.spoil_the_last_id(self.starts);
            }
        }
        self.note_start(now);
        self.under_way = Some((request, self.transport.ingest(body.finish())));
    }

    fn note_start(&mut self, now: Now) {
        let slot = self.starts % self.shared.config.requests_per_minute as usize;
        self.starts += 1;
        if let Err(error) = self.namespace.record_start(slot, now.wall) {
            self.alarm_storage("the start of a request cannot be written down", &error, now);
        }
    }

    fn settle(&mut self, spool: SpoolId, seq: u64) {
        if let Some(draining) = self.drains.get_mut(&spool) {
            draining.drain.settle(seq);
            draining.uncommitted = true;
        }
    }

    /// Makes what was settled last, and tells those who wait for it.
    fn commit(&mut self, now: Now) {
        let to_commit = |draining: &Draining| draining.uncommitted && !draining.owes();
        let spools: Vec<SpoolId> = self
            .drains
            .iter()
            .filter_map(|(spool, draining)| to_commit(draining).then_some(*spool))
            .collect();
        if spools.is_empty() || !self.may_act() {
            return;
        }
        for spool in spools {
            let Some(Draining { drain, uncommitted, .. }) = self.drains.get_mut(&spool) else {
                continue;
            };
            if let Err(error) = drain.commit() {
                self.alarm_storage("the cursor cannot be written", &error, now);
                continue;
            }
            let unlinked = drain.unlink_settled();
            *uncommitted = unlinked.is_err();
            if *drain.name() == self.shared.writer.name() {
                self.shared.settlement.advance(drain.cursor().settled);
            }
            let finished = drain.is_finished();
            if let Err(error) = unlinked {
                self.alarm_storage("a settled segment cannot be removed", &error, now);
            } else if finished {
                self.remove(spool, now);
            }
        }
    }

    fn remove(&mut self, spool: SpoolId, now: Now) {
        let Some(draining) = self.drains.get(&spool) else { return };
        if let Err(error) = draining.drain.remove() {
            self.alarm_storage("a finished spool cannot be removed", &error, now);
        }
        self.forget(spool, now);
    }

    fn record(&self, at: RecordRef) -> Option<&Record> {
        self.drains.get(&at.spool)?.drain.record(at.seq)
    }

    fn alarm(&self, kind: AlarmKind, message: &str, now: Now) {
        if kind.leaves_files() && !self.is_in_memory() {
            let message = format!("{message} (in {})", self.namespace.dir().display());
            self.shared.alarms.raise(kind, &message, now.mono);
        } else {
            self.shared.alarms.raise(kind, message, now.mono);
        }
    }

    fn alarm_storage(&self, what: &str, error: &std::io::Error, now: Now) {
        let message = format!("{what}: {}: {error}", self.namespace.dir().display());
        self.alarm(AlarmKind::Storage, &message, now);
    }
}
