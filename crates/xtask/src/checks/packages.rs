//! What people without Rust install, used as they would use it: in an empty environment without cargo.

use super::{Lane, Part, Step, python};
use crate::package::Packing;
use crate::system::{self, Requirement};
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
            needs: &["node/setup", "rust/build"],
            lane: Lane::Cargo,
            runner: None,
            run: |job| Packing::for_tests(job.workspace, job.log, job.workspace.cache("dist")),
        },
        Step {
            id: "packages/publint",
            about: "publint and are-the-types-wrong on what npm's users import",
            needs: &["packages/build"],
            lane: Lane::Tools,
            runner: None,
            run: |job| {
                for name in ["dodo-ingestion", "dodometer"] {
                    let package = format!("{name}-{}.tgz", env!("CARGO_PKG_VERSION"));
                    let package = job.workspace.cache("dist").join(package);
                    for (tool, args) in [("publint", &["--strict"][..]), ("attw", &[])] {
                        let programs = job.workspace.path("node/node_modules/.bin");
                        let mut command = job.command(programs.join(system::script(tool)), "")?;
                        command.args(args).arg(&package);
                        job.run(command)?;
                    }
                }
                Ok(())
            },
        },
        Step {
            id: "packages/test",
            about: "pip, uvx, npm and npx install it and run it",
            needs: &["python/setup", "node/setup", "packages/build"],
            lane: Lane::Tools,
            runner: Some(Runner::Pytest),
            run: |job| {
                let uvx = venv::uvx(job.workspace, job.log)?;
                let mut command =
                    job.command(python::venv(job).program("pytest"), "tests/packages")?;
                command.args(["--color=no", "-ra", "-p", "no:cacheprovider"]);
                command.env("DIST", job.workspace.cache("dist")).env("UVX", uvx);
                command.env("NODE_MODULES", job.workspace.path("node/node_modules"));
                // Only what was installed may answer.
                command.env_remove("DODOMETER_BIN");
                job.run(command)
            },
        },
    ],
};
