//! Carries out what the faults decide of a request to the billing API.
//!
//! Only requests with a key that is taken are shown to the faults. With none under way nothing is added to
//! a request's way.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, HeaderValue};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use http_body_util::BodyExt;

use super::local::{Peer, ends};
use super::{check_key, read_body, refused, set_date, set_remaining};
use crate::Meter;
use crate::clock::shifted;
use crate::faults::{Asked, End, Plan, Route, Stage, What};
use crate::refusal::Refusal;

/// What a captive portal says in place of the billing API.
const PORTAL: &str = "<!doctype html><title>Welcome</title><p>Sign in to use this network.</p>\n";

pub(super) async fn layer(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    if !meter.faults().any() || check_key(request.headers(), &meter).is_err() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let route = Route::of(parts.uri.path());
    let body = match read_body(body, meter.max_body_bytes()).await {
        Ok(body) => body,
        Err(refusal) => return refused(&meter, &parts, Bytes::new(), refusal).await,
    };
    let plan = check_key(&parts.headers, &meter).map(|key| {
        let now = Instant::now();
        meter.faults().decide(&Asked { route, key, body: &body, now })
    });
    let Plan { delay, bend, end, remaining } = plan.unwrap_or_default();
    let mut peer = parts.extensions.get::<Peer>().cloned();
    let skew = bend.skew;
    parts.extensions.insert(bend);
    let refusal = end.as_ref().and_then(|end| match end.what {
        What::Status { code, retry_after } => Some(Refusal::asked_for(code, retry_after)),
        What::TooLarge(limit) => Some(Refusal::too_large(limit)),
        _ => None,
    });
    let mut response = match (&end, refusal) {
        (Some(End { stage: Stage::BeforeCommit, .. }), None) => Response::default(),
        (Some(End { stage: Stage::BeforeCommit, .. }), Some(refusal)) => {
            refused(&meter, &parts, body, refusal).await
        }
        (_, refusal) => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            refusal.map_or(response, IntoResponse::into_response)
        }
    };
    // Only now: the request of a client that does not wait for its answer is carried out all the same.
    tokio::time::sleep(delay).await;
    if let Some(End { what, .. }) = end {
        response = end_otherwise(what, response, peer.as_mut()).await;
    }
    if let Some(remaining) = remaining {
        set_remaining(&mut response, remaining);
    }
    if !skew.is_zero() {
        set_date(&mut response, shifted(meter.now(), skew));
    }
    response
}

/// Ends a request in the ways that no refusal is.
async fn end_otherwise(what: What, response: Response, peer: Option<&mut Peer>) -> Response {
    match what {
        What::Status { .. } | What::TooLarge(_) => response,
        What::Html => Html(PORTAL).into_response(),
        What::Truncate => truncated(response).await,
        What::Hang => {
            let mut peer = peer;
            ends(peer.as_deref_mut()).await;
            cut(peer.as_deref()).await
        }
        What::Reset => cut(peer.as_deref()).await,
    }
}

/// Has the server reset the connection. A server that is not ours can only break the answer off.
async fn cut(peer: Option<&Peer>) -> Response {
    if let Some(peer) = peer {
        peer.cut.notify_one();
        return std::future::pending().await;
    }
    broken_off(Bytes::new(), 1)
}

/// Promises the whole of an answer's body, sends half of it, and closes the connection.
async fn truncated(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else { return broken_off(Bytes::new(), 1) };
    let body = body.to_bytes();
    let broken = broken_off(body.slice(..body.len() / 2), body.len().max(1));
    let (kept, body) = broken.into_parts();
    let mut response = Response::from_parts(parts, body);
    response.headers_mut().extend(kept.headers);
    response
}

fn broken_off(begin: Bytes, promised: usize) -> Response {
    let body = async_stream::stream! {
        yield Ok(begin);
        // What was sent is flushed while nothing more is ready.
        tokio::task::yield_now().await;
        yield Err(std::io::Error::other("broken off on purpose"));
    };
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(promised));
    response
}
