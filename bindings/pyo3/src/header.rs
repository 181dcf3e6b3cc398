//! Whose call it is, by a header of its request.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods, PyList, PyString, PyTuple};

/// Find the customer whom a header names.
///
/// Args:
///     values: All the values that the request has for it. More than one name nobody, nor does one with a
///         comma, which is how some servers write the same: one of the two may be the client's own word.
#[pyfunction]
#[pyo3(signature = (values, /))]
pub(crate) fn customer_in_header<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyList>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    let values: Vec<Bound<'py, PyString>> = values.extract()?;
    // What has a lone surrogate is not ASCII either way.
    let texts: Vec<Cow<'_, str>> = values.iter().map(|value| value.to_string_lossy()).collect();
    let customer = dodo_ingestion::customer_in_header(texts.iter().map(|text| text.as_bytes()));
    Ok(customer.map(|customer| PyString::new(py, customer)))
}

/// Find the customer whom a header of ASGI names.
///
/// Args:
///     headers: The headers of the scope: pairs of a name and a value.
///     name: The name of the header, in lower case.
#[pyfunction]
#[pyo3(signature = (headers, name, /))]
pub(crate) fn customer_in_asgi_headers<'py>(
    headers: &Bound<'py, PyAny>,
    name: &[u8],
) -> PyResult<Option<Bound<'py, PyString>>> {
    let mut values = Vec::new();
    for header in headers.try_iter()? {
        let header = header?;
        if part(&header, 0)?.as_bytes() == name {
            values.push(part(&header, 1)?);
        }
    }
    let customer = dodo_ingestion::customer_in_header(values.iter().map(PyBytesMethods::as_bytes));
    Ok(customer.map(|customer| PyString::new(headers.py(), customer)))
}

fn part<'py>(header: &Bound<'py, PyAny>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
    let part = match header.cast::<PyTuple>() {
        Ok(pair) => pair.get_item(index)?,
        Err(_) => header.get_item(index)?,
    };
    Ok(part.cast_into()?)
}
