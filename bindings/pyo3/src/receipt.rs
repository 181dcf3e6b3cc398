//! `Receipt`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::convert::timeout;
use crate::wait::{Wait, awaited, block};

/// The proof that a call was accepted. It can be dropped at once, or asked whether the call is billed.
///
/// `await receipt` is the receipt itself, at once: a track verb has nothing that is to be awaited.
#[pyclass(frozen, module = "dodo_ingestion._native")]
pub(crate) struct Receipt {
    pub(crate) core: dodo_ingestion::Receipt,
}

impl Receipt {
    fn wait(&self, limit: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
        let (core, limit) = (self.core.clone(), timeout(limit)?);
        Ok(Box::pin(async move { core.delivered(limit).await }))
    }
}

#[pymethods]
impl Receipt {
    /// The call's idempotency key, as the billing API knows it: the caller's own, or one that was made.
    #[getter]
    fn event_id(&self) -> &str {
        self.core.event_id()
    }

    /// Await that the billing API has acknowledged the call, under asyncio, trio or anyio. That does not
    /// hurry the call; `Ingestion.aflush` does.
    ///
    /// Args:
    ///     timeout: Seconds, or a timedelta; 30 s by default. The wait can also be cancelled. The call
    ///         stays spooled in either case.
    ///
    /// Raises:
    ///     RejectedError, TooLargeError: The API refused the call, in its words.
    ///     IngestionTimeoutError: The time was over first.
    ///     AuthenticationError: The same, and the API refuses the key.
    ///     NetworkError: The same, and the API cannot be reached.
    ///     ClosedError: The client was closed first.
    #[pyo3(signature = (timeout=None))]
    fn delivered<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaited(py, self.wait(timeout)?)
    }

    /// Block this thread until the billing API has acknowledged the call. Ctrl-C interrupts it.
    ///
    /// Arguments and exceptions are those of `delivered`.
    #[pyo3(signature = (timeout=None))]
    fn wait_delivered(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        block(py, self.wait(timeout)?)
    }

    fn __await__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static AT_ONCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = this.py();
        AT_ONCE.import(py, "dodo_ingestion._await", "at_once")?.call1((this,))
    }

    fn __repr__(&self) -> String {
        format!("<Receipt {}>", self.core.event_id())
    }
}
