//! Processes that fork.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "signals to processes")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/process.rs"]
mod process;
mod support;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use dodo_ingestion::{AlarmKind, ApiCall, BatchConfig, Durability, ErrorKind, Result, Stats};
use process::{
    NEVER, Role, builder, dir, fork, in_child, open, parent_id, play, say, spools, stage, track,
    wait_for,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::{PATIENT, client, eventually};

/// What the processes of the tests do. As a test of its own it has nothing to do.
#[test]
fn role() {
    let Some(role) = process::own_role() else { return };
    match role.as_str() {
        "loaded" => fork_under_load(),
        "kinds" => every_handle_in_a_child(),
        "nested" => fork_in_a_fork(),
        "keys" => renew_the_key(),
        "batch" => carry_a_batch(),
        "receipts" => carry_receipts(),
        "sender" => fork_and_be_killed(),
        "idle" => fork_an_idle_child(),
        "exec" => fork_and_exec(),
        "unopenable" => fail_to_open_in_a_child(),
        "told" => be_told_in_a_child(),
        other => panic!("no role {other}"),
    }
}

fn fork_under_load() {
    const CHILDREN: usize = 50;
    const CALLS: usize = 20;
    let ingestion = open();
    let (full_speed, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let tracked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if full_speed.load(Ordering::Relaxed) {
                        drop(track(&ingestion, 1));
                        tracked.fetch_add(1, Ordering::Relaxed);
                    } else {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            });
        }
        let fork_one = |round: usize| {
            full_speed.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(500 + 37 * round as u64));
            let child = fork(|| {
                track(&ingestion, CALLS);
                ingestion.blocking_flush(PATIENT).unwrap();
                let stats = ingestion.stats();
                assert_eq!((stats.accepted, stats.billed), (CALLS as u64, CALLS as u64));
            });
            full_speed.store(false, Ordering::Relaxed);
            child
        };
        for wave in 0..CHILDREN / 10 {
            let children: Vec<_> = (0..10).map(|i| fork_one(wave * 10 + i)).collect();
            children.into_iter().for_each(wait_for);
        }
        over.store(true, Ordering::Relaxed);
    });
    ingestion.blocking_close(PATIENT).unwrap();
    say(&(tracked.into_inner() + CHILDREN * CALLS).to_string());
}

#[test]
fn children_forked_while_threads_track_bill_every_call_of_their_own() {
    let (server, dir) = stage();
    let mut role = Role::start("loaded", &server, dir.path());
    let total: usize = role.line().parse().unwrap();
    let status = role.end();
    assert!(status.success(), "{status}");
    // An id that two processes drew would be billed once.
    assert_eq!(server.billed(), total);
}

fn every_handle_in_a_child() {
    let (ingestion, closed) = (open(), open());
    track(&ingestion, 3);
    ingestion.blocking_flush(PATIENT).unwrap();
    closed.blocking_close(PATIENT).unwrap();

    in_child(|| {
        assert_eq!(ingestion.stats(), Stats::default());
        ingestion.blocking_flush(Duration::ZERO).unwrap();
        let error = ingestion.track_api_call(ApiCall::new("")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        track(&ingestion, 2);
        ingestion.blocking_flush(PATIENT).unwrap();
        let stats = ingestion.stats();
        assert_eq!((stats.accepted, stats.billed, stats.invalid), (2, 2, 1));
        let error = closed.track_api_call(ApiCall::new("c")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    });
    let other = ingestion.clone();
    in_child(|| drop((ingestion, closed)));
    let ingestion = other;
    in_child(|| {
        ingestion.blocking_close(PATIENT).unwrap();
        let error = ingestion.track_api_call(ApiCall::new("c")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    });
    in_child(|| {
        track(&ingestion, 1);
        ingestion.blocking_close(PATIENT).unwrap();
        // One that is made anew in the child is like any other.
        let new = open();
        track(&new, 1);
        new.blocking_close(PATIENT).unwrap();
    });
    track(&ingestion, 1);
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(ingestion.stats().accepted, 4);
}

#[test]
fn a_child_tracks_flushes_closes_drops_and_counts_on_its_own() {
    let (server, dir) = stage();
    play("kinds", &server, dir.path());
    assert_eq!(server.billed(), 3 + 2 + 2 + 1);
}

fn fork_in_a_fork() {
    let ingestion = open();
    track(&ingestion, 1);
    in_child(|| {
        track(&ingestion, 1);
        in_child(|| {
            track(&ingestion, 1);
            // Its parent has tracked nothing of which it could be a copy.
            in_child(|| {
                in_child(|| {
                    track(&ingestion, 1);
                    ingestion.blocking_flush(PATIENT).unwrap();
                });
            });
            ingestion.blocking_flush(PATIENT).unwrap();
        });
        ingestion.blocking_flush(PATIENT).unwrap();
    });
    ingestion.blocking_close(PATIENT).unwrap();
}

#[test]
fn a_child_that_forks_again() {
    let (server, dir) = stage();
    play("nested", &server, dir.path());
    assert_eq!(server.billed(), 4);
}

fn renew_the_key() {
    let old = builder().account("acme").build().unwrap();
    let new = builder().account("acme").api_key("sk_test_new").build().unwrap();
    in_child(|| {
        track(&new, 1);
        track(&old, 1);
        new.blocking_flush(PATIENT).unwrap();
    });
    // The parent was the sender. Now it is not.
    let parent = std::process::id().cast_signed();
    fork(|| {
        say("forked");
        eventually("the parent has ended", || parent_id() != parent);
        track(&new, 1);
        track(&old, 1);
        new.blocking_flush(PATIENT).unwrap();
        say("done");
    });
}

#[test]
fn the_newest_clients_key_counts_in_a_child_too() {
    let (server, dir) = stage();
    let mut role = Role::start("keys", &server, dir.path());
    assert_eq!((role.line(), role.line()), ("forked".into(), "done".into()));
    let keys = server.state.lock().unwrap().keys.clone();
    assert!(keys.len() >= 2 && keys.iter().all(|key| key == "Bearer sk_test_new"), "{keys:?}");
}

fn carry_a_batch() {
    let ingestion = open();
    let config = BatchConfig { max_size: 5, flush_interval: NEVER };
    let batch = ingestion.create_batch(config).unwrap();
    let add = |calls: usize| {
        for _ in 0..calls {
            batch.add(ApiCall::new("cus_1")).unwrap();
        }
    };
    add(3);
    in_child(|| {
        add(4);
        assert_eq!(ingestion.stats().spooled, 4);
        add(1);
        eventually("a full batch is due", || ingestion.stats().billed == 5);
    });
    assert_eq!(ingestion.stats().accepted, 3);
    add(2);
    eventually("the parent's is full as well", || ingestion.stats().billed == 5);
}

#[test]
fn a_batch_carried_over_a_fork_counts_anew() {
    let (server, dir) = stage();
    play("batch", &server, dir.path());
    assert_eq!(server.billed(), 10);
}

fn rejected(result: Result<()>) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Rejected, Some(400)));
    assert!(error.message().contains("scripted"), "{error}");
}

fn carry_receipts() {
    let ingestion = builder().linger(Duration::from_millis(300)).build().unwrap();
    let taken = track(&ingestion, 1).remove(0);
    let refused = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
    let waiting = builder().linger(NEVER).build().unwrap();
    in_child(|| {
        taken.blocking_delivered(PATIENT).unwrap();
        rejected(refused.blocking_delivered(PATIENT));
        let spooled = taken.clone();
        drop(taken);
        spooled.blocking_delivered(PATIENT).unwrap();
        assert_eq!(ingestion.stats(), Stats::default());
    });
    let left = waiting.track_api_call(ApiCall::new("cus_1")).unwrap();
    in_child(|| {
        let error = left.blocking_delivered(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
    rejected(refused.blocking_delivered(PATIENT));
    ingestion.blocking_flush(PATIENT).unwrap();
}

#[test]
fn a_receipt_carried_over_a_fork_resolves_in_the_child() {
    let (server, dir) = stage();
    server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
    play("receipts", &server, dir.path());
    assert_eq!(server.billed(), 2);
}

fn fork_and_be_killed() {
    let ingestion = builder().linger(NEVER).build().unwrap();
    track(&ingestion, 5);
    ingestion.blocking_flush(PATIENT).unwrap();
    let left = track(&ingestion, 5);
    let refused = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
    let parent = std::process::id().cast_signed();
    fork(|| {
        say("forked");
        eventually("the parent is killed", || parent_id() != parent);
        track(&ingestion, 5);
        ingestion.blocking_flush(PATIENT).unwrap();
        for receipt in left {
            receipt.blocking_delivered(PATIENT).unwrap();
        }
        // The parent's spool is gone by now, with all that it said.
        eventually("the child has adopted the parent's spool", || spools(&dir()).len() == 1);
        rejected(refused.blocking_delivered(PATIENT));
        ingestion.blocking_close(PATIENT).unwrap();
        eventually("its own spool is removed", || spools(&dir()).is_empty());
        say("done");
    });
    std::thread::sleep(PATIENT);
}

#[test]
fn the_child_of_a_killed_sender_bills_its_calls_and_those_that_were_left() {
    let (server, dir) = stage();
    server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
    let mut role = Role::start("sender", &server, dir.path());
    assert_eq!(role.line(), "forked");
    role.kill();
    assert_eq!(role.line(), "done");
    assert_eq!(server.billed(), 15);
    assert_eq!(spools(dir.path()).len(), 0);
}

fn fork_an_idle_child() {
    let ingestion = builder().linger(NEVER).build().unwrap();
    track(&ingestion, 1);
    ingestion.blocking_flush(PATIENT).unwrap();
    track(&ingestion, 4);
    let child = fork(|| std::thread::sleep(2 * PATIENT));
    say(&child.to_string());
    std::thread::sleep(PATIENT);
}

#[test]
fn an_idle_child_that_outlives_its_parent_keeps_no_lock() {
    let (server, dir) = stage();
    let mut role = Role::start("idle", &server, dir.path());
    let child: libc::pid_t = role.line().parse().unwrap();
    role.kill();
    let next = client(&server, dir.path()).build().unwrap();
    next.track_api_call(ApiCall::new("cus_2")).unwrap();
    next.blocking_flush(PATIENT).unwrap();
    eventually("the calls of the dead are billed", || server.billed() == 6);
    eventually("its spool is adopted", || spools(dir.path()).len() == 1);
    // SAFETY: asks whether the process lives, and ends it.
    unsafe {
        assert_eq!(libc::kill(child, 0), 0, "the child has outlived its parent until now");
        libc::kill(child, libc::SIGKILL);
    }
    next.blocking_close(PATIENT).unwrap();
}

fn fork_and_exec() {
    let ingestion = builder().linger(NEVER).build().unwrap();
    track(&ingestion, 1);
    let listing = dir().join("listing");
    let script = format!("ls -l /proc/self/fd > {}", listing.display());
    in_child(|| {
        let error = Command::new("/bin/sh").args(["-c", &script]).exec();
        panic!("{error}");
    });
    let listing = std::fs::read_to_string(listing).unwrap();
    let state = dir().join("dodo-ingestion");
    assert!(!listing.contains(&state.display().to_string()), "{listing}");
    ingestion.blocking_close(PATIENT).unwrap();
}

#[test]
fn a_child_that_becomes_another_program_inherits_nothing() {
    let (server, dir) = stage();
    play("exec", &server, dir.path());
    assert_eq!(server.billed(), 1);
}

fn fail_to_open_in_a_child() {
    let ingestion = builder().durability(Durability::Disk).build().unwrap();
    track(&ingestion, 1);
    ingestion.blocking_flush(PATIENT).unwrap();
    let (place, other) = (dir().join("dodo-ingestion"), dir().join("other"));
    // In one step: the parent's engine would make it anew in between.
    let exchange = || renameat_with(CWD, &place, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    std::fs::write(&other, "in the way").unwrap();
    exchange();
    in_child(|| {
        for _ in 0..2 {
            let error = ingestion.track_api_call(ApiCall::new("c")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage);
            assert_eq!(error.field(), Some("spool_dir"));
        }
        exchange();
        track(&ingestion, 1);
        ingestion.blocking_flush(PATIENT).unwrap();
    });
}

#[test]
fn what_cannot_be_opened_in_a_child_fails_its_call_until_it_can() {
    let (server, dir) = stage();
    play("unopenable", &server, dir.path());
    assert_eq!(server.billed(), 2);
}

fn be_told_in_a_child() {
    let told = Arc::new(AtomicBool::new(false));
    let sink = told.clone();
    let listening = builder().on_alarm(move |alarm| {
        sink.fetch_or(alarm.kind == AlarmKind::Invalid, Ordering::SeqCst);
    });
    let ingestion = listening.build().unwrap();
    track(&ingestion, 1);
    in_child(|| {
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    track(&ingestion, 1);
                });
            }
        });
        let batch = ingestion.create_batch(BatchConfig::default()).unwrap();
        batch.add(ApiCall::new("")).unwrap_err();
        assert!(told.load(Ordering::SeqCst), "of what is wrong in the child");
        ingestion.blocking_close(PATIENT).unwrap();
    });
    ingestion.blocking_close(PATIENT).unwrap();
}

#[test]
fn a_child_whose_threads_make_the_first_call_together_is_told_of_alarms() {
    let (server, dir) = stage();
    play("told", &server, dir.path());
    assert_eq!(server.billed(), 9);
}
