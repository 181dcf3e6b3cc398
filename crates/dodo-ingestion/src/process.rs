//! This process, told apart from the one that it was forked from.
//!
//! A forked child has a copy of everything and one thread. What it inherits is not its own: a lock
//! may be held by a thread that it does not have, a spool has an owner, a descriptor that holds a
//! lock keeps the lock from everyone when the parent is gone.
//!
//! # Invariants
//!
//! * [`generation`] differs in a child from what it was in any of its ancestors.
//! * What a [`PerProcess`] or an [`OfProcess`] holds is neither used nor dropped in a child: it is
//!   leaked there.
//! * A child closes the descriptors that hold inherited locks at the fork, or at its first call
//!   where the fork ran no handlers. It never unlocks.
//! * Nothing here waits for an inherited lock: there are only atomics.
//!
//! # What it must not know
//!
//! What is kept for each process. This is the only module with `unsafe` code.

#![expect(
    unsafe_code,
    reason = "fork handlers, a page that a fork wipes, values that it leaks, mapped files"
)]

#[cfg(unix)]
mod descriptors;
#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod fork;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod mapping;

#[cfg(unix)]
pub(crate) use descriptors::OwnFile;
#[cfg(not(unix))]
pub(crate) use elsewhere::{OwnFile, generation};
#[cfg(unix)]
pub(crate) use fork::generation;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use mapping::Mapping;

#[cfg(unix)]
use descriptors::Sentinel;
#[cfg(not(unix))]
use elsewhere::Sentinel;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

static SENTINEL: PerProcess<Mutex<Option<Sentinel>>> = PerProcess::new();

/// From now on [`descriptors_are_intact`] tells what happened since.
pub(crate) fn watch_descriptors() -> io::Result<()> {
    let sentinel = Sentinel::new()?;
    let mut watching =
        SENTINEL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    *watching = Some(sentinel);
    Ok(())
}

/// Whether the host has left the descriptors alone that are not its own. A program that becomes a
/// daemon may close all: what has their numbers after that is not to be touched.
pub(crate) fn descriptors_are_intact() -> bool {
    let watching =
        SENTINEL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    watching.as_ref().is_none_or(Sentinel::is_intact)
}

/// A cell with one value for each process: a forked child finds it empty.
pub(crate) struct PerProcess<T: Send + Sync> {
    node: AtomicPtr<Node<T>>,
    owns: PhantomData<Box<Node<T>>>,
}

struct Node<T> {
    generation: u64,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { node: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    /// This process's value, where it has one.
    pub(crate) fn get(&self) -> Option<&T> {
        let node = self.node.load(Ordering::Acquire);
        // SAFETY: `node` is null or comes from `Box::into_raw`. It is freed only by `drop`, which
        // has the cell to itself: a node that another takes the place of is leaked.
        let node = unsafe { node.as_ref() }?;
        (node.generation == generation()).then_some(&node.value)
    }

    /// This process's value, made now where it has none. Two threads may both make one; the second
    /// is dropped.
    pub(crate) fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let seen = self.node.load(Ordering::Acquire);
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let made = Node { generation: generation(), value: make()? };
        let made = Box::into_raw(Box::new(made));
        match self.node.compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the cell holds `made` now; as in `get`. What it held is null or inherited,
            // and leaked in that case: other threads may still have references into it.
            Ok(_) => Ok(unsafe { &(*made).value }),
            Err(first) => {
                // SAFETY: `made` comes from `Box::into_raw` and was never published.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: another thread of this process put it there; as in `get`.
                Ok(unsafe { &(*first).value })
            }
        }
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        match self.get_or_try_init(|| Ok::<_, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }
}

impl<T: Send + Sync> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if self.get().is_some() {
            // SAFETY: `get` found a node of this process, which comes from `Box::into_raw`; nobody
            // else has the cell.
            drop(unsafe { Box::from_raw(*self.node.get_mut()) });
        }
    }
}

impl<T: Send + Sync + fmt::Debug> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerProcess").field(&self.get()).finish()
    }
}

/// A value of the process that made it: in a forked child it is never dropped.
#[derive(Debug)]
pub(crate) struct OfProcess<T> {
    generation: u64,
    value: ManuallyDrop<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { generation: generation(), value: ManuallyDrop::new(value) }
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        (self.generation == generation()).then(|| &*self.value)
    }

    /// Leaves the value to be leaked.
    #[cfg(unix)]
    fn disown(&mut self) {
        self.generation = u64::MAX;
    }

    /// The value, whoever made it. A child must look at nothing in it that a thread can change.
    pub(crate) fn even_inherited(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> Clone for OfProcess<T> {
    fn clone(&self) -> Self {
        Self { generation: self.generation, value: self.value.clone() }
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.generation == generation() {
            // SAFETY: the value is dropped here and nowhere else, and not used after this.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A future that is neither polled nor dropped in a forked child, where what it waits on may be
/// locked. There it ends with nothing.
pub(crate) struct Unforked<F>(OfProcess<Pin<Box<F>>>);

impl<F: Future> Unforked<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(OfProcess::new(Box::pin(future)))
    }
}

impl<F: Future> Future for Unforked<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.0.get().is_none() {
            return Poll::Ready(None);
        }
        self.0.value.as_mut().poll(context).map(Some)
    }
}

#[cfg(test)]
mod tests;
