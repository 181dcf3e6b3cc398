//! `Batch`.

use std::time::Duration;

use dodo_ingestion::{BatchConfig, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::alarm::released;
use crate::client::{CALL, Ingestion, accepted, counted};
use crate::convert::{duration, event, timeout};
use crate::error::{raise, refuse_unknown, unconvertible};
use crate::wait::{Wait, awaited, block, enter_async, leave, leave_async};

/// Calls that are due together: when there are `max_size`, or the oldest is `flush_interval` old.
///
/// A call that was added is accepted: it survives what a tracked one survives, also where the batch is
/// dropped. `with` and `async with` clean it up at their end; if the block was left by an exception,
/// for at most the client's `exit_timeout`, and with what went wrong in the log.
#[pyclass(frozen, module = "dodo_ingestion._native")]
pub(crate) struct Batch {
    core: dodo_ingestion::Batch,
    /// Kept for as long as the batch is: the end of the program closes the clients that somebody has.
    client: Py<Ingestion>,
}

impl Batch {
    fn flushing(&self, limit: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
        let (core, limit) = (self.core.clone(), timeout(limit)?);
        Ok(Box::pin(async move { core.flush(limit).await }))
    }

    fn cleaning_up(&self, limit: Option<Duration>) -> Wait {
        let core = self.core.clone();
        Box::pin(async move { core.cleanup(limit).await })
    }

    /// How the batch is cleaned up at the end of a block that has failed, or has not.
    fn leaving(&self, failed: bool) -> Wait {
        self.cleaning_up(failed.then(|| self.client.get().core.exit_timeout()))
    }
}

#[pymethods]
impl Batch {
    /// Accept one call. It is due with its batch.
    ///
    /// Arguments and exceptions are those of `track_api_call`.
    #[pyo3(
        signature = (*, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None, **unknown),
        text_signature = "($self, *, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "one for each keyword")]
    fn add(
        &self,
        py: Python<'_>,
        customer_id: &Bound<'_, PyAny>,
        metadata: Option<&Bound<'_, PyAny>>,
        event_id: Option<&Bound<'_, PyAny>>,
        event_name: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        unknown: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        refuse_unknown("add", unknown, CALL)?;
        let event = event(customer_id, metadata, event_id, event_name, timestamp);
        let event = counted(py, self.core.ingestion(), event)?;
        accepted(py, || self.core.try_add(&event), || self.core.add(event.clone()))
    }

    /// Make everything that this process has accepted on this account due, and block until it is settled.
    ///
    /// Arguments and exceptions are those of `Ingestion.flush`.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        block(py, self.flushing(timeout)?)
    }

    /// Await what `flush` blocks for, under asyncio, trio or anyio.
    #[pyo3(signature = (timeout=None))]
    fn aflush<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaited(py, self.flushing(timeout)?)
    }

    /// Flush for the last time. What is not billed in time stays spooled.
    ///
    /// Arguments and exceptions are those of `flush`.
    #[pyo3(signature = (timeout=None))]
    fn cleanup(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        block(py, self.cleaning_up(self::timeout(timeout)?))
    }

    /// Await what `cleanup` blocks for, under asyncio, trio or anyio.
    #[pyo3(signature = (timeout=None))]
    fn acleanup<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaited(py, self.cleaning_up(self::timeout(timeout)?))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (kind=None, *_details))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyAny>>,
        _details: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        leave(py, self.leaving(kind.is_some()), kind.is_some())
    }

    fn __aenter__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        enter_async(this)
    }

    #[pyo3(signature = (kind=None, *_details))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        kind: Option<&Bound<'py, PyAny>>,
        _details: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        leave_async(py, self.leaving(kind.is_some()), kind.is_some())
    }
}

/// Open a batch: calls that are due together.
///
/// Args:
///     ingestion: The client.
///     max_size: The batch is due when it holds so many calls, and goes out within 50 ms with whatever
///         comes meanwhile: 1 to 1000, 100 by default.
///     flush_interval: It is also due when its oldest call is so old: seconds or a timedelta, at most
///         300 s, 5 s by default.
///
/// Raises:
///     ConfigurationError: A setting is out of range.
#[pyfunction]
#[pyo3(
    signature = (ingestion, *, max_size=None, flush_interval=None, **unknown),
    text_signature = "(ingestion, *, max_size=None, flush_interval=None)"
)]
pub(crate) fn create_batch(
    py: Python<'_>,
    ingestion: &Bound<'_, Ingestion>,
    max_size: Option<&Bound<'_, PyAny>>,
    flush_interval: Option<&Bound<'_, PyAny>>,
    unknown: Option<&Bound<'_, PyDict>>,
) -> PyResult<Batch> {
    refuse_unknown("create_batch", unknown, &["max_size", "flush_interval"])?;
    let mut config = BatchConfig::default();
    if let Some(size) = max_size {
        let number = if size.is_instance_of::<PyBool>() { None } else { size.extract().ok() };
        config.max_size = number.ok_or_else(|| {
            let message = "max_size: not a whole number of calls";
            unconvertible(py, ErrorKind::Configuration, "max_size", message)
        })?;
    }
    if let Some(interval) = flush_interval {
        config.flush_interval = duration("flush_interval", interval)?;
    }
    let client = &ingestion.get().core;
    let core = released(py, || client.create_batch(config))?.map_err(|error| raise(py, &error))?;
    Ok(Batch { core, client: ingestion.clone().unbind() })
}
