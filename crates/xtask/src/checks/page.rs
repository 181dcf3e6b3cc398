//! The live page of the local meter, in a real Chromium.

use anyhow::Result;

use super::{Job, Part, Step};
use crate::system::{self, Requirement};
use crate::tally::Runner;

pub(super) const PART: Part = Part {
    name: "page",
    manifest: "tests/page/package.json",
    requires: &[Requirement::Node, Requirement::Chromium],
    steps: &[
        Step {
            id: "page/setup",
            about: "npm ci",
            needs: &[],
            runner: None,
            run: |job| job.npm_ci("tests/page"),
        },
        Step {
            id: "page/lint",
            about: "biome, on the page and on its tests",
            needs: &["page/setup"],
            runner: None,
            run: |job| npm(job, "lint"),
        },
        Step {
            id: "page/test",
            about: "the page of a real meter in a real browser",
            needs: &["page/setup", "rust/build"],
            runner: Some(Runner::Node),
            run: |job| npm(job, "test"),
        },
    ],
};

/// Runs a script of `package.json`.
fn npm(job: &mut Job<'_>, name: &str) -> Result<()> {
    let mut command = job.command(system::script("npm"), "tests/page")?;
    command.args(["run", "--silent", name]);
    job.run(command)
}
