//! The page and its stream, and what happens to connections and data when a server or a meter stops.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Client, event, event_with, running};
use dodometer_server::{Data, ErrorKind, Meter, Options, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads a stream up to its next whole view.
async fn next_view(stream: &mut TcpStream, seen: &mut String) -> Value {
    let mut buffer = [0; 4096];
    loop {
        let data = seen.split_once("data: ").and_then(|(_, rest)| rest.split_once("\n\n"));
        if let Some((data, rest)) = data {
            let view = serde_json::from_str(data).unwrap();
            seen.drain(..seen.len() - rest.len());
            return view;
        }
        let read = tokio::time::timeout(Duration::from_secs(120), stream.read(&mut buffer));
        let read = read.await.expect("a view in time").unwrap();
        assert_ne!(read, 0, "the stream ended: {seen}");
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}

#[tokio::test]
async fn the_page_is_strict_and_whole() {
    let running = running(Options::default()).await;
    for (path, kind, holds) in [
        ("/", "text/html", "<!doctype html>"),
        ("/_dev/page/page.js", "text/javascript", "./charts.js"),
        ("/_dev/page/charts.js", "text/javascript", "./vendor/uPlot.js"),
        ("/_dev/page/format.js", "text/javascript", "Intl.NumberFormat"),
        ("/_dev/page/link.js", "text/javascript", "EventSource"),
        ("/_dev/page/sections.js", "text/javascript", "./tables.js"),
        ("/_dev/page/tables.js", "text/javascript", "textContent"),
        ("/_dev/page/page.css", "text/css", "prefers-color-scheme"),
        ("/_dev/page/vendor/uPlot.js", "text/javascript", "export { uPlot as default }"),
        ("/_dev/page/vendor/uPlot.css", "text/css", ".uplot"),
        ("/_dev/page/vendor/LICENSE", "text/plain", "Permission is hereby granted"),
    ] {
        let answer = running.client.with_key(None).get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{answer:?}");
        assert!(answer.body.contains(holds), "{path}");
        assert_eq!(
            answer.header("content-security-policy"),
            Some(
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                 img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        for unsafe_sink in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!answer.body.contains(unsafe_sink), "{path} uses {unsafe_sink}");
        }
        for inline in ["<style", " style=", " onclick", "javascript:"] {
            assert!(kind != "text/html" || !answer.body.contains(inline), "{path} has {inline}");
        }
    }
}

#[tokio::test]
async fn the_page_and_its_tools_need_no_key_here_but_the_name_of_this_machine() {
    let running = running(Options { keys: vec!["k".into()], ..Options::default() }).await;
    let open = running.client.with_key(None);
    let port = running.server.address().port();
    for path in ["/", "/_dev/bill", "/_dev/page/page.js", "/_dev/view"] {
        assert_eq!(open.get(path).await.status, 200, "{path}");
        assert_eq!(open.with_host(&format!("localhost:{port}")).get(path).await.status, 200);
        let rebound = open.with_host(&format!("evil.example:{port}")).get(path).await;
        rebound.refuses(403, "FORBIDDEN");
    }
    open.get("/events").await.refuses(401, "UNAUTHORIZED");
    let rebound = open.with_host("evil.example");
    rebound.get("/_dev/stream").await.refuses(403, "FORBIDDEN");
    rebound.send("PUT", "/_dev/meters/m/price", "{}").await.refuses(403, "FORBIDDEN");
}

#[tokio::test]
async fn whom_a_proxy_forwards_is_not_on_this_machine() {
    let running = running(Options { keys: vec!["k".into()], ..Options::default() }).await;
    for header in [
        "x-forwarded-for: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "Forwarded: for=203.0.113.9",
        "Via: 1.1 proxy",
    ] {
        let stranger = running.client.with_key(None).with_header(header);
        for path in ["/", "/_dev/bill", "/_dev/events", "/_dev/stream"] {
            stranger.get(path).await.refuses(401, "UNAUTHORIZED");
        }
        stranger.send("POST", "/_dev/reset", "").await.refuses(401, "UNAUTHORIZED");
        stranger.with_key(Some("other")).get("/_dev/bill").await.refuses(401, "UNAUTHORIZED");
        assert_eq!(stranger.with_key(Some("k")).get("/_dev/bill").await.status, 200, "{header}");
    }
}

#[tokio::test]
async fn without_keys_the_api_answers_to_the_names_of_this_machine_only() {
    let keyless = running(Options::default()).await;
    let port = keyless.server.address().port();
    let rebound = keyless.client.with_host(&format!("evil.example:{port}"));
    let large = json!({ "events": [event("a")], "x": "x".repeat(2_000_000) }).to_string();
    let one = json!({ "events": [event("a")] }).to_string();
    for (method, path, body) in [
        ("GET", "/events", ""),
        ("GET", "/events/a", ""),
        ("POST", "/events/ingest", &*one),
        ("POST", "/events/ingest", &*large),
        ("GET", "/meters", ""),
        ("POST", "/meters", "{}"),
        ("DELETE", "/meters/m", ""),
        ("GET", "/meters/m/usage", ""),
    ] {
        let answer = rebound.send(method, path, body).await;
        answer.refuses(403, "FORBIDDEN");
        assert!(answer.body.contains("localhost") && answer.body.contains("--key"), "{answer:?}");
    }
    assert_eq!(rebound.get("/healthz").await.status, 200);
    let totals = keyless.meter.bill().totals;
    assert_eq!((totals.calls, totals.requests, totals.requests_refused), (0, 2, 2));
    for host in
        ["localhost", "127.0.0.1:1", &format!("LOCALHOST:{port}"), "[::1]", "meter.localhost"]
    {
        assert_eq!(keyless.client.with_host(host).get("/events").await.status, 200, "{host}");
    }

    let keyed = running(Options { keys: vec!["test_key".into()], ..Options::default() }).await;
    let named = keyed.client.with_host("meter.example");
    assert_eq!(named.ingested(vec![event("a")]).await, 1, "a key is what no web page has");
    named.with_key(Some("k")).get("/events").await.refuses(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn the_stream_pushes_when_something_changed_and_not_more_often_than_told() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let mut stream = client.begin("GET", "/_dev/stream", "").await.unwrap();
    let mut seen = String::new();
    let first = next_view(&mut stream, &mut seen).await;
    assert!(is_event_stream(client).await);
    assert_eq!(first["totals"]["calls"], 0);
    assert_eq!(first["newest"], json!([]));

    let metadata = json!({
        "endpoint": "/v1/<b>", "method": "GET", "status_code": 200, "response_time_ms": 12.5,
    });
    client.ingested(vec![event_with("a", &json!({ "metadata": metadata }))]).await;
    let second = next_view(&mut stream, &mut seen).await;
    assert_eq!(second["totals"]["calls"], 1);
    let line = &second["newest"][0];
    assert_eq!(line["customer_id"], "cus_1");
    assert_eq!(line["endpoint"], "/v1/<b>");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["status_code"], "200");
    assert_eq!(line["response_time_ms"], 12.5);

    let begin = Instant::now();
    let mut pushed = 0;
    let mut last = 0;
    for index in 0..60 {
        client.ingested(vec![event(&format!("b{index}"))]).await;
    }
    while last != 61 {
        last = next_view(&mut stream, &mut seen).await["totals"]["calls"].as_u64().unwrap();
        pushed += 1;
    }
    let most = begin.elapsed().as_millis() / 250 + 2;
    assert!(pushed <= most, "{pushed} views, at most {most}");

    // Nothing changed: nothing is pushed.
    let mut buffer = [0; 16];
    let quiet = tokio::time::timeout(Duration::from_millis(600), stream.read(&mut buffer)).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

/// The stream's content type, by a second stream that is dropped at once.
async fn is_event_stream(client: &Client) -> bool {
    let mut other = client.begin("GET", "/_dev/stream", "").await.unwrap();
    let mut head = vec![0; 512];
    let read = other.read(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[..read]).contains("text/event-stream")
}

#[tokio::test]
async fn a_server_stops_and_another_carries_on_at_the_same_address() {
    let first = running(Options::default()).await;
    let (meter, client) = (first.meter, first.client);
    client.ingested(vec![event("a"), event("b")]).await;
    let mut page = client.begin("GET", "/_dev/stream", "").await.unwrap();
    next_view(&mut page, &mut String::new()).await;
    let idle = TcpStream::connect(first.server.address()).await.unwrap();

    let address = first.server.address();
    assert_eq!(first.server.shutdown().await, 0, "streams and idle connections end at once");
    for _ in 0..3 {
        let refused = client.try_send("GET", "/healthz", "").await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    drop(idle);

    let second = Server::start(&meter, address).await.unwrap();
    assert_eq!(second.address(), address);
    assert_eq!(client.ingested(vec![event("b"), event("c")]).await, 1);
    assert_eq!(client.get("/_dev/bill").await.json()["totals"]["calls"], 3);
    let taken = Server::start(&meter, address).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Listen);
    second.shutdown().await;
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_up_a_shutdown() {
    let running = running(Options::default()).await;
    let mut half = TcpStream::connect(running.server.address()).await.unwrap();
    let head = b"POST /events/ingest HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
        content-length: 99\r\n\r\n";
    half.write_all(head).await.unwrap();
    // It has begun to read the body.
    let mut asked = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    half.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&asked));
    half.write_all(b"{").await.unwrap();
    assert_eq!(running.server.shutdown().await, 1);
    assert_eq!(half.read(&mut [0; 16]).await.unwrap_or(0), 0, "the connection is gone");
}

fn on(path: &Path) -> Options {
    Options { data: Data::File(path.to_owned()), ..Options::default() }
}

#[tokio::test]
async fn a_data_file_survives_and_has_one_meter_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meter ?#.db");
    let first = running(on(&path)).await;
    let client = &first.client;
    let meter = client.meter("api_call", "sum", Some("n")).await;
    let price = json!({ "price_per_unit": "0.50", "free_threshold": 1 }).to_string();
    client.send("PUT", &format!("/_dev/meters/{meter}/price"), &price).await;
    let counted = |id: &str, n: i32| {
        event_with(id, &json!({ "metadata": { "n": n, "response_time_ms": n * 10 } }))
    };
    client.ingested(vec![counted("a", 3), counted("b", 4)]).await;
    client.ingested(vec![counted("b", 4)]).await;
    client.ingest(&[]).await;
    let archived = client.meter("api_call", "count", None).await;
    client.send("DELETE", &format!("/meters/{archived}"), "").await;
    let before = first.meter.bill();
    assert_eq!(before.totals.amount, 3);

    let second = Meter::open(on(&path)).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::DataInUse);
    assert!(second.to_string().contains("meter ?#.db"), "{second}");
    #[cfg(unix)]
    {
        let other_name = folder.path().join("link.db");
        std::os::unix::fs::symlink(&path, &other_name).unwrap();
        assert_eq!(Meter::open(on(&other_name)).unwrap_err().kind(), ErrorKind::DataInUse);
    }

    first.server.shutdown().await;
    drop(first.meter);
    let again = running(on(&path)).await;
    assert_eq!(again.meter.bill(), before);
    assert_eq!(again.client.ingested(vec![counted("a", 3), counted("c", 1)]).await, 1);
    assert_eq!(again.meter.bill().totals.amount, 4);
    let list = again.client.get("/meters?archived=true").await.json();
    assert_eq!(list["items"][0]["id"], archived.as_str());
}

#[cfg(unix)]
#[test]
fn a_link_to_no_file_yet_meets_the_lock_of_the_file_that_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let [link, file] = ["link.db", "file.db"].map(|name| folder.path().join(name));
    std::os::unix::fs::symlink("file.db", &link).unwrap();
    let first = Meter::open(on(&link)).unwrap();
    for path in [&link, &file] {
        assert_eq!(Meter::open(on(path)).unwrap_err().kind(), ErrorKind::DataInUse, "{path:?}");
    }
    drop(first);
    Meter::open(on(&file)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_that_has_hard_links_is_refused_by_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let [file, other] = ["file.db", "other.db"].map(|name| folder.path().join(name));
    let first = Meter::open(on(&file)).unwrap();
    std::fs::hard_link(&file, &other).unwrap();
    let error = Meter::open(on(&other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("hard links"), "{error}");
    drop(first);
    for path in [&file, &other] {
        assert_eq!(Meter::open(on(path)).unwrap_err().kind(), ErrorKind::Data, "{path:?}");
    }
    std::fs::remove_file(&other).unwrap();
    Meter::open(on(&file)).unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, and long enough to be looked at".repeat(40)).unwrap();
    let nowhere = folder.path().join("missing/meter.db");
    let theirs = folder.path().join("other.db");
    let database = rusqlite::Connection::open(&theirs).unwrap();
    database.execute_batch("CREATE TABLE t (x)").unwrap();
    database.close().unwrap();
    for path in [&text, &nowhere, &theirs, &folder.path().to_owned()] {
        assert_eq!(Meter::open(on(path)).unwrap_err().kind(), ErrorKind::Data, "{path:?}");
    }
    let files = std::fs::read_dir(folder.path()).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["notes.txt", "other.db"]);
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("not a database"));
}
