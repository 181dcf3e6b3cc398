//! One line meters an [axum], [hyper] or [tonic] service: every call becomes a billing event of
//! [`dodo_ingestion`], with its customer, route, status, latency and size. Whatever goes wrong in the metering,
//! the response is served.
//!
//! ```no_run
//! # #[cfg(feature = "axum")] mod with_axum {
//! use axum::{Router, routing::get};
//! use dodo_ingestion::Ingestion;
//! use dodo_ingestion_tower::MeterLayer;
//!
//! fn metered(ingestion: Ingestion) -> Router {
//!     Router::new()
//!         .route("/v1/users/{id}", get(async || "a user"))
//!         .layer(MeterLayer::new(ingestion).customer_header("x-customer-id"))
//! }
//! # }
//! ```
//!
//! With tonic:
//!
//! ```no_run
//! # use dodo_ingestion_tower::MeterLayer;
//! # async fn serve(ingestion: dodo_ingestion::Ingestion) -> Result<(), tonic::transport::Error> {
//! # let (_, service) = tonic_health::server::health_reporter();
//! tonic::transport::Server::builder()
//!     .layer(MeterLayer::new(ingestion).customer_header("x-customer-id"))
//!     .add_service(service)
//! #   .serve(([127, 0, 0, 1], 50051).into()).await
//! # }
//! ```
//!
//! With hyper alone, where nobody but you knows the routes:
//!
//! ```no_run
//! # use std::convert::Infallible;
//! # use dodo_ingestion_tower::MeterLayer;
//! # use http_body_util::Full;
//! # use hyper::{Request, Response, body::{Bytes, Incoming}};
//! # async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
//! #     Ok(Response::new(Full::default()))
//! # }
//! # async fn serve(ingestion: dodo_ingestion::Ingestion, stream: tokio::net::TcpStream) -> hyper::Result<()> {
//! use hyper_util::{rt::TokioIo, service::TowerToHyperService};
//! use tower::{ServiceBuilder, service_fn};
//!
//! let meter = MeterLayer::new(ingestion)
//!     .customer_header("x-customer-id")
//!     .endpoint(|request| request.uri.path().starts_with("/v1/users/").then(|| "/v1/users/{id}".into()));
//! let service = ServiceBuilder::new().layer(meter).service(service_fn(answer));
//! hyper::server::conn::http1::Builder::new()
//!     .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
//! #   .await
//! # }
//! ```
//!
//! # Whose call it is
//!
//! The first of these that names a customer wins: [`Metering::set_customer`], called before the response ends;
//! [`MeterLayer::customer`], a closure that is asked when it ends; [`MeterLayer::customer_extension`];
//! [`MeterLayer::customer_header`]. A call without a customer produces no event, unless
//! [`MeterLayer::on_missing_customer`] says otherwise.
//!
//! ```no_run
//! # #[cfg(feature = "axum")] mod with_axum {
//! # use axum::{extract::Request, middleware::Next, response::Response};
//! use dodo_ingestion_tower::Metering;
//!
//! // In the authentication, a layer further in:
//! async fn authenticate(metering: Metering, request: Request, next: Next) -> Response {
//! #   let customer_of = |_: &Request| "cus_1";
//!     metering.set_customer(customer_of(&request));
//!     next.run(request).await
//! }
//!
//! // In a handler:
//! async fn convert(metering: Metering) -> &'static str {
//!     metering.set_units(12.0); // pages
//!     "done"
//! }
//! # }
//! ```
//!
//! # What is billed
//!
//! | the call | its event |
//! |---|---|
//! | a status below 500, except 401, 403, 429 and a 404 that matched no route, or only one that takes whatever is left, as `/files/{*path}` does | the client's event name, or [`MeterLayer::event_name`]: billed |
//! | any other status; a handler that panics or a service that gives an error (500); a client that leaves before there is a status | `api_error`, or [`MeterLayer::error_event_name`]: stored, and no meter should count it |
//! | `OPTIONS`; what is excluded or skipped; no customer | none |
//!
//! The status of the head decides, even if the response then never ends because the client leaves or the body fails. A
//! gRPC call is judged by its code: `status_code` is the HTTP status that says the same (`NOT_FOUND` is 404,
//! `UNIMPLEMENTED` 501).
//!
//! An event has these metadata keys, of [`dodo_ingestion::keys`]:
//!
//! | key | |
//! |---|---|
//! | `endpoint` | the route's template, such as `/v1/users/{id}` or `/package.Service/Method`; never a path that a client made up. Absent where no route is known |
//! | `method` | the HTTP method |
//! | `status_code` | absent if the client left before there was one |
//! | `response_time_ms` | from the request's head to the last byte of the response |
//! | `ttfb_ms` | to the first byte of the body, or to the head if there is no body |
//! | `response_bytes` | the bytes of the body, as they pass the layer |
//! | `aborted` | true if the response never ended |
//! | `units` | as [`Metering::set_units`] or [`MeterLayer::units`] says |
//! | `grpc_status` | the code of a gRPC call, 0 to 16 |
//!
//! An upgrade of the connection (a WebSocket) is one event, at the handshake: nothing further passes the layer. No request
//! body and no query string is read. A value that the layer makes is cut to 500 characters, never refused.
//!
//! The call is accepted before the end of the response is handed to the server: whoever has the whole answer has a call
//! that survives the death of this process.
//!
//! # Where to put the layer
//!
//! Outermost, or nearly so: what an outer layer answers by itself is not metered, and what it does to a body (compressing
//! it) is not counted. Two layers do not count twice: the outer one meters, the inner one lets the call pass.
//!
//! With axum, [`Router::layer`] after all routes, `nest` and `merge` included, sees the whole template. It
//! sees none where the route is found further in: behind `nest_service`, or if the layer is wrapped around the whole
//! router. There, give the inner router a clone of the layer too. It does not meter again, and tells the outer one the template:
//!
//! ```no_run
//! # #[cfg(feature = "axum")] mod with_axum {
//! # use axum::{Router, routing::get};
//! # use dodo_ingestion_tower::MeterLayer;
//! # fn metered(meter: MeterLayer) -> Router {
//! let inner = Router::new().route("/users/{id}", get(async || "a user")).layer(meter.clone());
//! Router::new().nest_service("/v1", inner).layer(meter) // `/v1/users/{id}`
//! # }
//! # }
//! ```
//!
//! To axum, where a service is nested is a route itself: a call of `/v1` above is a 404 that is billed, as the inner router
//! has no route for `/`.
//!
//! [`Router::route_layer`] meters what a route takes and nothing else.
//! With `tonic-web`, put the layer inside of its own: the code of gRPC-web is in the body.
//!
//! # When the metering fails
//!
//! The response is served. A closed client, a full spool, a closure that panics: each is counted in [`MeterLayer::stats`], and told by
//! `tracing` at most once a minute. Accepting a call is a write of microseconds on the runtime's thread; with
//! `durability = "disk"` it is a sync of the disk.
//!
//! # Features
//!
//! `axum` (default): route templates of the routers of axum 0.8, and [`Metering`] as an extractor. Other versions of axum are
//! metered like any tower service, and their templates are found by an option:
//!
//! ```
//! # #[cfg(feature = "axum")] mod with_axum {
//! use axum::extract::MatchedPath; // of that version
//! # fn with(layer: dodo_ingestion_tower::MeterLayer) -> dodo_ingestion_tower::MeterLayer {
//! layer.endpoint(|request| Some(request.extensions.get::<MatchedPath>()?.as_str().to_owned()))
//! # }
//! # }
//! ```
//!
//! [`Router::layer`]: https://docs.rs/axum/0.8/axum/struct.Router.html#method.layer
//! [`Router::route_layer`]: https://docs.rs/axum/0.8/axum/struct.Router.html#method.route_layer
//! [axum]: https://docs.rs/axum
//! [hyper]: https://docs.rs/hyper
//! [tonic]: https://docs.rs/tonic

mod body;
mod call;
mod exchange;
mod grpc;
mod layer;
mod metadata;
mod meter;
mod metering;
mod notice;
mod route;
mod service;

pub use body::MeteredBody;
pub use exchange::Exchange;
pub use layer::MeterLayer;
pub use meter::{MeterStats, OnMissingCustomer};
pub use metering::Metering;
pub use service::{MeterService, MeteredFuture};

/// The README's Rust is compiled.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
