//! Stored events read back: one, a page of them, those of a period, and those that arrived since.
//!
//! Reads never wait for the writer of a file, and see whole batches only.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Store, metadata, timestamp, unreadable};
use crate::BUSINESS_ID;
use crate::filter::Filter;
use crate::ledger::Call;

/// A period that holds a larger share of the events than one in so many is a wide one.
const WIDE: i64 = 10;

/// An event as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct StoredEvent {
    business_id: &'static str,
    pub(crate) customer_id: String,
    event_id: String,
    #[serde(skip)]
    pub(crate) cursor: i64,
    pub(crate) event_name: String,
    pub(crate) timestamp: Timestamp,
    pub(crate) metadata: Option<Box<RawValue>>,
}

/// Which events are meant; what is not given leaves all.
#[derive(Debug, Default, Clone)]
pub(crate) struct Selection {
    pub(crate) customer_id: Option<String>,
    pub(crate) event_name: Option<String>,
    pub(crate) period: Period,
    pub(crate) filter: Option<Filter>,
}

/// A stretch of time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Period {
    /// Its first moment.
    pub(crate) start: Option<Timestamp>,
    /// The first moment after it.
    pub(crate) end: Option<Timestamp>,
}

/// An event with its place in the order of arrival.
#[derive(Debug, Serialize)]
pub(crate) struct Arrival {
    pub(crate) cursor: i64,
    arrived_at: Timestamp,
    #[serde(flatten)]
    event: StoredEvent,
}

/// What a look at the arrivals came to.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// How often everything had been reset when it began.
    pub(crate) resets: u64,
    /// The event that it began after.
    pub(crate) since: i64,
    pub(crate) events: Vec<Arrival>,
    /// The bytes of their metadata.
    pub(crate) bytes: usize,
    /// How many matched, whether they had room among `events` or not.
    pub(crate) matching: u64,
    /// The last event looked at.
    pub(crate) seen: i64,
}

/// How much of the arrivals is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

const COLUMNS: &str = "customer_id, event_name, occurred, metadata, event_id, seq";

impl Store {
    pub(crate) fn event(&self, id: &str) -> rusqlite::Result<Option<StoredEvent>> {
        self.read()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM event WHERE event_id = ?1 ORDER BY coming DESC LIMIT 1",
            ))?
            .query_row([id], StoredEvent::from_row)
            .optional()
    }

    /// Lists events, the newest first.
    pub(crate) fn events(
        &self,
        of: &Selection,
        page_size: u32,
        page_number: u32,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        let (condition, mut bound) = of.condition();
        let mut sql = format!(
            "SELECT {COLUMNS} FROM event WHERE {condition} ORDER BY occurred DESC, seq DESC"
        );
        let offset = u64::from(page_size) * u64::from(page_number);
        let connection = self.read();
        let Some(filter) = &of.filter else {
            sql.push_str(" LIMIT ? OFFSET ?");
            bound.push(i64::from(page_size).into());
            bound.push(i64::try_from(offset).unwrap_or(i64::MAX).into());
            let mut statement = connection.prepare_cached(&sql)?;
            return statement.query_map(params_from_iter(bound), StoredEvent::from_row)?.collect();
        };
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(bound))?;
        let mut page = Vec::new();
        let mut before = 0;
        while page.len() < page_size as usize
            && let Some(row) = rows.next()?
        {
            if !filter.matches(&metadata(row, 3)?) {
                continue;
            }
            if before < offset {
                before += 1;
            } else {
                page.push(StoredEvent::from_row(row)?);
            }
        }
        Ok(page)
    }

    /// Hands the events that are meant to `take`, those of one time in the order of their arrival; with
    /// their metadata if that is wanted, which is most of the work. A filter is left to `take`.
    pub(crate) fn scan(
        &self,
        of: &Selection,
        with_metadata: bool,
        mut take: impl FnMut(&Call<'_>),
    ) -> rusqlite::Result<()> {
        let (condition, bound) = of.condition();
        let metadata_column = if with_metadata { "metadata" } else { "NULL" };
        let connection = self.read();
        let (source, order) = if of.customer_id.is_none() && is_wide(&connection, of.period)? {
            ("event NOT INDEXED", "seq")
        } else {
            ("event", "occurred, seq")
        };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT customer_id, event_name, occurred, {metadata_column}, seq
             FROM {source} WHERE {condition} ORDER BY {order}"
        ))?;
        let mut rows = statement.query(params_from_iter(bound))?;
        while let Some(row) = rows.next()? {
            take(&Call {
                cursor: row.get(4)?,
                customer_id: row.get_ref(0)?.as_str()?,
                event_name: row.get_ref(1)?.as_str()?,
                timestamp: timestamp(row, 2)?,
                metadata: &metadata(row, 3)?,
            });
        }
        Ok(())
    }

    /// Goes on with a look at the events in the order of their arrival.
    pub(crate) fn arrivals(
        &self,
        of: &Selection,
        room: Room,
        arrivals: &mut Arrivals,
    ) -> rusqlite::Result<()> {
        let (condition, mut bound) = of.condition();
        bound.push(arrivals.seen.into());
        let connection = self.read();
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {COLUMNS}, arrived FROM event WHERE {condition} AND seq > ? ORDER BY seq"
        ))?;
        let mut rows = statement.query(params_from_iter(bound))?;
        while let Some(row) = rows.next()? {
            arrivals.seen = row.get(5)?;
            if let Some(filter) = &of.filter
                && !filter.matches(&metadata(row, 3)?)
            {
                continue;
            }
            arrivals.matching += 1;
            if arrivals.events.len() < room.events && arrivals.bytes < room.bytes {
                arrivals.bytes += row.get_ref(3)?.as_str_or_null()?.map_or(0, str::len);
                let event = StoredEvent::from_row(row)?;
                let arrived_at = timestamp(row, 6)?;
                arrivals.events.push(Arrival { cursor: arrivals.seen, arrived_at, event });
            }
        }
        Ok(())
    }
}

impl Selection {
    /// The condition in SQL, and what to bind to it. One that is always true would keep the planner
    /// from the index that fits, so only what is given is asked for.
    fn condition(&self) -> (String, Vec<Value>) {
        let Period { start, end } = self.period;
        let mut sql = "TRUE".to_owned();
        let mut bound = Vec::new();
        for (condition, value) in [
            (" AND occurred >= ?", start.map(|start| up_to_micros(start).into())),
            (" AND occurred < ?", end.map(|end| up_to_micros(end).into())),
            (" AND customer_id = ?", self.customer_id.clone().map(Value::from)),
            (" AND event_name = ?", self.event_name.clone().map(Value::from)),
        ] {
            if let Some(value) = value {
                sql.push_str(condition);
                bound.push(value);
            }
        }
        (sql, bound)
    }
}

/// Whether so many of the events are of a period that reading all of them costs less than to look up
/// each of these by its time.
fn is_wide(connection: &Connection, period: Period) -> rusqlite::Result<bool> {
    let (condition, bound) = Selection { period, ..Selection::default() }.condition();
    let all: Option<i64> =
        connection.prepare_cached("SELECT max(seq) FROM event")?.query_row([], |row| row.get(0))?;
    let of_it: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM event WHERE {condition}"))?
        .query_row(params_from_iter(bound), |row| row.get(0))?;
    Ok(of_it > all.unwrap_or(0) / WIDE)
}

impl Period {
    /// Whether it is all of time.
    pub(crate) fn is_all(self) -> bool {
        self.start.is_none() && self.end.is_none()
    }
}

impl StoredEvent {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let metadata = row
            .get::<_, Option<String>>(3)?
            .map(|json| RawValue::from_string(json).map_err(|error| unreadable(3, error)))
            .transpose()?;
        Ok(Self {
            business_id: BUSINESS_ID,
            customer_id: row.get(0)?,
            event_id: row.get(4)?,
            cursor: row.get(5)?,
            event_name: row.get(1)?,
            timestamp: timestamp(row, 2)?,
            metadata,
        })
    }
}

/// The first whole microsecond that is not before `moment`.
fn up_to_micros(moment: Timestamp) -> i64 {
    let micros = moment.as_microsecond();
    let rest = moment.as_nanosecond() - i128::from(micros) * 1000;
    micros + i64::from(rest > 0)
}
