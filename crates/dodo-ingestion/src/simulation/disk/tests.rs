use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::*;
use crate::disk::{append_all, read_to_end};

const SEEDS: std::ops::Range<u64> = 0..200;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn machine_with_dir(seed: u64) -> (Machine, Arc<dyn Disk>) {
    let machine = Machine::new(seed);
    let disk = machine.disk(1);
    disk.create_dir_all(path("/d/e")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.sync_dir(path("/d")).unwrap();
    (machine, disk)
}

fn write(disk: &dyn Disk, to: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(path(to), Open::Append).unwrap();
    append_all(&*file, bytes).unwrap();
    file
}

fn write_synced(disk: &dyn Disk, to: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = write(disk, to, bytes);
    file.sync().unwrap();
    disk.sync_dir(path(to).parent().unwrap()).unwrap();
    file
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn files_are_read_as_they_were_written() {
    let (machine, disk) = machine_with_dir(0);
    let file = disk.open(path("/d/a"), Open::CreateToAppend).unwrap();
    assert_eq!(kind(disk.open(path("/d/a"), Open::CreateToAppend)), ErrorKind::AlreadyExists);
    assert_eq!(file.append(b"hello").unwrap(), 5);
    file.truncate(4).unwrap();
    let again = disk.open(path("/d/a"), Open::Read).unwrap();
    assert_eq!(read_to_end(&*again, 100).unwrap(), b"hell");
    assert!(again.append(b"x").is_err() && again.truncate(0).is_err());
    assert!(file.write_all_at(b"x", 0).is_err());

    let update = disk.open(path("/d/b"), Open::Update).unwrap();
    assert!(update.append(b"x").is_err());
    update.write_all_at(b"xy", 3).unwrap();
    assert_eq!(machine.read(path("/d/b")).unwrap(), b"\0\0\0xy");
    assert_eq!((update.len().unwrap(), disk.usage(path("/d")).unwrap()), (5, 9));
    assert_eq!(machine.paths(), [PathBuf::from("/d/a"), PathBuf::from("/d/b")]);
    let mut names = disk.list(path("/d")).unwrap();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "e"]);
}

#[test]
fn errors_are_those_of_a_file_system() {
    let (_, disk) = machine_with_dir(0);
    write(&*disk, "/d/a", b"1");
    assert_eq!(kind(disk.open(path("/d/none"), Open::Read)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(path("/none/a"), Open::Append)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(path("/d/a/b"), Open::Append)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.open(path("/d"), Open::Read)), ErrorKind::IsADirectory);
    assert_eq!(disk.list(path("/none")).unwrap(), Vec::<String>::new());
    assert_eq!(kind(disk.list(path("/d/a"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.usage(path("/none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(path("/d/none"), path("/d/b"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(path("/d"), path("/d/e/f"))), ErrorKind::InvalidInput);
    assert_eq!(kind(disk.rename(path("/d/a"), path("/d/e"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.remove_dir(path("/d"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(disk.remove_file(path("/d/e"))), ErrorKind::IsADirectory);
    disk.remove_file(path("/d/none")).unwrap();
    disk.remove_dir(path("/none/none")).unwrap();
    disk.remove_dir(path("/d/e")).unwrap();
}

#[test]
fn a_name_is_not_the_file() {
    let (machine, disk) = machine_with_dir(0);
    let first = write(&*disk, "/d/a", b"first");
    assert_eq!(disk.identify(path("/d/a")).unwrap(), first.identify().unwrap());
    disk.remove_file(path("/d/a")).unwrap();
    let second = write(&*disk, "/d/a", b"second");
    assert_ne!(first.identify().unwrap(), second.identify().unwrap());
    first.append(b"!").unwrap();
    assert_eq!(read_to_end(&*first, 100).unwrap(), b"first!");
    assert_eq!(machine.total_bytes(), 12);
    drop(first);
    assert_eq!(machine.total_bytes(), 6);
    assert_eq!(machine.read(path("/d/a")).unwrap(), b"second");
}

#[test]
fn a_directory_is_renamed_with_all_in_it() {
    let (machine, disk) = machine_with_dir(0);
    let file = write(&*disk, "/d/e/a", b"1");
    disk.rename(path("/d/e"), path("/f")).unwrap();
    assert_eq!(machine.paths(), [PathBuf::from("/f/a")]);
    file.append(b"2").unwrap();
    write(&*disk, "/d/b", b"new");
    disk.rename(path("/d/b"), path("/f/a")).unwrap();
    assert_eq!(machine.read(path("/f/a")).unwrap(), b"new");
    assert_eq!(read_to_end(&*file, 9).unwrap(), b"12");
}

#[test]
fn a_lock_belongs_to_the_open_file_description() {
    let (machine, disk) = machine_with_dir(0);
    let one = write(&*disk, "/d/lock", b"");
    let two = disk.open(path("/d/lock"), Open::Read).unwrap();
    let other = machine.disk(2).open(path("/d/lock"), Open::Update).unwrap();
    assert!(one.try_lock().unwrap() && one.try_lock().unwrap());
    assert!(!two.try_lock().unwrap() && !other.try_lock().unwrap());
    disk.remove_file(path("/d/lock")).unwrap();
    let replaced = write(&*disk, "/d/lock", b"");
    assert!(replaced.try_lock().unwrap(), "another inode");
    drop(one);
    assert!(other.try_lock().unwrap() && !two.try_lock().unwrap());
}

#[test]
fn a_forked_child_keeps_its_parents_locks_until_it_closes_them() {
    let (machine, disk) = machine_with_dir(0);
    let lock = write(&*disk, "/d/lock", b"");
    assert!(lock.try_lock().unwrap());
    machine.fork(1, 2);
    let own = write(&*machine.disk(2), "/d/own", b"");
    assert!(own.try_lock().unwrap());
    let other = machine.disk(3).open(path("/d/lock"), Open::Update).unwrap();
    drop(lock);
    assert!(!other.try_lock().unwrap());
    machine.close_inherited(2);
    assert!(other.try_lock().unwrap());
    own.append(b"1").unwrap();

    machine.fork(3, 4);
    machine.kill(3);
    assert!(other.try_lock().is_err());
    let third = disk.open(path("/d/lock"), Open::Update).unwrap();
    assert!(!third.try_lock().unwrap());
    machine.kill(4);
    assert!(third.try_lock().unwrap());
}

#[test]
fn a_killed_process_can_do_nothing_and_its_number_is_another_process() {
    let (machine, disk) = machine_with_dir(0);
    let file = write(&*disk, "/d/a", b"1");
    assert!(file.try_lock().unwrap());
    machine.kill(1);
    assert_eq!(file.append(b"2").unwrap_err().to_string(), "killed");
    assert_eq!(disk.list(path("/d")).unwrap_err().to_string(), "killed");
    let reborn = machine.disk(1);
    let again = reborn.open(path("/d/a"), Open::Append).unwrap();
    assert!(again.try_lock().unwrap());
    drop(file);
    assert_eq!(again.append(b"3").unwrap(), 1);
    assert!(disk.list(path("/d")).is_err());
    assert_eq!(machine.read(path("/d/a")).unwrap(), b"13", "a kill loses nothing written");
}

#[test]
fn what_was_synced_survives_a_power_loss() {
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        let file = write_synced(&*disk, "/d/a", &[7; 10_000]);
        append_all(&*file, &[8; 10_000]).unwrap();
        machine.power_loss();
        assert!(file.len().is_err());
        let bytes = machine.read(path("/d/a")).unwrap();
        assert_eq!(bytes[..10_000], [7; 10_000], "seed {seed}");
        assert!(bytes.len() <= 20_000);
        assert!(machine.disk(1).open(path("/d/a"), Open::Read).unwrap().try_lock().unwrap());
    }
}

#[test]
fn unsynced_appends_survive_whole_torn_scrambled_or_not() {
    let mut lens = BTreeSet::new();
    let mut holes = 0;
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        let file = write_synced(&*disk, "/d/a", b"");
        for number in 0..30 {
            append_all(&*file, &[number + 1; 1_000]).unwrap();
        }
        machine.power_loss();
        let bytes = machine.read(path("/d/a")).unwrap();
        lens.insert(bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            assert!(*byte == 0 || usize::from(*byte) == at / 1_000 + 1, "seed {seed}, byte {at}");
        }
        holes += u32::from(bytes.contains(&0));
    }
    assert!(lens.contains(&0) && lens.contains(&30_000) && holes > 5);
    assert!(lens.iter().any(|len| len % 1_000 != 0));
}

#[test]
fn a_block_that_was_never_written_may_hold_what_another_file_had() {
    let stale = SEEDS.filter(|seed| {
        let (machine, disk) = machine_with_dir(*seed);
        write_synced(&*disk, "/d/old", &[9; 5_000]);
        let file = write_synced(&*disk, "/d/new", b"");
        append_all(&*file, &[1; 5_000]).unwrap();
        append_all(&*file, &[1; 5_000]).unwrap();
        machine.power_loss();
        machine.read(path("/d/new")).unwrap().contains(&9)
    });
    assert!(stale.count() > 0);
}

#[test]
fn a_small_write_in_place_is_never_torn() {
    let mut torn_large = false;
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        let file = disk.open(path("/d/a"), Open::Update).unwrap();
        file.write_all_at(&[1; 200], 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir(path("/d")).unwrap();
        file.write_all_at(&[2; 32], 0).unwrap();
        file.write_all_at(&[3; 32], 32).unwrap();
        file.write_all_at(&[4; 32], 0).unwrap();
        file.write_all_at(&[5; 100], 64).unwrap();
        machine.power_loss();
        let bytes = machine.read(path("/d/a")).unwrap();
        let all = |range: &[u8], among: &[u8]| {
            among.contains(&range[0]) && range.iter().all(|byte| *byte == range[0])
        };
        assert!(all(&bytes[..32], &[1, 2, 4]) && all(&bytes[32..64], &[1, 3]), "seed {seed}");
        torn_large |= bytes[64] == 5 && bytes[163] == 1;
    }
    assert!(torn_large);
}

#[test]
fn a_truncation_survives_or_not() {
    let lens: BTreeSet<usize> = SEEDS
        .map(|seed| {
            let (machine, disk) = machine_with_dir(seed);
            let file = write_synced(&*disk, "/d/a", &[1; 9_000]);
            file.truncate(10).unwrap();
            machine.power_loss();
            machine.read(path("/d/a")).unwrap().len()
        })
        .collect();
    assert_eq!(lens, BTreeSet::from([10, 9_000]));
}

#[test]
fn names_that_were_not_synced_survive_or_not_and_a_rename_survives_whole() {
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        write_synced(&*disk, "/d/a", b"a");
        write_synced(&*disk, "/d/gone", b"g");
        disk.rename(path("/d/a"), path("/d/e/b")).unwrap();
        disk.remove_file(path("/d/gone")).unwrap();
        write(&*disk, "/d/new", b"").sync().unwrap();
        machine.power_loss();
        let names = machine.paths();
        let has = |name: &str| names.contains(&PathBuf::from(name));
        assert!(has("/d/a") != has("/d/e/b"), "seed {seed}: {names:?}");
        seen.insert((has("/d/a"), has("/d/gone"), has("/d/new")));
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn syncing_a_directory_keeps_its_names_and_what_they_need() {
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        write(&*disk, "/d/e/a", b"a").sync().unwrap();
        disk.rename(path("/d/e/a"), path("/d/b")).unwrap();
        disk.sync_dir(path("/d")).unwrap();
        machine.power_loss();
        assert_eq!(machine.paths(), [PathBuf::from("/d/b")], "seed {seed}");
        assert_eq!(machine.read(path("/d/b")).unwrap(), b"a");
    }
}

#[test]
fn a_journal_keeps_names_in_their_order() {
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        machine.faults(|faults| faults.journalled = true);
        for number in 0..20 {
            write(&*disk, &format!("/d/e/{number:02}"), b"");
        }
        disk.sync_dir(path("/")).unwrap();
        for number in 20..40 {
            write(&*disk, &format!("/d/e/{number:02}"), b"");
        }
        machine.power_loss();
        let names = machine.paths();
        assert!(names.len() >= 20);
        assert_eq!(names.last().unwrap(), &PathBuf::from(format!("/d/e/{:02}", names.len() - 1)));
    }
}

#[test]
fn a_full_disk_takes_a_part_and_then_nothing() {
    let (machine, disk) = machine_with_dir(3);
    let file = write(&*disk, "/d/a", b"12345");
    machine.faults(|faults| faults.capacity = Some(8));
    assert_eq!(file.append(b"abcdef").unwrap(), 3);
    assert_eq!(kind(file.append(b"def")), ErrorKind::StorageFull);
    file.truncate(5).unwrap();
    let cursor = disk.open(path("/d/cursor"), Open::Update).unwrap();
    assert_eq!(kind(cursor.write_all_at(&[1; 8], 0)), ErrorKind::StorageFull);
    assert_eq!(cursor.len().unwrap(), 0);
    cursor.write_all_at(&[1; 3], 0).unwrap();
    cursor.write_all_at(&[2; 3], 0).unwrap();

    machine.faults(|faults| (faults.capacity, faults.no_space) = (None, true));
    let taken = file.append(&[0; 100]).unwrap_or(0);
    assert!(taken < 100);
    assert_eq!(kind(file.append(b"x")), ErrorKind::StorageFull);
    assert_eq!(kind(disk.create_dir_all(path("/d/new"))), ErrorKind::StorageFull);
    cursor.write_all_at(&[3; 3], 0).unwrap();
    machine.faults(|faults| faults.no_space = false);
    append_all(&*file, &[0; 100]).unwrap();
    assert!(machine.fired()["no_space"] >= 4);
}

#[test]
fn a_read_only_disk_can_be_read() {
    let (machine, disk) = machine_with_dir(0);
    let file = write(&*disk, "/d/a", b"1");
    machine.faults(|faults| faults.read_only = true);
    assert_eq!(kind(file.append(b"2")), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(file.truncate(0)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.open(path("/d/a"), Open::Append)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.open(path("/d/b"), Open::Update)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.rename(path("/d/a"), path("/d/b"))), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.remove_file(path("/d/a"))), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.create_dir_all(path("/d/f"))), ErrorKind::ReadOnlyFilesystem);
    disk.create_dir_all(path("/d/e")).unwrap();
    assert_eq!(read_to_end(&*file, 9).unwrap(), b"1");
    assert!(disk.open(path("/d/a"), Open::Read).unwrap().try_lock().unwrap());
    assert_eq!(machine.fired()["read_only"], 7);
}

#[test]
fn operations_fail_and_fall_short_as_often_as_they_are_told() {
    let (machine, disk) = machine_with_dir(0);
    let file = write(&*disk, "/d/a", &[1; 100]);
    machine.faults(|faults| faults.io_errors = 1.0);
    assert!(file.append(b"x").is_err() && file.sync().is_err() && disk.list(path("/d")).is_err());
    assert!(file.read_at(&mut [0; 4], 0).is_err() && disk.open(path("/d/a"), Open::Read).is_err());
    assert_eq!(machine.fired()["io_errors"], 5);
    machine.faults(|faults| (faults.io_errors, faults.short_writes) = (0.0, 1.0));
    let taken = file.append(&[2; 100]).unwrap();
    assert!((1..100).contains(&taken));
    assert_eq!(file.len().unwrap(), 100 + taken as u64);
    assert_eq!(machine.fired()["short_writes"], 1);
}

#[test]
fn a_failed_sync_may_forget_writes_that_a_later_one_claims_to_have_synced() {
    let mut forgotten = 0;
    for seed in SEEDS {
        let (machine, disk) = machine_with_dir(seed);
        let file = write_synced(&*disk, "/d/a", b"");
        file.append(b"one").unwrap();
        machine.faults(|faults| faults.sync_fails = 1.0);
        file.sync().unwrap_err();
        machine.faults(|faults| faults.sync_fails = 0.0);
        file.append(b"two").unwrap();
        file.sync().unwrap();
        assert_eq!(read_to_end(&*file, 9).unwrap(), b"onetwo");
        machine.power_loss();
        let bytes = machine.read(path("/d/a")).unwrap();
        assert!(bytes == b"onetwo" || bytes == b"\0\0\0two", "seed {seed}: {bytes:?}");
        forgotten += u32::from(bytes[0] == 0);
    }
    assert!(forgotten > 0 && u64::from(forgotten) < SEEDS.end);
}

#[test]
fn rot_harms_a_range_of_a_chosen_file_for_good() {
    let mut rng = fastrand::Rng::with_seed(1);
    let (machine, disk) = machine_with_dir(0);
    write_synced(&*disk, "/d/a", &[1; 3_000]);
    write(&*disk, "/d/b", &[1; 3_000]);
    for _ in 0..20 {
        let (rotten, range) = machine.rot(|path| path.ends_with("a"), &mut rng).unwrap();
        assert_eq!(rotten, path("/d/a"));
        assert!(!range.is_empty() && range.end <= 3_000);
    }
    assert_eq!(machine.rot(|path| path.ends_with("c"), &mut rng), None);
    let harmed = machine.read(path("/d/a")).unwrap();
    assert!(harmed.len() == 3_000 && harmed != [1; 3_000]);
    assert_eq!(machine.read(path("/d/b")).unwrap(), [1; 3_000]);
    machine.power_loss();
    assert_eq!(machine.read(path("/d/a")).unwrap(), harmed);
    assert_eq!(machine.fired()["rot"], 20);
}

#[test]
fn a_seed_decides_everything() {
    let run = |seed| {
        let (machine, disk) = machine_with_dir(seed);
        machine.faults(|faults| (faults.io_errors, faults.short_writes) = (0.1, 0.3));
        for number in 0..200 {
            let name = format!("/d/{}", number % 10);
            if let Ok(file) = disk.open(path(&name), Open::Append) {
                let _ = file.append(&[number; 300]);
                let _ = file.sync();
            }
            let _ = disk.remove_file(path(&format!("/d/{}", number % 7)));
        }
        machine.power_loss();
        let files: Vec<_> = machine.paths().iter().map(|path| machine.read(path)).collect();
        (machine.paths(), files, machine.fired(), machine.disk(1).list(path("/d")).ok())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
