//! Waiting for the core without a second runtime and without a thread of our own.
//!
//! A blocking wait parks the calling thread, released from the interpreter, for a slice at a time
//! and looks at pending signals in between, so that Ctrl-C interrupts a flush. An awaited wait is
//! a [`Pending`] that the event loop polls: the core's threads do not call into Python for it. Under
//! gevent a blocking wait is polled as well, and other greenlets run meanwhile.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use dodo_ingestion::Error;
use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::alarm::released;
use crate::error::{is_ours, raise};

/// How long a blocking wait goes without looking at signals.
const SLICE: Duration = Duration::from_millis(50);

/// What is waited for.
pub(crate) type Wait<T = Result<(), Error>> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Waits in the calling greenlet, or on the calling thread where it has none.
pub(crate) fn block(py: Python<'_>, wait: Wait) -> PyResult<()> {
    static SETTLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let Some(sleep) = sleep_of_greenlets(py)? else {
        return park(py, wait)?.map_err(|error| raise(py, &error));
    };
    let settle = SETTLE.import(py, "dodo_ingestion._greenlets", "settle")?;
    settle.call1((Pending::new(wait), sleep)).map(drop)
}

fn sleep_of_greenlets(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static SLEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if !is_gevent_loaded(py) {
        return Ok(None);
    }
    let sleep = SLEEP.import(py, "dodo_ingestion._greenlets", "sleep")?.call0()?;
    Ok((!sleep.is_none()).then_some(sleep))
}

/// Whether there may be gevent's greenlets. Runs no code of Python's.
fn is_gevent_loaded(py: Python<'_>) -> bool {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.import(py, "sys", "modules");
    modules.is_ok_and(|modules| modules.contains("gevent.monkey").unwrap_or(true))
}

/// Waits on the calling thread. What a signal's handler raises ends it.
pub(crate) fn park<T: Send>(py: Python<'_>, mut wait: Wait<T>) -> PyResult<T> {
    loop {
        match released(py, || poll_for(&mut wait, SLICE))? {
            Some(result) => return Ok(result),
            None => py.check_signals()?,
        }
    }
}

/// Waits on the calling thread at the end of a `with`. If the block has failed, what it raised goes
/// before what the wait fails with, which is logged.
pub(crate) fn leave(py: Python<'_>, wait: Wait, failed: bool) -> PyResult<()> {
    static UNSETTLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    match block(py, wait) {
        Err(error) if failed && is_ours(py, &error) => {
            let log = UNSETTLED.import(py, "dodo_ingestion._alarm", "unsettled")?;
            log.call1((error.value(py),)).map(drop)
        }
        ended => ended,
    }
}

/// The same at the end of an `async with`, as a coroutine.
pub(crate) fn leave_async(py: Python<'_>, wait: Wait, failed: bool) -> PyResult<Bound<'_, PyAny>> {
    static LEFT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LEFT.import(py, "dodo_ingestion._await", "left")?.call1((Pending::new(wait), failed))
}

/// A coroutine that waits.
pub(crate) fn awaited(py: Python<'_>, wait: Wait) -> PyResult<Bound<'_, PyAny>> {
    static SETTLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    SETTLED.import(py, "dodo_ingestion._await", "settled")?.call1((Pending::new(wait),))
}

/// A coroutine that enters an `async with`.
pub(crate) fn enter_async<'py, T: PyClass>(entered: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    static ENTERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ENTERED.import(entered.py(), "dodo_ingestion._await", "entered")?.call1((entered,))
}

fn poll_for<T>(wait: &mut Wait<T>, slice: Duration) -> Option<T> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let started = Instant::now();
    loop {
        if let Poll::Ready(result) = wait.as_mut().poll(&mut context) {
            return Some(result);
        }
        let left = slice.checked_sub(started.elapsed())?;
        std::thread::park_timeout(left);
    }
}

/// A wait that an event loop polls.
#[pyclass(frozen, module = "dodo_ingestion._native")]
pub(crate) struct Pending {
    // `None` once it is over.
    wait: Mutex<Option<Wait>>,
}

impl Pending {
    fn new(wait: Wait) -> Self {
        Self { wait: Mutex::new(Some(wait)) }
    }
}

#[pymethods]
impl Pending {
    /// Whether the wait is over; raises what it failed with, once.
    fn poll(&self, py: Python<'_>) -> PyResult<bool> {
        let polled = released(py, || {
            let mut wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
            let polled = match wait.as_mut() {
                None => Poll::Ready(Ok(())),
                Some(wait) => wait.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            };
            if polled.is_ready() {
                *wait = None;
            }
            polled
        })?;
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(raise(py, &error)),
        }
    }
}
