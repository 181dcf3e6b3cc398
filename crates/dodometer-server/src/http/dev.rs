//! The tools that exist only here, everything under `/_dev` but the page's own parts.
//!
//! They pass the same guard as the page: see [`local`](super::local). What changes anything also asks
//! that a request comes from no web page but ours. A browser lets any page send a POST to any address, if
//! its body calls itself text; but it says in `Origin` where the page came from, and a page cannot change
//! that. A program that is no browser sends no `Origin`.

use std::time::Instant;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::api::{UsageFilter, path, query};
use super::local::guard;
use super::{Routes, arrivals, blocking, read_body, routed};
use crate::billable::Price;
use crate::faults::{FaultsView, MAX_FAULTS};
use crate::ledger::Bill;
use crate::meter::{ClockView, CustomerUsage};
use crate::refusal::{Answer, Refusal};
use crate::{Fault, Meter, decimal, object};

pub(super) fn routes(meter: Meter) -> Router<Meter> {
    routed(tools())
        .route_layer(from_fn(refuse_other_origins))
        .route_layer(from_fn_with_state(meter, guard))
}

pub(super) fn tools() -> Routes {
    vec![
        ("/_dev/bill", get(bill)),
        ("/_dev/usage", get(usage)),
        ("/_dev/meters/{id}/price", put(set_price).delete(remove_price)),
        ("/_dev/events", get(arrivals::events)),
        ("/_dev/clock", get(clock).put(set_clock)),
        ("/_dev/faults", get(faults).post(add_faults).delete(end_faults)),
        ("/_dev/reset", post(reset)),
    ]
}

/// Lets through what reads, and what no web page of another origin sent.
async fn refuse_other_origins(request: Request, next: Next) -> Response {
    if request.method().is_safe() || !is_of_another_origin(request.headers()) {
        return next.run(request).await;
    }
    Refusal::forbidden("a web page of another origin must not change anything here").into_response()
}

fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.as_bytes().strip_prefix(b"http://");
    origin.is_none_or(|origin| headers.get(HOST).is_none_or(|host| origin != host.as_bytes()))
}

async fn bill(State(meter): State<Meter>) -> Answer<Json<Bill>> {
    blocking(meter, |meter| Ok(Json(meter.bill()))).await
}

/// What one customer used, of every meter.
async fn usage(
    State(meter): State<Meter>,
    filter: Result<Query<UsageFilter>, QueryRejection>,
) -> Answer<Json<CustomerUsage>> {
    let filter = query(filter)?;
    let period = filter.period()?;
    let customer =
        filter.customer_id.ok_or_else(|| Refusal::query("say whose usage: give customer_id"))?;
    blocking(meter, move |meter| meter.usage_of_customer(customer, period)).await.map(Json)
}

#[derive(Serialize)]
struct Priced {
    meter_id: String,
    price_per_unit: String,
    free_threshold: i64,
    currency: String,
}

async fn set_price(
    State(meter): State<Meter>,
    id: Result<Path<String>, PathRejection>,
    body: Body,
) -> Answer<Json<Priced>> {
    let id = path(id)?;
    let body = read_body(body, meter.max_body_bytes()).await?;
    blocking(meter, move |meter| {
        let price = Price::read(&body)?;
        meter.set_price(&id, Some(price.clone()))?;
        Ok(Json(Priced {
            meter_id: id,
            price_per_unit: decimal::show(price.per_unit),
            free_threshold: price.free_threshold,
            currency: price.currency,
        }))
    })
    .await
}

async fn remove_price(
    State(meter): State<Meter>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let id = path(id)?;
    blocking(meter, move |meter| meter.set_price(&id, None)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clock(State(meter): State<Meter>) -> Json<ClockView> {
    Json(meter.clock())
}

async fn set_clock(State(meter): State<Meter>, body: Body) -> Answer<Json<ClockView>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire {
        offset: String,
    }
    let body = read_body(body, meter.max_body_bytes()).await?;
    let Wire { offset } = object::read_body(&body)?;
    blocking(meter, move |meter| meter.set_clock(&offset)).await.map(Json)
}

async fn faults(State(meter): State<Meter>) -> Json<FaultsView> {
    Json(meter.faults().view(Instant::now()))
}

async fn add_faults(
    State(meter): State<Meter>,
    body: Body,
) -> Answer<(StatusCode, Json<FaultsView>)> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire {
        faults: Vec<serde_json::Value>,
        #[serde(default)]
        seed: Option<u64>,
    }
    let body = read_body(body, meter.max_body_bytes()).await?;
    let Wire { faults, seed } = object::read_body(&body)?;
    let read = faults.iter().enumerate().map(|(index, fault)| {
        Fault::from_json(fault).map_err(|error| Refusal::body(format!("faults[{index}]: {error}")))
    });
    if !meter.faults().add(read.collect::<Answer<_>>()?, seed) {
        return Err(Refusal::body(format!(
            "more than {MAX_FAULTS} faults: end those under way first, with DELETE"
        )));
    }
    Ok((StatusCode::CREATED, Json(meter.faults().view(Instant::now()))))
}

async fn end_faults(State(meter): State<Meter>) -> StatusCode {
    meter.faults().end();
    StatusCode::NO_CONTENT
}

async fn reset(State(meter): State<Meter>, body: Body) -> Answer<StatusCode> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Wire {
        keep_meters: bool,
    }
    let body = read_body(body, meter.max_body_bytes()).await?;
    let Wire { keep_meters } =
        if body.is_empty() { Wire::default() } else { object::read_body(&body)? };
    blocking(meter, move |meter| meter.reset(keep_meters)).await?;
    Ok(StatusCode::NO_CONTENT)
}
