//! Whether calls wait in a namespace that no process serves. Nothing is changed there; a lock is
//! taken for a moment, for which whoever wants it tries again.

use std::io;
use std::path::Path;

use super::reader::Reader;
use super::{Namespace, read_cursor};
use crate::disk::{Disk, Open};

/// So many spools are looked at for a call that waits.
const MAX_SPOOLS: usize = 50;

impl Namespace {
    /// The bytes of the spools, where calls wait in them and no process serves the namespace.
    pub(crate) fn abandoned_bytes(&self) -> io::Result<Option<u64>> {
        if is_locked(&**self.disk(), &self.dir().join("sender.lock"))? {
            return Ok(None);
        }
        for name in self.spools()?.iter().take(MAX_SPOOLS) {
            let spool = self.spool_dir(name);
            // One that is locked has an owner, who is about to become the sender.
            if self.waits(&spool)? && !is_locked(&**self.disk(), &spool.join("owner"))? {
                return self.disk().usage(&self.dir().join("spools")).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether anything in a spool is not settled.
    fn waits(&self, spool: &Path) -> io::Result<bool> {
        let settled = read_cursor(&**self.disk(), spool).map_or(0, |cursor| cursor.settled);
        let mut reader = Reader::new(self.disk().clone(), spool.to_owned(), settled);
        let found = reader.read(1, 1, true)?;
        Ok(!found.records.is_empty() || !found.damage.is_empty() || found.newer.is_some())
    }
}

fn is_locked(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.open(path, Open::Read) {
        Ok(file) => Ok(!file.try_lock()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
