//! The tables, and the files that hold them: making, claiming and opening them.

use std::fs::{File, Metadata, OpenOptions};
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

/// A lock on `<file>.lock`, for as long as it lives.
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// Whether the lock file was made for this lock.
    is_new: bool,
}

impl Lock {
    /// Leaves no lock file beside a file that no meter can use; one that was there stays. Beside any other file
    /// it has to stay: a meter that had opened it by then would hold a lock that the next one does not see.
    fn withdraw(self) {
        if self.is_new {
            // What is left behind harms nobody.
            let _ = std::fs::remove_file(&self.path);
        }
        drop(self.file);
    }
}

/// Claims the data file for this process, and makes it if it is missing.
fn lock(path: &Path) -> Result<Lock, Error> {
    let failed = |cause: std::io::Error| {
        let problem = format!("the data file {} cannot be opened for writing", path.display());
        Error::new(ErrorKind::Data, problem).because(cause)
    };
    // SQLite would open a file that it may only read, and say so at the first write.
    let data = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    refuse_hard_links(path, &data.metadata().map_err(failed)?)?;
    drop(data);
    // The same file by another name must meet the same lock, also where a link led to no file before.
    let path = path.canonicalize().map_err(failed)?;
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let open = |options: &mut OpenOptions| options.write(true).open(&lock_path);
    let (file, is_new) = match open(OpenOptions::new().create_new(true)) {
        Ok(file) => (Ok(file), true),
        Err(_) => (open(OpenOptions::new().create(true).truncate(false)), false),
    };
    let file = file.map_err(|cause| {
        let problem = format!("the lock file {} cannot be made", lock_path.display());
        Error::new(ErrorKind::Data, problem).because(cause)
    })?;
    match FileExt::try_lock(&file) {
        Ok(()) => Ok(Lock { file, path: lock_path, is_new }),
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

/// SQLite keeps what was written last in files named after the data file: by another name of the same file
/// it would not be found. The lock would not be found either.
fn refuse_hard_links(path: &Path, data: &Metadata) -> Result<(), Error> {
    match hard_links(data) {
        0 | 1 => Ok(()),
        links => Err(Error::new(
            ErrorKind::Data,
            format!(
                "the data file {} has {links} hard links, and must have one name only: remove the \
                 others, or use a copy that was made while no server ran",
                path.display()
            ),
        )),
    }
}

#[cfg(unix)]
fn hard_links(data: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(data)
}

/// The standard library does not tell here.
#[cfg(not(unix))]
fn hard_links(_: &Metadata) -> u64 {
    1
}

/// Why a data file cannot be opened.
enum Unusable {
    /// It belongs to another program, and no meter can use it.
    Foreign(Error),
    Other(Error),
}

/// Claims a data file and opens its writer and its reader. Makes the tables if the file is new, or old.
pub(super) fn open(path: &Path) -> Result<(Connection, Connection, Lock), Error> {
    let lock = lock(path)?;
    match open_file(path) {
        Ok((writer, reader)) => Ok((writer, reader, lock)),
        Err(Unusable::Foreign(error)) => {
            lock.withdraw();
            Err(error)
        }
        Err(Unusable::Other(error)) => Err(error),
    }
}

fn open_file(path: &Path) -> Result<(Connection, Connection), Unusable> {
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
        let is_foreign = cause.sqlite_error_code() == Some(ErrorCode::NotADatabase);
        let error = refuse(problem).because(cause);
        if is_foreign { Unusable::Foreign(error) } else { Unusable::Other(error) }
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
        return Err(Unusable::Foreign(refuse("belongs to another program")));
    }
    let change = match version {
        _ if tables == 0 => format!("{SCHEMA} PRAGMA application_id = {APPLICATION_ID};"),
        SCHEMA_VERSION => String::new(),
        2 => FROM_VERSION_2.to_owned(),
        newer if newer > SCHEMA_VERSION => {
            let problem = "was written by a newer version of this program: use that one";
            return Err(Unusable::Other(refuse(problem)));
        }
        _ => {
            let problem = "was written by a version of this program that is too old";
            return Err(Unusable::Other(refuse(problem)));
        }
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
