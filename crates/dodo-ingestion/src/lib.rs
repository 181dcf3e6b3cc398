//! Usage metering for API gateways and web apps: each call becomes a billing event at the Dodo
//! Payments usage API. Events travel in batches and never slow the request down; none is lost, and
//! none is billed twice.
//!
//! ```no_run
//! use dodo_ingestion::{ApiCall, Ingestion};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), dodo_ingestion::Error> {
//! let ingestion = Ingestion::builder("").event_name("api_call").build()?; // key: DODO_PAYMENTS_API_KEY
//! ingestion.track_api_call(
//!     ApiCall::new("cus_1")
//!         .endpoint("/v1/users/{id}")
//!         .method("GET")
//!         .status_code(200)
//!         .response_time(Duration::from_millis(12)),
//! )?;
//! ingestion.blocking_close(None)
//! # }
//! ```
//!
//! # What a success means
//!
//! A track verb validates the call, appends it to this process's spool with one write, and returns.
//! That takes microseconds and never waits for the network. From then on the call is kept until the
//! billing API has acknowledged it, or has refused it for good and it is dead-lettered. A process
//! that is killed loses nothing: the next process of the same account delivers what it left.
//!
//! # How it is built
//!
//! `validate` checks and serialises an event, `spool` keeps it on disk, `delivery` decides what is
//! sent and what an answer means, `transport` speaks HTTP, and `engine` runs the one thread, which
//! carries out what `delivery` asks for. ARCHITECTURE.md in the repository has the picture, and the
//! order in which modules may depend on each other.

mod alarm;
mod batch;
mod clock;
mod config;
mod delivery;
mod disk;
mod engine;
mod error;
mod event;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod ingestion;
#[cfg(test)]
mod interleavings;
mod planted;
mod process;
mod receipt;
mod settlement;
mod shared;
#[cfg(test)]
mod simulation;
mod spool;
mod stats;
mod sync;
mod transport;
mod validate;
mod wake;

pub use alarm::{Alarm, AlarmKind};
pub use batch::{Batch, BatchConfig};
pub use config::{
    Builder, Durability, Environment, LatePolicy, OPTIONS, OptionKind, OptionSpec, OptionValue,
    TimeUnit,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    ApiCall, Event, MetadataValue, ObjectStorage, StreamBytes, TimeRange, customer_in_header, keys,
};
pub use ingestion::{DEFAULT_FLUSH_TIMEOUT, Ingestion};
pub use receipt::Receipt;
pub use stats::Stats;
pub use validate::limits;

/// [`Ingestion::track_api_call`] as a function.
///
/// # Errors
/// As [`Ingestion::track`].
pub fn track_api_call(ingestion: &Ingestion, call: ApiCall) -> Result<Receipt> {
    ingestion.track_api_call(call)
}

/// [`Ingestion::track_object_storage`] as a function.
///
/// # Errors
/// As [`Ingestion::track`].
pub fn track_object_storage(ingestion: &Ingestion, storage: ObjectStorage) -> Result<Receipt> {
    ingestion.track_object_storage(storage)
}

/// [`Ingestion::track_stream_bytes`] as a function.
///
/// # Errors
/// As [`Ingestion::track`].
pub fn track_stream_bytes(ingestion: &Ingestion, stream: StreamBytes) -> Result<Receipt> {
    ingestion.track_stream_bytes(stream)
}

/// [`Ingestion::track_time_range`] as a function.
///
/// # Errors
/// As [`Ingestion::track`].
pub fn track_time_range(ingestion: &Ingestion, range: TimeRange) -> Result<Receipt> {
    ingestion.track_time_range(range)
}

/// [`Ingestion::create_batch`] as a function.
///
/// # Errors
/// As [`Ingestion::create_batch`].
pub fn create_batch(ingestion: &Ingestion, config: BatchConfig) -> Result<Batch> {
    ingestion.create_batch(config)
}
