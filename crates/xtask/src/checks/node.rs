//! The Node package, against the library that `rust/build` has built.

use anyhow::Result;

use super::{Job, Part, Step};
use crate::system::{self, Requirement};
use crate::tally::Runner;

pub(super) const PART: Part = Part {
    name: "node",
    manifest: "node/package.json",
    requires: &[Requirement::Compiler, Requirement::Node],
    steps: &[
        Step {
            id: "node/setup",
            about: "npm ci",
            needs: &[],
            runner: None,
            run: |job| job.npm_ci("node"),
        },
        Step {
            id: "node/addon",
            about: "the built library as native/dodo_ingestion.node",
            needs: &["rust/build"],
            runner: None,
            run: |job| {
                let library = job.workspace.library("dodo-ingestion-napi");
                job.install(&library, &job.workspace.path("node/native/dodo_ingestion.node"))?;
                Ok(())
            },
        },
        Step {
            id: "node/lint",
            about: "biome",
            needs: &["node/setup"],
            runner: None,
            run: |job| npm(job, "lint"),
        },
        Step {
            id: "node/build",
            about: "tsc",
            needs: &["node/setup"],
            runner: None,
            run: |job| npm(job, "build"),
        },
        Step {
            id: "node/test",
            about: "the tests of the package",
            needs: &["node/build", "node/addon"],
            runner: Some(Runner::Node),
            run: |job| npm(job, "test"),
        },
    ],
};

/// Runs a script of `package.json`.
fn npm(job: &mut Job<'_>, name: &str) -> Result<()> {
    let mut command = job.command(system::script("npm"), "node")?;
    command.args(["run", "--silent", name]);
    job.run(command)?;
    Ok(())
}
