//! `dodometer` as a wheel, as npm's package for one platform, and as the launcher that npm's users ask for.
//!
//! Maturin builds the wheel, and with it the program. What npm gets is the program out of the wheel: both hand out the
//! same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Packing, VERSION, executable, maturin, npm};
use crate::{process, system};

/// Where the launcher lies.
const NPM: &str = "crates/dodometer/npm";

/// What `dodometer completions` prints, and the names under which shells look for it.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "dodometer.bash"),
    ("elvish", "dodometer.elv"),
    ("fish", "dodometer.fish"),
    ("powershell", "_dodometer.ps1"),
    ("zsh", "_dodometer"),
];

pub(super) fn pack(packing: &mut Packing<'_>) -> Result<()> {
    let wheel = maturin::wheel(packing, "crates/dodometer/python", "dodometer")?;
    let program = program(packing, &wheel)?;
    let place = format!("bin/{}", packing.platform.executable());
    npm::pack_platform(packing, NPM, "dodometer", &program, &place)?;

    let staged = packing.stage("npm-dodometer")?;
    npm::copy(packing, NPM, &["index.js", "index.d.ts", "launch.js"], &staged)?;
    npm::copy(packing, "crates/dodometer", &["README.md"], &staged)?;
    npm::pack(packing, NPM, &staged)?;

    if packing.native {
        completions(packing, &program)?;
    }
    Ok(())
}

/// Takes the program out of the wheel.
fn program(packing: &mut Packing<'_>, wheel: &Path) -> Result<PathBuf> {
    let unpacked = packing.stage("unpacked")?;
    let mut command = packing.workspace.command(system::python());
    packing.run({
        command.args(["-m", "zipfile", "-e"]).args([wheel, &unpacked]);
        command
    })?;
    let program = unpacked
        .join(format!("dodometer-{VERSION}.data"))
        .join("scripts")
        .join(packing.platform.executable());
    // Python's archives forget what may be run.
    executable(&program)?;
    Ok(program)
}

fn completions(packing: &mut Packing<'_>, program: &Path) -> Result<()> {
    let directory = packing.out.join("completions");
    fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
    for (shell, file) in COMPLETIONS {
        let script = process::capture(Command::new(program).args(["completions", shell]))?;
        fs::write(directory.join(file), script)?;
    }
    Ok(())
}
