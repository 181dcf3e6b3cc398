//! The public handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::alarm::{AlarmCallback, AlarmKind};
use crate::batch::{Batch, BatchConfig};
use crate::clock;
use crate::config::{Builder, Config, Environment, TimeUnit};
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ApiCall, Event, ObjectStorage, StreamBytes, TimeRange};
use crate::process::PerProcess;
use crate::receipt::Receipt;
use crate::settlement::{Waiting, block_on};
use crate::shared::Shared;
use crate::spool::Seq;
use crate::stats::Stats;

/// How long [`Ingestion::flush`] and [`Ingestion::close`] wait when no timeout is given.
pub const DEFAULT_FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long [`Ingestion::close`] waits for the engine to let go of the spool.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client: accepts calls in microseconds and has them billed in the background.
///
/// Cheap to clone; all clones are one client. Clients of the same account in a process share one
/// spool. Dropping the last clone without [`close`](Self::close) leaves what is not yet billed to
/// the engine while the process lives, and to the next process of the account after that.
/// A forked child may go on using the client. Its first call opens a spool of its own; what it
/// flushes, closes and counts is what it tracked itself.
#[derive(Clone)]
pub struct Ingestion(Arc<Client>);

struct Client {
    config: Config,
    on_alarm: Option<AlarmCallback>,
    /// How many were built before.
    number: u64,
    closed: AtomicBool,
    /// What this process has of it; in a forked child nothing, until its first call.
    membership: PerProcess<Membership>,
}

/// One client more of a namespace in this process, until it leaves.
struct Membership {
    shared: Arc<Shared>,
    /// Its alarm callback's.
    number: u64,
    left: AtomicBool,
}

impl Membership {
    /// True when the engine now lets go of the spool: this was the last client of the account.
    fn leave(&self, closed: bool) -> bool {
        if self.left.swap(true, Ordering::SeqCst) {
            return false;
        }
        let last = self.shared.leave(closed);
        // What the last one leaves without closing is still delivered, and told of.
        if closed || !last {
            self.shared.alarms.remove_callback(self.number);
        }
        last
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave(false);
    }
}

impl Client {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// What this process has open, opened now if need be.
    fn shared(&self) -> Result<&Arc<Shared>> {
        if self.is_closed() {
            return Err(Error::closed());
        }
        let join = || {
            // In a child two threads may both open it: the one that is dropped takes its own callback along.
            static OPENED: AtomicU64 = AtomicU64::new(0);
            let number = OPENED.fetch_add(1, Ordering::Relaxed);
            let on_alarm = self.on_alarm.clone().map(|callback| (number, callback));
            let shared = engine::open(&self.config, on_alarm, self.number)?;
            Ok(Membership { shared, number, left: AtomicBool::new(false) })
        };
        self.membership.get_or_try_init(join).map(|membership| &membership.shared)
    }

    /// What this process has open, if it has.
    fn opened(&self) -> Option<&Arc<Shared>> {
        self.membership.get().map(|membership| &membership.shared)
    }

    /// Closes the client. Returns a wait for the engine to let go of the spool, if it now does.
    fn leave(&self) -> Option<Waiting<'_>> {
        self.closed.store(true, Ordering::SeqCst);
        let membership = self.membership.get()?;
        let waiting = membership.shared.settlement.wait();
        membership.leave(true).then_some(waiting)
    }
}

impl fmt::Debug for Ingestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { event_name, linger, namespace, .. } = &self.0.config;
        f.debug_struct("Ingestion")
            .field("event_name", event_name)
            .field("linger", linger)
            .field("settings", namespace)
            .finish_non_exhaustive()
    }
}

impl Ingestion {
    /// Begins to configure a client. An empty key means the one in `DODO_PAYMENTS_API_KEY`.
    pub fn builder(api_key: impl Into<String>) -> Builder {
        let api_key = api_key.into();
        if api_key.is_empty() { Builder::new() } else { Builder::new().api_key(api_key) }
    }

    pub(crate) fn open(config: Config, on_alarm: Option<AlarmCallback>) -> Result<Self> {
        static BUILT: AtomicU64 = AtomicU64::new(0);
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let (closed, membership) = (AtomicBool::new(false), PerProcess::new());
        let client = Client { config, on_alarm, number, closed, membership };
        let shared = client.shared()?;
        if client.config.environment_by_default {
            let message = "environment was not chosen: calls go to test_mode and nothing is \
                           billed live; choose test_mode to silence this, or live_mode";
            shared.alarms.raise(AlarmKind::TestMode, message, clock::now().mono);
        }
        Ok(Self(Arc::new(client)))
    }

    /// Accepts an event. Success means that it is kept until it is billed or set aside; the
    /// network is never waited for.
    ///
    /// # Errors
    /// `validation` when it breaks a limit, `overflow` when the spool is full, `storage` when the
    /// disk fails, `closed` after [`close`](Self::close).
    pub fn track(&self, event: impl Into<Event>) -> Result<Receipt> {
        self.accept(&event.into(), self.0.config.linger)
    }

    /// [`track`](Self::track) where neither the disk nor another thread has to be waited for: most of the
    /// time where the spool is written through memory, as it is on ext4 and tmpfs, and where it is kept in
    /// memory. `None` where one would have to be, and nothing has happened. For a caller that holds a lock
    /// of its own, and would rather let go of it to wait.
    pub fn try_track(&self, event: &Event) -> Option<Result<Receipt>> {
        self.try_accept(event, self.0.config.linger)
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

    /// The receipt of this [`ticket`](Receipt::ticket), which has to be of a call that this client
    /// accepted in this process.
    ///
    /// # Errors
    /// `validation` for text that is no ticket, and where this process has accepted nothing.
    pub fn receipt(&self, ticket: &str) -> Result<Receipt> {
        let receipt = self.0.opened().and_then(|shared| Receipt::of_ticket(shared, ticket));
        receipt.ok_or_else(|| Error::validation("ticket", "is that of no call of this client"))
    }

    /// A batch: its calls are due together, when there are enough or the oldest is old enough.
    ///
    /// # Errors
    /// `configuration` when a setting is out of range.
    pub fn create_batch(&self, config: BatchConfig) -> Result<Batch> {
        Batch::new(self.clone(), config)
    }

    /// Writes the event down, due after `delay` at the latest.
    pub(crate) fn accept(&self, event: &Event, delay: Duration) -> Result<Receipt> {
        let shared = self.0.shared()?;
        let accepted = shared.accept(event, &self.0.config.event_name, delay, clock::now());
        self.receipt_of(shared, accepted)
    }

    /// [`accept`](Self::accept) where nothing has to be waited for.
    pub(crate) fn try_accept(&self, event: &Event, delay: Duration) -> Option<Result<Receipt>> {
        let shared = self.0.opened().filter(|_| !self.0.is_closed())?;
        let accepted = shared.try_accept(event, &self.0.config.event_name, delay, clock::now())?;
        Some(self.receipt_of(shared, accepted))
    }

    fn receipt_of(&self, shared: &Arc<Shared>, accepted: Result<(String, Seq)>) -> Result<Receipt> {
        match &accepted {
            Ok(_) => _ = shared.counters.accepted.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Validation => self.refuse(error.message()),
            Err(_) => {}
        }
        accepted.map(|(event_id, seq)| Receipt::new(shared.clone(), seq, event_id))
    }

    /// Counts and tells a call that breaks a limit, for callers that cannot even make an event of it.
    pub fn refuse(&self, reason: &str) {
        if let Ok(shared) = self.0.shared() {
            shared.counters.invalid.fetch_add(1, Ordering::Relaxed);
            shared.alarms.raise(AlarmKind::Invalid, reason, clock::now().mono);
        }
    }

    /// Makes everything accepted by this process on this account due, and waits until all of it is
    /// billed or set aside. Where the spool is full, calls are waited for and due in their own time.
    /// `None` waits for [`DEFAULT_FLUSH_TIMEOUT`]. Needs no particular executor.
    ///
    /// # Errors
    /// When the time was over first, `authentication` where the API refuses the key, `network` where it
    /// cannot be reached, `timeout` else: the calls stay spooled. `storage` when the disk loses them,
    /// `closed` when the client, or the host the files of the spool, was closed meanwhile.
    pub async fn flush(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        if self.0.is_closed() {
            return Err(Error::closed());
        }
        self.settle(timeout, deadline(timeout)).await
    }

    /// [`flush`](Self::flush), blocking this thread.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn blocking_flush(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        block_on(self.flush(timeout))
    }

    async fn settle(&self, timeout: Duration, until: Instant) -> Result<()> {
        let Some(flush) = self.begin_flush()? else { return Ok(()) };
        let Flush { shared, waiting, seq, missing } = flush;
        let settled = waiting.until_settled(seq, until).await;
        if settled.is_none() {
            return Err(timed_out(shared, timeout));
        }
        shared.settlement.flushed(missing)
    }

    /// Makes all due. `None` when there is nothing to flush.
    fn begin_flush(&self) -> Result<Option<Flush<'_>>> {
        let unsettled =
            |shared: &&Arc<Shared>| shared.settlement.settled() < shared.writer.next_seq();
        let Some(shared) = self.0.opened().filter(unsettled) else { return Ok(None) };
        let (waiting, missing) = (shared.settlement.wait(), shared.settlement.missing());
        let seq = shared.append_flush(clock::now())?;
        shared.wake.now();
        Ok(Some(Flush { shared, waiting, seq, missing }))
    }

    /// Flushes, and lets go of the spool. Until all is billed calls are accepted; those that the flush missed
    /// are flushed too. What the time did not suffice for stays spooled. Closing twice is no error.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); the client is closed all the same.
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        if self.0.is_closed() {
            return Ok(());
        }
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        let until = deadline(timeout);
        let mut flushed = self.settle(timeout, until).await;
        let closing = Closing::begin(&self.0);
        if flushed.is_ok() {
            flushed = self.settle(timeout, until).await;
        }
        if let Some(released) = closing.0.leave() {
            released.until_settled(Seq::MAX, deadline(RELEASE_TIMEOUT)).await;
        }
        flushed
    }

    /// [`close`](Self::close), blocking this thread.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn blocking_close(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        block_on(self.close(timeout))
    }

    /// How long the natural end of the host program may wait for calls to be billed.
    pub fn exit_timeout(&self) -> Duration {
        self.0.config.exit_timeout
    }

    /// Which of the provider's two environments is billed.
    pub fn environment(&self) -> Environment {
        self.0.config.namespace.environment
    }

    /// Where the billing API is, without a slash at the end.
    pub fn base_url(&self) -> String {
        self.0.config.namespace.base_url.to_string()
    }

    pub(crate) fn time_unit(&self) -> TimeUnit {
        self.0.config.time_unit
    }

    /// What this process's clients of this account have done so far, since all that were there before were closed.
    pub fn stats(&self) -> Stats {
        self.0.opened().map_or_else(Stats::default, |shared| Stats::of(shared))
    }
}

/// A client that takes no more calls. It is let go of even where nobody waits for the rest of its calls any more.
struct Closing<'a>(&'a Client);

impl<'a> Closing<'a> {
    fn begin(client: &'a Client) -> Self {
        client.closed.store(true, Ordering::SeqCst);
        Self(client)
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A flush that began.
struct Flush<'a> {
    shared: &'a Shared,
    /// From before the engine was woken, which looks less often where nobody waits.
    waiting: Waiting<'a>,
    /// The record to wait for.
    seq: Seq,
    /// How many calls the disk had lost, and the host left, before.
    missing: (u64, u64),
}

fn timed_out(shared: &Shared, timeout: Duration) -> Error {
    let left = shared.settlement.waiting_calls(shared.writer.next_seq());
    let in_memory = engine::is_in_memory(&shared.writer.dir());
    let fate = if in_memory { "are lost when this process ends" } else { "stay spooled" };
    let left = format!("{left} calls are not billed yet and {fate}");
    if shared.settlement.has_ended() {
        return Error::new(ErrorKind::Closed, format!("the client was closed: {left}"));
    }
    shared.settlement.overdue(&format!("after {timeout:?} {left}"))
}

/// A deadline; a year from now for a timeout that no clock can hold.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + timeout.min(year)
}
