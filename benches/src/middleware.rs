//! What the middleware adds to a request: one route of axum, with the layer and without.
//!
//! Server and clients are this process, over loopback. As in `accepting`, nobody listens where the calls would be
//! sent, and each round has a client and a spool of its own.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use dodo_ingestion::Durability;
use dodo_ingestion_tower::MeterLayer;
use tokio::net::TcpListener;

use crate::Plan;
use crate::clients::{Ours, dead_port};
use crate::figures::{Section, number};
use crate::load::{self, Latency, PERCENTILES};

const CONNECTIONS: u64 = 4;

pub(crate) fn run(plan: &Plan) -> Result<Section> {
    let requests = plan.calls(40_000, 8_000);
    let base_url = format!("http://127.0.0.1:{}", dead_port()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        without.push(runtime.block_on(drive(route(), requests))?);
        let ours = Ours::open(&base_url, Durability::Process, &plan.dir)?;
        let layer = MeterLayer::new(ours.clone()).customer_header("x-customer-id");
        with.push(runtime.block_on(drive(route().layer(layer), requests))?);
        let (accepted, made) = (ours.stats().accepted, load::made(CONNECTIONS, requests));
        ensure!(accepted == made, "{made} requests were answered, and {accepted} accepted");
    }
    let mut section = Section::new(
        "middleware",
        format!(
            "latency of a route of axum over loopback, {CONNECTIONS} connections that stay open; {} \
             rounds of {} requests",
            plan.rounds,
            number(requests as f64)
        ),
    );
    for (index, percentile) in PERCENTILES.into_iter().enumerate() {
        let [without, with] = [&without, &with].map(|rounds| {
            rounds.iter().map(|latency: &Latency| latency[index]).collect::<Vec<_>>()
        });
        let plain = format!("without, p{percentile}");
        let metered = format!("with the layer, p{percentile}");
        section.row(&plain, "µs", &without);
        section.compared(&metered, "µs", &with, (&plain, &without), None);
    }
    section
        .note("The same process serves and asks, so that a latency holds the work of both.".into());
    Ok(section)
}

fn route() -> Router {
    Router::new().route("/v1/users/{id}", get(async || "a user"))
}

/// Serves the router, asks it so often, and serves no more.
async fn drive(router: Router, requests: u64) -> Result<Latency> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let serving = tokio::spawn(axum::serve(listener, router).into_future());
    let latency = load::ask(address, CONNECTIONS, requests).await;
    serving.abort();
    latency
}
