//! Processes that die, start, share a spool directory, or cannot have one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/child.rs"]
mod child;
mod support;

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use child::{Child, say};
use dodo_ingestion::{ApiCall, BatchConfig, Durability, ErrorKind, Ingestion};
use support::{PATIENT, Server, client, eventually};
use tempfile::tempdir;

/// Runs a role in a process of its own.
fn start(role: &str, server: &Server, dir: &Path) -> Child {
    let env = [("CHILD_URL", server.url()), ("CHILD_DIR", dir.display().to_string())];
    Child::of("child_process", role, &env.each_ref().map(|(name, value)| (*name, value.as_ref())))
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    let ingestion = Ingestion::builder("sk_test_canary")
        .event_name("api_call")
        .base_url(std::env::var("CHILD_URL").unwrap())
        .spool_dir(std::env::var("CHILD_DIR").unwrap())
        .linger(Duration::from_millis(if role == "quiet" { 300_000 } else { 20 }))
        .requests_per_minute(10_000_u32)
        .requests_per_second(1_000_u32)
        .build()
        .unwrap();
    match role.as_str() {
        "quiet" => {
            for i in 0..500 {
                let call = ApiCall::new("cus_1").event_id(format!("quiet-{i}"));
                ingestion.track_api_call(call).unwrap();
            }
            say("tracked");
            std::thread::sleep(PATIENT);
        }
        "firehose" => {
            for i in 0_u64.. {
                let call = ApiCall::new("cus_1").event_id(format!("hose-{i}"));
                ingestion.track_api_call(call).unwrap();
                if i % 100 == 0 {
                    say(&i.to_string());
                }
            }
        }
        "waiter" => {
            let receipt = ingestion.track_api_call(ApiCall::new("cus_child")).unwrap();
            receipt.blocking_delivered(PATIENT).unwrap();
            let refused = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
            let error = refused.blocking_delivered(PATIENT).unwrap_err();
            say(&format!("{} {}", error.kind(), ingestion.stats().requests));
            ingestion.blocking_close(PATIENT).unwrap();
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn what_a_killed_process_left_is_billed_by_the_next() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let mut child = start("quiet", &server, dir.path());
    assert_eq!(child.line(), "tracked");
    child.kill();
    assert_eq!(server.billed(), 0);

    let next = client(&server, dir.path()).build().unwrap();
    // Its delay of five minutes runs from acceptance; a flush of the next process is about its own
    // calls. A due record takes along whatever waits.
    next.track_api_call(ApiCall::new("cus_2")).unwrap();
    eventually("the calls of the dead are billed", || server.billed() == 501);
    next.blocking_close(PATIENT).unwrap();
    let spools = dir.path().join("dodo-ingestion").read_dir().unwrap().next().unwrap().unwrap();
    eventually("no spool is left", || {
        spools.path().join("spools").read_dir().unwrap().count() == 0
    });
}

#[test]
fn a_process_killed_while_it_writes_and_sends_loses_and_doubles_nothing() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let mut child = start("firehose", &server, dir.path());
    let mut accepted = 0_usize;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) || server.billed() == 0 {
        accepted = child.line().parse::<usize>().unwrap() + 1;
    }
    child.kill();
    assert!(server.billed() > 0, "it was sending");

    let next = client(&server, dir.path()).build().unwrap();
    next.track_api_call(ApiCall::new("cus_2").event_id("last")).unwrap();
    next.blocking_flush(PATIENT).unwrap();
    let spools = dir.path().join("dodo-ingestion").read_dir().unwrap().next().unwrap().unwrap();
    eventually("the spool of the dead is gone", || {
        spools.path().join("spools").read_dir().unwrap().count() == 1
    });
    let state = server.state.lock().unwrap();
    assert!(state.billed.len() > accepted, "{} of {accepted}", state.billed.len());
    // No gap: what was accepted before another call was accepted was billed too.
    for i in 0..state.billed.len() - 1 {
        assert!(state.billed.contains_key(&format!("hose-{i}")), "hose-{i}");
    }
}

#[test]
fn processes_of_one_account_share_one_sender_and_receipts_work_in_all() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
    let sender = client(&server, dir.path()).build().unwrap();
    sender.track_api_call(ApiCall::new("cus_parent")).unwrap().blocking_delivered(PATIENT).unwrap();
    let mut child = start("waiter", &server, dir.path());
    assert_eq!(child.line(), "rejected 0", "the parent sends for the child");
    child.succeeds();
    assert_eq!(server.billed(), 2);
}

#[test]
fn two_clients_of_one_account_share_a_spool_and_conflicting_settings_are_an_error() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let one = client(&server, dir.path()).build().unwrap();
    let two = client(&server, dir.path()).event_name("other").build().unwrap();
    one.track_api_call(ApiCall::new("c").event_id("one")).unwrap();
    two.track_api_call(ApiCall::new("c").event_id("two")).unwrap();
    one.blocking_flush(PATIENT).unwrap();
    assert_eq!(server.billed(), 2);
    assert_eq!(server.state.lock().unwrap().billed["two"]["event_name"], "other");
    let error = client(&server, dir.path()).requests_per_minute(5_u32).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(error.field(), Some("requests_per_minute"));

    one.blocking_close(PATIENT).unwrap();
    assert_eq!(one.track_api_call(ApiCall::new("c")).unwrap_err().kind(), ErrorKind::Closed);
    two.track_api_call(ApiCall::new("c").event_id("three")).unwrap();
    two.blocking_close(PATIENT).unwrap();
    assert_eq!(server.billed(), 3);
    let error = two.blocking_flush(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_flush_that_a_close_ends_says_so() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.stop();
    let ingestion = client(&server, dir.path()).build().unwrap();
    ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    let mut flush = pin!(ingestion.flush(PATIENT));
    let mut look = || flush.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(look().is_pending());
    ingestion.blocking_close(Duration::ZERO).unwrap_err();
    let mut ended = Poll::Pending;
    eventually("the flush has ended", || {
        ended = look();
        ended.is_ready()
    });
    let Poll::Ready(Err(error)) = ended else { panic!("the call was not billed") };
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.message().contains("1 calls are not billed yet"), "{error}");
}

#[test]
fn what_is_accepted_while_a_client_closes_is_billed_with_the_rest() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).linger(PATIENT).build().unwrap();
    ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    let mut close = pin!(ingestion.close(PATIENT));
    let mut look = || close.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(look().is_pending());
    eventually("the flush is over", || server.billed() == 1);
    ingestion.track_api_call(ApiCall::new("cus_2")).unwrap();
    let mut ended = Poll::Pending;
    eventually("the client is closed", || {
        ended = look();
        ended.is_ready()
    });
    assert!(matches!(ended, Poll::Ready(Ok(()))), "{ended:?}");
    assert_eq!(server.billed(), 2);
}

#[test]
fn a_client_can_be_made_and_closed_again_and_again() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    for round in 0..30 {
        let ingestion = client(&server, dir.path()).build().unwrap();
        ingestion.track_api_call(ApiCall::new("c")).unwrap();
        ingestion.blocking_close(PATIENT).unwrap();
        assert_eq!(server.billed(), round + 1);
        ingestion.blocking_close(PATIENT).unwrap();
    }
    let spools = dir.path().join("dodo-ingestion").read_dir().unwrap().next().unwrap().unwrap();
    eventually("no spool is left", || {
        spools.path().join("spools").read_dir().unwrap().count() == 0
    });
}

#[test]
fn where_no_directory_can_be_written_memory_serves_and_says_so() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = told.clone();
    let ingestion = client(&server, &file)
        .on_alarm(move |alarm| sink.lock().unwrap().push(alarm.to_string()))
        .build()
        .unwrap();
    ingestion.track_api_call(ApiCall::new("c")).unwrap();
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(server.billed(), 1);
    let told = told.lock().unwrap();
    assert!(told[0].starts_with("memory_only: "), "{told:?}");

    let error = client(&server, &file).durability(Durability::Disk).build().unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Storage, Some("spool_dir")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_client_that_is_still_held_holds_no_file() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let receipt = ingestion.track_api_call(ApiCall::new("c")).unwrap();
    let open_files = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = descriptors.filter_map(|each| std::fs::read_link(each.unwrap().path()).ok());
        links.filter(|link| link.starts_with(dir.path())).count()
    };
    assert!(open_files() > 0);
    ingestion.blocking_close(PATIENT).unwrap();
    eventually("its files are closed", || open_files() == 0);
    assert!(!receipt.event_id().is_empty());
    assert_eq!(ingestion.stats().accepted, 1);
}

#[test]
fn memory_is_bounded() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.stop();
    let ingestion = client(&server, dir.path()).durability(Durability::Memory).build().unwrap();
    let slow = BatchConfig { max_size: 1000, flush_interval: Duration::from_secs(300) };
    let batch = ingestion.create_batch(slow).unwrap();
    let error = loop {
        let call = ApiCall::new("c").endpoint("x".repeat(400));
        if let Err(error) = batch.add(call) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Overflow);
    let stats = ingestion.stats();
    assert!((20_000..40_000).contains(&stats.accepted), "{stats:?}");
    assert_eq!((stats.spooled, stats.overflowed), (stats.accepted, 1));
}

#[test]
fn calls_that_are_refused_take_no_memory_from_those_that_wait() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.state.lock().unwrap().unknown_customer = Some("ghost".into());
    let ingestion = client(&server, dir.path())
        .durability(Durability::Memory)
        .max_spool_bytes(1 << 20)
        .requests_per_minute(1_000_000_u32)
        .requests_per_second(100_000_u32)
        .build()
        .unwrap();
    let mut refused = 0;
    while refused < 5_000 {
        for _ in 0..500 {
            ingestion.track_api_call(ApiCall::new("ghost").endpoint("x".repeat(400))).unwrap();
        }
        refused += 500;
        ingestion.blocking_flush(PATIENT).unwrap();
    }
    ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    ingestion.blocking_flush(PATIENT).unwrap();
    let stats = ingestion.stats();
    assert_eq!((stats.dead_lettered, stats.billed, stats.overflowed), (5_000, 1, 0));
}

#[test]
fn start_up_survives_a_torn_tail_and_whatever_else_lies_there() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let mut child = start("quiet", &server, dir.path());
    assert_eq!(child.line(), "tracked");
    child.kill();
    let namespace = dir.path().join("dodo-ingestion").read_dir().unwrap().next().unwrap().unwrap();
    let spools = namespace.path().join("spools");
    let spool = spools.read_dir().unwrap().next().unwrap().unwrap().path();
    let segment = spool.join("segment-0000000000000000");
    // Behind the last record there may be room for more.
    let last = std::fs::read(&segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(last as u64 - 2).unwrap();
    for (name, contents) in [("cursor", "garbage"), ("outcomes", "{\"seq\""), ("what", "is this")] {
        std::fs::write(spool.join(name), contents).unwrap();
    }
    std::fs::create_dir(spools.join("empty")).unwrap();
    std::fs::write(spools.join("a-file"), "").unwrap();
    std::fs::write(namespace.path().join("starts"), "odd").unwrap();

    let next = client(&server, dir.path()).build().unwrap();
    next.track_api_call(ApiCall::new("cus_2").event_id("last")).unwrap();
    eventually("all but the torn call are billed", || server.billed() == 500);
    assert!(server.state.lock().unwrap().billed.contains_key("last"));
    next.blocking_close(PATIENT).unwrap();
}

#[test]
fn a_sender_whose_lock_file_was_replaced_stands_down_and_another_goes_on() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    ingestion.track_api_call(ApiCall::new("c")).unwrap();
    ingestion.blocking_flush(PATIENT).unwrap();
    let namespace = dir.path().join("dodo-ingestion").read_dir().unwrap().next().unwrap().unwrap();
    let lock = namespace.path().join("sender.lock");
    std::fs::remove_file(&lock).unwrap();
    eventually("a sender at rest notices it", || lock.exists());
    std::fs::remove_file(&lock).unwrap();
    for round in 2..5 {
        ingestion.track_api_call(ApiCall::new("c")).unwrap();
        ingestion.blocking_flush(PATIENT).unwrap();
        assert_eq!(server.billed(), round);
    }
    assert!(lock.exists(), "it was elected once more, with a lock file that others see");
}

/// Whoever reads the counters while calls come finds none billed that was not.
#[test]
fn no_call_that_is_just_accepted_counts_as_billed() {
    let dir = tempdir().unwrap();
    let ingestion = Ingestion::builder("sk_test_canary")
        .event_name("api_call")
        .base_url("http://127.0.0.1:9")
        .spool_dir(dir.path())
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
                }
            });
        }
        for _ in 0..20_000 {
            let stats = ingestion.stats();
            assert_eq!((stats.billed, stats.spooled), (0, stats.accepted));
        }
    });
    _ = ingestion.blocking_close(Duration::ZERO);
}
