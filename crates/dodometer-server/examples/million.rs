//! Measures a meter with many events: what taking one costs, how long opening the file takes again,
//! and how long the page waits for each of its views, and a client for the usage of a period.
//!
//! `cargo run --release -p dodometer-server --example million -- 1000000 /tmp/million.db`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for a developer's terminal")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use dodometer_server::{Data, Meter, Options};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

const BATCH: u64 = 1000;
const VIEWS: &[&str] = &[
    "period=5m",
    "period=1h",
    "period=24h",
    "period=30d",
    "period=all",
    "period=all&customer=cus_07",
    "period=1h&endpoint=/v1/search",
];

/// The events are of the last hour.
const USAGE_OF_MINUTES: &[i64] = &[1, 10, 120];

async fn send(router: &Router, method: &str, path: &str, body: String) -> (u16, Vec<u8>) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", "Bearer test")
        .body(Body::from(body))
        .unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn events(from: u64, now: jiff::Timestamp) -> String {
    let one = |n: u64| {
        let customer = n % 50;
        let endpoint = ["/v1/users/{id}", "/v1/search", "/v1/orders", "/v1/files/{id}", "/healthz"]
            [(n / 7 % 5) as usize];
        let status = [200, 200, 200, 201, 200, 404, 200, 200, 200, 200, 500][(n % 11) as usize];
        json!({
            "event_id": format!("e{n}"),
            "customer_id": format!("cus_{customer:02}"),
            "event_name": if status < 500 { "api_call" } else { "api_error" },
            "timestamp": (now - jiff::SignedDuration::from_secs((n * 7919 % 3500) as i64)).to_string(),
            "metadata": {
                "endpoint": endpoint,
                "method": if (n / 3).is_multiple_of(2) { "GET" } else { "POST" },
                "status_code": status,
                "response_time_ms": 3.0 + (n * 2_654_435_761 % 4000) as f64 / 17.0,
                "response_bytes": n % 5000,
            },
        })
    };
    let events: Vec<_> = (from..from + BATCH).map(one).collect();
    json!({ "events": events }).to_string()
}

async fn run(count: u64, path: PathBuf) {
    let options = || Options { data: Data::File(path.clone()), ..Options::default() };
    let meter = Meter::open(options()).unwrap();
    let router = meter.router();
    let definition = json!({
        "name": "Calls", "event_name": "api_call", "measurement_unit": "call",
        "aggregation": { "type": "count" },
    });
    let (_, made) = send(&router, "POST", "/meters", definition.to_string()).await;
    let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
    let price = json!({ "price_per_unit": "0.2", "free_threshold": 1000 }).to_string();
    let id = made["id"].as_str().unwrap();
    send(&router, "PUT", &format!("/_dev/meters/{id}/price"), price).await;

    let mut spent = Duration::ZERO;
    for from in (0..count).step_by(BATCH as usize) {
        let body = events(from, jiff::Timestamp::now());
        let begin = Instant::now();
        let (status, _) = send(&router, "POST", "/events/ingest", body).await;
        spent += begin.elapsed();
        assert_eq!(status, 200);
    }
    println!("ingest   {:>8.2} µs an event", spent.as_secs_f64() * 1e6 / count as f64);
    drop((router, meter));

    let begin = Instant::now();
    let meter = Meter::open(options()).unwrap();
    println!("open     {:>8.2} s", begin.elapsed().as_secs_f64());
    let router = meter.router();
    let views = VIEWS.iter().map(|view| format!("/_dev/view?{view}"));
    let usage = USAGE_OF_MINUTES.iter().flat_map(|minutes| {
        let start = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(*minutes);
        [
            format!("/meters/{id}/usage?start={start}"),
            format!("/_dev/usage?customer_id=cus_07&start={start}"),
        ]
    });
    for path in views.chain(usage) {
        let begin = Instant::now();
        let (status, body) = send(&router, "GET", &path, String::new()).await;
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        println!("view     {ms:>8.2} ms  {:>7} bytes  {status}  {path}", body.len());
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(1_000_000, |count| count.parse().unwrap());
    let path = arguments.next().map_or_else(|| "million.db".into(), PathBuf::from);
    tokio::runtime::Runtime::new().unwrap().block_on(run(count, path));
}
