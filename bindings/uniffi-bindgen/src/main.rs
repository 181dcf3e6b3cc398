//! Writes the Kotlin side of the boundary from the library that was built.
//!
//! `uniffi-bindgen OUT_DIR [LIBRARY]`; the library is the one beside this program, if it is not
//! named. A crate of its own, so that the library is not built with a generator inside.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

const LIBRARY: &str = "dodo_ingestion_uniffi";
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../uniffi/bindgen.toml");

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let Some(out_dir) = arguments.next() else {
        bail!("usage: uniffi-bindgen OUT_DIR [LIBRARY]");
    };
    let library = arguments.next().map_or_else(beside, Ok)?;
    generate(GenerateOptions {
        languages: vec![TargetLanguage::Kotlin],
        source: library.into(),
        out_dir: out_dir.into(),
        config_override: Some(CONFIG.into()),
        format: false,
        crate_filter: Some(LIBRARY.to_owned()),
        metadata_no_deps: true,
    })
}

fn beside() -> Result<String> {
    let name = format!("{}{LIBRARY}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let program = env::current_exe().context("the path of this program")?;
    let library: PathBuf = program.with_file_name(name);
    library.into_os_string().into_string().ok().context("a path that is not Unicode")
}
