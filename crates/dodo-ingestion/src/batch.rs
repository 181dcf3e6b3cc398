//! Batches: calls that are due together.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::TimeUnit;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ingestion::Ingestion;
use crate::process::PerProcess;
use crate::validate::limits::EVENTS_PER_REQUEST;

const MAX_FLUSH_INTERVAL: Duration = Duration::from_secs(300);

/// How long a full batch waits for what else comes: a burst of batches makes full requests.
const GATHERING: Duration = Duration::from_millis(50);

/// When the calls of a batch are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// When it holds so many: 1 to 1000. By default 100. A full batch goes out within 50 ms, with
    /// whatever comes meanwhile.
    pub max_size: usize,
    /// When its oldest call is so old: at most 300 s. By default 5 s.
    pub flush_interval: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_size: 100, flush_interval: Duration::from_secs(5) }
    }
}

impl BatchConfig {
    fn check(self, unit: TimeUnit) -> Result<Self> {
        if !(1..=EVENTS_PER_REQUEST).contains(&self.max_size) {
            return Err(Error::configuration(
                "max_size",
                format!("must be 1 to {EVENTS_PER_REQUEST}, not {}", self.max_size),
            ));
        }
        if self.flush_interval > MAX_FLUSH_INTERVAL {
            let (seconds, max) =
                (self.flush_interval.as_secs_f64(), MAX_FLUSH_INTERVAL.as_secs_f64());
            let given = unit.count(self.flush_interval).to_string();
            return Err(Error::configuration(
                "flush_interval",
                unit.out_of_range(&given, Some(seconds), 0.0, max),
            ));
        }
        Ok(self)
    }
}

/// Calls that are due together. Cheap to clone; all clones are one batch.
///
/// A call that was added is accepted: it survives what a tracked one survives, and nothing is lost
/// when the batch is dropped.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    ingestion: Ingestion,
    config: BatchConfig,
    pending: PerProcess<Mutex<Pending>>,
}

/// The calls that were added and are not due yet.
#[derive(Debug, Default)]
struct Pending {
    count: usize,
    oldest: Option<Instant>,
}

impl Pending {
    /// A call was not accepted after all: the one that filled the batch, if it took it.
    fn give_back(&mut self, taken: Option<Self>) {
        if let Some(taken) = taken {
            self.count += taken.count;
            self.oldest = taken.oldest;
        }
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            self.oldest = None;
        }
    }
}

impl Inner {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        let pending = self.pending.get_or_init(Mutex::default);
        pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one call more. Returns how long it may wait, and, where it is the one that fills the batch,
    /// what that held: it makes all of it due.
    fn count_in(&self) -> (Duration, Option<Pending>) {
        let BatchConfig { max_size, flush_interval } = self.config;
        let mut pending = self.pending();
        let now = Instant::now();
        let due = pending.oldest.is_some_and(|oldest| now - oldest >= flush_interval);
        if due || pending.oldest.is_none() {
            *pending = Pending { count: 0, oldest: Some(now) };
        }
        pending.count += 1;
        if pending.count >= max_size {
            (flush_interval.min(GATHERING), Some(std::mem::take(&mut *pending)))
        } else {
            (flush_interval, None)
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Batch {
    pub(crate) fn new(ingestion: Ingestion, config: BatchConfig) -> Result<Self> {
        let config = config.check(ingestion.time_unit())?;
        Ok(Self(Arc::new(Inner { ingestion, config, pending: PerProcess::new() })))
    }

    /// Accepts a call. It is billed when the batch is full, or its oldest call old enough, or
    /// something else is due and there is room in the request.
    ///
    /// # Errors
    /// As [`Ingestion::track`].
    pub fn add(&self, event: impl Into<Event>) -> Result<()> {
        let (delay, taken) = self.0.count_in();
        let accepted = self.0.ingestion.accept(&event.into(), delay);
        accepted.map(drop).inspect_err(|_| self.0.pending().give_back(taken))
    }

    /// [`add`](Self::add) where nothing has to be waited for. See [`Ingestion::try_track`].
    pub fn try_add(&self, event: &Event) -> Option<Result<()>> {
        let (delay, taken) = self.0.count_in();
        let accepted = self.0.ingestion.try_accept(event, delay);
        if !matches!(accepted, Some(Ok(_))) {
            self.0.pending().give_back(taken);
        }
        accepted.map(|accepted| accepted.map(drop))
    }

    /// What it is a batch of.
    pub fn ingestion(&self) -> &Ingestion {
        &self.0.ingestion
    }

    fn empty(&self) {
        *self.0.pending() = Pending::default();
    }

    /// Makes the batch due and waits until it is billed. See [`Ingestion::flush`].
    ///
    /// # Errors
    /// As [`Ingestion::flush`].
    pub async fn flush(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.empty();
        self.0.ingestion.flush(timeout).await
    }

    /// [`flush`](Self::flush), blocking this thread.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn blocking_flush(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.empty();
        self.0.ingestion.blocking_flush(timeout)
    }

    /// The batch's last flush. There is nothing else to release.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn cleanup(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.flush(timeout).await
    }

    /// [`cleanup`](Self::cleanup), blocking this thread.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn blocking_cleanup(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.blocking_flush(timeout)
    }
}
