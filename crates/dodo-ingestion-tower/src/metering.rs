//! The handle by which handlers and other layers say what only they know of a call.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dodo_ingestion::MetadataValue;
use http::Extensions;

/// A call that is under way, in the hands of those who serve it.
///
/// The layer puts one into each request's extensions. What is said by it counts until the response's last
/// bytes are handed to the server; the last word wins. Clones speak of the same call, so that a task or a
/// streamed body may keep one.
///
/// Where no layer meters the call (it is excluded, or a test calls the handler), a handle does nothing.
#[derive(Clone, Debug, Default)]
pub struct Metering(Option<Arc<Mutex<Told>>>);

/// What was said of a call.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) customer: Option<String>,
    pub(crate) endpoint: Option<String>,
    /// The route that a layer further in has seen.
    pub(crate) route: Option<String>,
    pub(crate) units: Option<f64>,
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) skip: bool,
}

impl Metering {
    /// The handle in a request's extensions; one that does nothing where there is none.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    pub(crate) fn active() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whose call it is. It wins over every option of the layer that names a customer.
    pub fn set_customer(&self, customer: impl Into<String>) {
        self.say(|told| told.customer = Some(customer.into()));
    }

    /// How much this call counts, where calls cost unequally: `units` in its metadata, which a meter can sum.
    pub fn set_units(&self, units: f64) {
        self.say(|told| told.units = Some(units));
    }

    /// Sets one metadata pair. See [`MeterLayer::metadata`](crate::MeterLayer::metadata) for the limits.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<MetadataValue>) {
        self.say(|told| told.metadata.push((key.into(), value.into())));
    }

    /// The route's template, where the layer cannot know it: in a service that finds its routes by itself.
    pub fn set_endpoint(&self, template: impl Into<String>) {
        self.say(|told| told.endpoint = Some(template.into()));
    }

    /// Leaves the call out: no event at all.
    pub fn skip(&self) {
        self.say(|told| told.skip = true);
    }

    pub(crate) fn pass_route(&self, template: &str) {
        self.say(|told| told.route = Some(template.to_owned()));
    }

    /// All that was said.
    pub(crate) fn take(&self) -> Told {
        self.0.as_deref().map(|told| mem::take(&mut *lock(told))).unwrap_or_default()
    }

    fn say(&self, what: impl FnOnce(&mut Told)) {
        if let Some(told) = &self.0 {
            what(&mut lock(told));
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for Metering {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}
