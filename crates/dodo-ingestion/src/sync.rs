//! The primitives at which threads meet, for those modules whose interleavings are tested: there
//! `interleavings` puts others in their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
pub(crate) use tokio::sync::Notify;
