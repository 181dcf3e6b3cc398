//! Requests to a route that answers "a user", over connections that stay open: each asks again as soon as it has a
//! whole answer, or after a pause.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
            let mut connection = Connection::open(address).await?;
            connection.ask(WARM_UP, Duration::ZERO).await?;
            connection.ask(requests / connections, Duration::ZERO).await
        });
    }
    let mut latencies = Vec::new();
    while let Some(asked) = asking.join_next().await {
        latencies.append(&mut asked??);
    }
    percentiles(latencies)
}

pub(crate) fn percentiles(mut latencies: Vec<Duration>) -> Result<Latency> {
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no request was made");
    let at =
        |percentile: usize| latencies[(latencies.len() - 1) * percentile / 100].as_secs_f64() * 1e6;
    Ok(PERCENTILES.map(at))
}

/// A connection over which one request follows the other.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Asks so often, each time after such a pause; how long the answers took.
    pub(crate) async fn ask(&mut self, requests: u64, pause: Duration) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        let mut answer = [0; 512];
        for _ in 0..requests {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let start = Instant::now();
            self.stream.write_all(REQUEST).await?;
            let mut length = 0;
            while !answer[..length].ends_with(END) {
                let read = self.stream.read(&mut answer[length..]).await?;
                ensure!(read > 0, "the server closed, or answered more than was expected");
                length += read;
            }
            latencies.push(start.elapsed());
        }
        Ok(latencies)
    }
}
