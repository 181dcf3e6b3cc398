//! A system without fork, where only who opened a file can close it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::path::Path;

/// There is no forked child.
pub(crate) fn generation() -> u64 {
    0
}

#[derive(Debug)]
pub(crate) struct OwnFile(File);

impl OwnFile {
    pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        options.open(path).map(Self)
    }

    /// Takes the file's exclusive lock, until the file is dropped. False when another holds it.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        match fs4::FileExt::try_lock(&self.0) {
            Ok(()) => Ok(true),
            Err(fs4::TryLockError::WouldBlock) => Ok(false),
            Err(fs4::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

/// Descriptors are not closed behind their owner's back.
#[derive(Debug)]
pub(crate) struct Sentinel;

impl Sentinel {
    #[expect(clippy::unnecessary_wraps, reason = "as where it can fail")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "as where it can differ")]
    pub(crate) fn is_intact(&self) -> bool {
        true
    }
}
