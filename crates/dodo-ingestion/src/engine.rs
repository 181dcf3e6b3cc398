//! The engine: one thread a process, with its own single-threaded runtime, on which one task serves
//! each namespace.
//!
//! The task of a namespace tries to be its one sender: the holder of `sender.lock`. The sender
//! drains every spool of the namespace, of living and dead processes alike, by carrying out what
//! [`Delivery`](crate::delivery::Delivery) asks for. Everyone else watches the cursor of its own
//! spool while somebody waits for it.
//!
//! This is the only module that starts a thread.

mod records;
mod registry;
mod sender;
mod task;

pub(crate) use registry::open;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::alarm::AlarmKind;
use crate::clock::{Clock as _, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use crate::spool::Namespace;

const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A namespace to be served.
struct Job {
    shared: Arc<Shared>,
    namespace: Namespace,
}

/// Hands a namespace to the engine, starting its thread if need be.
fn serve(job: Job) -> Result<()> {
    static ENGINE: Mutex<Option<UnboundedSender<Job>>> = Mutex::new(None);
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let job = match engine.as_ref() {
        Some(jobs) => match jobs.send(job) {
            Ok(()) => return Ok(()),
            Err(unsent) => unsent.0,
        },
        None => job,
    };
    let jobs = start_thread().map_err(|error| {
        Error::new(ErrorKind::Storage, "the engine's thread cannot be started").with_source(error)
    })?;
    jobs.send(job).map_err(|_| Error::closed())?;
    *engine = Some(jobs);
    Ok(())
}

/// Runs a namespace's task, and begins it anew should it panic: everything it knows is on disk.
async fn supervise(Job { shared, namespace }: Job) {
    while tokio::task::spawn_local(task::run(shared.clone(), namespace.clone())).await.is_err() {
        let message = "delivery stopped unexpectedly and begins anew; please report this";
        shared.alarms.raise(AlarmKind::Storage, message, SystemClock.now().mono);
        tokio::time::sleep(RESTART_PAUSE).await;
    }
    shared.settlement.end();
}

fn start_thread() -> std::io::Result<UnboundedSender<Job>> {
    let (sender, mut jobs) = unbounded_channel::<Job>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve_all = move || {
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, async move {
            while let Some(job) = jobs.recv().await {
                tokio::task::spawn_local(supervise(job));
            }
        });
    };
    std::thread::Builder::new().name("dodo-ingestion".into()).spawn(serve_all)?;
    Ok(sender)
}
