//! Waiting for the core without a second runtime and without a thread of our own.
//!
//! A blocking wait parks the calling thread, released from the interpreter, for a slice at a time
//! and looks at pending signals in between, so that Ctrl-C interrupts a flush. An awaited wait is
//! a [`Pending`] that the event loop polls: the core's threads do not call into Python for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use dodo_ingestion::Error;
use pyo3::prelude::*;

use crate::error::raise;

/// How long a blocking wait goes without looking at signals.
const SLICE: Duration = Duration::from_millis(50);

/// What is waited for.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Waits on the calling thread.
pub(crate) fn block(py: Python<'_>, mut wait: Wait) -> PyResult<()> {
    loop {
        match py.detach(|| poll_for(&mut wait, SLICE)) {
            Some(result) => return result.map_err(|error| raise(py, &error)),
            None => py.check_signals()?,
        }
    }
}

fn poll_for(wait: &mut Wait, slice: Duration) -> Option<Result<(), Error>> {
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
    pub(crate) fn new(wait: Wait) -> Self {
        Self { wait: Mutex::new(Some(wait)) }
    }
}

#[pymethods]
impl Pending {
    /// Whether the wait is over; raises what it failed with, once.
    fn poll(&self, py: Python<'_>) -> PyResult<bool> {
        let polled = py.detach(|| {
            let mut wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
            let polled = match wait.as_mut() {
                None => Poll::Ready(Ok(())),
                Some(wait) => wait.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            };
            if polled.is_ready() {
                *wait = None;
            }
            polled
        });
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(raise(py, &error)),
        }
    }
}
