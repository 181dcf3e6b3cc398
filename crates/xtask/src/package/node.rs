//! The Node package: what TypeScript makes of `node/src`, and the addon for this platform.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::platform::GLIBC;
use super::{Packing, npm};
use crate::checks;
use crate::system;
use crate::workspace::BUILD;

const CRATE: &str = "dodo-ingestion-napi";
/// The name under which `node/src/load.ts` looks for it.
const ADDON: &str = "dodo_ingestion.node";

/// Cargo with zig as the linker, as maturin has it built in.
const CARGO_ZIGBUILD: &str = "cargo-zigbuild==0.24.0";

pub(super) fn pack(packing: &mut Packing<'_>) -> Result<()> {
    let addon = addon(packing)?;
    npm::pack_platform(packing, "node", CRATE, &addon, ADDON)?;

    let staged = packing.stage("npm-dodo-ingestion")?;
    let node = packing.workspace.path("node");
    let compiled = staged.join("dist");
    let compiled = compiled.to_str().context("npm takes paths of UTF-8 only")?;
    checks::npm_ci(packing.workspace, packing.log, "node")?;
    npm::npm(packing, &node, &["run", "--silent", "build", "--", "--outDir", compiled])?;
    npm::copy(packing, "node", &["README.md", "COMPATIBILITY.md"], &staged)?;
    npm::pack(packing, "node", &staged)
}

/// Builds the addon; a published one for Linux so that it runs with an old C library too.
fn addon(packing: &mut Packing<'_>) -> Result<PathBuf> {
    if !packing.published() {
        let build = packing.workspace.cargo(BUILD);
        packing.run(build)?;
        return Ok(packing.workspace.library(CRATE));
    }
    let platform = packing.platform;
    let glibc = platform.libc == Some("glibc");
    let mut command = if packing.zig() {
        let venv = packing.tools(&[CARGO_ZIGBUILD])?;
        let mut command = packing.workspace.command(venv.program("cargo-zigbuild"));
        command.arg("zigbuild");
        command
    } else {
        packing.workspace.cargo(["build"])
    };
    let (major, minor) = GLIBC;
    let suffix = if glibc { format!(".{major}.{minor}") } else { String::new() };
    command.args(["--locked", "--package", CRATE, "--profile", packing.profile, "--target"]);
    command.arg(format!("{}{suffix}", platform.target)).env("PATH", packing.path()?);
    if platform.libc == Some("musl") {
        // A library that is loaded has no C library of its own.
        command.env("RUSTFLAGS", "-C target-feature=-crt-static");
    }
    packing.run(command)?;
    let built = packing.workspace.target(platform.target, packing.profile);
    let addon = built.join(platform.library(CRATE));
    if glibc {
        audit(&addon)?;
    }
    Ok(addon)
}

/// Whether a library asks for no newer C library than it may.
fn audit(library: &Path) -> Result<()> {
    let bytes = fs::read(library).with_context(|| library.display().to_string())?;
    let asked = newest_glibc(&bytes).context("the library uses no C library")?;
    ensure!(asked <= GLIBC, "{} asks for glibc {}.{}", library.display(), asked.0, asked.1);
    Ok(())
}

/// The newest version of glibc that a library names. What it needs stands as text among its symbols.
fn newest_glibc(library: &[u8]) -> Option<(u32, u32)> {
    let versions = library.split(|byte| *byte == 0).filter_map(|name| name.strip_prefix(b"GLIBC_"));
    versions.filter_map(|version| system::numbers(std::str::from_utf8(version).ok()?)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_among_the_symbols() {
        let library = b"\x7fELF\0malloc\0GLIBC_2.9\0GLIBC_2.17\0GLIBC_2.2.5\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(library), Some((2, 17)));
        assert_eq!(newest_glibc(b"\x7fELF\0malloc\0"), None);
    }
}
