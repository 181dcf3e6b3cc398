//! The machine's file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, FileId, Notice, Open, Unfit, place};
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::{Preparation, Reserved, filesystem};
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::process::Mapping;
use crate::process::OwnFile;

/// Files and directories of this machine, private to the account that runs it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    fn prepare(&self, dirs: &[PathBuf], allowed: &str) -> Result<Vec<Notice>, Unfit> {
        place::prepare(self, dirs, allowed)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        no_link(dir)?;
        match fs::read_dir(dir) {
            Ok(entries) => {
                entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => &mut options,
            Open::CreateToAppend => options.append(true).create_new(true),
            Open::Append => options.append(true).create(true),
            Open::Update => options.write(true).create(true),
        };
        #[cfg(unix)]
        keep_private(&mut options);
        no_link_above(path)?;
        let file = match OwnFile::open(&options, path) {
            Err(error) if how != Open::CreateToAppend => {
                return Err(no_link(path).err().unwrap_or(error));
            }
            other => other?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{} is not a file; remove it", path.display())));
        }
        Ok(Arc::new(SystemFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        no_link_above(from)?;
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        no_link_above(path)?;
        gone_is_fine(fs::remove_file(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        gone_is_fine(fs::remove_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn identify(&self, path: &Path) -> io::Result<FileId> {
        fs::symlink_metadata(path).map(|metadata| file_id(&metadata))
    }

    fn usage(&self, dir: &Path) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // What another process removes meanwhile takes no room.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                bytes += self.usage(&entry.path()).unwrap_or(0);
            } else {
                bytes += metadata.len();
            }
        }
        Ok(bytes)
    }
}

/// No link is followed, also not as the last part of a path, and no pipe is waited for.
#[cfg(unix)]
fn keep_private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
}

/// What others planted leads elsewhere: nothing is read or written through it.
fn no_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(io::Error::other(format!(
            "{} is a symbolic link and is not followed; remove it",
            path.display()
        ))),
        _ => Ok(()),
    }
}

fn no_link_above(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), no_link)
}

#[cfg(unix)]
fn file_id(metadata: &fs::Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt as _;
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

/// Elsewhere a name keeps its file for as long as the file is open: all are alike.
#[cfg(not(unix))]
fn file_id(_: &fs::Metadata) -> FileId {
    FileId { device: 0, inode: 0 }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How long this process's files may become. A longer one ends it by a signal, unless the host ignores that.
#[cfg(unix)]
fn file_size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

#[cfg(not(unix))]
fn file_size_limit() -> Option<u64> {
    None
}

fn may_be_as_long_as(len: u64) -> io::Result<()> {
    let is_allowed = file_size_limit().is_none_or(|limit| len <= limit);
    if is_allowed { Ok(()) } else { Err(io::ErrorKind::FileTooLarge.into()) }
}

#[derive(Debug)]
struct SystemFile(OwnFile);

impl DiskFile for SystemFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        if file_size_limit().is_some() {
            may_be_as_long_as(self.len()? + bytes.len() as u64)?;
        }
        (&*self.0).write(bytes)
    }

    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&*self.0, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&*self.0, buffer, offset)
    }

    #[cfg(unix)]
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        may_be_as_long_as(offset + bytes.len() as u64)?;
        std::os::unix::fs::FileExt::write_all_at(&*self.0, bytes, offset)
    }

    #[cfg(windows)]
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match std::os::windows::fs::FileExt::seek_write(&*self.0, bytes, offset)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        may_be_as_long_as(len)?;
        self.0.set_len(len)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn reserve(&self, len: u64) -> Option<Box<dyn Reserved>> {
        use rustix::fs::{FallocateFlags, fallocate};
        if may_be_as_long_as(len).is_err() || !filesystem::keeps_what_it_reserves(&self.0) {
            return None;
        }
        // Its length stays: a file that has it before it has a header would be taken for damage.
        fallocate(&*self.0, FallocateFlags::KEEP_SIZE, 0, len).ok()?;
        let mapping = Mapping::new(&self.0, len.try_into().ok()?).ok()?;
        Some(Box::new(mapping))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn identify(&self) -> io::Result<FileId> {
        self.0.metadata().map(|metadata| file_id(&metadata))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Reserved for Mapping {
    fn commit(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        Mapping::commit(self, bytes, offset)
    }

    fn preparation(&self, until: u64) -> Option<Preparation> {
        let provide = self.provider(until.try_into().ok()?)?;
        Some(Box::new(provide))
    }
}
