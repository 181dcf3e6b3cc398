//! Requests to a route that answers "a user", over connections that stay open: each asks again as soon as it has a
//! whole answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const REQUEST: &[u8] = b"GET /v1/users/7 HTTP/1.1\r\nhost: bench\r\nx-customer-id: cus_1\r\n\r\n";
/// How every answer ends.
const END: &[u8] = b"\r\n\r\na user";
/// Requests of each connection that are not measured.
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
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            ask_over(stream, requests / connections).await
        });
    }
    let mut latencies = Vec::new();
    while let Some(asked) = asking.join_next().await {
        latencies.append(&mut asked??);
    }
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no request was made");
    let at =
        |percentile: usize| latencies[(latencies.len() - 1) * percentile / 100].as_secs_f64() * 1e6;
    Ok(PERCENTILES.map(at))
}

/// Asks over one connection, one request after the other.
async fn ask_over(mut stream: TcpStream, requests: u64) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(requests as usize);
    let mut answer = [0; 512];
    for number in 0..WARM_UP + requests {
        let start = Instant::now();
        stream.write_all(REQUEST).await?;
        let mut length = 0;
        while !answer[..length].ends_with(END) {
            let read = stream.read(&mut answer[length..]).await?;
            ensure!(read > 0, "the server closed, or answered more than was expected");
            length += read;
        }
        if number >= WARM_UP {
            latencies.push(start.elapsed());
        }
    }
    Ok(latencies)
}
