//! Calls become a bill at a real server over real sockets, whatever the server does meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::iter::repeat_n;
use std::time::Duration;

use dodo_ingestion::{
    AlarmKind, ApiCall, BatchConfig, Durability, ErrorKind, Event, Ingestion, LatePolicy,
    ObjectStorage, StreamBytes, TimeRange,
};
use serde_json::Value;
use support::{PATIENT, Script, Server, UNTIL_HELD, client, error, eventually, hears, listening};
use tempfile::tempdir;

fn track(ingestion: &Ingestion, calls: usize) {
    for i in 0..calls {
        let call = ApiCall::new(format!("cus_{}", i % 3)).endpoint("/v1/x").status_code(200);
        ingestion.track_api_call(call).unwrap();
    }
}

/// Sends `calls` past the scripted answers and checks that each is billed once and none is left.
fn all_billed_despite(script: impl IntoIterator<Item = Script>, calls: usize) -> Server {
    all_billed_at_a_timeout(PATIENT, script, calls)
}

/// The same with a client that waits so long for an answer.
fn all_billed_at_a_timeout(
    request_timeout: Duration,
    script: impl IntoIterator<Item = Script>,
    calls: usize,
) -> Server {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.script(script);
    // Longer than the tracking takes on a busy machine: the flush makes the calls due.
    let builder = client(&server, dir.path()).linger(PATIENT).request_timeout(request_timeout);
    let ingestion = builder.build().unwrap();
    track(&ingestion, calls);
    ingestion.blocking_close(PATIENT).unwrap();
    let stats = ingestion.stats();
    assert_eq!(server.billed(), calls);
    let state = server.state.lock().unwrap();
    let mut events = state.billed.values();
    assert!(events.all(|event| event["metadata"]["original_timestamp"].is_null()), "all are fresh");
    drop(state);
    assert_eq!((stats.accepted, stats.billed), (calls as u64, calls as u64), "{stats:?}");
    assert_eq!((stats.spooled, stats.dead_lettered), (0, 0), "{stats:?}");
    server
}

#[test]
fn calls_are_billed_in_few_full_requests() {
    let server = all_billed_despite([], 2_500);
    assert!(server.requests() <= 5, "{:?}", server.state.lock().unwrap().requests);
    assert!(server.state.lock().unwrap().keys.iter().all(|key| key == "Bearer sk_test_canary"));
}

#[test]
fn every_form_of_call_arrives_as_it_was_given() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let receipts = [
        ingestion.track(Event::new("c").event_id("own").event_name("special").metadata("a", 1)),
        ingestion.track_object_storage(ObjectStorage::new("c").event_id("store").bytes(9)),
        ingestion.track_stream_bytes(StreamBytes::new("c").event_id("stream").bytes(8)),
        ingestion.track_time_range(TimeRange::new("c").event_id("time").duration_seconds(1.5)),
    ];
    for receipt in &receipts {
        receipt.as_ref().unwrap().blocking_delivered(PATIENT).unwrap();
    }
    let state = server.state.lock().unwrap();
    assert_eq!(state.billed["own"]["event_name"], "special");
    assert_eq!(state.billed["own"]["metadata"]["a"], 1);
    assert_eq!(state.billed["store"]["metadata"]["bytes"], 9);
    assert_eq!(state.billed["stream"]["event_name"], "api_call");
    assert_eq!(state.billed["time"]["metadata"]["durationSeconds"], 1.5);
}

#[test]
fn a_server_that_hangs_is_tried_again() {
    all_billed_at_a_timeout(Duration::from_millis(500), [Script::Hang, Script::Hang], 50);
}

#[test]
fn an_html_200_is_no_acknowledgement() {
    let html = Script::Answer { status: 200, headers: "", body: "<html>Sign in</html>".into() };
    all_billed_despite([html.clone(), html], 50);
}

#[test]
fn a_reset_after_the_commit_bills_nothing_twice() {
    let server = all_billed_despite([Script::ResetAfterCommit, Script::Reset], 50);
    assert!(server.requests() >= 3);
}

#[test]
fn server_errors_are_tried_again() {
    let html = Script::Answer { status: 502, headers: "", body: "<html>".into() };
    all_billed_despite([error(500), html, error(503)], 50);
}

#[test]
fn a_429_is_obeyed() {
    let limited =
        Script::Answer { status: 429, headers: "retry-after: 1\r\n", body: String::new() };
    let server = all_billed_despite([limited], 50);
    let times = server.state.lock().unwrap().times.clone();
    assert!(times[1] - times[0] >= Duration::from_millis(990), "{:?}", times[1] - times[0]);
}

#[test]
fn a_413_makes_requests_smaller_and_a_call_too_large_alone_is_set_aside() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.state.lock().unwrap().max_body = Some(8_000);
    let ingestion = client(&server, dir.path()).build().unwrap();
    track(&ingestion, 200);
    let large = (0..30)
        .fold(Event::new("cus_1"), |event, i| event.metadata(format!("key{i}"), "x".repeat(400)));
    let large = ingestion.track(large).unwrap();
    ingestion.blocking_flush(PATIENT).unwrap();
    let error = large.blocking_delivered(PATIENT).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::TooLarge, Some(413)));
    assert_eq!(server.billed(), 200);
    let stats = ingestion.stats();
    assert_eq!((stats.accepted, stats.billed, stats.dead_lettered), (201, 200, 1));
}

#[test]
fn one_bad_call_among_a_thousand_costs_only_itself() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
    let ingestion = client(&server, dir.path()).build().unwrap();
    track(&ingestion, 700);
    let bad = ingestion.track_api_call(ApiCall::new("cus_unknown").endpoint("/x")).unwrap();
    track(&ingestion, 299);
    ingestion.blocking_flush(PATIENT).unwrap();
    let error = bad.blocking_delivered(PATIENT).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Rejected, Some(400)));
    assert!(error.message().contains("scripted"), "{error}");
    assert_eq!(server.billed(), 999);

    let files = files(dir.path());
    let letters = files.iter().find(|file| file.ends_with("dead-letters.jsonl")).unwrap();
    let letters = std::fs::read_to_string(letters).unwrap();
    let letter: Value = serde_json::from_str(letters.trim()).unwrap();
    assert_eq!(letter["event"]["customer_id"], "cus_unknown");
    assert_eq!(letter["event"]["event_id"], bad.event_id());
    assert_eq!(letter["status"], 400);
    assert_eq!(letter["reason"], "rejected");
    assert_eq!(letter["uncertain"], false);
}

#[test]
fn a_wrong_key_holds_everything_until_a_new_one_comes() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.script(repeat_n(error(401), UNTIL_HELD));
    let (old, told) = listening(client(&server, dir.path()).account("shop"));
    track(&old, 10);
    hears(&told, AlarmKind::Authentication);
    let error = old.blocking_flush(Duration::from_millis(1_500)).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Authentication, Some(401)));
    assert!(error.message().contains("10 calls"), "{error}");
    assert!(error.message().contains("API key"), "{error}");
    assert!(error.message().contains("scripted"), "{error}: the API's words");
    assert_eq!(server.requests(), UNTIL_HELD, "no other try with the same key");

    let new = client(&server, dir.path()).account("shop").api_key("sk_new").build().unwrap();
    new.blocking_flush(PATIENT).unwrap();
    assert_eq!(server.billed(), 10);
    assert_eq!(server.state.lock().unwrap().keys.last().unwrap(), "Bearer sk_new");
}

#[test]
fn a_redirect_is_not_followed_and_the_key_goes_nowhere_else() {
    let (server, other, dir) = (Server::start(), Server::start(), tempdir().unwrap());
    let location: &'static str =
        Box::leak(format!("location: http://{}/events/ingest\r\n", other.address).into());
    let redirect = Script::Answer { status: 307, headers: location, body: String::new() };
    server.script(repeat_n(redirect, UNTIL_HELD));
    let ingestion = client(&server, dir.path()).build().unwrap();
    track(&ingestion, 4);
    let receipt = ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    eventually("it is redirected", || server.requests() == UNTIL_HELD);
    assert!(ingestion.blocking_close(Duration::from_millis(1_500)).is_err());
    assert_eq!((server.requests(), other.requests()), (UNTIL_HELD, 0));
    assert_eq!(ingestion.stats().spooled, 5);
    let error = receipt.blocking_delivered(PATIENT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "a receipt does not wait for what was let go");
}

#[test]
fn a_clock_that_is_an_hour_off_bills_everything_at_the_servers_time() {
    for skew_seconds in [-3_600, 3_600, 86_400] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        server.state.lock().unwrap().skew_seconds = skew_seconds;
        let ingestion = client(&server, dir.path()).linger(PATIENT).build().unwrap();
        track(&ingestion, 20);
        ingestion.blocking_flush(PATIENT).unwrap();
        assert_eq!(server.billed(), 20, "skew {skew_seconds}");
        // The first request may be refused, which teaches the skew. After that none is.
        assert!(server.requests() <= 2, "skew {skew_seconds}: {}", server.requests());
        track(&ingestion, 20);
        ingestion.blocking_flush(PATIENT).unwrap();
        assert_eq!(server.billed(), 40);
        assert_eq!(ingestion.stats().dead_lettered, 0);
    }
}

#[test]
fn an_outage_ends_and_the_bill_is_exact() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    track(&ingestion, 100);
    ingestion.blocking_flush(PATIENT).unwrap();
    server.stop();
    track(&ingestion, 100);
    eventually("a flush says that the server is away", || {
        let error = ingestion.blocking_flush(Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network), "{error}");
        error.kind() == ErrorKind::Network
    });
    let server = Server::start_on(server.address, server.state.clone());
    ingestion.blocking_flush(PATIENT).unwrap();
    assert_eq!(server.billed(), 200);
}

#[test]
fn the_same_id_twice_is_billed_once_and_stops_nothing() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    for _ in 0..3 {
        ingestion.track(Event::new("cus_1").event_id("order-7")).unwrap();
    }
    track(&ingestion, 10);
    ingestion.blocking_flush(PATIENT).unwrap();
    assert_eq!(server.billed(), 11);
    assert_eq!(ingestion.stats().dead_lettered, 0);
}

#[test]
fn a_batch_is_due_when_full_or_when_its_oldest_call_is_old_enough() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let slow = BatchConfig { max_size: 10, flush_interval: Duration::from_secs(300) };
    let batch = ingestion.create_batch(slow).unwrap();
    let add = |batch: &dodo_ingestion::Batch| batch.add(ApiCall::new("cus_1")).unwrap();
    (0..9).for_each(|_| add(&batch));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.billed(), 0, "neither full nor old");
    add(&batch);
    eventually("the full batch is billed", || server.billed() == 10);

    let quick = BatchConfig { max_size: 1000, flush_interval: Duration::from_millis(200) };
    let batch = ingestion.create_batch(quick).unwrap();
    // A steady trickle does not put the batch off: its age is that of the oldest call.
    for _ in 0..8 {
        add(&batch);
        std::thread::sleep(Duration::from_millis(50));
    }
    eventually("the first of the trickle is billed", || server.billed() > 10);
    batch.blocking_cleanup(None).unwrap();
    assert_eq!(server.billed(), 18);
}

#[test]
fn a_ticket_is_as_good_as_its_receipt() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let ticket = ingestion.track(Event::new("c").event_id("of two words")).unwrap().ticket();
    let receipt = ingestion.receipt(&ticket).unwrap();
    assert_eq!(receipt.event_id(), "of two words");
    ingestion.blocking_flush(PATIENT).unwrap();
    receipt.blocking_delivered(PATIENT).unwrap();
    for text in ["", "0", "-1 id", "one id"] {
        let error = ingestion.receipt(text).unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Validation, Some("ticket")),
            "{text}"
        );
    }
}

#[test]
fn an_invalid_call_costs_only_itself() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let error = ingestion.track(Event::new("")).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Validation, Some("customer_id")));
    let batch = ingestion.create_batch(BatchConfig::default()).unwrap();
    assert!(batch.add(Event::new("c").metadata("x", f64::NAN)).is_err());
    batch.add(Event::new("c")).unwrap();
    batch.blocking_flush(PATIENT).unwrap();
    let stats = ingestion.stats();
    assert_eq!((stats.accepted, stats.invalid, stats.billed), (1, 2, 1), "{stats:?}");
}

#[test]
fn memory_and_disk_durability_deliver_too() {
    for durability in [Durability::Memory, Durability::Disk] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        let ingestion = client(&server, dir.path()).durability(durability).build().unwrap();
        track(&ingestion, 300);
        ingestion.blocking_close(PATIENT).unwrap();
        assert_eq!(server.billed(), 300, "{durability:?}");
        let error = ingestion.track(Event::new("c")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[test]
fn the_key_is_nowhere_on_disk_and_in_no_debug_output_or_error() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.script(repeat_n(error(401), UNTIL_HELD));
    let builder = client(&server, dir.path());
    assert!(!format!("{builder:?}").contains("canary"));
    let (ingestion, told) = listening(builder);
    assert!(!format!("{ingestion:?}").contains("canary"));
    track(&ingestion, 5);
    hears(&told, AlarmKind::Authentication);
    let error = ingestion.blocking_flush(Duration::from_millis(300)).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("canary"));
    let files = files(dir.path());
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"canary"), "{}", file.display());
        assert!(!file.to_string_lossy().contains("canary"));
    }
}

#[test]
fn late_calls_can_be_set_aside_instead() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).late(LatePolicy::DeadLetter).build().unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(58 * 60);
    let late = ingestion.track(Event::new("c").timestamp(old)).unwrap();
    ingestion.track(Event::new("c")).unwrap();
    ingestion.blocking_flush(PATIENT).unwrap();
    assert_eq!(late.blocking_delivered(PATIENT).unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(server.billed(), 1);
}

#[test]
fn an_old_call_is_billed_within_the_hour_and_keeps_its_own_time() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(58 * 60);
    ingestion.track(Event::new("c").event_id("old").timestamp(old)).unwrap();
    ingestion.blocking_flush(PATIENT).unwrap();
    let state = server.state.lock().unwrap();
    let event = &state.billed["old"];
    assert!(event["metadata"]["original_timestamp"].as_str() < event["timestamp"].as_str());
    assert_eq!(ingestion.stats().restamped, 1);
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
