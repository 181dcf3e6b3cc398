//! API calls, handed over in one piece of memory.
//!
//! Node-API is asked one to three times for each value that crosses, and what it runs for that a server that does
//! other things between two calls has to fetch from memory each time. Of a record it is asked once.
//!
//! A record is nine numbers, and text behind them. The numbers are doubles in the machine's own byte order, `NaN`
//! where there is none: the response time, the time to its first byte, its size, its status, 1 if it came to no end,
//! and how many bytes of the text are the customer's id, the event name, the endpoint and the method.

use std::time::Duration;

use dodo_ingestion::{ApiCall, Ingestion};
use napi::Env;
use napi::bindgen_prelude::{External, Function, Uint8ArraySlice};
use napi_derive::napi;

use crate::error::{thrown, unconvertible};

const NUMBERS: usize = 9;
const NUMBER_BYTES: usize = size_of::<f64>();

/// A function that accepts the API call of a record, of which nobody wants a receipt. It is one of this client's own,
/// as a client that is an argument costs more to look into than all the rest of it.
#[napi(catch_unwind, ts_return_type = "(record: Uint8Array) => void")]
pub(crate) fn acceptor<'env>(
    env: &'env Env,
    client: &External<Ingestion>,
) -> napi::Result<Function<'env, Uint8ArraySlice<'env>, ()>> {
    let client = Ingestion::clone(client);
    env.create_function_from_closure("accept", move |context| {
        let accepted = match read(context.get(0)?) {
            Some(call) => client.track_api_call(call).map(drop).map_err(|error| thrown(&error)),
            None => Err(unconvertible("record", "ends before its text does, or is not text")),
        };
        accepted
            .or_else(|error| context.env.throw_error(&error.reason, Some(error.status.as_ref())))
    })
}

fn read(record: &[u8]) -> Option<ApiCall> {
    let (numbers, mut texts) = record.split_at_checked(NUMBERS * NUMBER_BYTES)?;
    let mut number = [f64::NAN; NUMBERS];
    for (number, bytes) in number.iter_mut().zip(numbers.as_chunks().0) {
        *number = f64::from_ne_bytes(*bytes);
    }
    let [response_time, ttfb, response_bytes, status, aborted, lengths @ ..] = number;
    let mut text = [None; 4];
    for (text, length) in text.iter_mut().zip(lengths).filter(|(_, length)| !length.is_nan()) {
        let (bytes, rest) = texts.split_at_checked(length as usize)?;
        texts = rest;
        *text = Some(str::from_utf8(bytes).ok()?);
    }
    let [customer, event_name, endpoint, method] = text;
    let time = |milliseconds: f64| Duration::from_nanos((milliseconds * 1e6) as u64);

    let mut call = ApiCall::new(customer?);
    if let Some(name) = event_name {
        call = call.event_name(name);
    }
    if let Some(template) = endpoint {
        call = call.endpoint(template);
    }
    call = call.method(method?);
    if !status.is_nan() {
        call = call.status_code(status as u16);
    }
    call = call.response_time(time(response_time));
    if !ttfb.is_nan() {
        call = call.ttfb(time(ttfb));
    }
    if !response_bytes.is_nan() {
        call = call.response_bytes(response_bytes as u64);
    }
    if !aborted.is_nan() {
        call = call.aborted(true);
    }
    Some(call)
}
