//! The layer: every option, and what it means.

use std::sync::Arc;

use dodo_ingestion::{Ingestion, MetadataValue, limits};
use http::{HeaderName, request};
use tower_layer::Layer;

use crate::exchange::Exchange;
use crate::meter::{Meter, MeterStats, OnMissingCustomer};
use crate::service::MeterService;

/// Meters the calls of an HTTP service. Options come by methods, each given again in place of the last;
/// [the crate](crate) tells where to put the layer.
#[derive(Clone, Debug)]
pub struct MeterLayer {
    meter: Arc<Meter>,
}

impl MeterLayer {
    /// A layer that tracks calls by this client. It names no customer yet: say how, by one of the options or by
    /// [`Metering::set_customer`](crate::Metering::set_customer).
    pub fn new(ingestion: Ingestion) -> Self {
        Self { meter: Arc::new(Meter::new(ingestion)) }
    }

    fn with(mut self, change: impl FnOnce(&mut Meter)) -> Self {
        change(Arc::make_mut(&mut self.meter));
        self
    }

    /// The customer is in this request header.
    ///
    /// Only for a service behind a gateway that sets the header, and removes the one that a client sent: else
    /// anybody can call at anybody's expense. A request with several of it, with several values in it or one that is
    /// not ASCII, is of nobody.
    pub fn customer_header(self, name: &str) -> Self {
        let header = HeaderName::try_from(name);
        if header.is_err() {
            tracing::error!(name, "no header has such a name; no customer will be found by it");
        }
        self.with(|meter| meter.customer_header = header.ok())
    }

    /// The customer is in an extension of this type: of the response, or else of the request as it reaches the
    /// layer. It wins over the header.
    ///
    /// What a layer further *in* adds to the request cannot be seen here; have it add the extension to the response
    /// as well, or call [`Metering::set_customer`](crate::Metering::set_customer).
    ///
    /// ```
    /// # #[derive(Clone)] struct User { customer: Option<String> }
    /// # fn with(layer: dodo_ingestion_tower::MeterLayer) -> dodo_ingestion_tower::MeterLayer {
    /// layer.customer_extension(|user: &User| user.customer.clone())
    /// # }
    /// ```
    pub fn customer_extension<T: Clone + Send + Sync + 'static>(
        self,
        customer: impl Fn(&T) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|meter| {
            meter.customer_extension =
                Some(Arc::new(move |extensions| customer(extensions.get::<T>()?)));
        })
    }

    /// The customer is what this closure makes of the exchange when the response has ended. It wins over extension
    /// and header; [`Metering::set_customer`](crate::Metering::set_customer) wins over all.
    ///
    /// For this and the other closures that are given an [`Exchange`], the heads of request and response are cloned.
    pub fn customer(
        self,
        customer: impl Fn(&Exchange<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|meter| meter.customer = Some(Arc::new(customer)))
    }

    /// What to do with a call that would be billed, and whose customer nothing names (an empty name counts as none).
    /// Default: [`OnMissingCustomer::Skip`].
    pub fn on_missing_customer(self, what: OnMissingCustomer) -> Self {
        self.with(|meter| meter.on_missing_customer = what)
    }

    /// The event name of calls that are billed, 1 to 255 characters. Default: the client's.
    pub fn event_name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        tell_if_unusable("event_name", &name);
        self.with(|meter| meter.event_name = Some(name))
    }

    /// The event name of calls that are not billed, from which error rates can be had; `None` for no events of
    /// them. No meter may count it. Default: `api_error`.
    pub fn error_event_name(self, name: Option<&str>) -> Self {
        if let Some(name) = name {
            tell_if_unusable("error_event_name", name);
        }
        self.with(|meter| meter.error_event_name = name.map(str::to_owned))
    }

    /// Which statuses are billed. Default: those below 500, without 401, 403 and 429.
    ///
    /// Never billed are a 404 of no route, or of one that takes whatever is left, as `/files/{*path}` does, and a call that
    /// was given no status, because the client went away before. A 404 with an endpoint that
    /// [`endpoint`](Self::endpoint) or [`Metering::set_endpoint`](crate::Metering::set_endpoint) names is that of a route.
    pub fn bill_status(self, bill: impl Fn(u16) -> bool + Send + Sync + 'static) -> Self {
        self.with(|meter| meter.bill_status = Some(Arc::new(bill)))
    }

    /// The route's template, for a service that finds its routes by itself; it wins over the one that the layer
    /// sees. `None`, or an empty one, says nothing. Cut to 500 characters.
    ///
    /// The path itself is no template: a bill of a million endpoints is of no use, and paths hold names and secrets.
    pub fn endpoint(
        self,
        template: impl Fn(&request::Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|meter| meter.endpoint = Some(Arc::new(template)))
    }

    /// Calls that are not metered: route templates, or paths where there is no template, such as `/healthz`. A `*` at
    /// the end stands for the rest, as in `/internal/*`, but for a path that leaves it again by `..`.
    pub fn exclude(self, routes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|meter| meter.exclude = routes.into_iter().map(Into::into).collect())
    }

    /// Leaves out the calls for which this is true when the response has ended: no event at all. See also
    /// [`Metering::skip`](crate::Metering::skip).
    pub fn skip(self, skip: impl Fn(&Exchange<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.with(|meter| meter.skip = Some(Arc::new(skip)))
    }

    /// Metadata of the call, made when the response has ended. A pair that is set by
    /// [`Metering::set_metadata`](crate::Metering::set_metadata) wins over one of the same key.
    ///
    /// Text is cut to 500 characters. Left out is what the billing API takes in no event (a key of more than 100
    /// characters, more than 41 pairs, a number that is none), and a key that the layer writes itself. Both are
    /// counted, and told by `tracing` at most once a minute: the call is billed all the same.
    ///
    /// ```
    /// # fn with(layer: dodo_ingestion_tower::MeterLayer) -> dodo_ingestion_tower::MeterLayer {
    /// layer.metadata(|exchange| {
    ///     let version = exchange.request().headers.get("x-api-version");
    ///     version.and_then(|version| Some(("api_version", version.to_str().ok()?.to_owned())))
    /// })
    /// # }
    /// ```
    pub fn metadata<I, K, V>(
        self,
        metadata: impl Fn(&Exchange<'_>) -> I + Send + Sync + 'static,
    ) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<MetadataValue>,
    {
        let pairs = move |exchange: &Exchange<'_>| {
            let pairs = metadata(exchange).into_iter();
            pairs.map(|(key, value)| (key.into(), value.into())).collect()
        };
        self.with(|meter| meter.metadata = Some(Arc::new(pairs)))
    }

    /// How much the call counts, where calls cost unequally: `units` in its metadata, which a meter can sum.
    /// [`Metering::set_units`](crate::Metering::set_units) wins over it. Default: no `units`.
    pub fn units(
        self,
        units: impl Fn(&Exchange<'_>) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.with(|meter| meter.units = Some(Arc::new(units)))
    }

    /// What this layer and its clones have done so far.
    pub fn stats(&self) -> MeterStats {
        self.meter.stats()
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = MeterService<S>;

    fn layer(&self, inner: S) -> MeterService<S> {
        MeterService::new(inner, self.meter.clone())
    }
}

fn tell_if_unusable(option: &str, name: &str) {
    if !(1..=limits::IDENTIFIER_CHARS).contains(&name.chars().count()) {
        let most = limits::IDENTIFIER_CHARS;
        tracing::error!(
            option,
            name,
            "an event's name has 1 to {most} characters; no call is accepted with this one"
        );
    }
}
