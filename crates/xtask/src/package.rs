//! `package`: what people without Rust install, built into `dist/`.
//!
//! [`PACKAGES`] lists what there is to pack. A package's manifest in the tree says nothing that is said elsewhere: the
//! version is the workspace's, the platforms are those of [`platform`].

mod dodometer;
mod maturin;
mod node;
mod notices;
mod npm;
pub(crate) mod platform;
mod python;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;

use crate::process::Log;
use crate::system;
use crate::venv::Venv;
use crate::workspace::Workspace;
use platform::Platform;

/// The version of everything in the tree.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The profile of what is published.
pub(crate) const PUBLISHED: &str = "dist";

/// The profile of what the tests have built, and only try.
const TRIED: &str = "dev";

/// A linker that can link against an older C library than this machine has, and for other processors.
const ZIG: &str = "ziglang==0.15.2";

/// A build of everything with full optimisation on a slow machine.
const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

struct Package {
    name: &'static str,
    pack: fn(&mut Packing<'_>) -> Result<()>,
}

const PACKAGES: &[Package] = &[
    Package { name: "dodometer", pack: dodometer::pack },
    Package { name: "python", pack: python::pack },
    Package { name: "node", pack: node::pack },
];

/// Arguments of `cargo xtask package`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to pack; everything by default
    #[arg(value_parser = PossibleValuesParser::new(PACKAGES.iter().map(|package| package.name)))]
    packages: Vec<String>,
    /// The cargo profile; with `dev` it is quick, and runs on machines like this one only
    #[arg(long, default_value = PUBLISHED)]
    profile: String,
    /// The platform to build for, by Rust's name; by default this one
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

/// What packing works with.
pub(crate) struct Packing<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a mut Log,
    /// Where the packages go.
    pub(crate) out: PathBuf,
    pub(crate) profile: &'a str,
    pub(crate) platform: &'static Platform,
    /// Whether this machine can run what it builds.
    pub(crate) native: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let host = Platform::host();
    let (platform, native) = match &options.target {
        Some(target) => {
            let platform = Platform::of(target)?;
            (platform, host.is_ok_and(|host| host == platform))
        }
        None => (host?, true),
    };
    ensure!(native || options.profile != TRIED, "the profile {TRIED} is for this machine only");
    let out = workspace.path("dist");
    let mut log = Log::create(workspace.cache("log").join("package.log"), true)?;
    let profile = &options.profile;
    let mut packing =
        Packing { workspace, log: &mut log, out: out.clone(), profile, platform, native };
    packing.begin()?;
    let all = options.packages.is_empty();
    for package in PACKAGES {
        if all || options.packages.iter().any(|name| name == package.name) {
            (package.pack)(&mut packing)?;
        }
    }
    println!("\n{}", listing(&out)?);
    Ok(ExitCode::SUCCESS)
}

impl<'a> Packing<'a> {
    /// Everything for this machine, quickly, into a directory of the caller's.
    pub(crate) fn for_tests(
        workspace: &'a Workspace,
        log: &'a mut Log,
        out: PathBuf,
    ) -> Result<()> {
        let platform = Platform::host()?;
        let mut packing = Packing { workspace, log, out, profile: TRIED, platform, native: true };
        packing.begin()?;
        PACKAGES.iter().try_for_each(|package| (package.pack)(&mut packing))
    }

    /// What lies there from another time is not handed out again.
    fn begin(&self) -> Result<()> {
        anew(&self.out)
    }

    /// Whether it is for other machines than this one.
    fn published(&self) -> bool {
        self.profile != TRIED
    }

    /// Whether zig links it.
    fn zig(&self) -> bool {
        self.published() && self.platform.libc.is_some()
    }

    /// Python tools, each in the form `name==version`.
    fn tools(&mut self, requirements: &[&str]) -> Result<Venv> {
        let venv = Venv::new(self.workspace, "packaging");
        let zig = self.zig().then_some(ZIG);
        let all: Vec<&str> = requirements.iter().copied().chain(zig).collect();
        venv.provide(self.workspace, self.log, &all)?;
        Ok(venv)
    }

    /// `PATH`, where zig is looked for with the first Python that is found.
    fn path(&mut self) -> Result<OsString> {
        let path = system::path(self.workspace)?;
        if !self.zig() {
            return Ok(path);
        }
        let programs = self.tools(&[])?.programs();
        Ok(std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path)))?)
    }

    fn run(&mut self, mut command: Command) -> Result<()> {
        self.log.run(&mut command, LIMIT)
    }

    /// An empty directory to put a package together in.
    fn stage(&self, name: &str) -> Result<PathBuf> {
        let directory = self.workspace.cache("package").join(name);
        anew(&directory)?;
        Ok(directory)
    }
}

fn anew(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(directory),
    }
    .with_context(|| directory.display().to_string())
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(directory)?;
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file?.path()),
        _ => bail!("{} does not hold one file", directory.display()),
    }
}

/// Lets a file be run.
#[cfg(unix)]
fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| file.display().to_string())
}

#[cfg(not(unix))]
fn executable(file: &Path) -> Result<()> {
    fs::metadata(file).map(drop).with_context(|| file.display().to_string())
}

/// The files of a directory with their sizes.
fn listing(directory: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let size = entry.metadata()?.len() as f64 / 1e6;
            lines.push(format!("{size:8.1} MB  {}", entry.path().display()));
        }
    }
    lines.sort_by(|one, other| one[8..].cmp(&other[8..]));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest that has to say the version itself says the workspace's.
    #[test]
    fn there_is_one_version() {
        let workspace = Workspace::locate().unwrap();
        for (manifest, line) in [
            ("python/pyproject.toml", format!("version = \"{VERSION}\"")),
            ("node/package.json", format!("  \"version\": \"{VERSION}\",")),
            ("bindings/uniffi/kotlin/pom.xml", format!("  <version>{VERSION}</version>")),
        ] {
            let text = fs::read_to_string(workspace.path(manifest)).unwrap();
            assert!(text.lines().any(|known| known.trim_end() == line), "{manifest}: no {line}");
        }
        let kotlin = workspace.path("bindings/uniffi/kotlin/README.md");
        let artifact = format!("`com.dodopayments:ingestion:{VERSION}`");
        assert!(fs::read_to_string(kotlin).unwrap().contains(&artifact), "no {artifact}");
        let own = fs::read_to_string(workspace.path("crates/dodometer/npm/package.json")).unwrap();
        assert!(
            !own.contains("\"version\""),
            "the launcher's version is written when it is packed"
        );
    }

    #[test]
    fn a_directory_begins_empty() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a").join("b");
        anew(&inner).unwrap();
        fs::write(inner.join("old"), "").unwrap();
        anew(&inner).unwrap();
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    }
}
