//! What people without Rust install, used as they would use it: in an empty environment without cargo.

use super::{Lane, Part, Step, python};
use crate::package::Packing;
use crate::system::Requirement;
use crate::tally::Runner;
use crate::venv;

pub(super) const PART: Part = Part {
    name: "packages",
    manifest: "crates/dodometer/npm/package.json",
    requires: &[Requirement::Compiler, Requirement::Python, Requirement::Node],
    steps: &[
        Step {
            id: "packages/build",
            about: "what `cargo xtask package` makes, quickly built, in .cache/dist",
            needs: &[],
            lane: Lane::Cargo,
            runner: None,
            run: |job| Packing::for_tests(job.workspace, job.log, job.workspace.cache("dist")),
        },
        Step {
            id: "packages/test",
            about: "pip, uvx, npm and npx install it and run it",
            needs: &["python/setup", "packages/build"],
            lane: Lane::Tools,
            runner: Some(Runner::Pytest),
            run: |job| {
                let uvx = venv::uvx(job.workspace, job.log)?;
                let mut command =
                    job.command(python::venv(job).program("pytest"), "tests/packages")?;
                command.args(["--color=no", "-ra", "-p", "no:cacheprovider"]);
                command.env("DIST", job.workspace.cache("dist")).env("UVX", uvx);
                // Only what was installed may answer.
                command.env_remove("DODOMETER_BIN");
                job.run(command)
            },
        },
    ],
};
