//! The meter as its HTTP API shows it: says what is counted and what it costs, and fetches the bill.
//!
//! Two meters count: one the calls that are billed, the other, without a price, the errors.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Context;
use axum::http::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Http;

/// The event name that is billed.
pub(crate) const EVENT_NAME: &str = "api_call";
/// The name that the middleware gives to what is not.
const ERROR_EVENT_NAME: &str = "api_error";
/// The meter takes any key, and listens to this machine only.
pub(crate) const API_KEY: &str = "demo";
/// What a call costs, in cents.
pub(crate) const CENTS_A_CALL: u32 = 2;

/// A connection to the meter.
pub(crate) struct Billing {
    http: Http,
    base: String,
    calls: String,
    errors: String,
}

/// What everybody owes.
pub(crate) struct Bill {
    pub(crate) customers: Vec<CustomerBill>,
    pub(crate) totals: Totals,
}

/// What one customer owes.
#[derive(Serialize)]
pub(crate) struct CustomerBill {
    pub(crate) customer_id: String,
    /// Calls billed.
    pub(crate) calls: u64,
    /// Calls that were errors, and are not billed.
    pub(crate) errors: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    /// In cents.
    pub(crate) amount: i64,
}

/// The sums of a bill.
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) amount: i64,
}

/// The times and the amounts, as the meter's own page has them.
#[derive(Deserialize)]
struct Owed {
    customers: Vec<OwedBy>,
    totals: Sums,
}

#[derive(Deserialize)]
struct OwedBy {
    customer_id: String,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Deserialize)]
struct Sums {
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    amount: i64,
}

impl Billing {
    /// Has every call counted, from the first one on, at the demo's price.
    pub(crate) async fn open(http: Http, meter: SocketAddr) -> anyhow::Result<Self> {
        let base = format!("http://{meter}");
        let mut billing = Self { http, base, calls: String::new(), errors: String::new() };
        billing.calls = billing.count("API calls", EVENT_NAME).await?;
        billing.errors = billing.count("API errors", ERROR_EVENT_NAME).await?;
        let price = json!({ "price_per_unit": CENTS_A_CALL.to_string(), "free_threshold": 0 });
        let path = format!("/_dev/meters/{}/price", billing.calls);
        let _: Value = billing.send("PUT", &path, &price).await?;
        Ok(billing)
    }

    /// Makes a meter, and returns its id.
    async fn count(&self, name: &str, event_name: &str) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        let definition = json!({
            "name": name,
            "event_name": event_name,
            "measurement_unit": "call",
            "aggregation": { "type": "count" },
        });
        let Created { id } = self.send("POST", "/meters", &definition).await?;
        Ok(id)
    }

    pub(crate) async fn bill(&self) -> anyhow::Result<Bill> {
        let calls = self.usage(&self.calls).await?;
        let errors = self.usage(&self.errors).await?;
        let Owed { customers, totals } = self.send("GET", "/_dev/bill", &Value::Null).await?;
        let customers = customers.into_iter().map(|OwedBy { customer_id, sums }| {
            let of = |counted: &HashMap<String, u64>| counted.get(&customer_id).copied();
            let [calls, errors] = [&calls, &errors].map(|counted| of(counted).unwrap_or(0));
            let Sums { p50_ms, p95_ms, amount } = sums;
            CustomerBill { customer_id, calls, errors, p50_ms, p95_ms, amount }
        });
        let (customers, Sums { p50_ms, p95_ms, amount }) = (customers.collect(), totals);
        let [calls, errors] = [&calls, &errors].map(|counted| counted.values().sum());
        Ok(Bill { customers, totals: Totals { calls, errors, p50_ms, p95_ms, amount } })
    }

    /// What a meter has counted, by customer.
    async fn usage(&self, meter: &str) -> anyhow::Result<HashMap<String, u64>> {
        #[derive(Deserialize)]
        struct Usage {
            items: Vec<Counted>,
        }
        #[derive(Deserialize)]
        struct Counted {
            customer_id: String,
            consumed_units: String,
        }
        let path = format!("/meters/{meter}/usage");
        let Usage { items } = self.send("GET", &path, &Value::Null).await?;
        let counted = items.into_iter().map(|Counted { customer_id, consumed_units }| {
            let units = consumed_units.parse();
            Ok((customer_id, units.with_context(|| format!("{consumed_units} calls"))?))
        });
        counted.collect()
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
