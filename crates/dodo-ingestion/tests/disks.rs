//! Real disks that are full, read-only, removed or replaced while the process runs. Each runs in a
//! child with mounts of its own. What cannot be mounted here is said to be not tested.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[path = "support/child.rs"]
mod child;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use child::{Child, not_tested, say};
use dodo_ingestion::{AlarmKind, ApiCall, Builder, Durability, ErrorKind, Ingestion};
use support::{Server, client};
use tempfile::tempdir;

const PATIENT: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65_534;

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a role in a directory of its own, by a command that ends in this test binary.
fn run(mut command: Command, role: &str, dir: &Path) {
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
fn in_own_mounts(role: &str) {
    let dir = tempdir().unwrap();
    let can = Command::new("unshare").args(["-m", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return not_tested(role, "a child can have no mounts of its own");
    }
    let mut command = Command::new("unshare");
    command.arg("-m").arg(std::env::current_exe().unwrap());
    run(command, role, dir.path());
}

#[test]
fn a_tmpfs_that_is_full() {
    in_own_mounts("full tmpfs");
}

#[test]
fn an_ext4_that_is_full() {
    in_own_mounts("full ext4");
}

#[test]
fn a_containers_layer_is_told_once() {
    in_own_mounts("overlay");
}

/// The signal that a write beyond the limit raises is ignored, as hosts that have such a limit do.
#[test]
fn a_file_that_may_grow_no_more() {
    let dir = tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""]);
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
        }
        "overlay" => {
            let Some(disk) = mount_overlay(&dir) else { return };
            container_layer(&disk);
        }
        "file limit" => file_limit(&dir),
        "read-only from the start" => read_only_from_the_start(&dir),
        "becomes read-only" => becomes_read_only(&dir),
        other => panic!("no role {other}"),
    }
    say("done");
}

fn mount(dir: &Path, args: &[&str]) -> Option<PathBuf> {
    fs::create_dir_all(dir).unwrap();
    let output = Command::new("mount").args(args).arg(dir).output().unwrap();
    if !output.status.success() {
        say(&format!("impossible: mount {args:?}: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(dir.to_owned())
}

fn mount_tmpfs(dir: &Path) -> Option<PathBuf> {
    mount(&dir.join("disk"), &["-t", "tmpfs", "-o", "size=3m", "none"])
}

fn mount_ext4(dir: &Path) -> Option<PathBuf> {
    let image = dir.join("image");
    fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
    if !made.is_ok_and(|output| output.status.success()) {
        say("impossible: no mkfs.ext4");
        return None;
    }
    mount(&dir.join("disk"), &["-o", "loop", image.to_str().unwrap()])
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
        for size in [65_536, 4_096, 512, 1] {
            while file.write_all(&vec![0xaa; size]).is_ok() {}
        }
        _ = file.sync_all();
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

type Told = Arc<Mutex<Vec<AlarmKind>>>;

fn listening(builder: Builder) -> (Ingestion, Told) {
    let told = Told::default();
    let sink = told.clone();
    let builder = builder.on_alarm(move |alarm| sink.lock().unwrap().push(alarm.kind));
    (builder.build().unwrap(), told)
}

fn hears(told: &Told, kind: AlarmKind) {
    eventually(kind.as_str(), || told.lock().unwrap().contains(&kind));
}

/// A client whose segments are small.
fn small(server: &Server, dir: &Path) -> Builder {
    client(server, dir).max_spool_bytes(1 << 20).request_timeout(Duration::from_secs(5))
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
    calls.settle(&ingestion, &server);
}

fn full_at_the_cursor(disk: &Path) {
    let server = Server::start();
    let (ingestion, told) = listening(small(&server, disk).linger(Duration::from_secs(300)));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 1);
    // The sender has taken up the spool, and has nothing to write yet.
    std::thread::sleep(Duration::from_secs(2));
    let ballast = Ballast::fill(disk);
    // The record of the flush goes where the first has left room, and the cursor where it has room
    // of its own; what is sent without having been written down is none.
    match ingestion.blocking_flush(Duration::from_secs(2)) {
        Ok(()) => assert_eq!(server.billed(), 1),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            hears(&told, AlarmKind::Storage);
            assert_eq!(server.requests(), 0, "an attempt is written down before it is made");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Storage),
    }
    ballast.free();
    eventually("a call is accepted", || calls.track(&ingestion));
    calls.settle(&ingestion, &server);
}

fn full_at_a_dead_letter(disk: &Path) {
    let server = Server::start();
    server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
    let (ingestion, told) = listening(small(&server, disk).linger(Duration::from_secs(300)));
    let mut calls = Calls::default();
    calls.track_all(&ingestion, 5);
    ingestion.blocking_flush(PATIENT).unwrap();
    let bad = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
    calls.track_all(&ingestion, 5);
    let ballast = Ballast::fill(disk);
    let flushed = ingestion.blocking_flush(Duration::from_secs(2)).unwrap_err();
    if flushed.kind() == ErrorKind::Timeout {
        hears(&told, AlarmKind::Storage);
    }
    assert_eq!(ingestion.stats().dead_lettered, 0, "it is not set aside before it is written down");
    ballast.free();
    eventually("a call is accepted", || calls.track(&ingestion));
    ingestion.blocking_flush(PATIENT).unwrap();
    let error = bad.blocking_delivered(PATIENT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let namespaces = disk.join("dodo-ingestion").read_dir().unwrap();
    let letters = namespaces.flatten().filter_map(|namespace| {
        fs::read_to_string(namespace.path().join("dead-letters.jsonl")).ok()
    });
    let letters: String = letters.collect();
    let is_it = |line: &&str| {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        letter["event"]["customer_id"] == "cus_unknown"
    };
    assert_eq!(letters.lines().filter(is_it).count(), 1, "{letters}");
    calls.settle(&ingestion, &server);
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
    hears(&told, AlarmKind::Storage);
    // One at the end of each of a handful of files.
    assert!((1..50).contains(&calls.refused.len()), "{} refused", calls.refused.len());
    calls.settle(&ingestion, &server);
}

fn read_only_from_the_start(dir: &Path) {
    let server = Server::start();
    fs::set_permissions(dir, PermissionsExt::from_mode(0o500)).unwrap();
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
