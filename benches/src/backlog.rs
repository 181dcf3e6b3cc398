//! An hour without a server: what a backlog costs in memory, and how fast it is gone afterwards.
//!
//! The client is a process of its own, so that its memory is nobody else's.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use dodo_ingestion::Durability;
use serde::{Deserialize, Serialize};

use crate::Plan;
use crate::child::Talking;
use crate::clients::{Ours, dead_port};
use crate::figures::{Aim, Section, number};
use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(600);

/// What the client process tells once it has accepted everything, and once all is delivered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Report {
    /// Resident memory before the client was made, now, and at its highest; where the system tells.
    before: Option<f64>,
    now: Option<f64>,
    peak: Option<f64>,
    seconds: f64,
    requests: u64,
}

pub(crate) fn run(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(1_000_000, 200_000);
    // Slow, and hardly noisy: two rounds are enough.
    let rounds = plan.rounds.min(2);
    let mut accepted = Vec::new();
    let mut drained = Vec::new();
    let mut last = None;
    for _ in 0..rounds {
        let round = round(plan, calls)?;
        accepted.push(round.0);
        drained.push(round.1);
        last = Some((round.2, round.3));
    }
    let each = |reports: &[Report], figure: fn(&Report) -> Option<f64>| -> Vec<f64> {
        reports.iter().filter_map(figure).collect()
    };
    let mut section = Section::new(
        "backlog",
        format!(
            "{} calls accepted while nobody listens, then delivered; {rounds} rounds",
            number(calls as f64)
        ),
    );
    let aim = Some(Aim::AtMost(32.0));
    let rates: Vec<f64> = accepted.iter().map(|report| calls as f64 / report.seconds).collect();
    section.row("accepted", "calls/s", &rates);
    let grown = |report: &Report| Some(report.now? - report.before?);
    let peak = |report: &Report| Some(report.peak? - report.before?);
    if accepted.iter().all(|report| grown(report).is_some()) {
        section.aimed("memory of the backlog", "MiB", &each(&accepted, grown), aim);
        section.aimed(
            "memory at its highest, delivery included",
            "MiB",
            &each(&drained, peak),
            aim,
        );
    } else {
        section.note("This system does not tell a process's resident memory.".into());
    }
    let rates: Vec<f64> = drained.iter().map(|report| calls as f64 / report.seconds).collect();
    section.row("drained, from the first request on", "calls/s", &rates);
    if let Some((counts, waited)) = last {
        section.note(format!(
            "exactly {} distinct calls at the server, in {} requests of {} calls; the first came {} s \
             after it was up, as the pause between attempts had it",
            number(counts.distinct as f64),
            number(counts.requests as f64),
            number(counts.calls_per_request()),
            number(waited)
        ));
    }
    section.note(
        "Memory is resident memory beyond what the process had before its client was made.".into(),
    );
    Ok(section)
}

type Round = (Report, Report, crate::sink::Counts, f64);

fn round(plan: &Plan, calls: u64) -> Result<Round> {
    let port = dead_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--as", "backlog", "--port", &port.to_string(), "--calls", &calls.to_string()]);
    let mut child = Talking::start(command.arg("--dir").arg(&plan.dir))?;
    let accepted = child.reply()?;
    let mut sink = Sink::start(port)?;
    let mut drained: Report = child.finish()?;
    let counts = sink.counts()?;
    counts.check(calls)?;
    let waited = drained.seconds - counts.seconds;
    drained.seconds = counts.seconds;
    Ok((accepted, drained, counts, waited))
}

/// The client process's own life.
pub(crate) fn hold(port: u16, calls: u64, dir: &Path) -> Result<()> {
    let before = resident("VmRSS");
    let report = |since: Instant, requests| {
        let (now, peak) = (resident("VmRSS"), resident("VmHWM"));
        let seconds = since.elapsed().as_secs_f64();
        serde_json::to_string(&Report { before, now, peak, seconds, requests })
    };
    let ours = Ours::open(&format!("http://127.0.0.1:{port}"), Durability::Process, dir)?;
    let start = Instant::now();
    ours.accept(0..calls)?;
    println!("{}", report(start, 0)?);
    std::io::stdin().read_line(&mut String::new())?;
    let start = Instant::now();
    ours.blocking_flush(PATIENCE)?;
    println!("{}", report(start, ours.stats().requests)?);
    ours.check_all_billed(calls)
}

/// A figure of this process's memory in MiB, where the system has it.
fn resident(which: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}
