//! The core under a simulated machine, network and billing API: one seed decides everything that
//! happens in a run, and the same seed makes it happen again.
//!
//! [`NamespaceTask`](crate::engine::NamespaceTask), and with it election, delivery and spool, run unchanged: over a
//! [`Machine`](disk::Machine) instead of the file system, a [`Network`](network::Network) instead of
//! HTTP, and a clock that jumps from one event to the next. Several processes share the machine; they
//! are killed between any two operations of the disk, forked, stopped, and started again, and one has its
//! turn between two operations of another. The
//! [`Oracle`](oracle::Oracle) knows what callers were promised, and holds it against what the
//! [`Server`](server::Server) billed and what lies on the disk.
//!
//! `cargo xtask sim --seeds N --from S` runs any number of seeds; `--seed S` shows what happens in one.

mod calamity;
mod calls;
mod disk;
mod meanwhile;
mod network;
mod oracle;
mod process;
mod receipts;
mod run;
mod scenario;
mod server;
mod world;

use std::collections::BTreeMap;

pub(crate) use disk::Machine;
pub(crate) use world::World;

/// What came of one seed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    /// What happened, if it was asked for.
    pub(crate) trace: Vec<String>,
    pub(crate) events: u64,
    pub(crate) simulated_ms: i64,
    pub(crate) accepted: u64,
    pub(crate) billed: u64,
    pub(crate) requests: u64,
    /// How often each fault came about.
    pub(crate) faults: BTreeMap<&'static str, u64>,
}
