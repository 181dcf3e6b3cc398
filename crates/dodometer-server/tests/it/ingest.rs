//! `POST /events/ingest` over real HTTP: every published rule, at its boundary.

use crate::support::{event, event_with, from_now, running};
use dodometer_server::Options;
use serde_json::{Value, json};

fn many(count: usize) -> Vec<Value> {
    (0..count).map(|index| event(&format!("e{index}"))).collect()
}

fn with_metadata(metadata: &Value) -> Value {
    event_with("e", &json!({ "metadata": metadata }))
}

fn pairs(count: usize) -> Value {
    (0..count)
        .map(|index| (format!("k{index}"), json!(index)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn a_broken_rule_refuses_the_whole_request() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let key = |chars: usize| with_metadata(&json!({ "é".repeat(chars): 1 }));
    let text = |chars: usize| with_metadata(&json!({ "k": "🦤".repeat(chars) }));
    let at = |seconds: i64| event_with("e", &json!({ "timestamp": from_now(seconds) }));
    let ok = 200;
    for (name, events, status) in [
        ("no events", vec![], 400),
        ("one event", many(1), ok),
        ("1000 events", many(1000), ok),
        ("1001 events", many(1001), 400),
        ("an empty id", vec![event_with("", &json!({}))], 400),
        ("an empty customer", vec![event_with("e", &json!({ "customer_id": "" }))], 400),
        ("an empty name", vec![event_with("e", &json!({ "event_name": "" }))], 400),
        ("a null id", vec![event_with("e", &json!({ "event_id": null }))], 422),
        ("a number as customer", vec![event_with("e", &json!({ "customer_id": 7 }))], 422),
        ("the same id twice", vec![event("a"), event("b"), event("a")], 400),
        ("ids that differ in case", vec![event("x"), event("X")], ok),
        ("no time", vec![event_with("e", &json!({ "timestamp": null }))], ok),
        ("59 minutes old", vec![at(-59 * 60)], ok),
        ("61 minutes old", vec![at(-61 * 60)], 400),
        ("4 minutes ahead", vec![at(4 * 60)], ok),
        ("6 minutes ahead", vec![at(6 * 60)], 400),
        (
            "a time without a zone",
            vec![event_with("e", &json!({ "timestamp": "2025-01-01T00:00:00" }))],
            422,
        ),
        ("a time as a number", vec![event_with("e", &json!({ "timestamp": 1_700_000_000 }))], 422),
        ("null metadata", vec![with_metadata(&Value::Null)], ok),
        ("empty metadata", vec![with_metadata(&json!({}))], ok),
        ("50 pairs", vec![with_metadata(&pairs(50))], ok),
        ("51 pairs", vec![with_metadata(&pairs(51))], 400),
        ("a key of 100 characters", vec![key(100)], ok),
        ("a key of 101 characters", vec![key(101)], 400),
        ("a text of 500 characters", vec![text(500)], ok),
        ("a text of 501 characters", vec![text(501)], 400),
        ("the largest integers", vec![with_metadata(&json!({ "a": i64::MAX, "b": i64::MIN }))], ok),
        ("an integer past 64 bits", vec![with_metadata(&json!({ "a": i64::MAX as u64 + 1 }))], 422),
        (
            "doubles and booleans",
            vec![with_metadata(&json!({ "a": 0.1, "b": 1e300, "c": true }))],
            ok,
        ),
        ("an object as a value", vec![with_metadata(&json!({ "a": {} }))], 422),
        ("an array as a value", vec![with_metadata(&json!({ "a": [1] }))], 422),
        ("null as a value", vec![with_metadata(&json!({ "a": null }))], 422),
        ("an array as metadata", vec![with_metadata(&json!([]))], 422),
        ("one bad among good", vec![event("g1"), with_metadata(&pairs(51)), event("g2")], 400),
    ] {
        let answer = client.ingest(&events).await;
        match status {
            200 => assert_eq!(answer.status, 200, "{name}: {answer:?}"),
            400 => answer.refuses(400, "INVALID_REQUEST_PARAMETERS"),
            _ => answer.refuses(422, "INVALID_REQUEST_BODY"),
        }
    }
    assert_eq!(client.get("/events/g1").await.status, 404, "nothing of a refused request is kept");
}

#[tokio::test]
async fn what_is_not_a_request_is_422() {
    let running = running(Options::default()).await;
    for body in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"events":{}}"#,
        r#"{"events":[{}]}"#,
        r#"{"events":[{"event_id":"a","customer_id":"c"}]}"#,
        r#"{"events":[{"event_id":"a","event_id":"b","customer_id":"c","event_name":"n"}]}"#,
        r#"{"events":[]} trailing"#,
        r#"[[["a","c","n"]]]"#,
        r#"[[{"event_id":"a","customer_id":"c","event_name":"n"}]]"#,
        r#"{"events":[["a","c","n",null,{"k":1}]]}"#,
        "{\"events\":[{\"event_id\":\"\\ud800\",\"customer_id\":\"c\",\"event_name\":\"n\"}]}",
    ] {
        let answer = running.client.send("POST", "/events/ingest", body).await;
        answer.refuses(422, "INVALID_REQUEST_BODY");
    }
}

#[tokio::test]
async fn an_id_is_ingested_once() {
    let running = running(Options::default()).await;
    let client = &running.client;
    assert_eq!(client.ingested(vec![event("a"), event("b")]).await, 2);
    let changed = event_with("b", &json!({ "customer_id": "cus_2", "metadata": { "k": 1 } }));
    assert_eq!(client.ingested(vec![changed, event("c")]).await, 1);
    assert_eq!(client.ingested(vec![event("a"), event("b"), event("c")]).await, 0);
    assert_eq!(client.ingested(vec![event("A")]).await, 1, "ids are case-sensitive");
    assert_eq!(client.get("/events/b").await.json()["customer_id"], "cus_1", "the first one stays");
    let bill = running.meter.bill();
    assert_eq!((bill.totals.calls, bill.totals.duplicates_ignored), (4, 4));
}

#[tokio::test]
async fn the_same_batch_at_once_counts_once() {
    let running = running(Options::default()).await;
    let batch = many(200);
    let sent: Vec<_> =
        (0..8).map(|_| tokio::spawn(running.client.ingested(batch.clone()))).collect();
    let mut ingested = 0;
    for answer in sent {
        ingested += answer.await.unwrap();
    }
    assert_eq!(ingested, 200);
    assert_eq!(running.meter.bill().totals.calls, 200);
}

#[tokio::test]
async fn a_key_is_asked_for() {
    let any = running(Options::default()).await;
    let listed =
        running(Options { keys: vec!["k_1".into(), "k_2".into()], ..Options::default() }).await;
    for (key, by_any, by_list) in [
        (None, 401, 401),
        (Some(""), 401, 401),
        (Some("k_1"), 200, 200),
        (Some("k_2"), 200, 200),
        (Some("k_3"), 200, 401),
    ] {
        for (running, status) in [(&any, by_any), (&listed, by_list)] {
            let client = running.client.with_key(key);
            let answers = [
                client.ingest(&[event("e")]).await,
                client.get("/events").await,
                client.get("/meters").await,
            ];
            for answer in answers {
                if status == 401 {
                    answer.refuses(401, "UNAUTHORIZED");
                } else {
                    assert_eq!(answer.status, status, "{key:?} {answer:?}");
                }
            }
            if status == 401 {
                client.get("/events/e").await.refuses(401, "UNAUTHORIZED");
                client.get("/meters/m/usage").await.refuses(401, "UNAUTHORIZED");
                client.send("POST", "/meters", "{}").await.refuses(401, "UNAUTHORIZED");
                client.send("DELETE", "/meters/m", "").await.refuses(401, "UNAUTHORIZED");
                client.send("POST", "/meters/m/unarchive", "").await.refuses(401, "UNAUTHORIZED");
            }
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_the_answer_arrives() {
    let small = running(Options { max_body_bytes: 200, ..Options::default() }).await;
    let body = |length: usize| {
        let event = json!({ "events": [event("e")] }).to_string();
        format!("{event}{}", " ".repeat(length - event.len()))
    };
    let send = async |body: String| small.client.send("POST", "/events/ingest", &body).await;
    assert_eq!(send(body(200)).await.status, 200);
    send(body(201)).await.refuses(413, "PAYLOAD_TOO_LARGE");

    let default = running(Options::default()).await;
    let send = async |body: String| default.client.send("POST", "/events/ingest", &body).await;
    assert_eq!(send(body(1024 * 1024)).await.status, 200);
    send(body(1024 * 1024 + 1)).await.refuses(413, "PAYLOAD_TOO_LARGE");
    send(body(8 * 1024 * 1024)).await.refuses(413, "PAYLOAD_TOO_LARGE");
    let stranger = default.client.with_key(None);
    let answer = stranger.send("POST", "/events/ingest", &body(8 * 1024 * 1024)).await;
    answer.refuses(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn other_addresses_and_methods_answer_in_the_same_form() {
    let running = running(Options::default()).await;
    running.client.get("/nowhere").await.refuses(404, "NOT_FOUND");
    running.client.get("/events/ingest/x").await.refuses(404, "NOT_FOUND");
    let answer = running.client.send("PUT", "/events/ingest", "").await;
    answer.refuses(405, "METHOD_NOT_ALLOWED");
    assert_eq!(answer.header("allow"), Some("POST"));
    running.client.get("/events/ingest").await.refuses(405, "METHOD_NOT_ALLOWED");
    running.client.get("/events/").await.refuses(404, "NOT_FOUND");
    running.client.post("/events/ingest/", &json!({})).await.refuses(404, "NOT_FOUND");
    let health = running.client.with_key(None).get("/healthz").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert!(health.header("date").is_some());
}
