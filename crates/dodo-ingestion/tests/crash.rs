//! The machine stops at a random moment, as far as an ext4 in a file can stand for it: the file is
//! copied while a process writes to it, and what the copy holds after its journal was replayed is what a
//! disk would hold. Where that cannot be mounted, it is said to be not tested.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[path = "support/mounts.rs"]
mod mounts;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use dodo_ingestion::{ApiCall, Builder, Durability, Ingestion};
use mounts::child::{Child, say};
use mounts::{in_own_mounts, make_ext4, mount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{PATIENT, Server, client, eventually};

const ROUNDS: usize = 10;
/// How often it is tried to lose something.
const CONTROLS: usize = 5;

#[test]
fn what_was_accepted_with_a_sync_survives_a_crash_of_the_machine() {
    in_own_mounts("crashes with a sync");
}

/// The control: where nothing is synced the same crash loses calls, or the test above proves nothing.
#[test]
fn without_a_sync_a_crash_of_the_machine_loses_what_the_kernel_had_not_written() {
    in_own_mounts("crashes without a sync");
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    let dir = PathBuf::from(std::env::var_os("CHILD_DIR").unwrap());
    match role.as_str() {
        "disk" => track_for_ever(&dir, Durability::Disk),
        "process" => track_for_ever(&dir, Durability::Process),
        "crashes with a sync" => {
            let Some(machine) = Machine::start(&dir, "disk") else { return };
            with_a_sync(machine);
        }
        "crashes without a sync" => {
            let Some(machine) = Machine::start(&dir, "process") else { return };
            without_a_sync(machine);
        }
        other => panic!("no role {other}"),
    }
}

/// Says the id of each call after it was accepted.
fn track_for_ever(disk: &Path, durability: Durability) {
    let builder = Ingestion::builder("sk_test_canary").event_name("api_call");
    let builder = builder.base_url(std::env::var("CHILD_URL").unwrap());
    let ingestion = small(builder, disk).durability(durability).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let ingestion = &ingestion;
            scope.spawn(move || {
                for number in 0_u64.. {
                    let id = format!("{thread}-{number}");
                    let call = ApiCall::new("cus_1").endpoint("x".repeat(100)).event_id(&id);
                    if ingestion.track_api_call(call).is_ok() {
                        say(&id);
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
    });
}

/// With segments so small that some are begun, settled and removed between two crashes.
fn small(builder: Builder, disk: &Path) -> Builder {
    builder.spool_dir(disk).max_spool_bytes(2 << 20).linger(Duration::from_millis(50))
}

type Billed = BTreeMap<String, Value>;

/// A disk, a process that writes to it, and the server that it sends to.
struct Machine {
    dir: PathBuf,
    image: PathBuf,
    server: Server,
    tracker: Pid,
    said: Arc<Mutex<BTreeSet<String>>>,
    hearing: Option<JoinHandle<Child>>,
    crashes: usize,
}

/// What there was at a crash.
struct Crash {
    said: BTreeSet<String>,
    billed: Billed,
    image: PathBuf,
}

impl Machine {
    fn start(dir: &Path, durability: &str) -> Option<Self> {
        let (image, dir) = (dir.join("image"), dir.to_owned());
        make_ext4(&image, 32 << 20, &["-J", "size=4"]).then_some(())?;
        // The kernel writes nothing of its own accord while the test runs.
        let disk = mount(&dir.join("disk"), &["-o", "loop,commit=300", image.to_str().unwrap()])?;
        let server = Server::start();
        let env = [("CHILD_URL", server.url()), ("CHILD_DIR", disk.display().to_string())];
        let env = env.each_ref().map(|(name, value)| (*name, value.as_ref()));
        let mut child = Child::of("child_process", durability, &env);
        let tracker = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let said: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let heard = said.clone();
        let hearing = std::thread::spawn(move || {
            while let Some(id) = child.next_line() {
                heard.lock().unwrap().insert(id);
            }
            child
        });
        eventually("calls are accepted", || said.lock().unwrap().len() > 20);
        Some(Self { dir, image, server, tracker, said, hearing: Some(hearing), crashes: 0 })
    }

    /// Stops the process between two instructions, and copies the disk as it lies there.
    fn crash(&mut self) -> Crash {
        kill_process(self.tracker, Signal::STOP).unwrap();
        eventually("the process stands still", || stands_still(self.tracker));
        // What it said is read by now, or does not count.
        std::thread::sleep(Duration::from_millis(20));
        let said = self.said.lock().unwrap().clone();
        self.server.stop();
        let billed = self.server.state.lock().unwrap().billed.clone();
        // The kernel may write at any time. What was the same before and after was there at once.
        let mut contents = fs::read(&self.image).unwrap();
        eventually("the disk stands still", || {
            let before = std::mem::replace(&mut contents, fs::read(&self.image).unwrap());
            before == contents
        });
        self.crashes += 1;
        let image = self.dir.join(format!("image-{}", self.crashes));
        fs::write(&image, contents).unwrap();
        Crash { said, billed, image }
    }

    /// Mounts what the crash left, and delivers what is found there to a server that has seen nothing.
    fn restart(&self, crash: &Crash) -> Billed {
        let server = Server::start_on(self.server.address, Arc::default());
        let disk = self.dir.join("after");
        let options = ["-o", "loop", crash.image.to_str().unwrap()];
        assert!(mount(&disk, &options).is_some(), "the journal can be replayed");
        let ingestion = small(client(&server, &disk), &disk).build().unwrap();
        let namespaces = disk.join("dodo-ingestion").read_dir().unwrap();
        let namespace = namespaces.map(|entry| entry.unwrap().path()).next().unwrap();
        let spools = || namespace.join("spools").read_dir().unwrap().count();
        let mut probes = 0;
        eventually("the spool of the dead is drained and removed", || {
            // What waits goes along with what is due.
            ingestion
                .track_api_call(ApiCall::new("c").event_id(format!("probe-{probes}")))
                .unwrap();
            probes += 1;
            ingestion.blocking_flush(PATIENT).unwrap();
            spools() == 1
        });
        ingestion.blocking_close(PATIENT).unwrap();
        server.stop();
        let state = server.state.lock().unwrap();
        let sent: usize = state.requests.iter().sum();
        assert_eq!(sent, state.billed.len(), "nothing was sent twice");
        let mut billed = state.billed.clone();
        drop(state);
        assert!((0..probes).all(|probe| billed.remove(&format!("probe-{probe}")).is_some()));
        drop(ingestion);
        eventually("the files are let go, and the disk", || {
            Command::new("umount").arg(&disk).output().unwrap().status.success()
        });
        fs::remove_file(&crash.image).unwrap();
        billed
    }

    /// Goes on where it stood; with its server, or without.
    fn go_on(&mut self, served: bool) {
        if served {
            self.server = Server::start_on(self.server.address, self.server.state.clone());
        }
        kill_process(self.tracker, Signal::CONT).unwrap();
        std::thread::sleep(Duration::from_millis(fastrand::u64(10..150)));
    }
}

/// A process that stands still outlives a test that failed, and holds the disk.
impl Drop for Machine {
    fn drop(&mut self) {
        _ = kill_process(self.tracker, Signal::KILL);
        if let Some(Ok(tracker)) = self.hearing.take().map(JoinHandle::join) {
            tracker.kill();
        }
    }
}

/// Whether every thread of a process is stopped.
fn stands_still(process: Pid) -> bool {
    let tasks = Path::new("/proc").join(process.to_string()).join("task").read_dir().unwrap();
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    })
}

/// What was said and is in none of the two bills.
fn lost<'c>(crash: &'c Crash, after: &Billed) -> Vec<&'c String> {
    let is_lost = |id: &&String| !crash.billed.contains_key(*id) && !after.contains_key(*id);
    crash.said.iter().filter(is_lost).collect()
}

/// What is sent again after a crash is the same call under the same id.
fn same_again(crash: &Crash, after: &Billed) {
    let without_time = |event: &Value| {
        let mut event = event.clone();
        event.as_object_mut().unwrap().remove("timestamp");
        event
    };
    for (id, event) in after {
        if let Some(before) = crash.billed.get(id) {
            assert_eq!(without_time(before), without_time(event));
        }
    }
}

fn with_a_sync(mut machine: Machine) {
    let (mut said, mut found) = (0, 0);
    for round in 0..ROUNDS {
        let crash = machine.crash();
        let after = machine.restart(&crash);
        let lost = lost(&crash, &after);
        assert!(lost.is_empty(), "round {round}: of {} lost: {lost:?}", crash.said.len());
        same_again(&crash, &after);
        said = crash.said.len();
        found += after.len();
        machine.go_on(round % 3 > 0);
    }
    drop(machine);
    assert!(found > 0, "nothing waited at any crash");
    report(&format!(
        "{ROUNDS} crashes with a sync: of {said} calls accepted none was lost; {found} \
                     were found on the disks"
    ));
    say("done");
}

fn without_a_sync(mut machine: Machine) {
    for _ in 0..CONTROLS {
        let crash = machine.crash();
        let after = machine.restart(&crash);
        same_again(&crash, &after);
        let lost = lost(&crash, &after).len();
        if lost > 0 {
            drop(machine);
            report(&format!(
                "a crash without a sync: of {} calls accepted {lost} were lost",
                crash.said.len()
            ));
            return say("done");
        }
        machine.go_on(false);
    }
    drop(machine);
    say("impossible: the kernel had written everything by the time of each crash");
}

fn report(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
