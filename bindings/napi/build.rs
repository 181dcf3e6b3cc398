//! Links the addon, and has its declarations written.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    napi_build::setup();
    declare()?;
    // Node unloads an addon that only workers have loaded, under the engine's running thread.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    Ok(())
}

/// The macros write what TypeScript has to know of each function, and `cargo xtask gen` reads it: to
/// `napi/` beside the built libraries.
fn declare() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    if let Some(built) = out.ancestors().nth(3) {
        let folder = built.join("napi");
        fs::create_dir_all(&folder)?;
        println!("cargo::rustc-env=NAPI_TYPE_DEF_TMP_FOLDER={}", folder.display());
    }
    Ok(())
}
