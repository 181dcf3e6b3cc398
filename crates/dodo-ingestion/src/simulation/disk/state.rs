//! The file system's operations, one at a time.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::contents::Contents;
use super::faults::DiskFaults;
use super::names::{Inode, Names, ROOT};
use crate::disk::{FileId, Open};

/// All of a machine.
#[derive(Debug)]
pub(super) struct State {
    rng: Rng,
    faults: DiskFaults,
    pub(super) fired: BTreeMap<&'static str, u64>,
    names: Names,
    files: BTreeMap<Inode, Contents>,
    open: BTreeMap<u64, Description>,
    /// The processes that live, each with a number that no process had before.
    lives: BTreeMap<u32, u64>,
    /// Of processes that are to die.
    operations_left: BTreeMap<u32, u64>,
    /// Inodes, descriptions and lives are numbered together; no number is used twice.
    last_number: u64,
    /// The last bytes of a full disk are taken.
    slack_taken: bool,
    /// Files can be written to through memory.
    maps: bool,
}

/// An open file description: what `open` makes, and `fork` shares.
#[derive(Debug)]
struct Description {
    inode: Inode,
    how: Open,
    locked: bool,
    opened_by: u32,
    held_by: BTreeSet<u32>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            faults: DiskFaults::default(),
            fired: BTreeMap::new(),
            names: Names::new(),
            files: BTreeMap::new(),
            open: BTreeMap::new(),
            lives: BTreeMap::new(),
            operations_left: BTreeMap::new(),
            last_number: ROOT,
            slack_taken: false,
            maps: Rng::with_seed(seed).bool(),
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn fire(&mut self, fault: &'static str) {
        *self.fired.entry(fault).or_default() += 1;
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }

    // Processes.

    pub(super) fn live(&mut self, process: u32) -> u64 {
        let number = self.next_number();
        *self.lives.entry(process).or_insert(number)
    }

    pub(super) fn begin_operation(&mut self, process: u32, life: u64) -> io::Result<()> {
        if let Some(left) = self.operations_left.get_mut(&process) {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.kill(process),
            }
        }
        if self.lives.get(&process) == Some(&life) {
            Ok(())
        } else {
            Err(io::Error::other("killed"))
        }
    }

    pub(super) fn fork(&mut self, parent: u32, child: u32) {
        self.live(child);
        for description in self.open.values_mut() {
            if description.held_by.contains(&parent) {
                description.held_by.insert(child);
            }
        }
    }

    pub(super) fn close_inherited(&mut self, child: u32) {
        self.let_go(child, |description| description.opened_by != child);
    }

    pub(super) fn kill_after(&mut self, process: u32, operations: u64) {
        self.operations_left.insert(process, operations);
    }

    pub(super) fn is_alive(&self, process: u32) -> bool {
        self.lives.contains_key(&process)
    }

    pub(super) fn kill(&mut self, process: u32) {
        self.operations_left.remove(&process);
        self.lives.remove(&process);
        self.let_go(process, |_| true);
    }

    pub(super) fn close(&mut self, process: u32, description: u64) {
        if let Some(open) = self.open.get_mut(&description) {
            open.held_by.remove(&process);
            if open.held_by.is_empty() {
                self.open.remove(&description);
            }
        }
    }

    fn let_go(&mut self, process: u32, which: impl Fn(&Description) -> bool) {
        self.open.retain(|_, description| {
            if which(description) {
                description.held_by.remove(&process);
            }
            !description.held_by.is_empty()
        });
    }

    // Faults.

    pub(super) fn change_faults(&mut self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.faults);
        self.slack_taken &= self.faults.no_space;
    }

    /// What every operation that reaches the disk may meet.
    fn reach(&mut self) -> io::Result<()> {
        if self.chance(self.faults.io_errors) {
            self.fire("io_errors");
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn reach_to_change(&mut self) -> io::Result<()> {
        self.check_writable()?;
        self.reach()
    }

    fn check_writable(&mut self) -> io::Result<()> {
        if self.faults.read_only {
            self.fire("read_only");
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    fn no_space(&mut self) -> io::Error {
        self.fire("no_space");
        io::ErrorKind::StorageFull.into()
    }

    /// By how many bytes files can grow.
    fn room(&self) -> u64 {
        match self.faults.capacity {
            _ if self.faults.no_space => 0,
            Some(capacity) => capacity.saturating_sub(self.total_bytes()),
            None => u64::MAX,
        }
    }

    pub(super) fn power_loss(&mut self) {
        self.fire("power_loss");
        self.lives.clear();
        self.open.clear();
        let lost = self.names.power_loss(&mut self.rng, self.faults.journalled);
        if lost > 0 {
            *self.fired.entry("names_lost").or_default() += lost;
        }
        let stale = self.rng.usize(..self.files.len().max(1));
        let stale = self.files.values().nth(stale).map_or(Vec::new(), |file| file.bytes().to_vec());
        for file in self.files.values_mut() {
            if let Some(how) = file.power_loss(&mut self.rng, &stale) {
                *self.fired.entry(how).or_default() += 1;
            }
        }
        self.forget_unnamed();
    }

    pub(super) fn rot(
        &mut self,
        filter: impl Fn(&Path) -> bool,
        rng: &mut Rng,
    ) -> Option<(PathBuf, Range<u64>)> {
        let mut found = self.names.below(ROOT, Path::new("/"));
        found.retain(|(path, inode)| {
            filter(path) && self.files.get(inode).is_some_and(|file| file.len() > 0)
        });
        let (path, inode) = found.get(rng.usize(..found.len().max(1)))?;
        let range = self.files.get_mut(inode)?.rot(rng);
        self.fire("rot");
        Some((path.clone(), range.start as u64..range.end as u64))
    }

    // For oracles.

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let found = self.names.below(ROOT, Path::new("/")).into_iter();
        found.filter(|found| !self.names.is_dir(found.1)).map(|found| found.0).collect()
    }

    pub(super) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.files.get(&self.names.find(path).ok()?)?.bytes().to_vec())
    }

    pub(super) fn total_bytes(&self) -> u64 {
        let mut inodes = self.names.linked();
        inodes.extend(self.open.values().map(|open| open.inode));
        inodes.iter().filter_map(|inode| self.files.get(inode)).map(|file| file.len() as u64).sum()
    }

    /// The bytes of all files that have a name.
    pub(super) fn named_bytes(&self) -> u64 {
        let named = self.names.named().filter_map(|inode| self.files.get(&inode));
        named.map(|file| file.len() as u64).sum()
    }

    /// Frees what nobody can ever read again.
    fn forget_unnamed(&mut self) {
        let mut kept = self.names.referenced();
        kept.extend(self.open.values().map(|open| open.inode));
        self.files.retain(|inode, _| kept.contains(inode));
    }

    // Names.

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        match self.names.find(dir) {
            Ok(inode) if self.names.is_dir(inode) => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = dir.parent() {
            self.create_dir_all(parent)?;
        }
        self.reach_to_change()?;
        if self.room() == 0 {
            return Err(self.no_space());
        }
        let (entry, _) = self.names.entry(dir)?;
        let inode = self.next_number();
        self.names.link(entry, inode, true);
        Ok(())
    }

    pub(super) fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        self.reach()?;
        let dir = match self.names.find(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        if !self.names.is_dir(dir) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut names: Vec<String> = self.names.entries(dir).map(|entry| entry.0.clone()).collect();
        self.rng.shuffle(&mut names);
        Ok(names)
    }

    pub(super) fn open(&mut self, process: u32, path: &Path, how: Open) -> io::Result<u64> {
        self.reach()?;
        let (entry, found) = self.names.entry(path)?;
        let inode = match found {
            Some(_) if how == Open::CreateToAppend => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Some(inode) if self.names.is_dir(inode) => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            None if how == Open::Read => return Err(io::ErrorKind::NotFound.into()),
            found => {
                if how != Open::Read {
                    self.check_writable()?;
                }
                found.unwrap_or_else(|| {
                    let inode = self.next_number();
                    self.names.link(entry, inode, false);
                    self.files.insert(inode, Contents::default());
                    inode
                })
            }
        };
        let number = self.next_number();
        let held_by = BTreeSet::from([process]);
        let description = Description { inode, how, locked: false, opened_by: process, held_by };
        self.open.insert(number, description);
        Ok(number)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.reach_to_change()?;
        let (from_entry, inode) = self.names.entry(from)?;
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        let (to_entry, replaced) = self.names.entry(to)?;
        if replaced == Some(inode) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (self.names.is_dir(inode), self.names.is_dir(replaced)) {
                (true, false) => return Err(io::ErrorKind::NotADirectory.into()),
                (false, true) => return Err(io::ErrorKind::IsADirectory.into()),
                _ if self.names.entries(replaced).next().is_some() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        let inside = self.names.below(inode, Path::new(""));
        if to_entry.0 == inode || inside.iter().any(|found| found.1 == to_entry.0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.names.rename(from_entry, to_entry, inode, replaced);
        self.forget_unnamed();
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, dir: bool) -> io::Result<()> {
        self.reach_to_change()?;
        let (entry, inode) = match self.names.entry(path) {
            Ok((entry, Some(inode))) => (entry, inode),
            Ok((_, None)) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match (self.names.is_dir(inode), dir) {
            (true, false) => return Err(io::ErrorKind::IsADirectory.into()),
            (false, true) => return Err(io::ErrorKind::NotADirectory.into()),
            _ if self.names.entries(inode).next().is_some() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.names.unlink(entry, inode);
        self.forget_unnamed();
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.reach()?;
        let dir = self.names.find(dir)?;
        if self.chance(self.faults.sync_fails) {
            self.fire("sync_fails");
            return Err(io::Error::other("input/output error"));
        }
        if self.faults.journalled {
            self.names.sync_all();
        } else {
            self.names.sync_dir(dir);
        }
        self.forget_unnamed();
        Ok(())
    }

    pub(super) fn identify(&self, path: &Path) -> io::Result<FileId> {
        Ok(FileId { device: 1, inode: self.names.find(path)? })
    }

    pub(super) fn usage(&mut self, dir: &Path) -> io::Result<u64> {
        self.reach()?;
        let found = self.names.below(self.names.find(dir)?, dir);
        let files = found.iter().filter_map(|found| self.files.get(&found.1));
        Ok(files.map(|file| file.len() as u64).sum())
    }
}
