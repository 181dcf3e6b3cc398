//! What only the system can provide: interpreters, compilers, build tools. Probed, and on Debian as root installed.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{self, Log};
use crate::workspace::Workspace;

/// The Node that npm brings where the distribution's own is too old.
pub(crate) const NODE: &str = "22.23.3";
const OLDEST_NODE: u32 = 20;
const OLDEST_PYTHON: (u32, u32) = (3, 10);
const OLDEST_JDK: u32 = 17;

/// Something that a part of the checks cannot be without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Requirement {
    Compiler,
    Python,
    Node,
    Jdk,
    Maven,
    Chromium,
}

impl Requirement {
    /// As a reader would name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Compiler => "C compiler",
            Self::Python => "Python 3.10+ with venv",
            Self::Node => "Node 20+ with npm",
            Self::Jdk => "JDK 17+",
            Self::Maven => "Maven",
            Self::Chromium => "Chromium",
        }
    }

    fn debian(self) -> &'static [&'static str] {
        match self {
            Self::Compiler => &["gcc", "libc6-dev"],
            Self::Python => &["python3", "python3-venv"],
            Self::Node => &["nodejs", "npm"],
            Self::Jdk => &["default-jdk-headless"],
            Self::Maven => &["maven"],
            Self::Chromium => &["chromium"],
        }
    }

    /// Whether it is there and new enough.
    pub(crate) fn probe(self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Compiler => process::capture(Command::new("cc").arg("--version")).map(drop),
            Self::Python => {
                // Debian ships venv in a package of its own, without which ensurepip is missing.
                let script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
                let version = process::capture(Command::new(python()).args(["-c", script]))?;
                let version = numbers(&version);
                ensure!(version >= Some(OLDEST_PYTHON), "found Python {version:?}");
                Ok(())
            }
            Self::Node => {
                let mut node = Command::new("node");
                node.arg("--version").env("PATH", path(workspace)?);
                let version = process::capture(&mut node)?;
                let (major, _) = numbers(&version).context("`node --version` has no number")?;
                ensure!(major >= OLDEST_NODE, "found Node {}", version.trim());
                process::capture(Command::new(script("npm")).arg("--version")).map(drop)
            }
            Self::Jdk => {
                let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
                let javac = home.map_or_else(
                    || PathBuf::from("javac"),
                    |home| Path::new(&home).join("bin").join("javac"),
                );
                let version = process::capture(Command::new(javac).arg("-version"))?;
                let (major, _) = numbers(&version).context("`javac -version` has no number")?;
                ensure!(major >= OLDEST_JDK, "found {}", version.trim());
                Ok(())
            }
            Self::Maven => process::capture(Command::new(script("mvn")).arg("--version")).map(drop),
            Self::Chromium => process::capture(chromium().arg("--version")).map(drop),
        }
    }
}

/// What is still missing after an attempt to install it, with the reason.
pub(crate) type Missing = Vec<(Requirement, anyhow::Error)>;

/// Installs what it can of the requirements, none of which is there, and probes them again.
pub(crate) fn provide(
    workspace: &Workspace,
    requirements: &BTreeSet<Requirement>,
    log: &mut Log,
    tell: &dyn Fn(&str),
) -> Missing {
    if is_debian_root() {
        let packages: Vec<&str> =
            requirements.iter().flat_map(|requirement| requirement.debian()).copied().collect();
        tell(&format!("     system: apt-get install {}", packages.join(" ")));
        // A failure shows in the second probe; its reason is in the log.
        let _ = apt_install(&packages, log);
    }
    let lacks_node = Requirement::Node.probe(workspace).is_err();
    if requirements.contains(&Requirement::Node) && lacks_node && is_there("npm") {
        tell(&format!("     system: npm install node@{NODE} into .cache/node"));
        let _ = npm_install_node(workspace, log, NODE, &workspace.cache("node"));
    }
    let missing = |it: &Requirement| Some((*it, it.probe(workspace).err()?));
    requirements.iter().filter_map(missing).collect()
}

/// What a person would type on Debian and its like.
pub(crate) fn advice(missing: &Missing) -> String {
    let packages: Vec<&str> =
        missing.iter().flat_map(|(requirement, _)| requirement.debian()).copied().collect();
    format!("apt-get install {}", packages.join(" "))
}

/// `PATH` with the Node that was installed into the checkout in front, if there is one.
pub(crate) fn path(workspace: &Workspace) -> Result<std::ffi::OsString> {
    let own = workspace.cache("node").join("node_modules").join("node").join("bin");
    let system = env::var_os("PATH").unwrap_or_default();
    let own = own.is_dir().then_some(own);
    Ok(env::join_paths(own.into_iter().chain(env::split_paths(&system)))?)
}

/// The system's Python.
pub(crate) fn python() -> &'static str {
    if cfg!(windows) { "python" } else { "python3" }
}

/// The system's Chromium, or the program that `CHROMIUM_BIN` names.
fn chromium() -> Command {
    let named = env::var_os("CHROMIUM_BIN").filter(|name| !name.is_empty());
    Command::new(named.unwrap_or_else(|| "chromium".into()))
}

/// The name of a program that is a script, which Windows wants to know.
pub(crate) fn script(name: &str) -> String {
    if cfg!(windows) { format!("{name}.cmd") } else { name.to_owned() }
}

/// Whether this runs as continuous integration, where nothing may be left out.
pub(crate) fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

fn is_there(program: &str) -> bool {
    process::capture(Command::new(script(program)).arg("--version")).is_ok()
}

fn apt_install(packages: &[&str], log: &mut Log) -> Result<()> {
    let limit = Duration::from_secs(15 * 60);
    let mut apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        log.run(&mut command, limit)
    };
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

/// Has npm install a version of Node itself. The program is then `node_modules/node/bin/node` in the directory.
pub(crate) fn npm_install_node(
    workspace: &Workspace,
    log: &mut Log,
    version: &str,
    directory: &Path,
) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = workspace.command(script("npm"));
    command.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
    command.arg(directory).arg(format!("node@{version}")).env("PATH", path(workspace)?);
    log.run(&mut command, Duration::from_secs(5 * 60))
}

fn is_debian_root() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian(&release)
        && process::capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Whether a text in the form of `/etc/os-release` tells of Debian or what descends from it.
fn is_debian(release: &str) -> bool {
    release.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
        matches!(key.trim(), "ID" | "ID_LIKE")
            && value.trim().trim_matches(['"', '\'']).split_whitespace().any(|id| id == "debian")
    })
}

/// The first two numbers of a version, wherever in a text it starts: `v20.1.2`, `javac 17.0.15`, `21`.
pub(crate) fn numbers(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text[start..].split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_descendants_are_known() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nPRETTY_NAME=\"not debian\"\n"));
        assert!(!is_debian("ID=debianoid\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(numbers("v20.20.2\n"), Some((20, 20)));
        assert_eq!(numbers("javac 17.0.15"), Some((17, 0)));
        assert_eq!(numbers("javac 1.8.0_392"), Some((1, 8)));
        assert_eq!(numbers("javac 21"), Some((21, 0)));
        assert_eq!(numbers("21-ea"), Some((21, 0)));
        assert_eq!(numbers("3.10\n"), Some((3, 10)));
        assert_eq!(numbers("none"), None);
    }

    #[test]
    fn advice_names_every_package() {
        let missing: Missing = [Requirement::Jdk, Requirement::Maven]
            .map(|requirement| (requirement, anyhow::anyhow!("not found")))
            .into();
        assert_eq!(advice(&missing), "apt-get install default-jdk-headless maven");
    }
}
