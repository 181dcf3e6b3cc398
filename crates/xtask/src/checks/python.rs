//! The Python package, against the library that `rust/build` has built.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Job, Part, Step};
use crate::process;
use crate::system::{self, Requirement};
use crate::tally::Runner;

/// The tools and their versions.
const REQUIREMENTS: &str = "python/requirements-dev.txt";

pub(super) const PART: Part = Part {
    name: "python",
    manifest: "python/pyproject.toml",
    requires: &[Requirement::Compiler, Requirement::Python],
    steps: &[
        Step {
            id: "python/setup",
            about: "a virtual environment in .cache/venv with the pinned tools",
            needs: &[],
            runner: None,
            run: setup,
        },
        Step {
            id: "python/extension",
            about: "the built library as dodo_ingestion._native",
            needs: &["rust/build"],
            runner: None,
            run: |job| {
                let suffix = if cfg!(windows) { "pyd" } else { "abi3.so" };
                let place = format!("python/src/dodo_ingestion/_native.{suffix}");
                let library = job.workspace.library("dodo-ingestion-pyo3");
                job.install(&library, &job.workspace.path(&place))?;
                Ok(())
            },
        },
        Step {
            id: "python/ruff",
            about: "ruff check, ruff format --check",
            needs: &["python/setup"],
            runner: None,
            run: |job| {
                tool(job, "ruff", &["check", "."])?;
                tool(job, "ruff", &["format", "--check", "."])
            },
        },
        Step {
            id: "python/mypy",
            about: "mypy --strict",
            needs: &["python/setup", "python/extension"],
            runner: None,
            run: |job| tool(job, "mypy", &["--strict"]),
        },
        Step {
            id: "python/pytest",
            about: "the tests of the package",
            needs: &["python/setup", "python/extension", "rust/build"],
            runner: Some(Runner::Pytest),
            run: |job| tool(job, "pytest", &["--color=no"]),
        },
    ],
};

fn setup(job: &mut Job<'_>) -> Result<()> {
    let venv = job.workspace.cache("venv");
    let python = program(job, "python");
    if process::capture(Command::new(&python).args(["-m", "pip", "--version"])).is_err() {
        let mut command = job.command(system::python(), "")?;
        command.args(["-m", "venv", "--clear"]).arg(&venv);
        job.run(command)?;
    }
    let requirements = job.workspace.path(REQUIREMENTS);
    job.once(&requirements, &venv.join("requirements.installed"), |job| {
        let mut command = job.command(&python, "")?;
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.args(["--requirement", REQUIREMENTS]);
        job.run(command)
    })?;
    Ok(())
}

/// Runs a program of the virtual environment in `python/`.
fn tool(job: &mut Job<'_>, name: &str, args: &[&str]) -> Result<()> {
    let program = program(job, name);
    ensure!(program.exists(), "{REQUIREMENTS} does not install {name}");
    let mut command = job.command(program, "python")?;
    command.args(args).env("PYTHONPATH", job.workspace.path("python/src"));
    command.env("VIRTUAL_ENV", job.workspace.cache("venv"));
    job.run(command)?;
    Ok(())
}

fn program(job: &Job<'_>, name: &str) -> PathBuf {
    let directory = if cfg!(windows) { "Scripts" } else { "bin" };
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    job.workspace.cache("venv").join(directory).join(name)
}
