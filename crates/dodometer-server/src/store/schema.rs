//! The tables, and the files that hold them: making, claiming and opening them.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use fs4::FileExt;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Error, ErrorKind};

/// Tells our files from those of other programs: "dodo".
const APPLICATION_ID: i32 = 0x646f_646f;
/// The version of the schema below.
const SCHEMA_VERSION: i32 = 3;
/// What makes the schema out of the version before it. An older file is brought up to date when it is opened.
const FROM_VERSION_2: &str = "ALTER TABLE meter ADD COLUMN filter TEXT;";

/// Times are microseconds since 1970. `occurred` and `seq` order the lists, the newest first; an
/// index ends with `seq` without saying so. Each index costs every insert, so names, of which there
/// are few, have none. `coming` counts how often an id came after it had been forgotten.
pub(super) const SCHEMA: &str = "
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
        currency         TEXT,
        filter           TEXT
    ) STRICT;

    CREATE TABLE requests (
        accepted   INTEGER NOT NULL,
        refused    INTEGER NOT NULL,
        duplicates INTEGER NOT NULL
    ) STRICT;
    INSERT INTO requests VALUES (0, 0, 0);
";

/// Claims the data file for this process, and makes it if it is missing.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let failed = |cause: std::io::Error| {
        let problem = format!("the data file {} cannot be opened for writing", path.display());
        Error::new(ErrorKind::Data, problem).because(cause)
    };
    // SQLite would open a file that it may only read, and say so at the first write.
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    // The same file by another name must meet the same lock, also where a link led to no file before.
    let path = path.canonicalize().map_err(failed)?;
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

/// Opens the writer and the reader of a data file, and makes the tables if the file is new, or old.
pub(super) fn open_file(path: &Path) -> Result<(Connection, Connection), Error> {
    let refuse = |problem: &str| {
        Error::new(ErrorKind::Data, format!("the data file {} {problem}", path.display()))
    };
    let failed = |cause: rusqlite::Error| {
        let problem = match cause.sqlite_error_code() {
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::DiskFull) => {
                "cannot be written, or the files beside it cannot"
            }
            _ => "cannot be used",
        };
        refuse(problem).because(cause)
    };
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
    let change = match version {
        _ if tables == 0 => format!("{SCHEMA} PRAGMA application_id = {APPLICATION_ID};"),
        SCHEMA_VERSION => String::new(),
        2 => FROM_VERSION_2.to_owned(),
        newer if newer > SCHEMA_VERSION => {
            return Err(refuse("was written by a newer version of this program: use that one"));
        }
        _ => return Err(refuse("was written by a version of this program that is too old")),
    };
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 8192;",
        )
        .map_err(failed)?;
    // Also where nothing changes: what cannot be written is told of before the server says that it is ready.
    writer
        .execute_batch(&format!("BEGIN; {change} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))
        .map_err(failed)?;
    let reader = Connection::open_with_flags(path, flags).map_err(failed)?;
    reader.execute_batch("PRAGMA query_only = ON").map_err(failed)?;
    Ok((writer, reader))
}
