//! What one broken file costs: its own calls their time, and the others nothing.

use std::iter::repeat_n;
use std::path::{Path, PathBuf};

use tempfile::tempdir;

use super::support::{Process, Server, at};
use super::{HOUR_MS, LATE};
use crate::alarm::AlarmKind;
use crate::disk::Open;

/// A process that made calls at these times and died. Returns its spool.
fn dead(dir: &Path, server: &Server, calls: impl IntoIterator<Item = u64>) -> PathBuf {
    let process = Process::start(dir, server, at(0), &[]);
    for mono in calls {
        process.track(at(mono));
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

#[test]
fn calls_that_are_left_beside_a_namespace_are_told_of_while_it_is_served() {
    let (root, server) = (tempdir().unwrap(), Server::default());
    let (ours, theirs) = (root.path().join("ours"), root.path().join("theirs"));
    let mut sender = Process::start(&ours, &server, at(0), &[]);
    let mut other = Process::start(&ours, &server, at(0), &[]);
    let beside = Process::start(&theirs, &server, at(0), &[]);
    beside.track(at(0));
    let mut serve = |from: u64, to: u64| {
        for mono in (from..to).step_by(1_000) {
            sender.serve(at(mono));
            other.serve(at(mono));
        }
        (sender.was_told_of(AlarmKind::Abandoned), other.was_told_of(AlarmKind::Abandoned))
    };
    let minute = 60_000;
    assert_eq!(serve(0, 11 * minute), (false, false), "its owner lives");
    drop(beside);
    assert_eq!(serve(11 * minute, 19 * minute), (false, false), "it was looked at lately");
    assert_eq!(serve(19 * minute, 22 * minute), (true, false), "the sender tells of it");
}

#[test]
fn corrected_certificates_are_trusted_without_a_restart() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    server.is_trusted(false);
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    process.track(at(0));
    serve(&mut process, 0, 30_000);
    assert!(process.was_told_of(AlarmKind::Address));
    server.is_trusted(true);
    serve(&mut process, 30_000, 200_000);
    assert_eq!((process.settled(), server.taken()), (1, 1));
}

fn serve(process: &mut Process, from: u64, to: u64) {
    (from..to).step_by(500).for_each(|mono| process.serve(at(mono)));
}

#[test]
fn a_segment_of_many_damaged_calls_is_read_once() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let spool = dead(dir.path(), &server, repeat_n(0, 200));
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
    let spool = dead(dir.path(), &server, repeat_n(0, 1_500));
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

#[test]
fn a_small_spool_that_is_full_takes_calls_again_when_a_segment_of_it_is_lost() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let start = || Process::start(dir.path(), &server, at(0), &[("max_spool_bytes", "1048576")]);
    let full = start();
    while full.accepts(at(0)) {}
    let spool = full.shared.writer.dir();
    drop(full);
    spoil(&segments(&spool)[0], |bytes| bytes[0] ^= 1);
    let mut sender = start();
    assert!(!sender.accepts(at(0)));
    serve(&mut sender, 0, 20_000);
    assert!(!spool.exists());
    assert!(sender.accepts(at(20_000)));
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
    let letters = || std::fs::read_to_string(dir.path().join("dead-letters.jsonl")).unwrap();
    assert!(letters().len() > 2 * crate::spool::MOST_LETTERS_BYTES);
    next.disk.mend();
    serve(&mut next, now + 1_000, now + 3_000);
    other.serve(at(now + 3_000));
    assert_eq!((other.sends(), other.settled()), (false, 50));
    assert_eq!((server.requests(), other.shared.settlement.dead_lettered()), (0, 50));
    assert_eq!(letters().lines().count(), 1_550, "each was set aside once");
}

#[test]
fn a_spool_whose_cursor_cannot_be_written_does_not_hold_up_the_others() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let broken = dead(dir.path(), &server, repeat_n(0, 5));
    let mut sender = Process::start(dir.path(), &server, at(1_000), &[]);
    sender.disk.fail_writes(&format!("{}/cursor", broken.file_name().unwrap().display()));
    let mut now = 1_000;
    for calls in 1..=100 {
        sender.track(at(now));
        serve(&mut sender, now, now + 3_000);
        now += 3_000;
        // Each pause of five seconds holds up one or two of them.
        assert!(sender.settled() + 3 >= calls, "{} of {calls}", sender.settled());
    }
    assert_eq!((server.taken(), sender.was_told_of(AlarmKind::Storage)), (100, true));
    sender.disk.mend();
    serve(&mut sender, now, now + 70_000);
    assert_eq!((server.taken(), broken.exists()), (105, false));
}

#[test]
fn what_was_set_aside_of_a_spool_before_it_was_left_out_is_known_after_that() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let late = 2 * HOUR_MS;
    let broken = dead(dir.path(), &server, [0, 0, 0, late, late]);
    let mut sender = Process::start(dir.path(), &server, at(late), LATE);
    sender.disk.fail_writes(&format!("{}/cursor", broken.file_name().unwrap().display()));
    sender.disk.fail("outcomes", Open::Append);
    serve(&mut sender, late, late + 20_000);
    let letters = || std::fs::read_to_string(dir.path().join("dead-letters.jsonl")).unwrap();
    assert_eq!((letters().lines().count(), server.taken()), (3, 0));
    sender.disk.mend();
    serve(&mut sender, late + 20_000, late + 80_000);
    assert_eq!((letters().lines().count(), server.taken(), broken.exists()), (3, 2, false));
}

#[test]
fn who_waits_for_a_cursor_that_was_removed_waits_for_seconds_only() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    sender.serve(at(0));
    let mut other = Process::start(dir.path(), &server, at(0), &[]);
    let mut serve = |other: &mut Process, from: u64, to: u64| {
        for mono in (from..to).step_by(500) {
            sender.serve(at(mono));
            other.serve(at(mono));
        }
        sender.was_told_of(AlarmKind::Storage)
    };
    other.track(at(0));
    assert!(!serve(&mut other, 0, 5_000));
    assert_eq!(other.settled(), 1);
    std::fs::remove_file(other.shared.writer.dir().join("cursor")).unwrap();
    other.track(at(5_000));
    assert!(serve(&mut other, 5_000, 10_000), "an alarm tells of it");
    assert_eq!((other.settled(), server.taken()), (2, 2));
}
