//! What takes its turn with a change of the clock or a reset, in an order that no client can bring about.

use std::thread;
use std::time::Duration;

use jiff::SignedDuration;

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
