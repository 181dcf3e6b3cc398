//! A program that uses the core: tracks calls until its standard input ends, then closes its client.
//!
//! It is configured by the environment. What it attempts and what it saw accepted goes into files that
//! outlive it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use dodo_ingestion::{ApiCall, BatchConfig, Ingestion};
use dodo_ingestion_lifecycle::notes::{self, Notebook};

/// How long the client may take to have its last calls billed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(100);
const POLL: Duration = Duration::from_millis(5);

#[derive(Parser)]
struct Arguments {
    /// What its ids begin with
    #[arg(long)]
    name: String,
    /// Where its notes go
    #[arg(long)]
    notes: PathBuf,
    /// How many threads make calls; every second one through a batch
    #[arg(long)]
    threads: usize,
    /// How many calls a thread makes as fast as it can before it rests
    #[arg(long)]
    burst: u64,
    /// How many calls a thread makes in such bursts; then it rests after each
    #[arg(long)]
    hasty: u64,
    /// How many microseconds a rest takes
    #[arg(long)]
    rest_us: u64,
}

fn main() -> Result<()> {
    let Arguments { name, notes, threads, burst, hasty, rest_us } = Arguments::parse();
    let ingestion = Ingestion::builder("")
        .on_alarm(|alarm| {
            // Nobody but a reader of the kept files is told.
            let _ = writeln!(std::io::stderr(), "{alarm}");
        })
        .build()?;
    let ending = Arc::new(AtomicBool::new(false));
    let tracking: Vec<_> = (0..threads)
        .map(|thread| {
            let tracker = Tracker {
                ingestion: ingestion.clone(),
                name: name.clone(),
                thread,
                notebook: Notebook::create(&notes, &name, thread)?,
                burst,
                hasty,
                rest: Duration::from_micros(rest_us),
                ending: ending.clone(),
            };
            Ok(thread::spawn(move || tracker.run()))
        })
        .collect::<Result<_>>()?;
    watch_standard_input(&ending);
    watch_for_requests(&ingestion, &notes, &name, &ending)?;
    for thread in tracking {
        thread.join().map_err(|_| anyhow!("a tracking thread panicked"))??;
    }
    ingestion.blocking_close(CLOSE_TIMEOUT).context("the client did not close")
}

/// Whoever started this process ends it by closing its standard input, also by dying.
fn watch_standard_input(ending: &Arc<AtomicBool>) {
    let ending = ending.clone();
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ending.store(true, Ordering::Relaxed);
    });
}

/// Notes when this process begins to send; returns when it is to end.
fn watch_for_requests(
    ingestion: &Ingestion,
    notes: &Path,
    name: &str,
    ending: &AtomicBool,
) -> Result<()> {
    let mut sending = false;
    while !ending.load(Ordering::Relaxed) {
        if !sending && ingestion.stats().requests > 0 {
            sending = true;
            notes::note_sending(notes, name)?;
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// One thread's calls.
struct Tracker {
    ingestion: Ingestion,
    name: String,
    thread: usize,
    notebook: Notebook,
    burst: u64,
    hasty: u64,
    rest: Duration,
    ending: Arc<AtomicBool>,
}

impl Tracker {
    fn run(mut self) -> Result<()> {
        let config = BatchConfig { max_size: 100, flush_interval: Duration::from_secs(1) };
        let batch =
            (self.thread % 2 == 1).then(|| self.ingestion.create_batch(config)).transpose()?;
        for number in 0_u64.. {
            if self.ending.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{}-{}-{number}", self.name, self.thread);
            let call = ApiCall::new(format!("cus_{}", number % 7))
                .event_id(&id)
                .endpoint("/v1/users/{id}")
                .method("GET")
                .status_code(200);
            self.notebook.attempting(&id)?;
            match &batch {
                Some(batch) => batch.add(call)?,
                None => _ = self.ingestion.track_api_call(call)?,
            }
            self.notebook.accepted(&id)?;
            if number >= self.hasty || number % self.burst == self.burst - 1 {
                thread::sleep(self.rest);
            }
        }
        Ok(())
    }
}
