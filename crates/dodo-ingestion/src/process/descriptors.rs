//! Descriptors that only the process which opened them may close, and locks that only it may hold.
//!
//! A lock belongs to the open file, and a child's descriptor is of the same open file: for as long
//! as the child has it, the lock is held. So the descriptors that hold locks are listed where the
//! fork handler finds them.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::fork::NoFork;
use super::{OfProcess, generation};

/// So many locks can be held at a time.
const PLACES: usize = 1024;

static LISTED: [Place; PLACES] = [const { Place::new() }; PLACES];

/// A place in the list of descriptors that hold locks, or are about to.
struct Place {
    descriptor: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

impl Place {
    const fn new() -> Self {
        let (device, inode) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { descriptor: AtomicI32::new(FREE), device, inode }
    }
}

const FREE: RawFd = -1;
const BEING_TAKEN: RawFd = -2;

/// Which file a descriptor is of. The host may have closed ours and got its number for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Unlike the standard library's, for use in a fork handler.
    fn of(descriptor: RawFd) -> io::Result<Self> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `stat` has room for what is written.
        if unsafe { libc::fstat(descriptor, stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so all of it was written.
        let stat = unsafe { stat.assume_init() };
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        let (device, inode) = (stat.st_dev as u64, stat.st_ino as u64);
        Ok(Self { device, inode })
    }
}

/// Closes what holds locks of the process that this one was forked from, and unlocks nothing.
pub(super) fn close_inherited() {
    for place in &LISTED {
        if place.descriptor.load(Ordering::Relaxed) == FREE {
            continue;
        }
        let descriptor = place.descriptor.swap(FREE, Ordering::AcqRel);
        let identity = Identity {
            device: place.device.load(Ordering::Relaxed),
            inode: place.inode.load(Ordering::Relaxed),
        };
        if descriptor >= 0 && Identity::of(descriptor).is_ok_and(|found| found == identity) {
            // SAFETY: the descriptor is of the file that was listed, and in this process nobody
            // closes it: an inherited `OwnFile` is leaked.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// A file that only the process which opened it closes, and only while the descriptor is of it.
#[derive(Debug)]
pub(crate) struct OwnFile {
    file: OfProcess<File>,
    identity: Identity,
    opened: NoFork,
    /// Dropped after the file is closed: a child finds the descriptor in the list until then.
    listing: OnceLock<Listing>,
}

impl OwnFile {
    pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        let opened = NoFork::now();
        Self::new(options.open(path)?, opened)
    }

    fn new(file: File, opened: NoFork) -> io::Result<Self> {
        let identity = Identity::of(file.as_raw_fd())?;
        Ok(Self { file: OfProcess::new(file), identity, opened, listing: OnceLock::new() })
    }

    /// Takes the file's exclusive lock, until the file is dropped. False when another holds it; or
    /// may hold it, because it was forked before the descriptor was in the list.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        if self.listing.get().is_none() {
            let listing = Listing::new(self.as_raw_fd(), self.identity, self.opened)?;
            // Someone else's, if it is there: this one is taken off the list again.
            let _ = self.listing.set(listing);
        }
        if !self.listing.get().is_some_and(|listing| listing.in_time) {
            return Ok(false);
        }
        match fs4::FileExt::try_lock(&**self) {
            Ok(()) => Ok(true),
            Err(fs4::TryLockError::WouldBlock) => Ok(false),
            Err(fs4::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether the descriptor is of this file: the host did not close it.
    fn is_intact(&self) -> bool {
        Identity::of(self.as_raw_fd()).is_ok_and(|found| found == self.identity)
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        self.file.even_inherited()
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if !self.is_intact() {
            self.file.disown();
        }
    }
}

/// A place in the list that is taken.
#[derive(Debug)]
struct Listing {
    place: usize,
    generation: u64,
    /// No child was forked that has the descriptor and does not know.
    in_time: bool,
}

impl Listing {
    fn new(descriptor: RawFd, identity: Identity, opened: NoFork) -> io::Result<Self> {
        let generation = generation();
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        let take = |place: &Place| {
            place.descriptor.compare_exchange(FREE, BEING_TAKEN, order.0, order.1).is_ok()
        };
        let Some(place) = LISTED.iter().position(take) else {
            return Err(io::Error::other("this process holds too many locks"));
        };
        LISTED[place].device.store(identity.device, Ordering::Relaxed);
        LISTED[place].inode.store(identity.inode, Ordering::Relaxed);
        LISTED[place].descriptor.store(descriptor, Ordering::SeqCst);
        Ok(Self { place, generation, in_time: opened.is_still() })
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // In a child the place is free already, or another's.
        if self.generation == generation() {
            LISTED[self.place].descriptor.store(FREE, Ordering::Release);
        }
    }
}

/// Tells whether the host has closed descriptors that are not its own, as a program does that
/// becomes a daemon: then this one, which nobody uses, is gone too.
#[derive(Debug)]
pub(crate) struct Sentinel(OwnFile);

impl Sentinel {
    pub(crate) fn new() -> io::Result<Self> {
        // A pipe has an identity of its own.
        let (reader, _) = io::pipe()?;
        OwnFile::new(OwnedFd::from(reader).into(), NoFork::now()).map(Self)
    }

    pub(crate) fn is_intact(&self) -> bool {
        self.0.is_intact()
    }
}
