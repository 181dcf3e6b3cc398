//! The page and the tools that exist only here: `/` and everything under `/_dev`.
//!
//! Invariants: they answer only to a `Host` that names this machine (a web page of another origin
//! may point its own name at this address; it cannot choose that header), and without a key only to
//! callers on this machine. Untrusted text reaches the page as JSON only, and a strict
//! `Content-Security-Policy` is sent with everything it is made of.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_FRAME_OPTIONS,
};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Notify, watch};

use super::{blocking, check_key};
use crate::Meter;
use crate::refusal::Refusal;
use crate::server::stopped;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The shortest time between two snapshots of one stream.
const STREAM_INTERVAL: Duration = Duration::from_millis(250);

/// Who sent a request, and to which of our addresses; put there by the server that took it in.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Becomes true when the server wants its connections to end.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Told when the connection is to be reset.
    pub(crate) cut: Arc<Notify>,
}

impl Peer {
    fn is_this_machine(&self) -> bool {
        let remote = self.remote.ip().to_canonical();
        remote.is_loopback() || remote == self.local.ip().to_canonical()
    }
}

pub(super) fn routes(meter: Meter) -> Router<Meter> {
    let page = |kind: &'static str, text: &'static str| get(async move || asset(kind, text));
    Router::new()
        .route("/", page("text/html; charset=utf-8", include_str!("../page/page.html")))
        .route(
            "/_dev/page.js",
            page("text/javascript; charset=utf-8", include_str!("../page/page.js")),
        )
        .route("/_dev/page.css", page("text/css; charset=utf-8", include_str!("../page/page.css")))
        .route("/_dev/stream", get(stream))
        .route_layer(from_fn_with_state(meter, guard))
}

/// Lets through what may see the page and use the tools.
pub(super) async fn guard(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(|host| names_this_machine(host, peer.map(|peer| peer.local.ip()))) {
        return Refusal::forbidden("ask for this page by the address of the machine it runs on")
            .into_response();
    }
    if !peer.is_some_and(Peer::is_this_machine)
        && let Err(refusal) = check_key(request.headers(), &meter)
    {
        return refusal.into_response();
    }
    next.run(request).await
}

/// Whether a `Host` header means this machine: a loopback name or address, or the address that the
/// connection came in on.
fn names_this_machine(host: &str, local: Option<IpAddr>) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = bare.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(bare);
    match bare.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address)
        }
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ];
    (headers, text)
}

/// Pushes a snapshot at once, and another whenever something changed.
async fn stream(State(meter): State<Meter>, peer: Option<Extension<Peer>>) -> impl IntoResponse {
    let mut changes = meter.changes();
    let mut peer = peer.map(|Extension(peer)| peer);
    let snapshots = async_stream::stream! {
        loop {
            changes.borrow_and_update();
            let Ok(snapshot) = blocking(meter.clone(), Meter::snapshot).await else { break };
            yield Ok::<_, Infallible>(Event::default().event("snapshot").data(snapshot));
            let next = async {
                tokio::time::sleep(STREAM_INTERVAL).await;
                changes.changed().await
            };
            tokio::select! {
                changed = next => if changed.is_err() { break },
                () = ends(peer.as_mut()) => break,
            }
        }
    };
    (
        [(CACHE_CONTROL, "no-store")],
        Sse::new(snapshots).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))),
    )
}

/// Without a server of ours around it a stream ends with its connection only.
pub(super) async fn ends(peer: Option<&mut Peer>) {
    match peer {
        Some(peer) => stopped(&mut peer.stopping).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        let listening = Some(IpAddr::from([192, 168, 1, 5]));
        for (host, passes) in [
            ("localhost", true),
            ("LOCALHOST:4040", true),
            ("127.0.0.1:4040", true),
            ("127.8.8.8", true),
            ("[::1]:4040", true),
            ("[::1]", true),
            ("192.168.1.5:4040", true),
            ("192.168.1.6:4040", false),
            ("evil.example:4040", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            (":4040", false),
        ] {
            assert_eq!(names_this_machine(host, listening), passes, "{host}");
        }
        assert!(!names_this_machine("192.168.1.5:4040", None));
    }
}
