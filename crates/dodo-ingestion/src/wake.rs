//! Wakes the engine, and only when it would otherwise sleep too long.
//!
//! # Invariants
//!
//! * A record that is appended while the engine looks, or goes to sleep, or sleeps beyond the record's
//!   due time, has the engine look once more.

use super::sync::{AtomicU64, Notify, Ordering};
use crate::clock::MonoMs;
use crate::process;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    notify: Notify,
    /// When the engine means to wake by itself. While it is awake: never, so that a record which it
    /// may just have missed wakes it once more.
    asleep_until: AtomicU64,
}

impl Wake {
    /// The engine is woken through a descriptor. If that was closed, it finds out by itself.
    pub(crate) fn now(&self) {
        if process::descriptors_are_intact() {
            self.notify.notify_one();
        }
    }

    pub(crate) fn if_asleep_at(&self, due: MonoMs) {
        if due < self.asleep_until.load(Ordering::SeqCst) {
            self.now();
        }
    }

    pub(crate) fn awake(&self) {
        self.asleep_until.store(MonoMs::MAX, Ordering::SeqCst);
    }

    pub(crate) fn asleep_until(&self, at: MonoMs) {
        self.asleep_until.store(at, Ordering::SeqCst);
    }

    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}
