//! `Batch`.

use dodo_ingestion::{BatchConfig, ErrorKind};
use pyo3::prelude::*;

use crate::client::Ingestion;
use crate::convert::{duration, event, timeout};
use crate::error::{raise, unconvertible};
use crate::wait::block;

/// Calls that are due together: when there are `max_size`, or the oldest is `flush_interval` old.
#[pyclass(frozen, module = "dodo_ingestion._native")]
pub(crate) struct Batch {
    core: dodo_ingestion::Batch,
}

#[pymethods]
impl Batch {
    /// Accepts one call.
    #[pyo3(signature = (*, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None))]
    fn add(
        &self,
        py: Python<'_>,
        customer_id: &str,
        metadata: Option<&Bound<'_, PyAny>>,
        event_id: Option<&str>,
        event_name: Option<&str>,
        timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let event = event(customer_id, metadata, event_id, event_name, timestamp)?;
        py.detach(|| self.core.add(event)).map_err(|error| raise(py, &error))
    }

    /// Makes everything accepted so far due and waits until it is settled.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let (core, limit) = (self.core.clone(), self::timeout(timeout)?);
        block(py, Box::pin(async move { core.flush(limit).await }))
    }

    /// Flushes and ends the batch. What is left stays spooled.
    #[pyo3(signature = (timeout=None))]
    fn cleanup(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let (core, limit) = (self.core.clone(), self::timeout(timeout)?);
        block(py, Box::pin(async move { core.cleanup(limit).await }))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.cleanup(py, None)
    }
}

/// Opens a batch.
#[pyfunction]
#[pyo3(signature = (ingestion, *, max_size=None, flush_interval=None))]
pub(crate) fn create_batch(
    py: Python<'_>,
    ingestion: &Bound<'_, Ingestion>,
    max_size: Option<&Bound<'_, PyAny>>,
    flush_interval: Option<&Bound<'_, PyAny>>,
) -> PyResult<Batch> {
    let mut config = BatchConfig::default();
    if let Some(size) = max_size {
        config.max_size = size.extract().map_err(|_| {
            let message = "max_size: not a whole number of calls";
            unconvertible(py, ErrorKind::Configuration, "max_size", message)
        })?;
    }
    if let Some(interval) = flush_interval {
        config.flush_interval = duration("flush_interval", interval)?;
    }
    ingestion
        .get()
        .core
        .create_batch(config)
        .map(|core| Batch { core })
        .map_err(|error| raise(py, &error))
}
