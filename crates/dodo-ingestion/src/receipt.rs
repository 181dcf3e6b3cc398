//! What a track verb returns.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::ingestion::{DEFAULT_FLUSH_TIMEOUT, deadline};
use crate::shared::Shared;
use crate::spool::Seq;

/// Proof that a call was accepted at the chosen durability. May be dropped at once; or asked
/// whether the billing API has acknowledged the call.
#[derive(Clone)]
pub struct Receipt {
    shared: Arc<Shared>,
    seq: Seq,
    event_id: String,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("event_id", &self.event_id).finish_non_exhaustive()
    }
}

impl Receipt {
    pub(crate) fn new(shared: Arc<Shared>, seq: Seq, event_id: String) -> Self {
        Self { shared, seq, event_id }
    }

    /// The call's idempotency key, as the billing API knows it.
    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    /// Waits until the billing API has acknowledged the call. It does not hurry the call: that is
    /// what [`Ingestion::flush`](crate::Ingestion::flush) is for. `None` waits for
    /// [`DEFAULT_FLUSH_TIMEOUT`]. Needs no particular executor.
    ///
    /// # Errors
    /// `rejected` or `too_large` when the API refused the call, with its words; `timeout` when the
    /// time was over first, `closed` when the client was: the call stays spooled.
    pub async fn delivered(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        let waiting = self.shared.settlement.wait();
        self.shared.wake.now();
        let outcome = waiting.until_settled(self.seq, deadline(timeout)).await;
        outcome.unwrap_or_else(|| Err(self.unsettled(timeout)))
    }

    /// [`delivered`](Self::delivered), blocking this thread.
    ///
    /// # Errors
    /// As [`delivered`](Self::delivered).
    pub fn blocking_delivered(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        let waiting = self.shared.settlement.wait();
        self.shared.wake.now();
        let outcome = waiting.block_until_settled(self.seq, deadline(timeout));
        outcome.unwrap_or_else(|| Err(self.unsettled(timeout)))
    }

    fn unsettled(&self, timeout: Duration) -> Error {
        if self.shared.settlement.has_ended() {
            let message = "the client was closed; the call stays spooled for the next process";
            return Error::new(ErrorKind::Closed, message);
        }
        let message = format!("after {timeout:?} the call is not billed yet and stays spooled");
        Error::new(ErrorKind::Timeout, message)
    }
}
