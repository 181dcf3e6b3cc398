//! What kind of file system a directory is on, as far as it matters to a spool. On Linux; elsewhere
//! all count as local.

use std::io;
use std::path::Path;

/// A kind of file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Of this machine, or not known.
    Local,
    /// Laid over another, as a container's writable layer is.
    Layer(&'static str),
    /// Of another machine.
    Network(String),
}

/// The file system of a directory that exists.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn of(dir: &Path) -> io::Result<FileSystem> {
    let magic = rustix::fs::statfs(dir)?.f_type as u32;
    if magic != FUSE {
        return Ok(by_magic(magic));
    }
    let device = rustix::fs::stat(dir)?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // Where the mounts cannot be read it cannot be told.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(by_mount(&mounts, &device))
}

/// The file system of a directory that exists.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn of(_: &Path) -> io::Result<FileSystem> {
    Ok(FileSystem::Local)
}

/// Whether memory that a file is mapped to can be written to for as long as the file has the blocks for
/// it. On btrfs that ends the process when the disk is full, on XFS when the disk fails and the file system
/// shuts itself down; and of a layer it is not known what it lies on.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn keeps_what_it_reserves(file: &std::fs::File) -> bool {
    const EXT4: u32 = 0xef53;
    const TMPFS: u32 = 0x0102_1994;
    let found = rustix::fs::fstatfs(file).map(|found| found.f_type as u32);
    found.is_ok_and(|magic| [EXT4, TMPFS].contains(&magic))
}

#[cfg(any(target_os = "linux", target_os = "android", test))]
const FUSE: u32 = 0x6573_5546;

/// The numbers that statfs gives.
#[cfg(any(target_os = "linux", target_os = "android", test))]
fn by_magic(magic: u32) -> FileSystem {
    let network = match magic {
        0x0000_6969 => "nfs",
        0x0000_517b => "smb",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x0102_1997 => "9p",
        0x5346_414f | 0x6b41_4653 => "afs",
        0x7375_7245 => "coda",
        0x00c3_6400 => "ceph",
        0x0116_1970 => "gfs2",
        0x7461_636f => "ocfs2",
        0x0bd0_0bd0 => "lustre",
        0x4750_4653 => "gpfs",
        0x2003_0528 => "orangefs",
        0x1983_0326 => "beegfs",
        0x0000_564c => "ncp",
        0x794c_7630 => return FileSystem::Layer("overlay"),
        0x6175_6673 => return FileSystem::Layer("aufs"),
        _ => return FileSystem::Local,
    };
    FileSystem::Network(network.into())
}

/// Programs that serve another machine's files through FUSE, by the type that they mount with.
#[cfg(any(target_os = "linux", target_os = "android", test))]
const REMOTE_FUSE: &[&str] = &[
    "sshfs",
    "rclone",
    "s3fs",
    "goofys",
    "gcsfuse",
    "blobfuse",
    "blobfuse2",
    "mountpoint-s3",
    "glusterfs",
    "ceph",
    "ceph-fuse",
    "juicefs",
    "seaweedfs",
    "mfs",
    "moosefs",
    "lizardfs",
    "davfs",
    "curlftpfs",
    "nfs",
    "fuse-nfs",
    "smbnetfs",
    "gvfsd-fuse",
    "quantumfs",
    "alluxio",
    "hdfs",
];

/// A FUSE mount by its line in `/proc/self/mountinfo`.
#[cfg(any(target_os = "linux", target_os = "android", test))]
fn by_mount(mounts: &str, device: &str) -> FileSystem {
    let line = mounts.lines().rev().find(|line| line.split(' ').nth(2) == Some(device));
    let kind = line.and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    let program = kind.and_then(|kind| kind.strip_prefix("fuse."));
    match program {
        Some("fuse-overlayfs") => FileSystem::Layer("fuse-overlayfs"),
        Some(program) if REMOTE_FUSE.contains(&program) => FileSystem::Network(program.into()),
        _ => FileSystem::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        let network = |name: &str| FileSystem::Network(name.into());
        for (magic, expected) in [
            (0x6969, network("nfs")),
            (0xff53_4d42, network("cifs")),
            (0xfe53_4d42, network("smb2")),
            (0x0102_1997, network("9p")),
            (0x5346_414f, network("afs")),
            (0x6b41_4653, network("afs")),
            (0x7375_7245, network("coda")),
            (0x00c3_6400, network("ceph")),
            (0x0116_1970, network("gfs2")),
            (0x7461_636f, network("ocfs2")),
            (0x0bd0_0bd0, network("lustre")),
            (0x794c_7630, FileSystem::Layer("overlay")),
            (0xef53, FileSystem::Local),      // ext4
            (0x0102_1994, FileSystem::Local), // tmpfs
            (0x5846_5342, FileSystem::Local), // xfs
            (0x9123_683e, FileSystem::Local), // btrfs
            (0x2fc1_2fc1, FileSystem::Local), // zfs
            (0, FileSystem::Local),
        ] {
            assert_eq!(by_magic(magic), expected, "{magic:#x}");
        }
    }

    #[test]
    fn a_fuse_mount_is_known_by_its_program() {
        let mounts = "\
            22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            40 22 0:50 / /mnt/a rw,nosuid shared:7 master:2 - fuse.sshfs me@host:/ rw,user_id=0\n\
            41 22 0:51 / /mnt/a\\040b rw - fuse.rclone remote: rw\n\
            42 22 0:52 / /mnt/c rw - fuseblk /dev/sda1 rw\n\
            43 22 0:53 / /mnt/d rw - fuse.fuse-overlayfs fuse-overlayfs rw\n\
            44 22 0:54 / /mnt/e rw - fuse rw\n";
        for (device, expected) in [
            ("0:50", FileSystem::Network("sshfs".into())),
            ("0:51", FileSystem::Network("rclone".into())),
            ("0:52", FileSystem::Local),
            ("0:53", FileSystem::Layer("fuse-overlayfs")),
            ("0:54", FileSystem::Local),
            ("254:0", FileSystem::Local),
            ("9:9", FileSystem::Local),
        ] {
            assert_eq!(by_mount(mounts, device), expected, "{device}");
        }
        assert_eq!(by_mount("", "0:50"), FileSystem::Local);
    }

    #[test]
    fn a_directory_of_this_machine_passes() {
        for dir in ["/dev/shm", "/", &std::env::temp_dir().display().to_string()] {
            let dir = Path::new(dir);
            if dir.exists() {
                assert!(!matches!(of(dir).unwrap(), FileSystem::Network(_)), "{}", dir.display());
            }
        }
        assert!(of(Path::new("/does/not/exist")).is_err() || !cfg!(target_os = "linux"));
    }
}
