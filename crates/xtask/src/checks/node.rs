//! The Node package, against the library that `rust/build` has built.

use std::path::Path;

use anyhow::Result;

use super::{Job, Lane, Part, Step};
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
            lane: Lane::Tools,
            runner: None,
            run: |job| npm_ci(job, "node"),
        },
        Step {
            id: "node/addon",
            about: "the built library as native/dodo_ingestion.node",
            needs: &["rust/build"],
            lane: Lane::Tools,
            runner: None,
            run: |job| install(job, &job.workspace.library("dodo-ingestion-napi")),
        },
        Step {
            id: "node/lint",
            about: "biome, on the package and on its benches",
            needs: &["node/setup"],
            lane: Lane::Tools,
            runner: None,
            run: |job| npm(job, "node", "lint"),
        },
        Step {
            id: "node/build",
            about: "tsc",
            needs: &["node/setup"],
            lane: Lane::Tools,
            runner: None,
            run: |job| npm(job, "node", "build"),
        },
        Step {
            id: "node/test",
            about: "the tests of the package",
            needs: &["node/build", "node/addon"],
            lane: Lane::Tools,
            runner: Some(Runner::Node),
            run: |job| npm(job, "node", "test"),
        },
    ],
};

/// Puts a built library in the place of the addon.
pub(crate) fn install(job: &mut Job<'_>, library: &Path) -> Result<()> {
    job.install(library, &job.workspace.path("node/native/dodo_ingestion.node"))
}

/// Installs the packages of a directory's lock file, unless that has been done.
pub(crate) fn npm_ci(job: &mut Job<'_>, directory: &str) -> Result<()> {
    let path = job.workspace.path(directory);
    let stamp = path.join("node_modules/.package-lock.installed");
    job.once(&path.join("package-lock.json"), &stamp, |job| {
        let mut command = job.command(system::script("npm"), directory)?;
        command.args(["ci", "--no-audit", "--no-fund"]);
        command.arg("--cache").arg(job.workspace.cache("npm"));
        job.run(command)
    })
}

/// Runs a script of a directory's `package.json`.
pub(crate) fn npm(job: &mut Job<'_>, directory: &str, name: &str) -> Result<()> {
    let mut command = job.command(system::script("npm"), directory)?;
    command.args(["run", "--silent", name]);
    job.run(command)
}
