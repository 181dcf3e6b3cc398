//! The Python extension module `dodo_ingestion._native`.
//!
//! Every function converts its arguments, calls the core and converts the answer. What an option
//! is called, what it defaults to, what is valid and what is retried is the core's business; this
//! crate must not know.
//!
//! Four rules hold throughout:
//!
//! - The interpreter is released around every call into the core that may wait, for a disk or another thread,
//!   and around no other: where others compute, it takes milliseconds to have it back (`client::accepted`). A
//!   long wait goes in slices with a look at pending signals between them (`wait`).
//! - The core's threads do not call into Python: an alarm is told by others (`alarm`).
//! - A call with plain arguments runs no code of Python's, also if it fails, but on the main thread and
//!   under gevent: before 3.14 CPython unwinds a daemon thread that is in such code when the program ends,
//!   and aborts the process in Rust's frames.
//! - Nothing that panics prints: it is logged, and the call raises a `RuntimeError` (`alarm`).
//!
//! It relies on the GIL: the list of open clients is only locked under it, so that a fork finds
//! it free. The package refuses to be imported without.
//!
//! The documentation of what Python sees is Python's, in its users' form.

// Nothing of it runs without its host, and so it has no unit tests; `--lib` builds them all the same.
#![cfg(not(test))]
#![expect(clippy::doc_markdown, reason = "it is read by `help()`")]

mod alarm;
mod batch;
mod client;
mod convert;
mod error;
mod exit;
mod header;
mod receipt;
mod wait;

#[pyo3::pymodule(gil_used = true)]
mod _native {
    use pyo3::Bound;
    use pyo3::PyResult;
    use pyo3::types::{PyModule, PyModuleMethods as _};

    use dodo_ingestion::limits;

    #[pymodule_export]
    use super::alarm::told;
    #[pymodule_export]
    use super::batch::{Batch, create_batch};
    #[pymodule_export]
    use super::client::{Ingestion, accept_api_call, close_at_exit, refuse, track_api_call};
    #[pymodule_export]
    use super::error::make_error;
    #[pymodule_export]
    use super::header::{customer_in_asgi_headers, customer_in_header};
    #[pymodule_export]
    use super::receipt::Receipt;
    #[pymodule_export]
    use super::wait::Pending;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::alarm::log_panics();
        module.add("ERROR_KINDS", super::error::kinds(module.py())?)?;
        module.add("IDENTIFIER_CHARACTERS", limits::IDENTIFIER_CHARS)?;
        module.add("METADATA_KEY_CHARACTERS", limits::METADATA_KEY_CHARS)?;
        module.add("METADATA_PAIRS", limits::METADATA_PAIRS)?;
        module.add("METADATA_VALUE_CHARACTERS", limits::METADATA_VALUE_CHARS)?;
        module.add("OPTIONS", super::convert::option_names(module.py())?)
    }
}
