//! The library that the Kotlin package loads.
//!
//! Every function converts its arguments, calls the core and converts the answer. What an option
//! is called, what it defaults to, what is valid and what is retried is the core's business; this
//! crate must not know. What users see is written by hand in `kotlin/`, on top of the sources that
//! `uniffi-bindgen` writes for these types.

// Nothing of it runs without its host, and so it has no unit tests; `--lib` builds them all the same.
#![cfg(not(test))]

pub mod client;
pub mod convert;
pub mod error;

uniffi::setup_scaffolding!();
