//! Each fault as a client sees it, over raw sockets.

use std::time::{Duration, Instant};

use crate::support::{Answer, Client, Running, event, event_with, from_now, running};
use dodometer_server::{Fault, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

async fn with(faults: &[&str]) -> Running {
    let faults = faults.iter().map(|fault| fault.parse::<Fault>().unwrap()).collect();
    running(Options { faults, ..Options::default() }).await
}

/// What each ingest of a new event is answered with; 0 for no answer.
async fn statuses(client: &Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for index in 0..count {
        let body = json!({ "events": [event(&format!("s{index}"))] }).to_string();
        let answer = client.try_send("POST", "/events/ingest", &body).await;
        statuses.push(answer.map_or(0, |answer| answer.status));
    }
    statuses
}

async fn is_stored(client: &Client, id: &str) -> bool {
    client.get(&format!("/events/{id}")).await.status == 200
}

/// Sends an ingest request and reads what comes, up to the end or an error.
async fn raw(client: &Client, id: &str) -> (String, Option<std::io::ErrorKind>) {
    let body = json!({ "events": [event(id)] }).to_string();
    let mut stream = client.begin("POST", "/events/ingest", &body).await.unwrap();
    let mut read = Vec::new();
    let error = stream.read_to_end(&mut read).await.err().map(|error| error.kind());
    (String::from_utf8(read).unwrap(), error)
}

#[tokio::test]
async fn answers_that_are_refusals() {
    let faults = [
        "status=429,retry_after=2,times=1",
        "status=500,times=1",
        "status=503,times=1",
        "unauthorized,times=1",
        "status=502,times=1,stage=after_commit",
        "too_large=1000",
    ];
    let running = with(&faults).await;
    let client = &running.client;
    let answer = client.ingest(&[event("a")]).await;
    answer.refuses(429, "TOO_MANY_REQUESTS");
    assert_eq!(answer.header("retry-after"), Some("2"));
    for (status, code) in
        [(500, "INTERNAL_SERVER_ERROR"), (503, "SERVICE_UNAVAILABLE"), (401, "UNAUTHORIZED")]
    {
        client.ingest(&[event("a")]).await.refuses(status, code);
        assert!(!is_stored(client, "a").await, "look-ups are another route, and nothing is kept");
    }
    client.ingest(&[event("a")]).await.refuses(502, "FAULT");
    assert!(is_stored(client, "a").await, "all was done but the answer");
    let many: Vec<_> = (0..20).map(|index| event(&format!("m{index}"))).collect();
    client.ingest(&many).await.refuses(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(client.ingested(many[..5].to_vec()).await, 5);
    let totals = running.meter.bill().totals;
    assert_eq!((totals.calls, totals.requests, totals.requests_refused), (6, 7, 5));
}

#[tokio::test]
async fn no_answer_or_half_of_one() {
    let faults =
        ["reset,times=1", "reset=after_commit,times=1", "truncate,times=1", "html,times=1"];
    let running = with(&faults).await;
    let client = &running.client;
    for (id, stored) in [("a", false), ("b", true)] {
        let (text, error) = raw(client, id).await;
        assert_eq!((text.as_str(), error), ("", Some(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(is_stored(client, id).await, stored);
    }
    let (text, _) = raw(client, "c").await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let whole = r#"{"ingested_count":1}"#;
    assert!(head.contains(&format!("content-length: {}", whole.len())), "{head}");
    assert_eq!(body, &whole[..whole.len() / 2]);
    assert!(is_stored(client, "c").await);

    let (text, error) = raw(client, "d").await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("text/html"), "{text}");
    assert!(text.contains("<!doctype html>") && error.is_none(), "{text}");
    assert!(!is_stored(client, "d").await);
    assert_eq!(client.ingested(vec![event("a"), event("b"), event("d")]).await, 2);
}

#[tokio::test]
async fn a_request_hangs_until_its_client_or_the_server_ends() {
    let running = with(&["hang=after_commit"]).await;
    let client = &running.client;
    let body = json!({ "events": [event("a")] }).to_string();
    let mut first = client.begin("POST", "/events/ingest", &body).await.unwrap();
    while !is_stored(client, "a").await {}
    let given_up = tokio::time::timeout(Duration::from_millis(300), first.read_u8()).await;
    assert!(given_up.is_err(), "nothing comes");
    drop(first);
    let mut second = client.begin("POST", "/events/ingest", &body).await.unwrap();
    while client.get("/_dev/faults").await.json()["faults"][0]["struck"] != 2 {}
    assert_eq!(running.server.shutdown().await, 0, "a shutdown does not wait for it");
    assert!(second.read_u8().await.is_err());
}

#[tokio::test]
async fn answers_come_late() {
    let faults = ["latency=150ms..200ms,times=3", "status=503,after=1,times=1", "reset,after=1"];
    let running = with(&faults).await;
    for expected in [200, 503, 0] {
        let begin = Instant::now();
        assert_eq!(statuses(&running.client, 1).await, [expected]);
        assert!(begin.elapsed() >= Duration::from_millis(150), "{expected}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_a_late_answer_has_its_request_carried_out() {
    let running = with(&["latency=60s"]).await;
    let client = &running.client;
    let body = json!({ "events": [event("a")] }).to_string();
    let given_up = client.begin("POST", "/events/ingest", &body).await.unwrap();
    let stored = async || while !is_stored(client, "a").await {};
    tokio::time::timeout(Duration::from_secs(120), stored()).await.expect("it is stored at once");
    drop(given_up);
    assert_eq!(running.meter.bill().totals.requests, 1);
}

#[tokio::test]
async fn counts_clocks_customers_and_ids_are_wrong() {
    let faults = [
        "count=+1,times=1",
        "count=7,after=1,times=1",
        "skew=-2h,after=2,times=1",
        "unknown_customer=cus_9",
        "unknown_customer,after=4,times=1",
        "forget=0s,after=6",
    ];
    let running = with(&faults).await;
    let client = &running.client;
    assert_eq!(client.ingested(vec![event("a")]).await, 2);
    assert_eq!(client.ingested(vec![event("a"), event("b")]).await, 7);

    let now = event_with("c", &json!({ "timestamp": from_now(0) }));
    let answer = client.ingest(std::slice::from_ref(&now)).await;
    answer.refuses(400, "INVALID_REQUEST_PARAMETERS");
    let date = answer.header("date").unwrap().replace("GMT", "+0000");
    let date = jiff::fmt::rfc2822::parse(&date).unwrap().timestamp();
    assert!(date < jiff::Timestamp::now() - jiff::SignedDuration::from_mins(90), "{answer:?}");

    let stranger = event_with("x", &json!({ "customer_id": "cus_9" }));
    let answer = client.ingest(&[now.clone(), stranger]).await;
    answer.refuses(400, "INVALID_REQUEST_PARAMETERS");
    assert!(answer.body.contains("events[1].customer_id"), "{answer:?}");
    let answer = client.ingest(std::slice::from_ref(&now)).await;
    assert!(answer.body.contains("events[0].customer_id"), "{answer:?}");
    assert_eq!(client.ingested(vec![now.clone()]).await, 1);
    assert_eq!(client.ingested(vec![now, event("a")]).await, 2, "their ids were forgotten");
    assert_eq!(running.meter.bill().totals.calls, 5);
}

#[tokio::test]
async fn the_published_rate_limit_can_be_set_for_a_while() {
    const LIMIT: usize = 100;
    const STRIKES: usize = 30;
    const ROUND: usize = LIMIT + STRIKES + 10;
    let running = with(&[&format!("rate_limit,times={STRIKES}")]).await;
    let first = running.client.get("/events").await;
    assert_eq!(first.header("x-ratelimit-remaining"), Some("99"), "it goes for every route");
    let round = async || {
        let mut sent = JoinSet::new();
        for _ in 0..ROUND {
            let client = running.client.clone();
            sent.spawn(async move { client.get("/events").await });
        }
        sent.join_all().await
    };
    let mut refused = 0;
    loop {
        let begin = Instant::now();
        for answer in round().await {
            if answer.status != 200 {
                answer.refuses(429, "TOO_MANY_REQUESTS");
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                refused += 1;
            }
        }
        // Had it taken longer, more than the limit could have passed.
        if begin.elapsed() < Duration::from_secs(60) {
            break;
        }
    }
    assert_eq!(refused, STRIKES);
    for answer in round().await {
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (200, None));
    }
}

#[tokio::test]
async fn faults_are_set_shown_and_ended_while_it_runs() {
    let running = with(&["status=503,times=2"]).await;
    let client = &running.client;
    let set = async |body: Value| client.post("/_dev/faults", &body).await;
    assert_eq!(statuses(client, 3).await, [503, 503, 200]);
    let shown = client.get("/_dev/faults").await.json();
    let fault = json!({ "fault": "status=503,times=2", "seen": 3, "struck": 2, "ended": true });
    assert_eq!(shown, json!({ "seed": 0, "faults": [fault] }));

    let faults = json!([{ "status": 401, "times": 1 }, "reset=after_commit,times=1"]);
    let answer = set(json!({ "faults": faults, "seed": 7 })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["faults"].as_array().unwrap().len(), 3);
    assert_eq!(statuses(client, 3).await, [401, 0, 200]);
    // A key that is not taken meets no fault.
    set(json!({ "faults": ["hang"] })).await;
    client.with_key(None).ingest(&[event("a")]).await.refuses(401, "UNAUTHORIZED");
    assert_eq!(client.send("DELETE", "/_dev/faults", "").await.status, 204);
    assert_eq!(statuses(client, 2).await, [200, 200]);

    client.post("/_dev/reset", &json!({})).await;
    assert_eq!(statuses(client, 3).await, [503, 503, 200], "as on the first day");

    let too_many = vec!["hang"; 101];
    for (body, told) in [
        (json!({ "faults": [{ "status": 200 }] }), r#"faults[0]: status is \"200\": give 300"#),
        (json!({ "faults": ["hang", "hangs"] }), "faults[1]: \\\"hangs\\\" names no fault"),
        (json!({ "faults": "hang" }), "sequence"),
        (json!({ "fault": "hang" }), "unknown field `fault`"),
        (json!({ "faults": too_many }), "more than 100 faults"),
    ] {
        let answer = set(body).await;
        answer.refuses(422, "INVALID_REQUEST_BODY");
        assert!(answer.body.contains(told), "{answer:?}");
    }
    assert_eq!(statuses(client, 1).await, [200], "all or none");
}

#[tokio::test]
async fn a_share_repeats_and_a_connection_outlives_a_refusal() {
    let mut seen: Vec<Vec<u16>> = Vec::new();
    for _ in 0..2 {
        let running = with(&["status=500,share=0.4"]).await;
        seen.push(statuses(&running.client, 40).await);
    }
    assert_eq!(seen[0], seen[1]);
    let struck = seen[0].iter().filter(|status| **status == 500).count();
    assert!((5..30).contains(&struck), "{struck}");

    let running = with(&["status=503,times=1"]).await;
    let address = running.server.address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = json!({ "events": [event("a")] }).to_string();
    for status in ["503", "200"] {
        let request = format!(
            "POST /events/ingest HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer k\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    }
}

#[tokio::test]
async fn other_routes_can_be_struck() {
    let running =
        with(&["status=500,on=lookup", "status=503,on=events", "status=429,on=meters"]).await;
    let client = &running.client;
    assert_eq!(client.ingested(vec![event("a")]).await, 1);
    let status = |answer: Answer| answer.status;
    assert_eq!(status(client.get("/events/a").await), 500);
    assert_eq!(status(client.get("/events").await), 503);
    assert_eq!(status(client.get("/meters").await), 429);
    assert_eq!(status(client.get("/meters/mtr_1/usage").await), 429);
    assert_eq!(status(client.get("/_dev/bill").await), 200, "never what is ours alone");
    assert_eq!(running.meter.bill().totals.requests_refused, 0);
}
