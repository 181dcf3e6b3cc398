//! What a fuzzer calls: each target takes any bytes, hands what they say to a part of the core that
//! reads what others wrote, and panics when a promise does not hold. The same functions run under
//! cargo-fuzz (`fuzz/` in the repository) and, over the committed seeds, in the unit tests.
//!
//! An input is text where that can be, so that a seed can be read and written by hand. Where any
//! text is to be given, fields are separated by the byte 0xff, which UTF-8 never holds.
#![allow(clippy::unwrap_used, reason = "a target fails by panicking")]

mod answer;
mod config;
mod event;
mod retry_after;
mod spool;
#[cfg(test)]
mod tests;

pub use answer::answer;
pub use config::config;
pub use event::event;
pub use retry_after::retry_after;
pub use spool::spool;

/// The separator of an input's fields.
const FIELD: u8 = 0xff;

/// The fields of an input, as text.
fn fields(input: &[u8]) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
    input.split(|byte| *byte == FIELD).map(String::from_utf8_lossy)
}
