//! The clients that are compared: ours, and the bare HTTP client that ours is built on.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use dodo_ingestion::{Builder, Durability, Ingestion};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tempfile::TempDir;

use crate::event::{self, Customers, EVENT_NAME};

/// Long enough that no call becomes due by itself during a round.
pub(crate) const LONG: Duration = Duration::from_secs(300);
const KEY: &str = "Bearer sk_test_benchmark";

/// A client of ours with a spool of its own.
pub(crate) struct Ours {
    client: Ingestion,
    _dir: TempDir,
}

impl Deref for Ours {
    type Target = Ingestion;
    fn deref(&self) -> &Ingestion {
        &self.client
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // What is left is not wanted; without a server this times out, as it must.
        let _ = self.client.blocking_close(Duration::ZERO);
    }
}

impl Ours {
    /// A client with the pace of requests out of the way.
    pub(crate) fn open(base_url: &str, durability: Durability, dir: &Path) -> Result<Self> {
        Self::open_with(base_url, dir, |builder| builder.durability(durability))
    }

    pub(crate) fn open_with(
        base_url: &str,
        dir: &Path,
        more: impl FnOnce(Builder) -> Builder,
    ) -> Result<Self> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let dir = TempDir::with_prefix_in("dodo-ingestion-bench-", dir)?;
        let builder = Ingestion::builder("sk_test_benchmark")
            .base_url(base_url)
            .event_name(EVENT_NAME)
            .account(format!("bench-{}", OPENED.fetch_add(1, Ordering::Relaxed)))
            .spool_dir(dir.path())
            .linger(LONG)
            .request_timeout(LONG)
            .requests_per_minute(1_000_000u32)
            .requests_per_second(100_000u32);
        Ok(Self { client: more(builder).build()?, _dir: dir })
    }

    /// Accepts the calls of these numbers.
    pub(crate) fn accept(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        let customers = Customers::new();
        for number in numbers {
            self.track(event::call(&customers, number))?;
        }
        Ok(())
    }

    /// Fails unless exactly so many calls were accepted and none waits.
    pub(crate) fn check_all_billed(&self, calls: u64) -> Result<()> {
        let stats = self.stats();
        ensure!(
            stats.accepted == calls && stats.billed == calls,
            "{calls} calls should be accepted and billed: {stats:?}"
        );
        Ok(())
    }
}

/// The bare HTTP client, with the settings that ours gives it.
pub(crate) fn bare(idle_connections: usize) -> Result<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut authorization = HeaderValue::from_static(KEY);
    authorization.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, authorization);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .default_headers(headers)
        .user_agent("dodo-ingestion-benches")
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .timeout(LONG)
        .pool_max_idle_per_host(idle_connections)
        .tcp_nodelay(true)
        .no_proxy()
        .build()?)
}

/// Posts one body and reads the answer to its end.
pub(crate) async fn post(client: &reqwest::Client, url: &str, body: reqwest::Body) -> Result<()> {
    client.post(url).body(body).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

/// A runtime as the engine's: of this one thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A loopback port that nobody listens on. Below the range from which the system takes the ports of
/// outgoing connections, because a connection from a port to that same port would succeed.
pub(crate) fn dead_port() -> Result<u16> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    for port in (first..32_000).step_by(7) {
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port on the loopback interface")
}
