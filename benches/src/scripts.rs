//! Contenders in other languages: scripts beside this crate's sources, each run in a process of its own, fresh in each
//! round, with a directory of its own for a spool.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::Plan;
use crate::child::Talking;
use crate::load::{Connection, Latency, percentiles};
use crate::sink::Sink;

/// So many requests one server is asked before the other is,
const AT_A_TIME: u64 = 200;
/// and so many after pauses.
const PAUSED: u64 = 20;
/// In which a server has done what was left to do of the request before.
const PAUSE: Duration = Duration::from_millis(1);

/// One of the contenders that a script can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    /// How its rows are called.
    pub(crate) name: &'static str,
    /// How the script calls it.
    pub(crate) argument: &'static str,
    /// What stands before the id of an event in the bodies that it sends.
    pub(crate) key: &'static str,
}

#[derive(Debug)]
struct Script {
    child: Talking,
    /// Removed after its end.
    _dir: TempDir,
}

impl Script {
    fn start(
        plan: &Plan,
        script: &str,
        contender: &Contender,
        calls: u64,
        sink: &Sink,
    ) -> Result<Self> {
        let interpreter = plan.interpreter.as_ref().context("no interpreter")?;
        let dir = TempDir::with_prefix_in("dodo-ingestion-bench-", &plan.dir)?;
        let mut command = Command::new(interpreter);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
            .arg(contender.argument)
            .args(["--base-url", &sink.base_url(), "--calls", &calls.to_string(), "--dir"])
            .arg(dir.path());
        if plan.cpu {
            command.arg("--cpu");
        }
        Ok(Self { child: Talking::start(&mut command)?, _dir: dir })
    }
}

/// Runs a contender to its end; what it measured. The server counts from zero for it.
pub(crate) fn run<T: DeserializeOwned>(
    plan: &Plan,
    script: &str,
    contender: &Contender,
    calls: u64,
    sink: &mut Sink,
) -> Result<T> {
    sink.know_by(contender.key)?;
    let script = Script::start(plan, script, contender, calls, sink)?;
    script.child.finish().with_context(|| contender.name)
}

/// What a contender that serves a route says of itself.
#[derive(Debug, Deserialize)]
struct Up {
    port: u16,
}

#[derive(Debug, Deserialize)]
struct Down {
    /// Of processor, since it was told to measure.
    cpu_seconds: f64,
}

/// A round of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Of requests after pauses.
    pub(crate) paused: Latency,
    /// Of requests that follow each answer at once.
    pub(crate) back_to_back: Latency,
    /// Microseconds of processor that a request cost the server's process.
    pub(crate) cpu: f64,
}

/// How many requests a contender is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    /// Not measured: an engine that compiles what runs often has done so after these.
    pub(crate) warm_up: u64,
    /// Measured, back to back.
    pub(crate) measured: u64,
}

impl Requests {
    fn back_to_back_and_paused(self) -> u64 {
        self.measured + self.measured / AT_A_TIME * PAUSED
    }

    pub(crate) fn all(self) -> u64 {
        self.warm_up + self.back_to_back_and_paused()
    }
}

/// Has two contenders serve a route, and asks each so often over one connection: a server of one thread would make
/// the requests of several wait for each other. They are asked in turn, a few requests at a time, so that what else
/// the machine does in a second falls on both. The server counts from zero for the second.
pub(crate) fn serve(
    plan: &Plan,
    script: &str,
    contenders: [&Contender; 2],
    requests: Requests,
    sink: &mut Sink,
) -> Result<[Served; 2]> {
    sink.know_by(contenders[1].key)?;
    let mut serving = Vec::new();
    for contender in contenders {
        let mut script = Script::start(plan, script, contender, 0, sink)?;
        let up: Up = script.child.reply().with_context(|| contender.name)?;
        let connection = Connection::open(([127, 0, 0, 1], up.port).into())?;
        let (paused, back_to_back) = (Vec::new(), Vec::new());
        serving.push((script, connection, paused, back_to_back));
    }
    for _ in 0..requests.warm_up / AT_A_TIME {
        // In turn here too: a server closes a connection on which nobody asks for some seconds.
        for (_, connection, ..) in &mut serving {
            connection.ask(AT_A_TIME, Duration::ZERO)?;
        }
    }
    for (script, ..) in &mut serving {
        script.child.tell("measure")?;
    }
    for _ in 0..requests.measured / AT_A_TIME {
        for (_, connection, paused, back_to_back) in &mut serving {
            back_to_back.extend(connection.ask(AT_A_TIME, Duration::ZERO)?);
            paused.extend(connection.ask(PAUSED, PAUSE)?);
        }
    }
    let mut served = Vec::new();
    for ((script, connection, paused, back_to_back), contender) in
        serving.into_iter().zip(contenders)
    {
        drop(connection);
        let down: Down = script.child.finish().with_context(|| contender.name)?;
        let cpu = down.cpu_seconds * 1e6 / requests.back_to_back_and_paused() as f64;
        let (paused, back_to_back) = (percentiles(paused)?, percentiles(back_to_back)?);
        served.push(Served { paused, back_to_back, cpu });
    }
    <[Served; 2]>::try_from(served).map_err(|_| anyhow!("two contenders serve"))
}
