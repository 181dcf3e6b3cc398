//! The Rust workspace, and with it the libraries and programs that every other part uses.
//!
//! Everything is built in one profile and with one selection of packages and targets: cargo unifies features over the
//! selection, so that a second selection would compile half of the dependencies again.

use super::{Part, Step};
use crate::generate;
use crate::system::Requirement;
use crate::tally::Runner;

/// Builds every library and program. `--examples` is what makes cargo unify features as it does for tests.
pub(crate) const BUILD: &[&str] =
    &["build", "--workspace", "--locked", "--lib", "--bins", "--examples"];

pub(super) const PART: Part = Part {
    name: "rust",
    manifest: "Cargo.toml",
    requires: &[Requirement::Compiler],
    steps: &[
        Step {
            id: "rust/fmt",
            about: "cargo fmt --check",
            needs: &[],
            runner: None,
            run: |job| {
                job.cargo(&["fmt", "--all", "--check", "--", "--color", "never"])?;
                Ok(())
            },
        },
        Step {
            id: "rust/clippy",
            about: "clippy on every target of every crate, warnings are errors",
            needs: &[],
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
            id: "rust/build",
            about: "the core, dodometer, and the libraries that the other languages load",
            needs: &[],
            runner: None,
            run: |job| {
                job.cargo(BUILD)?;
                Ok(())
            },
        },
        Step {
            id: "rust/test",
            about: "unit, integration and documentation tests",
            needs: &["rust/build"],
            runner: Some(Runner::Cargo),
            run: |job| {
                // The core as it ships, without what dodometer asks of tokio: with its signal driver no runtime can be
                // built in a process whose descriptors were closed and used again.
                let all = [
                    "test",
                    "--workspace",
                    "--locked",
                    "--no-fail-fast",
                    "--exclude",
                    "dodo-ingestion",
                ];
                let others = job.cargo(&all);
                job.cargo(&["test", "--package", "dodo-ingestion", "--locked", "--no-fail-fast"])?;
                others
            },
        },
        Step {
            id: "rust/doc",
            about: "the documentation builds without a warning",
            needs: &[],
            runner: None,
            run: |job| {
                let args = ["doc", "--workspace", "--lib", "--no-deps", "--locked"];
                job.cargo_with(&args, &[("RUSTDOCFLAGS", "--deny warnings")])?;
                Ok(())
            },
        },
        Step {
            id: "rust/generated",
            about: "generated files are what `cargo xtask gen` writes",
            needs: &["rust/build"],
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
