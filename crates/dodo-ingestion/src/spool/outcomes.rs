//! Which records of a spool were set aside instead of billed, for those who wait on a receipt.
//!
//! One JSON line each, appended by the sender after the dead letter and before the cursor. A sender that
//! takes over learns from them what is not to be sent again.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Seq;
use crate::disk::{Disk, DiskFile, Open, append_line, read_range};
use crate::error::{Error, ErrorKind};

/// Why records were set aside, or lost, or what became of them is not learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) seq: Seq,
    /// So many records from `seq` on.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) records: u64,
    /// `rejected` or `too_large`; `storage` for what was lost, `closed` for what was left.
    pub(crate) kind: String,
    pub(crate) status: Option<u16>,
    pub(crate) message: String,
    pub(crate) uncertain: bool,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(records: &u64) -> bool {
    *records == 1
}

impl Rejection {
    /// Records that the disk lost.
    pub(crate) fn lost(records: &Range<Seq>) -> Self {
        Self {
            seq: records.start,
            records: records.end - records.start,
            kind: ErrorKind::Storage.as_str().into(),
            status: None,
            message: "the call was accepted, and the disk lost it; what could be read of it lies \
                      in quarantine"
                .into(),
            uncertain: true,
        }
    }

    /// Records in a spool that is this process's no more. Never written down.
    pub(crate) fn left(records: &Range<Seq>) -> Self {
        Self {
            kind: ErrorKind::Closed.as_str().into(),
            message: "the host closed the files of the spool; the call stays spooled there, and \
                      the next sender delivers it"
                .into(),
            ..Self::lost(records)
        }
    }

    /// Records of a spool that is gone, and of which something was damaged. Never written down.
    pub(crate) fn unknown(records: &Range<Seq>) -> Self {
        Self {
            message:
                "the call's spool is gone, and something of it could not be read: whether the \
                      call was lost is not known. What could not be read lies in quarantine"
                    .into(),
            ..Self::lost(records)
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.kind == ErrorKind::Storage.as_str()
    }

    /// The sequence number after the last record.
    pub(crate) fn end(&self) -> Seq {
        self.seq.saturating_add(self.records)
    }

    pub(crate) fn covers(&self, seq: Seq) -> bool {
        seq.checked_sub(self.seq).is_some_and(|offset| offset < self.records)
    }

    pub(crate) fn to_error(&self) -> Error {
        let kind = ErrorKind::ALL.iter().copied().find(|kind| kind.as_str() == self.kind);
        let error = Error::new(kind.unwrap_or(ErrorKind::Rejected), self.message.clone())
            .with_status(self.status);
        if self.uncertain { error.and_may_be_billed() } else { error }
    }
}

/// Adds a checksum to a line of JSON, as its last field: what a disk changes of a line may name another call.
pub(crate) fn seal(line: &mut Vec<u8>) {
    let crc = crc32c::crc32c(&line[..line.len().saturating_sub(1)]);
    line.pop(); // the last bracket
    line.extend_from_slice(CRC);
    line.extend_from_slice(format!("{crc:08x}\"}}").as_bytes());
}

const CRC: &[u8] = br#","crc":""#;

/// Whether a line is as it was written, as far as it says so itself.
pub(crate) fn is_intact(line: &[u8]) -> bool {
    const SEAL: usize = CRC.len() + 10;
    let line = line.trim_ascii_end();
    let Some((before, seal)) = line.split_at_checked(line.len().saturating_sub(SEAL)) else {
        return true;
    };
    let crc = seal.strip_prefix(CRC).and_then(|crc| crc.strip_suffix(b"\"}"));
    crc.is_none_or(|crc| crc == format!("{:08x}", crc32c::crc32c(before)).as_bytes())
}

pub(crate) fn append(disk: &dyn Disk, path: &Path, rejections: &[Rejection]) -> io::Result<()> {
    let mut lines = Vec::new();
    for rejection in rejections {
        let mut line = serde_json::to_vec(rejection)?;
        seal(&mut line);
        lines.push(line);
    }
    append_line(disk, path, &lines.join(&b'\n'))
}

/// Reads a spool's outcomes as they come, each once.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Up to where the file was read, and the last line before that.
    offset: u64,
    last: Vec<u8>,
}

impl Outcomes {
    /// Hands out what was written since the last time. A line that is not whole is not yet there; one
    /// that is not ours is passed over.
    pub(crate) fn read_on(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        mut each: impl FnMut(Rejection),
    ) -> io::Result<()> {
        let Some(file) = open_if_any(disk, &dir.join("outcomes"))? else { return Ok(()) };
        if !self.is_continued_by(&*file)? {
            *self = Self::default();
        }
        let Self { offset, last } = self;
        for_each_line(&*file, *offset, |line| {
            *offset += line.len() as u64;
            line.clone_into(last);
            if let Ok(rejection) = serde_json::from_slice(line)
                && is_intact(line)
            {
                each(rejection);
            }
        })
    }

    /// False when what was read is there no more: lines that could not be synced are taken back.
    fn is_continued_by(&self, file: &dyn DiskFile) -> io::Result<bool> {
        let len = self.last.len() as u64;
        Ok(read_range(file, self.offset - len, len)? == self.last)
    }
}

fn open_if_any(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(path, Open::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Hands out the whole lines of a file of any length, with their ends.
fn for_each_line(
    file: &dyn DiskFile,
    mut offset: u64,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    const CHUNK: usize = 64 << 10;
    let mut lines = Vec::new();
    loop {
        let whole = lines.len();
        lines.resize(whole + CHUNK, 0);
        let read = file.read_at(&mut lines[whole..], offset)?;
        if read == 0 {
            return Ok(());
        }
        offset += read as u64;
        lines.truncate(whole + read);
        let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        lines[..end].split_inclusive(|byte| *byte == b'\n').for_each(&mut each);
        lines.drain(..end);
    }
}

/// A line of the dead letters, as far as it tells what `outcomes` told.
#[derive(Debug, Deserialize)]
pub(crate) struct Letter {
    pub(crate) spool: String,
    seq: Seq,
    reason: String,
    status: Option<u16>,
    message: String,
    uncertain: bool,
}

impl Letter {
    pub(crate) fn outcome(self) -> Rejection {
        let Self { seq, reason: kind, status, message, uncertain, .. } = self;
        Rejection { seq, records: 1, kind, status, message, uncertain }
    }
}

/// Hands out what was set aside of one spool, by the dead letters of its namespace.
pub(crate) fn from_dead_letters(
    disk: &dyn Disk,
    path: &Path,
    spool: &str,
    mut each: impl FnMut(Rejection),
) -> io::Result<()> {
    let Some(file) = open_if_any(disk, path)? else { return Ok(()) };
    for_each_line(&*file, 0, |line| match serde_json::from_slice::<Letter>(line) {
        Ok(letter) if letter.spool == spool && is_intact(line) => each(letter.outcome()),
        _ => {}
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{MemoryDisk, append_all};

    /// What is new to a reader of the spool in the directory "spool".
    fn read_on(outcomes: &mut Outcomes, disk: &MemoryDisk) -> Vec<Rejection> {
        let mut found = Vec::new();
        outcomes.read_on(disk, Path::new("spool"), |rejection| found.push(rejection)).unwrap();
        found
    }

    fn read(disk: &MemoryDisk) -> Vec<Rejection> {
        read_on(&mut Outcomes::default(), disk)
    }

    #[test]
    fn what_was_read_is_not_read_again_unless_it_was_taken_back() {
        let disk = MemoryDisk::default();
        let path = Path::new("spool/outcomes");
        let lost = |seq: Seq| Rejection::lost(&(seq..seq + 1));
        let mut reader = Outcomes::default();
        assert_eq!(read_on(&mut reader, &disk), []);
        append(&disk, path, &[lost(0), lost(1)]).unwrap();
        assert_eq!(read_on(&mut reader, &disk), [lost(0), lost(1)]);
        let file = disk.open(path, Open::Append).unwrap();
        let (first, both) = (file.len().unwrap() / 2, file.len().unwrap());
        file.write_all_at(b"spoilt", 0).unwrap();
        append_all(&*file, b"{\"seq\":").unwrap();
        assert_eq!(read_on(&mut reader, &disk), []);
        append(&disk, path, &[lost(2)]).unwrap();
        assert_eq!(read_on(&mut reader, &disk), [lost(2)], "the first lines are not looked at");
        file.truncate(both).unwrap();
        assert_eq!(read_on(&mut reader, &disk), [lost(1)], "all that can be read");
        // As long as it was, and other than it was.
        file.truncate(first).unwrap();
        append(&disk, path, &[lost(3)]).unwrap();
        assert_eq!(file.len().unwrap(), both);
        assert_eq!(read_on(&mut reader, &disk), [lost(3)]);
        assert_eq!(read_on(&mut reader, &disk), []);
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let disk = MemoryDisk::default();
        let path = Path::new("spool/outcomes");
        assert_eq!(read(&disk), []);
        let rejection = Rejection {
            seq: 3,
            records: 1,
            kind: "too_large".into(),
            status: Some(413),
            message: "no\nroom".into(),
            uncertain: true,
        };
        append(&disk, path, std::slice::from_ref(&rejection)).unwrap();
        disk.open(path, Open::Append).unwrap().append(b"{\"seq\":4,").unwrap();
        assert_eq!(read(&disk), std::slice::from_ref(&rejection));
        let error = rejection.to_error();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.may_be_billed());
    }

    #[test]
    fn a_line_in_which_a_bit_flipped_names_no_other_call() {
        let disk = MemoryDisk::default();
        let path = Path::new("spool/outcomes");
        let rejection = Rejection { kind: "rejected".into(), ..Rejection::lost(&(1..2)) };
        append(&disk, path, std::slice::from_ref(&rejection)).unwrap();
        let file = disk.open(path, Open::Update).unwrap();
        let line = read_range(&*file, 0, file.len().unwrap()).unwrap();
        for bit in 0..line.len() * 8 {
            let mut flipped = line.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            file.write_all_at(&flipped, 0).unwrap();
            let found = read(&disk);
            assert!(found.iter().all(|found| *found == rejection), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn all_outcomes_are_read_however_many_there_are() {
        let disk = MemoryDisk::default();
        let path = Path::new("spool/outcomes");
        let message = "the API's words ".repeat(100);
        let outcome =
            |seq| Rejection { message: message.clone(), ..Rejection::lost(&(seq..seq + 1)) };
        let outcomes: Vec<Rejection> = (0..3_000).map(outcome).collect();
        append(&disk, path, &outcomes).unwrap();
        assert!(disk.open(path, Open::Read).unwrap().len().unwrap() > 4 << 20);
        assert_eq!(read(&disk), outcomes);
    }

    #[test]
    fn dead_letters_of_one_spool_are_found_among_many() {
        let disk = MemoryDisk::default();
        let path = Path::new("dead-letters.jsonl");
        let file = disk.open(path, Open::Append).unwrap();
        for seq in 0..400 {
            let spool = if seq % 2 == 0 { "ours" } else { "theirs" };
            // More in all than is read at once.
            let letter = serde_json::json!({
                "event": {"event_id": "x".repeat(700)}, "spool": spool, "seq": seq,
                "reason": "rejected", "status": 400, "message": "no", "uncertain": false,
            });
            append_all(&*file, format!("{letter}\n").as_bytes()).unwrap();
        }
        append_all(&*file, b"{\"spool\":\"ours\",\"seq\":400").unwrap();
        let read = |path| {
            let mut found = Vec::new();
            from_dead_letters(&disk, path, "ours", |rejection| found.push(rejection)).unwrap();
            found
        };
        let found = read(path);
        let seqs: Vec<Seq> = found.iter().map(|rejection| rejection.seq).collect();
        assert_eq!(seqs, (0..400).step_by(2).collect::<Vec<Seq>>());
        assert_eq!(found[7].to_error().status(), Some(400));
        assert_eq!(read(Path::new("none")), []);
    }
}
