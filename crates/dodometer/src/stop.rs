//! Being told to stop: Ctrl-C, and SIGTERM where there is one.

use anyhow::Context;

/// Hears of every request to stop since it began to listen.
pub(crate) struct Stop {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(not(unix))]
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(unix)]
impl Stop {
    /// Begins to listen; from now on the signals no longer end the process by themselves. Must be
    /// called within a tokio runtime.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    /// Ends with the next request to stop.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Stop {
    /// Begins to listen; from now on Ctrl-C no longer ends the process by itself. Must be called
    /// within a tokio runtime.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let interrupt = tokio::signal::windows::ctrl_c().context("cannot listen for Ctrl-C")?;
        Ok(Self { interrupt })
    }

    /// Ends with the next request to stop.
    pub(crate) async fn asked(&mut self) {
        self.interrupt.recv().await;
    }
}
