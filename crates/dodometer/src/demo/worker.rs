//! One worker: the metered API as a process of its own, as an application server would run several.
//!
//! It is started by [`Workers`](super::workers::Workers). Its standard output says where it listens, in the
//! first line, and then each alarm of its client. A line on its standard input has it close; the end of that
//! is what it sees of the demo's death, with which the meter is gone, and it ends at once.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::sync::mpsc;

use super::api::Api;
use super::{FLUSH_TIMEOUT, client};
use crate::file_size;
use crate::stop::{Stop, input_closed, input_line};

const NO_DEMO: &str = "the demo is gone";

/// One worker of the demo.
#[derive(Args)]
pub(crate) struct DemoWorker {
    /// Where the meter is.
    #[arg(long)]
    meter: SocketAddr,

    /// The directory that the workers spool under.
    #[arg(long)]
    spool: PathBuf,
}

impl DemoWorker {
    /// Serves until it is asked to close, and then until every call is billed.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        file_size::survive_limit();
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("no runtime could be started")?
            .block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        // Ctrl-C goes to every process of a terminal. It is for the demo to end its workers.
        let _heard_by_nobody = Stop::listen()?;
        let (notes, mut alarms) = mpsc::unbounded_channel();
        let ingestion = client(self.meter, &self.spool, notes)?;
        let api = Api::start(ingestion.clone(), None).await?;
        say(&api.address().to_string())?;
        let mut asked = std::pin::pin!(input_line());
        loop {
            tokio::select! {
                Some(alarm) = alarms.recv() => say(&alarm)?,
                asked = &mut asked => {
                    ensure!(asked, NO_DEMO);
                    break;
                }
            }
        }
        api.stop().await?;
        tokio::select! {
            closed = ingestion.close(FLUSH_TIMEOUT) => closed.context("the client did not close"),
            () = input_closed() => bail!(NO_DEMO),
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to standard output")
}
