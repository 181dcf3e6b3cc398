//! Python tools in a virtual environment inside the checkout, at pinned versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Log};
use crate::system;
use crate::workspace::Workspace;

/// A wheel may have 100 MB.
const LIMIT: Duration = Duration::from_secs(15 * 60);

const UV: &str = "uv==0.13.9";

/// A virtual environment in `.cache/`.
#[derive(Debug)]
pub(crate) struct Venv {
    directory: PathBuf,
}

impl Venv {
    pub(crate) fn new(workspace: &Workspace, name: &str) -> Self {
        Self { directory: workspace.cache(name) }
    }

    /// Makes the environment where it is not there yet, and installs what it has not got of the requirements, each in
    /// the form `name==version`.
    pub(crate) fn provide(
        &self,
        workspace: &Workspace,
        log: &mut Log,
        requirements: &[&str],
    ) -> Result<()> {
        let uv = uv(workspace, log)?;
        let uv = |args: &[&str]| {
            let mut command = workspace.command(&uv);
            command.args(args).args(["--quiet", "--native-tls"]);
            command.arg("--cache-dir").arg(workspace.cache("uv-cache"));
            command
        };
        if !self.has(&["--version"]) {
            let mut command =
                uv(&["venv", "--clear", "--no-managed-python", "--no-python-downloads"]);
            command.args(["--python", system::python()]).arg(&self.directory);
            log.run(&mut command, LIMIT)?;
        }
        self.install(log, requirements, |log, missing| {
            let mut command = uv(&["pip", "install"]);
            command.arg("--python").arg(self.program("python")).args(missing);
            let Err(error) = log.run(&mut command, LIMIT) else { return Ok(()) };
            // uv does not read pip's configuration, which may name the only index that can be reached.
            log.line(&format!("{error:#}"))?;
            self.pip(workspace, log, missing)
        })
    }

    /// The same for what a file of the checkout lists, one a line.
    pub(crate) fn provide_from(
        &self,
        workspace: &Workspace,
        log: &mut Log,
        file: &str,
    ) -> Result<()> {
        let path = workspace.path(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        self.provide(workspace, log, &text.lines().collect::<Vec<_>>())
    }

    /// Whether its Python is there, and answers to these arguments.
    fn has(&self, args: &[&str]) -> bool {
        process::capture(Command::new(self.program("python")).args(args)).is_ok()
    }

    fn install<'a>(
        &self,
        log: &mut Log,
        requirements: &[&'a str],
        with: impl FnOnce(&mut Log, &[&'a str]) -> Result<()>,
    ) -> Result<()> {
        let stamp = self.directory.join("requirements.installed");
        let installed = fs::read_to_string(&stamp).unwrap_or_default();
        let installed: Vec<&str> = installed.lines().collect();
        let missing: Vec<&str> =
            requirements.iter().copied().filter(|line| !installed.contains(line)).collect();
        if missing.is_empty() {
            return log.line(&format!("{} is installed", requirements.join(", ")));
        }
        with(log, &missing)?;
        fs::write(&stamp, after(&installed, requirements, &missing).join("\n"))
            .with_context(|| stamp.display().to_string())
    }

    fn pip(&self, workspace: &Workspace, log: &mut Log, requirements: &[&str]) -> Result<()> {
        if !self.has(&["-m", "pip", "--version"]) {
            let mut command = workspace.command(self.program("python"));
            log.run(command.args(["-m", "ensurepip"]), LIMIT)?;
        }
        let mut command = workspace.command(self.program("python"));
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        log.run(command.args(requirements), LIMIT)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its programs are.
    pub(crate) fn programs(&self) -> PathBuf {
        self.directory.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    }
}

/// The program uv, which makes environments and installs in a tenth of the time of venv and pip.
fn uv(workspace: &Workspace, log: &mut Log) -> Result<PathBuf> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let venv = Venv::new(workspace, "uv");
    if !venv.has(&["-m", "pip", "--version"]) {
        let mut command = workspace.command(system::python());
        command.args(["-m", "venv", "--clear"]).arg(&venv.directory);
        log.run(&mut command, LIMIT)?;
    }
    venv.install(log, &[UV], |log, missing| venv.pip(workspace, log, missing))?;
    Ok(venv.program("uv"))
}

/// The program uvx, which runs what it installs out of a wheel.
pub(crate) fn uvx(workspace: &Workspace, log: &mut Log) -> Result<PathBuf> {
    Ok(uv(workspace, log)?.with_file_name(format!("uvx{}", std::env::consts::EXE_SUFFIX)))
}

/// What is installed once `missing` is: in the place of other versions, unless these are required too, as with another
/// marker.
fn after<'a>(installed: &[&'a str], requirements: &[&str], missing: &[&'a str]) -> Vec<&'a str> {
    let replaced = |line: &str| missing.iter().any(|new| name(new) == name(line));
    let kept = |line: &&&str| requirements.contains(*line) || !replaced(line);
    installed.iter().filter(kept).chain(missing).copied().collect()
}

fn name(requirement: &str) -> &str {
    requirement.split("==").next().unwrap_or(requirement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_takes_the_place_of_another() {
        let installed = ["a==1", "b==1"];
        assert_eq!(after(&installed, &["a==2"], &["a==2"]), ["b==1", "a==2"]);
    }

    #[test]
    fn versions_for_several_pythons_stay_beside_each_other() {
        let both = ["a==1; python_version < '3.11'", "a==2; python_version >= '3.11'"];
        assert_eq!(after(&[], &both, &both), both);
        assert_eq!(after(&both[..1], &both, &both[1..]), both);
    }
}
