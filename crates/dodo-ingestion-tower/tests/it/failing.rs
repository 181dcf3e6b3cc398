//! The metering fails in every way, and the response is served.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use dodo_ingestion_tower::{MeterLayer, OnMissingCustomer};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{PATIENCE, Stage, ask, ask_with, serve};

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        // Where one thread alone has a subscriber, what another says first is taken to interest nobody, on any thread.
        static ON_ALL_THREADS: Once = Once::new();
        ON_ALL_THREADS.call_once(|| tracing_subscriber::fmt().with_writer(io::sink).init());
        let subscriber = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false);
        tracing::subscriber::set_default(subscriber.finish())
    }

    fn lines_with(&self, words: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(words)).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn routes() -> Router {
    Router::new().route("/", get(async || "served"))
}

async fn serves(layer: &MeterLayer, requests: usize) {
    let address = serve(routes().layer(layer.clone())).await;
    for _ in 0..requests {
        let (head, body) = ask(address, "GET /").await;
        assert!(head.starts_with("HTTP/1.1 200") && body == "served", "{head} {body}");
    }
}

#[tokio::test]
async fn a_closed_client_is_told_of_once() {
    let log = Log::default();
    let _listening = log.listen();
    let stage = Stage::new().await;
    let layer = stage.layer();
    serves(&layer, 1).await;
    stage.ingestion.close(PATIENCE).await.unwrap();
    serves(&layer, 5).await;
    assert_eq!((layer.stats().billed, layer.stats().refused), (1, 5));
    assert_eq!(log.lines_with("will not be billed"), 1);
}

#[tokio::test]
async fn a_full_spool_is_told_of_once() {
    let log = Log::default();
    let _listening = log.listen();
    let stage = Stage::with(|builder| {
        // Nobody takes the calls, and a client whose spool is full takes no more.
        builder.base_url("http://127.0.0.1:9").max_spool_bytes(1 << 20)
    })
    .await;
    // Smaller than what the layer tracks: where this does not fit, nothing of the layer's will.
    while stage.ingestion.track(dodo_ingestion::Event::new("cus_0")).is_ok() {}
    let layer = stage.layer();
    serves(&layer, 5).await;
    assert_eq!((layer.stats().billed, layer.stats().refused), (0, 5));
    assert_eq!(log.lines_with("will not be billed"), 1);
    let _ = stage.ingestion.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_customer_that_is_none_is_refused_and_the_call_served() {
    let stage = Stage::new().await;
    let layer = stage.layer();
    let address = serve(routes().layer(layer.clone())).await;
    let header = format!("x-customer-id: {}", "x".repeat(300));
    assert_eq!(ask_with(address, "GET / HTTP/1.1", &[&header]).await.1, "served");
    assert_eq!(layer.stats().refused, 1);
    stage.none().await;
}

#[tokio::test]
async fn missing_customers_are_told_of_once_or_each() {
    let log = Log::default();
    let _listening = log.listen();
    let stage = Stage::new().await;
    let layer = MeterLayer::new(stage.ingestion.clone());
    serves(&layer, 4).await;
    assert_eq!(log.lines_with("nothing names the customer"), 1);
    serves(&layer.on_missing_customer(OnMissingCustomer::Error), 4).await;
    assert_eq!(log.lines_with("ERROR"), 4);
}

#[tokio::test]
async fn a_name_that_cannot_be_is_told_of_at_once() {
    let log = Log::default();
    let _listening = log.listen();
    let stage = Stage::new().await;
    let layer = MeterLayer::new(stage.ingestion.clone()).customer_header("no header");
    assert_eq!(log.lines_with("no header has such a name"), 1);
    layer.event_name("").error_event_name(Some(&"n".repeat(256)));
    assert_eq!(log.lines_with("an event's name has 1 to 255 characters"), 2);
}
