//! What goes wrong on a simulated disk, short of losing its power.

/// Which faults are on. Probabilities are for each operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskFaults {
    /// Nothing may grow any more; the first append may still get a part of its bytes in.
    pub(crate) no_space: bool,
    /// The bytes of all files together may not become more than this.
    pub(crate) capacity: Option<u64>,
    /// That an operation fails with an input/output error.
    pub(crate) io_errors: f64,
    /// That an append takes a part of its bytes only.
    pub(crate) short_writes: f64,
    /// That a sync fails, and writes that it was for are forgotten: later syncs succeed without them.
    pub(crate) sync_fails: f64,
    /// Nothing can be changed.
    pub(crate) read_only: bool,
    /// Names survive a power loss in the order of their changes, as with the journal of ext4.
    pub(crate) journalled: bool,
}
