//! The engine: one thread a process, with its own single-threaded runtime, on which one task serves
//! each namespace.
//!
//! The task of a namespace tries to be its one sender: the holder of `sender.lock`. The sender
//! drains every spool of the namespace, of living and dead processes alike, by carrying out what
//! [`Delivery`](crate::delivery::Delivery) asks for. Everyone else watches the cursor of its own
//! spool while somebody waits for it.
//!
//! No other module starts a thread, but for the one that a look-up of a host name has in `transport`.

mod opening;
mod records;
mod registry;
mod sender;
mod task;
#[cfg(test)]
mod tests;
mod trouble;
mod watch;

pub(crate) use registry::{is_in_memory, open};
pub(crate) use watch::settlement_of_inherited;
#[cfg(test)]
pub(crate) use {sender::Held, task::Task as NamespaceTask};

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::alarm::AlarmKind;
use crate::clock;
use crate::error::{Error, Result};
use crate::process::{self, PerProcess};
use crate::shared::Shared;
use crate::spool::Namespace;

const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What the engine is asked to do.
#[derive(Clone)]
enum Job {
    /// Serve a namespace.
    Serve { shared: Arc<Shared>, namespace: Namespace },
    /// Learn what becomes of a spool that was another process's before the fork.
    Watch(watch::Watch),
}

/// What callers share with the engine's thread.
#[derive(Default)]
struct Engine {
    runs: Mutex<bool>,
    /// What its thread has not taken up.
    jobs: Mutex<Vec<Job>>,
    waker: Mutex<Option<Waker>>,
}

struct Task {
    job: Job,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

thread_local! {
    /// What the engine's thread is doing.
    static TASKS: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens under these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a job to the engine, starting its thread if need be.
fn serve(job: Job) -> Result<()> {
    static ENGINE: PerProcess<Engine> = PerProcess::new();
    let engine = ENGINE.get_or_init(Engine::default);
    let mut runs = lock(&engine.runs);
    if !*runs {
        start_thread(engine)
            .map_err(|error| Error::storage("the engine's thread cannot be started", error))?;
        *runs = true;
    }
    drop(runs);
    lock(&engine.jobs).push(job);
    if process::descriptors_are_intact()
        && let Some(waker) = lock(&engine.waker).take()
    {
        waker.wake();
    }
    Ok(())
}

fn start_thread(engine: &'static Engine) -> io::Result<()> {
    let (built, is_built) = mpsc::sync_channel(1);
    let run = move || match build_runtime(engine) {
        Ok(runtime) => {
            let _ = built.send(Ok(()));
            run(engine, runtime);
        }
        Err(error) => _ = built.send(Err(error)),
    };
    std::thread::Builder::new().name("dodo-ingestion".into()).spawn(run)?;
    is_built.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")))
}

fn build_runtime(engine: &'static Engine) -> io::Result<Runtime> {
    process::watch_descriptors()?;
    let look = move || {
        if !process::descriptors_are_intact() {
            abandon(engine);
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(look)
        .on_thread_unpark(look)
        .build()
}

/// Does the jobs. Should the runtime panic, another thread begins anew with another one.
fn run(engine: &'static Engine, runtime: Runtime) {
    let all = poll_fn(|context| poll_all(engine, context));
    let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(all)));
    let give_back = async { give_back(engine) };
    let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(give_back)));
    // The numbers of its descriptors may be the host's by now.
    std::mem::forget(runtime);
    start_anew(engine);
}

fn poll_all(engine: &Engine, context: &mut Context<'_>) -> Poll<Infallible> {
    *lock(&engine.waker) = Some(context.waker().clone());
    let new = std::mem::take(&mut *lock(&engine.jobs));
    TASKS.with_borrow_mut(|tasks| {
        tasks.extend(new.into_iter().map(|job| Task { future: job.clone().start(), job }));
        tasks.retain_mut(|task| task.future.as_mut().poll(context).is_pending());
    });
    Poll::Pending
}

/// The host closed the descriptors that the runtime waits with, and may have others under their
/// numbers. The runtime would panic, and close them: it stays where it is, with its thread.
fn abandon(engine: &'static Engine) -> ! {
    give_back(engine);
    start_anew(engine);
    loop {
        std::thread::park();
    }
}

/// Leaves the jobs to another thread. To be called within the runtime, so that nothing is woken
/// through its descriptors.
fn give_back(engine: &Engine) {
    let tasks = TASKS.take();
    let mut jobs = lock(&engine.jobs);
    jobs.extend(tasks.iter().map(|task| task.job.clone()));
    drop(jobs);
    drop(tasks);
}

fn start_anew(engine: &'static Engine) {
    loop {
        std::thread::sleep(RESTART_PAUSE);
        if start_thread(engine).is_ok() {
            return;
        }
    }
}

impl Job {
    fn start(self) -> Pin<Box<dyn Future<Output = ()>>> {
        match self {
            Self::Serve { shared, namespace } => Box::pin(supervise(shared, namespace)),
            Self::Watch(watch) => Box::pin(watch.run()),
        }
    }
}

/// Runs a namespace's task, and begins it anew should it panic: everything it knows is on disk.
async fn supervise(shared: Arc<Shared>, namespace: Namespace) {
    while !ends(task::run(shared.clone(), namespace.clone())).await {
        let message = "delivery stopped unexpectedly and begins anew; please report this";
        shared.alarms.raise(AlarmKind::Storage, message, clock::now().mono);
        tokio::time::sleep(RESTART_PAUSE).await;
    }
    shared.settlement.end();
}

/// False when it panics instead.
async fn ends(task: impl Future<Output = ()>) -> bool {
    let mut task = pin!(task);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        polled.map_or(Poll::Ready(false), |poll| poll.map(|()| true))
    })
    .await
}
