//! Clients that are not ours against the local meter: the official SDKs, the package that users have today, and
//! schemathesis, which reads the server's OpenAPI document.

use anyhow::{Result, ensure};

use super::node::{npm, npm_ci};
use super::{Job, Lane, Part, Step};
use crate::system::Requirement;
use crate::tally::Runner;
use crate::venv::Venv;

const PYTHON: &str = "tests/strangers/python";
const NODE: &str = "tests/strangers/node";
/// The clients and their versions.
const REQUIREMENTS: &str = "tests/strangers/python/requirements.txt";

pub(super) const PART: Part = Part {
    name: "strangers",
    manifest: REQUIREMENTS,
    requires: &[Requirement::Compiler, Requirement::Python, Requirement::Node],
    steps: &[
        Step {
            id: "strangers/setup",
            about: "a virtual environment in .cache/strangers, and npm ci",
            needs: &[],
            lane: Lane::Tools,
            runner: None,
            run: setup,
        },
        Step {
            id: "strangers/python",
            about: "the official Python SDK, and schemathesis",
            needs: &["strangers/setup", "rust/build"],
            lane: Lane::Tools,
            runner: Some(Runner::Pytest),
            run: |job| {
                let pytest = venv(job).program("pytest");
                ensure!(pytest.exists(), "{REQUIREMENTS} does not install pytest");
                let mut command = job.command(pytest, PYTHON)?;
                command.arg("--color=no");
                job.run(command)
            },
        },
        Step {
            id: "strangers/node",
            about: "the official Node SDK, and @dodopayments/ingestion-blueprints",
            needs: &["strangers/setup", "rust/build"],
            lane: Lane::Tools,
            runner: Some(Runner::Node),
            run: |job| npm(job, NODE, "test"),
        },
    ],
};

fn setup(job: &mut Job<'_>) -> Result<()> {
    venv(job).provide_from(job.workspace, job.log, REQUIREMENTS)?;
    npm_ci(job, NODE)
}

/// Apart from the tools of the other parts, whose versions these clients would tie down.
fn venv(job: &Job<'_>) -> Venv {
    Venv::new(job.workspace, "strangers")
}
