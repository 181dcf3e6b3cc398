//! Requests to a route that answers "a user", over connections that stay open: each asks again as soon as it has a
//! whole answer, or after a pause.
//!
//! A server is asked over one connection by a client that never sleeps: who does is woken by the server, on whose
//! account that goes, and it takes the more the longer the sleep was. A server that is a little slower would be charged
//! with its client's sleep, too.

use std::hint::spin_loop;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

const REQUEST: &[u8] = b"GET /v1/users/7 HTTP/1.1\r\nhost: bench\r\nx-customer-id: cus_1\r\n\r\n";
/// How every answer ends.
const END: &[u8] = b"\r\n\r\na user";
/// Requests of each connection that are not measured, where the server is compiled already.
const WARM_UP: u64 = 200;

pub(crate) const PERCENTILES: [usize; 2] = [50, 99];
/// The percentiles of a round, in microseconds.
pub(crate) type Latency = [f64; PERCENTILES.len()];

/// How many requests are made where so many are measured.
pub(crate) fn made(connections: u64, requests: u64) -> u64 {
    connections * (requests / connections + WARM_UP)
}

/// Asks so often.
pub(crate) async fn ask(address: SocketAddr, connections: u64, requests: u64) -> Result<Latency> {
    let mut asking = JoinSet::new();
    for _ in 0..connections {
        asking.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut latencies = Vec::new();
            for _ in 0..WARM_UP + requests / connections {
                latencies.push(ask_once(&mut stream).await?);
            }
            anyhow::Ok(latencies.split_off(WARM_UP as usize))
        });
    }
    let mut latencies = Vec::new();
    while let Some(asked) = asking.join_next().await {
        latencies.append(&mut asked??);
    }
    percentiles(latencies)
}

async fn ask_once(stream: &mut tokio::net::TcpStream) -> Result<Duration> {
    let start = Instant::now();
    stream.write_all(REQUEST).await?;
    let mut answer = Answer::default();
    while !answer.is_whole() {
        let read = stream.read(answer.room()).await?;
        answer.has_more(read)?;
    }
    Ok(start.elapsed())
}

pub(crate) fn percentiles(mut latencies: Vec<Duration>) -> Result<Latency> {
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no request was made");
    let at =
        |percentile: usize| latencies[(latencies.len() - 1) * percentile / 100].as_secs_f64() * 1e6;
    Ok(PERCENTILES.map(at))
}

/// What was read of an answer.
struct Answer {
    bytes: [u8; 512],
    length: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self { bytes: [0; 512], length: 0 }
    }
}

impl Answer {
    fn is_whole(&self) -> bool {
        self.bytes[..self.length].ends_with(END)
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    fn has_more(&mut self, read: usize) -> Result<()> {
        ensure!(read > 0, "the server closed, or answered more than was expected");
        self.length += read;
        Ok(())
    }
}

/// A connection over which one request follows the other, of a client that never sleeps.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream })
    }

    /// Asks so often, each time after such a pause; how long the answers took.
    pub(crate) fn ask(&mut self, requests: u64, pause: Duration) -> Result<Vec<Duration>> {
        (0..requests)
            .map(|_| {
                let paused = Instant::now();
                while paused.elapsed() < pause {
                    spin_loop();
                }
                self.ask_once()
            })
            .collect()
    }

    fn ask_once(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.stream.write_all(REQUEST)?;
        let mut answer = Answer::default();
        while !answer.is_whole() {
            match self.stream.read(answer.room()) {
                Ok(read) => answer.has_more(read)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(start.elapsed())
    }
}
