//! The core under a simulated machine: one seed decides everything that happens in a run.
//!
//! Single-threaded, without a clock, a socket or a file of the real machine.

mod disk;
mod server;
