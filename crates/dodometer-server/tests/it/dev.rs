//! The tools under `/_dev` that a user's tests are written with, and who may use them.

use std::time::Duration;

use crate::support::{Answer, Client, event, event_with, from_now, running};
use dodometer_server::{Options, Server};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = answer.json()["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

fn date(answer: &Answer) -> Timestamp {
    let date = answer.header("date").unwrap();
    jiff::fmt::rfc2822::parse(&date.replace("GMT", "+0000")).unwrap().timestamp()
}

async fn set_clock(client: &Client, offset: &str) -> Answer {
    client.send("PUT", "/_dev/clock", &json!({ "offset": offset }).to_string()).await
}

#[tokio::test]
async fn the_clock_can_be_moved_and_everything_goes_by_it() {
    let remember_ids = Some(Duration::from_secs(24 * 3600));
    let running = running(Options { remember_ids, ..Options::default() }).await;
    let client = &running.client;
    assert_eq!(client.get("/_dev/clock").await.json()["offset"], "0s");
    assert_eq!(client.ingested(vec![event("a")]).await, 1);

    let moved = set_clock(client, "25h").await;
    assert_eq!((moved.status, &moved.json()["offset"]), (200, &json!("25h")), "{moved:?}");
    let hours = |hours: i64| SignedDuration::from_hours(hours);
    for answer in [client.get("/events").await, client.get("/healthz").await] {
        let ahead = date(&answer).duration_since(Timestamp::now());
        assert!(ahead > hours(24) && ahead < hours(26), "{answer:?}");
    }
    let now = event_with("now", &json!({ "timestamp": from_now(0) }));
    client.ingest(&[now]).await.refuses(400, "INVALID_REQUEST_PARAMETERS");
    let then = event_with("then", &json!({ "timestamp": from_now(25 * 3600) }));
    assert_eq!(client.ingested(vec![then]).await, 1);
    assert_eq!(client.ingested(vec![event("a")]).await, 1, "its id was forgotten");
    let stamped: Timestamp =
        client.get("/events/a").await.json()["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(stamped.duration_since(Timestamp::now()) > hours(24), "{stamped}");

    // Back: what came at a later time is still known, and the order of arrival stays.
    set_clock(client, "-90m").await;
    assert_eq!(client.ingested(vec![event("a"), event("b")]).await, 1);
    assert_eq!(ids(&client.get("/_dev/events").await), ["a", "then", "a", "b"]);
    assert!(date(&client.get("/events").await) < Timestamp::now() - hours(1));

    for (body, told) in [
        (r#"{"offset":"1d"}"#, "ms, s, m or h"),
        (r#"{"offset":"100000h"}"#, "at most 87600 hours"),
        (r#"{"offset":5}"#, "string"),
        (r#"{"ofset":"1h"}"#, "ofset"),
        (r#"["1h"]"#, "an object"),
        ("", "EOF"),
    ] {
        let answer = client.send("PUT", "/_dev/clock", body).await;
        answer.refuses(422, "INVALID_REQUEST_BODY");
        assert!(answer.body.contains(told), "{answer:?}");
    }
    assert_eq!(client.get("/_dev/clock").await.json()["offset"], "-90m");
}

#[tokio::test]
async fn ids_that_came_while_the_clock_was_ahead_can_be_forgotten() {
    let forgets = |fault: &str| vec![fault.parse().unwrap()];
    for options in [
        Options { remember_ids: Some(Duration::ZERO), ..Options::default() },
        Options { faults: forgets("forget=0s"), ..Options::default() },
        Options { id_before_age: true, faults: forgets("forget=0s"), ..Options::default() },
    ] {
        let running = running(options).await;
        let client = &running.client;
        set_clock(client, "2h").await;
        assert_eq!(client.ingested(vec![event("a")]).await, 1);
        set_clock(client, "0s").await;
        assert_eq!(client.ingested(vec![event("a")]).await, 1);
    }
}

#[tokio::test]
async fn a_reset_makes_the_first_day() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let meter = client.meter("api_call", "count", None).await;
    let price = json!({ "price_per_unit": "1" }).to_string();
    client.send("PUT", &format!("/_dev/meters/{meter}/price"), &price).await;
    let empty = running.meter.bill();
    client.ingested(vec![event("a"), event("b")]).await;
    client.ingest(&[]).await;
    set_clock(client, "2h").await;
    assert_eq!(client.post("/_dev/reset", &json!({ "keep_meters": true })).await.status, 204);
    assert_eq!(running.meter.bill(), empty);
    assert_eq!(client.get("/_dev/clock").await.json()["offset"], "0s");
    client.get("/events/a").await.refuses(404, "NOT_FOUND");
    assert_eq!(client.ingested(vec![event("a")]).await, 1);
    assert_eq!(running.meter.bill().totals.amount, 1);

    assert_eq!(client.send("POST", "/_dev/reset", "").await.status, 204);
    client.get(&format!("/meters/{meter}")).await.refuses(404, "NOT_FOUND");
    let nothing = running.meter.bill();
    assert_eq!((nothing.totals.calls, nothing.totals.requests, nothing.currency), (0, 0, None));
    let wrong = client.post("/_dev/reset", &json!({ "keep_metres": true })).await;
    wrong.refuses(422, "INVALID_REQUEST_BODY");
}

#[tokio::test]
async fn arrivals_are_shown_whole_and_filtered() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let call = |id: String, customer: &str, status: Value| {
        let metadata = json!({ "endpoint": "/v1/a", "status_code": status });
        event_with(&id, &json!({ "customer_id": customer, "metadata": metadata }))
    };
    client.ingested((0..30).map(|n| call(format!("e{n:02}"), "cus_1", json!(200))).collect()).await;
    client.ingested(vec![call("other".into(), "cus_2", json!("200")), event("bare")]).await;
    let all = client.get("/_dev/events").await.json();
    assert_eq!((&all["matching"], &all["more"]), (&json!(32), &json!(false)));
    let first = &all["events"][0];
    assert_eq!(first["event_id"], "e00");
    assert_eq!(first["metadata"], json!({ "endpoint": "/v1/a", "status_code": 200 }));
    assert!(first["arrived_at"].is_string() && first["cursor"].is_number(), "{first}");

    let events = async |query: &str| client.get(&format!("/_dev/events?{query}")).await;
    assert_eq!(ids(&events("customer_id=cus_2").await), ["other"]);
    assert_eq!(ids(&events("event_name=api_call&limit=2").await), ["e00", "e01"]);
    assert_eq!(events("endpoint=/v1/a").await.json()["matching"], 31);
    assert_eq!(events("metadata.status_code=200&customer_id=cus_1").await.json()["matching"], 30);
    assert_eq!(events("metadata.status_code=404").await.json()["matching"], 0);
    let page = events("limit=31").await.json();
    assert_eq!((&page["matching"], &page["more"]), (&json!(32), &json!(true)));
    assert_eq!(ids(&events(&format!("since={}", page["next"])).await), ["bare"]);
    assert_eq!(ids(&events(&format!("since={}", all["next"])).await), [""; 0]);
    for (query, told) in [
        ("custmer_id=c", "custmer_id"),
        ("limit=10001", "0 to 10000"),
        ("at_least=many", "at_least"),
        ("timeout=10", "300s"),
        ("timeout=10", "the unit is missing"),
        ("timeout=1h", "300s"),
        ("since=-1", "since"),
    ] {
        let answer = events(query).await;
        answer.refuses(400, "INVALID_QUERY_PARAMS");
        assert!(answer.body.contains(told), "{answer:?}");
    }
}

#[tokio::test]
async fn a_test_can_wait_for_what_arrives() {
    let first = running(Options::default()).await;
    let client = first.client.clone();
    let wait = |query: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.get(&format!("/_dev/events?{query}")).await })
    };
    let waiting = wait("customer_id=cus_1&at_least=2&timeout=60s");
    client.ingested(vec![event("a"), event_with("x", &json!({ "customer_id": "cus_2" }))]).await;
    assert!(!waiting.is_finished());
    client.ingested(vec![event("b"), event("c")]).await;
    assert_eq!(ids(&waiting.await.unwrap()), ["a", "b", "c"]);

    let late = client.get("/_dev/events?at_least=5&timeout=10ms").await.json();
    assert_eq!(late["matching"], 4, "answered with what there is");

    // Of those who come at once, 64 have a place.
    let mut waiting = JoinSet::new();
    for _ in 0..65 {
        let client = client.clone();
        waiting.spawn(async move { client.get("/_dev/events?at_least=5&timeout=60s").await });
    }
    let answered = waiting.join_next().await.unwrap().unwrap();
    answered.refuses(429, "TOO_MANY_REQUESTS");
    assert_eq!(client.get("/_dev/events").await.status, 200, "who does not wait needs no place");

    // A stop answers those who wait.
    let address = first.server.address();
    first.server.shutdown().await;
    let answers = waiting.join_all().await;
    assert_eq!(answers.len(), 64);
    for answer in answers {
        assert_eq!((answer.status, &answer.json()["matching"]), (200, &json!(4)), "{answer:?}");
    }
    Server::start(&first.meter, address).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn no_web_page_of_another_origin_changes_anything() {
    let running = running(Options::default()).await;
    let address = running.server.address();
    let port = address.port();
    let send = async |method: &str, path: &str, host: &str, origin: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{origin}connection: close\r\n\
             content-type: text/plain\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let own = format!("localhost:{port}");
    for (method, path) in [("POST", "/_dev/reset"), ("PUT", "/_dev/clock")] {
        let done = if method == "POST" { 204 } else { 422 };
        for (host, origin, status) in [
            (&*own, String::new(), done),
            (&*own, format!("origin: http://localhost:{port}\r\n"), done),
            (&*own, format!("origin: http://127.0.0.1:{port}\r\n"), 403),
            (&*own, "origin: http://localhost:1\r\n".to_owned(), 403),
            (&*own, "origin: https://evil.example\r\n".to_owned(), 403),
            (&*own, "origin: null\r\n".to_owned(), 403),
            (&*own, "origin: \r\n".to_owned(), 403),
            ("evil.example", String::new(), 403),
        ] {
            assert_eq!(send(method, path, host, &origin).await, status, "{path} {host} {origin}");
        }
    }
    assert_eq!(send("GET", "/_dev/events", &own, "origin: http://localhost:1\r\n").await, 200);
}
