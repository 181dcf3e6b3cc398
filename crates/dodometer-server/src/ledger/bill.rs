//! What everybody owes, by the meters that have a price and are not archived.

use std::collections::HashMap;

use serde::Serialize;

use super::names::Symbol;
use super::{Call, Ledger, Tally, update};
use crate::billable::{self, Aggregate, Billable, Usage};

/// What everybody owes: the answer of `GET /_dev/bill`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Bill {
    /// The currency of every amount; `None` while no meter has a price, archived ones aside.
    pub currency: Option<String>,
    /// Every customer seen, the largest amount first.
    pub customers: Vec<CustomerBill>,
    /// The sums over all customers.
    pub totals: Totals,
}

/// What one customer owes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CustomerBill {
    /// The customer.
    pub customer_id: String,
    /// Events stored, of any name.
    pub calls: u64,
    /// The median of `response_time_ms`, where events carried one.
    pub p50_ms: Option<f64>,
    /// The 95th percentile of `response_time_ms`.
    pub p95_ms: Option<f64>,
    /// What the meters that are not archived add up to, in the currency's smallest unit.
    pub amount: i64,
}

/// The sums of a [`Bill`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Customers seen.
    pub customers: usize,
    /// Events stored.
    pub calls: u64,
    /// The sum of all amounts, in the currency's smallest unit.
    pub amount: i64,
    /// The median of `response_time_ms` over all customers.
    pub p50_ms: Option<f64>,
    /// The 95th percentile of `response_time_ms` over all customers.
    pub p95_ms: Option<f64>,
    /// Ingest requests answered, refused ones too: each counts against a rate limit.
    pub requests: u64,
    /// Ingest requests refused.
    pub requests_refused: u64,
    /// Events ignored because their id had been stored before.
    pub duplicates_ignored: u64,
    /// Events stored for each request answered.
    pub calls_per_request: f64,
}

/// A meter with the usage of every customer.
pub(crate) struct Metered {
    pub(crate) meter: Billable,
    usage: HashMap<String, Aggregate>,
}

impl Ledger {
    pub(crate) fn bill(&self) -> Bill {
        let mut owed: Vec<(i64, &str, &Tally)> = self
            .customers
            .iter()
            .map(|(customer, id)| (self.amount(id), id, &self.tallies[customer.index()]))
            .collect();
        owed.sort_unstable_by(|(a, a_id, a_tally), (b, b_id, b_tally)| {
            b.cmp(a).then(b_tally.calls.cmp(&a_tally.calls)).then(a_id.cmp(b_id))
        });
        let requests = self.requests.answered();
        Bill {
            currency: self.currency(None).map(ToOwned::to_owned),
            totals: Totals {
                customers: owed.len(),
                calls: self.calls,
                amount: owed.iter().fold(0, |sum: i64, (amount, ..)| sum.saturating_add(*amount)),
                p50_ms: self.latency.percentile(50),
                p95_ms: self.latency.percentile(95),
                requests,
                requests_refused: self.requests.refused,
                duplicates_ignored: self.requests.duplicates,
                calls_per_request: self.calls as f64 / requests.max(1) as f64,
            },
            customers: owed
                .into_iter()
                .map(|(amount, customer, tally)| CustomerBill {
                    customer_id: customer.to_owned(),
                    calls: tally.calls,
                    p50_ms: tally.latency.percentile(50),
                    p95_ms: tally.latency.percentile(95),
                    amount,
                })
                .collect(),
        }
    }

    /// What a customer owes, in the currency's smallest unit.
    pub(super) fn amount(&self, customer: &str) -> i64 {
        self.meters.iter().fold(0, |sum: i64, metered| sum.saturating_add(metered.amount(customer)))
    }

    /// The customers with the most calls, up to so many.
    pub(super) fn busiest(&self, most: usize) -> Vec<&str> {
        let calls = |(customer, _): &(Symbol, &str)| self.tallies[customer.index()].calls;
        let mut all: Vec<_> = self.customers.iter().collect();
        all.sort_by_key(|customer| std::cmp::Reverse(calls(customer)));
        all.truncate(most);
        all.into_iter().map(|(_, id)| id).collect()
    }
}

impl Metered {
    pub(crate) fn new(meter: Billable) -> Self {
        Self { meter, usage: HashMap::new() }
    }

    /// Takes a stored event of the meter's name into account, and says whether it counts.
    pub(crate) fn apply(&mut self, call: &Call<'_>) -> bool {
        let counts = self.counts(call);
        if counts {
            let how = &self.meter.aggregation;
            update(&mut self.usage, call.customer_id, |usage: &mut Aggregate| {
                usage.apply(how, call.timestamp, call.metadata);
            });
        }
        counts
    }

    /// Whether the meter counts an event of its name: the filter lets it through, and it has the
    /// quantity that is asked for.
    pub(super) fn counts(&self, call: &Call<'_>) -> bool {
        let key = self.meter.aggregation.key.as_deref();
        self.meter.counts(call.metadata)
            && key.is_none_or(|key| call.metadata.quantity(key).is_some())
    }

    fn amount(&self, customer: &str) -> i64 {
        match (self.meter.billed_price(), self.usage.get(customer)) {
            (Some(price), Some(usage)) => billable::total_price(usage.units(), price),
            _ => 0,
        }
    }

    /// The usage of one customer, or of all in the order of their ids.
    pub(crate) fn usage(&self, customer: Option<&str>) -> Vec<Usage> {
        let price = self.meter.price.as_ref();
        if let Some(customer) = customer {
            let units = self.usage.get(customer).map(Aggregate::units).unwrap_or_default();
            return vec![Usage::new(customer, units, price)];
        }
        let mut all: Vec<_> = self
            .usage
            .iter()
            .map(|(customer, aggregate)| Usage::new(customer, aggregate.units(), price))
            .collect();
        all.sort_unstable_by(|a, b| a.customer_id.cmp(&b.customer_id));
        all
    }

    /// The units of one customer, or of each.
    pub(super) fn units(&self, customer: Option<&str>) -> impl Iterator<Item = Aggregate> {
        let one = customer.map(|customer| self.usage.get(customer).copied());
        let all = one.is_none().then(|| self.usage.values().copied());
        one.flatten().into_iter().chain(all.into_iter().flatten())
    }
}
