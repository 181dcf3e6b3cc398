//! Children with mounts of their own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "child.rs"]
pub mod child;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use child::{Child, not_tested, say};
use tempfile::tempdir;

/// Runs a role in a directory of its own, by a command that ends in this test binary.
pub fn run(mut command: Command, role: &str, dir: &Path) {
    command.env("CHILD_DIR", dir);
    let mut child = Child::run(command, "child_process", role, &[]);
    let said = child.line();
    match said.strip_prefix("impossible: ") {
        Some(why) => not_tested(role, why),
        None => assert_eq!(said, "done", "{role}"),
    }
    child.succeeds();
}

/// Runs a role in mounts of its own, which go when it ends.
pub fn in_own_mounts(role: &str) {
    let dir = tempdir().unwrap();
    let can = Command::new("unshare").args(["-m", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return not_tested(role, "a child can have no mounts of its own");
    }
    let mut command = Command::new("unshare");
    command.arg("-m").arg(std::env::current_exe().unwrap());
    run(command, role, dir.path());
}

pub fn mount(dir: &Path, args: &[&str]) -> Option<PathBuf> {
    fs::create_dir_all(dir).unwrap();
    let output = Command::new("mount").args(args).arg(dir).output().unwrap();
    if !output.status.success() {
        say(&format!("impossible: mount {args:?}: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(dir.to_owned())
}

pub fn mount_tmpfs(dir: &Path) -> Option<PathBuf> {
    mount(&dir.join("disk"), &["-t", "tmpfs", "-o", "size=3m", "none"])
}

/// A file with an empty ext4 in it.
pub fn make_ext4(image: &Path, bytes: u64, options: &[&str]) -> bool {
    fs::File::create(image).unwrap().set_len(bytes).unwrap();
    let mut mkfs = Command::new("mkfs.ext4");
    let made = mkfs.args(["-q", "-F", "-m", "0"]).args(options).arg(image).output();
    let made = made.is_ok_and(|output| output.status.success());
    if !made {
        say("impossible: no mkfs.ext4");
    }
    made
}

pub fn mount_ext4(dir: &Path) -> Option<PathBuf> {
    let image = dir.join("image");
    make_ext4(&image, 4 << 20, &[]).then_some(())?;
    mount(&dir.join("disk"), &["-o", "loop", image.to_str().unwrap()])
}
