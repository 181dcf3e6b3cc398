//! `GET /_dev/events`: what arrived, for the assertions of somebody's tests, and a way to wait for it.
//!
//! Bounds: an answer holds at most [`MAX_EVENTS`] events and about [`MAX_BYTES`] of metadata, and says
//! where to go on; at most [`MAX_WAITING`] requests wait at a time, each for at most [`MAX_TIMEOUT`].

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use serde::Serialize;
use tokio::time::sleep;

use super::api::query;
use super::blocking;
use super::local::{Peer, ends};
use crate::filter::Filter;
use crate::refusal::{Answer, Refusal};
use crate::store::{Arrival, Room, Selection};
use crate::{Meter, duration};

const MAX_EVENTS: usize = 10_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How many requests may wait at a time.
pub(crate) const MAX_WAITING: usize = 64;
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked for.
struct Wanted {
    of: Selection,
    since: i64,
    limit: usize,
    at_least: u64,
    timeout: Duration,
}

#[derive(Serialize)]
pub(super) struct Arrived {
    events: Vec<Arrival>,
    /// How many events match, those without room in this answer included.
    matching: u64,
    /// Whether some of them are not in this answer.
    more: bool,
    /// The `since` to go on with.
    next: i64,
}

pub(super) async fn events(
    State(meter): State<Meter>,
    peer: Option<Extension<Peer>>,
    pairs: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Answer<Json<Arrived>> {
    let Wanted { of, since, limit, at_least, timeout } = Wanted::read(query(pairs)?)?;
    let room = Room { events: limit, bytes: MAX_BYTES };
    let mut peer = peer.map(|Extension(peer)| peer);
    let mut changes = meter.changes();
    let mut arrivals = meter.arrivals_since(since);
    let mut place = None;
    let time_passed = sleep(timeout);
    tokio::pin!(time_passed);
    let mut waited = false;
    loop {
        changes.borrow_and_update();
        let of = of.clone();
        let look = move |meter: &Meter| meter.arrivals(&of, room, arrivals);
        arrivals = blocking(meter.clone(), look).await?;
        if arrivals.matching >= at_least || waited {
            break;
        }
        if place.is_none() {
            place = Some(meter.place_to_wait().ok_or_else(|| {
                Refusal::crowded(format!("{MAX_WAITING} requests wait for events already"))
            })?);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            // With one more look: there may have been a reset.
            () = &mut time_passed => waited = true,
            () = ends(peer.as_mut()) => waited = true,
        }
    }
    let more = arrivals.matching > arrivals.events.len() as u64;
    let next = match arrivals.events.last() {
        Some(last) if more => last.cursor,
        None if more => arrivals.since,
        _ => arrivals.seen,
    };
    Ok(Json(Arrived { events: arrivals.events, matching: arrivals.matching, more, next }))
}

impl Wanted {
    fn read(pairs: Vec<(String, String)>) -> Answer<Self> {
        let mut wanted = Self {
            of: Selection::default(),
            since: 0,
            limit: MAX_EVENTS,
            at_least: 0,
            timeout: DEFAULT_TIMEOUT,
        };
        let mut properties = Vec::new();
        for (name, value) in pairs {
            let within = |most: u64| match value.parse() {
                Ok(number) if number <= most => Ok(number),
                _ => Err(Refusal::query(format!("{name} is {value:?}: give 0 to {most}"))),
            };
            match name.as_str() {
                "since" => wanted.since = within(i64::MAX as u64)? as i64,
                "limit" => wanted.limit = within(MAX_EVENTS as u64)? as usize,
                "at_least" => wanted.at_least = within(u64::from(u32::MAX))?,
                "timeout" => {
                    wanted.timeout = timeout(&value).map_err(|problem| {
                        Refusal::query(format!("timeout is {value:?}: {problem}"))
                    })?;
                }
                "customer_id" => wanted.of.customer_id = Some(value),
                "event_name" => wanted.of.event_name = Some(value),
                "endpoint" => properties.push((name, value)),
                _ => match name.strip_prefix("metadata.") {
                    Some(key) => properties.push((key.to_owned(), value)),
                    None => {
                        return Err(Refusal::query(format!(
                            "{name:?} is not known: give customer_id, event_name, endpoint, \
                             metadata.KEY, since, limit, at_least or timeout"
                        )));
                    }
                },
            }
        }
        if !properties.is_empty() {
            wanted.of.filter = Some(Filter::equal(properties));
        }
        Ok(wanted)
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout =
        duration::parse(text).map_err(|problem| format!("{problem} (up to {MAX_TIMEOUT:?})"))?;
    if timeout <= MAX_TIMEOUT { Ok(timeout) } else { Err(format!("give up to {MAX_TIMEOUT:?}")) }
}
