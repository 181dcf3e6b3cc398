//! Waiting for the core.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use dodo_ingestion::Error;
use napi::Status;
use napi::bindgen_prelude::{External, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use crate::error::{Code, Result, thrown};

type Callback = ThreadsafeFunction<(), (), (), Status, false>;

/// Asks the JavaScript thread to poll again. While it lives, it keeps the process from exiting.
struct Waiting(Callback);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A refusal means that the environment is shutting down, and that nobody waits any more.
        let _ = self.0.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// A wait that has not ended.
pub(crate) struct Pending {
    // `None` once it is over or given up, so that the process is let go then and not when this is
    // collected.
    wait: Mutex<Option<(Wait, Waker)>>,
}

type Wait = Pin<Box<dyn Future<Output = std::result::Result<(), Error>> + Send>>;

/// Starts a wait. `wake` is called on the JavaScript thread whenever it is worth polling.
pub(crate) fn start(
    wait: impl Future<Output = std::result::Result<(), Error>> + Send + 'static,
    wake: &Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let callback = wake
        .build_threadsafe_function::<()>()
        .build()
        .map_err(|error| napi::Error::new(Code::from(error.status), error.reason.clone()))?;
    let waker = Waker::from(Arc::new(Waiting(callback)));
    Ok(External::new(Pending { wait: Mutex::new(Some((Box::pin(wait), waker))) }))
}

/// Whether a wait is over; throws what it failed with, once.
#[napi(catch_unwind)]
pub(crate) fn poll(pending: &External<Pending>) -> Result<bool> {
    let mut wait = pending.wait.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((future, waker)) = wait.as_mut() else { return Ok(true) };
    match future.as_mut().poll(&mut Context::from_waker(waker)) {
        Poll::Pending => Ok(false),
        Poll::Ready(result) => {
            *wait = None;
            result.map(|()| true).map_err(|error| thrown(&error))
        }
    }
}

/// Gives a wait up. What was waited for goes on without it.
#[napi(catch_unwind)]
pub(crate) fn cancel(pending: &External<Pending>) {
    *pending.wait.lock().unwrap_or_else(PoisonError::into_inner) = None;
}
