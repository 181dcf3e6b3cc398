//! What the sender has of one spool.

use std::collections::VecDeque;

use super::{MonoMs, Now, Rejection};
use crate::spool::{Drain, Place};

pub(super) struct Draining {
    pub(super) drain: Drain,
    /// When it was opened.
    pub(super) opened: MonoMs,
    /// There are settled records that the cursor has not passed.
    pub(super) uncommitted: bool,
    /// Where damaged bytes lie that could not be kept yet.
    pub(super) damaged: VecDeque<Place>,
    /// Its cursor was not where others look for it.
    pub(super) misses_its_cursor: bool,
    /// Outcomes that could not be written yet.
    pub(super) unwritten: Vec<Rejection>,
}

impl Draining {
    pub(super) fn new(drain: Drain, now: Now) -> Self {
        let (opened, uncommitted, misses_its_cursor) = (now.mono, false, false);
        let (damaged, unwritten) = (VecDeque::new(), Vec::new());
        Self { drain, opened, uncommitted, damaged, misses_its_cursor, unwritten }
    }

    /// Whether something could not be kept yet. Until it is, the cursor stands: whoever waits for a
    /// record that it passed takes it for billed.
    pub(super) fn owes(&self) -> bool {
        !self.damaged.is_empty() || !self.unwritten.is_empty()
    }

    /// Whether nothing would be lost that is not on the disk.
    pub(super) fn may_go(&self) -> bool {
        !self.owes() && !self.uncommitted
    }
}
