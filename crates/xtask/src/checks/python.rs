//! The Python package, against the library that `rust/build` has built.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Job, Lane, Part, Step};
use crate::system::Requirement;
use crate::tally::Runner;
use crate::venv::Venv;

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
            lane: Lane::Tools,
            runner: None,
            run: |job| venv(job).provide_from(job.workspace, job.log, REQUIREMENTS),
        },
        Step {
            id: "python/extension",
            about: "the built library as dodo_ingestion._native",
            needs: &["rust/build"],
            lane: Lane::Tools,
            runner: None,
            run: |job| install(job, &job.workspace.library("dodo-ingestion-pyo3")),
        },
        Step {
            id: "python/ruff",
            about: "ruff check, ruff format --check",
            needs: &["python/setup"],
            lane: Lane::Tools,
            runner: None,
            run: |job| {
                let places = [".", "../benches/python", "../tests/packages"];
                tool(job, "ruff", &[&["check"], &places[..]].concat())?;
                tool(job, "ruff", &[&["format", "--check"], &places[..]].concat())
            },
        },
        Step {
            id: "python/mypy",
            about: "mypy --strict, on the stubs of the extension",
            needs: &["python/setup"],
            lane: Lane::Tools,
            runner: None,
            run: |job| tool(job, "mypy", &["--strict"]),
        },
        Step {
            id: "python/pyright",
            about: "pyright, as editors run it",
            needs: &["python/setup"],
            lane: Lane::Tools,
            runner: None,
            run: |job| tool(job, "basedpyright", &["--level", "error"]),
        },
        Step {
            id: "python/pytest",
            about: "the tests of the package",
            needs: &["python/setup", "python/extension", "rust/build"],
            lane: Lane::Tools,
            runner: Some(Runner::Pytest),
            // Most of them wait for processes that they start.
            run: |job| tool(job, "pytest", &["--color=no", "--numprocesses=4", "--dist=worksteal"]),
        },
    ],
};

/// Puts a built library in the place of the extension module.
pub(crate) fn install(job: &mut Job<'_>, library: &Path) -> Result<()> {
    let suffix = if cfg!(windows) { "pyd" } else { "abi3.so" };
    let place = format!("python/src/dodo_ingestion/_native.{suffix}");
    job.install(library, &job.workspace.path(&place))
}

/// Runs a program of the virtual environment in `python/`.
fn tool(job: &mut Job<'_>, name: &str, args: &[&str]) -> Result<()> {
    let program = venv(job).program(name);
    ensure!(program.exists(), "{REQUIREMENTS} does not install {name}");
    let mut command = job.command(program, "python")?;
    command.args(args).env("PYTHONPATH", job.workspace.path("python/src"));
    command.env("VIRTUAL_ENV", venv(job).directory());
    job.run(command)?;
    Ok(())
}

/// The tools of everything that is tested in Python.
pub(super) fn venv(job: &Job<'_>) -> Venv {
    Venv::new(job.workspace, "venv")
}
