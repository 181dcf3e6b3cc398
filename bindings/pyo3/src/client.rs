//! `Ingestion` and the hot path.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;
use std::time::Duration;

use dodo_ingestion::{ApiCall, Builder, ErrorKind, Event, OPTIONS, OptionValue};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::alarm::{self, held, released};
use crate::convert::{event, fitted, option_value, text, timeout, with_metadata};
use crate::error::{is_ours, raise, refuse_unknown, unconvertible};
use crate::exit::{self, Open, open};
use crate::receipt::Receipt;
use crate::wait::{Wait, awaited, block, enter_async, leave, leave_async, park};

/// The keywords of a call.
pub(crate) const CALL: &[&str] =
    &["customer_id", "metadata", "event_id", "event_name", "timestamp"];

/// A client of the billing API: accepts calls in microseconds and delivers them in batches.
///
/// Options are keyword arguments; one that is not given is read from its environment variable, and has
/// its default without one. `api_key` and `event_name` have to be given, in either way. The others, with
/// their limits: docs/configuration.md in the repository.
///
/// Args:
///     on_alarm: Called with an alarm's kind and message, on any thread. Without it alarms are
///         warnings of the logger `dodo_ingestion`.
///
/// Raises:
///     ConfigurationError: An option is unknown, missing or out of range.
///     StorageError: `durability` is "disk" and there is none.
///
/// `with` and `async with` close the client at their end; if the block was left by an exception, for at
/// most `exit_timeout`, and with what went wrong in the log. The end of the program closes it too.
#[pyclass(frozen, module = "dodo_ingestion._native")]
pub(crate) struct Ingestion {
    pub(crate) core: dodo_ingestion::Ingestion,
    _open: Open,
}

impl Ingestion {
    fn flushing(&self, limit: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
        let (core, limit) = (self.core.clone(), timeout(limit)?);
        Ok(Box::pin(async move { core.flush(limit).await }))
    }

    fn closing(&self, limit: Option<Duration>) -> Wait {
        let core = self.core.clone();
        Box::pin(async move { core.close(limit).await })
    }

    /// How the client is closed at the end of a block that has failed, or has not.
    fn leaving(&self, failed: bool) -> Wait {
        self.closing(failed.then(|| self.core.exit_timeout()))
    }
}

#[pymethods]
impl Ingestion {
    #[new]
    #[pyo3(signature = (*, on_alarm=None, **options))]
    fn new(
        py: Python<'_>,
        on_alarm: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        if on_alarm.as_ref().is_some_and(|listener| !listener.bind(py).is_callable()) {
            let message = "on_alarm: cannot be called";
            return Err(unconvertible(py, ErrorKind::Configuration, "on_alarm", message));
        }
        if on_alarm.as_ref().is_some_and(|listener| is_async(listener.bind(py))) {
            let message = "on_alarm: is async, and nothing awaits it; give it a plain function";
            return Err(unconvertible(py, ErrorKind::Configuration, "on_alarm", message));
        }
        let mut builder = Builder::new().on_alarm(alarm::callback(on_alarm));
        for option in options.iter().flat_map(|options| options.items()) {
            let (name, value): (Bound<'_, PyString>, Bound<'_, PyAny>) = option.extract()?;
            let name = name.to_string_lossy();
            let value = match OPTIONS.iter().find(|option| option.name == name) {
                Some(_) if value.is_none() => continue,
                Some(_) => option_value(&name, &value)?,
                None => OptionValue::Flag(true), // refused for its name
            };
            builder.set(&name, value).map_err(|error| raise(py, &error))?;
        }
        let core = released(py, || builder.build())?.map_err(|error| raise(py, &error))?;
        Ok(Self { _open: open(&core), core })
    }

    /// Accept one call. The same as the function `track_api_call`.
    #[pyo3(
        signature = (*, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None, **unknown),
        text_signature = "($self, *, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "one for each keyword")]
    fn track(
        this: &Bound<'_, Self>,
        py: Python<'_>,
        customer_id: &Bound<'_, PyAny>,
        metadata: Option<&Bound<'_, PyAny>>,
        event_id: Option<&Bound<'_, PyAny>>,
        event_name: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        unknown: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Receipt> {
        track_api_call(py, this, customer_id, metadata, event_id, event_name, timestamp, unknown)
    }

    /// Make everything that this process has accepted on this account due, and block until it is settled:
    /// billed, or set aside with the API's words. Ctrl-C interrupts it. What was left by clients that are all
    /// closed is billed as well, and not waited for.
    ///
    /// Args:
    ///     timeout: Seconds, or a timedelta; 30 s by default.
    ///
    /// Raises:
    ///     IngestionTimeoutError: The time was over first. The calls stay spooled.
    ///     AuthenticationError: The same, and the API refuses the key.
    ///     NetworkError: The same, and the API cannot be reached.
    ///     StorageError: The disk failed.
    ///     ClosedError: The client is closed.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        block(py, self.flushing(timeout)?)
    }

    /// Await what `flush` blocks for, under asyncio, trio or anyio.
    #[pyo3(signature = (timeout=None))]
    fn aflush<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaited(py, self.flushing(timeout)?)
    }

    /// Flush, and let go. Calls that come meanwhile are accepted; what is not billed in time stays spooled for the
    /// next process of the account. Closing twice is no error.
    ///
    /// Arguments and exceptions are those of `flush`; the client is closed also if one is raised.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        block(py, self.closing(self::timeout(timeout)?))
    }

    /// Await what `close` blocks for, under asyncio, trio or anyio. Cancelled before its
    /// flush is over, it leaves the client open.
    #[pyo3(signature = (timeout=None))]
    fn aclose<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaited(py, self.closing(self::timeout(timeout)?))
    }

    /// How long the end of the program waits for what is not billed yet, in seconds.
    #[getter]
    fn exit_timeout(&self) -> f64 {
        self.core.exit_timeout().as_secs_f64()
    }

    /// What this process's clients of the account have done so far, since all that
    /// were there before were closed: counts by name, such as `accepted`,
    /// `billed`, `spooled`, `dead_lettered`, `invalid` and `overflowed`.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        let counts = released(py, || serde_json::to_value(self.core.stats()))?;
        if let Ok(serde_json::Value::Object(counts)) = counts {
            for (name, count) in &counts {
                stats.set_item(name, count.as_u64())?;
            }
        }
        Ok(stats)
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (kind=None, *_details))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyAny>>,
        _details: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        leave(py, self.leaving(kind.is_some()), kind.is_some())
    }

    fn __aenter__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        enter_async(this)
    }

    #[pyo3(signature = (kind=None, *_details))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        kind: Option<&Bound<'py, PyAny>>,
        _details: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        leave_async(py, self.leaving(kind.is_some()), kind.is_some())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.core)
    }
}

/// Accept one API call for billing, in microseconds. The network is not waited for.
///
/// Args:
///     ingestion: The client.
///     customer_id: The customer who is billed: 1 to 255 characters.
///     metadata: At most 50 pairs. A key has at most 100 characters. A value is a str of at most 500
///         characters, an int of 64 bits, a finite float, or a bool; of an Enum its value; a Decimal is
///         the float of its digits, a UUID, a datetime and a date are text, a numpy scalar is what it
///         holds. A pair with None is left out.
///     event_id: The caller's own idempotency key, 1 to 255 characters: the API counts an id once, however
///         often it comes. Made if not given.
///     event_name: Another event name than the client's, 1 to 255 characters.
///     timestamp: When it happened: a datetime with a time zone, at most an hour ago and five minutes
///         ahead. Now if not given.
///
/// Returns:
///     The receipt. It can be dropped, or waited for.
///
/// Raises:
///     ValidationError: The call breaks a limit; `field` says where.
///     IngestionOverflowError: The spool is full.
///     StorageError: The disk failed.
///     ClosedError: The client is closed.
#[pyfunction]
#[pyo3(
    signature = (ingestion, *, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None, **unknown),
    text_signature = "(ingestion, *, customer_id, metadata=None, event_id=None, event_name=None, timestamp=None)"
)]
#[expect(clippy::too_many_arguments, reason = "one for each keyword")]
pub(crate) fn track_api_call(
    py: Python<'_>,
    ingestion: &Bound<'_, Ingestion>,
    customer_id: &Bound<'_, PyAny>,
    metadata: Option<&Bound<'_, PyAny>>,
    event_id: Option<&Bound<'_, PyAny>>,
    event_name: Option<&Bound<'_, PyAny>>,
    timestamp: Option<&Bound<'_, PyAny>>,
    unknown: Option<&Bound<'_, PyDict>>,
) -> PyResult<Receipt> {
    refuse_unknown("track_api_call", unknown, CALL)?;
    let core = &ingestion.get().core;
    let event = event(customer_id, metadata, event_id, event_name, timestamp);
    let event = counted(py, core, event)?;
    let core = accepted(py, || core.try_track(&event), || core.track(event.clone()))?;
    Ok(Receipt { core })
}

/// Has the core accept a call: `at_once`, or else it is waited for.
///
/// The interpreter is only released for the wait. A thread that lets go of it where others compute gets it
/// back when the next of them has had its five milliseconds, which is a thousand times what a call takes.
pub(crate) fn accepted<T: Send>(
    py: Python<'_>,
    at_once: impl FnOnce() -> Option<dodo_ingestion::Result<T>>,
    wait: impl FnOnce() -> dodo_ingestion::Result<T> + Send,
) -> PyResult<T> {
    let result = match held(py, at_once)? {
        Some(result) => result,
        None => released(py, wait)?,
    };
    result.map_err(|error| raise(py, &error))
}

/// What is measured of each call: its endpoint, method, status code, response time and time to the first byte in
/// seconds, bytes of the response, and whether it was aborted.
type Fields<'py> = (
    Option<Bound<'py, PyString>>,
    Bound<'py, PyString>,
    Option<u16>,
    f64,
    Option<f64>,
    Option<u64>,
    Option<bool>,
);

/// Accept one API call by its fields, for a middleware, which wants no receipt.
///
/// Args:
///     ingestion: The client.
///     customer_id: The customer who is billed.
///     event_name: Another event name than the client's.
///     fields: The endpoint and the method, which are cut to what a value of metadata may have; the status
///         code, the response time and the time to the first byte in seconds, the bytes of the response,
///         and whether it was aborted.
///     metadata: What there is beside the fields, if anything.
///
/// Returns:
///     Which of endpoint and method was left out, if one was: it is no Unicode text.
///
/// Exceptions are those of `track_api_call`.
#[pyfunction]
#[pyo3(signature = (ingestion, customer_id, event_name, fields, metadata, /))]
pub(crate) fn accept_api_call(
    py: Python<'_>,
    ingestion: &Bound<'_, Ingestion>,
    customer_id: &Bound<'_, PyAny>,
    event_name: Option<&Bound<'_, PyAny>>,
    fields: Fields<'_>,
    metadata: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<&'static str>> {
    let core = &ingestion.get().core;
    let (endpoint, method, status, response_time, ttfb, bytes, aborted) = fields;
    let (template, verb) = (endpoint.as_ref().and_then(fitted), fitted(&method));
    let left_out = match (&template, &verb) {
        (None, _) if endpoint.is_some() => Some("endpoint"),
        (_, None) => Some("method"),
        _ => None,
    };
    let time = |seconds: f64| Duration::from_nanos((seconds * 1e9) as u64);
    let event = || {
        let mut call = ApiCall::new(text("customer_id", customer_id)?);
        if let Some(name) = event_name {
            call = call.event_name(text("event_name", name)?);
        }
        if let Some(template) = template {
            call = call.endpoint(template);
        }
        if let Some(verb) = verb {
            call = call.method(verb);
        }
        if let Some(status) = status {
            call = call.status_code(status);
        }
        call = call.response_time(time(response_time));
        if let Some(ttfb) = ttfb {
            call = call.ttfb(time(ttfb));
        }
        if let Some(bytes) = bytes {
            call = call.response_bytes(bytes);
        }
        if let Some(aborted) = aborted {
            call = call.aborted(aborted);
        }
        match metadata {
            None => Ok(call.into()),
            Some(metadata) => with_metadata(call.into(), metadata),
        }
    };
    let event = counted(py, core, event())?;
    accepted(py, || core.try_track(&event), || core.track(event.clone()))?;
    Ok(left_out)
}

fn is_async(listener: &Bound<'_, PyAny>) -> bool {
    let options = PyModule::import(listener.py(), "dodo_ingestion._options");
    let asked = options.and_then(|options| options.call_method1("is_async", (listener,)));
    asked.and_then(|answer| answer.extract()).unwrap_or(false)
}

/// Count and tell a call that could not be made an event of.
#[pyfunction]
pub(crate) fn refuse(
    py: Python<'_>,
    ingestion: &Bound<'_, Ingestion>,
    reason: &str,
) -> PyResult<()> {
    let core = &ingestion.get().core;
    released(py, || core.refuse(reason))
}

/// An event, or why there is none, which is counted and told.
pub(crate) fn counted(
    py: Python<'_>,
    core: &dodo_ingestion::Ingestion,
    event: PyResult<Event>,
) -> PyResult<Event> {
    if let Err(error) = &event
        && is_ours(py, error)
    {
        // Its `str` is that of any exception, which runs no code of Python's.
        let reason = error.value(py).to_string();
        released(py, || core.refuse(&reason))?;
    }
    event
}

/// Close the clients that are still open, all at once, each for as long as its options allow, and tell no
/// alarms after that. Returns what went wrong.
#[pyfunction]
pub(crate) fn close_at_exit(py: Python<'_>) -> PyResult<Vec<String>> {
    let close = |core: dodo_ingestion::Ingestion| -> Wait {
        let limit = core.exit_timeout();
        Box::pin(async move { core.close(limit).await })
    };
    let mut open: Vec<Wait> = exit::still_open().into_iter().map(close).collect();
    let mut failures = Vec::new();
    let all = poll_fn(move |context| {
        open.retain_mut(|close| match close.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                failures.extend(ended.err().map(|error| error.message().to_owned()));
                false
            }
        });
        if open.is_empty() { Poll::Ready(mem::take(&mut failures)) } else { Poll::Pending }
    });
    let closed = park(py, Box::pin(all));
    alarm::end(py)?;
    closed
}
