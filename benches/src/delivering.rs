//! How fast spooled calls go out, beside a loop that does nothing but post ready-made bodies.
//!
//! The calls are spooled while the server holds back its answers; the clock runs from the moment at
//! which it answers again to the return of the flush. What had reached the server before counts for
//! nobody. The bodies of the bare loop are as large as ours, and wait in memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dodo_ingestion::{Durability, limits};

use crate::Plan;
use crate::clients::{Ours, bare, post, runtime};
use crate::cpu;
use crate::event::{self, Customers};
use crate::figures::{Aim, Section, number};
use crate::sink::{Counts, Sink};

const PER_REQUEST: u64 = limits::EVENTS_PER_REQUEST as u64;
/// The name of the core's thread.
const ENGINE: &str = "dodo-ingestion";
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn run(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(300_000, 100_000);
    let mut sink = Sink::start(0)?;
    let customers = Customers::new();
    let bodies = (0..calls / PER_REQUEST)
        .map(|nth| event::body(&customers, nth * PER_REQUEST..(nth + 1) * PER_REQUEST))
        .collect::<Result<Vec<_>>>()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        theirs.push(post_all(&mut sink, bodies.clone(), calls)?);
        ours.push(drain(&mut sink, calls, plan)?);
    }
    let rates = |rounds: &[Round]| rounds.iter().map(|round| round.rate).collect::<Vec<_>>();
    let cpu = |rounds: &[Round]| rounds.iter().map(|round| round.cpu).collect::<Option<Vec<_>>>();
    let mut section = Section::new(
        "delivering",
        format!(
            "calls a second over loopback, one request after the other; {} rounds of {} calls",
            plan.rounds,
            number(calls as f64)
        ),
    );
    section.row("bare loop", "calls/s", &rates(&theirs)).compared(
        "spool drained",
        "calls/s",
        &rates(&ours),
        ("bare loop", &rates(&theirs)),
        Some(Aim::AtLeast(0.8)),
    );
    if let (Some(theirs), Some(ours)) = (cpu(&theirs), cpu(&ours)) {
        let (loop_cpu, engine_cpu) =
            ("bare loop, its thread", "spool drained, the engine's thread");
        section.row(loop_cpu, "ns of processor a call", &theirs).compared(
            engine_cpu,
            "ns of processor a call",
            &ours,
            (loop_cpu, &theirs),
            None,
        );
    }
    for (what, rounds) in [("bare loop", theirs), ("spool drained", ours)] {
        if let Some(Round { counts, .. }) = rounds.last() {
            section.note(format!(
                "{what}: {} requests of {} calls, {} bytes a call",
                number(counts.requests as f64),
                number(counts.calls_per_request()),
                number(counts.bytes_per_call())
            ));
        }
    }
    Ok(section)
}

struct Round {
    /// Calls a second.
    rate: f64,
    /// Nanoseconds of processor that a call cost the client's thread.
    cpu: Option<f64>,
    counts: Counts,
}

fn drain(sink: &mut Sink, calls: u64, plan: &Plan) -> Result<Round> {
    sink.forget()?;
    sink.hold()?;
    let ours = Ours::open(&sink.base_url(), Durability::Process, &plan.dir)?;
    ours.accept(0..calls)?;
    let before = sink.release()?.events;
    let (start, cpu_start) = (Instant::now(), cpu::threads_named(ENGINE));
    ours.blocking_flush(PATIENCE)?;
    let (took, cpu_end) = (start.elapsed(), cpu::threads_named(ENGINE));
    let counts = sink.counts()?;
    counts.check(calls)?;
    ours.check_all_billed(calls)?;
    Ok(round(calls - before, took, cpu_start.zip(cpu_end), counts))
}

fn post_all(sink: &mut Sink, bodies: Vec<Vec<u8>>, calls: u64) -> Result<Round> {
    sink.forget()?;
    let client = bare(1)?;
    let url = format!("{}/events/ingest", sink.base_url());
    let (took, cpu) = runtime()?.block_on(async {
        let (start, cpu_start) = (Instant::now(), cpu::this_thread());
        for body in bodies {
            post(&client, &url, body.into()).await?;
        }
        Ok::<_, anyhow::Error>((start.elapsed(), cpu_start.zip(cpu::this_thread())))
    })?;
    let counts = sink.counts()?;
    counts.check(calls)?;
    ensure!(counts.requests == calls / PER_REQUEST, "requests were repeated: {counts:?}");
    Ok(round(calls, took, cpu, counts))
}

fn round(calls: u64, took: Duration, cpu: Option<(Duration, Duration)>, counts: Counts) -> Round {
    let cpu = cpu.map(|(start, end)| end.saturating_sub(start).as_nanos() as f64 / calls as f64);
    Round { rate: calls as f64 / took.as_secs_f64(), cpu, counts }
}
