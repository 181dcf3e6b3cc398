//! Who may see what exists only here: the page at `/`, and everything under `/_dev`.
//!
//! Invariants: it answers only to a `Host` that names this machine (a web page of another origin
//! may point its own name at this address; it cannot choose that header), and without a key only to
//! callers on this machine. The billing API's routes answer to such a `Host` only, too, while any key
//! opens them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Notify, watch};

use super::{check_key, refuse};
use crate::Meter;
use crate::refusal::Refusal;
use crate::server::stopped;

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
    /// Whether it runs on this machine. It may be a proxy for one that does not: see [`is_forwarded`].
    fn is_this_machine(&self) -> bool {
        let remote = self.remote.ip().to_canonical();
        remote.is_loopback() || remote == self.local.ip().to_canonical()
    }
}

/// Lets through what may see the page and use the tools.
pub(super) async fn guard(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    if !is_for_this_machine(request.headers(), peer) {
        return Refusal::forbidden("ask for this page by the address of the machine it runs on")
            .into_response();
    }
    let is_here = peer.is_some_and(Peer::is_this_machine) && !is_forwarded(request.headers());
    if !is_here && let Err(refusal) = check_key(request.headers(), &meter) {
        return refusal.into_response();
    }
    next.run(request).await
}

/// Where any key is taken, lets through what no web page of another name can have sent.
pub(super) async fn guard_keyless(
    State(meter): State<Meter>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>();
    if !meter.takes_any_key() || peer.is_none() || is_for_this_machine(request.headers(), peer) {
        return next.run(request).await;
    }
    let refusal = Refusal::forbidden(
        "a meter without keys answers to the names of its machine only: call it by 127.0.0.1, \
         localhost or its address, or start it with --key",
    );
    refuse(&meter, request, refusal).await
}

/// Whether a request says that a proxy passed it on.
fn is_forwarded(headers: &HeaderMap) -> bool {
    let says_so =
        |name: &str| matches!(name, "forwarded" | "via") || name.starts_with("x-forwarded-");
    headers.keys().any(|name| says_so(name.as_str()))
}

fn is_for_this_machine(headers: &HeaderMap, peer: Option<&Peer>) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| names_this_machine(host, peer.map(|peer| peer.local.ip())))
}

/// Whether a `Host` header means this machine: a loopback name or address, or the address that the
/// connection came in on.
fn names_this_machine(host: &str, local: Option<IpAddr>) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = bare.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(bare);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        return address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address);
    }
    // RFC 6761, 6.3: these names are loopback's, whoever is asked for them.
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    bare.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
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
            ("localhost.", true),
            ("localhost.:4040", true),
            ("meter.localhost:4040", true),
            ("a.Meter.LocalHost.", true),
            ("localhost..", false),
            ("notlocalhost", false),
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
