//! Usage: of a meter by customer, of a customer by meter, and of a stretch of time.
//!
//! Usage of all time is kept in the ledger. That of a period is added up from the stored events; both are
//! the same function of the events.

use jiff::Timestamp;
use serde::Serialize;

use super::{Meter, no_such_meter};
use crate::billable::{Billable, Usage};
use crate::ledger::Metered;
use crate::refusal::Answer;
use crate::store::{Period, Selection};

/// The usage of a meter by customer.
#[derive(Debug, Serialize)]
pub(crate) struct MeterUsage {
    meter_id: String,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    currency: Option<String>,
    items: Vec<Usage>,
}

/// The usage of a customer by meter.
#[derive(Debug, Serialize)]
pub(crate) struct CustomerUsage {
    customer_id: String,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    currency: Option<String>,
    total_price: i64,
    items: Vec<UsageOfMeter>,
}

#[derive(Debug, Serialize)]
struct UsageOfMeter {
    meter_id: String,
    name: String,
    event_name: String,
    measurement_unit: String,
    #[serde(flatten)]
    usage: Usage,
}

impl Meter {
    /// The usage of a meter in a period, of one customer or of all that it counted any of.
    pub(crate) fn usage(
        &self,
        id: &str,
        customer: Option<&str>,
        period: Period,
    ) -> Answer<MeterUsage> {
        let (meter, items) = if period.is_all() {
            let ledger = self.ledger();
            let metered = ledger.meter(id).ok_or_else(no_such_meter)?;
            (metered.meter.clone(), metered.usage(customer))
        } else {
            let mut metered = Metered::new(self.meter(id)?);
            let of = Selection {
                customer_id: customer.map(ToOwned::to_owned),
                event_name: Some(metered.meter.event_name.clone()),
                period,
                ..Selection::default()
            };
            let with_metadata = metered.meter.reads_metadata();
            self.inner.store.scan(&of, with_metadata, |call| {
                metered.apply(call);
            })?;
            let items = metered.usage(customer);
            (metered.meter, items)
        };
        Ok(MeterUsage {
            meter_id: meter.id,
            start: period.start,
            end: period.end,
            currency: meter.price.map(|price| price.currency),
            items,
        })
    }

    /// What a customer used of each meter that is not archived.
    pub(crate) fn usage_of_customer(
        &self,
        customer: String,
        period: Period,
    ) -> Answer<CustomerUsage> {
        let ledger = self.ledger();
        let currency = ledger.currency(None).map(ToOwned::to_owned);
        let live = ledger.metered().filter(|metered| !metered.meter.archived);
        let mut items = Vec::new();
        let mut take = |metered: &Metered| {
            let usage = metered.usage(Some(&customer));
            items.extend(usage.into_iter().map(|usage| UsageOfMeter::new(&metered.meter, usage)));
        };
        if period.is_all() {
            live.for_each(take);
        } else {
            let mut live: Vec<_> = live.map(|live| Metered::new(live.meter.clone())).collect();
            drop(ledger);
            let customer_id = Some(customer.clone());
            let of = Selection { customer_id, period, ..Selection::default() };
            self.inner.store.scan(&of, true, |call| {
                let named = live.iter_mut().filter(|one| one.meter.event_name == call.event_name);
                for metered in named {
                    metered.apply(call);
                }
            })?;
            live.iter().for_each(&mut take);
        }
        Ok(CustomerUsage {
            start: period.start,
            end: period.end,
            currency,
            total_price: items
                .iter()
                .fold(0, |sum: i64, item| sum.saturating_add(item.usage.total_price)),
            items,
            customer_id: customer,
        })
    }
}

impl UsageOfMeter {
    fn new(meter: &Billable, usage: Usage) -> Self {
        Self {
            meter_id: meter.id.clone(),
            name: meter.name.clone(),
            event_name: meter.event_name.clone(),
            measurement_unit: meter.measurement_unit.clone(),
            usage,
        }
    }
}
