//! The live page: its parts, the view that it draws, and the stream of views that keeps it live.
//!
//! Everything is embedded, nothing is fetched from elsewhere, and a strict `Content-Security-Policy`
//! is sent with all of it. Untrusted text reaches the page as JSON only.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_FRAME_OPTIONS,
};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Json, Router};
use tokio::time::{Instant, sleep, sleep_until};

use super::api::query;
use super::blocking;
use super::local::{Peer, ends, guard};
use crate::Meter;
use crate::ledger::{Filter, View};
use crate::refusal::{Answer, Refusal};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Where each part of the page is served, and as what.
const PARTS: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("../page/page.html")),
    ("/_dev/page/page.css", CSS, include_str!("../page/page.css")),
    ("/_dev/page/figures.css", CSS, include_str!("../page/figures.css")),
    ("/_dev/page/page.js", SCRIPT, include_str!("../page/page.js")),
    ("/_dev/page/charts.js", SCRIPT, include_str!("../page/charts.js")),
    ("/_dev/page/format.js", SCRIPT, include_str!("../page/format.js")),
    ("/_dev/page/link.js", SCRIPT, include_str!("../page/link.js")),
    ("/_dev/page/sections.js", SCRIPT, include_str!("../page/sections.js")),
    ("/_dev/page/tables.js", SCRIPT, include_str!("../page/tables.js")),
    ("/_dev/page/vendor/uPlot.css", CSS, include_str!("../page/vendor/uPlot.min.css")),
    ("/_dev/page/vendor/uPlot.js", SCRIPT, include_str!("../page/vendor/uPlot.esm.js")),
    ("/_dev/page/vendor/LICENSE", TEXT, include_str!("../page/vendor/LICENSE")),
];

/// The shortest time between two views of one stream.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// A stream holds the ledger for at most this part of the time: the pause after a view is so many times
/// as long as that was held, up to the longest pause.
const PAUSE_FOR_COST: u32 = 20;
/// After so long a view is sent though no event came: its period has moved on, and the page hears that
/// the server is there.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) fn routes(meter: Meter) -> Router<Meter> {
    let mut routes =
        Router::new().route("/_dev/view", get(view)).route("/_dev/stream", get(stream));
    for &(path, kind, text) in PARTS {
        routes = routes.route(path, get(async move || part(kind, text)));
    }
    routes.route_layer(from_fn_with_state(meter, guard))
}

fn part(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ];
    (headers, text)
}

type Asked = Result<Query<Filter>, QueryRejection>;

async fn view(State(meter): State<Meter>, filter: Asked) -> Answer<Json<View>> {
    let filter = query(filter)?.tidy();
    blocking(meter, move |meter| meter.view(&filter)).await.map(|(view, ..)| Json(view))
}

/// Pushes a view at once, and another whenever something changed or its period moved on.
async fn stream(
    State(meter): State<Meter>,
    peer: Option<Extension<Peer>>,
    filter: Asked,
) -> Answer<impl IntoResponse> {
    let filter = query(filter)?.tidy();
    let mut changes = meter.changes();
    let mut peer = peer.map(|Extension(peer)| peer);
    let views = async_stream::stream! {
        loop {
            let wanted = filter.clone();
            let made = blocking(meter.clone(), move |meter| {
                let (view, version, cost) = meter.view(&wanted)?;
                let json = serde_json::to_string(&view).map_err(|error| Refusal::internal(&error))?;
                Ok((json, version, cost))
            });
            let Ok((json, shown, cost)) = made.await else { break };
            yield Ok::<_, Infallible>(Event::default().event("view").data(json));
            let latest = Instant::now() + LONGEST_PAUSE;
            let next = async {
                sleep((cost * PAUSE_FOR_COST).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
                tokio::select! {
                    changed = changes.wait_for(|version| *version != shown) => changed.is_ok(),
                    () = sleep_until(latest) => true,
                }
            };
            tokio::select! {
                goes_on = next => if !goes_on { break },
                () = ends(peer.as_mut()) => break,
            }
        }
    };
    Ok(([(CACHE_CONTROL, "no-store")], Sse::new(views)))
}
