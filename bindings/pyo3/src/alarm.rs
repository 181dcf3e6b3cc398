//! The core's alarms, told to the host.
//!
//! The host's listener may do anything: wait for a lock that a greenlet holds, write to a socket, call
//! the core. So it is called where nobody waits for its end:
//!
//! - An alarm that a call into the core raises is told by the caller, after the call ([`released`]).
//! - One of the core's own threads is told by a thread that does nothing else. The core's threads do
//!   not wait for the interpreter.
//! - Under gevent it is told after the next call into the core, whichever that is: the locks of
//!   greenlets, such as those of `logging`, cannot be waited for on another thread.
//!
//! It is not told while the interpreter shuts down.
//!
//! A panic, which is a defect of this library, is logged like an alarm.

use std::cell::RefCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use dodo_ingestion::Alarm;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// So many alarms can wait to be told at a time. Where a listener does not return, further ones are
/// only counted.
const MOST_UNTOLD: usize = 16;

static LOG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static TELLERS: AtomicUsize = AtomicUsize::new(0);

/// Only locked by a thread that holds the interpreter, as one that forks does: a child finds it free.
static FOR_THE_NEXT_CALL: Mutex<Vec<Untold>> = Mutex::new(Vec::new());
static NEXT_CALL_TELLS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What the call into the core has raised that this thread is in; `None` where it is in none.
    /// It may be gone: uWSGI ends Python from a C exit handler, after the main thread's locals.
    static RAISED: RefCell<Option<Vec<Untold>>> = const { RefCell::new(None) };
}

struct Untold {
    listener: Arc<Option<Py<PyAny>>>,
    kind: &'static str,
    message: String,
}

impl Untold {
    fn tell(&self, py: Python<'_>) {
        let told = match &*self.listener {
            Some(listener) => Ok(listener.bind(py)),
            None => LOG.import(py, "dodo_ingestion._alarm", "log"),
        };
        if let Err(error) = told.and_then(|tell| tell.call1((self.kind, &self.message))) {
            error.write_unraisable(py, None);
        }
    }

    /// Tells it on a thread that may take as long as it likes.
    fn tell_elsewhere(self) {
        if TELLERS.fetch_add(1, Ordering::Relaxed) >= MOST_UNTOLD {
            TELLERS.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let tell = move || {
            Python::try_attach(|py| {
                if are_greenlets_used(py) { self.tell_later() } else { self.tell(py) }
            });
            TELLERS.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("dodo-alarm".to_owned()).spawn(tell).is_err() {
            TELLERS.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn tell_later(self) {
        let mut waiting = FOR_THE_NEXT_CALL.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_UNTOLD {
            waiting.push(self);
            NEXT_CALL_TELLS.store(true, Ordering::Release);
        }
    }
}

fn are_greenlets_used(py: Python<'_>) -> bool {
    static ARE_USED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ARE_USED
        .import(py, "dodo_ingestion._greenlets", "are_used")
        .and_then(|ask| ask.call0()?.is_truthy())
        .unwrap_or(false)
}

/// Calls `listener` with the kind and the message, or logs them if there is none.
pub(crate) fn callback(listener: Option<Py<PyAny>>) -> impl Fn(&Alarm) + Send + Sync + 'static {
    let listener = Arc::new(listener);
    move |alarm| {
        let mut untold = Some(Untold {
            listener: listener.clone(),
            kind: alarm.kind.as_str(),
            message: alarm.message.clone(),
        });
        let _ = RAISED.try_with(|raised| {
            if let Some(raised) = &mut *raised.borrow_mut() {
                raised.extend(untold.take());
            }
        });
        if let Some(untold) = untold {
            untold.tell_elsewhere();
        }
    }
}

/// Has the panics of this library, which has a standard library of its own, logged in place of printed.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.to_string();
        Untold { listener: Arc::new(None), kind: "defect", message }.tell_elsewhere();
    }));
}

/// Calls the core, released from the interpreter, and then tells the alarms that it has raised.
pub(crate) fn released<T: Send>(py: Python<'_>, call: impl FnOnce() -> T + Send) -> PyResult<T> {
    let (result, raised) = py.detach(|| {
        let _ = RAISED.try_with(|raised| raised.replace(Some(Vec::new())));
        let result = panic::catch_unwind(AssertUnwindSafe(call));
        (result.map_err(drop), RAISED.try_with(RefCell::take))
    });
    let mut untold = raised.ok().flatten().unwrap_or_default();
    if NEXT_CALL_TELLS.swap(false, Ordering::Acquire) {
        let mut waiting = FOR_THE_NEXT_CALL.lock().unwrap_or_else(PoisonError::into_inner);
        untold.append(&mut mem::take(&mut *waiting));
    }
    for each in untold {
        each.tell(py);
    }
    result.map_err(|()| PyRuntimeError::new_err("a defect of dodo_ingestion: the log says which"))
}
