//! The HTTP side: routes, who may call them, and reading what they carry.
//!
//! Handlers convert, call the [`Meter`] on a thread that may block, and convert back; no rule of the
//! billing API is decided here.

mod api;
mod arrivals;
mod dev;
mod fault;
mod local;
mod openapi;
mod page;

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::Method;
use axum::http::header::{
    AUTHORIZATION, CONTENT_ENCODING, DATE, HeaderMap, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state, map_response, map_response_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http_body_util::BodyExt;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

pub(crate) use arrivals::MAX_WAITING;
pub(crate) use local::Peer;

use crate::Meter;
use crate::faults::Route;
use crate::refusal::{Answer, Refusal};

/// How much of a body that is too large is still read: a client that is cut off while sending
/// often never sees the answer that says why.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
/// How long a request's body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Paths, each with its methods.
type Routes = Vec<(&'static str, MethodRouter<Meter>)>;

pub(crate) fn router(meter: Meter) -> Router {
    let api = routed(api::routes())
        .route_layer(from_fn_with_state(meter.clone(), fault::layer))
        .route_layer(from_fn_with_state(meter.clone(), say_remaining))
        .route_layer(from_fn_with_state(meter.clone(), local::guard_keyless));
    routed(public())
        .merge(api)
        .merge(page::routes(meter.clone()))
        .merge(dev::routes(meter.clone()))
        .fallback(async || Refusal::not_found("nothing is at this address"))
        .method_not_allowed_fallback(async || Refusal::method())
        .layer(from_fn_with_state(meter.clone(), refuse_compressed))
        .layer(map_response_with_state(meter.clone(), date))
        .layer(map_response(harden))
        .with_state(meter)
}

/// What anybody may ask for.
fn public() -> Routes {
    vec![("/healthz", get(async || "ok\n")), ("/openapi.json", get(openapi::document))]
}

/// The routes that the OpenAPI document describes: all but those of the page.
#[cfg(test)]
fn described() -> Routes {
    [public(), api::routes(), dev::tools()].into_iter().flatten().collect()
}

fn routed(routes: Routes) -> Router<Meter> {
    routes.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// Refuses a body that would first have to be decompressed: as JSON it would be refused for a reason
/// that misleads.
async fn refuse_compressed(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let encoding = request.headers().get(CONTENT_ENCODING);
    let compressed = encoding.is_some_and(|how| !how.as_bytes().eq_ignore_ascii_case(b"identity"));
    if compressed && !request.body().is_end_stream() {
        return refuse(&meter, request, Refusal::compressed()).await;
    }
    next.run(request).await
}

/// Refuses a request before anybody has read it.
async fn refuse(meter: &Meter, request: Request, refusal: Refusal) -> Response {
    let (parts, body) = request.into_parts();
    // Read, and not kept: see `MAX_DISCARDED`.
    let _ = read_body(body, 0).await;
    refused(meter, &parts, Bytes::new(), refusal).await
}

/// Answers with a refusal, and counts it if it is of an ingest request, with the body as far as it was read.
async fn refused(meter: &Meter, parts: &Parts, body: Bytes, refusal: Refusal) -> Response {
    if parts.method != Method::POST || Route::of(parts.uri.path()) != Route::Ingest {
        return refusal.into_response();
    }
    let refuse = move |meter: &Meter| {
        meter.count_refusal(&refusal, Some(&body));
        Err::<(), _>(refusal)
    };
    blocking(meter.clone(), refuse).await.into_response()
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Gives an answer the date of the meter's clock, where that is not the machine's.
async fn date(State(meter): State<Meter>, mut response: Response) -> Response {
    if !meter.clock_offset().is_zero() && !response.headers().contains_key(DATE) {
        set_date(&mut response, meter.now());
    }
    response
}

fn set_date(response: &mut Response, now: Timestamp) {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok();
    if let Some(date) = date.and_then(|date| date.try_into().ok()) {
        response.headers_mut().insert(DATE, date);
    }
}

/// Proof that a request carried a key that is taken, and that the key's rate limit had room for it.
struct Keyed;

impl FromRequestParts<Meter> for Keyed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, meter: &Meter) -> Answer<Self> {
        let key = check_key(&parts.headers, meter)?;
        if let Some(limiter) = meter.limiter() {
            limiter.admit(key, Instant::now()).map_err(Refusal::too_many)?;
        }
        Ok(Self)
    }
}

fn check_key<'h>(headers: &'h HeaderMap, meter: &Meter) -> Answer<&'h str> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    meter.admit(authorization).ok_or_else(Refusal::unauthorized)
}

/// Says on each answer how many more requests the key may make, if they are limited.
async fn say_remaining(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let key = check_key(request.headers(), &meter).map(ToOwned::to_owned);
    let mut response = next.run(request).await;
    if let (Some(limiter), Ok(key)) = (meter.limiter(), key) {
        set_remaining(&mut response, limiter.remaining(&key, Instant::now()));
    }
    response
}

fn set_remaining(response: &mut Response, remaining: u32) {
    response.headers_mut().insert("x-ratelimit-remaining", HeaderValue::from(remaining));
}

/// Reads a whole body of at most `limit` bytes, which has to come in time.
async fn read_body(body: Body, limit: usize) -> Answer<Bytes> {
    let read = tokio::time::timeout(BODY_TIMEOUT, read_frames(body, limit));
    read.await.unwrap_or_else(|_| Err(Refusal::too_slow(BODY_TIMEOUT)))
}

async fn read_frames(mut body: Body, limit: usize) -> Answer<Bytes> {
    let mut read = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::body(format!("the request body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= limit {
            read.extend_from_slice(&data);
        } else if length > limit.saturating_add(MAX_DISCARDED) {
            break;
        }
    }
    if length > limit { Err(Refusal::too_large(limit)) } else { Ok(read.into()) }
}

/// Runs what touches the database where it may block.
async fn blocking<T: Send + 'static>(
    meter: Meter,
    work: impl FnOnce(&Meter) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    tokio::task::spawn_blocking(move || work(&meter))
        .await
        .unwrap_or_else(|panic| Err(Refusal::internal(&panic)))
}
