//! Events and meters in SQLite.
//!
//! Invariants: an event id is stored once, while it is remembered; a batch is stored whole or not at all; one writer
//! connection, so that a batch waits for at most the batch before it; reads of a file have a
//! connection of their own and never wait for the writer (write-ahead log). A data file belongs to one
//! meter at a time: a lock on `<file>.lock` says so, which the system frees when its holder dies.
//! The module answers no request and keeps no totals.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs4::FileExt;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, named_params, params};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::billable::{Aggregation, Billable, Kind, Price};
use crate::event::Event;
use crate::ledger::{Call, Requests};
use crate::metadata::Metadata;
use crate::{BUSINESS_ID, Data, Error, ErrorKind, decimal};

/// Tells our files from those of other programs: "dodo".
const APPLICATION_ID: i32 = 0x646f_646f;
/// The version of the schema below.
const SCHEMA_VERSION: i32 = 2;

/// Times are microseconds since 1970. `occurred` and `seq` order the lists, the newest first; an
/// index ends with `seq` without saying so. Each index costs every insert, so names, of which there
/// are few, have none. `coming` counts how often an id came after it had been forgotten.
const SCHEMA: &str = "
    CREATE TABLE event (
        seq         INTEGER PRIMARY KEY,
        event_id    TEXT NOT NULL,
        coming      INTEGER NOT NULL,
        customer_id TEXT NOT NULL,
        event_name  TEXT NOT NULL,
        occurred    INTEGER NOT NULL,
        arrived     INTEGER NOT NULL,
        metadata    TEXT,
        UNIQUE (event_id, coming)
    ) STRICT;
    CREATE INDEX event_by_time ON event (occurred);
    CREATE INDEX event_by_customer ON event (customer_id, occurred);

    CREATE TABLE meter (
        seq              INTEGER PRIMARY KEY,
        id               TEXT NOT NULL UNIQUE,
        name             TEXT NOT NULL,
        description      TEXT,
        event_name       TEXT NOT NULL,
        measurement_unit TEXT NOT NULL,
        aggregation      TEXT NOT NULL,
        key              TEXT,
        created          INTEGER NOT NULL,
        updated          INTEGER NOT NULL,
        archived         INTEGER NOT NULL DEFAULT 0,
        price_per_unit   TEXT,
        free_threshold   INTEGER,
        currency         TEXT
    ) STRICT;

    CREATE TABLE requests (
        accepted   INTEGER NOT NULL,
        refused    INTEGER NOT NULL,
        duplicates INTEGER NOT NULL
    ) STRICT;
    INSERT INTO requests VALUES (0, 0, 0);
";

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
                writer.execute_batch(SCHEMA).map_err(failed)?;
                Ok(Self { writer: Mutex::new(writer), reader: None, _lock: None })
            }
            Data::File(path) => {
                let lock = lock(path)?;
                let (writer, reader) = open_file(path)?;
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

    /// Every meter, the oldest first.
    pub(crate) fn meters(&self) -> rusqlite::Result<Vec<Billable>> {
        self.0
            .prepare(
                "SELECT id, name, description, event_name, measurement_unit, aggregation, key,
                        created, updated, archived, price_per_unit, free_threshold, currency
                 FROM meter ORDER BY seq",
            )?
            .query_map([], meter_from_row)?
            .collect()
    }

    pub(crate) fn insert_meter(&mut self, meter: &Billable) -> rusqlite::Result<()> {
        self.0.execute(
            "INSERT INTO meter (id, name, description, event_name, measurement_unit, aggregation,
                                key, created, updated)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                meter.id,
                meter.name,
                meter.description,
                meter.event_name,
                meter.measurement_unit,
                meter.aggregation.kind.name(),
                meter.aggregation.key,
                meter.created_at.as_microsecond(),
                meter.updated_at.as_microsecond(),
            ],
        )?;
        Ok(())
    }

    /// Stores what may change of a meter: whether it is archived, and its price.
    pub(crate) fn update_meter(&mut self, meter: &Billable) -> rusqlite::Result<()> {
        let price = meter.price.as_ref();
        self.0.execute(
            "UPDATE meter SET updated = ?2, archived = ?3, price_per_unit = ?4,
                              free_threshold = ?5, currency = ?6
             WHERE id = ?1",
            params![
                meter.id,
                meter.updated_at.as_microsecond(),
                meter.archived,
                price.map(|price| decimal::show(price.per_unit)),
                price.map(|price| price.free_threshold),
                price.map(|price| &price.currency),
            ],
        )?;
        Ok(())
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

fn meter_from_row(row: &Row<'_>) -> rusqlite::Result<Billable> {
    let kind: String = row.get(5)?;
    let kind = Kind::from_name(&kind)
        .ok_or_else(|| unreadable(5, Error::new(ErrorKind::Data, "an unknown aggregation")))?;
    let price = match row.get::<_, Option<String>>(10)? {
        None => None,
        Some(text) => Some(Price {
            per_unit: decimal::parse(&text)
                .ok_or_else(|| unreadable(10, Error::new(ErrorKind::Data, "not a decimal")))?,
            free_threshold: row.get(11)?,
            currency: row.get(12)?,
        }),
    };
    Ok(Billable {
        id: row.get(0)?,
        business_id: BUSINESS_ID,
        name: row.get(1)?,
        description: row.get(2)?,
        event_name: row.get(3)?,
        measurement_unit: row.get(4)?,
        aggregation: Aggregation { kind, key: row.get(6)? },
        filter: None,
        created_at: timestamp(row, 7)?,
        updated_at: timestamp(row, 8)?,
        archived: row.get(9)?,
        price,
    })
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

/// Claims the data file for this process.
fn lock(path: &Path) -> Result<File, Error> {
    // The same file by another name must meet the same lock.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(
            |cause| {
                Error::new(
                    ErrorKind::Data,
                    format!("the lock file {} cannot be made", lock_path.display()),
                )
                .because(cause)
            },
        )?;
    match FileExt::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(fs4::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::DataInUse,
            format!("another meter is using the data file {}", path.display()),
        )),
        Err(fs4::TryLockError::Error(cause)) => Err(Error::new(
            ErrorKind::Data,
            format!("the lock file {} cannot be locked", lock_path.display()),
        )
        .because(cause)),
    }
}

/// Opens the writer and the reader of a data file, and makes the tables if the file is new.
fn open_file(path: &Path) -> Result<(Connection, Connection), Error> {
    let refuse = |problem: &str| {
        Error::new(ErrorKind::Data, format!("the data file {} {problem}", path.display()))
    };
    let failed = |cause: rusqlite::Error| refuse("cannot be used").because(cause);
    // Not SQLITE_OPEN_URI: a path is a path, whatever it begins with.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let writer =
        Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_CREATE).map_err(failed)?;
    let pragma = |name: &str| writer.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let tables: i64 = writer
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let (application, version): (i32, i32) =
        (pragma("application_id").map_err(failed)?, pragma("user_version").map_err(failed)?);
    if tables > 0 && application != APPLICATION_ID {
        return Err(refuse("belongs to another program"));
    }
    if tables > 0 && version != SCHEMA_VERSION {
        return Err(refuse("was written by another version of this program"));
    }
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 8192;",
        )
        .map_err(failed)?;
    if tables == 0 {
        writer
            .execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            ))
            .map_err(failed)?;
    }
    let reader = Connection::open_with_flags(path, flags).map_err(failed)?;
    reader.execute_batch("PRAGMA query_only = ON").map_err(failed)?;
    Ok((writer, reader))
}
