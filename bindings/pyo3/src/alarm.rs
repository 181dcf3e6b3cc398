//! The core's alarms, told to the host.
//!
//! The only way from the core's threads into Python, and one that is not taken while the interpreter
//! shuts down. Whoever calls the core is released from the interpreter, so nobody waits in a circle.

use dodo_ingestion::Alarm;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static LOG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Calls `listener` with the kind and the message, or logs them if there is none.
pub(crate) fn callback(listener: Option<Py<PyAny>>) -> impl Fn(&Alarm) + Send + Sync + 'static {
    move |alarm| {
        Python::try_attach(|py| {
            let told = match &listener {
                Some(listener) => Ok(listener.bind(py)),
                None => LOG.import(py, "dodo_ingestion._alarm", "log"),
            };
            let told = told.and_then(|tell| tell.call1((alarm.kind.as_str(), &alarm.message)));
            if let Err(error) = told {
                error.write_unraisable(py, None);
            }
        });
    }
}
