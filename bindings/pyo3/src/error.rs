//! The core's error as a Python exception.
//!
//! The exception classes are written in Python (`dodo_ingestion.errors`), one for each kind, so
//! that they have ordinary signatures, documentation and pickling. This module does what their
//! `__init__` does, and runs none of Python's code for it: any call may raise at the end of the program.

use dodo_ingestion::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

/// The kinds that the core may report, in its order.
pub(crate) fn kinds(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, ErrorKind::ALL.iter().map(|kind| kind.as_str()))
}

/// The exception for an error of the core.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let kind = error.kind().as_str();
    build(py, kind, error.message(), error.field(), error.status(), error.may_be_billed())
}

/// The exception for a value that cannot be converted, and so never reached the core.
pub(crate) fn unconvertible(py: Python<'_>, kind: ErrorKind, field: &str, message: &str) -> PyErr {
    build(py, kind.as_str(), message, Some(field), None, false)
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
    kind: &str,
    message: &str,
    field: Option<&str>,
    status: Option<u16>,
    may_be_billed: bool,
) -> PyErr {
    match make_error(py, kind, message, field, status, may_be_billed) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Make the exception for an error of the core.
#[pyfunction]
pub(crate) fn make_error<'py>(
    py: Python<'py>,
    kind: &str,
    message: &str,
    field: Option<&str>,
    status: Option<u16>,
    may_be_billed: bool,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    static BASE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static SUPER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASSES.import(py, "dodo_ingestion.errors", "BY_KIND")?.as_any().get_item(kind)?;
    let base = BASE.import(py, "dodo_ingestion.errors", "IngestionError")?;
    let error = class.call_method1("__new__", (&class, message))?;
    SUPER
        .import(py, "builtins", "super")?
        .call1((base, &error))?
        .call_method1("__init__", (message,))?;
    error.setattr("message", message)?;
    error.setattr("field", field)?;
    error.setattr("status", status)?;
    error.setattr("may_be_billed", may_be_billed)?;
    Ok(error)
}
