//! Where no thread can be started, as at a limit of processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[path = "support/child.rs"]
mod child;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use child::Child;
use dodo_ingestion::{AlarmKind, ApiCall, Ingestion};
use rustix::process::{Resource, getrlimit, setrlimit};
use support::{PATIENT, Server, eventually};
use tempfile::tempdir;

/// Root has no limit of processes.
const NOBODY: u32 = 65_534;

fn may_start_threads(may: bool) {
    let mut limit = getrlimit(Resource::Nproc);
    limit.current = if may { limit.maximum } else { Some(1) };
    setrlimit(Resource::Nproc, limit).unwrap();
}

/// What the child does. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    if std::env::var("CHILD_ROLE").is_err() {
        return;
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let build = || {
        let sink = told.clone();
        Ingestion::builder("sk_test_canary")
            .event_name("api_call")
            .base_url(std::env::var("CHILD_URL").unwrap())
            .spool_dir(std::env::var("CHILD_DIR").unwrap())
            .linger(Duration::ZERO)
            .on_alarm(move |alarm| sink.lock().unwrap().push((alarm.kind, alarm.message.clone())))
            .build()
    };
    may_start_threads(false);
    let error = build().unwrap_err();
    assert!(error.message().contains("thread cannot be started: "), "{error}");
    may_start_threads(true);
    let ingestion = build().unwrap();
    may_start_threads(false);
    ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    eventually("the alarm", || !told.lock().unwrap().is_empty());
    let (kind, message) = told.lock().unwrap()[0].clone();
    assert_eq!(kind, AlarmKind::Unreachable, "{message}");
    assert!(message.contains("no thread can be started"), "{message}");
    may_start_threads(true);
    ingestion.blocking_close(PATIENT).unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
    std::process::exit(0);
}

#[test]
fn a_host_that_cannot_be_looked_up_for_want_of_a_thread_is_unreachable_for_so_long() {
    let (server, dir) = (Server::start(), tempdir().unwrap());
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let url = server.url().replace("127.0.0.1", "localhost");
    let mut command = Command::new(std::env::current_exe().unwrap());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let env = [("CHILD_URL", url), ("CHILD_DIR", dir.path().display().to_string())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_ref()));
    Child::run(command, "child_process", "look up", &env).succeeds();
    assert_eq!(server.billed(), 1);
}
