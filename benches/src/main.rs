//! `cargo xtask bench`: what accepting and delivering cost, each measured beside its own yardstick.
//!
//! | bench        | measures | beside |
//! |--------------|----------|--------|
//! | `accepting`  | a call accepted, at each durability, by one and two threads | serialising it, and serialising and writing it |
//! | `delivering` | spooled calls drained into a server | a loop that posts ready-made bodies |
//! | `backlog`    | a million calls accepted while the server is down, then drained | its aim of memory |
//! | `today`      | calls accepted and delivered | one request per call, 100 at a time |
//! | `middleware` | requests to a metered route | the same route without the layer |
//!
//! `cargo xtask bench python` and `cargo xtask bench node` compare the packages of these languages with what their
//! users have today: the contenders are the scripts in `python/` and `node/`.
//!
//! | bench        | measures | beside |
//! |--------------|----------|--------|
//! | `python`: `accepting`  | a call accepted | `capture` of `posthog`, `track` of Segment, building the event |
//! | `python`: `delivering` | calls accepted and delivered | the official SDK, 100 and 1000 a request |
//! | `python`: `fastapi`    | requests to a metered route | the same without middleware, and with Apitally's |
//! | `node`: `adding`       | a call added to a batch | the existing package, `capture` of `posthog`, building the call |
//! | `node`: `delivering`   | calls added and delivered: time, requests, processor, memory | the existing package, the official SDK, `posthog` |
//! | `node`: `express`, `fastify` | requests to a metered route | the same without middleware |
//!
//! The contenders of a bench take turns, round by round, in one run; a ratio is taken within a round,
//! so that what else the machine does falls on both sides of it. The server is this program's own
//! child process and the same for all. Counts are checked exactly at the server: a wrong count fails
//! the run, a slow figure does not.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks to its terminal"
)]

mod accepting;
mod backlog;
mod child;
mod clients;
mod cpu;
mod delivering;
mod event;
mod figures;
mod load;
mod middleware;
mod node;
mod python;
mod route;
mod scripts;
mod sink;
mod today;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};

use crate::figures::Section;

/// Compares dodo-ingestion with what bounds it and with what users have today.
///
/// `cargo xtask bench python` and `cargo xtask bench node` compare the packages of these languages.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Run only the benches whose name contains one of these words
    filters: Vec<String>,
    /// A short run: fewer calls, fewer rounds, noisier figures
    #[arg(long)]
    quick: bool,
    /// Print JSON in place of tables
    #[arg(long)]
    json: bool,
    /// Time the threads of `accepting` by what they spent on a processor, not by the wall clock: for a
    /// machine that others use as well (Linux)
    #[arg(long)]
    cpu: bool,
    /// How often each comparison is repeated
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Where spools and files are written; choose a disk that is worth measuring
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// The interpreter of the contenders in Python, which are compared then
    #[arg(long, hide = true, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// The same in JavaScript
    #[arg(long, hide = true, value_name = "PROGRAM", conflicts_with = "python")]
    node: Option<PathBuf>,
    /// What this process is, when another of this program started it
    #[arg(long = "as", hide = true)]
    role: Option<Role>,
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
    #[arg(long, hide = true, default_value_t = 0)]
    calls: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Sink,
    Backlog,
}

/// How much is measured.
#[derive(Clone, Debug)]
struct Plan {
    quick: bool,
    cpu: bool,
    rounds: usize,
    dir: PathBuf,
    /// Of the contenders that are scripts.
    interpreter: Option<PathBuf>,
}

impl Plan {
    /// One of two numbers of calls: for the full and for the quick run.
    fn calls(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }
}

type Bench = fn(&Plan) -> Result<Section>;
const RUST: &[(&str, Bench)] = &[
    ("accepting", accepting::run),
    ("delivering", delivering::run),
    ("backlog", backlog::run),
    ("today", today::run),
    ("middleware", middleware::run),
];
const PYTHON: &[(&str, Bench)] = &[
    ("accepting", python::accepting),
    ("contended", python::contended),
    ("delivering", python::delivering),
    ("fastapi", python::fastapi),
];
const NODE: &[(&str, Bench)] = &[
    ("adding", node::adding),
    ("delivering", node::delivering),
    ("express", node::express),
    ("fastify", node::fastify),
];

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.role {
        Some(Role::Sink) => sink::serve(options.port),
        Some(Role::Backlog) => backlog::hold(options.port, options.calls, &options.dir),
        None => compare(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    if options.cpu && cpu::this_thread().is_none() {
        bail!("this system does not tell what a thread spent on a processor");
    }
    let rounds = options.rounds.map_or(if options.quick { 3 } else { 9 }, usize::from);
    let (benches, interpreter) = match (&options.python, &options.node) {
        (Some(python), _) => (PYTHON, Some(python.clone())),
        (None, Some(node)) => (NODE, Some(node.clone())),
        (None, None) => (RUST, None),
    };
    let plan = Plan {
        quick: options.quick,
        cpu: options.cpu,
        rounds,
        dir: options.dir.clone(),
        interpreter,
    };
    let chosen: Vec<_> = benches
        .iter()
        .filter(|(name, _)| {
            options.filters.is_empty() || options.filters.iter().any(|word| name.contains(word))
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = benches.iter().map(|(name, _)| *name).collect();
        bail!("no bench has that in its name; there are {}", names.join(", "));
    }
    let mut sections = Vec::new();
    for (name, bench) in chosen {
        if !options.json {
            eprintln!("measuring {name} …");
        }
        let section = bench(&plan).with_context(|| name)?;
        if !options.json {
            println!("{section}");
        }
        sections.push(section);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&sections)?);
    }
    Ok(())
}
