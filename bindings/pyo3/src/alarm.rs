//! The core's alarms, told to the host.
//!
//! The host's listener may do anything: wait for a lock that a greenlet holds, write to a socket, call
//! the core. So it is called where nobody waits for its end:
//!
//! - An alarm that a call into the core raises on the main thread is told there, after the call
//!   ([`held`]).
//! - One of another thread, the core's own or a caller's, is told by a thread of Python's that does
//!   nothing else. A notifier, which is a thread of ours, starts that: the core's threads do not wait for
//!   the interpreter, and a caller may be a daemon thread, which the end of the program ends.
//! - Under gevent and eventlet it is told after the call that raises it, or after the next call into the core,
//!   whichever that is: the locks of greenlets, such as those of `logging`, cannot be waited for on another thread.
//!   So it is where no thread can be started, as at a limit of processes.
//!
//! A child that was forked tells its own alarms only, and counts its own threads.
//!
//! It is not told while the interpreter shuts down: CPython ends the threads that want it then in the
//! middle of whatever they do, which is no harm in its own frames, and aborts the process in Rust's. So
//! the end of the program waits for the notifiers ([`end`]), and a notifier runs no code of Python's:
//! that might let go of the interpreter, and want it back when the alarm has been told.
//!
//! A panic, which is a defect of this library, is logged like an alarm.

use std::cell::RefCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dodo_ingestion::Alarm;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyCFunction;

/// So many alarms can be pending at a time. Where a listener does not return, further ones are only
/// counted.
const MOST_PENDING: u32 = 16;

/// How long the end of the program waits for listeners.
const PATIENCE: Duration = Duration::from_secs(1);

static LOG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static NOTIFYING: Notifying = Notifying(AtomicU64::new(0));
static ENDED: AtomicBool = AtomicBool::new(false);

/// Nobody waits for it: a child may find it locked by a thread that it does not have.
static FOR_THE_NEXT_CALL: Mutex<Vec<PendingAlarm>> = Mutex::new(Vec::new());
static NEXT_CALL_TELLS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What the call into the core has raised that this thread is in; `None` where it is in none.
    /// It may be gone: uWSGI ends Python from a C exit handler, after the main thread's locals.
    static RAISED: RefCell<Option<Vec<PendingAlarm>>> = const { RefCell::new(None) };
}

/// How many alarms are being told by threads, below the number of the process that they are of: a child
/// inherits the count, and none of the threads.
struct Notifying(AtomicU64);

impl Notifying {
    fn count(state: u64) -> u32 {
        let ours = state >> 32 == u64::from(process::id());
        // The lower half is the count.
        if ours { state as u32 } else { 0 }
    }

    /// Counts one more, if there may be.
    fn begin(&self) -> bool {
        let more = |state| {
            let count = Self::count(state);
            let process = u64::from(process::id()) << 32;
            (count < MOST_PENDING).then(|| process | u64::from(count + 1))
        };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    fn end(&self) {
        let fewer = |state| (Self::count(state) > 0).then(|| state - 1);
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
    }

    fn is_none(&self) -> bool {
        Self::count(self.0.load(Ordering::SeqCst)) == 0
    }
}

#[derive(Clone)]
struct PendingAlarm {
    listener: Arc<Option<Py<PyAny>>>,
    kind: &'static str,
    message: String,
    process: u32,
}

impl PendingAlarm {
    fn new(listener: Arc<Option<Py<PyAny>>>, kind: &'static str, message: String) -> Self {
        Self { listener, kind, message, process: process::id() }
    }

    fn listener<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &*self.listener {
            Some(listener) => Ok(listener.bind(py).clone()),
            None => LOG.import(py, "dodo_ingestion._alarm", "log").cloned(),
        }
    }

    fn tell(&self, py: Python<'_>) {
        static TELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let told = TELL
            .import(py, "dodo_ingestion._alarm", "tell")
            .and_then(|tell| tell.call1((self.listener(py)?, self.kind, &self.message)));
        if let Err(error) = told {
            error.write_unraisable(py, None);
        }
    }

    /// Has a notifier tell it, or the next call where no thread can be started.
    fn notify(self) {
        if !NOTIFYING.begin() {
            return;
        }
        let later = self.clone();
        let notify = move || {
            let begun = Python::try_attach(|py| {
                let begun =
                    starter_of_threads(py).is_some_and(|start| self.start_telling(&start).is_ok());
                if !begun {
                    self.tell_later();
                }
                begun
            });
            if begun != Some(true) {
                NOTIFYING.end();
            }
        };
        // The end of the program, which has counted by then, waits for whoever was in time.
        if ENDED.load(Ordering::SeqCst) {
            NOTIFYING.end();
        } else if thread::Builder::new().name("dodo-alarm".to_owned()).spawn(notify).is_err() {
            NOTIFYING.end();
            later.tell_later();
        }
    }

    /// Starts a thread of Python's that may take as long as it likes, and then calls [`told`]. Runs no code
    /// of Python's, and so does not let go of the interpreter meanwhile.
    fn start_telling(&self, start: &Bound<'_, PyAny>) -> PyResult<()> {
        static START_TELLING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = start.py();
        let telling = START_TELLING.import(py, "dodo_ingestion._alarm", "start_telling")?;
        start.call1((telling, (self.listener(py)?, self.kind, &self.message))).map(drop)
    }

    fn tell_later(self) {
        let Ok(mut waiting) = FOR_THE_NEXT_CALL.try_lock() else { return };
        waiting.retain(PendingAlarm::is_ours);
        if waiting.len() < MOST_PENDING as usize {
            waiting.push(self);
            NEXT_CALL_TELLS.store(true, Ordering::Release);
        }
    }

    fn is_ours(&self) -> bool {
        self.process == process::id()
    }
}

/// Take note that a thread of Python's has told an alarm.
#[pyfunction]
pub(crate) fn told() {
    NOTIFYING.end();
}

/// Tells the last alarms, and waits for those that are being told, though not for long.
pub(crate) fn end(py: Python<'_>) -> PyResult<()> {
    ENDED.store(true, Ordering::SeqCst);
    let started = Instant::now();
    while !NOTIFYING.is_none() && started.elapsed() < PATIENCE {
        py.detach(|| thread::sleep(Duration::from_millis(5)));
        py.check_signals()?;
    }
    // Those that were to be told after a call that never came.
    held(py, || ())
}

/// What starts a thread; `None` where it would be a greenlet. Runs no code of Python's.
fn starter_of_threads(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // Looked up each time: whoever brings greenlets may replace it at any time, by a function of Python's.
    let start = py.import("_thread").and_then(|module| module.getattr("start_new_thread")).ok()?;
    start.is_instance_of::<PyCFunction>().then_some(start)
}

/// Whether the end of the program does not end this thread. Runs no code of Python's.
fn is_main_thread(py: Python<'_>) -> bool {
    static MAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static IDENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let ident = IDENT.import(py, "threading", "get_ident").and_then(PyAnyMethods::call0);
    ident.is_ok_and(|ident| {
        MAIN.import(py, "dodo_ingestion._alarm", "MAIN_THREAD")
            .and_then(|main| main.eq(ident))
            .unwrap_or(false)
    })
}

/// Calls `listener` with the kind and the message, or logs them if there is none.
pub(crate) fn callback(listener: Option<Py<PyAny>>) -> impl Fn(&Alarm) + Send + Sync + 'static {
    let listener = Arc::new(listener);
    move |alarm| {
        let (listener, message) = (listener.clone(), alarm.message.clone());
        let mut pending = Some(PendingAlarm::new(listener, alarm.kind.as_str(), message));
        let _ = RAISED.try_with(|raised| {
            if let Some(raised) = &mut *raised.borrow_mut() {
                raised.extend(pending.take());
            }
        });
        if let Some(pending) = pending {
            pending.notify();
        }
    }
}

/// Has the panics of this library, which has a standard library of its own, logged in place of printed.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        PendingAlarm::new(Arc::new(None), "defect", panic.to_string()).notify();
    }));
}

/// Calls the core, released from the interpreter. See [`held`].
pub(crate) fn released<T: Send>(py: Python<'_>, call: impl FnOnce() -> T + Send) -> PyResult<T> {
    held(py, || py.detach(call))
}

/// Calls the core where it waits for nothing, and then tells the alarms that it has raised, or has them
/// told.
pub(crate) fn held<T>(py: Python<'_>, call: impl FnOnce() -> T) -> PyResult<T> {
    let _ = RAISED.try_with(|raised| raised.replace(Some(Vec::new())));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    let mut pending = RAISED.try_with(RefCell::take).ok().flatten().unwrap_or_default();
    if NEXT_CALL_TELLS.swap(false, Ordering::Acquire) {
        match FOR_THE_NEXT_CALL.try_lock() {
            Ok(mut waiting) => pending.append(&mut mem::take(&mut *waiting)),
            Err(_) => NEXT_CALL_TELLS.store(true, Ordering::Release),
        }
    }
    if !pending.is_empty() {
        let here = starter_of_threads(py).is_none() || is_main_thread(py);
        for each in pending.into_iter().filter(PendingAlarm::is_ours) {
            if here { each.tell(py) } else { each.notify() }
        }
    }
    result.map_err(|_| PyRuntimeError::new_err("a defect of dodo_ingestion: the log says which"))
}
