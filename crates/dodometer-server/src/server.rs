//! A listening server: takes connections in, and lets them go in an orderly way.
//!
//! Invariants: once [`Server::shutdown`] is called nothing listens on the address any more; when it
//! returns, no connection is left. Dropping a server ends it at once. The meter is not touched by
//! either, so that another server can carry on with it on the same address. There is a bound on how
//! many connections there are, and on how long each may wait for its client; past the first the
//! system keeps new ones waiting.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::http::Peer;
use crate::{Error, ErrorKind, Meter};

/// How long requests under way may take once a shutdown began.
const GRACE: Duration = Duration::from_secs(5);
/// How long a client may take to send a request's head, or to begin another request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to read any of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most connections at a time.
const MAX_CONNECTIONS: usize = 4096;
/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address that is listened on. Connections wait until a [`Meter`] is served there.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// Must be called within a tokio runtime.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |cause: std::io::Error| {
            Error::new(ErrorKind::Listen, format!("cannot listen on {address}")).because(cause)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Serves `meter` there.
    ///
    /// Must be called within a tokio runtime, which then carries the server.
    pub fn serve(self, meter: &Meter) -> Server {
        let Self { listener, address } = self;
        let (stop, stopping) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, meter.router(), stopping));
        Server { address, stop, accepting }
    }
}

/// A meter that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<usize>,
}

impl Server {
    /// Listens on `address` and serves `meter` there; port 0 takes a free one.
    ///
    /// Must be called within a tokio runtime, which then carries the server.
    pub async fn start(meter: &Meter, address: SocketAddr) -> Result<Self, Error> {
        Ok(Listener::bind(address).await?.serve(meter))
    }

    /// The address listened on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets requests under way finish for up to five seconds, and ends the rest, whose
    /// number it returns.
    pub async fn shutdown(mut self) -> usize {
        self.stop.send_replace(true);
        (&mut self.accepting).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the server ended badly");
            0
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The connections' tasks belong to this one and end with it.
        self.accepting.abort();
    }
}

/// Serves until it is stopped. Returns how many connections did not end by themselves then.
async fn accept(
    listener: TcpListener,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) -> usize {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, remote)) => {
                    connections.spawn(serve(stream, remote, router.clone(), stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken in");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    _ = tokio::time::timeout(GRACE, drained).await;
    let cut = connections.len();
    connections.shutdown().await;
    cut
}

async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    // Without it an answer may wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let cut = Arc::new(Notify::new());
    let peer = Peer { remote, local, stopping: stopping.clone(), cut: cut.clone() };
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let served = async {
        tokio::select! {
            ended = &mut connection => ended,
            () = stopped(&mut stopping) => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    let ended = tokio::select! {
        ended = served => Some(ended),
        () = cut.notified() => None,
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, %remote, "a connection ended early"),
        // Without a time to linger the system sends a reset.
        None => {
            let _ = connection.into_parts().io.into_inner().get_ref().set_zero_linger();
        }
    }
}

/// Returns once the server wants its connections to end.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}
