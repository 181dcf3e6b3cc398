use super::*;

const NOW: i64 = 1_767_323_045_000;
const HOUR_MS: i64 = 3_600_000;

fn server() -> Server {
    let mut server = Server::new(1);
    server.options.keys.insert("key".to_owned());
    server.options.unknown_customers.insert("nobody".to_owned());
    server
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

fn event(id: &str, stamp: i64) -> Value {
    json!({"event_id": id, "customer_id": "cus_1", "event_name": "call", "timestamp": time(stamp)})
}

fn body(events: &[Value]) -> Vec<u8> {
    json!({ "events": events }).to_string().into_bytes()
}

fn header<'a>(answer: &'a HttpAnswer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
}

fn json_of(answer: &HttpAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The status, with nothing billed unless it is 200.
fn status(server: &mut Server, at: i64, events: &[Value]) -> u16 {
    let before = server.billed.clone();
    let status = server.ingest(at, "key", &body(events)).status;
    assert!(status == 200 || server.billed == before);
    status
}

#[test]
fn events_are_billed_once_while_their_ids_are_remembered() {
    let mut server = server();
    let answer = server.ingest(NOW, "key", &body(&[event("a", NOW - 5), event("b", NOW)]));
    assert_eq!((answer.status, json_of(&answer)), (200, json!({"ingested_count": 2})));
    assert_eq!(header(&answer, "date").unwrap(), "Fri, 02 Jan 2026 03:04:05 GMT");
    assert_eq!(header(&answer, "x-ratelimit-remaining").unwrap(), "99");
    let expected = json!({"event_id": "a", "customer_id": "cus_1", "event_name": "call"});
    let billing =
        Billing { at: NOW, stamp: NOW - 5, customer: "cus_1".to_owned(), event: expected };
    assert_eq!(server.billed["a"], [billing]);

    let again = server.ingest(NOW + 1, "key", &body(&[event("b", NOW), event("c", NOW)]));
    assert_eq!(json_of(&again), json!({"ingested_count": 1}));
    server.options.counts_known = true;
    let again = server.ingest(NOW + 2, "key", &body(&[event("b", NOW), event("c", NOW)]));
    assert_eq!(json_of(&again), json!({"ingested_count": 2}));
    assert_eq!(server.billed["b"].len(), 1);

    server.options.remembers_ms = Some(24 * HOUR_MS);
    let later = NOW + 24 * HOUR_MS;
    assert_eq!(status(&mut server, later - 1, &[event("b", later)]), 200);
    assert_eq!(server.billed["b"].len(), 1);
    assert_eq!(status(&mut server, later, &[event("b", later)]), 200);
    assert_eq!(server.billed["b"].len(), 2);
    assert_eq!(server.violations, Vec::<String>::new());
}

#[test]
fn the_window_is_by_the_servers_clock() {
    let mut server = server();
    server.options.skew_ms = HOUR_MS;
    let clock = NOW + HOUR_MS;
    assert_eq!(status(&mut server, NOW, &[event("a", clock - HOUR_MS)]), 200);
    assert_eq!(status(&mut server, NOW, &[event("b", clock - HOUR_MS - 1)]), 400);
    assert_eq!(status(&mut server, NOW, &[event("b", clock + 300_000)]), 200);
    assert_eq!(status(&mut server, NOW, &[event("c", clock + 300_001)]), 400);
    assert_eq!(status(&mut server, NOW + 1, &[event("a", NOW)]), 400, "the age comes first");
    server.options.age_before_id = false;
    assert_eq!(status(&mut server, NOW + 1, &[event("a", NOW)]), 200, "the id comes first");
    let mut stampless = event("d", 0);
    stampless["timestamp"] = Value::Null;
    assert_eq!(status(&mut server, NOW, &[stampless]), 200);
    assert_eq!(server.billed["d"][0].stamp, clock);
    let answer = server.ingest(NOW, "key", &body(&[event("e", clock)]));
    assert_eq!(header(&answer, "date").unwrap(), "Fri, 02 Jan 2026 04:04:05 GMT");
    assert_eq!(server.violations, Vec::<String>::new());
}

#[test]
fn one_bad_event_sinks_a_request() {
    let mut server = server();
    server.options.poisoned.insert("bad".to_owned());
    server.options.failing_ids.insert("worse".to_owned());
    let good = event("a", NOW);
    let mut unknown = event("b", NOW);
    unknown["customer_id"] = json!("nobody_7");
    assert_eq!(status(&mut server, NOW, &[good.clone(), event("bad", NOW)]), 400);
    assert_eq!(status(&mut server, NOW, &[good.clone(), event("worse", NOW)]), 500);
    for expected in [400, 404, 422] {
        server.options.unknown_customer_status = expected;
        assert_eq!(status(&mut server, NOW, &[good.clone(), unknown.clone()]), expected);
    }
    server.options.refuses_all = true;
    assert_eq!(status(&mut server, NOW, std::slice::from_ref(&good)), 400);
    server.options.refuses_all = false;
    assert_eq!(status(&mut server, NOW, &[good]), 200);
    let answer = server.ingest(NOW, "wrong", &body(&[event("c", NOW)]));
    assert_eq!((answer.status, json_of(&answer)["code"].clone()), (401, json!("UNAUTHORIZED")));
    server.options.max_body = 100;
    assert_eq!(status(&mut server, NOW, &[event("c", NOW)]), 413);
    assert_eq!(server.billed.len(), 1);
    assert_eq!(server.violations, Vec::<String>::new());
}

#[test]
fn what_is_not_the_apis_form_is_refused_and_noted() {
    let long = |chars: usize| "é".repeat(chars);
    let with = |metadata: Value| {
        let mut event = event("a", NOW);
        event["metadata"] = metadata;
        event
    };
    let pairs = |count: u32| (0..count).map(|n| (n.to_string(), json!(n))).collect::<Value>();
    let changed = |field: &str, value: Value| {
        let mut event = event("a", NOW);
        event[field] = value;
        event
    };
    let good = [
        with(pairs(50)),
        with(json!({long(100): long(500), "b": true, "c": -1.5, "d": i64::MIN})),
        with(Value::Null),
    ];
    for event in good {
        let mut server = server();
        assert_eq!(status(&mut server, NOW, std::slice::from_ref(&event)), 200, "{event}");
        assert!(server.violations.is_empty());
    }
    let bad = [
        (400, with(pairs(51))),
        (400, with(json!({long(101): 1}))),
        (400, with(json!({"a": long(501)}))),
        (400, with(json!({"a": u64::MAX}))),
        (400, with(json!({"a": {}}))),
        (400, with(json!({"a": null}))),
        (400, changed("event_id", json!(""))),
        (422, changed("event_id", json!(7))),
        (422, changed("event_name", Value::Null)),
        (422, changed("other", json!(1))),
        (422, changed("timestamp", json!(1))),
        (422, changed("timestamp", json!("2026-01-02 03:04:05Z"))),
        (422, changed("timestamp", json!("-002026-01-02T03:04:05Z"))),
        (422, json!({"event_id": "a", "event_name": "call"})),
    ];
    for (expected, event) in bad {
        let mut server = server();
        assert_eq!(status(&mut server, NOW, std::slice::from_ref(&event)), expected, "{event}");
        assert_eq!(server.violations.len(), 1, "{event}");
    }
    let many: Vec<Value> = (0..=1000).map(|n| event(&n.to_string(), NOW)).collect();
    let mut server = server();
    assert_eq!(status(&mut server, NOW, &many), 400);
    assert_eq!(status(&mut server, NOW, &[]), 400);
    assert_eq!(server.ingest(NOW, "key", b"{").status, 422);
    assert_eq!(server.ingest(NOW, "key", b"[]").status, 422);
    assert_eq!(server.ingest(NOW, "key", br#"{"events":[],"more":1}"#).status, 422);
    assert_eq!(server.violations.len(), 5);
    assert_eq!(status(&mut server, NOW, &many[..1000]), 200);
}

#[test]
fn an_id_twice_and_data_that_changed_are_noted_even_if_nothing_is_taken() {
    let mut server = server();
    assert_eq!(status(&mut server, NOW, &[event("a", NOW), event("a", NOW)]), 400);
    assert_eq!(server.violations, ["a is in one request twice"]);

    let mut moved = event("a", NOW + 1);
    moved["metadata"] = json!({"original_timestamp": time(NOW)});
    assert_eq!(server.ingest(NOW, "wrong", &body(&[moved])).status, 401);
    assert_eq!(server.violations.len(), 1, "a stamp may move, and say from where");

    let mut other = event("a", NOW);
    other["customer_id"] = json!("cus_2");
    assert_eq!(server.ingest(NOW, "wrong", &body(&[other])).status, 401);
    assert_eq!(server.violations.len(), 2);
}

#[test]
fn a_key_has_its_rate() {
    let mut server = server();
    server.options.keys.insert("other".to_owned());
    let send = |server: &mut Server, at: i64, key: &str| server.lookup(at, key, "none").status;
    for _ in 0..10 {
        assert_eq!(send(&mut server, NOW, "key"), 404);
    }
    assert_eq!(send(&mut server, NOW, "key"), 429);
    assert_eq!(send(&mut server, NOW, "other"), 404);
    assert_eq!(send(&mut server, NOW + 999, "key"), 429);
    assert_eq!(send(&mut server, NOW + 1_000, "key"), 404);
    for number in 13..100 {
        assert_eq!(send(&mut server, NOW + number * 200, "key"), 404, "{number}");
    }
    let refused = server.lookup(NOW + 30_000, "key", "none");
    assert_eq!((refused.status, header(&refused, "x-ratelimit-remaining")), (429, Some("0")));
    assert_eq!(json_of(&refused)["code"], "TOO_MANY_REQUESTS");
    let refusals: Vec<_> = (0..20).map(|_| server.lookup(NOW + 30_001, "key", "none")).collect();
    let told: Vec<_> = refusals.iter().filter_map(|one| header(one, "retry-after")).collect();
    assert!(!told.is_empty() && told.len() < refusals.len());
    assert!(told.iter().all(|seconds| (1..=60).contains(&seconds.parse().unwrap())));
    assert_eq!(server.arrivals.len(), 122);
    let last = server.arrivals.last().unwrap();
    assert_eq!((last.at, last.call, last.status), (NOW + 30_001, Call::Lookup, 429));
    assert_eq!(server.arrivals.iter().filter(|one| one.key == "other").count(), 1);
}

#[test]
fn a_billed_event_can_be_looked_up() {
    let mut server = server();
    let mut sent = event("a", NOW);
    sent["metadata"] = json!({"x": 1});
    assert_eq!(status(&mut server, NOW, &[sent, event("b", NOW)]), 200);
    let found = server.lookup(NOW, "key", "a");
    assert_eq!(found.status, 200);
    let expected = json!({
        "business_id": "bus_simulated", "customer_id": "cus_1", "event_id": "a",
        "event_name": "call", "timestamp": time(NOW), "metadata": {"x": 1},
    });
    assert_eq!(json_of(&found), expected);
    assert_eq!(json_of(&server.lookup(NOW, "key", "b"))["metadata"], Value::Null);
    assert_eq!(server.lookup(NOW, "key", "c").status, 404);
    assert_eq!(server.lookup(NOW, "key", "").status, 422);
    assert_eq!(server.lookup(NOW, "wrong", "a").status, 401);
}
