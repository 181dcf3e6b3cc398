//! Being told to stop: Ctrl-C, SIGTERM where there is one, and the end of whoever holds the other end of
//! standard input.

use anyhow::Context;
use tokio::sync::oneshot;

#[cfg(not(unix))]
type Requests = tokio::signal::windows::CtrlC;
// Not tokio's signals: cargo would give its signal driver to the client library in every build of the workspace, and
// with it no runtime can be built in a process whose descriptors were closed and used again.
#[cfg(unix)]
type Requests = tokio::sync::mpsc::UnboundedReceiver<()>;

/// Hears of every request to stop since it began to listen.
pub(crate) struct Stop(Requests);

impl Stop {
    /// Begins to listen; from now on the signals no longer end the process by themselves. Must be
    /// called within a tokio runtime.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        requests().context("cannot listen for Ctrl-C").map(Self)
    }

    /// Ends with the next request to stop.
    pub(crate) async fn asked(&mut self) {
        self.0.recv().await;
    }
}

/// Ends when standard input is closed, as it is with the process that started this one.
pub(crate) async fn input_closed() {
    let (closed, heard) = oneshot::channel();
    // Not a task's: the end of the runtime would wait for its read.
    std::thread::spawn(move || {
        _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        _ = closed.send(());
    });
    _ = heard.await;
}

/// Reads a line of standard input, and says whether there was one before that was closed.
pub(crate) async fn input_line() -> bool {
    let (read, heard) = oneshot::channel();
    // As above.
    std::thread::spawn(move || {
        let length = std::io::stdin().read_line(&mut String::new());
        _ = read.send(length.is_ok_and(|length| length > 0));
    });
    heard.await.unwrap_or(false)
}

#[cfg(not(unix))]
fn requests() -> std::io::Result<Requests> {
    tokio::signal::windows::ctrl_c()
}

#[cfg(unix)]
fn requests() -> std::io::Result<Requests> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (asked, requests) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // Nobody listens any more only when the process ends anyway.
            let _ = asked.send(());
        }
    });
    Ok(requests)
}
