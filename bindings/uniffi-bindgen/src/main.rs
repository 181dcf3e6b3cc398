//! Writes the Kotlin side of the boundary from the library that was built.
//!
//! `uniffi-bindgen OUT_DIR [LIBRARY]`; the library is the one beside this program, if it is not
//! named. A crate of its own, so that the library is not built with a generator inside.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

const LIBRARY: &str = "dodo_ingestion_uniffi";
const WRITTEN: &str = "com/dodopayments/ingestion/native/dodo_ingestion_uniffi.kt";
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../uniffi/bindgen.toml");

/// How the generator calls the library.
const CALL: &str = "    val return_value = callback(status)
    uniffiCheckCallStatus(errorHandler, status)
    return return_value
";
/// The same without what it leaves to JNA's cleaner: that is one thread behind one lock, and where calls keep the
/// processors busy, their memory fills the heap faster than it is freed.
const CALL_THAT_FREES: &str = "    val memory = arrayOf(status.pointer, status.error_buf.pointer)
    try {
        val return_value = callback(status)
        uniffiCheckCallStatus(errorHandler, status)
        return return_value
    } finally {
        for (each in memory) (each as com.sun.jna.Memory).close()
    }
";

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let Some(out_dir) = arguments.next() else {
        bail!("usage: uniffi-bindgen OUT_DIR [LIBRARY]");
    };
    let library = arguments.next().map_or_else(beside, Ok)?;
    generate(GenerateOptions {
        languages: vec![TargetLanguage::Kotlin],
        source: library.into(),
        out_dir: out_dir.clone().into(),
        config_override: Some(CONFIG.into()),
        format: false,
        crate_filter: Some(LIBRARY.to_owned()),
        metadata_no_deps: true,
    })?;
    let written = Path::new(&out_dir).join(WRITTEN);
    let source = fs::read_to_string(&written).with_context(|| written.display().to_string())?;
    ensure!(source.matches(CALL).count() == 1, "{} calls the library otherwise", written.display());
    Ok(fs::write(&written, source.replace(CALL, CALL_THAT_FREES))?)
}

fn beside() -> Result<String> {
    let name = format!("{}{LIBRARY}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let program = env::current_exe().context("the path of this program")?;
    let library: PathBuf = program.with_file_name(name);
    library.into_os_string().into_string().ok().context("a path that is not Unicode")
}
