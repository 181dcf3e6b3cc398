//! The shared table of what a middleware makes of a request: each case over a real connection.

use std::convert::Infallible;
use std::future::pending;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Deserialize;

use crate::support::{CUSTOMER, Stage, begin, read_until, serve};

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    method: String,
    status: Option<u16>,
    matched: bool,
    aborted: bool,
    event: String,
}

fn answer(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

/// The fallback answers what the end of the path says.
async fn fallback(request: Request) -> Response {
    answer(request.uri().path().rsplit('/').next().unwrap().parse().unwrap())
}

async fn stream(Path(status): Path<u16>) -> Response {
    let body = Body::from_stream(async_stream::stream! {
        yield Ok::<_, Infallible>(Bytes::from("a piece"));
        pending::<()>().await;
    });
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

#[tokio::test]
async fn the_shared_vectors_hold() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let text = include_str!("../../../../tests/vectors/metering.json");
    let File { cases } = serde_json::from_str(text).unwrap();
    assert!(cases.len() >= 25, "{}", cases.len());
    let stage = Stage::new().await;
    let router = Router::new()
        .route("/answer/{status}", any(async |Path(status)| answer(status)))
        .route("/stream/{status}", any(stream))
        .route("/hang", any(async || pending::<()>().await))
        .fallback(fallback)
        .layer(stage.layer());
    let address = serve(router).await;
    for case in cases {
        let path = match (case.status, case.aborted, case.matched) {
            (None, ..) => "/hang".to_owned(),
            (Some(status), true, _) => format!("/stream/{status}"),
            (Some(status), false, true) => format!("/answer/{status}"),
            (Some(status), false, false) => format!("/nowhere/{status}"),
        };
        let line = format!("{} {path} HTTP/1.1", case.method);
        let mut stream = begin(address, &line, &[CUSTOMER]).await;
        match (case.status, case.aborted) {
            (None, _) => {}
            (_, true) => _ = read_until(&mut stream, "a piece").await,
            (_, false) => _ = read_until(&mut stream, "\r\n\r\n").await,
        }
        drop(stream);
        if case.event == "none" {
            stage.none().await;
            continue;
        }
        let event = stage.one().await;
        let name = if case.event == "billed" { "api_call" } else { "api_error" };
        assert_eq!(event.name(), name, "{}: {event:?}", case.name);
        assert_eq!(event.get("status_code").as_u64(), case.status.map(u64::from), "{case:?}");
        assert_eq!(event.get("aborted").as_bool().unwrap_or(false), case.aborted, "{case:?}");
        assert_eq!(event.get("method"), &*case.method, "{case:?}");
        assert_eq!(event.get("endpoint").is_string(), case.matched, "{case:?}");
    }
}
