//! The client, batches and receipts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dodo_ingestion::{Batch, BatchConfig, Builder, Event, Ingestion, Receipt};

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

    /// Accepts one call.
    pub fn track(&self, call: Call) -> Result<Arc<NativeReceipt>> {
        Ok(Arc::new(NativeReceipt(self.0.track(Event::from(call))?)))
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

    /// The blocking form of `flush`.
    pub fn blocking_flush(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.blocking_flush(timeout)?)
    }

    /// Flushes and lets go. What is left stays spooled.
    pub async fn finish(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.close(timeout).await?)
    }

    /// The blocking form of `finish`.
    pub fn blocking_finish(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.blocking_close(timeout)?)
    }

    /// Closes at the end of the program, for as long as the options allow.
    pub fn finish_at_exit(&self) -> Result<()> {
        Ok(self.0.blocking_close(self.0.exit_timeout())?)
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

    /// Counts and alarms a call that could not be converted.
    pub fn refuse(&self, reason: &str) {
        self.0.refuse(reason);
    }

    /// Makes everything accepted so far due and waits until it is settled.
    pub async fn flush(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.flush(timeout).await?)
    }

    /// The blocking form of `flush`.
    pub fn blocking_flush(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.blocking_flush(timeout)?)
    }

    /// Flushes and ends the batch. What is left stays spooled.
    pub async fn cleanup(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.cleanup(timeout).await?)
    }

    /// The blocking form of `cleanup`.
    pub fn blocking_cleanup(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.blocking_cleanup(timeout)?)
    }
}

/// The proof that a call was accepted.
#[derive(uniffi::Object)]
pub struct NativeReceipt(Receipt);

#[uniffi::export]
impl NativeReceipt {
    /// The call's idempotency key.
    pub fn event_id(&self) -> String {
        self.0.event_id().to_owned()
    }

    /// Waits until the billing API has acknowledged the call.
    pub async fn delivered(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.delivered(timeout).await?)
    }

    /// The blocking form of `delivered`.
    pub fn blocking_delivered(&self, timeout: Option<Duration>) -> Result<()> {
        Ok(self.0.blocking_delivered(timeout)?)
    }
}
