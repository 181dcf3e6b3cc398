//! The core's error as a Python exception.
//!
//! The exception classes are written in Python (`dodo_ingestion.errors`), one for each kind, so
//! that they have ordinary signatures, documentation and pickling. This module looks the factory
//! up once and calls it.

use dodo_ingestion::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

static FACTORY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The kinds that the core may report, in its order.
pub(crate) fn kinds(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, ErrorKind::ALL.iter().map(|kind| kind.as_str()))
}

/// The exception for an error of the core.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error.kind(), error.message(), error.field(), error.status(), error.may_be_billed())
}

/// The exception for a value that cannot be converted, and so never reached the core.
pub(crate) fn unconvertible(py: Python<'_>, kind: ErrorKind, field: &str, message: &str) -> PyErr {
    build(py, kind, message, Some(field), None, false)
}

/// Whether it is one of the exceptions of `dodo_ingestion.errors`.
pub(crate) fn is_ours(py: Python<'_>, error: &PyErr) -> bool {
    static BASE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    BASE.import(py, "dodo_ingestion.errors", "IngestionError")
        .is_ok_and(|base| error.matches(py, base).unwrap_or(false))
}

/// Refuses keyword arguments that a function does not have, as Python does, and names the nearest of
/// those that it has.
pub(crate) fn refuse_unknown(
    function: &str,
    unknown: Option<&Bound<'_, PyDict>>,
    known: &[&str],
) -> PyResult<()> {
    let Some(unknown) = unknown else { return Ok(()) };
    let py = unknown.py();
    let exception = PyModule::import(py, "dodo_ingestion.errors")?
        .call_method1("unknown_argument", (function, unknown, known.to_vec()))?;
    Err(PyErr::from_value(exception))
}

fn build(
    py: Python<'_>,
    kind: ErrorKind,
    message: &str,
    field: Option<&str>,
    status: Option<u16>,
    may_be_billed: bool,
) -> PyErr {
    let exception = FACTORY
        .import(py, "dodo_ingestion.errors", "from_kind")
        .and_then(|factory| factory.call1((kind.as_str(), message, field, status, may_be_billed)));
    match exception {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
