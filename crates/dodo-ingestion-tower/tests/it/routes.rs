//! The endpoint of an event is the template of the route that took the request, wherever the layer is.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::routing::{any, get, post};
use dodo_ingestion_tower::Metering;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{CUSTOMER, Stage, ask, ask_with, begin, serve};

async fn id(Path(id): Path<String>) -> String {
    id
}

fn users() -> Router {
    Router::new()
        .route("/users/{id}", get(id))
        .route("/users/{id}/orders/{order}", get(async || ""))
}

#[track_caller]
fn endpoints(paths: &[(&str, Value)], news: &[Value]) {
    let seen: Vec<_> = news.iter().map(|event| event["metadata"]["endpoint"].clone()).collect();
    let expected: Vec<_> = paths.iter().map(|(_, endpoint)| endpoint.clone()).collect();
    assert_eq!(seen, expected);
}

async fn metered(stage: &Stage, router: Router, paths: &[(&str, Value)]) {
    let address = serve(router).await;
    for (path, _) in paths {
        ask(address, &format!("GET {path}")).await;
    }
    endpoints(paths, &stage.news().await);
}

#[tokio::test]
async fn an_empty_template_says_nothing() {
    let stage = Stage::new().await;
    let layer = stage.layer().endpoint(|request| {
        let template = request.headers.get("x-template")?;
        Some(template.to_str().ok()?.to_owned())
    });
    let router = Router::new()
        .route("/users/{id}", get(id))
        .route("/told", get(async |metering: Metering| metering.set_endpoint("")))
        .layer(layer);
    let address = serve(router).await;
    for (path, endpoint, name) in [
        ("/users/7", json!("/users/{id}"), "api_call"),
        ("/told", json!("/told"), "api_call"),
        ("/nowhere", Value::Null, "api_error"),
    ] {
        let headers = [CUSTOMER, "x-template:"];
        ask_with(address, &format!("GET {path} HTTP/1.1"), &headers).await;
        let event = stage.one().await;
        assert_eq!((event.get("endpoint"), event.name()), (&endpoint, name), "{path}");
    }
}

#[tokio::test]
async fn a_path_is_excluded_where_there_is_no_template_in_the_end() {
    let stage = Stage::new().await;
    let layer = stage.layer().exclude(["/v1/users/me", "/told", "/nowhere"]);
    let told = async |metering: Metering, request: Request| {
        if request.uri().path() == "/told" {
            metering.set_endpoint("/{rest}");
        }
    };
    // The outer layer sees no template when the request comes in.
    let inner = Router::new().nest("/v1", users()).fallback(told).layer(layer.clone());
    let router = Router::new().fallback_service(inner).layer(layer);
    let paths = [("/v1/users/me", json!("/v1/users/{id}")), ("/told", json!("/{rest}"))];
    let address = serve(router).await;
    ask(address, "GET /nowhere").await;
    for (path, _) in &paths {
        ask(address, &format!("GET {path}")).await;
    }
    endpoints(&paths, &stage.news().await);
}

#[tokio::test]
async fn a_404_of_what_takes_the_rest_is_that_of_no_route() {
    let stage = Stage::new().await;
    let answer = async |metering: Metering, request: Request| {
        let path = request.uri().path();
        if path.ends_with("named") {
            metering.set_endpoint("/files/{*path}");
        }
        let is_there = path.ends_with("found");
        if is_there { StatusCode::OK } else { StatusCode::NOT_FOUND }
    };
    let router = Router::new()
        .route("/files/{*path}", any(answer))
        .route("/{*path}", any(answer))
        .layer(stage.layer());
    let address = serve(router).await;
    for (path, name) in [
        ("/a/secret", "api_error"),
        ("/files/a", "api_error"),
        ("/files/named", "api_call"),
        ("/found", "api_call"),
    ] {
        ask(address, &format!("GET {path}")).await;
        assert_eq!(stage.one().await.name(), name, "{path}");
    }
}

#[tokio::test]
async fn a_layer_after_all_routes_sees_whole_templates() {
    let stage = Stage::new().await;
    let router = Router::new()
        .route("/", get(async || ""))
        .route("/files/{*path}", get(async || ""))
        .merge(users())
        .nest("/v1", users())
        .nest("/v2", Router::new().nest("/{tenant}", users()))
        .nest("/v3", users().fallback(async || "here"))
        .fallback(async || (StatusCode::NOT_FOUND, "nowhere"))
        .layer(stage.layer());
    let paths = [
        ("/", json!("/")),
        ("/files/a/b?secret=1", json!("/files/{*path}")),
        ("/users/7?secret=1", json!("/users/{id}")),
        ("/v1/users/7", json!("/v1/users/{id}")),
        ("/v2/acme/users/7/orders/9", json!("/v2/{tenant}/users/{id}/orders/{order}")),
        ("/v3/nothing", Value::Null),
        ("/secret/path", Value::Null),
    ];
    metered(&stage, router, &paths).await;
}

#[tokio::test]
async fn a_layer_in_a_nested_router_sees_whole_templates() {
    let stage = Stage::new().await;
    let router = Router::new().nest("/v1", users().layer(stage.layer()));
    let paths = [("/v1/users/7", json!("/v1/users/{id}"))];
    metered(&stage, router, &paths).await;

    let router = Router::new().nest("/v1", users().route_layer(stage.layer()));
    metered(&stage, router, &paths).await;
}

#[tokio::test]
async fn an_inner_layer_tells_the_outer_one_the_template() {
    let stage = Stage::new().await;
    let deep = Router::new().nest_service("/deep", users().layer(stage.layer()));
    let inner = Router::new().nest("/v1", users()).nest("/v2", deep).layer(stage.layer());
    let router = Router::new().nest_service("/api", inner).layer(stage.layer());
    let paths = [
        ("/api/v1/users/7", json!("/api/v1/users/{id}")),
        ("/api/v2/deep/users/7", json!("/api/v2/deep/users/{id}")),
        ("/api/nothing", Value::Null),
    ];
    metered(&stage, router, &paths).await;

    // Around the whole router, where axum has not yet looked for a route.
    let whole = stage.layer().layer(users().layer(stage.layer()));
    let router = Router::new().fallback_service(whole);
    metered(&stage, router, &[("/users/7", json!("/users/{id}"))]).await;
}

#[tokio::test]
async fn without_an_inner_layer_a_nested_service_has_no_template() {
    let stage = Stage::new().await;
    let router = Router::new().nest_service("/api", users()).layer(stage.layer());
    metered(&stage, router, &[("/api/users/7", Value::Null)]).await;
}

#[tokio::test]
async fn no_route_is_an_error_and_another_method_is_billed() {
    let stage = Stage::new().await;
    let router = users().route("/orders", post(async || "")).layer(stage.layer());
    let address = serve(router).await;
    assert!(ask(address, "GET /.env").await.0.contains("404"));
    stage.one().await.is("api_error", &[("status_code", 404.into()), ("endpoint", Value::Null)]);
    assert!(ask(address, "GET /orders").await.0.contains("405"));
    stage
        .one()
        .await
        .is("api_call", &[("status_code", 405.into()), ("endpoint", "/orders".into())]);

    let router = users().route_layer(stage.layer());
    ask(serve(router).await, "GET /.env").await;
    stage.none().await;
}

#[tokio::test]
async fn what_is_excluded_is_not_metered() {
    let stage = Stage::new().await;
    let layer = stage.layer().exclude(["/healthz", "/internal/*", "/users/{id}"]);
    let inner = Router::new().route("/metrics", get(async || "")).layer(layer.clone());
    let router = users()
        .route("/internal/{what}", get(async || ""))
        .nest_service("/internal/nested", inner)
        .fallback(async || "")
        .layer(layer);
    let address = serve(router).await;
    for path in ["/healthz", "/internal/jobs", "/internal/nested/metrics", "/users/7"] {
        ask(address, &format!("GET {path}")).await;
        stage.none().await;
    }
    ask(address, "GET /users/7/orders/1").await;
    stage.one().await.is("api_call", &[("endpoint", "/users/{id}/orders/{order}".into())]);
    for path in ["/healthz2", "/internal/../users/7", "/internal/%2e%2e/users/7"] {
        ask(address, &format!("GET {path}")).await;
        stage.one().await.is("api_call", &[("endpoint", Value::Null)]);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_said_wins_and_is_cut() {
    let stage = Stage::new().await;
    let proxy =
        async |metering: dodo_ingestion_tower::Metering| metering.set_endpoint("ü".repeat(600));
    let router = Router::new().route("/said", get(proxy)).route("/told", get(async || ""));
    let router = router.layer(
        stage
            .layer()
            .endpoint(|request| (request.uri.path() == "/told").then(|| "/by/closure".to_owned())),
    );
    let address = serve(router).await;
    ask(address, "GET /said").await;
    stage.one().await.is("api_call", &[("endpoint", "ü".repeat(500).into())]);
    ask(address, "GET /told").await;
    stage.one().await.is("api_call", &[("endpoint", "/by/closure".into())]);
}

#[tokio::test]
async fn a_client_that_says_that_it_speaks_grpc_changes_no_template() {
    let stage = Stage::new().await;
    let router = users().layer(stage.layer().exclude(["/users/{id}/orders/{order}"]));
    let address = serve(router).await;
    let headers = [CUSTOMER, "content-type: application/grpc"];
    for path in ["/users/alice", "/users/alice/orders/9", "/made/up"] {
        ask_with(address, &format!("GET {path} HTTP/1.1"), &headers).await;
    }
    let news = stage.news().await;
    let seen = news.iter().map(|event| (&event["event_name"], &event["metadata"]["endpoint"]));
    assert!(
        seen.eq(
            [(&json!("api_call"), &json!("/users/{id}")), (&json!("api_error"), &Value::Null),]
        )
    );
}

#[tokio::test]
async fn the_option_for_templates_wins_over_a_layer_further_in() {
    let stage = Stage::new().await;
    let layer = stage.layer().endpoint(|_| Some("/by/option".to_owned()));
    let inner = users().layer(layer.clone());
    let router = Router::new().nest_service("/v1", inner).layer(layer);
    metered(&stage, router, &[("/v1/users/7", json!("/by/option"))]).await;
}

#[tokio::test]
async fn a_method_is_excluded_also_if_its_client_leaves_before_the_response() {
    let stage = Stage::new().await;
    let begun = Arc::new(Notify::new());
    let entered = begun.clone();
    let never = async move || {
        entered.notify_one();
        std::future::pending::<()>().await;
    };
    let router = Router::new()
        .route("/pkg.Service/{method}", post(never))
        .layer(stage.layer().exclude(["/pkg.Service/Out"]));
    let address = serve(router).await;
    for method in ["Out", "In"] {
        let line = format!("POST /pkg.Service/{method} HTTP/1.1");
        let headers = [CUSTOMER, "content-type: application/grpc", "content-length: 0"];
        let stream = begin(address, &line, &headers).await;
        begun.notified().await;
        drop(stream);
    }
    let event = stage.one().await;
    event.is("api_error", &[("endpoint", json!("/pkg.Service/{method}"))]);
    stage.none().await;
}

#[tokio::test]
async fn a_router_that_a_handler_calls_has_templates_of_its_own() {
    let stage = Stage::new().await;
    // As axum's documentation routes by host.
    let inner = users().route("/", get(async || "")).layer(stage.layer());
    let call = async |inner: Router, request: Request| inner.oneshot(request).await;
    let (root, rest) = (inner.clone(), inner);
    let router = Router::new()
        .route("/", any(async move |request: Request| call(root, request).await))
        .route("/{*path}", any(async move |request: Request| call(rest, request).await));
    let paths = [("/", json!("/")), ("/users/7/orders/1", json!("/users/{id}/orders/{order}"))];
    metered(&stage, router.clone(), &paths).await;
    metered(&stage, router.layer(stage.layer()), &paths).await;
}

#[tokio::test]
async fn the_root_of_a_nested_service_is_one_endpoint() {
    let stage = Stage::new().await;
    let inner = Router::new().route("/", get(async || "")).layer(stage.layer());
    let router = Router::new().nest_service("/v1", inner).layer(stage.layer());
    metered(&stage, router, &[("/v1", json!("/v1/")), ("/v1/", json!("/v1/"))]).await;
}
