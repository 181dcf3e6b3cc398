//! The Rust workspace, and with it the libraries and programs that every other part uses.
//!
//! Everything is built in one profile and with one selection of packages and targets: cargo unifies features over the
//! selection, so that a second selection would compile half of the dependencies again.

use super::test_programs::{self, Kind};
use super::{Lane, Part, Step};
use crate::generate;
use crate::system::Requirement;
use crate::tally::Runner;
use crate::workspace::BUILD;

/// What the other languages load and start. The rest of [`BUILD`] is compiled beside the tests: the generator of Kotlin's
/// sources has a dependency that keeps one processor busy for long.
const NEEDED_FIRST: &[&str] =
    &["build", "--workspace", "--locked", "--lib", "--examples", "--bin", "dodometer"];

const TESTS: &[&str] = &["test", "--workspace", "--locked", "--lib", "--bins", "--test", "*"];

pub(super) const PART: Part = Part {
    name: "rust",
    manifest: "Cargo.toml",
    requires: &[Requirement::Compiler],
    steps: &[
        Step {
            id: "rust/fmt",
            about: "cargo fmt --check",
            needs: &[],
            lane: Lane::Cargo,
            runner: None,
            run: |job| {
                job.cargo(&["fmt", "--all", "--check", "--", "--color", "never"])?;
                Ok(())
            },
        },
        Step {
            id: "rust/build",
            about: "the core, dodometer, and the libraries that the other languages load",
            needs: &[],
            lane: Lane::Cargo,
            runner: None,
            run: |job| {
                job.cargo(NEEDED_FIRST)?;
                Ok(())
            },
        },
        Step {
            id: "rust/test-build",
            about: "the tests are compiled",
            needs: &["rust/build"],
            lane: Lane::Cargo,
            runner: None,
            run: |job| test_programs::compile(job, TESTS),
        },
        Step {
            id: "rust/programs",
            about: "the other programs: what writes Kotlin's sources, the benches",
            needs: &["rust/build"],
            lane: Lane::Cargo,
            runner: None,
            run: |job| job.cargo(BUILD),
        },
        Step {
            id: "rust/unit",
            about: "unit tests, the simulator's seeds among them",
            needs: &["rust/test-build"],
            lane: Lane::Tools,
            runner: Some(Runner::Cargo),
            run: |job| test_programs::run(job, Kind::Unit, 2),
        },
        Step {
            id: "rust/integration",
            about: "integration tests: real servers, files, processes and signals",
            needs: &["rust/test-build"],
            lane: Lane::Tools,
            runner: Some(Runner::Cargo),
            run: |job| test_programs::run(job, Kind::Integration, 3),
        },
        Step {
            id: "rust/doctest",
            about: "documentation tests",
            needs: &["rust/build"],
            lane: Lane::Cargo,
            runner: Some(Runner::Cargo),
            run: |job| job.cargo(&["test", "--workspace", "--locked", "--no-fail-fast", "--doc"]),
        },
        Step {
            id: "rust/clippy",
            about: "clippy on every target of every crate, warnings are errors",
            needs: &[],
            lane: Lane::Cargo,
            runner: None,
            run: |job| {
                // Not `--all-targets`, which makes tests of libraries that say that they have none.
                let targets = ["--lib", "--bins", "--tests", "--examples"];
                let args = [&["clippy", "--workspace", "--locked"][..], &targets[..]].concat();
                job.cargo(&[&args[..], &["--", "--deny", "warnings"]].concat())?;
                Ok(())
            },
        },
        Step {
            id: "rust/doc",
            about: "the documentation builds without a warning",
            needs: &[],
            lane: Lane::Cargo,
            runner: None,
            run: |job| {
                // With the examples cargo unifies features as clippy has it do.
                let args = ["doc", "--workspace", "--lib", "--examples", "--no-deps", "--locked"];
                job.cargo_with(&args, &[("RUSTDOCFLAGS", "--deny warnings")])?;
                Ok(())
            },
        },
        Step {
            id: "rust/generated",
            about: "generated files are what `cargo xtask gen` writes",
            needs: &["rust/build"],
            lane: Lane::Cargo,
            runner: None,
            run: |job| {
                for line in generate::check(job.workspace)? {
                    job.log.line(&line)?;
                }
                Ok(())
            },
        },
    ],
};
