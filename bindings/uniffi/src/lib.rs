//! The library that the Kotlin and Swift packages load.
//!
//! Every function converts its arguments, calls the core and converts the answer. What an option
//! is called, what it defaults to, what is valid and what is retried is the core's business; this
//! crate must not know. What users see is written by hand in each language, on top of the sources
//! that `uniffi-bindgen` writes for these types.

pub mod client;
pub mod convert;
pub mod error;

uniffi::setup_scaffolding!();
