//! Test binaries that run themselves again as processes which play a role. A process that hangs is
//! ended by its alarm, which fails its test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(unsafe_code, reason = "fork has no safe form")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use dodo_ingestion::{ApiCall, Builder, Ingestion, Receipt};
use tempfile::{TempDir, tempdir};

use crate::support::Server;

/// No process of a test lives longer.
const WATCHDOG_SECONDS: u32 = 120;
/// Calls with it are not due while a test runs, unless something makes them.
pub const NEVER: Duration = Duration::from_secs(300);

/// Runs this test binary again as a process that plays one role.
pub struct Role {
    pub process: Child,
    said: BufReader<ChildStdout>,
}

impl Role {
    pub fn start(role: &str, server: &Server, dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture", "--test-threads=1"])
            .env("TEST_ROLE", role)
            .env("TEST_URL", server.url())
            .env("TEST_DIR", dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// The next line that the role says.
    pub fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the role ended");
            if let Some((_, said)) = line.split_once("role: ") {
                return said.trim().to_owned();
            }
        }
    }

    pub fn end(mut self) -> ExitStatus {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        self.process.wait().unwrap()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Plays a role to its end.
pub fn play(role: &str, server: &Server, dir: &Path) {
    let status = Role::start(role, server, dir).end();
    assert!(status.success(), "{role}: {status}");
}

pub fn stage() -> (Server, TempDir) {
    (Server::start(), tempdir().unwrap())
}

/// The directories of the spools.
pub fn spools(dir: &Path) -> Vec<PathBuf> {
    let namespace = dir.join("dodo-ingestion").read_dir().unwrap().next().unwrap().unwrap();
    let spools = namespace.path().join("spools").read_dir().unwrap();
    spools.map(|spool| spool.unwrap().path()).collect()
}

// What the roles are made of.

/// The role that this process plays, if any.
pub fn own_role() -> Option<String> {
    let role = std::env::var("TEST_ROLE").ok()?;
    watch_over_this_process();
    Some(role)
}

pub fn dir() -> PathBuf {
    std::env::var_os("TEST_DIR").unwrap().into()
}

pub fn builder() -> Builder {
    Ingestion::builder("sk_test_canary")
        .event_name("api_call")
        .base_url(std::env::var("TEST_URL").unwrap())
        .spool_dir(dir())
        .linger(Duration::from_millis(20))
        .requests_per_minute(10_000_u32)
        .requests_per_second(1_000_u32)
}

pub fn open() -> Ingestion {
    builder().build().unwrap()
}

pub fn track(ingestion: &Ingestion, calls: usize) -> Vec<Receipt> {
    (0..calls).map(|_| ingestion.track_api_call(ApiCall::new("cus_1")).unwrap()).collect()
}

/// Says a line to the test. Standard output's lock may be held by a thread that a child lacks.
pub fn say(text: &str) {
    let line = format!("\nrole: {text}\n");
    // SAFETY: the pointer and the length are of `line`.
    let written = unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    assert_eq!(written, line.len() as isize);
}

fn watch_over_this_process() {
    // SAFETY: ends this process when it is over.
    unsafe { libc::alarm(WATCHDOG_SECONDS) };
}

/// Forks; the child does its work and ends, with status 0 if it did not panic.
pub fn fork(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: that a child works with more than one thread's remains is what is tested.
    let child = unsafe { libc::fork() };
    if child == 0 {
        watch_over_this_process();
        let done = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: ends the child, which must not return into the test harness.
        unsafe { libc::_exit(i32::from(done.is_err())) }
    }
    assert!(child > 0);
    child
}

pub fn wait_for(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` has room for what is written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "status {status:#x} of a child; 0xe is that it hung");
}

pub fn in_child(work: impl FnOnce()) {
    wait_for(fork(work));
}

pub fn parent_id() -> libc::pid_t {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getppid() }
}
