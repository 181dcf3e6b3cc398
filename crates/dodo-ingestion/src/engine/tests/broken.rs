//! What one broken file costs: its own calls their time, and the others nothing.

use std::path::{Path, PathBuf};

use tempfile::tempdir;

use super::support::{Process, Server, at};
use super::{HOUR_MS, LATE};
use crate::disk::Open;

/// A process that made so many calls and died. Returns its spool.
fn dead(dir: &Path, server: &Server, calls: u64) -> PathBuf {
    let process = Process::start(dir, server, at(0), &[]);
    for _ in 0..calls {
        process.track(at(0));
    }
    process.shared.writer.dir()
}

fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.to_string_lossy().contains("segment-");
    let mut segments: Vec<PathBuf> = files.filter(is_segment).collect();
    segments.sort_unstable();
    segments
}

fn spoil(file: &Path, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    spoil(&mut bytes);
    std::fs::write(file, &bytes).unwrap();
    bytes
}

fn serve(process: &mut Process, from: u64, to: u64) {
    (from..to).step_by(500).for_each(|mono| process.serve(at(mono)));
}

#[test]
fn a_segment_of_many_damaged_calls_is_read_once() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let spool = dead(dir.path(), &server, 200);
    let [segment] = &segments(&spool)[..] else { panic!("one segment") };
    let bytes = spoil(segment, |bytes| {
        let calls: Vec<usize> = (0..bytes.len() - 5)
            .filter(|at| bytes[*at..].starts_with(b"cus_1"))
            .step_by(2)
            .collect();
        for at in calls {
            bytes[at] ^= 1;
        }
    });
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    serve(&mut sender, 1_000, 10_000);
    assert!(!spool.exists());
    let quarantined = std::fs::read_dir(dir.path().join("quarantine")).unwrap().count();
    assert_eq!((server.taken(), quarantined), (100, 100));
    let read = sender.disk.read();
    assert!(read < 5 * bytes.len(), "{read} bytes read of {}", bytes.len());
}

#[test]
fn damaged_bytes_that_cannot_be_kept_hold_up_no_call_and_are_kept_later() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let spool = dead(dir.path(), &server, 1_500);
    let segments = segments(&spool);
    assert!(segments.len() > 2);
    let damaged = spoil(&segments[0], |bytes| bytes[0] ^= 1);
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    sender.disk.fail("/quarantine/", Open::Update);
    serve(&mut sender, 1_000, 10_000);
    let taken = server.taken();
    assert!(taken > 500, "the rest of {taken} calls is delivered");
    assert_eq!(std::fs::read(&segments[0]).unwrap(), damaged, "it stays where it is");
    sender.disk.mend();
    serve(&mut sender, 10_000, 20_000);
    assert!(!spool.exists());
    let mut kept = std::fs::read_dir(dir.path().join("quarantine")).unwrap();
    assert_eq!(std::fs::read(kept.next().unwrap().unwrap().path()).unwrap(), damaged);
    assert!(kept.next().is_none());
    assert_eq!(server.taken(), taken);
}

/// The crash of one sender lies between its dead letters and their outcomes, and the next sender writes
/// many letters before it can open the spool.
#[test]
fn what_a_sender_set_aside_before_its_crash_is_known_however_late_the_spool_is_opened() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut crashes = Process::start(dir.path(), &server, at(0), LATE);
    crashes.serve(at(0));
    let mut other = Process::start(dir.path(), &server, at(0), &[]);
    for _ in 0..50 {
        other.track(at(0));
    }
    crashes.disk.fail("outcomes", Open::Append);
    crashes.serve(at(2 * HOUR_MS));
    drop(crashes);
    let mut next = Process::start(dir.path(), &server, at(0), LATE);
    for _ in 0..1_500 {
        next.track(at(0));
    }
    let name = other.shared.writer.name();
    next.disk.fail(&format!("{}/cursor", name.0), Open::Update);
    let now = 2 * HOUR_MS + 1_000;
    next.serve(at(now));
    assert_eq!((next.sends(), next.settled()), (true, 1_500));
    let letters = std::fs::metadata(dir.path().join("dead-letters.jsonl")).unwrap().len();
    assert!(letters as usize > 2 * crate::spool::MOST_LETTERS_BYTES, "{letters} bytes");
    next.disk.mend();
    serve(&mut next, now + 1_000, now + 3_000);
    other.serve(at(now + 3_000));
    assert_eq!((other.sends(), other.settled()), (false, 50));
    assert_eq!((server.requests(), other.shared.settlement.dead_lettered()), (0, 50));
}
