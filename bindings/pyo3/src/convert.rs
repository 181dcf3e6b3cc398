//! Python values as the core's values.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use dodo_ingestion::{ErrorKind, Event, MetadataValue, OPTIONS, OptionValue, limits};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyMapping, PyString, PyTuple, PyTzInfo,
};

use crate::error::unconvertible;

/// The names of the options that the core takes.
pub(crate) fn option_names(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, OPTIONS.iter().map(|option| option.name))
}

/// One keyword argument of `Ingestion`, as it is, for the core to judge.
pub(crate) fn option_value(name: &str, value: &Bound<'_, PyAny>) -> PyResult<OptionValue> {
    let refused = |what: &str| {
        let message = format!("{name}: {what}");
        Err(unconvertible(value.py(), ErrorKind::Configuration, name, &message))
    };
    let text = |text: &Bound<'_, PyString>| match text.to_cow() {
        Ok(text) => Ok(OptionValue::Text(text.into_owned())),
        Err(_) => refused("a text with a lone surrogate"),
    };
    if let Ok(given) = value.cast::<PyString>() {
        return text(given);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(OptionValue::Flag(flag.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return match (value.extract(), value.extract()) {
            (Ok(integer), _) => Ok(OptionValue::Integer(integer)),
            (_, Ok(number)) => Ok(OptionValue::Number(number)),
            _ => refused("a number that is too large"),
        };
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(OptionValue::Number(value.extract()?));
    }
    if value.is_instance_of::<PyDelta>() {
        return Ok(OptionValue::Duration(duration(name, value)?));
    }
    let path = value.call_method0("__fspath__");
    if let Some(path) = path.as_ref().ok().and_then(|path| path.cast::<PyString>().ok()) {
        return text(path);
    }
    refused(&format!("a {} is not an option's value", type_name(value)))
}

/// Seconds as a number, or a `timedelta`.
pub(crate) fn duration(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = if value.is_instance_of::<PyDelta>() {
        value.call_method0("total_seconds").and_then(|seconds| seconds.extract()).ok()
    } else if value.is_instance_of::<PyBool>() {
        None
    } else {
        value.extract().ok()
    };
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        let shown = value.repr().map_or_else(|_| type_name(value), |repr| repr.to_string());
        let message = format!(
            "{name}: {shown} is neither a finite number of seconds, at least 0, nor a timedelta"
        );
        unconvertible(value.py(), ErrorKind::Configuration, name, &message)
    })
}

/// An optional timeout.
pub(crate) fn timeout(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| duration("timeout", value)).transpose()
}

/// The arguments of a track verb.
pub(crate) fn event(
    customer_id: &Bound<'_, PyAny>,
    metadata: Option<&Bound<'_, PyAny>>,
    event_id: Option<&Bound<'_, PyAny>>,
    event_name: Option<&Bound<'_, PyAny>>,
    timestamp: Option<&Bound<'_, PyAny>>,
) -> PyResult<Event> {
    let mut event = Event::new(text("customer_id", customer_id)?);
    if let Some(id) = event_id {
        event = event.event_id(text("event_id", id)?);
    }
    if let Some(name) = event_name {
        event = event.event_name(text("event_name", name)?);
    }
    if let Some(time) = timestamp {
        event = event.timestamp(system_time(time)?);
    }
    match metadata {
        None => Ok(event),
        Some(metadata) => with_metadata(event, metadata),
    }
}

pub(crate) fn text<'a>(field: &str, value: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    let Ok(text) = value.cast::<PyString>() else {
        let message = format!("{field}: a {} is not a str", type_name(value));
        return Err(invalid(value.py(), field, &message));
    };
    text.to_cow()
        .map_err(|_| invalid(value.py(), field, &format!("{field}: a str with a lone surrogate")))
}

/// A text cut to what a value of metadata may have; none that is no Unicode.
pub(crate) fn fitted(value: &Bound<'_, PyString>) -> Option<String> {
    value.to_cow().ok().map(|text| limits::cut_value(&text).to_owned())
}

/// An event with further pairs.
pub(crate) fn with_metadata(mut event: Event, metadata: &Bound<'_, PyAny>) -> PyResult<Event> {
    let mut read = 0;
    let items = if let Ok(dict) = metadata.cast::<PyDict>() {
        // A dict must not change under its iterator: from the first value on that is not simple, which
        // may run Python's code, a copy is read.
        for (key, value) in dict.iter() {
            match simple(&value) {
                Simple::Value(converted) => event = event.metadata(name(&key)?, converted),
                Simple::Nothing => drop(name(&key)?),
                Simple::Other => break,
            }
            read += 1;
        }
        if read == dict.len() {
            return Ok(event);
        }
        dict.items()
    } else if let Ok(mapping) = metadata.cast::<PyMapping>() {
        mapping.items()?
    } else {
        let message = format!("metadata: a {} is not a mapping", type_name(metadata));
        return Err(invalid(metadata.py(), "metadata", &message));
    };
    for item in items.iter().skip(read) {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        let name = name(&key)?;
        let converted = match simple(&value) {
            Simple::Value(converted) => Some(converted),
            Simple::Nothing => None,
            Simple::Other => made_simple(&value)?,
        };
        if let Some(converted) = converted {
            event = event.metadata(name, converted);
        }
    }
    Ok(event)
}

/// The key of a metadata pair.
fn name<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    key.cast::<PyString>().ok().and_then(|key| key.to_cow().ok()).ok_or_else(|| {
        let shown = key.repr().map_or_else(|_| type_name(key), |repr| repr.to_string());
        let message = format!("metadata: the key {shown} is not a string of Unicode characters");
        invalid(key.py(), "metadata", &message)
    })
}

/// What a metadata value is to JSON.
enum Simple {
    Value(MetadataValue),
    Nothing,
    Other,
}

/// A value that JSON has, or one of a subclass of its type. Runs no code of Python's.
fn simple(value: &Bound<'_, PyAny>) -> Simple {
    // By how often they are seen. A bool is an int to Python, so it goes before.
    let converted = if let Ok(text) = value.cast::<PyString>() {
        text.to_cow().ok().map(|text| MetadataValue::String(text.into_owned()))
    } else if let Ok(flag) = value.cast::<PyBool>() {
        Some(MetadataValue::Boolean(flag.is_true()))
    } else if value.is_instance_of::<PyInt>() {
        value.extract::<i64>().ok().map(MetadataValue::from)
    } else if value.is_instance_of::<PyFloat>() {
        value.extract().ok().map(MetadataValue::Double)
    } else if value.is_none() {
        return Simple::Nothing;
    } else {
        None
    };
    converted.map_or(Simple::Other, Simple::Value)
}

/// A value of one of JSON's types that JSON does not take. The core says why.
fn unfit(value: &Bound<'_, PyAny>) -> Option<MetadataValue> {
    let unsupported = |what: &str| MetadataValue::Unsupported(what.to_owned());
    if value.is_instance_of::<PyString>() {
        return Some(unsupported("string with a lone surrogate"));
    }
    value.is_instance_of::<PyInt>().then(|| {
        let integer = value.extract().map(MetadataValue::Integer);
        integer.unwrap_or_else(|_| unsupported("integer of more than 128 bits"))
    })
}

/// A value that is not simple, as one that is. `None` where it stands for nothing.
fn made_simple(value: &Bound<'_, PyAny>) -> PyResult<Option<MetadataValue>> {
    static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    if let Some(unfit) = unfit(value) {
        return Ok(Some(unfit));
    }
    let plain = match PLAIN.import(py, "dodo_ingestion._metadata", "plain")?.call1((value,)) {
        Ok(plain) => plain,
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            return Ok(Some(MetadataValue::Unsupported(error.value(py).to_string())));
        }
        Err(error) => return Err(error),
    };
    Ok(match simple(&plain) {
        Simple::Value(converted) => Some(converted),
        Simple::Nothing => None,
        Simple::Other => {
            Some(unfit(&plain).unwrap_or_else(|| MetadataValue::Unsupported(type_name(value))))
        }
    })
}

fn system_time(value: &Bound<'_, PyAny>) -> PyResult<SystemTime> {
    static EPOCH: PyOnceLock<Py<PyDateTime>> = PyOnceLock::new();
    let py = value.py();
    if !value.is_instance_of::<PyDateTime>() {
        let message = format!("timestamp: a {} is not a datetime", type_name(value));
        return Err(invalid(py, "timestamp", &message));
    }
    let epoch = EPOCH.get_or_try_init(py, || {
        let utc = PyTzInfo::utc(py)?;
        PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc)).map(Bound::unbind)
    })?;
    // Not the difference of a subclass, which may be anything.
    let difference = py.get_type::<PyDateTime>().call_method1("__sub__", (value, epoch));
    let since = difference.map_err(|_| {
        let message =
            "timestamp: a datetime without a time zone is ambiguous; give it one, such as timezone.utc";
        invalid(py, "timestamp", message)
    })?;
    let since: Duration = since
        .extract()
        .map_err(|_| invalid(py, "timestamp", "timestamp: a datetime before 1970"))?;
    // A datetime ends with the year 9999, which every platform's clock can hold.
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .ok_or_else(|| invalid(py, "timestamp", "timestamp: out of the clock's range"))
}

fn invalid(py: Python<'_>, field: &str, message: &str) -> PyErr {
    unconvertible(py, ErrorKind::Validation, field, message)
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "value".to_owned(), |name| name.to_string())
}
