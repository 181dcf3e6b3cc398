//! Wakes the engine, and only when it would otherwise sleep too long.
//!
//! # Invariants
//!
//! * A record that is appended while the engine looks, or goes to sleep, or sleeps, is looked at when
//!   it is due at the latest.
//! * Records that are due later than the engine looks again by itself never wake it.

use super::sync::{AtomicU64, Notify, Ordering};
use crate::clock::MonoMs;
use crate::process;

/// See the module.
#[derive(Debug)]
pub(crate) struct Wake {
    notify: Notify,
    /// When the engine means to wake by itself; [`AWAKE`] while it looks, or was told to.
    asleep_until: AtomicU64,
    /// The earliest due time of what was appended since the engine began to look.
    earliest: AtomicU64,
}

/// It goes to sleep with an eye on [`Wake::earliest`].
const AWAKE: MonoMs = MonoMs::MAX;

impl Default for Wake {
    fn default() -> Self {
        Self {
            notify: Notify::default(),
            asleep_until: AtomicU64::new(AWAKE),
            earliest: AtomicU64::new(MonoMs::MAX),
        }
    }
}

impl Wake {
    /// The engine is woken through a descriptor. If that was closed, it finds out by itself.
    pub(crate) fn now(&self) {
        if process::descriptors_are_intact() {
            self.notify.notify_one();
        }
    }

    /// To be called when a record was appended.
    pub(crate) fn appended(&self, due: MonoMs) {
        // Before it is looked whether the engine sleeps, as that looks here after it has said so: one
        // of the two sees the other.
        self.earliest.fetch_min(due, Ordering::SeqCst);
        let asleep_until = self.asleep_until.load(Ordering::SeqCst);
        if asleep_until != AWAKE && due < asleep_until {
            // The first of several wakes it for all, and says so before: it will look after that.
            self.asleep_until.store(AWAKE, Ordering::SeqCst);
            self.now();
        }
    }

    /// To be called before the engine looks at what was appended.
    pub(crate) fn awake(&self) {
        self.asleep_until.store(AWAKE, Ordering::SeqCst);
        self.earliest.store(MonoMs::MAX, Ordering::SeqCst);
    }

    /// Says that the engine goes to sleep, and returns until when it may.
    pub(crate) fn asleep_until(&self, at: MonoMs) -> MonoMs {
        self.asleep_until.store(at, Ordering::SeqCst);
        at.min(self.earliest.load(Ordering::SeqCst))
    }

    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}
