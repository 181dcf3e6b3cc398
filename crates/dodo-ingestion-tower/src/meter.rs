//! What a layer was told to do: who is billed, for what, under which name.
//!
//! A closure of the user's that panics counts as one that said nothing: a panic never leaves this module.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dodo_ingestion::{Event, Ingestion, MetadataValue, customer_in_header};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, request};

use crate::exchange::Exchange;
use crate::notice::Notice;

/// What is done with a call that would be billed, and whose customer nothing names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMissingCustomer {
    /// No event. It is counted, and told by `tracing` at most once a minute.
    #[default]
    Skip,
    /// The event is this customer's, also for a call that is not billed.
    Default(String),
    /// No event, and an error by `tracing` for each such call: for development.
    Error,
}

/// What a layer has done so far. Clones of a layer count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeterStats {
    /// Events accepted under the name that is billed.
    pub billed: u64,
    /// Events accepted under the name of errors.
    pub errors: u64,
    /// Calls that would have been billed, had a customer been named.
    pub missing_customer: u64,
    /// Events that were not accepted.
    pub refused: u64,
    /// Metadata pairs, and units, that were cut or left out.
    pub altered: u64,
    /// Panics in closures.
    pub panics: u64,
}

#[derive(Debug, Default)]
struct Counts {
    billed: AtomicU64,
    errors: AtomicU64,
    missing_customer: Notice,
    refused: Notice,
    altered: Notice,
    panics: Notice,
}

pub(crate) type Pair = (String, MetadataValue);
type OfRequest = dyn Fn(&request::Parts) -> Option<String> + Send + Sync;
type OfExtensions = dyn Fn(&Extensions) -> Option<String> + Send + Sync;
type OfExchange<T> = dyn Fn(&Exchange<'_>) -> T + Send + Sync;

/// An id without the white space around it. An empty one is none.
pub(crate) fn named(customer: Option<String>) -> Option<String> {
    let customer = customer?;
    let id = customer.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// An empty template is none.
pub(crate) fn non_empty(template: Option<String>) -> Option<String> {
    template.filter(|template| !template.is_empty())
}

/// The options of a layer, and what it counts.
#[derive(Clone)]
pub(crate) struct Meter {
    pub(crate) ingestion: Ingestion,
    pub(crate) customer_header: Option<HeaderName>,
    pub(crate) customer_extension: Option<Arc<OfExtensions>>,
    pub(crate) customer: Option<Arc<OfExchange<Option<String>>>>,
    pub(crate) on_missing_customer: OnMissingCustomer,
    pub(crate) event_name: Option<String>,
    pub(crate) error_event_name: Option<String>,
    pub(crate) bill_status: Option<Arc<dyn Fn(u16) -> bool + Send + Sync>>,
    pub(crate) endpoint: Option<Arc<OfRequest>>,
    pub(crate) exclude: Vec<String>,
    pub(crate) skip: Option<Arc<OfExchange<bool>>>,
    pub(crate) metadata: Option<Arc<OfExchange<Vec<Pair>>>>,
    pub(crate) units: Option<Arc<OfExchange<Option<f64>>>>,
    counts: Arc<Counts>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("ingestion", &self.ingestion)
            .field("customer_header", &self.customer_header)
            .field("on_missing_customer", &self.on_missing_customer)
            .field("event_name", &self.event_name)
            .field("error_event_name", &self.error_event_name)
            .field("exclude", &self.exclude)
            .finish_non_exhaustive()
    }
}

impl Meter {
    pub(crate) fn new(ingestion: Ingestion) -> Self {
        Self {
            ingestion,
            customer_header: None,
            customer_extension: None,
            customer: None,
            on_missing_customer: OnMissingCustomer::default(),
            event_name: None,
            error_event_name: Some("api_error".to_owned()),
            bill_status: None,
            endpoint: None,
            exclude: Vec::new(),
            skip: None,
            metadata: None,
            units: None,
            counts: Arc::default(),
        }
    }

    /// Whether a closure wants to see the heads of request and response when the call has ended.
    pub(crate) fn shows_exchanges(&self) -> bool {
        self.customer.is_some()
            || self.skip.is_some()
            || self.metadata.is_some()
            || self.units.is_some()
    }

    pub(crate) fn customer_in_header(&self, headers: &HeaderMap) -> Option<String> {
        let values = headers.get_all(self.customer_header.as_ref()?);
        customer_in_header(values.iter().map(HeaderValue::as_bytes)).map(str::to_owned)
    }

    pub(crate) fn customer_in_extensions(&self, extensions: &Extensions) -> Option<String> {
        let customer = self.customer_extension.as_ref()?;
        named(self.guarded("customer_extension", || customer(extensions)).flatten())
    }

    pub(crate) fn endpoint(&self, request: &request::Parts) -> Option<String> {
        let endpoint = self.endpoint.as_ref()?;
        non_empty(self.guarded("endpoint", || endpoint(request)).flatten())
    }

    /// Whether a template, or the path of a request that has none, is on the list.
    pub(crate) fn excludes(&self, what: &str) -> bool {
        self.exclude.iter().any(|entry| match entry.strip_suffix('*') {
            Some(start) => what.starts_with(start) && !climbs(what),
            None => what == entry,
        })
    }

    pub(crate) fn skips(&self, exchange: &Exchange<'_>) -> bool {
        let Some(skip) = &self.skip else { return false };
        self.guarded("skip", || skip(exchange)).unwrap_or(false)
    }

    pub(crate) fn bills(&self, status: Option<u16>, is_route: bool) -> bool {
        let Some(status) = status else { return false };
        if status == 404 && !is_route {
            return false;
        }
        let bill = self.bill_status.as_ref();
        let chosen = bill.and_then(|bill| self.guarded("bill_status", || bill(status)));
        chosen.unwrap_or(status < 500 && !matches!(status, 401 | 403 | 429))
    }

    pub(crate) fn customer_of(&self, exchange: &Exchange<'_>) -> Option<String> {
        let customer = self.customer.as_ref()?;
        named(self.guarded("customer", || customer(exchange)).flatten())
    }

    pub(crate) fn units_of(&self, exchange: &Exchange<'_>) -> Option<f64> {
        let units = self.units.as_ref()?;
        self.guarded("units", || units(exchange)).flatten()
    }

    pub(crate) fn metadata_of(&self, exchange: &Exchange<'_>) -> Vec<Pair> {
        let Some(metadata) = &self.metadata else { return Vec::new() };
        self.guarded("metadata", || metadata(exchange)).unwrap_or_default()
    }

    /// The customer of a call for which nothing names one.
    pub(crate) fn instead_of_customer(
        &self,
        billed: bool,
        method: &Method,
        endpoint: Option<&str>,
    ) -> Option<String> {
        if let OnMissingCustomer::Default(customer) = &self.on_missing_customer {
            return Some(customer.clone());
        }
        // That a call which is not let in has no customer is as it should be.
        if billed {
            let told = self.counts.missing_customer.occur();
            if self.on_missing_customer == OnMissingCustomer::Error {
                tracing::error!(%method, endpoint, "not metered: nothing names the customer");
            } else if let Some(calls) = told {
                tracing::warn!(%method, endpoint, calls, "not metered: nothing names the customer");
            }
        }
        None
    }

    pub(crate) fn track(&self, event: impl Into<Event>, billed: bool) {
        match self.ingestion.track(event) {
            Ok(_) => {
                let counter = if billed { &self.counts.billed } else { &self.counts.errors };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                if let Some(calls) = self.counts.refused.occur() {
                    tracing::warn!(%error, calls, "a call was not accepted and will not be billed");
                }
            }
        }
    }

    /// Tells that metadata could not be taken as it was.
    pub(crate) fn alters(&self, key: &str, why: &str) {
        if let Some(pairs) = self.counts.altered.occur() {
            tracing::warn!(key, pairs, "metadata {why}");
        }
    }

    /// Calls into what may panic. The response is served all the same.
    pub(crate) fn guarded<T>(&self, what: &str, call: impl FnOnce() -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(call)).ok();
        if outcome.is_none()
            && let Some(panics) = self.counts.panics.occur()
        {
            tracing::error!(what, panics, "a closure of the metering panicked; the call is served");
        }
        outcome
    }

    pub(crate) fn stats(&self) -> MeterStats {
        let Counts { billed, errors, missing_customer, refused, altered, panics } = &*self.counts;
        MeterStats {
            billed: billed.load(Ordering::Relaxed),
            errors: errors.load(Ordering::Relaxed),
            missing_customer: missing_customer.count(),
            refused: refused.count(),
            altered: altered.count(),
            panics: panics.count(),
        }
    }
}

/// Whether a path leaves its directory once somebody behind this server resolves it.
fn climbs(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let path = path.replace("%2f", "/").replace("%5c", "/");
    // Some servers take what follows a semicolon for a parameter of the segment.
    path.split(['/', '\\']).any(|segment| segment == ".." || segment.starts_with("..;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_headers_and_words_name_the_customer() {
        #[derive(serde::Deserialize)]
        struct Header {
            values: Vec<String>,
            customer: Option<String>,
        }
        #[derive(serde::Deserialize)]
        struct Word {
            said: String,
            customer: Option<String>,
        }
        #[derive(serde::Deserialize)]
        struct Vectors {
            headers: Vec<Header>,
            said: Vec<Word>,
        }
        let text = include_str!("../../../tests/vectors/metering.json");
        let Vectors { headers, said } = serde_json::from_str(text).unwrap();
        assert!(headers.len() >= 15 && said.len() >= 5);
        for Header { values, customer } in headers {
            let bytes = |value: &String| value.chars().map(|byte| byte as u8).collect();
            let bytes: Vec<Vec<u8>> = values.iter().map(bytes).collect();
            let found = customer_in_header(bytes.iter().map(Vec::as_slice));
            assert_eq!(found, customer.as_deref(), "{values:?}");
        }
        for Word { said, customer } in said {
            assert_eq!(named(Some(said.clone())), customer, "{said:?}");
        }
    }

    #[test]
    fn the_shared_paths_climb() {
        #[derive(serde::Deserialize)]
        struct Vectors {
            climbing: Vec<String>,
            staying: Vec<String>,
        }
        let text = include_str!("../../../tests/vectors/metering.json");
        let Vectors { climbing, staying } = serde_json::from_str(text).unwrap();
        assert!(climbing.len() >= 5 && staying.len() >= 5);
        assert!(climbing.iter().all(|path| climbs(path)));
        assert!(!staying.iter().any(|path| climbs(path)));
    }
}
