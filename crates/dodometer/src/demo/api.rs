//! The API that is metered: a few routes that behave like those of a real one, some slow, one flaky. One line
//! meters them all.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use dodo_ingestion::Ingestion;
use dodo_ingestion_tower::{MeterLayer, Metering};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::customers;

/// A running API.
pub(crate) struct Api {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Api {
    /// Serves on this machine; without a port, on a free one.
    pub(crate) async fn start(ingestion: Ingestion, port: Option<u16>) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router(ingestion)).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Ok(Self { address, stop, serving: tokio::spawn(serving.into_future()) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets every request come to its end. From then on no call is under way any more.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.serving.await?.context("the demo's API ended badly")
    }
}

fn router(ingestion: Ingestion) -> Router {
    Router::new()
        .route("/v1/users/{id}", get(user))
        .route("/v1/search", get(search))
        .route("/v1/orders", post(order))
        .route("/v1/reports/{year}", get(report))
        .route("/v1/flaky", get(flaky))
        .layer(from_fn(authenticate))
        .layer(MeterLayer::new(ingestion))
}

/// Finds out whose call it is.
async fn authenticate(metering: Metering, request: Request, next: Next) -> Response {
    let Some(customer) = customers::of(request.headers()) else {
        return (StatusCode::UNAUTHORIZED, "an x-api-key is needed\n").into_response();
    };
    metering.set_customer(customer);
    next.run(request).await
}

async fn user(Path(id): Path<u32>) -> Json<Value> {
    work(1..=4).await;
    Json(json!({ "id": id, "name": format!("User {id}") }))
}

async fn search() -> Json<Value> {
    work(5..=20).await;
    Json(json!({ "hits": fastrand::u8(..) }))
}

async fn order() -> (StatusCode, Json<Value>) {
    work(3..=10).await;
    (StatusCode::CREATED, Json(json!({ "order": fastrand::u32(..) })))
}

/// Sends its rows as it finds them, so that most of its time is in the body.
async fn report(Path(year): Path<u16>) -> Body {
    Body::from_stream(async_stream::stream! {
        for quarter in 1..=3 {
            work(10..=40).await;
            let row = format!("{year},Q{quarter},{}\n", fastrand::u32(..1_000_000));
            yield Ok::<_, Infallible>(Bytes::from(row));
        }
    })
}

/// Fails each tenth time, and first the second time.
async fn flaky() -> (StatusCode, &'static str) {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    work(1..=6).await;
    if CALLS.fetch_add(1, Ordering::Relaxed) % 10 == 1 {
        (StatusCode::INTERNAL_SERVER_ERROR, "it happens\n")
    } else {
        (StatusCode::OK, "this time it went well\n")
    }
}

async fn work(milliseconds: std::ops::RangeInclusive<u64>) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(milliseconds))).await;
}
