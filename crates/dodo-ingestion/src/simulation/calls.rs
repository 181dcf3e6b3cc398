//! What callers hand over.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::oracle::{End, Number};
use super::scenario::UNKNOWN;
use super::world::{Event, World};
use crate::error::ErrorKind;
use crate::event::ApiCall;
use crate::spool::Draft;

impl World {
    pub(super) fn track_some(&mut self, number: u32) {
        let Some(process) = self.processes.get(&number).filter(|_| self.troubled) else { return };
        let stopped_ms = process.stopped_until - self.now;
        if stopped_ms > 0 {
            return self.plan(stopped_ms, Event::Track(number));
        }
        let calls = self.rng.u32(1..=self.scenario.most_at_once);
        for _ in 0..calls {
            self.track(number);
        }
        if self.rng.u8(..5) == 0 {
            self.flush(number);
        }
        self.bury(number);
        let next = self.rng.i64(10..4_000);
        self.plan(next, Event::Track(number));
    }

    fn track(&mut self, process: u32) {
        let again = self.rng.f64() < self.scenario.twice && self.oracle.next_number() > 0;
        let number = if again {
            self.rng.u64(..self.oracle.next_number())
        } else {
            self.oracle.next_number()
        };
        let (call, end) = self.call(number);
        if again && call.id().is_none() {
            return;
        }
        if again {
            self.oracle.attempted_again(number);
        } else {
            let data = json!({
                "customer_id": call.customer, "event_name": "api_call", "metadata": call.metadata,
            });
            self.oracle.attempted(data, end);
        }
        let delay = Duration::from_millis(self.rng.u64(..4_000));
        let now = self.clocks();
        let Some(process) = self.processes.get_mut(&process) else { return };
        let (event, shared) = (call.event().into(), &process.shared);
        let at_once = number % 2 == 0;
        let accepted = at_once.then(|| shared.try_accept(&event, "api_call", delay, now)).flatten();
        match accepted.unwrap_or_else(|| shared.accept(&event, "api_call", delay, now)) {
            Ok((id, seq)) => {
                self.oracle.accepted(number);
                let spool = process.shared.writer.dir();
                self.oracle.excuse_headless(&self.machine, &spool, number);
                process.receipts.push_back((seq, number));
                process.next = process.next.min(self.now + delay.as_millis() as i64);
                self.note("", || format!("call {number} accepted as {id}"));
            }
            Err(error) if error.kind() == ErrorKind::Overflow => {
                self.note("overflow", || format!("call {number} refused: {error}"));
            }
            Err(error) => self.note("", || format!("call {number} refused: {error}")),
        }
    }

    fn flush(&mut self, number: u32) {
        let now = self.clocks();
        let Some(process) = self.processes.get_mut(&number) else { return };
        let shared = &process.shared;
        if shared.settlement.settled() == shared.writer.next_seq() {
            return;
        }
        if let Ok(seq) = shared.append(&mut Draft::flush(), now) {
            shared.settlement.flush_appended(seq);
            process.next = process.next.min(self.now);
            self.note("flush", || format!("process {number} flushes up to {seq}"));
        }
    }

    /// The call of a number: the same whenever it is asked for.
    fn call(&mut self, number: Number) -> (SimCall, End) {
        let mut rng = Rng::with_seed(number ^ 0x5eed);
        let scenario = &self.scenario;
        let known = scenario.unknown_customers == 0 || rng.u8(..6) > 0;
        let customer = if known {
            format!("cus_{}", rng.u32(..scenario.customers))
        } else {
            format!("{UNKNOWN}_{}", rng.u32(..scenario.unknown_customers))
        };
        let own_id = rng.f64() < scenario.own_ids;
        let id = own_id.then(|| format!("call-{number}"));
        let mut end = if known { End::Billed } else { End::Refused };
        if let Some(id) = &id {
            if rng.f64() < scenario.poison {
                self.server.options.poisoned.insert(id.clone());
                end = End::Refused;
            } else if known && rng.f64() < scenario.failing {
                self.server.options.failing_ids.insert(id.clone());
                end = End::Kept;
            }
        }
        if scenario.server.failing_customers.contains(&customer) {
            end = End::Kept;
        }
        let padding: String = (0..rng.usize(..=scenario.most_padding))
            .map(|_| *rng.choice(&['a', '"', '\\', 'ü', '\u{1}', '/', '𝄞']).unwrap_or(&'a'))
            .collect();
        let metadata = json!({"n": number, "endpoint": padding, "status_code": rng.u16(200..600)});
        (SimCall { id, customer, metadata }, end)
    }
}

struct SimCall {
    id: Option<String>,
    customer: String,
    metadata: Value,
}

impl SimCall {
    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn event(&self) -> ApiCall {
        let mut call = ApiCall::new(&self.customer);
        if let Some(id) = &self.id {
            call = call.event_id(id);
        }
        let text = |key: &str| self.metadata[key].as_str().unwrap_or_default().to_owned();
        call.metadata("n", self.metadata["n"].as_i64().unwrap_or_default())
            .metadata("endpoint", text("endpoint"))
            .metadata("status_code", self.metadata["status_code"].as_i64().unwrap_or_default())
    }
}
