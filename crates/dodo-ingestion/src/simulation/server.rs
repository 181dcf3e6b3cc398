//! A model of the billing API, written from its documentation alone: no rule of it is the core's.
//!
//! It keeps what was billed, and notes what a right client never sends. It loses nothing and delays
//! nothing; that is the network's part.

mod request;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use serde_json::{Value, json};

use request::{Event, read_request};

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;
const MAX_AGE_MS: i64 = 60 * MINUTE_MS;
const MAX_AHEAD_MS: i64 = 5 * MINUTE_MS;

/// What the documentation leaves open, and what the server can be made to do.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// 400, 404 or 422.
    pub(crate) unknown_customer_status: u16,
    /// Whether `ingested_count` counts ids that were there already.
    pub(crate) counts_known: bool,
    /// For how long an id is remembered; for ever if `None`.
    pub(crate) remembers_ms: Option<i64>,
    /// Whether the age of an event is checked even if its id is known.
    pub(crate) age_before_id: bool,
    pub(crate) max_body: usize,
    /// Requests a minute and a second for each key.
    pub(crate) per_minute: usize,
    pub(crate) per_second: usize,
    pub(crate) keys: BTreeSet<String>,
    /// Customers whose id begins with one of these do not exist.
    pub(crate) unknown_customers: BTreeSet<String>,
    /// Ids of events that are refused with 400.
    pub(crate) poisoned: BTreeSet<String>,
    /// Ids of events with which any request is answered `failing_status`, and nothing of it taken.
    pub(crate) failing_ids: BTreeSet<String>,
    /// Customers on any call of whom the same happens.
    pub(crate) failing_customers: BTreeSet<String>,
    /// 500, or 403 as a firewall answers.
    pub(crate) failing_status: u16,
    /// Everything is refused, with `refusal_status`.
    pub(crate) refuses_all: bool,
    /// 400, or 413 whatever the size.
    pub(crate) refusal_status: u16,
    /// How far the server's clock is ahead of the true time.
    pub(crate) skew_ms: i64,
}

impl ServerOptions {
    /// Whether there are calls that are kept for good.
    pub(crate) fn fails_on_some(&self) -> bool {
        !self.failing_ids.is_empty() || !self.failing_customers.is_empty()
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            unknown_customer_status: 400,
            counts_known: false,
            remembers_ms: None,
            age_before_id: true,
            max_body: 1 << 20,
            per_minute: 100,
            per_second: 10,
            keys: BTreeSet::new(),
            unknown_customers: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            failing_ids: BTreeSet::new(),
            failing_customers: BTreeSet::new(),
            failing_status: 500,
            refuses_all: false,
            refusal_status: 400,
            skew_ms: 0,
        }
    }
}

/// A response; the names of the headers are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// One commit of an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Billing {
    /// The true time.
    pub(crate) at: i64,
    pub(crate) stamp: i64,
    pub(crate) customer: String,
    /// As it was sent, without its timestamp.
    pub(crate) event: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Ingest,
    Lookup,
}

/// A request that reached the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The true time.
    pub(crate) at: i64,
    pub(crate) key: String,
    pub(crate) call: Call,
    /// What it was answered.
    pub(crate) status: u16,
}

/// The billing API.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) options: ServerOptions,
    /// Every commit of every id.
    pub(crate) billed: BTreeMap<String, Vec<Billing>>,
    /// In the order of their arrival; refused ones too.
    pub(crate) arrivals: Vec<Arrival>,
    /// What a right client never does.
    pub(crate) violations: Vec<String>,
    /// How often each thing was answered that is not a plain acknowledgement.
    pub(crate) fired: BTreeMap<&'static str, u64>,
    /// Each id's data when it was first sent.
    sent: BTreeMap<String, Value>,
    rng: Rng,
}

/// A status, the API's code for it, words, and what it is counted as.
type Refusal = (u16, &'static str, String, &'static str);

fn invalid(message: impl Into<String>) -> Refusal {
    (400, "INVALID_REQUEST_PARAMETERS", message.into(), "invalid request")
}

impl Server {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            options: ServerOptions::default(),
            billed: BTreeMap::new(),
            arrivals: Vec::new(),
            violations: Vec::new(),
            fired: BTreeMap::new(),
            sent: BTreeMap::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// `POST /events/ingest`, at a true time.
    pub(crate) fn ingest(&mut self, now_ms: i64, key: &str, body: &[u8]) -> HttpAnswer {
        let wait_ms = self.arrive(now_ms, key, Call::Ingest);
        let request = read_request(body);
        self.inspect(&request);
        let result = self
            .admit(key, wait_ms)
            .and_then(|()| self.check_size(body))
            .and(request)
            .and_then(|events| self.commit(now_ms, events));
        self.answer(now_ms, key, wait_ms, result)
    }

    /// `GET /events/{id}`, at a true time.
    pub(crate) fn lookup(&mut self, now_ms: i64, key: &str, id: &str) -> HttpAnswer {
        let wait_ms = self.arrive(now_ms, key, Call::Lookup);
        let result = self.admit(key, wait_ms).and_then(|()| {
            if id.is_empty() {
                let words = "the id is empty".to_owned();
                return Err((422, "INVALID_REQUEST_PARAMETERS", words, "invalid request"));
            }
            let Some(billing) = self.billed.get(id).and_then(|billings| billings.last()) else {
                let words = "no such event".to_owned();
                return Err((404, "NOT_FOUND", words, "look-up answered 404"));
            };
            let stamp = jiff::Timestamp::from_millisecond(billing.stamp).unwrap();
            Ok(json!({
                "business_id": "bus_simulated",
                "customer_id": billing.customer,
                "event_id": id,
                "event_name": billing.event["event_name"],
                "timestamp": stamp.to_string(),
                "metadata": billing.event["metadata"],
            }))
        });
        if result.is_ok() {
            self.fire("look-up answered 200");
        }
        self.answer(now_ms, key, wait_ms, result)
    }

    fn fire(&mut self, what: &'static str) {
        *self.fired.entry(what).or_default() += 1;
    }

    /// Counts a request. How long the key has to wait before one is taken: 0 if this one is.
    fn arrive(&mut self, at: i64, key: &str, call: Call) -> i64 {
        let wait_ms = |window_ms: i64, limit: usize| {
            let within = self.arrivals_within(at, key, window_ms);
            let Some(blocking) = within.len().checked_sub(limit) else { return 0 };
            within.get(blocking).map_or(window_ms, |oldest| oldest + window_ms - at)
        };
        let minute = wait_ms(MINUTE_MS, self.options.per_minute);
        let second = wait_ms(SECOND_MS, self.options.per_second);
        self.arrivals.push(Arrival { at, key: key.to_owned(), call, status: 0 });
        minute.max(second)
    }

    /// When a key's requests of the time before `now_ms` came, oldest first.
    fn arrivals_within(&self, now_ms: i64, key: &str, window_ms: i64) -> Vec<i64> {
        let recent = self.arrivals.iter().rev().take_while(|one| one.at > now_ms - window_ms);
        let mut times: Vec<i64> = recent.filter(|one| one.key == key).map(|one| one.at).collect();
        times.reverse();
        times
    }

    fn admit(&self, key: &str, wait_ms: i64) -> Result<(), Refusal> {
        if wait_ms > 0 {
            Err((429, "TOO_MANY_REQUESTS", "slow down".to_owned(), "429"))
        } else if self.options.keys.contains(key) {
            Ok(())
        } else {
            Err((401, "UNAUTHORIZED", "missing or invalid API key".to_owned(), "401"))
        }
    }

    fn check_size(&self, body: &[u8]) -> Result<(), Refusal> {
        if body.len() > self.options.max_body {
            return Err((413, "PAYLOAD_TOO_LARGE", "the request is too large".to_owned(), "413"));
        }
        Ok(())
    }

    /// Notes what is wrong with a request whatever becomes of it.
    fn inspect(&mut self, request: &Result<Vec<Event>, Refusal>) {
        let events = match request {
            Ok(events) => events,
            Err((_, _, words, _)) => {
                self.violations.push(format!("not the API's form: {words}"));
                return;
            }
        };
        let mut ids = BTreeSet::new();
        for event in events {
            if !ids.insert(&event.id) {
                self.violations.push(format!("{} is in one request twice", event.id));
            }
            let data = caller_data(&event.json);
            let first = self.sent.entry(event.id.clone()).or_insert_with(|| data.clone());
            if *first != data {
                self.violations.push(format!("{} was {first} and became {data}", event.id));
            }
        }
    }

    fn commit(&mut self, now_ms: i64, events: Vec<Event>) -> Result<Value, Refusal> {
        let options = &self.options;
        let clock_ms = now_ms + options.skew_ms;
        let has = |ids: &BTreeSet<String>| events.iter().any(|event| ids.contains(&event.id));
        let fails_on = |event: &Event| options.failing_customers.contains(&event.customer);
        if has(&options.failing_ids) || events.iter().any(fails_on) {
            return Err(if options.failing_status == 403 {
                (403, "FORBIDDEN", "access denied".to_owned(), "event answered 403")
            } else {
                let words = "try again later".to_owned();
                (500, "INTERNAL_SERVER_ERROR", words, "event answered 500")
            });
        }
        if options.refuses_all && options.refusal_status == 413 {
            let words = "any request is too large".to_owned();
            return Err((413, "PAYLOAD_TOO_LARGE", words, "413 of everything"));
        }
        if options.refuses_all || has(&options.poisoned) {
            let (status, code, words, _) = invalid("an event is invalid");
            let all = options.refuses_all;
            let what = if all { "refusal of everything" } else { "poisoned event" };
            return Err((status, code, words, what));
        }
        let mut ids = BTreeSet::new();
        let mut new = Vec::new();
        let sent = events.len();
        for event in events {
            if !ids.insert(event.id.clone()) {
                return Err(invalid("duplicate event ids in the request"));
            }
            if options.unknown_customers.iter().any(|prefix| event.customer.starts_with(prefix)) {
                let (code, what) = match options.unknown_customer_status {
                    404 => ("NOT_FOUND", "unknown customer 404"),
                    422 => ("INVALID_REQUEST_BODY", "unknown customer 422"),
                    _ => ("INVALID_REQUEST_PARAMETERS", "unknown customer 400"),
                };
                let words = "the customer does not exist".to_owned();
                return Err((options.unknown_customer_status, code, words, what));
            }
            let known = self.remembers(now_ms, &event.id);
            let stamp = event.stamp.unwrap_or(clock_ms);
            if (options.age_before_id || !known)
                && !(clock_ms - MAX_AGE_MS..=clock_ms + MAX_AHEAD_MS).contains(&stamp)
            {
                return Err(invalid("a timestamp is outside of the window"));
            }
            if !known {
                let (customer, json) = (event.customer, event.json);
                new.push((event.id, Billing { at: now_ms, stamp, customer, event: json }));
            }
        }
        let count = if options.counts_known { sent } else { new.len() };
        if options.skew_ms != 0 {
            self.fire("skewed server");
        }
        for (id, billing) in new {
            if self.billed.contains_key(&id) {
                self.fire("forgotten id");
            }
            self.billed.entry(id).or_default().push(billing);
        }
        Ok(json!({ "ingested_count": count }))
    }

    fn remembers(&self, now_ms: i64, id: &str) -> bool {
        let last = self.billed.get(id).and_then(|billings| billings.last());
        last.is_some_and(|last| {
            self.options.remembers_ms.is_none_or(|for_ms| now_ms - last.at < for_ms)
        })
    }

    fn answer(
        &mut self,
        now_ms: i64,
        key: &str,
        wait_ms: i64,
        result: Result<Value, Refusal>,
    ) -> HttpAnswer {
        let (status, body) = match result {
            Ok(body) => (200, body),
            Err((status, code, message, what)) => {
                self.fire(what);
                (status, json!({ "code": code, "message": message }))
            }
        };
        if let Some(arrival) = self.arrivals.last_mut() {
            arrival.status = status;
        }
        let used = self.arrivals_within(now_ms, key, MINUTE_MS).len();
        let remaining = self.options.per_minute.saturating_sub(used);
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("date".to_owned(), self.date(now_ms)),
            ("x-ratelimit-remaining".to_owned(), remaining.to_string()),
        ];
        // The documentation says that they may be there.
        if status == 429 && self.rng.bool() {
            let seconds = (wait_ms + SECOND_MS - 1) / SECOND_MS;
            headers.push(("retry-after".to_owned(), seconds.to_string()));
        }
        if status == 429 && self.rng.bool() {
            self.fire("retry-after-ms");
            headers.push(("retry-after-ms".to_owned(), wait_ms.to_string()));
        }
        if matches!(status, 429 | 500..=599) && self.rng.bool() {
            let retry = self.rng.bool();
            self.fire(if retry { "x-should-retry true" } else { "x-should-retry false" });
            headers.push(("x-should-retry".to_owned(), retry.to_string()));
        }
        HttpAnswer { status, headers, body: body.to_string().into_bytes() }
    }

    /// By the server's clock.
    fn date(&self, now_ms: i64) -> String {
        let clock_ms = u64::try_from(now_ms + self.options.skew_ms).unwrap_or(0);
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(clock_ms))
    }
}

/// What of an event is the caller's and never changes: all but what a client may add at an attempt,
/// which is where in time the event was before its timestamp was moved.
pub(crate) fn caller_data(event: &Value) -> Value {
    let mut data = event.clone();
    let Some(fields) = data.as_object_mut() else { return data };
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("original_timestamp");
    }
    if fields.get("metadata").is_some_and(|metadata| *metadata == json!({})) {
        fields.remove("metadata");
    }
    data
}
