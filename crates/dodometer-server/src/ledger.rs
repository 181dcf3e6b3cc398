//! Running totals of everything stored: calls, times and units by customer, and the newest events.
//!
//! Invariant: the ledger is a function of the stored events, in the order of their arrival, and of
//! the stored meters. It is rebuilt from them when a meter is opened and brought up to date after
//! each commit, so a bill or a page never has to read events again. It knows nothing of SQL or HTTP.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

use crate::billable::{self, Aggregate, Billable, Price, Usage};
use crate::latency::Latency;
use crate::metadata::Metadata;

/// How many of the newest events are kept for the page.
const RECENT: usize = 25;
/// How many customers the page shows.
pub(crate) const SHOWN_CUSTOMERS: usize = 50;

/// The running totals.
#[derive(Default)]
pub(crate) struct Ledger {
    customers: HashMap<String, Tally>,
    latency: Latency,
    calls: u64,
    meters: Vec<Metered>,
    by_event_name: HashMap<String, Vec<usize>>,
    recent: VecDeque<Recent>,
    pub(crate) requests: Requests,
}

/// The ingest requests answered so far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) duplicates: u64,
}

#[derive(Default)]
struct Tally {
    calls: u64,
    latency: Latency,
}

/// A meter with the usage of every customer.
pub(crate) struct Metered {
    pub(crate) meter: Billable,
    usage: HashMap<String, Aggregate>,
}

/// One stored event, as far as the ledger looks at it.
pub(crate) struct Call<'a> {
    pub(crate) customer_id: &'a str,
    pub(crate) event_name: &'a str,
    pub(crate) timestamp: Timestamp,
    pub(crate) metadata: &'a Metadata<'a>,
}

/// A line of the page's list of newest events.
#[derive(Debug, Serialize)]
struct Recent {
    timestamp: Timestamp,
    customer_id: String,
    event_name: String,
    endpoint: Option<String>,
    method: Option<String>,
    status_code: Option<String>,
    response_time_ms: Option<f64>,
}

/// What everybody owes: the answer of `GET /_dev/bill`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Bill {
    /// The currency of every amount; `None` while no meter has a price.
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

/// What the page shows.
#[derive(Serialize)]
pub(crate) struct Snapshot<'a> {
    #[serde(flatten)]
    bill: Bill,
    recent: &'a VecDeque<Recent>,
}

impl Ledger {
    /// Takes a stored event into account.
    pub(crate) fn apply(&mut self, call: &Call<'_>) {
        let time = call.metadata.number("response_time_ms");
        self.calls += 1;
        update(&mut self.customers, call.customer_id, |tally| {
            tally.calls += 1;
            if let Some(time) = time {
                tally.latency.record(time);
            }
        });
        if let Some(time) = time {
            self.latency.record(time);
        }
        for &index in self.by_event_name.get(call.event_name).into_iter().flatten() {
            self.meters[index].apply(call);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_back();
        }
        self.recent.push_front(Recent {
            timestamp: call.timestamp,
            customer_id: call.customer_id.to_owned(),
            event_name: call.event_name.to_owned(),
            endpoint: call.metadata.shown("endpoint"),
            method: call.metadata.shown("method"),
            status_code: call.metadata.shown("status_code"),
            response_time_ms: time,
        });
    }

    /// Adds a meter together with what it counts of the events stored before.
    pub(crate) fn add_meter(&mut self, metered: Metered) {
        let indices = self.by_event_name.entry(metered.meter.event_name.clone()).or_default();
        indices.push(self.meters.len());
        self.meters.push(metered);
    }

    /// Every meter, the oldest first.
    pub(crate) fn meters(&self) -> impl DoubleEndedIterator<Item = &Billable> {
        self.meters.iter().map(|metered| &metered.meter)
    }

    /// Every meter with its usage, the oldest first.
    pub(crate) fn metered(&self) -> impl Iterator<Item = &Metered> {
        self.meters.iter()
    }

    pub(crate) fn meter(&self, id: &str) -> Option<&Metered> {
        self.meters.iter().find(|metered| metered.meter.id == id)
    }

    pub(crate) fn meter_mut(&mut self, id: &str) -> Option<&mut Billable> {
        self.meters.iter_mut().map(|metered| &mut metered.meter).find(|meter| meter.id == id)
    }

    /// The one currency that prices are in, other than that of the meter `except`.
    pub(crate) fn currency(&self, except: Option<&str>) -> Option<&str> {
        self.meters()
            .filter(|meter| Some(meter.id.as_str()) != except)
            .find_map(|meter| meter.price.as_ref().map(|price| price.currency.as_str()))
    }

    pub(crate) fn bill(&self) -> Bill {
        self.bill_of(usize::MAX)
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { bill: self.bill_of(SHOWN_CUSTOMERS), recent: &self.recent }
    }

    /// The bill with at most `shown` customers; the totals are over all of them in any case.
    fn bill_of(&self, shown: usize) -> Bill {
        let priced: Vec<(&Metered, &Price)> = self
            .meters
            .iter()
            .filter(|metered| !metered.meter.archived)
            .filter_map(|metered| metered.meter.price.as_ref().map(|price| (metered, price)))
            .collect();
        let mut owed: Vec<(i64, &String, &Tally)> = self
            .customers
            .iter()
            .map(|(customer, tally)| {
                let amount = priced.iter().fold(0_i64, |sum, (metered, price)| {
                    let units = metered.usage.get(customer).map(Aggregate::units);
                    let price = units.map_or(0, |units| billable::total_price(units, price));
                    sum.saturating_add(price)
                });
                (amount, customer, tally)
            })
            .collect();
        owed.sort_unstable_by(|(a, a_id, a_tally), (b, b_id, b_tally)| {
            b.cmp(a).then(b_tally.calls.cmp(&a_tally.calls)).then(a_id.cmp(b_id))
        });
        let requests = self.requests.accepted + self.requests.refused;
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
                .take(shown)
                .map(|(amount, customer, tally)| CustomerBill {
                    customer_id: customer.clone(),
                    calls: tally.calls,
                    p50_ms: tally.latency.percentile(50),
                    p95_ms: tally.latency.percentile(95),
                    amount,
                })
                .collect(),
        }
    }
}

impl Metered {
    pub(crate) fn new(meter: Billable) -> Self {
        Self { meter, usage: HashMap::new() }
    }

    /// Takes a stored event of the meter's name into account, if the meter counts it.
    pub(crate) fn apply(&mut self, call: &Call<'_>) {
        if !self.meter.counts(call.metadata) {
            return;
        }
        let how = &self.meter.aggregation;
        update(&mut self.usage, call.customer_id, |usage: &mut Aggregate| {
            usage.apply(how, call.timestamp, call.metadata);
        });
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
}

/// Runs `change` on the value at `key`, made if missing; the key is copied only then.
fn update<V: Default>(map: &mut HashMap<String, V>, key: &str, change: impl FnOnce(&mut V)) {
    match map.get_mut(key) {
        Some(value) => change(value),
        None => change(map.entry(key.to_owned()).or_default()),
    }
}
