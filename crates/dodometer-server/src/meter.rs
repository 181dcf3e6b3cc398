//! The meter itself: the rules, the store and the running totals behind one handle.
//!
//! Invariant: the ledger is changed only by the holder of the writer connection and only after its
//! commit, so both tell the same story to whoever comes next. Everything here blocks; the HTTP side
//! calls it from threads that may.

mod dev;
mod usage;
mod view;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::billable::{Billable, Definition, Price};
use crate::clock::{Clock, shifted};
use crate::event::{self, Event};
use crate::faults::{Bend, Count, Faults};
use crate::ledger::{Bill, Call, Ledger, Refused};
use crate::limit::Limiter;
use crate::metadata::Metadata;
use crate::options::Keys;
use crate::refusal::{Answer, Refusal};
use crate::store::{Selection, Store, StoredEvent, Writer};
use crate::{BUSINESS_ID, Error, ErrorKind, Options, UnknownCustomer, http};

pub(crate) use dev::ClockView;
pub(crate) use usage::{CustomerUsage, MeterUsage};

/// A handle on a meter's data and rules. Cloning it is cheap; the data lives as long as any handle.
#[derive(Clone)]
pub struct Meter {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    ledger: Mutex<Ledger>,
    keys: Keys,
    limiter: Option<Limiter>,
    rules: Rules,
    changes: watch::Sender<u64>,
    clock: Clock,
    waiting: Semaphore,
    faults: Faults,
    /// How often everything was reset; it changes while the events are gone and none can come.
    resets: AtomicU64,
}

/// What [`Options`] say that the billing API does not.
struct Rules {
    max_body_bytes: usize,
    customers: Option<HashSet<String>>,
    unknown_customer: UnknownCustomer,
    count_known_ids: bool,
    remember_ids: Option<Duration>,
    id_before_age: bool,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl Meter {
    /// Opens a meter, and its data file if it has one.
    ///
    /// Reads a data file from end to end, so that it blocks for some seconds for each million of
    /// stored events. Fails if an option cannot be used, or another meter holds the file.
    pub fn open(options: Options) -> Result<Self, Error> {
        options.validate()?;
        let store = Store::open(&options.data)?;
        let clock = Clock::default();
        let ledger = Mutex::new(rebuild(&store.write(), clock.now()).map_err(|cause| {
            Error::new(ErrorKind::Data, "the stored events cannot be read").because(cause)
        })?);
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                ledger,
                keys: Keys::new(options.keys),
                limiter: options.rate_limit.map(Limiter::new),
                rules: Rules {
                    max_body_bytes: options.max_body_bytes,
                    customers: options.customers,
                    unknown_customer: options.unknown_customer,
                    count_known_ids: options.count_known_ids,
                    remember_ids: options.remember_ids,
                    id_before_age: options.id_before_age,
                },
                changes: watch::Sender::new(0),
                clock,
                waiting: Semaphore::new(http::MAX_WAITING),
                faults: Faults::new(options.faults, options.fault_seed),
                resets: AtomicU64::new(0),
            }),
        })
    }

    /// The billing API and the page as an axum router, for a server of one's own.
    ///
    /// The page and the `/_dev` tools are open to callers on this machine, which the router only
    /// believes of requests that [`Server`](crate::Server) took in; in another server they ask for
    /// an API key like everything else.
    pub fn router(&self) -> Router {
        http::router(self.clone())
    }

    /// What everybody owes.
    pub fn bill(&self) -> Bill {
        self.ledger().bill()
    }

    /// The key that the value of an `Authorization` header carries, if it is taken.
    pub(crate) fn admit<'a>(&self, authorization: Option<&'a str>) -> Option<&'a str> {
        self.inner.keys.admit(authorization)
    }

    /// Whether no keys are listed, so that whoever can reach the meter can use it.
    pub(crate) fn takes_any_key(&self) -> bool {
        self.inner.keys.are_any()
    }

    /// What counts the requests of each key, if they are limited.
    pub(crate) fn limiter(&self) -> Option<&Limiter> {
        self.inner.limiter.as_ref()
    }

    /// The time by the meter's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.inner.rules.max_body_bytes
    }

    /// The version of the ledger, which changes whenever the page would.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Leave to wait for a change, while not too many have it.
    pub(crate) fn place_to_wait(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.waiting.try_acquire().ok()
    }

    /// Stores the events of one request and returns the count that it is answered with.
    pub(crate) fn ingest(&self, body: &[u8], bend: &Bend) -> Answer<u64> {
        let rules = &self.inner.rules;
        let events = event::read_request(body)?;
        rules.check_customers(&events, bend)?;
        // The time is asked for once nobody can move the clock any more.
        let mut writer = self.inner.store.write();
        let now = shifted(self.now(), bend.skew);
        let remembered = rules.remember_ids.into_iter().chain(bend.forget).min();
        let forgotten = remembered.map(|length| last_forgotten(length, now));
        let mut exempt = HashSet::new();
        if rules.id_before_age {
            for (index, event) in events.iter().enumerate() {
                if writer.knows(&event.event_id.0, forgotten)? {
                    exempt.insert(index);
                }
            }
        }
        event::check_window(&events, now, |index| exempt.contains(&index))?;
        let new = writer.insert(&events, now, forgotten)?;
        let mut ledger = self.ledger();
        ledger.advance(self.now());
        let mut ingested = 0;
        let none = Metadata::default();
        for (event, cursor) in events.iter().zip(new) {
            let Some(cursor) = cursor else { continue };
            ingested += 1;
            ledger.apply(&Call {
                cursor,
                customer_id: &event.customer_id.0,
                event_name: &event.event_name.0,
                timestamp: event.stored_time(now),
                metadata: event.metadata.as_ref().unwrap_or(&none),
            });
        }
        ledger.requests.accept(self.now(), events.len() as u64 - ingested);
        self.changed(ledger);
        let counted = if rules.count_known_ids { events.len() as u64 } else { ingested };
        Ok(match bend.count {
            None => counted,
            Some(Count::Exactly(count)) => count,
            Some(Count::OffBy(by)) => counted.saturating_add_signed(by),
        })
    }

    /// Counts an ingest request that was refused, with its body as far as that was read.
    pub(crate) fn count_refusal(&self, refusal: &Refusal, body: Option<&[u8]>) {
        let mut writer = self.inner.store.write();
        if let Err(cause) = writer.count_refusal() {
            tracing::error!(%cause, "a refused request could not be counted");
            return;
        }
        let mut ledger = self.ledger();
        ledger.requests.refuse(Refused {
            timestamp: self.now(),
            status: refusal.status(),
            code: refusal.code(),
            message: refusal.message().to_owned(),
            events: body.and_then(event::count),
        });
        self.changed(ledger);
    }

    pub(crate) fn event(&self, id: &str) -> Answer<StoredEvent> {
        self.inner.store.event(id)?.ok_or_else(|| Refusal::not_found("no event has that id"))
    }

    /// Lists events; with a meter, those of its name that its filter lets through.
    pub(crate) fn events(
        &self,
        mut of: Selection,
        meter_id: Option<&str>,
        page_size: u32,
        page_number: u32,
    ) -> Answer<Vec<StoredEvent>> {
        if let Some(id) = meter_id {
            let meter = self.meter(id)?;
            if of.event_name.as_ref().is_some_and(|given| *given != meter.event_name) {
                return Err(Refusal::query("event_name is not the meter's event name"));
            }
            of.event_name = Some(meter.event_name);
            of.filter = meter.filter;
        }
        Ok(self.inner.store.events(&of, page_size, page_number)?)
    }

    pub(crate) fn create_meter(&self, definition: Definition) -> Answer<Billable> {
        // The time is asked for once nobody can move the clock any more.
        let mut writer = self.inner.store.write();
        let now = self.now();
        let meter = Billable {
            id: new_meter_id(),
            business_id: BUSINESS_ID,
            name: definition.name,
            description: definition.description,
            event_name: definition.event_name,
            measurement_unit: definition.measurement_unit,
            aggregation: definition.aggregation,
            filter: definition.filter,
            created_at: now,
            updated_at: now,
            archived: false,
            price: None,
        };
        // Which events are billed depends on the meters, so all are looked at anew.
        let mut fresh = self.ledger().without_events(now);
        fresh.add_meter(meter.clone());
        writer.replay(|call| fresh.apply(call))?;
        writer.insert_meter(&meter)?;
        let mut ledger = self.ledger();
        *ledger = fresh;
        self.changed(ledger);
        Ok(meter)
    }

    pub(crate) fn meter(&self, id: &str) -> Answer<Billable> {
        self.ledger().meter(id).map(|metered| metered.meter.clone()).ok_or_else(no_such_meter)
    }

    /// Lists meters, the newest first.
    pub(crate) fn meters(&self, archived: bool, size: usize, number: usize) -> Vec<Billable> {
        self.ledger()
            .meters()
            .rev()
            .filter(|meter| meter.archived == archived)
            .skip(size.saturating_mul(number))
            .take(size)
            .cloned()
            .collect()
    }

    pub(crate) fn set_archived(&self, id: &str, archived: bool) -> Answer<Billable> {
        self.change_meter(id, |meter| meter.archived = archived)
    }

    pub(crate) fn set_price(&self, id: &str, price: Option<Price>) -> Answer<Billable> {
        self.change_meter(id, |meter| meter.price = price)
    }

    /// Changes a meter in the store and then in the ledger, unless bills would have two currencies.
    fn change_meter(&self, id: &str, change: impl FnOnce(&mut Billable)) -> Answer<Billable> {
        let mut writer = self.inner.store.write();
        let mut ledger = self.ledger();
        let mut meter = ledger.meter(id).ok_or_else(no_such_meter)?.meter.clone();
        change(&mut meter);
        if let (Some(price), Some(other)) = (meter.billed_price(), ledger.currency(Some(id)))
            && price.currency != other
        {
            return Err(Refusal::conflict(format!(
                "one bill has one currency: this meter's price is in {}, and another's in {other}; \
                 archive that meter, or remove a price with DELETE /_dev/meters/{{id}}/price",
                price.currency
            )));
        }
        meter.updated_at = self.now();
        writer.update_meter(&meter)?;
        if let Some(kept) = ledger.meter_mut(id) {
            kept.clone_from(&meter);
        }
        self.changed(ledger);
        Ok(meter)
    }

    /// The ledger is changed in steps that cannot panic half way, so a poisoned one is whole.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.inner.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of a ledger that was changed, once it has its new version.
    fn changed(&self, ledger: MutexGuard<'_, Ledger>) {
        self.inner.changes.send_modify(|version| *version = version.wrapping_add(1));
        drop(ledger);
    }
}

impl Rules {
    fn check_customers(&self, events: &[Event<'_>], bend: &Bend) -> Answer<()> {
        let known = |customer: &str| {
            self.customers.as_ref().is_none_or(|customers| customers.contains(customer))
                && bend.knows_customer(customer)
        };
        match events.iter().position(|event| !known(&event.customer_id.0)) {
            None => Ok(()),
            Some(index) => {
                let message = format!("events[{index}].customer_id is no customer's");
                Err(Refusal::unknown_customer(self.unknown_customer, message))
            }
        }
    }
}

/// The latest time of arrival whose ids are forgotten, if they are remembered for `length`.
fn last_forgotten(length: Duration, now: Timestamp) -> Timestamp {
    if length.is_zero() {
        // Also what arrived while the clock was ahead.
        return Timestamp::MAX;
    }
    // A time before all others stands for one that no clock can hold.
    now.checked_sub(length).unwrap_or(Timestamp::MIN)
}

fn rebuild(writer: &Writer<'_>, now: Timestamp) -> rusqlite::Result<Ledger> {
    let mut ledger = Ledger::new(now);
    ledger.requests = writer.requests()?;
    for meter in writer.meters()? {
        ledger.add_meter(meter);
    }
    writer.replay(|call| ledger.apply(call))?;
    Ok(ledger)
}

fn no_such_meter() -> Refusal {
    Refusal::not_found("no meter has that id")
}

fn new_meter_id() -> String {
    let id = std::iter::repeat_with(fastrand::alphanumeric).take(22);
    format!("mtr_{}", id.collect::<String>())
}

#[cfg(test)]
mod tests;
