//! Processes that become daemons, or end without closing their client.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "what a daemon does, and signals, have no safe form")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/process.rs"]
mod process;
mod support;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dodo_ingestion::{ApiCall, Durability, ErrorKind};
use process::{NEVER, Role, builder, dir, fork, play, say, spools, stage, track};
use support::{PATIENT, client, eventually};

/// What the processes of the tests do. As a test of its own it has nothing to do.
#[test]
fn role() {
    let Some(role) = process::own_role() else { return };
    match role.as_str() {
        "daemon" => become_a_daemon(),
        "careless-on-disk" => close_the_files_of_the_spool(),
        "careless" => close_what_is_not_ones_own(),
        other => end(other),
    }
}

fn close_descriptors(from: i32) {
    for descriptor in from..1024 {
        // SAFETY: a daemon does so. The files of this process that it concerns are not used again.
        unsafe { libc::close(descriptor) };
    }
}

/// Closes all descriptors from one on, and opens the host's own under their numbers.
fn reuse_descriptors(from: i32) -> Vec<(PathBuf, File)> {
    close_descriptors(from);
    let files = (0..64).map(|i| {
        let path = dir().join(format!("host-{i}"));
        let mut options = File::options();
        let mut file = options.read(true).append(true).create(true).open(&path).unwrap();
        file.write_all(b"the host's").unwrap();
        (path, file)
    });
    files.collect()
}

fn check_untouched(files: &[(PathBuf, File)]) {
    for (path, file) in files {
        let descriptor = file.as_raw_fd();
        let by_number = std::fs::read_link(format!("/proc/self/fd/{descriptor}"));
        assert_eq!(by_number.unwrap(), *path, "descriptor {descriptor} is still the host's");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "the host's");
    }
}

/// Writes down whether something panicked, for a test that has no other way to hear of it.
fn report(work: impl FnOnce()) {
    let done = catch_unwind(AssertUnwindSafe(work));
    let verdict = match &done {
        Ok(()) => "well".to_owned(),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => format!("{:?}", panic.downcast_ref::<&str>()),
        },
    };
    std::fs::write(dir().join("verdict.new"), verdict).unwrap();
    std::fs::rename(dir().join("verdict.new"), dir().join("verdict")).unwrap();
}

fn verdict(dir: &Path) -> String {
    let path = dir.join("verdict");
    eventually("there is a verdict", || path.exists());
    std::fs::read_to_string(path).unwrap()
}

fn become_a_daemon() {
    let ingestion = builder().linger(NEVER).build().unwrap();
    track(&ingestion, 1);
    ingestion.blocking_flush(PATIENT).unwrap();
    track(&ingestion, 3);
    let daemon = || {
        report(|| {
            std::env::set_current_dir("/").unwrap();
            let files = reuse_descriptors(0);
            track(&ingestion, 5);
            ingestion.blocking_flush(PATIENT).unwrap();
            check_untouched(&files);
            eventually("the calls of the first process are billed too", || {
                spools(&dir()).len() == 1
            });
            ingestion.blocking_close(PATIENT).unwrap();
            check_untouched(&files);
        });
    };
    fork(|| {
        // SAFETY: begins a session.
        unsafe { libc::setsid() };
        fork(daemon);
    });
    // SAFETY: the first process ends as a daemon's does.
    unsafe { libc::_exit(0) };
}

#[test]
fn a_daemon_that_closes_all_descriptors_bills_and_nothing_is_written_into_its_files() {
    let (server, dir) = stage();
    let status = Role::start("daemon", &server, dir.path()).process.wait().unwrap();
    assert!(status.success());
    assert_eq!(verdict(dir.path()), "well");
    assert_eq!(server.billed(), 9);
}

/// Waits until the engine has just fallen asleep. Were it awake when its descriptors are closed, tokio
/// would panic and close its own once more, for which the standard library aborts a debug build. It
/// sleeps for a second at a time.
fn let_the_engine_fall_asleep() {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_engine = |task: &PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "dodo-ingestion\n")
    };
    let number = |task: &PathBuf| task.file_name().unwrap().to_str().unwrap().parse::<u32>().ok();
    // The newest serves: one whose descriptors were closed stays where it was.
    let engine = tasks.filter(is_engine).max_by_key(number).unwrap();
    // How often it fell asleep, if it sleeps.
    let sleep = || {
        let status = std::fs::read_to_string(engine.join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        field("State:").starts_with('S').then(|| field("voluntary_ctxt_switches:"))
    };
    let before = sleep();
    eventually("the engine falls asleep", || {
        let begun = sleep();
        // Between two pieces of work, and shortly before a timer is due, it sleeps for a moment only.
        std::thread::sleep(Duration::from_millis(100));
        begun.is_some() && begun != before && begun == sleep()
    });
}

fn close_what_is_not_ones_own() {
    // What the engine needs, and no file of a spool.
    let ingestion = builder().durability(Durability::Memory).build().unwrap();
    track(&ingestion, 5);
    ingestion.blocking_flush(PATIENT).unwrap();
    report(|| {
        let_the_engine_fall_asleep();
        close_descriptors(3);
        track(&ingestion, 5);
        ingestion.blocking_flush(PATIENT).unwrap();
        let_the_engine_fall_asleep();
        let files = reuse_descriptors(3);
        for _ in 0..2 {
            track(&ingestion, 5);
            ingestion.blocking_flush(PATIENT).unwrap();
        }
        assert_eq!(ingestion.stats().billed, 20);
        check_untouched(&files);
    });
}

#[test]
fn the_engine_survives_that_the_host_closes_its_descriptors() {
    let (server, dir) = stage();
    play("careless", &server, dir.path());
    assert_eq!(verdict(dir.path()), "well");
    assert_eq!(server.billed(), 20);
}

/// Closes the one file that shows whose the spool is.
fn close_owner() {
    let of_owner = |descriptor: &i32| {
        std::fs::read_link(format!("/proc/self/fd/{descriptor}"))
            .is_ok_and(|path| path.ends_with("owner"))
    };
    for descriptor in (3..1024).filter(of_owner) {
        // SAFETY: as in `close_descriptors`.
        unsafe { libc::close(descriptor) };
    }
}

fn close_the_files_of_the_spool() {
    let ingestion = builder().linger(NEVER).build().unwrap();
    report(|| {
        let ways: [fn(); 2] = [|| close_descriptors(3), close_owner];
        for (closed, close) in (1..).zip(ways) {
            track(&ingestion, 5);
            ingestion.blocking_flush(PATIENT).unwrap();
            let waiting = track(&ingestion, 7);
            let_the_engine_fall_asleep();
            close();
            for receipt in &waiting {
                let error = receipt.blocking_delivered(PATIENT).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                assert!(error.may_be_billed(), "{error}");
                assert!(error.message().contains("stays spooled"), "{error}");
            }
            track(&ingestion, 5);
            ingestion.blocking_flush(PATIENT).unwrap();
            eventually("the old spool is delivered and removed", || spools(&dir()).len() == 1);
            let stats = ingestion.stats();
            assert_eq!((stats.billed, stats.spooled), (closed * 10, closed * 7), "{stats:?}");
            assert_eq!((stats.accepted, stats.quarantined), (closed * 17, 0), "{stats:?}");
        }
        ingestion.blocking_close(PATIENT).unwrap();
    });
}

#[test]
fn calls_in_a_spool_whose_files_the_host_closed_are_billed_and_not_taken_for_lost() {
    let (server, dir) = stage();
    play("careless-on-disk", &server, dir.path());
    assert_eq!(verdict(dir.path()), "well");
    assert_eq!(server.billed(), 34);
}

/// The ways in which a process ends that never closes its client.
fn end(how: &str) {
    static TERMINATED: AtomicBool = AtomicBool::new(false);
    extern "C" fn on_sigterm(_: libc::c_int) {
        TERMINATED.store(true, Ordering::SeqCst);
    }
    let ingestion = builder().linger(NEVER).build().unwrap();
    track(&ingestion, 20);
    if how == "handled" {
        let handler: extern "C" fn(libc::c_int) = on_sigterm;
        // SAFETY: the handler sets an atomic flag.
        unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    }
    say("tracked");
    match how {
        "return" => {}
        "exit" => std::process::exit(3),
        "panic" => panic!("on purpose"),
        "unhandled" => std::thread::sleep(PATIENT),
        "handled" => {
            eventually("the signal comes", || TERMINATED.load(Ordering::SeqCst));
            std::process::exit(4);
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_process_that_ends_without_closing_loses_nothing() {
    for (how, code) in [
        ("return", Some(0)),
        ("exit", Some(3)),
        ("panic", Some(101)),
        ("unhandled", None),
        ("handled", Some(4)),
    ] {
        let (server, dir) = stage();
        let mut role = Role::start(how, &server, dir.path());
        assert_eq!(role.line(), "tracked");
        if how.ends_with("handled") {
            // SAFETY: the process is this test's and has not been waited for.
            unsafe { libc::kill(role.process.id().cast_signed(), libc::SIGTERM) };
        }
        assert_eq!(role.end().code(), code, "{how}");

        let next = client(&server, dir.path()).build().unwrap();
        next.track_api_call(ApiCall::new("cus_2")).unwrap();
        next.blocking_flush(PATIENT).unwrap();
        eventually("the calls of the ended process are billed", || server.billed() == 21);
        next.blocking_close(PATIENT).unwrap();
    }
}
