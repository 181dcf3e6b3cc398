//! The meter as its HTTP API shows it: says what is counted and what it costs, and fetches the bill.

use std::net::SocketAddr;

use anyhow::Context;
use axum::http::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Http;

/// The event name that is counted.
pub(crate) const EVENT_NAME: &str = "api_call";
/// The meter takes any key, and listens to this machine only.
pub(crate) const API_KEY: &str = "demo";
/// What a call costs, in cents.
pub(crate) const CENTS_A_CALL: u32 = 2;

/// A connection to the meter.
pub(crate) struct Billing {
    http: Http,
    base: String,
}

/// What everybody owes.
#[derive(Deserialize)]
pub(crate) struct Bill {
    pub(crate) customers: Vec<CustomerBill>,
    pub(crate) totals: Totals,
}

/// What one customer owes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CustomerBill {
    pub(crate) customer_id: String,
    pub(crate) calls: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    /// In cents.
    pub(crate) amount: i64,
}

/// The sums of a bill.
#[derive(Deserialize)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) amount: i64,
}

impl Billing {
    pub(crate) fn new(http: Http, meter: SocketAddr) -> Self {
        Self { http, base: format!("http://{meter}") }
    }

    /// Has every call counted, from the first one on, at the demo's price.
    pub(crate) async fn open_account(&self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        let definition = json!({
            "name": "API calls",
            "event_name": EVENT_NAME,
            "measurement_unit": "call",
            "aggregation": { "type": "count" },
        });
        let Created { id } = self.send("POST", "/meters", &definition).await?;
        let price = json!({ "price_per_unit": CENTS_A_CALL.to_string(), "free_threshold": 0 });
        let _: Value = self.send("PUT", &format!("/_dev/meters/{id}/price"), &price).await?;
        Ok(())
    }

    pub(crate) async fn bill(&self) -> anyhow::Result<Bill> {
        self.send("GET", "/_dev/bill", &Value::Null).await
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {API_KEY}"))
            .header(CONTENT_TYPE, "application/json")
            .body(body.into())?;
        let answer = self.http.send(request).await?;
        answer.json().with_context(|| format!("{method} {path}"))
    }
}
