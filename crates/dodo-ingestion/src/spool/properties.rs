//! A spool on a disk that fails, against a model that is a list; and who is told when a sync fails.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::disk::{DiskFile, FileId, MemoryDisk, Open, Reserved};
use crate::error::ErrorKind;

type Hook = Box<dyn FnMut() -> io::Result<()> + Send>;

/// What goes wrong next; nothing where it is not set.
#[derive(Default)]
struct Faults {
    /// The next append takes so many bytes and no more.
    short_append: Option<usize>,
    truncate_fails: bool,
    sync: Option<Hook>,
    /// How many syncs succeeded.
    synced: u32,
    /// Files can be written to through memory.
    maps: bool,
}

impl Faults {
    /// Nothing goes wrong any more.
    fn end(&mut self) {
        *self = Self { maps: self.maps, ..Self::default() };
    }
}

/// A disk in memory that fails when it is told to.
#[derive(Clone, Default)]
struct FailingDisk {
    memory: MemoryDisk,
    faults: Arc<Mutex<Faults>>,
}

struct FailingFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Mutex<Faults>>,
}

impl std::fmt::Debug for FailingDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.memory.fmt(f)
    }
}

impl std::fmt::Debug for FailingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl Disk for FailingDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.memory.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.memory.list(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let (file, faults) = (self.memory.open(path, how)?, self.faults.clone());
        Ok(Arc::new(FailingFile { file, faults }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.memory.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.memory.remove_file(path)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.memory.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.memory.sync_dir(dir)
    }
    fn identify(&self, path: &Path) -> io::Result<FileId> {
        self.memory.identify(path)
    }
    fn usage(&self, dir: &Path) -> io::Result<u64> {
        self.memory.usage(dir)
    }
}

impl DiskFile for FailingFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.faults.lock().unwrap().short_append.take() {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(len) => self.file.append(&bytes[..len.min(bytes.len() - 1)]),
            None => self.file.append(bytes),
        }
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        if std::mem::take(&mut self.faults.lock().unwrap().truncate_fails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.truncate(len)
    }
    fn reserve(&self, len: u64) -> Option<Box<dyn Reserved>> {
        let faults = self.faults.clone();
        let maps = faults.lock().unwrap().maps;
        maps.then(|| Box::new(FailingMemory { file: self.file.clone(), len, faults }) as _)
    }
    fn sync(&self) -> io::Result<()> {
        let hook = self.faults.lock().unwrap().sync.take();
        hook.map_or(Ok(()), |mut hook| hook())?;
        self.faults.lock().unwrap().synced += 1;
        Ok(())
    }
    fn identify(&self) -> io::Result<FileId> {
        self.file.identify()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

/// Memory in which a write may break off before its length is written.
struct FailingMemory {
    file: Arc<dyn DiskFile>,
    len: u64,
    faults: Arc<Mutex<Faults>>,
}

impl std::fmt::Debug for FailingMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl Reserved for FailingMemory {
    fn commit(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset + bytes.len() as u64 <= self.len);
        let torn = self.faults.lock().unwrap().short_append.take();
        let written = torn.unwrap_or(bytes.len()).clamp(4, bytes.len());
        self.file.write_all_at(&bytes[4..written], offset + 4)?;
        if torn.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(&bytes[..4], offset)
    }
}

fn spool(disk: &FailingDisk, sync: bool) -> (Namespace, Writer) {
    let namespace = Namespace::open(Arc::new(disk.clone()), "ns".into()).unwrap();
    let owned = namespace.create_spool(name()).unwrap();
    let writer = Writer::new(namespace.clone(), owned, WriterSettings { max_bytes: 1 << 30, sync });
    (namespace, writer)
}

fn name() -> SpoolName {
    SpoolName("one".into())
}

fn draft(text: &str) -> Draft {
    let mut draft = Draft::event("id");
    draft.json().extend_from_slice(text.as_bytes());
    draft
}

#[test]
fn a_record_written_while_a_sync_fails_is_not_told_that_it_is_on_the_disk() {
    let disk = FailingDisk::default();
    let (_, writer) = spool(&disk, true);
    let writer = Arc::new(writer);
    let (done, second) = std::sync::mpsc::channel();
    let hook: Hook = {
        let writer = writer.clone();
        Box::new(move || {
            let (appender, done) = (writer.clone(), done.clone());
            std::thread::spawn(move || done.send(appender.append(&mut draft("second"), 0)));
            while writer.next_seq() < 2 {
                std::thread::yield_now();
            }
            Err(io::ErrorKind::StorageFull.into())
        })
    };
    disk.faults.lock().unwrap().sync = Some(hook);
    let first = writer.append(&mut draft("first"), 0).unwrap_err();
    assert!(first.kind() == ErrorKind::Storage && first.may_be_billed());
    let second = second.recv().unwrap();
    assert!(second.is_err() || disk.faults.lock().unwrap().synced > 0, "{second:?}");
    writer.append(&mut draft("third"), 0).unwrap();
    assert!(disk.faults.lock().unwrap().synced > 0);
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    /// An append of which so many bytes are taken, and whether they can be cut off again.
    AppendFails(usize, bool),
    /// Nothing was appended for a while.
    Idle,
    Read(usize),
    Settle(usize),
    Commit,
    /// The sender dies and another takes over.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0_usize..200, 0_usize..40_000].prop_map(Step::Append),
        2 => (0_usize..300, any::<bool>()).prop_map(|(len, cut)| Step::AppendFails(len, cut)),
        1 => Just(Step::Idle),
        2 => (1_usize..20).prop_map(Step::Read),
        3 => (0_usize..20).prop_map(Step::Settle),
        2 => Just(Step::Commit),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_was_accepted_and_not_settled_comes_back_in_order(
        steps in proptest::collection::vec(step(), 1..80),
        torn in 0_usize..100,
        maps in any::<bool>(),
    ) {
        let disk = FailingDisk::default();
        disk.faults.lock().unwrap().maps = maps;
        let (namespace, writer) = spool(&disk, false);
        let mut drain = Drain::open(&namespace, name(), true, &[]).unwrap();
        let (mut accepted, mut settled) = (Vec::new(), Vec::new());
        let (mut cursor, mut now) = (0, 0);
        for step in steps {
            match step {
                Step::Append(len) => {
                    let text = format!("{}{}", accepted.len(), "x".repeat(len));
                    let seq = writer.append(&mut draft(&text), now).unwrap();
                    prop_assert_eq!(seq, accepted.len() as Seq);
                    accepted.push(text);
                    settled.push(false);
                }
                Step::AppendFails(len, cut) => {
                    {
                        let mut faults = disk.faults.lock().unwrap();
                        (faults.short_append, faults.truncate_fails) = (Some(len), !cut);
                    }
                    let error = writer.append(&mut draft(&"y".repeat(300)), now).err();
                    // Where a segment has to be begun, its header may be what is cut short.
                    let begins = error.is_none();
                    prop_assert!(begins || error.unwrap().kind() == ErrorKind::Storage);
                    disk.faults.lock().unwrap().end();
                    // As the engine does each second.
                    prop_assert!(writer.look_after(now, 5_000).is_ok());
                    if begins {
                        accepted.push("y".repeat(300));
                        settled.push(false);
                    }
                }
                Step::Idle => {
                    now += 10_000;
                    prop_assert_eq!(writer.look_after(now, 5_000).unwrap(), LookedAfter::InPlace);
                }
                Step::Read(records) => {
                    let found = drain.read(records, 1 << 20).unwrap();
                    prop_assert!(found.damage.iter().all(|damage| damage.records == 0), "{found:?}");
                    prop_assert!(found.lost.is_empty(), "{found:?}");
                }
                Step::Settle(nth) => {
                    let seq = drain.records_from(0).nth(nth).map(|record| record.header.seq);
                    if let Some(seq) = seq {
                        drain.settle(seq);
                        settled[seq as usize] = true;
                    }
                }
                Step::Commit => {
                    drain.commit().unwrap();
                    drain.unlink_settled().unwrap();
                }
                Step::Restart => drain = Drain::open(&namespace, name(), true, &[]).unwrap(),
            }
            let before = std::mem::replace(&mut cursor, drain.cursor().settled);
            prop_assert!(cursor >= before, "the cursor went back");
            prop_assert!(settled[..cursor as usize].iter().all(|settled| *settled));
        }

        // The owner dies within an append.
        {
            let mut faults = disk.faults.lock().unwrap();
            (faults.short_append, faults.truncate_fails) = (Some(torn), true);
        }
        let _ = writer.append(&mut draft(&"z".repeat(300)), now);
        disk.faults.lock().unwrap().end();
        let accepted_last = writer.next_seq() as usize - accepted.len();
        accepted.extend((0..accepted_last).map(|_| "z".repeat(300)));
        settled.extend((0..accepted_last).map(|_| false));
        drop(writer);
        let mut drain = Drain::open(&namespace, name(), false, &[]).unwrap();
        let found = drain.read(usize::MAX, usize::MAX).unwrap();
        prop_assert!(found.damage.iter().all(|damage| damage.records == 0), "{found:?}");
                    prop_assert!(found.lost.is_empty(), "{found:?}");
        let back: Vec<Seq> = drain.records_from(0).map(|record| record.header.seq).collect();
        for record in drain.records_from(0) {
            let text = String::from_utf8_lossy(record.json()).into_owned();
            prop_assert_eq!(&text, &accepted[record.header.seq as usize]);
        }
        for (seq, settled) in settled.iter().enumerate() {
            prop_assert!(*settled || back.contains(&(seq as Seq)), "{} is lost", seq);
        }
        for seq in back {
            drain.settle(seq);
        }
        drain.commit().unwrap();
        drain.unlink_settled().unwrap();
        prop_assert!(drain.is_finished());
        drain.remove().unwrap();
        prop_assert_eq!(namespace.spools().unwrap(), []);
    }
}
