//! A machine's file system, shared by simulated processes that can be killed, and that can lose its
//! power. What happens is decided by the machine's seed and the order of calls alone.
//!
//! Files are inodes, names are directory entries, and a lock belongs to an open file description,
//! as on Unix. What is not synced may be lost with the power, in part and out of order. Nothing here
//! knows what a record is.

mod contents;
mod faults;
mod names;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use faults::DiskFaults;

use super::meanwhile;
use crate::disk::{Disk, DiskFile, FileId, Open, Reserved};
use state::State;

/// The file system as the one who runs the simulation sees it.
#[derive(Clone)]
pub(crate) struct Machine {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed))) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of one process. The number of one that was killed makes a new process.
    pub(crate) fn disk(&self, process: u32) -> Arc<dyn Disk> {
        let life = self.lock().live(process);
        Arc::new(SimDisk { machine: self.clone(), process, life })
    }

    /// The child shares the open files of its parent: what is locked stays so while either has it.
    pub(crate) fn fork(&self, parent: u32, child: u32) {
        self.lock().fork(parent, child);
    }

    /// A child lets go of all that it has from its parents.
    pub(crate) fn close_inherited(&self, child: u32) {
        self.lock().close_inherited(child);
    }

    /// Ends a process: its files are closed, and what still holds its handles can do nothing.
    pub(crate) fn kill(&self, process: u32) {
        self.lock().kill(process);
    }

    /// Ends a process after so many more operations.
    pub(crate) fn kill_after(&self, process: u32, operations: u64) {
        self.lock().kill_after(process, operations);
    }

    pub(crate) fn is_alive(&self, process: u32) -> bool {
        self.lock().is_alive(process)
    }

    /// Ends all processes, and loses of what was not synced what the seed says.
    pub(crate) fn power_loss(&self) {
        self.lock().power_loss();
    }

    pub(crate) fn faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        self.lock().change_faults(change);
    }

    /// Harms a range of one of the files whose path passes the filter.
    pub(crate) fn rot(
        &self,
        filter: impl Fn(&Path) -> bool,
        rng: &mut fastrand::Rng,
    ) -> Option<(PathBuf, Range<u64>)> {
        self.lock().rot(filter, rng)
    }

    /// How often each fault came about.
    pub(crate) fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.lock().fired.clone()
    }

    /// All files, by path.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.lock().paths()
    }

    pub(crate) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock().contents(path)
    }

    /// The bytes of all files that have a name.
    pub(crate) fn named_bytes(&self) -> u64 {
        self.lock().named_bytes()
    }

    /// The bytes of all files that have a name or are open.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.lock().total_bytes()
    }
}

/// The file system as one process sees it.
#[derive(Clone, Debug)]
struct SimDisk {
    machine: Machine,
    process: u32,
    life: u64,
}

impl SimDisk {
    /// Carries an operation out, if the process lives.
    fn act<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        meanwhile::operation();
        let mut state = self.machine.lock();
        state.begin_operation(self.process, self.life)?;
        act(&mut state)
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.act(|state| state.create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.act(|state| state.list(dir))
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let description = self.act(|state| state.open(self.process, path, how))?;
        Ok(Arc::new(SimFile { disk: self.clone(), description }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(|state| state.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.act(|state| state.remove(path, false))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.act(|state| state.remove(dir, true))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act(|state| state.sync_dir(dir))
    }

    fn identify(&self, path: &Path) -> io::Result<FileId> {
        self.act(|state| state.identify(path))
    }

    fn usage(&self, dir: &Path) -> io::Result<u64> {
        self.act(|state| state.usage(dir))
    }
}

/// A process's reference to an open file description.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    description: u64,
}

impl SimFile {
    fn act<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        self.disk.act(|state| act(state, self.description))
    }
}

impl DiskFile for SimFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        self.act(|state, file| state.append(file, bytes))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.act(|state, file| state.read_at(file, buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.act(|state, file| state.write_all_at(file, bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.act(State::len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.act(|state, file| state.truncate(file, len))
    }

    fn reserve(&self, len: u64) -> Option<Box<dyn Reserved>> {
        let can = self.act(|state, file| state.reserve(file, len)).is_ok_and(|can| can);
        can.then(|| Box::new(SimMemory(self.disk.clone(), self.description)) as Box<dyn Reserved>)
    }

    fn sync(&self) -> io::Result<()> {
        self.act(State::sync)
    }

    fn identify(&self) -> io::Result<FileId> {
        self.act(State::identify_open)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.act(State::try_lock)
    }
}

/// Memory of a process that a file is mapped to. The file is open for longer.
#[derive(Debug)]
struct SimMemory(SimDisk, u64);

impl Reserved for SimMemory {
    fn commit(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Self(disk, file) = self;
        let (last, first) = bytes.split_at(4);
        disk.act(|state| state.store(*file, first, offset + 4))?;
        disk.act(|state| state.store(*file, last, offset))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.machine.lock().close(self.disk.process, self.description);
    }
}
