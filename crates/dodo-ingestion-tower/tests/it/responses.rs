//! A call ends with its response: whole, cut short, or never begun.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::WebSocketUpgrade;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::Response;
use axum::routing::{any, get};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, layer::layer_fn};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{CUSTOMER, PATIENCE, Stage, ask, begin, read_until, serve};

/// Two pieces of three bytes, with a pause before each.
fn pieces() -> Body {
    Body::from_stream(async_stream::stream! {
        for piece in ["abc", "def"] {
            sleep(Duration::from_millis(30)).await;
            yield Ok::<_, Infallible>(Bytes::from(piece));
        }
    })
}

async fn asked(
    stage: &Stage,
    router: Router,
    request: &str,
) -> (crate::support::Event, String, String) {
    let (head, body) = ask(serve(router.layer(stage.layer())).await, request).await;
    (stage.one().await, head, body)
}

#[tokio::test]
async fn a_streamed_response_is_timed_to_its_first_byte_and_to_its_end() {
    let stage = Stage::new().await;
    let router = Router::new().route("/", get(async || pieces()));
    let (event, head, body) = asked(&stage, router, "GET /").await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(body.contains("abc") && body.contains("def"), "{body}");
    event.is("api_call", &[("response_bytes", 6.into()), ("aborted", Value::Null)]);
    assert!(event.time("ttfb_ms") >= 29.0, "{event:?}");
    assert!(event.time("response_time_ms") >= event.time("ttfb_ms") + 29.0, "{event:?}");
}

#[tokio::test]
async fn a_body_whose_length_is_declared_is_whole_when_so_much_was_sent() {
    let stage = Stage::new().await;
    // The server asks for no more once it has what was declared: the body's own end is never seen.
    let forever = || {
        Body::from_stream(async_stream::stream! {
            yield Ok::<_, Infallible>(Bytes::from("abcdef"));
            pending::<()>().await;
        })
    };
    let router =
        Router::new().route("/", get(async move || ([(header::CONTENT_LENGTH, "6")], forever())));
    let (event, head, body) = asked(&stage, router, "GET /").await;
    assert!(head.contains("content-length: 6") && body == "abcdef", "{head} {body}");
    event.is("api_call", &[("response_bytes", 6.into()), ("aborted", Value::Null)]);
}

#[tokio::test]
async fn a_body_that_is_shorter_than_its_length_is_aborted() {
    let stage = Stage::new().await;
    let short = || async_stream::stream! { yield Ok::<_, Infallible>(Bytes::from("abc")) };
    let short = async move || ([(header::CONTENT_LENGTH, "6")], Body::from_stream(short()));
    let router = Router::new().route("/", get(short)).layer(stage.layer());
    ask(serve(router).await, "GET /").await;
    let event = stage.one().await;
    event.is("api_call", &[("response_bytes", 3.into()), ("aborted", true.into())]);
}

#[tokio::test]
async fn a_length_that_was_known_stays_known() {
    let stage = Stage::new().await;
    let router = Router::new().route("/", get(async || "abc"));
    let (event, head, body) = asked(&stage, router, "GET /").await;
    assert!(head.contains("content-length: 3") && body == "abc", "{head} {body}");
    event.is("api_call", &[("response_bytes", 3.into()), ("status_code", 200.into())]);
    assert!(event.time("ttfb_ms") <= event.time("response_time_ms"), "{event:?}");
}

#[tokio::test]
async fn a_response_without_a_body_ends_with_its_head() {
    let stage = Stage::new().await;
    let router = Router::new()
        .route("/empty", get(async || ()))
        .route("/204", get(async || (StatusCode::NO_CONTENT, "not sent")))
        .route("/304", get(async || (StatusCode::NOT_MODIFIED, "not sent")))
        .route("/stream", get(async || pieces()))
        .route("/none", get(async || ([(header::CONTENT_LENGTH, "0")], pieces())))
        .layer(stage.layer());
    let address = serve(router).await;
    for (request, status) in [
        ("GET /empty", 200),
        ("GET /204", 204),
        ("GET /304", 304),
        ("HEAD /stream", 200),
        ("HEAD /empty", 200),
        ("GET /none", 200),
    ] {
        let (_, body) = ask(address, request).await;
        assert_eq!(body, "", "{request}");
        let event = stage.one().await;
        event.is(
            "api_call",
            &[
                ("status_code", status.into()),
                ("response_bytes", 0.into()),
                ("aborted", Value::Null),
            ],
        );
        assert!(event.time("ttfb_ms") <= event.time("response_time_ms"), "{event:?}");
    }
}

#[tokio::test]
async fn trailers_end_a_response() {
    let stage = Stage::new().await;
    let body = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "7".parse().unwrap());
        let frames = async_stream::stream! {
            yield Ok::<_, Infallible>(Frame::data(Bytes::from("abc")));
            yield Ok(Frame::trailers(trailers));
            pending::<()>().await;
        };
        ([(header::TRAILER, "x-checksum")], Body::new(StreamBody::new(frames)))
    };
    let router = Router::new().route("/", get(async move || body())).layer(stage.layer());
    let address = serve(router).await;
    let headers = [CUSTOMER, "te: trailers"];
    let (_, body) = crate::support::ask_with(address, "GET / HTTP/1.1", &headers).await;
    assert!(body.contains("x-checksum: 7"), "{body}");
    stage.one().await.is("api_call", &[("response_bytes", 3.into()), ("aborted", Value::Null)]);
}

#[tokio::test]
async fn a_body_that_fails_is_aborted_and_has_the_status_of_its_head() {
    let stage = Stage::new().await;
    let failing = || {
        Body::from_stream(async_stream::stream! {
            yield Ok(Bytes::from("abc"));
            sleep(Duration::from_millis(20)).await;
            yield Err(io::Error::other("the disk is gone"));
        })
    };
    let router = Router::new().route("/", get(async move || failing()));
    let (event, ..) = asked(&stage, router, "GET /").await;
    let pairs =
        [("aborted", true.into()), ("status_code", 200.into()), ("response_bytes", 3.into())];
    event.is("api_call", &pairs);
}

#[tokio::test]
async fn a_client_that_hangs_up_aborts_the_call() {
    static BEGUN: Notify = Notify::const_new();
    let stage = Stage::new().await;
    let never = async || {
        BEGUN.notify_one();
        pending::<()>().await;
    };
    let endless = async || {
        Body::from_stream(async_stream::stream! {
            loop {
                yield Ok::<_, Infallible>(Bytes::from("abc"));
                sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let router = Router::new()
        .route("/endless", get(endless))
        .route("/never", get(never))
        .layer(stage.layer());
    let address = serve(router).await;

    let mut stream = begin(address, "GET /endless HTTP/1.1", &[CUSTOMER]).await;
    read_until(&mut stream, "abc").await;
    drop(stream);
    let event = stage.one().await;
    event.is("api_call", &[("aborted", true.into()), ("status_code", 200.into())]);
    assert!(event.get("response_bytes").as_u64().unwrap() >= 3, "{event:?}");

    let stream = begin(address, "GET /never HTTP/1.1", &[CUSTOMER]).await;
    BEGUN.notified().await;
    stage.none().await;
    drop(stream);
    stage.one().await.is(
        "api_error",
        &[
            ("aborted", true.into()),
            ("endpoint", "/never".into()),
            ("status_code", Value::Null),
            ("response_bytes", Value::Null),
            ("ttfb_ms", Value::Null),
        ],
    );
}

#[tokio::test]
async fn a_handler_that_panics_is_an_error_and_the_panic_goes_on() {
    let stage = Stage::new().await;
    let panics = || -> Router {
        Router::new()
            .route("/", get(async || -> () { panic!("a test's own") }))
            .layer(stage.layer())
    };
    let error = [("status_code", 500.into()), ("aborted", Value::Null), ("endpoint", "/".into())];

    let (head, _) = ask(serve(panics()).await, "GET /").await;
    assert_eq!(head, "", "the connection is closed, as without the layer");
    stage.one().await.is("api_error", &error);

    let (head, _) = ask(serve(panics().layer(CatchPanicLayer::new())).await, "GET /").await;
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    stage.one().await.is("api_error", &error);
}

#[tokio::test]
async fn a_websocket_is_one_event_at_its_handshake() {
    let stage = Stage::new().await;
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                socket.send(message).await.unwrap();
            }
        })
    };
    let router = Router::new().route("/ws", any(echo)).layer(stage.layer());
    let headers = [
        CUSTOMER,
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let mut stream = begin(serve(router).await, "GET /ws HTTP/1.1", &headers).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // A masked frame of one letter; it comes back unmasked.
    let (frame, echoed) = (&[0x81, 0x81, 0, 0, 0, 0, b'x'][..], [0x81, 0x01, b'x']);
    tokio::io::AsyncWriteExt::write_all(&mut stream, frame).await.unwrap();
    let mut bytes = [0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut bytes).await.unwrap();
    assert_eq!(bytes, echoed);
    let pairs = [("status_code", 101.into()), ("aborted", Value::Null), ("endpoint", "/ws".into())];
    stage.one().await.is("api_call", &pairs);
    drop(stream);
    sleep(Duration::from_millis(50)).await;
    stage.none().await;
}

#[tokio::test]
async fn a_whole_answer_is_an_accepted_call() {
    let stage = Stage::new().await;
    let router = Router::new()
        .route("/full", get(async || "abc"))
        .route("/stream", get(async || pieces()))
        .route("/empty", get(async || ()))
        .layer(stage.layer());
    let address = serve(router).await;
    for (number, path) in (1..).zip(["/full", "/stream", "/empty"]) {
        // Read only to the answer's own end: the connection stays open.
        let mut stream = begin(address, &format!("GET {path} HTTP/1.1"), &[CUSTOMER]).await;
        let end = match path {
            "/full" => "abc",
            "/stream" => "\r\n0\r\n\r\n",
            _ => "\r\n\r\n",
        };
        read_until(&mut stream, end).await;
        assert_eq!(stage.ingestion.stats().accepted, number, "{path}");
    }
}

/// What a body tells of itself is what the service's own tells.
#[tokio::test]
async fn the_body_hints_as_the_one_inside() {
    use tower::{Layer, ServiceExt, service_fn};
    let stage = Stage::new().await;
    let service = service_fn(async |_: axum::http::Request<()>| {
        Ok::<Response<Full<Bytes>>, Infallible>(Response::new(Full::from("abc")))
    });
    let response =
        stage.layer().layer(service).oneshot(axum::http::Request::new(())).await.unwrap();
    let body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(3));
    assert!(!body.is_end_stream());
    let whole = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
    assert_eq!(whole.to_bytes(), "abc");
}

#[tokio::test]
async fn a_layer_further_out_may_answer_with_a_body_of_its_own() {
    // As those of tower-http that answer a preflight, a timeout or a wrong header do.
    #[derive(Clone)]
    struct Answers<S>(S);
    impl<S, Q, B: Default> Service<Request<Q>> for Answers<S>
    where
        S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    {
        type Response = Response<B>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<B>, Infallible>>;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.0.poll_ready(context)
        }

        fn call(&mut self, _: Request<Q>) -> Self::Future {
            std::future::ready(Ok(Response::new(B::default())))
        }
    }
    let stage = Stage::new().await;
    let layers = ServiceBuilder::new().layer(layer_fn(Answers)).layer(stage.layer());
    let router = Router::new().route("/", get(async || "not sent")).layer(layers);
    assert_eq!(ask(serve(router).await, "GET /").await.1, "");
    stage.none().await;
}
