//! The values that cross the boundary.

use std::time::{Duration, SystemTime};

use dodo_ingestion::{Event, MetadataValue, OptionValue};

/// An option by the core's name, as it is, for the core to judge.
#[derive(uniffi::Record)]
pub struct Setting {
    /// The option.
    pub name: String,
    /// Its value.
    pub value: SettingValue,
}

/// An option's value.
#[derive(uniffi::Enum)]
pub enum SettingValue {
    /// Text, or the name of a choice.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// A length of time.
    Length(Duration),
}

impl From<SettingValue> for OptionValue {
    fn from(value: SettingValue) -> Self {
        match value {
            SettingValue::Text(text) => Self::Text(text),
            SettingValue::Integer(integer) => Self::Integer(integer),
            SettingValue::Number(number) => Self::Number(number),
            SettingValue::Flag(flag) => Self::Flag(flag),
            SettingValue::Length(length) => Self::Duration(length),
        }
    }
}

/// One metadata pair.
#[derive(uniffi::Record)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: PairValue,
}

/// A metadata value.
#[derive(uniffi::Enum)]
pub enum PairValue {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// What the billing API has no form for, by the name of its type.
    Unsupported(String),
}

impl From<PairValue> for MetadataValue {
    fn from(value: PairValue) -> Self {
        match value {
            PairValue::Text(text) => Self::String(text),
            PairValue::Integer(integer) => Self::Integer(integer.into()),
            PairValue::Number(number) => Self::Double(number),
            PairValue::Flag(flag) => Self::Boolean(flag),
            PairValue::Unsupported(what) => Self::Unsupported(what),
        }
    }
}

/// One billable call.
#[derive(uniffi::Record)]
pub struct Call {
    /// The customer to bill.
    pub customer_id: String,
    /// What the customer's meters filter and sum, in order.
    pub metadata: Vec<Pair>,
    /// The caller's own idempotency key.
    pub event_id: Option<String>,
    /// Another event name than the client's.
    pub event_name: Option<String>,
    /// When it happened; now, if absent.
    pub timestamp: Option<SystemTime>,
}

impl From<Call> for Event {
    fn from(call: Call) -> Self {
        let mut event = Self::new(call.customer_id);
        if let Some(id) = call.event_id {
            event = event.event_id(id);
        }
        if let Some(name) = call.event_name {
            event = event.event_name(name);
        }
        if let Some(time) = call.timestamp {
            event = event.timestamp(time);
        }
        for Pair { key, value } in call.metadata {
            event = event.metadata(key, MetadataValue::from(value));
        }
        event
    }
}
