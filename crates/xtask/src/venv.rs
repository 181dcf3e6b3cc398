//! Python tools in a virtual environment inside the checkout, at pinned versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Log};
use crate::system;
use crate::workspace::Workspace;

/// A wheel may have 100 MB.
const LIMIT: Duration = Duration::from_secs(15 * 60);

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
        let python = self.program("python");
        if process::capture(Command::new(&python).args(["-m", "pip", "--version"])).is_err() {
            let mut command = workspace.command(system::python());
            command.args(["-m", "venv", "--clear"]).arg(&self.directory);
            log.run(&mut command, LIMIT)?;
        }
        let stamps = self.directory.join("installed");
        let missing: Vec<&str> = requirements
            .iter()
            .copied()
            .filter(|requirement| !stamps.join(requirement).exists())
            .collect();
        if missing.is_empty() {
            return log.line(&format!("{} is installed", requirements.join(", ")));
        }
        let mut command = workspace.command(&python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        log.run(command.args(&missing), LIMIT)?;
        fs::create_dir_all(&stamps).with_context(|| stamps.display().to_string())?;
        for requirement in missing {
            self.stamp(&stamps, requirement)?;
        }
        Ok(())
    }

    /// Notes that a version is installed, in the place of any other of the same package.
    fn stamp(&self, stamps: &Path, requirement: &str) -> Result<()> {
        let name = requirement.split("==").next().unwrap_or(requirement);
        for entry in fs::read_dir(stamps)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().split("==").next() == Some(name) {
                fs::remove_file(entry.path())?;
            }
        }
        fs::write(stamps.join(requirement), "")
            .with_context(|| self.directory.display().to_string())
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
