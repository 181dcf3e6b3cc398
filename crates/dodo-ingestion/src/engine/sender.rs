//! The namespace's one sender: carries out over disk and network what the delivery logic asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::alarm::AlarmKind;
use crate::clock::{MonoMs, Now, rfc3339};
use crate::config::ApiKey;
use crate::delivery::{
    Action, Answer, Cause, Delivery, Input, Meta, RecordRef, RequestBody, Settings, SpoolId,
    StampBase, Token,
};
use crate::disk::DiskFile;
use crate::error::Result;
use crate::shared::Shared;
use crate::spool::{Damage, DeadLetter, Drain, Kind, Namespace, Record, Rejection, SpoolName};
use crate::transport::{AnswerFuture, HttpTransport, Transport};

/// How often the directory is looked at for new spools.
const SCAN_MS: MonoMs = 1_000;
/// How often the spools of other processes are looked at for new records.
const FOREIGN_POLL_MS: MonoMs = 250;

pub(super) struct Sender {
    shared: Arc<Shared>,
    namespace: Namespace,
    /// Held for as long as this is the sender.
    lock: Arc<dyn DiskFile>,
    /// The lock file was replaced: another may be the sender.
    deposed: bool,
    transport: Box<dyn Transport>,
    key: ApiKey,
    delivery: Delivery,
    drains: BTreeMap<SpoolId, Drain>,
    ids: HashMap<SpoolName, SpoolId>,
    next_id: SpoolId,
    /// Drains with settled records that the cursor has not passed.
    uncommitted: BTreeSet<SpoolId>,
    under_way: Option<(Token, AnswerFuture)>,
    starts: usize,
    next_scan: MonoMs,
}

impl Sender {
    pub(super) fn new(
        shared: Arc<Shared>,
        namespace: Namespace,
        lock: Arc<dyn DiskFile>,
        now: Now,
    ) -> Result<Self> {
        let config = &shared.config;
        let key = shared.key();
        let transport = HttpTransport::new(&config.base_url, &key, config.request_timeout)?;
        let settings = Settings {
            requests_per_minute: config.requests_per_minute,
            requests_per_second: config.requests_per_second,
            late: config.late,
            seed: fastrand::u64(..),
        };
        // Without the memory of recent starts the budget begins full: at worst a 429.
        let starts = namespace.starts(config.requests_per_minute as usize).unwrap_or_default();
        Ok(Self {
            delivery: Delivery::new(settings, &starts, now),
            starts: starts.len(),
            transport: Box::new(transport),
            key,
            namespace,
            lock,
            deposed: false,
            drains: BTreeMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            uncommitted: BTreeSet::new(),
            under_way: None,
            next_scan: 0,
            shared,
        })
    }

    pub(super) fn wake_at(&self) -> Option<MonoMs> {
        self.delivery.wake_at()
    }

    pub(super) fn poll_interval(&self) -> MonoMs {
        if self.drains.len() > 1 { FOREIGN_POLL_MS } else { SCAN_MS }
    }

    /// The answer to the request under way; never, when there is none.
    pub(super) async fn answer(&mut self) -> (Token, Answer) {
        match &mut self.under_way {
            Some((request, answer)) => (*request, answer.await),
            None => std::future::pending().await,
        }
    }

    pub(super) fn answered(&mut self, request: Token, answer: Answer, now: Now) {
        self.under_way = None;
        self.handle(Input::Answer { request, answer }, now);
    }

    pub(super) fn tick(&mut self, now: Now) {
        self.renew_key(now);
        if now.mono >= self.next_scan {
            self.next_scan = now.mono + SCAN_MS;
            self.scan(now);
        }
        self.handle(Input::Tick, now);
    }

    fn renew_key(&mut self, now: Now) {
        let key = self.shared.key();
        if key == self.key {
            return;
        }
        let config = &self.shared.config;
        match HttpTransport::new(&config.base_url, &key, config.request_timeout) {
            Ok(transport) => {
                self.transport = Box::new(transport);
                self.key = key;
                self.handle(Input::KeyChanged, now);
            }
            Err(error) => self.alarm(AlarmKind::Authentication, error.message(), now),
        }
    }

    /// Takes up spools that are new.
    fn scan(&mut self, now: Now) {
        let spools = match self.namespace.spools() {
            Ok(spools) => spools,
            Err(error) => return self.alarm_storage("the spools cannot be listed", &error, now),
        };
        for name in spools {
            if self.ids.contains_key(&name) {
                continue;
            }
            let own = name == self.shared.writer.spool().name;
            match Drain::open(&self.namespace, name.clone(), own) {
                Ok(drain) => {
                    let spool = self.next_id;
                    self.next_id += 1;
                    self.ids.insert(name, spool);
                    self.drains.insert(spool, drain);
                    self.handle(Input::Available { spool, metas: Vec::new() }, now);
                }
                Err(error) => self.alarm_storage("a spool cannot be opened", &error, now),
            }
        }
        if let Err(error) = self.namespace.remove_unfinished() {
            self.alarm_storage("an unfinished spool cannot be removed", &error, now);
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
        self.delivery.handle(input, now, &mut actions);
        loop {
            for action in std::mem::take(&mut actions) {
                if let Some(input) = self.carry_out(action, now) {
                    self.delivery.handle(input, now, &mut actions);
                }
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
        counters.requests.store(counts.requests, Ordering::Relaxed);
        counters.retries.store(counts.retries, Ordering::Relaxed);
        counters.restamped.store(counts.restamped, Ordering::Relaxed);
        self.commit(now);
    }

    fn carry_out(&mut self, action: Action, now: Now) -> Option<Input> {
        let needs_lock = matches!(
            action,
            Action::RecordAttempt { .. } | Action::Send { .. } | Action::SetAside { .. }
        );
        if needs_lock && !self.may_act() {
            return None;
        }
        match action {
            Action::Read { spool, records, bytes } => self.read(spool, records, bytes, now),
            Action::RecordAttempt { token, ends } => {
                Some(Input::Stored { token, ok: self.record_attempt(&ends, now) })
            }
            Action::Send { request, records, stamps } => {
                self.send(request, &records, stamps, now);
                None
            }
            Action::Settle { records } => {
                for RecordRef { spool, seq } in records {
                    self.settle(spool, seq);
                }
                None
            }
            Action::SetAside { token, record, cause } => {
                Some(Input::Stored { token, ok: self.set_aside(record, &cause, now) })
            }
            Action::Alarm { kind, message } => {
                self.alarm(kind, &message, now);
                None
            }
        }
    }

    fn read(&mut self, spool: SpoolId, records: usize, bytes: usize, now: Now) -> Option<Input> {
        let drain = self.drains.get_mut(&spool)?;
        let found = match drain.read(records, bytes) {
            Ok(found) => found,
            Err(error) => {
                self.alarm_storage("a spool cannot be read", &error, now);
                return None;
            }
        };
        let attempted = drain.cursor().attempted;
        let metas: Vec<Meta> =
            drain.records_from(found.from).map(|record| meta(record, attempted)).collect();
        let name = drain.name().clone();
        for damage in &found.damage {
            self.quarantine(&name, damage, now);
        }
        if let Some(version) = found.newer {
            let message = format!(
                "spool {} is in format {version}, which this version cannot read; it is left to \
                 a newer one",
                name.0
            );
            self.alarm(AlarmKind::NewerFormat, &message, now);
        }
        // Also when there are no records: a damaged or torn end may finish the spool.
        self.uncommitted.insert(spool);
        (!metas.is_empty()).then_some(Input::Available { spool, metas })
    }

    fn quarantine(&self, spool: &SpoolName, damage: &Damage, now: Now) {
        self.shared.counters.quarantined.fetch_add(damage.records, Ordering::Relaxed);
        let message = format!(
            "{} bytes of spool {} could not be read and lie in quarantine: about {} calls",
            damage.bytes.len(),
            spool.0,
            damage.records
        );
        self.alarm(AlarmKind::Quarantined, &message, now);
        if let Err(error) = self.namespace.quarantine(spool, damage) {
            self.alarm_storage("damaged bytes cannot be kept", &error, now);
        }
    }

    fn record_attempt(&mut self, ends: &[RecordRef], now: Now) -> bool {
        for RecordRef { spool, seq } in ends {
            let Some(drain) = self.drains.get_mut(spool) else { continue };
            if let Err(error) = drain.record_attempt(*seq, now.wall) {
                self.alarm_storage("an attempt cannot be written down", &error, now);
                return false;
            }
        }
        true
    }

    fn send(&mut self, request: Token, records: &[RecordRef], stamps: StampBase, now: Now) {
        let found = || records.iter().filter_map(|at| self.drains.get(&at.spool)?.record(at.seq));
        let bytes = found().map(|r| r.json().len() + RequestBody::EXTRA_BYTES_PER_EVENT).sum();
        let mut body = RequestBody::with_capacity(bytes);
        for record in found() {
            let header = &record.header;
            body.push(record.json(), header.metadata_pairs, stamps.stamp(header.occurred_at));
        }
        let slot = self.starts % self.shared.config.requests_per_minute as usize;
        self.starts += 1;
        if let Err(error) = self.namespace.record_start(slot, now.wall) {
            self.alarm_storage("the start of a request cannot be written down", &error, now);
        }
        self.under_way = Some((request, self.transport.ingest(body.finish())));
    }

    fn settle(&mut self, spool: SpoolId, seq: u64) {
        if let Some(drain) = self.drains.get_mut(&spool) {
            drain.settle(seq);
            self.uncommitted.insert(spool);
        }
    }

    /// Dead letter first, then the outcome, then the record counts as settled.
    fn set_aside(&mut self, at: RecordRef, cause: &Cause, now: Now) -> bool {
        let Some(drain) = self.drains.get(&at.spool) else { return true };
        let Some(record) = drain.record(at.seq) else { return true };
        let rejection = Rejection {
            seq: at.seq,
            kind: cause.kind.as_str().to_owned(),
            status: cause.status,
            message: cause.message.clone(),
            uncertain: cause.uncertain,
        };
        let written = write_dead_letter(&self.namespace, drain, record, cause, now)
            .and_then(|()| drain.record_outcomes(std::slice::from_ref(&rejection)));
        if let Err(error) = written {
            self.alarm_storage("a dead letter cannot be written", &error, now);
            return false;
        }
        if *drain.name() == self.shared.writer.spool().name {
            self.shared.settlement.reject(rejection);
        }
        self.settle(at.spool, at.seq);
        true
    }

    /// Makes what was settled last, and tells those who wait for it.
    fn commit(&mut self, now: Now) {
        for spool in std::mem::take(&mut self.uncommitted) {
            let Some(drain) = self.drains.get_mut(&spool) else { continue };
            if let Err(error) = drain.commit() {
                self.uncommitted.insert(spool);
                self.alarm_storage("the cursor cannot be written", &error, now);
                continue;
            }
            if *drain.name() == self.shared.writer.spool().name {
                self.shared.settlement.advance(drain.cursor().settled);
            }
            if drain.is_finished() && self.may_act() {
                self.remove(spool, now);
            }
        }
    }

    fn remove(&mut self, spool: SpoolId, now: Now) {
        let Some(drain) = self.drains.remove(&spool) else { return };
        self.ids.remove(drain.name());
        if let Err(error) = drain.remove() {
            self.alarm_storage("a finished spool cannot be removed", &error, now);
        }
        self.handle(Input::SpoolGone { spool }, now);
    }

    fn alarm(&self, kind: AlarmKind, message: &str, now: Now) {
        self.shared.alarms.raise(kind, message, now.mono);
    }

    fn alarm_storage(&self, what: &str, error: &std::io::Error, now: Now) {
        let message = format!("{what}: {}: {error}", self.namespace.dir().display());
        self.alarm(AlarmKind::Storage, &message, now);
    }
}

fn meta(record: &Record, attempted: u64) -> Meta {
    let header = &record.header;
    let mut hasher = DefaultHasher::new();
    record.event_id().hash(&mut hasher);
    Meta {
        seq: header.seq,
        json_bytes: record.json().len(),
        accepted_at: header.accepted_at,
        occurred_at: header.occurred_at,
        delay_ms: header.delay_ms,
        id_hash: hasher.finish(),
        group: header.group,
        flush: header.kind == Kind::Flush,
        attempted: header.seq < attempted,
    }
}

fn write_dead_letter(
    namespace: &Namespace,
    drain: &Drain,
    record: &Record,
    cause: &Cause,
    now: Now,
) -> std::io::Result<()> {
    let event = serde_json::from_slice(record.json())?;
    namespace.append_dead_letters(&[DeadLetter {
        at: rfc3339(now.wall),
        event,
        occurred_at: rfc3339(record.header.occurred_at),
        reason: cause.kind.as_str(),
        status: cause.status,
        message: &cause.message,
        attempts: cause.attempts,
        uncertain: cause.uncertain,
        by_group: cause.by_group,
        spool: &drain.name().0,
        seq: record.header.seq,
    }])
}
