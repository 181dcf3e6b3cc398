//! A billing API that misbehaves below HTTP: a script is handed the raw connection. With TLS, and
//! with a ledger that sees whether an id ever came with other data.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dodo_ingestion::{AlarmKind, ApiCall, Builder, Ingestion};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

#[allow(unused_imports, reason = "each test file uses its own part")]
pub use waiting::{PATIENT, UNTIL_HELD, eventually};

/// A connection to misbehave on.
pub struct Wire<'a> {
    stream: &'a mut dyn Duplex,
    tcp: &'a TcpStream,
    /// How many events the request held.
    pub events: usize,
    /// Its head, as it came.
    pub head: String,
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

impl Wire<'_> {
    /// False when the other side is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// The same again and again, until the other side is gone.
    pub fn send_for_ever(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) {
        while self.send(&bytes) {
            std::thread::sleep(pause);
        }
    }

    /// The body of an answer that bills the request.
    pub fn acknowledgement(&self) -> String {
        format!("{{\"ingested_count\":{}}}", self.events)
    }
}

/// What the server does with one request that it has read whole. The connection is closed after it.
pub struct Act {
    commit: bool,
    then: Box<dyn FnOnce(&mut Wire<'_>) + Send>,
}

/// The events are not taken.
pub fn refuse(then: impl FnOnce(&mut Wire<'_>) + Send + 'static) -> Act {
    Act { commit: false, then: Box::new(then) }
}

/// The events are taken.
pub fn commit(then: impl FnOnce(&mut Wire<'_>) + Send + 'static) -> Act {
    Act { commit: true, then: Box::new(then) }
}

/// The connection is reset.
pub fn reset(wire: &mut Wire<'_>) {
    rustix::net::sockopt::set_socket_linger(wire.tcp, Some(Duration::ZERO)).unwrap();
}

/// Nothing is said until the other side gives up.
pub fn hang(wire: &mut Wire<'_>) {
    while wire.stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
}

/// Requests that are answered as they should be.
pub fn well() -> Act {
    commit(|wire| {
        let body = wire.acknowledgement();
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
        wire.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
    })
}

/// Nothing is taken, and this is said.
pub fn say(bytes: impl AsRef<[u8]> + Send + 'static) -> Act {
    refuse(move |wire| _ = wire.send(bytes))
}

/// What the server has seen.
#[derive(Default)]
pub struct Ledger {
    /// The first event of each id, without its timestamp.
    pub billed: BTreeMap<String, Value>,
    /// Ids that came again with other data.
    pub altered: BTreeSet<String>,
    pub connections: usize,
    /// The heads of the requests.
    pub heads: Vec<String>,
    /// Every byte that arrived, up to a bound: with TLS, as it was on the wire.
    pub wire: Vec<u8>,
    script: VecDeque<Act>,
    /// What is done when the script is over.
    always: Option<fn() -> Act>,
}

#[derive(Clone)]
pub struct Chaos {
    pub ledger: Arc<Mutex<Ledger>>,
    pub port: u16,
    tls: Option<Arc<ServerConfig>>,
}

impl Chaos {
    pub fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { ledger: Arc::default(), port, tls };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        server
    }

    /// With a script that is followed, one act a request, before all is well.
    pub fn with(acts: impl IntoIterator<Item = Act>) -> Self {
        let server = Self::start(None);
        server.ledger.lock().unwrap().script.extend(acts);
        server
    }

    /// Whatever is asked, this is done.
    pub fn always(act: fn() -> Act) -> Self {
        let server = Self::start(None);
        server.behave(Some(act));
        server
    }

    pub fn behave(&self, always: Option<fn() -> Act>) {
        self.ledger.lock().unwrap().always = always;
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.port)
    }

    pub fn billed(&self) -> usize {
        self.ledger.lock().unwrap().billed.len()
    }

    pub fn requests(&self) -> usize {
        self.ledger.lock().unwrap().heads.len()
    }

    /// Whether the bytes ever arrived, in the clear.
    pub fn saw(&self, bytes: &str) -> bool {
        let ledger = self.ledger.lock().unwrap();
        ledger.wire.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    }

    /// Fails unless these ids were billed, no other, and none with data that changed on the way.
    pub fn assert_billed(&self, what: &str, ids: &[String]) {
        let ledger = self.ledger.lock().unwrap();
        let billed: Vec<&String> = ledger.billed.keys().collect();
        let mut expected: Vec<&String> = ids.iter().collect();
        expected.sort_unstable();
        assert_eq!(billed, expected, "{what}");
        assert!(ledger.altered.is_empty(), "{what}: {:?}", ledger.altered);
    }

    fn serve(&self, tcp: &TcpStream) {
        self.ledger.lock().unwrap().connections += 1;
        tcp.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let tap = Tap { tcp: tcp.try_clone().unwrap(), ledger: self.ledger.clone() };
        match &self.tls {
            None => while self.answer(&mut { &tap }, tcp) == Some(true) {},
            Some(config) => {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, &tap);
                while self.answer(&mut stream, tcp) == Some(true) {}
                stream.conn.send_close_notify();
                _ = stream.flush();
            }
        }
    }

    /// Reads a request and does what the script says. `Some(true)` when another may follow.
    fn answer(&self, stream: &mut dyn Duplex, tcp: &TcpStream) -> Option<bool> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
            if head.len() > 64 << 10 {
                return None;
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if let Some(id) = head.strip_prefix("GET /events/") {
            return self.look_up(id.split(' ').next()?, stream);
        }
        let lower = head.to_lowercase();
        let (_, length) = lower.split_once("content-length: ")?;
        let mut body = vec![0; length.split("\r\n").next()?.parse().ok()?];
        stream.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).expect("a body that is JSON");
        let events = body["events"].as_array().expect("events");
        let act = {
            let mut ledger = self.ledger.lock().unwrap();
            ledger.heads.push(head.clone());
            let act = ledger.script.pop_front();
            let act = act.or_else(|| ledger.always.map(|always| always()));
            if act.as_ref().is_none_or(|act| act.commit) {
                ledger.take(events);
            }
            act
        };
        let mut wire = Wire { stream, tcp, events: events.len(), head };
        if let Some(act) = act {
            (act.then)(&mut wire);
            return Some(false);
        }
        let body = wire.acknowledgement();
        Some(wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())))
    }

    /// Says whether an event is known.
    fn look_up(&self, id: &str, stream: &mut dyn Duplex) -> Option<bool> {
        let event = self.ledger.lock().unwrap().billed.get(id).cloned();
        let (status, body) = match event {
            Some(event) => (200, event.to_string()),
            None => (404, r#"{"code":"NOT_FOUND","message":"no such event"}"#.to_owned()),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).ok()?;
        Some(true)
    }
}

impl Ledger {
    fn take(&mut self, events: &[Value]) {
        for event in events {
            let mut event = event.clone();
            event.as_object_mut().expect("an event").remove("timestamp").expect("a timestamp");
            let id = event["event_id"].as_str().expect("an id").to_owned();
            match self.billed.get(&id) {
                Some(first) if *first != event => _ = self.altered.insert(id),
                Some(_) => {}
                None => _ = self.billed.insert(id, event),
            }
        }
    }
}

/// Notes what arrives on a connection.
struct Tap {
    tcp: TcpStream,
    ledger: Arc<Mutex<Ledger>>,
}

impl Read for &Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.tcp).read(buffer)?;
        let mut ledger = self.ledger.lock().unwrap();
        if ledger.wire.len() < 1 << 20 {
            ledger.wire.extend_from_slice(&buffer[..read]);
        }
        Ok(read)
    }
}

impl Write for &Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.tcp).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.tcp).flush()
    }
}

/// A certificate authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server with a certificate for this name that is valid up to a year.
    pub fn vouches_for(&self, name: &str, until: i32) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, until).signed_by(&key, &self.0).unwrap();
        server_config(&certificate, &key)
    }
}

/// A server that vouches for itself.
pub fn self_signed(name: &str) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name, 2100).self_signed(&key).unwrap();
    server_config(&certificate, &key)
}

fn params(name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

fn server_config(certificate: &rcgen::Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

/// A client with a spool of its own and little patience.
pub fn client(url: &str, spool: &Path) -> Builder {
    Ingestion::builder(KEY)
        .event_name("api_call")
        .account("chaos")
        .base_url(url)
        .spool_dir(spool)
        .linger(Duration::from_millis(20))
        .requests_per_minute(10_000_u32)
        .requests_per_second(1_000_u32)
        .request_timeout(Duration::from_secs(2))
}

/// Tracks calls, and returns their ids.
pub fn track(ingestion: &Ingestion, calls: usize) -> Vec<String> {
    let id = |i| format!("call-{i}");
    let ids: Vec<String> = (0..calls).map(id).collect();
    for id in &ids {
        let call = ApiCall::new("cus_1").endpoint("/v1/x").event_id(id);
        ingestion.track_api_call(call).unwrap();
    }
    ids
}

/// A client that writes down its alarms.
pub fn listening(builder: Builder) -> (Ingestion, Arc<Mutex<Vec<AlarmKind>>>) {
    let alarms: Arc<Mutex<Vec<AlarmKind>>> = Arc::default();
    let sink = alarms.clone();
    let builder = builder.on_alarm(move |alarm| sink.lock().unwrap().push(alarm.kind));
    (builder.build().unwrap(), alarms)
}

pub const KEY: &str = "sk_live_QpN4kanarie7ZtWv";

/// A gzip member that holds the text as it is.
pub fn gzip_stored(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut bytes = GZIP_HEAD.to_vec();
    bytes.push(1); // the last block, stored
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(crc32(text.as_bytes()).to_le_bytes());
    bytes.extend(u32::from(length).to_le_bytes());
    bytes
}

pub const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// The head of a deflate block in which each zero byte that follows stands for 1032 zeros.
pub const DEFLATE_BOMB: [u8; 14] =
    [0xed, 0xc1, 1, 1, 0, 0, 0, 0x82, 0x20, 0xff, 0xaf, 0x6e, 0x48, 0x40];

/// A brotli stream that holds the text as it is.
pub fn brotli_stored(text: &str) -> Vec<u8> {
    // A window of 16 bits; not the last block; its length less one in 16 bits; stored.
    let head = ((text.len() as u32 - 1) << 4) | 1 << 20;
    let mut bytes = head.to_le_bytes()[..3].to_vec();
    bytes.extend(text.as_bytes());
    bytes.push(3); // the last block, empty
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// Header lines, each with a name of its own.
pub fn header_lines(from: usize, count: usize) -> String {
    (from..from + count).fold(String::new(), |mut lines, i| {
        write!(lines, "x-{i}: {}\r\n", "v".repeat(50)).unwrap();
        lines
    })
}
