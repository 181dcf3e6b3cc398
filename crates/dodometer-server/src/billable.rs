//! Billable meters: what is counted of which events, and what a unit costs.
//!
//! A definition is read from a request, checked, and then never changes; only archiving and the
//! price do. Usage is kept in memory as an [`Aggregate`] for each customer and is a function of the
//! stored events alone.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::metadata::Metadata;
use crate::refusal::{Answer, Refusal};
use crate::{decimal, object};

/// A meter as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Billable {
    pub(crate) id: String,
    pub(crate) business_id: &'static str,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) event_name: String,
    pub(crate) measurement_unit: String,
    pub(crate) aggregation: Aggregation,
    pub(crate) filter: Option<Filter>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    #[serde(skip)]
    pub(crate) archived: bool,
    #[serde(skip)]
    pub(crate) price: Option<Price>,
}

impl Billable {
    /// Whether what an event counts for hangs on its metadata.
    pub(crate) fn reads_metadata(&self) -> bool {
        self.filter.is_some() || self.aggregation.key.is_some()
    }

    /// The price, if the meter adds to bills.
    pub(crate) fn billed_price(&self) -> Option<&Price> {
        self.price.as_ref().filter(|_| !self.archived)
    }

    /// Whether it counts an event of its name with this metadata.
    pub(crate) fn counts(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(metadata))
    }
}

/// How events become units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Aggregation {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// The metadata property; unused by `count`.
    #[serde(default)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Count,
    Sum,
    Max,
    Last,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Last => "last",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Count, Self::Sum, Self::Max, Self::Last].into_iter().find(|kind| kind.name() == name)
    }
}

/// What the body of `POST /meters` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Definition {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    pub(crate) event_name: String,
    pub(crate) measurement_unit: String,
    #[serde(deserialize_with = "object::field")]
    pub(crate) aggregation: Aggregation,
    #[serde(default, deserialize_with = "object::optional")]
    pub(crate) filter: Option<Filter>,
}

impl Definition {
    pub(crate) fn read(body: &[u8]) -> Answer<Self> {
        let mut definition: Self = object::read_body(body)?;
        for (field, text) in [
            ("name", &definition.name),
            ("event_name", &definition.event_name),
            ("measurement_unit", &definition.measurement_unit),
        ] {
            if text.is_empty() {
                return Err(Refusal::body(format!("{field} must not be empty")));
            }
        }
        let aggregation = &mut definition.aggregation;
        if aggregation.kind == Kind::Count {
            aggregation.key = None;
        } else if aggregation.key.as_deref().is_none_or(str::is_empty) {
            return Err(Refusal::body(format!(
                "aggregation.key is required for {}",
                aggregation.kind.name()
            )));
        }
        if let Some(filter) = &definition.filter {
            filter.check().map_err(Refusal::body)?;
        }
        Ok(definition)
    }
}

/// What a unit costs. The billing API keeps this on the product; here it belongs to the meter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Price {
    /// In the currency's smallest unit.
    pub(crate) per_unit: Decimal,
    /// Units that cost nothing.
    pub(crate) free_threshold: i64,
    pub(crate) currency: String,
}

impl Price {
    pub(crate) fn read(body: &[u8]) -> Answer<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wire {
            price_per_unit: String,
            #[serde(default)]
            free_threshold: i64,
            #[serde(default = "dollars")]
            currency: String,
        }
        fn dollars() -> String {
            "USD".to_owned()
        }
        let Wire { price_per_unit, free_threshold, currency } = object::read_body(body)?;
        let per_unit = decimal::parse(&price_per_unit)
            .filter(|price| *price >= Decimal::ZERO)
            .ok_or_else(|| {
                Refusal::body(
                    "price_per_unit must be a decimal string such as \"0.02\", not negative",
                )
            })?;
        if free_threshold < 0 {
            return Err(Refusal::body("free_threshold must not be negative"));
        }
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Refusal::body("currency must be three capital letters such as \"USD\""));
        }
        Ok(Self { per_unit, free_threshold, currency })
    }
}

/// The usage of one customer on one meter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Aggregate {
    units: Option<Decimal>,
    /// When the event that `units` came from took place; for `last` only.
    at: Timestamp,
}

impl Aggregate {
    /// Takes one event of the meter's name into account.
    pub(crate) fn apply(&mut self, how: &Aggregation, at: Timestamp, metadata: &Metadata<'_>) {
        let value = match &how.key {
            None => Some(Decimal::ONE),
            Some(key) => metadata.quantity(key),
        };
        let Some(value) = value else { return };
        let (units, at) = match (how.kind, self.units) {
            (_, None) => (value, at),
            (Kind::Count | Kind::Sum, Some(units)) => (units.saturating_add(value), at),
            (Kind::Max, Some(units)) => (units.max(value), at),
            (Kind::Last, Some(_)) if at >= self.at => (value, at),
            (Kind::Last, Some(units)) => (units, self.at),
        };
        *self = Self { units: Some(units), at };
    }

    pub(crate) fn units(&self) -> Decimal {
        self.units.unwrap_or_default()
    }
}

/// Usage and what it costs, as the API reports it.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    pub(crate) customer_id: String,
    consumed_units: String,
    free_threshold: i64,
    chargeable_units: String,
    price_per_unit: Option<String>,
    pub(crate) total_price: i64,
}

impl Usage {
    pub(crate) fn new(customer_id: &str, units: Decimal, price: Option<&Price>) -> Self {
        let free_threshold = price.map_or(0, |price| price.free_threshold);
        Self {
            customer_id: customer_id.to_owned(),
            consumed_units: decimal::show(units),
            free_threshold,
            chargeable_units: decimal::show(chargeable(units, free_threshold)),
            price_per_unit: price.map(|price| decimal::show(price.per_unit)),
            total_price: price.map_or(0, |price| total_price(units, price)),
        }
    }
}

pub(crate) fn chargeable(units: Decimal, free_threshold: i64) -> Decimal {
    units.saturating_sub(free_threshold.into()).max(Decimal::ZERO)
}

/// What `units` cost, in whole smallest currency units.
pub(crate) fn total_price(units: Decimal, price: &Price) -> i64 {
    decimal::to_smallest_units(
        chargeable(units, price.free_threshold).saturating_mul(price.per_unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(kind: Kind, events: &[(i64, &str)]) -> String {
        let key = (kind != Kind::Count).then(|| "n".to_owned());
        let how = Aggregation { kind, key };
        let mut aggregate = Aggregate::default();
        for (second, metadata) in events {
            let metadata = serde_json::from_str(metadata).unwrap();
            aggregate.apply(&how, Timestamp::from_second(*second).unwrap(), &metadata);
        }
        decimal::show(aggregate.units())
    }

    #[test]
    fn each_aggregation_reads_its_key() {
        let events = [
            (10, r#"{"n":3}"#),
            (30, r#"{"n":1.25}"#),
            (20, r#"{"n":"2"}"#),
            (40, r#"{"n":true}"#),
            (50, r#"{"m":9}"#),
            (60, r#"{"n":"many"}"#),
        ];
        assert_eq!(units(Kind::Count, &events), "6");
        assert_eq!(units(Kind::Sum, &events), "6.25");
        assert_eq!(units(Kind::Max, &events), "3");
        assert_eq!(units(Kind::Last, &events), "1.25", "the latest by time, not by arrival");
        assert_eq!(units(Kind::Max, &[(1, r#"{"n":-2}"#)]), "-2");
        assert_eq!(units(Kind::Sum, &[]), "0");
    }

    #[test]
    fn prices_begin_after_the_free_threshold() {
        let price = Price::read(br#"{"price_per_unit":"0.5","free_threshold":100}"#).unwrap();
        for (units, total) in [(0, 0), (100, 0), (101, 1), (102, 1), (103, 2), (-5, 0)] {
            assert_eq!(total_price(Decimal::from(units), &price), total, "{units}");
        }
        assert_eq!(total_price(Decimal::MAX, &price), i64::MAX);
        for bad in [
            r"{}",
            r#"{"price_per_unit":0.5}"#,
            r#"{"price_per_unit":"-1"}"#,
            r#"{"price_per_unit":"1","free_threshold":-1}"#,
            r#"{"price_per_unit":"1","currency":"usd"}"#,
            r#"{"price_per_unit":"1","curency":"USD"}"#,
        ] {
            assert_eq!(Price::read(bad.as_bytes()).unwrap_err().status(), 422, "{bad}");
        }
    }
}
