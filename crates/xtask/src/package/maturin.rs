//! Wheels and source distributions, which maturin builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::platform::GLIBC;
use super::{Packing, executable, notices, only_file};
use crate::workspace::BUILD;
use crate::{process, system};

const MATURIN: &str = "maturin==1.16.0";
/// Reads from a wheel which Linux it runs on, whatever its name says.
const AUDITWHEEL: &str = "auditwheel==6.8.2";

/// Builds the wheel of a project, of which the crate `of` is compiled. A published one for Linux is linked so that it runs with C libraries as old as its name
/// promises.
pub(super) fn wheel(packing: &mut Packing<'_>, project: &str, of: &str) -> Result<PathBuf> {
    notices::write(packing, of, &packing.workspace.path(project))?;
    let mut command = maturin(packing, project)?;
    command.args(["build", "--locked", "--profile", packing.profile]);
    if !packing.native {
        command.args(["--target", packing.platform.target]);
    }
    match packing.platform.policy() {
        _ if !packing.published() => {
            command.args(["--compatibility", "linux", "--compression-method", "stored"]);
            if cfg!(unix) {
                command.env("CARGO", stand_in(packing)?);
            }
        }
        Some(policy) => {
            command.args(["--zig", "--compatibility", policy]);
        }
        None => {
            command.args(["--compatibility", "pypi"]);
        }
    }
    let wheel = build(packing, command)?;
    if packing.published() && packing.platform.libc == Some("glibc") {
        audit(packing, &wheel)?;
    }
    Ok(wheel)
}

/// Packs what a project can be built from, with the crates that it is made of.
pub(super) fn source(packing: &mut Packing<'_>, project: &str) -> Result<PathBuf> {
    let mut command = maturin(packing, project)?;
    command.arg("sdist");
    build(packing, command)
}

/// Maturin in the directory of a project. It looks for zig with the first Python that it finds.
fn maturin(packing: &mut Packing<'_>, project: &str) -> Result<Command> {
    let venv = packing.tools(&[MATURIN])?;
    let mut command = packing.workspace.command(venv.program("maturin"));
    command.current_dir(packing.workspace.path(project));
    command.env("PATH", packing.path()?);
    Ok(command)
}

/// Has maturin make the one file that it is asked for, among the packages.
fn build(packing: &mut Packing<'_>, mut command: Command) -> Result<PathBuf> {
    let staged = packing.stage("maturin")?;
    command.arg("--out").arg(&staged);
    packing.run(command)?;
    let built = only_file(&staged)?;
    let package = packing.out.join(built.file_name().context("a package has a name")?);
    fs::copy(&built, &package).with_context(|| package.display().to_string())?;
    Ok(package)
}

/// What maturin calls in place of cargo for a wheel that is only tried: the build of everything, which the tests have made
/// already. Maturin's own, of one package in another environment, would compile most dependencies once more. Maturin
/// moves away for a moment what it packs, and tests are running it: what it is told of are copies.
fn stand_in(packing: &mut Packing<'_>) -> Result<PathBuf> {
    let copies = packing.stage("built")?;
    let script = copies.join("cargo");
    let workspace = packing.workspace;
    let text = format!(
        "#!/bin/sh\n\
         unset PYO3_BUILD_EXTENSION_MODULE PYO3_CONFIG_FILE PYO3_ENVIRONMENT_SIGNATURE PYO3_PYTHON\n\
         unset PYTHON_SYS_EXECUTABLE\n\
         {cargo} --message-format json-render-diagnostics > '{copies}/messages' || exit\n\
         cp '{program}' '{library}' '{copies}' || exit\n\
         sed 's|\"{built}/\\([^/\"]*\\)\"|\"{copies}/\\1\"|g' '{copies}/messages'\n",
        cargo = process::describe(&workspace.cargo(BUILD)),
        program = workspace.program("debug", "dodometer").display(),
        library = workspace.library("dodo-ingestion-pyo3").display(),
        built = workspace.built().display(),
        copies = copies.display(),
    );
    fs::write(&script, text).with_context(|| script.display().to_string())?;
    executable(&script)?;
    Ok(script)
}

/// Whether a wheel runs with the C library that its name promises.
fn audit(packing: &mut Packing<'_>, wheel: &Path) -> Result<()> {
    let auditwheel = packing.tools(&[AUDITWHEEL])?.program("auditwheel");
    let mut command = packing.workspace.command(auditwheel);
    let told = process::capture(command.args(["show", "--json"]).arg(wheel))?;
    packing.log.line(&told)?;
    let told: Value = serde_json::from_str(&told)?;
    let tag = told["overall_tag"].as_str().unwrap_or_default();
    let oldest = tag.strip_prefix("manylinux_").map(|rest| rest.replacen('_', ".", 1));
    let oldest = oldest.as_deref().and_then(system::numbers);
    ensure!(oldest.is_some_and(|oldest| oldest <= GLIBC), "{} runs as {tag} only", wheel.display());
    Ok(())
}
