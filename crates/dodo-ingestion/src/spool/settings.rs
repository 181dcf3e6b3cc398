//! What the processes of a namespace are set to, as the last one that opened it wrote it down.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::Namespace;
use crate::disk::{Disk, Open, read_to_end};

/// Settings by name: a JSON object.
pub(crate) type Settings = Map<String, Value>;

/// More than settings take.
const MAX_BYTES: u64 = 64 << 10;

impl Namespace {
    /// Writes settings down for the next process that opens the namespace. Returns those of the last
    /// one; none where there are none that can be read.
    pub(crate) fn exchange_settings(&self, ours: &Settings) -> io::Result<Option<Settings>> {
        self.alone(|| {
            let path = self.dir().join("settings");
            let theirs = read(&**self.disk(), &path)?;
            if theirs.as_ref() != Some(ours) {
                write(&**self.disk(), &path, ours)?;
            }
            Ok(theirs)
        })
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Settings>> {
    let file = match disk.open(path, Open::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    Ok(serde_json::from_slice(&read_to_end(&*file, MAX_BYTES)?).ok())
}

/// Not synced: what a power loss leaves of it is replaced by the next process.
fn write(disk: &dyn Disk, path: &Path, settings: &Settings) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = disk.open(&new, Open::Update)?;
    file.truncate(0)?;
    file.write_all_at(&serde_json::to_vec(settings)?, 0)?;
    disk.rename(&new, path)
}
