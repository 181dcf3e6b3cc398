//! `Ingestion` and the hot path.

use dodo_ingestion::Builder;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::convert::{event, option_value, timeout};
use crate::error::raise;
use crate::exit::{Open, open};
use crate::receipt::Receipt;
use crate::wait::block;
use crate::{alarm, exit};

/// A client of the billing API: accepts calls in microseconds and delivers them in batches.
#[pyclass(frozen, module = "dodo_ingestion._native")]
pub(crate) struct Ingestion {
    pub(crate) core: dodo_ingestion::Ingestion,
    _open: Open,
}

#[pymethods]
impl Ingestion {
    #[new]
    #[pyo3(signature = (*, on_alarm=None, **options))]
    fn new(
        py: Python<'_>,
        on_alarm: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut builder = Builder::new().on_alarm(alarm::callback(on_alarm));
        for (name, value) in options.into_iter().flatten() {
            if value.is_none() {
                continue;
            }
            let name: String = name.cast_into::<PyString>()?.extract()?;
            let value = option_value(&name, &value)?;
            builder.set(&name, value).map_err(|error| raise(py, &error))?;
        }
        let core = py.detach(|| builder.build()).map_err(|error| raise(py, &error))?;
        Ok(Self { _open: open(&core), core })
    }

    /// Accepts one call. See `track_api_call`.
    #[pyo3(signature = (*, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None))]
    fn track(
        &self,
        py: Python<'_>,
        customer_id: &str,
        metadata: Option<&Bound<'_, PyAny>>,
        event_id: Option<&str>,
        event_name: Option<&str>,
        timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Receipt> {
        let event = event(customer_id, metadata, event_id, event_name, timestamp)?;
        match py.detach(|| self.core.track(event)) {
            Ok(core) => Ok(Receipt { core }),
            Err(error) => Err(raise(py, &error)),
        }
    }

    /// Makes everything accepted so far due and waits until it is settled.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let (core, limit) = (self.core.clone(), self::timeout(timeout)?);
        block(py, Box::pin(async move { core.flush(limit).await }))
    }

    /// Flushes and lets go. What is left stays spooled.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let (core, limit) = (self.core.clone(), self::timeout(timeout)?);
        block(py, Box::pin(async move { core.close(limit).await }))
    }

    /// What has happened so far, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        if let Ok(serde_json::Value::Object(counts)) = serde_json::to_value(self.core.stats()) {
            for (name, count) in &counts {
                stats.set_item(name, count.as_u64())?;
            }
        }
        Ok(stats)
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py, None)
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.core)
    }
}

/// Accepts one call for billing and returns its receipt, in microseconds.
#[pyfunction]
#[pyo3(signature = (ingestion, *, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None))]
pub(crate) fn track_api_call(
    py: Python<'_>,
    ingestion: &Bound<'_, Ingestion>,
    customer_id: &str,
    metadata: Option<&Bound<'_, PyAny>>,
    event_id: Option<&str>,
    event_name: Option<&str>,
    timestamp: Option<&Bound<'_, PyAny>>,
) -> PyResult<Receipt> {
    ingestion.get().track(py, customer_id, metadata, event_id, event_name, timestamp)
}

/// Closes the clients that are still open, each for as long as its options allow. Returns what went
/// wrong.
#[pyfunction]
pub(crate) fn close_at_exit(py: Python<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    for core in exit::still_open() {
        let limit = core.exit_timeout();
        if let Err(error) = block(py, Box::pin(async move { core.close(limit).await })) {
            failures.push(error.value(py).to_string());
        }
    }
    failures
}
