//! Batches.

use dodo_ingestion::{Batch, BatchConfig, Ingestion};
use napi::bindgen_prelude::{External, Function};
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

/// Accepts one call. The last two name a metadata value that JSON has no form for.
#[napi(catch_unwind)]
#[allow(clippy::needless_pass_by_value, reason = "Node-API hands a string over as its own")]
pub(crate) fn add(
    batch: &External<Batch>,
    text: String,
    unsupported_key: Option<String>,
    unsupported_type: Option<String>,
) -> Result<()> {
    event(batch.ingestion(), &text, unsupported_key, unsupported_type)
        .and_then(|event| batch.add(event))
        .map_err(|error| thrown(&error))
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
