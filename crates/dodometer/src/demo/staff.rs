//! Who serves the metered API: this process, or workers of their own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use dodo_ingestion::Ingestion;
use dodometer_server::Meter;

use super::FLUSH_TIMEOUT;
use super::api::Api;
use super::report::{Accepted, Account, Staffing};
use super::traffic::{Counts, Targets};
use super::workers::Workers;

/// Who serves the API. It can be opened again after it was closed.
pub(crate) enum Staff {
    /// This process, with its one client.
    Here { ingestion: Ingestion, api: Option<Api>, port: Option<u16> },
    /// Processes with a client each.
    Workers(Workers),
}

impl Staff {
    pub(crate) fn here(ingestion: Ingestion) -> Self {
        Self::Here { ingestion, api: None, port: None }
    }

    /// Begins to serve, and says where.
    pub(crate) async fn open(&mut self, targets: &Targets) -> anyhow::Result<()> {
        match self {
            Self::Here { ingestion, api, port } => {
                let started = Api::start(ingestion.clone(), *port).await?;
                *port = Some(started.address().port());
                targets.set(vec![started.address()]);
                *api = Some(started);
                Ok(())
            }
            Self::Workers(workers) => workers.start(targets).await,
        }
    }

    /// Serves no more, and returns once everything is billed, or fails where that takes too long.
    pub(crate) async fn close(&mut self, targets: &Targets) -> anyhow::Result<()> {
        match self {
            Self::Here { ingestion, api, .. } => {
                targets.set(Vec::new());
                if let Some(api) = api.take() {
                    api.stop().await?;
                }
                Ok(ingestion.flush(FLUSH_TIMEOUT).await?)
            }
            Self::Workers(workers) => workers.settle(targets).await,
        }
    }

    /// Lets go of the spool.
    pub(crate) async fn leave(self) -> anyhow::Result<()> {
        match self {
            Self::Here { ingestion, .. } => {
                ingestion.close(Duration::ZERO).await.context("the client did not close")
            }
            Self::Workers(workers) => workers.leave(),
        }
    }

    /// What became of the calls, `meter` and `counts` being those of the demo.
    pub(crate) fn account(&self, meter: &Meter, counts: &Counts) -> anyhow::Result<Account> {
        Ok(match self {
            Self::Here { ingestion, .. } => {
                let stats = ingestion.stats();
                Account {
                    staffing: None,
                    accepted: Accepted::Exactly { accepted: stats.accepted },
                    dead_lettered: stats.dead_lettered,
                    spooled: Some(stats.spooled),
                    requests: stats.requests,
                }
            }
            Self::Workers(workers) => Account {
                staffing: Some(Staffing { workers: workers.number(), kills: workers.kills() }),
                accepted: Accepted::between(counts.answered(), counts.sent()),
                dead_lettered: workers.dead_lettered()?,
                spooled: None,
                requests: meter.bill().totals.requests,
            },
        })
    }
}

/// The address of one server, or those of several.
pub(crate) fn listed(addresses: &[SocketAddr]) -> String {
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}/")).collect();
    urls.join(" ")
}
