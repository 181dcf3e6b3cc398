//! The server over its connections.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod abuse;
mod dev;
mod faults;
mod ingest;
mod reading;
mod running;
mod support;
mod unpublished;
mod usage;
mod view;
