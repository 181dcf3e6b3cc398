//! What the middleware adds to a request: one route of axum, with the layer and without.
//!
//! Server and clients are this process, over loopback, on connections that stay open; each of them asks again as
//! soon as it has a whole answer. As in `accepting`, nobody listens where the calls would be sent, and each round
//! has a client and a spool of its own.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use dodo_ingestion::Durability;
use dodo_ingestion_tower::MeterLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Plan;
use crate::clients::{Ours, dead_port};
use crate::figures::{Section, number};

const CONNECTIONS: u64 = 4;
const REQUEST: &[u8] = b"GET /v1/users/7 HTTP/1.1\r\nhost: bench\r\nx-customer-id: cus_1\r\n\r\n";
/// How every answer ends.
const END: &[u8] = b"\r\n\r\na user";
/// Requests of each connection that are not measured.
const WARM_UP: u64 = 200;

const PERCENTILES: [usize; 2] = [50, 99];
/// The percentiles of a round, in microseconds.
type Latency = [f64; PERCENTILES.len()];

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
        let (accepted, made) = (ours.stats().accepted, requests + CONNECTIONS * WARM_UP);
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
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            ask(stream, requests / CONNECTIONS).await
        });
    }
    let mut latencies = Vec::new();
    while let Some(asked) = connections.join_next().await {
        latencies.append(&mut asked??);
    }
    serving.abort();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no request was made");
    let at =
        |percentile: usize| latencies[(latencies.len() - 1) * percentile / 100].as_secs_f64() * 1e6;
    Ok(PERCENTILES.map(at))
}

/// Asks over one connection, one request after the other.
async fn ask(mut stream: TcpStream, requests: u64) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(requests as usize);
    let mut answer = [0; 512];
    for number in 0..WARM_UP + requests {
        let start = Instant::now();
        stream.write_all(REQUEST).await?;
        let mut length = 0;
        while !answer[..length].ends_with(END) {
            let read = stream.read(&mut answer[length..]).await?;
            ensure!(read > 0, "the server closed, or answered more than was expected");
            length += read;
        }
        if number >= WARM_UP {
            latencies.push(start.elapsed());
        }
    }
    Ok(latencies)
}
