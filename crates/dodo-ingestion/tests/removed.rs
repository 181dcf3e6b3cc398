//! A spool that is removed, or replaced by something else, while its process runs: the process goes
//! on, what was destroyed is said, and what comes after is billed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dodo_ingestion::{Alarm, AlarmKind, ApiCall, ErrorKind, Ingestion};
use support::{PATIENT, Server, client, eventually};
use tempfile::{TempDir, tempdir};

type Told = Arc<Mutex<Vec<Alarm>>>;

/// Whether there was an alarm of the storage with these words.
fn has_told(told: &Told, words: &str) -> bool {
    let told = told.lock().unwrap();
    told.iter().any(|alarm| alarm.kind == AlarmKind::Storage && alarm.message.contains(words))
}

/// A client that waits long before it sends by itself.
fn listening(server: &Server, dir: &TempDir) -> (Ingestion, Told) {
    let told = Told::default();
    let sink = told.clone();
    let builder = client(server, dir.path()).linger(Duration::from_secs(300));
    let builder = builder.on_alarm(move |alarm| sink.lock().unwrap().push(alarm.clone()));
    (builder.build().unwrap(), told)
}

/// The parts of the spool's path, from `dodo-ingestion` to the spool itself.
fn parts(dir: &TempDir) -> [PathBuf; 4] {
    let only = |dir: &Path| dir.read_dir().unwrap().next().unwrap().unwrap().path();
    let root = dir.path().join("dodo-ingestion");
    let namespace = only(&root);
    let spools = namespace.join("spools");
    let spool = only(&spools);
    [root, namespace, spools, spool]
}

/// Removes a directory in one step, as its process sees it: it would make it anew in between.
fn remove(place: &Path, dir: &TempDir) {
    let aside = dir.path().join("aside");
    fs::rename(place, &aside).unwrap();
    remove_all(&aside);
}

/// Its process may be making a file in it just then.
fn remove_all(dir: &Path) {
    eventually("it is removed", || fs::remove_dir_all(dir).is_ok());
}

/// Puts something in the place of a directory, in one step.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn replace(place: &Path, by: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, by, CWD, place, RenameFlags::EXCHANGE).unwrap();
    remove_all(by);
}

/// Puts something in the place of a directory.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn replace(place: &Path, by: &Path) {
    remove_all(place);
    fs::rename(by, place).unwrap();
}

fn track(ingestion: &Ingestion, calls: usize) {
    for _ in 0..calls {
        ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
    }
}

/// A call that is accepted now is billed. Until then a refusal is one of the disk's.
fn bills_again(ingestion: &Ingestion) {
    eventually("new calls are billed", || match ingestion.track_api_call(ApiCall::new("cus_1")) {
        Ok(receipt) => {
            // A failed flush is one of the disk's too.
            _ = ingestion.blocking_flush(Duration::from_secs(2));
            receipt.blocking_delivered(Duration::from_millis(100)).is_ok()
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
            false
        }
    });
}

#[test]
fn a_spool_that_is_removed_is_said_and_made_anew() {
    for part in 0..4 {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        let (ingestion, told) = listening(&server, &dir);
        track(&ingestion, 20);
        ingestion.blocking_flush(PATIENT).unwrap();
        assert_eq!(server.billed(), 20);

        track(&ingestion, 19);
        let destroyed = ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
        let removed = &parts(&dir)[part];
        remove(removed, &dir);
        eventually(&format!("it is told that {} is gone", removed.display()), || {
            has_told(&told, "with it 20 calls")
        });
        let error = destroyed.blocking_delivered(PATIENT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
        bills_again(&ingestion);
        track(&ingestion, 20);
        ingestion.blocking_close(PATIENT).unwrap();
        let stats = ingestion.stats();
        assert!(stats.quarantined >= 20, "what was destroyed is counted: {stats:?}");
        assert!(stats.billed >= 41 && server.billed() as u64 >= stats.billed, "{stats:?}");
        assert_eq!(stats.accepted, stats.billed + stats.quarantined, "{stats:?}");
    }
}

#[test]
fn a_spool_that_is_replaced_by_a_file_is_said_and_made_anew_when_there_is_room_for_it() {
    for part in 0..4 {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        let (ingestion, told) = listening(&server, &dir);
        track(&ingestion, 20);
        ingestion.blocking_flush(PATIENT).unwrap();

        let (replaced, file) = (&parts(&dir)[part], dir.path().join("file"));
        fs::write(&file, "in the way").unwrap();
        replace(replaced, &file);
        eventually(&format!("it is told that {} is a file", replaced.display()), || {
            // Not a panic, whatever becomes of it.
            _ = ingestion.track_api_call(ApiCall::new("cus_1"));
            has_told(&told, "")
        });
        assert_eq!(fs::read_to_string(replaced).unwrap(), "in the way");
        fs::remove_file(replaced).unwrap();
        bills_again(&ingestion);
        ingestion.blocking_close(PATIENT).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn what_is_made_anew_is_not_made_behind_a_link() {
    for part in 0..3 {
        let (server, dir) = (Server::start(), tempdir().unwrap());
        let (ingestion, told) = listening(&server, &dir);
        let elsewhere = tempdir().unwrap();
        let replaced = &parts(&dir)[part];
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        replace(replaced, &link);
        eventually(&format!("it is told that {} is a link", replaced.display()), || {
            has_told(&told, "")
        });
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0, "{}", replaced.display());
        fs::remove_file(replaced).unwrap();
        bills_again(&ingestion);
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0, "{}", replaced.display());
        ingestion.blocking_close(PATIENT).unwrap();
    }
}
