//! Where things are, and what cargo is started with.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// What builds every library and program. `--examples` is what makes cargo unify features as it does for tests.
pub(crate) const BUILD: &[&str] =
    &["build", "--workspace", "--locked", "--lib", "--bins", "--examples"];

/// The checkout and the directory that cargo builds into.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds both from this program: its manifest lies in the checkout, and cargo has put the program itself into the
    /// target directory, wherever a configuration file or `CARGO_TARGET_DIR` has moved that.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
        let root = Path::new(&manifest).ancestors().nth(2).context("xtask lies in crates/xtask")?;
        let program = env::current_exe().context("the path of this program")?;
        let target =
            program.ancestors().nth(2).context("this program lies in target/<profile>/")?;
        Ok(Self { root: root.to_owned(), target: target.to_owned() })
    }

    /// A path in the checkout, `/`-separated.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        relative.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// A path in `.cache/`, which holds what the checks need and git ignores.
    pub(crate) fn cache(&self, relative: &str) -> PathBuf {
        self.path(".cache").join(relative)
    }

    /// A built program, `profile` being cargo's name for the directory (`debug`, `release`).
    pub(crate) fn program(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// Where the `debug` profile's libraries and programs lie.
    pub(crate) fn built(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// Where the libraries and programs for a platform lie, `profile` being cargo's name for the directory.
    pub(crate) fn target(&self, platform: &str, profile: &str) -> PathBuf {
        self.target.join(platform).join(profile)
    }

    /// A built C dynamic library of the `debug` profile, by the name of its crate.
    pub(crate) fn library(&self, krate: &str) -> PathBuf {
        self.library_of("debug", krate)
    }

    /// The same of another profile.
    pub(crate) fn library_of(&self, profile: &str, krate: &str) -> PathBuf {
        let name = krate.replace('-', "_");
        let file = format!("{}{name}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        self.target.join(profile).join(file)
    }

    /// A command that starts in the root of the checkout.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        self.scrub(&mut command);
        command
    }

    /// The cargo that started this program.
    pub(crate) fn cargo<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command =
            self.command(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        command.args(args);
        command
    }

    /// Takes out of the environment what `cargo run` has put in for this program. Build scripts watch some of it
    /// (`ring`'s watches `CARGO_PKG_NAME`), and would compile half of the tree again on every change between
    /// `cargo test` and `cargo xtask test`; and no Python or Java should load libraries from Rust's directories.
    fn scrub(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_set_by_cargo_run) {
                command.env_remove(name);
            }
        }
        for name in ["LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"] {
            let Some(value) = env::var_os(name) else { continue };
            let kept: Vec<PathBuf> = env::split_paths(&value)
                .filter(|path| !path.starts_with(&self.target) && !is_toolchain_library(path))
                .collect();
            match env::join_paths(&kept) {
                Ok(value) if !kept.is_empty() => command.env(name, value),
                _ => command.env_remove(name),
            };
        }
    }
}

fn is_set_by_cargo_run(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || matches!(
            name,
            "CARGO"
                | "CARGO_BIN_NAME"
                | "CARGO_CRATE_NAME"
                | "CARGO_MANIFEST_DIR"
                | "CARGO_MANIFEST_PATH"
                | "CARGO_PRIMARY_PACKAGE"
                | "OUT_DIR"
        )
}

fn is_toolchain_library(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "toolchains" || part.as_os_str() == "rustlib")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_cargo_run_is_known_from_the_users_own() {
        assert!(is_set_by_cargo_run("CARGO_PKG_NAME"));
        assert!(is_set_by_cargo_run("CARGO_MANIFEST_DIR"));
        assert!(!is_set_by_cargo_run("CARGO_TARGET_DIR"));
        assert!(!is_set_by_cargo_run("CARGO_HOME"));
        assert!(!is_set_by_cargo_run("PATH"));
    }

    #[test]
    fn rusts_own_libraries_are_known() {
        assert!(is_toolchain_library(Path::new("/home/a/.rustup/toolchains/stable/lib")));
        assert!(!is_toolchain_library(Path::new("/usr/lib")));
    }
}
