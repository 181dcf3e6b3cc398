//! The client, batches and receipts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dodo_ingestion::{Batch, BatchConfig, Builder, Event, Ingestion};

use crate::convert::{Call, Setting};
use crate::error::Failure;

type Result<T> = std::result::Result<T, Failure>;

/// Hears what an operator should hear of.
#[uniffi::export(with_foreign)]
pub trait AlarmListener: Send + Sync {
    /// Called with an alarm's kind and message, on the engine's thread or on that of a track verb.
    /// It must not block.
    fn told(&self, kind: String, message: String);
}

/// A client of the billing API.
#[derive(uniffi::Object)]
pub struct NativeIngestion(Ingestion);

#[uniffi::export]
impl NativeIngestion {
    /// Opens a client.
    #[uniffi::constructor]
    pub fn open(settings: Vec<Setting>, listener: Arc<dyn AlarmListener>) -> Result<Arc<Self>> {
        let mut builder = Builder::new().on_alarm(move |alarm| {
            listener.told(alarm.kind.as_str().to_owned(), alarm.message.clone());
        });
        for Setting { name, value } in settings {
            builder.set(&name, value)?;
        }
        Ok(Arc::new(Self(builder.build()?)))
    }

    /// Accepts one call and returns its receipt's ticket, as an object would have to be finalized.
    pub fn track(&self, call: Call) -> Result<String> {
        Ok(self.0.track(Event::from(call))?.ticket())
    }

    /// The idempotency key of an accepted call.
    pub fn event_id(&self, ticket: &str) -> Result<String> {
        Ok(self.0.receipt(ticket)?.event_id().to_owned())
    }

    /// Waits until the billing API has acknowledged the call.
    pub async fn delivered(&self, ticket: String, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.receipt(&ticket)?.delivered(timeout).await?)
    }

    /// Counts and tells a call that could not be converted.
    pub fn refuse(&self, reason: &str) {
        self.0.refuse(reason);
    }

    /// Opens a batch.
    pub fn create_batch(
        &self,
        max_size: Option<u64>,
        flush_interval: Option<Duration>,
    ) -> Result<Arc<NativeBatch>> {
        let mut config = BatchConfig::default();
        if let Some(size) = max_size {
            config.max_size = usize::try_from(size).unwrap_or(usize::MAX);
        }
        if let Some(interval) = flush_interval {
            config.flush_interval = interval;
        }
        Ok(Arc::new(NativeBatch(self.0.create_batch(config)?)))
    }

    /// Makes everything accepted so far due and waits until it is settled.
    pub async fn flush(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.flush(timeout).await?)
    }

    /// Flushes and lets go. What is left stays spooled.
    pub async fn finish(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.close(timeout).await?)
    }

    /// Flushes at the end of the program, for as long as the options allow, and again for what came
    /// meanwhile. Blocks this thread: the system may have no other left.
    pub fn flush_at_exit(&self) -> Result<()> {
        let (began, limit) = (Instant::now(), self.0.exit_timeout());
        self.0.blocking_flush(limit)?;
        Ok(self.0.blocking_flush(limit.saturating_sub(began.elapsed()))?)
    }

    /// How long the end of the program may wait for calls to be billed.
    pub fn exit_timeout(&self) -> Duration {
        self.0.exit_timeout()
    }

    /// Counts of what has happened so far, by name.
    pub fn stats(&self) -> HashMap<String, u64> {
        let Ok(serde_json::Value::Object(counts)) = serde_json::to_value(self.0.stats()) else {
            return HashMap::new();
        };
        counts.into_iter().filter_map(|(name, count)| Some((name, count.as_u64()?))).collect()
    }
}

/// Calls that are due together.
#[derive(uniffi::Object)]
pub struct NativeBatch(Batch);

#[uniffi::export]
impl NativeBatch {
    /// Accepts one call.
    pub fn add(&self, call: Call) -> Result<()> {
        Ok(self.0.add(Event::from(call))?)
    }

    /// Makes everything accepted so far due and waits until it is settled.
    pub async fn flush(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.flush(timeout).await?)
    }

    /// Flushes and ends the batch. What is left stays spooled.
    pub async fn cleanup(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.cleanup(timeout).await?)
    }
}
