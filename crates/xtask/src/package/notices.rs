//! What the licences of the crates ask for that are compiled into a package: their texts go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Packing;
use crate::process;

/// Lies beside the project's own licences.
pub(super) const FILE: &str = "LICENSE-THIRD-PARTY";

/// How a file begins that a crate's licence asks to hand on.
const NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

const STANDARD_LIBRARY: &str =
    "The Rust standard library (MIT OR Apache-2.0, https://github.com/rust-lang/rust)";

/// Writes them for what is compiled into a crate of the workspace.
pub(super) fn write(packing: &Packing<'_>, of: &str, directory: &Path) -> Result<()> {
    let mut command = packing.workspace.cargo(["metadata", "--locked", "--format-version", "1"]);
    command.args(["--filter-platform", packing.platform.target]);
    let metadata: Value = serde_json::from_str(&process::capture(&mut command)?)?;
    let file = directory.join(FILE);
    fs::write(&file, text(&metadata, of)?).with_context(|| file.display().to_string())
}

fn text(metadata: &Value, of: &str) -> Result<String> {
    let crates = compiled_into(metadata, of)?;
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut said = format!(
        "This package contains code of others, under their licences.\n\n{STANDARD_LIBRARY}\n"
    );
    for of in &crates {
        let (name, licence) = (name(of), of["license"].as_str().unwrap_or("see its text"));
        let from = of["repository"].as_str().unwrap_or("https://crates.io");
        writeln!(said, "{name} ({licence}, {from})")?;
        let manifest = of["manifest_path"].as_str().context("a crate has a manifest")?;
        let directory = Path::new(manifest).parent().context("it lies in a directory")?;
        for text in licences(directory)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    for (text, of) in texts {
        let of: Vec<String> = of.into_iter().collect();
        write!(said, "\n{}\n{}\n\n{text}\n", "-".repeat(80), of.join(", "))?;
    }
    Ok(said)
}

/// The crates of others whose code is in a crate of the workspace: not those that are used to build it.
fn compiled_into<'a>(metadata: &'a Value, of: &str) -> Result<Vec<&'a Value>> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let needs: BTreeMap<&str, &[Value]> = list(&metadata["resolve"]["nodes"])
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, list(&node["deps"]))))
        .collect();
    let root = packages.iter().find(|(_, package)| package["name"] == of);
    let (root, _) = root.with_context(|| format!("the workspace has no crate {of}"))?;
    let (mut found, mut waiting) = (BTreeSet::new(), vec![*root]);
    while let Some(id) = waiting.pop() {
        let is_macro =
            |target: &Value| list(&target["kind"]).iter().any(|kind| kind == "proc-macro");
        if list(&packages[id]["targets"]).iter().any(is_macro) || !found.insert(id) {
            continue;
        }
        for need in needs.get(id).copied().unwrap_or_default() {
            if list(&need["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                waiting.extend(need["pkg"].as_str());
            }
        }
    }
    let mut crates: Vec<&Value> = found.into_iter().map(|id| packages[id]).collect();
    crates.retain(|package| !package["source"].is_null());
    crates.sort_by_key(|package| name(package));
    ensure!(!crates.is_empty(), "nothing is compiled into {of}");
    Ok(crates)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name(package: &Value) -> String {
    let part = |key: &str| package[key].as_str().unwrap_or_default();
    format!("{} {}", part("name"), part("version"))
}

fn licences(directory: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase());
        let is_one = name.is_some_and(|name| NAMES.iter().any(|begin| name.starts_with(begin)));
        if is_one && path.is_file() {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            texts.push(String::from_utf8_lossy(&bytes).trim().replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn what_is_compiled_in_is_named_with_its_licence_and_what_only_builds_it_is_not() {
        let workspace = Workspace::locate().unwrap();
        let mut command = workspace.cargo(["metadata", "--locked", "--format-version", "1"]);
        let metadata = serde_json::from_str(&process::capture(&mut command).unwrap()).unwrap();
        let text = text(&metadata, "dodo-ingestion-pyo3").unwrap();
        for of in ["\nring ", "\nrustls ", "\ntokio ", "\npyo3 "] {
            assert!(text.contains(of), "{of}");
        }
        for of in ["\nserde_derive ", "\nsyn ", "\nnapi ", "\ndodo-ingestion "] {
            assert!(!text.contains(of), "{of}");
        }
        assert!(text.contains("Permission is hereby granted") && text.contains("Apache License"));
        super::text(&metadata, "no-such-crate").unwrap_err();
    }
}
