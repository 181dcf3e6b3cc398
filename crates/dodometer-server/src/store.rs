//! Events and meters in SQLite.
//!
//! Invariants: an event id is stored once, while it is remembered; a batch is stored whole or not at all;
//! one writer connection, so that a batch waits for at most the batch before it; reads of a file have a
//! connection of their own and never wait for the writer (write-ahead log). A data file belongs to one
//! meter at a time: a lock on `<file>.lock` says so, which the system frees when its holder dies.
//! The module answers no request and keeps no totals.

mod meters;
mod schema;

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::Event;
use crate::ledger::{Call, Requests};
use crate::metadata::Metadata;
use crate::{BUSINESS_ID, Data, Error, ErrorKind};

/// The database of one meter.
pub(crate) struct Store {
    writer: Mutex<Connection>,
    /// None in memory, where a second connection would see another database.
    reader: Option<Mutex<Connection>>,
    /// Held for as long as the connections are open: fields are dropped in this order.
    _lock: Option<File>,
}

/// The writer connection, for one caller at a time.
pub(crate) struct Writer<'s>(MutexGuard<'s, Connection>);

/// An event as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct StoredEvent {
    business_id: &'static str,
    customer_id: String,
    event_id: String,
    event_name: String,
    timestamp: Timestamp,
    metadata: Option<Box<RawValue>>,
}

/// Which events to list.
#[derive(Debug, Default)]
pub(crate) struct EventQuery {
    pub(crate) customer_id: Option<String>,
    pub(crate) event_name: Option<String>,
    /// The first moment to list.
    pub(crate) start: Option<Timestamp>,
    /// The first moment not to list any more.
    pub(crate) end: Option<Timestamp>,
    pub(crate) page_size: u32,
    pub(crate) page_number: u32,
}

impl Store {
    pub(crate) fn open(data: &Data) -> Result<Self, Error> {
        match data {
            Data::Memory => {
                let failed = |cause| {
                    Error::new(ErrorKind::Data, "no database could be made in memory")
                        .because(cause)
                };
                let writer = Connection::open_in_memory().map_err(failed)?;
                writer.execute_batch(schema::SCHEMA).map_err(failed)?;
                Ok(Self { writer: Mutex::new(writer), reader: None, _lock: None })
            }
            Data::File(path) => {
                let lock = schema::lock(path)?;
                let (writer, reader) = schema::open_file(path)?;
                let reader = Some(Mutex::new(reader));
                Ok(Self { writer: Mutex::new(writer), reader, _lock: Some(lock) })
            }
        }
    }

    pub(crate) fn write(&self) -> Writer<'_> {
        Writer(hold(&self.writer))
    }

    fn read(&self) -> MutexGuard<'_, Connection> {
        hold(self.reader.as_ref().unwrap_or(&self.writer))
    }

    pub(crate) fn event(&self, id: &str) -> rusqlite::Result<Option<StoredEvent>> {
        self.read()
            .prepare_cached(
                "SELECT customer_id, event_id, event_name, occurred, metadata
                 FROM event WHERE event_id = ?1 ORDER BY coming DESC LIMIT 1",
            )?
            .query_row([id], StoredEvent::from_row)
            .optional()
    }

    pub(crate) fn events(&self, query: &EventQuery) -> rusqlite::Result<Vec<StoredEvent>> {
        let mut sql = "SELECT customer_id, event_id, event_name, occurred, metadata FROM event
             WHERE occurred >= :start AND occurred < :end"
            .to_owned();
        // A condition that is always true would keep the planner from the index that fits.
        for (given, condition) in [
            (query.customer_id.is_some(), " AND customer_id = :customer"),
            (query.event_name.is_some(), " AND event_name = :name"),
        ] {
            if given {
                sql.push_str(condition);
            }
        }
        sql.push_str(" ORDER BY occurred DESC, seq DESC LIMIT :limit OFFSET :offset");
        let connection = self.read();
        let mut statement = connection.prepare_cached(&sql)?;
        let start = query.start.map_or(i64::MIN, up_to_micros);
        let end = query.end.map_or(i64::MAX, up_to_micros);
        let offset = i64::from(query.page_size) * i64::from(query.page_number);
        let shared = named_params! {
            ":start": start, ":end": end, ":limit": query.page_size, ":offset": offset,
        };
        let mut bound = shared.to_vec();
        if let Some(customer) = &query.customer_id {
            bound.push((":customer", customer));
        }
        if let Some(name) = &query.event_name {
            bound.push((":name", name));
        }
        statement.query_map(&bound[..], StoredEvent::from_row)?.collect()
    }
}

impl Writer<'_> {
    /// Whether an id arrived after `forgotten`, and is still remembered.
    pub(crate) fn knows(&self, id: &str, forgotten: Option<Timestamp>) -> rusqlite::Result<bool> {
        Ok(last_coming(&self.0, id)?.is_some_and(|last| last.is_remembered(forgotten)))
    }

    /// Stores a batch in one transaction and says for each event whether it was new: its id had not
    /// come before, or `forgotten` or earlier.
    pub(crate) fn insert(
        &mut self,
        events: &[Event<'_>],
        now: Timestamp,
        forgotten: Option<Timestamp>,
    ) -> rusqlite::Result<Vec<bool>> {
        let transaction = self.0.transaction()?;
        let mut new = Vec::with_capacity(events.len());
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO event
                    (event_id, coming, customer_id, event_name, occurred, arrived, metadata)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (event_id, coming) DO NOTHING",
            )?;
            let mut json = Vec::new();
            for event in events {
                let metadata = match &event.metadata {
                    Some(metadata) => Some(write_json(metadata, &mut json)?),
                    None => None,
                };
                // While ids are remembered for ever, each comes for the first time or not at all.
                let last = match forgotten {
                    Some(_) => last_coming(&transaction, &event.event_id.0)?,
                    None => None,
                };
                let coming =
                    last.map_or(0, |last| last.coming + i64::from(!last.is_remembered(forgotten)));
                let rows = insert.execute(params![
                    event.event_id.0,
                    coming,
                    event.customer_id.0,
                    event.event_name.0,
                    event.timestamp.as_microsecond(),
                    now.as_microsecond(),
                    metadata,
                ])?;
                new.push(rows == 1);
            }
            let duplicates = new.iter().filter(|new| !**new).count();
            transaction
                .prepare_cached(
                    "UPDATE requests SET accepted = accepted + 1, duplicates = duplicates + ?1",
                )?
                .execute([duplicates as i64])?;
        }
        transaction.commit()?;
        Ok(new)
    }

    pub(crate) fn count_refusal(&mut self) -> rusqlite::Result<()> {
        self.0.prepare_cached("UPDATE requests SET refused = refused + 1")?.execute([])?;
        Ok(())
    }

    /// Hands every stored event to `take`, in the order of arrival.
    pub(crate) fn replay(
        &self,
        event_name: Option<&str>,
        mut take: impl FnMut(&Call<'_>),
    ) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare(
            "SELECT customer_id, event_name, occurred, metadata FROM event
             WHERE ?1 IS NULL OR event_name = ?1 ORDER BY seq",
        )?;
        let mut rows = statement.query([event_name])?;
        while let Some(row) = rows.next()? {
            let stored = row.get_ref(3)?.as_str_or_null()?;
            let metadata = match stored {
                Some(json) => serde_json::from_str(json).map_err(|error| unreadable(3, error))?,
                None => Metadata::default(),
            };
            take(&Call {
                customer_id: row.get_ref(0)?.as_str()?,
                event_name: row.get_ref(1)?.as_str()?,
                timestamp: timestamp(row, 2)?,
                metadata: &metadata,
            });
        }
        Ok(())
    }

    pub(crate) fn requests(&self) -> rusqlite::Result<Requests> {
        self.0.query_row("SELECT accepted, refused, duplicates FROM requests", [], |row| {
            let count = |index| row.get(index).map(|count: i64| count.unsigned_abs());
            Ok(Requests { accepted: count(0)?, refused: count(1)?, duplicates: count(2)? })
        })
    }
}

/// When an id came last.
struct Coming {
    coming: i64,
    arrived: i64,
}

impl Coming {
    fn is_remembered(&self, forgotten: Option<Timestamp>) -> bool {
        forgotten.is_none_or(|forgotten| self.arrived > forgotten.as_microsecond())
    }
}

fn last_coming(connection: &Connection, id: &str) -> rusqlite::Result<Option<Coming>> {
    connection
        .prepare_cached(
            "SELECT coming, arrived FROM event WHERE event_id = ?1 ORDER BY coming DESC LIMIT 1",
        )?
        .query_row([id], |row| Ok(Coming { coming: row.get(0)?, arrived: row.get(1)? }))
        .optional()
}

impl StoredEvent {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let metadata = row
            .get::<_, Option<String>>(4)?
            .map(|json| RawValue::from_string(json).map_err(|error| unreadable(4, error)))
            .transpose()?;
        Ok(Self {
            business_id: BUSINESS_ID,
            customer_id: row.get(0)?,
            event_id: row.get(1)?,
            event_name: row.get(2)?,
            timestamp: timestamp(row, 3)?,
            metadata,
        })
    }
}

fn timestamp(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(row.get(index)?).map_err(|error| unreadable(index, error))
}

/// The first whole microsecond that is not before `moment`.
fn up_to_micros(moment: Timestamp) -> i64 {
    let micros = moment.as_microsecond();
    let rest = moment.as_nanosecond() - i128::from(micros) * 1000;
    micros + i64::from(rest > 0)
}

/// Writes metadata as JSON text into a buffer that serves a whole batch.
fn write_json<'b>(metadata: &Metadata<'_>, buffer: &'b mut Vec<u8>) -> rusqlite::Result<&'b str> {
    buffer.clear();
    serde_json::to_writer(&mut *buffer, metadata)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    Ok(std::str::from_utf8(buffer)?)
}

fn unreadable(
    column: usize,
    cause: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(cause))
}

/// A panic elsewhere cannot leave a connection half changed: its transaction is rolled back.
fn hold(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
