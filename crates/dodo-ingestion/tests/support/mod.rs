//! A billing API on loopback whose every answer a test can script: real sockets, real HTTP.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use dodo_ingestion::{AlarmKind, Builder, Ingestion};
use serde_json::{Value, json};

#[allow(unused_imports, reason = "each test file uses its own part")]
pub use waiting::{PATIENT, UNTIL_HELD, eventually};

/// How long the server's threads wait before they look whether it was stopped.
const POLL: Duration = Duration::from_millis(20);

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Script {
    /// Take the events and answer with this.
    Take { status: u16, headers: &'static str, body: String },
    /// Take nothing and answer with this.
    Answer { status: u16, headers: &'static str, body: String },
    /// Take the events and close the connection without an answer.
    ResetAfterCommit,
    /// Close the connection without an answer.
    Reset,
    /// Say nothing until the client gives up.
    Hang,
}

pub fn error(status: u16) -> Script {
    let body = json!({"code": "INVALID_REQUEST_BODY", "message": "scripted"}).to_string();
    Script::Answer { status, headers: "", body }
}

/// The server's state.
#[derive(Default)]
pub struct State {
    /// What was billed: the first event of each id.
    pub billed: BTreeMap<String, Value>,
    /// How many events each request carried.
    pub requests: Vec<usize>,
    /// When each request came.
    pub times: Vec<Instant>,
    /// Answers to the next requests; normal ones after that.
    pub script: VecDeque<Script>,
    /// Refuses a request that holds an event of this customer.
    pub unknown_customer: Option<String>,
    /// Refuses a body of more bytes.
    pub max_body: Option<usize>,
    /// The server's clock, ahead of this machine's.
    pub skew_seconds: i64,
    /// The `Authorization` headers seen.
    pub keys: Vec<String>,
}

#[derive(Clone)]
pub struct Server {
    pub state: Arc<Mutex<State>>,
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), Arc::default())
    }

    /// Starts on an address, with the state of a server that was stopped.
    pub fn start_on(address: SocketAddr, state: Arc<Mutex<State>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let server = Self { state, address, stop, threads: Arc::default() };
        let accepting = server.clone();
        server.spawn(move || {
            while !accepting.stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let serving = accepting.clone();
                        accepting.spawn(move || serving.serve(&stream));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        server
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let mut threads = self.threads.lock().unwrap();
        threads.push(std::thread::spawn(work));
    }

    /// Refuses connections from now on, and closes those that are open.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        // The one that accepts connections may add to them until it has ended.
        let next = || self.threads.lock().unwrap().pop();
        while let Some(thread) = next() {
            _ = thread.join();
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn script(&self, answers: impl IntoIterator<Item = Script>) {
        self.state.lock().unwrap().script.extend(answers);
    }

    pub fn billed(&self) -> usize {
        self.state.lock().unwrap().billed.len()
    }

    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }

    fn serve(&self, stream: &TcpStream) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(POLL)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while !self.stop.load(Ordering::SeqCst) {
            match reader.fill_buf() {
                Ok([]) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            if self.answer(&mut reader, stream).is_none() {
                return;
            }
            stream.set_read_timeout(Some(POLL)).unwrap();
        }
    }

    fn answer(&self, reader: &mut BufReader<TcpStream>, mut stream: &TcpStream) -> Option<()> {
        let mut length = 0;
        let mut key = String::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => value.trim().clone_into(&mut key),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let events: Value = serde_json::from_slice(&body).expect("a body that is JSON");
        let events = events["events"].as_array().expect("events").clone();
        let script = self.judge(&events, body.len(), key);
        let (status, headers, body) = match script {
            Script::Take { status, headers, body } => {
                self.take(&events);
                (status, headers, body)
            }
            Script::Answer { status, headers, body } => (status, headers, body),
            Script::ResetAfterCommit => {
                self.take(&events);
                return None;
            }
            Script::Reset => return None,
            Script::Hang => {
                stream.set_read_timeout(Some(POLL)).unwrap();
                while !self.stop.load(Ordering::SeqCst) && reader.fill_buf().is_err() {}
                return None;
            }
        };
        let skew = self.state.lock().unwrap().skew_seconds;
        let now = SystemTime::now();
        let shift = Duration::from_secs(skew.unsigned_abs());
        let date = httpdate::fmt_http_date(if skew < 0 { now - shift } else { now + shift });
        let response = format!(
            "HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(response.as_bytes()).ok()
    }

    fn judge(&self, events: &[Value], bytes: usize, key: String) -> Script {
        let mut state = self.state.lock().unwrap();
        state.requests.push(events.len());
        state.times.push(Instant::now());
        state.keys.push(key);
        if let Some(script) = state.script.pop_front() {
            return script;
        }
        let ids: std::collections::BTreeSet<_> =
            events.iter().map(|event| event["event_id"].as_str().expect("an id")).collect();
        if ids.len() < events.len() || events.is_empty() || events.len() > 1000 {
            return error(400);
        }
        let unknown = state.unknown_customer.clone();
        if unknown.is_some_and(|name| events.iter().any(|event| event["customer_id"] == name)) {
            return error(400);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let now = i64::try_from(now).unwrap() + state.skew_seconds;
        for event in events {
            let stamp = event["timestamp"].as_str().expect("a timestamp");
            let stamp = stamp.parse::<jiff::Timestamp>().expect("RFC 3339").as_second();
            if stamp < now - 3600 || stamp > now + 300 {
                return error(400);
            }
        }
        if state.max_body.is_some_and(|max| bytes > max) {
            return error(413);
        }
        let new = events.iter().filter(|event| {
            let id = event["event_id"].as_str().expect("an id");
            !state.billed.contains_key(id)
        });
        let body = json!({"ingested_count": new.count()}).to_string();
        Script::Take { status: 200, headers: "", body }
    }

    fn take(&self, events: &[Value]) {
        let mut state = self.state.lock().unwrap();
        for event in events {
            let id = event["event_id"].as_str().expect("an id").to_owned();
            state.billed.entry(id).or_insert_with(|| event.clone());
        }
    }
}

/// A client of the server with a spool of its own. On a busy machine an answer comes late, and one that
/// was not waited for is an attempt that may have been billed.
pub fn client(server: &Server, spool: &std::path::Path) -> Builder {
    Ingestion::builder("sk_test_canary")
        .event_name("api_call")
        .base_url(server.url())
        .spool_dir(spool)
        .linger(Duration::from_millis(50))
        .requests_per_minute(10_000_u32)
        .requests_per_second(1_000_u32)
        .request_timeout(PATIENT)
}

/// The alarms that a client told.
pub type Told = Arc<Mutex<Vec<AlarmKind>>>;

/// A client that writes down its alarms.
pub fn listening(builder: Builder) -> (Ingestion, Told) {
    let told = Told::default();
    let sink = told.clone();
    let builder = builder.on_alarm(move |alarm| sink.lock().unwrap().push(alarm.kind));
    (builder.build().unwrap(), told)
}

/// Waits until an alarm was told.
pub fn hears(told: &Told, kind: AlarmKind) {
    eventually(kind.as_str(), || told.lock().unwrap().contains(&kind));
}
