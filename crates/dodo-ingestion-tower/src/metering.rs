//! The handle by which handlers and other layers say what only they know of a call.

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
pub struct Metering(Option<Arc<Mutex<Option<Told>>>>);

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
        Self(Some(Arc::new(Mutex::new(Some(Told::default())))))
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
        let (key, value) = (key.into(), value.into());
        // A stream may set one with each piece of its body.
        self.say(|told| match told.metadata.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => told.metadata.push((key, value)),
        });
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

    /// All that was said. What is said from now on is kept nowhere: whoever serves a WebSocket may hold a handle for days.
    pub(crate) fn take(&self) -> Told {
        self.0.as_deref().and_then(|told| lock(told).take()).unwrap_or_default()
    }

    fn say(&self, what: impl FnOnce(&mut Told)) {
        if let Some(told) = &self.0
            && let Some(told) = &mut *lock(told)
        {
            what(told);
        }
    }
}

fn lock(told: &Mutex<Option<Told>>) -> MutexGuard<'_, Option<Told>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_said_again_and_again_the_last_is_kept_and_nothing_after_the_end() {
        let metering = Metering::active();
        for tokens in 0..1000 {
            metering.set_metadata("tokens", tokens);
        }
        metering.set_metadata("model", "small");
        let told = metering.take();
        let expected = [("tokens".to_owned(), 999.into()), ("model".to_owned(), "small".into())];
        assert_eq!(told.metadata, expected);
        metering.set_metadata("tokens", 1000);
        assert!(metering.take().metadata.is_empty());
    }
}
