//! gRPC over tonic: the method is the endpoint, and the code decides what is billed.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use crate::support::Stage;

async fn serving(stage: &Stage) -> (SocketAddr, HealthReporter) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(stage.layer()).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, reporter)
}

async fn client(address: SocketAddr) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

fn of(service: &str) -> tonic::Request<HealthCheckRequest> {
    let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    request.metadata_mut().insert("x-customer-id", "cus_1".parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_is_judged_by_the_code_in_its_trailers_or_its_head() {
    let stage = Stage::new().await;
    let (address, _reporter) = serving(&stage).await;
    let mut client = client(address).await;

    client.check(of("")).await.unwrap();
    let event = stage.one().await;
    event.is(
        "api_call",
        &[
            ("endpoint", "/grpc.health.v1.Health/Check".into()),
            ("method", "POST".into()),
            ("status_code", 200.into()),
            ("grpc_status", 0.into()),
            ("aborted", Value::Null),
        ],
    );
    assert!(event.get("response_bytes").as_u64().unwrap() > 0, "{event:?}");

    // Without a message the code comes in the head, and there are no trailers.
    assert_eq!(client.check(of("unknown")).await.unwrap_err().code(), Code::NotFound);
    stage.one().await.is(
        "api_call",
        &[
            ("endpoint", "/grpc.health.v1.Health/Check".into()),
            ("status_code", 404.into()),
            ("grpc_status", 5.into()),
            ("aborted", Value::Null),
        ],
    );
}

#[tokio::test]
async fn the_method_is_the_endpoint_also_where_a_router_knows_the_service() {
    let stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, service) = tonic_health::server::health_reporter();
    let router = Routes::new(service).prepare().into_axum_router().layer(stage.layer());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    client(address).await.check(of("")).await.unwrap();
    let method = "/grpc.health.v1.Health/Check";
    stage.one().await.is("api_call", &[("endpoint", method.into()), ("grpc_status", 0.into())]);
}

#[tokio::test]
async fn a_stream_is_one_event_at_its_end() {
    let stage = Stage::new().await;
    let (address, _reporter) = serving(&stage).await;
    let mut client = client(address).await;
    let mut stream = client.watch(of("")).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    stage.none().await;
    drop(stream);
    stage.one().await.is(
        "api_call",
        &[
            ("endpoint", "/grpc.health.v1.Health/Watch".into()),
            ("status_code", 200.into()),
            ("grpc_status", Value::Null),
            ("aborted", true.into()),
        ],
    );
}

#[tokio::test]
async fn a_method_that_is_not_there_is_an_error_and_not_named() {
    let stage = Stage::new().await;
    let (address, _reporter) = serving(&stage).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Body>();
    for path in ["/made.up/Method", "/grpc.health.v1.Health/MadeUp", "/a/secret/path"] {
        let request = Request::post(format!("http://{address}{path}"))
            .header("content-type", "application/grpc")
            .header("x-customer-id", "cus_1")
            .body(Body::empty())
            .unwrap();
        client.request(request).await.unwrap().into_body().collect().await.unwrap();
        stage.one().await.is(
            "api_error",
            &[("endpoint", Value::Null), ("status_code", 501.into()), ("grpc_status", 12.into())],
        );
    }
}
