//! Processes of one account, one of which sends: what the others learn, and what happens when it goes.

mod broken;
mod support;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use support::{Process, Server, at};
use tempfile::tempdir;

use crate::alarm::AlarmKind;
use crate::disk::Open;
use crate::error::ErrorKind;
use crate::event::ApiCall;
use crate::settlement::block_on;
use crate::wake::Wake;

const HOUR_MS: u64 = 3_600_000;
/// Makes a call that is old when it is looked at one that is set aside.
const LATE: &[(&str, &str)] = &[("late", "dead_letter")];

#[test]
fn what_calls_would_wait_for_is_done_for_as_many_as_came_since_the_last_time() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    process.disk.map();
    for round in 1..=2 {
        for _ in 0..100 {
            process.track(at(0));
        }
        process.serve(at(20 * round));
        // Nothing came since.
        process.serve(at(20 * round + 10));
    }
    let [first, second] = process.disk.prepared()[..] else {
        panic!("{:?}", process.disk.prepared());
    };
    let calls = second - first;
    let header = first - 2 * calls;
    assert!(calls > 100 * 100 && header < 100, "{first}, {second}");
}

fn outcome(process: &Process, seq: u64) -> Option<ErrorKind> {
    let waiting = process.shared.settlement.wait();
    let outcome = block_on(waiting.until_settled(seq, Instant::now() + Duration::from_secs(120)));
    outcome.expect("it is settled").err().map(|error| error.kind())
}

#[test]
fn what_was_set_aside_is_not_taken_for_billed_while_outcomes_cannot_be_read() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), LATE);
    sender.serve(at(0));
    let mut other = Process::start(dir.path(), &server, at(0), LATE);
    let seq = other.track(at(0));
    sender.serve(at(2 * HOUR_MS));
    other.disk.fail("outcomes", Open::Read);
    other.serve(at(2 * HOUR_MS));
    assert_eq!((sender.sends(), other.settled()), (true, 0));
    other.disk.mend();
    other.serve(at(2 * HOUR_MS + 20));
    assert_eq!((other.settled(), other.shared.settlement.dead_lettered()), (1, 1));
    assert_eq!(outcome(&other, seq), Some(ErrorKind::Rejected));
}

#[test]
fn a_spool_counts_as_settled_only_when_its_outcomes_are_written() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), LATE);
    sender.serve(at(0));
    let mut other = Process::start(dir.path(), &server, at(0), LATE);
    let seq = other.track(at(0));
    sender.disk.fail("outcomes", Open::Append);
    let late = 2 * HOUR_MS;
    for mono in (late..late + 3_000).step_by(500) {
        sender.serve(at(mono));
        other.serve(at(mono));
    }
    assert_eq!((sender.sends(), other.settled()), (true, 0));
    sender.disk.mend();
    sender.serve(at(late + 4_000));
    other.serve(at(late + 4_000));
    assert_eq!((other.settled(), outcome(&other, seq)), (1, Some(ErrorKind::Rejected)));
    let letters = std::fs::read_to_string(dir.path().join("dead-letters.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), 1, "it was set aside once");
}

#[test]
fn of_the_outcomes_only_what_is_new_is_read_when_the_cursor_moves() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), LATE);
    sender.serve(at(0));
    let mut other = Process::start(dir.path(), &server, at(0), LATE);
    for _ in 0..500 {
        other.track(at(0));
    }
    sender.serve(at(2 * HOUR_MS));
    other.serve(at(2 * HOUR_MS));
    let all = other.disk.read();
    for second in 1..=20 {
        other.track(at(0));
        let now = at(2 * HOUR_MS + second * 1_000);
        sender.serve(now);
        other.serve(now);
    }
    assert_eq!((other.sends(), other.settled()), (false, 520));
    assert_eq!(other.shared.settlement.dead_lettered(), 520);
    assert!(other.disk.read() < all + all / 2, "{} bytes after {all}", other.disk.read());
}

#[test]
fn what_is_set_aside_together_is_written_together() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), LATE);
    for _ in 0..1_000 {
        sender.track(at(0));
    }
    sender.serve(at(2 * HOUR_MS));
    assert_eq!((sender.settled(), sender.shared.settlement.dead_lettered()), (1_000, 1_000));
    let letters = std::fs::read_to_string(dir.path().join("dead-letters.jsonl")).unwrap();
    let batches = letters.len().div_ceil(crate::spool::MOST_LETTERS_BYTES);
    assert!(sender.disk.syncs() <= 2 * (batches + 1), "{} syncs", sender.disk.syncs());
    assert_eq!(letters.lines().count(), 1_000);
    assert_eq!(server.requests(), 0);
}

/// The crash lies between the dead letters and their outcomes.
#[test]
fn all_that_was_set_aside_just_before_a_crash_is_known_to_the_next_sender() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), LATE);
    sender.serve(at(0));
    let mut other = Process::start(dir.path(), &server, at(0), &[]);
    for _ in 0..50 {
        other.track(at(0));
    }
    sender.disk.fail("outcomes", Open::Append);
    sender.serve(at(2 * HOUR_MS));
    drop(sender);
    other.serve(at(2 * HOUR_MS));
    assert_eq!((other.sends(), other.settled()), (true, 50));
    assert_eq!((server.requests(), other.shared.settlement.dead_lettered()), (0, 50));
}

/// Sends a call at once, if the budget allows.
fn flush(process: &mut Process, now: u64) {
    process.track(at(now));
    process.shared.append_flush(at(now)).unwrap();
    process.serve(at(now));
}

#[test]
fn flushes_without_a_call_in_between_are_one_record() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    server.go_away(true);
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    let flush = |now| process.shared.append_flush(at(now)).unwrap();
    process.track(at(0));
    assert_eq!([0, 1, 2].map(flush), [1; 3]);
    process.track(at(3));
    assert_eq!([3, 4].map(flush), [3; 2]);
    process.serve(at(5));
    server.go_away(false);
    process.serve(at(HOUR_MS));
    assert_eq!((process.settled(), server.taken()), (4, 2));
}

#[test]
fn whatever_stands_in_the_senders_lock_calls_are_sent() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    std::fs::write(dir.path().join("sender.lock"), [0xff; 9]).unwrap();
    process.track(at(0));
    process.serve(at(1));
    assert_eq!(server.taken(), 1);
}

#[test]
fn three_senders_in_a_row_know_of_all_requests_of_the_last_minute() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let set = &[("requests_per_minute", "20"), ("requests_per_second", "20")];
    // The file is full of starts that are long ago.
    let namespace = Process::start(dir.path(), &server, at(0), set).namespace();
    for slot in 0..20 {
        namespace.record_start(slot, at(slot as u64).wall).unwrap();
    }
    let mut now = HOUR_MS;
    for _ in 0..3 {
        let mut sender = Process::start(dir.path(), &server, at(now), set);
        for _ in 0..6 {
            now += 100;
            flush(&mut sender, now);
        }
        now += 500;
    }
    assert_eq!(server.requests(), 18);
    let (starts, _) = namespace.starts(20, at(now).wall).unwrap();
    let recent = starts.iter().filter(|start| **start > at(now).wall - 60_000);
    assert_eq!(recent.count(), 18);
    let mut last = Process::start(dir.path(), &server, at(now), set);
    for _ in 0..10 {
        now += 100;
        flush(&mut last, now);
    }
    assert!(server.requests() <= 20, "{} requests in a minute", server.requests());
}

#[test]
fn more_spools_than_are_drained_at_a_time_take_turns() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    let start = |_| Process::start(dir.path(), &server, at(0), &[]);
    let mut others: Vec<Process> = (0..20).map(start).collect();
    let serve = |sender: &mut Process, from: u64| {
        (from..from + 10_000).step_by(500).for_each(|mono| sender.serve(at(mono)));
    };
    serve(&mut sender, 0);
    for other in &others {
        other.track(at(10_000));
    }
    serve(&mut sender, 10_000);
    for other in &mut others {
        other.serve(at(20_000));
        assert_eq!((other.sends(), other.settled()), (false, 1));
    }
    assert!(!sender.was_told_of(AlarmKind::Crowded));
}

#[test]
fn spools_that_come_to_no_end_do_not_keep_others_out_for_ever() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    for _ in 0..20 {
        let dead = Process::start(dir.path(), &server, at(0), &[]);
        dead.track(at(0));
        make_newer(&dead.shared.writer.dir().join("segment-0000000000000000"));
    }
    let mut living = Process::start(dir.path(), &server, at(1), &[]);
    living.track(at(1));
    for mono in (1_000..30_000).step_by(500) {
        sender.serve(at(mono));
    }
    living.serve(at(30_000));
    assert_eq!((living.sends(), living.settled()), (false, 1));
}

#[test]
fn spools_whose_calls_are_not_taken_take_turns_as_well_and_that_is_told() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    sender.serve(at(0));
    let start = |_| Process::start(dir.path(), &server, at(0), &[]);
    let mut others: Vec<Process> = (0..20).map(start).collect();
    for other in &others {
        other.track(at(0));
    }
    server.go_away(true);
    (0..200_000).step_by(500).for_each(|mono| sender.serve(at(mono)));
    assert!(sender.was_told_of(AlarmKind::Crowded));
    server.go_away(false);
    (200_000..600_000).step_by(500).for_each(|mono| sender.serve(at(mono)));
    for other in &mut others {
        other.serve(at(600_000));
        assert_eq!((other.sends(), other.settled()), (false, 1));
    }
}

/// Makes a segment one of a format that is not known yet.
fn make_newer(segment: &std::path::Path) {
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[8..12].copy_from_slice(&[9, 0, 9, 0]);
    let crc = crc32c::crc32c(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(segment, bytes).unwrap();
}

#[test]
fn a_sender_whose_key_is_refused_lets_one_with_another_key_try() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    server.refuse(Some("sk_old"));
    let mut old = Process::start(dir.path(), &server, at(0), &[("api_key", "sk_old")]);
    old.track(at(0));
    (0..5_000).step_by(500).for_each(|mono| old.serve(at(mono)));
    let mut new = Process::start(dir.path(), &server, at(5_000), &[("api_key", "sk_new")]);
    new.track(at(5_000));
    for mono in (5_000..90_000).step_by(500) {
        old.serve(at(mono));
        new.serve(at(mono));
    }
    assert_eq!((new.sends(), new.settled(), old.settled()), (true, 1, 1));
}

#[test]
fn a_sender_that_is_alone_with_a_refused_key_goes_on_and_takes_another_at_once() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    server.refuse(Some("sk_1"));
    let mut alone = Process::start(dir.path(), &server, at(0), &[]);
    alone.track(at(0));
    for mono in (0..240_000).step_by(500) {
        alone.serve(at(mono));
    }
    assert!((4..=8).contains(&server.requests()), "{} requests", server.requests());
    // However long ago it gave up the lock.
    alone.shared.set_key(crate::config::ApiKey::for_test("sk_2"));
    alone.serve(at(240_000));
    assert_eq!(alone.settled(), 1);
    let counted = alone.shared.counters.requests.load(Ordering::Relaxed);
    assert_eq!(counted, server.requests() as u64, "over all its terms as the sender");
}

#[test]
fn a_segment_that_cannot_be_begun_is_tried_again_after_a_second() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    process.serve(at(0));
    let accept = |process: &Process| {
        let call = crate::event::ApiCall::new("cus_1").into();
        let accepted = process.shared.accept(&call, "call", Duration::ZERO, at(0));
        accepted.map(|(_, seq)| seq).map_err(|error| error.kind())
    };
    process.disk.fail("segment-", Open::CreateToAppend);
    assert_eq!(accept(&process), Err(ErrorKind::Storage));
    process.disk.mend();
    let lock = dir.path().join("room.lock");
    std::fs::remove_file(&lock).unwrap();
    assert_eq!(accept(&process), Err(ErrorKind::Storage), "nothing is tried");
    assert!(!lock.exists());
    process.serve(at(1_000));
    assert_eq!(accept(&process), Ok(0));
}

#[test]
fn an_owner_that_goes_on_appending_is_not_followed_record_by_record() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    process.track(at(0));
    let appended = Arc::new(AtomicUsize::new(0));
    let (shared, count) = (process.shared.clone(), appended.clone());
    process.disk.meanwhile(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let hour = Duration::from_secs(3_600);
        shared.accept(&ApiCall::new("cus_1").into(), "call", hour, at(0)).unwrap();
    });
    for step in 1..=3 {
        process.task.serve(at(step));
        let appended = appended.load(Ordering::Relaxed) as u64;
        assert!(appended <= 2 * step, "what comes meanwhile is read the next time: {appended}");
    }
}

#[test]
fn the_engine_is_woken_for_nothing_that_it_sees_in_time_by_itself() {
    let wake = Wake::default();
    let woken = || {
        let woken = pin!(wake.woken());
        woken.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    wake.awake();
    wake.appended(5_000);
    assert_eq!((wake.asleep_until(1_000), woken()), (1_000, false), "it looks before that is due");
    wake.appended(1_000);
    assert!(!woken());
    wake.appended(999);
    wake.appended(500);
    assert!(woken() && !woken(), "once for all");
    wake.awake();
    wake.appended(50);
    assert_eq!((wake.asleep_until(1_000), woken()), (50, false), "it had not gone to sleep");
}

#[test]
fn who_waits_is_told_why_by_whichever_process_sends() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    server.refuse(Some("sk_1"));
    let mut sender = Process::start(dir.path(), &server, at(0), &[]);
    let mut other = Process::start(dir.path(), &server, at(0), &[]);
    other.track(at(0));
    let overdue = |process: &Process| {
        let error = process.shared.settlement.overdue("");
        (error.kind(), error.status())
    };
    let serve = |sender: &mut Process, other: &mut Process, from: u64, to: u64| {
        for mono in (from..to).step_by(500) {
            sender.serve(at(mono));
            other.serve(at(mono));
        }
    };
    serve(&mut sender, &mut other, 0, 10_000);
    assert_eq!(overdue(&sender), (ErrorKind::Authentication, Some(401)));
    assert_eq!(overdue(&other), (ErrorKind::Authentication, Some(401)));
    server.refuse(None);
    serve(&mut sender, &mut other, 10_000, 90_000);
    assert_eq!(other.settled(), 1);
    assert_eq!((overdue(&sender).0, overdue(&other).0), (ErrorKind::Timeout, ErrorKind::Timeout));
    // An older version's sender writes no more than its count.
    let lock = dir.path().join("sender.lock");
    std::fs::write(lock, [7; 8]).unwrap();
    other.serve(at(100_000));
    assert_eq!(overdue(&other).0, ErrorKind::Timeout);
}

#[test]
fn what_the_files_take_is_measured_only_where_it_matters() {
    let (dir, server) = (tempdir().unwrap(), Server::default());
    let mut process = Process::start(dir.path(), &server, at(0), &[]);
    process.track(at(0));
    let begun = process.disk.measured();
    for mono in (0..20_000).step_by(500) {
        process.serve(at(mono));
    }
    assert_eq!((process.settled(), process.disk.measured()), (1, begun));
}
