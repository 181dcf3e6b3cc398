//! This test binary once more, as a child process.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// A child that runs one test of this binary, which asks for its role in `CHILD_ROLE`.
pub struct Child {
    process: std::process::Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Child {
    pub fn of(test: &str, role: &str, env: &[(&str, &OsStr)]) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), test, role, env)
    }

    /// By a command that ends in this binary, or begins with it.
    pub fn run(mut command: Command, test: &str, role: &str, env: &[(&str, &OsStr)]) -> Self {
        let mut process = command
            .args(["--exact", test, "--nocapture"])
            .env("CHILD_ROLE", role)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        Self { process, out }
    }

    /// The next line that the role says.
    pub fn line(&mut self) -> String {
        self.next_line().expect("the child ended")
    }

    pub fn next_line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once("child: ") {
                return Some(said.trim().to_owned());
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn succeeds(mut self) {
        while self.next_line().is_some() {}
        assert!(self.process.wait().unwrap().success());
    }
}

/// Says a line to the parent.
pub fn say(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "child: {text}").unwrap();
    out.flush().unwrap();
}

/// Says that this test could not do its work on this machine, once a test: xtask counts it as skipped. Goes past the
/// capturing of what tests print.
pub fn not_tested(what: &str, why: &str) {
    std::io::stderr().write_all(format!("NOT TESTED: {what}: {why}\n").as_bytes()).unwrap();
}
