//! A view: everything that the page draws for one choice of customer, endpoint and period.
//!
//! What happened (calls, errors, times) is of the chosen period and filter, from the roll-up. What is
//! owed is not: an invoice is for all that a customer used since the data begins, whatever the
//! period and endpoint looked at.

use std::collections::HashMap;
use std::hash::Hash;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::names::{Names, Symbol};
use super::recent::Recent;
use super::requests::Refused;
use super::rollup::{Cell, Key, TIERS, start_of};
use super::{Call, Ledger};
use crate::billable::{self, Billable};
use crate::decimal;
use crate::latency::{Latency, Sum};

/// How many lines a table has; what follows is only counted.
const ROWS: usize = 100;
/// How many events are listed.
pub(crate) const NEWEST: usize = 25;
/// The requests a minute that the billing API publishes as a key's budget.
const BUDGET: u32 = crate::RateLimit::PUBLISHED.per_minute;
/// The present rate is that of about so many seconds.
const RATE_SECONDS: i64 = 10;

/// What to look at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    pub(crate) customer: Option<String>,
    #[serde(default)]
    pub(crate) endpoint: Option<String>,
    #[serde(default)]
    pub(crate) period: Period,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Period {
    #[serde(rename = "5m")]
    FiveMinutes,
    #[default]
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "30d")]
    Month,
    #[serde(rename = "all")]
    All,
}

/// The answer of `GET /_dev/view`.
#[derive(Serialize)]
pub(crate) struct View {
    now: Timestamp,
    filter: Filter,
    currency: Option<String>,
    /// Events stored, whatever the filter.
    stored: u64,
    /// Whether the chosen endpoint is one that there was no room to tell apart: the figures are then of no
    /// call, and its own are among those of the others.
    among_others: bool,
    totals: Totals,
    series: Series,
    customers: Table,
    endpoints: Table,
    methods: Table,
    statuses: Table,
    events: Table,
    meters: Vec<MeterView>,
    pub(crate) newest: Vec<Recent>,
    requests: RequestsView,
    choices: Choices,
}

#[derive(Serialize)]
struct Totals {
    #[serde(flatten)]
    sums: Sums,
    calls_per_second: f64,
    /// What the chosen customer, or everybody, owes.
    amount: i64,
}

/// What is said of any number of calls.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Sums {
    calls: u64,
    billed: u64,
    /// Calls with a status.
    answered: u64,
    /// Calls with a status of 500 or more.
    errors: u64,
    /// Calls with a status from 400 to 499.
    client_errors: u64,
    bytes: u64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// [`Sums`] over time: an array for each, and when each of their entries begins.
#[derive(Default, Serialize)]
struct Series {
    /// Seconds from one entry to the next.
    width: i64,
    starts: Vec<i64>,
    billed: Vec<u64>,
    not_billed: Vec<u64>,
    answered: Vec<u64>,
    errors: Vec<u64>,
    client_errors: Vec<u64>,
    p50_ms: Vec<Option<f64>>,
    p95_ms: Vec<Option<f64>>,
    p99_ms: Vec<Option<f64>>,
}

/// [`Sums`] by something, the most calls first.
#[derive(Serialize)]
struct Table {
    rows: Vec<Line>,
    /// Lines that are not shown.
    more: usize,
}

#[derive(Serialize)]
struct Line {
    /// `None` where calls have none, and where they are of no particular one.
    name: Option<String>,
    /// Whether these are the calls that there was no room to tell apart.
    other: bool,
    #[serde(flatten)]
    sums: Sums,
    /// What a customer owes.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
}

#[derive(Serialize)]
struct MeterView {
    #[serde(flatten)]
    meter: Billable,
    archived: bool,
    price_per_unit: Option<String>,
    currency: Option<String>,
    /// For each customer.
    free_threshold: i64,
    customers: usize,
    consumed_units: String,
    chargeable_units: String,
    amount: i64,
}

#[derive(Serialize)]
struct RequestsView {
    accepted: u64,
    refused: u64,
    duplicates: u64,
    last_minute: u64,
    budget: u32,
    refusals: Vec<Refused>,
}

/// What a filter may be set to, as far as that fits a list.
#[derive(Serialize)]
struct Choices {
    customers: Vec<String>,
    endpoints: Vec<String>,
}

impl Filter {
    /// The filter that a query string means: an empty text is none.
    pub(crate) fn tidy(self) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self { customer: given(self.customer), endpoint: given(self.endpoint), ..self }
    }

    /// The first moment looked at.
    pub(crate) fn from(&self, now: Timestamp) -> Option<Timestamp> {
        let (width, length) = self.period.shape()?;
        Timestamp::from_second(start_of(now.as_second() - length, width) + width).ok()
    }
}

impl Period {
    /// The width of an entry and the length of the period, in seconds.
    fn shape(self) -> Option<(i64, i64)> {
        let lengths = [300, 3600, 24 * 3600, 30 * 24 * 3600];
        let index = self as usize;
        Some((TIERS[index].0, *lengths.get(index)?))
    }
}

/// Some cells, summed up but for their times.
#[derive(Default)]
struct Group<'l> {
    sums: Sums,
    times: Vec<&'l Latency>,
}

impl<'l> Group<'l> {
    fn add(&mut self, key: &Key, cell: &'l Cell, billed: bool) {
        let Sums { calls, billed: all_billed, answered, errors, client_errors, bytes, .. } =
            &mut self.sums;
        *calls += cell.calls;
        *bytes = bytes.saturating_add(cell.bytes);
        *all_billed += if billed { cell.calls } else { 0 };
        if let Some(status) = key.status {
            *answered += cell.calls;
            match status {
                500.. => *errors += cell.calls,
                400..500 => *client_errors += cell.calls,
                _ => {}
            }
        }
        self.times.push(&cell.latency);
    }

    fn close(self, sum: &mut Sum) -> Sums {
        let [p50_ms, p95_ms, p99_ms] = sum.percentiles(self.times, [50, 95, 99]);
        Sums { p50_ms, p95_ms, p99_ms, ..self.sums }
    }
}

type Groups<'l, K> = HashMap<K, Group<'l>>;

impl Ledger {
    /// What the page draws. It tells the ledger the time, as [`Ledger::advance`] does.
    pub(crate) fn view(&mut self, filter: &Filter, now: Timestamp) -> View {
        self.advance(now);
        let this: &Self = self;
        let second = now.as_second();
        let billing =
            this.counted_by.any(|meter| this.meters[meter].meter.billed_price().is_some());
        let wanted =
            |names: &Names, text: &Option<String>| text.as_deref().map(|text| names.find(text));
        let customer = wanted(&this.customers, &filter.customer);
        // A customer always has a name, so that one who is not known matches nothing; an endpoint may
        // have none.
        let endpoint = wanted(&this.endpoints, &filter.endpoint);
        let among_others = endpoint == Some(Symbol::OTHER);
        let nothing = among_others || endpoint == Some(Symbol::NONE);
        let from = filter.from(now).map_or(i64::MIN, Timestamp::as_second);
        let (width, first) = this.scale(filter, second);
        let points = ((start_of(second, width) - first) / width + 1).max(1) as usize;

        let mut total = Group::default();
        let mut over_time: Vec<Group<'_>> = (0..points).map(|_| Group::default()).collect();
        let (mut customers, mut endpoints, mut methods) =
            (Groups::default(), Groups::default(), Groups::default());
        let (mut statuses, mut events) = (Groups::default(), Groups::default());
        let rate_from = start_of(second, TIERS[0].0) - RATE_SECONDS;
        let mut of_late = 0;
        for (start, key, cell) in this.rollup.since(from) {
            if nothing
                || customer.is_some_and(|customer| customer != key.customer)
                || endpoint.is_some_and(|endpoint| endpoint != key.endpoint)
            {
                continue;
            }
            let billed = billing.get(key.counted_by as usize).copied().unwrap_or(false);
            let point = ((start - first) / width).clamp(0, points as i64 - 1) as usize;
            for group in [
                &mut total,
                &mut over_time[point],
                customers.entry(key.customer).or_default(),
                endpoints.entry(key.endpoint).or_default(),
                methods.entry(key.method).or_default(),
                events.entry(key.event_name).or_default(),
                statuses.entry(key.status).or_default(),
            ] {
                group.add(key, cell, billed);
            }
            if start >= rate_from {
                of_late += cell.calls;
            }
        }

        let mut sum = Sum::new();
        let mut series = Series { width, ..Series::default() };
        for (index, group) in over_time.into_iter().enumerate() {
            series.push(first + index as i64 * width, &group.close(&mut sum));
        }
        let named = |names: &Names, symbol: Symbol| {
            (names.text(symbol).map(ToOwned::to_owned), symbol == Symbol::OTHER)
        };
        let status = |status: Option<u16>| (status.map(|status| status.to_string()), false);
        let mut customers = table(customers, &mut sum, |of| named(&this.customers, of));
        for line in &mut customers.rows {
            line.amount = line.name.as_deref().map(|customer| this.amount(customer));
        }
        let meters: Vec<_> =
            this.meters.iter().map(|metered| MeterView::of(metered, filter)).collect();
        View {
            now,
            filter: filter.clone(),
            currency: this.currency(None).map(ToOwned::to_owned),
            stored: this.calls,
            among_others,
            totals: Totals {
                sums: total.close(&mut sum),
                calls_per_second: of_late as f64 / (second - rate_from).max(1) as f64,
                amount: meters
                    .iter()
                    .filter(|meter| !meter.archived)
                    .fold(0, |sum: i64, meter| sum.saturating_add(meter.amount)),
            },
            series,
            customers,
            endpoints: table(endpoints, &mut sum, |of| named(&this.endpoints, of)),
            methods: table(methods, &mut sum, |of| named(&this.methods, of)),
            statuses: table(statuses, &mut sum, status),
            events: table(events, &mut sum, |of| named(&this.event_names, of)),
            meters,
            newest: this.newest(filter, now, &billing),
            requests: RequestsView {
                accepted: this.requests.accepted,
                refused: this.requests.refused,
                duplicates: this.requests.duplicates,
                last_minute: this.requests.in_the_last_minute(second),
                budget: BUDGET,
                refusals: this.requests.refusals().iter().cloned().collect(),
            },
            choices: Choices {
                customers: this.busiest(ROWS).into_iter().map(ToOwned::to_owned).collect(),
                endpoints: this.endpoints.iter().map(|(_, text)| text.to_owned()).collect(),
            },
        }
    }

    /// The width of the series' entries and when the first one begins.
    fn scale(&self, filter: &Filter, now: i64) -> (i64, i64) {
        if let Some((width, length)) = filter.period.shape() {
            return (width, start_of(now - length, width) + width);
        }
        let first = self.rollup.first().unwrap_or(now);
        let fits = |&&(_, keep): &&(i64, i64)| first >= now.saturating_sub(keep);
        let width = TIERS.iter().find(fits).unwrap_or(&TIERS[TIERS.len() - 1]).0;
        (width, start_of(first, width))
    }

    /// The newest of the events that are kept, as far as the filter lets them through.
    fn newest(&self, filter: &Filter, now: Timestamp, billing: &[bool]) -> Vec<Recent> {
        self.recents
            .iter()
            .filter(|(line, _)| filter.passes(line, now))
            .take(NEWEST)
            .map(|(line, counted_by)| {
                let billed = billing.get(*counted_by as usize).copied().unwrap_or(false);
                line.clone().billed(billed)
            })
            .collect()
    }

    /// An event as the page lists it, with the meters and prices of now.
    pub(crate) fn recent(&self, call: &Call<'_>) -> Recent {
        Recent::of(call).billed(self.is_billed(call))
    }
}

impl Filter {
    pub(crate) fn passes(&self, line: &Recent, now: Timestamp) -> bool {
        self.customer.as_ref().is_none_or(|customer| *customer == line.customer_id)
            && (self.endpoint.is_none() || self.endpoint == line.endpoint)
            && self.from(now).is_none_or(|from| line.timestamp >= from)
    }
}

impl Series {
    fn push(&mut self, start: i64, sums: &Sums) {
        self.starts.push(start);
        self.billed.push(sums.billed);
        self.not_billed.push(sums.calls - sums.billed);
        self.answered.push(sums.answered);
        self.errors.push(sums.errors);
        self.client_errors.push(sums.client_errors);
        self.p50_ms.push(sums.p50_ms);
        self.p95_ms.push(sums.p95_ms);
        self.p99_ms.push(sums.p99_ms);
    }
}

impl MeterView {
    fn of(metered: &super::Metered, filter: &Filter) -> Self {
        let mut view = Self {
            meter: metered.meter.clone(),
            archived: metered.meter.archived,
            price_per_unit: None,
            currency: None,
            free_threshold: 0,
            customers: 0,
            consumed_units: String::new(),
            chargeable_units: String::new(),
            amount: 0,
        };
        let price = metered.meter.price.as_ref();
        if let Some(price) = price {
            view.price_per_unit = Some(decimal::show(price.per_unit));
            view.currency = Some(price.currency.clone());
            view.free_threshold = price.free_threshold;
        }
        let (mut consumed, mut chargeable) = (Decimal::ZERO, Decimal::ZERO);
        for units in metered.units(filter.customer.as_deref()).map(|usage| usage.units()) {
            view.customers += 1;
            consumed = consumed.saturating_add(units);
            chargeable =
                chargeable.saturating_add(billable::chargeable(units, view.free_threshold));
            if let Some(price) = price {
                view.amount = view.amount.saturating_add(billable::total_price(units, price));
            }
        }
        view.consumed_units = decimal::show(consumed);
        view.chargeable_units = decimal::show(chargeable);
        view
    }
}

/// The groups as lines, the most calls first; only those that are shown get percentiles.
fn table<K: Copy + Eq + Hash>(
    groups: Groups<'_, K>,
    sum: &mut Sum,
    name: impl Fn(K) -> (Option<String>, bool),
) -> Table {
    let count = groups.len();
    let mut groups: Vec<_> = groups.into_iter().map(|(key, group)| (name(key), group)).collect();
    groups.sort_by(|((a, _), a_group), ((b, _), b_group)| {
        b_group.sums.calls.cmp(&a_group.sums.calls).then_with(|| a.cmp(b))
    });
    let line = |((name, other), group): ((Option<String>, bool), Group<'_>)| Line {
        name,
        other,
        sums: group.close(sum),
        amount: None,
    };
    let rows: Vec<_> = groups.into_iter().take(ROWS).map(line).collect();
    Table { more: count - rows.len(), rows }
}
