//! The platforms for which there are packages. The dependencies of npm's packages are made of this table, and a test
//! compares it with what the release workflow builds.

use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::process;

/// A platform, as Rust and as npm name it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// Rust's name
    pub(crate) target: &'static str,
    /// npm's packages are `@<main package>/<name>`, as `crates/dodometer/npm` and `node/src/load.ts` look for them.
    pub(crate) name: &'static str,
    /// What npm compares with `process.platform`
    pub(crate) os: &'static str,
    /// What npm compares with `process.arch`
    pub(crate) cpu: &'static str,
    /// On Linux: `glibc` or `musl`
    pub(crate) libc: Option<&'static str>,
}

/// The oldest C library that what is published for Linux runs with, where it is not musl.
pub(crate) const GLIBC: (u32, u32) = (2, 17);

#[rustfmt::skip]
pub(crate) const PLATFORMS: &[Platform] = &[
    Platform { target: "x86_64-unknown-linux-gnu", name: "linux-x64-gnu", os: "linux", cpu: "x64", libc: Some("glibc") },
    Platform { target: "x86_64-unknown-linux-musl", name: "linux-x64-musl", os: "linux", cpu: "x64", libc: Some("musl") },
    Platform { target: "aarch64-unknown-linux-gnu", name: "linux-arm64-gnu", os: "linux", cpu: "arm64", libc: Some("glibc") },
    Platform { target: "aarch64-unknown-linux-musl", name: "linux-arm64-musl", os: "linux", cpu: "arm64", libc: Some("musl") },
    Platform { target: "x86_64-apple-darwin", name: "darwin-x64", os: "darwin", cpu: "x64", libc: None },
    Platform { target: "aarch64-apple-darwin", name: "darwin-arm64", os: "darwin", cpu: "arm64", libc: None },
    Platform { target: "x86_64-pc-windows-msvc", name: "win32-x64-msvc", os: "win32", cpu: "x64", libc: None },
];

impl Platform {
    pub(crate) fn of(target: &str) -> Result<&'static Self> {
        PLATFORMS.iter().find(|platform| platform.target == target).ok_or_else(|| {
            let known: Vec<&str> = PLATFORMS.iter().map(|platform| platform.target).collect();
            anyhow!("there are no packages for {target}, only for {}", known.join(", "))
        })
    }

    /// Where rustc builds for by itself.
    pub(crate) fn host() -> Result<&'static Self> {
        let version = process::capture(Command::new("rustc").arg("-vV"))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        Self::of(host.context("rustc does not name its host")?)
    }

    /// The name of npm's package with what another one needs here.
    pub(crate) fn package(&self, of: &str) -> String {
        format!("@{of}/{}", self.name)
    }

    /// The name of the program's file.
    pub(crate) fn executable(&self) -> &'static str {
        if self.os == "win32" { "dodometer.exe" } else { "dodometer" }
    }

    /// The file name of a C dynamic library, by the name of its crate.
    pub(crate) fn library(&self, krate: &str) -> String {
        let name = krate.replace('-', "_");
        match self.os {
            "win32" => format!("{name}.dll"),
            "darwin" => format!("lib{name}.dylib"),
            _ => format!("lib{name}.so"),
        }
    }

    /// The oldest C library that a wheel promises to run with, in the words of Python's packagers.
    pub(crate) fn policy(&self) -> Option<&'static str> {
        match self.libc {
            Some("musl") => Some("musllinux_1_2"),
            Some(_) => Some("manylinux2014"), // GLIBC
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn the_release_workflow_builds_every_platform() {
        let workflow = Workspace::locate().unwrap().path(".github/workflows/release.yml");
        let text = std::fs::read_to_string(workflow).unwrap();
        let built: BTreeSet<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("- target: ")).collect();
        let known: BTreeSet<&str> = PLATFORMS.iter().map(|platform| platform.target).collect();
        assert_eq!(built, known);
    }

    #[test]
    fn names_are_what_node_says_of_itself() {
        for Platform { name, os, cpu, .. } in PLATFORMS {
            assert!(name.starts_with(&format!("{os}-{cpu}")), "{name}");
        }
        assert_eq!(Platform::of("x86_64-unknown-linux-musl").unwrap().name, "linux-x64-musl");
        assert!(Platform::of("riscv64gc-unknown-linux-gnu").is_err());
    }
}
