//! The public handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::alarm::{AlarmCallback, AlarmKind};
use crate::batch::{Batch, BatchConfig};
use crate::clock::{Clock as _, Now, SystemClock};
use crate::config::{Builder, Config};
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ApiCall, Event, ObjectStorage, StreamBytes, TimeRange};
use crate::receipt::Receipt;
use crate::shared::Shared;
use crate::spool::{Draft, Seq};
use crate::stats::Stats;
use crate::validate;

/// How long [`Ingestion::flush`] and [`Ingestion::close`] wait when no timeout is given.
pub const DEFAULT_FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long [`Ingestion::close`] waits for the engine to let go of the spool.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client: accepts calls in microseconds and has them billed in the background.
///
/// Cheap to clone; all clones are one client. Clients of the same account in a process share one
/// spool. Dropping the last clone without [`close`](Self::close) leaves what is not yet billed to
/// the engine while the process lives, and to the next process of the account after that.
#[derive(Clone)]
pub struct Ingestion(Arc<Client>);

struct Client {
    shared: Arc<Shared>,
    event_name: String,
    linger: Duration,
    exit_timeout: Duration,
    closed: AtomicBool,
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Relaxed) {
            self.shared.leave(false);
        }
    }
}

impl fmt::Debug for Ingestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { shared, event_name, linger, .. } = &*self.0;
        f.debug_struct("Ingestion")
            .field("event_name", event_name)
            .field("linger", linger)
            .field("settings", &shared.config)
            .finish_non_exhaustive()
    }
}

impl Ingestion {
    /// Begins to configure a client. An empty key means the one in `DODO_PAYMENTS_API_KEY`.
    pub fn builder(api_key: impl Into<String>) -> Builder {
        Builder::new().api_key(api_key)
    }

    pub(crate) fn open(config: Config, on_alarm: Option<AlarmCallback>) -> Result<Self> {
        let shared = engine::open(&config, on_alarm)?;
        if config.environment_by_default {
            let message = "environment was not chosen: calls go to test_mode and nothing is \
                           billed live; choose test_mode to silence this, or live_mode";
            shared.alarms.raise(AlarmKind::TestMode, message, SystemClock.now().mono);
        }
        let Config { event_name, linger, exit_timeout, .. } = config;
        let closed = AtomicBool::new(false);
        Ok(Self(Arc::new(Client { shared, event_name, linger, exit_timeout, closed })))
    }

    /// Accepts an event. Success means that it is kept until it is billed or set aside; the
    /// network is never waited for.
    ///
    /// # Errors
    /// `validation` when it breaks a limit, `overflow` when the spool is full, `storage` when the
    /// disk fails, `closed` after [`close`](Self::close).
    pub fn track(&self, event: impl Into<Event>) -> Result<Receipt> {
        let (event_id, seq) = self.accept(event.into(), self.0.linger)?;
        Ok(Receipt::new(self.0.shared.clone(), seq, event_id))
    }

    /// Accepts one API call. See [`track`](Self::track).
    pub fn track_api_call(&self, call: ApiCall) -> Result<Receipt> {
        self.track(call)
    }

    /// Accepts bytes put into or held in an object store. See [`track`](Self::track).
    pub fn track_object_storage(&self, storage: ObjectStorage) -> Result<Receipt> {
        self.track(storage)
    }

    /// Accepts bytes streamed to a customer. See [`track`](Self::track).
    pub fn track_stream_bytes(&self, stream: StreamBytes) -> Result<Receipt> {
        self.track(stream)
    }

    /// Accepts a length of time. See [`track`](Self::track).
    pub fn track_time_range(&self, range: TimeRange) -> Result<Receipt> {
        self.track(range)
    }

    /// A batch: its calls are due together, when there are enough or the oldest is old enough.
    ///
    /// # Errors
    /// `configuration` when a setting is out of range.
    pub fn create_batch(&self, config: BatchConfig) -> Result<Batch> {
        Batch::new(self.clone(), config)
    }

    /// Writes the event down, due after `delay` at the latest.
    pub(crate) fn accept(&self, event: Event, delay: Duration) -> Result<(String, Seq)> {
        let Client { shared, event_name, closed, .. } = &*self.0;
        if closed.load(Ordering::Relaxed) {
            return Err(Error::closed());
        }
        let now = SystemClock.now();
        let accepted = self.write(event, event_name, delay, now);
        match &accepted {
            Ok(_) => _ = shared.counters.accepted.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Validation => self.count_invalid(),
            Err(_) => {}
        }
        accepted
    }

    pub(crate) fn count_invalid(&self) {
        self.0.shared.counters.invalid.fetch_add(1, Ordering::Relaxed);
    }

    fn write(
        &self,
        mut event: Event,
        event_name: &str,
        delay: Duration,
        now: Now,
    ) -> Result<(String, Seq)> {
        let shared = &self.0.shared;
        let event_id = event.event_id.take().unwrap_or_else(|| shared.ids.next(now.wall));
        let name = event.event_name.as_deref().unwrap_or(event_name);
        let mut draft = Draft::event(&event_id);
        let valid = validate::write_event(&event, &event_id, name, now.wall, draft.json())?;
        draft.occurred_at = valid.occurred_at;
        draft.group = valid.group;
        draft.metadata_pairs = valid.metadata_pairs;
        draft.delay_ms = delay.as_millis() as u32; // at most 300 s
        let seq = shared.append(&mut draft, now)?;
        Ok((event_id, seq))
    }

    pub(crate) fn alarm_invalid(&self, reason: &str) {
        self.0.shared.alarms.raise(AlarmKind::Invalid, reason, SystemClock.now().mono);
    }

    /// Makes everything accepted by this process on this account due, and waits until all of it is
    /// billed or set aside. `None` waits for [`DEFAULT_FLUSH_TIMEOUT`]. Needs no particular executor.
    ///
    /// # Errors
    /// `timeout` when the time was over first: the calls stay spooled. `storage` when the disk
    /// fails.
    pub async fn flush(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        let Some(seq) = self.begin_flush()? else { return Ok(()) };
        let waiting = self.0.shared.settlement.wait();
        let settled = waiting.until_settled(seq, deadline(timeout)).await;
        settled.map_or_else(|| Err(self.timed_out(timeout)), |_| Ok(()))
    }

    /// [`flush`](Self::flush), blocking this thread.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn blocking_flush(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        let Some(seq) = self.begin_flush()? else { return Ok(()) };
        let waiting = self.0.shared.settlement.wait();
        let settled = waiting.block_until_settled(seq, deadline(timeout));
        settled.map_or_else(|| Err(self.timed_out(timeout)), |_| Ok(()))
    }

    /// Appends a flush record; `None` when there is nothing to flush.
    fn begin_flush(&self) -> Result<Option<Seq>> {
        let Client { shared, closed, .. } = &*self.0;
        if closed.load(Ordering::Relaxed) {
            return Err(Error::closed());
        }
        if shared.settlement.settled() >= shared.writer.next_seq() {
            return Ok(None);
        }
        let seq = shared.append(&mut Draft::flush(), SystemClock.now())?;
        shared.settlement.flush_appended(seq);
        shared.wake.now();
        Ok(Some(seq))
    }

    fn timed_out(&self, timeout: Duration) -> Error {
        let shared = &self.0.shared;
        let left = shared.settlement.unsettled_calls(shared.writer.next_seq());
        let trouble = shared.alarms.latest_trouble();
        let trouble = trouble.map_or_else(String::new, |trouble| format!("; last: {trouble}"));
        Error::new(
            ErrorKind::Timeout,
            format!("after {timeout:?} {left} calls are not billed yet and stay spooled{trouble}"),
        )
    }

    /// Flushes, and lets go of the spool. No call is accepted from now on; what the time did not
    /// suffice for stays spooled. Closing twice is no error.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); the client is closed all the same.
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let flushed = self.flush(timeout).await;
        if self.leave() {
            let settlement = &self.0.shared.settlement;
            settlement.wait().until_settled(Seq::MAX, deadline(RELEASE_TIMEOUT)).await;
        }
        flushed
    }

    /// [`close`](Self::close), blocking this thread.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn blocking_close(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let flushed = self.blocking_flush(timeout);
        if self.leave() {
            let settlement = &self.0.shared.settlement;
            settlement.wait().block_until_settled(Seq::MAX, deadline(RELEASE_TIMEOUT));
        }
        flushed
    }

    /// True when the engine now lets go of the spool: this was the last client of the account.
    fn leave(&self) -> bool {
        !self.0.closed.swap(true, Ordering::SeqCst) && self.0.shared.leave(true)
    }

    /// How long the natural end of the host program may wait for calls to be billed.
    pub fn exit_timeout(&self) -> Duration {
        self.0.exit_timeout
    }

    /// What this process's clients of this account have done so far.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.0.shared)
    }
}

/// A deadline; a year from now for a timeout that no clock can hold.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + timeout.min(year)
}
