//! `_native.pyi`: what Python's functions say of themselves, as the built library says it.

use anyhow::Result;

use crate::process;
use crate::system;
use crate::workspace::Workspace;

pub(super) const PATH: &str = "python/src/dodo_ingestion/_native.pyi";

/// The committed stubs, whose signatures are written by hand, with the library's documentation.
pub(super) fn documented(workspace: &Workspace) -> Result<String> {
    let mut python = workspace.command(system::python());
    python.arg(workspace.path("python/tests/stubs.py"));
    python.arg(workspace.library("dodo-ingestion-pyo3")).arg(workspace.path(PATH));
    process::capture(&mut python)
}
