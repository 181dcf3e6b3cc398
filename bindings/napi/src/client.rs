//! The client, the hot path and receipts.

use std::collections::BTreeMap;

use dodo_ingestion::{Builder, Event, Ingestion, MetadataValue, OptionValue, Receipt, TimeUnit};
use napi::Status;
use napi::bindgen_prelude::{External, FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use serde_json::Value;

use crate::error::{Code, Result, duration, thrown, unconvertible};
use crate::wait::{Pending, start};

type OnAlarm = ThreadsafeFunction<Telling, (), Telling, Status, false, true>;
type Telling = FnArgs<(String, String)>;

/// Opens a client. The first text is an object of options by the core's names, with lengths of time in
/// milliseconds, the second one of environment variables: a worker has its own. The listener does not keep the
/// process from exiting.
#[napi(catch_unwind)]
#[allow(clippy::needless_pass_by_value, reason = "Node-API hands a string over as its own")]
pub(crate) fn open(
    options: String,
    variables: String,
    #[napi(ts_arg_type = "(kind: string, message: string) => void")] on_alarm: Function<
        '_,
        Telling,
        (),
    >,
) -> Result<External<Ingestion>> {
    let options: BTreeMap<String, Value> = serde_json::from_str(&options)
        .map_err(|error| unconvertible("options", &error.to_string()))?;
    let variables: BTreeMap<String, String> = serde_json::from_str(&variables)
        .map_err(|error| unconvertible("environment variables", &error.to_string()))?;
    let tell: OnAlarm = on_alarm
        .build_threadsafe_function::<Telling>()
        .weak::<true>()
        .build()
        .map_err(|error| napi::Error::new(Code::from(error.status), error.reason.clone()))?;
    let mut builder = Builder::new().time_unit(TimeUnit::Milliseconds).on_alarm(move |alarm| {
        let telling = (alarm.kind.as_str().to_owned(), alarm.message.clone()).into();
        // A refusal means that the environment is shutting down.
        let _ = tell.call(telling, ThreadsafeFunctionCallMode::NonBlocking);
    });
    builder = builder.variables(variables);
    for (name, value) in options {
        let value = match value {
            Value::String(text) => OptionValue::Text(text),
            Value::Bool(flag) => OptionValue::Flag(flag),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => OptionValue::Integer(integer),
                (None, Some(number)) => OptionValue::Number(number),
                (None, None) => return Err(unconvertible(&name, "not a number")),
            },
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => {
                return Err(unconvertible(&name, "neither text nor a number nor a flag"));
            }
        };
        builder.set(&name, value).map_err(|error| thrown(&error))?;
    }
    builder.build().map(External::new).map_err(|error| thrown(&error))
}

/// An event of this client from its JSON. `unsupported_key` and `unsupported_type` name a metadata value
/// that JSON has no form for, so that the core refuses it in its own words.
pub(crate) fn event(
    client: &Ingestion,
    text: &str,
    unsupported_key: Option<String>,
    unsupported_type: Option<String>,
) -> dodo_ingestion::Result<Event> {
    let event = Event::from_json(text).inspect_err(|error| client.refuse(error.message()))?;
    Ok(match (unsupported_key, unsupported_type) {
        (Some(key), Some(what)) => event.metadata(key, MetadataValue::Unsupported(what)),
        _ => event,
    })
}

/// Counts and tells a call that could not be turned into text.
#[napi(catch_unwind)]
#[allow(clippy::needless_pass_by_value, reason = "Node-API hands a string over as its own")]
pub(crate) fn refuse(client: &External<Ingestion>, reason: String) {
    client.refuse(&reason);
}

/// Accepts one call and returns its receipt's ticket, as an object would have to be finalized. The
/// last two name a metadata value that JSON has no form for.
#[napi(catch_unwind)]
#[allow(clippy::needless_pass_by_value, reason = "Node-API hands a string over as its own")]
pub(crate) fn track(
    client: &External<Ingestion>,
    text: String,
    unsupported_key: Option<String>,
    unsupported_type: Option<String>,
) -> Result<String> {
    event(client, &text, unsupported_key, unsupported_type)
        .and_then(|event| client.track(event))
        .map(|receipt| receipt.ticket())
        .map_err(|error| thrown(&error))
}

fn receipt(client: &External<Ingestion>, ticket: &str) -> Result<Receipt> {
    client.receipt(ticket).map_err(|error| thrown(&error))
}

/// Makes everything accepted so far due and waits until it is settled.
#[napi(catch_unwind)]
pub(crate) fn flush(
    client: &External<Ingestion>,
    timeout: Option<f64>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let (core, limit) = (Ingestion::clone(client), limit(timeout)?);
    start(async move { core.flush(limit).await }, &wake)
}

/// Flushes and lets go. What is left stays spooled.
#[napi(catch_unwind)]
pub(crate) fn close(
    client: &External<Ingestion>,
    timeout: Option<f64>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let (core, limit) = (Ingestion::clone(client), limit(timeout)?);
    start(async move { core.close(limit).await }, &wake)
}

/// Flushes a client at the end of the program, for as long as its options allow.
#[napi(catch_unwind)]
pub(crate) fn flush_at_exit(
    client: &External<Ingestion>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let core = Ingestion::clone(client);
    start(async move { core.flush(core.exit_timeout()).await }, &wake)
}

/// Closes a client at the end of the program, for as long as its options allow.
#[napi(catch_unwind)]
pub(crate) fn close_at_exit(
    client: &External<Ingestion>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let core = Ingestion::clone(client);
    start(async move { core.close(core.exit_timeout()).await }, &wake)
}

/// Which of the provider's two environments a client bills.
#[napi(catch_unwind)]
pub(crate) fn environment(client: &External<Ingestion>) -> &'static str {
    client.environment().as_str()
}

/// Where a client's billing API is, without a slash at the end.
#[napi(catch_unwind)]
pub(crate) fn base_url(client: &External<Ingestion>) -> String {
    client.base_url()
}

/// What has happened so far: a JSON object of counts.
#[napi(catch_unwind)]
pub(crate) fn stats(client: &External<Ingestion>) -> Result<String> {
    serde_json::to_string(&client.stats())
        .map_err(|error| unconvertible("stats", &error.to_string()))
}

/// The idempotency key of an accepted call.
#[napi(catch_unwind)]
#[allow(clippy::needless_pass_by_value, reason = "Node-API hands a string over as its own")]
pub(crate) fn event_id(client: &External<Ingestion>, ticket: String) -> Result<String> {
    receipt(client, &ticket).map(|receipt| receipt.event_id().to_owned())
}

/// Waits until the billing API has acknowledged the call.
#[napi(catch_unwind)]
#[allow(clippy::needless_pass_by_value, reason = "Node-API hands a string over as its own")]
pub(crate) fn delivered(
    client: &External<Ingestion>,
    ticket: String,
    timeout: Option<f64>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let (core, limit) = (receipt(client, &ticket)?, limit(timeout)?);
    start(async move { core.delivered(limit).await }, &wake)
}

pub(crate) fn limit(timeout: Option<f64>) -> Result<Option<std::time::Duration>> {
    timeout.map(|timeout| duration("timeout", timeout)).transpose()
}
