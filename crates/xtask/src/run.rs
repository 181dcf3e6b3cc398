//! `demo` and `soak`: build a program, then become it. `sim` runs a test.
//!
//! Where the system can, this process is replaced, so that standard output, the exit status and Ctrl-C are the
//! program's own. Cargo's progress goes to standard error.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// The profile of the programs that are run here.
pub(crate) const RELEASE: &str = "release";

/// The package of the loops that kill processes.
const LIFECYCLE: &str = "dodo-ingestion-lifecycle";

pub(crate) fn demo(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    if !build(workspace, RELEASE, &["dodometer"])? {
        return Ok(ExitCode::FAILURE);
    }
    let mut command = workspace.command(workspace.program(RELEASE, "dodometer"));
    command.arg("demo").args(args);
    become_command(here(command))
}

/// The soak finds the writer beside itself.
pub(crate) fn soak(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    if !build(workspace, RELEASE, &["dodometer", LIFECYCLE])? {
        return Ok(ExitCode::FAILURE);
    }
    let mut command = workspace.command(workspace.program(RELEASE, "soak"));
    command.args(args).env("DODOMETER_BIN", workspace.program(RELEASE, "dodometer"));
    become_command(here(command))
}

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Seeds {
    /// How many seeds to run
    #[arg(long = "seeds", default_value_t = 2_000, value_name = "N")]
    count: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, value_name = "S")]
    from: u64,
    /// Run only this seed, and show all that happens in it
    #[arg(long = "seed", value_name = "S", conflicts_with_all = ["count", "from"])]
    only: Option<u64>,
}

/// The simulator is test code of the core, and has no other way in than a test.
pub(crate) fn sim(workspace: &Workspace, seeds: &Seeds) -> Result<ExitCode> {
    let test = "simulation::run::seeds_from_the_environment";
    let mut command =
        workspace.cargo(["test", "--quiet", "--locked", "--package", "dodo-ingestion", "--lib"]);
    command.args(["--", "--exact", test, "--nocapture"]);
    match seeds.only {
        Some(seed) => command.env("SIM_SEED", seed.to_string()),
        None => command
            .env("SIM_SEEDS", seeds.count.to_string())
            .env("SIM_FROM", seeds.from.to_string()),
    };
    let status = command.status().with_context(|| process::describe(&command))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn build(workspace: &Workspace, profile: &str, packages: &[&str]) -> Result<bool> {
    let mut build = workspace.cargo(["build", "--locked", "--profile", profile]);
    for package in packages {
        build.args(["--package", package]);
    }
    eprintln!("building {}: this takes minutes the first time", packages.join(" and "));
    Ok(build.status().with_context(|| process::describe(&build))?.success())
}

/// In the directory of whoever asked, for the paths among the arguments.
pub(crate) fn here(mut command: Command) -> Command {
    if let Ok(here) = std::env::current_dir() {
        command.current_dir(here);
    }
    command
}

#[cfg(unix)]
pub(crate) fn become_command(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(error).with_context(|| process::describe(&command))
}

#[cfg(not(unix))]
pub(crate) fn become_command(mut command: Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| process::describe(&command))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
