//! The spool as a whole: what its owner writes, its sender reads, whatever happened in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::group_commit::GroupCommit;
use super::reader::{Found, Reader, segment_name, segments};
use super::*;
use crate::disk::{Disk, MemoryDisk, Open, SystemDisk};
use crate::error::ErrorKind;

const SMALL: WriterSettings = WriterSettings { max_bytes: 4 << 20, sync: false };

fn namespace(disk: impl Disk, dir: &Path) -> Namespace {
    Namespace::open(Arc::new(disk), dir.to_owned()).unwrap()
}

fn in_memory() -> Namespace {
    namespace(MemoryDisk::default(), Path::new("ns"))
}

fn writer(namespace: &Namespace, settings: WriterSettings) -> Writer {
    let owned = namespace.create_spool(SpoolName("one".into())).unwrap();
    Writer::new(namespace.clone(), owned, settings)
}

pub(super) fn draft(text: &str) -> Draft {
    let mut draft = Draft::event("id");
    draft.json().extend_from_slice(text.as_bytes());
    draft
}

fn append(writer: &Writer, text: &str) -> Seq {
    writer.append(&mut draft(text), 1_000).unwrap()
}

fn texts(found: &Found) -> Vec<String> {
    found.records.iter().map(|r| String::from_utf8_lossy(r.json()).into_owned()).collect()
}

fn read_all(namespace: &Namespace, from: Seq, alive: bool) -> Found {
    let dir = namespace.spool_dir(&SpoolName("one".into()));
    let mut reader = Reader::new(namespace.disk().clone(), dir, from);
    reader.read(usize::MAX, usize::MAX, alive).unwrap()
}

fn segment_path(namespace: &Namespace, first: Seq) -> PathBuf {
    namespace.spool_dir(&SpoolName("one".into())).join(segment_name(first))
}

#[test]
fn records_come_back_in_order_across_segments() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    let large = "x".repeat(50_000);
    let mut expected = Vec::new();
    for i in 0..20 {
        let text = format!("{i}{large}");
        assert_eq!(append(&writer, &text), i);
        expected.push(text);
    }
    let disk = namespace.disk();
    assert!(segments(&**disk, &writer.dir()).unwrap().len() >= 4, "256 KiB each");
    assert_eq!(texts(&read_all(&namespace, 0, true)), expected);
    assert_eq!(texts(&read_all(&namespace, 7, true)), expected[7..]);
    assert!(read_all(&namespace, 20, false).exhausted);
}

#[test]
fn a_record_that_is_not_whole_is_not_yet_there_and_then_it_is() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    append(&writer, "first");
    let mut second = draft("second");
    let frame = second.seal(1, 0, salt_of(&namespace)).to_vec();
    let file = namespace.disk().open(&segment_path(&namespace, 0), Open::Append).unwrap();
    let dir = namespace.spool_dir(&SpoolName("one".into()));
    let mut reader = Reader::new(namespace.disk().clone(), dir, 0);
    let mut seen = Vec::new();
    for byte in frame.chunks(1) {
        seen.extend(texts(&reader.read(10, 1 << 20, true).unwrap()));
        assert_eq!(seen, ["first"]);
        file.append(byte).unwrap();
    }
    seen.extend(texts(&reader.read(10, 1 << 20, true).unwrap()));
    assert_eq!(seen, ["first", "second"]);
}

fn salt_of(namespace: &Namespace) -> u32 {
    let file = namespace.disk().open(&segment_path(namespace, 0), Open::Read).unwrap();
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0).unwrap();
    super::format::u32_at(&header, 12)
}

#[test]
fn a_torn_tail_of_the_dead_is_the_end_and_is_kept_but_not_counted() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    append(&writer, "first");
    append(&writer, "second");
    let file = namespace.disk().open(&segment_path(&namespace, 0), Open::Update).unwrap();
    let whole = file.len().unwrap();
    let second = (RECORD_HEADER_BYTES + "idsecond".len()) as u64;
    for cut in 1..second {
        file.truncate(whole - cut).unwrap();
        let found = read_all(&namespace, 0, false);
        assert_eq!(texts(&found), ["first"], "cut by {cut}");
        let kept: Vec<_> = found.damage.iter().map(|d| (d.bytes.len() as u64, d.records)).collect();
        assert_eq!((kept, found.exhausted), (vec![(second - cut, 0)], true), "cut by {cut}");
    }
}

#[test]
fn damage_is_handed_out_and_what_follows_is_read() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    for text in ["zero", "one!", "two!", "three"] {
        append(&writer, text);
    }
    let frame = RECORD_HEADER_BYTES + "idzero".len();
    let file = namespace.disk().open(&segment_path(&namespace, 0), Open::Update).unwrap();
    // In the body of record 1, and then in its length as well, so that it seems to go on and on.
    for (at, bytes) in [(RECORD_HEADER_BYTES + 3, &b"?"[..]), (0, &[0xff, 0xff, 0x0f, 0][..])] {
        let at = SEGMENT_HEADER_BYTES + frame + at;
        file.write_all_at(bytes, at as u64).unwrap();
        for alive in [true, false] {
            let found = read_all(&namespace, 0, alive);
            assert_eq!(texts(&found), ["zero", "two!", "three"]);
            let [damage] = &found.damage[..] else { panic!("{found:?}") };
            assert_eq!((damage.records, damage.bytes.len()), (1, frame));
            assert_eq!(damage.offset, (SEGMENT_HEADER_BYTES + frame) as u64);
        }
    }
}

#[test]
fn a_segment_of_a_newer_version_is_left_alone() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    append(&writer, "first");
    let file = namespace.disk().open(&segment_path(&namespace, 0), Open::Update).unwrap();
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0).unwrap();
    header[8..12].copy_from_slice(&[9, 0, 9, 0]);
    let crc = crc32c::crc32c(&header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    let found = read_all(&namespace, 0, false);
    assert_eq!((found.newer, found.exhausted), (Some(9), false));
}

#[test]
fn when_the_spool_is_full_the_newest_is_refused_and_room_brings_it_back() {
    let namespace = in_memory();
    let writer = writer(&namespace, WriterSettings { max_bytes: 1 << 20, sync: false });
    let text = "x".repeat(10_000);
    let mut accepted = 0;
    let error = loop {
        match writer.append(&mut draft(&text), 0) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Overflow);
    assert_eq!(error.field(), Some("max_spool_bytes"));
    assert!((80..98).contains(&accepted), "{accepted}");
    assert!(namespace.usage().unwrap() <= 1 << 20);
    let mut drain = Drain::open(&namespace, SpoolName("one".into()), true, &[]).unwrap();
    drain.read(50, usize::MAX).unwrap();
    (0..50).for_each(|seq| drain.settle(seq));
    drain.commit().unwrap();
    drain.unlink_settled().unwrap();
    assert!(writer.append(&mut draft(&text), 0).is_err(), "room is not looked for at every call");
    writer.look_after(0, i64::MAX).unwrap();
    append(&writer, &text);
}

#[test]
fn processes_share_the_room_exactly() {
    let namespace = in_memory();
    let settings = WriterSettings { max_bytes: 1 << 20, sync: false };
    let writers: Vec<Writer> = (0..5)
        .map(|i| {
            let owned = namespace.create_spool(SpoolName(i.to_string())).unwrap();
            Writer::new(namespace.clone(), owned, settings)
        })
        .collect();
    let (mut refused, mut accepted) = (0, 0);
    for turn in 0..3_000 {
        let writer = &writers[turn % 5];
        match writer.append(&mut draft(&"x".repeat(1_000)), 0) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
        if turn % 50 == 0 {
            writer.look_after(0, i64::MAX).unwrap();
            assert!(namespace.disk().usage(namespace.dir()).unwrap() <= 1 << 20);
        }
    }
    assert!(refused > 1_000 && accepted > 800, "{accepted} {refused}");
    assert!(namespace.usage().unwrap() <= 1 << 20);
}

#[test]
fn many_processes_of_which_nothing_waits_leave_room_for_another() {
    let namespace = in_memory();
    let names = (0..40).map(|i| SpoolName(i.to_string()));
    let owned: Vec<Owned> = names.map(|name| namespace.create_spool(name).unwrap()).collect();
    let mut writers = Vec::new();
    for owned in owned {
        let mut drain = Drain::open(&namespace, owned.name.clone(), true, &[]).unwrap();
        let writer = Writer::new(namespace.clone(), owned, SMALL);
        // Its segments grow as large as they may, and the last one stays.
        for seq in 0..100 {
            append(&writer, &"x".repeat(10_000));
            drain.read(1, usize::MAX).unwrap();
            drain.settle(seq);
            drain.commit().unwrap();
            drain.unlink_settled().unwrap();
        }
        writers.push(writer);
    }
    assert!(namespace.usage().unwrap() <= SMALL.max_bytes);
}

#[test]
fn one_record_that_waits_keeps_its_own_segment_only() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    for _ in 0..40 {
        append(&writer, &"x".repeat(50_000));
    }
    let name = SpoolName("one".into());
    let mut drain = Drain::open(&namespace, name.clone(), true, &[]).unwrap();
    drain.read(40, usize::MAX).unwrap();
    (0..40).filter(|seq| *seq != 3).for_each(|seq| drain.settle(seq));
    drain.commit().unwrap();
    drain.unlink_settled().unwrap();
    assert_eq!(drain.cursor().settled, 3);
    let left = segments(&**namespace.disk(), &writer.dir()).unwrap();
    assert_eq!(left.len(), 2, "its own, and the one being written: {left:?}");

    // What is missing in between was settled: the next sender finds the rest, and no damage.
    append(&writer, "next");
    let mut drain = Drain::open(&namespace, name, true, &[]).unwrap();
    let found = drain.read(40, usize::MAX).unwrap();
    assert!(found.damage.is_empty() && found.lost.is_empty(), "{found:?}");
    let seqs: Vec<Seq> = drain.records_from(0).map(|record| record.header.seq).collect();
    assert!(seqs.starts_with(&[3]) && seqs.ends_with(&[40]), "{seqs:?}");
}

#[test]
fn what_a_segment_lost_at_its_end_is_counted() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    (0..20).for_each(|_| _ = append(&writer, &"x".repeat(20_000)));
    let firsts = segments(&**namespace.disk(), &writer.dir()).unwrap();
    let file = namespace.disk().open(&segment_path(&namespace, 0), Open::Update).unwrap();
    file.truncate(SEGMENT_HEADER_BYTES as u64 + 20_050).unwrap();
    let found = read_all(&namespace, 0, true);
    assert_eq!((found.lost.len(), &found.lost[0]), (1, &(1..firsts[1])));
    assert_eq!(found.records.len() as u64, 20 - (firsts[1] - 1));
}

#[test]
fn a_frame_that_was_cut_and_replaced_is_read_as_it_is_now() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    append(&writer, "first");
    let path = segment_path(&namespace, 0);
    let file = namespace.disk().open(&path, Open::Append).unwrap();
    let whole = file.len().unwrap();
    let mut other = draft("a frame that the disk had no room for");
    let frame = other.seal(1, 0, salt_of(&namespace)).to_vec();
    file.append(&frame[..50]).unwrap();
    let dir = namespace.spool_dir(&SpoolName("one".into()));
    let mut reader = Reader::new(namespace.disk().clone(), dir, 0);
    assert_eq!(reader.read(9, usize::MAX, true).unwrap().records.len(), 1);
    file.truncate(whole).unwrap();
    append(&writer, "second");
    let found = reader.read(9, usize::MAX, true).unwrap();
    assert_eq!((texts(&found), found.damage.len()), (vec!["second".to_owned()], 0));
}

#[test]
fn a_spool_whose_files_the_host_closed_is_not_taken_for_gone() {
    let namespace = in_memory();
    let mut owned = namespace.create_spool(SpoolName("one".into())).unwrap();
    owned.lock = Some(namespace.disk().open(Path::new("the host's"), Open::Update).unwrap());
    let writer = Writer::new(namespace.clone(), owned, SMALL);
    assert_eq!(writer.look_after(0, i64::MAX).unwrap(), LookedAfter::Closed);
    remove_spool(&**namespace.disk(), &writer.dir()).unwrap();
    assert_eq!(writer.look_after(0, i64::MAX).unwrap(), LookedAfter::Gone);
}

#[test]
fn a_segment_that_is_damaged_or_gone_is_replaced_and_an_idle_one_left() {
    let namespace = in_memory();
    let writer = writer(&namespace, SMALL);
    append(&writer, "first");
    assert_eq!(writer.look_after(1_000, 60_000).unwrap(), LookedAfter::InPlace);
    let file = namespace.disk().open(&segment_path(&namespace, 0), Open::Update).unwrap();
    file.write_all_at(&[0], 0).unwrap();
    assert_eq!(writer.look_after(1_000, 60_000).unwrap(), LookedAfter::SegmentReplaced);
    append(&writer, "second");
    assert_eq!(texts(&read_all(&namespace, 1, true)), ["second"]);
    namespace.disk().remove_file(&segment_path(&namespace, 1)).unwrap();
    assert_eq!(writer.look_after(1_000, 60_000).unwrap(), LookedAfter::SegmentReplaced);
    append(&writer, "third");
    assert_eq!(texts(&read_all(&namespace, 2, true)), ["third"]);
    assert_eq!(writer.look_after(61_000, 60_000).unwrap(), LookedAfter::InPlace);
    assert_eq!(segments(&**namespace.disk(), &writer.dir()).unwrap(), [0, 2, 3]);
    remove_spool(&**namespace.disk(), &writer.dir()).unwrap();
    assert_eq!(writer.look_after(61_000, 60_000).unwrap(), LookedAfter::Gone);
    let end = writer.move_to(namespace.create_spool(SpoolName("two".into())).unwrap());
    assert_eq!((end, append(&writer, "fourth")), (3, 3));
    let mut drain = Drain::open(&namespace, SpoolName("two".into()), true, &[]).unwrap();
    let found = drain.read(9, usize::MAX).unwrap();
    assert!(found.lost.is_empty());
    assert_eq!(drain.records_from(0).next().unwrap().header.seq, 3);
}

#[test]
fn settled_segments_are_unlinked_and_a_finished_spool_of_the_dead_removed() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = namespace(SystemDisk, dir.path());
    let name = SpoolName("one".into());
    let writer = writer(&namespace, SMALL);
    for _ in 0..20 {
        append(&writer, &"x".repeat(50_000));
    }
    let mut drain = Drain::open(&namespace, name.clone(), false, &[]).unwrap();
    drain.read(1000, usize::MAX).unwrap();
    // Out of order: the cursor waits for the gap.
    (1..12).for_each(|seq| drain.settle(seq));
    drain.commit().unwrap();
    drain.unlink_settled().unwrap();
    assert_eq!(drain.cursor().settled, 0);
    drain.settle(0);
    drain.commit().unwrap();
    drain.unlink_settled().unwrap();
    assert_eq!(drain.cursor().settled, 12);
    let left = segments(&SystemDisk, &writer.dir()).unwrap();
    assert!(left[0] > 0 && left[0] <= 12, "{left:?}");

    // A new sender goes on where the cursor stands.
    let mut drain = Drain::open(&namespace, name, false, &[]).unwrap();
    assert_eq!(drain.position(), 12);
    drain.read(1000, usize::MAX).unwrap();
    assert_eq!(drain.records_from(0).next().unwrap().header.seq, 12);
    (12..20).for_each(|seq| drain.settle(seq));
    drain.commit().unwrap();
    drain.unlink_settled().unwrap();
    assert!(!drain.is_finished(), "its owner lives");
    drop(writer);
    drain.read(1000, usize::MAX).unwrap();
    assert!(drain.is_finished());
    drain.remove().unwrap();
    assert_eq!(namespace.spools().unwrap(), []);
}

#[test]
fn an_unfinished_spool_is_removed_only_when_its_maker_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = namespace(SystemDisk, dir.path());
    let unfinished = dir.path().join("spools/.new-x");
    SystemDisk.create_dir_all(&unfinished).unwrap();
    let owner = SystemDisk.open(&unfinished.join("owner"), Open::Update).unwrap();
    assert!(owner.try_lock().unwrap());
    namespace.remove_unfinished().unwrap();
    assert!(unfinished.exists());
    drop(owner);
    namespace.remove_unfinished().unwrap();
    assert!(!unfinished.exists());
    // Its maker died before it made anything in it.
    SystemDisk.create_dir_all(&unfinished).unwrap();
    namespace.remove_unfinished().unwrap();
    assert!(!unfinished.exists());
}

#[test]
fn of_many_failed_syncs_none_is_forgotten() {
    let commit = GroupCommit::default();
    let sync = |seq| {
        let failed = seq % 2 == 0;
        let result = if failed { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) };
        commit.wait_for(seq, || (seq + 1, result)).is_err()
    };
    for seq in 0..1_000 {
        assert_eq!(sync(seq), seq % 2 == 0);
    }
    assert!((0..1_000).step_by(2).all(sync), "also for who asks late");
    assert!(!sync(999));
}

#[test]
#[cfg(unix)]
fn everything_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let namespace = namespace(SystemDisk, &dir.path().join("ns"));
    let writer = writer(&namespace, SMALL);
    append(&writer, "x");
    let mut drain = Drain::open(&namespace, SpoolName("one".into()), true, &[]).unwrap();
    drain.record_attempt(1, 0, true).unwrap();
    let mut seen = 0;
    let mut look_at = vec![dir.path().join("ns")];
    while let Some(path) = look_at.pop() {
        let metadata = path.metadata().unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
        if metadata.is_dir() {
            look_at.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
}

/// What may happen to a spool, against a model that is a list.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Read(usize),
    Settle(usize),
    Commit,
    /// The sender dies and another takes over.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..60_000).prop_map(Step::Append),
        (1_usize..20).prop_map(Step::Read),
        (0_usize..20).prop_map(Step::Settle),
        Just(Step::Commit),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_lost_or_changed_or_settled_that_was_not(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let namespace = in_memory();
        let writer = writer(&namespace, WriterSettings { max_bytes: 1 << 30, sync: true });
        let name = SpoolName("one".into());
        let open = || Drain::open(&namespace, name.clone(), true, &[]).unwrap();
        let mut drain = open();
        let (mut appended, mut settled) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Append(len) => {
                    let text = format!("{}{}", appended.len(), "x".repeat(len));
                    prop_assert_eq!(append(&writer, &text), appended.len() as Seq);
                    appended.push(text);
                    settled.push(false);
                }
                Step::Read(records) => {
                    let found = drain.read(records, 1 << 20).unwrap();
                    prop_assert!(found.damage.is_empty());
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
                Step::Restart => drain = open(),
            }
            let cursor = drain.cursor().settled as usize;
            prop_assert!(settled[..cursor].iter().all(|settled| *settled));
        }
        drain = open();
        let found = drain.read(usize::MAX, usize::MAX).unwrap();
        prop_assert!(found.damage.is_empty() && found.lost.is_empty());
        for record in drain.records_from(0) {
            let text = String::from_utf8_lossy(record.json()).into_owned();
            prop_assert_eq!(&text, &appended[record.header.seq as usize]);
        }
        // Of what was settled some may come back; all else does.
        let unsettled = settled.iter().enumerate().filter(|(_, settled)| !**settled);
        for (seq, _) in unsettled {
            prop_assert!(drain.record(seq as Seq).is_some(), "{}", seq);
        }
    }
}
