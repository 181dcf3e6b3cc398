//! The outage: the meter goes away for a while, and comes back at the same address.

use std::time::Duration;

use dodometer_server::{Meter, Server};
use tokio::sync::{mpsc, watch};

/// When the meter is away.
pub(crate) struct Outage {
    pub(crate) after: Duration,
    pub(crate) length: Duration,
}

impl Outage {
    /// In the middle of a load of this length; one as long as the load begins at its quarter.
    pub(crate) fn amid(load: Duration, length: Duration) -> Self {
        Self { after: (load.saturating_sub(length) / 2).max(load / 4), length }
    }

    /// Lets it happen, and returns the server that carries on; sooner when the demo is ending.
    pub(crate) async fn strike(
        self,
        meter: &Meter,
        server: Server,
        mut ending: watch::Receiver<bool>,
        notes: &mpsc::UnboundedSender<String>,
    ) -> Result<Server, dodometer_server::Error> {
        let address = server.address();
        if pause(self.after, &mut ending).await {
            return Ok(server);
        }
        // Nobody listens to the notes only when the demo is over.
        let _ = notes.send(format!("the meter goes down for {:?}", self.length));
        server.shutdown().await;
        pause(self.length, &mut ending).await;
        let server = Server::start(meter, address).await?;
        let _ = notes.send("the meter is back".to_owned());
        Ok(server)
    }
}

/// Waits; returns early, and true, when the demo is ending.
pub(crate) async fn pause(length: Duration, ending: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(length) => false,
        _ = ending.wait_for(|ending| *ending) => true,
    }
}
