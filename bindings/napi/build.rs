//! Links the addon.

fn main() {
    napi_build::setup();
    // Node unloads an addon that only workers have loaded, under the engine's running thread.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
