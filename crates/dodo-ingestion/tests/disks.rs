//! Real disks that are full, read-only, removed or replaced while the process runs. Each runs in a
//! child with mounts of its own. What cannot be mounted here is said to be not tested.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[path = "support/mounts.rs"]
mod mounts;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dodo_ingestion::{AlarmKind, ApiCall, Builder, Durability, ErrorKind, Ingestion};
use mounts::child::say;
use mounts::{in_own_mounts, mount, mount_ext4, mount_tmpfs, run};
use rustix::fs::{FlockOperation, flock};
use support::{PATIENT, Server, client, error, eventually, hears, listening};
use tempfile::tempdir;

const NOBODY: u32 = 65_534;
/// Calls with it are not due while a test runs, unless something makes them.
const NEVER: Duration = Duration::from_secs(300);

#[test]
fn a_tmpfs_that_is_full() {
    in_own_mounts("full tmpfs");
}

#[test]
fn an_ext4_that_is_full() {
    in_own_mounts("full ext4");
}

#[test]
fn a_file_system_that_is_mounted_read_only() {
    in_own_mounts("mounted read-only");
}

/// As ext4 does when it meets an error.
#[test]
fn a_file_system_that_makes_itself_read_only() {
    in_own_mounts("becomes read-only ext4");
}

/// As for a snapshot.
#[test]
fn a_file_system_that_is_frozen() {
    in_own_mounts("frozen ext4");
}

#[test]
fn a_containers_layer_is_told_once() {
    in_own_mounts("overlay");
}

#[test]
fn a_file_that_may_grow_no_more() {
    let dir = tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 128; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap());
    run(command, "file limit", dir.path());
}

/// As another user, where this one is root: to root nothing is read-only.
fn as_no_root(role: &str) {
    let dir = tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    run(command, role, dir.path());
}

#[test]
fn a_directory_that_is_read_only_from_the_start() {
    as_no_root("read-only from the start");
}

#[test]
fn a_directory_that_becomes_read_only() {
    as_no_root("becomes read-only");
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    let dir = PathBuf::from(std::env::var_os("CHILD_DIR").unwrap());
    match role.as_str() {
        "full tmpfs" | "full ext4" => {
            let mounted = if role == "full tmpfs" { mount_tmpfs(&dir) } else { mount_ext4(&dir) };
            let Some(disk) = mounted else { return };
            full_at_a_record_and_at_a_roll(&disk);
            full_at_the_cursor(&disk);
            full_at_a_dead_letter(&disk);
            full_at_the_start(&disk);
            who_delivers_from_a_full_disk_is_one_with_the_client(&disk);
        }
        "overlay" => {
            let Some(disk) = mount_overlay(&dir) else { return };
            container_layer(&disk);
        }
        "mounted read-only" => {
            let Some(disk) = mount_tmpfs(&dir) else { return };
            let Some(disk) = mount(&disk, &["-o", "remount,ro"]) else { return };
            nothing_can_be_made(&disk);
        }
        "becomes read-only ext4" => {
            let Some(disk) = mount_ext4(&dir) else { return };
            becomes_read_only_by_itself(&disk);
        }
        "frozen ext4" => {
            let Some(disk) = mount_ext4(&dir) else { return };
            if !is_frozen_and_goes_on(&disk) {
                return;
            }
        }
        "file limit" => file_limit(&dir),
        "read-only from the start" => read_only_from_the_start(&dir),
        "becomes read-only" => becomes_read_only(&dir),
        other => panic!("no role {other}"),
    }
    say("done");
}

/// Calls wait with it, and none is lost. False where it cannot be frozen.
fn is_frozen_and_goes_on(disk: &Path) -> bool {
    let server = Server::start();
    let (ingestion, _) = listening(small(&server, disk).linger(NEVER));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 5);
    ingestion.blocking_flush(PATIENT).unwrap();
    let Some(frozen) = Frozen::freeze(disk) else { return false };
    std::thread::scope(|scope| {
        let tracking = scope.spawn(|| calls.track_all(&ingestion, 20));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!tracking.is_finished(), "a call waits");
        drop(frozen);
        tracking.join().unwrap();
    });
    calls.settle(&ingestion, &server);
    true
}

/// A file system to which nothing is written, for as long as this is there.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn freeze(disk: &'a Path) -> Option<Self> {
        let output = Command::new("fsfreeze").arg("--freeze").arg(disk).output();
        let is_frozen = output.is_ok_and(|output| output.status.success());
        if !is_frozen {
            say("impossible: the file system cannot be frozen");
        }
        is_frozen.then_some(Self(disk))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = Command::new("fsfreeze").arg("--unfreeze").arg(self.0).status();
        assert!(thawed.is_ok_and(|status| status.success()));
    }
}

fn mount_overlay(dir: &Path) -> Option<PathBuf> {
    // Layers on a tmpfs: an overlay on an overlay, as in a container, may not be possible.
    let layers = mount(&dir.join("layers"), &["-t", "tmpfs", "none"])?;
    for name in ["lower", "upper", "work"] {
        fs::create_dir(layers.join(name)).unwrap();
    }
    let layers = layers.display();
    let options = format!("lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work");
    mount(&dir.join("disk"), &["-t", "overlay", "-o", &options, "none"])
}

/// The file that takes all the room.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(disk: &Path) -> Self {
        let path = disk.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        // What was freed a moment ago may come back with the next sync.
        for _ in 0..3 {
            for size in [65_536, 4_096, 512, 1] {
                while file.write_all(&vec![0xaa; size]).is_ok() {}
            }
            _ = file.sync_all();
        }
        Self(path)
    }

    fn free(self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// What was accepted and what was not, by the ids of the calls.
#[derive(Default)]
struct Calls {
    accepted: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Calls {
    /// True when the call was accepted.
    fn track(&mut self, ingestion: &Ingestion) -> bool {
        let id = format!("call-{}", self.accepted.len() + self.refused.len());
        let call = ApiCall::new("cus_1").endpoint("x".repeat(300)).event_id(&id);
        match ingestion.track_api_call(call) {
            Ok(_) => self.accepted.insert(id),
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::Storage | ErrorKind::Overflow), "{error:?}");
                self.refused.insert(id);
                false
            }
        }
    }

    fn track_all(&mut self, ingestion: &Ingestion, calls: usize) {
        (0..calls).for_each(|_| assert!(self.track(ingestion)));
    }

    /// Closes, and checks that what was accepted is billed, and nothing else.
    fn settle(self, ingestion: &Ingestion, server: &Server) {
        ingestion.blocking_close(PATIENT).unwrap();
        let state = server.state.lock().unwrap();
        let billed: BTreeSet<String> = state.billed.keys().cloned().collect();
        assert_eq!(billed, self.accepted);
        drop(state);
        let stats = ingestion.stats();
        assert_eq!(stats.spooled, 0, "{stats:?}");
        assert_eq!(stats.accepted, stats.billed + stats.dead_lettered, "{stats:?}");
    }
}

/// A client whose segments are small.
fn small(server: &Server, dir: &Path) -> Builder {
    client(server, dir).max_spool_bytes(1 << 20)
}

fn full_at_a_record_and_at_a_roll(disk: &Path) {
    let server = Server::start();
    let (ingestion, told) = listening(small(&server, disk));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 300); // more than a segment holds
    ingestion.blocking_flush(PATIENT).unwrap();
    for _ in 0..3 {
        let ballast = Ballast::fill(disk);
        eventually("a call is refused", || !calls.track(&ingestion));
        // The segment was given up: what follows would have to begin another.
        (0..20).for_each(|_| _ = calls.track(&ingestion));
        assert!(calls.refused.len() > 10);
        hears(&told, AlarmKind::Storage);
        ballast.free();
        eventually("a call is accepted", || calls.track(&ingestion));
        calls.track_all(&ingestion, 50);
    }
    assert_eq!(ingestion.stats().overflowed, calls.refused.len() as u64);
    calls.settle(&ingestion, &server);
}

/// The directory of an account's namespace.
fn namespace(disk: &Path, account: &str) -> PathBuf {
    let mut found = disk.join("dodo-ingestion").read_dir().unwrap().map(|dir| dir.unwrap().path());
    found.find(|dir| dir.to_str().unwrap().ends_with(&format!("-{account}"))).unwrap()
}

/// The disk has no room for the position in the spool, which is written before each attempt.
fn full_at_the_cursor(disk: &Path) {
    let server = Server::start();
    let builder = small(&server, disk).account("cursor").linger(NEVER);
    let (ingestion, told) = listening(builder);
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 1);
    let namespace = namespace(disk, "cursor");
    let spool = namespace.join("spools").read_dir().unwrap().next().unwrap().unwrap().path();
    let cursor = spool.join("cursor");
    // Longer than an election takes: the sender has taken up the spool, and has nothing to write yet.
    std::thread::sleep(Duration::from_secs(2));
    // Its block is given back, and somebody else takes that too.
    fs::File::options().write(true).open(&cursor).unwrap().set_len(0).unwrap();
    let ballast = Ballast::fill(disk);
    // The record of the flush goes where the first has left room.
    let error = ingestion.blocking_flush(Duration::from_secs(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    hears(&told, AlarmKind::Storage);
    assert_eq!(server.requests(), 0, "an attempt is written down before it is made");
    assert_eq!(cursor.metadata().unwrap().len(), 0, "there was no room for it");
    ballast.free();
    eventually("a call is accepted", || calls.track(&ingestion));
    calls.settle(&ingestion, &server);
}

/// The disk has no room for the file of the dead letters.
fn full_at_a_dead_letter(disk: &Path) {
    let server = Server::start();
    server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
    let builder = small(&server, disk).account("letter").linger(NEVER);
    let (ingestion, told) = listening(builder);
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 5);
    ingestion.blocking_flush(PATIENT).unwrap();
    let bad = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
    calls.track_all(&ingestion, 5);
    let ballast = Ballast::fill(disk);
    let error = ingestion.blocking_flush(Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    hears(&told, AlarmKind::Storage);
    assert!(server.requests() > 1, "it was refused");
    assert_eq!(ingestion.stats().dead_lettered, 0, "it is not set aside before it is written down");
    let path = namespace(disk, "letter").join("dead-letters.jsonl");
    let letters = || fs::read_to_string(&path).unwrap_or_default();
    assert!(!letters().contains('\n'), "there was no room for it: {}", letters());
    ballast.free();
    ingestion.blocking_flush(PATIENT).unwrap();
    let error = bad.blocking_delivered(PATIENT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let is_it = |line: &&str| {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        letter["event"]["customer_id"] == "cus_unknown"
    };
    assert_eq!(letters().lines().filter(is_it).count(), 1, "{}", letters());
    calls.settle(&ingestion, &server);
}

/// The disk has no room for another spool: what lies there is delivered, and makes some.
fn full_at_the_start(disk: &Path) {
    let server = Server::start();
    server.script([error(503)]);
    let builder = || small(&server, disk).account("start").linger(NEVER);
    let ingestion = builder().build().unwrap();
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 50);
    ingestion.blocking_close(Duration::ZERO).unwrap_err();
    assert_eq!(server.billed(), 0);
    let ballast = Ballast::fill(disk);
    let (ingestion, told) = listening(builder());
    hears(&told, AlarmKind::MemoryOnly);
    eventually("what was left is billed", || server.billed() == 50);
    calls.track_all(&ingestion, 5);
    let spools = namespace(disk, "start").join("spools");
    eventually("its spool is removed", || spools.read_dir().unwrap().next().is_none());
    calls.settle(&ingestion, &server);
    ballast.free();
}

/// What is delivered there beside a client's own calls is told and counted as theirs, and ends with it.
fn who_delivers_from_a_full_disk_is_one_with_the_client(disk: &Path) {
    let server = Server::start();
    server.script([error(503)]);
    let builder = || small(&server, disk).account("beside").linger(NEVER);
    let ingestion = builder().build().unwrap();
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 50);
    ingestion.blocking_close(Duration::ZERO).unwrap_err();
    let ballast = Ballast::fill(disk);
    server.script([401; 5].map(error));
    let (first, first_told) = listening(builder());
    let (second, second_told) = listening(builder());
    hears(&second_told, AlarmKind::Authentication);
    let stats = second.stats();
    assert!(stats.requests > 0, "{stats:?}");
    first.blocking_close(PATIENT).unwrap();
    first_told.lock().unwrap().clear();
    drop(second);
    ballast.free();
    let lock = namespace(disk, "beside").join("sender.lock");
    let lock = fs::File::options().write(true).open(lock).unwrap();
    let free = || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    eventually("the sender is gone", free);
    drop(lock);
    let ingestion = builder().build().unwrap();
    eventually("what was left is billed", || server.billed() == 50);
    calls.settle(&ingestion, &server);
    assert!(first_told.lock().unwrap().is_empty());
}

fn container_layer(disk: &Path) {
    let server = Server::start();
    let (ingestion, told) = listening(client(&server, disk));
    assert!(told.lock().unwrap().contains(&AlarmKind::ContainerLayer));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 100);
    calls.settle(&ingestion, &server);
    let layers =
        told.lock().unwrap().iter().filter(|kind| **kind == AlarmKind::ContainerLayer).count();
    assert_eq!(layers, 1);
    let (_allowed, told) = listening(client(&server, disk).allow_filesystem("nfs, overlay"));
    assert!(!told.lock().unwrap().contains(&AlarmKind::ContainerLayer));
}

fn file_limit(dir: &Path) {
    let server = Server::start();
    let (ingestion, told) = listening(client(&server, dir));
    let mut calls = Calls::default();
    for _ in 0..1_000 {
        calls.track(&ingestion);
    }
    // At the end of a file another one is begun.
    assert!(calls.refused.is_empty(), "{} refused", calls.refused.len());
    assert!(!told.lock().unwrap().contains(&AlarmKind::Storage));
    calls.settle(&ingestion, &server);
}

fn read_only_from_the_start(dir: &Path) {
    fs::set_permissions(dir, PermissionsExt::from_mode(0o500)).unwrap();
    nothing_can_be_made(dir);
}

fn nothing_can_be_made(dir: &Path) {
    let server = Server::start();
    let error = client(&server, dir).durability(Durability::Disk).build().unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Storage, Some("spool_dir")));
    let (ingestion, told) = listening(client(&server, dir));
    assert!(told.lock().unwrap().contains(&AlarmKind::MemoryOnly));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 100);
    calls.settle(&ingestion, &server);
}

fn becomes_read_only(dir: &Path) {
    let server = Server::start();
    let (ingestion, told) = listening(small(&server, dir));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 10);
    ingestion.blocking_flush(PATIENT).unwrap();
    let found = |dir: &Path| dir.read_dir().unwrap().next().unwrap().unwrap().path();
    let namespace = found(&dir.join("dodo-ingestion"));
    let spools = namespace.join("spools");
    let dirs = [found(&spools), spools, namespace];
    let chmod = |mode| {
        for dir in &dirs {
            fs::set_permissions(dir, PermissionsExt::from_mode(mode)).unwrap();
        }
    };
    for _ in 0..2 {
        chmod(0o500);
        // The segment that is open takes more; the next cannot be begun.
        eventually("a call is refused", || (0..100).any(|_| !calls.track(&ingestion)));
        hears(&told, AlarmKind::Storage);
        chmod(0o700);
        eventually("a call is accepted", || calls.track(&ingestion));
        calls.track_all(&ingestion, 50);
        ingestion.blocking_flush(PATIENT).unwrap();
    }
    calls.settle(&ingestion, &server);
}

fn becomes_read_only_by_itself(disk: &Path) {
    let server = Server::start();
    let (ingestion, told) = listening(small(&server, disk).linger(NEVER));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 10);
    ingestion.blocking_flush(PATIENT).unwrap();
    calls.track_all(&ingestion, 10);
    // What an error makes of it, also while files are open.
    if mount(disk, &["-o", "remount,abort,errors=remount-ro"]).is_none() {
        std::process::exit(0);
    }
    let mut more = 0;
    eventually("a call is refused", || match ingestion.track_api_call(ApiCall::new("cus_1")) {
        Ok(_) => {
            more += 1;
            false
        }
        Err(error) => error.kind() == ErrorKind::Storage,
    });
    hears(&told, AlarmKind::Storage);
    let error = ingestion.blocking_close(Duration::from_secs(2)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Storage | ErrorKind::Timeout), "{error}");
    assert_eq!(server.billed(), 10, "an attempt is written down before it is made");
    assert_eq!(ingestion.stats().spooled, 10 + more, "what was accepted is kept");
}
