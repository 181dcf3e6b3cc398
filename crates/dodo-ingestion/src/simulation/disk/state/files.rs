//! Operations on open files.

use std::io;

use super::super::contents::Contents;
use super::{Description, State};
use crate::disk::{FileId, Open};

impl State {
    fn description(&mut self, number: u64) -> io::Result<&mut Description> {
        self.open.get_mut(&number).ok_or_else(|| io::Error::other("bad file descriptor"))
    }

    fn file(&mut self, number: u64) -> io::Result<&mut Contents> {
        let inode = self.description(number)?.inode;
        self.files.get_mut(&inode).ok_or_else(|| io::Error::other("no such inode"))
    }

    /// Fails unless the file was opened in one of these ways.
    fn check_opened(&mut self, number: u64, ways: &[Open]) -> io::Result<()> {
        let how = self.description(number)?.how;
        if ways.contains(&how) {
            Ok(())
        } else {
            Err(io::Error::other(format!("not an operation for a file opened with {how:?}")))
        }
    }

    pub(in crate::simulation::disk) fn append(
        &mut self,
        file: u64,
        bytes: &[u8],
    ) -> io::Result<usize> {
        self.check_opened(file, &[Open::Append, Open::CreateToAppend])?;
        self.reach_to_change()?;
        let mut room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        if self.faults.no_space && !self.slack_taken {
            self.slack_taken = true;
            room = self.rng.usize(..bytes.len().max(1));
        }
        if room == 0 && !bytes.is_empty() {
            return Err(self.no_space());
        }
        let mut taken = bytes.len();
        if taken > 1 && self.chance(self.faults.short_writes) {
            self.fire("short_writes");
            taken = self.rng.usize(1..taken);
        }
        if room < taken {
            self.fire("no_space");
            taken = room;
        }
        self.file(file)?.append(&bytes[..taken]);
        Ok(taken)
    }

    pub(in crate::simulation::disk) fn write_all_at(
        &mut self,
        file: u64,
        bytes: &[u8],
        at: u64,
    ) -> io::Result<()> {
        self.check_opened(file, &[Open::Update])?;
        self.check_writable()?;
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        if let Err(error) = self.reach() {
            // The first of several writes may have succeeded.
            if bytes.len() > Contents::WHOLE_BYTES {
                let taken = self.rng.usize(..bytes.len());
                let within = self.file(file)?.len().saturating_sub(at);
                self.file(file)?.write_at(&bytes[..taken.min(within)], at);
            }
            return Err(error);
        }
        let len = self.file(file)?.len();
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        if len.saturating_add(room) < at.saturating_add(bytes.len()) {
            let fits = len.saturating_add(room).saturating_sub(at);
            if bytes.len() > Contents::WHOLE_BYTES && fits > 0 {
                self.file(file)?.write_at(&bytes[..fits], at);
            }
            return Err(self.no_space());
        }
        self.file(file)?.write_at(bytes, at);
        Ok(())
    }

    pub(in crate::simulation::disk) fn read_at(
        &mut self,
        file: u64,
        to: &mut [u8],
        at: u64,
    ) -> io::Result<usize> {
        self.reach()?;
        let bytes = self.file(file)?.bytes();
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let read = rest.len().min(to.len());
        to[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    pub(in crate::simulation::disk) fn len(&mut self, file: u64) -> io::Result<u64> {
        Ok(self.file(file)?.len() as u64)
    }

    pub(in crate::simulation::disk) fn truncate(&mut self, file: u64, len: u64) -> io::Result<()> {
        self.check_opened(file, &[Open::Append, Open::CreateToAppend, Open::Update])?;
        self.reach_to_change()?;
        let grows = len.saturating_sub(self.len(file)?);
        if grows > self.room() {
            return Err(self.no_space());
        }
        self.file(file)?.truncate(len as usize);
        Ok(())
    }

    /// Whether so many bytes can be set aside for a file, to be written through memory.
    pub(in crate::simulation::disk) fn reserve(&mut self, file: u64, len: u64) -> io::Result<bool> {
        self.check_opened(file, &[Open::Append, Open::CreateToAppend])?;
        let reached = self.maps && self.reach_to_change().is_ok();
        Ok(reached && len.saturating_sub(self.len(file)?) <= self.room())
    }

    /// A write through memory, which nothing keeps from the file.
    pub(in crate::simulation::disk) fn store(
        &mut self,
        file: u64,
        bytes: &[u8],
        at: u64,
    ) -> io::Result<()> {
        let (at, contents) = (at as usize, self.file(file)?);
        assert!(at + bytes.len() <= contents.len(), "SIGBUS: the file ends before");
        contents.write_at(bytes, at);
        Ok(())
    }

    pub(in crate::simulation::disk) fn sync(&mut self, file: u64) -> io::Result<()> {
        self.reach()?;
        if self.file(file)?.is_synced() {
            return Ok(());
        }
        self.check_writable()?;
        if self.chance(self.faults.sync_fails) {
            self.fire("sync_fails");
            let mut rng = self.rng.fork();
            self.file(file)?.fail_sync(&mut rng);
            return Err(io::Error::other("input/output error"));
        }
        if self.faults.journalled {
            self.names.sync_all();
        }
        self.file(file)?.sync();
        Ok(())
    }

    pub(in crate::simulation::disk) fn identify_open(&mut self, file: u64) -> io::Result<FileId> {
        Ok(FileId { device: 1, inode: self.description(file)?.inode })
    }

    pub(in crate::simulation::disk) fn try_lock(&mut self, file: u64) -> io::Result<bool> {
        let inode = self.description(file)?.inode;
        let held = |(number, open): (&u64, &Description)| {
            *number != file && open.inode == inode && open.locked
        };
        let free = !self.open.iter().any(held);
        if free {
            self.description(file)?.locked = true;
        }
        Ok(free)
    }
}
