//! What a track verb returns.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ingestion::{DEFAULT_FLUSH_TIMEOUT, deadline};
use crate::process::OfProcess;
use crate::settlement::{Settlement, block_on};
use crate::shared::Shared;
use crate::spool::Seq;

/// Proof that a call was accepted at the chosen durability. May be dropped at once; or asked
/// whether the billing API has acknowledged the call.
#[derive(Clone)]
pub struct Receipt {
    shared: OfProcess<Arc<Shared>>,
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
        Self { shared: OfProcess::new(shared), seq, event_id }
    }

    /// The call's idempotency key, as the billing API knows it.
    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    /// Text of which [`Ingestion::receipt`](crate::Ingestion::receipt) makes the receipt again: for
    /// languages in which an object that has to be told of its end is dear.
    pub fn ticket(&self) -> String {
        format!("{} {}", self.seq, self.event_id)
    }

    /// The receipt of a ticket; `None` where the text is none.
    pub(crate) fn of_ticket(shared: &Arc<Shared>, ticket: &str) -> Option<Self> {
        let (seq, event_id) = ticket.split_once(' ')?;
        Some(Self::new(shared.clone(), seq.parse().ok()?, event_id.to_owned()))
    }

    fn wake_engine(&self) {
        if let Some(shared) = self.shared.get() {
            shared.wake.now();
        }
    }

    fn settlement<'a>(&'a self, inherited: Option<&'a Arc<Settlement>>) -> &'a Settlement {
        inherited.map_or(&self.shared.even_inherited().settlement, |settlement| settlement)
    }

    /// Where to learn what becomes of the call, if a parent of this process accepted it.
    fn inherited(&self) -> Result<Option<Arc<Settlement>>> {
        if self.shared.get().is_some() {
            return Ok(None);
        }
        engine::settlement_of_inherited(self.shared.even_inherited().writer.inherited_dir())
            .map(Some)
    }

    /// Waits until the billing API has acknowledged the call. It does not hurry the call: that is
    /// what [`Ingestion::flush`](crate::Ingestion::flush) is for. `None` waits for
    /// [`DEFAULT_FLUSH_TIMEOUT`]. Needs no particular executor.
    ///
    /// # Errors
    /// `rejected` or `too_large` when the API refused the call, with its words; `timeout` when the
    /// time was over first, or `authentication` or `network` where that is known to be why; `closed`
    /// when the client was, or the host closed the files of the spool: the call stays spooled;
    /// `storage` when the disk lost it, or may have.
    pub async fn delivered(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = timeout.into().unwrap_or(DEFAULT_FLUSH_TIMEOUT);
        let inherited = self.inherited()?;
        let settlement = self.settlement(inherited.as_ref());
        let waiting = settlement.wait();
        self.wake_engine();
        let outcome = waiting.until_settled(self.seq, deadline(timeout)).await;
        outcome.unwrap_or_else(|| Err(unsettled(settlement, timeout)))
    }

    /// [`delivered`](Self::delivered), blocking this thread.
    ///
    /// # Errors
    /// As [`delivered`](Self::delivered).
    pub fn blocking_delivered(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        block_on(self.delivered(timeout))
    }
}

fn unsettled(settlement: &Settlement, timeout: Duration) -> Error {
    if settlement.has_ended() {
        let message = "the client was closed; the call stays spooled for the next process";
        return Error::new(ErrorKind::Closed, message).and_may_be_billed();
    }
    let message = format!("after {timeout:?} the call is not billed yet and stays spooled");
    settlement.overdue(&message).and_may_be_billed()
}
