//! The call that is measured, as a host builds it and as it goes over the wire.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use dodo_ingestion::{ApiCall, keys};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// The event name of all calls.
pub(crate) const EVENT_NAME: &str = "api_call";
const ENDPOINT: &str = "/v1/customers/{id}/documents/{document}";
const METHOD: &str = "GET";
const STATUS: u16 = 200;
const RESPONSE_BYTES: u64 = 18_432;
const CUSTOMERS: u64 = 64;

/// A hundred-and-some milliseconds.
fn response_time(number: u64) -> Duration {
    Duration::from_micros(100_000 + number % 50_000)
}

/// The ids of customers, as long as the billing API's own.
#[derive(Debug)]
pub(crate) struct Customers(Vec<String>);

impl Customers {
    pub(crate) fn new() -> Self {
        Self((0..CUSTOMERS).map(|number| format!("cus_9VuW4K7O3GHwasENg{number:03}")).collect())
    }

    fn of(&self, number: u64) -> &str {
        &self.0[(number % CUSTOMERS) as usize]
    }
}

/// The call with this number, as a host hands it over.
pub(crate) fn call(customers: &Customers, number: u64) -> ApiCall {
    ApiCall::new(customers.of(number))
        .endpoint(ENDPOINT)
        .method(METHOD)
        .status_code(STATUS)
        .response_time(response_time(number))
        .response_bytes(RESPONSE_BYTES)
}

/// The same event, in the wire's form, without a copy of anything.
#[derive(Debug)]
struct Wire<'a> {
    timestamp: Option<&'a str>,
    event_id: &'a str,
    customer_id: &'a str,
    number: u64,
}

struct Metadata {
    number: u64,
}

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(timestamp) = self.timestamp {
            map.serialize_entry("timestamp", timestamp)?;
        }
        map.serialize_entry("event_id", self.event_id)?;
        map.serialize_entry("customer_id", self.customer_id)?;
        map.serialize_entry("event_name", EVENT_NAME)?;
        map.serialize_entry("metadata", &Metadata { number: self.number })?;
        map.end()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry(keys::ENDPOINT, ENDPOINT)?;
        map.serialize_entry(keys::METHOD, METHOD)?;
        map.serialize_entry(keys::STATUS_CODE, &STATUS)?;
        let millis = response_time(self.number).as_micros() as f64 / 1e3;
        map.serialize_entry(keys::RESPONSE_TIME_MS, &millis)?;
        map.serialize_entry(keys::RESPONSE_BYTES, &RESPONSE_BYTES)?;
        map.end()
    }
}

/// As long as the core's own ids.
const SAMPLE_ID: &str = "0jk3v8r2e5t7m1x9c4b6n8q0w2000";

/// Appends the event as it is spooled: without a timestamp.
pub(crate) fn write(customers: &Customers, number: u64, buffer: &mut Vec<u8>) -> Result<()> {
    let customer_id = customers.of(number);
    let wire = Wire { timestamp: None, event_id: SAMPLE_ID, customer_id, number };
    Ok(serde_json::to_writer(buffer, &wire)?)
}

/// The body of a request with the calls of these numbers.
pub(crate) fn body(customers: &Customers, numbers: std::ops::Range<u64>) -> Result<Vec<u8>> {
    let timestamp = format!("{:.3}", jiff::Timestamp::try_from(SystemTime::now())?);
    let mut body = br#"{"events":["#.to_vec();
    for number in numbers.clone() {
        if number > numbers.start {
            body.push(b',');
        }
        let event_id = format!("{number:0width$}", width = SAMPLE_ID.len());
        let (timestamp, customer_id) = (Some(&*timestamp), customers.of(number));
        serde_json::to_writer(
            &mut body,
            &Wire { timestamp, event_id: &event_id, customer_id, number },
        )?;
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

/// The bytes of one event as it is spooled.
pub(crate) fn bytes() -> Result<usize> {
    let mut buffer = Vec::new();
    write(&Customers::new(), 1, &mut buffer)?;
    Ok(buffer.len())
}
