//! What one process of an account leaves for the next: its settings, and calls that nobody delivers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use child::{Child, say};
use dodo_ingestion::{AlarmKind, ApiCall, Builder, ErrorKind, Ingestion, LatePolicy};
use support::{PATIENT, Server, client, eventually};
use tempfile::tempdir;

const OLD_KEY: &str = "sk_test_old_canary";
const NEW_KEY: &str = "sk_test_new_canary";

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

/// What the files of a directory take.
fn bytes(dir: &Path) -> u64 {
    let entries = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { bytes(&path) } else { path.metadata().unwrap().len() })
        .sum()
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
    let expected =
        format!("{} (about {} KiB)", left.display(), bytes(&left.join("spools")).div_ceil(1024));
    assert!(
        told.starts_with("calls of another account, environment or address wait, and no"),
        "{told}"
    );
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

/// So old that the sender's `late` decides about it.
fn late_call() -> ApiCall {
    ApiCall::new("cus_1").timestamp(SystemTime::now() - Duration::from_secs(58 * 60))
}

fn other_process(role: &str, server: &Server, dir: &Path) -> Child {
    let env = [("CHILD_URL", server.url()), ("CHILD_DIR", dir.display().to_string())];
    Child::of("child_process", role, &env.each_ref().map(|(name, value)| (*name, value.as_ref())))
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    let builder = Ingestion::builder("sk_test_canary")
        .event_name("api_call")
        .base_url(std::env::var("CHILD_URL").unwrap())
        .spool_dir(std::env::var("CHILD_DIR").unwrap())
        .linger(Duration::ZERO);
    let builder = match role.as_str() {
        "sets aside" => builder.late(LatePolicy::DeadLetter).requests_per_minute(1_u32),
        "restamps" => builder.late(LatePolicy::Restamp).requests_per_minute(1_u32),
        "has little room" => builder.max_spool_bytes(1 << 20),
        other => panic!("no role {other}"),
    };
    let (ingestion, told) = open(builder);
    assert!(told.iter().any(|(kind, _)| *kind == AlarmKind::SettingsDiffer), "{told:?}");
    if role == "has little room" {
        return say(ingestion.track_api_call(ApiCall::new("cus_1")).unwrap_err().kind().as_str());
    }
    let late = ingestion.track_api_call(late_call()).unwrap();
    match late.blocking_delivered(PATIENT) {
        Ok(()) => say("billed"),
        Err(error) => say(error.kind().as_str()),
    }
    for _ in 0..5 {
        ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
        ingestion.blocking_flush(PATIENT).unwrap();
    }
    assert_eq!(ingestion.stats().requests, 0, "the other process is the sender");
    ingestion.blocking_close(PATIENT).unwrap();
}

#[test]
fn of_two_living_processes_the_senders_settings_hold_for_what_is_sent() {
    for (late, role, expected, billed) in [
        (LatePolicy::Restamp, "sets aside", "billed", 7),
        (LatePolicy::DeadLetter, "restamps", ErrorKind::Rejected.as_str(), 6),
    ] {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        let sender = client(&server, dir.path()).late(late).build().unwrap();
        sender.track_api_call(ApiCall::new("cus_1")).unwrap().blocking_delivered(PATIENT).unwrap();
        let mut other = other_process(role, &server, dir.path());
        assert_eq!(other.line(), expected, "{role}");
        // Its five flushes would have taken minutes within its own budget.
        other.succeeds();
        assert_eq!(server.billed(), billed, "{role}");
        sender.blocking_close(PATIENT).unwrap();
    }
}

#[test]
fn of_two_living_processes_each_has_its_own_bound_for_the_room_of_both() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    let builder = client(&server, dir.path()).linger(Duration::from_secs(300));
    let ingestion = builder.max_spool_bytes(64 << 20).build().unwrap();
    let call = || ApiCall::new("cus_1").endpoint("x".repeat(400));
    for _ in 0..4_000 {
        ingestion.track_api_call(call()).unwrap();
    }
    let mut other = other_process("has little room", &server, dir.path());
    assert_eq!(other.line(), ErrorKind::Overflow.as_str());
    other.succeeds();
    ingestion.track_api_call(call()).unwrap();
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(server.billed(), 4_001);
}
