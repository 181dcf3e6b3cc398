//! What takes its turn with a change of the clock or a reset, in an order that no client can bring about.

use std::thread;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{AUTHORIZATION, HOST};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use tokio::time::Instant;
use tower::ServiceExt;

use super::*;
use crate::store::Room;

const ROOM: Room = Room { events: 100, bytes: 1 << 20 };

fn body(ids: &[&str]) -> Vec<u8> {
    let event = |id| serde_json::json!({ "event_id": id, "customer_id": "c", "event_name": "n" });
    let events: Vec<_> = ids.iter().map(event).collect();
    serde_json::json!({ "events": events }).to_string().into_bytes()
}

fn ingest(meter: &Meter, ids: &[&str]) -> Answer<u64> {
    meter.ingest(&body(ids), &Bend::default())
}

#[test]
fn an_event_has_the_time_of_the_clock_that_it_is_stored_by() {
    let meter = Meter::open(Options::default()).unwrap();
    let ahead = SignedDuration::from_hours(2);
    let earliest = shifted(meter.now(), ahead);
    let writer = meter.inner.store.write();
    let ingesting = {
        let meter = meter.clone();
        thread::spawn(move || ingest(&meter, &["a"]))
    };
    // It waits for its turn, if it is not late.
    thread::sleep(Duration::from_millis(200));
    assert!(meter.inner.clock.set(ahead));
    drop(writer);
    assert_eq!(ingesting.join().unwrap().unwrap(), 1);
    let stored = meter.event("a").unwrap().timestamp;
    assert!(stored >= earliest, "{stored} is before {earliest}");
}

/// Reads a stream up to its next view, and says how many events that is of.
async fn next_view(stream: &mut Body) -> serde_json::Value {
    loop {
        let frame = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        if let Some(view) = std::str::from_utf8(&frame).unwrap().split("data: ").nth(1) {
            let view: serde_json::Value = serde_json::from_str(view.trim()).unwrap();
            return view["stored"].clone();
        }
    }
}

// The clock of this test goes on by itself whenever everybody waits.
#[tokio::test(start_paused = true)]
async fn a_view_that_had_to_wait_for_others_is_followed_by_the_next_as_soon_as_any() {
    let meter = Meter::open(Options::default()).unwrap();
    let request = Request::get("/_dev/stream?customer=c").header(HOST, "localhost");
    let request = request.header(AUTHORIZATION, "Bearer k").body(Body::empty()).unwrap();
    let mut stream = meter.router().oneshot(request).await.unwrap().into_body();
    let (held, is_held) = std::sync::mpsc::channel();
    let holding = {
        let meter = meter.clone();
        thread::spawn(move || {
            let _writer = meter.inner.store.write();
            held.send(()).unwrap();
            thread::sleep(Duration::from_secs(1));
        })
    };
    is_held.recv().unwrap();
    assert_eq!(next_view(&mut stream).await, 0);
    holding.join().unwrap();
    let shown = Instant::now();
    ingest(&meter, &["a"]).unwrap();
    assert_eq!(next_view(&mut stream).await, 1);
    assert!(shown.elapsed() < Duration::from_secs(5), "{:?} of its clock", shown.elapsed());
    let shown = Instant::now();
    assert_eq!(next_view(&mut stream).await, 1, "without a change");
    assert!(shown.elapsed() < Duration::from_secs(6), "{:?} of its clock", shown.elapsed());
}

#[test]
fn a_look_at_the_arrivals_begins_anew_after_a_reset() {
    let meter = Meter::open(Options::default()).unwrap();
    let all = Selection::default();
    ingest(&meter, &["a", "b", "c"]).unwrap();
    let looked = meter.arrivals(&all, ROOM, meter.arrivals_since(1)).unwrap();
    assert_eq!((looked.matching, looked.seen), (2, 3));
    meter.reset(false).unwrap();
    let looked = meter.arrivals(&all, ROOM, looked).unwrap();
    assert_eq!((looked.matching, looked.seen, looked.since), (0, 0, 0));
    ingest(&meter, &["d"]).unwrap();
    let looked = meter.arrivals(&all, ROOM, looked).unwrap();
    let cursors: Vec<_> = looked.events.iter().map(|event| event.cursor).collect();
    assert_eq!((looked.matching, cursors), (1, vec![1]));
}
