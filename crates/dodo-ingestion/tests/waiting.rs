//! What those who wait are told, and what makes calls due.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use dodo_ingestion::{AlarmKind, ApiCall, BatchConfig, ErrorKind, Event, Ingestion};
use support::{PATIENT, Server, client, error, eventually, hears, listening};
use tempfile::tempdir;

fn call() -> ApiCall {
    ApiCall::new("cus_1").endpoint("/v1/x")
}

#[test]
fn a_flush_of_a_full_spool_waits_for_what_is_in_it() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.stop();
    let ingestion = client(&server, dir.path()).max_spool_bytes(1_u64 << 20).build().unwrap();
    while ingestion.track(call()).is_ok() {}
    let stats = ingestion.stats();
    let error = ingestion.blocking_flush(Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network), "{error}");
    assert_eq!(ingestion.stats().overflowed, stats.overflowed, "no call was refused");
    let server = Server::start_on(server.address, server.state.clone());
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(server.billed() as u64, stats.accepted);
}

#[test]
fn a_wait_that_a_refused_key_outlasts_says_so() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.script(std::iter::repeat_n(error(401), 20));
    let (ingestion, told) = listening(client(&server, dir.path()));
    let receipt = ingestion.track(call()).unwrap();
    hears(&told, AlarmKind::Authentication);
    let failed = ingestion.blocking_flush(Duration::from_secs(2)).unwrap_err();
    assert_eq!((failed.kind(), failed.status()), (ErrorKind::Authentication, Some(401)));
    assert!(failed.message().contains("stay spooled"), "{failed}");
    let failed = receipt.blocking_delivered(Duration::from_millis(100)).unwrap_err();
    assert_eq!((failed.kind(), failed.status()), (ErrorKind::Authentication, Some(401)));
    assert!(failed.message().contains("stays spooled"), "{failed}");
    assert!(failed.may_be_billed());
}

#[test]
fn a_wait_that_an_unreachable_server_outlasts_says_so_until_it_is_back() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.stop();
    let (ingestion, told) = listening(client(&server, dir.path()));
    ingestion.track(call()).unwrap();
    hears(&told, AlarmKind::Unreachable);
    let failed = ingestion.blocking_flush(Duration::from_secs(10)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Network, "{failed}");
    let server = Server::start_on(server.address, server.state.clone());
    ingestion.blocking_flush(PATIENT).unwrap();
    server.script([support::Script::Hang]);
    ingestion.track(call()).unwrap();
    let failed = ingestion.blocking_close(Duration::from_millis(1)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Timeout, "{failed}");
}

#[test]
fn a_call_that_stays_spooled_may_be_billed() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.stop();
    let ingestion = client(&server, dir.path()).build().unwrap();
    let receipt = ingestion.track(call()).unwrap();
    ingestion.blocking_close(Duration::from_millis(1)).unwrap_err();
    let closed = receipt.blocking_delivered(PATIENT).unwrap_err();
    assert_eq!((closed.kind(), closed.may_be_billed()), (ErrorKind::Closed, true));
    let closed = ingestion.track(call()).unwrap_err();
    assert_eq!((closed.kind(), closed.may_be_billed()), (ErrorKind::Closed, false));
}

fn batch_of_two(ingestion: &Ingestion) -> dodo_ingestion::Batch {
    let flush_interval = Duration::from_secs(120);
    ingestion.create_batch(BatchConfig { max_size: 2, flush_interval }).unwrap()
}

#[test]
fn a_call_that_is_refused_fills_no_batch() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let batch = batch_of_two(&ingestion);
    batch.add(call()).unwrap();
    batch.add(Event::new("")).unwrap_err();
    batch.add(call()).unwrap();
    eventually("the batch is full", || server.billed() == 2);
    ingestion.blocking_close(PATIENT).unwrap();
}

#[test]
fn what_would_have_to_wait_is_neither_accepted_nor_counted() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let ingestion = client(&server, dir.path()).build().unwrap();
    let (batch, call) = (batch_of_two(&ingestion), call().into());
    assert!(ingestion.try_track(&call).is_none(), "the first begins a segment");
    assert!(batch.try_add(&call).is_none());
    assert_eq!(ingestion.stats().accepted, 0);
    batch.add(call.clone()).unwrap();
    let invalid = Event::new("");
    let refused = batch.try_add(&invalid).unwrap_or_else(|| batch.add(invalid)).unwrap_err();
    assert_eq!((refused.kind(), refused.field()), (ErrorKind::Validation, Some("customer_id")));
    assert_eq!(ingestion.stats().invalid, 1);
    batch.try_add(&call).unwrap_or_else(|| batch.add(call.clone())).unwrap();
    eventually("the batch is full", || server.billed() == 2);
    let receipt = ingestion.try_track(&call).unwrap_or_else(|| ingestion.track(call.clone()));
    receipt.unwrap().blocking_delivered(PATIENT).unwrap();
    assert_eq!((server.billed(), ingestion.stats().accepted), (3, 3));
    ingestion.blocking_close(PATIENT).unwrap();
    assert!(ingestion.try_track(&call).is_none());
    assert_eq!(ingestion.track(call).unwrap_err().kind(), ErrorKind::Closed);
}
