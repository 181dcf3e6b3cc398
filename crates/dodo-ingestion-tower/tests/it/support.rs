//! A local meter, a client of it, services on real sockets, and a client that says exactly what a test wants said.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::Router;
use dodo_ingestion::{Builder, Ingestion};
use dodo_ingestion_tower::MeterLayer;
use dodometer_server::{Meter, Options, Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The header that names the customer in most tests.
pub(crate) const CUSTOMER: &str = "x-customer-id: cus_1";
/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A meter that bills, and a client that is billed there.
pub(crate) struct Stage {
    pub(crate) ingestion: Ingestion,
    pub(crate) spool: TempDir,
    pub(crate) server: Server,
    seen: Mutex<HashSet<String>>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(more: impl FnOnce(Builder) -> Builder) -> Self {
        let meter = Meter::open(Options::default()).unwrap();
        let server = Server::start(&meter, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let spool = tempfile::tempdir().unwrap();
        let builder = Ingestion::builder("sk_test")
            .base_url(format!("http://{}", server.address()))
            .event_name("api_call")
            .spool_dir(spool.path())
            .requests_per_minute(10_000_u32)
            .requests_per_second(1_000_u32);
        let ingestion = more(builder).build().unwrap();
        Self { ingestion, spool, server, seen: Mutex::default() }
    }

    /// A layer with the customer in the header [`CUSTOMER`].
    pub(crate) fn layer(&self) -> MeterLayer {
        MeterLayer::new(self.ingestion.clone()).customer_header("x-customer-id")
    }

    /// What was billed since this was last asked, the oldest first.
    pub(crate) async fn news(&self) -> Vec<Value> {
        self.ingestion.flush(PATIENCE).await.unwrap();
        let (head, body) = ask_with(
            self.server.address(),
            "GET /events?page_size=100 HTTP/1.1",
            &["authorization: Bearer sk_test"],
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let mut seen = self.seen.lock().unwrap();
        let mut news: Vec<Value> = answer["items"].as_array().unwrap().clone();
        news.retain(|event| seen.insert(event["event_id"].as_str().unwrap().to_owned()));
        // The meter answers with the newest first. Ids do not tell which of a millisecond came first.
        news.reverse();
        news
    }

    /// The one event that was billed since this was last asked, once it is there.
    pub(crate) async fn one(&self) -> Event {
        let start = Instant::now();
        loop {
            let mut news = self.news().await;
            match news.len() {
                0 => {
                    assert!(start.elapsed() < PATIENCE, "no event");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                1 => return Event(news.remove(0)),
                _ => panic!("more than one event: {news:#?}"),
            }
        }
    }

    pub(crate) async fn none(&self) {
        let news = self.news().await;
        assert!(news.is_empty(), "{news:#?}");
    }
}

/// An event as the meter has it.
#[derive(Debug)]
pub(crate) struct Event(pub Value);

impl Event {
    pub(crate) fn name(&self) -> &str {
        self.0["event_name"].as_str().unwrap()
    }

    pub(crate) fn customer(&self) -> &str {
        self.0["customer_id"].as_str().unwrap()
    }

    /// A metadata value; null where there is none.
    pub(crate) fn get(&self, key: &str) -> &Value {
        &self.0["metadata"][key]
    }

    /// Of a value in milliseconds.
    pub(crate) fn time(&self, key: &str) -> f64 {
        self.get(key).as_f64().unwrap_or_else(|| panic!("{key} in {self:?}"))
    }

    #[track_caller]
    pub(crate) fn is(&self, name: &str, pairs: &[(&str, Value)]) {
        assert_eq!(self.name(), name, "{self:#?}");
        for (key, value) in pairs {
            assert_eq!(self.get(key), value, "{key}: {self:#?}");
        }
    }
}

/// Serves a router on a socket, as a program would.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Sends a request's head, on a connection of its own.
pub(crate) async fn begin(address: SocketAddr, request_line: &str, headers: &[&str]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{request_line}\r\nhost: {address}\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream
}

/// Asks with these headers. The head of the answer, and what came after it until the server closed.
pub(crate) async fn ask_with(
    address: SocketAddr,
    line: &str,
    headers: &[&str],
) -> (String, String) {
    let headers = [headers, &["connection: close"]].concat();
    let mut stream = begin(address, line, &headers).await;
    let mut read = Vec::new();
    // A connection that is reset has answered nothing more.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("an end");
    let text = String::from_utf8(read).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), body.to_owned())
}

/// Asks as `cus_1`.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    ask_with(address, &format!("{request} HTTP/1.1"), &[CUSTOMER]).await
}

/// Reads until this has come.
pub(crate) async fn read_until(stream: &mut TcpStream, words: &str) -> String {
    let mut text = String::new();
    while !text.contains(words) {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect(words);
        let read = read.unwrap();
        assert!(read > 0, "the server closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    text
}
