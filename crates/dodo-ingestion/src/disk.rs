//! The few file operations that the spool is built on, as a trait: the machine's file system, the
//! memory of a host without a disk, and the simulated disks of the tests all look the same.
//!
//! Nothing here knows what a record is.

mod filesystem;
mod memory;
mod place;
mod system;

pub(crate) use memory::MemoryDisk;
pub(crate) use place::{Notice, Unfit, is_ours};
pub(crate) use system::SystemDisk;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// For reading; it must exist.
    Read,
    /// For appending and reading; it must not exist yet.
    CreateToAppend,
    /// For appending and reading; created if need be.
    Append,
    /// For writing in place and reading; created if need be.
    Update,
}

/// Which file this is, whatever its name: two files that exist at one time differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A file system. Directories and files that it makes are readable by their owner only.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes these directories, which lie in each other, fit for a spool. `allowed` names network
    /// file systems that are taken all the same, separated by commas. Files that nobody else can
    /// reach are fit wherever they are.
    fn prepare(&self, dirs: &[PathBuf], _allowed: &str) -> Result<Vec<Notice>, Unfit> {
        for dir in dirs {
            self.create_dir_all(dir)?;
        }
        Ok(Vec::new())
    }
    /// The names in a directory, in no order; none when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; no error when there is none.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory; no error when there is none.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive a power loss.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Which file now has this name.
    fn identify(&self, path: &Path) -> io::Result<FileId>;
    /// The bytes of all files at and below a directory.
    fn usage(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// One write at the end. Fewer bytes than given may be taken.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file to this length, or fills it up with zeros.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Sets aside so many bytes of the disk for this file, and the memory to write it through. `None`
    /// where either cannot be had, or does not keep the process from harm when the disk is full. Before
    /// it is written to, the file has to be as long as that.
    fn reserve(&self, _len: u64) -> Option<Box<dyn Reserved>> {
        None
    }
    /// Whether writing to it waits for no disk.
    fn is_in_memory(&self) -> bool {
        false
    }
    /// Makes the contents survive a power loss.
    fn sync(&self) -> io::Result<()>;
    /// Which file this is. After the host closed our descriptor it may be one of the host's.
    fn identify(&self) -> io::Result<FileId>;
    /// Takes the file's exclusive lock, held until the file is dropped; false when another holds it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// What else a write would wait for.
pub(crate) type Preparation = Box<dyn FnOnce() + Send>;

/// A part of a disk that is written to without a call of the operating system.
pub(crate) trait Reserved: Debug + Send {
    /// Writes bytes of which the first four count as written last.
    fn commit(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// What the operating system has to do before there can be writes up to there, if anything: for
    /// another thread than the one that writes.
    fn preparation(&self, _until: u64) -> Option<Preparation> {
        None
    }
}

/// Whether an open file is still the one that others find under its name.
pub(crate) fn is_in_place(disk: &dyn Disk, path: &Path, file: &dyn DiskFile) -> bool {
    matches!((disk.identify(path), file.identify()), (Ok(by_name), Ok(open)) if by_name == open)
}

/// The whole of a file, up to `limit` bytes.
pub(crate) fn read_to_end(file: &dyn DiskFile, limit: u64) -> io::Result<Vec<u8>> {
    read_range(file, 0, file.len()?.min(limit))
}

/// The last `limit` bytes of a file, or all there are.
pub(crate) fn read_tail(file: &dyn DiskFile, limit: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    read_range(file, len.saturating_sub(limit), len.min(limit))
}

/// So many bytes from `start` on, or as many as there are.
pub(crate) fn read_range(file: &dyn DiskFile, start: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Appends a line that others look for whole: after one that a crash cut, on a line of its own.
/// Survives a power loss.
pub(crate) fn append_line(disk: &dyn Disk, path: &Path, line: &[u8]) -> io::Result<()> {
    let file = disk.open(path, Open::Append)?;
    let mut last = [b'\n'];
    let len = file.len()?;
    if let Some(at) = len.checked_sub(1) {
        file.read_at(&mut last, at)?;
    }
    let start: &[u8] = if last == [b'\n'] { b"" } else { b"\n" };
    let written = append_all(&*file, &[start, line, b"\n"].concat())
        .and_then(|()| file.sync())
        .and_then(|()| match path.parent() {
            Some(dir) if len == 0 => disk.sync_dir(dir),
            _ => Ok(()),
        });
    if written.is_err() {
        // What was not written for certain is not to be found.
        _ = file.truncate(len);
    }
    written
}

/// Appends all bytes, in as many writes as it takes.
pub(crate) fn append_all(file: &dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}
