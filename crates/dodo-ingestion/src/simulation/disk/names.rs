//! Directories: the names as they are now, and as a power loss would leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use fastrand::Rng;

pub(super) type Inode = u64;

pub(super) const ROOT: Inode = 1;
/// With more unsynced changes than this, the older half goes to the disk by itself.
const MOST_UNSYNCED: usize = 256;

/// A directory and a name in it.
pub(super) type Entry = (Inode, String);

/// The entries of all directories.
#[derive(Debug)]
struct Tree(BTreeMap<Inode, BTreeMap<String, Inode>>);

#[derive(Debug)]
enum Change {
    Link { entry: Entry, inode: Inode, is_dir: bool },
    Unlink { entry: Entry, inode: Inode },
    Rename { from: Entry, to: Entry, inode: Inode, replaced: Option<Inode> },
}

impl Change {
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (first, second) = match self {
            Self::Link { entry, .. } | Self::Unlink { entry, .. } => (entry, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    fn touches(&self, dir: Inode) -> bool {
        self.entries().any(|entry| entry.0 == dir)
    }

    fn inode(&self) -> Inode {
        match self {
            Self::Link { inode, .. } | Self::Unlink { inode, .. } | Self::Rename { inode, .. } => {
                *inode
            }
        }
    }

    /// Whether this one cannot be on the disk without an earlier one: they are about the same name,
    /// or this one takes away the directory.
    fn depends_on(&self, earlier: &Self) -> bool {
        let removed = match self {
            Self::Link { .. } => None,
            Self::Unlink { inode, .. } => Some(*inode),
            Self::Rename { replaced, .. } => *replaced,
        };
        self.entries().any(|entry| earlier.entries().any(|other| entry == other))
            || removed.is_some_and(|dir| earlier.touches(dir))
    }
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { entry, inode, is_dir } => {
                self.insert(entry, *inode);
                if *is_dir {
                    self.0.entry(*inode).or_default();
                }
            }
            Change::Unlink { entry, inode } => {
                self.0.entry(entry.0).or_default().remove(&entry.1);
                self.0.remove(inode);
            }
            Change::Rename { from, to, inode, replaced } => {
                self.0.entry(from.0).or_default().remove(&from.1);
                self.insert(to, *inode);
                if let Some(replaced) = replaced {
                    self.0.remove(replaced);
                }
            }
        }
    }

    fn insert(&mut self, entry: &Entry, inode: Inode) {
        self.0.entry(entry.0).or_default().insert(entry.1.clone(), inode);
    }

    /// All entries below a directory, by path.
    fn walk(&self, dir: Inode, path: &Path, found: &mut Vec<(PathBuf, Inode)>) {
        for (name, inode) in self.0.get(&dir).into_iter().flatten() {
            found.push((path.join(name), *inode));
            self.walk(*inode, &path.join(name), found);
        }
    }

    fn reachable(&self) -> Vec<(PathBuf, Inode)> {
        let mut found = vec![(PathBuf::from("/"), ROOT)];
        self.walk(ROOT, Path::new("/"), &mut found);
        found
    }
}

#[derive(Debug)]
pub(super) struct Names {
    live: Tree,
    durable: Tree,
    unsynced: Vec<Change>,
}

impl Names {
    pub(super) fn new() -> Self {
        let root = || Tree(BTreeMap::from([(ROOT, BTreeMap::new())]));
        Self { live: root(), durable: root(), unsynced: Vec::new() }
    }

    pub(super) fn is_dir(&self, inode: Inode) -> bool {
        self.live.0.contains_key(&inode)
    }

    pub(super) fn entries(&self, dir: Inode) -> impl Iterator<Item = (&String, &Inode)> {
        self.live.0.get(&dir).into_iter().flatten()
    }

    /// All files and directories below one, by path.
    pub(super) fn below(&self, dir: Inode, path: &Path) -> Vec<(PathBuf, Inode)> {
        let mut found = Vec::new();
        self.live.walk(dir, path, &mut found);
        found
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for name in parts(path)? {
            at = self.find_in(at, &name)?.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn find_in(&self, dir: Inode, name: &str) -> io::Result<Option<Inode>> {
        let entries = self.live.0.get(&dir).ok_or(io::ErrorKind::NotADirectory)?;
        Ok(entries.get(name).copied())
    }

    /// The entry that a path is or would be, and what it names.
    pub(super) fn entry(&self, path: &Path) -> io::Result<(Entry, Option<Inode>)> {
        let name = parts(path)?.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        let inode = self.find_in(dir, &name)?;
        Ok(((dir, name), inode))
    }

    pub(super) fn link(&mut self, entry: Entry, inode: Inode, is_dir: bool) {
        self.record(Change::Link { entry, inode, is_dir });
    }

    pub(super) fn unlink(&mut self, entry: Entry, inode: Inode) {
        self.record(Change::Unlink { entry, inode });
    }

    pub(super) fn rename(&mut self, from: Entry, to: Entry, inode: Inode, old: Option<Inode>) {
        self.record(Change::Rename { from, to, inode, replaced: old });
    }

    fn record(&mut self, change: Change) {
        self.live.apply(&change);
        self.unsynced.push(change);
        if self.unsynced.len() > MOST_UNSYNCED {
            for change in self.unsynced.drain(..MOST_UNSYNCED / 2) {
                self.durable.apply(&change);
            }
        }
    }

    /// All changes so far survive.
    pub(super) fn sync_all(&mut self) {
        for change in self.unsynced.drain(..) {
            self.durable.apply(&change);
        }
    }

    /// The changes of a directory survive, and those that they cannot be without.
    pub(super) fn sync_dir(&mut self, dir: Inode) {
        let mut needed = vec![false; self.unsynced.len()];
        for number in (0..self.unsynced.len()).rev() {
            let change = &self.unsynced[number];
            needed[number] = change.touches(dir)
                || (number + 1..self.unsynced.len())
                    .any(|at| needed[at] && self.unsynced[at].depends_on(change));
        }
        let mut needed = needed.into_iter();
        let durable = &mut self.durable;
        self.unsynced.retain(|change| {
            let needed = needed.next() == Some(true);
            if needed {
                durable.apply(change);
            }
            !needed
        });
    }

    /// Leaves what survives. Returns how many changes did not.
    pub(super) fn power_loss(&mut self, rng: &mut Rng, journalled: bool) -> u64 {
        let changes = std::mem::take(&mut self.unsynced);
        let in_order = journalled || rng.bool();
        let first_lost = rng.usize(..=changes.len());
        let mut lost: Vec<&Change> = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let survives = if in_order {
                number < first_lost
            } else {
                rng.bool() && !lost.iter().any(|earlier| change.depends_on(earlier))
            };
            if survives {
                self.durable.apply(change);
            } else {
                lost.push(change);
            }
        }
        let lost = lost.len() as u64;
        let kept: BTreeSet<Inode> = self.durable.reachable().iter().map(|found| found.1).collect();
        self.durable.0.retain(|dir, _| kept.contains(dir));
        self.live = Tree(self.durable.0.clone());
        lost
    }

    /// Everything that has a name.
    pub(super) fn linked(&self) -> BTreeSet<Inode> {
        self.live.reachable().iter().map(|found| found.1).collect()
    }

    /// Everything that has a name, as it is found without making paths.
    pub(super) fn named(&self) -> impl Iterator<Item = Inode> {
        self.live.0.values().flatten().map(|entry| *entry.1)
    }

    /// Everything that has a name, or may have one again after a power loss.
    pub(super) fn referenced(&self) -> BTreeSet<Inode> {
        let mut inodes: BTreeSet<Inode> =
            self.live.0.values().chain(self.durable.0.values()).flatten().map(|e| *e.1).collect();
        inodes.extend(self.unsynced.iter().map(Change::inode));
        inodes
    }
}

/// The names that a path is made of; where it starts makes no difference.
fn parts(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) | Component::ParentDir => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}
