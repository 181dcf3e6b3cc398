//! The Python package: a wheel for this platform, and the source distribution for all others.

use anyhow::Result;

use super::{Packing, maturin};

pub(super) fn pack(packing: &mut Packing<'_>) -> Result<()> {
    maturin::wheel(packing, "python", "dodo-ingestion-pyo3")?;
    maturin::source(packing, "python")?;
    Ok(())
}
