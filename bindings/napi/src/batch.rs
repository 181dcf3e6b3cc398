//! Batches.

use dodo_ingestion::{Batch, BatchConfig, Ingestion};
use napi::Env;
use napi::bindgen_prelude::{External, FnArgs, Function};
use napi_derive::napi;

use crate::client::{event, limit};
use crate::error::{Result, duration, thrown, unconvertible};
use crate::wait::{Pending, start};

/// Opens a batch.
#[napi(catch_unwind)]
pub(crate) fn open_batch(
    client: &External<Ingestion>,
    max_size: Option<f64>,
    flush_interval: Option<f64>,
) -> Result<External<Batch>> {
    let mut config = BatchConfig::default();
    if let Some(size) = max_size {
        if size.fract() != 0.0 || size < 0.0 {
            return Err(unconvertible("max_size", &format!("{size} is not a number of calls")));
        }
        config.max_size = size as usize;
    }
    if let Some(interval) = flush_interval {
        config.flush_interval = duration("flush_interval", interval)?;
    }
    client.create_batch(config).map(External::new).map_err(|error| thrown(&error))
}

/// An event's JSON, and the key and the type of a metadata value that JSON has no form for.
type Encoded = FnArgs<(String, Option<String>, Option<String>)>;

/// A function that accepts one call of the batch. Its last two arguments name a metadata value that JSON has no form
/// for. It is the batch's own, as a batch that is an argument would be looked into each time.
#[napi(
    catch_unwind,
    ts_return_type = "(text: string, unsupportedKey?: string, unsupportedType?: string) => void"
)]
pub(crate) fn adder<'env>(
    env: &'env Env,
    batch: &External<Batch>,
) -> napi::Result<Function<'env, Encoded, ()>> {
    let batch = Batch::clone(batch);
    env.create_function_from_closure("add", move |context| {
        let text: String = context.get(0)?;
        event(batch.ingestion(), &text, context.get(1)?, context.get(2)?)
            .and_then(|event| batch.add(event))
            .map_err(|error| thrown(&error))
            .or_else(|error| context.env.throw_error(&error.reason, Some(error.status.as_ref())))
    })
}

/// Makes everything accepted so far due and waits until it is settled.
#[napi(catch_unwind)]
pub(crate) fn flush_batch(
    batch: &External<Batch>,
    timeout: Option<f64>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let (core, limit) = (Batch::clone(batch), limit(timeout)?);
    start(async move { core.flush(limit).await }, &wake)
}

/// Flushes and ends the batch. What is left stays spooled.
#[napi(catch_unwind)]
pub(crate) fn cleanup_batch(
    batch: &External<Batch>,
    timeout: Option<f64>,
    wake: Function<'_, (), ()>,
) -> Result<External<Pending>> {
    let (core, limit) = (Batch::clone(batch), limit(timeout)?);
    start(async move { core.cleanup(limit).await }, &wake)
}
