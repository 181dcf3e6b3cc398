//! Without a framework: services on hyper's connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use dodo_ingestion_tower::{MeterLayer, Metering};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceBuilder, service_fn};

use crate::support::{Stage, ask, serve};

type Answer = Response<Full<Bytes>>;

/// Serves as many connections as come, each by a clone, with HTTP/1 or 2.
async fn serve_hyper<S, B, E>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = E> + Clone + Send + 'static,
    S::Future: Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                // An error of the service closes the connection.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn layer(stage: &Stage) -> MeterLayer {
    stage.layer().endpoint(|request| {
        let path = request.uri.path();
        path.starts_with("/users/").then(|| "/users/{id}".to_owned())
    })
}

#[tokio::test]
async fn the_endpoint_is_what_the_closure_or_the_handler_says() {
    let stage = Stage::new().await;
    let service = service_fn(async |request: Request<Incoming>| {
        if request.uri().path() == "/routed/7" {
            Metering::of(request.extensions()).set_endpoint("/routed/{id}");
        }
        Ok::<Answer, Infallible>(Response::new(Full::from("abc")))
    });
    let address = serve_hyper(layer(&stage).layer(service)).await;
    for (path, endpoint) in [
        ("/users/7", "/users/{id}".into()),
        ("/routed/7", "/routed/{id}".into()),
        ("/other", Value::Null),
    ] {
        assert_eq!(ask(address, &format!("GET {path}")).await.1, "abc");
        let pairs = [("endpoint", endpoint), ("response_bytes", 3.into())];
        stage.one().await.is("api_call", &pairs);
    }
}

#[tokio::test]
async fn a_service_that_gives_an_error_is_an_error() {
    let stage = Stage::new().await;
    let service = service_fn(async |_: Request<Incoming>| {
        Err::<Answer, _>(io::Error::other("nobody upstream"))
    });
    let address = serve_hyper(layer(&stage).layer(service)).await;
    assert_eq!(ask(address, "GET /users/7").await.0, "", "the connection is closed, as without");
    stage.one().await.is(
        "api_error",
        &[
            ("status_code", 500.into()),
            ("endpoint", "/users/{id}".into()),
            ("aborted", Value::Null),
            ("response_bytes", Value::Null),
        ],
    );
}

/// A service that panics when it is called before it was ready, as tower allows.
#[derive(Default)]
struct OnlyWhenReady {
    ready: bool,
}

impl Clone for OnlyWhenReady {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<Incoming>> for OnlyWhenReady {
    type Response = Answer;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        std::future::ready(Ok(Response::new(Full::from("ready"))))
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let stage = Stage::new().await;
    let service = ServiceBuilder::new().layer(layer(&stage)).concurrency_limit(1);
    let address = serve_hyper(service.service(OnlyWhenReady::default())).await;
    let asked: Vec<_> =
        (0..5).map(|_| tokio::spawn(async move { ask(address, "GET /users/7").await.1 })).collect();
    for body in asked {
        assert_eq!(body.await.unwrap(), "ready");
    }
    assert_eq!(stage.news().await.len(), 5);
}

#[tokio::test]
async fn http2_is_metered_alike() {
    let stage = Stage::new().await;
    let service = service_fn(async |request: Request<Incoming>| {
        let is_head = request.method() == Method::HEAD;
        let body = if request.uri().path() == "/users/empty" || is_head { "" } else { "abc" };
        let mut response = Response::new(Full::from(body));
        if is_head {
            response.headers_mut().insert(CONTENT_LENGTH, 3.into());
        }
        Ok::<Answer, Infallible>(response)
    });
    let address = serve_hyper(layer(&stage).layer(service)).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (method, path, bytes) in
        [("GET", "/users/7", 3), ("GET", "/users/empty", 0), ("HEAD", "/users/7", 0)]
    {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header("x-customer-id", "cus_1")
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), bytes);
        let pairs = [("response_bytes", bytes.into()), ("aborted", Value::Null)];
        stage.one().await.is("api_call", &pairs);
    }
}

/// A proxy: the answer of another server, passed on as it comes.
#[tokio::test]
async fn a_response_of_another_server_is_passed_on() {
    let stage = Stage::new().await;
    let text = "x".repeat(100_000);
    let upstream = axum::Router::new().fallback(async move || text);
    let upstream = serve(upstream).await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = service_fn(move |mut request: Request<Incoming>| {
        *request.uri_mut() = format!("http://{upstream}{}", request.uri().path()).parse().unwrap();
        client.request(request)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TowerToHyperService::new(layer(&stage).layer(service));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    let (head, body) = ask(address, "GET /users/7").await;
    assert!(head.contains("content-length: 100000") && body.len() == 100_000, "{head}");
    stage
        .one()
        .await
        .is("api_call", &[("response_bytes", 100_000.into()), ("aborted", Value::Null)]);
}
