//! Events and meters in SQLite.
//!
//! Invariants: an event id is stored once, while it is remembered; a batch is stored whole or not at all;
//! one writer connection, so that a batch waits for at most the batch before it; reads of a file have a
//! connection of their own and never wait for the writer (write-ahead log). A data file belongs to one
//! meter at a time: a lock on `<file>.lock` says so, which the system frees when its holder dies. On Unix a
//! file with hard links, which would have a lock by each name, is refused.
//! The module answers no request and keeps no totals.

mod meters;
mod reading;
mod schema;

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

pub(crate) use reading::{Arrival, Arrivals, Period, Room, Selection, StoredEvent};

use crate::event::Event;
use crate::ledger::{Call, Requests};
use crate::metadata::Metadata;
use crate::{Data, Error, ErrorKind};

/// The database of one meter.
pub(crate) struct Store {
    writer: Mutex<Connection>,
    /// None in memory, where a second connection would see another database.
    reader: Option<Mutex<Connection>>,
    /// Held for as long as the connections are open: fields are dropped in this order.
    _lock: Option<schema::Lock>,
}

/// The writer connection, for one caller at a time.
pub(crate) struct Writer<'s>(MutexGuard<'s, Connection>);

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
                let (writer, reader, lock) = schema::open(path)?;
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
}

impl Writer<'_> {
    /// Whether an id arrived after `forgotten`, and is still remembered.
    pub(crate) fn knows(&self, id: &str, forgotten: Option<Timestamp>) -> rusqlite::Result<bool> {
        Ok(last_coming(&self.0, id)?.is_some_and(|last| last.is_remembered(forgotten)))
    }

    /// Stores a batch in one transaction and says for each event the place that it has in the order of
    /// arrival, if it was new: its id had not come before, or `forgotten` or earlier.
    pub(crate) fn insert(
        &mut self,
        events: &[Event<'_>],
        now: Timestamp,
        forgotten: Option<Timestamp>,
    ) -> rusqlite::Result<Vec<Option<i64>>> {
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
                    event.stored_time(now).as_microsecond(),
                    now.as_microsecond(),
                    metadata,
                ])?;
                new.push((rows == 1).then(|| transaction.last_insert_rowid()));
            }
            let duplicates = new.iter().filter(|new| new.is_none()).count();
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

    /// Forgets every event and how many requests there were; the meters too, unless they are kept.
    pub(crate) fn clear(&mut self, keep_meters: bool) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        transaction.execute_batch(
            "DELETE FROM event; UPDATE requests SET accepted = 0, refused = 0, duplicates = 0;",
        )?;
        if !keep_meters {
            transaction.execute_batch("DELETE FROM meter")?;
        }
        transaction.commit()
    }

    /// Hands every stored event to `take`, in the order of arrival.
    pub(crate) fn replay(&self, mut take: impl FnMut(&Call<'_>)) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare(
            "SELECT customer_id, event_name, occurred, metadata, seq FROM event ORDER BY seq",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let metadata = metadata(row, 3)?;
            take(&Call {
                cursor: row.get(4)?,
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
            Ok(Requests::stored(count(0)?, count(1)?, count(2)?))
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

fn timestamp(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(row.get(index)?).map_err(|error| unreadable(index, error))
}

/// Reads the metadata in a column.
fn metadata<'r>(row: &'r Row<'_>, index: usize) -> rusqlite::Result<Metadata<'r>> {
    match row.get_ref(index)?.as_str_or_null()? {
        Some(json) => serde_json::from_str(json).map_err(|error| unreadable(index, error)),
        None => Ok(Metadata::default()),
    }
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
