//! What the handles of one namespace and its engine task share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::alarm::{AlarmKind, Alarms};
use crate::clock::Now;
use crate::config::{ApiKey, NamespaceConfig};
use crate::error::{ErrorKind, Result};
use crate::event::Event;
use crate::id::IdSource;
use crate::settlement::Settlement;
use crate::spool::{Draft, Seq, Writer};
use crate::validate;
use crate::wake::Wake;

/// One per namespace in a process.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NamespaceConfig,
    pub(crate) writer: Writer,
    pub(crate) settlement: Settlement,
    pub(crate) ids: IdSource,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) wake: Wake,
    pub(crate) counters: Arc<Counters>,
    /// What delivers the calls on a full disk, where this is in memory instead.
    beside: OnceLock<Arc<Self>>,
    key: Mutex<ApiKey>,
    use_: Mutex<Use>,
}

/// What this process counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) invalid: AtomicU64,
    pub(crate) overflowed: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) restamped: AtomicU64,
}

/// How many clients there are, and whether the engine still serves them.
#[derive(Debug)]
struct Use {
    clients: usize,
    /// The last client was closed, not just dropped: what is left is not waited for.
    closed: bool,
    ended: bool,
}

impl Shared {
    /// With one client.
    pub(crate) fn new(config: NamespaceConfig, writer: Writer, ids: IdSource, key: ApiKey) -> Self {
        Self {
            config,
            writer,
            settlement: Settlement::default(),
            ids,
            alarms: Arc::default(),
            wake: Wake::default(),
            counters: Arc::default(),
            beside: OnceLock::new(),
            key: Mutex::new(key),
            use_: Mutex::new(Use { clients: 1, closed: false, ended: false }),
        }
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        // Nothing that can panic happens under these.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key(&self) -> ApiKey {
        Self::lock(&self.key).clone()
    }

    /// The newest client's key is the one that counts.
    pub(crate) fn set_key(&self, key: ApiKey) {
        if let Some(beside) = self.beside.get() {
            beside.set_key(key.clone());
        }
        *Self::lock(&self.key) = key;
        self.wake.now();
    }

    /// What delivers beside this one: it is told and counted as this one's.
    pub(crate) fn new_beside(&self, writer: Writer, ids: IdSource) -> Self {
        let (alarms, counters) = (self.alarms.clone(), self.counters.clone());
        Self { alarms, counters, ..Self::new(self.config.clone(), writer, ids, self.key()) }
    }

    /// Has it know of each key, and of the end.
    pub(crate) fn serve_beside(&self, beside: Arc<Self>) {
        _ = self.beside.set(beside);
    }

    /// Counts one more client, and says how many there were. `None` when this namespace serves none any
    /// more, and a new one is needed; an error when its clients have other settings than the one that
    /// joins.
    pub(crate) fn join(&self, same_settings: Result<()>) -> Result<Option<usize>> {
        let mut state = Self::lock(&self.use_);
        if state.clients == 0 && same_settings.is_err() {
            state.closed = true;
        }
        if state.ended || (state.clients == 0 && state.closed) {
            return Ok(None);
        }
        same_settings?;
        state.clients += 1;
        Ok(Some(state.clients - 1))
    }

    /// Counts one client less. True when it was the last.
    pub(crate) fn leave(&self, closed: bool) -> bool {
        let mut state = Self::lock(&self.use_);
        state.clients = state.clients.saturating_sub(1);
        let last = state.clients == 0;
        state.closed = last && closed;
        drop(state);
        self.wake.now();
        last
    }

    /// Ends the engine's service if no client is left that could want it.
    pub(crate) fn end_if_unused(&self) -> bool {
        let mut state = Self::lock(&self.use_);
        let settled = || self.settlement.settled() >= self.writer.next_seq();
        if state.clients == 0 && (state.closed || settled()) {
            state.ended = true;
            if let Some(beside) = self.beside.get() {
                beside.leave(true);
            }
        }
        state.ended
    }

    /// Writes an event down, due after `delay` at the latest. Returns its id and place.
    pub(crate) fn accept(
        &self,
        event: &Event,
        event_name: &str,
        delay: Duration,
        now: Now,
    ) -> Result<(String, Seq)> {
        let (event_id, mut draft) = self.draft(event, event_name, delay, now)?;
        let seq = self.append(&mut draft, now)?;
        Ok((event_id, seq))
    }

    /// [`accept`](Self::accept) where nothing has to be waited for. `None` where something would have to
    /// be, and nothing is written.
    pub(crate) fn try_accept(
        &self,
        event: &Event,
        event_name: &str,
        delay: Duration,
        now: Now,
    ) -> Option<Result<(String, Seq)>> {
        if !self.writer.writes_at_once() {
            return None;
        }
        let (event_id, mut draft) = match self.draft(event, event_name, delay, now) {
            Ok(drafted) => drafted,
            Err(error) => return Some(Err(error)),
        };
        let result = self.writer.try_append(&mut draft, now.wall)?;
        Some(self.appended(&draft, result, now).map(|seq| (event_id, seq)))
    }

    /// The record of an event, which has an id from now on.
    fn draft(
        &self,
        event: &Event,
        event_name: &str,
        delay: Duration,
        now: Now,
    ) -> Result<(String, Draft)> {
        let event_id = event.event_id.clone().unwrap_or_else(|| self.ids.next(now.wall));
        let name = event.event_name.as_deref().unwrap_or(event_name);
        let mut draft = Draft::event(&event_id);
        let valid = validate::write_event(event, &event_id, name, now.wall, draft.json())?;
        draft.occurred_at = valid.occurred_at;
        draft.group = valid.group;
        draft.metadata_pairs = valid.metadata_pairs;
        draft.delay_ms = delay.as_millis() as u32; // at most 300 s
        Ok((event_id, draft))
    }

    /// Appends a record and wakes the engine if it would sleep past the record's due time.
    pub(crate) fn append(&self, draft: &mut Draft, now: Now) -> Result<Seq> {
        let result = self.writer.append(draft, now.wall);
        self.appended(draft, result, now)
    }

    fn appended(&self, draft: &Draft, result: Result<Seq>, now: Now) -> Result<Seq> {
        match &result {
            Ok(_) => self.wake.appended(now.mono + u64::from(draft.delay_ms)),
            Err(error) => self.refused(error.kind(), error.message(), now),
        }
        result
    }

    /// Makes everything that was appended due. Returns the record to wait for: where there is no room
    /// for one that hurries the others, the last of them.
    pub(crate) fn append_flush(&self, now: Now) -> Result<Seq> {
        if let Some(seq) = self.settlement.flush_before(self.writer.next_seq()) {
            return Ok(seq);
        }
        match self.writer.append(&mut Draft::flush(), now.wall) {
            Ok(seq) => {
                self.settlement.flush_appended(seq);
                Ok(seq)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Overflow | ErrorKind::Storage) => {
                Ok(self.writer.next_seq().saturating_sub(1))
            }
            Err(error) => Err(error),
        }
    }

    fn refused(&self, kind: ErrorKind, message: &str, now: Now) {
        let alarm = match kind {
            ErrorKind::Overflow => AlarmKind::Overflow,
            ErrorKind::Storage => AlarmKind::Storage,
            _ => return,
        };
        self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
        self.alarms.raise(alarm, message, now.mono);
    }
}
