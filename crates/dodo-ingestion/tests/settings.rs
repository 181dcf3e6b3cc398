//! What one process of an account leaves for the next: its settings, and calls that nobody delivers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dodo_ingestion::{AlarmKind, ApiCall, Builder, Ingestion, LatePolicy};
use support::{Server, client, eventually};
use tempfile::tempdir;

const OLD_KEY: &str = "sk_test_old_canary";
const NEW_KEY: &str = "sk_test_new_canary";
const PATIENT: Duration = Duration::from_secs(60);

type Told = Vec<(AlarmKind, String)>;

/// Builds a client; returns what was told by then.
fn open(builder: Builder) -> (Ingestion, Told) {
    let told: Arc<Mutex<Told>> = Arc::default();
    let sink = told.clone();
    let builder = builder.on_alarm(move |alarm| {
        sink.lock().unwrap().push((alarm.kind, alarm.message.clone()));
    });
    let ingestion = builder.build().unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    (ingestion, told)
}

/// What a client is told of this when it is built, and closed again.
fn told_of(kind: AlarmKind, builder: Builder) -> Vec<String> {
    let (ingestion, told) = open(builder);
    ingestion.blocking_close(PATIENT).unwrap();
    told.into_iter().filter(|(told, _)| *told == kind).map(|(_, message)| message).collect()
}

fn root(dir: &Path) -> PathBuf {
    dir.join("dodo-ingestion")
}

/// The directories of the namespaces.
fn namespaces(dir: &Path) -> Vec<PathBuf> {
    root(dir).read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn another_key_or_other_settings_than_those_of_the_last_process_are_told_once() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let with = |key: &str| client(&server, dir.path()).api_key(key).account("business");
    let differ = |builder| told_of(AlarmKind::SettingsDiffer, builder);
    for _ in 0..2 {
        assert_eq!(differ(with(OLD_KEY)), Vec::<String>::new());
    }
    let [rotated] = &differ(with(NEW_KEY))[..] else { panic!("told once") };
    assert!(rotated.starts_with(
        "another key or other settings than the last process of this account used: api_key. "
    ));
    let changed = || with(NEW_KEY).late(LatePolicy::DeadLetter).max_spool_bytes(2 << 20);
    let [changed_now] = &differ(changed())[..] else { panic!("told once") };
    assert!(
        changed_now.contains(
            "used: late \"restamp\" before, \"dead_letter\" now; \
             max_spool_bytes 1073741824 before, 2097152 now. "
        ),
        "{changed_now}"
    );
    assert_eq!(differ(changed()), Vec::<String>::new());

    let settings = namespaces(dir.path())[0].join("settings");
    let written = fs::read_to_string(&settings).unwrap();
    let object: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(object["late"], "dead_letter");
    assert_eq!(object["api_key_digest"].as_str().unwrap().len(), 12);
    for text in [&written, rotated, changed_now] {
        assert!(!text.contains("canary"), "{text}");
    }
    // One that is damaged tells nothing, and is replaced.
    for damaged in ["", "{\"late\":", "[]", "\u{0}\u{0}"] {
        fs::write(&settings, damaged).unwrap();
        assert_eq!(differ(changed()), Vec::<String>::new());
        assert_eq!(fs::read_to_string(&settings).unwrap(), written);
    }
}

#[test]
fn settings_that_cannot_be_read_or_written_are_told_and_calls_are_billed() {
    for in_the_way in ["settings", "settings.new"] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        client(&server, dir.path()).build().unwrap().blocking_close(PATIENT).unwrap();
        let namespace = namespaces(dir.path()).remove(0);
        fs::remove_file(namespace.join("settings")).unwrap();
        fs::create_dir(namespace.join(in_the_way)).unwrap();
        let (ingestion, told) = open(client(&server, dir.path()));
        let words = "cannot be compared";
        assert!(
            told.iter()
                .any(|(kind, message)| { *kind == AlarmKind::Storage && message.contains(words) })
        );
        ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
        ingestion.blocking_close(PATIENT).unwrap();
        eventually("the call is billed", || server.billed() == 1);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() { copy(&path, &to) } else { _ = fs::copy(&path, &to).unwrap() }
    }
}

fn track(ingestion: &Ingestion, calls: usize) {
    for _ in 0..calls {
        ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    }
}

#[test]
fn calls_that_no_process_delivers_are_told_of_with_the_way_out() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let with = |key: &str| client(&server, dir.path()).api_key(key);
    let abandoned = |builder| told_of(AlarmKind::Abandoned, builder);
    let none = Vec::<String>::new();

    let old = with(OLD_KEY).linger(Duration::from_secs(300)).build().unwrap();
    let namespace = namespaces(dir.path()).remove(0);
    let name = namespace.file_name().unwrap().to_str().unwrap().to_owned();
    let (prefix, account) = name.rsplit_once('-').unwrap();
    track(&old, 5);
    old.blocking_flush(PATIENT).unwrap();
    // What a process leaves that is killed when it has delivered everything.
    let left = root(dir.path()).join(format!("{prefix}-killed"));
    copy(&namespace, &left);
    assert_eq!(abandoned(with(NEW_KEY)), none);
    fs::remove_dir_all(&left).unwrap();

    track(&old, 5);
    assert_eq!(abandoned(with(NEW_KEY)), none, "a process of that account runs");
    copy(&namespace, &left);
    let [told] = &abandoned(with(NEW_KEY))[..] else { panic!("told once") };
    let expected = format!("{} (about 2 KiB)", left.display());
    assert!(told.starts_with("calls of another account wait, and no process of it runs"), "{told}");
    assert!(told.ends_with(&expected), "{told}");
    fs::remove_dir_all(&left).unwrap();

    // The key is rotated before the last calls were delivered, and the account has no name.
    server.stop();
    old.blocking_close(Duration::ZERO).unwrap_err();
    drop(old);
    let mut told = none.clone();
    eventually("the engine lets go, and it is told", || {
        told = abandoned(with(NEW_KEY));
        !told.is_empty()
    });
    assert!(told[0].contains(&namespace.display().to_string()), "{told:?}");
    assert!(told.len() == 1 && !told[0].contains("canary"), "{told:?}");

    let server = Server::start_on(server.address, server.state.clone());
    let next = with(NEW_KEY).account(account).build().unwrap();
    eventually("the old calls are billed", || server.billed() == 10);
    let spools = || namespace.join("spools").read_dir().unwrap().count();
    eventually("the old client's spool is settled, and only the next one's is left", || {
        spools() == 1
    });
    next.blocking_close(PATIENT).unwrap();
    assert_eq!(abandoned(with(NEW_KEY)), none);
}

#[test]
#[cfg(unix)]
fn what_lies_beside_a_namespace_and_is_not_ours_is_not_looked_at() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let builder = client(&server, dir.path()).linger(Duration::from_secs(300));
    let ingestion = builder.build().unwrap();
    track(&ingestion, 5);
    let namespace = namespaces(dir.path()).remove(0);
    let elsewhere = dir.path().join("elsewhere");
    copy(&namespace, &elsewhere);
    let beside = root(dir.path()).join("beside");
    std::os::unix::fs::symlink(&elsewhere, &beside).unwrap();
    let other = || client(&server, dir.path()).account("other");
    assert_eq!(told_of(AlarmKind::Abandoned, other()), Vec::<String>::new());
    fs::remove_file(&beside).unwrap();
    fs::rename(&elsewhere, &beside).unwrap();
    assert_eq!(told_of(AlarmKind::Abandoned, other()).len(), 1);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&beside, Some(65_534), None).unwrap();
        assert_eq!(told_of(AlarmKind::Abandoned, other()), Vec::<String>::new());
    }
    ingestion.blocking_close(PATIENT).unwrap();
}
