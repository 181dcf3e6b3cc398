//! `Receipt`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::convert::timeout;
use crate::wait::{Pending, Wait, block};

/// The proof that a call was accepted.
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
    /// The call's idempotency key.
    #[getter]
    fn event_id(&self) -> &str {
        self.core.event_id()
    }

    /// Resolves when the billing API has acknowledged the call; raises why it was rejected.
    #[pyo3(signature = (timeout=None))]
    fn delivered<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static AWAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let pending = Pending::new(self.wait(timeout)?);
        AWAIT.import(py, "dodo_ingestion._await", "settled")?.call1((pending,))
    }

    /// The blocking form of `delivered`.
    #[pyo3(signature = (timeout=None))]
    fn wait_delivered(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        block(py, self.wait(timeout)?)
    }

    fn __repr__(&self) -> String {
        format!("<Receipt {}>", self.core.event_id())
    }
}
