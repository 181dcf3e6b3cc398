//! Segments that are written through memory, on a file system that really has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::reader::{Found, Reader, segment_name, segments};
use super::*;
use crate::disk::{DiskFile, Open, SystemDisk};

const SMALL: WriterSettings = WriterSettings { max_bytes: 4 << 20, sync: false };
const FRAME: u64 = (RECORD_HEADER_BYTES + "idzero".len()) as u64;

struct Spool {
    _dir: TempDir,
    namespace: Namespace,
    writer: Writer,
}

impl Spool {
    fn new(settings: WriterSettings) -> Self {
        // It is not known what the directory for temporary files is on.
        let dir = TempDir::new_in("/dev/shm").unwrap();
        let namespace = Namespace::open(Arc::new(SystemDisk), dir.path().join("ns")).unwrap();
        let owned = namespace.create_spool(SpoolName("one".into())).unwrap();
        let writer = Writer::new(namespace.clone(), owned, settings);
        Self { _dir: dir, namespace, writer }
    }

    fn append(&self, text: &str) -> Seq {
        let mut draft = Draft::event("id");
        draft.json().extend_from_slice(text.as_bytes());
        self.writer.append(&mut draft, 1_000).unwrap()
    }

    fn path(&self, first: Seq) -> PathBuf {
        self.writer.dir().join(segment_name(first))
    }

    fn file(&self, first: Seq) -> Arc<dyn DiskFile> {
        self.namespace.disk().open(&self.path(first), Open::Update).unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::new(self.namespace.disk().clone(), self.writer.dir(), 0)
    }

    fn read(&self, alive: bool) -> Found {
        self.reader().read(usize::MAX, usize::MAX, alive).unwrap()
    }
}

fn texts(found: &Found) -> Vec<String> {
    found.records.iter().map(|r| String::from_utf8_lossy(r.json()).into_owned()).collect()
}

fn len(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[test]
fn a_segment_has_its_length_from_the_start_and_is_cut_when_it_is_left() {
    let spool = Spool::new(SMALL);
    let text = "x".repeat(1_000);
    let mut appended = 0;
    while segments(&SystemDisk, &spool.writer.dir()).unwrap().len() < 3 {
        spool.append(&text);
        appended += 1;
        let (used, room) = (spool.namespace.usage().unwrap(), 3 * (256 << 10));
        assert!(used <= room, "{used} bytes after {appended} records");
    }
    let firsts = segments(&SystemDisk, &spool.writer.dir()).unwrap();
    let frame = RECORD_HEADER_BYTES as u64 + 2 + 1_000;
    let held = |records: u64| SEGMENT_HEADER_BYTES as u64 + records * frame;
    assert_eq!(len(&spool.path(firsts[0])), held(firsts[1]));
    assert_eq!(len(&spool.path(firsts[1])), held(firsts[2] - firsts[1]));
    assert_eq!(len(&spool.path(firsts[2])), 256 << 10);
    let found = spool.read(true);
    assert_eq!((found.records.len() as u64, found.at_end), (appended, true));
    spool.writer.let_go();
    assert_eq!(len(&spool.path(firsts[2])), held(appended - firsts[2]));
    let found = spool.read(false);
    assert_eq!(found.records.len() as u64, appended);
    assert!(found.exhausted && found.damage.is_empty());
}

#[test]
fn what_is_synced_is_appended() {
    let spool = Spool::new(WriterSettings { sync: true, ..SMALL });
    spool.append("zero");
    assert_eq!(len(&spool.path(0)), SEGMENT_HEADER_BYTES as u64 + FRAME);
}

#[test]
fn a_reader_follows_a_living_owner() {
    let spool = Spool::new(SMALL);
    let mut reader = spool.reader();
    for n in 0..2_000 {
        let text = format!("{n} {}", "x".repeat(n));
        spool.append(&text);
        let found = reader.read(usize::MAX, usize::MAX, true).unwrap();
        assert_eq!(texts(&found), [text]);
        assert!(found.at_end && found.damage.is_empty());
    }
}

#[test]
fn a_record_without_its_length_is_not_there_and_not_counted_when_its_owner_dies() {
    let spool = Spool::new(SMALL);
    spool.append("zero");
    let mut reader = spool.reader();
    assert_eq!(texts(&reader.read(10, 1 << 20, true).unwrap()), ["zero"]);
    // All but the length of the next one, as a process leaves it that is killed there.
    let at = SEGMENT_HEADER_BYTES as u64 + FRAME;
    spool.append("one!");
    let file = spool.file(0);
    let mut length = [0; 4];
    file.read_at(&mut length, at).unwrap();
    file.write_all_at(&[0; 4], at).unwrap();
    let found = reader.read(10, 1 << 20, true).unwrap();
    assert!(found.records.is_empty() && found.damage.is_empty() && found.at_end);
    let dead = spool.read(false);
    let kept: Vec<_> = dead.damage.iter().map(|d| (d.offset, d.bytes.len(), d.records)).collect();
    assert_eq!((texts(&dead), kept), (vec!["zero".into()], vec![(at, FRAME as usize, 0)]));
    assert!(dead.exhausted);
    // It lives after all.
    file.write_all_at(&length, at).unwrap();
    assert_eq!(texts(&reader.read(10, 1 << 20, true).unwrap()), ["one!"]);
}

#[test]
fn the_last_record_of_the_dead_is_counted_though_its_length_rotted() {
    for sync in [false, true] {
        let spool = Spool::new(WriterSettings { sync, ..SMALL });
        spool.append("zero");
        let at = SEGMENT_HEADER_BYTES as u64;
        let file = spool.file(0);
        for bit in 0..32_u32 {
            let rotten = (FRAME as u32 - RECORD_HEADER_BYTES as u32) ^ (1 << bit);
            file.write_all_at(&rotten.to_le_bytes(), at).unwrap();
            let found = spool.read(false);
            assert!(found.exhausted && found.records.is_empty());
            let records: u64 = found.damage.iter().map(|damage| damage.records).sum();
            assert_eq!(records, 1, "sync {sync}, bit {bit}");
        }
    }
}

#[test]
fn damage_is_handed_out_when_the_owner_has_written_on() {
    let spool = Spool::new(SMALL);
    for text in ["zero", "one!", "two!"] {
        spool.append(text);
    }
    let at = SEGMENT_HEADER_BYTES as u64 + 2 * FRAME;
    spool.file(0).write_all_at(b"?", at + FRAME - 1).unwrap();
    let mut reader = spool.reader();
    let found = reader.read(10, 1 << 20, true).unwrap();
    assert_eq!(texts(&found), ["zero", "one!"]);
    assert!(found.damage.is_empty(), "it may be being written");
    spool.append("three");
    let found = reader.read(10, 1 << 20, true).unwrap();
    assert_eq!(texts(&found), ["three"]);
    let damage: Vec<_> =
        found.damage.iter().map(|d| (d.offset, d.bytes.len(), d.records)).collect();
    assert_eq!(damage, [(at, FRAME as usize, 1)]);
}

#[test]
fn a_spool_of_the_dead_with_room_left_is_drained_and_removed() {
    let spool = Spool::new(SMALL);
    spool.append("zero");
    let name = SpoolName("one".into());
    // As after a kill: nothing was cut.
    let (dir, copy) = (spool.writer.dir(), spool.namespace.dir().join("spools/two"));
    std::fs::create_dir(&copy).unwrap();
    for entry in dir.read_dir().unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    assert_eq!(len(&copy.join(segment_name(0))), 64 << 10);
    let mut drain = Drain::open(&spool.namespace, SpoolName("two".into()), false, &[]).unwrap();
    let found = drain.read(10, 1 << 20).unwrap();
    assert!(found.exhausted && found.damage.is_empty() && found.lost.is_empty());
    assert_eq!(drain.records_from(0).count(), 1);
    drain.settle(0);
    drain.commit().unwrap();
    drain.unlink_settled().unwrap();
    assert!(drain.is_finished());
    drain.remove().unwrap();
    assert_eq!(spool.namespace.spools().unwrap(), [name]);
}

#[test]
fn a_file_that_is_not_the_segment_any_more_is_not_cut() {
    let spool = Spool::new(SMALL);
    spool.append("zero");
    let (path, hosts) = (spool.path(0), spool.namespace.dir().join("hosts"));
    std::fs::rename(&path, &hosts).unwrap();
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    spool.append("one!");
    spool.writer.let_go();
    assert_eq!(len(&path), 1 << 20);
    assert_eq!(len(&hosts), SEGMENT_HEADER_BYTES as u64 + 2 * FRAME);
}
