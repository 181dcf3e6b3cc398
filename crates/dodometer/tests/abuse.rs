//! `dodometer serve` under load, and stopped under it: what it acknowledged is in its file.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use support::{Serving, dodometer};

/// How many events the flood is.
const FLOOD: usize = 200_000;
/// What the process may need after it, in MB: the page cache of the database is 64 of them.
const MOST_MEMORY: usize = 400;

/// Long enough for anything that happens at all.
const EVENTUALLY: Duration = Duration::from_secs(120);

fn batch(first: usize, count: usize) -> String {
    let mut body = r#"{"events":["#.to_owned();
    for n in first..first + count {
        let comma = if n == first { "" } else { "," };
        write!(
            body,
            r#"{comma}{{"event_id":"e{n}","customer_id":"cus_{}","event_name":"api_call","metadata":{{"endpoint":"/v1/users/{{id}}","method":"GET","status_code":200,"response_time_ms":{}.5,"units":2}}}}"#,
            n % 1000,
            n % 500
        )
        .unwrap();
    }
    body + "]}"
}

/// One connection that makes requests one after another.
struct Talking {
    stream: BufReader<TcpStream>,
}

impl Talking {
    fn to(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(EVENTUALLY))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The status and the body of the answer.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\ncontent-length: {length}\r\n\r\n"
        );
        self.stream.get_mut().write_all((head + body).as_bytes())?;
        self.answer()
    }

    /// Begins an ingest request, up to where the server reads its body.
    fn begin_ingest(&mut self, body: &str) {
        let head = format!(
            "POST /events/ingest HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.get_mut().write_all(head.as_bytes()).unwrap();
        assert_eq!(self.answer().unwrap().0, 100);
    }

    fn answer(&mut self) -> std::io::Result<(u16, String)> {
        let mut line = self.line()?;
        let status = line[9..12].parse().unwrap();
        let mut length = 0;
        while !line.is_empty() {
            line = self.line()?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body).unwrap()))
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn get(&mut self, path: &str) -> serde_json::Value {
        let (status, body) = self.ask("GET", path, "").unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// The resident memory of a process, in MB.
#[cfg(target_os = "linux")]
fn memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn a_flood_is_taken_while_everything_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.db");
    let serving = on(&file);
    let made = r#"{"name":"Calls","event_name":"api_call","measurement_unit":"units","aggregation":{"type":"sum","key":"units"}}"#;
    let mut talking = Talking::to(&serving.address).unwrap();
    let (status, meter) = talking.ask("POST", "/meters", made).unwrap();
    assert_eq!(status, 201, "{meter}");
    let meter: serde_json::Value = serde_json::from_str(&meter).unwrap();
    let usage = format!("/meters/{}/usage", meter["id"].as_str().unwrap());

    let next = AtomicUsize::new(0);
    let writing = AtomicUsize::new(4);
    std::thread::scope(|threads| {
        for _ in 0..writing.load(Ordering::SeqCst) {
            threads.spawn(|| {
                let mut talking = Talking::to(&serving.address).unwrap();
                loop {
                    let first = next.fetch_add(1000, Ordering::SeqCst);
                    if first >= FLOOD {
                        break;
                    }
                    let answer =
                        talking.ask("POST", "/events/ingest", &batch(first, 1000)).unwrap();
                    assert_eq!(answer, (200, r#"{"ingested_count":1000}"#.to_owned()));
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        threads.spawn(|| {
            let mut talking = Talking::to(&serving.address).unwrap();
            let mut calls = 0;
            while writing.load(Ordering::SeqCst) > 0 {
                let now = talking.get("/_dev/bill")["totals"]["calls"].as_u64().unwrap();
                assert!(now >= calls, "what was counted stays counted");
                calls = now;
                let items = |list: &serde_json::Value| list["items"].as_array().unwrap().len();
                assert!(items(&talking.get("/events?page_size=1000&page_number=3")) <= 1000);
                assert!(items(&talking.get("/events?customer_id=cus_7&event_name=api_call")) <= 10);
                assert!(items(&talking.get(&usage)) <= 1000);
            }
        });
    });
    let totals = talking.get("/_dev/bill")["totals"].clone();
    assert_eq!(totals["calls"], FLOOD);
    assert_eq!(totals["customers"], 1000);
    let customer = talking.get(&format!("{usage}?customer_id=cus_7"));
    assert_eq!(customer["items"][0]["consumed_units"], (FLOOD / 1000 * 2).to_string());
    #[cfg(target_os = "linux")]
    {
        let memory = memory(serving.child.id());
        assert!(memory < MOST_MEMORY, "{memory} MB after {FLOOD} events");
    }
    assert_eq!(serving.stop("-TERM"), Some(0));
    assert_eq!(stored(&file).len(), FLOOD);
}

#[test]
fn a_thousand_idle_connections_hold_up_nobody() {
    // Fewer descriptors than connections, as many systems begin.
    let mut child = Command::new("sh")
        .args(["-c", r#"ulimit -S -n 512 && exec "$0" serve --listen 127.0.0.1:0 --json"#])
        .arg(dodometer(&[]).get_program())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let serving = Serving { child, address: ready["listening"].as_str().unwrap().to_owned() };

    // This process needs as many itself.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let mut idle = Vec::new();
    for n in 0..1000 {
        let mut stream = TcpStream::connect(&serving.address).unwrap();
        // Every second one has begun a request.
        stream
            .write_all(if n % 2 == 0 { b"POST /events/ingest HTTP/1.1\r\n" } else { b"" })
            .unwrap();
        idle.push(stream);
    }
    let mut talking = Talking::to(&serving.address).unwrap();
    for first in 0..10 {
        let (status, answer) = talking.ask("POST", "/events/ingest", &batch(first, 1)).unwrap();
        assert_eq!((status, answer.as_str()), (200, r#"{"ingested_count":1}"#));
    }
    // All of them are open still: each gets its answer when it asks.
    for (n, stream) in idle.into_iter().enumerate() {
        let mut talking = Talking { stream: BufReader::new(stream) };
        let request = if n % 2 == 0 {
            &b"host: localhost\r\nauthorization: Bearer k\r\ncontent-length: 0\r\n\r\n"[..]
        } else {
            b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
        };
        talking.stream.get_mut().write_all(request).unwrap();
        assert_eq!(talking.answer().unwrap().0, if n % 2 == 0 { 422 } else { 200 });
    }
    assert_eq!(serving.stop("-TERM"), Some(0));
}

fn on(file: &Path) -> Serving {
    Serving::start(&arguments(file))
}

fn arguments(file: &Path) -> [&str; 5] {
    ["--listen", "127.0.0.1:0", "--data", file.to_str().unwrap(), "--json"]
}

/// The ids in a data file that nobody uses any more, after SQLite has found it sound.
fn stored(file: &Path) -> std::collections::HashSet<String> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut statement = database.prepare("SELECT event_id FROM event").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Writes from eight threads until the server is gone, and signals it in the midst of that. Returns
/// the exit status, and the first number of each batch of 20 that was acknowledged.
fn signalled(serving: Serving, signal: &str) -> (Option<i32>, Vec<usize>) {
    let acknowledged = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let gone = AtomicBool::new(false);
    let address = serving.address.clone();
    let status = std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let write = || -> std::io::Result<()> {
                    let mut talking = Talking::to(&address)?;
                    loop {
                        let first = next.fetch_add(20, Ordering::SeqCst);
                        let answer = talking.ask("POST", "/events/ingest", &batch(first, 20))?;
                        assert_eq!(answer, (200, r#"{"ingested_count":20}"#.to_owned()));
                        acknowledged.lock().unwrap().push(first);
                    }
                };
                // A server that stops ends each connection after an answer; who comes again finds nobody.
                while !gone.load(Ordering::SeqCst) {
                    let _ = write();
                }
            });
        }
        while acknowledged.lock().unwrap().len() < 100 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = serving.stop(signal);
        gone.store(true, Ordering::SeqCst);
        status
    });
    (status, acknowledged.into_inner().unwrap())
}

#[test]
fn what_was_acknowledged_survives_the_end_of_the_server() {
    for (signal, expected) in [("-TERM", Some(0)), ("-KILL", None), ("-INT", Some(0))] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("meter.db");
        let (status, acknowledged) = signalled(on(&file), signal);
        assert_eq!(status, expected, "{signal}");
        let stored = stored(&file);
        assert!(acknowledged.len() >= 100);
        for first in &acknowledged {
            for n in *first..first + 20 {
                assert!(stored.contains(&format!("e{n}")), "{signal}: e{n} was acknowledged");
            }
        }
        assert_eq!(stored.len() % 20, 0, "{signal}: a request is stored whole or not at all");

        // And the next server goes on with it.
        let next = on(&file);
        let mut talking = Talking::to(&next.address).unwrap();
        assert_eq!(talking.get("/_dev/bill")["totals"]["calls"], stored.len());
        assert_eq!(next.stop("-TERM"), Some(0));
    }
}

#[test]
fn work_that_never_ends_does_not_keep_the_server_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.db");
    // Standard error that nobody reads and that is full: who writes to it waits for ever.
    let (_unread, mut full) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    while full.write(b"x").is_ok() {}
    full.set_nonblocking(false).unwrap();
    let mut serving = Serving::of(dodometer(&arguments(&file)).stderr(OwnedFd::from(full)));
    // A request that cannot be counted has that logged, by the thread that may block.
    Connection::open(&file).unwrap().execute_batch("DROP TABLE requests").unwrap();
    let mut talking = Talking::to(&serving.address).unwrap();
    let body = batch(0, 1);
    talking.begin_ingest(&body);
    let process = serving.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    talking.stream.get_mut().write_all(body.as_bytes()).unwrap();
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn requests_under_way_are_answered_before_the_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.db");
    let mut serving = on(&file);
    let body = batch(0, 100);
    let mut under_way: Vec<Talking> =
        (0..8).map(|_| Talking::to(&serving.address).unwrap()).collect();
    for talking in &mut under_way {
        talking.begin_ingest(&body);
    }
    let process = serving.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    while TcpStream::connect(&serving.address).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut ingested = 0;
    for talking in &mut under_way {
        talking.stream.get_mut().write_all(body.as_bytes()).unwrap();
    }
    for talking in &mut under_way {
        let (status, answer) = talking.answer().unwrap();
        assert_eq!(status, 200, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        ingested += answer["ingested_count"].as_u64().unwrap();
    }
    assert_eq!(ingested, 100, "one of them was the first");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    assert_eq!(stored(&file).len(), 100);
}
