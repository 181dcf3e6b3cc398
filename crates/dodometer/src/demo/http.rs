//! A small HTTP client: it keeps connections open, and reads an answer to its end.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The client. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Sends a request, and returns once the last byte of the answer is there.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let what = format!("{} {}", request.method(), request.uri());
        let exchange = async {
            let response = self.0.request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: head.status, body })
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer.with_context(|| format!("{what} failed")),
            Err(_) => anyhow::bail!("{what} took longer than {TIMEOUT:?}"),
        }
    }
}

/// What a server said.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The JSON of an answer that is a success.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        let shown = || String::from_utf8_lossy(&self.body);
        ensure!(self.status.is_success(), "the meter answered {}: {}", self.status, shown());
        serde_json::from_slice(&self.body)
            .with_context(|| format!("the meter answered something else: {}", shown()))
    }
}
