//! The spool: accepted calls on disk, from the moment a track verb returns until they are settled.
//!
//! # Layout
//!
//! ```text
//! <state dir>/dodo-ingestion/<environment>-<hash of origin>-<account>/     a namespace
//!     sender.lock                the one sender's lock; holds a count that shows that it lives,
//!                                and a number for what keeps calls from being billed
//!     room.lock                  held for a moment by who begins a segment, or writes settings
//!     settings                   what the last process that opened the namespace was set to
//!     starts                     when recent requests started: the request budget's memory
//!     dead-letters.jsonl         what was refused, and why
//!     quarantine/                byte ranges that could not be read
//!     spools/<name>/             one process's spool
//!         owner                  locked for as long as the owning process lives
//!         segment-<first seq>    records, in order; the highest is the one being written
//!         cursor                 up to where everything is settled, and what was attempted
//!         outcomes               which records were not billed, and why
//! ```
//!
//! # Who may write what
//!
//! The owner makes the spool with an empty cursor, appends to segments and creates them. Whoever
//! opens the namespace writes its settings. Everything else is written by the sender. The sender
//! unlinks segments below the highest; the highest and the spool itself only while it holds `owner`.
//!
//! # Invariants
//!
//! * A record that was appended whole is read back unchanged, or is quarantined and counted.
//! * Sequence numbers count up by one within a spool and are never used twice.
//! * The cursor only goes forward. A segment that is missing counts as settled.
//! * Segments are begun by one process at a time, and each is allotted what it may grow to: so the
//!   namespace never takes more than `max_spool_bytes`, whoever appends.
//! * A record counts as settled only after its outcome is on disk: dead letter, then `outcomes`,
//!   then the cursor, then unlinking.
//!
//! # What it must not know
//!
//! What a request is, when to send one, or what an answer means.

use std::io;
use std::path::Path;

use crate::disk::Disk;
use crate::sync;

mod abandoned;
mod cursor;
mod drain;
mod format;
mod group_commit;
mod namespace;
mod open_segment;
mod outcomes;
mod reader;
mod settings;
mod writer;
mod written_segment;

pub(crate) use cursor::Cursor;
pub(crate) use drain::{Drain, remove_spool};
pub(crate) use format::{Draft, Kind};
pub(crate) use namespace::{Beat, DeadLetter, MOST_LETTERS_BYTES, Namespace, SpoolName, show_life};
use namespace::{DEAD_LETTERS, QUARANTINE};
pub(crate) use outcomes::{Outcomes, Rejection, seal};
pub(crate) use reader::{Damage, Place, Record};
pub(crate) use settings::Settings;
pub(crate) use writer::{Found as LookedAfter, Owned, Writer, WriterSettings};

/// What the sender wrote of a spool's progress, for its owner to read.
pub(crate) fn read_cursor(disk: &dyn Disk, dir: &Path) -> io::Result<Cursor> {
    cursor::CursorFile::read(disk, &dir.join("cursor"))
}

/// Hands out what [`Outcomes`] told of a spool that is gone, from the dead letters of its namespace.
pub(crate) fn dead_letters_of(
    disk: &dyn Disk,
    dir: &Path,
    each: impl FnMut(Rejection),
) -> io::Result<()> {
    let (Some(namespace), Some(name)) = (dir.ancestors().nth(2), dir.file_name()) else {
        return Ok(());
    };
    let letters = namespace.join(DEAD_LETTERS);
    outcomes::from_dead_letters(disk, &letters, &name.to_string_lossy(), each)
}

/// From where on something of a spool was damaged, by what lies in the quarantine of its namespace.
pub(crate) fn damaged_from(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Seq>> {
    let (Some(namespace), Some(name)) = (dir.ancestors().nth(2), dir.file_name()) else {
        return Ok(None);
    };
    let name = name.to_string_lossy();
    let segment = |file: &String| {
        let (segment, _) = file.strip_prefix(&*name)?.strip_prefix('-')?.split_once('-')?;
        Seq::from_str_radix(segment, 16).ok()
    };
    let files = disk.list(&namespace.join(QUARANTINE))?;
    Ok(files.iter().filter_map(segment).min())
}

/// A record's place in its spool, counted from zero.
pub(crate) type Seq = u64;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod mapped;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
