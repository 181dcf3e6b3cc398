//! `dodometer` as a wheel, as npm's package for one platform, and as the launcher that npm's users ask for.
//!
//! Maturin builds the wheel, and with it the program. What npm gets is the program out of the wheel: both hand out the
//! same bytes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::platform::PLATFORMS;
use super::{Packing, VERSION};
use crate::system;
use crate::venv::Venv;

const MATURIN: &str = "maturin==1.16.0";
/// A linker that can link against an older C library than this machine has, and for other processors.
const ZIG: &str = "ziglang==0.15.2";

/// What every package carries along.
const NOTICES: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT", "crates/dodometer/README.md"];

/// What `dodometer completions` prints, and the names under which shells look for it.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "dodometer.bash"),
    ("elvish", "dodometer.elv"),
    ("fish", "dodometer.fish"),
    ("powershell", "_dodometer.ps1"),
    ("zsh", "_dodometer"),
];

pub(super) fn pack(packing: &mut Packing<'_>) -> Result<()> {
    let wheel = wheel(packing)?;
    let program = program(packing, &wheel)?;
    npm_platform(packing, &program)?;
    npm_launcher(packing)?;
    if packing.native {
        completions(packing, &program)?;
    }
    Ok(())
}

/// Builds the wheel; for Linux so that it runs with C libraries as old as its name promises, unless it is only tried.
fn wheel(packing: &mut Packing<'_>) -> Result<PathBuf> {
    let portable = packing.profile != "dev";
    let zig = packing.platform.compatibility().filter(|_| portable);
    let venv = tools(packing, if zig.is_some() { &[MATURIN, ZIG] } else { &[MATURIN] })?;
    let staged = packing.stage("wheel")?;
    let mut command = packing.workspace.command(venv.program("maturin"));
    command.current_dir(packing.workspace.path("crates/dodometer/python"));
    command.args(["build", "--locked", "--profile", packing.profile, "--out"]).arg(&staged);
    // Maturin looks for zig with the first Python that it finds.
    command.env("PATH", in_front(&venv.programs())?);
    if !packing.native {
        command.args(["--target", packing.platform.target]);
    }
    match zig {
        Some(compatibility) => command.args(["--zig", "--compatibility", compatibility]),
        None if portable => command.args(["--compatibility", "pypi"]),
        None => command.args(["--compatibility", "linux"]),
    };
    packing.run(command)?;
    let built = only_file(&staged)?;
    let wheel = packing.out.join(built.file_name().context("a wheel has a name")?);
    fs::copy(&built, &wheel).with_context(|| wheel.display().to_string())?;
    Ok(wheel)
}

/// Takes the program out of the wheel.
fn program(packing: &mut Packing<'_>, wheel: &Path) -> Result<PathBuf> {
    let unpacked = packing.stage("unpacked")?;
    let venv = tools(packing, &[MATURIN])?;
    let mut command = packing.workspace.command(venv.program("python"));
    packing.run({
        command.args(["-m", "zipfile", "-e"]).args([wheel, &unpacked]);
        command
    })?;
    let program = unpacked
        .join(format!("dodometer-{VERSION}.data"))
        .join("scripts")
        .join(packing.platform.executable());
    executable(&program)?;
    Ok(program)
}

/// The program as npm's package for the systems that can run it.
fn npm_platform(packing: &mut Packing<'_>, program: &Path) -> Result<()> {
    let platform = packing.platform;
    let staged = packing.stage(platform.name)?;
    let mut manifest = launcher_manifest(packing)?;
    for key in ["main", "types", "bin", "keywords"] {
        manifest.remove(key);
    }
    manifest.insert("name".to_owned(), json!(platform.package()));
    manifest.insert("description".to_owned(), json!(format!("dodometer for {}", platform.target)));
    manifest.insert("files".to_owned(), json!(["bin"]));
    manifest.insert("os".to_owned(), json!([platform.os]));
    manifest.insert("cpu".to_owned(), json!([platform.cpu]));
    if let Some(libc) = platform.libc {
        manifest.insert("libc".to_owned(), json!([libc]));
    }
    let place = staged.join("bin").join(platform.executable());
    fs::create_dir(staged.join("bin"))?;
    fs::copy(program, &place).with_context(|| place.display().to_string())?;
    npm_pack(packing, &staged, manifest)
}

/// The package that npm's users ask for: it finds the platform's, and runs it.
fn npm_launcher(packing: &mut Packing<'_>) -> Result<()> {
    let staged = packing.stage("launcher")?;
    let mut manifest = launcher_manifest(packing)?;
    let platforms: Map<String, Value> =
        PLATFORMS.iter().map(|platform| (platform.package(), json!(VERSION))).collect();
    manifest.insert("optionalDependencies".to_owned(), Value::Object(platforms));
    let files = manifest.get("files").and_then(Value::as_array).context("no files")?;
    for file in files.iter().filter_map(Value::as_str) {
        let from = packing.workspace.path("crates/dodometer/npm").join(file);
        fs::copy(&from, staged.join(file)).with_context(|| from.display().to_string())?;
    }
    npm_pack(packing, &staged, manifest)
}

/// The launcher's manifest with the version.
fn launcher_manifest(packing: &Packing<'_>) -> Result<Map<String, Value>> {
    let path = packing.workspace.path("crates/dodometer/npm/package.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut manifest: Map<String, Value> = serde_json::from_str(&text)?;
    manifest.insert("version".to_owned(), json!(VERSION));
    Ok(manifest)
}

/// Packs a directory with its manifest and the notices, of which npm takes only the read-me by itself.
fn npm_pack(
    packing: &mut Packing<'_>,
    staged: &Path,
    mut manifest: Map<String, Value>,
) -> Result<()> {
    let files = manifest.get_mut("files").and_then(Value::as_array_mut).context("no files")?;
    files.push(json!("LICENSE-*"));
    fs::write(staged.join("package.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    for notice in NOTICES {
        let from = packing.workspace.path(notice);
        let name = from.file_name().context("a notice has a name")?;
        fs::copy(&from, staged.join(name)).with_context(|| from.display().to_string())?;
    }
    let mut command = packing.workspace.command(system::script("npm"));
    command.args(["pack", "--silent", "--pack-destination"]).arg(&packing.out).arg(staged);
    command.env("PATH", system::path(packing.workspace)?);
    packing.run(command)
}

fn completions(packing: &mut Packing<'_>, program: &Path) -> Result<()> {
    let directory = packing.out.join("completions");
    fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
    for (shell, file) in COMPLETIONS {
        let script = crate::process::capture(Command::new(program).args(["completions", shell]))?;
        fs::write(directory.join(file), script)?;
    }
    Ok(())
}

fn tools(packing: &mut Packing<'_>, requirements: &[&str]) -> Result<Venv> {
    let venv = Venv::new(packing.workspace, "packaging");
    venv.provide(packing.workspace, packing.log, requirements)?;
    Ok(venv)
}

/// `PATH` with a directory in front.
fn in_front(directory: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(
        std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path)),
    )?)
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(directory)?;
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file?.path()),
        _ => bail!("{} does not hold one file", directory.display()),
    }
}

/// Archives of Python's own forget what may be run.
#[cfg(unix)]
fn executable(program: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
        .with_context(|| program.display().to_string())
}

#[cfg(not(unix))]
fn executable(program: &Path) -> Result<()> {
    fs::metadata(program).map(drop).with_context(|| program.display().to_string())
}
