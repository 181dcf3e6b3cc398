//! The server of all comparisons: a child process that takes events over HTTP/1.1 as fast as it can,
//! answers as the billing API does, and counts exactly.
//!
//! It keeps the ids that it saw, so that a call which came twice cannot hide one that was lost.

use std::collections::HashSet;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::child::Talking;

/// What stands before an event's id in a body for the billing API.
pub(crate) const EVENT_ID: &str = r#""event_id":""#;

/// What the server has taken since it was last asked to forget.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) events: u64,
    /// Events with an id that no other had.
    pub(crate) distinct: u64,
    /// Of all bodies.
    pub(crate) bytes: u64,
    /// From the first request's arrival to the last answer.
    pub(crate) seconds: f64,
}

impl Counts {
    /// Fails unless exactly so many calls came, each once.
    pub(crate) fn check(&self, calls: u64) -> Result<()> {
        let Self { events, distinct, .. } = self;
        ensure!(
            *events == calls && *distinct == calls,
            "the server should have {calls} calls and has {events}, of which {distinct} are distinct"
        );
        Ok(())
    }

    pub(crate) fn calls_per_request(&self) -> f64 {
        self.events as f64 / self.requests as f64
    }

    pub(crate) fn bytes_per_call(&self) -> f64 {
        self.bytes as f64 / self.events as f64
    }
}

/// The server process, seen from the one that compares. Ends with it.
#[derive(Debug)]
pub(crate) struct Sink {
    child: Talking,
    port: u16,
}

impl Sink {
    /// On this port; on any free one if it is 0.
    pub(crate) fn start(port: u16) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--as", "sink", "--port", &port.to_string()]);
        let mut child = Talking::start(&mut command)?;
        let port = child.reply()?;
        Ok(Self { child, port })
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&mut self) -> Result<()> {
        self.know_by(EVENT_ID)
    }

    /// Forgets what came so far, and knows an event by another key from now on.
    pub(crate) fn know_by(&mut self, key: &str) -> Result<()> {
        self.ask(&format!("forget {key}")).map(drop)
    }

    /// Takes requests and answers none until [`Sink::release`].
    pub(crate) fn hold(&mut self) -> Result<()> {
        self.ask("hold").map(drop)
    }

    /// Answers again; returns what came while requests were held.
    pub(crate) fn release(&mut self) -> Result<Counts> {
        self.ask("release")
    }

    pub(crate) fn counts(&mut self) -> Result<Counts> {
        self.ask("count")
    }

    fn ask(&mut self, command: &str) -> Result<Counts> {
        self.child.tell(command)?;
        self.child.reply()
    }
}

#[derive(Debug)]
struct Taken {
    key: memmem::Finder<'static>,
    requests: u64,
    bytes: u64,
    /// One a line.
    ids: Vec<u8>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Taken {
    fn new(key: &str) -> Self {
        let key = memmem::Finder::new(key).into_owned();
        Self { key, requests: 0, bytes: 0, ids: Vec::new(), first: None, last: None }
    }

    fn counts(&self) -> Counts {
        let ids = || self.ids.split_inclusive(|byte| *byte == b'\n');
        let taken = self.first.zip(self.last);
        Counts {
            requests: self.requests,
            events: ids().count() as u64,
            distinct: ids().collect::<HashSet<_>>().len() as u64,
            bytes: self.bytes,
            seconds: taken.map_or(Duration::ZERO, |(first, last)| last - first).as_secs_f64(),
        }
    }
}

type Shared = Arc<Mutex<Taken>>;

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server process's own life.
pub(crate) fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = Shared::new(Mutex::new(Taken::new(EVENT_ID)));
    let (hold, held) = watch::channel(false);
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("cannot listen")?;
        println!("{}", listener.local_addr()?.port());
        let commands = taken.clone();
        std::thread::spawn(move || {
            let done = obey(&commands, &hold);
            std::process::exit(i32::from(done.is_err()));
        });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A connection that breaks is its client's to notice.
            tokio::spawn(answer_all(stream, taken.clone(), held.clone()));
        }
    })
}

/// Follows the commands of the process that compares, until it closes its end.
fn obey(taken: &Mutex<Taken>, hold: &watch::Sender<bool>) -> Result<()> {
    for command in std::io::stdin().lines() {
        let command = command?;
        let (verb, key) = command.split_once(' ').unwrap_or((&command, ""));
        match verb {
            "forget" => *lock(taken) = Taken::new(key),
            "hold" => hold.send_modify(|held| *held = true),
            "release" | "count" => {}
            other => bail!("unknown command {other:?}"),
        }
        let counts = lock(taken).counts();
        if verb == "release" {
            hold.send_modify(|held| *held = false);
        }
        println!("{}", serde_json::to_string(&counts)?);
    }
    Ok(())
}

async fn answer_all(
    mut stream: TcpStream,
    taken: Shared,
    mut held: watch::Receiver<bool>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(512 << 10);
    loop {
        let head = loop {
            if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let end = head + content_length(&buffer[..head])?;
        while buffer.len() < end {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the request ends early");
        }
        let events = lock(&taken).take(&buffer[head..end]);
        held.wait_for(|held| !*held).await?;
        let body = format!(r#"{{"ingested_count":{events}}}"#);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: {}\r\n\
             content-length: {}\r\n\r\n{body}",
            httpdate::fmt_http_date(SystemTime::now()),
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        lock(&taken).last = Some(Instant::now());
        buffer.drain(..end);
    }
}

impl Taken {
    /// Counts a request; returns how many events its body holds.
    fn take(&mut self, body: &[u8]) -> usize {
        self.first.get_or_insert_with(Instant::now);
        self.requests += 1;
        self.bytes += body.len() as u64;
        let mut events = 0;
        for at in self.key.find_iter(body) {
            let id = &body[at + self.key.needle().len()..];
            let length = memchr::memchr(b'"', id).unwrap_or(id.len());
            self.ids.extend_from_slice(&id[..length]);
            self.ids.push(b'\n');
            events += 1;
        }
        events
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    let length = std::str::from_utf8(head)?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.context("a request without a content-length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_their_ids() {
        let mut taken = Taken::new(EVENT_ID);
        let body = br#"{"events":[{"event_id":"a","x":1},{"event_id":"b"},{"event_id":"a"}]}"#;
        assert_eq!(taken.take(body), 3);
        let counts = taken.counts();
        assert_eq!((counts.requests, counts.events, counts.distinct), (1, 3, 2));
        assert!(counts.check(3).is_err());
    }

    #[test]
    fn a_content_length_is_found_in_any_case() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 42\r\n\r\n";
        assert_eq!(content_length(head).unwrap(), 42);
        assert!(content_length(b"GET / HTTP/1.1\r\n\r\n").is_err());
    }
}
