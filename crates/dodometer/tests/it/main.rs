//! The program, run as its users run it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[cfg(unix)]
mod abuse;
mod cli;
mod demo;
mod faults;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod support;
