//! Files in this process's memory, for hosts without a disk, and for tests.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, FileId, Open};

/// A file system that lasts as long as the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>>,
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these, so a poisoned one is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = lock(&self.files)
            .keys()
            .filter_map(|path| path.strip_prefix(dir).ok()?.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = lock(&self.files);
        match (files.get(path), how) {
            (Some(_), Open::CreateToAppend) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(file.clone()),
            (None, Open::Read) => Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                let file = Arc::new(MemoryFile::default());
                files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let moved: Vec<PathBuf> =
            files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let rest = path.strip_prefix(from).unwrap_or(Path::new("")).to_owned();
            let to = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            if let Some(file) = files.remove(&path) {
                files.insert(to, file);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        lock(&self.files).remove(path);
        Ok(())
    }

    /// A directory is what files are in: there is no empty one.
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        if lock(&self.files).keys().any(|path| path.starts_with(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn identify(&self, path: &Path) -> io::Result<FileId> {
        lock(&self.files).get(path).ok_or(io::ErrorKind::NotFound)?.identify()
    }

    fn usage(&self, dir: &Path) -> io::Result<u64> {
        let files = lock(&self.files);
        let below = files.iter().filter(|(path, _)| path.starts_with(dir));
        Ok(below.map(|(_, file)| lock(&file.bytes).len() as u64).sum())
    }
}

impl DiskFile for MemoryFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.bytes).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = lock(&self.bytes);
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = lock(&self.bytes);
        let end = offset as usize + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(new);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.bytes).len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        lock(&self.bytes).resize(len as usize, 0);
        Ok(())
    }

    fn is_in_memory(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Where it lies in memory, for as long as anyone has it.
    fn identify(&self) -> io::Result<FileId> {
        Ok(FileId { device: 0, inode: std::ptr::from_ref(self).addr() as u64 })
    }

    /// No other process sees this file.
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}
