//! Whose call it is, whether it is billed, and what is said of it.

use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use dodo_ingestion::MetadataValue;
use dodo_ingestion_tower::{MeterLayer, Metering, OnMissingCustomer};
use serde_json::{Value, json};

use crate::support::{Stage, ask, ask_with, serve};

#[derive(Clone)]
struct User(&'static str);

#[tokio::test]
async fn the_customer_comes_from_whoever_knows_best() {
    let stage = Stage::new().await;
    let answer_as = async || Extension(User("cus_response"));
    let set = async |metering: Metering| metering.set_customer("cus_set");
    let authenticate = async |mut request: Request, next: Next| -> Response {
        if request.headers().contains_key("x-user") {
            request.extensions_mut().insert(User("cus_request"));
        }
        next.run(request).await
    };
    let layer = stage.layer().customer_extension(|user: &User| Some(user.0.to_owned())).customer(
        |exchange| {
            let header = exchange.request().headers.get("x-closure");
            header.map(|value| match value.as_bytes() {
                b"none" => String::new(),
                _ => format!("cus_closure_{}", exchange.status().unwrap()),
            })
        },
    );
    let router = Router::new()
        .route("/", get(async || ""))
        .route("/response", get(answer_as))
        .route("/set", get(set))
        .layer(layer)
        .layer(from_fn(authenticate));
    let address = serve(router).await;
    for (path, headers, customer) in [
        ("/", &["x-customer-id:  cus_header "][..], "cus_header"),
        ("/", &["x-customer-id: cus_header", "x-user: 1"], "cus_request"),
        ("/response", &["x-user: 1"], "cus_response"),
        ("/response", &["x-user: 1", "x-closure: 1"], "cus_closure_200"),
        ("/response", &["x-user: 1", "x-closure: none"], "cus_response"),
        ("/set", &["x-customer-id: cus_header", "x-user: 1", "x-closure: 1"], "cus_set"),
    ] {
        ask_with(address, &format!("GET {path} HTTP/1.1"), headers).await;
        assert_eq!(stage.one().await.customer(), customer, "{path} {headers:?}");
    }
}

#[tokio::test]
async fn authentication_further_in_says_who_it_is() {
    let stage = Stage::new().await;
    let authenticate = async |metering: Metering, request: Request, next: Next| -> Response {
        metering.set_customer("cus_early");
        let response = next.run(request).await;
        metering.set_customer("cus_late");
        response
    };
    let router = Router::new()
        .route("/", get(async || ""))
        .layer(from_fn(authenticate))
        .layer(MeterLayer::new(stage.ingestion.clone()));
    ask_with(serve(router).await, "GET / HTTP/1.1", &[]).await;
    assert_eq!(stage.one().await.customer(), "cus_late");
}

#[tokio::test]
async fn a_call_of_nobody_is_counted_and_served() {
    let stage = Stage::new().await;
    let routes = || {
        Router::new()
            .route("/", get(async || "served"))
            .route("/denied", get(async || StatusCode::UNAUTHORIZED))
    };
    let layer = MeterLayer::new(stage.ingestion.clone()).customer_header("x-customer-id");
    let address = serve(routes().layer(layer.clone())).await;
    let twice = ["x-customer-id: cus_client", "x-customer-id: cus_gateway"];
    for headers in [
        &[][..],
        &["x-customer-id:"],
        &["x-customer-id: \u{fc}"],
        &twice,
        &["x-customer-id: cus_client, cus_gateway"],
    ] {
        assert_eq!(ask_with(address, "GET / HTTP/1.1", headers).await.1, "served");
    }
    ask_with(address, "GET /denied HTTP/1.1", &[]).await;
    stage.none().await;
    assert_eq!(layer.stats().missing_customer, 5, "401 has no customer, as it should be");

    let anybody = OnMissingCustomer::Default("cus_anybody".into());
    let address = serve(routes().layer(layer.clone().on_missing_customer(anybody))).await;
    ask_with(address, "GET / HTTP/1.1", &[]).await;
    assert_eq!(stage.one().await.customer(), "cus_anybody");

    let layer = layer.on_missing_customer(OnMissingCustomer::Error);
    let address = serve(routes().layer(layer)).await;
    assert_eq!(ask_with(address, "GET / HTTP/1.1", &[]).await.1, "served");
    stage.none().await;
}

#[tokio::test]
async fn statuses_and_names_are_chosen() {
    let stage = Stage::new().await;
    let layer = stage
        .layer()
        .event_name("gateway_call")
        .error_event_name(Some("gateway_error"))
        .bill_status(|status| status < 300 || status == 418);
    let routes = || {
        let answer = async |Path(status): Path<u16>| StatusCode::from_u16(status).unwrap();
        Router::new().route("/{status}", get(answer))
    };
    let address = serve(routes().layer(layer.clone())).await;
    for (status, name) in [(200, "gateway_call"), (404, "gateway_error"), (418, "gateway_call")] {
        ask(address, &format!("GET /{status}")).await;
        stage.one().await.is(name, &[("status_code", status.into())]);
    }
    let address = serve(routes().layer(layer.clone().error_event_name(None))).await;
    ask(address, "GET /500").await;
    stage.none().await;
    assert_eq!((layer.stats().billed, layer.stats().errors), (2, 1));
    // A 404 of no route is never billed.
    let address = serve(routes().layer(layer.bill_status(|_| true))).await;
    ask(address, "GET /no/route").await;
    stage.one().await.is("gateway_error", &[("status_code", 404.into())]);
}

#[tokio::test]
async fn handlers_and_closures_say_more_of_a_call() {
    let stage = Stage::new().await;
    let work = async |metering: Metering| {
        metering.set_units(12.5);
        metering.set_metadata("pages", 12);
        metering.set_metadata("plan", "gold");
        metering.set_metadata("plan", "silver");
        ([("x-cost", "3")], "done")
    };
    let layer = stage
        .layer()
        .metadata(|exchange| {
            let MetadataValue::Integer(cost) = exchange
                .response()
                .and_then(|response| response.headers.get("x-cost")?.to_str().ok()?.parse().ok())
                .map_or(0_i64.into(), |cost: i64| cost.into())
            else {
                return vec![];
            };
            vec![("cost", MetadataValue::Integer(cost)), ("plan", "by closure".into())]
        })
        .units(|_| Some(1.0))
        .skip(|exchange| exchange.request().headers.contains_key("x-test"));
    let router = Router::new()
        .route("/work", get(work))
        .route("/plain", get(async || ""))
        .route("/skipped", get(async |metering: Metering| metering.skip()))
        .layer(layer);
    let address = serve(router).await;
    ask(address, "GET /work").await;
    stage.one().await.is(
        "api_call",
        &[
            ("units", 12.5.into()),
            ("pages", 12.into()),
            ("plan", "silver".into()),
            ("cost", 3.into()),
        ],
    );
    ask(address, "GET /plain").await;
    stage.one().await.is("api_call", &[("units", 1.0.into()), ("plan", "by closure".into())]);
    ask(address, "GET /skipped").await;
    ask_with(address, "GET /plain HTTP/1.1", &[crate::support::CUSTOMER, "x-test: 1"]).await;
    stage.none().await;
}

#[tokio::test]
async fn metadata_that_does_not_fit_does_not_cost_the_call() {
    let stage = Stage::new().await;
    let handler = async |metering: Metering| {
        metering.set_units(f64::NAN);
        metering.set_metadata("status_code", 999);
        metering.set_metadata("long", "é".repeat(600));
        metering.set_metadata("k".repeat(101), 1);
        metering.set_metadata("huge", i128::MAX);
        metering.set_metadata("list", MetadataValue::Unsupported("array".into()));
        for number in 0..60 {
            metering.set_metadata(format!("n{number}"), number);
        }
    };
    let layer = stage.layer();
    let router = Router::new().route("/", get(handler)).layer(layer.clone());
    ask(serve(router).await, "GET /").await;
    let event = stage.one().await;
    event.is(
        "api_call",
        &[
            ("status_code", 200.into()),
            ("long", "é".repeat(500).into()),
            ("units", Value::Null),
            ("n0", 0.into()),
            ("n39", 39.into()),
            ("n40", Value::Null),
        ],
    );
    assert!(event.0["metadata"].as_object().unwrap().len() <= 50);
    assert_eq!(layer.stats().altered, 6 + 20, "{:?}", layer.stats());
}

#[tokio::test]
async fn a_closure_that_panics_is_one_that_says_nothing() {
    let stage = Stage::new().await;
    let routes = || Router::new().route("/{id}", get(async || "served"));
    let layer = stage
        .layer()
        .customer(|_| panic!("a test's own"))
        .customer_extension(|_: &User| panic!("a test's own"))
        .endpoint(|_| panic!("a test's own"))
        .bill_status(|_| panic!("a test's own"))
        .metadata(|_| -> Vec<(String, String)> { panic!("a test's own") })
        .units(|_| panic!("a test's own"))
        .skip(|_| panic!("a test's own"));
    let router = routes().layer(layer.clone()).layer(Extension(User("cus_2")));
    let (head, body) = ask(serve(router).await, "GET /7").await;
    assert!(head.starts_with("HTTP/1.1 200") && body == "served", "{head} {body}");
    let event = stage.one().await;
    assert_eq!(event.customer(), "cus_1", "the next best");
    event.is("api_call", &[("endpoint", json!("/{id}")), ("status_code", 200.into())]);
    assert_eq!(layer.stats().panics, 7, "{:?}", layer.stats());
}

#[tokio::test]
async fn a_handle_without_a_layer_does_nothing() {
    let work = async |metering: Metering| {
        metering.set_customer("cus_1");
        metering.set_units(1.0);
        metering.skip();
        "served"
    };
    let address = serve(Router::new().route("/", get(work))).await;
    assert_eq!(ask(address, "GET /").await.1, "served");
}
