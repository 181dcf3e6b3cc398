//! What it costs a thread to have a call accepted.
//!
//! Isolated from delivery: nobody listens on the port, no call becomes due by itself, and each round
//! has a client and a spool of its own. The engine looks at the spool once a second all the same.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use dodo_ingestion::Durability;
use tempfile::TempDir;

use crate::Plan;
use crate::clients::{Ours, dead_port};
use crate::cpu;
use crate::event::{self, Customers};
use crate::figures::{Aim, Section, number};

const SERIALISE: &str = "serialise";
const WRITE: &str = "serialise + write";
const SYNC: &str = "serialise + write + sync";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Serialise,
    Write,
    Memory,
    Process,
    WriteAndSync,
    Disk,
}

impl Contender {
    const QUICK: [Self; 4] = [Self::Serialise, Self::Write, Self::Memory, Self::Process];
    const SYNCED: [Self; 2] = [Self::WriteAndSync, Self::Disk];

    const fn name(self) -> &'static str {
        match self {
            Self::Serialise => SERIALISE,
            Self::Write => WRITE,
            Self::WriteAndSync => SYNC,
            Self::Memory => "accept, memory",
            Self::Process => "accept, process",
            Self::Disk => "accept, disk",
        }
    }

    /// What it is compared with, and how it should compare.
    const fn yardstick(self) -> Option<(Self, Option<Aim>)> {
        match self {
            Self::Serialise | Self::WriteAndSync => None,
            Self::Write | Self::Memory => Some((Self::Serialise, None)),
            Self::Process => Some((Self::Write, Some(Aim::AtMost(1.5)))),
            Self::Disk => Some((Self::WriteAndSync, None)),
        }
    }

    /// Nanoseconds that a call costs its thread.
    fn measure(self, load: &Load<'_>) -> Result<f64> {
        match self {
            Self::Serialise => serialise(load),
            Self::Write => write(load, false),
            Self::WriteAndSync => write(load, true),
            Self::Memory => accept(load, Durability::Memory),
            Self::Process => accept(load, Durability::Process),
            Self::Disk => accept(load, Durability::Disk),
        }
    }
}

/// What is done in a round, and where.
#[derive(Clone, Copy, Debug)]
struct Load<'a> {
    calls: u64,
    threads: u64,
    cpu: bool,
    base_url: &'a str,
    dir: &'a Path,
}

pub(crate) fn run(plan: &Plan) -> Result<Section> {
    // In memory, 16 MiB is all there is.
    let calls = plan.calls(40_000, 20_000);
    let synced_calls = plan.calls(200, 40);
    let base_url = format!("http://127.0.0.1:{}", dead_port()?);
    let mut section = Section::new(
        "accepting",
        format!(
            "nanoseconds of {} that a call costs its thread; events of {} bytes with five metadata \
             entries; {} rounds of {} calls ({synced_calls} where each is synced)",
            if plan.cpu { "processor" } else { "wall clock" },
            event::bytes()?,
            plan.rounds,
            number(calls as f64),
        ),
    );
    for threads in [1, 2] {
        for (contenders, calls) in
            [(&Contender::QUICK[..], calls), (&Contender::SYNCED[..], synced_calls)]
        {
            let (base_url, dir) = (&*base_url, &*plan.dir);
            let load = Load { calls, threads, cpu: plan.cpu, base_url, dir };
            let mut figures = vec![Vec::new(); contenders.len()];
            for _ in 0..plan.rounds {
                for (contender, figures) in contenders.iter().zip(&mut figures) {
                    figures.push(contender.measure(&load)?);
                }
            }
            let figures_of = |wanted: Contender| {
                let at = contenders.iter().position(|contender| *contender == wanted);
                at.map_or(&[][..], |at| &figures[at])
            };
            for contender in contenders {
                let what = match threads {
                    1 => contender.name().to_owned(),
                    _ => format!("{}, {threads} threads", contender.name()),
                };
                let own = figures_of(*contender);
                match contender.yardstick() {
                    Some((to, aim)) => {
                        section.compared(&what, "ns", own, (to.name(), figures_of(to)), aim)
                    }
                    None => section.row(&what, "ns", own),
                };
            }
        }
    }
    section.note(
        "serialise: serde_json, borrowed data, into a buffer that is reused. write: that, and one \
         write(2) to a file opened for appending."
            .into(),
    );
    section.note(
        "accept: the whole of it, with the call built from its parts, validated, given an id, \
         checksummed and spooled. Two threads share one client, or one file."
            .into(),
    );
    Ok(section)
}

/// Runs the work on so many threads at once; the nanoseconds that a call took its thread.
fn time(load: &Load<'_>, work: impl Fn(u64) -> Result<()> + Sync) -> Result<f64> {
    let share = load.calls / load.threads;
    let barrier = Barrier::new(load.threads as usize);
    let slowest = std::thread::scope(|scope| {
        let run = |_| {
            scope.spawn(|| {
                barrier.wait();
                let (start, cpu_start) = (Instant::now(), cpu::this_thread());
                work(share)?;
                let spent =
                    cpu::this_thread().zip(cpu_start).map(|(end, start)| end.saturating_sub(start));
                let spent = spent.filter(|_| load.cpu);
                Ok::<_, anyhow::Error>(spent.unwrap_or_else(|| start.elapsed()))
            })
        };
        let running: Vec<_> = (0..load.threads).map(run).collect();
        running.into_iter().try_fold(Duration::ZERO, |slowest, thread| {
            let took = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            Ok::<_, anyhow::Error>(slowest.max(took))
        })
    })?;
    Ok(slowest.as_nanos() as f64 / share as f64)
}

fn serialise(load: &Load<'_>) -> Result<f64> {
    let customers = Customers::new();
    time(load, |share| {
        let mut buffer = Vec::with_capacity(512);
        for number in 0..share {
            buffer.clear();
            event::write(&customers, number, &mut buffer)?;
            black_box(&buffer);
        }
        Ok(())
    })
}

fn write(load: &Load<'_>, sync: bool) -> Result<f64> {
    let customers = Customers::new();
    let dir = TempDir::with_prefix_in("dodo-ingestion-bench-", load.dir)?;
    let file: File = OpenOptions::new().append(true).create(true).open(dir.path().join("file"))?;
    time(load, |share| {
        let mut buffer = Vec::with_capacity(512);
        for number in 0..share {
            buffer.clear();
            event::write(&customers, number, &mut buffer)?;
            ensure!((&file).write(&buffer)? == buffer.len(), "a short write");
            if sync {
                file.sync_data()?;
            }
        }
        Ok(())
    })
}

fn accept(load: &Load<'_>, durability: Durability) -> Result<f64> {
    let customers = Customers::new();
    let ours = Ours::open(load.base_url, durability, load.dir)?;
    // Lets the engine finish starting up, which is not what is measured.
    std::thread::sleep(Duration::from_millis(50));
    let nanos = time(load, |share| {
        for number in 0..share {
            black_box(ours.track(event::call(&customers, number))?);
        }
        Ok(())
    })?;
    let stats = ours.stats();
    ensure!(stats.accepted == load.calls && stats.spooled == load.calls, "lost calls: {stats:?}");
    Ok(nanos)
}
