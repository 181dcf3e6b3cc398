//! A call under way, from its request to the end of its response.
//!
//! Invariant: a call is tracked once: when its response is whole, before the last of it is handed to the
//! server, or else when it is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dodo_ingestion::{ApiCall, keys, limits};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode, request, response};

use crate::exchange::Exchange;
use crate::metadata;
use crate::meter::{Meter, named, non_empty};
use crate::metering::{Metering, Told};
use crate::{grpc, route};

/// A call that is metered.
#[derive(Debug)]
pub(crate) struct Call {
    meter: Arc<Meter>,
    metering: Metering,
    began: Instant,
    method: Method,
    /// As the option says.
    endpoint: Option<String>,
    /// The route that was found before the request came here.
    matched: Option<String>,
    /// Which counts only if no template is found further in, or said.
    path_is_excluded: bool,
    /// The path of a request that says that it is of gRPC; whether it is, the response tells.
    grpc_method: Option<String>,
    /// By header or extension.
    customer: Option<String>,
    /// For closures that want to see it.
    request: Option<Box<request::Parts>>,
    response: Option<Box<response::Parts>>,
    head: Option<Head>,
    /// The service panicked, or gave an error in place of a response.
    failed: bool,
    first_byte: Option<Duration>,
    bytes: u64,
    /// How many bytes the body has, if that is known: the server asks for no more.
    length: Option<u64>,
    grpc: bool,
    grpc_code: Option<u16>,
    tracked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    after: Duration,
}

impl Call {
    /// A call that begins. `None` where it is not to be metered.
    pub(crate) fn begin(
        meter: &Arc<Meter>,
        request: &request::Parts,
        metering: &Metering,
    ) -> Option<Self> {
        if request.method == Method::OPTIONS {
            return None;
        }
        let began = Instant::now();
        let endpoint = meter.endpoint(request);
        let matched = route::matched(&request.extensions);
        let template = endpoint.as_deref().or(matched);
        if template.is_some_and(|template| meter.excludes(template)) {
            return None;
        }
        let path_is_excluded = template.is_none() && meter.excludes(request.uri.path());
        let customer = meter
            .customer_in_extensions(&request.extensions)
            .or_else(|| meter.customer_in_header(&request.headers));
        Some(Self {
            meter: meter.clone(),
            metering: metering.clone(),
            began,
            method: request.method.clone(),
            endpoint,
            matched: matched.map(str::to_owned),
            path_is_excluded,
            grpc_method: grpc::method(request).map(str::to_owned),
            customer,
            request: meter.shows_exchanges().then(|| Box::new(request.clone())),
            response: None,
            head: None,
            failed: false,
            first_byte: None,
            bytes: 0,
            length: None,
            grpc: false,
            grpc_code: None,
            tracked: false,
        })
    }

    /// The head of the response is there, with a body of this length, if that is known.
    pub(crate) fn head(&mut self, response: &response::Parts, length: Option<u64>) {
        self.head = Some(Head { status: response.status.as_u16(), after: self.began.elapsed() });
        if let Some(customer) = self.meter.customer_in_extensions(&response.extensions) {
            self.customer = Some(customer);
        }
        if self.request.is_some() {
            self.response = Some(Box::new(response.clone()));
        }
        self.grpc = response.status == StatusCode::OK && grpc::is_grpc(&response.headers);
        if self.grpc {
            // Trailers come after the last byte.
            self.grpc_code = grpc::code(&response.headers);
        } else {
            self.length = declared_length(&response.headers).or(length);
        }
        if has_no_body(&self.method, response.status) || self.length == Some(0) {
            self.end();
        }
    }

    /// Some of the body is about to be sent.
    pub(crate) fn sending(&mut self, bytes: u64) {
        if bytes > 0 && self.first_byte.is_none() {
            self.first_byte = Some(self.began.elapsed());
        }
        self.bytes += bytes;
        if self.length.is_some_and(|length| self.bytes >= length) {
            self.end();
        }
    }

    /// The trailers are about to be sent: nothing comes after them.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc {
            self.grpc_code = grpc::code(trailers).or(self.grpc_code);
        }
        self.end();
    }

    /// The service says no more. A server breaks off what was to be longer.
    pub(crate) fn body_ended(&mut self) {
        if self.length.is_some_and(|length| self.bytes < length) {
            self.finish(true);
        } else {
            self.end();
        }
    }

    /// The response is whole.
    pub(crate) fn end(&mut self) {
        if self.grpc {
            self.grpc_code.get_or_insert(grpc::UNKNOWN);
        }
        self.finish(false);
    }

    /// The service panicked, or gave an error in place of a response.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.finish(false);
    }

    fn finish(&mut self, aborted: bool) {
        if !std::mem::replace(&mut self.tracked, true) {
            let meter = self.meter.clone();
            meter.guarded("tracking", || self.track(aborted));
        }
    }

    fn track(&mut self, aborted: bool) {
        let response_time = self.began.elapsed();
        let meter = &*self.meter;
        let Told { customer, endpoint, route, units, metadata, skip } = self.metering.take();
        if skip {
            return;
        }
        // The path of a method that is not there is whatever the client made up.
        let is_method = self.grpc && self.grpc_code != Some(grpc::UNIMPLEMENTED);
        let method = self.grpc_method.take();
        // Without a response the request's word is all there is, and nothing would be billed.
        if self.head.is_none() && method.as_deref().is_some_and(|method| meter.excludes(method)) {
            return;
        }
        let method = method.filter(|_| is_method);
        let said = non_empty(endpoint).or(self.endpoint.take());
        let is_said = said.is_some();
        let endpoint = said.or(method).or(route).or(self.matched.take());
        let endpoint = endpoint.as_deref();
        let is_route = is_said || endpoint.is_some_and(|endpoint| !route::takes_the_rest(endpoint));
        if endpoint.map_or(self.path_is_excluded, |endpoint| meter.excludes(endpoint)) {
            return;
        }
        let status = self.status();
        let response = self.response.as_deref();
        let exchange = self.request.as_deref();
        let exchange =
            exchange.map(|request| Exchange { request, response, endpoint, status, aborted });
        let exchange = exchange.as_ref();
        if exchange.is_some_and(|exchange| meter.skips(exchange)) {
            return;
        }
        let billed = meter.bills(status, is_route);
        let name = if billed { &meter.event_name } else { &meter.error_event_name };
        if !billed && name.is_none() {
            return;
        }
        let customer = named(customer)
            .or_else(|| exchange.and_then(|exchange| meter.customer_of(exchange)))
            .or_else(|| self.customer.take())
            .or_else(|| meter.instead_of_customer(billed, &self.method, endpoint));
        let Some(customer) = customer else { return };

        let mut call = ApiCall::new(customer);
        if let Some(name) = name {
            call = call.event_name(name);
        }
        if let Some(endpoint) = endpoint {
            call = call.endpoint(limits::cut_value(endpoint));
        }
        call = call.method(limits::cut_value(self.method.as_str())).response_time(response_time);
        if let Some(status) = status {
            call = call.status_code(status);
        }
        if let Some(code) = self.grpc_code {
            call = call.metadata(keys::GRPC_STATUS, code);
        }
        if let Some(head) = self.head {
            call = call.ttfb(self.first_byte.unwrap_or(head.after)).response_bytes(self.bytes);
        }
        if aborted {
            call = call.aborted(true);
        }
        match units.or_else(|| exchange.and_then(|exchange| meter.units_of(exchange))) {
            Some(units) if units.is_finite() => call = call.units(units),
            Some(_) => meter.alters(keys::UNITS, "left out: no number"),
            None => {}
        }
        let mut pairs = exchange.map(|exchange| meter.metadata_of(exchange)).unwrap_or_default();
        pairs.extend(metadata);
        meter.track(metadata::add(call, pairs, meter), billed);
    }

    fn status(&self) -> Option<u16> {
        if self.failed {
            return Some(StatusCode::INTERNAL_SERVER_ERROR.as_u16());
        }
        let head = self.head?;
        Some(self.grpc_code.map_or(head.status, grpc::http_status))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.finish(true);
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the head is all there is of a response, whatever body the service gave it.
fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || (*method == Method::CONNECT && status.is_success())
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
