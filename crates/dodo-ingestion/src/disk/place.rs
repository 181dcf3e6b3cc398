//! Where a spool may lie: in directories that are this account's alone, on a file system of this
//! machine.
//!
//! Whoever may write into one of these directories can plant calls that are billed, or links that
//! lead our writes elsewhere. So each is looked at before it is used: it is no link, it is ours, and
//! it is closed to others. What was planted while it was open is met by
//! [`SystemDisk`](super::SystemDisk), which follows no link.

use std::io;
use std::path::{Path, PathBuf};

use super::Disk;
use super::filesystem::{self, FileSystem};

/// What an operator should know of a place that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It was open to others, with this mode, and is so no more.
    WasOpen(PathBuf, u32),
    /// It goes when the container goes.
    ContainerLayer,
}

/// Why a place does not serve.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It cannot be made or looked at.
    Failed(io::Error),
    /// It must not be used, and what can be done about it.
    Refused(String),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unfit> for io::Error {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Failed(error) => error,
            Unfit::Refused(why) => Self::other(why),
        }
    }
}

/// [`Disk::prepare`] on the machine's file system.
pub(super) fn prepare(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    allowed: &str,
) -> Result<Vec<Notice>, Unfit> {
    let Some(innermost) = dirs.last() else { return Ok(Vec::new()) };
    // Before anything is made there.
    let existing = innermost.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    let mut notices: Vec<Notice> =
        judge(filesystem::of(existing)?, existing, allowed)?.into_iter().collect();
    for dir in dirs {
        disk.create_dir_all(dir)?;
        notices.extend(close_to_others(dir)?);
    }
    Ok(notices)
}

fn judge(found: FileSystem, dir: &Path, allowed: &str) -> Result<Option<Notice>, Unfit> {
    let allowed = |name: &str| allowed.split(',').any(|allowed| allowed.trim() == name);
    match found {
        FileSystem::Network(name) if !allowed(&name) => Err(Unfit::Refused(format!(
            "{} is on {name}, a file system of the network, whose locks and writes cannot be \
             relied on; name a directory of this machine, or set allow_filesystem to {name}",
            dir.display()
        ))),
        FileSystem::Layer(name) if !allowed(name) => Ok(Some(Notice::ContainerLayer)),
        _ => Ok(None),
    }
}

/// Whether this is a directory of this account's, and no link to one.
#[cfg(unix)]
pub(crate) fn is_ours(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let user = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == user)
}

/// Whether this is a directory, and no link to one.
#[cfg(not(unix))]
pub(crate) fn is_ours(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir())
}

/// Sees to it that a directory is ours alone.
#[cfg(unix)]
fn close_to_others(dir: &Path) -> Result<Option<Notice>, Unfit> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

    let refused = |why: String| Err(Unfit::Refused(format!("{} {why}", dir.display())));
    let metadata = std::fs::symlink_metadata(dir)?;
    if metadata.is_symlink() {
        return refused("is a symbolic link; remove it, or name the place it leads to".into());
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return refused(format!(
            "belongs to the user {owner} and this process runs as {user}; change its owner, or \
             name another place"
        ));
    }
    let mode = metadata.mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 {
        return Ok(None);
    }
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY;
    let open = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(dir)?;
    open.set_permissions(std::fs::Permissions::from_mode(0o700))?;
    Ok(Some(Notice::WasOpen(dir.to_owned(), mode)))
}

/// Elsewhere a directory has the rights of the one that it lies in, which is the account's.
#[cfg(not(unix))]
fn close_to_others(_: &Path) -> Result<Option<Notice>, Unfit> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_file_system_is_refused_unless_it_is_allowed_by_name() {
        let judge = |found: FileSystem, allowed| judge(found, Path::new("/spool"), allowed);
        let nfs = || FileSystem::Network("nfs".into());
        for allowed in ["", "smb", "nf", "nfs4 smb"] {
            let Err(Unfit::Refused(why)) = judge(nfs(), allowed) else { panic!("{allowed:?}") };
            assert!(why.starts_with("/spool is on nfs, "), "{why}");
            assert!(why.ends_with("set allow_filesystem to nfs"), "{why}");
        }
        for allowed in ["nfs", "smb, nfs", "nfs,"] {
            assert_eq!(judge(nfs(), allowed).unwrap(), None);
        }
        let overlay = || FileSystem::Layer("overlay");
        assert_eq!(judge(overlay(), "nfs").unwrap(), Some(Notice::ContainerLayer));
        assert_eq!(judge(overlay(), "overlay").unwrap(), None);
        assert_eq!(judge(FileSystem::Local, "").unwrap(), None);
    }
}
