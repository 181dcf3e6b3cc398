//! What a writer notes of its calls, in files that outlive it.
//!
//! A thread of a writer has a file of ids that it was about to attempt and one of ids that it saw
//! accepted, one id a line, one write a line. A kill may cut the last line: such an attempt was never
//! made, and such an acceptance never seen, so an unfinished line does not count.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const ATTEMPTED: &str = "attempted";
const ACCEPTED: &str = "accepted";
const SENDING: &str = "sending";

/// The two files of one thread.
#[derive(Debug)]
pub struct Notebook {
    attempted: File,
    accepted: File,
}

impl Notebook {
    /// Begins the files of a thread.
    pub fn create(dir: &Path, writer: &str, thread: usize) -> io::Result<Self> {
        let create = |what| {
            let path = dir.join(format!("{writer}-{thread}.{what}"));
            OpenOptions::new().create_new(true).append(true).open(path)
        };
        Ok(Self { attempted: create(ATTEMPTED)?, accepted: create(ACCEPTED)? })
    }

    /// To be called before an id is attempted.
    pub fn attempting(&mut self, id: &str) -> io::Result<()> {
        self.attempted.write_all(format!("{id}\n").as_bytes())
    }

    /// To be called after an id was accepted.
    pub fn accepted(&mut self, id: &str) -> io::Result<()> {
        self.accepted.write_all(format!("{id}\n").as_bytes())
    }
}

/// Notes that a writer has made a request, which only the sender of a namespace does.
pub fn note_sending(dir: &Path, writer: &str) -> io::Result<()> {
    fs::write(sending_path(dir, writer), "")
}

/// Whether a writer has made a request.
pub fn is_sending(dir: &Path, writer: &str) -> bool {
    sending_path(dir, writer).exists()
}

fn sending_path(dir: &Path, writer: &str) -> PathBuf {
    dir.join(format!("{writer}.{SENDING}"))
}

/// How many bytes of ids a writer has noted, over all its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Of ids that it was about to attempt.
    pub attempted: u64,
    /// Of ids that it saw accepted.
    pub accepted: u64,
}

/// How much a writer has noted so far.
pub fn bytes(dir: &Path, writer: &str) -> Result<Bytes> {
    let count = |what| {
        let mut bytes = 0;
        for path in files(dir, what)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.strip_prefix(writer).is_some_and(|rest| rest.starts_with('-')) {
                bytes += path.metadata()?.len();
            }
        }
        anyhow::Ok(bytes)
    };
    Ok(Bytes { attempted: count(ATTEMPTED)?, accepted: count(ACCEPTED)? })
}

/// Everything that all writers have noted.
#[derive(Debug)]
pub struct Notes {
    /// Ids that were attempted, if only perhaps.
    pub attempted: HashSet<String>,
    /// Ids that were accepted for certain.
    pub accepted: HashSet<String>,
}

impl Notes {
    /// Reads the notes of all writers, who must be dead.
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(Self { attempted: ids(dir, ATTEMPTED)?, accepted: ids(dir, ACCEPTED)? })
    }
}

fn ids(dir: &Path, what: &str) -> Result<HashSet<String>> {
    let mut ids = HashSet::new();
    for path in files(dir, what)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        ids.extend(lines.map(ToOwned::to_owned));
    }
    Ok(ids)
}

fn files(dir: &Path, what: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == what) {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut notebook = Notebook::create(dir.path(), "w1", 0).unwrap();
        for id in ["a", "b"] {
            notebook.attempting(id).unwrap();
        }
        notebook.accepted("a").unwrap();
        notebook.accepted.write_all(b"tor").unwrap();
        let mut other = Notebook::create(dir.path(), "w10", 0).unwrap();
        other.accepted("c").unwrap();

        let notes = Notes::read(dir.path()).unwrap();
        assert_eq!(notes.attempted, HashSet::from(["a".into(), "b".into()]));
        assert_eq!(notes.accepted, HashSet::from(["a".into(), "c".into()]));
        assert_eq!(bytes(dir.path(), "w1").unwrap(), Bytes { attempted: 4, accepted: 5 });
        assert!(!is_sending(dir.path(), "w1"));
        note_sending(dir.path(), "w1").unwrap();
        assert!(is_sending(dir.path(), "w1") && !is_sending(dir.path(), "w10"));
    }
}
