//! Where segments begin and end.

use super::super::{SpoolName, tests::draft};
use super::*;
use crate::disk::SystemDisk;

fn writer(dir: &Path, sync: bool) -> Writer {
    let namespace = Namespace::open(Arc::new(SystemDisk), dir.join("ns")).unwrap();
    let owned = namespace.create_spool(SpoolName("one".into())).unwrap();
    Writer::new(namespace, owned, WriterSettings { max_bytes: 4 << 20, sync })
}

#[test]
fn an_idle_segment_without_room_for_another_header_is_left_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path(), false);
    writer.append(&mut draft("x"), 0).unwrap();
    let (allotted, used) = {
        let state = writer.lock();
        let segment = state.segment.as_ref().unwrap();
        (u64::from(segment.info.allotted), segment.len)
    };
    let frame = used - SEGMENT_HEADER_BYTES as u64;
    let rest = allotted - used - frame + 1 - 20;
    writer.append(&mut draft(&"x".repeat(rest as usize)), 0).unwrap();
    let left = allotted - writer.lock().segment.as_ref().unwrap().len;
    assert!((1..SEGMENT_HEADER_BYTES as u64).contains(&left), "{left}");
    assert_eq!(writer.look_after(60_000, 60_000).unwrap(), Found::InPlace);
    assert_eq!(writer.look_after(60_000, 60_000).unwrap(), Found::InPlace);
}

#[test]
fn of_little_room_many_processes_have_a_part() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::open(Arc::new(SystemDisk), dir.path().join("ns")).unwrap();
    let settings = WriterSettings { max_bytes: 1 << 20, sync: false };
    let writer = |process: u32| {
        let owned = namespace.create_spool(SpoolName(process.to_string())).unwrap();
        Writer::new(namespace.clone(), owned, settings)
    };
    let writers: Vec<Writer> = (0..50).map(writer).collect();
    for writer in &writers {
        writer.append(&mut draft("x"), 0).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_record_is_appended_at_once_where_there_is_room_and_nobody_in_the_way() {
    let dir = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let mapped = writer(dir.path(), false);
    let at_once = |text: &str| mapped.try_append(&mut draft(text), 0).map(Result::unwrap);
    assert_eq!(at_once("zero"), None, "there is no segment yet");
    mapped.append(&mut draft("zero"), 0).unwrap();
    assert_eq!(at_once("one"), Some(1));
    let other = mapped.lock();
    assert_eq!(at_once("two"), None, "another thread is at it");
    drop(other);
    assert_eq!(at_once(&"x".repeat(64 << 10)), None, "it needs another segment");
    assert_eq!(at_once("two"), Some(2));

    let dir = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let synced = writer(dir.path(), true);
    synced.append(&mut draft("zero"), 0).unwrap();
    assert!(synced.try_append(&mut draft("one"), 0).is_none(), "it waits for the disk");
}
