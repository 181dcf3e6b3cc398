//! The load: real HTTP requests, at a steady rate, over several connections that stay open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::Full;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::customers::{self, KEY_HEADER};
use super::http::Http;

/// How many requests may be under way at once.
const CONNECTIONS: usize = 32;

/// How long to wait where nobody serves.
const NOBODY_PAUSE: Duration = Duration::from_millis(10);

/// Who serves the API at the moment, each as likely as the others to be called. Clones are one list.
#[derive(Clone, Default)]
pub(crate) struct Targets(Arc<RwLock<Vec<SocketAddr>>>);

impl Targets {
    pub(crate) fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    pub(crate) fn all(&self) -> Vec<SocketAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn any(&self) -> Option<SocketAddr> {
        fastrand::choice(&*self.0.read().unwrap_or_else(PoisonError::into_inner)).copied()
    }
}

/// What drives the API. Clones count together.
#[derive(Clone)]
pub(crate) struct Traffic {
    http: Http,
    targets: Targets,
    /// Becomes true when the demo is told to stop.
    ending: watch::Receiver<bool>,
    counts: Arc<Counts>,
}

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    #[cfg(test)]
    pub(crate) fn of(answered: u64, failed: u64) -> Self {
        Self { answered: answered.into(), failed: failed.into() }
    }

    /// Requests answered to the last byte, whatever the status.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// All requests: also those without a whole answer, which were served or were not.
    pub(crate) fn sent(&self) -> u64 {
        self.answered() + self.failed.load(Ordering::Relaxed)
    }
}

/// When requests start: one after the other, `rate` in a second.
struct Schedule {
    start: Instant,
    end: Option<Instant>,
    rate: u32,
    next: AtomicU64,
}

impl Schedule {
    fn turn(&self) -> Option<Instant> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) as f64;
        let at = self.start + Duration::from_secs_f64(turn / f64::from(self.rate));
        let over = |end| at >= end || Instant::now() >= end;
        (!self.end.is_some_and(over)).then_some(at)
    }
}

impl Traffic {
    pub(crate) fn new(http: Http, targets: Targets, ending: watch::Receiver<bool>) -> Self {
        Self { http, targets, ending, counts: Arc::default() }
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Makes `rate` requests a second for so long, or until the demo ends; a machine that cannot
    /// keep up makes fewer. Returns when all are answered.
    pub(crate) async fn run(&self, rate: u32, length: Option<Duration>) {
        let start = Instant::now();
        let end = length.map(|length| start + length);
        let schedule = Arc::new(Schedule { start, end, rate, next: AtomicU64::new(0) });
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            connections.spawn(self.clone().connection(schedule.clone()));
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(mut self, schedule: Arc<Schedule>) {
        while let Some(at) = schedule.turn() {
            tokio::select! {
                () = sleep_until(at) => {}
                _ = self.ending.wait_for(|ending| *ending) => return,
            }
            let Some(api) = self.targets.any() else {
                sleep(NOBODY_PAUSE).await;
                continue;
            };
            let outcome = match request(api) {
                Ok(request) => self.http.send(request).await,
                Err(error) => Err(error.into()),
            };
            let counter = match outcome {
                Ok(_) => &self.counts.answered,
                Err(error) => {
                    tracing::info!("{error:#}");
                    &self.counts.failed
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request of any customer to any route.
fn request(api: SocketAddr) -> Result<Request<Full<Bytes>>, axum::http::Error> {
    let (method, path) = match fastrand::u8(..20) {
        0..8 => ("GET", format!("/v1/users/{}", fastrand::u32(1..10_000))),
        8..13 => ("GET", format!("/v1/search?q={}", fastrand::alphabetic())),
        13..16 => ("POST", "/v1/orders".to_owned()),
        16..18 => ("GET", format!("/v1/reports/{}", fastrand::u16(2020..2027))),
        _ => ("GET", "/v1/flaky".to_owned()),
    };
    Request::builder()
        .method(method)
        .uri(format!("http://{api}{path}"))
        .header(KEY_HEADER, customers::any().key)
        .body(Full::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_evenly_spaced_and_end() {
        let start = Instant::now() + Duration::from_secs(3600);
        let end = Some(start + Duration::from_secs(1));
        let schedule = Schedule { start, end, rate: 4, next: AtomicU64::new(0) };
        let turns: Vec<_> = std::iter::from_fn(|| schedule.turn()).map(|at| at - start).collect();
        assert_eq!(turns, [0, 250, 500, 750].map(Duration::from_millis));
    }

    #[test]
    fn every_request_carries_the_key_of_a_customer() {
        for _ in 0..1000 {
            let request = request(([127, 0, 0, 1], 80).into()).unwrap();
            assert!(customers::of(request.headers()).is_some());
        }
    }
}
