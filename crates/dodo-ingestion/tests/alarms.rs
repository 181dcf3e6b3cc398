//! What clients of one account are to each other: who is told of alarms, and for how long.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, mpsc};

use dodo_ingestion::{AlarmKind, BatchConfig, Durability, Event, Ingestion};
use support::{PATIENT, Server, Told, client, eventually, listening};
use tempfile::tempdir;

#[test]
fn a_client_that_was_closed_hears_of_nothing_more() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let (stays, told) = listening(client(&server, dir.path()));
    let (joins, told_too) = listening(client(&server, dir.path()));
    joins.blocking_close(PATIENT).unwrap();
    let batch = stays.create_batch(BatchConfig::default()).unwrap();
    batch.add(Event::new("")).unwrap_err();
    assert!(told.lock().unwrap().contains(&AlarmKind::Invalid));
    assert!(!told_too.lock().unwrap().contains(&AlarmKind::Invalid));
    stays.blocking_close(PATIENT).unwrap();
}

#[test]
fn a_call_that_breaks_a_limit_is_counted_and_told_whoever_refuses_it() {
    let server = Server::start();
    let batch = |ingestion: &Ingestion| ingestion.create_batch(BatchConfig::default()).unwrap();
    let refusals: [&dyn Fn(&Ingestion); 3] = [
        &|ingestion| drop(ingestion.track(Event::new("")).unwrap_err()),
        &|ingestion| drop(batch(ingestion).add(Event::new("")).unwrap_err()),
        &|ingestion| ingestion.refuse("no event can be made of it"),
    ];
    for refuse in refusals {
        let dir = tempdir().unwrap();
        let (ingestion, told) = listening(client(&server, dir.path()));
        refuse(&ingestion);
        assert_eq!(ingestion.stats().invalid, 1);
        assert_eq!(
            told.lock().unwrap().iter().filter(|kind| **kind == AlarmKind::Invalid).count(),
            1
        );
        ingestion.blocking_close(PATIENT).unwrap();
    }
}

#[test]
fn of_clients_that_were_dropped_one_after_another_only_the_last_is_told() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.stop();
    let dropped = |_| {
        let (ingestion, told) = listening(client(&server, dir.path()));
        ingestion.track(Event::new("cus_1")).unwrap();
        told
    };
    let told: Vec<Told> = (0..5).map(dropped).collect();
    // Of a callback that is being called there are more.
    eventually("one callback is held", || {
        let held: Vec<bool> = told.iter().map(|told| Arc::strong_count(told) > 1).collect();
        held == [false, false, false, false, true]
    });
}

#[test]
fn whoever_is_told_while_a_client_is_built_may_build_another() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let (built, is_built) = mpsc::channel();
    let other = client(&server, dir.path());
    let in_memory = client(&server, dir.path()).account("other").durability(Durability::Memory);
    let builds = std::thread::spawn(move || {
        let in_memory = in_memory.on_alarm(move |alarm| {
            if alarm.kind == AlarmKind::MemoryOnly {
                built.send(other.clone().build().is_ok()).unwrap();
            }
        });
        in_memory.build().unwrap().blocking_close(PATIENT)
    });
    assert_eq!(is_built.recv_timeout(PATIENT), Ok(true));
    builds.join().unwrap().unwrap();
}

#[test]
fn a_client_that_is_dropped_is_billed_also_where_another_was_closed() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let closed = client(&server, dir.path()).build().unwrap();
    let dropped = client(&server, dir.path()).linger(PATIENT).build().unwrap();
    closed.blocking_close(PATIENT).unwrap();
    let batch = dropped.create_batch(dodo_ingestion::BatchConfig::default()).unwrap();
    batch.add(Event::new("cus_1")).unwrap();
    let receipt = dropped.track(Event::new("cus_1")).unwrap();
    drop((batch, dropped));
    receipt.blocking_delivered(PATIENT).unwrap();
    eventually("both are billed", || server.billed() == 2);
}

#[test]
fn an_alarm_of_a_dead_letter_says_where_it_is() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    server.state.lock().unwrap().max_body = Some(10);
    let (tell, told) = mpsc::channel();
    let builder = client(&server, dir.path());
    let ingestion = builder.on_alarm(move |alarm| _ = tell.send(alarm.clone())).build().unwrap();
    let receipt = ingestion.track(Event::new("cus_1")).unwrap();
    receipt.blocking_delivered(PATIENT).unwrap_err();
    let alarm = std::iter::from_fn(|| told.recv_timeout(PATIENT).ok())
        .find(|alarm| alarm.kind == AlarmKind::DeadLettered)
        .expect("it is told");
    let directory = dir.path().display().to_string();
    assert!(alarm.message.contains(&directory), "{}", alarm.message);
}
