//! Where a spool may lie, who may reach it, and what others planted there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

#[path = "support/child.rs"]
mod child;
mod support;

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use child::{Child, not_tested, say};
use dodo_ingestion::{AlarmKind, ApiCall, ErrorKind, Ingestion};
use rustix::fs::Mode;
use support::{PATIENT, Server, client, eventually};
use tempfile::{TempDir, tempdir};

const NOBODY: u32 = 65_534;
const UNTOUCHED: &str = "not ours to touch";

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

/// Every path at and below a directory. One that is removed meanwhile is found empty.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let listed = dir.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.unwrap(),
    };
    for entry in entries {
        let path = entry.path();
        if path.is_dir() { found.extend(below(&path)) } else { found.push(path) }
    }
    found
}

fn only(dir: &Path) -> PathBuf {
    dir.read_dir().unwrap().next().unwrap().unwrap().path()
}

/// The directory of the one namespace.
fn namespace(dir: &TempDir) -> PathBuf {
    only(&dir.path().join("dodo-ingestion"))
}

/// Has a client make what it makes. Its engine may be at it for a moment longer than its close.
fn open_and_close(server: &Server, dir: &TempDir) {
    client(server, dir.path()).build().unwrap().blocking_close(PATIENT).unwrap();
    let spools = namespace(dir).join("spools");
    eventually("its spool is removed", || spools.read_dir().unwrap().count() == 0);
}

type Told = Arc<Mutex<Vec<(AlarmKind, String)>>>;

fn listening(server: &Server, dir: &Path) -> (Ingestion, Told) {
    let told = Told::default();
    let sink = told.clone();
    let builder = client(server, dir).on_alarm(move |alarm| {
        sink.lock().unwrap().push((alarm.kind, alarm.message.clone()));
    });
    (builder.build().unwrap(), told)
}

fn track(ingestion: &Ingestion, calls: usize) {
    for _ in 0..calls {
        ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    }
}

fn heard(told: &Told, kind: AlarmKind, words: &str) {
    eventually(words, || {
        let told = told.lock().unwrap();
        told.iter().any(|(told, message)| *told == kind && message.contains(words))
    });
}

/// Runs a role in a child, to its end.
fn play(role: &str, server: &Server, dir: &Path, env: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.envs(env.iter().copied());
    start(command, role, server, dir).succeeds();
}

fn start(command: Command, role: &str, server: &Server, dir: &Path) -> Child {
    let env = [("CHILD_URL", server.url()), ("CHILD_DIR", dir.display().to_string())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_ref()));
    Child::run(command, "child_process", role, &env)
}

/// A namespace with a spool that a process left which ended with twenty calls in it.
fn left_behind(server: &Server) -> TempDir {
    let dir = tempdir().unwrap();
    play("leave", server, dir.path(), &[]);
    dir
}

/// Harms the first segment of the only spool below a directory.
fn damage(root: &Path) {
    let segment = only(&only(root).join("spools")).join("segment-0000000000000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    // Behind the last record there may be room for more.
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last / 2] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    let dir = std::env::var("CHILD_DIR").unwrap();
    if let Ok(umask) = std::env::var("CHILD_UMASK") {
        let umask = u32::from_str_radix(&umask, 8).unwrap();
        rustix::process::umask(Mode::from_raw_mode(umask));
    }
    let builder = Ingestion::builder("sk_test_canary")
        .event_name("api_call")
        .base_url(std::env::var("CHILD_URL").unwrap())
        .spool_dir(&dir);
    match role.as_str() {
        "leave" => {
            let ingestion = builder.linger(Duration::from_secs(300)).build().unwrap();
            track(&ingestion, 20);
        }
        "make" => {
            let ingestion = builder.linger(Duration::ZERO).build().unwrap();
            track(&ingestion, 1);
            let refused = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
            refused.blocking_delivered(PATIENT).unwrap_err();
            track(&ingestion, 1);
            let kept = |path: &PathBuf| path.parent().unwrap().ends_with("quarantine");
            eventually("damaged bytes are kept", || below(Path::new(&dir)).iter().any(kept));
            say("made");
        }
        "meet files of another" => {
            let told = Told::default();
            let sink = told.clone();
            let builder = builder.linger(Duration::ZERO).on_alarm(move |alarm| {
                sink.lock().unwrap().push((alarm.kind, alarm.message.clone()));
            });
            let ingestion = builder.build().unwrap();
            track(&ingestion, 20);
            let refused = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
            heard(&told, AlarmKind::Storage, "Permission denied");
            say("heard");
            let error = refused.blocking_delivered(PATIENT).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            ingestion.blocking_close(PATIENT).unwrap();
        }
        other => panic!("no role {other}"),
    }
    std::process::exit(0);
}

#[test]
fn what_is_made_is_its_owners_alone_under_any_umask() {
    for umask in ["000", "022", "077"] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
        let spool_dir = dir.path().join("a/b");
        play("leave", &server, &spool_dir, &[("CHILD_UMASK", umask)]);
        damage(&spool_dir.join("dodo-ingestion"));
        play("make", &server, &spool_dir, &[("CHILD_UMASK", umask)]);
        let found = below(&dir.path().join("a"));
        for path in &found {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(path), expected, "umask {umask}: {}", path.display());
        }
        for name in [
            "sender.lock",
            "starts",
            "settings",
            "room.lock",
            "dead-letters.jsonl",
            "quarantine",
            "owner",
            "cursor",
            "outcomes",
        ] {
            assert!(found.iter().any(|path| path.ends_with(name)), "no {name} in {found:?}");
        }
    }
}

#[test]
fn directories_that_are_open_to_others_are_closed_and_that_is_told_once() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    drop(client(&server, dir.path()).account("a").build().unwrap());
    let root = dir.path().join("dodo-ingestion");
    let namespace = only(&root);
    let open = [root.clone(), namespace.clone(), namespace.join("spools")];
    for (dir, mode) in open.iter().zip([0o755, 0o777, 0o1770]) {
        dir.metadata().unwrap();
        std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).unwrap();
    }
    // The other account's namespace shares the first of the three only.
    let (_other, told) = listening(&server, dir.path());
    heard(&told, AlarmKind::OpenToOthers, "dodo-ingestion had the mode 755");
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&namespace), 0o777);

    let told = Told::default();
    let sink = told.clone();
    let builder = client(&server, dir.path()).account("a").max_spool_bytes(2 << 20);
    let ingestion = builder
        .on_alarm(move |alarm| sink.lock().unwrap().push((alarm.kind, alarm.message.clone())))
        .build()
        .unwrap();
    heard(&told, AlarmKind::OpenToOthers, "had the mode 777");
    heard(&told, AlarmKind::OpenToOthers, "spools had the mode 1770");
    assert_eq!(open.map(|dir| mode(&dir)), [0o700; 3]);
    let is_it = |(kind, _): &&(AlarmKind, String)| *kind == AlarmKind::OpenToOthers;
    assert_eq!(told.lock().unwrap().iter().filter(is_it).count(), 1);
    ingestion.blocking_close(PATIENT).unwrap();
}

#[test]
fn a_directory_that_is_a_link_is_refused_with_the_way_out() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    open_and_close(&server, &dir);
    let namespace = namespace(&dir);
    for place in [dir.path().join("dodo-ingestion"), namespace.clone(), namespace.join("spools")] {
        let (elsewhere, aside) = (tempdir().unwrap(), dir.path().join("aside"));
        std::fs::rename(&place, &aside).unwrap();
        symlink(elsewhere.path(), &place).unwrap();
        let error = client(&server, dir.path()).build().unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::Configuration, Some("spool_dir")));
        assert!(
            error.message().contains(&format!("{} is a symbolic link; remove", place.display()))
        );
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0, "{}", place.display());
        std::fs::remove_file(&place).unwrap();

        std::fs::rename(&aside, &place).unwrap();
    }
    // The place itself may be a link: that is the operator's own.
    let link = dir.path().join("link");
    symlink(dir.path(), &link).unwrap();
    client(&server, &link).build().unwrap().blocking_close(PATIENT).unwrap();
}

#[test]
fn a_directory_of_another_user_is_refused_with_the_way_out() {
    if !rustix::process::geteuid().is_root() {
        return not_tested("a directory of another user", "only root can make one");
    }
    let (server, dir) = (Server::start(), tempdir().unwrap());
    open_and_close(&server, &dir);
    let namespace = namespace(&dir);
    for place in [dir.path().join("dodo-ingestion"), namespace.clone(), namespace.join("spools")] {
        chown(&place, Some(NOBODY), None).unwrap();
        let before = below(&place);
        let error = client(&server, dir.path()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let expected = "belongs to the user 65534 and this process runs as 0; change its owner";
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(below(&place), before, "{}", place.display());
        chown(&place, Some(0), None).unwrap();
    }
}

#[test]
fn links_planted_for_the_senders_files_are_not_followed() {
    for name in ["sender.lock", "starts", "dead-letters.jsonl"] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
        open_and_close(&server, &dir);
        let target = dir.path().join("target");
        std::fs::write(&target, UNTOUCHED).unwrap();
        let planted = namespace(&dir).join(name);
        _ = std::fs::remove_file(&planted);
        symlink(&target, &planted).unwrap();

        let (ingestion, told) = listening(&server, dir.path());
        track(&ingestion, 20);
        let bad = ingestion.track_api_call(ApiCall::new("cus_unknown")).unwrap();
        heard(&told, AlarmKind::Storage, &format!("{name} is a symbolic link"));
        if name != "sender.lock" {
            eventually("the others are billed", || server.billed() == 20);
        }
        assert_eq!(std::fs::read_to_string(&target).unwrap(), UNTOUCHED);

        std::fs::remove_file(&planted).unwrap();
        let error = bad.blocking_delivered(PATIENT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{name}: {error}");
        ingestion.blocking_close(PATIENT).unwrap();
        assert_eq!(server.billed(), 20);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), UNTOUCHED, "{name}");
    }
}

#[test]
fn links_planted_for_what_all_processes_write_are_not_followed() {
    for name in ["settings", "room.lock"] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        open_and_close(&server, &dir);
        let target = dir.path().join("target");
        std::fs::write(&target, UNTOUCHED).unwrap();
        let planted = namespace(&dir).join(name);
        std::fs::remove_file(&planted).unwrap();
        symlink(&target, &planted).unwrap();

        let (ingestion, told) = listening(&server, dir.path());
        heard(&told, AlarmKind::Storage, &format!("{name} is a symbolic link"));
        let call = || ingestion.track_api_call(ApiCall::new("cus_1"));
        if name == "room.lock" {
            // Room for the first segment is taken under it.
            let error = call().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage);
            assert!(error.message().contains("room.lock is a symbolic link"), "{error}");
            std::fs::remove_file(&planted).unwrap();
        }
        eventually("calls are accepted", || call().is_ok());
        ingestion.blocking_close(PATIENT).unwrap();
        assert_eq!(server.billed(), 1);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), UNTOUCHED, "{name}");
    }
}

/// Planted while the directory was open to others.
#[test]
fn files_of_another_user_are_told_of_and_nothing_is_lost() {
    if !rustix::process::geteuid().is_root() {
        return not_tested("a file of another user", "only root can make one");
    }
    for name in ["sender.lock", "starts", "settings", "dead-letters.jsonl"] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        server.state.lock().unwrap().unknown_customer = Some("cus_unknown".into());
        open_and_close(&server, &dir);
        for path in below(dir.path()) {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let planted = namespace(&dir).join(name);
        _ = std::fs::remove_file(&planted);
        std::fs::write(&planted, UNTOUCHED).unwrap();
        std::fs::set_permissions(&planted, PermissionsExt::from_mode(0o600)).unwrap();

        let mut command = Command::new(std::env::current_exe().unwrap());
        command.uid(NOBODY).gid(NOBODY);
        let mut child = start(command, "meet files of another", &server, dir.path());
        assert_eq!(child.line(), "heard", "{name}");
        assert_eq!(std::fs::read_to_string(&planted).unwrap(), UNTOUCHED, "{name}");
        std::fs::remove_file(&planted).unwrap();
        child.succeeds();
        assert_eq!(server.billed(), 20, "{name}");
    }
}

#[test]
fn a_pipe_in_a_files_place_does_not_block() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    open_and_close(&server, &dir);
    let lock = namespace(&dir).join("sender.lock");
    std::fs::remove_file(&lock).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    let (ingestion, told) = listening(&server, dir.path());
    track(&ingestion, 20);
    heard(&told, AlarmKind::Storage, "sender.lock is not a file; remove it");
    std::fs::remove_file(&lock).unwrap();
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(server.billed(), 20);
}

#[test]
fn links_planted_in_a_spool_are_not_followed() {
    for name in ["owner", "cursor", "outcomes", "segment-0000000000000000", ""] {
        let server = Server::start();
        let dir = left_behind(&server);
        let spool = only(&namespace(&dir).join("spools"));
        let planted = if name.is_empty() { spool.clone() } else { spool.join(name) };
        // What would be found behind the link is as it should be: it is the link that counts.
        let target = dir.path().join("target");
        let content = |path: &Path| {
            let file =
                if path.is_dir() { path.join("segment-0000000000000000") } else { path.into() };
            std::fs::read(file).unwrap()
        };
        if planted.exists() {
            std::fs::rename(&planted, &target).unwrap();
        } else {
            std::fs::write(&target, "").unwrap();
        }
        let before = content(&target);
        symlink(&target, &planted).unwrap();

        let (ingestion, told) = listening(&server, dir.path());
        track(&ingestion, 20);
        heard(&told, AlarmKind::Storage, "is a symbolic link and is not followed");
        eventually("this process's calls are billed", || server.billed() == 20);
        assert_eq!(content(&target), before, "{name}");

        if target.is_dir() {
            std::fs::remove_file(&planted).unwrap();
        }
        // In one step: a segment that is missing counts as settled.
        std::fs::rename(&target, &planted).unwrap();
        // What waits goes along with what is due, once it is found.
        let mut calls = 20;
        eventually(&format!("those of the dead are billed: {name}"), || {
            track(&ingestion, 1);
            calls += 1;
            ingestion.blocking_flush(PATIENT).unwrap();
            server.billed() == calls + 20
        });
        ingestion.blocking_close(PATIENT).unwrap();
    }
}

#[test]
fn what_lies_among_the_spools_and_is_none_is_named() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    open_and_close(&server, &dir);
    let planted = namespace(&dir).join("spools/planted");
    std::fs::write(&planted, "").unwrap();
    let (ingestion, told) = listening(&server, dir.path());
    heard(&told, AlarmKind::Storage, &format!("a spool cannot be opened: {}: ", planted.display()));
    track(&ingestion, 1);
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(server.billed(), 1);
}

#[test]
fn a_link_in_place_of_the_quarantine_is_not_followed() {
    let server = Server::start();
    let dir = left_behind(&server);
    damage(&dir.path().join("dodo-ingestion"));
    let elsewhere = tempdir().unwrap();
    symlink(elsewhere.path(), namespace(&dir).join("quarantine")).unwrap();

    let (ingestion, told) = listening(&server, dir.path());
    track(&ingestion, 1);
    heard(&told, AlarmKind::Storage, "quarantine is a symbolic link");
    eventually("all but the damaged call are billed", || server.billed() == 20);
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
    ingestion.blocking_close(PATIENT).unwrap();
}
