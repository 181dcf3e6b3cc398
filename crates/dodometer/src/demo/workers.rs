//! The workers: several processes of the metered API, which share one spool directory, and the one of them
//! that is killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::sync::{mpsc, watch};

use super::FLUSH_TIMEOUT;
use super::outage::pause;
use super::traffic::Targets;

const POLL: Duration = Duration::from_millis(50);

/// The workers that the demo has, and what they are started with.
pub(crate) struct Workers {
    number: usize,
    meter: SocketAddr,
    spool: PathBuf,
    notes: mpsc::UnboundedSender<String>,
    running: Vec<Worker>,
    kills: u32,
}

struct Worker {
    name: String,
    address: SocketAddr,
    process: Process,
}

/// A child that does not outlive its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

impl Process {
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(|_| ())
    }
}

impl Workers {
    pub(crate) fn new(
        number: usize,
        meter: SocketAddr,
        spool: &Path,
        notes: mpsc::UnboundedSender<String>,
    ) -> Self {
        let spool = spool.to_owned();
        Self { number, meter, spool, notes, running: Vec::new(), kills: 0 }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn kills(&self) -> u32 {
        self.kills
    }

    /// Starts them, one after the other: the first becomes the one that sends for all.
    pub(crate) async fn start(&mut self, targets: &Targets) -> anyhow::Result<()> {
        for number in 1..=self.number {
            let worker = self.launch(format!("worker {number}")).await?;
            self.running.push(worker);
        }
        targets.set(self.addresses());
        Ok(())
    }

    /// In the middle of the load, SIGKILL to the first; another takes its place. Nothing happens when the
    /// demo is ending by then.
    pub(crate) async fn kill_one(
        &mut self,
        load: Duration,
        targets: &Targets,
        mut ending: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        if pause(load / 2, &mut ending).await {
            return Ok(());
        }
        let mut victim = self.running.remove(0);
        victim.process.kill().with_context(|| format!("cannot kill {}", victim.name))?;
        self.kills += 1;
        targets.set(self.addresses());
        self.note(format!("{} is killed", victim.name));
        let successor = self.launch(victim.name).await?;
        self.note(format!("{} is back, as another process", successor.name));
        self.running.insert(0, successor);
        targets.set(self.addresses());
        Ok(())
    }

    /// Waits until the calls of the dead are billed, and has the living close: they end well once theirs are.
    pub(crate) async fn settle(&mut self, targets: &Targets) -> anyhow::Result<()> {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        // Each of the living has one spool. That of a killed one goes when all in it is billed.
        while self.spools()? > self.running.len() {
            ensure!(Instant::now() < deadline, "a killed worker's calls are still spooled");
            tokio::time::sleep(POLL).await;
        }
        targets.set(Vec::new());
        for stdin in self.running.iter_mut().filter_map(|worker| worker.process.0.stdin.as_mut()) {
            // One that has ended says so by its status.
            let _ = writeln!(stdin, "close");
        }
        for mut worker in self.running.drain(..) {
            let status = loop {
                if let Some(status) = worker.process.0.try_wait()? {
                    break status;
                }
                ensure!(Instant::now() < deadline, "{} does not end", worker.name);
                tokio::time::sleep(POLL).await;
            };
            ensure!(status.success(), "{} ended badly: {status}", worker.name);
        }
        Ok(())
    }

    /// Ends those that still run, as they do when the demo fails.
    pub(crate) fn leave(self) -> anyhow::Result<()> {
        for mut worker in self.running {
            worker.process.kill().with_context(|| format!("cannot end {}", worker.name))?;
        }
        Ok(())
    }

    /// Calls that were set aside, over all workers.
    pub(crate) fn dead_lettered(&self) -> anyhow::Result<u64> {
        let Some(namespace) = self.namespace()? else { return Ok(0) };
        match std::fs::read_to_string(namespace.join("dead-letters.jsonl")) {
            Ok(letters) => Ok(letters.lines().count() as u64),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).context("the dead letters cannot be read"),
        }
    }

    async fn launch(&self, name: String) -> anyhow::Result<Worker> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = Command::new(program);
        command.args(["demo-worker", "--meter", &self.meter.to_string(), "--spool"]);
        command.arg(&self.spool).stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut process = Process(process);
        let stdout = process.0.stdout.take().with_context(|| format!("the output of {name}"))?;
        let mut lines = lines(stdout);
        let Some(address) = lines.recv().await else {
            let status = process.0.wait()?;
            bail!("{name} did not start: {status}");
        };
        let address = address.parse().with_context(|| format!("{name} said {address:?}"))?;
        tokio::spawn(pass_on(name.clone(), lines, self.notes.clone()));
        Ok(Worker { name, address, process })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.running.iter().map(|worker| worker.address).collect()
    }

    /// How many spools the workers' namespace has.
    fn spools(&self) -> anyhow::Result<usize> {
        let Some(namespace) = self.namespace()? else { return Ok(0) };
        let spools = std::fs::read_dir(namespace.join("spools"));
        Ok(spools.context("the workers' spools cannot be listed")?.count())
    }

    /// The one directory that the client library makes for the demo's account.
    fn namespace(&self) -> anyhow::Result<Option<PathBuf>> {
        let made = std::fs::read_dir(self.spool.join("dodo-ingestion"));
        let made = made.context("the workers' spool directory cannot be read")?.next();
        Ok(made.transpose()?.map(|entry| entry.path()))
    }

    fn note(&self, line: String) {
        // Nobody listens to the notes only when the demo is over.
        let _ = self.notes.send(line);
    }
}

/// The lines of a worker's output, to its end.
fn lines(output: ChildStdout) -> mpsc::UnboundedReceiver<String> {
    let (line, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut read = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody reads them any more only when the demo is over.
        read.all(|read| line.send(read).is_ok())
    });
    lines
}

async fn pass_on(
    name: String,
    mut lines: mpsc::UnboundedReceiver<String>,
    notes: mpsc::UnboundedSender<String>,
) {
    while let Some(line) = lines.recv().await {
        let _ = notes.send(format!("{name}: {line}"));
    }
}
