//! The Node addon, loaded by `node/src/load.ts`.
//!
//! Plain functions over opaque handles: a class's method costs twice as much, and an object that is
//! walked from Rust three times as much as its JSON text. What a middleware hands over crosses in one
//! piece of memory, which costs less still. Every function converts its arguments, calls the core and
//! converts the answer. What an option is called, what it defaults to, what is valid and what is
//! retried is the core's business; this crate must not know.
//!
//! There is no runtime here. A wait is a future that is polled on the JavaScript thread, and woken
//! from the core's (`wait`), so it takes no thread from Node's pool.

// Nothing of it runs without its host, and so it has no unit tests; `--lib` builds them all the same.
#![cfg(not(test))]

mod api_call;
mod batch;
mod client;
mod error;
mod wait;
