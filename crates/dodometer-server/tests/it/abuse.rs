//! What no decent client sends: bodies that are no events, requests that are no HTTP, and clients that
//! take their time. The server refuses, goes on, and keeps nothing for ever.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{event_with, running};
use dodometer_server::Options;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Long enough for anything that happens at all.
const EVENTUALLY: Duration = Duration::from_secs(600);

/// In bytes.
const LONGEST_URL: usize = 65_534;

/// All that the server says to some bytes.
async fn said(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may well have closed before all is written.
    let _ = stream.write_all(request).await;
    read_out(&mut stream).await
}

/// Reads until the server closes, by whatever means.
async fn read_out(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let _ = timeout(EVENTUALLY, stream.read_to_end(&mut read)).await.expect("it is closed");
    String::from_utf8_lossy(&read).into_owned()
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").map_or("", |rest| &rest[..3])
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\nconnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn with_length(path: &str, body: &[u8]) -> Vec<u8> {
    post(path, &format!("content-length: {}\r\n", body.len()), body)
}

/// A request of one event, with something in the place of its metadata.
fn with_metadata(metadata: &str) -> Vec<u8> {
    format!(
        r#"{{"events":[{{"event_id":"e","customer_id":"c","event_name":"n","metadata":{metadata}}}]}}"#
    )
    .into_bytes()
}

const EVENT: &[u8] = br#"{"events":[{"event_id":"e","customer_id":"c","event_name":"n"}]}"#;

#[tokio::test]
async fn bodies_that_are_no_events_are_refused() {
    let running = running(Options::default()).await;
    let deep = "[".repeat(100_000);
    let closed = format!("{deep}{}", "]".repeat(100_000));
    let digits = "9".repeat(10_000);
    for (name, body, expected) in [
        ("cut short", EVENT[..40].to_vec(), "422"),
        ("a second document", [EVENT, EVENT].concat(), "422"),
        ("100,000 arrays", deep.clone().into_bytes(), "422"),
        ("100,000 arrays as metadata", with_metadata(&closed), "422"),
        ("100,000 arrays in metadata", with_metadata(&format!(r#"{{"k":{closed}}}"#)), "422"),
        ("a byte 0", vec![0; 100], "422"),
        ("a byte 0 in a text", with_metadata("{\"k\":\"\0\"}"), "422"),
        ("no UTF-8", with_metadata("{\"k\":\"?\"}").into_iter().map(replaced).collect(), "422"),
        ("half a surrogate pair", with_metadata(r#"{"k":"\ud800"}"#), "422"),
        ("a number of 10,000 digits", with_metadata(&format!(r#"{{"k":{digits}}}"#)), "422"),
        ("a fraction of 10,000 digits", with_metadata(&format!(r#"{{"k":{digits}.5}}"#)), "422"),
        ("an exponent of 10,000 digits", with_metadata(&format!(r#"{{"k":1e{digits}}}"#)), "422"),
        ("a number that is none", with_metadata(r#"{"k":NaN}"#), "422"),
        ("events twice", [&EVENT[..EVENT.len() - 1], br#","events":[]}"#].concat(), "422"),
        ("10 MB of spaces", vec![b' '; 10_000_000], "413"),
        ("10 MB of arrays", vec![b'['; 10_000_000], "413"),
    ] {
        let answer = said(running.server.address(), &with_length("/events/ingest", &body)).await;
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        assert!(answer.contains(r#"{"code":""#), "{name}: {answer}");
    }
    for body in [
        deep.clone(),
        format!(r#"{{"filter":{}"#, r#"{"conjunction":"and","clauses":["#.repeat(50_000)),
        format!(
            r#"{{"name":"n","event_name":"n","measurement_unit":"u","aggregation":{{"type":"count"}},"filter":{closed}}}"#
        ),
    ] {
        let answer = said(running.server.address(), &with_length("/meters", body.as_bytes())).await;
        assert!(["413", "422"].contains(&status(&answer)), "{answer}");
    }
    assert_eq!(running.client.get("/events").await.json()["items"], json!([]));
    assert_eq!(running.client.get("/meters").await.json()["items"], json!([]));
}

/// A byte that is never UTF-8 in the place of a question mark.
fn replaced(byte: u8) -> u8 {
    if byte == b'?' { 0xff } else { byte }
}

#[tokio::test]
async fn what_is_odd_and_right_is_taken() {
    let running = running(Options::default()).await;
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let unknown = format!(
        r#"{{"x":{nested},"events":[{{"event_id":"deep","customer_id":"c","event_name":"n","x":{nested}}}]}}"#
    );
    for (id, body) in [
        ("%00", r#"{"events":[{"event_id":"\u0000","customer_id":"\u0000","event_name":"n"}]}"#),
        ("deep", unknown.as_str()),
    ] {
        let answer = running.client.send("POST", "/events/ingest", body).await;
        assert_eq!(answer.status, 200, "{id}: {answer:?}");
        assert_eq!(running.client.get(&format!("/events/{id}")).await.status, 200, "{id}");
    }
    assert_eq!(
        running.client.get("/events?customer_id=%00").await.json()["items"][0]["event_id"],
        "\0"
    );
}

#[tokio::test]
async fn a_compressed_body_is_refused_for_what_it_is() {
    let running = running(Options::default()).await;
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for (encoding, expected) in
        [("gzip", "415"), ("br", "415"), ("GZip", "415"), ("identity", "422"), ("Identity", "422")]
    {
        let headers = format!("content-encoding: {encoding}\r\ncontent-length: {}\r\n", gzip.len());
        let request = post("/events/ingest", &headers, &gzip);
        let answer = said(running.server.address(), &request).await;
        assert_eq!(status(&answer), expected, "{answer}");
    }
    let request =
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n";
    let answer = said(running.server.address(), request).await;
    assert_eq!(status(&answer), "200", "there is no body: {answer}");
}

#[tokio::test]
async fn requests_that_are_no_http_end_their_connection_only() {
    let running = running(Options::default()).await;
    let length = EVENT.len();
    let chunked = "transfer-encoding: chunked\r\n";
    let many_headers =
        (0..200).map(|n| format!("x-{n}: y")).collect::<Vec<_>>().join("\r\n") + "\r\n";
    let long_header = format!("x: {}\r\n", "y".repeat(1_000_000));
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
    };
    let long_url = format!("/{}", "x".repeat(LONGEST_URL - 1));
    let longer_url = format!("{long_url}x");
    for (name, request, expected) in [
        ("a long URL", get(&long_url), &["404"][..]),
        ("a URL that is too long", get(&longer_url), &["414"]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &["", "400"]),
        ("noise", (0..5000_u32).map(|n| ((n * 7919) >> 3) as u8).collect(), &["", "400"]),
        ("no method", b"\r\n\r\n /\r\n\r\n".to_vec(), &["", "400"]),
        ("200 headers", post("/events/ingest", &many_headers, b""), &["431"]),
        ("a header of 1 MB", post("/events/ingest", &long_header, b""), &["431"]),
        ("a length below 0", post("/events/ingest", "content-length: -1\r\n", EVENT), &["400"]),
        (
            "two lengths",
            post("/events/ingest", "content-length: 1\r\ncontent-length: 2\r\n", EVENT),
            &["400"],
        ),
        (
            "a length that is too short",
            post("/events/ingest", &format!("content-length: {}\r\n", length - 1), EVENT),
            &["422"],
        ),
        (
            "a length of 2^64",
            post("/events/ingest", "content-length: 18446744073709551616\r\n", EVENT),
            &["", "400"],
        ),
        (
            "a chunk of no length",
            post("/events/ingest", chunked, b"zz\r\n{}\r\n0\r\n\r\n"),
            &["", "400", "422"],
        ),
        (
            "a chunk of 2^64",
            post("/events/ingest", chunked, b"10000000000000000\r\n{}"),
            &["", "400", "422"],
        ),
    ] {
        let answer = said(running.server.address(), &request).await;
        assert!(expected.contains(&status(&answer)), "{name}: {answer}");
    }
    let too_long = format!("content-length: {}\r\n", length + 1);
    for request in [
        post("/events/ingest", &too_long, EVENT),
        post("/events/ingest", chunked, format!("{length:x}\r\n").as_bytes()),
        [post("/events/ingest", chunked, format!("{length:x}\r\n").as_bytes()), EVENT.to_vec()]
            .concat(),
    ] {
        let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_out(&mut stream).await;
        assert!(["", "422"].contains(&status(&answer)), "it never ended: {answer}");
    }
    assert_eq!(running.client.get("/events").await.json()["items"], json!([]));
}

// The clock of these tests goes on by itself whenever everybody waits.

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_slowly_is_let_go() {
    let running = running(Options::default()).await;
    let head = b"POST /events/ingest HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n";
    let body = [&head[..], b"content-length: 1000\r\n\r\n"].concat();
    let chunks = [&head[..], b"transfer-encoding: chunked\r\n\r\n"].concat();
    for (name, at_once, piece, expected) in [
        ("a head", &b""[..], &b"x"[..], ""),
        ("a body", &body, b" ", "408"),
        ("chunks", &chunks, b"1\r\n \r\n", "408"),
    ] {
        let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
        stream.write_all(at_once).await.unwrap();
        let mut sent = 0;
        while stream.write_all(piece).await.is_ok() && sent < 1000 {
            sent += 1;
            sleep(Duration::from_secs(1)).await;
        }
        assert!(sent < 200, "{name}: it was listened to for {sent} seconds");
        let answer = read_out(&mut stream).await;
        // What was sent after the end may have taken the answer with it.
        assert!(["", expected].contains(&status(&answer)), "{name}: {answer}");
    }

    // One that falls silent hears why.
    let mut silent = TcpStream::connect(running.server.address()).await.unwrap();
    silent.write_all(&body).await.unwrap();
    let answer = read_out(&mut silent).await;
    assert_eq!(status(&answer), "408", "{answer}");
    assert!(answer.contains(r#""code":"REQUEST_TIMEOUT""#), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_let_go() {
    let running = running(Options::default()).await;
    let text = "x".repeat(400);
    let events: Vec<_> = (0..1000)
        .map(|n| event_with(&format!("e{n}"), &json!({ "metadata": { "text": text } })))
        .collect();
    running.client.ingested(events).await;
    let page = b"GET /events?page_size=1000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n\r\n";
    let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
    stream.write_all(&page.repeat(100)).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    let read = read_out(&mut stream).await.len();
    assert!(read < 50 * 400 * 1000, "it was written to for as long as it did not read: {read}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_the_end() {
    let running = running(Options::default()).await;
    let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stream.read(&mut answer).await.unwrap_or(0), 0);
}
