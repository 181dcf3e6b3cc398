//! A local meter server: the billing API's usage endpoints over SQLite, with a live page.
//!
//! It accepts the requests that the billing API accepts, by the same rules and with the same
//! answers, so that a program can be run, tested and watched without an account. Of products and
//! customers it keeps only what a usage bill needs: a customer is an id, and a price belongs to a
//! meter.
//!
//! ```no_run
//! use dodometer_server::{Data, Meter, Options, Server};
//!
//! # async fn run() -> Result<(), dodometer_server::Error> {
//! let meter = Meter::open(Options { data: Data::Memory, ..Options::default() })?;
//! let server = Server::start(&meter, ([127, 0, 0, 1], 4040).into()).await?;
//! let address = server.address();
//! server.shutdown().await; // connections are refused now; the meter keeps its state
//! let server = Server::start(&meter, address).await?;
//! # server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Routes
//!
//! | route | |
//! |---|---|
//! | `POST /events/ingest` | takes 1 to 1000 events, whole or not at all |
//! | `GET /events`, `GET /events/{id}` | reads them back, the newest first |
//! | `POST /meters`, `GET /meters`, `GET` and `DELETE /meters/{id}`, `POST /meters/{id}/unarchive` | says what is counted |
//! | `GET /meters/{id}/usage` | units and price by customer, of all time or of a period |
//! | `PUT` and `DELETE /_dev/meters/{id}/price` | sets `{"price_per_unit": "0.02", "free_threshold": 100, "currency": "USD"}`, or removes it |
//! | `GET /_dev/bill` | the whole [`Bill`] |
//! | `GET /_dev/usage` | what one customer used, by meter |
//! | `GET /_dev/events` | what arrived, in its order; waits for it if asked to |
//! | `GET`, `POST` and `DELETE /_dev/faults` | what goes wrong on purpose: see [`Fault`] |
//! | `GET` and `PUT /_dev/clock` | the time that the meter keeps |
//! | `POST /_dev/reset` | resets everything |
//! | `GET /` | the live page; `?customer=`, `?endpoint=` and `?period=5m`, `1h`, `24h`, `30d` or `all` choose what it shows |
//! | `GET /_dev/view`, `GET /_dev/stream` | what it draws for the same choices: once, and pushed whenever something changed |
//! | `GET /healthz` | answers 200 |
//! | `GET /openapi.json` | describes all of these but the page |
//!
//! # What the billing API's documentation leaves open
//!
//! Wrong shape (malformed JSON, a missing field, a nested value, an integer beyond 64 bits, a time
//! that is no RFC 3339) is 422; a broken rule (an empty id, a limit, a repeated id, a time outside the
//! window) is 400. Every customer exists, the age of an event is checked before its id is looked up,
//! an id is remembered for ever, and `ingested_count` counts what was new, unless [`Options`] say
//! otherwise. Requests are limited only if they say so.
//!
//! `start` of a list or of usage is inclusive, `end` exclusive; without `customer_id`, usage is that of all
//! customers. `meter_id` lists events without the quantity that the meter adds up, too. Pages count from 0 and hold 10 items by default, at most 1000 events or 100 meters. A query
//! that cannot be read is 400. A URL with an extra slash at the end is 404. Archiving an archived meter is
//! 204 again, and `unarchive` of one that is not archived 200.
//!
//! A number written as text counts for `sum`, `max` and `last`, and a filter compares it as a number.
//! An event that lacks a filter's key does not match, `not_equals` and `does_not_contain`
//! included; these compare texts with case, and `contains` looks at texts only. Events that arrived before
//! their meter was made count. `total_price` is rounded to a whole smallest currency unit, halves upwards.
//!
//! # Who may see what
//!
//! The billing API's routes need a bearer key: any that is not empty, or one of [`Options::keys`].
//! The page and everything under `/_dev` need none *from this machine*, so that a browser can show
//! them even if keys are configured; from other machines they need a key, and so does a request that
//! says a proxy has forwarded it. Requests to them must name
//! this machine in their `Host` header, and so must those to the billing API's routes while no keys are
//! listed, so that a web page that points its own name at this address reads nothing; and whatever
//! changes anything under `/_dev` must not come from a web page of another origin.

mod billable;
mod clock;
mod decimal;
pub mod duration;
mod error;
mod event;
mod faults;
mod filter;
mod http;
mod latency;
mod ledger;
mod limit;
mod metadata;
mod meter;
mod object;
mod options;
mod refusal;
mod server;
mod store;

pub use error::{Error, ErrorKind};
pub use faults::Fault;
pub use ledger::{Bill, CustomerBill, Totals};
pub use meter::Meter;
pub use options::{DEFAULT_MAX_BODY_BYTES, Data, Options, RateLimit, UnknownCustomer};
pub use server::{Listener, Server};

/// The one business that all events and meters belong to.
const BUSINESS_ID: &str = "bus_local";
