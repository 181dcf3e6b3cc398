//! The tools that exist only here, everything under `/_dev` but the page's own parts.
//!
//! They pass the same guard as the page: see [`local`](super::local).

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Serialize;

use super::api::path;
use super::local::guard;
use super::{blocking, read_body};
use crate::billable::Price;
use crate::ledger::Bill;
use crate::refusal::Answer;
use crate::{Meter, decimal};

pub(super) fn routes(meter: Meter) -> Router<Meter> {
    Router::new()
        .route("/_dev/bill", get(bill))
        .route("/_dev/meters/{id}/price", put(set_price))
        .route_layer(from_fn_with_state(meter, guard))
}

async fn bill(State(meter): State<Meter>) -> Answer<Json<Bill>> {
    blocking(meter, |meter| Ok(Json(meter.bill()))).await
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
        meter.set_price(&id, price.clone())?;
        Ok(Json(Priced {
            meter_id: id,
            price_per_unit: decimal::show(price.per_unit),
            free_threshold: price.free_threshold,
            currency: price.currency,
        }))
    })
    .await
}
