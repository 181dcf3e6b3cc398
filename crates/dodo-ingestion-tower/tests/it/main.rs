//! The middleware around services of every kind, against a local meter.
#![cfg(feature = "axum")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod customers;
mod failing;
mod gateway;
mod grpc;
mod hyper;
mod responses;
mod routes;
mod support;
mod vectors;
