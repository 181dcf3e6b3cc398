//! A gateway that bills its customers: it knows them by their keys, and takes two units for a report.
//!
//! ```sh
//! cargo run -p dodometer -- serve &       # a billing API on this machine
//! DODO_PAYMENTS_API_KEY=any DODO_PAYMENTS_BASE_URL=http://127.0.0.1:4040 \
//!     cargo run -p dodo-ingestion-tower --example gateway
//! curl -H 'x-api-key: key_acme' http://127.0.0.1:3000/v1/reports/2026
//! ```
#![allow(clippy::print_stdout, reason = "a program that is read")]

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dodo_ingestion::Ingestion;
use dodo_ingestion_tower::{MeterLayer, Metering};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The key and the address come from DODO_PAYMENTS_API_KEY and DODO_PAYMENTS_BASE_URL.
    let ingestion = Ingestion::builder("").event_name("api_call").build()?;
    let app = Router::new()
        .route("/v1/users/{id}", get(user))
        .route("/v1/reports/{year}", get(report))
        .layer(from_fn(authenticate))
        .route("/healthz", get(async || "well"))
        .layer(MeterLayer::new(ingestion.clone()).exclude(["/healthz"]));

    let address = std::env::var("GATEWAY_ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(asked_to_stop()).await?;
    Ok(ingestion.close(None).await?) // bills what is left
}

/// Whoever finds out who calls says it; what is refused here is an error that is not billed.
async fn authenticate(metering: Metering, request: Request, next: Next) -> Response {
    let key = request.headers().get("x-api-key").and_then(|key| key.to_str().ok());
    match key {
        Some("key_acme") => metering.set_customer("cus_acme"),
        Some("key_globex") => metering.set_customer("cus_globex"),
        _ => return StatusCode::UNAUTHORIZED.into_response(),
    }
    next.run(request).await
}

async fn user(Path(id): Path<String>) -> String {
    format!("user {id}\n")
}

async fn report(metering: Metering, Path(year): Path<u16>) -> Result<String, StatusCode> {
    metering.set_units(2.0);
    metering.set_metadata("year", year);
    if year > 2026 { Err(StatusCode::INTERNAL_SERVER_ERROR) } else { Ok(format!("{year}\n")) }
}

/// Until standard input ends, as it does when whoever started this is gone.
async fn asked_to_stop() {
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}
