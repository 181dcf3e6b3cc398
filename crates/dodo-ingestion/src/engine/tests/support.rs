//! Processes of one account on a real directory, with a clock, a server and a disk that a test decides.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::alarm::AlarmKind;
use crate::clock::Now;
use crate::config::{ApiKey, Builder, NamespaceConfig};
use crate::delivery::{Answer, Response, ResponseHeaders};
use crate::disk::{Disk, DiskFile, FileId, Open, Preparation, Reserved, SystemDisk};
use crate::engine::task::Task;
use crate::error::Result;
use crate::event::ApiCall;
use crate::id::IdSource;
use crate::shared::Shared;
use crate::spool::{Namespace, Seq, SpoolName, Writer, WriterSettings};
use crate::transport::{AnswerFuture, Connect, Transport};

const WALL: i64 = 1_769_860_800_000;

/// So many milliseconds after the tests' beginning.
pub(super) fn at(mono: u64) -> Now {
    Now { wall: WALL + mono as i64, mono }
}

/// The machine's disk, which fails where it is told to.
#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk(Arc<Faults>);

type Meanwhile = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Faults {
    /// What cannot be opened: a part of the path, and how.
    failing: Mutex<Option<(String, Open)>>,
    /// What cannot be written in place: a part of the path.
    unwritable: Mutex<Option<String>>,
    /// How many appended files were synced.
    syncs: AtomicUsize,
    /// How many bytes were read.
    read: AtomicUsize,
    /// How often it was measured what a directory takes.
    measured: AtomicUsize,
    /// What happens each time that it is asked where a segment ends.
    meanwhile: Mutex<Option<Meanwhile>>,
    /// Where files can be written to through memory: up to where it was prepared.
    prepared: Mutex<Option<Vec<u64>>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("failing", &self.failing).finish_non_exhaustive()
    }
}

impl TestDisk {
    pub(super) fn fail(&self, part: &str, how: Open) {
        *self.0.failing.lock().unwrap() = Some((part.to_owned(), how));
    }

    pub(super) fn fail_writes(&self, part: &str) {
        *self.0.unwritable.lock().unwrap() = Some(part.to_owned());
    }

    pub(super) fn mend(&self) {
        *self.0.failing.lock().unwrap() = None;
        *self.0.unwritable.lock().unwrap() = None;
    }

    pub(super) fn read(&self) -> usize {
        self.0.read.load(Ordering::Relaxed)
    }

    pub(super) fn meanwhile(&self, what: impl Fn() + Send + Sync + 'static) {
        *self.0.meanwhile.lock().unwrap() = Some(Arc::new(what));
    }

    /// From now on files can be written to through memory.
    pub(super) fn map(&self) {
        *self.0.prepared.lock().unwrap() = Some(Vec::new());
    }

    pub(super) fn prepared(&self) -> Vec<u64> {
        self.0.prepared.lock().unwrap().clone().unwrap_or_default()
    }

    pub(super) fn measured(&self) -> usize {
        self.0.measured.load(Ordering::Relaxed)
    }

    pub(super) fn syncs(&self) -> usize {
        self.0.syncs.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct TestFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

fn is_of(path: &Path, part: &str) -> bool {
    path.to_string_lossy().contains(part)
}

impl Disk for TestDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        SystemDisk.list(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let failing = self.0.failing.lock().unwrap().clone();
        if failing.is_some_and(|(part, with)| is_of(path, &part) && with == how) {
            return Err(io::Error::other("told to fail"));
        }
        let file = SystemDisk.open(path, how)?;
        Ok(Arc::new(TestFile { path: path.to_owned(), file, faults: self.0.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove_file(path)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }
    fn identify(&self, path: &Path) -> io::Result<FileId> {
        SystemDisk.identify(path)
    }
    fn usage(&self, dir: &Path) -> io::Result<u64> {
        self.0.measured.fetch_add(1, Ordering::Relaxed);
        SystemDisk.usage(dir)
    }
}

impl DiskFile for TestFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(bytes)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        self.faults.read.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let unwritable = self.faults.unwritable.lock().unwrap().clone();
        if unwritable.is_some_and(|part| is_of(&self.path, &part)) {
            return Err(io::Error::other("told to fail"));
        }
        self.file.write_all_at(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        let meanwhile = self.faults.meanwhile.lock().unwrap().clone();
        if is_of(&self.path, "segment")
            && let Some(meanwhile) = meanwhile
        {
            meanwhile();
        }
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn reserve(&self, _: u64) -> Option<Box<dyn Reserved>> {
        let maps = self.faults.prepared.lock().unwrap().is_some();
        maps.then(|| Box::new(TestMemory(self.file.clone(), self.faults.clone())) as _)
    }
    fn sync(&self) -> io::Result<()> {
        self.faults.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync()
    }
    fn identify(&self) -> io::Result<FileId> {
        self.file.identify()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

#[derive(Debug)]
struct TestMemory(Arc<dyn DiskFile>, Arc<Faults>);

impl Reserved for TestMemory {
    fn commit(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn preparation(&self, until: u64) -> Option<Preparation> {
        let faults = self.1.clone();
        Some(Box::new(move || faults.prepared.lock().unwrap().as_mut().unwrap().push(until)))
    }
}

/// The billing API: what it answers, and the keys that it was sent.
#[derive(Clone, Default)]
pub(super) struct Server(Rc<RefCell<Answers>>);

#[derive(Default)]
struct Answers {
    /// A key that is not taken.
    refused_key: Option<&'static str>,
    /// Nobody answers.
    away: bool,
    /// A connection that is made now does not trust its certificate.
    untrusted: bool,
    keys: Vec<String>,
    /// How many calls were taken.
    taken: usize,
}

impl Server {
    pub(super) fn refuse(&self, key: Option<&'static str>) {
        self.0.borrow_mut().refused_key = key;
    }

    pub(super) fn go_away(&self, away: bool) {
        self.0.borrow_mut().away = away;
    }

    pub(super) fn is_trusted(&self, trusted: bool) {
        self.0.borrow_mut().untrusted = !trusted;
    }

    pub(super) fn taken(&self) -> usize {
        self.0.borrow().taken
    }

    pub(super) fn requests(&self) -> usize {
        self.0.borrow().keys.len()
    }

    fn connect(&self) -> Rc<Connect> {
        let server = self.clone();
        Rc::new(move |_: &NamespaceConfig, key: &ApiKey| {
            let trusts = !server.0.borrow().untrusted;
            let (server, key) = (server.clone(), key.expose().to_owned());
            Ok(Box::new(Connection { server, key, trusts }))
        })
    }
}

struct Connection {
    server: Server,
    key: String,
    trusts: bool,
}

impl Transport for Connection {
    fn ingest(&self, body: Vec<u8>) -> AnswerFuture {
        let mut server = self.server.0.borrow_mut();
        if !self.trusts {
            let failure = crate::delivery::Failure::Tls("its certificate is unknown".into());
            return Box::pin(async { Answer::Failed(failure) });
        }
        server.keys.push(self.key.clone());
        if server.away {
            let failure = crate::delivery::Failure::Connect("nobody answers".into());
            return Box::pin(async { Answer::Failed(failure) });
        }
        let refused = server.refused_key.is_some_and(|refused| refused == self.key);
        let events: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let count = events["events"].as_array().unwrap().len();
        let (status, body) = if refused {
            (401, "{\"code\":\"UNAUTHORIZED\",\"message\":\"no\"}".to_owned())
        } else {
            server.taken += count;
            (200, format!("{{\"ingested_count\":{count}}}"))
        };
        let headers = ResponseHeaders::default();
        let answer = Answer::Response(Response { status, headers, body: body.into() });
        Box::pin(async { answer })
    }

    fn look_up(&self, _: &str) -> AnswerFuture {
        Box::pin(async { Answer::Failed(crate::delivery::Failure::Lost("no look-ups".into())) })
    }
}

pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: TestDisk,
    pub(super) task: Task,
    namespace: Namespace,
    told: Arc<Mutex<Vec<AlarmKind>>>,
}

impl Process {
    /// A process of the account whose directory this is.
    pub(super) fn start(dir: &Path, server: &Server, now: Now, set: &[(&str, &str)]) -> Self {
        let mut builder = Builder::new().api_key("sk_1").event_name("call").account("a");
        for (name, value) in [("max_spool_bytes", "67108864")].iter().chain(set) {
            builder.set(name, *value).unwrap();
        }
        let config = builder.base_url("http://127.0.0.1:1").config(|_| None).unwrap();
        let disk = TestDisk::default();
        let ids = IdSource::new().unwrap();
        let namespace = Namespace::open(Arc::new(disk.clone()), dir.to_owned()).unwrap();
        let owned = namespace.create_spool(SpoolName(ids.next(now.wall))).unwrap();
        let max_bytes = config.namespace.max_spool_bytes;
        let settings = WriterSettings { max_bytes, sync: false };
        let writer = Writer::new(namespace.clone(), owned, settings);
        let shared = Shared::new(config.namespace, writer, ids, config.api_key);
        let shared = Arc::new(shared);
        let told: Arc<Mutex<Vec<AlarmKind>>> = Arc::default();
        let sink = told.clone();
        shared.alarms.add_callback(0, Arc::new(move |alarm| sink.lock().unwrap().push(alarm.kind)));
        let task = Task::new(shared.clone(), namespace.clone(), server.connect());
        Self { shared, disk, task, namespace, told }
    }

    pub(super) fn track(&self, now: Now) -> Seq {
        self.accept(now).unwrap()
    }

    pub(super) fn accepts(&self, now: Now) -> bool {
        self.accept(now).is_ok()
    }

    fn accept(&self, now: Now) -> Result<Seq> {
        let call = ApiCall::new("cus_1").into();
        Ok(self.shared.accept(&call, "call", Duration::ZERO, now)?.1)
    }

    /// Serves until there is no answer to wait for.
    pub(super) fn serve(&mut self, now: Now) {
        let mut context = Context::from_waker(Waker::noop());
        self.task.serve(now);
        while let Poll::Ready((request, answer)) = self.task.poll_answer(&mut context) {
            self.task.answered(request, answer, now);
            self.task.serve(now);
        }
    }

    pub(super) fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    pub(super) fn sends(&self) -> bool {
        self.task.held().is_some()
    }

    pub(super) fn was_told_of(&self, kind: AlarmKind) -> bool {
        self.told.lock().unwrap().contains(&kind)
    }

    pub(super) fn settled(&self) -> Seq {
        self.shared.settlement.settled()
    }
}
