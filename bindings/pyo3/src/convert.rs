//! Python values as the core's values.

use std::time::{Duration, SystemTime};

use dodo_ingestion::{ErrorKind, Event, MetadataValue, OPTIONS, OptionValue};
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
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(OptionValue::Text(text.to_cow()?.into_owned()));
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(OptionValue::Flag(flag.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(match value.extract::<i64>() {
            Ok(integer) => OptionValue::Integer(integer),
            Err(_) => OptionValue::Number(value.extract()?),
        });
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(OptionValue::Number(value.extract()?));
    }
    if value.is_instance_of::<PyDelta>() {
        return Ok(OptionValue::Duration(duration(name, value)?));
    }
    if let Ok(path) = value.call_method0("__fspath__") {
        return Ok(OptionValue::Text(path.extract()?));
    }
    let message = format!("{name}: a {} is not an option's value", type_name(value));
    Err(unconvertible(py, ErrorKind::Configuration, name, &message))
}

/// Seconds as a number, or a `timedelta`.
pub(crate) fn duration(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let converted = if value.is_instance_of::<PyDelta>() {
        value.extract::<Duration>().ok()
    } else if value.is_instance_of::<PyBool>() {
        None
    } else {
        value.extract::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    converted.ok_or_else(|| {
        let shown = value.repr().map_or_else(|_| type_name(value), |repr| repr.to_string());
        let message = format!("{name}: {shown} is neither seconds, at least 0, nor a timedelta");
        unconvertible(value.py(), ErrorKind::Configuration, name, &message)
    })
}

/// An optional timeout.
pub(crate) fn timeout(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| duration("timeout", value)).transpose()
}

/// The arguments of a track verb.
pub(crate) fn event(
    customer_id: &str,
    metadata: Option<&Bound<'_, PyAny>>,
    event_id: Option<&str>,
    event_name: Option<&str>,
    timestamp: Option<&Bound<'_, PyAny>>,
) -> PyResult<Event> {
    let mut event = Event::new(customer_id);
    if let Some(id) = event_id {
        event = event.event_id(id);
    }
    if let Some(name) = event_name {
        event = event.event_name(name);
    }
    if let Some(time) = timestamp {
        event = event.timestamp(system_time(time)?);
    }
    match metadata {
        None => Ok(event),
        Some(metadata) => with_metadata(event, metadata),
    }
}

fn with_metadata(mut event: Event, metadata: &Bound<'_, PyAny>) -> PyResult<Event> {
    if let Ok(dict) = metadata.cast::<PyDict>() {
        for (key, value) in dict {
            event = with_pair(event, &key, &value)?;
        }
        return Ok(event);
    }
    let Ok(mapping) = metadata.cast::<PyMapping>() else {
        let message = format!("metadata: a {} is not a mapping", type_name(metadata));
        return Err(invalid(metadata.py(), "metadata", &message));
    };
    for item in mapping.items()? {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        event = with_pair(event, &key, &value)?;
    }
    Ok(event)
}

fn with_pair(event: Event, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Event> {
    let Some(name) = key.cast::<PyString>().ok().and_then(|key| key.to_cow().ok()) else {
        let shown = key.repr().map_or_else(|_| type_name(key), |repr| repr.to_string());
        let message = format!("metadata: the key {shown} is not a string of Unicode characters");
        return Err(invalid(key.py(), "metadata", &message));
    };
    let converted = match simple(value)? {
        Simple::Value(converted) => converted,
        Simple::Nothing => return Ok(event),
        Simple::Other => match made_simple(value)? {
            Some(converted) => converted,
            None => return Ok(event),
        },
    };
    Ok(event.metadata(name, converted))
}

/// What a metadata value is to JSON.
enum Simple {
    Value(MetadataValue),
    Nothing,
    Other,
}

/// A value that JSON has, or one of a subclass of its type.
fn simple(value: &Bound<'_, PyAny>) -> PyResult<Simple> {
    // By how often they are seen. A bool is an int to Python, so it goes before.
    Ok(Simple::Value(if let Ok(text) = value.cast::<PyString>() {
        match text.to_cow() {
            Ok(text) => MetadataValue::String(text.into_owned()),
            Err(_) => MetadataValue::Unsupported("string with a lone surrogate".to_owned()),
        }
    } else if let Ok(flag) = value.cast::<PyBool>() {
        MetadataValue::Boolean(flag.is_true())
    } else if value.is_instance_of::<PyInt>() {
        match value.extract::<i64>() {
            Ok(integer) => integer.into(),
            // The core says what does not fit.
            Err(_) => value.extract().map_or_else(
                |_| MetadataValue::Unsupported("integer of more than 128 bits".to_owned()),
                MetadataValue::Integer,
            ),
        }
    } else if value.is_instance_of::<PyFloat>() {
        MetadataValue::Double(value.extract()?)
    } else if value.is_none() {
        return Ok(Simple::Nothing);
    } else {
        return Ok(Simple::Other);
    }))
}

/// A value that Python's own libraries have and JSON has not. `None` where it stands for nothing.
fn made_simple(value: &Bound<'_, PyAny>) -> PyResult<Option<MetadataValue>> {
    static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let plain = match PLAIN.import(py, "dodo_ingestion._metadata", "plain")?.call1((value,)) {
        Ok(plain) => plain,
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            return Ok(Some(MetadataValue::Unsupported(error.value(py).to_string())));
        }
        Err(error) => return Err(error),
    };
    Ok(match simple(&plain)? {
        Simple::Value(converted) => Some(converted),
        Simple::Nothing => None,
        Simple::Other => Some(MetadataValue::Unsupported(type_name(value))),
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
    let since = value.sub(epoch.bind(py)).map_err(|_| {
        invalid(py, "timestamp", "timestamp: a datetime without a time zone is ambiguous")
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
