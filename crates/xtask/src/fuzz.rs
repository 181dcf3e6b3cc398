//! `fuzz`: runs cargo-fuzz on one target after the other, from the committed seeds.
//!
//! What it finds interesting goes to `.cache/fuzz/`; an input that fails goes to `fuzz/artifacts/`, and from there, with
//! a name that says what was wrong, to `fuzz/seeds/`.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

const MISSING: &str = "fuzzing needs a nightly toolchain and cargo-fuzz:\n\n    \
    rustup toolchain install nightly --profile minimal\n    \
    cargo install cargo-fuzz --locked\n";

pub(crate) fn run(workspace: &Workspace, target: Option<&str>, seconds: u32) -> Result<ExitCode> {
    let all = targets(workspace)?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| target.is_none_or(|wanted| *name == wanted)).collect();
    if chosen.is_empty() {
        bail!("no target {}; one of: {}", target.unwrap_or_default(), all.join(", "));
    }
    process::capture(cargo_fuzz(workspace).arg("--version")).context(MISSING)?;
    for name in chosen {
        eprintln!("fuzzing {name} for {seconds} s");
        let corpus = workspace.cache("fuzz").join(name);
        fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        let mut command = cargo_fuzz(workspace);
        command.args(["run", name]).arg(&corpus).arg(workspace.path("fuzz/seeds").join(name));
        command.args(["--", "-timeout=20", "-rss_limit_mb=1536"]);
        command.arg(format!("-max_total_time={seconds}"));
        if !command.status().with_context(|| process::describe(&command))?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Cargo's own `+nightly` is rustup's, which is not what started this program.
fn cargo_fuzz(workspace: &Workspace) -> Command {
    let mut command = workspace.command("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]);
    command
}

/// Each target has a directory of seeds.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let seeds = workspace.path("fuzz/seeds");
    let entries = fs::read_dir(&seeds).with_context(|| seeds.display().to_string())?;
    let mut names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_of_seeds_is_a_target_and_the_other_way_round() {
        let workspace = Workspace::locate().unwrap();
        let manifest = fs::read_to_string(workspace.path("fuzz/Cargo.toml")).unwrap();
        let mut declared: Vec<&str> = manifest
            .split("[[bin]]")
            .skip(1)
            .filter_map(|bin| bin.trim().strip_prefix("name = \"")?.split('"').next())
            .collect();
        declared.sort_unstable();
        assert_eq!(targets(&workspace).unwrap(), declared);
    }
}
