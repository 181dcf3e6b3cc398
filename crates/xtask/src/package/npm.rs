//! What npm's packages have in common: the workspace's version, the licences, and for what does not run everywhere a
//! package for each platform, of which npm installs the one that fits.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::platform::PLATFORMS;
use super::{Packing, VERSION, notices};
use crate::system;

const LICENCES: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT"];

/// What the package for a platform says as the one does that needs it.
const INHERITED: &[&str] = &["license", "author", "homepage", "repository", "engines"];

/// Packs what was staged, with the manifest that lies in `directory` of the tree.
pub(super) fn pack(packing: &mut Packing<'_>, directory: &str, staged: &Path) -> Result<()> {
    let manifest = read(packing, directory)?;
    let name = name(&manifest)?;
    let platforms: Map<String, Value> =
        PLATFORMS.iter().map(|platform| (platform.package(name), json!(VERSION))).collect();
    copy(packing, directory, &["package.json"], staged)?;
    // Not written from here: in `exports` the order of the keys has a meaning.
    npm(packing, staged, &["pkg", "delete", "devDependencies", "scripts"])?;
    let version = format!("version={}", json!(VERSION));
    let platforms = format!("optionalDependencies={}", Value::Object(platforms));
    npm(packing, staged, &["pkg", "set", "--json", &version, &platforms])?;
    pack_staged(packing, staged)
}

/// Packs one file, which the package in `directory` of the tree needs on this platform, at `place` in a package of its
/// own. The crate `of` is compiled into it.
pub(super) fn pack_platform(
    packing: &mut Packing<'_>,
    directory: &str,
    of: &str,
    file: &Path,
    place: &str,
) -> Result<()> {
    let platform = packing.platform;
    let needs_it = read(packing, directory)?;
    let main = name(&needs_it)?;
    let name = platform.package(main);
    let about = format!("What {main} needs on {}", platform.target);
    let mut manifest = json!({
        "name": name,
        "version": VERSION,
        "description": about,
        "files": [place, "LICENSE-*"],
        "os": [platform.os],
        "cpu": [platform.cpu],
    });
    if let Some(libc) = platform.libc {
        manifest["libc"] = json!([libc]);
    }
    for key in INHERITED {
        manifest[key] = needs_it[*key].clone();
    }
    let staged = packing.stage(&format!("npm-{main}-{}", platform.name))?;
    let copy = staged.join(place);
    fs::create_dir_all(copy.parent().context("a file lies in a directory")?)?;
    fs::copy(file, &copy).with_context(|| file.display().to_string())?;
    let page = format!("https://www.npmjs.com/package/{main}");
    let read_me = format!("# {name}\n\n{about}. [{main}]({page}) installs it where it fits.\n");
    fs::write(staged.join("README.md"), read_me)?;
    fs::write(staged.join("package.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    notices::write(packing, of, &staged)?;
    pack_staged(packing, &staged)
}

/// Copies files of a directory of the tree.
pub(super) fn copy(
    packing: &Packing<'_>,
    directory: &str,
    files: &[&str],
    to: &Path,
) -> Result<()> {
    for file in files {
        let from = packing.workspace.path(directory).join(file);
        fs::copy(&from, to.join(file)).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// Runs npm in a directory.
pub(super) fn npm(packing: &mut Packing<'_>, directory: &Path, args: &[&str]) -> Result<()> {
    let mut command = packing.workspace.command(system::script("npm"));
    command.current_dir(directory).args(args).env("PATH", packing.path()?);
    packing.run(command)
}

fn pack_staged(packing: &mut Packing<'_>, staged: &Path) -> Result<()> {
    copy(packing, "", LICENCES, staged)?;
    let out = packing.out.to_str().context("npm takes paths of UTF-8 only")?.to_owned();
    npm(packing, staged, &["pack", "--silent", "--pack-destination", &out])
}

fn read(packing: &Packing<'_>, directory: &str) -> Result<Value> {
    let path = packing.workspace.path(directory).join("package.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

fn name(manifest: &Value) -> Result<&str> {
    manifest["name"].as_str().context("a package has a name")
}
